/**
 * @file board_inner.h
 * @brief What the files of the board share: its head in the arena, the word of a
 *        slot. Invariants and arguments are at the top of board.c.
 */
#ifndef TIDE_SHM_BOARD_INNER_H
#define TIDE_SHM_BOARD_INNER_H

#include "shm/board.h"
#include "shm/board_sleep.h"
#include "shm/board_super.h"
#include "shm/board_worker.h"

/** `wake_at` while the host is awake. */
#define TIDE_NOBODY UINT32_MAX

struct tide_board_shared {
    uint32_t slot_count; /* for tide_board_attach() only */
    uint32_t place_count;
    uint32_t cpu_count;
    uint32_t single; /* see tide_board_make_single() */

    alignas(TIDE_LINE) _Atomic uint64_t ready_tail; /* host */
    _Atomic uint32_t closing;
    _Atomic uint32_t wanted;     /* the first of the workers; others end */
    _Atomic uint32_t manned;     /* the most there were of `wanted` */
    _Atomic uint32_t used_count; /* slots at or above it were never used */
    _Atomic uint32_t watching;   /* ms, see board_watch.c */
    _Atomic uint32_t stopped;    /* its workers are to be killed */
    _Atomic uint32_t cut_count;  /* how often `cuts` was written */
    _Atomic uint64_t signals; /* that its workers are to be sent: a bit each */

    alignas(TIDE_LINE) _Atomic uint64_t ready_head; /* anybody helps */

    alignas(
        TIDE_LINE) _Atomic uint64_t done; /* urgent, count, slot + 1; or 0 */

    alignas(TIDE_LINE) _Atomic uint32_t wake_at;

    alignas(TIDE_LINE) _Atomic uint64_t asleep[TIDE_WORKERS_MAX / 64];
    _Atomic uint64_t spinning[TIDE_WORKERS_MAX / 64];

    alignas(TIDE_LINE) _Atomic uint64_t orphan_tail; /* supervisor */
};

/* ---- the word of a slot ---- */

static inline uint64_t tide_word(enum tide_slot_state state, uint32_t worker,
                                 uint32_t sequence)
{
    return (uint64_t)sequence << 32 | (uint64_t)worker << 8 | (uint64_t)state;
}

static inline enum tide_slot_state tide_word_state(uint64_t word)
{
    return (enum tide_slot_state)(word & 0xff);
}

static inline uint32_t tide_word_worker(uint64_t word)
{
    return (uint32_t)(word >> 8) & 0xffffff;
}

static inline uint32_t tide_word_sequence(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

/*
 * READY for one worker only: it stands where the owner of a claimed slot does. 0
 * stands for anybody there.
 */
static inline uint64_t tide_word_mail(uint32_t worker, uint32_t sequence)
{
    return tide_word(TIDE_SLOT_READY, worker + 1, sequence);
}

/* READY for anybody? */
static inline int tide_word_is_open(uint64_t word)
{
    return (uint32_t)word == TIDE_SLOT_READY;
}

/* ---- the death behind a LOST slot ---- */

/* A wait status has 16 bits: signal, core flag, exit code. */
static inline uint64_t tide_death_pack(const struct tide_death *death)
{
    return (uint64_t)(uint32_t)death->pid << 32 | (uint64_t)death->cause << 16 |
           ((uint32_t)death->wait_status & 0xffff);
}

static inline void tide_death_unpack(struct tide_death *out, uint64_t packed)
{
    out->pid = (pid_t)(packed >> 32);
    out->cause = (enum tide_death_cause)(packed >> 16 & 0xffff);
    out->wait_status = (int)(packed & 0xffff);
}

/* ---- the head of the done stack ---- */

#define TIDE_DONE_URGENT (UINT64_C(1) << 63)

static inline uint32_t tide_done_count(uint64_t head)
{
    return (uint32_t)((head & ~TIDE_DONE_URGENT) >> 32);
}

static inline uint32_t tide_done_link(uint64_t head)
{
    return (uint32_t)head;
}

/* ---- the rings ---- */

/* Twice the slots, so that spent entries never crowd out READY ones. */
static inline uint32_t tide_ready_mask(const struct tide_board *board)
{
    return 2 * board->slot_count - 1;
}

/* Twice the slots: see ORPHAN RING in board.c. */
static inline uint32_t tide_orphan_mask(const struct tide_board *board)
{
    return 2 * board->slot_count - 1;
}

/* Should there be this worker? */
static inline int tide_board_is_wanted(const struct tide_board *board,
                                       uint32_t worker)
{
    return worker < atomic_load(&board->shared->wanted);
}

/* How many workers have their bit set? */
uint32_t tide_board_count_bits(const struct tide_board *board,
                               const _Atomic uint64_t *bits);

/* Wake up to `count` sleepers. */
void tide_board_wake_any(struct tide_board *board, uint32_t count);

/* A worker has claimed: is there more for another? See board_nudge.c. */
void tide_board_pass_on(struct tide_board *board);

/* Wake this worker if it sleeps, for something written before. */
void tide_board_wake_one(struct tide_board *board, uint32_t worker);

/* Nobody may count on this worker: it is dead or stopped. */
void tide_board_forget_rest(struct tide_board *board, uint32_t worker);

/* Move the head past entry `at` if nobody has done so. */
static inline void tide_help_head(struct tide_board_shared *shared, uint64_t at)
{
    atomic_compare_exchange_strong_explicit(&shared->ready_head, &at, at + 1,
                                            memory_order_release,
                                            memory_order_relaxed);
}

#endif
