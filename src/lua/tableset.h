/**
 * @file tableset.h
 * @brief A set of tables: has this one been met? Emptied in no time.
 *
 * Tables are TIDE_TABLE_BYTES long, so no two begin in the same granule of that
 * size, and a bit a granule tells them apart. Tables made one after the other share
 * pages of memory, whose bits are together, so that a hundred thousand of them leave
 * a set that still fits the cache.
 */
#ifndef TIDE_LUA_TABLESET_H
#define TIDE_LUA_TABLESET_H

#include <stddef.h>
#include <stdint.h>

enum {
    TIDE_TABLE_BYTES = 64,
    TIDE_TABLESET_PAGE_SHIFT = 15,
    TIDE_TABLESET_PAGE_BITS = 32, /* of an address, without the page's own */
    TIDE_TABLESET_WORDS =
        (1 << TIDE_TABLESET_PAGE_SHIFT) / TIDE_TABLE_BYTES / 64
};

struct tide_tableset_page {
    uint64_t key; /* generation and page */
    uint64_t bits[TIDE_TABLESET_WORDS];
};

struct tide_tableset {
    struct tide_tableset_page *pages; /* open addressing */
    struct tide_tableset_page *last;  /* the one met last, */
    uintptr_t last_number;            /* and its address in pages; 0 for none */
    size_t mask;                      /* capacity - 1 */
    size_t count;
    uint64_t generation; /* pages of others do not count */
};

/** Forget every table. A zeroed set must be cleared before its first use. */
void tide_tableset_clear(struct tide_tableset *set);
void tide_tableset_free(struct tide_tableset *set);

/** Turn to the page of the table. @return 0, or -1 without memory */
int tide_tableset_turn(struct tide_tableset *set, const void *table);

static inline uint64_t tide_tableset_key(const struct tide_tableset *set,
                                         const void *table)
{
    return set->generation << TIDE_TABLESET_PAGE_BITS |
           (uint64_t)(uintptr_t)table >> TIDE_TABLESET_PAGE_SHIFT;
}

/** Is the page of the table the one turned to last? */
static inline int tide_tableset_is_turned(const struct tide_tableset *set,
                                          const void *table)
{
    return set->last_number == (uintptr_t)table >> TIDE_TABLESET_PAGE_SHIFT;
}

/** Add a table from the page turned to. @return is it new to the set? */
static inline int tide_tableset_mark(struct tide_tableset *set,
                                     const void *table)
{
    uint64_t granule = (uint64_t)(uintptr_t)table / TIDE_TABLE_BYTES;
    uint64_t bit = UINT64_C(1) << granule % 64;
    uint64_t *bits = &set->last->bits[granule / 64 % TIDE_TABLESET_WORDS];
    int is_new = (*bits & bit) == 0;
    *bits |= bit;
    return is_new;
}

/** Add any table. @return 1 if it is new to the set, 0 if not, -1 without memory */
static inline int tide_tableset_add(struct tide_tableset *set,
                                    const void *table)
{
    if (!tide_tableset_is_turned(set, table) &&
        tide_tableset_turn(set, table) != 0)
        return -1;
    return tide_tableset_mark(set, table);
}

#endif
