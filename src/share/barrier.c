/*
 * Who has arrived stands in line: the round is full when so many are there that the
 * one who comes is the last.
 *
 *   State                By            When
 *   FILLING -> ACTING    last one      arrives; the others stay
 *   ACTING  -> OPENING   the same      its action is done: all may go
 *   OPENING -> FILLING   the same      all have been sent: the next round
 *   any     -> BREAKING  any           a time limit, abort, one of those who have
 *                                      arrived is dead, or nobody is left to come
 *   BREAKING -> BROKEN   the same      all have been told
 *   any     -> RESETTING any           reset
 *   RESETTING -> FILLING the same      all have been told
 *
 * All inside the guard, one store each. OPENING, BREAKING and RESETTING are seen only
 * after a death there, and whoever comes next goes on with them: to empty the line a
 * second time does nothing to those who are out of it. Somebody is out of it when its
 * bit is cleared; it was told of a break if its bit in `failed` was set before that.
 *
 * Who comes while the last one acts belongs to the next round, and waits at the gate.
 * A burier takes a dead one out of the line and so its arrival back: it leaves word in
 * `lost` first, and whoever looks next breaks the round.
 */
#include "share/sync_inner.h"

enum state { FILLING, ACTING, OPENING, BREAKING, BROKEN, RESETTING };

struct barrier {
    struct tide_guard guard;
    uint32_t parties; /* constant, as the next two */
    uint64_t timeout_ns;
    uint64_t action;        /* a load, or 0 */
    _Atomic uint32_t state; /* enum state */
    _Atomic uint32_t lost;
    _Atomic uint64_t actor; /* incarnation and entry */
    struct tide_waiters line;
    struct tide_waiters gate;
    struct tide_stuck stuck;
    _Atomic uint64_t failed[TIDE_ENTRY_WORDS];
};

struct plan {
    uint32_t parties;
    uint64_t timeout_ns;
    int failed;
};

static void prepare(struct tide_object *object, void *context)
{
    struct plan *plan = context;
    struct barrier *barrier = tide_commons_at(object->body);
    barrier->parties = plan->parties;
    barrier->timeout_ns = plan->timeout_ns;
    plan->failed = tide_guard_init(&barrier->guard);
}

int tide_barrier_make(tide_handle *out, uint32_t parties,
                      const struct tide_message *action, uint64_t timeout_ns,
                      struct tide_error *err)
{
    struct plan plan = { .parties = parties, .timeout_ns = timeout_ns };
    int status = tide_object_make(out, TIDE_SHARED_BARRIER,
                                  sizeof(struct barrier), prepare, &plan, err);
    if (status != TIDE_OK)
        return status;
    struct barrier *barrier = tide_object_body(*out);
    if (action != NULL)
        barrier->action = tide_load_make(*out, action);
    if (!plan.failed && (action == NULL || barrier->action != 0))
        return TIDE_OK;
    tide_object_drop(*out);
    return plan.failed
               ? tide_fail(err, TIDE_ESYS, "the system has no robust mutexes")
               : tide_fail(err, TIDE_ENOMEM, "no shared memory left");
}

/* ---- the line ---- */

static uint64_t bit_of(uint32_t entry)
{
    return UINT64_C(1) << (entry % 64);
}

static uint32_t count_line(struct barrier *barrier)
{
    uint32_t count = 0;
    for (uint32_t word = 0; word < TIDE_ENTRY_WORDS; word++)
        count += (uint32_t)__builtin_popcountll(
            atomic_load(&barrier->line.bits[word]));
    return count;
}

static int is_dead(uint32_t entry)
{
    return !tide_entry_is_alive(tide_entry_who(entry));
}

/* Has one of those who have arrived died, or the one who acts? */
static int has_dead(struct barrier *barrier)
{
    uint64_t actor = atomic_load(&barrier->actor);
    struct tide_who who = { (uint32_t)actor, (uint32_t)(actor >> 32) };
    if (atomic_load(&barrier->lost) ||
        (atomic_load(&barrier->state) == ACTING && !tide_entry_is_alive(who)))
        return 1;
    for (uint32_t word = 0; word < TIDE_ENTRY_WORDS; word++)
        for (uint64_t bits = atomic_load(&barrier->line.bits[word]); bits != 0;
             bits &= bits - 1)
            if (is_dead(word * 64 + (uint32_t)__builtin_ctzll(bits)))
                return 1;
    return 0;
}

/* Send all who are in line. */
static void empty_line(struct barrier *barrier, int failing)
{
    for (uint32_t word = 0; word < TIDE_ENTRY_WORDS; word++) {
        uint64_t bits = atomic_load(&barrier->line.bits[word]);
        if (failing)
            atomic_fetch_or(&barrier->failed[word], bits);
        atomic_fetch_and(&barrier->line.bits[word], ~bits);
        for (; bits != 0; bits &= bits - 1)
            tide_entry_ring(word * 64 + (uint32_t)__builtin_ctzll(bits));
    }
}

/* Go through one of the states that are to be left at once. Inside the guard. */
static void go_through(struct barrier *barrier, enum state state)
{
    atomic_store(&barrier->state, state);
    empty_line(barrier, state != OPENING);
    atomic_store(&barrier->lost, 0);
    atomic_store(&barrier->state, state == BREAKING ? BROKEN : FILLING);
    tide_waiters_wake(&barrier->gate, UINT32_MAX);
}

static void enter(struct barrier *barrier)
{
    if (!tide_guard_enter(&barrier->guard))
        return;
    enum state state = atomic_load(&barrier->state);
    if (state == OPENING || state == BREAKING || state == RESETTING)
        go_through(barrier, state);
    tide_guard_mended(&barrier->guard);
}

/* ---- rounds ---- */

static uint64_t our_name(void)
{
    uint32_t self = tide_commons.self;
    return (uint64_t)tide_entry_who(self).incarnation << 32 | self;
}

static int join_line(struct barrier *barrier, struct tide_wait *wait,
                     uint32_t *place)
{
    uint32_t self = tide_commons.self;
    *place = count_line(barrier);
    if (*place + 1 == barrier->parties) {
        atomic_store(&barrier->actor, our_name());
        atomic_store(&barrier->state, ACTING);
        return TIDE_OK;
    }
    atomic_fetch_and(&barrier->failed[self / 64], ~bit_of(self));
    wait->set = &barrier->line;
    tide_wait_begin(wait);
    return TIDE_EAGAIN;
}

/* Returns TIDE_EAGAIN when we stand in line or at the gate. */
static int arrive(struct barrier *barrier, struct tide_wait *wait,
                  uint32_t *place)
{
    int status = TIDE_EAGAIN;
    enter(barrier);
    if (atomic_load(&barrier->state) != BROKEN && has_dead(barrier))
        go_through(barrier, BREAKING);
    switch ((enum state)atomic_load(&barrier->state)) {
    case FILLING:
        status = join_line(barrier, wait, place);
        break;
    case ACTING:
        wait->set = &barrier->gate;
        tide_wait_begin(wait);
        break;
    default:
        status = TIDE_ECLOSED;
        break;
    }
    tide_guard_leave(&barrier->guard);
    return status;
}

/* Out of line: were we sent on, or told of a break? */
static int learn(struct barrier *barrier)
{
    uint32_t self = tide_commons.self;
    uint64_t before =
        atomic_fetch_and(&barrier->failed[self / 64], ~bit_of(self));
    return (before & bit_of(self)) != 0 ? TIDE_ECLOSED : TIDE_OK;
}

/* Break the round if we still stand in its line. Returns 0 if we do not. */
static int break_round(struct barrier *barrier)
{
    uint32_t self = tide_commons.self;
    enter(barrier);
    int in_line =
        (atomic_load(&barrier->line.bits[self / 64]) & bit_of(self)) != 0;
    if (in_line)
        go_through(barrier, BREAKING);
    tide_guard_leave(&barrier->guard);
    return in_line;
}

/* Rest in line. What makes us give up is everybody's. */
static int stay(struct barrier *barrier, struct tide_wait *wait)
{
    int status = tide_wait_rest(wait);
    if (status == TIDE_OK || (status == TIDE_EAGAIN && !has_dead(barrier)))
        return status;
    if (break_round(barrier))
        return status == TIDE_EAGAIN ? TIDE_OK : status; /* told like all */
    return TIDE_OK;
}

int tide_barrier_wait(struct tide_wait *wait, uint32_t *place)
{
    struct barrier *barrier = tide_object_body(wait->object);
    wait->stuck = &barrier->stuck;
    for (;;) {
        int status =
            wait->is_listed ? TIDE_EAGAIN : arrive(barrier, wait, place);
        if (status != TIDE_EAGAIN)
            return status;
        int in_line = wait->set == &barrier->line;
        status = in_line ? stay(barrier, wait) : tide_wait_rest(wait);
        if (status == TIDE_EAGAIN)
            return status;
        int was_sent = tide_wait_end(wait);
        int told = in_line ? learn(barrier) : TIDE_OK;
        if (status != TIDE_OK && (in_line || !was_sent))
            return status;
        if (in_line)
            return told;
    }
}

int tide_barrier_open(tide_handle handle)
{
    struct barrier *barrier = tide_object_body(handle);
    enter(barrier);
    int is_ours = atomic_load(&barrier->state) == ACTING &&
                  atomic_load(&barrier->actor) == our_name();
    if (is_ours)
        go_through(barrier, OPENING);
    tide_guard_leave(&barrier->guard);
    return is_ours ? 0 : -1;
}

void tide_barrier_abort(tide_handle handle)
{
    struct barrier *barrier = tide_object_body(handle);
    enter(barrier);
    go_through(barrier, BREAKING);
    tide_guard_leave(&barrier->guard);
}

void tide_barrier_reset(tide_handle handle)
{
    struct barrier *barrier = tide_object_body(handle);
    enter(barrier);
    go_through(barrier, RESETTING);
    tide_guard_leave(&barrier->guard);
}

/* ---- looks ---- */

uint32_t tide_barrier_parties(tide_handle handle)
{
    return ((struct barrier *)tide_object_body(handle))->parties;
}

uint32_t tide_barrier_waiting(tide_handle handle)
{
    struct barrier *barrier = tide_object_body(handle);
    return atomic_load(&barrier->state) == BROKEN ? 0 : count_line(barrier);
}

int tide_barrier_is_broken(tide_handle handle)
{
    struct barrier *barrier = tide_object_body(handle);
    enum state state = atomic_load(&barrier->state);
    return state == BROKEN || state == BREAKING;
}

int tide_barrier_action(tide_handle handle, struct tide_message *out)
{
    const struct barrier *barrier = tide_object_body(handle);
    if (barrier->action == 0)
        return -1;
    *out = tide_load_message(tide_commons_at(barrier->action));
    return 0;
}

uint64_t tide_barrier_timeout_ns(tide_handle handle)
{
    return ((struct barrier *)tide_object_body(handle))->timeout_ns;
}

static void destroy(struct tide_object *object)
{
    struct barrier *barrier = tide_commons_at(object->body);
    tide_load_free(barrier->action);
}

static void bury(struct tide_object *object, uint32_t entry)
{
    struct barrier *barrier = tide_commons_at(object->body);
    uint64_t line = atomic_load(&barrier->line.bits[entry / 64]);
    if ((line & bit_of(entry)) != 0)
        atomic_store(&barrier->lost, 1);
    tide_waiters_bury(&barrier->gate, &barrier->stuck, entry);
    tide_waiters_bury(&barrier->line, &barrier->stuck, entry);
}

const struct tide_kind_ops tide_barrier_ops = { .destroy = destroy,
                                                .bury = bury };
