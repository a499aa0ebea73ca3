/**
 * @file tableset.h
 * @brief A set of tables: has this one been met? Emptied in no time.
 *
 * Tables are TIDE_TABLE_BYTES long, so no two begin in the same granule of that
 * size, and a bit a granule tells them apart. The bits of a page of memory are one
 * word; tables made one after the other share pages, so that a hundred thousand of
 * them leave a set that still fits the cache.
 */
#ifndef TIDE_LUA_TABLESET_H
#define TIDE_LUA_TABLESET_H

#include <stddef.h>
#include <stdint.h>

enum {
    TIDE_TABLE_BYTES = 64,
    TIDE_TABLESET_PAGE_SHIFT = 12,
    TIDE_TABLESET_PAGE_BITS = 35 /* of an address, without the page's own */
};

struct tide_tableset_page {
    uint64_t key; /* generation and page */
    uint64_t bits;
};

struct tide_tableset {
    struct tide_tableset_page *pages; /* open addressing */
    struct tide_tableset_page *last;  /* the one met last */
    size_t mask;                      /* capacity - 1 */
    size_t count;
    uint64_t generation; /* pages of others do not count */
};

/** Forget every table. A zeroed set must be cleared before its first use. */
void tide_tableset_clear(struct tide_tableset *set);
void tide_tableset_free(struct tide_tableset *set);

/** The page with this key, made if need be; NULL without memory. */
struct tide_tableset_page *tide_tableset_page(struct tide_tableset *set,
                                              uint64_t key);

/** @return 1 if the table is new to the set, 0 if not, -1 without memory */
static inline int tide_tableset_add(struct tide_tableset *set,
                                    const void *table)
{
    uint64_t address = (uint64_t)(uintptr_t)table;
    uint64_t key = set->generation << TIDE_TABLESET_PAGE_BITS |
                   address >> TIDE_TABLESET_PAGE_SHIFT;
    uint64_t bit = UINT64_C(1) << (address / TIDE_TABLE_BYTES % 64);
    struct tide_tableset_page *page = set->last;
    if (page == NULL || page->key != key) {
        page = tide_tableset_page(set, key);
        if (page == NULL)
            return -1;
    }
    int is_new = (page->bits & bit) == 0;
    page->bits |= bit;
    return is_new;
}

#endif
