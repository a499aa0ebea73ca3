/*
 * The supervisors of this process, as userdata. The one that is forked and the one
 * that is executed serve all pools that start that way; they are in the registry,
 * and stopped when the state is closed. A pool that inherits the state has its own.
 */
#include "lua/module.h"
#include "lua/worker.h"

#include <lauxlib.h>
#include <string.h>

#define KEY_HOST    "tidemill.host"
#define KEY_SPAWNED "tidemill.host.spawned"

static int host_gc(lua_State *L)
{
    struct tide_host *host = lua_touserdata(L, 1);
    tide_host_stop(host);
    return 0;
}

/* Push a new host. Raises if there cannot be one. */
static struct tide_host *push_host(lua_State *L,
                                   const struct tide_worker_ops *ops,
                                   const struct tide_command *command)
{
    struct tide_error err;
    struct tide_host *host = lua_newuserdata(L, sizeof *host);
    if (tide_host_start(host, ops, command, &err) != TIDE_OK)
        luaL_error(L, "%s", err.text);
    lua_newtable(L);
    lua_pushcfunction(L, host_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    return host;
}

int tide_core_start(lua_State *L)
{
    struct tide_worker_ops ops = tide_lua_worker_ops();
    const struct tide_command command = { .path = luaL_optstring(L, 1, NULL) };
    const char *key = command.path == NULL ? KEY_HOST : KEY_SPAWNED;
    lua_getfield(L, LUA_REGISTRYINDEX, key);
    struct tide_host *host = lua_touserdata(L, -1);
    if (host != NULL && tide_host_is_ours(host))
        tide_host_attend(host); /* it may have died since */
    if (host != NULL && host->alive && tide_host_is_ours(host))
        return 0;
    push_host(L, &ops, &command);
    lua_setfield(L, LUA_REGISTRYINDEX, key);
    return 0;
}

struct tide_host *tide_push_host(lua_State *L, const char *way)
{
    if (strcmp(way, "inherit") == 0) {
        struct tide_worker_ops ops = tide_lua_copy_ops(L);
        return push_host(L, &ops, NULL);
    }
    lua_getfield(L, LUA_REGISTRYINDEX,
                 strcmp(way, "spawn") == 0 ? KEY_SPAWNED : KEY_HOST);
    return lua_touserdata(L, -1);
}
