/**
 * @file guard.h
 * @brief A robust mutex in shared memory, around what takes a moment.
 *
 * For the insides of objects: who is inside calls nobody that may wait or raise. If
 * it dies there, the system lets the next one in, who is told: then it mends what
 * it finds, says so, and goes on.
 */
#ifndef TIDE_SHARE_GUARD_H
#define TIDE_SHARE_GUARD_H

#include <pthread.h>

struct tide_guard {
    pthread_mutex_t mutex;
};

/** Lay out a guard that nobody is inside. @return 0; -1: the system has none */
int tide_guard_init(struct tide_guard *guard);

/** Go on after pthread_mutex_trylock() has returned `status`, which is not 0. */
int tide_guard_enter_after(struct tide_guard *guard, int status);

/**
 * Go inside.
 *
 * @return 0; 1 if the last one died inside: mend, then tide_guard_mended()
 */
static inline int tide_guard_enter(struct tide_guard *guard)
{
    int status = pthread_mutex_trylock(&guard->mutex);
    return status == 0 ? 0 : tide_guard_enter_after(guard, status);
}

/** What the dead one left is mended. Who dies before leaves it to the next. */
static inline void tide_guard_mended(struct tide_guard *guard)
{
    pthread_mutex_consistent(&guard->mutex);
}

static inline void tide_guard_leave(struct tide_guard *guard)
{
    pthread_mutex_unlock(&guard->mutex);
}

/** Turns to spin before sleeping on another process: 0 on a single processor. */
int tide_spin_turns(void);

#endif
