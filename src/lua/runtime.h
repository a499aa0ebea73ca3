/**
 * @file runtime.h
 * @brief Which Lua we were loaded into.
 *
 * The module is found by every program that looks for modules of Lua 5.1, and not
 * all of those are LuaJIT. The functions that PUC Lua lacks are weak, so that the
 * module can be loaded there and say what it needs, in place of the dynamic linker
 * and its undefined symbol. Who calls one of them includes this header.
 */
#ifndef TIDE_LUA_RUNTIME_H
#define TIDE_LUA_RUNTIME_H

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>

#pragma weak luaJIT_setmode
#pragma weak luaL_loadbufferx
#pragma weak luaL_loadfilex
#pragma weak luaL_setfuncs
#pragma weak luaL_traceback
#pragma weak lua_upvalueid
#pragma weak lua_upvaluejoin

/** Raise an error unless this is LuaJIT 2.1 or later, with its ffi library. */
void tide_runtime_check(lua_State *L);

#endif
