/**
 * @file commons_inner.h
 * @brief What the files of this room share.
 */
#ifndef TIDE_SHARE_COMMONS_INNER_H
#define TIDE_SHARE_COMMONS_INNER_H

#include "share/object.h"
#include "shm/region.h"

/** The first page of the commons. */
struct tide_commons_shared {
    uint32_t entry_count;
    uint32_t object_count;
    uint64_t entries; /* offsets */
    uint64_t objects;
    uint64_t regions;
    pthread_mutex_t lock;           /* who joins, or buries */
    _Atomic uint32_t entry_top;     /* entries below were taken once */
    _Atomic uint32_t object_top;    /* places below were taken once */
    _Atomic uint32_t object_hint;   /* where a free place may be */
    _Atomic uint32_t death_tickets; /* see tide_commons_reaped() */
    _Atomic uint32_t deaths_told;
    _Atomic uint32_t has_lost_output;
};

/** Our holds of the object at a place. */
struct tide_hold {
    uint32_t count;
    uint32_t generation;
};

struct tide_open_crew {
    uint32_t crew;
    int (*is_quiet)(const void *pool);
    const void *pool;
};

/** What only this process knows. */
struct tide_share_private {
    struct tide_heap heap;   /* of our region, once we have an entry */
    struct tide_hold *holds; /* by place */
    uint32_t hold_capacity;
    uint64_t held_bytes;
    int is_copy; /* the holds are of the process that we were forked from */
    pid_t maker; /* who made the commons */
    struct tide_who heir;
    uint32_t crew;
    struct tide_open_crew *open_crews; /* pools of ours */
    size_t open_count, open_capacity;
    int lost_count; /* one is missing there: there was no memory */
};
extern struct tide_share_private tide_share;

static inline struct tide_commons_shared *tide_shared(void)
{
    return (void *)tide_commons.arena.base;
}

/* ---- commons.c ---- */

/** Make the commons, of so many bytes. */
int tide_commons_create(uint64_t size, struct tide_error *err);

/** Lock the commons, also after somebody who died with the lock. */
void tide_commons_lock(void);
void tide_commons_unlock(void);

/** Is the process of a TAKEN entry alive? */
int tide_entry_has_life(uint32_t entry);

/** Is it a living process's, or kept for one? */
int tide_entry_is_manned(uint32_t entry);

/* ---- burial.c ---- */

/** Bury what tide_commons_sweep() would, under the lock. @return how many */
uint32_t tide_bury_all(void);

/** Bury the process of an entry, dead or only reserved. Under the lock. */
void tide_bury(uint32_t entry);

/* ---- object.c ---- */

/** In a copy that found no entry ready: hold what our parent held, if it is there. */
void tide_objects_adopt(void);

/** Set the bits of `entry` on all that we hold. */
void tide_objects_hold_for(uint32_t entry);

/** Let go of whatever the dead `entry` holds, makes or frees. Under the lock. */
void tide_objects_bury(uint32_t entry);

/* ---- memory.c ---- */

/** As tide_share_alloc(); `tag` names place and generation, zeroed if `clean`. */
uint64_t tide_share_alloc_tagged(uint64_t tag, uint64_t bytes, int clean);

/** Free a block, its pages given back if it is large. */
void tide_share_free_clean(uint64_t offset);

/** Free every block of this tag, whoever made it. Under the lock. */
void tide_share_free_tagged(uint64_t tag);

/** Put the region of a dead process in order for the next. Under the lock. */
void tide_share_audit(uint32_t entry);

/** Is this the tag of an object that is there? */
int tide_tag_is_live(uint64_t tag);

#endif
