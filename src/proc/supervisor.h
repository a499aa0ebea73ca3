/**
 * @file supervisor.h
 * @brief The small process that owns the workers of its host.
 *
 * It is forked from the host, is single-threaded and runs no user code. It forks
 * workers, reaps and replaces them, and marks the work of those that died. Its
 * life is bound to the host's: end-of-file on the channel, or the host's death,
 * makes it kill and reap its workers and end.
 */
#ifndef TIDE_PROC_SUPERVISOR_H
#define TIDE_PROC_SUPERVISOR_H

#include "base/status.h"
#include "share/commons.h"
#include "shm/board.h"

#include <stdint.h>
#include <sys/types.h>

enum tide_worker_exit {
    /** A worker that could not start and has said why in its record. */
    TIDE_EXIT_NOT_STARTED = 113,
    /** One that ends between two slots because it has done enough: it is replaced
     * at once, however often, and is no failure. */
    TIDE_EXIT_RETIRED
};

/** What a worker process is given. */
struct tide_worker_env {
    struct tide_board *board;
    uint32_t index;     /* 0-based */
    const void *config; /* as given to tide_supervisor_create's message */
    size_t config_bytes;
    void *context; /* what prepare() returned, copied by the fork */
};

/** What workers are; below the Lua rooms they are two functions. */
struct tide_worker_ops {
    /** In the supervisor, before its first fork: what all workers share. */
    void *(*prepare)(void *argument);
    /** In the worker, until the board is closed. @return its exit code */
    int (*run)(struct tide_worker_env *env);
    void *argument; /* passed to prepare() */
    int copies;     /* workers go on with what the caller of start() has */
};

/** The host's hold on its supervisor. */
struct tide_supervisor {
    pid_t pid;
    int pidfd; /* -1 on a kernel without, or if others have reaped it already */
    int channel;         /* readable or hung up: receive, see channel.h */
    pid_t owner;         /* the process that started it: no other may use it */
    struct tide_who who; /* a copy of the caller: reserved in the commons */
};

/** What to execute as a supervisor. */
struct tide_command {
    const char *path; /* found on PATH if it has no slash; NULL: nothing */
    const char *arguments[2]; /* after TIDE_SUPERVISE; up to the first NULL */
};

/**
 * Fork a supervisor. The cost of each of its workers depends on how large the
 * caller is now.
 *
 * @param ops      copied
 * @param command  NULL; or, if it has a path, what to execute in the new process
 *                 instead, so that nothing of the caller's is in it, and none of
 *                 its threads matters: it is to call tide_supervisor_serve() when
 *                 it is given TIDE_SUPERVISE
 * @return TIDE_OK; TIDE_ESYS; TIDE_EINVAL in a process that was executed to be a
 *         supervisor itself and is none
 */
int tide_supervisor_start(struct tide_supervisor *out,
                          const struct tide_worker_ops *ops,
                          const struct tide_command *command,
                          struct tide_error *err);

/** The first argument of an executed supervisor. */
#define TIDE_SUPERVISE "--supervise"

/** Be an executed supervisor, whose channel is descriptor 3. */
_Noreturn void tide_supervisor_serve(const struct tide_worker_ops *ops);

/**
 * End a supervisor and all its workers, and reap it. Returns when they are gone;
 * one that does not react is killed after some seconds, and its workers with it.
 * In a process other than its owner nothing is done.
 */
void tide_supervisor_stop(struct tide_supervisor *supervisor);

#endif
