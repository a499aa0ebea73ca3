/*
 * One step of a pool, always in this order:
 *
 *   take in    every outcome that has arrived: results stored, slots freed; a job
 *              that is over with it is retired
 *   hand out   jobs with items left, in the order of their start, spans while
 *              slots are free
 *
 * Its cost is that of what arrived and what is handed out, however many jobs are
 * active: a job is on the feed list only while it has something to hand out.
 *
 * Lua may raise for lack of memory anywhere in a step. So a step runs protected;
 * what it was doing is then found in `taking` and `feeding`, and that job fails.
 */
#include "lua/jobs.h"

#include "base/clock.h"
#include "base/fault.h"
#include "lua/failure.h"
#include "lua/job_parts.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { KICK_EVERY = 16 };

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

void tide_job_fail(struct tide_lua_job *job, lua_State *L)
{
    if (job->state != TIDE_JOB_RUNNING) {
        lua_pop(L, 1); /* the first error counts */
        return;
    }
    job->state = TIDE_JOB_FAILED;
    tide_job_store(job, L, TIDE_JOB_ERROR);
    tide_job_stop(&job->ledger);
    tide_flights_recall(job, 0);
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

void tide_job_join_feed(struct tide_lua_job *job)
{
    struct tide_lua_pool *owner = job->owner;
    if (job->feed_link != NULL)
        return;
    job->feed_next = NULL;
    job->feed_link = owner->feed_tail;
    *owner->feed_tail = job;
    owner->feed_tail = &job->feed_next;
}

static void leave_feed(struct tide_lua_job *job)
{
    if (job->feed_link == NULL)
        return;
    *job->feed_link = job->feed_next;
    if (job->feed_next != NULL)
        job->feed_next->feed_link = job->feed_link;
    else
        job->owner->feed_tail = job->feed_link;
    job->feed_link = NULL;
}

/* As luaL_ref() of the value on top, which has to look for the table's end. */
static int add_active(struct tide_lua_pool *owner, lua_State *L)
{
    lua_rawgeti(L, owner->at, 0);
    int has_free = lua_tonumber(L, -1) > 0;
    lua_pop(L, 1);
    if (has_free)
        return luaL_ref(L, owner->at);
    lua_rawseti(L, owner->at, ++owner->last_active);
    return owner->last_active;
}

void tide_job_enlist(struct tide_lua_job *job, lua_State *L)
{
    struct tide_lua_pool *owner = job->owner;
    lua_pushvalue(L, -1);
    job->self = add_active(owner, L);
    job->previous = NULL;
    job->next = owner->jobs;
    if (job->next != NULL)
        job->next->previous = job;
    owner->jobs = job;
    tide_job_join_feed(job);
}

static void unlink_job(struct tide_lua_job *job)
{
    if (job->next != NULL)
        job->next->previous = job->previous;
    if (job->previous != NULL)
        job->previous->next = job->next;
    else
        job->owner->jobs = job->next;
}

/* Put a job that is over on the list of those the script wants to be told of. */
static void list_finished(struct tide_lua_job *job, lua_State *L)
{
    tide_job_push(job, L, TIDE_JOB_POOL);
    lua_getfenv(L, -1);
    lua_rawgeti(L, -1, TIDE_POOL_FINISHED);
    lua_rawgeti(L, job->owner->at, job->self);
    lua_rawseti(L, -2, (int)++job->owner->finished);
    lua_pop(L, 3);
}

void tide_job_retire(struct tide_lua_job *job, lua_State *L)
{
    struct tide_lua_pool *owner = job->owner;
    if (job->state == TIDE_JOB_RUNNING)
        job->state = TIDE_JOB_DONE;
    job->ended_ns = tide_now_ns();
    leave_feed(job);
    unlink_job(job);
    tide_job_destroy(&job->ledger, tide_segment_free, owner);
    tide_function_drop(owner, job->function);
    if ((job->order.flags & TIDE_JOB_NOTIFY) != 0)
        list_finished(job, L);
    lua_rawgeti(L, owner->at, job->self);
    lua_getfenv(L, -1);
    lua_pushnil(L);
    lua_rawseti(L, -2, TIDE_JOB_ITEMS);
    lua_pushnil(L);
    lua_rawseti(L, -2, TIDE_JOB_POOL);
    lua_pushnil(L);
    lua_rawseti(L, -2, TIDE_JOB_ATTEMPTS);
    lua_pop(L, 2);
    luaL_unref(L, owner->at, job->self);
    job->self = LUA_NOREF;
}

void tide_jobs_fail_all(struct tide_lua_pool *owner, lua_State *L,
                        const char *kind, const char *message)
{
    owner->ended = 1;
    while (owner->jobs != NULL) {
        tide_error_object_push(L, kind, message);
        tide_job_fail(owner->jobs, L);
        tide_job_retire(owner->jobs, L);
    }
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

/* ---- handing out ---- */

static void fail_for_memory(struct tide_lua_job *job, lua_State *L)
{
    lua_pushfstring(L,
                    "cannot send item %d: no room left in %d MB of shared "
                    "memory",
                    (int)job->encoded + 1,
                    tide_pool_megabytes(job->owner->pool));
    tide_error_object_push(L, "encode", lua_tostring(L, -1));
    tide_job_fail(job, L);
    lua_pop(L, 1);
}

/*
 * Items that are left, for the size of a chunk. Of a job whose end is not known
 * they are many; but a chunk must leave others for the rest of the window.
 */
static uint64_t items_left(const struct tide_lua_job *job, uint64_t uncut)
{
    if (!job->complete)
        return uncut + tide_job_unencoded(job) > 0 ? UINT32_MAX : 0;
    return uncut + job->order.total - job->encoded;
}

static uint32_t chunk_of(const struct tide_lua_job *job, uint64_t uncut)
{
    uint32_t workers = tide_pool_workers(job->owner->pool);
    uint32_t chunk =
        tide_job_chunk(&job->ledger, items_left(job, uncut), workers);
    uint64_t most = job->order.buffer / (2 * (uint64_t)workers);
    if (job->order.buffer == 0 || chunk <= most)
        return chunk;
    return most > 0 ? (uint32_t)most : 1;
}

/* A broadcast is late for a worker that was sent away meanwhile. */
static void refuse_worker(struct tide_lua_job *job, lua_State *L,
                          const struct tide_span *span)
{
    lua_pushfstring(L, "worker %d was sent away", (int)span->first + 1);
    tide_error_object_push(L, "worker", lua_tostring(L, -1));
    tide_job_fail_item(job, L, (void *)span->segment, span->first,
                       TIDE_FAILURE_FINAL);
    lua_pop(L, 1);
}

/* Hand out one span. Returns 0 if there is none, or no room. */
static int hand_out_span(struct tide_lua_job *job, lua_State *L)
{
    struct tide_span span;
    uint64_t uncut = tide_job_uncut(&job->ledger);
    uint32_t chunk = chunk_of(job, uncut);
    if (uncut == 0 && !job->ledger.stopped && tide_job_unencoded(job) > 0 &&
        tide_job_encode_next(job, L, chunk) != 0) {
        if (tide_pool_in_flight(job->owner->pool) == 0)
            fail_for_memory(job, L); /* nothing will give any back */
        return 0;
    }
    if (!tide_job_cut(&job->ledger, chunk, &span))
        return 0;
    int status = tide_flight_start(job, &span);
    if (status == TIDE_EINVAL)
        refuse_worker(job, L, &span);
    if (status != TIDE_OK)
        tide_job_settle_span(job, &span, status == TIDE_EINVAL, 0);
    return status == TIDE_OK;
}

int tide_job_has_more(const struct tide_lua_job *job)
{
    return !job->ledger.stopped &&
           (tide_job_unencoded(job) > 0 || tide_job_uncut(&job->ledger) > 0 ||
            job->ledger.again_count > 0);
}

/*
 * Single calls come one after the other, and a worker that is awake will take
 * them: to wake another costs more than many of them do. Spans of a larger job are
 * worth it.
 */
static void wake_for(struct tide_lua_job *job, uint32_t handed)
{
    struct tide_lua_pool *owner = job->owner;
    if ((job->order.flags & TIDE_JOB_ALL) == 0) {
        tide_pool_kick(owner->pool, handed);
        return;
    }
    const double unknown_ns = 1e9;
    double call_ns = job->function->call_ns;
    if (call_ns <= 0)
        call_ns = unknown_ns;
    tide_pool_nudge(owner->pool,
                    (uint64_t)(call_ns * tide_pool_queued(owner->pool)));
}

/* Hand out as many spans as the job may have in flight. */
static void hand_out_job(struct tide_lua_job *job, lua_State *L)
{
    struct tide_lua_pool *owner = job->owner;
    uint32_t handed = 0, unannounced = 0;
    while (
        tide_pool_has_slot(owner->pool) &&
        tide_job_wants_flight(&job->ledger, tide_pool_workers(owner->pool)) &&
        hand_out_span(job, L)) {
        unannounced++;
        if (++handed % KICK_EVERY == 1) { /* workers begin while we go on */
            wake_for(job, unannounced);
            unannounced = 0;
        }
    }
    if (unannounced > 0)
        wake_for(job, unannounced);
}

/* Put a job's items into segments, before the script can change them. */
static void encode_all(struct tide_lua_job *job, lua_State *L)
{
    if ((job->order.flags & (TIDE_JOB_EAGER | TIDE_JOB_LAZY)) == 0)
        return;
    job->owner->feeding = job;
    while (tide_job_unencoded(job) > 0 && !job->ledger.stopped)
        if (tide_job_encode_next(job, L, 0) != 0)
            break; /* the rest when memory is given back */
    job->owner->feeding = NULL;
}

static void hand_out(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_lua_job *next;
    for (struct tide_lua_job *job = owner->feed;
         job != NULL && tide_pool_has_slot(owner->pool); job = next) {
        next = job->feed_next;
        owner->feeding = job;
        hand_out_job(job, L);
        owner->feeding = NULL;
        if (tide_job_has_more(job))
            continue;
        if (job->complete && job->encoded == job->order.total)
            tide_job_seal(&job->ledger);
        leave_feed(job);
        if (tide_job_is_over(
                &job->ledger)) /* it had no items, or they failed */
            tide_job_retire(job, L);
    }
}

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

/* ---- a step ---- */

/* Under lua_pcall(): the pool, its table of active jobs, a job to encode or nil. */
static int step_protected(lua_State *L)
{
    struct tide_lua_pool *owner = lua_touserdata(L, 1);
    struct tide_lua_job *eager = lua_touserdata(L, 3);
    owner->at = 2;
    if (eager == NULL || !tide_pool_has_slot(owner->pool))
        tide_jobs_take_in(owner, L);
    if (eager != NULL)
        encode_all(eager, L);
    if (owner->pool->gone)
        fail_if_gone(owner, L);
    else
        hand_out(owner, L);
    return 0;
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
        tide_job_fail(owner->feeding, L);
    else
        lua_error(L);
    owner->feeding = NULL;
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
    if (owner->ended)
        return;
    luaL_checkstack(L, 16, "too many nested calls");
    if (owner->dropped)
        end_dropped(owner, L);
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
