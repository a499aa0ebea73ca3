/*
 * The host's hold on its supervisor: a channel and a pid. What the process itself
 * does is in office.c.
 */
#include "proc/supervisor.h"

#include "base/clock.h"
#include "proc/channel.h"
#include "proc/child.h"
#include "proc/office.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PATIENCE_S = 3, /* for a supervisor that does not end when told */
    CHANNEL_FD = 3  /* of one that was executed */
};

static _Noreturn void execute(const char *command, int channel)
{
    char *const argv[] = { (char *)(uintptr_t)command,
                           (char *)(uintptr_t)TIDE_SUPERVISE, NULL };
    if (channel == CHANNEL_FD)
        fcntl(channel, F_SETFD, 0);
    else
        dup2(channel, CHANNEL_FD);
    execv(command, argv);
    _exit(EXIT_FAILURE); /* the host sees end-of-file */
}

void tide_supervisor_serve(const struct tide_worker_ops *ops)
{
    tide_office_run(ops, CHANNEL_FD, getppid());
}

int tide_supervisor_start(struct tide_supervisor *out,
                          const struct tide_worker_ops *ops,
                          const char *command, struct tide_error *err)
{
    int ends[2];
    if (command != NULL && access(command, X_OK) != 0)
        return tide_fail_errno(err, "cannot execute '%s'", command);
    int status = tide_channel_open(ends, err);
    if (status != TIDE_OK)
        return status;
    pid_t host = getpid();
    pid_t pid = tide_child_fork();
    if (pid == 0 && command != NULL)
        execute(command, ends[1]);
    if (pid == 0)
        tide_office_run(ops, ends[1], host);
    close(ends[1]);
    if (pid < 0) {
        status = tide_fail_errno(err, "cannot fork a supervisor");
        close(ends[0]);
        return status;
    }
    *out = (struct tide_supervisor){ .pid = pid,
                                     .channel = ends[0],
                                     .owner = host };
    return TIDE_OK;
}

/* Wait until the other end of the channel is closed: its owner has ended. */
static int await_end(int channel, uint64_t deadline_ns)
{
    struct tide_message ignored;
    int fds[TIDE_MESSAGE_FDS];
    struct pollfd fd = { .fd = channel, .events = POLLIN };
    for (;;) {
        int ready = poll(&fd, 1, tide_poll_timeout_ms(deadline_ns));
        if (ready == 0)
            return TIDE_ETIMEOUT;
        if (ready > 0 &&
            tide_channel_receive(channel, &ignored, fds) == TIDE_EBROKEN)
            return TIDE_OK;
    }
}

/* The pid is still its own: nobody has reaped it. */
static int is_child(pid_t pid)
{
    siginfo_t info;
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

void tide_supervisor_stop(struct tide_supervisor *supervisor)
{
    if (getpid() != supervisor->owner)
        return; /* a copy: the number may be somebody else's by now */
    if (is_child(supervisor->pid)) {
        shutdown(supervisor->channel, SHUT_WR); /* it reads end-of-file */
        kill(supervisor->pid, SIGCONT);         /* also if it was stopped */
        if (await_end(supervisor->channel, tide_deadline_ns(PATIENCE_S)) !=
            TIDE_OK)
            kill(supervisor->pid, SIGKILL); /* its workers die with it */
        while (waitpid(supervisor->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    close(supervisor->channel);
}
