#include "lua/state.h"

#include "lua/embedded.h"
#include "lua/module.h"
#include "lua/setup.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_REQUIRE "tidemill.require" /* a script may have none */

/*
 * package.preload entries: the text is compiled when it is first required. The
 * chunk is named by its file, so that tracebacks read like any other; with
 * TIDEMILL_LUA_DIR set the file itself is loaded, for work on Tidemill.
 */
static int load_embedded(lua_State *L)
{
    const struct tide_embedded_module *module =
        lua_touserdata(L, lua_upvalueindex(1));
    const char *directory = getenv("TIDEMILL_LUA_DIR");
    char path[512];
    char chunk[128];
    size_t length = strlen(module->name);

    snprintf(chunk, sizeof chunk, "@%s.lua", module->name);
    for (size_t i = 1; i <= length; i++)
        if (chunk[i] == '.')
            chunk[i] = '/';
    snprintf(path, sizeof path, "%s/%s", directory ? directory : "", chunk + 1);
    if (directory != NULL
            ? luaL_loadfile(L, path)
            : luaL_loadbuffer(L, module->text, module->length, chunk))
        return lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_ENVIRONMENT);
    if (lua_istable(L, -1))
        lua_setfenv(L, -2);
    else
        lua_pop(L, 1);
    lua_pushstring(L, module->name);
    lua_call(L, 1, 1);
    return 1;
}

void tide_state_register(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    for (const struct tide_embedded_module *module = tide_embedded_modules;
         module->name != NULL; module++) {
        lua_pushlightuserdata(L, (void *)(uintptr_t)module);
        lua_pushcclosure(L, load_embedded, 1);
        lua_setfield(L, -2, module->name);
    }
    lua_pushcfunction(L, tide_open_core);
    lua_setfield(L, -2, "tidemill.core");
    lua_pop(L, 2);
    lua_getglobal(L, "require");
    lua_setfield(L, LUA_REGISTRYINDEX, KEY_REQUIRE);
}

static int open_state(lua_State *L)
{
    luaL_openlibs(L);
    tide_state_register(L);
    return 0;
}

lua_State *tide_state_new(void)
{
    lua_State *L = luaL_newstate();
    if (L != NULL && lua_cpcall(L, open_state, NULL) != 0) {
        lua_close(L); /* memory is all it can have lacked */
        return NULL;
    }
    return L;
}

void tide_state_require(lua_State *L, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_REQUIRE);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
}
