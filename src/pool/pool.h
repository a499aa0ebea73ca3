/**
 * @file pool.h
 * @brief A pool as the rooms above see it: requests in, outcomes out.
 *
 * This is the local engine: it runs requests in worker processes of this machine
 * through the slot table. It knows neither items nor order (ledger.h) nor what
 * the bytes mean (the Lua rooms). Everything here is the host's and is called
 * from one thread.
 */
#ifndef TIDE_POOL_POOL_H
#define TIDE_POOL_POOL_H

#include "pool/host.h"
#include "shm/board.h"

struct tide_pool_options {
    uint32_t worker_count; /* there are at first */
    uint32_t worker_max; /* room for tide_pool_resize(); 0 for the default: 256,
                            * or worker_count if that is more. Where address space
                            * is short there is only room for worker_count. */
    uint32_t slot_count; /* a power of two; 0 for the default */
    uint64_t region_bytes; /* address space per process; 0 for the default */
    const void *config;    /* copied; every worker gets it when it starts */
    size_t config_bytes;
    uint64_t start_deadline_ns; /* when to give up the opening; 0: in 30 s */
    int single; /* one process a place, for one request each: no other follows */
};

struct tide_pool {
    struct tide_pool *next;
    struct tide_host *host;
    uint32_t crew;
    struct tide_arena arena;
    struct tide_board board;
    struct tide_region *region; /* ours, in the arena */
    struct tide_heap heap;
    uint64_t *tags; /* per slot */
    uint64_t config;
    uint64_t regions_at; /* the first worker's; then one after the other */
    uint64_t region_bytes,
        spare_bytes; /* of the first `full_count`, of others */
    uint32_t full_count;
    int wait_fd;     /* epoll, -1 until tide_pool_fd() */
    int is_external; /* somebody waits for it with that */
    int started;
    int gone;         /* no worker is left, none will be started */
    int broken;       /* gone against our will, see `reason` */
    uint64_t gone_ns; /* when that was heard; in the order of the ends */
    char reason[200];
};

/** What became of a request. */
struct tide_outcome {
    uint64_t tag;
    uint32_t slot;
    int lost; /* the worker died: see `death`; the reply goes as far as it got */
    struct tide_death death;
    struct tide_request request; /* as it was submitted */
    struct tide_reply reply;     /* a copy */
    const unsigned char *bytes;  /* the result, inside or outside the slot */
    uint64_t capacity;           /* of `bytes`: nothing beyond is readable */
};

/**
 * Make the arena and have the supervisor fork the workers. Signals do not end it.
 *
 * @return TIDE_OK; TIDE_ETIMEOUT if the supervisor does not answer until
 *         start_deadline_ns (should it go on later, it has its order to stop);
 *         TIDE_ESYS and others with the cause, e.g. that a worker cannot be
 *         forked: then none is left
 */
int tide_pool_open(struct tide_pool **out, struct tide_host *host,
                   const struct tide_pool_options *options,
                   struct tide_error *err);

/**
 * Kill what still runs, without waiting for it, and free everything. In a forked
 * copy of the host only its memory is freed: no process is signalled, and but for
 * the arena's no descriptor closed, since the numbers may have been reused.
 */
void tide_pool_free(struct tide_pool *pool);

/**
 * Wait until every worker has started.
 *
 * @return TIDE_OK; TIDE_ETIMEOUT; TIDE_EINTR; TIDE_EBROKEN
 */
int tide_pool_await_start(struct tide_pool *pool, uint64_t deadline_ns);

/** Room for arguments and functions, free or not, in millions of bytes. */
int tide_pool_megabytes(const struct tide_pool *pool);

/** A block for arguments or a function, as an offset; 0 without memory. */
uint64_t tide_pool_alloc(struct tide_pool *pool, uint64_t bytes);
void tide_pool_free_block(struct tide_pool *pool, uint64_t offset);
/** Copy to a block, or into the middle of one: large data fast. */
void tide_pool_write(struct tide_pool *pool, uint64_t offset, const void *bytes,
                     size_t size);
unsigned char *tide_pool_at(const struct tide_pool *pool, uint64_t offset);

/** Is [offset, offset + size) in the region of this worker? Does not ask the arena,
 * where a worker might have written. */
int tide_pool_holds(const struct tide_pool *pool, uint32_t worker,
                    uint64_t offset, uint64_t size);

/** Can a request be submitted now? */
int tide_pool_has_slot(const struct tide_pool *pool);

/**
 * Submit a copy of `request`. Where it has a `timeout_ms`, a worker that has one of
 * its items in hand for longer is killed, and the request comes back as lost with
 * cause TIDE_DEATH_TIMEOUT and that item in hand. Never too early; a look or two
 * (an eighth of the limit, 1 .. 20 ms) late. Time in the queue does not count.
 *
 * @param slot  NULL, or where the number goes by which it can be revoked or cut
 *              off until its outcome is received
 * @return TIDE_OK; TIDE_EAGAIN when every slot is in use
 */
int tide_pool_submit(uint32_t *slot, struct tide_pool *pool,
                     const struct tide_request *request, uint64_t tag);

/**
 * As tide_pool_submit(), for a request that only one worker may run: whatever
 * process has that place. It comes before all that waits for anybody, and needs no
 * kick.
 *
 * @param worker  0 .. tide_pool_workers() - 1
 * @return TIDE_OK; TIDE_EAGAIN when every slot is in use, or while the worker has
 *         not begun with the request that it was given so before; TIDE_EINVAL if
 *         there is no such worker
 */
int tide_pool_submit_to(uint32_t *slot, struct tide_pool *pool, uint32_t worker,
                        const struct tide_request *request, uint64_t tag);

/**
 * Take back a submitted request that no worker has claimed yet.
 *
 * @return TIDE_OK: there will be no outcome, the slot is free again; TIDE_EAGAIN:
 *         it is being run or has been, its outcome comes
 */
int tide_pool_revoke(struct tide_pool *pool, uint32_t slot);

/**
 * Have the worker killed that runs a request, unless it has finished it when the
 * supervisor looks: never for another one. Does nothing to a request that is not
 * claimed: revoke first. The outcome comes as lost, with cause TIDE_DEATH_CANCEL,
 * or complete.
 */
void tide_pool_cut_off(struct tide_pool *pool, uint32_t slot);

/** The item in hand now of a request in flight, in [first, count]: for progress. */
uint32_t tide_pool_hand(const struct tide_pool *pool, uint32_t slot);

/** About how many requests wait for a worker now. */
uint32_t tide_pool_queued(const struct tide_pool *pool);

/** Wake sleeping workers for up to `count` requests submitted before. */
void tide_pool_kick(struct tide_pool *pool, uint32_t count);

/**
 * Have so many workers from now on. New ones are forked at once; of those that are
 * too many the last ones end when they have finished what they have begun and what
 * only they may run. Never waits.
 *
 * @return TIDE_OK; TIDE_EINVAL if `count` is 0 or beyond worker_max; TIDE_ECLOSED
 */
int tide_pool_resize(struct tide_pool *pool, uint32_t count,
                     struct tide_error *err);

/** Workers that there should be now. */
uint32_t tide_pool_workers(const struct tide_pool *pool);

/**
 * Instead of tide_pool_kick() after each single submit: wake a worker unless those
 * that are awake will come to the work in some 50 us.
 *
 * @param backlog_ns  about how much work waits: tide_pool_queued() times the time
 *                    that a request takes, as far as the caller knows
 */
void tide_pool_nudge(struct tide_pool *pool, uint64_t backlog_ns);

/** Requests submitted whose outcomes have not been received. */
uint32_t tide_pool_in_flight(const struct tide_pool *pool);

/** About how many outcomes can be received now. */
uint32_t tide_pool_arrived(const struct tide_pool *pool);

/** The next outcome. @return TIDE_OK, then tide_pool_release(); TIDE_EAGAIN */
int tide_pool_receive(struct tide_pool *pool, struct tide_outcome *out);

/** Give back the memory of an outcome. */
void tide_pool_release(struct tide_pool *pool,
                       const struct tide_outcome *outcome);

/**
 * Sleep until `count` outcomes can be received, something urgent or unexpected
 * happened, or the deadline passed. May return early.
 *
 * @return TIDE_OK; TIDE_ETIMEOUT; TIDE_EINTR; TIDE_EBROKEN: look at `gone`
 */
int tide_pool_wait(struct tide_pool *pool, uint32_t count,
                   uint64_t deadline_ns);

/**
 * Sleep until one of several pools has an outcome or news. May return early.
 *
 * @return TIDE_OK; TIDE_ETIMEOUT; TIDE_EINTR; TIDE_ENOMEM; TIDE_EBROKEN if one of
 *         them is gone: look at `gone`
 */
int tide_pools_wait(struct tide_pool *const *pools, size_t count,
                    uint64_t deadline_ns);

/**
 * A descriptor for event loops, readable when something has arrived or happened;
 * poll it, and do nothing else with it. When it is: tide_host_attend(), receive
 * until TIDE_EAGAIN, and tide_pool_arm() before it is polled again. It may be
 * readable for nothing. The pool's, closed with it.
 *
 * @return at least 3, the same each time; -1 with the cause in `err`
 */
int tide_pool_fd(struct tide_pool *pool, struct tide_error *err);

/**
 * Before the descriptor is polled: from now on it becomes readable at the next
 * arrival, and at once if there is one already. Wakes workers for what waits.
 */
void tide_pool_arm(struct tide_pool *pool);

/** Let the workers end when nothing is left to do. */
void tide_pool_close(struct tide_pool *pool);

/** Kill the workers. Outcomes that have arrived can still be received. */
void tide_pool_kill(struct tide_pool *pool);

/** Send a signal to the workers. */
void tide_pool_signal(struct tide_pool *pool, int signal_number);

/** The one process of a worker of a pool that is single. @return whether it has ended,
 * and the pool is gone; then `wait_status` says how, as waitpid(2) does. */
int tide_pool_process(const struct tide_pool *pool, uint32_t worker, pid_t *pid,
                      int *wait_status);

/** Wait until no worker is left. @return TIDE_OK; TIDE_ETIMEOUT; TIDE_EINTR */
int tide_pool_join(struct tide_pool *pool, uint64_t deadline_ns);

/** For tide_host_attend(): the supervisor's last word. */
void tide_pool_on_gone(struct tide_pool *pool, const char *reason);

#endif
