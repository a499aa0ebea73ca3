/**
 * @file step.h
 * @brief Stop a process before each of its instructions.
 *
 * What shared memory holds between two instructions of a process is what it would
 * hold for ever had the process been killed there. So a test that looks at a copy
 * of it after every step has tried a kill at every instant.
 */
#ifndef TIDE_UNIT_STEP_H
#define TIDE_UNIT_STEP_H

#include "check.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { STEP_LIMIT = 2000 * 1000 };

/**
 * How far to go from kill to kill, at random: `stride` at most, but each instruction
 * in more than one round. A sanitizer makes ten of one.
 */
static inline unsigned step_stride(unsigned stride)
{
    if (check_rounds > 1)
        return 1;
#ifdef __SANITIZE_ADDRESS__
    stride *= 10;
#endif
    return 1 + check_random(stride);
}

/** In the child: what follows is stepped through, up to the next call. */
static inline void step_mark(void)
{
    raise(SIGSTOP);
}

/**
 * Run `child` in a process of its own and call `look` after each instruction
 * between its two calls of step_mark().
 *
 * @return the number of steps; 0 where tracing is not possible
 */
static inline unsigned step_through(void (*child)(void *), void (*look)(void *),
                                    void *context)
{
    int status;
    unsigned steps = 0;
#ifdef __SANITIZE_THREAD__
    return 0; /* a hundred instructions for each one of ours */
#endif
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(EXIT_SUCCESS);
        child(context);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status)) {
        CHECK(WEXITSTATUS(status) == EXIT_SUCCESS);
        return 0;
    }
    do {
        CHECK(++steps < STEP_LIMIT);
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
        look(context);
    } while (WSTOPSIG(status) == SIGTRAP);
    CHECK(WSTOPSIG(status) == SIGSTOP);
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid);
    return steps;
}

/**
 * Run `child` and kill it `steps` instructions after its first call of step_mark().
 *
 * @return 1; 0 if it came to its second call before that, or tracing is not possible
 */
static inline int step_and_kill(void (*child)(void *), void *context,
                                unsigned steps)
{
    int status;
#ifdef __SANITIZE_THREAD__
    return 0;
#endif
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(EXIT_SUCCESS);
        child(context);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status)) {
        CHECK(WEXITSTATUS(status) == EXIT_SUCCESS);
        return 0;
    }
    for (unsigned i = 0; i < steps; i++) {
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
        if (WSTOPSIG(status) != SIGTRAP)
            break;
    }
    int between = WSTOPSIG(status) == SIGTRAP || steps == 0;
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid);
    return between;
}

#endif
