/*
 * Plain functions on two kinds of userdata, pools and jobs; the methods a script
 * sees are the Lua half's. Arguments are checked there, so what is wrong here is
 * a bug of ours and raises as such.
 *
 * The supervisor is the host's: a userdata in the registry, made by start() and
 * stopped when the state is closed.
 */
#include "lua/module.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "lua/job_parts.h"
#include "lua/worker.h"

#include <lauxlib.h>
#include <string.h>
#include <unistd.h>

#define KEY_HOST  "tidemill.host"
#define POOL_TYPE "tidemill.core.pool"
#define JOB_TYPE  "tidemill.core.job"

/* ---- the host ---- */

static int host_gc(lua_State *L)
{
    struct tide_host *host = lua_touserdata(L, 1);
    tide_host_stop(host);
    return 0;
}

/* start(): fork the supervisor if there is none that answers. */
static int core_start(lua_State *L)
{
    struct tide_error err;
    struct tide_worker_ops ops = tide_lua_worker_ops();
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_HOST);
    struct tide_host *host = lua_touserdata(L, -1);
    if (host != NULL && host->alive && tide_host_is_ours(host))
        return 0;
    host = lua_newuserdata(L, sizeof *host);
    if (tide_host_start(host, &ops, &err) != TIDE_OK)
        return luaL_error(L, "%s", err.text);
    lua_newtable(L);
    lua_pushcfunction(L, host_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, KEY_HOST);
    return 0;
}

/* ---- pools ---- */

/* The pool at `index`; its `pool` is NULL once it has been released. */
static struct tide_lua_pool *check_pool(lua_State *L, int index)
{
    struct tide_lua_pool *owner = luaL_checkudata(L, index, POOL_TYPE);
    if (owner->pool != NULL && !tide_host_is_ours(owner->pool->host))
        luaL_error(L, "the pool belongs to process %d, this is %d",
                   (int)owner->pool->host->supervisor.owner, (int)getpid());
    return owner;
}

/* The same for a function that works on jobs; its arguments end at `top`. */
static struct tide_lua_pool *enter_pool(lua_State *L, int top)
{
    struct tide_lua_pool *owner = check_pool(L, 1);
    lua_settop(L, top);
    tide_jobs_enter(owner, L, 1);
    return owner;
}

static int pool_gc(lua_State *L)
{
    struct tide_lua_pool *owner = luaL_checkudata(L, 1, POOL_TYPE);
    owner->busy = 0;
    tide_jobs_enter(owner, L, 1);
    tide_jobs_free(owner, L);
    return 0;
}

/* Push the error that a worker left when it could not start, or nil. */
static void push_start_failure(lua_State *L, const struct tide_pool *pool)
{
    for (uint32_t i = 0; i < tide_board_worker_count(&pool->board); i++) {
        struct tide_worker_record *record = &pool->board.workers[i];
        uint64_t offset = atomic_load(&record->failure);
        uint32_t bytes = atomic_load(&record->failure_bytes);
        struct tide_error err;
        int count;
        if (offset == 0 || !tide_region_holds(&record->region, offset, bytes))
            continue;
        const unsigned char *at = tide_pool_at(pool, offset);
        if (tide_decode(tide_codec_of(L), L, &at, at + bytes, &count, NULL,
                        &err) == TIDE_OK)
            return;
    }
    lua_pushnil(L);
}

/* Wait for the workers; on failure push nil, the error table or a text. */
static int await_start(lua_State *L, struct tide_pool *pool)
{
    int status;
    do
        status = tide_pool_await_start(pool, TIDE_FOREVER);
    while (status == TIDE_EINTR);
    if (status == TIDE_OK)
        return 0;
    lua_pushnil(L);
    push_start_failure(L, pool);
    if (lua_isnil(L, -1))
        lua_pushstring(L, pool->reason);
    return 2;
}

/*
 * open(workers, config, wait) -> pool, or nil and what a worker raised (a table)
 * or why it could not be opened (a string).
 */
static int core_open(lua_State *L)
{
    size_t config_bytes;
    const char *config = luaL_checklstring(L, 2, &config_bytes);
    struct tide_pool_options options = {
        .worker_count = (uint32_t)luaL_checkint(L, 1),
        .config = config,
        .config_bytes = config_bytes,
    };
    struct tide_error err;
    struct tide_pool *pool;
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_HOST);
    struct tide_host *host = lua_touserdata(L, -1);

    struct tide_lua_pool *owner = lua_newuserdata(L, sizeof *owner);
    *owner = (struct tide_lua_pool){ 0 };
    lua_createtable(L, TIDE_POOL_JOBS, 0);
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_HOST);
    lua_rawseti(L, -2, TIDE_POOL_HOST); /* needed as long as the pool lives */
    lua_newtable(L);
    lua_rawseti(L, -2, TIDE_POOL_JOBS);
    lua_setfenv(L, -2);
    if (tide_pool_open(&pool, host, &options, &err) != TIDE_OK) {
        lua_pushnil(L);
        lua_pushstring(L, err.text);
        return 2;
    }
    if (tide_jobs_init(owner, pool, tide_codec_of(L)) != 0) {
        tide_pool_free(pool);
        return luaL_error(L, "cannot open a pool: out of memory");
    }
    luaL_getmetatable(L, POOL_TYPE);
    lua_setmetatable(L, -2);
    int pool_index = lua_gettop(L);
    int failed = lua_toboolean(L, 3) ? await_start(L, pool) : 0;
    if (failed) {
        tide_jobs_enter(owner, L, pool_index);
        tide_jobs_free(owner, L);
        lua_pop(L, 1);
    }
    return failed ? failed : 1;
}

static const char *outcome_text(int status)
{
    return status == TIDE_OK      ? "done"
           : status == TIDE_EINTR ? "interrupted"
                                  : "timeout";
}

static uint64_t check_deadline(lua_State *L, int index)
{
    return lua_isnoneornil(L, index)
               ? TIDE_FOREVER
               : tide_deadline_ns(luaL_checknumber(L, index));
}

/* wait(pool, job or nil, seconds or nil) -> "done", "timeout", "interrupted" */
static int core_wait(lua_State *L)
{
    struct tide_lua_pool *owner = enter_pool(L, 3);
    const struct tide_lua_job *job =
        lua_isnil(L, 2) ? NULL : luaL_checkudata(L, 2, JOB_TYPE);
    uint64_t deadline_ns = check_deadline(L, 3);
    lua_pushstring(L, outcome_text(tide_jobs_wait(owner, L, job, deadline_ns)));
    return 1;
}

/* step(pool): take in and hand out, without waiting. */
static int core_step(lua_State *L)
{
    struct tide_lua_pool *owner = enter_pool(L, 1);
    if (owner->pool == NULL)
        return 0;
    tide_host_attend(owner->pool->host);
    tide_jobs_step(owner, L);
    return 0;
}

/* close(pool): no new job; the workers end when those there are are over. */
static int core_close(lua_State *L)
{
    struct tide_lua_pool *owner = enter_pool(L, 1);
    owner->closed = 1;
    if (owner->pool != NULL)
        tide_jobs_step(owner, L);
    return 0;
}

/* kill(pool): end the workers now; jobs that are not over fail. */
static int core_kill(lua_State *L)
{
    const double patience_s = 5; /* SIGKILL takes no time, but for disk waits */
    struct tide_lua_pool *owner = enter_pool(L, 1);
    if (owner->pool == NULL)
        return 0;
    tide_jobs_step(owner, L); /* what has arrived has arrived */
    owner->closed = owner->terminated = 1;
    tide_pool_kill(owner->pool);
    tide_jobs_fail_all(owner, L, "terminated", "the pool was terminated");
    uint64_t deadline_ns = tide_deadline_ns(patience_s);
    while (tide_pool_join(owner->pool, deadline_ns) == TIDE_EINTR)
        continue;
    return 0;
}

/* join(pool, seconds or nil) -> as wait: until no worker is left */
static int core_join(lua_State *L)
{
    struct tide_lua_pool *owner = check_pool(L, 1);
    uint64_t deadline_ns = check_deadline(L, 2);
    int status = owner->pool != NULL ? tide_pool_join(owner->pool, deadline_ns)
                                     : TIDE_OK;
    lua_pushstring(L, outcome_text(status));
    return 1;
}

/* release(pool): give its memory back, if its workers have ended */
static int core_release(lua_State *L)
{
    struct tide_lua_pool *owner = enter_pool(L, 1);
    if (owner->pool != NULL && owner->pool->gone)
        tide_jobs_free(owner, L);
    return 0;
}

/* state(pool) -> "open", "closed", "terminated" or "broken", reason */
static int core_state(lua_State *L)
{
    const struct tide_lua_pool *owner = check_pool(L, 1);
    const struct tide_pool *pool = owner->pool;
    int broken = pool != NULL && pool->gone && pool->broken;
    const char *state = owner->terminated               ? "terminated"
                        : broken                        ? "broken"
                        : owner->closed || pool == NULL ? "closed"
                                                        : "open";
    lua_pushstring(L, state);
    lua_pushstring(L, broken ? pool->reason : "");
    return 2;
}

/* workers(pool) -> list of the pids there are now */
static int core_workers(lua_State *L)
{
    const struct tide_pool *pool = check_pool(L, 1)->pool;
    int count = 0;
    lua_newtable(L);
    for (uint32_t i = 0;
         pool != NULL && i < tide_board_worker_count(&pool->board); i++) {
        int pid = atomic_load(&pool->board.workers[i].pid);
        if (pid == 0)
            continue;
        lua_pushnumber(L, pid);
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

static void set_count(lua_State *L, const char *name, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

/* stats(pool) -> list of {pid, items, chunks, busy, restarts}, one per worker */
static int core_stats(lua_State *L)
{
    const double ns_per_s = 1e9;
    const struct tide_pool *pool = check_pool(L, 1)->pool;
    lua_newtable(L);
    for (uint32_t i = 0;
         pool != NULL && i < tide_board_worker_count(&pool->board); i++) {
        const struct tide_worker_record *record = &pool->board.workers[i];
        lua_createtable(L, 0, 5);
        set_count(L, "pid", atomic_load(&record->pid));
        set_count(L, "items", (double)atomic_load(&record->items));
        set_count(L, "chunks", (double)atomic_load(&record->chunks));
        set_count(L, "busy", (double)atomic_load(&record->busy_ns) / ns_per_s);
        set_count(L, "restarts", atomic_load(&record->restarts));
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* ---- jobs ---- */

/*
 * submit(pool, f, items, total, flags, chunk[, first, step]) -> job
 *
 * `items` is a table, or nil for the range first, first + step, ... of `total`.
 */
static int core_submit(lua_State *L)
{
    struct tide_job_order order = {
        .total = (uint64_t)luaL_checknumber(L, 4),
        .flags = (unsigned)luaL_checkint(L, 5),
        .chunk = (uint32_t)luaL_checkint(L, 6),
        .is_range = lua_isnil(L, 3),
        .range_first = luaL_optnumber(L, 7, 0),
        .range_step = luaL_optnumber(L, 8, 0),
    };
    tide_jobs_start(enter_pool(L, 3), L, 1, 2, 3, &order);
    luaL_getmetatable(L, JOB_TYPE);
    lua_setmetatable(L, -2);
    return 1;
}

/* outcome(job) -> "running", or "done" and results, or "failed" and the error */
static int core_outcome(lua_State *L)
{
    static const char *const states[] = { "running", "done", "failed" };
    const struct tide_lua_job *job = luaL_checkudata(L, 1, JOB_TYPE);
    lua_pushstring(L, states[job->state]);
    if (job->state == TIDE_JOB_RUNNING)
        return 1;
    tide_jobs_push_outcome(L, 1);
    return 2;
}

/* ---- this process ---- */

/* worker() -> 1-based number, pid and the pool's name in a worker, else nil */
static int core_worker(lua_State *L)
{
    const struct tide_worker_env *self = tide_worker_self();
    if (self == NULL)
        return 0;
    lua_pushnumber(L, self->index + 1);
    lua_pushnumber(L, getpid());
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_POOL_NAME);
    return 3;
}

static int core_cpu_count(lua_State *L)
{
    lua_pushnumber(L, tide_cpu_count());
    return 1;
}

/* now() -> seconds of the monotonic clock */
static int core_now(lua_State *L)
{
    lua_pushnumber(L, (double)tide_now_ns() * 1e-9);
    return 1;
}

static int core_cwd(lua_State *L)
{
    char path[4096];
    lua_pushstring(L, getcwd(path, sizeof path));
    return 1;
}

/* configure{error = metatable, columns = module} */
static int core_configure(lua_State *L)
{
    lua_getfield(L, 1, "error");
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_ERROR);
    lua_getfield(L, 1, "columns");
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_COLUMNS);
    return 0;
}

/* ---- opening ---- */

static void set_flags(lua_State *L)
{
    set_count(L, "UNPACK", TIDE_JOB_UNPACK);
    set_count(L, "ALL", TIDE_JOB_ALL);
    set_count(L, "COLLECT", TIDE_JOB_COLLECT);
    set_count(L, "EAGER", TIDE_JOB_EAGER);
    set_count(L, "WORKERS_MAX", TIDE_WORKERS_MAX);
}

int tide_open_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "start", core_start },
        { "open", core_open },
        { "submit", core_submit },
        { "outcome", core_outcome },
        { "wait", core_wait },
        { "step", core_step },
        { "close", core_close },
        { "kill", core_kill },
        { "join", core_join },
        { "release", core_release },
        { "state", core_state },
        { "workers", core_workers },
        { "stats", core_stats },
        { "worker", core_worker },
        { "cpu_count", core_cpu_count },
        { "now", core_now },
        { "cwd", core_cwd },
        { "configure", core_configure },
        { NULL, NULL },
    };
    luaL_newmetatable(L,
                      JOB_TYPE); /* while active it is anchored, then empty */
    luaL_newmetatable(L, POOL_TYPE);
    lua_pushcfunction(L, pool_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 2);
    lua_newtable(L);
    luaL_setfuncs(L, functions, 0);
    luaL_setfuncs(L, tide_core_codec, 0);
    set_flags(L);
    return 1;
}
