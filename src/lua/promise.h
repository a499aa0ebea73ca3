/**
 * @file promise.h
 * @brief Promises: what a script holds of work that goes on without it.
 *
 * A promise is a table that the Lua half makes and gives away with the work, and
 * that is filled in when the work is over: so that to ask it costs no call into C.
 *
 * To keep one takes no memory, so it cannot fail: all places it has were there from
 * the beginning, and watchers are told of by a chain through them.
 */
#ifndef TIDE_LUA_PROMISE_H
#define TIDE_LUA_PROMISE_H

#include "lua/jobs.h"

/** Places in a promise; the same as in promise.lua, where the others are. */
enum tide_promise_place {
    TIDE_PROMISE_ENDED = 4, /* when it was over; ends are in order */
    TIDE_PROMISE_COUNT,     /* of its values; -1: VALUE is an error; or false */
    TIDE_PROMISE_VALUE,     /* the only value, or a table of all */
    TIDE_PROMISE_WATCHERS   /* a list, or false */
};

/** Places in TIDE_ACTIVE_FINISHED: watchers to be called, or false. */
enum tide_chain_place { TIDE_CHAIN_FIRST = 1, TIDE_CHAIN_LAST };

/** The place in a list of watchers of the list after it; functions follow. */
enum { TIDE_WATCHERS_NEXT = 1 };

/**
 * The work is over: fill in the promise at `at` with the value on top, which is
 * popped. Its watchers go to the chain TIDE_ACTIVE_FINISHED.
 *
 * @param count  as TIDE_PROMISE_COUNT
 */
void tide_promise_keep(struct tide_lua_pool *owner, lua_State *L, int at,
                       int count);

/**
 * The same for the promise at `place` of the table at `list`, which is taken out of
 * it. If there is none it is kept already.
 */
void tide_promise_keep_listed(struct tide_lua_pool *owner, lua_State *L,
                              int list, uint32_t place, int count);

#endif
