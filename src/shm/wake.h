/**
 * @file wake.h
 * @brief How one process waits for another: a pause, a futex, an eventfd.
 *
 * Workers sleep on a futex word in the arena. The host sleeps in poll(2) on an
 * eventfd, so that the death of the other side can end its sleep as well.
 */
#ifndef TIDE_SHM_WAKE_H
#define TIDE_SHM_WAKE_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdint.h>

/** One turn of a spin loop: lets the sibling hyperthread run. */
static inline void tide_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/** Sleep while `*word` is `value`; may return early, for any reason or none. */
void tide_futex_wait(_Atomic uint32_t *word, uint32_t value);

/** The same, until a deadline of tide_now_ns() at most. */
void tide_futex_wait_until(_Atomic uint32_t *word, uint32_t value,
                           uint64_t deadline_ns);

/** Wake every process that sleeps on `word`. */
void tide_futex_wake(_Atomic uint32_t *word);

/** Make an eventfd: close-on-exec, non-blocking, above 2. */
int tide_event_open(int *out, struct tide_error *err);

/** Make `fd` readable. Never blocks; safe in a signal handler. */
void tide_event_raise(int fd);

/** Make `fd` unreadable. */
void tide_event_clear(int fd);

#endif
