/**
 * @file module.h
 * @brief `tidemill.core`: the C half of the module, for the Lua half.
 */
#ifndef TIDE_LUA_MODULE_H
#define TIDE_LUA_MODULE_H

#include <lua.h>

/** The loader of `tidemill.core`. */
int tide_open_core(lua_State *L);

#endif
