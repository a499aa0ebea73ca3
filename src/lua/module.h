/**
 * @file module.h
 * @brief `tidemill.core`: the C half of the module, for the Lua half.
 */
#ifndef TIDE_LUA_MODULE_H
#define TIDE_LUA_MODULE_H

#include "lua/jobs.h"

#include <lauxlib.h>
#include <lua.h>

#define TIDE_POOL_TYPE "tidemill.core.pool"

/** The loader of `tidemill.core`. */
int tide_open_core(lua_State *L);

/** Its functions on values and their bytes. */
extern const luaL_Reg tide_core_codec[];

/** Its functions on jobs. */
extern const luaL_Reg tide_core_jobs[];

/** Its functions on fault points, where there are some. */
extern const luaL_Reg tide_core_fault[];
/** Its functions on a pool of one process for one job. */
extern const luaL_Reg tide_core_process[];

/**
 * start([command]) -> true, or nil and why not: fork the supervisor, or have
 * `command` executed as one, unless there is one that answers.
 */
int tide_core_start(lua_State *L);

/** Its functions on shared objects. */
extern const luaL_Reg tide_core_share[];

/** The handle at `index` and the index after it: place and generation. */
tide_handle tide_check_handle(lua_State *L, int index);

/** Push it as these two. */
void tide_push_handle(lua_State *L, tide_handle handle);

/** Raise an error object of kind "share". */
int tide_raise_shared(lua_State *L, const char *what,
                      const struct tide_error *err);

/**
 * open(workers, config, way, name, keeper, single) -> pool, or nil and why it could
 * not be opened. The way is "fork", "spawn" or "inherit". The keeper is kept as long as
 * the pool. If it is single, its worker runs one job and is not replaced.
 */
int tide_core_open(lua_State *L);

/**
 * await_start(pool) -> true when all workers are up, or false after a signal, whose
 * Lua handler is to run, and after a second: call again. Or nil and what a worker
 * raised (a table) or why they are not (a string); the pool is released then.
 */
int tide_core_await_start(lua_State *L);

/**
 * Push the host of a pool that starts by "fork", "spawn" or "inherit".
 *
 * @return NULL with the cause in `err`, and some value pushed
 */
struct tide_host *tide_push_host(lua_State *L, const char *way,
                                 struct tide_error *err);

/** The pool at `index`; its `pool` is NULL once it has been released. */
struct tide_lua_pool *tide_check_pool(lua_State *L, int index);

/** The pool at 1, for a function that works on jobs; its arguments end at `top`. */
struct tide_lua_pool *tide_enter_pool(lua_State *L, int top);

/** Free the pool, and end its supervisor if that has no other. */
void tide_free_pool(struct tide_lua_pool *owner, lua_State *L);

/** A number of seconds from now, nil for ever, as a deadline. */
uint64_t tide_check_deadline(lua_State *L, int index);

/** "done", "timeout", "interrupted" or "notified". */
const char *tide_wait_text(int status);

#endif
