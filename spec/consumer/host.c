/* A host with a lua_State of its own, in which it opens the module. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <tidemill.h>

static const char script[] =
    "local tidemill = require 'tidemill'\n"
    "return tidemill.with(2, function(pool)\n"
    "  return table.concat(pool:map('x -> x * x', { 2, 3, 4 }), ' ')\n"
    "end)\n";

int main(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_tidemill);
    lua_setfield(L, -2, "tidemill");
    int failed = luaL_dostring(L, script);
    printf("%s %s\n", TIDEMILL_VERSION, lua_tostring(L, -1));
    lua_close(L);
    return failed;
}
