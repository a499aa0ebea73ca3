/**
 * @file job_calls.h
 * @brief Single calls: items of a common job, each with a function, terms and a
 *        promise of its own.
 *
 * A job costs a kilobyte and some microseconds, too much for a call. So a pool has
 * one job open to which each call is appended. It is an item like any other, in a
 * chunk of its own: it never waits for another one's end, and it is cancelled, timed
 * out, lost and repeated alone.
 *
 *   open    takes the next call; while it has nothing to do it is not listed
 *           among the jobs with work
 *   closed  it is full, or something else was given that is to be handed out
 *           before the next call; it ends with its last call
 */
#ifndef TIDE_LUA_JOB_CALLS_H
#define TIDE_LUA_JOB_CALLS_H

#include "lua/job_parts.h"

/** Where the arguments of a call are. */
enum tide_calls_args {
    TIDE_CALLS_INSIDE,
    TIDE_CALLS_BLOCK, /* of the host's region */
    TIDE_CALLS_HELD   /* not encoded: there was no shared memory */
};

struct tide_calls_item {
    struct tide_function *function; /* NULL when the call is settled */
    union {
        unsigned char bytes[TIDE_ARGS_BYTES];
        uint64_t block;
    } args;
    uint32_t length; /* of the arguments */
    uint32_t flight; /* its number among the pool's, from 1; 0: none */
    struct tide_terms terms;
    struct tide_handles handles; /* of what the arguments name */
    uint8_t where;               /* enum tide_calls_args */
    uint8_t over; /* its promise is kept: what still comes is nobody's */
};

/** The one segment of a job of calls. */
struct tide_calls {
    struct tide_lua_segment segment; /* first; it goes with the job */
    struct tide_calls_item *items;
    uint32_t capacity;
    int promises; /* place in the table of active jobs of the list of them */
    uint64_t first_number; /* of its first call among the pool's jobs */
};

/** What an item of a job is granted. */
static inline const struct tide_terms *
tide_job_terms(const struct tide_lua_job *job, uint64_t index)
{
    return job->calls != NULL ? &job->calls->items[index].terms
                              : &job->order.terms;
}

/** The function that an item of a job calls; NULL of a call that is settled. */
static inline struct tide_function *
tide_job_function(const struct tide_lua_job *job, uint32_t item)
{
    return job->calls != NULL ? job->calls->items[item].function
                              : job->function;
}

/**
 * Append a call to the pool's open job and hand it out if it can go. Pushes the
 * job's userdata and the call's 0-based index in it. Raises an error object of kind
 * "encode" if the function cannot travel; if arguments cannot the call fails.
 *
 * @param pool      stack index of the pool's userdata
 * @param promise   stack index of what is filled in when the call is over
 * @param function  stack index of what to call
 * @param first     stack index of the arguments, the `count` values from there on;
 *                  -1: there were more than can be sent
 */
void tide_calls_start(struct tide_lua_pool *owner, lua_State *L, int pool,
                      int promise, int function, int first, int count,
                      const struct tide_terms *terms);

/** Is the call over, well or badly? */
int tide_calls_is_over(const struct tide_lua_job *job, uint64_t index);

/** End a call. @return 0 if it was over */
int tide_calls_cancel(struct tide_lua_job *job, lua_State *L, uint64_t index);

/** Its arguments cannot travel: it fails with that. */
void tide_calls_refuse(struct tide_lua_job *job, lua_State *L, uint32_t item,
                       const char *why);

/**
 * Before a call is handed out: encode arguments that are not.
 *
 * @return TIDE_OK; TIDE_ENOMEM if there still is no shared memory for them; others if
 *         they cannot travel: then it is over
 */
int tide_calls_prepare(struct tide_lua_job *job, lua_State *L, uint32_t item);

/** Fill in a request but for `first` and `count`. */
void tide_calls_request(struct tide_request *out,
                        const struct tide_lua_job *job, uint32_t item);

/** The call is over with the `count` values on top, which are popped. */
void tide_calls_return(struct tide_lua_job *job, lua_State *L, uint64_t index,
                       int count);

/** The call is over with the error on top, which is popped. */
void tide_calls_fail(struct tide_lua_job *job, lua_State *L, uint64_t index);

/** All calls that are not over fail with the error on top, each a copy of it. */
void tide_calls_fail_all(struct tide_lua_job *job, lua_State *L);

/** The call comes back no more: give back what it holds. */
void tide_calls_settle(struct tide_lua_job *job, uint32_t item);

/** Has the job nothing to do, though it is not over? */
int tide_calls_are_idle(const struct tide_lua_job *job);

/** Take no more calls. The job may be over with it. */
void tide_calls_close(struct tide_lua_job *job, lua_State *L);

/** The job ends: give back what its calls hold. */
void tide_calls_free(struct tide_lua_job *job, lua_State *L);

#endif
