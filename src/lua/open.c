#include "lua/module.h"
#include "lua/runtime.h"
#include "lua/state.h"
#include "tidemill.h"

#include <lua.h>

int luaopen_tidemill(lua_State *L)
{
    tide_runtime_check(L);
    tide_state_register(L);
    /* Not through require: that is what is running for this very name. */
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_getfield(L, -1, "tidemill");
    lua_call(L, 0, 1);
    return 1;
}
