/**
 * @file jobs.h
 * @brief Jobs of a script: Lua items into requests, outcomes into Lua results.
 *
 * Between the ledger, which knows only numbers of items, and the engine, which
 * knows only bytes, this room knows both and the values. Everything runs in the
 * host inside a call that the script made.
 *
 * Results go one of three ways: into a table by the item's place; for a STREAM, into
 * a ring from which the script takes them one by one, see job_ring.c; and of CALLS,
 * into a result of its own for each, see job_calls.h.
 */
#ifndef TIDE_LUA_JOBS_H
#define TIDE_LUA_JOBS_H

#include "lua/codec.h"
#include "lua/job_functions.h"
#include "pool/ledger.h"
#include "pool/pool.h"

#include <lua.h>

/** The type of a job's userdata. */
#define TIDE_JOB_TYPE "tidemill.core.job"

enum tide_job_state { TIDE_JOB_RUNNING, TIDE_JOB_DONE, TIDE_JOB_FAILED };

enum tide_job_flags {
    TIDE_JOB_UNPACK = 0x001,    /* an item is a table of arguments */
    TIDE_JOB_CALLS = 0x002,     /* items are calls, see job_calls.h */
    TIDE_JOB_COLLECT = 0x004,   /* errors stand among the results */
    TIDE_JOB_EAGER = 0x008,     /* encode all items before the script goes on */
    TIDE_JOB_STREAM = 0x010,    /* results are taken one by one */
    TIDE_JOB_UNORDERED = 0x020, /* a stream in order of completion */
    TIDE_JOB_LAZY = 0x040,      /* items come by tide_jobs_feed() */
    TIDE_JOB_TRUTH = 0x100,     /* only whether a result is true counts */
    TIDE_JOB_EFFECT = 0x200,    /* results do not count; errors are listed */
    TIDE_JOB_FOLD = 0x400, /* results are folded: a stream of partial ones */
    TIDE_JOB_BROADCAST = 0x800 /* an item is a worker, all get the same call */
};

struct tide_flight; /* a span that was submitted */
struct tide_trace;  /* see trace.h */

/** A pool as a script holds it: a userdata. */
struct tide_lua_pool {
    struct tide_pool *pool; /* NULL once freed */
    const void *metatable;  /* of the userdata */
    struct tide_codec *codec;
    struct tide_lua_job *jobs; /* active, newest first */
    struct tide_lua_job *feed; /* those with items to hand out, oldest first */
    struct tide_lua_job **feed_tail;
    struct tide_lua_job *calls; /* takes the next call, if there is one */
    int last_active; /* the highest place in the table of active jobs */
    struct tide_functions functions;
    struct tide_recents recents;
    struct tide_flight *flights;
    struct tide_flight *free_flights;
    struct tide_outcome outcome; /* being taken in, if `taking` */
    int taking;
    uint32_t repeated;            /* items of it that have another try */
    struct tide_lua_job *feeding; /* being handed out, if any, */
    struct tide_span cut;         /* and what was cut of it, if `segment` */
    double span_ns; /* what a span has taken lately, over all jobs */
    int at;    /* stack index of the table of active jobs, in this C function */
    int busy;  /* inside a step: a hook must not come back in */
    int ended; /* every job was failed: what still arrives is nobody's */
    int closed;                /* takes no new job */
    int terminated;            /* by the script */
    struct tide_deaths deaths; /* of workers, that were seen to */
    uint64_t opened;           /* shared objects received, that were weighed */
    int owns_host;             /* its supervisor is there for it alone */
    int dropped;               /* streams were, see tide_jobs_drop() */
    int finished;              /* there are watchers to be called */
    uint64_t last_end;         /* of a promise: ends are in order */
    int has_seed;              /* random streams per item */
    uint64_t seed;             /* of the pool */
    uint64_t job_count;        /* started so far */

    struct tide_trace *trace; /* NULL: nobody wants to know */
    uint32_t trace_group;
    uint32_t trace_rows; /* workers that have a name there */
};

/** Of a stream; positions only grow, a place is a position modulo capacity. */
struct tide_ring {
    uint64_t capacity; /* a power of two */
    uint64_t landed;   /* results that came in */
    uint64_t taken;    /* by the script, as far as it has said */
};

/** What an item is granted. */
struct tide_terms {
    uint32_t timeout_ms;    /* it may take; 0: for ever */
    uint32_t retries;       /* when it is lost with its worker, or timed out */
    uint32_t error_retries; /* when it raised */
};

/** What a new job is to do. */
struct tide_job_order {
    unsigned flags;
    uint32_t chunk; /* 0: adaptive */
    uint64_t total; /* items; for LAZY 0, for BROADCAST workers */
    int is_range;
    double range_first;
    double range_step;
    struct tide_terms terms; /* not of CALLS: each has its own */
    uint64_t buffer;         /* items in a window; 0: some chunks per worker */
};

/** A job as a script holds it: a userdata whose environment holds the values. */
struct tide_lua_job {
    struct tide_job ledger;
    struct tide_job_order order; /* `total` grows with what is fed */
    struct tide_lua_job *next;   /* among those with work, if it is listed */
    struct tide_lua_job *previous;
    struct tide_lua_job *feed_next;
    struct tide_lua_job *
        *feed_link; /* what points to it; NULL: not on the list */
    struct tide_lua_pool *owner;
    struct tide_function *function; /* NULL of CALLS: each has its own */
    struct tide_calls *calls;
    struct tide_flight *flights; /* with workers, or about to be */
    enum tide_job_state state;
    int self;   /* its place in the table of active jobs, while it is active */
    int listed; /* among those with work */
    int complete;       /* `order.total` is all there will be */
    int dropped;        /* nobody will take the rest of the stream */
    uint64_t encoded;   /* items that have been put into segments, or failed */
    uint64_t allowed;   /* items that may be encoded by now */
    uint64_t item_base; /* LAZY: index of the first item in ITEMS */
    uint64_t failed;    /* items whose final state is an error, */
    uint64_t refused;   /* and those of them that could not be encoded */
    uint64_t stream;    /* of random numbers; 0 for none */
    uint64_t number;    /* of the pool's jobs, from 1 */
    struct tide_ring ring;
};

/** Places in the environment table of a pool's userdata. */
enum tide_pool_value {
    TIDE_POOL_HOST = 1,
    TIDE_POOL_JOBS,
    TIDE_POOL_KEEPER /* of shared objects that workers start with */
};

/** Places in the table of active jobs, besides theirs. */
enum tide_active_value {
    TIDE_ACTIVE_STEP = -1,
    TIDE_ACTIVE_FINISHED = -2, /* a chain of watchers, see promise.h */
    TIDE_ACTIVE_RECENT = -3    /* and downwards */
};

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

/** Take in what has come back and hand out what can go. Never waits. */
void tide_jobs_step(struct tide_lua_pool *owner, lua_State *L);

/** Fail every active job with an error of this kind; nothing more is taken in. */
void tide_jobs_fail_all(struct tide_lua_pool *owner, lua_State *L,
                        const char *kind, const char *message);

/* ---- the course of a job: job_course.c ---- */

/**
 * Start a job and push its userdata.
 *
 * @param pool      stack index of the pool's userdata, kept alive by the job
 * @param function  stack index of what to run; raises an error object of kind
 *                  "encode" if it cannot travel; for FOLD how to combine follows
 *                  at the next index
 * @param items     stack index of a table of items, with ALL and BROADCAST of the
 *                  call's arguments; ignored for a range and LAZY
 */
struct tide_lua_job *tide_jobs_start(struct tide_lua_pool *owner, lua_State *L,
                                     int pool, int function, int items,
                                     const struct tide_job_order *order);

/**
 * How many more items a window has room for, when `taken` results have been taken.
 * Other than LAZY jobs may go on by as many at once. 0 also if it is not worth while
 * yet.
 */
uint64_t tide_jobs_room(struct tide_lua_job *job, lua_State *L, uint64_t taken);

/** The next `count` items of a LAZY job, in the table at `items`; 0: no more. */
void tide_jobs_feed(struct tide_lua_job *job, lua_State *L, int items,
                    uint64_t count);

/**
 * End the window of a stream: all its items may go out, or none but those that have
 * been encoded.
 */
void tide_jobs_lift(struct tide_lua_job *job, lua_State *L, int all);

/**
 * End streams whose window was not ended, and jobs that are still fed: nobody will
 * take from them or feed them any more, as when all work is to be waited for.
 * (Their iterators may be garbage that is not yet finalized.)
 */
void tide_jobs_end_streams(struct tide_lua_pool *owner, lua_State *L);

/** End a job that is running: what waits is not run, what runs is killed. */
void tide_jobs_cancel(struct tide_lua_job *job, lua_State *L);

/** Nobody will ask for this stream again. From finalizers: only a note is made. */
void tide_jobs_drop(struct tide_lua_job *job);

/**
 * Items in their final state, with those that chunks under way have finished.
 */
uint64_t tide_jobs_progress(const struct tide_lua_job *job);

/**
 * Go on until `job` is over (until every job is, for NULL; of CALLS until that call
 * is; a stream also when something has landed or nothing more can without the
 * script).
 *
 * @return TIDE_OK; TIDE_ETIMEOUT; TIDE_EINTR after a signal: call again;
 *         TIDE_EAGAIN: promises are kept that are watched, look at `finished`
 */
int tide_jobs_wait(struct tide_lua_pool *owner, lua_State *L,
                   const struct tide_lua_job *job, uint64_t call,
                   uint64_t deadline_ns);

/**
 * The promise at `index`, see promise.h, is of `job`, whose userdata is at `at`: it is
 * filled in when the job is over, or now.
 */
void tide_jobs_promise(struct tide_lua_job *job, lua_State *L, int at,
                       int index);

/** Push the results table or the error of a job that is over, or nil. */
void tide_jobs_push_outcome(lua_State *L, int job);

#endif
