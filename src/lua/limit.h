/**
 * @file limit.h
 * @brief A bound on the heap of a Lua state.
 */
#ifndef TIDE_LUA_LIMIT_H
#define TIDE_LUA_LIMIT_H

#include <lua.h>
#include <stddef.h>

enum tide_limit_mood {
    TIDE_LIMIT_CALM,
    TIDE_LIMIT_TIGHT, /* the collector is urged */
    TIDE_LIMIT_URGENT /* and runs a whole cycle as soon as it may */
};

/** Lives as long as the state. */
struct tide_limit {
    lua_State *L;
    lua_Alloc inner;
    void *inner_data;
    size_t used_bytes;
    size_t most_bytes;
    size_t urgent_bytes; /* URGENT until less than this is used */
    size_t credit_bytes; /* more than the most, for who handles the error */
    enum tide_limit_mood mood;
};

/**
 * From now on an allocation that would take the state's heap beyond `most_bytes`
 * fails: Lua raises "not enough memory". Who catches that finds a sixteenth more,
 * until the garbage has been collected.
 */
void tide_limit_set(struct tide_limit *limit, lua_State *L, size_t most_bytes);

#endif
