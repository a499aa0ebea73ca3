/**
 * @file sync.h
 * @brief Locks, semaphores, events, conditions and barriers among processes.
 *
 * Each is the body of an object (object.h), which the caller holds. A process that
 * is killed at any instant, inside or outside, leaves it usable for the others.
 *
 * Where something is waited for, tide_*_wait() sleeps for some tenths of a second at
 * most, and is to be called until it says more than TIDE_EAGAIN, or tide_wait_end():
 * see waiters.h for what it returns. In between the caller may look after other
 * things. `wait` is zeroed but for `object`, `deadline_ns` and `own_holds`.
 */
#ifndef TIDE_SHARE_SYNC_H
#define TIDE_SHARE_SYNC_H

#include "share/guard.h"
#include "share/load.h"
#include "share/waiters.h"

/** Say what happens to these kinds at a death; before the process enters. */
void tide_sync_define(void);

/* ---- locks: lock.c ---- */

struct tide_lock {
    struct tide_guard guard;
    _Atomic uint64_t owner; /* for itself to know */
    uint32_t depth;         /* the owner's: how often it has it, besides once */
    uint32_t recursive;     /* constant */
};

enum tide_taken {
    TIDE_TAKEN,     /* it is ours */
    TIDE_ABANDONED, /* too; its last owner died and had it */
    TIDE_TAKEN_BY_OTHER,
    TIDE_TAKEN_BY_US /* it is not recursive, and was ours before */
};

int tide_lock_make(tide_handle *out, int recursive, struct tide_error *err);

/** Take it if it is free. Never waits. @return enum tide_taken */
int tide_lock_try(struct tide_lock *lock);

/** Wait for it, a slice at most. @return the same */
int tide_lock_wait(struct tide_lock *lock, uint64_t deadline_ns);

/** Give it back, once. @return 0; -1 if it is not ours */
int tide_lock_release(struct tide_lock *lock);

/** Give it back, however often it was taken. @return how often that was */
uint32_t tide_lock_release_all(struct tide_lock *lock);

/** After it was taken once: count it as taken `times`. */
void tide_lock_deepen(struct tide_lock *lock, uint32_t times);

int tide_lock_is_ours(const struct tide_lock *lock);

/* ---- semaphores: semaphore.c ---- */

/**
 * @param limit  0: none
 */
int tide_semaphore_make(tide_handle *out, uint32_t count, uint32_t limit,
                        struct tide_error *err);

/**
 * Take one, if there is any.
 *
 * @param scoped  it comes back if we die before we give it back
 * @return TIDE_OK; TIDE_EAGAIN
 */
int tide_semaphore_try(tide_handle handle, int scoped);
int tide_semaphore_wait(struct tide_wait *wait, int scoped);

/** Add `count`. @return TIDE_OK; TIDE_EINVAL: it would pass the limit */
int tide_semaphore_release(tide_handle handle, uint32_t count, int scoped);

/**
 * The same for one that is not scoped, of the semaphore that has this body.
 *
 * @return TIDE_OK; else nothing was done, maybe since this is a copy of a process that
 *         has not entered the commons: try as above
 */
int tide_semaphore_take_one(void *body);
int tide_semaphore_give_one(void *body);

uint32_t tide_semaphore_count(tide_handle handle);

/* ---- events: flag.c ---- */

int tide_flag_make(tide_handle *out, struct tide_error *err);
void tide_flag_set(tide_handle handle);
void tide_flag_unset(tide_handle handle);
int tide_flag_is_set(tide_handle handle);
int tide_flag_wait(struct tide_wait *wait);

/* ---- conditions: condition.c ---- */

/** @param lock  the caller's; it lives as long as the condition does */
int tide_condition_make(tide_handle *out, tide_handle lock,
                        struct tide_error *err);
tide_handle tide_condition_lock(tide_handle handle);

/** Wait for a notification; begun while the lock is held, which is then given back. */
void tide_condition_begin(struct tide_wait *wait);
int tide_condition_wait(struct tide_wait *wait);

/** With the lock held. @return how many were notified */
uint32_t tide_condition_notify(tide_handle handle, uint32_t count);

/* ---- barriers: barrier.c ---- */

/**
 * @param action      what the last one is to do, as the rooms above write it; or NULL
 * @param timeout_ns  the limit of a wait without one of its own; for them to apply
 */
int tide_barrier_make(tide_handle *out, uint32_t parties,
                      const struct tide_message *action, uint64_t timeout_ns,
                      struct tide_error *err);

/** Its action, for as long as it is held. @return 0; -1: it has none */
int tide_barrier_action(tide_handle handle, struct tide_message *out);
uint64_t tide_barrier_timeout_ns(tide_handle handle);

/**
 * Arrive, and wait until the round is over.
 *
 * @param place  how many were there before us in this round; the caller keeps it
 *               from call to call
 * @return TIDE_OK: it is over, or, if our place is the last, is to be ended: all
 *         others stay until tide_barrier_open(). TIDE_ECLOSED: it was broken, or
 *         reset while we waited. TIDE_ETIMEOUT, TIDE_EBROKEN: and so we broke it
 */
int tide_barrier_wait(struct tide_wait *wait, uint32_t *place);

/** The last one: end the round. @return 0; -1: it was broken meanwhile */
int tide_barrier_open(tide_handle handle);

/** Break it: who waits is told, and who comes. */
void tide_barrier_abort(tide_handle handle);

/** Make it as new: who waits is told that it was broken. */
void tide_barrier_reset(tide_handle handle);

uint32_t tide_barrier_parties(tide_handle handle);
uint32_t tide_barrier_waiting(tide_handle handle);
int tide_barrier_is_broken(tide_handle handle);

#endif
