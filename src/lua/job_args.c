/*
 * Items are encoded in segments of some hundred to some thousand: large enough
 * that a block, its bookkeeping and the cache lines it travels in cost next to
 * nothing an item, whatever the chunks are that it is cut into; small enough that
 * encoding does not run far ahead of the workers.
 */
#include "base/fault.h"
#include "lua/form.h"
#include "lua/job_parts.h"
#include "lua/random.h"
#include "lua/reader.h"
#include "lua/trace.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEGMENT_ITEMS = 256,         /* at least, if there are as many */
    SEGMENT_BYTES = 1024 * 1024, /* about at most */
    RANGE_ITEMS = 1 << 24,
    ARGUMENTS_MAX = 1 << 20, /* Lua's stack takes fewer */
    COMPILED_FROM = 64 /* items from which the loop in Lua is worth its call */
};

/* ---- segments ---- */

static uint16_t run_flags(const struct tide_lua_job *job)
{
    static const struct {
        unsigned job;
        uint16_t run;
    } table[] = {
        { TIDE_JOB_COLLECT | TIDE_JOB_STREAM, TIDE_RUN_ON },
        { TIDE_JOB_TRUTH, TIDE_RUN_TRUTH },
        { TIDE_JOB_EFFECT, TIDE_RUN_EFFECT },
        { TIDE_JOB_FOLD, TIDE_RUN_FOLD },
    };
    unsigned flags = 0;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if ((job->order.flags & table[i].job) != 0)
            flags |= table[i].run;
    if (job->order.terms.error_retries > 0)
        flags |= TIDE_RUN_ON; /* what is tried again stops nobody */
    if ((job->order.flags & TIDE_JOB_FOLD) != 0)
        flags &= ~(unsigned)TIDE_RUN_ON; /* the fold ends at an error */
    if (job->stream != 0)
        flags |= TIDE_RUN_SEEDED;
    return (uint16_t)flags;
}

static struct tide_lua_segment *new_segment(const struct tide_lua_job *job,
                                            uint16_t form)
{
    struct tide_lua_segment *segment =
        TIDE_FAULT(JOB_MALLOC) ? NULL : calloc(1, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->origin = job->encoded;
    segment->request.function = job->function->block;
    segment->request.form = form;
    segment->request.flags = run_flags(job);
    segment->request.timeout_ms = job->order.terms.timeout_ms;
    segment->request.origin = (uint32_t)job->encoded;
    segment->request.stream = job->stream + job->encoded * TIDE_STREAM_STEP;
    return segment;
}

void tide_segment_free(struct tide_segment *segment, void *owner)
{
    struct tide_lua_segment *mine = (void *)segment;
    struct tide_lua_pool *pool = owner;
    tide_pool_free_block(pool->pool, mine->block);
    tide_handles_free(&mine->handles);
    free(mine);
}

/* Hand the segment of `count` items to the ledger. */
static void add_segment(struct tide_lua_job *job,
                        struct tide_lua_segment *segment, uint32_t count)
{
    segment->part.count = count;
    job->encoded += count;
    tide_job_add(&job->ledger, &segment->part);
}

/*
 * Sums of fractions depend on where they begin. So the items of a range are counted
 * from its first one, and not from that of their segment, which is as it happens to
 * be; and since a request has 32 bits for that, anew from each 2^32nd item.
 */
static double range_base(const struct tide_lua_job *job, uint64_t index)
{
    uint64_t counted_from = index & ~(uint64_t)UINT32_MAX;
    return job->order.range_first +
           (double)counted_from * job->order.range_step;
}

static int encode_range(struct tide_lua_job *job)
{
    uint64_t left = tide_job_unencoded(job);
    uint64_t counted = UINT64_C(1) + (UINT32_MAX - (uint32_t)job->encoded);
    uint64_t most = counted < RANGE_ITEMS ? counted : RANGE_ITEMS;
    struct tide_lua_segment *segment = new_segment(job, TIDE_ARGS_RANGE);
    if (segment == NULL)
        return -1;
    double bounds[2] = { range_base(job, job->encoded), job->order.range_step };
    segment->request.length = sizeof bounds;
    memcpy(segment->request.args.bytes, bounds, sizeof bounds);
    add_segment(job, segment, (uint32_t)(left < most ? left : most));
    return 0;
}

void tide_job_push_element(lua_State *L, int index, uint64_t place)
{
    if (lua_istable(L, index)) {
        lua_rawgeti(L, index, (int)place + 1);
    } else {
        lua_pushnumber(L, (double)place + 1);
        lua_gettable(L, index);
    }
}

/* Fill `column` from the items on top; returns how many items are numbers. */
static uint32_t fill_column(lua_State *L, double *column, uint64_t from,
                            uint32_t count)
{
    int items = lua_gettop(L);
    if (count >= COMPILED_FROM) {
        lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_COLUMNS);
        lua_getfield(L, -1, "fill");
        lua_pushlightuserdata(L, column);
        lua_pushvalue(L, items);
        lua_pushnumber(L, (double)from);
        lua_pushnumber(L, count);
        lua_call(L, 4, 1);
        uint32_t filled = (uint32_t)lua_tonumber(L, -1);
        lua_settop(L, items);
        return filled;
    }
    for (uint32_t i = 0; i < count; i++) {
        tide_job_push_element(L, items, from + i);
        int is_number = lua_type(L, -1) == LUA_TNUMBER;
        column[i] = is_number ? lua_tonumber(L, -1) : 0;
        lua_settop(L, items);
        if (!is_number)
            return i;
    }
    return count;
}

/*
 * Numbers as a column, items on top of the stack. Returns 1 if it was done, 0 if
 * they are not all numbers, -1 without memory.
 */
static int encode_column(struct tide_lua_job *job, lua_State *L, uint32_t count)
{
    struct tide_pool *pool = job->owner->pool;
    struct tide_lua_segment *segment = new_segment(job, TIDE_ARGS_COLUMN);
    size_t bytes = (size_t)count * TIDE_COLUMN_BYTES;
    if (segment == NULL)
        return -1;
    void *column = segment->request.args.bytes;
    if (bytes > TIDE_ARGS_BYTES) {
        segment->block = tide_pool_alloc(pool, bytes);
        if (segment->block == 0) {
            free(segment);
            return -1;
        }
        column = tide_pool_at(pool, segment->block);
        segment->request.args.offset = segment->block;
        segment->request.form |= TIDE_REQUEST_BLOCK;
    }
    segment->request.length = (uint32_t)bytes;
    uint32_t filled =
        fill_column(L, column, job->encoded - job->item_base, count);
    if (filled < count) {
        tide_segment_free(&segment->part, job->owner);
        return 0;
    }
    add_segment(job, segment, count);
    return 1;
}

/* ---- messages ---- */

int tide_args_unpack(lua_State *L, int index, double count)
{
    if (!(count >= 0 && count <= ARGUMENTS_MAX) ||
        !lua_checkstack(L, (int)count + 8))
        return -1;
    for (int i = 1; i <= (int)count; i++)
        lua_rawgeti(L, index, i);
    return (int)count;
}

/* Push the arguments of the item at `item`; their number, -1 if it has none. */
static int push_unpacked(lua_State *L, int item)
{
    if (!lua_istable(L, item))
        return -1;
    lua_getfield(L, item, "n");
    double count =
        lua_isnumber(L, -1) ? lua_tonumber(L, -1) : (double)lua_objlen(L, item);
    lua_pop(L, 1);
    return tide_args_unpack(L, item, count);
}

/* Append the item on top as a message and pop it. */
static int encode_item(struct tide_lua_job *job, lua_State *L,
                       struct tide_buffer *buffer, struct tide_error *err)
{
    int item = lua_gettop(L);
    int first = item, count = 1;
    unsigned head = 0;
    if ((job->order.flags & TIDE_JOB_UNPACK) != 0) {
        count = push_unpacked(L, item);
        first = item + 1;
        head = TIDE_HEAD_MULTI;
    }
    int status = count < 0
                     ? tide_fail(err, TIDE_EINVAL,
                                 lua_istable(L, item)
                                     ? "a %s of too many arguments"
                                     : "a %s, where a table of arguments is "
                                       "needed",
                                 luaL_typename(L, item))
                     : tide_encode(job->owner->codec, L, buffer, first, count,
                                   head, err);
    lua_settop(L, item - 1);
    return status;
}

/* The item `job->encoded` cannot travel: its final state is that. */
static void refuse_item(struct tide_lua_job *job, lua_State *L, const char *why)
{
    uint64_t index = job->encoded++;
    lua_pushfstring(L, "cannot send item %d: %s", (int)index + 1, why);
    tide_error_object_push(L, "encode", lua_tostring(L, -1));
    tide_job_refuse_item(job, L, index);
    lua_pop(L, 1);
}

struct message_run {
    struct tide_block_buffer out;
    uint32_t planned;
    uint32_t count;
    struct tide_error err;
    int status; /* of the item that ended the run */
};

/* Encode up to `planned` items from the table on top, an index before them. */
static void run_messages(struct tide_lua_job *job, lua_State *L,
                         struct message_run *run)
{
    struct tide_buffer *buffer = &run->out.buffer;
    int items = lua_gettop(L);
    int is_call = (job->order.flags & TIDE_JOB_BROADCAST) != 0;
    if (run->planned > 1) {
        size_t index_bytes = (1 + (size_t)run->planned) * sizeof(uint32_t);
        if (tide_buffer_reserve(buffer, index_bytes) == NULL) {
            run->status = TIDE_ENOMEM;
            return;
        }
        memcpy(buffer->data, &run->planned, sizeof run->planned);
        buffer->used = index_bytes;
    }
    while (run->count < run->planned &&
           (run->count == 0 || buffer->used < SEGMENT_BYTES)) {
        uint32_t offset = (uint32_t)buffer->used;
        if (is_call)
            lua_pushvalue(L, items);
        else
            tide_job_push_element(L, items,
                                  job->encoded - job->item_base + run->count);
        run->status = encode_item(job, L, buffer, &run->err);
        if (run->status != TIDE_OK)
            return;
        if (run->planned > 1)
            memcpy(buffer->data + (1 + (size_t)run->count) * sizeof offset,
                   &offset, sizeof offset);
        run->count++;
    }
}

/* Items on top of the stack as messages, about `count` of them. */
static int encode_messages(struct tide_lua_job *job, lua_State *L,
                           uint32_t count)
{
    struct tide_lua_segment *segment =
        new_segment(job, count > 1 ? TIDE_ARGS_MESSAGES : TIDE_ARGS_MESSAGE);
    if (segment == NULL)
        return -1;
    struct message_run run = { .planned = count };
    tide_block_buffer_init(&run.out, job->owner->pool,
                           segment->request.args.bytes);
    size_t mark = job->owner->codec->sent.count;
    run_messages(job, L, &run);
    tide_handles_take(job->owner->codec, mark, &segment->handles);
    segment->block = run.out.block;
    segment->request.length = (uint32_t)run.out.buffer.used;
    if (segment->block != 0) {
        segment->request.args.offset = segment->block;
        segment->request.form |= TIDE_REQUEST_BLOCK;
    }
    if (run.count > 0 && (job->order.flags & TIDE_JOB_BROADCAST) != 0)
        add_segment(job, segment, (uint32_t)job->order.total);
    else if (run.count > 0)
        add_segment(job, segment, run.count);
    else
        tide_segment_free(&segment->part, job->owner);
    if (run.status == TIDE_EINVAL)
        refuse_item(job, L, run.err.text);
    return run.status == TIDE_ENOMEM && run.count == 0 ? -1 : 0;
}

uint64_t tide_job_unencoded(const struct tide_lua_job *job)
{
    uint64_t total = job->order.total;
    uint64_t most = job->allowed < total ? job->allowed : total;
    return most > job->encoded ? most - job->encoded : 0;
}

static int encode_next(struct tide_lua_job *job, lua_State *L, uint64_t wanted)
{
    uint64_t left = tide_job_unencoded(job);
    if (job->order.is_range)
        return encode_range(job);
    if (wanted < SEGMENT_ITEMS)
        wanted = SEGMENT_ITEMS;
    uint32_t count = (uint32_t)(wanted < left ? wanted : left);
    if ((job->order.flags & TIDE_JOB_BROADCAST) != 0)
        count = 1; /* the same message for every worker */
    luaL_checkstack(L, 16, "too many nested calls");
    tide_job_push(job, L, TIDE_JOB_ITEMS);
    int done = 0;
    if ((job->order.flags & TIDE_JOB_UNPACK) == 0) {
        tide_job_push_element(L, lua_gettop(L), job->encoded - job->item_base);
        int is_number = lua_type(L, -1) == LUA_TNUMBER;
        lua_pop(L, 1);
        if (is_number)
            done = encode_column(job, L, count);
    }
    if (done == 0)
        done = encode_messages(job, L, count);
    lua_pop(L, 1);
    return done < 0 ? -1 : 0;
}

int tide_job_encode_next(struct tide_lua_job *job, lua_State *L,
                         uint64_t wanted)
{
    uint64_t start_ns = tide_trace_start(job->owner);
    uint64_t encoded = job->encoded;
    int status = encode_next(job, L, wanted);
    tide_trace_work(job->owner, "encode", start_ns, "items",
                    job->encoded - encoded);
    return status;
}

/* ---- an item once more, for its error ---- */

/* Push the item as it was sent. */
static void push_sent(const struct tide_lua_job *job, lua_State *L,
                      const struct tide_lua_segment *segment, uint32_t item)
{
    const unsigned char *args =
        segment->block != 0 ? tide_pool_at(job->owner->pool, segment->block)
                            : segment->request.args.bytes;
    const unsigned char *at = args;
    unsigned form = segment->request.form & ~(unsigned)TIDE_REQUEST_BLOCK;
    struct tide_error err;
    int count;
    if (form == TIDE_ARGS_COLUMN) {
        double number;
        memcpy(&number, at + (size_t)item * sizeof number, sizeof number);
        lua_pushnumber(L, number);
        return;
    }
    if (form == TIDE_ARGS_MESSAGES) {
        uint32_t offset =
            tide_load32(at + (1 + (size_t)item) * sizeof(uint32_t));
        /* A worker could have written there. */
        at +=
            offset < segment->request.length ? offset : segment->request.length;
    }
    if (tide_decode(job->owner->codec, L, &at, args + segment->request.length,
                    &count, NULL, &err) != TIDE_OK) {
        lua_pushnil(L);
        return;
    }
    if ((job->order.flags & TIDE_JOB_UNPACK) == 0)
        return;
    lua_createtable(L, count, 1);
    lua_insert(L, -count - 1);
    for (int i = count; i >= 1; i--)
        lua_rawseti(L, -i - 1, i);
}

void tide_job_push_item(const struct tide_lua_job *job, lua_State *L,
                        const struct tide_lua_segment *segment, uint32_t item)
{
    uint64_t index = segment->origin + item;
    if (job->order.is_range) {
        lua_pushnumber(L, range_base(job, index) +
                              (uint32_t)index * job->order.range_step);
        return;
    }
    if ((job->order.flags & TIDE_JOB_LAZY) != 0) {
        push_sent(job, L, segment, item);
        return;
    }
    tide_job_push(job, L, TIDE_JOB_ITEMS);
    tide_job_push_element(L, lua_gettop(L), index);
    lua_replace(L, -2);
}
