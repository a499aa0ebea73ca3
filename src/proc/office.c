/*
 * One crew per pool: a board and the processes that work at it. Each place of a
 * crew is in one of three states.
 *
 *            fork is due          its process was reaped         crew is stopped
 * VACANT     fork -> RUNNING;     -                              -> ENDED
 *            fails: due later
 * RUNNING    -                    reclaim its slot, wake all;    SIGKILL, stays
 *                                 then as a vacancy (below)      until reaped
 * ENDED      -                    -                              -
 *
 * A worker stopped by a signal stays RUNNING, but it may owe somebody a wake-up, or
 * have been woken for work that others could do: everybody is woken.
 *
 * A vacancy: ENDED if the crew is stopping, or closed and it left by itself with
 * code 0; else VACANT and due. Due at once, unless workers keep dying before they
 * take any item: then later each time, and after LIMIT in a row the crew is
 * stopped as broken, for the reason of the last death. A worker that took an item,
 * that an outsider killed while it was idle, or that lived a second starts the
 * count anew. When every place is ENDED the host is told GONE and the crew freed.
 *
 * All events come through one poll: the channel, SIGCHLD as a signalfd, the
 * host's pidfd, and the time of the next fork that is due. Reaping is complete
 * (every zombie of this round) before anything is forked again.
 */
#include "proc/office.h"

#include "base/clock.h"
#include "proc/channel.h"
#include "proc/child.h"
#include "shm/wake.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FUTILE_LIMIT = 8,             /* deaths in a row, besides one per worker */
    FIRST_DELAY_NS = 1000 * 1000, /* before the second replacement, doubling */
    LAST_DELAY_SHIFT = 10,        /* up to about a second */
    SETTLED_NS = 1000 * 1000 * 1000
};

enum place_state { VACANT, RUNNING, ENDED };

struct place {
    enum place_state state;
    pid_t pid;
    uint64_t since_ns; /* RUNNING: when it was forked */
    uint64_t due_ns;   /* VACANT: when to fork */
    uint64_t items;    /* its record's total when it was forked */
};

struct crew {
    struct crew *next;
    uint32_t id;
    uint32_t place_count;
    struct tide_arena arena;
    struct tide_board board;
    int event_fd;
    uint64_t config;
    uint64_t config_bytes;
    uint32_t futile; /* deaths in a row before any item */
    int started;     /* every place has had a process */
    int stopping;
    int broken;
    char reason[TIDE_REASON_BYTES];
    struct place places[];
};

struct office {
    struct tide_worker_ops ops;
    void *context;
    int channel;
    int host_fd;  /* pidfd, -1 on a kernel without */
    int child_fd; /* signalfd for SIGCHLD */
    struct crew *crews;
};

/* ---- workers ---- */

static _Noreturn void be_worker(struct office *office, struct crew *crew,
                                uint32_t index, pid_t supervisor)
{
    char name[16];
    snprintf(name, sizeof name, "tidemill-w%u", index + 1);
    for (struct crew *other = office->crews; other; other = other->next)
        if (other != crew)
            tide_arena_destroy(&other->arena);
    crew->board.event_fd =
        tide_child_become_worker(supervisor, crew->event_fd, name);

    struct tide_worker_env env = {
        .board = &crew->board,
        .index = index,
        .config = crew->config ? crew->arena.base + crew->config : NULL,
        .config_bytes = crew->config_bytes,
        .context = office->context,
    };
    tide_child_exit(office->ops.run(&env));
}

static void stop_crew(struct crew *crew);

static void break_crew(struct crew *crew, const char *reason)
{
    if (!crew->stopping) {
        crew->broken = 1;
        snprintf(crew->reason, sizeof crew->reason, "%s", reason);
    }
    stop_crew(crew);
}

static uint64_t backoff_ns(uint32_t futile)
{
    uint32_t shift = futile < LAST_DELAY_SHIFT ? futile : LAST_DELAY_SHIFT;
    return futile == 0 ? 0 : (uint64_t)FIRST_DELAY_NS << (shift - 1);
}

static void fork_failed(struct crew *crew, uint32_t index)
{
    char reason[TIDE_REASON_BYTES];
    snprintf(reason, sizeof reason, "cannot fork worker %u of %u: %s",
             index + 1, crew->place_count, strerror(errno));
    crew->futile++;
    /* A pool that never had all its workers is refused at once. */
    if (!crew->started || crew->futile > FUTILE_LIMIT + crew->place_count)
        break_crew(crew, reason);
    else
        crew->places[index].due_ns = tide_now_ns() + backoff_ns(crew->futile);
}

static void fork_worker(struct office *office, struct crew *crew,
                        uint32_t index)
{
    struct place *place = &crew->places[index];
    struct tide_worker_record *record = &crew->board.workers[index];
    pid_t supervisor = getpid();
    uint64_t items = atomic_load(&record->items);
    atomic_store(&record->phase, TIDE_WORKER_STARTING);
    pid_t pid = tide_child_fork();
    if (pid == 0)
        be_worker(office, crew, index, supervisor);
    if (pid < 0) {
        atomic_store(&record->phase, TIDE_WORKER_VACANT);
        fork_failed(crew, index);
        return;
    }
    atomic_store(&record->pid, pid);
    *place = (struct place){
        .state = RUNNING, .pid = pid, .since_ns = tide_now_ns(), .items = items
    };
}

/* ---- deaths ---- */

static void describe_death(char *out, size_t size, uint32_t index, int status)
{
    if (WIFSIGNALED(status))
        snprintf(out, size,
                 "workers die before they take an item: the last one, worker "
                 "%u, by signal %d (%s)",
                 index + 1, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, size,
                 "workers end before they take an item: the last one, worker "
                 "%u, with exit code %d",
                 index + 1, WEXITSTATUS(status));
}

/* Did this process do what it was there for, or was it not its own fault? */
static int was_useful(const struct place *place,
                      const struct tide_worker_record *record, int status)
{
    int idle = atomic_load(&record->phase) == TIDE_WORKER_UP;
    int killed = WIFSIGNALED(status) &&
                 (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);
    return atomic_load(&record->items) != place->items ||
           atomic_load(&record->hand) != 0 || (idle && killed) ||
           tide_now_ns() - place->since_ns > SETTLED_NS;
}

static void vacate(struct crew *crew, uint32_t index, int status, int useful)
{
    struct place *place = &crew->places[index];
    struct tide_worker_record *record = &crew->board.workers[index];
    int refused = atomic_load(&record->failure) != 0;
    int left = WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
               tide_board_is_closed(&crew->board);

    atomic_store(&record->phase, TIDE_WORKER_VACANT);
    atomic_store(&record->pid, 0);
    place->state = VACANT; /* its pid may be another's now: never signal it */
    crew->futile = useful ? 0 : crew->futile + 1;
    if (!crew->stopping && !left &&
        (refused || crew->futile > FUTILE_LIMIT + crew->place_count)) {
        char reason[TIDE_REASON_BYTES];
        describe_death(reason, sizeof reason, index, status);
        break_crew(crew, reason);
    }
    if (crew->stopping || left) {
        place->state = ENDED;
        return;
    }
    atomic_fetch_add(&record->restarts, 1);
    place->due_ns = crew->futile ? tide_now_ns() + backoff_ns(crew->futile) : 0;
}

static void bury(struct crew *crew, uint32_t index, int status)
{
    struct place *place = &crew->places[index];
    struct tide_death death = { .worker = index,
                                .pid = place->pid,
                                .wait_status = status };
    int useful = was_useful(place, &crew->board.workers[index], status);
    tide_board_reclaim(&crew->board, &death);
    vacate(crew, index, status, useful);
    tide_board_wake_all(&crew->board);
}

static void take_note(struct crew *crew, uint32_t index, int status)
{
    if (!WIFSTOPPED(status)) {
        bury(crew, index, status);
        return;
    }
    tide_board_rouse(&crew->board, index);
    tide_board_wake_all(&crew->board);
}

static void reap_all(struct office *office)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0)
        for (struct crew *crew = office->crews; crew; crew = crew->next)
            for (uint32_t i = 0; i < crew->place_count; i++)
                if (crew->places[i].state == RUNNING &&
                    crew->places[i].pid == pid)
                    take_note(crew, i, status);
}

/* ---- crews ---- */

static void stop_crew(struct crew *crew)
{
    crew->stopping = 1;
    for (uint32_t i = 0; i < crew->place_count; i++) {
        if (crew->places[i].state == RUNNING)
            kill(crew->places[i].pid, SIGKILL);
        else
            crew->places[i].state = ENDED;
    }
}

static void free_crew(struct crew *crew)
{
    tide_arena_destroy(&crew->arena);
    if (crew->event_fd >= 0)
        close(crew->event_fd);
    free(crew);
}

static void send_gone(struct office *office, uint32_t id, const char *reason)
{
    struct tide_message gone = { .kind = TIDE_MESSAGE_GONE, .crew = id };
    if (reason != NULL) {
        gone.broken = 1;
        snprintf(gone.reason, sizeof gone.reason, "%s", reason);
    }
    tide_channel_send(office->channel, &gone, NULL);
}

/* The places and the board as the message describes them. */
static struct crew *new_crew(const struct tide_message *order, int arena_fd,
                             int event_fd, struct tide_error *err)
{
    struct tide_arena arena;
    if (tide_arena_attach(&arena, arena_fd, order->arena_bytes, err))
        return NULL;
    struct tide_board board;
    tide_board_attach(&board, &arena, event_fd);
    uint32_t count = tide_board_worker_count(&board);
    struct crew *crew =
        calloc(1, sizeof *crew + count * sizeof crew->places[0]);
    if (crew == NULL) {
        tide_fail(err, TIDE_ENOMEM, "cannot allocate %u workers", count);
        tide_arena_destroy(&arena);
        return NULL;
    }
    crew->id = order->crew;
    crew->place_count = count;
    crew->arena = arena;
    crew->event_fd = event_fd;
    crew->config = order->config;
    crew->config_bytes = order->config_bytes;
    tide_board_attach(&crew->board, &crew->arena, event_fd);
    return crew;
}

static void create_crew(struct office *office, const struct tide_message *order,
                        int *fds)
{
    struct tide_error err = { .text = "no descriptors came along" };
    struct crew *crew =
        fds[1] >= 0 ? new_crew(order, fds[0], fds[1], &err) : NULL;
    if (crew == NULL) {
        tide_channel_drop(fds);
        send_gone(office, order->crew, err.text);
        return;
    }
    close(fds[0]);
    crew->next = office->crews;
    office->crews = crew;
    for (uint32_t i = 0; i < crew->place_count && !crew->stopping; i++)
        fork_worker(office, crew, i);
    if (crew->stopping)
        return; /* GONE follows when those that were forked are reaped */
    crew->started = 1;
    struct tide_message reply = { .kind = TIDE_MESSAGE_STARTED,
                                  .crew = crew->id };
    tide_channel_send(office->channel, &reply, NULL);
}

static int crew_is_gone(const struct crew *crew)
{
    for (uint32_t i = 0; i < crew->place_count; i++)
        if (crew->places[i].state != ENDED)
            return 0;
    return 1;
}

static void dismiss_gone(struct office *office)
{
    for (struct crew **at = &office->crews; *at != NULL;) {
        struct crew *crew = *at;
        if (!crew_is_gone(crew)) {
            at = &crew->next;
            continue;
        }
        *at = crew->next;
        send_gone(office, crew->id, crew->broken ? crew->reason : NULL);
        tide_event_raise(crew->event_fd);
        free_crew(crew);
    }
}

/* Fork what is due; returns when the next one is. */
static uint64_t fork_due(struct office *office)
{
    uint64_t next_ns = TIDE_FOREVER;
    uint64_t now = tide_now_ns();
    for (struct crew *crew = office->crews; crew; crew = crew->next)
        for (uint32_t i = 0; i < crew->place_count; i++) {
            struct place *place = &crew->places[i];
            if (place->state == VACANT && place->due_ns <= now)
                fork_worker(office, crew, i);
            if (place->state == VACANT && place->due_ns < next_ns)
                next_ns = place->due_ns;
        }
    return next_ns;
}

/* ---- the loop ---- */

static _Noreturn void end_office(struct office *office)
{
    for (struct crew *crew = office->crews; crew; crew = crew->next)
        stop_crew(crew);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        continue;
    _exit(EXIT_SUCCESS); /* stdio holds nothing: it was flushed at the fork */
}

static void receive_all(struct office *office)
{
    struct tide_message message;
    int fds[TIDE_MESSAGE_FDS];
    for (;;) {
        int status = tide_channel_receive(office->channel, &message, fds);
        if (status == TIDE_EAGAIN)
            return;
        if (status != TIDE_OK)
            end_office(office);
        if (message.kind == TIDE_MESSAGE_CREATE)
            create_crew(office, &message, fds);
        else
            tide_channel_drop(fds);
        for (struct crew *crew = office->crews; crew; crew = crew->next)
            if (message.kind == TIDE_MESSAGE_STOP && crew->id == message.crew)
                stop_crew(crew);
    }
}

static void drain(int signal_fd)
{
    struct signalfd_siginfo info;
    while (read(signal_fd, &info, sizeof info) > 0)
        continue;
}

static void serve(struct office *office)
{
    struct pollfd fds[] = {
        { .fd = office->channel, .events = POLLIN },
        { .fd = office->child_fd, .events = POLLIN },
        { .fd = office->host_fd, .events = POLLIN },
    };
    for (;;) {
        uint64_t next_ns = fork_due(office);
        dismiss_gone(office);
        if (poll(fds, 3, tide_poll_timeout_ms(next_ns)) < 0)
            continue; /* EINTR: continued after a stop */
        if (fds[2].revents != 0)
            end_office(office);
        if (fds[1].revents != 0)
            drain(office->child_fd);
        reap_all(office);
        if (fds[0].revents != 0)
            receive_all(office);
    }
}

void tide_office_run(const struct tide_worker_ops *ops, int channel, pid_t host)
{
    sigset_t child;
    struct office office = { .ops = *ops };
    office.channel = tide_child_become_supervisor(channel);
    /* End-of-file comes late if somebody holds a copy of the host's end. */
    office.host_fd = (int)syscall(SYS_pidfd_open, host, 0);
    if (getppid() != host)
        _exit(EXIT_FAILURE);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    office.child_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (office.child_fd < 0)
        _exit(EXIT_FAILURE); /* the host sees end-of-file */
    if (office.ops.prepare != NULL)
        office.context = office.ops.prepare(office.ops.argument);
    serve(&office);
    abort();
}
