/**
 * @file queue_inner.h
 * @brief How a queue lies in shared memory. The argument is in queue.c.
 */
#ifndef TIDE_SHARE_QUEUE_INNER_H
#define TIDE_SHARE_QUEUE_INNER_H

#include "share/guard.h"
#include "share/queue.h"

#include <stdalign.h>

/** Items and bytes of a segment, in one word. */
struct tide_extent {
    uint32_t items;
    uint32_t bytes;
};

struct tide_segment {
    alignas(64) _Atomic uint64_t published; /* an extent, of producers */
    _Atomic uint64_t next; /* offset of the next segment, or 0 */
    uint64_t first;        /* items that were put before this segment's */
    uint64_t capacity;     /* bytes */
    alignas(64) _Atomic uint64_t taken; /* an extent, of consumers */
    alignas(64) unsigned char records[];
};

/** Before each message in a segment. */
struct tide_record {
    uint32_t length; /* of the message, */
    uint32_t in_block;
    unsigned char
        bytes[]; /* which is here, or the offset of a struct tide_load */
};

struct tide_queue {
    alignas(64) struct tide_guard put_guard;
    _Atomic uint64_t tail;      /* the segment that is put to */
    _Atomic uint64_t put_count; /* items ever */
    uint64_t seen_taken;        /* `taken_count` when it was looked at last */
    uint64_t capacity;          /* constant */
    _Atomic uint32_t closed;

    alignas(64) struct tide_guard get_guard;
    _Atomic uint64_t head; /* the segment that is taken from */
    _Atomic uint64_t taken_count;
    _Atomic uint64_t
        seen; /* of the head's `published`, no more than there is */

    alignas(64) _Atomic uint64_t done_count;

    alignas(64) struct tide_waiters takers;
    struct tide_waiters putters;
    struct tide_waiters joiners;
    struct tide_stuck stuck;
    _Atomic uint64_t hands[TIDE_ENTRIES_MAX]; /* loads taken and not put away */
};

static inline uint64_t tide_extent_pack(struct tide_extent extent)
{
    return (uint64_t)extent.items << 32 | extent.bytes;
}

static inline struct tide_extent tide_extent_unpack(uint64_t word)
{
    return (struct tide_extent){ .items = (uint32_t)(word >> 32),
                                 .bytes = (uint32_t)word };
}

static inline struct tide_segment *tide_segment_at(uint64_t offset)
{
    return tide_commons_at(offset);
}

/** Go inside, and mend. */
void tide_queue_enter_put(struct tide_queue *queue);
void tide_queue_enter_get(struct tide_queue *queue);

/** Mend what one that died inside has left. */
void tide_queue_mend_get(struct tide_queue *queue);

/** The load that a record names; 0 if the message is in it. */
static inline uint64_t tide_record_load(const struct tide_record *record)
{
    const uint64_t *block = (const void *)record->bytes;
    return record->in_block ? *block : 0;
}

/** Bytes of a segment that a record takes. */
static inline uint32_t tide_record_bytes(const struct tide_record *record)
{
    uint32_t inside =
        record->in_block ? (uint32_t)sizeof(uint64_t) : record->length;
    return ((uint32_t)sizeof *record + inside + 7) & ~UINT32_C(7);
}

#endif
