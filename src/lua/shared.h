/**
 * @file shared.h
 * @brief What the bindings of shared objects have in common.
 */
#ifndef TIDE_LUA_SHARED_H
#define TIDE_LUA_SHARED_H

#include "lua/codec.h"
#include "share/load.h"
#include "share/waiters.h"

#include <lauxlib.h>
#include <lua.h>

/** Functions of `tidemill.core` on what processes synchronize by. */
extern const luaL_Reg tide_core_sync[];

/** On queues and dictionaries. */
extern const luaL_Reg tide_core_store[];

/** Add all that to the table on top. */
void tide_open_shared(lua_State *L);

/** The object of the value at `index`, which is of this kind and held here. */
tide_handle tide_check_object(lua_State *L, int index,
                              enum tide_object_kind kind);

/** Push the handle of a new object as two numbers, or raise why there is none. */
int tide_push_made(lua_State *L, int status, tide_handle handle,
                   const char *what, const struct tide_error *err);

/** A wait on the object at 1 that begins now, until the deadline at `deadline`. */
struct tide_wait tide_new_wait(lua_State *L, enum tide_object_kind kind,
                               int deadline);

/**
 * Call `step` until it returns something else than TIDE_EAGAIN. In between the
 * script's pools are looked after and its signals; what that raises ends the wait.
 */
int tide_wait_through(lua_State *L, struct tide_wait *wait,
                      int (*step)(struct tide_wait *, void *), void *context);

/** Push "done", "timeout", "closed", or "alone" (TIDE_EBROKEN). */
void tide_push_wait_text(lua_State *L, int status);

/* ---- values ---- */

enum { TIDE_DRAFT_BYTES = 2048 };

/** A value as a message, on its way out: a small one is in the draft. */
struct tide_draft {
    struct tide_buffer buffer; /* first, see grow() */
    unsigned char room[TIDE_DRAFT_BYTES];
    struct tide_message message;
    struct tide_handles handles;
};

/** Encode the value at `index`. Raises what cannot travel. */
void tide_draft_compose(struct tide_draft *draft, lua_State *L, int index);
void tide_draft_discard(struct tide_draft *draft);

/** Push the value of a message; or an error object, and return 0. */
int tide_push_message(lua_State *L, const unsigned char *bytes, size_t length);

/** Raise that there is no shared memory left. */
int tide_raise_full(lua_State *L);

/** Registry key: what to call now and then in a long wait. */
#define TIDE_KEY_BREATHE "tidemill.breathe"

#endif
