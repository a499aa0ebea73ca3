/*
 * The host's end of the board: work goes in by the ready ring and comes out by the
 * done stack and the orphan ring. The arguments are at the top of board.c.
 *
 * A worker gone wild may have written anywhere here. So what only we write we read
 * in our own memory; an index is held against its bound; and no loop is as long as
 * a number in the arena says. What is lost then is work of this pool: a slot that
 * nobody names any more never comes back.
 */
#include "shm/board_inner.h"

#include "base/fault.h"

/* ---- submit ---- */

int tide_board_take(uint32_t *out, struct tide_board *board)
{
    if (board->free_count > 0) {
        *out = board->free_slots[--board->free_count]; /* the warmest one */
        return TIDE_OK;
    }
    if (board->used_count == board->slot_count)
        return TIDE_EAGAIN;
    *out = board->used_count++;
    atomic_store_explicit(&board->shared->used_count, board->used_count,
                          memory_order_relaxed);
    return TIDE_OK;
}

/* Write an entry at the tail; there is room. */
static void append(struct tide_board *board, uint32_t slot)
{
    struct tide_board_shared *shared = board->shared;
    uint64_t tail = board->ready_tail++;
    board->entries[slot] = (uint32_t)tail;
    atomic_store_explicit(&board->ready[tail & tide_ready_mask(board)], slot,
                          memory_order_relaxed);
    /* Release: who sees the new tail sees the entry and the READY word. */
    atomic_store_explicit(&shared->ready_tail, tail + 1, memory_order_release);
}

/* Does the entry at `at` stand for a slot that can be claimed? */
static int is_live(const struct tide_board *board, uint64_t at, uint32_t slot)
{
    if (slot >= board->used_count)
        return 0;
    uint64_t word =
        atomic_load_explicit(&board->slots[slot].word, memory_order_relaxed);
    return tide_word_is_open(word) && board->entries[slot] == (uint32_t)at;
}

/* Once around the ring: spent entries are dropped, the others keep their order. */
static void rotate(struct tide_board *board)
{
    struct tide_board_shared *shared = board->shared;
    const uint64_t tail = board->ready_tail;
    for (uint64_t turn = 0; turn <= tide_ready_mask(board); turn++) {
        uint64_t head =
            atomic_load_explicit(&shared->ready_head, memory_order_acquire);
        if (head >= tail)
            return;
        uint32_t slot = atomic_load_explicit(
            &board->ready[head & tide_ready_mask(board)], memory_order_relaxed);
        if (is_live(board, head, slot))
            append(board, slot);
        tide_help_head(shared, head);
    }
}

/* Is every entry of the ring taken? */
static int ring_is_full(const struct tide_board *board)
{
    uint64_t head =
        atomic_load_explicit(&board->shared->ready_head, memory_order_acquire);
    return board->ready_tail - head > tide_ready_mask(board);
}

/* The slot gets a new sequence and what a reply begins with. */
static uint32_t begin_flight(struct tide_board *board, uint32_t slot)
{
    uint64_t word =
        atomic_load_explicit(&board->slots[slot].word, memory_order_relaxed);
    uint32_t sequence = tide_word_sequence(word) + 1;
    if (sequence == 0)
        sequence = 1; /* 0 means "not in flight" */
    board->in_flight[slot] = sequence;
    board->flight_count++;
    /* A worker may die between its claim and its first store here. */
    struct tide_reply *reply = &board->slots[slot].reply;
    reply->hand = board->slots[slot].request.first;
    reply->form = reply->mark = 0;
    reply->length = reply->start_ns = 0;
    return sequence;
}

void tide_board_submit(struct tide_board *board, uint32_t slot)
{
    if (ring_is_full(board))
        rotate(board);
    uint32_t sequence = begin_flight(board, slot);
    /* Release: who claims the slot sees the request. */
    atomic_store_explicit(&board->slots[slot].word,
                          tide_word(TIDE_SLOT_READY, 0, sequence),
                          memory_order_release);
    TIDE_STEP(SUBMIT_READY);
    append(board, slot);
    TIDE_STEP(SUBMIT_ENTERED);
}

int tide_board_submit_to(struct tide_board *board, uint32_t slot,
                         uint32_t worker)
{
    _Atomic uint64_t *mail = &board->workers[worker].mail;
    /* Acquire: the worker that cleared it is done with it. */
    if (atomic_load_explicit(mail, memory_order_acquire) != 0)
        return TIDE_EAGAIN;
    uint32_t sequence = begin_flight(board, slot);
    atomic_store_explicit(&board->slots[slot].word,
                          tide_word_mail(worker, sequence),
                          memory_order_relaxed);
    /* It releases word and request. seq_cst: before the look at its bit. */
    atomic_store(mail, (uint64_t)sequence << 32 | (slot + 1));
    TIDE_STEP(SUBMIT_MAILED);
    tide_board_wake_one(board, worker);
    return TIDE_OK;
}

/* ---- revoke ---- */

/* A slot that was mail is named no more. */
static void unmail(struct tide_board *board, uint32_t slot, uint64_t word)
{
    uint32_t worker = (tide_word_worker(word) - 1) % board->place_count;
    uint64_t name = (uint64_t)tide_word_sequence(word) << 32 | (slot + 1);
    atomic_compare_exchange_strong(&board->workers[worker].mail, &name, 0);
}

int tide_board_revoke(struct tide_board *board, uint32_t slot)
{
    if (slot >= board->used_count || board->in_flight[slot] == 0)
        return TIDE_EAGAIN;
    struct tide_slot *mine = &board->slots[slot];
    uint64_t seen = atomic_load_explicit(&mine->word, memory_order_relaxed);
    uint64_t freed = tide_word(TIDE_SLOT_FREE, 0, tide_word_sequence(seen));
    /* Relaxed: nobody else has written to it since we made it READY. */
    if (tide_word_state(seen) != TIDE_SLOT_READY ||
        !atomic_compare_exchange_strong_explicit(&mine->word, &seen, freed,
                                                 memory_order_relaxed,
                                                 memory_order_relaxed))
        return TIDE_EAGAIN;
    TIDE_STEP(REVOKE_FREED);
    if (!tide_word_is_open(seen))
        unmail(board, slot, seen);
    board->in_flight[slot] = 0;
    board->flight_count--;
    board->free_slots[board->free_count++] = slot;
    return TIDE_OK;
}

/* ---- collect ---- */

/* Take one slot over if it is in flight with this sequence. */
static void arrive(struct tide_board *board, uint32_t slot, uint32_t sequence)
{
    if (slot >= board->used_count || sequence == 0 ||
        board->in_flight[slot] != sequence)
        return;
    board->in_flight[slot] = 0;
    board->arrived[board->arrived_count++] = slot;
    board->flight_count--;
}

static void reverse(uint32_t *items, uint32_t count)
{
    for (uint32_t i = 0, j = count; i + 1 < j; i++) {
        uint32_t item = items[i];
        items[i] = items[--j];
        items[j] = item;
    }
}

/* Refill `arrived`. The order of the three steps is argued at the top. */
static void gather(struct tide_board *board)
{
    struct tide_board_shared *shared = board->shared;
    board->arrived_at = board->arrived_count = 0;

    uint64_t orphan_tail =
        atomic_load_explicit(&shared->orphan_tail, memory_order_acquire);

    if (atomic_load_explicit(&shared->done, memory_order_relaxed) != 0) {
        uint64_t head =
            atomic_exchange_explicit(&shared->done, 0, memory_order_acquire);
        TIDE_STEP(COLLECT_TAKEN);
        uint32_t link = tide_done_link(head);
        uint32_t left = tide_done_count(head);
        if (left > board->used_count)
            left = board->used_count;
        for (; left > 0 && link != 0 && link <= board->used_count; left--) {
            struct tide_slot *slot = &board->slots[link - 1];
            uint64_t word =
                atomic_load_explicit(&slot->word, memory_order_acquire);
            uint32_t next = *(const volatile uint32_t *)&slot->reply.next;
            arrive(board, link - 1, tide_word_sequence(word));
            link = next;
        }
        reverse(board->arrived, board->arrived_count);
    }

    if (orphan_tail - board->orphans_seen > tide_orphan_mask(board) + 1)
        board->orphans_seen = orphan_tail - tide_orphan_mask(board) - 1;
    for (; board->orphans_seen != orphan_tail; board->orphans_seen++) {
        uint64_t entry = atomic_load_explicit(
            &board->orphans[board->orphans_seen & tide_orphan_mask(board)],
            memory_order_relaxed);
        arrive(board, (uint32_t)entry, (uint32_t)(entry >> 32));
    }
}

enum tide_slot_state tide_board_next_done(uint32_t *out,
                                          struct tide_board *board,
                                          struct tide_death *death)
{
    if (board->arrived_at == board->arrived_count) {
        gather(board);
        if (board->arrived_count == 0)
            return TIDE_SLOT_FREE;
    }
    uint32_t slot = board->arrived[board->arrived_at++];
    uint64_t word =
        atomic_load_explicit(&board->slots[slot].word, memory_order_acquire);
    *out = slot;
    death->worker = tide_word_worker(word) % board->place_count;
    if (tide_word_state(word) == TIDE_SLOT_DONE)
        return TIDE_SLOT_DONE;
    /* The supervisor leaves in `end_ns` whom the slot was lost with. */
    tide_death_unpack(death, board->slots[slot].reply.end_ns);
    return TIDE_SLOT_LOST;
}

uint32_t tide_board_finished(const struct tide_board *board)
{
    return tide_done_count(
        atomic_load_explicit(&board->shared->done, memory_order_relaxed));
}

void tide_board_release(struct tide_board *board, uint32_t slot)
{
    uint64_t word =
        atomic_load_explicit(&board->slots[slot].word, memory_order_relaxed);
    atomic_store_explicit(
        &board->slots[slot].word,
        tide_word(TIDE_SLOT_FREE, 0, tide_word_sequence(word)),
        /* Who sees that it was collected may take back what the reply named. */
        memory_order_release);
    board->free_slots[board->free_count++] = slot;
}
