#include "shm/wake.h"

#include "base/clock.h"
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* No FUTEX_PRIVATE_FLAG: the word lies in memory that processes share. */

void tide_futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    if (!TIDE_FAULT(FUTEX_WAIT))
        syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

void tide_futex_wait_until(_Atomic uint32_t *word, uint32_t value,
                           uint64_t deadline_ns)
{
    const uint64_t ns_per_s = UINT64_C(1000000000);
    struct timespec until = { .tv_sec = (time_t)(deadline_ns / ns_per_s),
                              .tv_nsec = (long)(deadline_ns % ns_per_s) };
    if (TIDE_FAULT(FUTEX_WAIT))
        return;
    /* Unlike FUTEX_WAIT it takes a point of the monotonic clock. */
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value,
            deadline_ns == TIDE_FOREVER ? NULL : &until, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

void tide_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int tide_event_open(int *out, struct tide_error *err)
{
    int low =
        TIDE_FAULT(EVENT_OPEN) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (low < 0)
        return tide_fail_errno(err, "cannot create an eventfd");
    int fd = fcntl(low, F_DUPFD_CLOEXEC, 3);
    close(low);
    if (fd < 0)
        return tide_fail_errno(err, "cannot create an eventfd");
    *out = fd;
    return TIDE_OK;
}

void tide_event_raise(int fd)
{
    const uint64_t one = 1;
    int saved = errno;
    /* EAGAIN means that it is readable already. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
    errno = saved;
}

void tide_event_clear(int fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        continue;
}
