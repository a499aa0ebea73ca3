/*
 * How the two sides of the board sleep and wake each other. The arguments are at
 * the top of board.c.
 *
 * Spinning pays only while a processor has nothing better to do. Of our own
 * processes no more may be awake than there are processors. Of others nothing is
 * known but that spins end in vain: after some in a row (work is long, or the
 * processors are taken) only now and then one is tried.
 */
#include "shm/board_inner.h"

#include "base/clock.h"
#include "base/fault.h"
#include "shm/wake.h"

#include <poll.h>

enum {
    SPIN_NS = 40 * 1000, /* about what falling asleep and waking costs */
    SPIN_TURNS = 64,     /* turns between two looks at the clock */
    MISSES_MAX = 4,      /* after as many in a row, */
    TRY_EVERY = 16       /* one in so many waits begins with a spin */
};

static int note_spin(struct tide_board *board, int found)
{
    board->spin_misses = found ? 0 : board->spin_misses + 1;
    return found;
}

uint32_t tide_board_count_bits(const struct tide_board *board,
                               const _Atomic uint64_t *bits)
{
    uint32_t count = 0;
    const uint32_t words = (tide_board_worker_count(board) + 63) / 64;
    for (uint32_t i = 0; i < words; i++) {
        uint64_t word = atomic_load(&bits[i]);
        if (word != 0) /* mostly it is not */
            count += (uint32_t)__builtin_popcountll(word);
    }
    return count;
}

/* Should this wait begin with a spin? */
static int may_spin(struct tide_board *board)
{
    const struct tide_board_shared *shared = board->shared;
    if (board->spin_misses >= MISSES_MAX && ++board->rests % TRY_EVERY != 0)
        return 0;
    /* One processor is the host's. */
    return tide_board_wanted(board) <
           shared->cpu_count + tide_board_count_bits(board, shared->asleep);
}

/* ---- waking ---- */

static void wake_worker(struct tide_board *board, uint32_t worker)
{
    _Atomic uint32_t *word = &board->workers[worker].wake;
    atomic_fetch_add_explicit(word, 1, memory_order_release);
    tide_futex_wake(word);
}

void tide_board_wake_any(struct tide_board *board, uint32_t count)
{
    const uint32_t workers = tide_board_worker_count(board);
    for (uint32_t base = 0; base < workers; base += 64) {
        _Atomic uint64_t *bits = &board->shared->asleep[base / 64];
        uint64_t seen = atomic_load_explicit(bits, memory_order_seq_cst);
        while (seen != 0 && count > 0) {
            uint64_t bit = seen & -seen;
            seen &= ~bit;
            if (atomic_fetch_and(bits, ~bit) & bit) {
                wake_worker(board, base + (uint32_t)__builtin_ctzll(bit));
                count--;
            }
        }
    }
}

void tide_board_kick(struct tide_board *board, uint32_t count)
{
    /* The tail written before this is in the total order before the look. */
    atomic_thread_fence(memory_order_seq_cst);
    /* Who spins will take one each without being woken. */
    uint32_t spinning = tide_board_count_bits(board, board->shared->spinning);
    if (count > spinning)
        tide_board_wake_any(board, count - spinning);
}

void tide_board_wake_one(struct tide_board *board, uint32_t worker)
{
    _Atomic uint64_t *bits = &board->shared->asleep[worker / 64];
    const uint64_t bit = UINT64_C(1) << (worker % 64);
    if (atomic_fetch_and(bits, ~bit) & bit)
        wake_worker(board, worker);
}

void tide_board_forget_rest(struct tide_board *board, uint32_t worker)
{
    const uint64_t bit = UINT64_C(1) << (worker % 64);
    atomic_fetch_and(&board->shared->asleep[worker / 64], ~bit);
    atomic_fetch_and(&board->shared->spinning[worker / 64], ~bit);
}

void tide_board_rouse(struct tide_board *board, uint32_t worker)
{
    tide_board_forget_rest(board, worker);
    /* It may have gone on and be asleep again, now without its bit. */
    wake_worker(board, worker);
}

void tide_board_wake_all(struct tide_board *board)
{
    tide_board_kick(board, TIDE_WORKERS_MAX);
    tide_event_raise(board->event_fd);
}

/* ---- host ---- */

static int enough_arrived(struct tide_board *board, uint32_t count)
{
    struct tide_board_shared *shared = board->shared;
    uint64_t done = atomic_load(&shared->done);
    return tide_done_count(done) >= count || (done & TIDE_DONE_URGENT) != 0 ||
           atomic_load(&shared->orphan_tail) != board->orphans_seen;
}

static int spin_for_arrivals(struct tide_board *board, uint32_t count)
{
    uint64_t until = tide_now_ns() + SPIN_NS;
    do {
        for (int turn = 0; turn < SPIN_TURNS; turn++) {
            if (enough_arrived(board, count))
                return note_spin(board, 1);
            tide_pause();
        }
    } while (tide_now_ns() < until);
    return note_spin(board, 0);
}

int tide_board_arm(struct tide_board *board)
{
    atomic_store(&board->shared->wake_at, 1);
    return board->arrived_at < board->arrived_count || enough_arrived(board, 1);
}

void tide_board_disarm(struct tide_board *board)
{
    atomic_store(&board->shared->wake_at, TIDE_NOBODY);
}

int tide_board_wait(struct tide_board *board, uint32_t count, int watch_fd,
                    uint64_t deadline_ns)
{
    struct tide_board_shared *shared = board->shared;
    if (count > board->flight_count)
        count = board->flight_count > 0 ? board->flight_count : 1;
    if (board->arrived_at < board->arrived_count ||
        enough_arrived(board, count))
        return TIDE_OK;
    if (may_spin(board) && spin_for_arrivals(board, count))
        return TIDE_OK;

    int status = TIDE_OK;
    tide_board_rally(board);
    atomic_store(&shared->wake_at, count);
    if (!enough_arrived(board, count)) {
        struct pollfd fds[2] = { { .fd = board->event_fd, .events = POLLIN },
                                 { .fd = watch_fd, .events = POLLIN } };
        int ready = TIDE_FAULT(HOST_POLL)
                        ? -1
                        : poll(fds, 2, tide_poll_timeout_ms(deadline_ns));
        if (ready == 0)
            status = TIDE_ETIMEOUT;
        else if (ready < 0)
            status = TIDE_EINTR;
        if (fds[0].revents != 0 && ready > 0)
            tide_event_clear(board->event_fd);
    }
    atomic_store(&shared->wake_at, TIDE_NOBODY);
    return status;
}

void tide_board_close(struct tide_board *board)
{
    atomic_store(&board->shared->closing, 1);
    tide_board_kick(board, TIDE_WORKERS_MAX);
}

void tide_board_resize(struct tide_board *board, uint32_t count)
{
    struct tide_board_shared *shared = board->shared;
    uint32_t manned = tide_board_worker_count(board);
    if (count > manned)
        atomic_store(&shared->manned, count);
    atomic_store(&shared->wanted, count);
    for (uint32_t i = count; i < manned; i++)
        tide_board_wake_one(board, i);
}

int tide_board_is_closed(const struct tide_board *board)
{
    return atomic_load(&board->shared->closing) != 0;
}

/* ---- workers ---- */

int tide_board_has_ready(const struct tide_board *board)
{
    struct tide_board_shared *shared = board->shared;
    uint64_t head = atomic_load(&shared->ready_head);
    return head < atomic_load(&shared->ready_tail);
}

static uint64_t count_ready(const struct tide_board *board)
{
    uint64_t head = atomic_load(&board->shared->ready_head);
    uint64_t tail = atomic_load(&board->shared->ready_tail);
    return tail > head ? tail - head : 0;
}

uint32_t tide_board_queued(const struct tide_board *board)
{
    uint64_t ready = count_ready(board);
    return ready < board->flight_count ? (uint32_t)ready : board->flight_count;
}

/* Is there anything that this worker should not sleep on? */
static int has_reason(const struct tide_board *board, uint32_t worker)
{
    return tide_board_has_ready(board) || tide_board_has_mail(board, worker) ||
           tide_board_is_closed(board) || !tide_board_is_wanted(board, worker);
}

/*
 * Whoever submits counts on each spinner for one slot. So a spinner first takes
 * its bit back and then looks: what was submitted while the bit was seen is seen
 * here. More than the one it takes may have come when it was about to take one
 * already; for that it wakes another.
 */
static int spin_for_work(struct tide_board *board, uint32_t worker)
{
    _Atomic uint64_t *bits = &board->shared->spinning[worker / 64];
    const uint64_t bit = UINT64_C(1) << (worker % 64);
    uint64_t until = tide_now_ns() + SPIN_NS;
    int found = 0;
    atomic_fetch_or(bits, bit);
    TIDE_STEP(REST_SPINNING);
    do {
        for (int turn = 0; turn < SPIN_TURNS && !found; turn++) {
            found = has_reason(board, worker);
            tide_pause();
        }
    } while (!found && tide_now_ns() < until);
    atomic_fetch_and(bits, ~bit);
    if (count_ready(board) > 1)
        tide_board_kick(board, 1);
    return note_spin(board, found);
}

static void sleep_for_work(struct tide_board *board, uint32_t worker,
                           uint64_t deadline_ns)
{
    _Atomic uint32_t *wake = &board->workers[worker].wake;
    _Atomic uint64_t *bits = &board->shared->asleep[worker / 64];
    const uint64_t bit = UINT64_C(1) << (worker % 64);
    uint32_t seen = atomic_load(wake);
    atomic_fetch_or(bits, bit);
    TIDE_STEP(REST_ASLEEP);
    if (!has_reason(board, worker))
        tide_futex_wait_until(wake, seen, deadline_ns);
    atomic_fetch_and(bits, ~bit);
}

int tide_board_rest(struct tide_board *board, uint32_t worker)
{
    return tide_board_doze(board, worker, TIDE_FOREVER);
}

int tide_board_doze(struct tide_board *board, uint32_t worker,
                    uint64_t deadline_ns)
{
    if (!may_spin(board) || !spin_for_work(board, worker))
        sleep_for_work(board, worker, deadline_ns);
    /* Work goes before the end. The end is looked at first: had it come between
     * the two looks, so might have work. */
    if (!tide_board_is_wanted(board, worker)) {
        if (tide_board_has_mail(board, worker))
            return TIDE_OK;
        atomic_store(&board->workers[worker].phase, TIDE_WORKER_LEFT);
        TIDE_STEP(REST_LEFT);
        return TIDE_ECLOSED;
    }
    if (tide_board_is_closed(board) && !tide_board_has_ready(board) &&
        !tide_board_has_mail(board, worker))
        return TIDE_ECLOSED;
    if (deadline_ns != TIDE_FOREVER && !has_reason(board, worker) &&
        tide_now_ns() >= deadline_ns)
        return TIDE_ETIMEOUT;
    return TIDE_OK;
}
