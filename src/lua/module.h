/**
 * @file module.h
 * @brief `tidemill.core`: the C half of the module, for the Lua half.
 */
#ifndef TIDE_LUA_MODULE_H
#define TIDE_LUA_MODULE_H

#include <lauxlib.h>
#include <lua.h>

/** The loader of `tidemill.core`. */
int tide_open_core(lua_State *L);

/** Its functions on values and their bytes. */
extern const luaL_Reg tide_core_codec[];

#endif
