/*
 * Spans whose arguments are numbers and whose results are all numbers, all
 * booleans, or do not matter: one call runs a loop in Lua (columns.lua) that loads
 * arguments and stores results directly, so that the compiler makes one piece of
 * machine code of the loop and the job's function. Each function has its own copy
 * of the loop, so that the types of one job do not spoil the code of another.
 *
 * It starts as the other way does: the first item's result decides the kind of the
 * column. A result of another kind ends it, and the rest goes as messages.
 */
#include "lua/form.h"
#include "lua/runner_parts.h"
#include "lua/state.h"

#include <lauxlib.h>
#include <string.h>

enum { LOOP_KINDS = 16, LOOPS_MAX = 512, LOOP_ARGS = 7 };

static const char *const kinds[] = {
    [TIDE_LOOP_NUMBER] = "number", [TIDE_LOOP_BOOLEAN] = "boolean",
    [TIDE_LOOP_TRUTH] = "truth",   [TIDE_LOOP_EFFECT] = "effect",
    [TIDE_LOOP_FOLD] = "fold",
};

int tide_runner_has_columns(const struct tide_runner *runner)
{
    return (runner->request.flags & (TIDE_RUN_ALL | TIDE_RUN_SEEDED)) == 0 &&
           (runner->form == TIDE_ARGS_COLUMN ||
            runner->form == TIDE_ARGS_RANGE);
}

/* ---- loops ---- */

/* Push the loop for this function and this kind. */
static void push_loop(struct tide_runner *runner, enum tide_loop kind)
{
    lua_State *L = runner->L;
    const struct tide_function_head *head =
        (const void *)(runner->board->arena->base + runner->request.function);
    int range = runner->form == TIDE_ARGS_RANGE;
    lua_rawgeti(L, TIDE_AT_FUNCTIONS, -(int)head->id);
    int prototype = (int)lua_tonumber(L, -1);
    lua_pop(L, 1);
    int key = prototype * LOOP_KINDS + (int)kind * 2 + range;
    lua_rawgeti(L, TIDE_AT_LOOPS, key);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    tide_state_require(L, "tidemill.columns");
    lua_getfield(L, -1, "loop");
    lua_remove(L, -2);
    lua_pushboolean(L, range);
    lua_pushstring(L, kinds[kind]);
    lua_call(L, 2, 1);
    tide_runner_count_entry(L, TIDE_AT_LOOPS, LOOPS_MAX);
    lua_pushvalue(L, -1);
    lua_rawseti(L, TIDE_AT_LOOPS, key);
}

void tide_runner_push_loop(struct tide_runner *runner, enum tide_loop kind,
                           unsigned char *results, uint32_t item)
{
    lua_State *L = runner->L;
    push_loop(runner, kind);
    lua_pushvalue(L, TIDE_AT_FUNCTION);
    lua_pushlightuserdata(L, (void *)(uintptr_t)runner->args);
    lua_pushlightuserdata(L, results);
    lua_pushlightuserdata(L, &runner->slot->reply.hand);
    lua_pushnumber(L, item);
    lua_pushnumber(L, runner->end);
    lua_pushnumber(L, runner->request.origin);
}

/* ---- columns ---- */

/* Run the loop from `item` on. Leaves the item it came to and its result. */
static int call_loop(struct tide_runner *runner, uint32_t item,
                     enum tide_loop kind)
{
    unsigned char *column = runner->out.data - runner->column_bytes;
    size_t width = kind == TIDE_LOOP_NUMBER ? TIDE_COLUMN_BYTES : 1;
    /* Indexed by item, not by place in the span. */
    tide_runner_push_loop(runner, kind, column - runner->request.first * width,
                          item);
    return lua_pcall(runner->L, LOOP_ARGS, 2, TIDE_AT_HANDLER);
}

void tide_runner_close_column(struct tide_runner *runner, uint32_t item)
{
    *(volatile uint32_t *)&runner->slot->reply.mark =
        item - runner->request.first;
    atomic_thread_fence(memory_order_release);
}

static int run_column(struct tide_runner *runner, uint32_t item,
                      enum tide_loop kind)
{
    lua_State *L = runner->L;
    int failed = call_loop(runner, item, kind);
    uint32_t reached =
        failed ? runner->slot->reply.hand : (uint32_t)lua_tonumber(L, -2);
    if (!failed && reached == runner->end) {
        lua_settop(L, TIDE_AT_FUNCTION);
        tide_runner_advance(runner, reached);
        return 0;
    }
    tide_runner_close_column(runner, reached);
    if (!failed)
        lua_remove(L, -2); /* the result that does not fit stays */
    if (failed ? tide_runner_put_error(runner, reached)
               : tide_runner_put_results(runner, reached))
        return 1;
    return tide_runner_run_items(runner, reached + 1);
}

/* Store the first result as the start of a column. */
static int open_column(struct tide_runner *runner, enum tide_loop kind)
{
    uint32_t first = runner->request.first;
    size_t items = runner->request.count - first;
    if (runner->out.data == NULL) {
        runner->column_bytes = items * TIDE_COLUMN_BYTES;
        if (tide_runner_reserve(runner) != 0) {
            runner->column_bytes = 0; /* messages come first then */
            return -1;
        }
    }
    unsigned char *column = runner->out.data - runner->column_bytes;
    if (kind == TIDE_LOOP_NUMBER) {
        double number = lua_tonumber(runner->L, -1);
        memcpy(column, &number, sizeof number);
    } else {
        column[0] = (unsigned char)lua_toboolean(runner->L, -1);
    }
    lua_settop(runner->L, TIDE_AT_FUNCTION);
    runner->slot->reply.mark = TIDE_MARK_OPEN;
    runner->slot->reply.form |=
        kind == TIDE_LOOP_NUMBER ? TIDE_REPLY_NUMBER : TIDE_REPLY_BOOLEAN;
    tide_runner_advance(runner, first + 1);
    return 0;
}

/* Loops that store nothing, from the first item on. */
static int run_effects(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    uint32_t item = runner->request.first;
    while (item < runner->end) {
        tide_runner_push_loop(runner, TIDE_LOOP_EFFECT, NULL, item);
        if (lua_pcall(L, LOOP_ARGS, 0, TIDE_AT_HANDLER) == 0) {
            item = runner->end;
            tide_runner_advance(runner, item);
        } else {
            item = runner->slot->reply.hand;
            if (tide_runner_put_error(runner, item))
                return 1;
            item++;
        }
    }
    lua_settop(L, TIDE_AT_FUNCTION);
    return 0;
}

int tide_runner_run_columns(struct tide_runner *runner)
{
    uint32_t first = runner->request.first;
    unsigned flags = runner->request.flags;
    if ((flags & TIDE_RUN_EFFECT) != 0)
        return run_effects(runner);
    if (tide_runner_call(runner, first) != 0)
        return tide_runner_put_error(runner, first) ||
               tide_runner_run_items(runner, first + 1);
    int type = lua_type(runner->L, -1);
    enum tide_loop kind = (flags & TIDE_RUN_TRUTH) != 0 ? TIDE_LOOP_TRUTH
                          : type == LUA_TBOOLEAN        ? TIDE_LOOP_BOOLEAN
                                                        : TIDE_LOOP_NUMBER;
    int fits = type == LUA_TNUMBER || kind != TIDE_LOOP_NUMBER;
    if (!fits || open_column(runner, kind) != 0)
        return tide_runner_put_results(runner, first) ||
               tide_runner_run_items(runner, first + 1);
    return runner->end > first + 1 ? run_column(runner, first + 1, kind) : 0;
}
