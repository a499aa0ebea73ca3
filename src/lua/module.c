/*
 * Plain functions on two kinds of userdata, pools and jobs (module_jobs.c); the
 * methods a script sees are the Lua half's. Arguments are checked there, so what
 * is wrong here is a bug of ours and raises as such.
 */
#include "lua/module.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "lua/errors.h"
#include "lua/failure.h"
#include "lua/job_parts.h"
#include "lua/runtime.h"
#include "lua/shared.h"
#include "lua/trace.h"
#include "lua/worker.h"

#include <lauxlib.h>
#include <string.h>
#include <unistd.h>

/* ---- pools ---- */

/*
 * As luaL_checkudata(), which has to look for the metatable by its name: a pool knows
 * its own. Nothing else of the same size has it at that place.
 */
static struct tide_lua_pool *pool_at(lua_State *L, int index)
{
    struct tide_lua_pool *owner = lua_touserdata(L, index);
    if (owner == NULL || lua_objlen(L, index) != sizeof *owner ||
        !lua_getmetatable(L, index))
        return NULL;
    const void *metatable = lua_topointer(L, -1);
    lua_pop(L, 1);
    return owner->metatable == metatable ? owner : NULL;
}

struct tide_lua_pool *tide_check_pool(lua_State *L, int index)
{
    struct tide_lua_pool *owner = pool_at(L, index);
    if (owner == NULL)
        owner = luaL_checkudata(L, index, TIDE_POOL_TYPE);
    if (owner->pool != NULL && !tide_host_is_ours(owner->pool->host))
        luaL_error(L, "the pool belongs to process %d, this is %d",
                   (int)owner->pool->host->supervisor.owner, (int)getpid());
    return owner;
}

struct tide_lua_pool *tide_enter_pool(lua_State *L, int top)
{
    struct tide_lua_pool *owner = tide_check_pool(L, 1);
    lua_settop(L, top);
    tide_jobs_enter(owner, L, 1);
    return owner;
}

void tide_free_pool(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_host *host = owner->pool != NULL ? owner->pool->host : NULL;
    tide_jobs_free(owner, L);
    if (host != NULL && owner->owns_host)
        tide_host_stop(host);
}

static int pool_gc(lua_State *L)
{
    struct tide_lua_pool *owner = luaL_checkudata(L, 1, TIDE_POOL_TYPE);
    owner->busy = 0;
    tide_jobs_enter(owner, L, 1);
    tide_free_pool(owner, L);
    return 0;
}

/* step(pool): take in and hand out, without waiting. */
static int core_step(lua_State *L)
{
    struct tide_lua_pool *owner = tide_enter_pool(L, 1);
    if (owner->pool == NULL)
        return 0;
    tide_host_attend(owner->pool->host);
    tide_jobs_step(owner, L);
    return 0;
}

/* is_busy(pool): are there jobs that are not over? */
static int core_is_busy(lua_State *L)
{
    lua_pushboolean(L, tide_check_pool(L, 1)->jobs != NULL);
    return 1;
}

/* close(pool): no new job; the workers end when those there are are over. */
static int core_close(lua_State *L)
{
    struct tide_lua_pool *owner = tide_enter_pool(L, 1);
    owner->closed = 1;
    if (owner->pool != NULL)
        tide_jobs_step(owner, L);
    return 0;
}

/* kill(pool): end the workers now; jobs that are not over fail. */
static int core_kill(lua_State *L)
{
    const double patience_s = 5; /* SIGKILL takes no time, but for disk waits */
    struct tide_lua_pool *owner = tide_enter_pool(L, 1);
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
    struct tide_lua_pool *owner = tide_check_pool(L, 1);
    uint64_t deadline_ns = tide_check_deadline(L, 2);
    int status = owner->pool != NULL ? tide_pool_join(owner->pool, deadline_ns)
                                     : TIDE_OK;
    lua_pushstring(L, tide_wait_text(status));
    return 1;
}

/* release(pool): give its memory back, if its workers have ended */
static int core_release(lua_State *L)
{
    struct tide_lua_pool *owner = tide_enter_pool(L, 1);
    if (owner->pool != NULL && owner->pool->gone)
        tide_free_pool(owner, L);
    return 0;
}

/* seed(pool, seed): items get random numbers of their own */
static int core_seed(lua_State *L)
{
    struct tide_lua_pool *owner = tide_check_pool(L, 1);
    owner->has_seed = 1;
    owner->seed = (uint64_t)(int64_t)luaL_checknumber(L, 2);
    return 0;
}

/* resize(pool, count) -> true, or false and why not */
static int core_resize(lua_State *L)
{
    struct tide_lua_pool *owner = tide_enter_pool(L, 2);
    struct tide_error err;
    if (owner->pool == NULL)
        return 0;
    int status =
        tide_pool_resize(owner->pool, (uint32_t)luaL_checknumber(L, 2), &err);
    lua_pushboolean(L, status == TIDE_OK);
    lua_pushstring(L, status == TIDE_OK ? NULL : err.text);
    return 2;
}

/* fd(pool) -> descriptor, readable when there is something to do */
static int core_fd(lua_State *L)
{
    struct tide_lua_pool *owner = tide_check_pool(L, 1);
    struct tide_error err = { .text = "the pool has ended" };
    int fd = owner->pool != NULL ? tide_pool_fd(owner->pool, &err) : -1;
    if (fd < 0)
        return luaL_error(L, "cannot make a descriptor: %s", err.text);
    tide_pool_arm(owner->pool);
    lua_pushnumber(L, fd);
    return 1;
}

/* wait_pools(list of pools, seconds or nil): until one of them has news */
static int core_wait_pools(lua_State *L)
{
    size_t count = 0;
    struct tide_lua_pool *owner = NULL;
    uint64_t deadline_ns = tide_check_deadline(L, 2);
    int given = (int)lua_objlen(L, 1);
    struct tide_pool **pools =
        lua_newuserdata(L, (size_t)(given + 1) * sizeof(void *));
    for (int i = 1; i <= given; i++) {
        lua_rawgeti(L, 1, i);
        owner = tide_check_pool(L, -1);
        lua_pop(L, 1);
        if (owner->pool != NULL)
            pools[count++] = owner->pool;
    }
    uint64_t start_ns = count > 0 ? tide_trace_start(owner) : 0;
    if (count > 0)
        tide_pools_wait(pools, count, deadline_ns);
    tide_trace_work(owner, "wait", start_ns, "pools", count);
    return 0;
}

/* state(pool) -> "open", "closed", "terminated" or "broken", reason */
static int core_state(lua_State *L)
{
    const struct tide_lua_pool *owner = tide_check_pool(L, 1);
    const struct tide_pool *pool = owner->pool;
    int broken = pool != NULL && pool->gone && pool->broken;
    const char *state = owner->terminated               ? "terminated"
                        : broken                        ? "broken"
                        : owner->closed || pool == NULL ? "closed"
                                                        : "open";
    lua_pushstring(L, state);
    if (broken)
        tide_failure_push_reason(L, pool);
    else
        lua_pushliteral(L, "");
    return 2;
}

/* workers(pool) -> list of the pids there are now */
static int core_workers(lua_State *L)
{
    const struct tide_pool *pool = tide_check_pool(L, 1)->pool;
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

/*
 * stats(pool) -> list of {pid, items, chunks, busy, restarts, heap}, one per worker,
 * and `queued`, `running`: chunks that wait and that are with workers
 */
static int core_stats(lua_State *L)
{
    const double ns_per_s = 1e9;
    const struct tide_pool *pool = tide_check_pool(L, 1)->pool;
    lua_newtable(L);
    for (uint32_t i = 0;
         pool != NULL && i < tide_board_worker_count(&pool->board); i++) {
        const struct tide_worker_record *record = &pool->board.workers[i];
        lua_createtable(L, 0, 6);
        set_count(L, "pid", atomic_load(&record->pid));
        set_count(L, "items", (double)atomic_load(&record->items));
        set_count(L, "chunks", (double)atomic_load(&record->chunks));
        set_count(L, "busy", (double)atomic_load(&record->busy_ns) / ns_per_s);
        set_count(L, "restarts", atomic_load(&record->restarts));
        set_count(L, "heap", (double)atomic_load(&record->heap_bytes));
        lua_rawseti(L, -2, (int)i + 1);
    }
    uint32_t queued = pool != NULL ? tide_pool_queued(pool) : 0;
    uint32_t flying = pool != NULL ? tide_pool_in_flight(pool) : 0;
    set_count(L, "queued", queued);
    set_count(L, "running", flying > queued ? flying - queued : 0);
    return 1;
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

/* keep_trace(error, traceback): where it was raised, for who sees it raised again */
static int core_keep_trace(lua_State *L)
{
    lua_createtable(L, 2, 0);
    for (int i = 1; i <= 2; i++) {
        lua_pushvalue(L, i);
        lua_rawseti(L, -2, i);
    }
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_TRACE);
    return 0;
}

/* is_terminal(descriptor) */
static int core_is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(luaL_checkint(L, 1)));
    return 1;
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

/* program() -> path of the program that runs */
static int core_program(lua_State *L)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    lua_pushlstring(L, path, length > 0 ? (size_t)length : 0);
    return 1;
}

static int core_cwd(lua_State *L)
{
    char path[4096];
    lua_pushstring(L, getcwd(path, sizeof path));
    return 1;
}

/* configure{error = metatable, columns = module, breathe = function} */
static int core_configure(lua_State *L)
{
    lua_getfield(L, 1, "error");
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_ERROR);
    lua_getfield(L, 1, "columns");
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_COLUMNS);
    lua_getfield(L, 1, "breathe");
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_BREATHE);
    tide_codec_reload(L);
    return 0;
}

/* ---- opening ---- */

static void set_flags(lua_State *L)
{
    static const struct {
        const char *name;
        unsigned value;
    } flags[] = {
        { "UNPACK", TIDE_JOB_UNPACK },
        { "COLLECT", TIDE_JOB_COLLECT },
        { "EAGER", TIDE_JOB_EAGER },
        { "STREAM", TIDE_JOB_STREAM },
        { "UNORDERED", TIDE_JOB_UNORDERED },
        { "LAZY", TIDE_JOB_LAZY },
        { "TRUTH", TIDE_JOB_TRUTH },
        { "EFFECT", TIDE_JOB_EFFECT },
        { "FOLD", TIDE_JOB_FOLD },
        { "BROADCAST", TIDE_JOB_BROADCAST },
        { "WORKERS_MAX", TIDE_WORKERS_MAX },
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        set_count(L, flags[i].name, flags[i].value);
}

int tide_open_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "open", tide_core_open },
        { "await_start", tide_core_await_start },
        { "step", core_step },
        { "is_busy", core_is_busy },
        { "close", core_close },
        { "kill", core_kill },
        { "join", core_join },
        { "release", core_release },
        { "seed", core_seed },
        { "resize", core_resize },
        { "fd", core_fd },
        { "wait_pools", core_wait_pools },
        { "state", core_state },
        { "workers", core_workers },
        { "stats", core_stats },
        { "worker", core_worker },
        { "cpu_count", core_cpu_count },
        { "is_terminal", core_is_terminal },
        { "keep_trace", core_keep_trace },
        { "now", core_now },
        { "cwd", core_cwd },
        { "program", core_program },
        { "configure", core_configure },
        { NULL, NULL },
    };
    luaL_newmetatable(
        L, TIDE_JOB_TYPE); /* while active it is anchored, then empty */
    luaL_newmetatable(L, TIDE_POOL_TYPE);
    lua_pushcfunction(L, pool_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 2);
    lua_newtable(L);
    luaL_setfuncs(L, functions, 0);
    luaL_setfuncs(L, tide_core_codec, 0);
    luaL_setfuncs(L, tide_core_jobs, 0);
#ifdef TIDE_FAULTS
    luaL_setfuncs(L, tide_core_fault, 0);
#endif
    luaL_setfuncs(L, tide_core_share, 0);
    luaL_setfuncs(L, tide_core_process, 0);
    tide_open_shared(L);
    lua_pushcfunction(L, tide_core_start);
    lua_setfield(L, -2, "start");
    set_flags(L);
    return 1;
}
