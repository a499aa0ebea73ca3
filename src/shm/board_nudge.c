/*
 * Whom to wake for small work that is submitted piece by piece. A wake-up costs the
 * host some microseconds, as much as many a task: where a worker is awake that will
 * come to the work soon, waking a second one is waste.
 *
 * No work is stranded. Whoever is awake looks at the ring before it sleeps, and who
 * dies or is stopped is made good by the supervisor. But "awake" may mean an hour in
 * one task, so nobody is relied on for long:
 *
 *   nudge   relies on a worker only if it spins, began its slot a moment ago, or
 *           was woken a moment ago (it has no slot yet, and will look)
 *   claim   a worker whose last slot took longer than a moment, and that leaves
 *           work behind it in the ring, wakes another
 *   rally   before the host sleeps it wakes workers for all that waits: what is
 *           left is one task behind a longer one than was estimated, while the host
 *           is busy with other things
 */
#include "shm/board_inner.h"

#include "base/clock.h"

enum {
    MOMENT_NS = 50 * 1000, /* about what falling asleep and waking costs */
    GLANCE_NS = 5 * 1000
};

/* Did this worker take what it runs a moment ago? A hint: both may change now. */
static int is_brisk(const struct tide_board *board, uint32_t worker,
                    uint64_t now_ns)
{
    uint32_t claimed = atomic_load_explicit(&board->workers[worker].hand,
                                            memory_order_acquire);
    if (claimed == 0 || claimed > board->slot_count)
        return 0;
    const struct tide_slot *slot = &board->slots[claimed - 1];
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
    return tide_word_state(word) == TIDE_SLOT_CLAIMED &&
           tide_word_worker(word) == worker &&
           now_ns - slot->reply.start_ns < MOMENT_NS;
}

static int has_brisk(const struct tide_board *board, uint64_t now_ns)
{
    uint32_t count = tide_board_wanted(board);
    for (uint32_t i = 0; i < count; i++)
        if (is_brisk(board, i, now_ns))
            return 1;
    return 0;
}

/*
 * To look at workers costs as much as to submit, since they write there all the time.
 * So the answer holds for a little while, unless somebody fell asleep or woke up: who
 * was relied on is awake then, and looks at the ring before it sleeps.
 */
static int has_reliable(struct tide_board *board, uint64_t now_ns)
{
    const struct tide_board_shared *shared = board->shared;
    uint64_t asleep = atomic_load(&shared->asleep[0]);
    int is_small = tide_board_wanted(board) <= 64; /* all are in that word */
    if (is_small && now_ns - board->relied_ns < GLANCE_NS &&
        asleep == board->relied_on)
        return 1;
    if (tide_board_count_bits(board, shared->spinning) == 0 &&
        !has_brisk(board, now_ns))
        return 0;
    board->relied_ns = now_ns;
    board->relied_on = asleep;
    return 1;
}

void tide_board_nudge(struct tide_board *board, uint64_t backlog_ns)
{
    struct tide_board_shared *shared = board->shared;
    /* The tail written before this is in the total order before the look. */
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t wanted = tide_board_wanted(board);
    uint32_t asleep = tide_board_count_bits(board, shared->asleep);
    if (asleep == 0)
        return;
    uint32_t awake = wanted > asleep ? wanted - asleep : 0;
    uint64_t now_ns = tide_now_ns();
    if (awake > 0 && backlog_ns / awake <= MOMENT_NS &&
        (now_ns - board->nudged_ns < MOMENT_NS || has_reliable(board, now_ns)))
        return;
    board->nudged_ns = now_ns;
    tide_board_wake_any(board, 1);
}

void tide_board_rally(struct tide_board *board)
{
    uint32_t queued = tide_board_queued(board);
    if (queued > 0)
        tide_board_kick(board, queued);
}

void tide_board_pass_on(struct tide_board *board)
{
    if (board->busy_ns > MOMENT_NS && tide_board_has_ready(board))
        tide_board_kick(board, 1);
}
