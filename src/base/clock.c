#include "base/clock.h"

#include <limits.h>
#include <time.h>

enum { NS_PER_MS = 1000000, NS_PER_S = 1000000000 };

uint64_t tide_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t tide_deadline_ns(double seconds)
{
    const double longest_s = 9.2e9; /* its nanoseconds fit in 63 bits */
    if (!(seconds < longest_s))
        return TIDE_FOREVER;
    uint64_t now = tide_now_ns();
    return seconds <= 0 ? now : now + (uint64_t)(seconds * NS_PER_S);
}

int tide_poll_timeout_ms(uint64_t deadline_ns)
{
    if (deadline_ns == TIDE_FOREVER)
        return -1;
    uint64_t now = tide_now_ns();
    if (now >= deadline_ns)
        return 0;
    uint64_t left_ms = (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
    return left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}
