#include "lua/ptrmap.h"

#include "base/fault.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 64, KEPT_CAPACITY = 1 << 16 };

static size_t home(const struct tide_ptrmap *map, const void *key)
{
    /* Fibonacci hashing; objects are aligned, so the low bits say little. */
    uint64_t bits = (uint64_t)(uintptr_t)key >> 3;
    return (size_t)((bits * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & map->mask;
}

/* The entry of `key`, or the free one where it belongs. */
static struct tide_ptrmap_entry *find(const struct tide_ptrmap *map,
                                      const void *key)
{
    size_t at = home(map, key);
    while (map->entries[at].generation == map->generation &&
           map->entries[at].key != key)
        at = (at + 1) & map->mask;
    return &map->entries[at];
}

void tide_ptrmap_clear(struct tide_ptrmap *map)
{
    if (map->mask >= KEPT_CAPACITY || map->generation == UINT32_MAX)
        tide_ptrmap_free(map);
    map->generation++;
    map->count = 0;
}

void tide_ptrmap_free(struct tide_ptrmap *map)
{
    free(map->entries);
    *map = (struct tide_ptrmap){ 0 };
}

uint32_t tide_ptrmap_get(const struct tide_ptrmap *map, const void *key,
                         uint32_t missing)
{
    if (map->entries == NULL)
        return missing;
    const struct tide_ptrmap_entry *entry = find(map, key);
    return entry->generation == map->generation ? entry->value : missing;
}

static int enlarge(struct tide_ptrmap *map)
{
    size_t old_capacity = map->entries ? map->mask + 1 : 0;
    size_t capacity = old_capacity ? old_capacity * 2 : FIRST_CAPACITY;
    struct tide_ptrmap_entry *old = map->entries;
    struct tide_ptrmap_entry *entries =
        TIDE_FAULT(CODEC_MALLOC) ? NULL : calloc(capacity, sizeof *entries);
    if (entries == NULL)
        return -1;
    map->entries = entries;
    map->mask = capacity - 1;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].generation == map->generation)
            *find(map, old[i].key) = old[i];
    free(old);
    return 0;
}

int tide_ptrmap_add(struct tide_ptrmap *map, const void *key, uint32_t value)
{
    if (map->entries == NULL || map->count * 2 > map->mask)
        if (enlarge(map) != 0)
            return -1;
    *find(map, key) = (struct tide_ptrmap_entry){
        .key = key, .value = value, .generation = map->generation
    };
    map->count++;
    return 0;
}
