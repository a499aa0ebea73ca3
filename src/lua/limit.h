/**
 * @file limit.h
 * @brief A bound on the heap of a Lua state.
 */
#ifndef TIDE_LUA_LIMIT_H
#define TIDE_LUA_LIMIT_H

#include <lua.h>
#include <stddef.h>

/** Lives as long as the state. */
struct tide_limit {
    lua_State *L;
    lua_Alloc inner;
    void *inner_data;
    size_t used_bytes;
    size_t most_bytes;
    int is_tight; /* the collector is urged */
};

/**
 * From now on an allocation that would take the state's heap beyond `most_bytes`
 * fails: Lua raises "not enough memory".
 */
void tide_limit_set(struct tide_limit *limit, lua_State *L, size_t most_bytes);

#endif
