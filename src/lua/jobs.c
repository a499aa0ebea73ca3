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
 * A wait is steps with sleeps between them. The sleep asks for as many outcomes
 * as make a step worth while: all of them when nothing is left to hand out, half
 * of what is in flight when the workers must not run dry, one when several jobs
 * are under way and any may be the one that is waited for.
 *
 * Lua may raise for lack of memory anywhere in a step. So a step runs protected;
 * what it was doing is then found in `taking` and `feeding`, and that job fails.
 */
#include "lua/jobs.h"

#include "lua/form.h"
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
    owner->flights = calloc(count, sizeof *owner->flights);
    if (owner->flights == NULL)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        owner->flights[i].next_free = owner->free_flights;
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
    if (job->feeding)
        return;
    job->feeding = 1;
    job->feed_next = NULL;
    *owner->feed_tail = job;
    owner->feed_tail = &job->feed_next;
}

/* Take the job at `*at` off the feed list; `*at` is then the next one. */
static void leave_feed(struct tide_lua_job **at)
{
    struct tide_lua_job *job = *at;
    struct tide_lua_pool *owner = job->owner;
    job->feeding = 0;
    *at = job->feed_next;
    if (owner->feed_tail == &job->feed_next)
        owner->feed_tail = at;
}

static void link_job(struct tide_lua_job *job)
{
    struct tide_lua_pool *owner = job->owner;
    job->previous = NULL;
    job->next = owner->jobs;
    if (job->next != NULL)
        job->next->previous = job;
    owner->jobs = job;
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

/* Let go of a job that has come to its end. */
void tide_job_retire(struct tide_lua_job *job, lua_State *L)
{
    struct tide_lua_pool *owner = job->owner;
    if (job->state == TIDE_JOB_RUNNING)
        job->state = TIDE_JOB_DONE;
    for (struct tide_lua_job **at = &owner->feed; job->feeding;
         at = &(*at)->feed_next)
        if (*at == job) {
            leave_feed(at);
            break;
        }
    unlink_job(job);
    tide_job_destroy(&job->ledger, tide_segment_free, owner);
    tide_function_drop(owner, job->function);
    lua_pushnil(L);
    tide_job_store(job, L, TIDE_JOB_ITEMS);
    lua_pushnil(L);
    tide_job_store(job, L, TIDE_JOB_POOL);
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

static uint32_t worker_count(const struct tide_lua_pool *owner)
{
    return tide_pool_workers(owner->pool);
}

static int submit_span(struct tide_lua_job *job, const struct tide_span *span)
{
    struct tide_lua_pool *owner = job->owner;
    const struct tide_lua_segment *segment = (void *)span->segment;
    struct tide_flight *flight = owner->free_flights;
    struct tide_request request = segment->request;
    request.first = span->first;
    request.count = span->last;
    if (tide_pool_submit(NULL, owner->pool, &request,
                         (uint64_t)(uintptr_t)flight) != TIDE_OK)
        return -1;
    owner->free_flights = flight->next_free;
    *flight = (struct tide_flight){ .job = job, .span = *span };
    return 0;
}

static void fail_for_memory(struct tide_lua_job *job, lua_State *L)
{
    lua_pushfstring(L, "cannot send item %d: no shared memory left",
                    (int)job->encoded + 1);
    tide_error_object_push(L, "encode", lua_tostring(L, -1));
    tide_job_fail(job, L);
    lua_pop(L, 1);
}

/* Hand out one span. Returns 0 if there is none, or no room. */
static int hand_out_span(struct tide_lua_job *job, lua_State *L)
{
    struct tide_span span;
    uint32_t workers = worker_count(job->owner);
    uint64_t uncut = tide_job_uncut(&job->ledger);
    uint64_t left = uncut + job->total - job->encoded;
    uint32_t chunk = tide_job_chunk(&job->ledger, left, workers);
    if (uncut == 0 && job->encoded < job->total && !job->ledger.stopped &&
        tide_job_encode_next(job, L, chunk) != 0) {
        if (tide_pool_in_flight(job->owner->pool) == 0)
            fail_for_memory(job, L); /* nothing will give any back */
        return 0;
    }
    if (!tide_job_cut(&job->ledger, chunk, &span))
        return 0;
    if (submit_span(job, &span) == 0)
        return 1;
    tide_job_settle_span(job, &span, 0, 0);
    return 0;
}

static int has_more(const struct tide_lua_job *job)
{
    return !job->ledger.stopped &&
           (job->encoded < job->total || tide_job_uncut(&job->ledger) > 0 ||
            job->ledger.again_count > 0);
}

/* Hand out as many spans as the job may have in flight. */
static void hand_out_job(struct tide_lua_job *job, lua_State *L)
{
    struct tide_lua_pool *owner = job->owner;
    uint32_t handed = 0, unannounced = 0;
    while (tide_pool_has_slot(owner->pool) &&
           tide_job_wants_flight(&job->ledger, worker_count(owner)) &&
           hand_out_span(job, L)) {
        unannounced++;
        if (++handed % KICK_EVERY == 1) { /* workers begin while we go on */
            tide_pool_kick(owner->pool, unannounced);
            unannounced = 0;
        }
    }
    if (unannounced > 0)
        tide_pool_kick(owner->pool, unannounced);
}

/* Put an eager job's items into segments, before the script can change them. */
static void encode_all(struct tide_lua_job *job, lua_State *L)
{
    if ((job->flags & TIDE_JOB_EAGER) == 0)
        return;
    job->owner->feeding = job;
    while (job->encoded < job->total && !job->ledger.stopped)
        if (tide_job_encode_next(job, L, 0) != 0)
            break; /* the rest when memory is given back */
    job->owner->feeding = NULL;
}

static void hand_out(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_lua_job **at = &owner->feed;
    while (*at != NULL && tide_pool_has_slot(owner->pool)) {
        struct tide_lua_job *job = *at;
        owner->feeding = job;
        hand_out_job(job, L);
        owner->feeding = NULL;
        if (has_more(job)) {
            at = &job->feed_next;
            continue;
        }
        tide_job_seal(&job->ledger);
        leave_feed(at);
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
    lua_pushfstring(L, "the pool is broken: %s",
                    pool->broken ? pool->reason : "its workers have ended");
    tide_jobs_fail_all(owner, L, "broken", lua_tostring(L, -1));
    lua_pop(L, 1);
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

static void step(struct tide_lua_pool *owner, lua_State *L,
                 struct tide_lua_job *eager)
{
    int at = owner->at;
    int failed;
    if (owner->ended)
        return;
    luaL_checkstack(L, 16, "too many nested calls");
    do {
        owner->busy = 1;
        lua_pushcfunction(L, step_protected);
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
}

void tide_jobs_step(struct tide_lua_pool *owner, lua_State *L)
{
    step(owner, L, NULL);
}

/* ---- starting ---- */

static struct tide_lua_job *new_job(struct tide_lua_pool *owner, lua_State *L,
                                    int pool, int items,
                                    const struct tide_job_order *order)
{
    enum { PREALLOCATED_MAX = 1 << 24 };
    uint64_t total = order->total;
    struct tide_lua_job *job = lua_newuserdata(L, sizeof *job);
    *job = (struct tide_lua_job){ .owner = owner,
                                  .self = LUA_NOREF,
                                  .flags = order->flags,
                                  .total = total,
                                  .is_range = order->is_range,
                                  .range_first = order->range_first,
                                  .range_step = order->range_step };
    tide_job_init(&job->ledger, order->chunk);
    lua_createtable(L, TIDE_JOB_POOL, 0);
    lua_createtable(L, total < PREALLOCATED_MAX ? (int)total : 0, 0);
    lua_rawseti(L, -2, TIDE_JOB_RESULTS);
    lua_pushvalue(L, items);
    lua_rawseti(L, -2, TIDE_JOB_ITEMS);
    lua_pushvalue(L, pool);
    lua_rawseti(L, -2, TIDE_JOB_POOL);
    lua_setfenv(L, -2);
    return job;
}

struct tide_lua_job *tide_jobs_start(struct tide_lua_pool *owner, lua_State *L,
                                     int pool, int function, int items,
                                     const struct tide_job_order *order)
{
    struct tide_lua_job *job = new_job(owner, L, pool, items, order);
    job->function = tide_function_get(owner, L, function);
    lua_pushvalue(L, -1);
    job->self = luaL_ref(L, owner->at);
    link_job(job);
    tide_job_join_feed(job);
    step(owner, L, job);
    return job;
}

/* ---- waiting ---- */

/* How many outcomes make the next step worth while. */
static uint32_t worth_waking(const struct tide_lua_pool *owner)
{
    const struct tide_lua_job *job = owner->jobs;
    uint32_t flying = tide_pool_in_flight(owner->pool);
    if (job == NULL || job->next != NULL || flying < 2)
        return 1;
    int more = has_more(job);
    if (more && job->ledger.fixed_chunk == 0 && job->ledger.sample_items <= 0)
        return 1; /* the first measurement decides the chunks */
    return more ? flying / 2 : flying;
}

static int is_over(const struct tide_lua_pool *owner,
                   const struct tide_lua_job *job)
{
    return job != NULL ? job->state != TIDE_JOB_RUNNING : owner->jobs == NULL;
}

int tide_jobs_wait(struct tide_lua_pool *owner, lua_State *L,
                   const struct tide_lua_job *job, uint64_t deadline_ns)
{
    for (;;) {
        if (!is_over(owner, job))
            tide_jobs_step(owner, L);
        if (is_over(owner, job))
            return TIDE_OK;
        int status =
            tide_pool_wait(owner->pool, worth_waking(owner), deadline_ns);
        if (status == TIDE_EINTR)
            return TIDE_EINTR;
        if (status == TIDE_ETIMEOUT) {
            tide_jobs_step(owner, L);
            return is_over(owner, job) ? TIDE_OK : TIDE_ETIMEOUT;
        }
    }
}

void tide_jobs_push_outcome(lua_State *L, int job)
{
    const struct tide_lua_job *ended = lua_touserdata(L, job);
    lua_getfenv(L, job);
    lua_rawgeti(L, -1,
                ended->state == TIDE_JOB_FAILED ? TIDE_JOB_ERROR
                                                : TIDE_JOB_RESULTS);
    lua_remove(L, -2);
}
