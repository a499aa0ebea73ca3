#include "lua/job_feed.h"

#include "lua/job_calls.h"

#include <stdio.h>

enum { KICK_EVERY = 16 };

/* ---- the list ---- */

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

void tide_job_leave_feed(struct tide_lua_job *job)
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

/* ---- spans ---- */

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

static void refuse_for_memory(struct tide_lua_job *job, lua_State *L,
                              uint32_t call)
{
    char why[64];
    snprintf(why, sizeof why, "no room left in %d MB of shared memory",
             tide_pool_megabytes(job->owner->pool));
    tide_calls_refuse(job, L, call, why);
}

/*
 * As tide_job_cut(), of calls. Those that are over, since they were cancelled or
 * cannot be sent, are settled here.
 */
static int cut_call(struct tide_lua_job *job, lua_State *L,
                    struct tide_span *out)
{
    struct tide_lua_pool *owner = job->owner;
    while (tide_job_cut(&job->ledger, 1, out)) {
        int over = tide_calls_is_over(job, out->first);
        owner->cut = *out;
        int status = over ? TIDE_OK : tide_calls_prepare(job, L, out->first);
        int can_wait =
            status == TIDE_ENOMEM && tide_pool_in_flight(owner->pool) > 0;
        if (status == TIDE_ENOMEM && !can_wait)
            refuse_for_memory(job, L, out->first);
        owner->cut.segment = NULL;
        if (status == TIDE_OK && !over)
            return 1;
        /* While others are on their way some memory will be given back. */
        tide_job_settle_span(job, out, !can_wait, 0);
        if (can_wait)
            return 0;
    }
    return 0;
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
    int is_cut = job->calls != NULL ? cut_call(job, L, &span)
                                    : tide_job_cut(&job->ledger, chunk, &span);
    if (!is_cut)
        return 0;
    int status = tide_flight_start(job, &span);
    if (status == TIDE_EINVAL) {
        job->owner->cut = span;
        refuse_worker(job, L, &span);
        job->owner->cut.segment = NULL;
    }
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
void tide_job_wake_for(struct tide_lua_job *job, uint32_t handed)
{
    struct tide_lua_pool *owner = job->owner;
    if (job->calls == NULL) {
        tide_pool_kick(owner->pool, handed);
        return;
    }
    const double unknown_ns = 1e9;
    const struct tide_function *function =
        tide_job_function(job, job->calls->segment.part.cut - 1);
    double call_ns = function != NULL ? function->call_ns : 0;
    if (call_ns <= 0)
        call_ns = unknown_ns;
    tide_pool_nudge(owner->pool,
                    (uint64_t)(call_ns * tide_pool_queued(owner->pool)));
}

/* Hand out as many spans as the job may have in flight. */
static void hand_out_spans(struct tide_lua_job *job, lua_State *L)
{
    struct tide_lua_pool *owner = job->owner;
    uint32_t handed = 0, unannounced = 0;
    while (
        tide_pool_has_slot(owner->pool) &&
        tide_job_wants_flight(&job->ledger, tide_pool_workers(owner->pool)) &&
        hand_out_span(job, L)) {
        unannounced++;
        if (++handed % KICK_EVERY == 1) { /* workers begin while we go on */
            tide_job_wake_for(job, unannounced);
            unannounced = 0;
        }
    }
    if (unannounced > 0)
        tide_job_wake_for(job, unannounced);
}

void tide_feed_encode(struct tide_lua_job *job, lua_State *L)
{
    if ((job->order.flags & (TIDE_JOB_EAGER | TIDE_JOB_LAZY)) == 0)
        return;
    job->owner->feeding = job;
    while (tide_job_unencoded(job) > 0 && !job->ledger.stopped)
        if (tide_job_encode_next(job, L, 0) != 0)
            break; /* the rest when memory is given back */
    job->owner->feeding = NULL;
}

static void hand_out_job(struct tide_lua_job *job, lua_State *L)
{
    job->owner->feeding = job;
    hand_out_spans(job, L);
    job->owner->feeding = NULL;
    if (tide_job_has_more(job))
        return;
    if (job->complete && job->encoded == job->order.total)
        tide_job_seal(&job->ledger);
    tide_job_leave_feed(job);
    tide_job_conclude(job, L); /* it had no items, or they failed */
}

void tide_feed_hand_out(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_lua_job *next;
    for (struct tide_lua_job *job = owner->feed;
         job != NULL && tide_pool_has_slot(owner->pool); job = next) {
        next = job->feed_next;
        hand_out_job(job, L);
    }
}
