/**
 * @file board.h
 * @brief The slot table of a pool: chunks of work in shared memory, that workers
 *        claim, and the two sleeps around it.
 *
 *   Process      May call                            Only writer of
 *   host         tide_board_take, _submit, _revoke,  a FREE slot, ready ring,
 *                _kick, _next_done, _release, _wait,  `wake_at`, `closing`,
 *                _submit_to, _resize, _close, _stop  `wanted`, `stopped`,
 *                _cut_off, _signal                   `cuts`, `signals`
 *   worker w     board_worker.h                      its CLAIMED slot, its
 *                                                    record, its region
 *   supervisor   tide_board_reclaim, _rouse,         slots of reaped workers,
 *                _wake_all, _end_watch and the       orphan ring
 *                looks beside it
 *
 * A slot is owned by exactly one process at every instant: state, owner and a
 * sequence number are one atomic word, so a worker killed between any two
 * instructions leaves either a READY slot or one that names it.
 */
#ifndef TIDE_SHM_BOARD_H
#define TIDE_SHM_BOARD_H

#include "shm/arena.h"
#include "shm/record.h"
#include "shm/slot.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

enum { TIDE_WORKERS_MAX = 1024, TIDE_SLOTS_MAX = 1 << 20 };

enum tide_death_cause {
    TIDE_DEATH_PLAIN,   /* by itself, or by an outsider */
    TIDE_DEATH_TIMEOUT, /* the item in its hand took longer than its limit */
    TIDE_DEATH_CANCEL,  /* the host asked for it */
    TIDE_DEATH_STUCK    /* stopped, without an item, when it was to leave */
};

/** Who had a slot last, and how it died if it did. */
struct tide_death {
    uint32_t worker; /* 0-based */
    pid_t pid;
    int wait_status; /* as waitpid(2) gives it */
    enum tide_death_cause cause;
};

struct tide_board_shared;

/** One process's view of a board: pointers into its own mapping. */
struct tide_board {
    const struct tide_arena *arena;
    uint32_t slot_count; /* ours: those in the arena a worker might overwrite */
    uint32_t place_count; /* workers there is room for */
    struct tide_board_shared *shared;
    struct tide_slot *slots;
    struct tide_worker_record *workers;
    _Atomic uint32_t *ready;
    _Atomic uint64_t *orphans;
    _Atomic uint32_t *cuts; /* per slot the flight that is to be cut off */
    int event_fd;           /* raised to wake the host */
    uint32_t spin_misses;   /* spins in a row that found nothing */
    uint32_t rests;         /* waits since the last spin */
    uint64_t busy_ns;       /* a worker's own: how long its last slot took */
    uint64_t nudged_ns;     /* the host's: when it woke somebody by a nudge, */
    uint64_t relied_ns;     /* saw somebody to rely on, */
    uint64_t relied_on;     /* while these slept */

    /* The host's own, NULL elsewhere. */
    uint32_t *in_flight; /* per slot the sequence it was submitted with, or 0 */
    uint32_t *entries;   /* per slot where its newest ready entry is */
    uint32_t *free_slots; /* stack of slots that were used before */
    uint32_t *arrived;    /* slots taken off the done stack, oldest first */
    uint32_t free_count;
    uint32_t used_count; /* slots below this were used at least once */
    uint32_t arrived_at, arrived_count;
    uint32_t flight_count; /* slots submitted and not yet handed out */
    uint64_t ready_tail;   /* what we have written to the arena's */
    uint64_t orphans_seen;
};

/**
 * The bytes of the arena that a board of this size takes.
 *
 * @param slot_count    a power of two up to TIDE_SLOTS_MAX
 * @param place_count   workers there is room for: 1 .. TIDE_WORKERS_MAX
 * @return TIDE_OK; TIDE_EINVAL for other counts
 */
int tide_board_measure(size_t *out, uint32_t slot_count, uint32_t place_count,
                       struct tide_error *err);

/**
 * Lay out a board of such a size at the start of a zeroed arena; the host, once.
 *
 * One worker is wanted at first, see tide_board_resize().
 *
 * @param cpu_count     processors that host and workers share: spinning is
 *                      allowed only while there is one to spare
 */
int tide_board_create(struct tide_board *out, const struct tide_arena *arena,
                      uint32_t slot_count, uint32_t place_count, int cpu_count,
                      int event_fd, struct tide_error *err);

/** See the board in a mapped arena from a worker or the supervisor. */
void tide_board_attach(struct tide_board *out, const struct tide_arena *arena,
                       int event_fd);

/** Free the host's private part. The arena is the caller's. */
void tide_board_destroy(struct tide_board *board);

/** Places that are, or were, to have a worker; from 0, without a gap. */
uint32_t tide_board_worker_count(const struct tide_board *board);

/** Workers that there should be now: the first of them. */
uint32_t tide_board_wanted(const struct tide_board *board);

static inline uint32_t tide_board_place_count(const struct tide_board *board)
{
    return board->place_count;
}

static inline uint32_t tide_board_slot_count(const struct tide_board *board)
{
    return board->slot_count;
}

/**
 * Each place is to have one process only, which runs one slot and then ends: with
 * code 0, or 1 if that failed. The host, before there is a crew.
 */
void tide_board_make_single(struct tide_board *board);

int tide_board_is_single(const struct tide_board *board);

/* ---- host ---- */

/** A FREE slot to fill in; TIDE_EAGAIN when all are in use. */
int tide_board_take(uint32_t *out, struct tide_board *board);

/**
 * Make a slot READY whose request is filled in. The slot is the workers' until
 * tide_board_next_done() hands it out. Never waits; where so much was revoked that
 * spent entries fill the ring, they are dropped first.
 */
void tide_board_submit(struct tide_board *board, uint32_t slot);

/**
 * Take back a submitted slot that no worker has claimed. Wait-free.
 *
 * @return TIDE_OK: it is FREE and there will be no outcome; TIDE_EAGAIN if it is
 *         claimed, finished or not in flight
 */
int tide_board_revoke(struct tide_board *board, uint32_t slot);

/**
 * As tide_board_submit(), but only `worker` may claim the slot, before anything
 * else; it is woken.
 *
 * @return TIDE_OK; TIDE_EAGAIN while it has such mail already, the slot stays ours
 */
int tide_board_submit_to(struct tide_board *board, uint32_t slot,
                         uint32_t worker);

/**
 * The next slot that is DONE or LOST, about in order of completion; the caller
 * owns it until tide_board_release(). Wait-free.
 *
 * @param death  `worker` is filled in, and if the slot is LOST the rest too
 * @return TIDE_SLOT_DONE or TIDE_SLOT_LOST; TIDE_SLOT_FREE if there is none now
 */
enum tide_slot_state tide_board_next_done(uint32_t *out,
                                          struct tide_board *board,
                                          struct tide_death *death);

/** Slots that are DONE and not yet looked at. */
uint32_t tide_board_finished(const struct tide_board *board);

/** Make a slot FREE again, from the host's point of view. */
void tide_board_release(struct tide_board *board, uint32_t slot);

/** The sequence of a slot in flight; 0 of one that is not. */
static inline uint32_t tide_board_flight_of(const struct tide_board *board,
                                            uint32_t slot)
{
    return slot < board->used_count ? board->in_flight[slot] : 0;
}

/** READY slots in the ring now: a hint, too many while revoked ones lie there. */
uint32_t tide_board_queued(const struct tide_board *board);

/** Has a worker work it could claim? A hint. */
int tide_board_has_ready(const struct tide_board *board);

/**
 * The first `count` workers are wanted from now on; others end when they have
 * finished what they have claimed, and their mail.
 *
 * @param count  1 .. tide_board_place_count()
 */
void tide_board_resize(struct tide_board *board, uint32_t count);

/** Let every worker end as soon as it finds nothing to claim. */
void tide_board_close(struct tide_board *board);

/**
 * A slot with a time limit was submitted: is the supervisor to be told to watch?
 *
 * @return 1: have it look; 0: it is watching
 */
int tide_board_demand_watch(struct tide_board *board, uint32_t timeout_ms);

/** The supervisor is to kill all workers when it looks. */
void tide_board_stop(struct tide_board *board);

/** It is to send all workers a signal, 1 .. 63. */
void tide_board_signal(struct tide_board *board, int signal_number);

/** It is to kill who runs this flight of a slot, if somebody still does then. */
void tide_board_cut_off(struct tide_board *board, uint32_t slot,
                        uint32_t sequence);

/* ---- all ---- */

/** Is the board closed by the host? */
int tide_board_is_closed(const struct tide_board *board);

#endif
