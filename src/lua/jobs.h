/**
 * @file jobs.h
 * @brief Jobs of a script: Lua items into requests, outcomes into Lua results.
 *
 * Between the ledger, which knows only numbers of items, and the engine, which
 * knows only bytes, this room knows both and the values. Everything runs in the
 * host inside a call that the script made.
 */
#ifndef TIDE_LUA_JOBS_H
#define TIDE_LUA_JOBS_H

#include "lua/codec.h"
#include "pool/ledger.h"
#include "pool/pool.h"

#include <lua.h>

enum tide_job_state { TIDE_JOB_RUNNING, TIDE_JOB_DONE, TIDE_JOB_FAILED };

enum tide_job_flags {
    TIDE_JOB_UNPACK = 1,  /* an item is a table of arguments */
    TIDE_JOB_ALL = 2,     /* one call; keep all its results */
    TIDE_JOB_COLLECT = 4, /* errors stand among the results */
    TIDE_JOB_EAGER = 8    /* encode all items before the script goes on */
};

struct tide_function; /* an encoded function in the host's region */
struct tide_flight;   /* a span that was submitted */

/** A pool as a script holds it: a userdata. */
struct tide_lua_pool {
    struct tide_pool *pool; /* NULL once freed */
    struct tide_codec *codec;
    struct tide_lua_job *jobs; /* active, newest first */
    struct tide_lua_job *feed; /* those with items to hand out, oldest first */
    struct tide_lua_job **feed_tail;
    struct tide_function *functions; /* used last first */
    uint32_t function_count;
    uint64_t last_function;
    struct tide_flight *flights;
    struct tide_flight *free_flights;
    struct tide_outcome outcome; /* being taken in, if `taking` */
    int taking;
    struct tide_lua_job *feeding; /* being handed out, if any */
    int at;    /* stack index of the table of active jobs, in this C function */
    int busy;  /* inside a step: a hook must not come back in */
    int ended; /* every job was failed: what still arrives is nobody's */
    int closed;     /* takes no new job */
    int terminated; /* by the script */
};

/** A job as a script holds it: a userdata whose environment holds the values. */
struct tide_lua_job {
    struct tide_job ledger;
    struct tide_lua_job *next; /* among the active ones */
    struct tide_lua_job *previous;
    struct tide_lua_job *feed_next;
    int feeding; /* on the pool's feed list */
    struct tide_lua_pool *owner;
    struct tide_function *function;
    enum tide_job_state state;
    int self; /* its place in the table of active jobs, while it is active */
    unsigned flags;
    uint64_t total;   /* items in all */
    uint64_t encoded; /* items that have been put into segments, or failed */
    int is_range;
    double range_first;
    double range_step;
};

/** What a new job is to do. */
struct tide_job_order {
    unsigned flags;
    uint32_t chunk; /* 0: adaptive */
    uint64_t total;
    int is_range;
    double range_first;
    double range_step;
};

/** Places in the environment table of a pool's userdata. */
enum tide_pool_value { TIDE_POOL_HOST = 1, TIDE_POOL_JOBS };

/** Prepare a zeroed userdata for an open pool. @return 0, -1 without memory */
int tide_jobs_init(struct tide_lua_pool *owner, struct tide_pool *pool,
                   struct tide_codec *codec);

/**
 * Begin a C function that works on jobs: pushes the table of active jobs of the
 * pool's userdata at `index`, where it stays. Raises if the call comes from a hook
 * of a value that this very pool is sending.
 */
void tide_jobs_enter(struct tide_lua_pool *owner, lua_State *L, int index);

/** Free the pool and what belongs to it; jobs still active fail. */
void tide_jobs_free(struct tide_lua_pool *owner, lua_State *L);

/**
 * Start a job and push its userdata.
 *
 * @param function  stack index of what to run; raises an error object of kind
 *                  "encode" if it cannot travel
 * @param items     stack index of a table of items, ignored for a range
 * @param pool      stack index of the pool's userdata, kept alive by the job
 */
struct tide_lua_job *tide_jobs_start(struct tide_lua_pool *owner, lua_State *L,
                                     int pool, int function, int items,
                                     const struct tide_job_order *order);

/** Take in what has come back and hand out what can go. Never waits. */
void tide_jobs_step(struct tide_lua_pool *owner, lua_State *L);

/**
 * Go on until `job` is over (until every job is, for NULL).
 *
 * @return TIDE_OK; TIDE_ETIMEOUT; TIDE_EINTR after a signal: call again
 */
int tide_jobs_wait(struct tide_lua_pool *owner, lua_State *L,
                   const struct tide_lua_job *job, uint64_t deadline_ns);

/** Push the results table or the error of a job that is over, or nil. */
void tide_jobs_push_outcome(lua_State *L, int job);

/** Fail every active job with an error of this kind; nothing more is taken in. */
void tide_jobs_fail_all(struct tide_lua_pool *owner, lua_State *L,
                        const char *kind, const char *message);

#endif
