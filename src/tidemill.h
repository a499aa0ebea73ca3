/**
 * @file tidemill.h
 * @brief Tidemill for C programs: the module for a host's own lua_State.
 */
#ifndef TIDEMILL_H
#define TIDEMILL_H

#ifdef __cplusplus
extern "C" {
#endif

#define TIDEMILL_VERSION "0.1.0"

struct lua_State;

#define TIDE_API __attribute__((visibility("default")))

/**
 * Open the module `tidemill` in a LuaJIT state: a lua_CFunction for
 * package.preload["tidemill"], and what `require "tidemill"` finds in the shared
 * object.
 *
 * Forks the supervisor if the state has none: call it early, while the process is
 * small, and from the thread that will use the state. The state must be closed
 * with lua_close() for the workers to end at once; they end in any case when the
 * process does.
 *
 * @return 1, the module on the stack; raises a Lua error if the supervisor cannot
 *         be forked
 */
TIDE_API int luaopen_tidemill(struct lua_State *L);

#ifdef __cplusplus
}
#endif

#endif
