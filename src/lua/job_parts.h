/**
 * @file job_parts.h
 * @brief What the three files of jobs.h share: arguments, results, course.
 */
#ifndef TIDE_LUA_JOB_PARTS_H
#define TIDE_LUA_JOB_PARTS_H

#include "lua/jobs.h"

/** Places in the environment table of a job's userdata. */
enum tide_job_value {
    TIDE_JOB_RESULTS = 1,
    TIDE_JOB_ITEMS,
    TIDE_JOB_ERROR,
    TIDE_JOB_POOL
};

/** Registry keys: functions and tables that the Lua half hands to the C half. */
#define TIDE_KEY_COLUMNS "tidemill.columns"
#define TIDE_KEY_ERROR   "tidemill.Error"

struct tide_function {
    struct tide_function *next;
    uint64_t digest;
    uint64_t block; /* a struct tide_function_head and a message */
    size_t size;    /* of the message */
    uint32_t users; /* active jobs */
};

struct tide_flight {
    struct tide_lua_job *job;
    struct tide_span span;
    struct tide_flight *next_free;
};

/** A segment with what the engine needs to run it. */
struct tide_lua_segment {
    struct tide_segment part; /* first: the ledger's */
    struct tide_request request;
    uint64_t block;  /* of the arguments, 0 if they are in the request */
    uint64_t origin; /* 0-based index in the job of its first item */
};

/* ---- job_args.c ---- */

/** Encode the function at `index`, or find it. Raises an error object. */
struct tide_function *tide_function_get(struct tide_lua_pool *owner,
                                        lua_State *L, int index);
void tide_function_drop(struct tide_lua_pool *owner,
                        struct tide_function *function);
void tide_functions_free(struct tide_lua_pool *owner);

/**
 * Encode the next items of a job, about `wanted`, as a segment of its ledger. An
 * item that cannot travel fails.
 *
 * @return 0; -1 if there is no shared memory left: try again when some is freed
 */
int tide_job_encode_next(struct tide_lua_job *job, lua_State *L,
                         uint64_t wanted);

/** Free a segment and its block. `owner` is a struct tide_lua_pool. */
void tide_segment_free(struct tide_segment *segment, void *owner);

/* ---- job_results.c ---- */

/** Store the results of an outcome; returns how many items are settled. */
uint32_t tide_job_take_results(struct tide_lua_job *job, lua_State *L,
                               const struct tide_span *span,
                               const struct tide_outcome *outcome);

/** Push a new error object of a kind; more fields may be set by the caller. */
void tide_error_object_push(lua_State *L, const char *kind,
                            const char *message);

/**
 * The item at 0-based `index` failed with the error object on top, which is
 * popped: with COLLECT it becomes the result, else the job fails with it.
 */
void tide_job_fail_item(struct tide_lua_job *job, lua_State *L, uint64_t index);

/** Report `settled` items of a span that has come back or could not go out. */
void tide_job_settle_span(struct tide_lua_job *job,
                          const struct tide_span *span, uint32_t settled,
                          uint64_t elapsed_ns);

/** Take in every outcome that has arrived. */
void tide_jobs_take_in(struct tide_lua_pool *owner, lua_State *L);

/**
 * An error left an outcome half taken in: its job fails with the error object on
 * top, which is popped.
 */
void tide_jobs_abandon(struct tide_lua_pool *owner, lua_State *L);

/* ---- jobs.c ---- */

/** Put a job on the feed list of its pool, if it is not on it. */
void tide_job_join_feed(struct tide_lua_job *job);

/** Let go of a job that has come to its end. */
void tide_job_retire(struct tide_lua_job *job, lua_State *L);

/** Push the value `which` of a job. */
void tide_job_push(const struct tide_lua_job *job, lua_State *L,
                   enum tide_job_value which);
/** Pop a value into `which`. */
void tide_job_store(const struct tide_lua_job *job, lua_State *L,
                    enum tide_job_value which);

/** End a running job with the error object on top, which is popped. */
void tide_job_fail(struct tide_lua_job *job, lua_State *L);

#endif
