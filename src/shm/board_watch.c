/*
 * What the host wants of the supervisor, what that sees of the work that runs, and
 * when it has to look. Whatever it reads was written by workers: numbers are
 * checked, and taken as hints until the worker stands still.
 *
 * ORDERS  `stopped`, `closing`, `wanted`, `watching` and `cuts` say what is wanted
 * now, not what has happened: the supervisor may look at any time, and as often as it
 * likes. Only `signals` it takes, to send each once. The host writes first and rings
 * then, see channel.h.
 *
 * WATCHING  The word `watching` is 0, or the shortest time limit in milliseconds
 * that was asked for since it was 0. The host sets it after a submit with a limit,
 * and whoever makes it 0 -> n tells the supervisor. That clears it when it has
 * seen no timed work for a while, and a store-then-look pair sees to it that no
 * timed slot is left unwatched, because all four accesses are in the one total
 * order of seq_cst:
 *   host: write READY, look at `watching`      supervisor: clear `watching`, look at
 *                                              the words of all slots
 * Either the host sees 0, and sends a message; or the supervisor sees the slot
 * READY or CLAIMED, and goes on. (Or the slot is DONE by then, and needs nobody.)
 */
#include "shm/board_inner.h"

/* ---- host ---- */

int tide_board_demand_watch(struct tide_board *board, uint32_t timeout_ms)
{
    _Atomic uint32_t *watching = &board->shared->watching;
    atomic_thread_fence(memory_order_seq_cst); /* READY before the look */
    uint32_t seen = atomic_load(watching);
    while (seen == 0 || timeout_ms < seen)
        if (atomic_compare_exchange_weak(watching, &seen, timeout_ms))
            return seen == 0;
    return 0;
}

void tide_board_stop(struct tide_board *board)
{
    atomic_store(&board->shared->stopped, 1);
}

void tide_board_signal(struct tide_board *board, int signal_number)
{
    atomic_fetch_or(&board->shared->signals, UINT64_C(1) << signal_number);
}

void tide_board_cut_off(struct tide_board *board, uint32_t slot,
                        uint32_t sequence)
{
    atomic_store_explicit(&board->cuts[slot], sequence, memory_order_relaxed);
    /* Release: who sees the count sees the flight. */
    atomic_fetch_add(&board->shared->cut_count, 1);
}

/* ---- supervisor ---- */

int tide_board_is_stopped(const struct tide_board *board)
{
    return atomic_load(&board->shared->stopped) != 0;
}

uint64_t tide_board_take_signals(struct tide_board *board)
{
    return atomic_exchange(&board->shared->signals, 0);
}

uint32_t tide_board_cut_count(const struct tide_board *board)
{
    return atomic_load(&board->shared->cut_count);
}

uint32_t tide_board_cut_of(const struct tide_board *board, uint32_t slot)
{
    return atomic_load_explicit(&board->cuts[slot], memory_order_relaxed);
}

/* What `worker` does in slot `index`, if it has it in one of these states. */
static int fill_item(struct tide_item *out, const struct tide_board *board,
                     uint32_t index, uint32_t worker, uint32_t states)
{
    const struct tide_slot *slot = &board->slots[index];
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
    enum tide_slot_state state = tide_word_state(word);
    if (state > TIDE_SLOT_LOST || (states >> state & 1) == 0 ||
        tide_word_worker(word) != worker)
        return 0;
    *out = (struct tide_item){
        .slot = index,
        .sequence = tide_word_sequence(word),
        .hand = *(const volatile uint32_t *)&slot->reply.hand,
        .count = slot->request.count,
        .timeout_ms = slot->request.timeout_ms,
    };
    return 1;
}

int tide_board_item_of(struct tide_item *out, const struct tide_board *board,
                       uint32_t worker)
{
    uint32_t claimed = atomic_load_explicit(&board->workers[worker].hand,
                                            memory_order_acquire);
    return claimed != 0 && claimed <= board->slot_count &&
           fill_item(out, board, claimed - 1, worker, 1u << TIDE_SLOT_CLAIMED);
}

int tide_board_find_claimed(struct tide_item *out,
                            const struct tide_board *board, uint32_t worker)
{
    uint32_t used = atomic_load(&board->shared->used_count);
    for (uint32_t i = 0; i < used && i < board->slot_count; i++)
        if (fill_item(out, board, i, worker, 1u << TIDE_SLOT_CLAIMED))
            return 1;
    return 0;
}

int tide_board_find_item(struct tide_item *out, const struct tide_board *board,
                         uint32_t worker)
{
    uint32_t claimed = atomic_load(&board->workers[worker].hand);
    if (tide_board_find_claimed(out, board, worker))
        return 1;
    return claimed != 0 && claimed <= board->slot_count &&
           fill_item(out, board, claimed - 1, worker, 1u << TIDE_SLOT_DONE);
}

int tide_board_owner_of(uint32_t *out, const struct tide_board *board,
                        uint32_t slot, uint32_t sequence)
{
    if (slot >= board->slot_count)
        return 0;
    uint64_t word =
        atomic_load_explicit(&board->slots[slot].word, memory_order_acquire);
    if (tide_word_state(word) != TIDE_SLOT_CLAIMED ||
        tide_word_sequence(word) != sequence ||
        tide_word_worker(word) >= board->place_count)
        return 0;
    *out = tide_word_worker(word);
    return 1;
}

uint32_t tide_board_watching(const struct tide_board *board)
{
    return atomic_load(&board->shared->watching);
}

/* The limit of some timed slot that is READY or CLAIMED; 0 if there is none. */
static uint32_t find_timed(const struct tide_board *board)
{
    uint32_t used = atomic_load(&board->shared->used_count);
    for (uint32_t i = 0; i < used && i < board->slot_count; i++) {
        const struct tide_slot *slot = &board->slots[i];
        enum tide_slot_state state = tide_word_state(atomic_load(&slot->word));
        if ((state == TIDE_SLOT_READY || state == TIDE_SLOT_CLAIMED) &&
            slot->request.timeout_ms != 0)
            return slot->request.timeout_ms;
    }
    return 0;
}

int tide_board_end_watch(struct tide_board *board)
{
    if (find_timed(board) != 0)
        return 0;
    atomic_store(&board->shared->watching, 0);
    atomic_thread_fence(memory_order_seq_cst); /* 0 before the second look */
    uint32_t timeout_ms = find_timed(board);
    if (timeout_ms != 0)
        atomic_store(&board->shared->watching, timeout_ms);
    return timeout_ms == 0;
}
