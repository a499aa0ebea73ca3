/*
 * A script is stopped in two steps, the second a fallback of the first:
 *   1. a hook raises an error in the script at its next instruction, and again at
 *      every one after, so that no pcall() can swallow it; waits for workers end
 *      with EINTR and come back to the script
 *   2. a script that runs compiled code, which looks at no hook, or sits in a
 *      system call is ended by a timer: its output is written out, then the
 *      process ends on the spot. Writing may take for ever, where nobody reads; so
 *      the timer is set once more before, and then ends the process without it.
 * The workers ignore INT; whatever they are doing, they end with this process.
 */
#include "cli/ending.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { EXIT_INTERRUPTED = 130, PATIENCE_US = 100 * 1000 };

static const int caught[] = { SIGINT, SIGTERM, SIGHUP };
enum { CAUGHT_COUNT = sizeof caught / sizeof caught[0] };

static const char interrupted_line[] = "tidemill: interrupted\n";

static lua_State *script_state;
static volatile sig_atomic_t asked;    /* the signal that came first */
static volatile sig_atomic_t reported; /* its line is printed */
static volatile sig_atomic_t expired;  /* the timer has ended once */

static void raise_interrupt(lua_State *L, lua_Debug *unused)
{
    (void)unused;
    lua_pushliteral(L, "interrupted");
    lua_error(L);
}

static void report_interrupt(void)
{
    if (reported || asked != SIGINT)
        return;
    ssize_t written =
        write(STDERR_FILENO, interrupted_line, sizeof interrupted_line - 1);
    (void)written; /* there is nobody else to tell */
    reported = 1;
}

/* The same where the timer may come between the line and the note of it. */
static void report_in_peace(void)
{
    sigset_t alarm_set, before;
    sigemptyset(&alarm_set);
    sigaddset(&alarm_set, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_set, &before);
    report_interrupt();
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void set_timer(void)
{
    const struct itimerval patience = { .it_value = { .tv_usec =
                                                          PATIENCE_US } };
    setitimer(ITIMER_REAL, &patience, NULL);
}

static void die_by(int signal_number)
{
    sigset_t mask;
    sigaction(signal_number, &(struct sigaction){ .sa_handler = SIG_DFL },
              NULL);
    sigemptyset(&mask);
    sigaddset(&mask, signal_number);
    sigprocmask(SIG_UNBLOCK, &mask, NULL);
    raise(signal_number);
}

void tide_ending_follow(void)
{
    if (asked != 0 && asked != SIGINT)
        die_by(asked);
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
    if (!expired) {
        expired = 1;
        set_timer();
        /* Without the lock, which the code we interrupted may hold. */
        fflush_unlocked(stdout);
    }
    report_interrupt();
    tide_ending_follow();
    _exit(EXIT_INTERRUPTED);
}

static void on_signal(int signal_number)
{
    if (asked)
        return;
    asked = signal_number;
    lua_sethook(script_state, raise_interrupt,
                LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    set_timer();
}

void tide_ending_catch(lua_State *L)
{
    /* The second alarm may come inside of the first one's handler. */
    struct sigaction alarm_action = { .sa_handler = on_alarm,
                                      .sa_flags = SA_NODEFER };
    struct sigaction action = { .sa_handler = on_signal };
    struct sigaction before;
    script_state = L;
    sigaction(SIGALRM, &alarm_action, NULL);
    for (size_t i = 0; i < CAUGHT_COUNT; i++) {
        /* As a shell's background job or nohup(1) has it. */
        sigaction(caught[i], NULL, &before);
        if (before.sa_handler != SIG_IGN)
            sigaction(caught[i], &action, NULL);
    }
}

int tide_ending_is_asked(void)
{
    return asked != 0;
}

int tide_ending_report(void)
{
    fflush(stdout);
    report_in_peace();
    return EXIT_INTERRUPTED;
}

/* ---- output ---- */

int tide_ending_is_unread(void)
{
    struct pollfd fd = { .fd = STDOUT_FILENO, .events = POLLOUT };
    struct sigaction action;
    sigaction(SIGPIPE, NULL, &action);
    return action.sa_handler == SIG_DFL && poll(&fd, 1, 0) == 1 &&
           (fd.revents & POLLERR) != 0;
}

void tide_ending_by_pipe(void)
{
    die_by(SIGPIPE);
    abort();
}

void tide_ending_check_output(void)
{
    int had_failed = ferror(stdout);
    int fails = fflush(stdout) != 0;
    if (!fails && !had_failed)
        return;
    fprintf(stderr, "tidemill: cannot write output%s%s\n", fails ? ": " : "",
            fails ? strerror(errno) : "");
    _exit(EXIT_FAILURE);
}
