/*
 * Calls are handed out in the order in which they were given, among each other and
 * with other jobs. A job that waits on the feed list with another behind it takes no
 * call any more: the call would go before that one.
 *
 *   promises   a list by index, from 1, until they are kept; for the lack of
 *              memory see hold()
 *   items      the rest, in C; they move when they grow
 *
 * A call has two ends. It is over when its promise is kept; that is what the script
 * sees. It is settled when nothing of it comes back: then its slot and its memory are
 * free. A call that was cancelled in a worker's hand is over first.
 *
 * What may raise comes first in tide_calls_start(), and what it changes last.
 */
#include "lua/job_calls.h"

#include "lua/form.h"
#include "lua/job_feed.h"
#include "lua/promise.h"
#include "lua/random.h"
#include "lua/trace.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum {
    CALLS_MAX = 1024, /* the memory of a job is kept as long as one of them */
    CALLS_FIRST = 16,
    WORTH_A_STEP = 32 /* outcomes, while thousands of requests wait anyway */
};

/* ---- the open job ---- */

static int takes_more(const struct tide_lua_job *job)
{
    const struct tide_lua_pool *owner = job->owner;
    const struct tide_calls *calls = job->calls;
    uint32_t count = calls->segment.part.count;
    int is_last = job->feed_link == NULL || owner->feed_tail == &job->feed_next;
    /* Calls have random numbers of their own by their number. */
    int in_turn =
        !owner->has_seed || owner->job_count == calls->first_number + count;
    return job->state == TIDE_JOB_RUNNING && count < CALLS_MAX && is_last &&
           in_turn;
}

static struct tide_lua_job *open_job(struct tide_lua_pool *owner, lua_State *L,
                                     int pool)
{
    const struct tide_job_order order = { .flags = TIDE_JOB_CALLS, .chunk = 1 };
    if (owner->calls != NULL) {
        if (takes_more(owner->calls))
            return owner->calls;
        tide_calls_close(owner->calls, L);
    }
    const int at = owner->at;
    lua_pushnil(L); /* it has no table of items */
    struct tide_lua_job *job =
        tide_job_new(owner, L, pool, lua_gettop(L), &order);
    lua_newtable(L);
    owner->at = at; /* a finalizer may have used the pool */
    lua_insert(L, -2);
    tide_job_anchor(job, L);
    job->calls = calloc(1, sizeof *job->calls);
    if (job->calls == NULL) {
        tide_job_retire(job, L);
        luaL_error(L, "not enough memory");
    }
    lua_pop(L, 1);
    job->calls->promises = tide_job_anchor_value(owner, L);
    job->calls->first_number = owner->job_count;
    tide_job_add_open(&job->ledger, &job->calls->segment.part);
    lua_pop(L, 1);
    if (owner->calls != NULL) /* that finalizer was first */
        tide_calls_close(owner->calls, L);
    owner->calls = job;
    return job;
}

void tide_calls_close(struct tide_lua_job *job, lua_State *L)
{
    if (job->owner->calls == job)
        job->owner->calls = NULL;
    job->complete = 1;
    tide_job_seal(&job->ledger);
    if (tide_job_is_over(&job->ledger))
        tide_job_retire(job, L);
}

int tide_calls_are_idle(const struct tide_lua_job *job)
{
    return job->calls != NULL && job->ledger.flying == 0 &&
           job->ledger.cutting == NULL && job->ledger.again_count == 0;
}

static void push_promises(const struct tide_lua_job *job, lua_State *L)
{
    lua_rawgeti(L, job->owner->at, job->calls->promises);
}

/* ---- arguments ---- */

/* Room for one more. NULL without memory. */
static struct tide_calls_item *reserve(struct tide_calls *calls)
{
    uint32_t count = calls->segment.part.count;
    if (count == calls->capacity) {
        uint32_t capacity = count > 0 ? 2 * count : CALLS_FIRST;
        struct tide_calls_item *items =
            realloc(calls->items, capacity * sizeof *items);
        if (items == NULL)
            return NULL;
        calls->items = items;
        calls->capacity = capacity;
    }
    calls->items[count] = (struct tide_calls_item){ .function = NULL };
    return &calls->items[count];
}

/* As tide_encode(), while no hook may turn to the pool. */
static int encode(struct tide_lua_pool *owner, lua_State *L,
                  struct tide_buffer *buffer, int first, int count,
                  struct tide_error *err)
{
    int busy = owner->busy; /* in a step it is */
    uint64_t start_ns = tide_trace_start(owner);
    owner->busy = 1;
    int status = tide_encode(owner->codec, L, buffer, first, count,
                             TIDE_HEAD_MULTI, err);
    owner->busy = busy;
    tide_trace_work(owner, "encode", start_ns, "items", 1);
    return status;
}

/* Encode to where workers can read it. */
static int encode_args(struct tide_lua_pool *owner, lua_State *L,
                       struct tide_calls_item *call, int first, int count,
                       struct tide_error *err)
{
    struct tide_block_buffer out;
    if (count < 0)
        return tide_fail(err, TIDE_EINVAL, "a table of too many arguments");
    tide_block_buffer_init(&out, owner->pool, call->args.bytes);
    size_t mark = owner->codec->sent.count;
    int status = encode(owner, L, &out.buffer, first, count, err);
    tide_handles_take(owner->codec, mark, &call->handles);
    call->length = (uint32_t)out.buffer.used;
    if (status != TIDE_OK) {
        tide_pool_free_block(owner->pool, out.block);
    } else if (out.block != 0) {
        call->where = TIDE_CALLS_BLOCK;
        call->args.block = out.block;
    }
    return status;
}

/* Push a list of arguments that cannot be encoded yet. */
static void push_list(lua_State *L, int first, int count)
{
    lua_createtable(L, count, 1);
    for (int i = 0; i < count; i++) {
        lua_pushvalue(L, first + i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushnumber(L, count);
    lua_rawseti(L, -2, 0);
}

/* Pop that list: it lies beside the promises, at -1 - item. */
static void hold(struct tide_lua_job *job, lua_State *L, uint32_t item)
{
    push_promises(job, L);
    lua_insert(L, -2);
    lua_rawseti(L, -2, -1 - (int)item);
    lua_pop(L, 1);
    job->calls->items[item].where = TIDE_CALLS_HELD;
}

/* Let go of what is held for a call. */
static void drop_held(struct tide_lua_job *job, lua_State *L, uint32_t item)
{
    struct tide_calls_item *call = &job->calls->items[item];
    push_promises(job, L);
    lua_pushnil(L);
    lua_rawseti(L, -2, -1 - (int)item);
    lua_pop(L, 1);
    if (call->where == TIDE_CALLS_HELD)
        call->where = TIDE_CALLS_INSIDE;
}

int tide_calls_prepare(struct tide_lua_job *job, lua_State *L, uint32_t item)
{
    struct tide_calls_item *call = &job->calls->items[item];
    struct tide_error err;
    int top = lua_gettop(L);
    if (call->where != TIDE_CALLS_HELD)
        return TIDE_OK;
    push_promises(job, L);
    lua_rawgeti(L, -1, -1 - (int)item);
    lua_rawgeti(L, -1, 0);
    int count = tide_args_unpack(L, top + 2, lua_tonumber(L, -1));
    int status = encode_args(job->owner, L, call, top + 4, count, &err);
    lua_settop(L, top);
    if (status == TIDE_ENOMEM)
        return status;
    drop_held(job, L, item);
    if (status != TIDE_OK)
        tide_calls_refuse(job, L, item, err.text);
    return status;
}

void tide_calls_request(struct tide_request *out,
                        const struct tide_lua_job *job, uint32_t item)
{
    const struct tide_lua_pool *owner = job->owner;
    const struct tide_calls *calls = job->calls;
    const struct tide_calls_item *call = &calls->items[item];
    unsigned flags = TIDE_RUN_ALL;
    *out = (struct tide_request){ .function = call->function->block,
                                  .length = call->length,
                                  .timeout_ms = call->terms.timeout_ms,
                                  .form = TIDE_ARGS_MESSAGE };
    if (call->where == TIDE_CALLS_BLOCK) {
        out->form |= TIDE_REQUEST_BLOCK;
        out->args.offset = call->args.block;
    } else {
        memcpy(out->args.bytes, call->args.bytes, sizeof out->args.bytes);
    }
    if (call->terms.error_retries > 0)
        flags |= TIDE_RUN_ON; /* it is not urgent to know */
    if (owner->has_seed) {
        flags |= TIDE_RUN_SEEDED;
        /* It is item 0 of a job of its own, and that is what the worker adds. */
        out->stream =
            tide_random_stream(owner->seed, calls->first_number + item + 1) -
            item * TIDE_STREAM_STEP;
    }
    out->flags = (uint16_t)flags;
}

/* ---- starting ---- */

/* Push the error of arguments that cannot travel. */
static void push_refusal(lua_State *L, const char *why)
{
    lua_pushfstring(L, "cannot send argument, %s", why);
    tide_error_object_push(L, "encode", lua_tostring(L, -1));
    lua_pushnumber(L, 1);
    lua_setfield(L, -2, "attempts");
    lua_replace(L, -2);
}

void tide_calls_refuse(struct tide_lua_job *job, lua_State *L, uint32_t item,
                       const char *why)
{
    push_refusal(L, why);
    tide_calls_fail(job, L, item);
}

/* Nothing waits before the new call: hand it out. */
static void hand_out_alone(struct tide_lua_job *job)
{
    struct tide_span span;
    if (!tide_job_cut(&job->ledger, 1, &span))
        tide_job_join_feed(job); /* there was no memory for it */
    else if (tide_flight_start(job, &span) == TIDE_OK)
        tide_job_wake_for(job, 1);
    else
        tide_job_settle_span(job, &span, 0, 0);
}

/* Hand the new call out, or leave it to the steps that follow. */
static void hand_out(struct tide_lua_job *job, lua_State *L,
                     const struct tide_calls_item *call)
{
    struct tide_lua_pool *owner = job->owner;
    int has_slot = tide_pool_has_slot(owner->pool);
    int is_ready = call->where != TIDE_CALLS_HELD && !call->over;
    tide_job_list(job);
    if (has_slot && owner->feed == NULL && !owner->pool->gone && is_ready) {
        hand_out_alone(job);
        return;
    }
    tide_job_join_feed(job);
    if (has_slot || tide_pool_arrived(owner->pool) >= WORTH_A_STEP)
        tide_jobs_step(owner, L);
}

/* What may be the next call of the job, if nothing else uses the pool before. */
static struct tide_calls_item *place_call(struct tide_lua_job *job,
                                          lua_State *L, int promise)
{
    push_promises(job, L);
    lua_pushvalue(L, promise);
    lua_rawseti(L, -2, (int)job->calls->segment.part.count + 1);
    lua_pop(L, 1);
    struct tide_calls_item *call = reserve(job->calls);
    if (call == NULL)
        luaL_error(L, "not enough memory");
    return call;
}

void tide_calls_start(struct tide_lua_pool *owner, lua_State *L, int pool,
                      int promise, int function, int first, int count,
                      const struct tide_terms *terms)
{
    struct tide_error err;
    const int at = owner->at;
    luaL_checkstack(L, 16, "too many nested calls");
    struct tide_function *called = tide_function_get(owner, L, function, 1);
    owner->at = at; /* a finalizer may have used the pool */
    struct tide_lua_job *job = open_job(owner, L, pool);
    struct tide_calls_item *call = place_call(job, L, promise);
    int status = encode_args(owner, L, call, first, count, &err);
    int is_refused = status != TIDE_OK && status != TIDE_ENOMEM;
    if (status == TIDE_ENOMEM)
        push_list(L, first, count);
    else if (is_refused)
        push_refusal(L, err.text);
    if (status != TIDE_OK) {
        owner->at = at;
        job = open_job(owner, L, pool);
        call = place_call(job, L, promise);
    }
    if (status == TIDE_ENOMEM)
        hold(job, L, job->calls->segment.part.count);
    call->function = called;
    call->terms = *terms;
    uint32_t item = job->calls->segment.part.count;
    tide_job_extend(&job->ledger, &job->calls->segment.part);
    owner->job_count++;
    if (is_refused)
        tide_calls_fail(job, L, item);
    lua_rawgeti(L, owner->at, job->self);
    lua_pushnumber(L, item);
    hand_out(job, L, call);
}

/* ---- over ---- */

int tide_calls_is_over(const struct tide_lua_job *job, uint64_t index)
{
    return job->calls == NULL || job->calls->items[index].over;
}

/* The call is over: its promise is kept with the value on top. That never raises. */
static void keep_promise(struct tide_lua_job *job, lua_State *L, uint64_t index,
                         int count)
{
    job->calls->items[index].over = 1;
    push_promises(job, L);
    lua_insert(L, -2);
    tide_promise_keep_listed(job->owner, L, lua_gettop(L) - 1,
                             (uint32_t)index + 1, count);
    lua_pop(L, 1);
}

void tide_calls_return(struct tide_lua_job *job, lua_State *L, uint64_t index,
                       int count)
{
    if (count == 0) {
        lua_pushnil(L);
    } else if (count > 1) {
        lua_createtable(L, count, 0);
        lua_insert(L, -count - 1);
        for (int i = count; i >= 1; i--)
            lua_rawseti(L, -i - 1, i);
    }
    keep_promise(job, L, index, count);
}

void tide_calls_fail(struct tide_lua_job *job, lua_State *L, uint64_t index)
{
    keep_promise(job, L, index, -1);
}

void tide_calls_fail_all(struct tide_lua_job *job, lua_State *L)
{
    for (uint32_t i = 0; i < job->calls->segment.part.count; i++) {
        if (job->calls->items[i].over)
            continue;
        tide_error_object_copy(L);
        tide_calls_fail(job, L, i);
    }
}

int tide_calls_cancel(struct tide_lua_job *job, lua_State *L, uint64_t index)
{
    if (tide_calls_is_over(job, index))
        return 0;
    tide_error_object_push(L, "cancelled", "the job was cancelled");
    tide_calls_fail(job, L, index);
    uint32_t flight = job->calls->items[index].flight;
    if (flight != 0)
        tide_flight_recall(&job->owner->flights[flight - 1], 1);
    tide_job_conclude(job, L);
    return 1;
}

/* ---- settled ---- */

void tide_calls_settle(struct tide_lua_job *job, uint32_t item)
{
    struct tide_calls_item *call = &job->calls->items[item];
    if (call->where == TIDE_CALLS_BLOCK)
        tide_pool_free_block(job->owner->pool, call->args.block);
    call->where = TIDE_CALLS_INSIDE;
    tide_handles_free(&call->handles);
    if (call->function != NULL)
        tide_function_drop(job->owner, call->function);
    call->function = NULL;
}

void tide_calls_free(struct tide_lua_job *job, lua_State *L)
{
    struct tide_calls *calls = job->calls;
    for (uint32_t i = 0; i < calls->segment.part.count; i++)
        tide_calls_settle(job, i);
    free(calls->items);
    luaL_unref(L, job->owner->at, calls->promises);
    job->calls = NULL; /* the ledger has it, and lets it go */
}
