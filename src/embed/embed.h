/**
 * @file embed.h
 * @brief What the files of this room share: the objects behind tidemill.h.
 *
 * A mill is a client of the Lua API: what it does in terms of pools and results is
 * in lua/tidemill/mill.lua, and here are the ways in and out. Every one of them runs
 * as a part (tide_mill_run_part), so that no error leaves it but as a status.
 *
 *   Value on the Lua side                     Held by
 *   the functions of mill.lua by number, and  registry, see tide_mill_push
 *   at TIDE_MILL_SELF what mill.open made
 *   the entry of a call: its job, and when    registry, by call->entry
 *   it is over its values at 1
 *   the cursor: table, key, value of level    the entry, from 2 on
 *   1, 2, ...
 */
#ifndef TIDE_EMBED_H
#define TIDE_EMBED_H

#include "base/status.h"
#include "lua/setup.h"
#include "pool/host.h"

#include <lua.h>
#include <stdatomic.h>

struct tide_starter {
    struct tide_host host;
    struct tide_setup *setup;
};

struct tide_mill {
    lua_State *L;
    struct tide_call *calls;
    atomic_flag busy; /* somebody is inside */
};

struct tide_call {
    struct tide_mill *mill;
    struct tide_call *next;
    struct tide_call *previous;
    void *data;
    int entry;  /* registry reference */
    int status; /* TIDE_EAGAIN: under way */
    int level;  /* of the cursor; 0: not in a table */
    int is_forgotten;
    struct tide_error error;
};

/** What mill.lua does. */
enum tide_mill_function {
    TIDE_MILL_SELF = 1,
    TIDE_MILL_START,
    TIDE_MILL_WAIT,
    TIDE_MILL_NEXT,
    TIDE_MILL_CANCEL,
    TIDE_MILL_FORGET,
    TIDE_MILL_FD,
    TIDE_MILL_INTEGER,
    TIDE_MILL_TAKE_INTEGER
};

/**
 * Register Tidemill in a state, run the starter's hook there, and let it have what
 * the starter has, which is gone from then on, also on failure.
 */
int tide_starter_adopt(lua_State *L, struct tide_starter *starter,
                       struct tide_error *err);

/** A part of what a host asks for; may raise. */
typedef void (*tide_part)(lua_State *L, void *data);

/**
 * Run a part in the mill's state.
 *
 * @param mill  NULL: nothing is done, and the status in `err` returned
 * @param data  passed to it; also for what comes back
 * @return TIDE_OK; what it raised: by its kind if it is an error object, else
 *         TIDE_EINVAL; TIDE_ENOMEM; TIDE_EINVAL too if another thread is inside
 */
int tide_mill_run_part(struct tide_mill *mill, tide_part part, void *data,
                       struct tide_error *err);

/** Tell of a failure: the status of the error object at `index`, and its text. */
int tide_mill_tell(lua_State *L, int index, struct tide_error *err);

/** Push a function of mill.lua, and its first argument. */
void tide_mill_push(lua_State *L, enum tide_mill_function function);

/**
 * Push a table with the values of args, which may be NULL: how many. May raise. They
 * have been checked.
 */
int tide_args_push_list(lua_State *L, const struct tide_args *args);

/** What is wrong with args, as a status. */
int tide_args_check(const struct tide_args *args, struct tide_error *err);

/** The status that NULL in the place of an object stands for. */
int tide_pass_on(const struct tide_error *err);

#endif
