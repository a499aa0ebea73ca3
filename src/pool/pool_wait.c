/*
 * Waiting for a pool from an event loop, and for several pools.
 *
 * EXTERNAL  The loop's descriptor is an epoll of the pool's event and the channel
 * to the supervisor. A turn of the loop is
 *     clear the event, look at what has arrived, arm: set `wake_at` and look again
 * A worker that finishes pushes first and looks at `wake_at` then (board.c, SLEEP
 * AND WAKE). If its push is later than the last look, it sees `wake_at`, and raises
 * the event after it was cleared. If it is earlier, the look sees the push, and
 * arm raises the event itself. An event may be raised for what was taken already:
 * then a turn is in vain. News of the supervisor are in the channel, which stays
 * readable until they are read; who reads them for another pool raises its event.
 */
#include "pool/pool_inner.h"

#include "base/clock.h"
#include "base/fault.h"
#include "shm/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- a descriptor ---- */

static int add(int epoll, int fd)
{
    struct epoll_event event = { .events = EPOLLIN };
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* An epoll above 2 of what this pool has to wait for. */
static int open_epoll(const struct tide_pool *pool)
{
    int low = epoll_create1(EPOLL_CLOEXEC);
    int fd = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, 3);
    if (low >= 0)
        close(low);
    if (fd < 0)
        return -1;
    /* A channel that is closed has no news. */
    if (add(fd, pool->board.event_fd) == 0 &&
        (!pool->host->alive || add(fd, pool->host->supervisor.channel) == 0))
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int tide_pool_fd(struct tide_pool *pool, struct tide_error *err)
{
    if (pool->wait_fd < 0) {
        pool->wait_fd = open_epoll(pool);
        if (pool->wait_fd < 0) {
            tide_fail_errno(err, "cannot create an epoll descriptor");
            return -1;
        }
        pool->is_external = 1;
        tide_pool_arm(pool);
    }
    return pool->wait_fd;
}

void tide_pool_arm(struct tide_pool *pool)
{
    tide_board_rally(&pool->board);
    if (tide_board_arm(&pool->board) || pool->gone)
        tide_event_raise(pool->board.event_fd);
}

/* ---- several pools ---- */

/* Arm all. Returns TIDE_EAGAIN if none has anything yet. */
static int arm_all(struct tide_pool *const *pools, size_t count)
{
    int status = TIDE_EAGAIN;
    for (size_t i = 0; i < count; i++) {
        tide_board_rally(&pools[i]->board);
        if (tide_board_arm(&pools[i]->board) && status == TIDE_EAGAIN)
            status = TIDE_OK;
        if (pools[i]->gone)
            status = TIDE_EBROKEN;
    }
    return status;
}

/* Sleep on two descriptors a pool. */
static int sleep_on(struct pollfd *fds, struct tide_pool *const *pools,
                    size_t count, uint64_t deadline_ns)
{
    for (size_t i = 0; i < count; i++) {
        fds[2 * i] =
            (struct pollfd){ .fd = pools[i]->board.event_fd, .events = POLLIN };
        fds[2 * i + 1] =
            (struct pollfd){ .fd = pools[i]->host->supervisor.channel,
                             .events = POLLIN };
    }
    int ready = TIDE_FAULT(HOST_POLL)
                    ? -1
                    : poll(fds, 2 * count, tide_poll_timeout_ms(deadline_ns));
    if (ready <= 0)
        return ready == 0 ? TIDE_ETIMEOUT : TIDE_EINTR;
    for (size_t i = 0; i < count; i++)
        if (fds[2 * i].revents != 0)
            tide_event_clear(pools[i]->board.event_fd);
    return TIDE_OK;
}

int tide_pools_wait(struct tide_pool *const *pools, size_t count,
                    uint64_t deadline_ns)
{
    struct pollfd *fds =
        TIDE_FAULT(POOL_MALLOC) ? NULL : calloc(2 * count + 1, sizeof *fds);
    if (fds == NULL)
        return TIDE_ENOMEM;
    int status = arm_all(pools, count);
    if (status == TIDE_EAGAIN)
        status = sleep_on(fds, pools, count, deadline_ns);
    for (size_t i = 0; i < count; i++) {
        tide_board_disarm(&pools[i]->board);
        tide_host_attend(pools[i]->host);
        if (pools[i]->is_external)
            tide_pool_arm(pools[i]);
    }
    free(fds);
    return status;
}
