/*
 * Four ways through a span:
 *
 *   items      decode an item's arguments, call, encode its result; one lua_pcall
 *              an item
 *   columns    numbers in, numbers or booleans or nothing out: runner_columns.c
 *   tasks      bytes in, bytes out, by a C function of the host's: runner_task.c
 *   fold       results are combined in the worker: runner_fold.c
 *
 * The worker may be killed at any instant, and what it finished counts. So `hand`
 * moves on only when the result before it is in place: result first, then length,
 * then hand. The processor keeps stores in order as release stores; the compiler
 * is told by the fence in tide_runner_advance().
 */
#include "lua/runner.h"

#include "lua/errors.h"
#include "lua/runner_parts.h"
#include "shm/board_worker.h"

#include <lauxlib.h>
#include <string.h>

enum { FUNCTIONS_MAX = 256 /* kept decoded; then all are forgotten */ };

/* ---- the reply ---- */

/*
 * The buffer behind results. It begins as the space in the slot for spans of one
 * item, else empty, and grows into blocks of the worker's region.
 */
static int grow(struct tide_buffer *buffer, size_t need)
{
    /* `out` is the buffer's place in its runner. */
    struct tide_runner *runner =
        (void *)((char *)buffer - offsetof(struct tide_runner, out));
    const struct tide_arena *arena = runner->heap.arena;
    size_t before = runner->column_bytes;
    size_t capacity = tide_buffer_next(buffer, need);
    uint64_t offset = tide_heap_alloc(&runner->heap, before + capacity);
    if (offset == 0) {
        runner->refused_bytes = capacity;
        return -1;
    }
    unsigned char *block = arena->base + offset;
    if ((runner->slot->reply.form & TIDE_REPLY_BLOCK) != 0)
        memcpy(block, buffer->data - before, before + buffer->used);
    else if (buffer->used > 0)
        memcpy(block + before, buffer->data, buffer->used);
    tide_board_publish(runner->slot, &runner->heap, offset);
    buffer->data = block + before;
    buffer->capacity = (size_t)tide_block_capacity(arena, offset) - before;
    return 0;
}

/* Everything up to here is in place: items before `item` are complete. */
void tide_runner_advance(struct tide_runner *runner, uint32_t item)
{
    struct tide_reply *reply = &runner->slot->reply;
    atomic_thread_fence(memory_order_release);
    *(volatile uint64_t *)&reply->length = runner->out.used;
    atomic_thread_fence(memory_order_release);
    *(volatile uint32_t *)&reply->hand = item;
}

int tide_runner_reserve(struct tide_runner *runner)
{
    return grow(&runner->out, 1);
}

/* How far this worker may go. */
static uint32_t end_of(const struct tide_runner *runner)
{
    const struct tide_request *request = &runner->request;
    uint64_t left = runner->limits.tasks - runner->tasks_run;
    if (runner->limits.tasks == 0 || request->count - request->first <= left)
        return request->count;
    return request->first + (uint32_t)left;
}

static void begin_reply(struct tide_runner *runner, struct tide_slot *slot)
{
    runner->slot = slot;
    runner->request = slot->request;
    runner->end = end_of(runner);
    runner->column_bytes = 0;
    runner->out.data = NULL;
    runner->out.used = runner->out.capacity = 0;
    slot->reply.mark = 0;
    if (runner->request.count - runner->request.first == 1) {
        runner->out.data = slot->reply.result.bytes;
        runner->out.capacity = TIDE_RESULT_BYTES;
    }
}

static void find_args(struct tide_runner *runner)
{
    const struct tide_request *request = &runner->request;
    runner->args = (request->form & TIDE_REQUEST_BLOCK) == 0
                       ? request->args.bytes
                       : runner->board->arena->base + request->args.offset;
    runner->form = request->form & (uint16_t)~TIDE_REQUEST_BLOCK;
    runner->args_end = runner->args + request->length;
}

/* ---- functions ---- */

#define COMBINE_KEY 0.5 /* added to a function's id */

/* An empty table at `index` that counts its entries at 0. */
static void forget(lua_State *L, int index)
{
    lua_newtable(L);
    lua_pushnumber(L, 0);
    lua_rawseti(L, -2, 0);
    lua_replace(L, index);
}

void tide_runner_count_entry(lua_State *L, int index, int limit)
{
    lua_rawgeti(L, index, 0);
    int held = (int)lua_tonumber(L, -1);
    lua_pop(L, 1);
    if (held >= limit) {
        forget(L, index);
        held = 0;
    }
    lua_pushnumber(L, held + 1);
    lua_rawseti(L, index, 0);
}

/* What a function names is kept as long as it is in the cache. */
static void forget_keepers(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    for (uint32_t i = 0; i < runner->keeper_count; i++) {
        const double id = (double)runner->keepers[i];
        const double keys[] = { id, -id, id + COMBINE_KEY };
        for (size_t j = 0; j < sizeof keys / sizeof keys[0]; j++) {
            lua_pushnumber(L, keys[j]);
            lua_pushnil(L);
            lua_rawset(L, TIDE_AT_FUNCTIONS);
        }
    }
    runner->keeper_count = 0;
}

static void note_keeper(struct tide_runner *runner, uint64_t id)
{
    if (runner->keeper_count == TIDE_KEEPERS_MAX)
        forget_keepers(runner);
    runner->keepers[runner->keeper_count++] = id;
}

void tide_runner_forget(struct tide_runner *runner, int functions)
{
    lua_State *L = runner->L;
    if (functions && runner->keeper_count > 0) {
        forget_keepers(runner);
        forget(L, TIDE_AT_LOOPS);
    }
    lua_settop(L, TIDE_AT_LOOPS);
    lua_settop(L, TIDE_AT_FUNCTION);
}

/* Decode the function block into TIDE_AT_FUNCTION; what fails is left on top. */
static int decode_function(struct tide_runner *runner,
                           const struct tide_function_head *head)
{
    lua_State *L = runner->L;
    const unsigned char *at = (const unsigned char *)(head + 1);
    struct tide_error err;
    int count;
    uint64_t opened = runner->codec->opened;
    runner->codec->root_prototype = 0;
    if (tide_decode(runner->codec, L, &at, at + head->length, &count, NULL,
                    &err) != TIDE_OK) {
        lua_pushfstring(L, "cannot receive function: %s", err.text);
        tide_error_push(L, "decode", lua_tostring(L, -1));
        return -1;
    }
    if (runner->codec->opened != opened)
        note_keeper(runner, head->id);
    tide_runner_count_entry(L, TIDE_AT_FUNCTIONS, FUNCTIONS_MAX);
    if (count > 1) { /* how to combine follows what to run */
        lua_settop(L, TIDE_AT_FUNCTION + 2);
        lua_pushnumber(L, (double)head->id + COMBINE_KEY);
        lua_insert(L, -2);
        lua_rawset(L, TIDE_AT_FUNCTIONS);
    }
    lua_pushvalue(L, -1);
    lua_rawseti(L, TIDE_AT_FUNCTIONS, (int)head->id);
    if (runner->codec->root_prototype == 0) /* a function of a library */
        runner->codec->root_prototype = ++runner->codec->last_prototype;
    lua_pushnumber(L, runner->codec->root_prototype);
    lua_rawseti(L, TIDE_AT_FUNCTIONS, -(int)head->id);
    lua_replace(L, TIDE_AT_FUNCTION);
    return 0;
}

static int find_function(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    const struct tide_function_head *head =
        (const void *)(runner->board->arena->base + runner->request.function);
    lua_rawgeti(L, TIDE_AT_FUNCTIONS, (int)head->id);
    lua_replace(L, TIDE_AT_FUNCTION);
    if (lua_isnil(L, TIDE_AT_FUNCTION) && decode_function(runner, head) != 0)
        return -1;
    if ((runner->request.flags & TIDE_RUN_FOLD) != 0) {
        lua_pushnumber(L, (double)head->id + COMBINE_KEY);
        lua_rawget(L, TIDE_AT_FUNCTIONS);
        lua_replace(L, TIDE_AT_COMBINE);
    }
    return 0;
}

/* ---- the span ---- */

int tide_runner_run(struct tide_runner *runner, struct tide_slot *slot)
{
    begin_reply(runner, slot);
    find_args(runner);
    lua_settop(runner->L, TIDE_AT_FUNCTION);
    if (find_function(runner) != 0)
        return tide_runner_put_error(runner, runner->request.first);
    int stopped = (runner->request.flags & TIDE_RUN_FOLD) != 0
                      ? tide_runner_run_fold(runner)
                  : tide_runner_has_columns(runner)
                      ? tide_runner_run_columns(runner)
                  : tide_runner_has_task(runner)
                      ? tide_runner_run_tasks(runner)
                      : tide_runner_run_items(runner, runner->request.first);
    runner->tasks_run +=
        slot->reply.hand - runner->request.first + (stopped ? 1 : 0);
    tide_runner_look(runner);
    return stopped;
}

void tide_runner_fail(struct tide_runner *runner, const char *message)
{
    lua_State *L = runner->L;
    uint32_t hand = runner->slot->reply.hand;
    if (runner->slot->reply.mark == TIDE_MARK_OPEN)
        tide_runner_close_column(runner, hand);
    runner->out.used = (size_t)runner->slot->reply.length;
    runner->request.flags &= (uint16_t)~TIDE_RUN_ON;
    tide_error_push(L, "task", message);
    tide_runner_put_error(runner, hand);
}

void tide_runner_init(struct tide_runner *runner, lua_State *L,
                      const struct tide_board *board, struct tide_heap heap,
                      const struct tide_worker_limits *limits)
{
    *runner = (struct tide_runner){ .L = L,
                                    .board = board,
                                    .heap = heap,
                                    .limits = *limits,
                                    .out = { .grow = grow } };
}

void tide_runner_enter(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    runner->codec = tide_codec_of(L);
    lua_settop(L, 0);
    lua_pushcfunction(L, tide_error_handler);
    lua_settop(L, TIDE_AT_FUNCTION);
    forget(L, TIDE_AT_FUNCTIONS);
    forget(L, TIDE_AT_LOOPS);
    runner->keeper_count = 0;
}
