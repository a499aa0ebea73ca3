/*
 * A call is known by its address on the Lua side, and its entry there by a reference
 * here. Whoever frees it tells the other side before.
 */
#include "embed/embed.h"

#include "base/options.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

struct order {
    tide_call *call;
    const char *way; /* the method of the pool */
    const char *function;
    const tide_args *args; /* or, if `bytes` is set, */
    const void *bytes;     /* one string */
    size_t size;
    struct tide_call_options options;
};

/* ---- starting ---- */

static void set_count(lua_State *L, const char *name, double value)
{
    if (value == 0)
        return;
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

/* None is less work than empty ones. */
static void push_options(lua_State *L, const struct tide_call_options *options)
{
    if (options->timeout_s == 0 && options->retries == 0 &&
        options->retry_errors == 0 && options->chunk_size == 0 &&
        !options->collect) {
        lua_pushnil(L);
        return;
    }
    lua_newtable(L);
    set_count(L, "timeout", options->timeout_s);
    set_count(L, "retries", options->retries);
    set_count(L, "retry_errors", options->retry_errors);
    set_count(L, "chunksize", options->chunk_size);
    if (options->collect) {
        lua_pushliteral(L, "collect");
        lua_setfield(L, -2, "errors");
    }
}

static void push_function_name(lua_State *L, const struct order *order)
{
    if (order->bytes != NULL)
        lua_pushfstring(L, "tidemill.tasks:%s", order->function);
    else
        lua_pushstring(L, order->function);
}

static int push_items(lua_State *L, const struct order *order)
{
    if (order->bytes == NULL)
        return tide_args_push_list(L, order->args);
    lua_createtable(L, 1, 0);
    lua_pushlstring(L, order->bytes, order->size);
    lua_rawseti(L, -2, 1);
    return 1;
}

/* The place of the entry is there before there is one: once the other side knows the
 * call's address, nothing may raise. */
static void start(lua_State *L, void *data)
{
    struct order *order = data;
    lua_pushboolean(L, 0);
    order->call->entry = luaL_ref(L, LUA_REGISTRYINDEX);
    tide_mill_push(L, TIDE_MILL_START);
    lua_pushlightuserdata(L, order->call);
    lua_pushstring(L, order->way);
    push_function_name(L, order);
    lua_pushnumber(L, push_items(L, order));
    push_options(L, &order->options);
    lua_call(L, 7, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, order->call->entry);
}

static void give_place_back(lua_State *L, void *data)
{
    const tide_call *call = data;
    luaL_unref(L, LUA_REGISTRYINDEX, call->entry);
}

static void link_call(tide_call *call)
{
    call->next = call->mill->calls;
    if (call->next != NULL)
        call->next->previous = call;
    call->mill->calls = call;
}

static void unlink_call(tide_call *call)
{
    if (call->next != NULL)
        call->next->previous = call->previous;
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        call->mill->calls = call->next;
}

/* Check what was given, and start the call. */
static int start_call(tide_call **out, tide_mill *mill, struct order *order,
                      const struct tide_call_options *given,
                      struct tide_error *err)
{
    *out = NULL;
    if (mill == NULL)
        return tide_pass_on(err);
    if (order->function == NULL)
        return tide_fail(err, TIDE_EINVAL, "the function to call is NULL");
    if (given != NULL &&
        tide_take_options(&order->options, sizeof order->options, given,
                          given->size) != 0)
        return tide_fail(err, TIDE_EINVAL,
                         "the size of the call's options is %zu", given->size);
    int status = tide_args_check(order->args, err);
    if (status != TIDE_OK)
        return status;
    if (order->options.unpack && strcmp(order->way, "map_async") == 0)
        order->way = "starmap_async";
    tide_call *call = malloc(sizeof *call);
    if (call == NULL)
        return tide_fail(err, TIDE_ENOMEM, "cannot allocate a call");
    *call = (tide_call){ .mill = mill,
                         .entry = LUA_NOREF,
                         .status = TIDE_EAGAIN,
                         .data = order->options.data };
    order->call = call;
    status = tide_mill_run_part(mill, start, order, err);
    if (status != TIDE_OK) {
        tide_mill_run_part(mill, give_place_back, call, NULL);
        free(call);
        return status;
    }
    link_call(call);
    *out = call;
    return TIDE_OK;
}

int tide_mill_call(tide_call **out, tide_mill *mill, const char *function,
                   const tide_args *args,
                   const struct tide_call_options *options,
                   struct tide_error *err)
{
    struct order order = { .way = "apply_async",
                           .function = function,
                           .args = args };
    return start_call(out, mill, &order, options, err);
}

int tide_mill_map(tide_call **out, tide_mill *mill, const char *function,
                  const tide_args *items,
                  const struct tide_call_options *options,
                  struct tide_error *err)
{
    struct order order = { .way = "map_async",
                           .function = function,
                           .args = items };
    return start_call(out, mill, &order, options, err);
}

int tide_mill_run(tide_call **out, tide_mill *mill, const char *task,
                  const void *bytes, size_t size,
                  const struct tide_call_options *options,
                  struct tide_error *err)
{
    struct order order = { .way = "apply_async",
                           .function = task,
                           .bytes = bytes != NULL ? bytes : "",
                           .size = bytes != NULL ? size : 0 };
    return start_call(out, mill, &order, options, err);
}

/* ---- waiting ---- */

struct patience {
    tide_call *call;
    double seconds;
};

/* The call is over; what became of it is on top, nil for success. */
static void conclude(lua_State *L, tide_call *call)
{
    call->status = lua_isnil(L, -1)
                       ? TIDE_OK
                       : tide_mill_tell(L, lua_gettop(L), &call->error);
}

static void await(lua_State *L, void *data)
{
    const struct patience *patience = data;
    tide_mill_push(L, TIDE_MILL_WAIT);
    lua_rawgeti(L, LUA_REGISTRYINDEX, patience->call->entry);
    lua_pushnumber(L, patience->seconds);
    lua_call(L, 3, 2);
    if (lua_toboolean(L, -2))
        conclude(L, patience->call);
}

int tide_call_wait(tide_call *call, double seconds, struct tide_error *err)
{
    if (call == NULL)
        return tide_pass_on(err);
    if (call->status == TIDE_EAGAIN) {
        struct patience patience = { .call = call, .seconds = seconds };
        int failed = tide_mill_run_part(call->mill, await, &patience, err);
        if (failed)
            return failed;
    }
    if (call->status == TIDE_EAGAIN)
        return tide_fail(err, TIDE_EAGAIN, "no result in %g s", seconds);
    if (call->status != TIDE_OK && err != NULL)
        *err = call->error;
    return call->status;
}

static void take_next(lua_State *L, void *data)
{
    struct patience *patience = data;
    tide_mill_push(L, TIDE_MILL_NEXT);
    lua_pushnumber(L, patience->seconds);
    lua_call(L, 2, 3);
    patience->call = lua_touserdata(L, -3);
    if (patience->call != NULL && patience->call->is_forgotten)
        patience->call = NULL;
    else if (patience->call != NULL)
        conclude(L, patience->call);
}

int tide_mill_next(tide_call **out, tide_mill *mill, double seconds,
                   struct tide_error *err)
{
    struct patience patience = { .seconds = seconds };
    *out = NULL;
    int status = tide_mill_run_part(mill, take_next, &patience, err);
    if (status != TIDE_OK)
        return status;
    if (patience.call == NULL)
        return tide_fail(err, TIDE_EAGAIN, "no call is over");
    *out = patience.call;
    return TIDE_OK;
}

/* ---- ending ---- */

static void cancel(lua_State *L, void *data)
{
    const tide_call *call = data;
    tide_mill_push(L, TIDE_MILL_CANCEL);
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->entry);
    lua_call(L, 2, 0);
}

void tide_call_cancel(tide_call *call)
{
    if (call != NULL && call->status == TIDE_EAGAIN)
        tide_mill_run_part(call->mill, cancel, call, NULL);
}

static void forget(lua_State *L, void *data)
{
    const tide_call *call = data;
    tide_mill_push(L, TIDE_MILL_FORGET);
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->entry);
    lua_call(L, 2, 0);
    luaL_unref(L, LUA_REGISTRYINDEX, call->entry);
}

void tide_call_free(tide_call *call)
{
    if (call == NULL)
        return;
    /* Without memory for the other side to forget it, it stays until the mill is
     * freed: its address may still come from there. */
    call->is_forgotten = 1;
    if (tide_mill_run_part(call->mill, forget, call, NULL) != TIDE_OK)
        return;
    unlink_call(call);
    free(call);
}

void *tide_call_data(const tide_call *call)
{
    return call != NULL ? call->data : NULL;
}
