/*
 * The functions of `tidemill.core` on jobs. A job is a userdata; the one of a stream
 * is watched by a second one, which the script's iterator holds: when that is
 * collected nobody will take the rest.
 */
#include "lua/module.h"

#include "base/clock.h"
#include "lua/job_calls.h"

#include <lauxlib.h>

#define GUARD_TYPE "tidemill.core.guard"

const char *tide_wait_text(int status)
{
    return status == TIDE_OK       ? "done"
           : status == TIDE_EINTR  ? "interrupted"
           : status == TIDE_EAGAIN ? "notified"
                                   : "timeout";
}

uint64_t tide_check_deadline(lua_State *L, int index)
{
    return lua_isnoneornil(L, index)
               ? TIDE_FOREVER
               : tide_deadline_ns(luaL_checknumber(L, index));
}

static struct tide_lua_job *check_job(lua_State *L, int index)
{
    return luaL_checkudata(L, index, TIDE_JOB_TYPE);
}

/*
 * The job at 1, for a function that goes on with it; its arguments end at `top`.
 * NULL if it is over: nothing remains to be done.
 */
static struct tide_lua_job *enter_job(lua_State *L, int top)
{
    struct tide_lua_job *job = check_job(L, 1);
    if (job->self == LUA_NOREF)
        return NULL;
    lua_settop(L, top);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, TIDE_JOB_POOL);
    lua_replace(L, -2);
    tide_check_pool(L, lua_gettop(L));
    tide_jobs_enter(job->owner, L, lua_gettop(L));
    return job;
}

static uint32_t opt_count(lua_State *L, int index)
{
    double value = luaL_optnumber(L, index, 0);
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

/* Seconds, tries and tries, each or nil, from `index` on. */
static struct tide_terms terms_at(lua_State *L, int index)
{
    const double ms_per_s = 1e3;
    double timeout_ms = luaL_optnumber(L, index, 0) * ms_per_s;
    return (struct tide_terms){
        .timeout_ms = timeout_ms <= 0           ? 0
                      : timeout_ms < 1          ? 1
                      : timeout_ms < UINT32_MAX ? (uint32_t)timeout_ms
                                                : UINT32_MAX,
        .retries = opt_count(L, index + 1),
        .error_retries = opt_count(L, index + 2),
    };
}

/*
 * submit(pool, f, combine or nil, items, total, flags, chunk, first, step, timeout,
 * retries, retry_errors, buffer) -> job
 *
 * `items` is a table (of the arguments, for BROADCAST), or nil for the range first, first + step, ... of `total`, or
 * for what will be fed. What comes after `chunk` may be left out.
 */
static int core_submit(lua_State *L)
{
    enum {
        F = 2,
        ITEMS = 4,
        TOTAL,
        FLAGS,
        CHUNK,
        FIRST,
        STEP,
        TIMEOUT, /* and tries, see terms_at() */
        BUFFER = TIMEOUT + 3
    };
    unsigned flags = (unsigned)luaL_checkint(L, FLAGS);
    struct tide_job_order order = {
        .total = (uint64_t)luaL_checknumber(L, TOTAL),
        .flags = flags,
        .chunk = (uint32_t)luaL_checkint(L, CHUNK),
        .is_range = lua_isnil(L, ITEMS) && (flags & TIDE_JOB_LAZY) == 0,
        .range_first = luaL_optnumber(L, FIRST, 0),
        .range_step = luaL_optnumber(L, STEP, 0),
        .terms = terms_at(L, TIMEOUT),
        .buffer = (uint64_t)luaL_optnumber(L, BUFFER, 0),
    };
    tide_jobs_start(tide_enter_pool(L, ITEMS), L, 1, F, ITEMS, &order);
    return 1;
}

/* The function and the terms of a call follow its promise; then its arguments. */
enum call_at {
    CALL_PROMISE = 2,
    CALL_FUNCTION,
    CALL_TERMS,
    CALL_ARGUMENTS = CALL_TERMS + 3
};

/* The `count` values from `first` on are the arguments of a call. */
static int start_call(lua_State *L, int first, int count)
{
    struct tide_lua_pool *owner = tide_check_pool(L, 1);
    struct tide_terms terms = terms_at(L, CALL_TERMS);
    if (owner->closed || owner->pool == NULL || owner->pool->broken)
        return 0;
    tide_jobs_enter(owner, L, 1);
    tide_calls_start(owner, L, 1, CALL_PROMISE, CALL_FUNCTION, first, count,
                     &terms);
    return 2;
}

/*
 * call(pool, promise, f, timeout, retries, retry_errors, ...) -> job, index; nothing
 * if the pool is not open
 */
static int core_call(lua_State *L)
{
    return start_call(L, CALL_ARGUMENTS, lua_gettop(L) - CALL_ARGUMENTS + 1);
}

/* apply(pool, promise, f, timeout, retries, retry_errors, args, count): args in a table */
static int core_apply(lua_State *L)
{
    enum { COUNT = CALL_ARGUMENTS + 1 };
    lua_settop(L, COUNT);
    luaL_checktype(L, CALL_ARGUMENTS, LUA_TTABLE);
    int count = tide_args_unpack(L, CALL_ARGUMENTS, lua_tonumber(L, COUNT));
    return start_call(L, COUNT + 1, count);
}

/* outcome(job) -> "running", or "done" and results, or "failed" and the error */
static int core_outcome(lua_State *L)
{
    static const char *const states[] = { "running", "done", "failed" };
    const struct tide_lua_job *job = check_job(L, 1);
    lua_pushstring(L, states[job->state]);
    if (job->state == TIDE_JOB_RUNNING)
        return 1;
    tide_jobs_push_outcome(L, 1);
    return 2;
}

/*
 * wait(pool, job or nil, seconds or nil[, at]) -> as tide_wait_text() says; `at` is how
 * many results of a stream were taken, or the index of a call
 */
static int core_wait(lua_State *L)
{
    struct tide_lua_pool *owner = tide_enter_pool(L, 4);
    struct tide_lua_job *job = lua_isnil(L, 2) ? NULL : check_job(L, 2);
    uint64_t deadline_ns = tide_check_deadline(L, 3);
    uint64_t at = (uint64_t)luaL_optnumber(L, 4, 0);
    if (job != NULL && (job->order.flags & TIDE_JOB_STREAM) != 0)
        job->ring.taken = at;
    int status = tide_jobs_wait(owner, L, job, at, deadline_ns);
    lua_pushstring(L, tide_wait_text(status));
    return 1;
}

/* cancel(job[, index of a call]) -> whether it was running */
static int core_cancel(lua_State *L)
{
    struct tide_lua_job *job = enter_job(L, 2);
    int was_running = 0;
    if (job != NULL) {
        tide_jobs_step(job->owner, L); /* what has arrived has arrived */
        was_running = job->state == TIDE_JOB_RUNNING;
        if ((job->order.flags & TIDE_JOB_CALLS) == 0)
            tide_jobs_cancel(job, L);
        else
            was_running =
                tide_calls_cancel(job, L, (uint64_t)lua_tonumber(L, 2));
    }
    lua_pushboolean(L, was_running);
    return 1;
}

/* ---- promises ---- */

/* promise(pool, job, promise): it is kept when the job is over, or now */
static int core_promise(lua_State *L)
{
    tide_enter_pool(L, 3);
    tide_jobs_promise(check_job(L, 2), L, 2, 3);
    return 0;
}

/* finished(pool) -> the chain of the watchers of promises that were kept */
static int core_finished(lua_State *L)
{
    tide_check_pool(L, 1);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, TIDE_POOL_JOBS);
    lua_rawgeti(L, -1, TIDE_ACTIVE_FINISHED);
    return 1;
}

/* told(pool): that chain is empty */
static int core_told(lua_State *L)
{
    tide_check_pool(L, 1)->finished = 0;
    return 0;
}

/* ---- streams ---- */

/* end_streams(pool): those with a window */
static int core_end_streams(lua_State *L)
{
    struct tide_lua_pool *owner = tide_enter_pool(L, 1);
    tide_jobs_end_streams(owner, L);
    return 0;
}

/* room(job, taken) -> how many items may be fed, how many are on their way */
static int core_room(lua_State *L)
{
    struct tide_lua_job *job = enter_job(L, 2);
    uint64_t room = 0, out = 0;
    if (job != NULL) {
        uint64_t taken = (uint64_t)lua_tonumber(L, 2);
        room = tide_jobs_room(job, L, taken);
        out = job->encoded - taken;
    }
    lua_pushnumber(L, (double)room);
    lua_pushnumber(L, (double)out);
    return 2;
}

/* lift(job, all): no window any more; without `all` nothing more is sent, either */
static int core_lift(lua_State *L)
{
    struct tide_lua_job *job = enter_job(L, 2);
    if (job != NULL)
        tide_jobs_lift(job, L, lua_toboolean(L, 2));
    return 0;
}

/* feed(job, items, count): 0 says there will be no more */
static int core_feed(lua_State *L)
{
    struct tide_lua_job *job = enter_job(L, 3);
    if (job != NULL)
        tide_jobs_feed(job, L, 2, (uint64_t)lua_tonumber(L, 3));
    return 0;
}

/* ring(job) -> values, places of a stream */
static int core_ring(lua_State *L)
{
    check_job(L, 1);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, TIDE_JOB_RESULTS);
    lua_rawgeti(L, -2, TIDE_JOB_PLACES);
    return 2;
}

/* progress(job) -> items done, items failed, items known of */
static int core_progress(lua_State *L)
{
    const struct tide_lua_job *job = check_job(L, 1);
    lua_pushnumber(L, (double)tide_jobs_progress(job));
    lua_pushnumber(L, (double)job->failed);
    lua_pushnumber(L, (double)job->order.total);
    return 3;
}

static int guard_gc(lua_State *L)
{
    struct tide_lua_job **guarded = lua_touserdata(L, 1);
    tide_jobs_drop(*guarded);
    return 0;
}

/* guard(job) -> a userdata: when it is collected the job is dropped */
static int core_guard(lua_State *L)
{
    struct tide_lua_job *job = check_job(L, 1);
    struct tide_lua_job **guarded = lua_newuserdata(L, sizeof(void *));
    *guarded = job;
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1); /* the job outlives its guard */
    lua_setfenv(L, -2);
    if (luaL_newmetatable(L, GUARD_TYPE)) {
        lua_pushcfunction(L, guard_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return 1;
}

const luaL_Reg tide_core_jobs[] = {
    { "submit", core_submit },
    { "outcome", core_outcome },
    { "call", core_call },
    { "apply", core_apply },
    { "promise", core_promise },
    { "finished", core_finished },
    { "told", core_told },
    { "wait", core_wait },
    { "cancel", core_cancel },
    { "room", core_room },
    { "feed", core_feed },
    { "ring", core_ring },
    { "progress", core_progress },
    { "guard", core_guard },
    { "lift", core_lift },
    { "end_streams", core_end_streams },
    { NULL, NULL },
};
