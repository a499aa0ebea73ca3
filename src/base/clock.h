/**
 * @file clock.h
 * @brief Monotonic time in nanoseconds, and deadlines in it.
 */
#ifndef TIDE_BASE_CLOCK_H
#define TIDE_BASE_CLOCK_H

#include <stdint.h>

/** A deadline that never comes. */
#define TIDE_FOREVER UINT64_MAX

/** Nanoseconds of CLOCK_MONOTONIC: the same clock in every process. */
uint64_t tide_now_ns(void);

/**
 * The deadline `seconds` from now: now for zero and less, TIDE_FOREVER for what
 * is beyond some 290 years or not a number.
 */
uint64_t tide_deadline_ns(double seconds);

/**
 * The time left until `deadline_ns` as poll(2) takes it: milliseconds, rounded
 * up so that a wait never ends early; -1 for TIDE_FOREVER, 0 once it has passed.
 */
int tide_poll_timeout_ms(uint64_t deadline_ns);

#endif
