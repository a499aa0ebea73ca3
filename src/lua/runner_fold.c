/*
 * Folding a span so that the result is the same whatever the spans are.
 *
 * Sums of floating-point numbers depend on how they are grouped. So they are
 * always grouped in one way: as a binary tree over the items' indices, in which
 * items 2k and 2k+1 meet first, then pairs of pairs, and so on. A span holds some
 * whole subtrees, and the host combines what workers have made of theirs. (As a
 * bonus the error of a sum grows with the logarithm of the number of items only:
 * pairwise summation, see Higham, The accuracy of floating point summation, 1993.)
 *
 * The roots of the subtrees so far are on a stack, a table. When item n is done and
 * n ends in k ones in binary, it completes k subtrees, as far as they lie in the
 * span. An error leaves the entries below it as they were before its item.
 */
#include "lua/runner_parts.h"

#include <lauxlib.h>

/* How many subtrees the items [first, end) make up. */
static int count_roots(uint32_t origin, uint32_t first, uint32_t end)
{
    int count = 0;
    for (uint64_t at = (uint64_t)origin + first, to = (uint64_t)origin + end;
         at < to; count++) {
        uint64_t size = 1;
        while ((at & size) == 0 && 2 * size <= to - at)
            size *= 2;
        at += size;
    }
    return count;
}

/* Combine the result on top with what item `n` completes, and push it. */
static int fold_result(struct tide_runner *runner, uint64_t n, uint64_t start,
                       int *height)
{
    lua_State *L = runner->L;
    for (uint64_t size = 2;
         (n & (size - 1)) == size - 1 && n + 1 >= start + size; size *= 2) {
        lua_pushvalue(L, TIDE_AT_COMBINE);
        lua_rawgeti(L, TIDE_AT_SPARE, *height);
        lua_pushvalue(L, -3);
        if (lua_pcall(L, 2, 1, TIDE_AT_HANDLER) != 0)
            return -1;
        lua_replace(L, -2);
        --*height;
    }
    lua_rawseti(L, TIDE_AT_SPARE, ++*height);
    return 0;
}

/* Arguments that are not columns: an item at a time. */
static int fold_items(struct tide_runner *runner)
{
    uint64_t origin = runner->request.origin;
    uint64_t start = origin + runner->request.first;
    int height = 0;
    for (uint32_t item = runner->request.first; item < runner->end; item++) {
        *(volatile uint32_t *)&runner->slot->reply.hand = item;
        if (tide_runner_call(runner, item) != 0 ||
            fold_result(runner, origin + item, start, &height) != 0)
            return -1;
    }
    return 0;
}

static int fold_columns(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    tide_runner_push_loop(runner, TIDE_LOOP_FOLD, NULL, runner->request.first);
    lua_pushvalue(L, TIDE_AT_COMBINE);
    lua_pushvalue(L, TIDE_AT_SPARE);
    return lua_pcall(L, 9, 0, TIDE_AT_HANDLER) == 0 ? 0 : -1;
}

/* Write the roots of [first, end). -1 with an error on top. */
static int put_roots(struct tide_runner *runner, uint32_t end)
{
    lua_State *L = runner->L;
    int count = count_roots(runner->request.origin, runner->request.first, end);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, TIDE_AT_SPARE, i);
        if (tide_runner_put_values(runner, 0) != 0)
            return -1;
    }
    return 0;
}

int tide_runner_run_fold(struct tide_runner *runner)
{
    lua_State *L = runner->L;
    lua_newtable(L);
    lua_replace(L, TIDE_AT_SPARE);
    int failed = tide_runner_has_columns(runner) ? fold_columns(runner)
                                                 : fold_items(runner);
    uint32_t reached = failed ? runner->slot->reply.hand : runner->end;
    if (failed)
        lua_replace(L, TIDE_AT_COMBINE); /* the error, for later */
    lua_settop(L, TIDE_AT_FUNCTION);
    if (put_roots(runner, reached) != 0) {
        runner->out.used = 0; /* what was folded counts only as a whole */
        return tide_runner_put_error(runner, runner->request.first);
    }
    tide_runner_advance(runner, reached);
    if (!failed)
        return 0;
    lua_pushvalue(L, TIDE_AT_COMBINE);
    return tide_runner_put_error(runner, reached);
}
