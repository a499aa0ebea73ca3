/**
 * @file check.h
 * @brief What every unit test needs: checks, a seeded generator, deadlines.
 *
 *   TEST [SEED [ROUNDS]]
 *
 * A failed check ends the process that found it; in a worker process that is a
 * death that its test notices.
 */
#ifndef TIDE_UNIT_CHECK_H
#define TIDE_UNIT_CHECK_H

#include "base/clock.h"

#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    CHECK_PATIENCE_S = 60, /* far beyond what anything here takes */
    CHECK_WATCHDOG_S = 100
};

static uint64_t check_seed;
static uint64_t check_state;
static unsigned check_rounds;
static const char *check_part = "start";

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: failed: %s (in %s, seed %" PRIu64 ")\n",   \
                    __FILE__, __LINE__, #condition, check_part, check_seed);   \
            fflush(stderr);                                                    \
            _exit(EXIT_FAILURE);                                               \
        }                                                                      \
    } while (0)

/** Poll until `condition` holds; it has to within the patience. */
#define CHECK_SOON(condition)                                                  \
    do {                                                                       \
        uint64_t until_ns = tide_deadline_ns(CHECK_PATIENCE_S);                \
        while (!(condition)) {                                                 \
            CHECK(tide_now_ns() < until_ns && #condition);                     \
            check_yield();                                                     \
        }                                                                      \
    } while (0)

/** Let others run. */
static inline void check_yield(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 50 * 1000 }, NULL);
}

/** xorshift64*, by Marsaglia and Vigna. */
static inline uint64_t check_random64(void)
{
    check_state ^= check_state >> 12;
    check_state ^= check_state << 25;
    check_state ^= check_state >> 27;
    return check_state * UINT64_C(0x2545f4914f6cdd1d);
}

/** A number in 0 .. bound - 1. */
static inline uint32_t check_random(uint32_t bound)
{
    return (uint32_t)((check_random64() >> 32) * bound >> 32);
}

static inline void check_reseed(uint64_t seed)
{
    check_state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    if (check_state == 0)
        check_state = 1;
    for (int i = 0; i < 8; i++)
        check_random64();
}

/** Keep the processor until `ns` have passed: chooses an instant, waits for none. */
static inline void check_spin(uint64_t ns)
{
    uint64_t until = tide_now_ns() + ns;
    while (tide_now_ns() < until)
        continue;
}

static inline void check_bark(int signal_number)
{
    (void)signal_number;
    (void)!write(STDERR_FILENO, "failed: takes for ever: ", 24);
    (void)!write(STDERR_FILENO, check_part, strlen(check_part));
    (void)!write(STDERR_FILENO, "\n", 1);
    _exit(EXIT_FAILURE);
}

/** Read the arguments, say the seed, arm the watchdog. */
static inline void check_start(int argc, char **argv, unsigned rounds)
{
    check_seed = argc > 1 ? strtoull(argv[1], NULL, 0)
                          : (tide_now_ns() ^ (uint64_t)getpid()) % 1000000;
    check_rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : rounds;
    check_reseed(check_seed);
    signal(SIGALRM, check_bark);
    printf("seed %" PRIu64 ", %u rounds\n", check_seed, check_rounds);
    fflush(stdout);
}

/** Begin a part: its name appears in failures; it must not take for ever. */
static inline void check_begin(const char *part)
{
    check_part = part;
    alarm(CHECK_WATCHDOG_S);
}

/** Descriptors that this process has open. */
static inline int check_fd_count(void)
{
    int count = 0;
    DIR *fds = opendir("/proc/self/fd");
    CHECK(fds != NULL);
    while (readdir(fds) != NULL)
        count++;
    closedir(fds);
    return count;
}

#endif
