/*
 * One step of a pool, always in this order:
 *
 *   take in    every outcome that has arrived: results stored, slots freed; a job
 *              that is over with it is retired
 *   hand out   jobs with items left, in the order of their start, spans while
 *              slots are free
 *
 * Its cost is that of what arrived and what is handed out, however many jobs are
 * active: see job_feed.h.
 *
 * Lua may raise for lack of memory anywhere in a step. So a step runs protected;
 * what it was doing is then found in `taking` and `feeding`, and that job fails. If
 * there is no memory for its error either, the step raises, and the next one begins
 * with that.
 */
#include "lua/jobs.h"

#include "base/clock.h"
#include "base/fault.h"
#include "lua/failure.h"
#include "lua/job_calls.h"
#include "lua/job_feed.h"
#include "lua/promise.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* ---- values of a job ---- */

void tide_job_push(const struct tide_lua_job *job, lua_State *L,
                   enum tide_job_value which)
{
    lua_rawgeti(L, job->owner->at, job->self);
    lua_getfenv(L, -1);
    lua_rawgeti(L, -1, (int)which);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

void tide_job_store(const struct tide_lua_job *job, lua_State *L,
                    enum tide_job_value which)
{
    lua_rawgeti(L, job->owner->at, job->self);
    lua_getfenv(L, -1);
    lua_pushvalue(L, -3);
    lua_rawseti(L, -2, (int)which);
    lua_pop(L, 3);
}

/* Fill in the promise of a job that is over, if there is one that is not kept. */
static void keep_promise(const struct tide_lua_job *job, lua_State *L)
{
    int failed = job->state == TIDE_JOB_FAILED;
    tide_job_push(job, L, TIDE_JOB_PROMISE);
    if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        return;
    }
    lua_pushnil(L);
    tide_job_store(job, L, TIDE_JOB_PROMISE);
    tide_job_push(job, L, failed ? TIDE_JOB_ERROR : TIDE_JOB_RESULTS);
    tide_promise_keep(job->owner, L, lua_gettop(L) - 1, failed ? -1 : 1);
    lua_pop(L, 1);
}

void tide_job_fail(struct tide_lua_job *job, lua_State *L)
{
    if (job->state != TIDE_JOB_RUNNING) {
        lua_pop(L, 1); /* the first error counts */
        return;
    }
    if (job->calls != NULL)
        tide_calls_fail_all(job, L); /* it may raise, and is tried again */
    job->state = TIDE_JOB_FAILED;
    tide_job_store(job, L, TIDE_JOB_ERROR);
    keep_promise(job, L);
    tide_job_stop(&job->ledger);
    tide_flights_recall(job, 0);
}

/* Results end in order, those of several pools about so. */
static void date_ends(struct tide_lua_pool *owner)
{
    uint64_t now_ns = tide_now_ns();
    if (owner->last_end < now_ns)
        owner->last_end = now_ns;
}

/* ---- pools ---- */

/*
 * Active jobs are kept by their pool and not by the registry, so that a pool that
 * is dropped goes with them, and not never.
 */
void tide_jobs_enter(struct tide_lua_pool *owner, lua_State *L, int index)
{
    if (owner->busy)
        luaL_error(L, "the pool is sending a value: its hook cannot use it");
    lua_getfenv(L, index);
    lua_rawgeti(L, -1, TIDE_POOL_JOBS);
    lua_replace(L, -2);
    owner->at = lua_gettop(L);
}

int tide_jobs_init(struct tide_lua_pool *owner, struct tide_pool *pool,
                   struct tide_codec *codec)
{
    uint32_t count = pool->board.slot_count;
    owner->flights =
        TIDE_FAULT(POOL_MALLOC) ? NULL : calloc(count, sizeof *owner->flights);
    if (owner->flights == NULL)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        owner->flights[i].next = owner->free_flights;
        owner->free_flights = &owner->flights[i];
    }
    owner->pool = pool;
    owner->codec = codec;
    owner->feed_tail = &owner->feed;
    return 0;
}

/* As luaL_ref(), which has to look for the table's end. */
int tide_job_anchor_value(struct tide_lua_pool *owner, lua_State *L)
{
    lua_rawgeti(L, owner->at, 0);
    int has_free = lua_tonumber(L, -1) > 0;
    lua_pop(L, 1);
    if (has_free)
        return luaL_ref(L, owner->at);
    lua_rawseti(L, owner->at, ++owner->last_active);
    return owner->last_active;
}

void tide_job_anchor(struct tide_lua_job *job, lua_State *L)
{
    lua_pushvalue(L, -1);
    job->self = tide_job_anchor_value(job->owner, L);
}

void tide_job_list(struct tide_lua_job *job)
{
    struct tide_lua_pool *owner = job->owner;
    if (job->listed)
        return;
    job->listed = 1;
    job->previous = NULL;
    job->next = owner->jobs;
    if (job->next != NULL)
        job->next->previous = job;
    owner->jobs = job;
}

static void unlist(struct tide_lua_job *job)
{
    if (!job->listed)
        return;
    job->listed = 0;
    if (job->next != NULL)
        job->next->previous = job->previous;
    if (job->previous != NULL)
        job->previous->next = job->next;
    else
        job->owner->jobs = job->next;
}

/* What a job that is over needs no more. */
static void forget_values(const struct tide_lua_job *job, lua_State *L)
{
    static const enum tide_job_value values[] = { TIDE_JOB_ITEMS, TIDE_JOB_POOL,
                                                  TIDE_JOB_ATTEMPTS };
    lua_rawgeti(L, job->owner->at, job->self);
    lua_getfenv(L, -1);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        lua_pushnil(L);
        lua_rawseti(L, -2, (int)values[i]);
    }
    lua_pop(L, 2);
}

void tide_job_retire(struct tide_lua_job *job, lua_State *L)
{
    struct tide_lua_pool *owner = job->owner;
    if (job->state == TIDE_JOB_RUNNING)
        job->state = TIDE_JOB_DONE;
    tide_job_leave_feed(job);
    unlist(job);
    if (owner->feeding == job)
        owner->feeding = NULL;
    if (owner->calls == job)
        owner->calls = NULL;
    if (job->calls != NULL)
        tide_calls_free(job, L);
    tide_job_destroy(&job->ledger, tide_segment_free, owner);
    if (job->function != NULL)
        tide_function_drop(owner, job->function);
    keep_promise(job, L);
    forget_values(job, L);
    luaL_unref(L, owner->at, job->self);
    job->self = LUA_NOREF;
}

void tide_job_conclude(struct tide_lua_job *job, lua_State *L)
{
    if (tide_job_is_over(&job->ledger))
        tide_job_retire(job, L);
    else if (tide_calls_are_idle(job))
        unlist(job);
}

void tide_jobs_fail_all(struct tide_lua_pool *owner, lua_State *L,
                        const char *kind, const char *message)
{
    owner->ended = 1;
    date_ends(owner);
    while (owner->jobs != NULL) {
        struct tide_lua_job *job = owner->jobs;
        tide_error_object_push(L, kind, message);
        if (job != owner->jobs) { /* a finalizer has used the pool */
            lua_pop(L, 1);
            continue;
        }
        tide_job_fail(job, L);
        tide_job_retire(job, L);
    }
    if (owner->calls != NULL) /* without work */
        tide_calls_close(owner->calls, L);
}

void tide_jobs_free(struct tide_lua_pool *owner, lua_State *L)
{
    if (owner->pool == NULL)
        return;
    tide_jobs_fail_all(owner, L, "terminated", "the pool was dropped");
    tide_functions_free(owner);
    tide_pool_free(owner->pool);
    free(owner->flights);
    owner->pool = NULL;
    owner->flights = NULL;
}

/* ---- a step ---- */

static void fail_if_gone(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_pool *pool = owner->pool;
    if (owner->jobs == NULL)
        return;
    if (pool->broken)
        tide_failure_push_reason(L, pool);
    else
        lua_pushliteral(L, "its workers have ended");
    lua_pushfstring(L, "the pool is broken: %s", lua_tostring(L, -1));
    tide_jobs_fail_all(owner, L, "broken", lua_tostring(L, -1));
    lua_pop(L, 2);
}

/* Under lua_pcall(): the pool, its table of active jobs, a job to encode or nil. */
static int step_protected(lua_State *L)
{
    struct tide_lua_pool *owner = lua_touserdata(L, 1);
    struct tide_lua_job *eager = lua_touserdata(L, 3);
    owner->at = 2;
    if (eager == NULL || !tide_pool_has_slot(owner->pool))
        tide_jobs_take_in(owner, L);
    if (eager != NULL)
        tide_feed_encode(eager, L);
    if (owner->pool->gone)
        fail_if_gone(owner, L);
    else
        tide_feed_hand_out(owner, L);
    return 0;
}

/* The job being handed out fails with the error on top; of calls the one in hand. */
static void fail_feeding(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_lua_job *job = owner->feeding;
    struct tide_span cut = owner->cut;
    if (job->calls != NULL && cut.segment != NULL)
        tide_calls_fail(job, L, cut.first);
    else
        tide_job_fail(job, L);
    owner->feeding = NULL;
    owner->cut.segment = NULL;
    if (cut.segment != NULL)
        tide_job_settle_span(job, &cut, cut.last - cut.first, 0);
}

/* Something raised in the middle of a step, for lack of memory: a job fails. */
static void recover(struct tide_lua_pool *owner, lua_State *L)
{
    const char *text = lua_tostring(L, -1);
    tide_error_object_push(L, owner->taking ? "decode" : "encode",
                           text ? text : "an error without text");
    lua_replace(L, -2);
    if (owner->taking)
        tide_jobs_abandon(owner, L);
    else if (owner->feeding != NULL)
        fail_feeding(owner, L);
    else
        lua_error(L);
}

/* What the last step could not end, for lack of memory. */
static void catch_up(struct tide_lua_pool *owner, lua_State *L)
{
    lua_pushliteral(L, "not enough memory");
    recover(owner, L);
}

/* Push step_protected(), made once a pool. */
static void push_step(lua_State *L, int active)
{
    lua_rawgeti(L, active, TIDE_ACTIVE_STEP);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_pushcfunction(L, step_protected);
    lua_pushvalue(L, -1);
    lua_rawseti(L, active, TIDE_ACTIVE_STEP);
}

/* Streams that nobody holds any more end. */
static void end_dropped(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_lua_job *next;
    owner->dropped = 0;
    for (struct tide_lua_job *job = owner->jobs; job != NULL; job = next) {
        next = job->next;
        if (job->dropped)
            tide_jobs_cancel(job, L);
    }
}

void tide_jobs_step_with(struct tide_lua_pool *owner, lua_State *L,
                         struct tide_lua_job *eager)
{
    int at = owner->at;
    int failed;
    luaL_checkstack(L, 16, "too many nested calls");
    if (owner->ended) {
        if (owner->jobs != NULL) /* there was no memory for their errors */
            tide_jobs_fail_all(owner, L, "broken", "not enough memory");
        return;
    }
    if (owner->dropped)
        end_dropped(owner, L);
    date_ends(owner);
    if (owner->taking || owner->feeding != NULL)
        catch_up(owner, L);
    do {
        owner->busy = 1;
        push_step(L, at);
        lua_pushlightuserdata(L, owner);
        lua_pushvalue(L, at);
        lua_pushlightuserdata(L, eager);
        failed = lua_pcall(L, 3, 0, 0);
        owner->busy = 0;
        owner->at = at;
        if (failed)
            recover(owner, L);
        if (owner->opened != owner->codec->opened)
            tide_handles_weigh(owner->codec, L);
        owner->opened = owner->codec->opened;
        eager = NULL;
    } while (failed);
    if (owner->closed && owner->jobs == NULL)
        tide_pool_close(owner->pool);
    if (owner->pool->is_external)
        tide_pool_arm(owner->pool);
}

void tide_jobs_step(struct tide_lua_pool *owner, lua_State *L)
{
    tide_jobs_step_with(owner, L, NULL);
}
