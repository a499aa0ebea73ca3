/**
 * @file status.h
 * @brief Status codes and the error record that explains one.
 *
 * A function that can fail returns `enum tide_status` and, when it was given a
 * `struct tide_error`, says there what could not be done, with what and why.
 * The record is the caller's, holds no heap memory and is safe after fork().
 */
#ifndef TIDE_BASE_STATUS_H
#define TIDE_BASE_STATUS_H

#include <stddef.h>

/* One list makes the enum, the names and the texts. */
#define TIDE_STATUS_MAP(X)                                                     \
    X(OK, "success")                                                           \
    X(EAGAIN, "nothing available now")                                         \
    X(ETIMEOUT, "deadline passed")                                             \
    X(EINTR, "interrupted by a signal")                                        \
    X(EINVAL, "invalid argument")                                              \
    X(ENOMEM, "out of memory")                                                 \
    X(ESYS, "system call failed")                                              \
    X(ECLOSED, "closed")                                                       \
    X(EBROKEN, "broken")

enum tide_status {
#define X(name, text) TIDE_##name,
    TIDE_STATUS_MAP(X)
#undef X
};

enum { TIDE_ERROR_TEXT_BYTES = 240 };

struct tide_error {
    int status;   /* enum tide_status */
    int os_errno; /* errno of the failed system call, or 0 */
    char text[TIDE_ERROR_TEXT_BYTES]; /* lower case, no full stop */
};

/** The text of a status, for messages; never NULL. */
const char *tide_status_text(int status);

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
