/**
 * @file host.h
 * @brief A host process's side of its supervisor: messages in, states out.
 *
 * One host object serves every pool of the process. It is single-threaded like
 * the Lua state that owns it, has no thread and installs no signal handler.
 */
#ifndef TIDE_POOL_HOST_H
#define TIDE_POOL_HOST_H

#include "base/status.h"
#include "proc/supervisor.h"

struct tide_pool;

struct tide_host {
    struct tide_supervisor supervisor;
    int alive;        /* the supervisor answers */
    int cpu_count;    /* as it was at the start: reading it takes a while */
    const char *mark; /* a page that a fork clears; NULL on a kernel without */
    struct tide_pool *pools;
    uint32_t pools_most; /* the rooms above: when to look for dropped ones */
};

/**
 * Fork the supervisor, best while the process is small; or execute
 * `command`, if it is not NULL: see tide_supervisor_start().
 */
int tide_host_start(struct tide_host *out, const struct tide_worker_ops *ops,
                    const struct tide_command *command, struct tide_error *err);

/**
 * End the supervisor and with it every worker. Pools that are left are broken. In
 * a forked copy of the host no process is touched and no descriptor closed.
 */
void tide_host_stop(struct tide_host *host);

/** Take in what the supervisor has sent. Never blocks. */
void tide_host_attend(struct tide_host *host);

/** Is the caller the process that started the host? A forked copy is not. */
int tide_host_is_ours(const struct tide_host *host);

#endif
