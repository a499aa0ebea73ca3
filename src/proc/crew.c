/*
 * One crew per pool: a board with room for many places, and the processes that work
 * at it. The first `wanted` places are to have one. Each is in one of three states.
 *
 *            fork is due        its process was     resize: it is      crew is
 *                               reaped              wanted / is not    stopped
 * VACANT     fork -> RUNNING;   -                   - / -> ENDED       -> ENDED
 *            fails: due later
 * RUNNING    -                  reclaim its slot,   - / it leaves by   SIGKILL,
 *                               wake all; then as   itself, when its   stays until
 *                               a vacancy (below)   slot is finished   reaped or
 *                                                                      given up
 * ENDED      -                  -                   -> VACANT, due     -
 *                                                   / the same if it
 *                                                   has mail
 *
 * A worker stopped by a signal, but for an arrest (watch.c), stays RUNNING, but it
 * may owe somebody a wake-up, or have been woken for work that others could do:
 * everybody is woken. Where it is to leave and has no item, it is continued, and in
 * the end killed (watch.c): no crew's end waits for it.
 *
 * A vacancy: ENDED if the crew is stopping, the place is not wanted, or the board
 * is closed and the worker left by itself with code 0, or was stuck and killed when
 * nothing was left to do; but not while the place has mail, which nobody else may
 * run. Else VACANT and due. Due at once, unless workers keep dying before they take
 * any item: then later each time, and after LIMIT in a row the crew is stopped as
 * broken, for the reason of the last death. A worker that took an item, that an
 * outsider killed while it was idle, that retired or left once it was up, or that
 * lived a second starts the count anew. On a board that is single it is ENDED in any
 * case. When every place is ENDED the host is told GONE and the crew freed: one place
 * is always wanted, so this comes only when it is stopping, closed or single.
 */
#include "proc/crew.h"

#include "base/clock.h"
#include "base/fault.h"
#include "proc/child.h"
#include "proc/still.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FUTILE_LIMIT = 8,             /* deaths in a row, besides one per worker */
    FIRST_DELAY_NS = 1000 * 1000, /* before the second replacement, doubling */
    LAST_DELAY_SHIFT = 10,        /* up to about a second */
    SETTLED_NS = 1000 * 1000 * 1000,
    LAST_HOURS_NS = 250 * 1000 * 1000 /* between SIGKILL and giving up */
};

/* ---- a crew ---- */

/* The places and the board as the message describes them. */
struct tide_crew *tide_crew_new(const struct tide_message *order, int arena_fd,
                                int event_fd, struct tide_error *err)
{
    struct tide_arena arena;
    if (tide_arena_attach(&arena, arena_fd, order->arena_bytes, err))
        return NULL;
    struct tide_board board;
    tide_board_attach(&board, &arena, event_fd);
    uint32_t count = tide_board_place_count(&board);
    struct tide_crew *crew =
        TIDE_FAULT(CREW_MALLOC)
            ? NULL
            : calloc(1, sizeof *crew + count * sizeof crew->places[0]);
    if (crew == NULL) {
        tide_fail(err, TIDE_ENOMEM, "cannot allocate %u workers", count);
        tide_arena_destroy(&arena);
        return NULL;
    }
    crew->id = order->crew;
    crew->host = order->host;
    crew->place_count = count;
    crew->wanted = crew->manned = tide_board_wanted(&board);
    for (uint32_t i = crew->wanted; i < count; i++)
        crew->places[i].state = TIDE_ENDED;
    crew->arena = arena;
    crew->event_fd = event_fd;
    crew->config = order->config;
    crew->config_bytes = order->config_bytes;
    tide_board_attach(&crew->board, &crew->arena, event_fd);
    return crew;
}

void tide_crew_free(struct tide_crew *crew)
{
    tide_arena_destroy(&crew->arena);
    if (crew->event_fd >= 0)
        close(crew->event_fd);
    free(crew);
}

int tide_crew_is_gone(const struct tide_crew *crew)
{
    for (uint32_t i = 0; i < crew->manned; i++)
        if (crew->places[i].state != TIDE_ENDED)
            return 0;
    return 1;
}

void tide_crew_stop(struct tide_crew *crew)
{
    crew->stopping = 1;
    for (uint32_t i = 0; i < crew->manned; i++) {
        if (crew->places[i].state == TIDE_RUNNING)
            tide_crew_kill(crew, i);
        else
            crew->places[i].state = TIDE_ENDED;
        TIDE_STEP(CREW_STOPPED);
    }
}

void tide_crew_kill(struct tide_crew *crew, uint32_t index)
{
    struct tide_place *place = &crew->places[index];
    kill(place->pid, SIGKILL);
    if (place->killed_ns == 0)
        place->killed_ns = tide_now_ns();
    crew->is_killing = 1;
}

void tide_crew_signal(struct tide_crew *crew, int signal_number)
{
    for (uint32_t i = 0; i < crew->manned; i++)
        if (crew->places[i].state == TIDE_RUNNING)
            kill(crew->places[i].pid, signal_number);
}

/* ---- workers ---- */

static _Noreturn void be_worker(struct tide_office *office,
                                struct tide_crew *crew, uint32_t index,
                                pid_t supervisor, struct tide_who who)
{
    char name[16];
    int keep[TIDE_CHILD_FDS] = { crew->event_fd, tide_commons_fd() };
    snprintf(name, sizeof name, "tidemill-w%u", index + 1);
    for (struct tide_crew *other = office->crews; other; other = other->next)
        if (other != crew)
            tide_arena_destroy(&other->arena);
    tide_child_become_worker(supervisor, keep, name);
    crew->board.event_fd = keep[0];
    tide_commons_move_fd(keep[1]);
    tide_commons_set_heir(crew->host, crew->id);
    tide_commons_become(who);

    TIDE_STEP(WORKER_BORN);
    struct tide_worker_env env = {
        .board = &crew->board,
        .index = index,
        .config = crew->config ? crew->arena.base + crew->config : NULL,
        .config_bytes = crew->config_bytes,
        .context = office->context,
    };
    tide_child_exit(office->ops.run(&env));
}

static void break_crew(struct tide_crew *crew, const char *reason)
{
    if (!crew->stopping) {
        crew->broken = 1;
        snprintf(crew->reason, sizeof crew->reason, "%s", reason);
    }
    tide_crew_stop(crew);
}

static uint64_t backoff_ns(uint32_t futile)
{
    uint32_t shift = futile < LAST_DELAY_SHIFT ? futile : LAST_DELAY_SHIFT;
    return futile == 0 ? 0 : (uint64_t)FIRST_DELAY_NS << (shift - 1);
}

static int has_running(const struct tide_crew *crew)
{
    for (uint32_t i = 0; i < crew->manned; i++)
        if (crew->places[i].state == TIDE_RUNNING)
            return 1;
    return 0;
}

static void fork_failed(struct tide_crew *crew, uint32_t index)
{
    char reason[TIDE_REASON_BYTES];
    snprintf(reason, sizeof reason, "cannot fork worker %u of %u: %s",
             index + 1, crew->wanted, strerror(errno));
    crew->futile++;
    /* A pool that never had all its workers is refused at once; one that has some
     * does with those until there is room for more. */
    if (!crew->started ||
        (crew->futile > FUTILE_LIMIT + crew->wanted && !has_running(crew)))
        break_crew(crew, reason);
    else
        crew->places[index].due_ns = tide_now_ns() + backoff_ns(crew->futile);
}

static void fork_worker(struct tide_office *office, struct tide_crew *crew,
                        uint32_t index)
{
    struct tide_place *place = &crew->places[index];
    struct tide_worker_record *record = &crew->board.workers[index];
    pid_t supervisor = getpid();
    uint64_t items = atomic_load(&record->items);
    atomic_store(&record->phase, TIDE_WORKER_STARTING);
    struct tide_who who =
        tide_commons_reserve(); /* we hold nothing but as a copy */
    pid_t pid = tide_child_fork();
    if (pid == 0)
        be_worker(office, crew, index, supervisor, who);
    if (pid < 0) {
        tide_commons_cancel(who);
        atomic_store(&record->phase, TIDE_WORKER_VACANT);
        fork_failed(crew, index);
        return;
    }
    TIDE_STEP(CREW_FORKED);
    atomic_store(&record->pid, pid);
    *place = (struct tide_place){ .state = TIDE_RUNNING,
                                  .pid = pid,
                                  .since_ns = tide_now_ns(),
                                  .items = items,
                                  .who = who };
}

void tide_crew_start(struct tide_office *office, struct tide_crew *crew)
{
    for (uint32_t i = 0; i < crew->manned && !crew->stopping; i++)
        fork_worker(office, crew, i);
    crew->started = !crew->stopping;
}

void tide_crew_resize(struct tide_crew *crew, uint32_t count)
{
    int grows = !crew->stopping && !tide_board_is_closed(&crew->board) &&
                !tide_board_is_single(&crew->board);
    if (count == 0 || count > crew->place_count)
        return; /* the host knows better */
    uint32_t manned = tide_board_worker_count(&crew->board);
    crew->wanted = count;
    if (crew->manned < manned)
        crew->manned = manned;
    for (uint32_t i = 0; i < crew->manned && !crew->stopping; i++) {
        struct tide_place *place = &crew->places[i];
        /* It may have been wanted, and got mail, since we looked last. */
        int has_mail = tide_board_has_mail(&crew->board, i);
        if (place->state == TIDE_ENDED && ((i < count && grows) || has_mail)) {
            place->state = TIDE_VACANT;
            place->due_ns = 0;
        } else if (place->state == TIDE_VACANT && i >= count && !has_mail) {
            place->state = TIDE_ENDED;
        }
    }
}

/* One at a time: on busy processors a fork takes long, and an order to stop would
 * wait for all of them. */
uint64_t tide_crew_fork_due(struct tide_office *office, struct tide_crew *crew,
                            uint64_t now_ns)
{
    uint64_t next_ns = TIDE_FOREVER;
    int has_forked = 0;
    for (uint32_t i = 0; i < crew->manned; i++) {
        struct tide_place *place = &crew->places[i];
        if (place->state == TIDE_VACANT && place->due_ns <= now_ns &&
            !has_forked) {
            fork_worker(office, crew, i);
            has_forked = 1;
        }
        if (place->state == TIDE_VACANT && place->due_ns < next_ns)
            next_ns = place->due_ns;
    }
    return next_ns;
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
static int was_useful(const struct tide_place *place,
                      const struct tide_worker_record *record, int status)
{
    uint32_t phase = atomic_load(&record->phase);
    int retired = WIFEXITED(status) && WEXITSTATUS(status) == TIDE_EXIT_RETIRED;
    int killed = WIFSIGNALED(status) &&
                 (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);
    return atomic_load(&record->items) != place->items ||
           atomic_load(&record->hand) != 0 || phase == TIDE_WORKER_LEFT ||
           (phase == TIDE_WORKER_UP && (killed || retired)) ||
           tide_now_ns() - place->since_ns > SETTLED_NS;
}

/*
 * Need the place no other process? A worker may leave before we have looked whether
 * it is wanted. Then the board says so: if the host has changed its mind since,
 * either the board says that already, or we shall look again.
 */
static int is_over(const struct tide_crew *crew, uint32_t index,
                   const struct tide_death *death)
{
    int left = WIFEXITED(death->wait_status)
                   ? WEXITSTATUS(death->wait_status) == 0
                   : death->cause == TIDE_DEATH_STUCK &&
                         !tide_board_has_ready(&crew->board);
    if (crew->stopping || tide_board_is_single(&crew->board))
        return 1;
    if (tide_board_has_mail(&crew->board, index))
        return 0;
    if (atomic_load(&crew->board.workers[index].phase) == TIDE_WORKER_LEFT &&
        index >= tide_board_wanted(&crew->board))
        return 1;
    return index >= crew->wanted ||
           (left && tide_board_is_closed(&crew->board));
}

/* Too many in a row that did nothing, or one that said why it cannot start. */
static int is_hopeless(const struct tide_crew *crew, uint32_t index)
{
    return crew->futile > FUTILE_LIMIT + crew->wanted ||
           atomic_load(&crew->board.workers[index].failure) != 0;
}

static void vacate(struct tide_crew *crew, uint32_t index,
                   const struct tide_death *death, int useful)
{
    struct tide_place *place = &crew->places[index];
    struct tide_worker_record *record = &crew->board.workers[index];
    char reason[TIDE_REASON_BYTES];

    int status = death->wait_status;
    int over = is_over(crew, index, death);
    atomic_store(&record->phase, TIDE_WORKER_VACANT);
    atomic_store(&record->last_status, status);
    atomic_store(&record->last_pid, place->pid);
    atomic_store(&record->pid, 0);
    /* Its pid may be another's now: never signal it. */
    place->state = TIDE_VACANT;
    if (useful)
        crew->futile = 0;
    else if (!over)
        crew->futile++;
    if (!over && is_hopeless(crew, index)) {
        describe_death(reason, sizeof reason, index, status);
        break_crew(crew, reason);
        over = 1;
    }
    if (over) {
        place->state = TIDE_ENDED;
        return;
    }
    atomic_fetch_add(&record->restarts, 1);
    place->due_ns = crew->futile ? tide_now_ns() + backoff_ns(crew->futile) : 0;
}

static void bury(struct tide_crew *crew, uint32_t index, int status)
{
    struct tide_place *place = &crew->places[index];
    struct tide_death death = { .worker = index,
                                .pid = place->pid,
                                .wait_status = status,
                                .cause =
                                    tide_watch_cause(crew, index, status) };
    int useful = was_useful(place, &crew->board.workers[index], status);
    TIDE_STEP(CREW_REAPED);
    tide_board_reclaim(&crew->board, &death);
    tide_commons_reaped(place->pid);
    tide_commons_cancel(place->who);
    TIDE_STEP(CREW_RECLAIMED);
    vacate(crew, index, &death, useful);
    TIDE_STEP(CREW_VACANT);
    tide_board_wake_all(&crew->board);
}

/*
 * A killed process may wait for a disk or a file server that does not answer, or be
 * a zombie that a debugger holds. Nobody shall wait for it: it is buried as it is,
 * and reaped whenever it ends, when nobody knows its pid any more.
 */
uint64_t tide_crew_give_up(struct tide_crew *crew, uint64_t now_ns)
{
    uint64_t next_ns = TIDE_FOREVER;
    if (!crew->is_killing)
        return next_ns;
    for (uint32_t i = 0; i < crew->manned; i++) {
        struct tide_place *place = &crew->places[i];
        if (place->state != TIDE_RUNNING || place->killed_ns == 0)
            continue;
        if (now_ns >= place->killed_ns + LAST_HOURS_NS &&
            tide_process_is_still(place->pid)) {
            bury(crew, i, SIGKILL); /* as waitpid(2) would report it */
            continue;
        }
        uint64_t at_ns = place->killed_ns + LAST_HOURS_NS;
        at_ns = at_ns > now_ns ? at_ns : now_ns + LAST_HOURS_NS;
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    crew->is_killing = next_ns != TIDE_FOREVER;
    return next_ns;
}

void tide_crew_take_note(struct tide_crew *crew, uint32_t index, int status,
                         uint64_t now_ns)
{
    if (WIFCONTINUED(status)) {
        tide_watch_on_continue(crew, index);
    } else if (!WIFSTOPPED(status)) {
        bury(crew, index, status);
    } else if (!tide_watch_on_stop(crew, index, status, now_ns)) {
        tide_board_rouse(&crew->board, index);
        tide_board_wake_all(&crew->board);
    }
}
