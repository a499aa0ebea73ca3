/**
 * @file load.h
 * @brief A message at rest in shared memory, with the objects that it names.
 */
#ifndef TIDE_SHARE_LOAD_H
#define TIDE_SHARE_LOAD_H

#include "share/object.h"

#include <stddef.h>

/** Bytes, and the objects that they name. */
struct tide_message {
    const unsigned char *bytes;
    size_t length;
    const tide_handle *held; /* the sender's, for as long as a call takes */
    size_t held_count;
};

/** The same in a block: the objects, then the bytes. */
struct tide_load {
    uint64_t length;
    uint64_t held_count;
    tide_handle held[];
};

/** Bytes of a load for this message. */
size_t tide_load_bytes(const struct tide_message *message);

/**
 * Make a block that belongs to `owner`. Its objects are referred to from then on,
 * until tide_load_free().
 *
 * @return its offset; 0 without memory
 */
uint64_t tide_load_make(tide_handle owner, const struct tide_message *message);

/** What is in a load, where it is or a copy of it. */
struct tide_message tide_load_message(const struct tide_load *load);

/** Take back what a load refers to, and free it. 0 is ignored. */
void tide_load_free(uint64_t block);

#endif
