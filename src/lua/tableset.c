#include "lua/tableset.h"

#include "base/fault.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 64, KEPT_CAPACITY = 1 << 16 };

#define LAST_GENERATION ((UINT64_C(1) << (64 - TIDE_TABLESET_PAGE_BITS)) - 1)

static uint64_t generation_of(uint64_t key)
{
    return key >> TIDE_TABLESET_PAGE_BITS;
}

/* The page with this key, or the free place where it belongs. */
static struct tide_tableset_page *find(const struct tide_tableset *set,
                                       uint64_t key)
{
    size_t at = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & set->mask;
    while (set->pages[at].key != key &&
           generation_of(set->pages[at].key) == set->generation)
        at = (at + 1) & set->mask;
    return &set->pages[at];
}

void tide_tableset_clear(struct tide_tableset *set)
{
    if (set->mask >= KEPT_CAPACITY || set->generation == LAST_GENERATION)
        tide_tableset_free(set);
    set->generation++; /* from 1 on: a zeroed page is of none */
    set->count = 0;
    set->last_number = 0;
}

void tide_tableset_free(struct tide_tableset *set)
{
    free(set->pages);
    *set = (struct tide_tableset){ 0 };
}

static int enlarge(struct tide_tableset *set)
{
    size_t old_capacity = set->pages != NULL ? set->mask + 1 : 0;
    size_t capacity = old_capacity != 0 ? old_capacity * 2 : FIRST_CAPACITY;
    struct tide_tableset_page *old = set->pages;
    struct tide_tableset_page *pages =
        TIDE_FAULT(CODEC_MALLOC) ? NULL : calloc(capacity, sizeof *pages);
    if (pages == NULL)
        return -1;
    set->pages = pages;
    set->mask = capacity - 1;
    for (size_t i = 0; i < old_capacity; i++)
        if (generation_of(old[i].key) == set->generation)
            *find(set, old[i].key) = old[i];
    free(old);
    return 0;
}

int tide_tableset_turn(struct tide_tableset *set, const void *table)
{
    uint64_t key = tide_tableset_key(set, table);
    if ((set->pages == NULL || set->count * 2 > set->mask) && enlarge(set) != 0)
        return -1;
    struct tide_tableset_page *page = find(set, key);
    if (page->key != key) {
        *page = (struct tide_tableset_page){ .key = key };
        set->count++;
    }
    set->last = page;
    set->last_number = (uintptr_t)table >> TIDE_TABLESET_PAGE_SHIFT;
    return 0;
}
