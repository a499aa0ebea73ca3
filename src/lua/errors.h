/**
 * @file errors.h
 * @brief What a job raised, on its way from a worker to the script.
 *
 * It travels as a message with TIDE_HEAD_ERROR that holds a table: `kind`,
 * `message`, `traceback`, and `value`, what was raised, if that can travel; and
 * `printed`, if it was.
 */
#ifndef TIDE_LUA_ERRORS_H
#define TIDE_LUA_ERRORS_H

#include "lua/codec.h"

#include <lua.h>

/**
 * A message handler for lua_pcall(): turns what was raised into such a table.
 * Survives values whose __tostring raises.
 */
int tide_error_handler(lua_State *L);

/** Push such a table of a kind and a text, without traceback. */
void tide_error_push(lua_State *L, const char *kind, const char *message);

/** Registry key: { error, traceback } of what is about to be raised once more. */
#define TIDE_KEY_TRACE "tidemill.trace"

/** What was raised, on top, becomes such a table if it is none: no handler ran. */
void tide_error_wrap(lua_State *L);

/**
 * Of a process for one function, in that process: print the error table on top to
 * stderr, since nobody may ever ask for it. Sets its field `printed`.
 */
void tide_error_print(lua_State *L);

/**
 * Append the error on top of the stack as a message, and pop it. What is no such
 * table (an error without handler) becomes one. A `value` that cannot travel is
 * left out, and long texts are cut off where there is no room for them.
 *
 * @return TIDE_OK; TIDE_ENOMEM
 */
int tide_error_encode(struct tide_codec *codec, lua_State *L,
                      struct tide_buffer *buffer);

#endif
