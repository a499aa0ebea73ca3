/*
 * Blocks in the regions of the commons. A process allocates from its own region,
 * and anybody frees.
 *
 *   block (16-aligned)                       64-aligned
 *   | tag |  ...  | offset of the block | data ... |
 *
 * The tag says whose a block is: place and generation of an object. So a block that
 * a killed process has left lying about is found: its object is no more. Of a free
 * block it says what the memory holds:
 *
 *   CLEAN   zeroes, but for the pages that it shares with its neighbours. New memory
 *           is so, and a large block whose pages were given back
 *   DIRTY   anything
 *
 * Who hands a block back to another's region names it in its entry as `giving`, takes
 * the tag off, hands it back, and forgets it. A kill in between loses the block until
 * that region changes hands; then what is neither somebody's nor free nor being
 * handed back by a living process is free.
 *
 * Blocks are a line apart and 128 bytes at least: small objects share no line.
 */
#include "share/commons_inner.h"

#include <string.h>
#include <sys/mman.h>

enum {
    LINE_BYTES = 64,
    PREFIX_BYTES = 16,
    LEAST_BYTES = 112, /* with the region's own header 128 */
    PAGE_BYTES = 4096,
    LARGE_BYTES = 256 * 1024 /* from here on pages are given back at once */
};

#define CLEAN UINT64_C(0)
#define DIRTY UINT64_MAX

static const uint64_t most_bytes = UINT64_C(1) << 47;

static _Atomic uint64_t *tag_of(uint64_t block)
{
    return tide_commons_at(block);
}

static uint64_t *block_of(uint64_t data)
{
    return (uint64_t *)tide_commons_at(data) - 1;
}

static uint64_t end_of(uint64_t block)
{
    return block + tide_block_capacity(&tide_commons.arena, block);
}

static int is_large(uint64_t block)
{
    return end_of(block) - block >= LARGE_BYTES;
}

/* Give back all pages that lie within the block. */
static void give_pages(uint64_t block)
{
    tide_arena_punch(&tide_commons.arena, block + PREFIX_BYTES,
                     end_of(block) - block - PREFIX_BYTES);
}

/* ---- allocating ---- */

static void zero(uint64_t from, uint64_t to)
{
    if (to > from)
        memset(tide_commons_at(from), 0, to - from);
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Zero the first `bytes` of `data`, touching no page that is zero already. */
static void zero_data(uint64_t block, uint64_t data, uint64_t bytes)
{
    const uint64_t page = PAGE_BYTES;
    uint64_t tag = atomic_load_explicit(tag_of(block), memory_order_relaxed);
    uint64_t end = data + bytes;
    if (!is_large(block)) {
        if (tag != CLEAN)
            zero(data, end);
        return;
    }
    if (tag != CLEAN)
        give_pages(block);
    uint64_t last_page = end_of(block) / page * page;
    zero(data, least_of(end, (data + page - 1) / page * page));
    zero(last_page, end);
}

uint64_t tide_share_alloc_tagged(uint64_t tag, uint64_t bytes, int clean)
{
    if (bytes > most_bytes)
        return 0;
    uint64_t need = bytes + PREFIX_BYTES + LINE_BYTES - PREFIX_BYTES;
    uint64_t block = tide_heap_alloc(&tide_share.heap,
                                     need < LEAST_BYTES ? LEAST_BYTES : need);
    if (block == 0)
        return 0;
    uint64_t data =
        (block + PREFIX_BYTES + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    if (clean)
        zero_data(block, data, bytes);
    *block_of(data) = block;
    atomic_store_explicit(tag_of(block), tag, memory_order_release);
    tide_heap_settle(&tide_share.heap);
    return data;
}

uint64_t tide_share_alloc(tide_handle owner, uint64_t bytes)
{
    return tide_share_alloc_tagged(owner, bytes, 0);
}

/* ---- freeing ---- */

/* The entry whose region has this offset. */
static uint32_t owner_of(uint64_t offset)
{
    uint32_t top = atomic_load(&tide_shared()->entry_top);
    uint32_t low = TIDE_FIRST_ENTRY + 1;
    uint32_t high = top;
    if (tide_region_holds(&tide_commons.entries[TIDE_FIRST_ENTRY].region,
                          offset, 0))
        return TIDE_FIRST_ENTRY;
    while (low + 1 < high) { /* regions lie in the order of entries */
        uint32_t middle = (low + high) / 2;
        if (tide_commons.entries[middle].region.first <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void free_block(uint64_t block, uint64_t tag)
{
    struct tide_entry *self = &tide_commons.entries[tide_commons.self];
    uint32_t owner = owner_of(block);
    if (owner == tide_commons.self) {
        atomic_store(tag_of(block), tag);
        tide_heap_free(&tide_share.heap, block);
        return;
    }
    atomic_store(&self->giving, block);
    atomic_store(tag_of(block), tag);
    tide_region_return(&tide_commons.arena, &tide_commons.entries[owner].region,
                       block);
    atomic_store(&self->giving, 0);
}

void tide_share_free(uint64_t offset)
{
    if (offset != 0)
        free_block(*block_of(offset), DIRTY);
}

static void free_clean(uint64_t block)
{
    int large = is_large(block);
    if (large)
        give_pages(block);
    free_block(block, large ? CLEAN : DIRTY);
}

void tide_share_free_clean(uint64_t offset)
{
    if (offset != 0)
        free_clean(*block_of(offset));
}

uint64_t tide_share_capacity(uint64_t offset)
{
    return end_of(*block_of(offset)) - offset;
}

/* ---- after a death ---- */

static void free_if_tagged(uint64_t block, void *context)
{
    const uint64_t *tag = context;
    if (atomic_load(tag_of(block)) == *tag)
        free_clean(block);
}

void tide_share_free_tagged(uint64_t tag)
{
    uint32_t top = atomic_load(&tide_shared()->entry_top);
    for (uint32_t i = TIDE_FIRST_ENTRY; i < top; i++)
        tide_region_visit(&tide_commons.arena, &tide_commons.entries[i].region,
                          free_if_tagged, &tag);
}

static int is_being_given(uint64_t block)
{
    uint32_t top = atomic_load(&tide_shared()->entry_top);
    for (uint32_t i = TIDE_FIRST_ENTRY; i < top; i++)
        if (atomic_load(&tide_commons.entries[i].giving) == block &&
            atomic_load(&tide_commons.entries[i].state) == TIDE_ENTRY_TAKEN &&
            tide_entry_has_life(i))
            return 1;
    return 0;
}

/* Of a block that nobody needs any more the pages are given back here. */
static int is_needed(uint64_t block)
{
    if (tide_tag_is_live(atomic_load(tag_of(block))) || is_being_given(block))
        return 1;
    int large = is_large(block);
    if (large)
        give_pages(block);
    atomic_store(tag_of(block), large ? CLEAN : DIRTY);
    return 0;
}

void tide_share_audit(uint32_t entry)
{
    tide_region_audit(&tide_commons.arena, &tide_commons.entries[entry].region,
                      is_needed);
}
