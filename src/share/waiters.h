/**
 * @file waiters.h
 * @brief Who waits for an object, in order, and how a wait ends.
 *
 *   Process     May call
 *   waiter      tide_wait_begin, then _rest until it says more than "look again",
 *               then or at any time before _end
 *   others      tide_waiters_wake
 *   burier      tide_waiters_bury
 *
 * A set has a bit for each process that waits, which whoever wakes it clears: who
 * finds its bit cleared was woken. Bits of the dead count for nothing until who
 * buries them clears them. Nothing here needs a lock.
 */
#ifndef TIDE_SHARE_WAITERS_H
#define TIDE_SHARE_WAITERS_H

#include "share/object.h"

enum { TIDE_ENTRY_WORDS = TIDE_ENTRIES_MAX / 64 };

struct tide_waiters {
    _Atomic uint64_t tickets; /* drawn so far */
    _Atomic uint32_t words;   /* of `bits`, that were ever used */
    _Atomic uint64_t bits[TIDE_ENTRY_WORDS];
};

/** Processes that wait for an object without an end of their own: one an object. */
struct tide_stuck {
    _Atomic uint64_t bits[TIDE_ENTRY_WORDS];
};

/** A wait of this process: it has one at a time. */
struct tide_wait {
    tide_handle object;
    struct tide_waiters *set; /* these two in the object, */
    struct tide_stuck *stuck;
    uint64_t deadline_ns;
    uint32_t own_holds; /* what the caller itself holds of the object */
    int is_listed;
};

/** Stand in line. Whoever looks for waiters after that sees us; look again. */
void tide_wait_begin(struct tide_wait *wait);

/**
 * Sleep, for some tenths of a second at most.
 *
 * @return TIDE_OK: woken; TIDE_EAGAIN: look again, also whether a signal asks for
 *         anything; TIDE_ETIMEOUT; TIDE_EBROKEN: every process that has the object
 *         waits for it, and for ever, or only we have it
 */
int tide_wait_rest(struct tide_wait *wait);

/** Leave the line. @return 1 if we were woken meanwhile and owe that to somebody */
int tide_wait_end(struct tide_wait *wait);

/** Is there anybody in line? */
int tide_waiters_are_there(const struct tide_waiters *set);

/** Wake up to `count` that live, in the order in which they came. @return how many */
uint32_t tide_waiters_wake(struct tide_waiters *set, uint32_t count);

/** The process of this entry is dead. @return 1 if it was in line */
int tide_waiters_bury(struct tide_waiters *set, struct tide_stuck *stuck,
                      uint32_t entry);

#endif
