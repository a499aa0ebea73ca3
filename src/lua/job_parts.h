/**
 * @file job_parts.h
 * @brief What the files of jobs.h share: arguments, results, course.
 */
#ifndef TIDE_LUA_JOB_PARTS_H
#define TIDE_LUA_JOB_PARTS_H

#include "lua/jobs.h"

/** Places in the environment table of a job's userdata. */
enum tide_job_value {
    TIDE_JOB_RESULTS = 1,
    TIDE_JOB_ITEMS,
    TIDE_JOB_ERROR,
    TIDE_JOB_POOL,
    TIDE_JOB_PLACES,  /* of a stream: whose result is where */
    TIDE_JOB_PROMISE, /* to be kept when it is over */
    TIDE_JOB_ATTEMPTS /* by index, of items that failed and had another try */
};

/** Registry keys: functions and tables that the Lua half hands to the C half. */
#define TIDE_KEY_COLUMNS "tidemill.columns"
#define TIDE_KEY_ERROR   "tidemill.Error"

struct tide_flight {
    struct tide_lua_job *job; /* NULL if it is free */
    struct tide_span span;
    uint32_t slot;
    struct tide_flight *next; /* of the job; or of the free ones */
    struct tide_flight **link;
};

/** A segment with what the engine needs to run it. */
struct tide_lua_segment {
    struct tide_segment part; /* first: the ledger's */
    struct tide_request request;
    uint64_t block; /* of the arguments, 0 if they are in the request */
    struct tide_handles handles; /* of what the arguments name */
    uint64_t origin; /* 0-based index in the job of its first item */
};

/* ---- job_block.c ---- */

/** A buffer that grows in the host's region. */
struct tide_block_buffer {
    struct tide_buffer buffer; /* first */
    struct tide_pool *pool;
    uint64_t block; /* 0 while all is in the `bytes` it began with */
};

/** @param bytes  TIDE_ARGS_BYTES of them, to begin with */
void tide_block_buffer_init(struct tide_block_buffer *out,
                            struct tide_pool *pool, unsigned char *bytes);

/* ---- job_args.c ---- */

/**
 * Push the first `count` values of the table at `index`; their number, -1 if they are
 * too many for arguments.
 */
int tide_args_unpack(lua_State *L, int index, double count);

/**
 * Encode the next items of a job, about `wanted`, as a segment of its ledger. An
 * item that cannot travel fails.
 *
 * @return 0; -1 if there is no shared memory left: try again when some is freed
 */
int tide_job_encode_next(struct tide_lua_job *job, lua_State *L,
                         uint64_t wanted);

/** Items that may be encoded and are not yet. */
uint64_t tide_job_unencoded(const struct tide_lua_job *job);

/** Free a segment and its block. `owner` is a struct tide_lua_pool. */
void tide_segment_free(struct tide_segment *segment, void *owner);

/**
 * Push item `item` of a segment, as it was given if that is still at hand, else
 * as it was sent.
 */
void tide_job_push_item(const struct tide_lua_job *job, lua_State *L,
                        const struct tide_lua_segment *segment, uint32_t item);

/** Push an element, from 0, of the items at `index`: a table, or a shared array. */
void tide_job_push_element(lua_State *L, int index, uint64_t place);

/* ---- job_column.c ---- */

enum { TIDE_COLUMN_RUN = 512 /* numbers that are copied at a time */ };

/** Copy numbers of a column to where no worker can change them, as Lua's. */
void tide_column_copy(double *out, const unsigned char *column, uint32_t count);

/** Push a number or a boolean of a column. */
void tide_column_push(lua_State *L, const unsigned char *column, int boolean,
                      uint32_t at);

/* ---- job_ring.c ---- */

/**
 * Pop a value: it is what landed at `place` of a stream, or the error with
 * `failed`.
 *
 * @param index  of the item; for FOLD of the first of 2^level items
 */
void tide_ring_land(struct tide_lua_job *job, lua_State *L, uint64_t index,
                    unsigned level, int failed);

/** A column of `count` numbers, or booleans, from item `index` on has landed. */
void tide_ring_land_column(struct tide_lua_job *job, lua_State *L,
                           const unsigned char *column, int boolean,
                           uint64_t index, uint32_t count);

/** Has the result landed that is to be taken next? */
int tide_ring_has_next(const struct tide_lua_job *job, lua_State *L);

/* ---- job_errors.c ---- */

/** Push a new error object of a kind; more fields may be set by the caller. */
void tide_error_object_push(lua_State *L, const char *kind,
                            const char *message);

/** Push a copy of the error object on top, for somebody else. */
void tide_error_object_copy(lua_State *L);

/** Make an error object of the table on top. */
void tide_error_object_set(lua_State *L);

/** What an item failed of, as far as it decides whether it is tried again. */
enum tide_failure {
    TIDE_FAILURE_LOST,
    TIDE_FAILURE_RAISED,
    TIDE_FAILURE_FINAL
};

/**
 * Item `item` of a segment failed with the error object on top, which is popped.
 * It is tried again if it may be. Else the error becomes the result with COLLECT
 * and in streams, or the job fails with it.
 */
void tide_job_fail_item(struct tide_lua_job *job, lua_State *L,
                        struct tide_lua_segment *segment, uint32_t item,
                        enum tide_failure failure);

/** The same for an item that never came into a segment. */
void tide_job_refuse_item(struct tide_lua_job *job, lua_State *L,
                          uint64_t index);

/** Push the error object of an item that was lost with its worker. */
void tide_job_push_death(const struct tide_lua_job *job, lua_State *L,
                         uint64_t index, const struct tide_death *death);

/* ---- job_results.c ---- */

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

/* ---- job_course.c ---- */

/** Push the userdata of a new job, its items in the table at `items`. */
struct tide_lua_job *tide_job_new(struct tide_lua_pool *owner, lua_State *L,
                                  int pool, int items,
                                  const struct tide_job_order *order);

/* ---- jobs.c ---- */

/** Pop a value into the table of active jobs; its place there, for luaL_unref(). */
int tide_job_anchor_value(struct tide_lua_pool *owner, lua_State *L);

/** Make a new job one of the active ones; its userdata is on top. */
void tide_job_anchor(struct tide_lua_job *job, lua_State *L);

/** It has work: put it among those that have, if it is not. */
void tide_job_list(struct tide_lua_job *job);

/** Retire a job that is over; one that is only idle has no work now. */
void tide_job_conclude(struct tide_lua_job *job, lua_State *L);

/** A step that begins with a job whose items are to be encoded, or NULL. */
void tide_jobs_step_with(struct tide_lua_pool *owner, lua_State *L,
                         struct tide_lua_job *eager);

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
