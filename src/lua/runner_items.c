/*
 * Items one at a time: arguments, call, result or error, and the look at what the
 * worker may still do.
 */
#include "base/clock.h"
#include "base/memory.h"
#include "lua/errors.h"
#include "lua/random.h"
#include "lua/runner_parts.h"
#include "lua/worker.h"

#include <lauxlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_EVERY_NS = 5 * 1000 * 1000 };

/* ---- limits ---- */

int tide_runner_look(struct tide_runner *runner)
{
    const struct tide_worker_limits *limits = &runner->limits;
    if (limits->tasks != 0 && runner->tasks_run >= limits->tasks)
        runner->retires = 1;
    if (limits->rss_bytes != 0 && !runner->retires) {
        uint64_t now_ns = tide_now_ns();
        if (now_ns - runner->looked_ns >= LOOK_EVERY_NS) {
            runner->looked_ns = now_ns;
            runner->retires =
                tide_private_bytes() > limits->born_bytes + limits->rss_bytes;
        }
    }
    return runner->retires;
}

/* ---- results and errors as messages ---- */

/* Say in the error table on top where it comes from. */
static void name_worker(lua_State *L)
{
    const struct tide_worker_env *self = tide_worker_self();
    tide_error_wrap(L); /* without memory the handler is not run */
    if (self == NULL)
        return;
    lua_pushnumber(L, getpid());
    lua_setfield(L, -2, "pid");
    lua_pushnumber(L, self->index + 1);
    lua_setfield(L, -2, "worker");
}

/* Before an error among results that do not travel: whose it is. */
static void put_item_number(struct tide_runner *runner, uint32_t item)
{
    struct tide_error err;
    lua_pushnumber(runner->L, item);
    tide_encode(runner->codec, runner->L, &runner->out, lua_gettop(runner->L),
                1, 0, &err);
    lua_pop(runner->L, 1);
}

int tide_runner_put_error(struct tide_runner *runner, uint32_t item)
{
    if ((runner->request.flags & TIDE_RUN_EFFECT) != 0)
        put_item_number(runner, item);
    name_worker(runner->L);
    if (tide_board_is_single(runner->board))
        tide_error_print(runner->L);
    int status = tide_error_encode(runner->codec, runner->L, &runner->out);
    lua_settop(runner->L, TIDE_AT_FUNCTION);
    if (status == TIDE_OK && (runner->request.flags & TIDE_RUN_ON) != 0) {
        tide_runner_advance(runner, item + 1);
        return 0;
    }
    /* Without memory for the error there is none: the host makes one. */
    tide_runner_advance(runner, item);
    runner->slot->reply.form |= TIDE_REPLY_FAILED;
    return 1;
}

/* For results, free or not, in millions of bytes. */
static size_t room_of(const struct tide_runner *runner)
{
    const size_t megabyte = 1000000;
    const struct tide_region *region = runner->heap.region;
    return (size_t)(region->end - region->first) / megabyte;
}

int tide_runner_put_values(struct tide_runner *runner, unsigned head)
{
    lua_State *L = runner->L;
    struct tide_error err;
    runner->refused_bytes = 0;
    int status =
        tide_encode(runner->codec, L, &runner->out, TIDE_AT_FUNCTION + 1,
                    lua_gettop(L) - TIDE_AT_FUNCTION, head, &err);
    lua_settop(L, TIDE_AT_FUNCTION);
    if (status == TIDE_OK)
        return 0;
    if (runner->refused_bytes != 0)
        tide_fail(&err, TIDE_ENOMEM,
                  "no room for %zu bytes in %zu MB of shared memory",
                  runner->refused_bytes, room_of(runner));
    lua_pushfstring(L, "cannot send result%s%s",
                    err.status == TIDE_EINVAL && strchr(err.text, ':') ? ", "
                                                                       : ": ",
                    err.text);
    tide_error_push(L, "encode", lua_tostring(L, -1));
    return -1;
}

int tide_runner_put_results(struct tide_runner *runner, uint32_t item)
{
    lua_State *L = runner->L;
    const unsigned flags = runner->request.flags;
    if ((flags & TIDE_RUN_EFFECT) != 0) {
        lua_settop(L, TIDE_AT_FUNCTION);
        tide_runner_advance(runner, item + 1);
        return 0;
    }
    if ((flags & TIDE_RUN_TRUTH) != 0) {
        lua_pushboolean(L, lua_toboolean(L, -1));
        lua_replace(L, -2);
    }
    if (tide_runner_put_values(
            runner, (flags & TIDE_RUN_ALL) != 0 ? TIDE_HEAD_MULTI : 0) != 0)
        return tide_runner_put_error(runner, item);
    tide_runner_advance(runner, item + 1);
    return 0;
}

/* ---- one item ---- */

/* Seed math.random for the item. */
static void seed(struct tide_runner *runner, uint32_t item)
{
    lua_State *L = runner->L;
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_RANDOMSEED);
    lua_pushnumber(L, tide_random_seed(runner->request.stream, item));
    lua_call(L, 1, 0);
}

int tide_runner_push_args(struct tide_runner *runner, uint32_t item)
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
        lua_pushnumber(L, column[0] + ((double)runner->request.origin + item) *
                                          column[1]);
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

int tide_runner_call(struct tide_runner *runner, uint32_t item)
{
    lua_State *L = runner->L;
    const unsigned flags = runner->request.flags;
    lua_pushvalue(L, TIDE_AT_FUNCTION);
    int count = tide_runner_push_args(runner, item);
    if (count < 0)
        return -1;
    if ((flags & TIDE_RUN_SEEDED) != 0)
        seed(runner, item);
    int results = (flags & TIDE_RUN_ALL) != 0 ? LUA_MULTRET : 1;
    return lua_pcall(L, count, results, TIDE_AT_HANDLER) ? -1 : 0;
}

int tide_runner_run_items(struct tide_runner *runner, uint32_t item)
{
    for (; item < runner->end; item++) {
        int stopped = tide_runner_call(runner, item) == 0
                          ? tide_runner_put_results(runner, item)
                          : tide_runner_put_error(runner, item);
        if (stopped)
            return 1;
        if (runner->limits.rss_bytes != 0 && tide_runner_look(runner))
            runner->end = item + 1;
    }
    return 0;
}
