/*
 * The course of a job: started, fed, waited for, cancelled.
 *
 * A wait is steps with sleeps between them. The sleep asks for as many outcomes
 * as make a step worth while: all of them when only one job is under way and has
 * nothing left to hand out, half of what is in flight when the workers must not run
 * dry, fewer when any of them may be the one that is waited for, so that a wait is
 * not drawn out by more than PATIENCE_NS. That is a guess from what spans have
 * taken lately; so such a sleep is short, and after it any outcome will do.
 */
#include "base/clock.h"
#include "lua/job_calls.h"
#include "lua/job_feed.h"
#include "lua/promise.h"
#include "lua/random.h"
#include "lua/trace.h"

#include <lauxlib.h>

enum {
    PATIENCE_NS = 50 * 1000,
    SHORT_SLEEP_NS = 1000 * 1000,
    PREALLOCATED_MAX = 1 << 24,
    WINDOW_CHUNKS = 4,   /* per worker, */
    WINDOW_MAX = 1 << 16 /* items, unless more are asked for */
};

/* ---- starting ---- */

struct tide_lua_job *tide_job_new(struct tide_lua_pool *owner, lua_State *L,
                                  int pool, int items,
                                  const struct tide_job_order *order)
{
    const unsigned no_list = TIDE_JOB_STREAM | TIDE_JOB_EFFECT;
    uint64_t total = (order->flags & no_list) != 0 ? 0 : order->total;
    struct tide_lua_job *job = lua_newuserdata(L, sizeof *job);
    *job = (struct tide_lua_job){ .order = *order,
                                  .owner = owner,
                                  .self = LUA_NOREF,
                                  .allowed = UINT64_MAX };
    tide_job_init(&job->ledger, order->chunk);
    job->complete = (order->flags & (TIDE_JOB_LAZY | TIDE_JOB_CALLS)) == 0;
    lua_createtable(L, TIDE_JOB_ATTEMPTS, 0); /* its end takes no memory */
    lua_createtable(L, total < PREALLOCATED_MAX ? (int)total : 0, 0);
    lua_rawseti(L, -2, TIDE_JOB_RESULTS);
    lua_pushvalue(L, items);
    lua_rawseti(L, -2, TIDE_JOB_ITEMS);
    lua_pushvalue(L, pool);
    lua_rawseti(L, -2, TIDE_JOB_POOL);
    if ((order->flags & TIDE_JOB_STREAM) != 0) {
        job->allowed = 0;
        lua_newtable(L);
        lua_pushnumber(L, 1); /* a place, and nothing there */
        lua_rawseti(L, -2, 0);
        lua_rawseti(L, -2, TIDE_JOB_PLACES);
    }
    lua_setfenv(L, -2);
    luaL_getmetatable(L, TIDE_JOB_TYPE);
    lua_setmetatable(L, -2);
    return job;
}

struct tide_lua_job *tide_jobs_start(struct tide_lua_pool *owner, lua_State *L,
                                     int pool, int function, int items,
                                     const struct tide_job_order *order)
{
    struct tide_lua_job *job = tide_job_new(owner, L, pool, items, order);
    int functions = (order->flags & TIDE_JOB_FOLD) != 0 ? 2 : 1;
    job->function = tide_function_get(owner, L, function, functions);
    job->number = ++owner->job_count;
    if (owner->has_seed)
        job->stream = tide_random_stream(owner->seed, owner->job_count);
    tide_job_anchor(job, L);
    tide_job_list(job);
    tide_job_join_feed(job);
    tide_jobs_step_with(owner, L, job);
    return job;
}

/* ---- windows ---- */

/*
 * How many items may be on their way: four chunks per worker. Where an iterator is
 * pulled for chunks of a given size that is exact. Where nobody sees how far we are
 * ahead, the chunks are those of a millisecond of work, so that small items do not
 * wait for each other.
 */
static uint64_t window_of(const struct tide_lua_job *job)
{
    uint32_t workers = tide_pool_workers(job->owner->pool);
    const unsigned flags = job->order.flags;
    uint64_t chunk = job->order.chunk;
    if (job->order.buffer != 0)
        return job->order.buffer;
    uint64_t given = WINDOW_CHUNKS * chunk * workers;
    if (chunk != 0 && (flags & TIDE_JOB_LAZY) != 0)
        return given;
    uint64_t window =
        WINDOW_CHUNKS * (uint64_t)tide_job_chunk_ideal(&job->ledger) * workers;
    /* A fold keeps nothing of its items. */
    if (window > WINDOW_MAX && (flags & TIDE_JOB_FOLD) == 0)
        window = WINDOW_MAX;
    return window > given ? window : given;
}

/* Items that may follow now; few at a time would cost a step each. */
static uint64_t room_of(const struct tide_lua_job *job)
{
    const unsigned flags = job->order.flags;
    if (job->state != TIDE_JOB_RUNNING || tide_job_unencoded(job) > 0)
        return 0;
    /* What was folded need not be waited for. */
    uint64_t taken =
        (flags & TIDE_JOB_STREAM) != 0 && (flags & TIDE_JOB_FOLD) == 0
            ? job->ring.taken
            : job->ledger.settled + job->refused;
    uint64_t window = window_of(job);
    uint64_t out = job->encoded - taken;
    uint64_t room = window > out ? window - out : 0;
    return room < (window + 1) / 2 && job->ledger.flying > 0 ? 0 : room;
}

uint64_t tide_jobs_room(struct tide_lua_job *job, lua_State *L, uint64_t taken)
{
    job->ring.taken = taken;
    uint64_t room = room_of(job);
    if ((job->order.flags & TIDE_JOB_LAZY) != 0 || room == 0 ||
        job->encoded == job->order.total)
        return room;
    job->allowed = job->encoded + room;
    tide_job_join_feed(job);
    tide_jobs_step(job->owner, L);
    return 0;
}

void tide_jobs_lift(struct tide_lua_job *job, lua_State *L, int all)
{
    if (job->state != TIDE_JOB_RUNNING)
        return;
    if (!all)
        job->order.total = job->encoded;
    job->complete = 1;
    job->allowed = UINT64_MAX;
    tide_job_join_feed(job);
    tide_jobs_step(job->owner, L);
}

void tide_jobs_feed(struct tide_lua_job *job, lua_State *L, int items,
                    uint64_t count)
{
    if (job->state != TIDE_JOB_RUNNING)
        return;
    job->allowed = UINT64_MAX;
    if (count == 0) {
        job->complete = 1;
    } else { /* those before are encoded, or there was no room for these */
        job->item_base = job->order.total;
        job->order.total += count;
        lua_pushvalue(L, items);
        tide_job_store(job, L, TIDE_JOB_ITEMS);
    }
    tide_job_join_feed(job);
    tide_jobs_step_with(job->owner, L, job);
}

/* ---- ending ---- */

void tide_jobs_cancel(struct tide_lua_job *job, lua_State *L)
{
    if (job->state != TIDE_JOB_RUNNING)
        return;
    tide_error_object_push(L, "cancelled", "the job was cancelled");
    tide_job_fail(job, L);
    tide_flights_recall(job, 1);
    if (tide_job_is_over(&job->ledger))
        tide_job_retire(job, L);
}

void tide_jobs_end_streams(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_lua_job *next;
    for (struct tide_lua_job *job = owner->jobs; job != NULL; job = next) {
        int lifted = job->complete && job->allowed == UINT64_MAX;
        next = job->next;
        if ((job->order.flags & (TIDE_JOB_STREAM | TIDE_JOB_LAZY)) != 0 &&
            !lifted)
            tide_jobs_cancel(job, L);
    }
}

void tide_jobs_drop(struct tide_lua_job *job)
{
    if (job->state != TIDE_JOB_RUNNING || job->self == LUA_NOREF)
        return;
    job->dropped = 1;
    job->owner->dropped = 1;
}

uint64_t tide_jobs_progress(const struct tide_lua_job *job)
{
    uint64_t done = job->ledger.settled + job->refused;
    if (job->state != TIDE_JOB_RUNNING)
        return done;
    for (const struct tide_flight *flight = job->flights; flight;
         flight = flight->next)
        done +=
            tide_pool_hand(job->owner->pool, flight->slot) - flight->span.first;
    return done;
}

void tide_jobs_promise(struct tide_lua_job *job, lua_State *L, int at,
                       int index)
{
    if (job->state != TIDE_JOB_RUNNING) {
        tide_jobs_push_outcome(L, at);
        tide_promise_keep(job->owner, L, index,
                          job->state == TIDE_JOB_FAILED ? -1 : 1);
        return;
    }
    lua_pushvalue(L, index);
    tide_job_store(job, L, TIDE_JOB_PROMISE);
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

/* ---- waiting ---- */

/* Is `job` all there is, and of use only as a whole? */
static int is_alone(const struct tide_lua_pool *owner,
                    const struct tide_lua_job *job)
{
    return job != NULL && owner->jobs == job && job->next == NULL &&
           (job->order.flags & (TIDE_JOB_STREAM | TIDE_JOB_CALLS)) == 0;
}

/* How many outcomes make the next step worth while. */
static uint32_t worth_waking(const struct tide_lua_pool *owner,
                             const struct tide_lua_job *job)
{
    uint32_t flying = tide_pool_in_flight(owner->pool);
    uint32_t half = flying / 2;
    if (flying < 2)
        return 1;
    if (is_alone(owner, job)) {
        int more = tide_job_has_more(job);
        if (more && job->ledger.fixed_chunk == 0 &&
            tide_job_mean_ns(&job->ledger) <= 0)
            return 1; /* the first measurement decides the chunks */
        return more ? half : flying;
    }
    double worth = owner->span_ns > 0 ? PATIENCE_NS / owner->span_ns : 1;
    return worth < 1 ? 1 : worth < half ? (uint32_t)worth : half;
}

static int nothing_comes(const struct tide_lua_job *job)
{
    return job->ledger.flying == 0 && !tide_job_has_more(job);
}

static int is_over(const struct tide_lua_pool *owner, lua_State *L,
                   const struct tide_lua_job *job, uint64_t call)
{
    if (job == NULL)
        return owner->jobs == NULL;
    if (job->state != TIDE_JOB_RUNNING)
        return 1;
    if (job->calls != NULL)
        return tide_calls_is_over(job, call);
    if ((job->order.flags & TIDE_JOB_STREAM) != 0)
        return tide_ring_has_next(job, L) || nothing_comes(job);
    return !job->complete && (nothing_comes(job) || room_of(job) > 0);
}

/* Sleep until a step is worth while. */
static int rest(struct tide_lua_pool *owner, const struct tide_lua_job *job,
                uint64_t deadline_ns)
{
    uint32_t count = worth_waking(owner, job);
    if (count > 1 && !is_alone(owner, job)) {
        uint64_t soon_ns = tide_now_ns() + SHORT_SLEEP_NS;
        int status = tide_pool_wait(
            owner->pool, count, soon_ns < deadline_ns ? soon_ns : deadline_ns);
        if (status != TIDE_ETIMEOUT || soon_ns >= deadline_ns)
            return status;
        count = 1;
    }
    return tide_pool_wait(owner->pool, count, deadline_ns);
}

static int wait(struct tide_lua_pool *owner, lua_State *L,
                const struct tide_lua_job *job, uint64_t call,
                uint64_t deadline_ns)
{
    for (;;) {
        if (!is_over(owner, L, job, call))
            tide_jobs_step(owner, L);
        if (is_over(owner, L, job, call))
            return TIDE_OK;
        if (owner->finished)
            return TIDE_EAGAIN;
        uint64_t start_ns = tide_trace_start(owner);
        int status = rest(owner, job, deadline_ns);
        tide_trace_work(owner, "wait", start_ns, "chunks",
                        tide_pool_in_flight(owner->pool));
        if (status == TIDE_EINTR)
            return TIDE_EINTR;
        if (status == TIDE_ETIMEOUT) {
            tide_jobs_step(owner, L);
            return is_over(owner, L, job, call) ? TIDE_OK : TIDE_ETIMEOUT;
        }
    }
}

int tide_jobs_wait(struct tide_lua_pool *owner, lua_State *L,
                   const struct tide_lua_job *job, uint64_t call,
                   uint64_t deadline_ns)
{
    int status = wait(owner, L, job, call, deadline_ns);
    if (owner->pool != NULL && owner->pool->is_external)
        tide_pool_arm(owner->pool);
    return status;
}
