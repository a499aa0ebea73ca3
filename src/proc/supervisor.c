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
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PATIENCE_S = 3, /* for a supervisor that does not end when told */
    CHANNEL_FD = 3  /* of one that was executed */
};

/* ---- starting ---- */

/* Was this very process executed to be a supervisor? Then to execute one more, which
 * does the same again, would never end. */
static int is_meant_to_supervise(void)
{
    char line[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t size = read(fd, line, sizeof line - 1);
    close(fd);
    if (size <= 0)
        return 0;
    line[size] = '\0';
    size_t program = strlen(line) + 1;
    return program < (size_t)size &&
           strcmp(line + program, TIDE_SUPERVISE) == 0;
}

/*
 * Nothing of ours runs in the child: not stdio, which another thread may hold, nor a
 * copy of our memory, which may be large. Every signal is blocked in it until it is
 * a supervisor. Returns an errno.
 */
static int execute(pid_t *out, const struct tide_command *command, int channel)
{
    char *const argv[] = { (char *)(uintptr_t)command->path,
                           (char *)(uintptr_t)TIDE_SUPERVISE,
                           (char *)(uintptr_t)command->arguments[0],
                           (char *)(uintptr_t)command->arguments[1], NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all;
    sigfillset(&all);
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed)
        return failed;
    failed = posix_spawnattr_init(&attributes);
    if (!failed) {
        /* Without close-on-exec from then on, also if it is the same. */
        failed =
            posix_spawn_file_actions_adddup2(&actions, channel, CHANNEL_FD);
        posix_spawnattr_setsigmask(&attributes, &all);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
        if (!failed)
            failed = posix_spawnp(out, command->path, &actions, &attributes,
                                  argv, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static int open_pidfd(pid_t pid)
{
    int low = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, CHANNEL_FD);
    if (low >= 0)
        close(low);
    return fd;
}

void tide_supervisor_serve(const struct tide_worker_ops *ops)
{
    tide_office_run(ops, CHANNEL_FD, getppid());
}

/* What is executed gets the commons by their descriptor, before anything else. */
static void send_commons(int channel)
{
    struct tide_message message = { .kind = TIDE_MESSAGE_COMMONS,
                                    .arena_bytes = tide_commons.arena.size };
    int fds[TIDE_MESSAGE_FDS] = { tide_commons_fd(), tide_commons_fd() };
    if (fds[0] >= 0)
        tide_channel_send(channel, &message, fds);
}

/* Be the forked process. */
static _Noreturn void supervise(const struct tide_worker_ops *ops, int channel,
                                pid_t host, struct tide_who who)
{
    if (ops->copies) {
        tide_commons_become(who);
    } else {
        tide_arena_leave_all();
        tide_commons_leave_behind();
    }
    tide_office_run(ops, channel, host);
}

int tide_supervisor_start(struct tide_supervisor *out,
                          const struct tide_worker_ops *ops,
                          const struct tide_command *command,
                          struct tide_error *err)
{
    int ends[2];
    int executes = command != NULL && command->path != NULL;
    if (executes && is_meant_to_supervise())
        return tide_fail(err, TIDE_EINVAL,
                         "cannot execute a supervisor: this process was, and "
                         "its main() has not called tide_serve()");
    int status = tide_channel_open(ends, err);
    if (status != TIDE_OK)
        return status;
    pid_t host = getpid();
    struct tide_who who = { 0, 0 };
    if (ops->copies && !executes)
        who = tide_commons_reserve();
    pid_t pid = -1;
    if (!executes)
        pid = tide_child_fork();
    else if ((errno = execute(&pid, command, ends[1])) != 0)
        pid = -1;
    if (pid == 0)
        supervise(ops, ends[1], host, who);
    if (pid < 0) {
        status = executes ? tide_fail_errno(err, "cannot execute '%s'",
                                            command->path)
                          : tide_fail_errno(err, "cannot fork a supervisor");
        close(ends[0]);
        close(ends[1]);
        tide_commons_cancel(who);
        return status;
    }
    close(ends[1]);
    if (executes)
        send_commons(ends[0]);
    *out = (struct tide_supervisor){
        .pid = pid,
        .pidfd = open_pidfd(pid),
        .channel = ends[0],
        .owner = host,
        .who = who,
    };
    return TIDE_OK;
}

/* ---- ending ---- */

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

/*
 * Send it a signal, and never another process. The host may have a handler for
 * SIGCHLD that reaps whatever has ended, or ignore SIGCHLD: then the number is free
 * as soon as the process has ended, and may be somebody else's.
 */
static void send_signal(const struct tide_supervisor *supervisor, int number)
{
    siginfo_t info;
    if (supervisor->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, supervisor->pidfd, number, NULL, 0);
    else if (waitid(P_PID, (id_t)supervisor->pid, &info,
                    WEXITED | WNOHANG | WNOWAIT) == 0)
        kill(supervisor->pid, number);
}

/* ECHILD: somebody else has. */
static void reap(const struct tide_supervisor *supervisor)
{
    siginfo_t info;
    int failed;
    do
        failed = supervisor->pidfd >= 0
                     ? waitid(P_PIDFD, (id_t)supervisor->pidfd, &info, WEXITED)
                     : waitid(P_PID, (id_t)supervisor->pid, &info, WEXITED);
    while (failed && errno == EINTR);
}

void tide_supervisor_stop(struct tide_supervisor *supervisor)
{
    if (getpid() != supervisor->owner)
        return; /* a copy: descriptors and numbers may be somebody else's by now */
    shutdown(supervisor->channel, SHUT_WR); /* it reads end-of-file */
    send_signal(supervisor, SIGCONT);       /* also if it was stopped */
    if (await_end(supervisor->channel, tide_deadline_ns(PATIENCE_S)) != TIDE_OK)
        send_signal(supervisor, SIGKILL); /* its workers die with it */
    reap(supervisor);
    if (supervisor->pidfd >= 0)
        close(supervisor->pidfd);
    tide_commons_cancel(supervisor->who);
    close(supervisor->channel);
}
