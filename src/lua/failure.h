/**
 * @file failure.h
 * @brief What workers that could not start have left: the host's side.
 */
#ifndef TIDE_LUA_FAILURE_H
#define TIDE_LUA_FAILURE_H

#include "pool/pool.h"

#include <lua.h>

/**
 * Push the error that a worker of the pool left when it could not start, whose
 * message says so; or nil.
 *
 * @return was there one
 */
int tide_failure_push(lua_State *L, const struct tide_pool *pool);

/** Push why a pool is broken: what a worker has left, or else its death. */
void tide_failure_push_reason(lua_State *L, const struct tide_pool *pool);

#endif
