/**
 * @file status.h
 * @brief Status codes and the error record that explains one.
 *
 * A function that can fail returns `enum tide_status` and, when it was given a
 * `struct tide_error`, says there what could not be done, with what and why.
 * The record is the caller's, holds no heap memory and is safe after fork(). Both
 * are those of the public header: a host is told in the same words.
 */
#ifndef TIDE_BASE_STATUS_H
#define TIDE_BASE_STATUS_H

#include "tidemill.h"

/**
 * Record a failure and return `status`, so that failing is one line.
 *
 * @param err  may be NULL: then only the status is reported
 */
int tide_fail(struct tide_error *err, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** As tide_fail() with status TIDE_ESYS and ": <strerror(errno)>" appended. */
int tide_fail_errno(struct tide_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
