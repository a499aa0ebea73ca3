#include "proc/seize.h"

#include "base/fault.h"
#include "proc/child.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* A filter on system calls may kill who tries this: somebody else tries first. */
static int try_tracing(void)
{
    int status = 0;
    pid_t pid = tide_child_fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
    }
    if (pid < 0)
        return 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int can_trace(void)
{
    static int answer = -1;
    if (answer < 0)
        answer = try_tracing();
    return answer;
}

int tide_process_seize(pid_t pid)
{
    return !TIDE_FAULT(WATCH_SEIZE) && can_trace() &&
           ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 &&
           ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0;
}

int tide_process_release(pid_t pid, int wait_status)
{
    int event = wait_status >> 16;
    long signal_number = WSTOPSIG(wait_status);
    /* Without an event it is a signal on its way, and goes on with that. */
    ptrace(PTRACE_DETACH, pid, NULL,
           (void *)(event == PTRACE_EVENT_STOP ? 0 : signal_number));
    return event != PTRACE_EVENT_STOP || signal_number == SIGTRAP;
}
