/**
 * @file module_host.h
 * @brief The supervisor of a state, if a C host has started it.
 */
#ifndef TIDE_LUA_MODULE_HOST_H
#define TIDE_LUA_MODULE_HOST_H

#include "lua/setup.h"
#include "pool/host.h"

#include <lua.h>

/**
 * Let the state have a host without pools, and the setup that it is bound to: from
 * now on they end with it. Before Tidemill is loaded there. If it raises, for
 * memory, they are still the caller's.
 */
void tide_host_adopt(lua_State *L, const struct tide_host *host,
                     struct tide_setup *setup);

#endif
