/*
 * Transition              By          When
 * FREE    -> READY        host        submit: request written, then released
 * READY   -> CLAIMED|w    worker w    compare-and-swap; the only way to own work
 * READY   -> FREE         host        revoke: compare-and-swap, against the claims
 * CLAIMED -> DONE|w       worker w    reply written, then released
 * CLAIMED -> LOST|w       supervisor  w is reaped: w can write no more
 * DONE    -> FREE         host        reply read, blocks returned
 * LOST    -> FREE         host        the same; what is left is submitted anew
 *
 * Never: CLAIMED -> READY while w may still run (two owners: the reply would be
 * written twice). The supervisor reaps first, then reclaims.
 *
 * READY RING  One producer (host), many consumers. Positions only grow. An entry
 * is a hint where READY slots are; the claim is the swap on the slot's own word.
 * So `head` needs no owner: whoever finds an entry whose slot is not READY helps
 * `head` past it. That is safe because a slot becomes READY again only together
 * with a new entry at the tail. A worker that read an old position may claim a
 * slot of a newer entry; it owns it all the same, and the newer entry is spent.
 * A revoked slot leaves a spent entry where work may still lie before it, so that
 * `head` does not come by: submit and revoke in turn would fill the ring. The host
 * then rotates it: what is at `head` goes to the tail if it is its slot's newest
 * entry and READY, else it is dropped. Appended first, helped past then, so that
 * no READY slot is without an entry at any instant. A full ring has the old and
 * the new position at the same index: the host writes there what it read there.
 * After one turn a slot has one entry at most, and half of the ring is free.
 *
 * MAIL  A slot that only worker w may run is READY with w + 1 in the owner's place
 * and has no ring entry (old entries that name it are spent: it is not open). The
 * record's `mail` names slot and sequence, so that a late look at it cannot take a
 * later flight for this one. Written by the host when it is 0; cleared by swap by
 * w, once it has claimed or found that it was revoked, and by the host when it
 * revokes. A worker killed between claim and clearing leaves a name without a READY
 * slot, which its replacement clears; one killed before the claim leaves its mail
 * to the replacement. Mail is looked at before the ring and in every place where
 * the worker decides to sleep or to end. Somebody may have counted on w for a slot
 * of the ring when it took its mail: so it then wakes another if there is one.
 *
 * DONE STACK  Many producers (workers), emptied by the host with one exchange. The
 * head carries how many slots are on it and whether one is urgent, so "wake me when
 * n have arrived" costs no counter that a dying worker could leave wrong, and a
 * host that falls asleep just after an urgent push sees it all the same. There is
 * no pop, so no ABA.
 *
 * ORPHAN RING  One producer (supervisor), one consumer (host): slots of reaped
 * workers, with their sequence. A worker may die after DONE and before its push,
 * and nobody can tell from outside whether it pushed. So the supervisor reports
 * the slot in its hand in any case, and the host looks in this order: (1) the
 * ring's tail, (2) the whole done stack, (3) the ring up to that tail. Whatever a
 * reaped worker pushed was pushed before it was reported, hence is in (2). What
 * (3) names and is still in flight with that sequence was never pushed.
 * A slot is reported at most once a sequence, and its sequence changes only when
 * the host has collected it, after it read the ring's tail. So between two reads a
 * slot is reported twice at most: late for the sequence that was just collected
 * from the stack, and for the one submitted then. A ring of two entries a slot
 * cannot overflow.
 *
 * SLEEP AND WAKE  Two store-then-look pairs; in each at least one side sees the
 * other because all four accesses are in the one total order of seq_cst:
 *   worker: set own bit in `asleep`, look at the ring    host: write the ring's
 *   tail, look at `asleep` (and `spinning`, see spin_for_work())
 *   host: set `wake_at`, look at the stack's count       worker: push, look at
 *   `wake_at`
 * and a pair like the first for one worker: set own bit, look at `mail` and at
 * `wanted`; write `mail` or `wanted`, look at the bit.
 * Whoever clears the bit (or takes `wake_at`) owes the wake-up. A worker killed
 * or stopped in that debt, or after it was woken and before it claimed, is made good
 * by the supervisor, which wakes everybody after each death and each stop. A bit is
 * set and cleared by name, never counted, so a death cannot leave the number of
 * sleepers wrong.
 *
 * SIZE  The board has room for more workers than there are. The first `wanted` of
 * them are to be there; loops go over `manned`, the most that were ever wanted,
 * which grows before `wanted` does. A worker that is not wanted takes nothing from
 * the ring, and ends: it looks at `wanted` first and at its mail then, and the host
 * gives mail only to wanted ones, so that it sees all the mail that it was given.
 * Had it been counted on for a slot of the ring, its death is made good like any.
 *
 * END  The host closes after its last submit; a worker looks at `closing` first and
 * at the ring then, so that whoever sees the end sees all the work before it.
 */
#include "base/fault.h"
#include "shm/board_inner.h"

#include <assert.h>
#include <stdlib.h>

static_assert(sizeof(struct tide_slot) == (size_t)2 * TIDE_LINE,
              "two lines a slot");

/* ---- layout ---- */

struct plan { /* offsets in the arena */
    size_t workers;
    size_t slots;
    size_t ready;
    size_t orphans;
    size_t cuts;
    size_t end;
};

static size_t round_up(size_t bytes)
{
    return (bytes + TIDE_LINE - 1) & ~(size_t)(TIDE_LINE - 1);
}

static struct plan make_plan(size_t slot_count, size_t place_count)
{
    struct plan plan;
    plan.workers = round_up(sizeof(struct tide_board_shared));
    plan.slots = plan.workers + place_count * sizeof(struct tide_worker_record);
    plan.ready = plan.slots + slot_count * sizeof(struct tide_slot);
    plan.orphans = plan.ready + round_up(2 * slot_count * sizeof(uint32_t));
    plan.cuts = plan.orphans + round_up(2 * slot_count * sizeof(uint64_t));
    plan.end = plan.cuts + round_up(slot_count * sizeof(uint32_t));
    return plan;
}

static void lay_out(struct tide_board *board, uint32_t slot_count,
                    uint32_t place_count)
{
    struct plan plan = make_plan(slot_count, place_count);
    unsigned char *base = board->arena->base;
    board->slot_count = slot_count;
    board->place_count = place_count;
    board->shared = (void *)base;
    board->workers = (void *)(base + plan.workers);
    board->slots = (void *)(base + plan.slots);
    board->ready = (void *)(base + plan.ready);
    board->orphans = (void *)(base + plan.orphans);
    board->cuts = (void *)(base + plan.cuts);
}

int tide_board_measure(size_t *out, uint32_t slot_count, uint32_t place_count,
                       struct tide_error *err)
{
    if (slot_count == 0 || slot_count > TIDE_SLOTS_MAX ||
        (slot_count & (slot_count - 1)) != 0)
        return tide_fail(err, TIDE_EINVAL,
                         "slot count %u is no power of two up to %d",
                         slot_count, TIDE_SLOTS_MAX);
    if (place_count == 0 || place_count > TIDE_WORKERS_MAX)
        return tide_fail(err, TIDE_EINVAL, "worker count %u is not in 1 .. %d",
                         place_count, TIDE_WORKERS_MAX);
    *out = make_plan(slot_count, place_count).end;
    return TIDE_OK;
}

static int allocate_private(struct tide_board *board)
{
    board->in_flight = calloc(board->slot_count, sizeof *board->in_flight);
    board->entries = calloc(board->slot_count, sizeof *board->entries);
    board->free_slots = calloc(board->slot_count, sizeof *board->free_slots);
    board->arrived = calloc(board->slot_count, sizeof *board->arrived);
    return !TIDE_FAULT(POOL_MALLOC) && board->in_flight && board->entries &&
           board->free_slots && board->arrived;
}

int tide_board_create(struct tide_board *out, const struct tide_arena *arena,
                      uint32_t slot_count, uint32_t place_count, int cpu_count,
                      int event_fd, struct tide_error *err)
{
    size_t bytes = 0;
    *out = (struct tide_board){ .arena = arena, .event_fd = event_fd };
    int status = tide_board_measure(&bytes, slot_count, place_count, err);
    if (status != TIDE_OK)
        return status;
    if (bytes > arena->size)
        return tide_fail(err, TIDE_EINVAL, "arena too small for %u slots",
                         slot_count);
    lay_out(out, slot_count, place_count);
    if (!allocate_private(out)) {
        tide_board_destroy(out);
        return tide_fail(err, TIDE_ENOMEM, "cannot allocate %u slots",
                         slot_count);
    }
    out->shared->slot_count = slot_count;
    out->shared->place_count = place_count;
    out->shared->cpu_count = (uint32_t)cpu_count;
    atomic_init(&out->shared->wake_at, TIDE_NOBODY);
    atomic_init(&out->shared->wanted, 1);
    atomic_init(&out->shared->manned, 1);
    return TIDE_OK;
}

void tide_board_attach(struct tide_board *out, const struct tide_arena *arena,
                       int event_fd)
{
    const struct tide_board_shared *shared = (void *)arena->base;
    *out = (struct tide_board){ .arena = arena, .event_fd = event_fd };
    lay_out(out, shared->slot_count, shared->place_count);
}

/* Both were written where a worker might overwrite them. */
static uint32_t bounded(const struct tide_board *board, _Atomic uint32_t *count)
{
    uint32_t value = atomic_load_explicit(count, memory_order_relaxed);
    return value < board->place_count ? value : board->place_count;
}

uint32_t tide_board_worker_count(const struct tide_board *board)
{
    return bounded(board, &board->shared->manned);
}

uint32_t tide_board_wanted(const struct tide_board *board)
{
    return bounded(board, &board->shared->wanted);
}

void tide_board_make_single(struct tide_board *board)
{
    board->shared->single = 1;
}

int tide_board_is_single(const struct tide_board *board)
{
    return board->shared->single != 0;
}

void tide_board_destroy(struct tide_board *board)
{
    free(board->in_flight);
    free(board->entries);
    free(board->free_slots);
    free(board->arrived);
    board->in_flight = board->entries = NULL;
    board->free_slots = board->arrived = NULL;
}
