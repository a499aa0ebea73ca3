/**
 * @file job_functions.h
 * @brief Functions as a pool's jobs send them.
 */
#ifndef TIDE_LUA_JOB_FUNCTIONS_H
#define TIDE_LUA_JOB_FUNCTIONS_H

#include "lua/handles.h"

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

struct tide_lua_pool;

/** A function as it was encoded. */
struct tide_function {
    struct tide_function *next; /* in its bucket */
    struct tide_function *idle_next;
    struct tide_function *idle_previous;
    uint64_t digest;
    uint64_t block;              /* a struct tide_function_head and a message */
    size_t size;                 /* of the message */
    struct tide_handles handles; /* of what it names */
    uint32_t users;              /* active jobs and calls */
    double call_ns; /* what a call has taken lately; 0 if unknown */
    char label[64]; /* for a trace */
};

/** The functions of a pool, by what they are. */
struct tide_functions {
    struct tide_function **buckets;
    size_t bucket_count; /* a power of two; 0 at first */
    size_t count;
    uint64_t last_id;
    struct tide_function *idle_first; /* without a job for longest */
    struct tide_function *idle_last;
    uint32_t idle_count;
};

/** A function that was used lately, see job_recent.c. */
struct tide_recent {
    const void *identity;
    struct tide_function *function; /* NULL if there is none */
    int upvalues;
    int globals;
};

enum { TIDE_RECENT_MAX = 8 };

struct tide_recents {
    struct tide_recent kept[TIDE_RECENT_MAX];
    const void *seen[TIDE_RECENT_MAX]; /* what was encoded lately, */
    uint32_t seen_count;               /* and how much */
};

/* ---- job_function.c ---- */

/**
 * Encode the `count` functions from `index` on as one, or find them. Raises an
 * error object.
 */
struct tide_function *tide_function_get(struct tide_lua_pool *owner,
                                        lua_State *L, int index, int count);
void tide_function_drop(struct tide_lua_pool *owner,
                        struct tide_function *function);
void tide_functions_free(struct tide_lua_pool *owner);

/* ---- job_recent.c ---- */

/** The function at `index` as it was encoded, if that can be told; else NULL. */
struct tide_function *tide_recent_find(struct tide_lua_pool *owner,
                                       lua_State *L, int index);

/** The function at `index` was encoded as this. */
void tide_recent_note(struct tide_lua_pool *owner, lua_State *L, int index,
                      struct tide_function *function);

/** The function is dropped. */
void tide_recent_forget(struct tide_lua_pool *owner,
                        const struct tide_function *function);

#endif
