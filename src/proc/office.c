/*
 * The supervisor's loop. All events come through one poll: the channel, signals as
 * a signalfd, the host's pidfd, and the time of the next fork or look. Reaping
 * is complete (every zombie of this round) before anything is forked again.
 *
 * SIGCONT says that this process was stopped, and how long is what has passed since
 * the last round. The time of a round is taken before signals are looked at: so it
 * is either from before the stop, or the SIGCONT is there. A SIGCONT may come
 * without a stop, at any rate: no time is excused that may have been one of ours.
 *
 * What becomes of a crew and its places is told in crew.c. A crew whose places are
 * all ENDED is freed, and the host told GONE.
 */
#include "proc/office.h"

#include "base/clock.h"
#include "base/fault.h"
#include "proc/channel.h"
#include "proc/child.h"
#include "proc/crew.h"
#include "shm/wake.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    END_PATIENCE_S = 2,              /* the host waits longer */
    SHORT_STOP_NS = 30 * 1000 * 1000 /* longer than it is from look to look */
};

/* ---- what has happened ---- */

/* Take the signals that came. @return 1 if one says that we were stopped */
static int take_signals(int signal_fd)
{
    struct signalfd_siginfo info;
    int was_stopped = 0;
    while (read(signal_fd, &info, sizeof info) > 0)
        was_stopped |= info.ssi_signo == SIGCONT;
    return was_stopped;
}

static void reap_all(struct tide_office *office, uint64_t now_ns)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0)
        for (struct tide_crew *crew = office->crews; crew; crew = crew->next)
            for (uint32_t i = 0; i < crew->manned; i++)
                if (crew->places[i].state == TIDE_RUNNING &&
                    crew->places[i].pid == pid)
                    tide_crew_take_note(crew, i, status, now_ns);
}

/* Take notice of what has happened until `now_ns`. */
static void look_around(struct tide_office *office, uint64_t now_ns)
{
    if (take_signals(office->signal_fd) &&
        now_ns - office->seen_ns > SHORT_STOP_NS)
        for (struct tide_crew *crew = office->crews; crew; crew = crew->next)
            tide_watch_excuse(crew, now_ns - office->seen_ns);
    office->seen_ns = now_ns;
    reap_all(office, now_ns);
}

/* ---- crews that end ---- */

static void send_gone(struct tide_office *office, uint32_t id,
                      const char *reason)
{
    struct tide_message gone = { .kind = TIDE_MESSAGE_GONE, .crew = id };
    if (reason != NULL) {
        gone.broken = 1;
        snprintf(gone.reason, sizeof gone.reason, "%s", reason);
    }
    tide_channel_send(office->channel, &gone, NULL);
}

static void dismiss_gone(struct tide_office *office)
{
    for (struct tide_crew **at = &office->crews; *at != NULL;) {
        struct tide_crew *crew = *at;
        if (!tide_crew_is_gone(crew)) {
            at = &crew->next;
            continue;
        }
        *at = crew->next;
        send_gone(office, crew->id, crew->broken ? crew->reason : NULL);
        tide_event_raise(crew->event_fd);
        tide_crew_free(crew);
    }
}

/* Is a crew waited for whose workers were all killed? `next_ns`: when to look again. */
static int is_stopping(struct tide_office *office, uint64_t now_ns,
                       uint64_t *next_ns)
{
    int found = 0;
    for (struct tide_crew *crew = office->crews; crew; crew = crew->next) {
        uint64_t at_ns = tide_crew_give_up(crew, now_ns);
        *next_ns = at_ns < *next_ns ? at_ns : *next_ns;
        found |= crew->stopping && !tide_crew_is_gone(crew);
    }
    return found;
}

/* Wait for the crews that were stopped, for some time. */
static void see_off(struct tide_office *office)
{
    uint64_t deadline_ns = tide_deadline_ns(END_PATIENCE_S);
    struct pollfd fd = { .fd = office->signal_fd, .events = POLLIN };
    for (;;) {
        uint64_t next_ns = deadline_ns, now_ns = tide_now_ns();
        look_around(office, now_ns);
        if (!is_stopping(office, now_ns, &next_ns) || now_ns >= deadline_ns)
            return;
        poll(&fd, 1, tide_poll_timeout_ms(next_ns));
    }
}

/* Kill all and reap them. Who cannot die now is left to init. */
static _Noreturn void end_office(struct tide_office *office)
{
    for (struct tide_crew *crew = office->crews; crew; crew = crew->next)
        tide_crew_stop(crew);
    see_off(office);
    _exit(EXIT_SUCCESS); /* stdio holds nothing: it was flushed at the fork */
}

/* ---- orders ---- */

/* Do what the host wants, as the board says it. */
static void heed(struct tide_office *office, struct tide_crew *crew)
{
    if (crew->stopping)
        return;
    if (tide_board_is_stopped(&crew->board)) {
        tide_crew_stop(crew);
        return;
    }
    for (uint64_t signals = tide_board_take_signals(&crew->board); signals != 0;
         signals &= signals - 1)
        tide_crew_signal(crew, __builtin_ctzll(signals));
    tide_crew_resize(crew, tide_board_wanted(&crew->board));
    if (tide_board_watching(&crew->board) != 0)
        tide_watch_begin(crew, office->seen_ns);
    tide_watch_heed_cuts(crew);
}

static void heed_all(struct tide_office *office)
{
    for (struct tide_crew *crew = office->crews; crew; crew = crew->next)
        heed(office, crew);
}

/* The new crew's places. Those that are about to end may have what it needs. */
static struct tide_crew *new_crew(struct tide_office *office,
                                  const struct tide_message *order,
                                  const int *fds, struct tide_error *err)
{
    if (fds[1] < 0)
        return NULL;
    struct tide_crew *crew = tide_crew_new(order, fds[0], fds[1], err);
    if (crew != NULL)
        return crew;
    heed_all(office); /* who is to stop may have been told so a moment ago */
    see_off(office);
    dismiss_gone(office);
    return tide_crew_new(order, fds[0], fds[1], err);
}

static void create_crew(struct tide_office *office,
                        const struct tide_message *order, int *fds)
{
    struct tide_error err = { .text = "no descriptors came along" };
    struct tide_crew *crew = new_crew(office, order, fds, &err);
    if (crew == NULL) {
        tide_channel_drop(fds);
        send_gone(office, order->crew, err.text);
        return;
    }
    close(fds[0]);
    TIDE_STEP(CREW_MADE);
    crew->next = office->crews;
    office->crews = crew;
    if (tide_board_is_stopped(&crew->board))
        tide_crew_stop(crew); /* the host has given it up meanwhile */
    tide_crew_start(office, crew);
    if (!crew->started)
        return; /* GONE follows when those that were forked are reaped */
    struct tide_message reply = { .kind = TIDE_MESSAGE_STARTED,
                                  .crew = crew->id };
    tide_channel_send(office->channel, &reply, NULL);
}

/* Where they cannot be mapped workers say so when they would share something. */
static void map_commons(const struct tide_message *message, int *fds)
{
    if (tide_commons_attach(fds[0], message->arena_bytes, NULL) == TIDE_OK)
        fds[0] = -1;
    tide_channel_drop(fds);
}

static void receive_all(struct tide_office *office)
{
    struct tide_message message;
    int fds[TIDE_MESSAGE_FDS];
    for (;;) {
        int status = tide_channel_receive(office->channel, &message, fds);
        if (status == TIDE_EAGAIN)
            return;
        if (status != TIDE_OK)
            end_office(office);
        TIDE_STEP(OFFICE_OBEYS);
        if (message.kind == TIDE_MESSAGE_CREATE)
            create_crew(office, &message, fds);
        else if (message.kind == TIDE_MESSAGE_COMMONS)
            map_commons(&message, fds);
        else
            tide_channel_drop(fds);
    }
}

/* ---- the loop ---- */

/* Do what is due; returns when the next thing is. */
static uint64_t do_due(struct tide_office *office, uint64_t now_ns)
{
    uint64_t next_ns = TIDE_FOREVER;
    for (struct tide_crew *crew = office->crews; crew; crew = crew->next) {
        uint64_t kill_ns = tide_crew_give_up(crew, now_ns);
        uint64_t fork_ns = tide_crew_fork_due(office, crew, now_ns);
        uint64_t look_ns = tide_watch_look(crew, now_ns);
        next_ns = kill_ns < next_ns ? kill_ns : next_ns;
        next_ns = fork_ns < next_ns ? fork_ns : next_ns;
        next_ns = look_ns < next_ns ? look_ns : next_ns;
    }
    return next_ns;
}

static void serve(struct tide_office *office)
{
    struct pollfd fds[] = {
        { .fd = office->channel, .events = POLLIN },
        { .fd = office->signal_fd, .events = POLLIN },
        { .fd = office->host_fd, .events = POLLIN },
    };
    for (;;) {
        uint64_t now_ns = tide_now_ns();
        look_around(office, now_ns);
        if (fds[2].revents != 0)
            end_office(office);
        if (fds[0].revents != 0) {
            receive_all(office);
            heed_all(office);
        }
        uint64_t next_ns = do_due(office, now_ns);
        dismiss_gone(office);
        if (poll(fds, 3, tide_poll_timeout_ms(next_ns)) < 0)
            fds[0].revents = fds[2].revents = 0; /* EINTR: after a stop */
    }
}

void tide_office_run(const struct tide_worker_ops *ops, int channel, pid_t host)
{
    sigset_t watched;
    struct tide_office office = { .ops = *ops };
    int keep[TIDE_CHILD_FDS] = { channel, tide_commons_fd() };
    tide_child_become_supervisor(keep);
    tide_commons_move_fd(keep[1]);
    office.channel = keep[0];
    /* End-of-file comes late if somebody holds a copy of the host's end. */
    office.host_fd = (int)syscall(SYS_pidfd_open, host, 0);
    if (getppid() != host)
        _exit(EXIT_FAILURE);
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGCONT);
    office.signal_fd = TIDE_FAULT(OFFICE_SIGNALFD)
                           ? -1
                           : signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    office.seen_ns = tide_now_ns();
    if (office.signal_fd < 0)
        _exit(EXIT_FAILURE); /* the host sees end-of-file */
    if (office.ops.prepare != NULL)
        office.context = office.ops.prepare(office.ops.argument);
    TIDE_STEP(OFFICE_BEGUN);
    serve(&office);
    abort();
}
