/*
 * An outcome is taken in place by place: the column, then the messages, then what
 * became of the item in hand. The worker may have died anywhere, and it may have
 * been taken over by what it computed: counts and lengths are held against the
 * request and the block before they are used.
 */
#include "lua/form.h"
#include "lua/job_calls.h"
#include "lua/job_feed.h"
#include "lua/trace.h"

#include <lauxlib.h>
#include <string.h>

enum { COMPILED_FROM = 64 };

/* ---- values ---- */

struct intake {
    struct tide_lua_job *job;
    lua_State *L;
    struct tide_lua_segment *segment;
    int results;             /* stack index of the results table */
    const unsigned char *at; /* messages */
    const unsigned char *end;
};

/* The value on top is the item's result. */
static void store_result(struct intake *in, uint64_t index)
{
    lua_State *L = in->L;
    if ((in->job->order.flags & TIDE_JOB_STREAM) != 0)
        tide_ring_land(in->job, L, index, 0, 0);
    else if (lua_isnil(L, -1))
        lua_pop(L, 1);
    else
        lua_rawseti(L, in->results, (int)index + 1);
}

/* Only what the item's function raised may be tried again. */
static enum tide_failure failure_of(lua_State *L)
{
    lua_getfield(L, -1, "kind");
    const char *kind = lua_tostring(L, -1);
    int raised = kind != NULL && strcmp(kind, "task") == 0;
    lua_pop(L, 1);
    return raised ? TIDE_FAILURE_RAISED : TIDE_FAILURE_FINAL;
}

/* Push the values of the next message. 0: none, the item failed with that. */
static int decode_next(struct intake *in, uint32_t item, int *count,
                       unsigned *head)
{
    lua_State *L = in->L;
    struct tide_error err;
    int top = lua_gettop(L);
    if (tide_decode(in->job->owner->codec, L, &in->at, in->end, count, head,
                    &err) == TIDE_OK) {
        if ((in->job->order.flags & TIDE_JOB_CALLS) == 0)
            lua_settop(L, top + 1); /* however many it says there are */
        return 1;
    }
    lua_pushfstring(L, "cannot receive result: %s", err.text);
    tide_error_object_push(L, "decode", lua_tostring(L, -1));
    tide_job_fail_item(in->job, L, in->segment, item, TIDE_FAILURE_FINAL);
    lua_pop(L, 1);
    return 0;
}

/* Take the next message as the item's final state. */
static void take_message(struct intake *in, uint32_t item)
{
    lua_State *L = in->L;
    unsigned head;
    int count;
    if (!decode_next(in, item, &count, &head))
        return;
    if ((head & TIDE_HEAD_ERROR) != 0 && lua_istable(L, -1)) {
        tide_error_object_set(L);
        tide_job_fail_item(in->job, L, in->segment, item, failure_of(L));
    } else if ((in->job->order.flags & TIDE_JOB_CALLS) != 0) {
        tide_calls_return(in->job, L, in->segment->origin + item, count);
    } else {
        store_result(in, in->segment->origin + item);
    }
}

/* A run of a column that is worth a call of the compiled loop. */
static void drain(struct intake *in, const unsigned char *column, int boolean,
                  uint64_t from, uint32_t count)
{
    lua_State *L = in->L;
    double numbers[TIDE_COLUMN_RUN];
    const void *run = column;
    if (!boolean) {
        tide_column_copy(numbers, column, count);
        run = numbers;
    }
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_COLUMNS);
    lua_getfield(L, -1, boolean ? "drain_booleans" : "drain_numbers");
    lua_pushlightuserdata(L, (void *)(uintptr_t)run);
    lua_pushvalue(L, in->results);
    lua_pushnumber(L, (double)from);
    lua_pushnumber(L, count);
    lua_call(L, 4, 0);
    lua_pop(L, 1);
}

static void take_column(struct intake *in, const unsigned char *column,
                        uint32_t form, uint64_t from, uint32_t count)
{
    int boolean = (form & TIDE_REPLY_BOOLEAN) != 0;
    if (count > 0 && (in->job->order.flags & TIDE_JOB_STREAM) != 0) {
        tide_ring_land_column(in->job, in->L, column, boolean, from, count);
        return;
    }
    while (count >= COMPILED_FROM) {
        uint32_t run = count < TIDE_COLUMN_RUN ? count : TIDE_COLUMN_RUN;
        drain(in, column, boolean, from, run);
        column += run * (boolean ? 1 : sizeof(double));
        from += run;
        count -= run;
    }
    for (uint32_t i = 0; i < count; i++) {
        tide_column_push(in->L, column, boolean, i);
        lua_rawseti(in->L, in->results, (int)(from + i + 1));
    }
}

/* The items in the column of a reply, as far as they are really there. */
static uint32_t column_count(const struct tide_outcome *outcome,
                             uint32_t complete)
{
    const struct tide_reply *reply = &outcome->reply;
    size_t width =
        (reply->form & TIDE_REPLY_BOOLEAN) != 0 ? 1 : TIDE_COLUMN_BYTES;
    if ((reply->form & TIDE_REPLY_COLUMN) == 0)
        return 0;
    uint32_t count = reply->mark < complete ? reply->mark : complete;
    uint64_t room = outcome->capacity / width;
    return count < room ? count : (uint32_t)room;
}

/* The bytes before the messages. */
static uint64_t messages_at(const struct tide_outcome *outcome)
{
    uint64_t items = outcome->request.count - outcome->request.first;
    if ((outcome->reply.form & TIDE_REPLY_COLUMN) == 0)
        return 0;
    return items * TIDE_COLUMN_BYTES < outcome->capacity
               ? items * TIDE_COLUMN_BYTES
               : outcome->capacity;
}

/* Items [first, hand) have a result each. */
static void take_values(struct intake *in, const struct tide_span *span,
                        uint32_t hand, const struct tide_outcome *outcome)
{
    uint32_t in_column = column_count(outcome, hand - span->first);
    take_column(in, outcome->bytes, outcome->reply.form,
                in->segment->origin + span->first, in_column);
    for (uint32_t item = span->first + in_column; item < hand; item++)
        take_message(in, item);
}

/* Items that failed are named, the others had their effect. */
static void take_effects(struct intake *in, const struct tide_span *span,
                         uint32_t hand)
{
    lua_State *L = in->L;
    unsigned head;
    int count;
    uint32_t least = span->first;
    while (in->at < in->end && decode_next(in, span->first, &count, &head)) {
        double item = lua_tonumber(L, -1);
        lua_settop(L, in->results);
        if (!(item >= least && item < hand))
            return; /* it is the item in hand, or nonsense */
        least =
            (uint32_t)item + 1; /* each once, or it is repeated more often */
        take_message(in, (uint32_t)item);
    }
}

/* The largest aligned block that begins at `from` and ends by `to`: its log. */
static unsigned block_level(uint64_t from, uint64_t to)
{
    unsigned level = 0;
    while ((from & (UINT64_C(1) << level)) == 0 &&
           (UINT64_C(2) << level) <= to - from)
        level++;
    return level;
}

/* Partial results of the blocks that [first, hand) is made of. */
static void take_partials(struct intake *in, const struct tide_span *span,
                          uint32_t hand)
{
    uint64_t from = in->segment->origin + span->first;
    const uint64_t to = in->segment->origin + hand;
    unsigned head;
    int count;
    while (from < to && decode_next(in, span->first, &count, &head)) {
        unsigned level = block_level(from, to);
        tide_ring_land(in->job, in->L, from, level, 0);
        from += UINT64_C(1) << level;
    }
}

/* What a dead worker had folded is lost with it. */
static void repeat_fold(struct intake *in, const struct tide_span *span,
                        uint32_t hand)
{
    struct tide_span begun = { span->segment, span->first, hand };
    if (hand == span->first)
        return;
    if (tide_job_repeat(&in->job->ledger, &begun) == 0) {
        in->job->owner->repeated += hand - span->first;
        return;
    }
    tide_error_object_push(in->L, "broken", "not enough memory");
    tide_job_fail(in->job, in->L);
}

static void take_finished(struct intake *in, const struct tide_span *span,
                          uint32_t hand, const struct tide_outcome *outcome)
{
    const unsigned flags = in->job->order.flags;
    if ((flags & TIDE_JOB_EFFECT) != 0)
        take_effects(in, span, hand);
    else if ((flags & TIDE_JOB_FOLD) == 0)
        take_values(in, span, hand, outcome);
    else if (outcome->lost)
        repeat_fold(in, span, hand);
    else
        take_partials(in, span, hand);
}

/* The end of a call; returns 1 if it has come to one, or is to be repeated. */
static uint32_t take_call(struct tide_lua_job *job, lua_State *L,
                          const struct tide_span *span,
                          const struct tide_outcome *outcome)
{
    const struct tide_reply *reply = &outcome->reply;
    uint64_t length =
        reply->length < outcome->capacity ? reply->length : outcome->capacity;
    struct intake in = { .job = job,
                         .L = L,
                         .segment = (void *)span->segment,
                         .results = lua_gettop(L),
                         .at = outcome->bytes,
                         .end = outcome->bytes + length };
    int is_there = reply->hand == span->last ||
                   (!outcome->lost && (reply->form & TIDE_REPLY_FAILED) != 0);
    if (tide_calls_is_over(job, span->first))
        return 1;
    luaL_checkstack(L, 16, "too many nested calls");
    if (is_there) {
        take_message(&in, span->first);
    } else if (outcome->lost) {
        tide_job_push_death(job, L, span->first, &outcome->death);
        tide_job_fail_item(job, L, in.segment, span->first, TIDE_FAILURE_LOST);
    }
    lua_settop(L, in.results);
    return is_there || outcome->lost;
}

/* Store the results of an outcome; returns how many items are settled. */
static uint32_t take_results(struct tide_lua_job *job, lua_State *L,
                             const struct tide_span *span,
                             const struct tide_outcome *outcome)
{
    const struct tide_reply *reply = &outcome->reply;
    uint32_t hand = reply->hand;
    if (hand < span->first || hand > span->last)
        hand = span->first;
    uint32_t settled = hand - span->first;

    luaL_checkstack(L, 16, "too many nested calls");
    tide_job_push(job, L, TIDE_JOB_RESULTS);
    uint64_t start = messages_at(outcome);
    uint64_t room = outcome->capacity - start;
    struct intake in = { .job = job,
                         .L = L,
                         .segment = (void *)span->segment,
                         .results = lua_gettop(L),
                         .at = outcome->bytes + start };
    in.end = in.at + (reply->length < room ? reply->length : room);

    take_finished(&in, span, hand, outcome);
    if (hand < span->last && outcome->lost) {
        tide_job_push_death(job, L, in.segment->origin + hand, &outcome->death);
        tide_job_fail_item(job, L, in.segment, hand, TIDE_FAILURE_LOST);
        settled++;
    } else if (hand < span->last && (reply->form & TIDE_REPLY_FAILED) != 0) {
        take_message(&in, hand); /* the error that stopped the span */
        settled++;
    }
    lua_settop(L, in.results - 1);
    return settled;
}

/* ---- taking in ---- */

static void settle(struct tide_lua_job *job, const struct tide_span *span,
                   uint32_t settled, uint32_t repeated, uint64_t elapsed_ns)
{
    struct tide_segment *segment =
        tide_job_report(&job->ledger, span, settled, repeated, elapsed_ns);
    if (segment != NULL)
        tide_segment_free(segment, job->owner);
    if (job->calls != NULL && settled > repeated)
        tide_calls_settle(job, span->first);
    if (job->ledger.again_count > 0)
        tide_job_join_feed(job);
}

void tide_job_settle_span(struct tide_lua_job *job,
                          const struct tide_span *span, uint32_t settled,
                          uint64_t elapsed_ns)
{
    settle(job, span, settled, 0, elapsed_ns);
}

/* Remember what work takes: of the job's function, and of spans in general. */
static void learn(struct tide_lua_job *job, const struct tide_outcome *outcome,
                  uint64_t elapsed_ns)
{
    double span_ns = (double)elapsed_ns;
    struct tide_function *function =
        tide_job_function(job, outcome->request.first);
    uint32_t done = outcome->reply.hand - outcome->request.first;
    job->owner->span_ns += (span_ns - job->owner->span_ns) / 8;
    if (done > 0 && done <= outcome->request.count)
        function->call_ns += (span_ns / done - function->call_ns) / 8;
}

static void take_outcome(struct tide_lua_pool *owner, lua_State *L)
{
    const struct tide_outcome *outcome = &owner->outcome;
    struct tide_flight *flight = (void *)(uintptr_t)outcome->tag;
    struct tide_lua_job *job = flight->job;
    uint32_t settled = flight->span.last - flight->span.first;
    owner->repeated = 0;
    if (job->state == TIDE_JOB_RUNNING)
        settled = job->calls != NULL
                      ? take_call(job, L, &flight->span, outcome)
                      : take_results(job, L, &flight->span, outcome);
    uint64_t elapsed_ns = 0;
    if (!outcome->lost && outcome->reply.end_ns > outcome->reply.start_ns) {
        elapsed_ns = outcome->reply.end_ns - outcome->reply.start_ns;
        learn(job, outcome, elapsed_ns);
    }
    settle(job, &flight->span, settled, owner->repeated, elapsed_ns);
}

/* Give the outcome back; its job may be over with it. */
static void release_outcome(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_flight *flight = (void *)(uintptr_t)owner->outcome.tag;
    struct tide_lua_job *job = flight->job;
    tide_flight_end(flight);
    owner->taking = 0;
    tide_pool_release(owner->pool, &owner->outcome);
    tide_job_conclude(job, L);
}

void tide_jobs_take_in(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_deaths deaths = tide_deaths_now();
    uint64_t start_ns = tide_trace_start(owner), count = 0;
    while (tide_pool_receive(owner->pool, &owner->outcome) == TIDE_OK) {
        owner->taking = 1;
        if (owner->trace != NULL)
            tide_trace_outcome(owner);
        take_outcome(owner, L);
        release_outcome(owner, L);
        count++;
    }
    if (deaths.told != owner->deaths.told)
        tide_crew_settled(owner->pool->crew, deaths);
    owner->deaths = deaths;
    tide_trace_work(owner, "take in", start_ns, "chunks", count);
}

/* An error left an outcome half taken in: its job, or call, fails with it. */
void tide_jobs_abandon(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_flight *flight = (void *)(uintptr_t)owner->outcome.tag;
    struct tide_lua_job *job = flight->job;
    if (job->calls != NULL)
        tide_calls_fail(job, L, flight->span.first);
    else
        tide_job_fail(job, L);
    tide_job_settle_span(job, &flight->span,
                         flight->span.last - flight->span.first, 0);
    release_outcome(owner, L);
}
