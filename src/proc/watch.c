/*
 * A worker knows nothing of time limits: the supervisor looks now and then which
 * item each has in hand, and notes when it saw it first. So an item is seen later
 * than it began, and never killed early.
 *
 * It must be that item that dies and never an innocent next one, which may begin
 * at any instant. So there is no killing at a glance but an ARREST: the worker is
 * made to stop, and when it stands still a second look is taken. Guilty is who still
 * has the same item in hand, or the slot that the host wants cut off, or is STUCK.
 *
 *            overdue, cut off, or    a stop is reported         innocent as it runs
 *            stuck for good
 * AT_LARGE   call -> CALLED          somebody else's: is held   -
 * CALLED     stands still, or after  guilty: SIGKILL -> KILLED  seized: its stop will
 *            PATIENCE: SIGKILL       else let go -> AT_LARGE    come; else SIGCONT
 *            -> KILLED                                          -> AT_LARGE
 * KILLED     -                       -                          -
 *
 * To call is to seize it (seize.h): nobody else can have it go on, so that nothing
 * begins between the second look and SIGKILL. Where that is not allowed, or a debugger
 * has the worker, it is SIGSTOP, again at each look, and SIGCONT to let it go; then
 * somebody's SIGCONT may come in between. So whoever dies is judged once more when it
 * is reaped, and may turn out to have died a plain death.
 * The report of a stop may be lost to such a SIGCONT, or never come, when a debugger
 * has the worker or it waits in the kernel for what nothing interrupts: but then it
 * stands still all the same (still.h). PATIENCE ends what is neither.
 *
 * HELD  A worker that somebody else stopped may have been stopped where it has an
 * item without having said so, or a finished slot without having handed it over.
 * Both have to end by their limit. So for a worker that is held the slots are asked,
 * and one that is complete, or DONE, counts as in hand: to kill who had only that
 * costs nothing.
 *
 * STUCK  A worker that is held though it is to leave (the board is closed, its place
 * not wanted, or it has run the one slot that it was for), with no item in hand that
 * would be lost, is of no use to anybody, and the end of its crew waits for it. When it
 * has been so for a PAUSE it is sent SIGCONT. If that was in vain, or it is stopped
 * again, some URGES later it is killed. One that has an item in hand stays as it is:
 * somebody may mean to continue it.
 *
 * The terminal's Ctrl-Z stops the supervisor together with the workers, long before a
 * PAUSE is over. When it is continued, the time since its last look is nobody's: it is
 * added to when each item was first seen, and who is stuck.
 *
 * A crew that stops kills all the same: SIGKILL needs no SIGCONT. While no crew has
 * timed work, or somebody who is held, nothing here costs anything; see board_watch.c
 * for how a watch ends.
 */
#include "proc/watch.h"

#include "base/clock.h"
#include "base/fault.h"
#include "proc/crew.h"
#include "proc/seize.h"
#include "proc/still.h"

#include <signal.h>
#include <sys/wait.h>

enum {
    NS_PER_MS = 1000 * 1000,
    LEAST_PERIOD_MS = 1,
    MOST_PERIOD_MS = 20,
    LOOKS_PER_LIMIT = 8,
    IDLE_NS = 1000 * 1000 * 1000,     /* without timed work: the watch ends */
    PATIENCE_NS = 1000 * 1000 * 1000, /* for a stop that is not reported */
    PAUSE_NS = 200 * 1000 * 1000,     /* before each of these, and the end */
    URGES = 10
};

/* ---- the judge ---- */

static int is_same_flight(const struct tide_item *a, const struct tide_item *b)
{
    return a->slot == b->slot && a->sequence == b->sequence;
}

/* What the worker has in hand. */
static int item_of(struct tide_item *out, const struct tide_crew *crew,
                   uint32_t index)
{
    const struct tide_watch *watch = &crew->places[index].watch;
    return tide_board_item_of(out, &crew->board, index) ||
           ((watch->is_held || watch->arrest == TIDE_KILLED) &&
            tide_board_find_item(out, &crew->board, index));
}

/* Behind the last item it only hands over, unless it cannot. */
static int is_limited(const struct tide_watch *watch,
                      const struct tide_item *item)
{
    return item->hand < item->count || watch->is_held;
}

/* Will it run nothing more than what it has in hand? */
static int is_to_leave(const struct tide_crew *crew, uint32_t index)
{
    const struct tide_board *board = &crew->board;
    return index >= crew->wanted || tide_board_is_closed(board) ||
           (tide_board_is_single(board) &&
            atomic_load(&board->workers[index].hand) != 0);
}

/* Is it held, and to leave, and has no item that would be lost with it? */
static int is_stuck(const struct tide_crew *crew, uint32_t index)
{
    struct tide_item item;
    return crew->places[index].watch.is_held && is_to_leave(crew, index) &&
           !(tide_board_find_claimed(&item, &crew->board, index) &&
             item.hand < item.count);
}

/* Is the worker now what it is to die for, or has it that in hand? */
static enum tide_death_cause judge(const struct tide_crew *crew, uint32_t index,
                                   uint64_t now_ns)
{
    const struct tide_watch *watch = &crew->places[index].watch;
    struct tide_item item;
    uint32_t owner;
    /* Its record names a slot a moment after the claim: the slot itself is asked. */
    if (watch->is_cut &&
        tide_board_owner_of(&owner, &crew->board, watch->cut.slot,
                            watch->cut.sequence) &&
        owner == index)
        return TIDE_DEATH_CANCEL;
    if (watch->has_item && item_of(&item, crew, index) &&
        is_same_flight(&item, &watch->item) && item.hand == watch->item.hand &&
        item.timeout_ms != 0 && is_limited(watch, &item) &&
        now_ns >= watch->since_ns + (uint64_t)item.timeout_ms * NS_PER_MS)
        return TIDE_DEATH_TIMEOUT;
    if (watch->urged == URGES && watch->stuck_ns != 0 &&
        now_ns >= watch->stuck_ns + PAUSE_NS && is_stuck(crew, index))
        return TIDE_DEATH_STUCK;
    return TIDE_DEATH_PLAIN;
}

static void execute(struct tide_crew *crew, uint32_t index,
                    enum tide_death_cause verdict)
{
    struct tide_watch *watch = &crew->places[index].watch;
    tide_crew_kill(crew, index);
    watch->arrest = TIDE_KILLED;
    watch->verdict = verdict;
}

static void call(struct tide_place *place, uint64_t now_ns)
{
    place->watch.arrest = TIDE_CALLED;
    place->watch.called_ns = now_ns;
    place->watch.is_seized = tide_process_seize(place->pid);
    if (!place->watch.is_seized)
        kill(place->pid, SIGSTOP);
    TIDE_STEP(WATCH_CALLED);
}

/* It has finished what it was to die for. One that is seized has yet to stop. */
static void pardon(struct tide_place *place)
{
    place->watch.is_cut = 0;
    if (place->watch.arrest != TIDE_CALLED || place->watch.is_seized)
        return;
    place->watch.arrest = TIDE_AT_LARGE;
    kill(place->pid, SIGCONT);
}

/* It is guilty as far as can be seen while it runs. */
static void pursue(struct tide_crew *crew, uint32_t index,
                   enum tide_death_cause verdict, uint64_t now_ns)
{
    struct tide_place *place = &crew->places[index];
    struct tide_watch *watch = &place->watch;
    switch (watch->arrest) {
    case TIDE_AT_LARGE:
        call(place, now_ns);
        if (watch->is_held && !watch->is_seized)
            execute(crew, index, verdict); /* it stands still already */
        break;
    case TIDE_CALLED:
        if (now_ns - watch->called_ns > PATIENCE_NS)
            execute(crew, index, verdict);
        else if (!watch->is_seized)
            kill(place->pid, SIGSTOP);
        break;
    case TIDE_KILLED:
        break;
    }
}

/* ---- events ---- */

int tide_watch_on_stop(struct tide_crew *crew, uint32_t index, int wait_status,
                       uint64_t now_ns)
{
    struct tide_place *place = &crew->places[index];
    struct tide_watch *watch = &place->watch;
    crew->is_holding = 1; /* perhaps */
    if (watch->arrest == TIDE_AT_LARGE)
        watch->is_held = 1;
    if (watch->arrest != TIDE_CALLED)
        return 0;
    enum tide_death_cause verdict = judge(crew, index, now_ns);
    TIDE_STEP(WATCH_JUDGED);
    if (verdict != TIDE_DEATH_PLAIN) {
        execute(crew, index, verdict);
    } else if (watch->is_seized) {
        watch->is_held = !tide_process_release(place->pid, wait_status);
        watch->arrest = TIDE_AT_LARGE;
        watch->is_cut = watch->is_seized = 0;
        return !watch->is_held;
    } else {
        pardon(place);
    }
    return 1;
}

void tide_watch_on_continue(struct tide_crew *crew, uint32_t index)
{
    crew->places[index].watch.is_held = 0;
    crew->places[index].watch.stuck_ns = 0;
}

void tide_watch_excuse(struct tide_crew *crew, uint64_t gap_ns)
{
    for (uint32_t i = 0; i < crew->manned; i++) {
        struct tide_watch *watch = &crew->places[i].watch;
        if (watch->arrest != TIDE_KILLED)
            watch->since_ns += gap_ns;
        if (watch->stuck_ns != 0)
            watch->stuck_ns += gap_ns;
    }
}

enum tide_death_cause tide_watch_cause(const struct tide_crew *crew,
                                       uint32_t index, int wait_status)
{
    const struct tide_watch *watch = &crew->places[index].watch;
    if (watch->arrest != TIDE_KILLED || !WIFSIGNALED(wait_status) ||
        WTERMSIG(wait_status) != SIGKILL)
        return TIDE_DEATH_PLAIN;
    return judge(crew, index, tide_now_ns()) != TIDE_DEATH_PLAIN
               ? watch->verdict
               : TIDE_DEATH_PLAIN;
}

void tide_watch_begin(struct tide_crew *crew, uint64_t now_ns)
{
    if (!crew->is_watching)
        crew->timed_ns = now_ns;
    crew->is_watching = 1;
}

static void cut_off(struct tide_crew *crew, uint32_t slot, uint32_t sequence)
{
    uint32_t index;
    if (!tide_board_owner_of(&index, &crew->board, slot, sequence))
        return;
    struct tide_place *place = &crew->places[index];
    if (place->state != TIDE_RUNNING)
        return;
    /* An earlier one it has finished: a worker has one slot at a time. */
    place->watch.is_cut = 1;
    place->watch.cut = (struct tide_item){ .slot = slot, .sequence = sequence };
    crew->is_pursuing = 1; /* the loop looks before it sleeps */
}

void tide_watch_heed_cuts(struct tide_crew *crew)
{
    uint32_t seen = tide_board_cut_count(&crew->board);
    if (seen == crew->cuts_heeded)
        return;
    crew->cuts_heeded = seen;
    for (uint32_t i = 0; i < tide_board_slot_count(&crew->board); i++) {
        uint32_t sequence = tide_board_cut_of(&crew->board, i);
        if (sequence != 0)
            cut_off(crew, i, sequence);
    }
}

/* ---- looking ---- */

/* Note the item in hand. @return when it is overdue, or TIDE_FOREVER */
static uint64_t note_item(struct tide_crew *crew, uint32_t index,
                          uint64_t now_ns)
{
    struct tide_watch *watch = &crew->places[index].watch;
    struct tide_item item;
    int had = watch->has_item;
    watch->has_item = item_of(&item, crew, index) && item.timeout_ms != 0;
    if (!watch->has_item)
        return TIDE_FOREVER;
    crew->timed_ns = now_ns;
    if (!had || !is_same_flight(&item, &watch->item) ||
        item.hand != watch->item.hand)
        watch->since_ns = tide_now_ns(); /* after the look: not too early */
    watch->item = item;
    return is_limited(watch, &item)
               ? watch->since_ns + (uint64_t)item.timeout_ms * NS_PER_MS
               : TIDE_FOREVER;
}

/* Have it go on if it is stuck. @return when to look again, or TIDE_FOREVER */
static uint64_t urge(struct tide_crew *crew, uint32_t index, uint64_t now_ns)
{
    struct tide_place *place = &crew->places[index];
    struct tide_watch *watch = &place->watch;
    if (watch->arrest != TIDE_AT_LARGE)
        return TIDE_FOREVER;
    if (!is_stuck(crew, index)) {
        watch->stuck_ns = 0;
        return TIDE_FOREVER;
    }
    if (watch->stuck_ns == 0) {
        watch->stuck_ns = now_ns;
    } else if (watch->urged < URGES && now_ns >= watch->stuck_ns + PAUSE_NS) {
        kill(place->pid, SIGCONT);
        watch->urged++;
        watch->stuck_ns = now_ns;
    }
    return watch->stuck_ns + PAUSE_NS;
}

static uint64_t look_at(struct tide_crew *crew, uint32_t index, uint64_t now_ns)
{
    struct tide_place *place = &crew->places[index];
    uint64_t item_ns =
        crew->is_watching ? note_item(crew, index, now_ns) : TIDE_FOREVER;
    uint64_t urge_ns = urge(crew, index, now_ns);
    uint64_t next_ns = item_ns < urge_ns ? item_ns : urge_ns;
    /* Before the look: it runs nothing between the two. */
    int is_still =
        place->watch.arrest == TIDE_CALLED && tide_process_is_still(place->pid);
    enum tide_death_cause verdict = judge(crew, index, now_ns);
    if (verdict == TIDE_DEATH_PLAIN) {
        pardon(place);
        return next_ns;
    }
    if (is_still)
        execute(crew, index, verdict);
    else
        pursue(crew, index, verdict, now_ns);
    crew->is_pursuing = 1;
    return TIDE_FOREVER;
}

static uint64_t period_ns(const struct tide_crew *crew)
{
    uint32_t period_ms = tide_board_watching(&crew->board) / LOOKS_PER_LIMIT;
    if (period_ms < LEAST_PERIOD_MS)
        period_ms = LEAST_PERIOD_MS;
    if (period_ms > MOST_PERIOD_MS)
        period_ms = MOST_PERIOD_MS;
    return (uint64_t)period_ms * NS_PER_MS;
}

/* The watch ends when there was nothing timed for a while. */
static void rest(struct tide_crew *crew, uint64_t now_ns)
{
    if (now_ns - crew->timed_ns < IDLE_NS)
        return;
    crew->timed_ns = now_ns;
    crew->is_watching = !tide_board_end_watch(&crew->board);
}

uint64_t tide_watch_look(struct tide_crew *crew, uint64_t now_ns)
{
    uint64_t next_ns = TIDE_FOREVER;
    if (crew->stopping ||
        (!crew->is_watching && !crew->is_pursuing && !crew->is_holding))
        return next_ns;
    crew->is_pursuing = crew->is_holding = 0;
    for (uint32_t i = 0; i < crew->manned; i++) {
        if (crew->places[i].state != TIDE_RUNNING)
            continue;
        uint64_t at_ns = look_at(crew, i, now_ns);
        next_ns = at_ns < next_ns ? at_ns : next_ns;
        crew->is_holding |= crew->places[i].watch.is_held;
    }
    if (crew->is_watching)
        rest(crew, now_ns);
    if (!crew->is_watching && !crew->is_pursuing)
        return next_ns;
    uint64_t period = now_ns + period_ns(crew);
    return period < next_ns ? period : next_ns;
}
