/*
 * Two ways through a span:
 *
 *   messages   decode an item's arguments, call, encode its result; one lua_pcall
 *              an item
 *   columns    arguments that are numbers, results that are all numbers or all
 *              booleans: one call runs a loop in Lua (columns.lua) that loads
 *              arguments and stores results directly, so that the compiler makes
 *              one piece of machine code of the loop and the job's function. Each
 *              function has its own copy of the loop, so that the types of one
 *              job do not spoil the code of another.
 *
 * The column way starts as the other: the first item's result decides the kind.
 * A result of another kind ends the column, and the rest goes as messages.
 *
 * The worker may be killed at any instant, and what it finished counts. So `hand`
 * moves on only when the result before it is in place: result first, then length,
 * then hand. The processor keeps stores in order as release stores; the compiler
 * is told by the fence in advance().
 *
 * Stack of the state:  1 handler  2 functions by id, prototypes by -id
 *                      3 loops by prototype  4 the function
 */
#include "lua/runner.h"

#include "lua/errors.h"
#include "lua/state.h"
#include "lua/worker.h"

#include <lauxlib.h>
#include <string.h>
#include <unistd.h>

enum { AT_HANDLER = 1, AT_FUNCTIONS, AT_LOOPS, AT_FUNCTION };

enum {
    FUNCTIONS_MAX =
        256, /* kept decoded; then all are forgotten and come anew */
    LOOP_KINDS = 4,
    LOOPS_MAX = 512
};

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
    if (offset == 0)
        return -1;
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
static void advance(struct tide_runner *runner, uint32_t item)
{
    struct tide_reply *reply = &runner->slot->reply;
    atomic_thread_fence(memory_order_release);
    *(volatile uint64_t *)&reply->length = runner->out.used;
    atomic_thread_fence(memory_order_release);
    *(volatile uint32_t *)&reply->hand = item;
}

static uint32_t span_size(const struct tide_runner *runner)
{
    return runner->request.count - runner->request.first;
}

static void begin_reply(struct tide_runner *runner, struct tide_slot *slot)
{
    runner->slot = slot;
    runner->request = slot->request;
    runner->column_bytes = 0;
    runner->out.data = NULL;
    runner->out.used = runner->out.capacity = 0;
    slot->reply.mark = 0;
    if (span_size(runner) == 1) {
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

/* ---- results and errors as messages ---- */

/* Say in the error table on top where it comes from. */
static void name_worker(lua_State *L)
{
    const struct tide_worker_env *self = tide_worker_self();
    if (!lua_istable(L, -1) || self == NULL)
        return;
    lua_pushnumber(L, getpid());
    lua_setfield(L, -2, "pid");
    lua_pushnumber(L, self->index + 1);
    lua_setfield(L, -2, "worker");
}

/* Write the error on top as the item's result. Returns 1: it stops the span. */
static int put_error(struct tide_runner *runner, uint32_t item)
{
    name_worker(runner->L);
    int status = tide_error_encode(runner->codec, runner->L, &runner->out);
    lua_settop(runner->L, AT_FUNCTION);
    if (status == TIDE_OK && (runner->request.flags & TIDE_RUN_ON) != 0) {
        advance(runner, item + 1);
        return 0;
    }
    /* Without memory for the error there is none: the host makes one. */
    advance(runner, item);
    runner->slot->reply.form |= TIDE_REPLY_FAILED;
    return 1;
}

/* Write the values above AT_FUNCTION as the item's result. */
static int put_results(struct tide_runner *runner, uint32_t item)
{
    lua_State *L = runner->L;
    struct tide_error err;
    unsigned head =
        (runner->request.flags & TIDE_RUN_ALL) != 0 ? TIDE_HEAD_MULTI : 0;
    int status = tide_encode(runner->codec, L, &runner->out, AT_FUNCTION + 1,
                             lua_gettop(L) - AT_FUNCTION, head, &err);
    if (status == TIDE_OK) {
        lua_settop(L, AT_FUNCTION);
        advance(runner, item + 1);
        return 0;
    }
    lua_pushfstring(L, "cannot send result%s%s",
                    err.status == TIDE_EINVAL && strchr(err.text, ':') ? ", "
                                                                       : ": ",
                    err.text);
    tide_error_push(L, "encode", lua_tostring(L, -1));
    return put_error(runner, item);
}

/* ---- functions ---- */

/* An empty table at `index` that counts its entries at 0. */
static void forget(lua_State *L, int index)
{
    lua_newtable(L);
    lua_pushnumber(L, 0);
    lua_rawseti(L, -2, 0);
    lua_replace(L, index);
}

/* Count one more entry of the table at `index`; too many, and it is emptied. */
static void count_entry(lua_State *L, int index, int limit)
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

/* Decode the function block into AT_FUNCTION; what fails is left on top. */
static int decode_function(struct tide_runner *runner,
                           const struct tide_function_head *head)
{
    lua_State *L = runner->L;
    const unsigned char *at = (const unsigned char *)(head + 1);
    struct tide_error err;
    int count;
    runner->codec->root_prototype = 0;
    if (tide_decode(runner->codec, L, &at, at + head->length, &count, NULL,
                    &err) != TIDE_OK) {
        lua_pushfstring(L, "cannot receive function: %s", err.text);
        tide_error_push(L, "decode", lua_tostring(L, -1));
        return -1;
    }
    count_entry(L, AT_FUNCTIONS, FUNCTIONS_MAX);
    lua_pushvalue(L, -1);
    lua_rawseti(L, AT_FUNCTIONS, (int)head->id);
    if (runner->codec->root_prototype == 0) /* a function of a library */
        runner->codec->root_prototype = ++runner->codec->last_prototype;
    lua_pushnumber(L, runner->codec->root_prototype);
    lua_rawseti(L, AT_FUNCTIONS, -(int)head->id);
    lua_replace(L, AT_FUNCTION);
    return 0;
}

static int find_function(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    const struct tide_function_head *head =
        (const void *)(runner->board->arena->base + runner->request.function);
    lua_rawgeti(L, AT_FUNCTIONS, (int)head->id);
    lua_replace(L, AT_FUNCTION);
    return lua_isnil(L, AT_FUNCTION) ? decode_function(runner, head) : 0;
}

/* ---- one item at a time ---- */

/* Push the item's arguments; their number, or -1 with an error on top. */
static int push_args(struct tide_runner *runner, uint32_t item)
{
    lua_State *L = runner->L;
    const unsigned char *at = runner->args;
    double column[2];
    int count;
    switch (runner->form) {
    case TIDE_ARGS_COLUMN:
        memcpy(column, at + (size_t)item * TIDE_COLUMN_BYTES, sizeof *column);
        lua_pushnumber(L, column[0]);
        return 1;
    case TIDE_ARGS_RANGE:
        memcpy(column, at, sizeof column);
        lua_pushnumber(L, column[0] + item * column[1]);
        return 1;
    default:
        break;
    }
    if (runner->form == TIDE_ARGS_MESSAGES) {
        uint32_t offset;
        memcpy(&offset, at + (1 + (size_t)item) * sizeof offset, sizeof offset);
        at += offset;
    }
    struct tide_error err;
    if (tide_decode(runner->codec, L, &at, runner->args_end, &count, NULL,
                    &err) == TIDE_OK)
        return count;
    lua_pushfstring(L, "cannot receive argument: %s", err.text);
    tide_error_push(L, "decode", lua_tostring(L, -1));
    return -1;
}

/* Run one item; its results are above AT_FUNCTION. -1 with an error on top. */
static int call_item(struct tide_runner *runner, uint32_t item)
{
    lua_State *L = runner->L;
    int all = (runner->request.flags & TIDE_RUN_ALL) != 0;
    lua_pushvalue(L, AT_FUNCTION);
    int count = push_args(runner, item);
    if (count < 0)
        return -1;
    return lua_pcall(L, count, all ? LUA_MULTRET : 1, AT_HANDLER) ? -1 : 0;
}

/* Items from `item` on as messages. Returns 1 if one stopped the span. */
static int run_messages(struct tide_runner *runner, uint32_t item)
{
    for (; item < runner->request.count; item++) {
        int stopped = call_item(runner, item) == 0 ? put_results(runner, item)
                                                   : put_error(runner, item);
        if (stopped)
            return 1;
    }
    return 0;
}

/* ---- columns ---- */

/* The loop in Lua for this function and these kinds, on top of the stack. */
static void push_loop(struct tide_runner *runner, int boolean)
{
    lua_State *L = runner->L;
    const struct tide_function_head *head =
        (const void *)(runner->board->arena->base + runner->request.function);
    int range = runner->form == TIDE_ARGS_RANGE;
    lua_rawgeti(L, AT_FUNCTIONS, -(int)head->id);
    int prototype = (int)lua_tonumber(L, -1);
    lua_pop(L, 1);
    int key = prototype * LOOP_KINDS + 2 * range + boolean;
    lua_rawgeti(L, AT_LOOPS, key);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    tide_state_require(L, "tidemill.columns");
    lua_getfield(L, -1, "loop");
    lua_remove(L, -2);
    lua_pushboolean(L, range);
    lua_pushboolean(L, boolean);
    lua_call(L, 2, 1);
    count_entry(L, AT_LOOPS, LOOPS_MAX);
    lua_pushvalue(L, -1);
    lua_rawseti(L, AT_LOOPS, key);
}

/* Run the loop from `item` on. Leaves the item it came to and its result. */
static int call_loop(struct tide_runner *runner, uint32_t item, int boolean)
{
    lua_State *L = runner->L;
    unsigned char *column = runner->out.data - runner->column_bytes;
    size_t width = boolean ? 1 : TIDE_COLUMN_BYTES;
    push_loop(runner, boolean);
    lua_pushvalue(L, AT_FUNCTION);
    lua_pushlightuserdata(L, (void *)(uintptr_t)runner->args);
    /* Indexed by item, not by place in the span. */
    lua_pushlightuserdata(L, column - runner->request.first * width);
    lua_pushlightuserdata(L, &runner->slot->reply.hand);
    lua_pushnumber(L, item);
    lua_pushnumber(L, runner->request.count);
    return lua_pcall(L, 6, 2, AT_HANDLER);
}

/* End the column before `item`. */
static void close_column(struct tide_runner *runner, uint32_t item)
{
    *(volatile uint32_t *)&runner->slot->reply.mark =
        item - runner->request.first;
    atomic_thread_fence(memory_order_release);
}

static int run_column(struct tide_runner *runner, uint32_t item, int boolean)
{
    lua_State *L = runner->L;
    int failed = call_loop(runner, item, boolean);
    uint32_t reached =
        failed ? runner->slot->reply.hand : (uint32_t)lua_tonumber(L, -2);
    if (!failed && reached == runner->request.count) {
        lua_settop(L, AT_FUNCTION);
        advance(runner, reached);
        return 0;
    }
    close_column(runner, reached);
    if (!failed)
        lua_remove(L, -2); /* the result that does not fit stays */
    if (failed ? put_error(runner, reached) : put_results(runner, reached))
        return 1;
    return run_messages(runner, reached + 1);
}

/* Store the first result, a number or boolean, as the start of a column. */
static int open_column(struct tide_runner *runner, int boolean)
{
    uint32_t first = runner->request.first;
    size_t bytes = (size_t)span_size(runner) * TIDE_COLUMN_BYTES;
    if (runner->out.data == NULL) {
        runner->column_bytes = bytes;
        if (grow(&runner->out, 1) != 0)
            return -1;
    }
    unsigned char *column = runner->out.data - runner->column_bytes;
    if (boolean) {
        column[0] = (unsigned char)lua_toboolean(runner->L, -1);
    } else {
        double number = lua_tonumber(runner->L, -1);
        memcpy(column, &number, sizeof number);
    }
    lua_settop(runner->L, AT_FUNCTION);
    runner->slot->reply.mark = TIDE_MARK_OPEN;
    runner->slot->reply.form |=
        boolean ? TIDE_REPLY_BOOLEAN : TIDE_REPLY_NUMBER;
    advance(runner, first + 1);
    return 0;
}

/* The first item decides how the others go. */
static int run_items(struct tide_runner *runner)
{
    uint32_t first = runner->request.first;
    if (call_item(runner, first) != 0)
        return put_error(runner, first) || run_messages(runner, first + 1);
    int type = lua_type(runner->L, -1);
    int boolean = type == LUA_TBOOLEAN;
    int fits =
        (boolean || type == LUA_TNUMBER) &&
        (runner->request.flags & TIDE_RUN_ALL) == 0 &&
        (runner->form == TIDE_ARGS_COLUMN || runner->form == TIDE_ARGS_RANGE);
    if (!fits || open_column(runner, boolean) != 0)
        return put_results(runner, first) || run_messages(runner, first + 1);
    return span_size(runner) > 1 ? run_column(runner, first + 1, boolean) : 0;
}

/* ---- the span ---- */

int tide_runner_run(struct tide_runner *runner, struct tide_slot *slot)
{
    begin_reply(runner, slot);
    find_args(runner);
    lua_settop(runner->L, AT_FUNCTION);
    if (find_function(runner) != 0)
        return put_error(runner, runner->request.first);
    return run_items(runner);
}

void tide_runner_fail(struct tide_runner *runner, const char *message)
{
    lua_State *L = runner->L;
    uint32_t hand = runner->slot->reply.hand;
    if (runner->slot->reply.mark == TIDE_MARK_OPEN)
        close_column(runner, hand);
    runner->out.used = (size_t)runner->slot->reply.length;
    runner->request.flags &= (uint16_t)~TIDE_RUN_ON;
    tide_error_push(L, "task", message);
    put_error(runner, hand);
}

void tide_runner_init(struct tide_runner *runner, lua_State *L,
                      const struct tide_board *board, struct tide_heap heap)
{
    *runner = (struct tide_runner){
        .L = L, .board = board, .heap = heap, .out = { .grow = grow }
    };
}

void tide_runner_enter(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    runner->codec = tide_codec_of(L);
    lua_settop(L, 0);
    lua_pushcfunction(L, tide_error_handler);
    lua_settop(L, AT_FUNCTION);
    forget(L, AT_FUNCTIONS);
    forget(L, AT_LOOPS);
}
