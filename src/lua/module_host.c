/*
 * The supervisors of this process, as userdata. The one that is forked and the one
 * that is executed serve all pools that start that way; they are in the registry,
 * and stopped when the state is closed. A pool that inherits the state has its own.
 * One that a C host has started takes the place of the one that is forked, and so
 * does each that replaces it.
 */
#include "lua/module_host.h"

#include "lua/module.h"
#include "lua/setup.h"
#include "lua/worker.h"

#include <lauxlib.h>
#include <string.h>

#define KEY_HOST    "tidemill.host"
#define KEY_SPAWNED "tidemill.host.spawned"
#define KEY_OWNED   "tidemill.host.setup"

static int host_gc(lua_State *L)
{
    tide_host_stop(lua_touserdata(L, 1));
    return 0;
}

static int setup_gc(lua_State *L)
{
    struct tide_setup **setup = lua_touserdata(L, 1);
    tide_setup_free(*setup);
    return 0;
}

/* Push memory, and the metatable that it is to get when it holds something. */
static void *push_room(lua_State *L, size_t bytes, lua_CFunction finalizer)
{
    void *room = lua_newuserdata(L, bytes);
    memset(room, 0, bytes);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, finalizer);
    lua_setfield(L, -2, "__gc");
    return room;
}

/* Have the registry hold the memory under the metatable on top. */
static void anchor_room(lua_State *L, const char *key)
{
    lua_pushvalue(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, key);
}

/* Push a new host. @return NULL with the cause in `err`, and something pushed */
static struct tide_host *push_host(lua_State *L,
                                   const struct tide_worker_ops *ops,
                                   const struct tide_command *command,
                                   struct tide_error *err)
{
    struct tide_host *host = push_room(L, sizeof *host, host_gc);
    if (tide_host_start(host, ops, command, err) != TIDE_OK)
        return NULL;
    lua_setmetatable(L, -2);
    return host;
}

void tide_host_adopt(lua_State *L, const struct tide_host *host,
                     struct tide_setup *setup)
{
    struct tide_setup **owned = push_room(L, sizeof(void *), setup_gc);
    anchor_room(L, KEY_OWNED);
    struct tide_host *room = push_room(L, sizeof *room, host_gc);
    anchor_room(L, KEY_HOST);
    *room = *host;
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
    *owned = setup;
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}

/* Would a worker be another one without it? */
static int brings_something(const struct tide_setup *setup)
{
    return setup != NULL && (setup->hook != NULL || setup->task_count > 0 ||
                             setup->without != 0);
}

int tide_core_start(lua_State *L)
{
    const struct tide_setup *setup = tide_setup_of(L);
    struct tide_worker_ops ops = tide_lua_worker_ops(setup);
    struct tide_command command = { .path = luaL_optstring(L, 1, NULL) };
    const char *key = command.path == NULL ? KEY_HOST : KEY_SPAWNED;
    if (setup != NULL && setup->command.path != NULL)
        command = setup->command;
    else if (command.path != NULL && brings_something(setup))
        luaL_error(L, "start_method 'spawn': the program that embeds Tidemill "
                      "has to name itself as 'program' when it starts");
    lua_getfield(L, LUA_REGISTRYINDEX, key);
    struct tide_host *host = lua_touserdata(L, -1);
    if (host != NULL && tide_host_is_ours(host))
        tide_host_attend(host); /* it may have died since */
    struct tide_error err;
    if (host == NULL || !host->alive || !tide_host_is_ours(host)) {
        if (push_host(L, &ops, &command, &err) == NULL) {
            lua_pushnil(L);
            lua_pushstring(L, err.text);
            return 2;
        }
        lua_setfield(L, LUA_REGISTRYINDEX, key);
    }
    lua_pushboolean(L, 1);
    return 1;
}

struct tide_host *tide_push_host(lua_State *L, const char *way,
                                 struct tide_error *err)
{
    if (strcmp(way, "inherit") == 0) {
        struct tide_worker_ops ops = tide_lua_copy_ops(L);
        return push_host(L, &ops, NULL, err);
    }
    lua_getfield(L, LUA_REGISTRYINDEX,
                 strcmp(way, "spawn") == 0 ? KEY_SPAWNED : KEY_HOST);
    return lua_touserdata(L, -1);
}
