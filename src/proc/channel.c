#include "proc/channel.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { SEND_PATIENCE_S = 5 };

/* Room for the control data of one message, aligned as cmsghdr wants it. */
union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(TIDE_MESSAGE_FDS * sizeof(int))];
};

static int raise_above_stdio(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return high;
}

int tide_channel_open(int ends[2], struct tide_error *err)
{
    int low[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, low) != 0)
        return tide_fail_errno(err, "cannot create a socket pair");
    ends[0] = raise_above_stdio(low[0]);
    ends[1] = raise_above_stdio(low[1]);
    const struct timeval patience = { .tv_sec = SEND_PATIENCE_S };
    if (ends[0] >= 0 && ends[1] >= 0 &&
        setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &patience,
                   sizeof patience) == 0)
        return TIDE_OK;
    tide_fail_errno(err, "cannot create a socket pair");
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    return TIDE_ESYS;
}

int tide_channel_send(int end, const struct tide_message *message,
                      const int *fds)
{
    struct iovec part = { .iov_base = (void *)(uintptr_t)message,
                          .iov_len = sizeof *message };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
    union control control;
    if (fds != NULL) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = sizeof control;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(TIDE_MESSAGE_FDS * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, TIDE_MESSAGE_FDS * sizeof(int));
    }
    while (TIDE_FAULT(CHANNEL_SEND) ||
           sendmsg(end, &header, MSG_NOSIGNAL) < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return TIDE_ETIMEOUT;
        if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
            return TIDE_EBROKEN;
        if (errno != EINTR)
            return TIDE_ESYS;
    }
    return TIDE_OK;
}

void tide_channel_ring(int end, uint32_t crew)
{
    struct tide_message look = { .kind = TIDE_MESSAGE_LOOK, .crew = crew };
    while (send(end, &look, sizeof look, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
           errno == EINTR)
        continue;
}

void tide_channel_drop(int *fds)
{
    for (int i = 0; i < TIDE_MESSAGE_FDS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

int tide_channel_receive(int end, struct tide_message *out, int *fds)
{
    union control control;
    struct iovec part = { .iov_base = out, .iov_len = sizeof *out };
    struct msghdr header = { .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control };
    ssize_t got;
    do
        got = recvmsg(end, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return TIDE_EAGAIN;

    for (int i = 0; i < TIDE_MESSAGE_FDS; i++)
        fds[i] = -1;
    if (got <= 0)
        return TIDE_EBROKEN;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    /* Fewer than were sent when our table of descriptors is full. */
    if (rights != NULL && rights->cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
    if (TIDE_FAULT(CHANNEL_RIGHTS))
        tide_channel_drop(fds);
    if (TIDE_FAULT(CHANNEL_SHORT))
        got = 1;
    if (got != (ssize_t)sizeof *out || (header.msg_flags & MSG_TRUNC) != 0) {
        tide_channel_drop(fds);
        return TIDE_EBROKEN;
    }
    return TIDE_OK;
}
