/*
 * Waiter                            Waker
 * draw a ticket, set own bit        change the object (a count, a flag)
 * look at the object                look at the bits
 * sleep while the bell is unheard   clear a bit, ring that entry's bell
 *
 * Both columns are in the one order of seq_cst, so one of the two sees the other. The
 * waiter listens to its bell before it looks at its bit, so a ring after that look
 * ends the sleep. Who clears the bit owes the ring; if it is killed between the two,
 * the sleeper finds out at the end of its slice.
 *
 * An entry's ticket orders the bits: a process is in one line at a time. The bits of
 * words beyond `words` were never set: that grows before the bit is set.
 *
 * NOBODY LEFT  A wait without a deadline is in vain when every process that holds the
 * object waits for it in the same way: those have a bit in `stuck`. A process has none
 * while something that it has sent is on its way with the object, and while another
 * object (a queue) has a message that names it nobody is taken for stuck: somebody
 * may receive it yet.
 */
#include "share/waiters.h"

#include "base/clock.h"
#include "share/commons_inner.h"

enum { SLICE_NS = 200 * 1000 * 1000 };

static uint64_t bit_of(uint32_t entry)
{
    return UINT64_C(1) << (entry % 64);
}

/* ---- waiting ---- */

static int is_listed(const struct tide_wait *wait)
{
    uint32_t self = tide_commons.self;
    return (atomic_load(&wait->set->bits[self / 64]) & bit_of(self)) != 0;
}

static void reach(struct tide_waiters *set, uint32_t words)
{
    uint32_t had = atomic_load(&set->words);
    while (had < words &&
           !atomic_compare_exchange_weak(&set->words, &had, words))
        continue;
}

void tide_wait_begin(struct tide_wait *wait)
{
    uint32_t self = tide_commons.self;
    uint64_t ticket = atomic_fetch_add(&wait->set->tickets, 1);
    atomic_store(&tide_commons.entries[self].ticket, ticket);
    reach(wait->set, self / 64 + 1);
    atomic_fetch_or(&wait->set->bits[self / 64], bit_of(self));
    wait->is_listed = 1;
}

/* Does a living process hold the object that is not stuck? */
static int somebody_left(const struct tide_wait *wait)
{
    const struct tide_object *object = tide_object_at(wait->object);
    if (atomic_load(&object->references) != 0)
        return 1;
    for (uint32_t word = 0; word < TIDE_ENTRY_WORDS; word++) {
        uint64_t bits = atomic_load(&object->holders[word]) &
                        ~atomic_load(&wait->stuck->bits[word]);
        for (; bits != 0; bits &= bits - 1) {
            uint32_t entry = word * 64 + (uint32_t)__builtin_ctzll(bits);
            if (tide_entry_is_manned(entry))
                return 1;
        }
    }
    return 0;
}

/* Sleep for a slice. Returns 0 instead if nobody could ever wake us. */
static int sleep_until(struct tide_wait *wait, uint32_t heard, uint64_t at_ns)
{
    uint32_t self = tide_commons.self;
    int is_stuck = wait->deadline_ns == TIDE_FOREVER &&
                   tide_object_holds(wait->object) <= wait->own_holds;
    _Atomic uint64_t *stuck = &wait->stuck->bits[self / 64];
    if (is_stuck)
        atomic_fetch_or(stuck, bit_of(self));
    int hopeful = !is_stuck || somebody_left(wait);
    if (hopeful)
        tide_entry_sleep(heard, at_ns);
    if (is_stuck)
        atomic_fetch_and(stuck, ~bit_of(self));
    return hopeful;
}

int tide_wait_rest(struct tide_wait *wait)
{
    uint32_t heard = tide_entry_listen();
    if (!is_listed(wait))
        return TIDE_OK;
    uint64_t now_ns = tide_now_ns();
    if (now_ns >= wait->deadline_ns)
        return TIDE_ETIMEOUT;
    uint64_t at_ns = now_ns + SLICE_NS;
    if (at_ns > wait->deadline_ns)
        at_ns = wait->deadline_ns;
    int hopeful = sleep_until(wait, heard, at_ns);
    if (!is_listed(wait))
        return TIDE_OK;
    return hopeful ? TIDE_EAGAIN : TIDE_EBROKEN;
}

int tide_wait_end(struct tide_wait *wait)
{
    uint32_t self = tide_commons.self;
    if (!wait->is_listed)
        return 0;
    wait->is_listed = 0;
    uint64_t before =
        atomic_fetch_and(&wait->set->bits[self / 64], ~bit_of(self));
    return (before & bit_of(self)) == 0;
}

/* ---- waking ---- */

int tide_waiters_are_there(const struct tide_waiters *set)
{
    uint32_t words = atomic_load(&set->words);
    for (uint32_t word = 0; word < words; word++)
        if (atomic_load(&set->bits[word]) != 0)
            return 1;
    return 0;
}

/* Clear the bit of an entry. @return 1 if it was there */
static int unlist(struct tide_waiters *set, uint32_t entry)
{
    uint64_t before = atomic_fetch_and(&set->bits[entry / 64], ~bit_of(entry));
    return (before & bit_of(entry)) != 0;
}

/* The living waiter that came first; 0 if there is none. */
static uint32_t find_first(struct tide_waiters *set)
{
    uint32_t words = atomic_load(&set->words);
    uint64_t least = UINT64_MAX;
    uint32_t first = 0;
    for (uint32_t word = 0; word < words; word++) {
        uint64_t bits = atomic_load(&set->bits[word]);
        for (; bits != 0; bits &= bits - 1) {
            uint32_t entry = word * 64 + (uint32_t)__builtin_ctzll(bits);
            uint64_t ticket = atomic_load(&tide_commons.entries[entry].ticket);
            if (ticket >= least || !tide_entry_is_alive(tide_entry_who(entry)))
                continue;
            least = ticket;
            first = entry;
        }
    }
    return first;
}

uint32_t tide_waiters_wake(struct tide_waiters *set, uint32_t count)
{
    uint32_t woken = 0;
    while (woken < count && tide_waiters_are_there(set)) {
        uint32_t entry = find_first(set);
        if (entry == 0)
            break;
        if (!unlist(set, entry))
            continue; /* it left, or somebody else has woken it */
        tide_entry_ring(entry);
        woken++;
    }
    return woken;
}

int tide_waiters_bury(struct tide_waiters *set, struct tide_stuck *stuck,
                      uint32_t entry)
{
    atomic_fetch_and(&stuck->bits[entry / 64], ~bit_of(entry));
    return unlist(set, entry);
}
