/**
 * @file object.h
 * @brief What processes share: objects, who holds them, and their memory.
 *
 * An object is a header in a table and a body in the region of the process that
 * made it. Its handle is a number, which says the place in the table and the
 * generation: how often that place was used. Any process may be given any number.
 *
 * Holds. Of each object a process counts its own handles, pins and whatever else
 * needs it, privately; and has one bit in the header, which it alone sets and
 * clears: set before the first hold counts, cleared after the last. So a death
 * leaves nothing wrong: who buries clears the bit. To take a hold, somebody else's
 * hold, known to last until it is taken, must be in force: the sender's pin of the
 * arguments of a job, the worker's of its results until they are taken in.
 *
 *   Object               By         When
 *   FREE     -> BUILDING maker      claims the place; the word names it
 *   BUILDING -> LIVE     maker      body in place, its hold set
 *   BUILDING -> FREE     burier     the maker died
 *   LIVE     -> FREEING  last       no bit and no reference is left: one wins by
 *                                   compare-and-swap; the word names it
 *   FREEING  -> FREE     freer      memory handed back; next generation
 *   FREEING  -> FREEING  burier     the freer died: the burier goes on
 *
 * Never: a bit set by other than its process, or by a reservation for it. (Two
 * writers of a bit: one that clears it would undo the other's set.)
 */
#ifndef TIDE_SHARE_OBJECT_H
#define TIDE_SHARE_OBJECT_H

#include "share/commons.h"

enum tide_object_kind {
    TIDE_SHARED_NONE,
    TIDE_SHARED_VALUE,
    TIDE_SHARED_ARRAY, /* and matrix */
    TIDE_SHARED_LOCK,  /* and rlock */
    TIDE_SHARED_SEMAPHORE,
    TIDE_SHARED_EVENT,
    TIDE_SHARED_CONDITION,
    TIDE_SHARED_BARRIER,
    TIDE_SHARED_QUEUE,
    TIDE_SHARED_DICT,
    TIDE_SHARED_PROCESS,
    TIDE_SHARED_COUNT
};

enum tide_object_state {
    TIDE_OBJECT_FREE,
    TIDE_OBJECT_BUILDING,
    TIDE_OBJECT_LIVE,
    TIDE_OBJECT_FREEING
};

/** Place in the low half, generation in the high one; never 0. */
typedef uint64_t tide_handle;

struct tide_object {
    alignas(64) _Atomic uint64_t word; /* turn, generation, state: object.c */
    _Atomic uint64_t references;       /* by containers: tide_object_refer() */
    _Atomic uint32_t kind;             /* enum tide_object_kind */
    uint32_t maker;                    /* entry */
    uint64_t body;                     /* offset, 64-aligned; 0 for none */
    uint64_t body_bytes;               /* as asked for */
    uint64_t detail[2]; /* the kind's own, constant once it is LIVE */
    alignas(64) _Atomic uint64_t holders[TIDE_ENTRIES_MAX / 64];
};

/** What a kind does besides being memory. NULL: nothing. */
struct tide_kind_ops {
    /**
     * The object is nobody's any more: free its blocks, drop its references. Not
     * called when a freer was killed; then blocks are found by their owner.
     */
    void (*destroy)(struct tide_object *object);

    /**
     * The process of this entry is dead and the entry about to be free for others.
     * Must not wait for long: no lock but by trying.
     */
    void (*bury)(struct tide_object *object, uint32_t entry);
};

/** Set the operations of a kind; in every process of the tree, before it enters. */
void tide_kind_define(enum tide_object_kind kind,
                      const struct tide_kind_ops *ops);

/**
 * Make an object, LIVE and held once by the caller. `prepare` (may be NULL) sees it
 * before anybody else can: body zeroed, `detail` zero.
 *
 * @return TIDE_OK; TIDE_ENOMEM if the region or the table is full; as
 *         tide_commons_enter()
 */
int tide_object_make(tide_handle *out, enum tide_object_kind kind,
                     uint64_t body_bytes,
                     void (*prepare)(struct tide_object *, void *context),
                     void *context, struct tide_error *err);

/**
 * Take one more hold. The caller holds it already, or somebody else does until this
 * returns (see above).
 *
 * @return TIDE_OK; TIDE_EINVAL if the number is no handle of a LIVE object of this
 *         kind (TIDE_SHARED_NONE: of any); as tide_commons_enter()
 */
int tide_object_hold(tide_handle handle, enum tide_object_kind kind,
                     struct tide_error *err);

/** Give one hold back; with the last one anywhere the object is freed. */
void tide_object_drop(tide_handle handle);

/** How many holds this process has of it. */
uint32_t tide_object_holds(tide_handle handle);

/** The header; the caller holds the object. */
static inline struct tide_object *tide_object_at(tide_handle handle)
{
    return &tide_commons.objects[(uint32_t)handle];
}

/** The body; the caller holds the object. The address is good while it does. */
static inline void *tide_object_body(tide_handle handle)
{
    return tide_commons_at(tide_object_at(handle)->body);
}

/**
 * How many living processes other than the caller hold the object. The dead are
 * not counted, buried or not.
 */
uint32_t tide_object_others(tide_handle handle);

/** Bytes of the bodies of all that this process holds. */
uint64_t tide_objects_held_bytes(void);

/** What there is in the commons, by a walk. */
struct tide_commons_count {
    uint32_t objects;
    uint32_t processes;
};
void tide_commons_count(struct tide_commons_count *out);

/* ---- what objects hold ---- */

/**
 * A reference from within another object (a message in a queue), which the caller
 * holds; the caller holds `handle` too. A kill between this and what makes the
 * reference findable leaves `handle` alive until the tree ends, never less.
 */
void tide_object_refer(tide_handle handle);

/** Take such a reference back. */
void tide_object_unrefer(tide_handle handle);

/**
 * Allocate a block that belongs to an object the caller holds, 64-aligned and not
 * zeroed, in the caller's region. One that was not linked into the object before a
 * kill is freed some time after the object is.
 *
 * @return the offset, or 0 if there is no room
 */
uint64_t tide_share_alloc(tide_handle owner, uint64_t bytes);

/** Free such a block; any process. 0 is ignored. Lock-free. */
void tide_share_free(uint64_t offset);

/** What a block can hold: at least what was asked for. */
uint64_t tide_share_capacity(uint64_t offset);

#endif
