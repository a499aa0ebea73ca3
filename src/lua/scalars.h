/**
 * @file scalars.h
 * @brief Messages of a few numbers, booleans, nils and short strings: most arguments
 *        of calls and most of what they return.
 *
 * They are the same bytes as tide_encode() writes and tide_decode() reads, without
 * what these need for everything else.
 */
#ifndef TIDE_LUA_SCALARS_H
#define TIDE_LUA_SCALARS_H

#include "lua/codec.h"

/**
 * As tide_encode(), if it is such a message, in a state whose layout is known.
 *
 * @return 0; -1 if it is not, or there is no room: nothing is done then
 */
int tide_scalars_encode(lua_State *L, struct tide_buffer *buffer, int first,
                        int count, unsigned head);

/**
 * As tide_decode(), if it is such a message; `*at` is advanced and the values are
 * pushed then.
 *
 * @return how many values there are; -1 if it is not: nothing is done then
 */
int tide_scalars_decode(lua_State *L, const unsigned char **at,
                        const unsigned char *end, unsigned *head);

#endif
