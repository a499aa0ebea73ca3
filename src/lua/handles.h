/**
 * @file handles.h
 * @brief Shared objects in messages.
 *
 * A message that names an object is worth nothing once the object is freed. So the
 * encoder takes a hold of each object that it names, and leaves it to its caller to
 * keep these until the other side must have its own:
 *
 *   arguments, functions, options   the host keeps them as long as the block
 *   results                         the worker, until the host has collected them
 *
 * The decoder takes a hold for each value that it makes.
 */
#ifndef TIDE_LUA_HANDLES_H
#define TIDE_LUA_HANDLES_H

#include "share/object.h"

#include <lua.h>
#include <stddef.h>

struct tide_codec;

/** Holds, and whose they are. All zero: none. */
struct tide_handles {
    tide_handle *list;
    size_t count;
    size_t capacity;
};

/** Add a hold of an object to the list. @return a status, `err` says why */
int tide_handles_add(struct tide_handles *handles, tide_handle handle,
                     enum tide_object_kind kind, struct tide_error *err);

/** Give back all holds from place `from` on. */
void tide_handles_drop(struct tide_handles *handles, size_t from);

/** Give back all of them, and the memory. */
void tide_handles_free(struct tide_handles *handles);

/**
 * Move what the codec's last messages have added from `mark` on to `out`. Without
 * memory for that they are never given back.
 */
void tide_handles_take(struct tide_codec *codec, size_t mark,
                       struct tide_handles *out);

/**
 * Objects that the Lua values of this process keep from being freed weigh little for
 * its collector. So it is run when they have about doubled: look after some were
 * made or received.
 */
int tide_handles_are_heavy(const struct tide_codec *codec);
void tide_handles_collect(struct tide_codec *codec, lua_State *L);

/** Both. */
void tide_handles_weigh(struct tide_codec *codec, lua_State *L);

#endif
