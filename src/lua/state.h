/**
 * @file state.h
 * @brief Lua states with Tidemill in them.
 */
#ifndef TIDE_LUA_STATE_H
#define TIDE_LUA_STATE_H

#include <lua.h>

/** Make `require "tidemill"` find the embedded modules in this state. */
void tide_state_register(lua_State *L);

/**
 * A fresh state: standard libraries, Tidemill to be required, nothing loaded that
 * a script could see.
 *
 * @return NULL without memory
 */
lua_State *tide_state_new(void);

/** Require the named embedded module and push it. May raise. */
void tide_state_require(lua_State *L, const char *name);

#endif
