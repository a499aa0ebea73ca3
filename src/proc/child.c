#include "proc/child.h"
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST_FD = 3, SHORT_SLICE_NS = 100 * 1000 };

pid_t tide_child_fork(void)
{
    sigset_t all, before;
    fflush(NULL);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = TIDE_FAULT(CHILD_FORK) ? -1 : fork();
    if (pid != 0) {
        int saved = errno;
        sigprocmask(SIG_SETMASK, &before, NULL);
        errno = saved;
    }
    return pid;
}

/* What a supervisor ignores; its workers start from there. */
static const int ignored[] = { SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGPIPE };
enum { IGNORED_COUNT = sizeof ignored / sizeof ignored[0] };

static void set_disposition(int signal_number, void (*handler)(int))
{
    sigaction(signal_number, &(struct sigaction){ .sa_handler = handler },
              NULL);
}

/*
 * Ask for so much time at a stretch, 0 for as much as others get: on a processor that
 * many want, who asks for less has its turn earlier. Linux 6.12 and later; before, it
 * changes nothing.
 */
static void set_slice(uint64_t slice_ns)
{
    struct sched_attr attr;
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) != 0 ||
        attr.sched_policy != SCHED_NORMAL)
        return;
    attr.sched_runtime = slice_ns;
    syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* Close all above 2 but those to keep, which become FIRST_FD and on. */
static void close_all_but(int keep[TIDE_CHILD_FDS])
{
    int past = FIRST_FD;
    for (int i = 0; i < TIDE_CHILD_FDS; i++) /* out of each other's way */
        if (keep[i] >= 0 && keep[i] < FIRST_FD + TIDE_CHILD_FDS)
            keep[i] =
                fcntl(keep[i], F_DUPFD_CLOEXEC, FIRST_FD + TIDE_CHILD_FDS);
    for (int i = 0; i < TIDE_CHILD_FDS; i++)
        if (keep[i] >= 0)
            keep[i] = dup3(keep[i], past++, O_CLOEXEC);
    if (syscall(SYS_close_range, past, UINT_MAX, 0) != 0) {
        long limit = sysconf(_SC_OPEN_MAX); /* a kernel before 5.9 */
        for (int fd = past; fd < limit; fd++)
            close(fd);
    }
}

/*
 * What the process opens or receives later must not become its stdout. Where that was
 * closed writing to it goes on to fail; what is to be said of that may get lost.
 */
static void fill_stdio(void)
{
    for (int fd = 0; fd < FIRST_FD; fd++)
        if (fcntl(fd, F_GETFD) < 0) /* the lowest that is free */
            open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
}

static void use_null_stdin(void)
{
    int null = open("/dev/null", O_RDONLY);
    if (null > 0) {
        dup2(null, STDIN_FILENO);
        close(null);
    }
}

void tide_child_become_supervisor(int keep[TIDE_CHILD_FDS])
{
    sigset_t blocked;
    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        set_disposition(signal_number, SIG_DFL); /* not for KILL and STOP */
    for (size_t i = 0; i < IGNORED_COUNT; i++)
        set_disposition(ignored[i], SIG_IGN);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigaddset(&blocked, SIGCONT); /* goes on all the same */
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    prctl(PR_SET_NAME, "tidemill-super");
    /* Somebody may have stopped it when the host dies: it goes on then, and ends. */
    prctl(PR_SET_PDEATHSIG, SIGCONT);
    TIDE_FAULT_BECOME(TIDE_FAULT_SUPERVISOR);
    set_slice(SHORT_SLICE_NS); /* it stops those that take all there is */
    close_all_but(keep);
    fill_stdio();
}

void tide_child_become_worker(pid_t parent, int keep[TIDE_CHILD_FDS],
                              const char *name)
{
    sigset_t none;
    for (size_t i = 0; i < IGNORED_COUNT; i++)
        if (ignored[i] != SIGINT)
            set_disposition(ignored[i], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILURE); /* it died before the line above */
    prctl(PR_SET_NAME, name);
    TIDE_FAULT_BECOME(TIDE_FAULT_WORKER);
    set_slice(0);
    close_all_but(keep);
    use_null_stdin();
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void tide_child_exit(int code)
{
    fflush(NULL);
    _exit(code);
}
