/**
 * @file region.h
 * @brief A part of the arena that one process allocates from.
 *
 *   Process              May call
 *   owner                tide_heap_open, _alloc, _settle, _outdate, _free
 *   any other            tide_region_return, for a block it has consumed
 *   supervisor           tide_region_settle, once the owner is reaped
 *   host                 tide_region_init, before the owner exists
 *
 * No allocator is shared and there is no lock, so a process that dies holds
 * none. The state of every block is in the arena and the owner's free lists are
 * not: the next owner rebuilds them by walking the blocks.
 */
#ifndef TIDE_SHM_REGION_H
#define TIDE_SHM_REGION_H

#include "shm/arena.h"

#include <stdatomic.h>
#include <stdint.h>

enum { TIDE_HEAP_CLASSES = 144 };

/** The shared half, in the arena. */
struct tide_region {
    uint64_t first; /* offsets of the region's ends in the arena */
    uint64_t end;
    _Atomic uint64_t top;      /* blocks are carved up to here */
    _Atomic uint64_t returned; /* stack of blocks that others gave back */
    _Atomic uint64_t pending;  /* the block whose owner is being decided */
    _Atomic uint64_t outdated; /* the block that `pending` is to replace */
};

/** The owner's half, in its private memory. */
struct tide_heap {
    const struct tide_arena *arena;
    struct tide_region *region;
    uint64_t first, top, end; /* ours: others might overwrite the region's */
    uint64_t
        capacity; /* of the block allocated last, as tide_block_capacity() */
    uint64_t free[TIDE_HEAP_CLASSES];
    uint64_t nonempty[(TIDE_HEAP_CLASSES + 63) / 64];
    uint64_t warm_bytes; /* of large free blocks that still have their pages */
};

/** Lay out an empty region over [first, end), both multiples of 16. */
void tide_region_init(struct tide_region *region, uint64_t first, uint64_t end);

/** Take over a region, after its last owner if there was one. */
void tide_heap_open(struct tide_heap *heap, const struct tide_arena *arena,
                    struct tide_region *region);

/**
 * Allocate `size` bytes, aligned to 16; the contents are arbitrary.
 *
 * The block counts as nobody's until tide_heap_settle(): an owner that dies
 * before has not leaked it.
 *
 * @return the offset, or 0 if the region is exhausted
 */
uint64_t tide_heap_alloc(struct tide_heap *heap, uint64_t size);

/** The block allocated last is now recorded where others will find it. */
static inline void tide_heap_settle(struct tide_heap *heap)
{
    atomic_store_explicit(&heap->region->pending, 0, memory_order_release);
    atomic_store_explicit(&heap->region->outdated, 0, memory_order_relaxed);
}

/**
 * The block at `offset`, which others find, is about to be replaced there by the
 * one allocated last. To be followed by that change and tide_heap_free().
 */
void tide_heap_outdate(struct tide_heap *heap, uint64_t offset);

/** Free a block of the caller's own region. Offset 0 is ignored. */
void tide_heap_free(struct tide_heap *heap, uint64_t offset);

/** Hand a block back to the owner of its region. Lock-free. */
void tide_region_return(const struct tide_arena *arena,
                        struct tide_region *region, uint64_t offset);

/**
 * Decide the fate of the block that a dead owner was allocating or freeing.
 *
 * @param published  the one block the owner has recorded for others to find
 *                   since it last settled; 0 for none
 */
void tide_region_settle(const struct tide_arena *arena,
                        struct tide_region *region, uint64_t published);

/**
 * Call `visit` with each block in use, from any process; it may free it. What is
 * being allocated or freed meanwhile may be seen or not.
 */
void tide_region_visit(const struct tide_arena *arena,
                       struct tide_region *region,
                       void (*visit)(uint64_t offset, void *context),
                       void *context);

/**
 * Free what a dead owner's region has lost: blocks in use that nobody knows of, and
 * those of which a process died that was about to return them. The owner's part,
 * done for it; others may return blocks at the same time.
 *
 * @param is_needed  is this block known, or is a living process about to return it?
 */
void tide_region_audit(const struct tide_arena *arena,
                       struct tide_region *region,
                       int (*is_needed)(uint64_t offset));

/** Bytes that the block at `offset` can hold; 0 if there is none in use. */
uint64_t tide_block_capacity(const struct tide_arena *arena, uint64_t offset);

/** Is [offset, offset + size) inside the region? For offsets from outside. */
static inline int tide_region_holds(const struct tide_region *region,
                                    uint64_t offset, uint64_t size)
{
    return offset > region->first && offset <= region->end &&
           size <= region->end - offset;
}

#endif
