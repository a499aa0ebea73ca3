/**
 * @file trace.h
 * @brief What pools did when, for `tidemill --trace`.
 *
 * One group of rows is the script, with a row of what it did for its pools; every
 * pool is one more, with a row for each of its workers. Everything is written by
 * the script's process, from what workers left in the slots: a trace costs workers
 * nothing, and without one the script pays a look at a pointer for each chunk.
 */
#ifndef TIDE_LUA_TRACE_H
#define TIDE_LUA_TRACE_H

#include "base/clock.h"
#include "base/timeline.h"
#include "lua/job_parts.h"

struct tide_trace {
    struct tide_timeline line;
    uint32_t groups; /* that have a name */
};

/**
 * Open the file, and let pools that are made in this state from now on be traced.
 *
 * @param trace   of the caller, which keeps it until the state is closed
 * @param script  what to call the script
 * @return as tide_timeline_open()
 */
int tide_trace_begin(struct tide_trace *trace, lua_State *L, const char *path,
                     const char *script, struct tide_error *err);

/** Give a new pool its rows, if there is a trace in this process. */
void tide_trace_pool(struct tide_lua_pool *owner, lua_State *L,
                     const char *name);

/** Remember what to call the function at `index`. */
void tide_trace_function(struct tide_function *function, lua_State *L,
                         int index);

/** The outcome in `owner` has come back from its worker. */
void tide_trace_outcome(struct tide_lua_pool *owner);

/** Of work in the script: when it begins; 0 without a trace. */
static inline uint64_t tide_trace_start(const struct tide_lua_pool *owner)
{
    return owner->trace != NULL ? tide_now_ns() : 0;
}

/** And when it has ended. `count` of `unit` were done; 0 is not worth a word. */
void tide_trace_work(const struct tide_lua_pool *owner, const char *name,
                     uint64_t start_ns, const char *unit, uint64_t count);

#endif
