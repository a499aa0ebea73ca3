/**
 * @file timeline.h
 * @brief A file of what happened when: rows of spans, as Chrome's trace events.
 *
 * Perfetto and chrome://tracing show it. Rows are in groups (threads of processes,
 * in their terms). Events are written as they come, through a buffer of fixed size.
 *
 * The file is valid JSON after every write: each writes the closing bracket as well,
 * and the next begins on it. So a program that is killed leaves a file that ends up
 * to a second early, and no broken one. (A pipe gets its bracket at the end.)
 *
 * A timeline belongs to the process that opened it; it is not for copies of it.
 */
#ifndef TIDE_BASE_TIMELINE_H
#define TIDE_BASE_TIMELINE_H

#include "base/status.h"

#include <stdint.h>
#include <sys/types.h>

enum { TIDE_TIMELINE_BYTES = 64 * 1024, TIDE_TIMELINE_NAME_BYTES = 120 };

struct tide_timeline {
    int fd;
    int can_seek;
    int failure; /* errno of a write; nothing is written after it */
    pid_t owner;
    uint64_t zero_ns;    /* what the file calls 0 */
    uint64_t written_ns; /* when that was last */
    uint64_t added;      /* bytes of events so far, */
    uint64_t written;    /* and those of them that are in the file */
    char *buffer;        /* bytes [written, added); NULL if it is not open */
};

struct tide_row {
    uint32_t group;
    uint32_t row;
};

/**
 * Begin a file, in place of what it held.
 *
 * @return TIDE_OK; TIDE_ESYS if it cannot be opened or written; TIDE_ENOMEM
 */
int tide_timeline_open(struct tide_timeline *out, const char *path,
                       struct tide_error *err);

/** Name a group. Groups and rows are shown by number, under their names. */
void tide_timeline_name_group(struct tide_timeline *line, uint32_t group,
                              const char *name);
void tide_timeline_name_row(struct tide_timeline *line, struct tide_row row,
                            const char *name);

/**
 * Add what lasted from `begin_ns` to `end_ns`.
 *
 * @param name     any text; shown up to TIDE_TIMELINE_NAME_BYTES
 * @param details  printf() format of the members of a JSON object
 */
void tide_timeline_span(struct tide_timeline *line, struct tide_row row,
                        const char *name, uint64_t begin_ns, uint64_t end_ns,
                        const char *details, ...)
    __attribute__((format(printf, 6, 7)));

/** Add what happened at one moment. */
void tide_timeline_mark(struct tide_timeline *line, struct tide_row row,
                        const char *name, uint64_t at_ns, const char *details,
                        ...) __attribute__((format(printf, 5, 6)));

/** Write out what is in the buffer. In a signal handler only if it then exits. */
void tide_timeline_flush(struct tide_timeline *line);

/**
 * Write out everything and close.
 *
 * @return TIDE_OK; TIDE_ESYS if something could not be written
 */
int tide_timeline_close(struct tide_timeline *line, struct tide_error *err);

#endif
