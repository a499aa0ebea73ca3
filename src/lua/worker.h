/**
 * @file worker.h
 * @brief What runs in a worker process: its state, its start, its loop.
 */
#ifndef TIDE_LUA_WORKER_H
#define TIDE_LUA_WORKER_H

#include "lua/setup.h"

#include <lua.h>

/**
 * The operations that make a supervisor's workers Lua workers.
 *
 * @param setup  NULL for none; in force in their states, see setup.h
 */
struct tide_worker_ops tide_lua_worker_ops(const struct tide_setup *setup);

/**
 * The same for workers that go on in a copy of `L`, as it is when the supervisor is
 * forked, instead of a fresh state.
 */
struct tide_worker_ops tide_lua_copy_ops(lua_State *L);

/** Registry key in a worker: the name of its pool. */
#define TIDE_KEY_POOL_NAME "tidemill.pool_name"

/** Registry key in a worker: math.randomseed, whatever a script does to it. */
#define TIDE_KEY_RANDOMSEED "tidemill.randomseed"

/** Who this process is, if it is a worker; else NULL. */
const struct tide_worker_env *tide_worker_self(void);

#endif
