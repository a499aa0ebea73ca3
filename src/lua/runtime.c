#include "lua/runtime.h"

/* What this Lua calls itself. */
static const char *push_version(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, "jit");
    if (lua_istable(L, -1))
        lua_getfield(L, -1, "version");
    else
        lua_getglobal(L, "_VERSION");
    return lua_tostring(L, -1);
}

void tide_runtime_check(lua_State *L)
{
    /* LuaJIT 2.0 lacks the first as well. */
    if (luaL_setfuncs == NULL || luaL_traceback == NULL ||
        luaL_loadbufferx == NULL || lua_upvalueid == NULL ||
        lua_upvaluejoin == NULL)
        luaL_error(L, "tidemill needs LuaJIT 2.1 or later, and this is %s",
                   push_version(L));

    lua_getglobal(L, "require");
    lua_pushliteral(L, "ffi");
    if (lua_pcall(L, 1, 1, 0) != 0)
        luaL_error(L, "tidemill needs LuaJIT with its ffi library: %s",
                   lua_tostring(L, -1));
    lua_pop(L, 1);
}
