/*
 * A region is a row of blocks, carved one after the other and never split or
 * joined, so that it can be walked at any time, also one whose owner was killed
 * between two instructions:
 *
 *   first          top                       end
 *   [hdr|payload][hdr|payload]...  untouched  |
 *
 * Sizes come in classes, four per power of two, so at most a fifth is wasted and
 * a freed block serves the next request of its size with its pages warm (a fresh
 * shared page costs ten times a warm one).
 *
 * State of a block     By       When
 * (none)    -> FREE    owner    carved: header written, then top moved over it
 * FREE      -> USED    owner    allocated: pending names it first
 * USED      -> FREE    owner    freed: pending names it first
 * USED      -> GIVEN   other    consumed: marked, then pushed on `returned`
 * GIVEN     -> FREE    owner    popped from `returned`: pending names it first
 * any       -> FREE    supervisor, owner dead: the pending block is in no list,
 *                      on no stack and recorded nowhere
 *
 * `pending` is what makes a kill exact. At most one block at a time is on its
 * way between the owner and the world; it is named before anything changes and
 * forgotten when the change is complete. Popping one block at a time keeps that
 * so (an exchange of the whole stack would put many under way). With a single
 * consumer the pop has no ABA problem: only the owner ever takes a block off,
 * so the head it read is on top for as long as it is the head.
 *
 * The one exception is a published block that a larger one replaces: from one
 * store to the next the old one is nobody's and the new one is everybody's. So
 * both are named then, the old one as `outdated`.
 *
 * SCRIBBLES  Whoever maps the arena may have written anywhere in it. The owner
 * keeps the ends of its region in private, follows no link out of it, and takes no
 * block that would reach out of it; a list with such a link ends there, and what is
 * behind it is lost. So two blocks may come to lie in one place, but only there.
 * The supervisor, who serves other pools as well, follows no link out of the arena,
 * and a number of them at most: no return stack is longer than there are slots. What
 * is used more than once is loaded once: it may change in between.
 */
#include "shm/region.h"

#include "base/fault.h"

#include <assert.h>

enum {
    HEADER_BYTES = 16,
    SMALLEST_BYTES = 64,
    LARGE_BYTES = 256 * 1024, /* from here on pages are worth returning */
    WARM_LIMIT_BYTES = 128 * 1024 * 1024,
    NEAR_CLASSES = 4, /* how much larger a reused block may be: less than 2x */
    LINKS_MAX = 1 << 21 /* of a return stack, see SCRIBBLES */
};

enum block_state { FREE = 1, FREE_COLD, USED, GIVEN };

struct block {
    uint32_t class_index;
    _Atomic uint32_t state;
    _Atomic uint64_t next; /* block offset: in a free list or on `returned` */
};

static_assert(sizeof(struct block) == HEADER_BYTES, "payloads are aligned");

static struct block *block_at(const struct tide_arena *arena, uint64_t offset)
{
    return (struct block *)(void *)(arena->base + offset);
}

static uint64_t class_bytes(uint32_t class_index)
{
    return (uint64_t)(4 + class_index % 4) << (class_index / 4 + 4);
}

/* The smallest class of at least `bytes`. */
static uint32_t class_of(uint64_t bytes)
{
    if (bytes <= SMALLEST_BYTES)
        return 0;
    uint32_t log = 63 - (uint32_t)__builtin_clzll(bytes - 1);
    return (log - 6) * 4 + (uint32_t)((bytes - 1) >> (log - 2)) - 4 + 1;
}

static uint32_t load_class(const struct block *block)
{
    return *(const volatile uint32_t *)&block->class_index;
}

/* May a block of `bytes` of ours be there? */
static int is_inside(const struct tide_heap *heap, uint64_t offset,
                     uint64_t bytes)
{
    return offset % HEADER_BYTES == 0 && offset >= heap->first &&
           offset < heap->top && bytes <= heap->end - offset;
}

static void push_free(struct tide_heap *heap, uint64_t offset, uint32_t index)
{
    struct block *block = block_at(heap->arena, offset);
    atomic_store_explicit(&block->next, heap->free[index],
                          memory_order_relaxed);
    heap->free[index] = offset;
    heap->nonempty[index / 64] |= UINT64_C(1) << (index % 64);
}

static uint64_t pop_free(struct tide_heap *heap, uint32_t index)
{
    uint64_t offset = heap->free[index];
    struct block *block = block_at(heap->arena, offset);
    uint64_t next = atomic_load_explicit(&block->next, memory_order_relaxed);
    heap->free[index] = is_inside(heap, next, class_bytes(index)) ? next : 0;
    if (heap->free[index] == 0)
        heap->nonempty[index / 64] &= ~(UINT64_C(1) << (index % 64));
    if (class_bytes(index) >= LARGE_BYTES &&
        atomic_load_explicit(&block->state, memory_order_relaxed) == FREE)
        heap->warm_bytes -= class_bytes(index);
    return offset;
}

static void name_pending(struct tide_region *region, uint64_t offset)
{
    /* Nothing that follows may be seen before the name: the supervisor reads
     * the region as it was at the owner's last store. */
    atomic_store_explicit(&region->pending, offset, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

/* Put a block of ours on its list, its pages returned if we hold too many. */
static void release(struct tide_heap *heap, uint64_t offset)
{
    if (!is_inside(heap, offset, SMALLEST_BYTES))
        return; /* scribbled over, or the name of it */
    struct block *block = block_at(heap->arena, offset);
    uint32_t index = load_class(block);
    uint32_t state = FREE;
    if (index >= TIDE_HEAP_CLASSES ||
        !is_inside(heap, offset, class_bytes(index)))
        return;
    uint64_t bytes = class_bytes(index);
    if (bytes >= LARGE_BYTES) {
        if (heap->warm_bytes + bytes > WARM_LIMIT_BYTES) {
            tide_arena_punch(heap->arena, offset + HEADER_BYTES,
                             bytes - HEADER_BYTES);
            state = FREE_COLD;
        } else {
            heap->warm_bytes += bytes;
        }
    }
    atomic_store_explicit(&block->state, state, memory_order_relaxed);
    push_free(heap, offset, index);
}

static void take_returned(struct tide_heap *heap)
{
    struct tide_region *region = heap->region;
    uint64_t offset =
        atomic_load_explicit(&region->returned, memory_order_acquire);
    for (uint32_t links = 0; links < LINKS_MAX; links++) {
        if (!is_inside(heap, offset, SMALLEST_BYTES))
            break;
        uint64_t next = atomic_load_explicit(
            &block_at(heap->arena, offset)->next, memory_order_relaxed);
        name_pending(region, offset);
        if (atomic_compare_exchange_weak_explicit(&region->returned, &offset,
                                                  next, memory_order_acquire,
                                                  memory_order_acquire)) {
            TIDE_STEP(REGION_TAKEN);
            release(heap, offset);
            offset =
                atomic_load_explicit(&region->returned, memory_order_acquire);
        }
    }
    tide_heap_settle(heap);
}

/* A non-empty class in [from, to), or `to`. */
static uint32_t find_class(const struct tide_heap *heap, uint32_t from,
                           uint32_t to)
{
    for (uint32_t index = from; index < to; index++) {
        uint64_t rest = heap->nonempty[index / 64] >> (index % 64);
        if (rest == 0) {
            index |= 63;
            continue;
        }
        index += (uint32_t)__builtin_ctzll(rest);
        return index < to ? index : to;
    }
    return to;
}

static uint64_t carve(struct tide_heap *heap, uint32_t index)
{
    struct tide_region *region = heap->region;
    uint64_t top = heap->top;
    if (class_bytes(index) > heap->end - top)
        return 0;
    struct block *block = block_at(heap->arena, top);
    block->class_index = index;
    atomic_store_explicit(&block->state, FREE, memory_order_relaxed);
    heap->top += class_bytes(index);
    atomic_store_explicit(&region->top, heap->top, memory_order_release);
    TIDE_STEP(REGION_CARVED);
    return top;
}

uint64_t tide_heap_alloc(struct tide_heap *heap, uint64_t size)
{
    if (TIDE_FAULT(REGION_FULL) || size > heap->end - heap->first)
        return 0;
    uint32_t index = class_of(size + HEADER_BYTES);
    if (index >= TIDE_HEAP_CLASSES)
        return 0;
    if (atomic_load_explicit(&heap->region->returned, memory_order_relaxed))
        take_returned(heap);

    uint32_t near = index + NEAR_CLASSES;
    if (near > TIDE_HEAP_CLASSES)
        near = TIDE_HEAP_CLASSES;
    uint32_t found = find_class(heap, index, near);
    uint64_t offset = found < near ? pop_free(heap, found) : carve(heap, index);
    if (offset == 0) {
        found = find_class(heap, near, TIDE_HEAP_CLASSES);
        if (found == TIDE_HEAP_CLASSES)
            return 0;
        offset = pop_free(heap, found);
    } else if (found == near) {
        found = index;
    }
    heap->capacity = class_bytes(found) - HEADER_BYTES;
    name_pending(heap->region, offset);
    atomic_store_explicit(&block_at(heap->arena, offset)->state, USED,
                          memory_order_relaxed);
    TIDE_STEP(REGION_ALLOCATED);
    return offset + HEADER_BYTES;
}

void tide_heap_outdate(struct tide_heap *heap, uint64_t offset)
{
    atomic_store_explicit(&heap->region->outdated, offset - HEADER_BYTES,
                          memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

void tide_heap_free(struct tide_heap *heap, uint64_t offset)
{
    if (offset == 0)
        return;
    name_pending(heap->region, offset - HEADER_BYTES);
    TIDE_STEP(REGION_NAMED);
    release(heap, offset - HEADER_BYTES);
    TIDE_STEP(REGION_FREED);
    tide_heap_settle(heap);
}

void tide_region_return(const struct tide_arena *arena,
                        struct tide_region *region, uint64_t offset)
{
    offset -= HEADER_BYTES;
    struct block *block = block_at(arena, offset);
    atomic_store_explicit(&block->state, GIVEN, memory_order_relaxed);
    TIDE_STEP(REGION_GIVEN);
    uint64_t head =
        atomic_load_explicit(&region->returned, memory_order_relaxed);
    do {
        atomic_store_explicit(&block->next, head, memory_order_relaxed);
        /* Release: the owner must see the link, and be done with our reads of
         * the payload before it writes there again. */
    } while (!atomic_compare_exchange_weak_explicit(
        &region->returned, &head, offset, memory_order_release,
        memory_order_relaxed));
}

static int is_block(const struct tide_arena *arena, uint64_t offset)
{
    return offset % HEADER_BYTES == 0 && offset != 0 &&
           tide_arena_holds(arena, offset, HEADER_BYTES);
}

/* A broken stack counts as holding everything: a block is lost, not owned twice. */
static int on_return_stack(const struct tide_arena *arena,
                           struct tide_region *region, uint64_t offset)
{
    uint64_t at = atomic_load_explicit(&region->returned, memory_order_acquire);
    for (uint32_t links = 0; links < LINKS_MAX; links++) {
        if (at == offset || !is_block(arena, at))
            break;
        at = atomic_load_explicit(&block_at(arena, at)->next,
                                  memory_order_relaxed);
    }
    return at != 0;
}

static void settle_one(const struct tide_arena *arena,
                       struct tide_region *region, uint64_t offset,
                       uint64_t published)
{
    if (is_block(arena, offset) && offset + HEADER_BYTES != published &&
        !on_return_stack(arena, region, offset))
        atomic_store_explicit(&block_at(arena, offset)->state, FREE,
                              memory_order_relaxed);
}

void tide_region_settle(const struct tide_arena *arena,
                        struct tide_region *region, uint64_t published)
{
    settle_one(arena, region,
               atomic_load_explicit(&region->pending, memory_order_acquire),
               published);
    settle_one(arena, region,
               atomic_load_explicit(&region->outdated, memory_order_acquire),
               published);
    atomic_store_explicit(&region->pending, 0, memory_order_release);
    atomic_store_explicit(&region->outdated, 0, memory_order_release);
}

void tide_region_init(struct tide_region *region, uint64_t first, uint64_t end)
{
    region->first = first;
    region->end = end;
    atomic_init(&region->top, first);
    atomic_init(&region->returned, 0);
    atomic_init(&region->pending, 0);
    atomic_init(&region->outdated, 0);
}

/* What is said of the region, as far as it can be true. */
static struct tide_heap look_at(const struct tide_arena *arena,
                                struct tide_region *region)
{
    struct tide_heap heap = {
        .arena = arena,
        .region = region,
        .first = *(const volatile uint64_t *)&region->first,
        .end = *(const volatile uint64_t *)&region->end,
        .top = atomic_load_explicit(&region->top, memory_order_acquire),
    };
    if (heap.end > arena->size)
        heap.end = arena->size;
    if (heap.first > heap.end || heap.first % HEADER_BYTES != 0)
        heap.first = heap.end; /* no room */
    if (heap.top < heap.first || heap.top > heap.end)
        heap.top = heap.end;
    return heap;
}

void tide_heap_open(struct tide_heap *heap, const struct tide_arena *arena,
                    struct tide_region *region)
{
    *heap = look_at(arena, region);
    for (uint64_t at = heap->first; at < heap->top;) {
        struct block *block = block_at(arena, at);
        uint32_t index = load_class(block);
        uint32_t state =
            atomic_load_explicit(&block->state, memory_order_relaxed);
        if (index >= TIDE_HEAP_CLASSES || state < FREE || state > GIVEN)
            return; /* scribbled over: carve behind it, never walk into it */
        if (state == FREE || state == FREE_COLD)
            release(heap, at);
        at += class_bytes(index);
    }
}

void tide_region_visit(const struct tide_arena *arena,
                       struct tide_region *region,
                       void (*visit)(uint64_t offset, void *context),
                       void *context)
{
    uint64_t top = atomic_load_explicit(&region->top, memory_order_acquire);
    for (uint64_t at = region->first; at < top;) {
        struct block *block = block_at(arena, at);
        if (block->class_index >= TIDE_HEAP_CLASSES)
            return;
        if (atomic_load_explicit(&block->state, memory_order_acquire) == USED)
            visit(at + HEADER_BYTES, context);
        at += class_bytes(block->class_index);
    }
}

/* The owner is dead, so nothing leaves the stack. Who returns a block says so first,
 * and no more when it is on the stack: so that is asked first, and the stack looked
 * at then. */
static void audit_block(const struct tide_arena *arena,
                        struct tide_region *region, uint64_t at,
                        int (*is_needed)(uint64_t offset))
{
    _Atomic uint32_t *state = &block_at(arena, at)->state;
    uint32_t seen = atomic_load(state);
    if ((seen == USED || seen == GIVEN) && !is_needed(at + HEADER_BYTES) &&
        (seen == USED || !on_return_stack(arena, region, at)))
        atomic_compare_exchange_strong(state, &seen, FREE);
}

void tide_region_audit(const struct tide_arena *arena,
                       struct tide_region *region,
                       int (*is_needed)(uint64_t offset))
{
    uint64_t top = atomic_load_explicit(&region->top, memory_order_acquire);
    tide_region_settle(arena, region, 0);
    for (uint64_t at = region->first; at < top;) {
        uint32_t index = block_at(arena, at)->class_index;
        if (index >= TIDE_HEAP_CLASSES)
            return;
        audit_block(arena, region, at, is_needed);
        at += class_bytes(index);
    }
}

uint64_t tide_block_capacity(const struct tide_arena *arena, uint64_t offset)
{
    if (!is_block(arena, offset - HEADER_BYTES))
        return 0;
    struct block *block = block_at(arena, offset - HEADER_BYTES);
    uint32_t state = atomic_load_explicit(&block->state, memory_order_relaxed);
    uint32_t index = load_class(block);
    if (state != USED || index >= TIDE_HEAP_CLASSES)
        return 0;
    uint64_t bytes = class_bytes(index) - HEADER_BYTES;
    return tide_arena_holds(arena, offset, bytes) ? bytes : 0;
}
