/*
 * An outcome is taken in place by place: the column, then the messages, then what
 * became of the item in hand. The worker may have died anywhere, and it may have
 * been taken over by what it computed: counts and lengths are held against the
 * request and the block before they are used.
 */
#include "lua/errors.h"
#include "lua/form.h"
#include "lua/job_parts.h"

#include <lauxlib.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

enum { COMPILED_FROM = 64 };

/* ---- errors ---- */

static void set_error_class(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_ERROR);
    lua_setmetatable(L, -2);
}

void tide_error_object_push(lua_State *L, const char *kind, const char *message)
{
    lua_createtable(L, 0, 8);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, message);
    lua_setfield(L, -2, "message");
    set_error_class(L);
}

static void set_number(lua_State *L, const char *field, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, field);
}

void tide_job_fail_item(struct tide_lua_job *job, lua_State *L, uint64_t index)
{
    if ((job->flags & TIDE_JOB_ALL) == 0) {
        set_number(L, "index", (double)index + 1);
        if (job->is_range) {
            set_number(L, "item",
                       job->range_first + (double)index * job->range_step);
        } else {
            tide_job_push(job, L, TIDE_JOB_ITEMS);
            lua_rawgeti(L, -1, (int)index + 1);
            lua_setfield(L, -3, "item");
            lua_pop(L, 1);
        }
    }
    set_number(L, "attempts", 1);
    if ((job->flags & TIDE_JOB_COLLECT) == 0) {
        tide_job_fail(job, L);
        return;
    }
    tide_job_push(job, L, TIDE_JOB_RESULTS);
    lua_insert(L, -2);
    lua_rawseti(L, -2, (int)index + 1);
    lua_pop(L, 1);
}

/* The item was lost with its worker. */
static void fail_lost(struct tide_lua_job *job, lua_State *L, uint64_t index,
                      const struct tide_death *death)
{
    int status = death->wait_status;
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    lua_pushfstring(L, "worker %d (pid %d) ", (int)death->worker + 1,
                    (int)death->pid);
    if (WIFSIGNALED(status))
        lua_pushfstring(L, "was killed by signal %d (%s)", number,
                        strsignal(number));
    else
        lua_pushfstring(L, "ended with exit code %d", number);
    if ((job->flags & TIDE_JOB_ALL) != 0)
        lua_pushliteral(L, " while it ran the call");
    else
        lua_pushfstring(L, " while it ran item %d", (int)index + 1);
    lua_concat(L, 3);
    tide_error_object_push(L, "worker", lua_tostring(L, -1));
    set_number(L, "worker", death->worker + 1);
    set_number(L, "pid", death->pid);
    set_number(L, WIFSIGNALED(status) ? "signal" : "exitcode", number);
    tide_job_fail_item(job, L, index);
    lua_pop(L, 1);
}

/* ---- values ---- */

struct intake {
    struct tide_lua_job *job;
    lua_State *L;
    int results; /* stack index of the results table */
    uint64_t origin;
    const unsigned char *at; /* messages */
    const unsigned char *end;
};

/* All values of a call, at the top of the stack, are the results. */
static void store_all(struct intake *in, int count)
{
    lua_State *L = in->L;
    for (int i = count; i >= 1; i--)
        lua_rawseti(L, in->results, i);
    lua_pushnumber(L, count);
    lua_setfield(L, in->results, "n");
}

static void fail_damaged(struct intake *in, uint64_t index, const char *why)
{
    lua_State *L = in->L;
    lua_pushfstring(L, "cannot receive result: %s", why);
    tide_error_object_push(L, "decode", lua_tostring(L, -1));
    tide_job_fail_item(in->job, L, index);
    lua_pop(L, 1);
}

/* Take the next message as the item's final state. */
static void take_message(struct intake *in, uint32_t item)
{
    lua_State *L = in->L;
    uint64_t index = in->origin + item;
    struct tide_error err;
    unsigned head;
    int count;
    if (tide_decode(in->job->owner->codec, L, &in->at, in->end, &count, &head,
                    &err) != TIDE_OK) {
        fail_damaged(in, index, err.text);
        return;
    }
    if ((head & TIDE_HEAD_ERROR) != 0 && lua_istable(L, -1)) {
        set_error_class(L);
        tide_job_fail_item(in->job, L, index);
    } else if ((in->job->flags & TIDE_JOB_ALL) != 0) {
        store_all(in, count);
    } else if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
    } else {
        lua_rawseti(L, in->results, (int)index + 1);
    }
}

static void take_column(struct intake *in, const unsigned char *column,
                        uint32_t form, uint64_t from, uint32_t count)
{
    lua_State *L = in->L;
    int boolean = (form & TIDE_REPLY_BOOLEAN) != 0;
    if (count >= COMPILED_FROM) {
        lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_COLUMNS);
        lua_getfield(L, -1, boolean ? "drain_booleans" : "drain_numbers");
        lua_pushlightuserdata(L, (void *)(uintptr_t)column);
        lua_pushvalue(L, in->results);
        lua_pushnumber(L, (double)from);
        lua_pushnumber(L, count);
        lua_call(L, 4, 0);
        lua_pop(L, 1);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        double number;
        if (boolean) {
            lua_pushboolean(L, column[i]);
        } else {
            memcpy(&number, column + (size_t)i * sizeof number, sizeof number);
            lua_pushnumber(L, number);
        }
        lua_rawseti(L, in->results, (int)(from + i + 1));
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

uint32_t tide_job_take_results(struct tide_lua_job *job, lua_State *L,
                               const struct tide_span *span,
                               const struct tide_outcome *outcome)
{
    const struct tide_lua_segment *segment = (void *)span->segment;
    const struct tide_reply *reply = &outcome->reply;
    uint32_t hand = reply->hand;
    if (hand < span->first || hand > span->last)
        hand = span->first;
    uint32_t complete = hand - span->first;

    luaL_checkstack(L, 16, "too many nested calls");
    tide_job_push(job, L, TIDE_JOB_RESULTS);
    uint64_t start = messages_at(outcome);
    uint64_t room = outcome->capacity - start;
    struct intake in = { .job = job,
                         .L = L,
                         .results = lua_gettop(L),
                         .origin = segment->origin,
                         .at = outcome->bytes + start };
    in.end = in.at + (reply->length < room ? reply->length : room);

    uint32_t in_column = column_count(outcome, complete);
    take_column(&in, outcome->bytes, reply->form, in.origin + span->first,
                in_column);
    for (uint32_t item = span->first + in_column; item < hand; item++)
        take_message(&in, item);
    if (hand < span->last) {
        if (outcome->lost)
            fail_lost(job, L, in.origin + hand, &outcome->death);
        else
            take_message(&in, hand); /* the error that stopped the span */
        complete++;
    }
    lua_settop(L, in.results - 1);
    return complete;
}

/* ---- taking in ---- */

void tide_job_settle_span(struct tide_lua_job *job,
                          const struct tide_span *span, uint32_t settled,
                          uint64_t elapsed_ns)
{
    struct tide_segment *segment =
        tide_job_report(&job->ledger, span, settled, elapsed_ns);
    if (segment != NULL)
        tide_segment_free(segment, job->owner);
    if (job->ledger.again_count > 0)
        tide_job_join_feed(job);
}

static void take_outcome(struct tide_lua_pool *owner, lua_State *L)
{
    const struct tide_outcome *outcome = &owner->outcome;
    struct tide_flight *flight = (void *)(uintptr_t)outcome->tag;
    struct tide_lua_job *job = flight->job;
    uint32_t size = flight->span.last - flight->span.first;
    uint32_t settled = size;
    if (job->state == TIDE_JOB_RUNNING)
        settled = tide_job_take_results(job, L, &flight->span, outcome);
    uint64_t elapsed_ns = 0;
    if (!outcome->lost && outcome->reply.end_ns > outcome->reply.start_ns)
        elapsed_ns = outcome->reply.end_ns - outcome->reply.start_ns;
    tide_job_settle_span(job, &flight->span, settled, elapsed_ns);
}

/* Give the outcome back; its job may be over with it. */
static void release_outcome(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_flight *flight = (void *)(uintptr_t)owner->outcome.tag;
    struct tide_lua_job *job = flight->job;
    flight->next_free = owner->free_flights;
    owner->free_flights = flight;
    owner->taking = 0;
    tide_pool_release(owner->pool, &owner->outcome);
    if (tide_job_is_over(&job->ledger))
        tide_job_retire(job, L);
}

void tide_jobs_take_in(struct tide_lua_pool *owner, lua_State *L)
{
    while (tide_pool_receive(owner->pool, &owner->outcome) == TIDE_OK) {
        owner->taking = 1;
        take_outcome(owner, L);
        release_outcome(owner, L);
    }
}

/* An error left an outcome half taken in: its job fails with it. */
void tide_jobs_abandon(struct tide_lua_pool *owner, lua_State *L)
{
    struct tide_flight *flight = (void *)(uintptr_t)owner->outcome.tag;
    struct tide_lua_job *job = flight->job;
    tide_job_fail(job, L);
    tide_job_settle_span(job, &flight->span,
                         flight->span.last - flight->span.first, 0);
    release_outcome(owner, L);
}
