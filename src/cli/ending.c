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
 *
 * What is typed in a session is interrupted more gently: the error is raised once, so
 * that what is being left can end its calls and pools, and once more every second
 * while something catches it. If it is not heard the timer says so. A second INT
 * ends the session as it would a script, and so do the other signals.
 */
#include "cli/ending.h"

#include "share/commons.h"

#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 100,
    CATCH_MS = 1000,
    SHELL_SIGNALED = 128 /* more than the signal in a shell's exit code */
};

static const int caught[] = { SIGINT, SIGTERM, SIGHUP };
enum { CAUGHT_COUNT = sizeof caught / sizeof caught[0] };

static const char interrupted_line[] = "tidemill: interrupted\n";
static const char unheard_line[] =
    "tidemill: not heard yet (compiled code, or a system call); Ctrl-C again "
    "ends the session\n";

static lua_State *script_state;
static void (*last_words)(void);
static volatile sig_atomic_t asked;    /* to end: the signal that came first */
static volatile sig_atomic_t reported; /* its line is printed */
static volatile sig_atomic_t expired;  /* the time for writing has begun */

static int is_session;
static volatile sig_atomic_t running;     /* what was typed */
static volatile sig_atomic_t interrupted; /* it is to be left */
static volatile sig_atomic_t raised;      /* by the hook that was set last */
static volatile sig_atomic_t alarms;      /* since the interrupt */

/* ---- stopping Lua ---- */

/*
 * Is this code of ours that is to come to its end? Between the start of a job and
 * the wait for it nobody would end the job. Of our files only the one that waits may
 * be left anywhere.
 */
static int is_ours(lua_State *L)
{
    lua_Debug where;
    for (int level = 0; lua_getstack(L, level, &where); level++) {
        lua_getinfo(L, "S", &where);
        if (where.what[0] != 'C') /* "C": it was called by what comes next */
            return (strncmp(where.source, "@tidemill/", 10) == 0 ||
                    strcmp(where.source, "@tidemill.lua") == 0) &&
                   strcmp(where.source, "@tidemill/waiting.lua") != 0;
    }
    return 0;
}

static void raise_interrupt(lua_State *L, lua_Debug *unused)
{
    (void)unused;
    if (!asked) {
        if (is_ours(L))
            return;
        lua_sethook(L, NULL, 0, 0);
    }
    raised = 1;
    lua_pushliteral(L, "interrupted");
    lua_error(L);
}

static void set_hook(void)
{
    raised = 0;
    lua_sethook(script_state, raise_interrupt,
                LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

/* 0: none. */
static void set_timer(long delay_ms)
{
    const struct itimerval timer = { .it_value = { .tv_sec = delay_ms / 1000,
                                                   .tv_usec = delay_ms % 1000 *
                                                              1000 } };
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* ---- ending the process ---- */

static void say(const char *text, size_t length)
{
    ssize_t written = write(STDERR_FILENO, text, length);
    (void)written; /* there is nobody else to tell */
}

static void report_interrupt(void)
{
    if (reported || (asked != 0 && asked != SIGINT))
        return;
    say(interrupted_line, sizeof interrupted_line - 1);
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

/* In a signal handler. */
static void leave(void)
{
    if (!expired) {
        expired = 1;
        set_timer(PATIENCE_MS);
        /* Without the lock, which the code we interrupted may hold. */
        fflush_unlocked(stdout);
        last_words();
    }
    report_interrupt();
    tide_ending_follow();
    _exit(TIDE_EXIT_INTERRUPTED);
}

/* ---- signals ---- */

static void on_alarm(int signal_number)
{
    (void)signal_number;
    if (asked)
        leave();
    if (!running || !interrupted)
        return;
    if (alarms++ > 0 && raised)
        set_hook();
    else if (!raised && alarms == 1)
        say(unheard_line, sizeof unheard_line - 1);
    set_timer(CATCH_MS);
}

static void interrupt_session(void)
{
    if (!running)
        return;
    if (interrupted) {
        asked = SIGINT;
        leave();
    }
    interrupted = 1;
    alarms = 0;
    set_hook();
    set_timer(PATIENCE_MS);
}

static void on_signal(int signal_number)
{
    if (asked)
        return;
    if (is_session && signal_number == SIGINT) {
        interrupt_session();
        return;
    }
    asked = signal_number;
    set_hook();
    set_timer(PATIENCE_MS);
}

/* ---- commands ---- */

/* The signal that ended a command of which os.execute() returned what is on the stack,
 * or by a shell's word for it one that it had waited for; 0 for none. */
static int ended_by(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TNUMBER) { /* as Lua 5.1 has it, or else 5.2 */
        int status = (int)lua_tointeger(L, 1);
        return WIFSIGNALED(status) ? WTERMSIG(status)
                                   : WEXITSTATUS(status) - SHELL_SIGNALED;
    }
    const char *how = lua_tostring(L, 2);
    int code = (int)lua_tointeger(L, 3);
    return how != NULL && strcmp(how, "signal") == 0 ? code
                                                     : code - SHELL_SIGNALED;
}

/*
 * os.execute(), where system(3) ignores INT and QUIT: the command may be an editor,
 * which means nothing by them. If it has ended by one, the signal is ours as well.
 */
static int execute(lua_State *L)
{
    luaL_optstring(L, 1, NULL); /* an error names us */
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    int number = ended_by(L);
    if (number == SIGINT || number == SIGQUIT)
        raise(number);
    if (asked || interrupted)
        raise_interrupt(L, NULL); /* compiled code looks at no hook */
    return lua_gettop(L);
}

static void replace_execute(lua_State *L)
{
    lua_getglobal(L, "os");
    lua_getfield(L, -1, "execute");
    lua_pushcclosure(L, execute, 1);
    lua_setfield(L, -2, "execute");
    lua_pop(L, 1);
}

/* ---- beginning ---- */

void tide_ending_catch(lua_State *L, void (*before_exit)(void))
{
    /* The second alarm may come inside of the first one's handler. */
    struct sigaction alarm_action = { .sa_handler = on_alarm,
                                      .sa_flags = SA_NODEFER };
    struct sigaction action = { .sa_handler = on_signal };
    struct sigaction before;
    script_state = L;
    last_words = before_exit;
    replace_execute(L);
    sigaction(SIGALRM, &alarm_action, NULL);
    for (size_t i = 0; i < CAUGHT_COUNT; i++) {
        /* As a shell's background job or nohup(1) has it. */
        sigaction(caught[i], NULL, &before);
        if (before.sa_handler != SIG_IGN)
            sigaction(caught[i], &action, NULL);
    }
}

/* ---- what runs ---- */

void tide_ending_begin_session(void)
{
    is_session = 1;
}

void tide_ending_listen(void)
{
    running = 1;
}

int tide_ending_is_asked(void)
{
    return asked != 0;
}

int tide_ending_settle(void)
{
    running = 0;
    int was = asked != 0 || interrupted;
    if (was || !is_session)
        lua_sethook(script_state, NULL, 0, 0);
    if (interrupted && !asked)
        set_timer(0);
    interrupted = 0;
    return was;
}

int tide_ending_report(void)
{
    fflush(stdout);
    report_in_peace();
    if (!asked)
        reported = 0;
    return TIDE_EXIT_INTERRUPTED;
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
    last_words();
    die_by(SIGPIPE);
    abort();
}

void tide_ending_check_output(void)
{
    int had_failed = ferror(stdout);
    int fails = fflush(stdout) != 0;
    if (fails || had_failed)
        fprintf(stderr, "tidemill: cannot write output%s%s\n",
                fails ? ": " : "", fails ? strerror(errno) : "");
    else if (!tide_commons_has_lost_output()) /* who has, has said so */
        return;
    _exit(EXIT_FAILURE);
}
