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
 *   host                   tide_crew_opened, _settled, _closed, tide_deaths_now
 *   any                    tide_commons_lose_output, _has_lost_output
 *
 * A process has an entry from its first touch of an object until it is dead: a
 * number, memory to allocate from, a futex to sleep on. It is single-threaded as
 * far as this room knows, so it waits for at most one thing at a time. It lives
 * while it holds the robust mutex `life`: the system marks that at the very death,
 * also of a process that nobody has reaped.
 *
 *   Entry                By            When
 *   FREE     -> TAKEN    process       joins: locks `life`, takes the entry
 *   FREE     -> RESERVED its parent    is about to fork a copy of itself
 *   RESERVED -> TAKEN    the copy      becomes it
 *   RESERVED -> FREE     its parent    cancels; any, if the parent is dead
 *   TAKEN    -> FREE     any, or heir  the process is dead and buried: its holds
 *                                      are let go, its region is in order
 *
 * A worker has an heir, the host of its pool: what it has sent may name objects
 * that nobody else holds yet. So while the heir lives it alone buries: when the
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

enum tide_entry_state {
    TIDE_ENTRY_FREE,
    TIDE_ENTRY_RESERVED,
    TIDE_ENTRY_TAKEN
};

/** A process for good: an entry, and which of those that had it. */
struct tide_who {
    uint32_t entry;
    uint32_t incarnation;
};

/** What the commons hold of a process. */
struct tide_entry {
    alignas(64) pthread_mutex_t life;
    _Atomic uint32_t state;       /* enum tide_entry_state */
    _Atomic uint32_t incarnation; /* changes when it is taken and when buried */
    _Atomic int32_t pid;
    _Atomic uint32_t reaped;
    /* What it sleeps on. Others change `bell` to wake it; `ticket` is its own, for
     * whoever keeps waiters in order. */
    alignas(64) _Atomic uint32_t bell;
    uint32_t crew; /* of a worker: the pool, as its heir numbers them */
    _Atomic uint64_t ticket;
    struct tide_who heir;    /* of a worker; constant while TAKEN */
    struct tide_who parent;  /* while RESERVED */
    _Atomic uint64_t giving; /* the block it is handing back: memory.c */
    alignas(64) struct tide_region region;
};

/** This process's view; written by this room only. */
struct tide_commons {
    struct tide_arena arena; /* base NULL: there are none */
    struct tide_entry *entries;
    struct tide_object *objects;
    uint32_t self; /* our entry, 0 before tide_commons_enter() */
    uint32_t entry_count;
    uint32_t object_count;
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

/** As tide_commons_enter(), for a process that is not there yet. */
int tide_commons_join(struct tide_error *err);

/**
 * To be called first by whatever touches objects: have an entry.
 *
 * @return TIDE_OK; TIDE_ESYS: there are no commons; TIDE_ENOMEM: more processes
 *         are in them than there is room for
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

/* ---- output ---- */

/** Output of this process could not be written, and it has said so. */
void tide_commons_lose_output(void);

/** Has any process of the tree said tide_commons_lose_output()? 0 without commons. */
int tide_commons_has_lost_output(void);

/* ---- processes ---- */

/** Who has this entry now. */
static inline struct tide_who tide_entry_who(uint32_t entry)
{
    struct tide_who who = { entry, 0 };
    who.incarnation = atomic_load(&tide_commons.entries[entry].incarnation);
    return who;
}

/** Is it still alive? A few loads; exact, a zombie is dead. Never of entry 0. */
int tide_entry_is_alive(struct tide_who who);

/** What our bell reads now; after tide_commons_enter(), as all below. */
static inline uint32_t tide_entry_listen(void)
{
    return atomic_load(&tide_commons.entries[tide_commons.self].bell);
}

/**
 * Sleep while our own bell reads `heard`, which the caller loaded before it looked
 * whether it has to sleep. May return early, for any reason or none.
 */
void tide_entry_sleep(uint32_t heard, uint64_t deadline_ns);

/** Change the bell of an entry and wake its process. */
void tide_entry_ring(uint32_t entry);

/* ---- forks ---- */

/**
 * Have an entry for a copy of this process that is about to be forked: from this
 * moment on it holds whatever this process holds.
 *
 * @return entry 0 if there is nothing to hold, or no room
 */
struct tide_who tide_commons_reserve(void);

/** The fork failed, or the copy is dead; if it never became what was reserved. */
void tide_commons_cancel(struct tide_who reserved);

/** In the copy: go on as that, with what it holds. Entry 0: as one without. */
void tide_commons_become(struct tide_who reserved);

/** The descriptor of the commons: -1 for none, or if it was closed. */
int tide_commons_fd(void);

/** The number of our descriptor has changed, or it was closed: -1. */
void tide_commons_move_fd(int fd);

/** In a child that is no copy: what its parent holds is the parent's. */
void tide_commons_leave_behind(void);

/** In a worker, before it enters: who its host is, and what its pool's number. */
void tide_commons_set_heir(struct tide_who host, uint32_t crew);

/** This process, for tide_commons_set_heir() of its workers; may enter. */
struct tide_who tide_commons_self(void);

/* ---- deaths ---- */

/** A child is reaped, and what it had finished has been handed over. */
void tide_commons_reaped(pid_t pid);

/**
 * A pool is there; its number is unique among those this process ever had.
 *
 * @param is_quiet  asks it: is there nothing that any worker has sent and that was
 *                  not taken in, or that one that lives might send?
 */
void tide_crew_opened(uint32_t crew, int (*is_quiet)(const void *pool),
                      const void *pool);

/** How many deaths there were: to be asked before outcomes are taken in. */
struct tide_deaths {
    uint32_t told;   /* changes with each */
    uint32_t ticket; /* of the last one that may have been handed over before */
};
struct tide_deaths tide_deaths_now(void);

/**
 * Everything has been taken in from this pool that had been handed over at
 * `before`: bury those of its workers that were reaped by then.
 */
void tide_crew_settled(uint32_t crew, struct tide_deaths before);

/** The pool is no more, and nothing of it is taken in any more. */
void tide_crew_closed(uint32_t crew);

/**
 * Bury the dead whom no living heir will bury. For who waits, or lacks room; making
 * and dropping objects does it too.
 */
void tide_commons_sweep(void);

#endif
