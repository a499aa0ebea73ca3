/*
 * Items are encoded in segments of some hundred to some thousand: large enough
 * that a block, its bookkeeping and the cache lines it travels in cost next to
 * nothing an item, whatever the chunks are that it is cut into; small enough that
 * encoding does not run far ahead of the workers.
 */
#include "lua/errors.h"
#include "lua/form.h"
#include "lua/job_parts.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum {
    FUNCTIONS_MAX = 128,         /* encoded functions kept without a job */
    SEGMENT_ITEMS = 256,         /* at least, if there are as many */
    SEGMENT_BYTES = 1024 * 1024, /* about at most */
    RANGE_ITEMS = 1 << 24,
    COMPILED_FROM = 64 /* items from which the loop in Lua is worth its call */
};

/* ---- functions ---- */

static struct tide_function *find_function(struct tide_lua_pool *owner,
                                           const struct tide_buffer *text,
                                           uint64_t digest)
{
    for (struct tide_function **at = &owner->functions; *at != NULL;
         at = &(*at)->next) {
        struct tide_function *function = *at;
        if (function->digest != digest || function->size != text->used ||
            memcmp(tide_pool_at(owner->pool, function->block) +
                       sizeof(struct tide_function_head),
                   text->data, text->used) != 0)
            continue;
        *at = function->next; /* to the front: it is used again */
        function->next = owner->functions;
        owner->functions = function;
        return function;
    }
    return NULL;
}

/* Drop the function unused for longest, if there are many. */
static void evict_function(struct tide_lua_pool *owner)
{
    struct tide_function **victim = NULL;
    if (owner->function_count < FUNCTIONS_MAX)
        return;
    for (struct tide_function **at = &owner->functions; *at != NULL;
         at = &(*at)->next)
        if ((*at)->users == 0)
            victim = at;
    if (victim == NULL)
        return;
    struct tide_function *function = *victim;
    *victim = function->next;
    owner->function_count--;
    tide_pool_free_block(owner->pool, function->block);
    free(function);
}

static struct tide_function *add_function(struct tide_lua_pool *owner,
                                          const struct tide_buffer *text,
                                          uint64_t digest)
{
    evict_function(owner);
    struct tide_function *function = calloc(1, sizeof *function);
    if (function == NULL)
        return NULL;
    struct tide_function_head head = { .id = owner->last_function + 1,
                                       .length = text->used };
    function->block = tide_pool_alloc(owner->pool, sizeof head + text->used);
    if (function->block == 0) {
        free(function);
        return NULL;
    }
    unsigned char *block = tide_pool_at(owner->pool, function->block);
    memcpy(block, &head, sizeof head);
    memcpy(block + sizeof head, text->data, text->used);
    function->digest = digest;
    function->size = text->used;
    function->next = owner->functions;
    owner->functions = function;
    owner->function_count++;
    owner->last_function++;
    return function;
}

struct tide_function *tide_function_get(struct tide_lua_pool *owner,
                                        lua_State *L, int index)
{
    struct tide_codec *codec = owner->codec;
    struct tide_error err;
    struct tide_buffer text;
    struct tide_function *function = NULL;
    tide_buffer_init(&text);
    int status = tide_encode(codec, L, &text, index, 1, 0, &err);
    if (status == TIDE_OK) {
        uint64_t digest = tide_digest(text.data, text.used);
        function = find_function(owner, &text, digest);
        if (function == NULL)
            function = add_function(owner, &text, digest);
    }
    tide_buffer_free(&text);
    if (function != NULL) {
        function->users++;
        return function;
    }
    lua_pushfstring(L, "cannot send %s",
                    status != TIDE_OK ? err.text
                                      : "function: no shared memory left");
    tide_error_object_push(L, "encode", lua_tostring(L, -1));
    lua_error(L);
    return NULL;
}

void tide_function_drop(struct tide_lua_pool *owner,
                        struct tide_function *function)
{
    (void)owner;
    function->users--;
}

void tide_functions_free(struct tide_lua_pool *owner)
{
    while (owner->functions != NULL) {
        struct tide_function *function = owner->functions;
        owner->functions = function->next;
        free(function);
    }
    owner->function_count = 0;
}

/* ---- segments ---- */

static struct tide_lua_segment *new_segment(const struct tide_lua_job *job,
                                            uint16_t form)
{
    struct tide_lua_segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL)
        return NULL;
    segment->origin = job->encoded;
    segment->request.function = job->function->block;
    segment->request.form = form;
    if ((job->flags & TIDE_JOB_ALL) != 0)
        segment->request.flags |= TIDE_RUN_ALL;
    if ((job->flags & TIDE_JOB_COLLECT) != 0)
        segment->request.flags |= TIDE_RUN_ON;
    return segment;
}

void tide_segment_free(struct tide_segment *segment, void *owner)
{
    struct tide_lua_segment *mine = (void *)segment;
    struct tide_lua_pool *pool = owner;
    tide_pool_free_block(pool->pool, mine->block);
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

static int encode_range(struct tide_lua_job *job)
{
    uint64_t left = job->total - job->encoded;
    struct tide_lua_segment *segment = new_segment(job, TIDE_ARGS_RANGE);
    if (segment == NULL)
        return -1;
    double bounds[2] = { job->range_first +
                             (double)job->encoded * job->range_step,
                         job->range_step };
    segment->request.length = sizeof bounds;
    memcpy(segment->request.args.bytes, bounds, sizeof bounds);
    add_segment(job, segment,
                left < RANGE_ITEMS ? (uint32_t)left : RANGE_ITEMS);
    return 0;
}

/* Fill `column` from the table on top; returns how many items are numbers. */
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
        lua_rawgeti(L, items, (int)(from + i + 1));
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
    uint32_t filled = fill_column(L, column, job->encoded, count);
    if (filled < count) {
        tide_segment_free(&segment->part, job->owner);
        return 0;
    }
    add_segment(job, segment, count);
    return 1;
}

/* ---- messages ---- */

/* A buffer that grows in the host's region. */
struct block_buffer {
    struct tide_buffer buffer; /* first */
    struct tide_pool *pool;
    uint64_t block;
};

static int grow_block(struct tide_buffer *buffer, size_t need)
{
    struct block_buffer *mine = (void *)buffer;
    if (need > UINT32_MAX) /* see struct tide_request */
        return -1;
    uint64_t block =
        tide_pool_alloc(mine->pool, tide_buffer_next(buffer, need));
    if (block == 0)
        return -1;
    unsigned char *data = tide_pool_at(mine->pool, block);
    if (buffer->used > 0)
        memcpy(data, buffer->data, buffer->used);
    tide_pool_free_block(mine->pool, mine->block);
    mine->block = block;
    buffer->data = data;
    buffer->capacity = (size_t)tide_block_capacity(&mine->pool->arena, block);
    return 0;
}

/* Push the arguments of the item on top; their number, -1 if it has none. */
static int push_unpacked(lua_State *L)
{
    int item = lua_gettop(L);
    if (!lua_istable(L, item))
        return -1;
    lua_getfield(L, item, "n");
    int count = lua_isnumber(L, -1) ? (int)lua_tonumber(L, -1)
                                    : (int)lua_objlen(L, item);
    lua_pop(L, 1);
    if (count < 0 || !lua_checkstack(L, count + 8))
        return -1;
    for (int i = 1; i <= count; i++)
        lua_rawgeti(L, item, i);
    return count;
}

/* Append the item on top as a message and pop it. */
static int encode_item(struct tide_lua_job *job, lua_State *L,
                       struct tide_buffer *buffer, struct tide_error *err)
{
    int item = lua_gettop(L);
    int first = item, count = 1;
    unsigned head = 0;
    if ((job->flags & TIDE_JOB_UNPACK) != 0) {
        count = push_unpacked(L);
        first = item + 1;
        head = TIDE_HEAD_MULTI;
    }
    int status = count < 0
                     ? tide_fail(err, TIDE_EINVAL,
                                 "a %s, where a table of arguments is needed",
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
    const char *subject = (job->flags & TIDE_JOB_ALL) != 0 ? "argument" : NULL;
    if (subject != NULL)
        lua_pushfstring(L, "cannot send %s, %s", subject, why);
    else
        lua_pushfstring(L, "cannot send item %d: %s", (int)index + 1, why);
    tide_error_object_push(L, "encode", lua_tostring(L, -1));
    tide_job_fail_item(job, L, index);
    lua_pop(L, 1);
}

struct message_run {
    struct block_buffer out;
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
        lua_rawgeti(L, items, (int)(job->encoded + run->count + 1));
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
    struct message_run run = {
        .planned = count,
        .out = { .buffer = { .data = segment->request.args.bytes,
                             .capacity = TIDE_ARGS_BYTES,
                             .grow = grow_block },
                 .pool = job->owner->pool }
    };
    run_messages(job, L, &run);
    segment->block = run.out.block;
    segment->request.length = (uint32_t)run.out.buffer.used;
    if (segment->block != 0) {
        segment->request.args.offset = segment->block;
        segment->request.form |= TIDE_REQUEST_BLOCK;
    }
    if (run.count > 0)
        add_segment(job, segment, run.count);
    else
        tide_segment_free(&segment->part, job->owner);
    if (run.status == TIDE_EINVAL)
        refuse_item(job, L, run.err.text);
    return run.status == TIDE_ENOMEM && run.count == 0 ? -1 : 0;
}

int tide_job_encode_next(struct tide_lua_job *job, lua_State *L,
                         uint64_t wanted)
{
    uint64_t left = job->total - job->encoded;
    if (job->is_range)
        return encode_range(job);
    if (wanted < SEGMENT_ITEMS)
        wanted = SEGMENT_ITEMS;
    uint32_t count = (uint32_t)(wanted < left ? wanted : left);
    luaL_checkstack(L, 16, "too many nested calls");
    tide_job_push(job, L, TIDE_JOB_ITEMS);
    int done = 0;
    if ((job->flags & TIDE_JOB_UNPACK) == 0) {
        lua_rawgeti(L, -1, (int)(job->encoded + 1));
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
