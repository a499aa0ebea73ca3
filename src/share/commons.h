/**
 * @file commons.h
 * @brief The memory that all processes of a tree share, and who is there.
 *
 * One sparse mapping per tree: the process that loads Tidemill first makes it,
 * before it forks anything; supervisors, workers and their pools inherit it, or are
 * given its descriptor. So to pass something on takes a number and no system call.
 *
 *   [header | entries of processes | objects | region of entry 1 | of entry 2 ...]
 *
 *   Process                May call
 *   the first of a tree    tide_commons_open
 *   any                    tide_commons_enter and, when it has, all of object.h
 *   one that forks a copy  tide_commons_reserve, _cancel; the copy: _become
 *   a fresh child          tide_commons_leave_behind, _set_heir
 *   supervisor             tide_commons_reaped, once it has reaped and reclaimed
 *   host                   tide_commons_sweep, _inherit
 *
 * A process has an entry from its first touch of an object until it is dead: a
 * number, memory to allocate from, a futex to sleep on. It is single-threaded as
 * far as this room knows, so it waits for at most one thing at a time. It lives
 * while it holds the robust mutex `life`: the system marks that at the very death,
 * also of a process that nobody has reaped.
 *
 *   Entry               By             When
 *   FREE    -> ALIVE    process        enters: takes the lowest, locks `life`
 *   FREE    -> RESERVED its parent     is about to fork a copy of itself
 *   RESERVED -> ALIVE   the copy       becomes it
 *   ALIVE   -> DEAD     the system     the process ends, however
 *   DEAD    -> FREE     any, or heir   buries: its holds are let go, its region is
 *                                      put in order for the next owner
 *
 * A worker has an heir, the host of its pool: what it has sent may name objects
 * that nobody else holds yet. So as long as the heir lives it alone buries: when the
 * worker was reaped, and all has been taken in that it had sent before.
 */
#ifndef TIDE_SHARE_COMMONS_H
#define TIDE_SHARE_COMMONS_H

#include "base/status.h"
#include "shm/arena.h"
#include "shm/region.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    TIDE_ENTRIES_MAX = 1024, /* entry 0 is nobody's */
    TIDE_FIRST_ENTRY = 1     /* of the process that made the commons */
};

/** What the commons hold of a process. */
struct tide_entry {
    alignas(64) pthread_mutex_t life;
    _Atomic int32_t pid;
    _Atomic uint32_t incarnation; /* counts the processes that had this entry */
    _Atomic uint32_t state;       /* see commons.c */
    _Atomic uint32_t heir;        /* an entry, or 0 */
    _Atomic uint32_t heir_incarnation;
    _Atomic uint32_t reaped;
    _Atomic uint64_t giving; /* the block it is handing back, see object.c */
    /* What it sleeps on. Others change `bell` to wake it; `ticket` is its own, for
     * whoever keeps waiters in order. */
    alignas(64) _Atomic uint32_t bell;
    _Atomic uint64_t ticket;
    struct tide_region region;
};

/** This process's view. Read only, by way of the functions below. */
struct tide_commons {
    struct tide_arena arena; /* base NULL: there are none */
    struct tide_entry *entries;
    struct tide_object *objects;
    uint32_t self; /* our entry, 0 before tide_commons_enter() */
    uint32_t entry_max;
    uint32_t object_max;
};
extern struct tide_commons tide_commons;

/**
 * Make the commons, if this process has not got them already. Best called before
 * anything is forked; costs some system calls and a page.
 *
 * @return TIDE_OK; TIDE_ESYS: there can be none, pools work without
 */
int tide_commons_open(struct tide_error *err);

/** Map the commons behind `fd`, which becomes ours; in an executed process. */
int tide_commons_attach(int fd, size_t size, struct tide_error *err);

/** Be there: claim an entry, and bury who is dead if none is free. */
int tide_commons_join(struct tide_error *err);

/**
 * To be called first by whatever touches objects.
 *
 * @return TIDE_OK; TIDE_ESYS: there are no commons; TIDE_ENOMEM: more than a
 *         thousand processes are in them
 */
static inline int tide_commons_enter(struct tide_error *err)
{
    return tide_commons.self != 0 ? TIDE_OK : tide_commons_join(err);
}

/** What is at `offset` of the commons, in our mapping. */
static inline void *tide_commons_at(uint64_t offset)
{
    return tide_commons.arena.base + offset;
}

static inline uint64_t tide_commons_offset(const void *at)
{
    return (uint64_t)((const unsigned char *)at - tide_commons.arena.base);
}

/** Bytes of memory that the commons take now; 0 if it cannot be told. */
uint64_t tide_commons_resident(void);

/* ---- processes ---- */

/**
 * Is the process that had this entry as `incarnation` still alive? Two loads, no
 * system call; exact, also for zombies.
 */
int tide_entry_is_alive(uint32_t entry, uint32_t incarnation);

/** The incarnation that an entry has now. */
static inline uint32_t tide_entry_incarnation(uint32_t entry)
{
    return atomic_load(&tide_commons.entries[entry].incarnation);
}

/**
 * Sleep while our own bell reads `heard`, which the caller loaded before it looked
 * whether it has to sleep. May return early, for any reason or none.
 */
void tide_entry_sleep(uint32_t heard, uint64_t deadline_ns);

/** What our bell reads now. */
static inline uint32_t tide_entry_listen(void)
{
    return atomic_load(&tide_commons.entries[tide_commons.self].bell);
}

/** Change the bell of an entry and wake its process. */
void tide_entry_ring(uint32_t entry);

/* ---- forks ---- */

/**
 * Have an entry for a copy of this process that is about to be forked: it holds
 * from this moment on whatever this process holds.
 *
 * @return the entry; 0 if there is nothing to hold, or no commons or room
 */
uint32_t tide_commons_reserve(void);

/** The fork failed, or the child has died before it could become its entry. */
void tide_commons_cancel(uint32_t entry);

/** In the copy: go on as `entry`, with what it holds. 0: as one that has none. */
void tide_commons_become(uint32_t entry);

/** In a fresh process: what its parent held was the parent's. */
void tide_commons_leave_behind(void);

/** In a worker: the entry of its host, and of which incarnation. */
void tide_commons_set_heir(uint32_t entry, uint32_t incarnation);

/* ---- deaths ---- */

/** A child is reaped and what it had finished has been handed over. */
void tide_commons_reaped(pid_t pid);

/**
 * Has one of our workers been reaped since the last tide_commons_inherit()? If so,
 * call that as soon as all has been taken in that was handed over before this call.
 */
int tide_commons_has_graves(void);

/**
 * Bury our dead workers: those that tide_commons_has_graves() knew of; or all, if
 * nothing that any of them has sent is left (`all`).
 */
void tide_commons_inherit(int all);

/** Bury the dead that have no living heir. For who waits, or is short of room. */
void tide_commons_sweep(void);

#endif
