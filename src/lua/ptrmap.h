/**
 * @file ptrmap.h
 * @brief A set of object identities with a number each; emptied in no time.
 *
 * Open addressing. An entry counts only while its generation is the map's, so
 * that clearing is one increment, however large the last message was.
 */
#ifndef TIDE_LUA_PTRMAP_H
#define TIDE_LUA_PTRMAP_H

#include <stddef.h>
#include <stdint.h>

struct tide_ptrmap_entry {
    const void *key;
    uint32_t value;
    uint32_t generation;
};

struct tide_ptrmap {
    struct tide_ptrmap_entry *entries;
    size_t mask; /* capacity - 1; 0 while there are no entries */
    size_t count;
    uint32_t generation;
};

/** Forget every key. A zeroed map must be cleared before its first use. */
void tide_ptrmap_clear(struct tide_ptrmap *map);
void tide_ptrmap_free(struct tide_ptrmap *map);

/** The value of `key`, or `missing`. */
uint32_t tide_ptrmap_get(const struct tide_ptrmap *map, const void *key,
                         uint32_t missing);

/** Add a key that is not there. @return 0, or -1 without memory */
int tide_ptrmap_add(struct tide_ptrmap *map, const void *key, uint32_t value);

#endif
