/*
 * The workers' end of the board, and what the supervisor does for those that died.
 * The arguments are at the top of board.c.
 */
#include "shm/board_inner.h"

#include "base/fault.h"
#include "shm/wake.h"

/* ---- workers ---- */

/* Make the slot ours if its word is still `seen`, which was READY. */
static int own(struct tide_board *board, uint32_t slot, uint32_t worker,
               uint64_t seen)
{
    /* Acquire: the request is seen by whom the swap makes owner. */
    if (!atomic_compare_exchange_strong_explicit(
            &board->slots[slot].word, &seen,
            tide_word(TIDE_SLOT_CLAIMED, worker, tide_word_sequence(seen)),
            memory_order_acquire, memory_order_relaxed))
        return 0;
    TIDE_STEP(CLAIM_OWNED);
    /* Before DONE, so that a death between DONE and the push finds it. */
    atomic_store_explicit(&board->workers[worker].hand, slot + 1,
                          memory_order_relaxed);
    TIDE_STEP(CLAIM_NOTED);
    return 1;
}

int tide_board_has_mail(const struct tide_board *board, uint32_t worker)
{
    return atomic_load(&board->workers[worker].mail) != 0;
}

static int claim_mail(uint32_t *out, struct tide_board *board, uint32_t worker)
{
    _Atomic uint64_t *mail = &board->workers[worker].mail;
    /* Acquire: what it names is seen. */
    uint64_t name = atomic_load_explicit(mail, memory_order_acquire);
    if (name == 0)
        return 0;
    uint32_t slot = (uint32_t)name - 1;
    int owned = slot < board->slot_count &&
                own(board, slot, worker,
                    tide_word_mail(worker, (uint32_t)(name >> 32)));
    atomic_compare_exchange_strong(mail, &name, 0);
    if (!owned)
        return 0;
    *out = slot;
    TIDE_STEP(MAIL_CLEARED);
    /* Who counted on us for a slot of the ring has to count on another. */
    if (tide_board_has_ready(board))
        tide_board_kick(board, 1);
    return 1;
}

int tide_board_claim(uint32_t *out, struct tide_board *board, uint32_t worker)
{
    struct tide_board_shared *shared = board->shared;
    if (claim_mail(out, board, worker))
        return TIDE_OK;
    if (!tide_board_is_wanted(board, worker))
        return TIDE_EAGAIN;
    for (;;) {
        uint64_t head =
            atomic_load_explicit(&shared->ready_head, memory_order_acquire);
        /* Acquire: the entry and the READY word behind this tail are seen. */
        if (head >=
            atomic_load_explicit(&shared->ready_tail, memory_order_acquire))
            return TIDE_EAGAIN;
        uint32_t slot = atomic_load_explicit(
            &board->ready[head & tide_ready_mask(board)], memory_order_relaxed);
        uint64_t seen = atomic_load_explicit(&board->slots[slot].word,
                                             memory_order_relaxed);
        int owned = tide_word_is_open(seen) && own(board, slot, worker, seen);
        tide_help_head(shared, head);
        if (owned) {
            *out = slot;
            tide_board_pass_on(board);
            return TIDE_OK;
        }
    }
}

void tide_board_publish(struct tide_slot *slot, struct tide_heap *heap,
                        uint64_t offset)
{
    struct tide_reply *reply = &slot->reply;
    int replaces = (reply->form & TIDE_REPLY_BLOCK) != 0;
    uint64_t old = reply->result.offset;
    /* The new block is `pending`; the old one is named before it is replaced. So
     * whoever finds the worker dead finds both named and one of them published. */
    if (replaces)
        tide_heap_outdate(heap, old);
    TIDE_STEP(PUBLISH_NAMED);
    reply->result.offset = offset;
    /* The flag after the offset, and both before the names are forgotten. */
    atomic_thread_fence(memory_order_release);
    TIDE_STEP(PUBLISH_WRITTEN);
    reply->form |= TIDE_REPLY_BLOCK;
    if (replaces)
        tide_heap_free(heap, old);
    TIDE_STEP(PUBLISH_FREED);
    tide_heap_settle(heap);
}

void tide_board_finish(struct tide_board *board, uint32_t slot, uint32_t worker,
                       int urgent)
{
    struct tide_board_shared *shared = board->shared;
    struct tide_slot *mine = &board->slots[slot];
    uint64_t word = atomic_load_explicit(&mine->word, memory_order_relaxed);
    board->busy_ns = mine->reply.end_ns - mine->reply.start_ns;
    TIDE_STEP(FINISH_BEGUN);
    /* Release: the host that sees DONE sees the whole reply. */
    atomic_store_explicit(
        &mine->word,
        tide_word(TIDE_SLOT_DONE, worker, tide_word_sequence(word)),
        memory_order_release);
    TIDE_STEP(FINISH_DONE);
    uint64_t head = atomic_load_explicit(&shared->done, memory_order_relaxed);
    uint64_t pushed;
    do {
        mine->reply.next = tide_done_link(head);
        pushed = (urgent ? TIDE_DONE_URGENT : head & TIDE_DONE_URGENT) |
                 (uint64_t)(tide_done_count(head) + 1) << 32 | (slot + 1);
        /* seq_cst: the first half of a store-then-look pair. It also releases
         * the link. From here on the slot is the host's. */
    } while (!atomic_compare_exchange_weak_explicit(
        &shared->done, &head, pushed, memory_order_seq_cst,
        memory_order_relaxed));
    TIDE_STEP(FINISH_PUSHED);
    uint32_t wake_at = atomic_load(&shared->wake_at);
    if (wake_at != TIDE_NOBODY &&
        ((pushed & TIDE_DONE_URGENT) != 0 ||
         tide_done_count(pushed) >= wake_at) &&
        atomic_exchange(&shared->wake_at, TIDE_NOBODY) != TIDE_NOBODY) {
        TIDE_STEP(FINISH_WAKING);
        tide_event_raise(board->event_fd);
    }
}

uint32_t tide_board_sequence(const struct tide_board *board, uint32_t slot)
{
    return tide_word_sequence(
        atomic_load_explicit(&board->slots[slot].word, memory_order_relaxed));
}

int tide_board_is_collected(const struct tide_board *board, uint32_t slot,
                            uint32_t sequence)
{
    uint64_t word =
        atomic_load_explicit(&board->slots[slot].word, memory_order_acquire);
    return tide_word_sequence(word) != sequence ||
           tide_word_state(word) == TIDE_SLOT_FREE;
}

/* ---- supervisor ---- */

static void report_orphan(struct tide_board *board, uint32_t slot,
                          uint32_t sequence)
{
    struct tide_board_shared *shared = board->shared;
    uint64_t tail =
        atomic_load_explicit(&shared->orphan_tail, memory_order_relaxed);
    atomic_store_explicit(&board->orphans[tail & tide_orphan_mask(board)],
                          (uint64_t)sequence << 32 | slot,
                          memory_order_relaxed);
    /* Release: the entry, the LOST word and all that the dead worker did. seq_cst:
     * it is one of the arrivals that the host looks for before it sleeps. */
    atomic_store(&shared->orphan_tail, tail + 1);
}

/* Mark LOST what worker `death->worker` holds. */
static void lose_claimed(struct tide_board *board,
                         const struct tide_death *death)
{
    uint32_t used =
        atomic_load_explicit(&board->shared->used_count, memory_order_relaxed);
    for (uint32_t i = 0; i < used && i < board->slot_count; i++) {
        struct tide_slot *slot = &board->slots[i];
        uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
        if (tide_word_state(word) != TIDE_SLOT_CLAIMED ||
            tide_word_worker(word) != death->worker)
            continue;
        int in_block = (slot->reply.form & TIDE_REPLY_BLOCK) != 0;
        tide_region_settle(board->arena, &board->workers[death->worker].region,
                           in_block ? slot->reply.result.offset : 0);
        slot->reply.end_ns = tide_death_pack(death);
        atomic_store_explicit(
            &slot->word,
            tide_word(TIDE_SLOT_LOST, death->worker, tide_word_sequence(word)),
            memory_order_release);
        TIDE_STEP(RECLAIM_LOST);
        report_orphan(board, i, tide_word_sequence(word));
    }
}

void tide_board_reclaim(struct tide_board *board,
                        const struct tide_death *death)
{
    struct tide_worker_record *record = &board->workers[death->worker];
    lose_claimed(board, death);
    tide_region_settle(board->arena, &record->region, 0);

    uint32_t hand = atomic_load_explicit(&record->hand, memory_order_acquire);
    if (hand != 0 && hand <= board->slot_count) {
        uint64_t word = atomic_load_explicit(&board->slots[hand - 1].word,
                                             memory_order_acquire);
        if (tide_word_state(word) == TIDE_SLOT_DONE &&
            tide_word_worker(word) == death->worker)
            report_orphan(board, hand - 1, tide_word_sequence(word));
    }
    atomic_store_explicit(&record->hand, 0, memory_order_relaxed);
    tide_board_forget_rest(board, death->worker);
}
