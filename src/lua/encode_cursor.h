/**
 * @file encode_cursor.h
 * @brief How the direct encoder writes: at a cursor that is kept in a register.
 *
 * Every function here takes the cursor and returns it behind what it wrote, or NULL
 * after noting why. Between the two the message's `used` is out of date: before
 * something else writes to the message, tide_cursor_settle(), and after it,
 * tide_cursor_resume().
 */
#ifndef TIDE_LUA_ENCODE_CURSOR_H
#define TIDE_LUA_ENCODE_CURSOR_H

#include "base/pages.h"
#include "lua/encoder.h"
#include "lua/writer.h"

/* Kept out of the functions that call it, which then have fewer registers to save. */
#define TIDE_OUTLINE __attribute__((cold, noinline))

enum { TIDE_PACK_FROM = 8 /* numbers; fewer are no longer with a tag each */ };

/** Make room for `size` bytes. */
unsigned char *tide_cursor_grow(struct tide_encoder *e, unsigned char *at,
                                size_t size);

/**
 * Anything but a number or a string.
 *
 * @param hint  the place of the shape of the last table that was where this value
 *              is; any byte below TIDE_SHAPE_PLACES will do
 */
unsigned char *tide_cursor_put_other(struct tide_encoder *e, unsigned char *at,
                                     uint64_t bits, unsigned char *hint);

/** A string of TIDE_PAGES_FROM bytes or more. */
unsigned char *tide_cursor_put_large(struct tide_encoder *e, unsigned char *at,
                                     const struct tide_gc_string *string);

/** The numbers of a table that has nothing else; 0 if it has, or has few. */
uint32_t tide_cursor_count_numbers(const struct tide_gc_table *table);

/** Those numbers. */
unsigned char *tide_cursor_put_numbers(struct tide_encoder *e,
                                       unsigned char *at,
                                       const struct tide_gc_table *table,
                                       uint32_t count);

/** A table as it comes: counts, values, pairs, metatable. */
unsigned char *tide_cursor_put_entries(struct tide_encoder *e,
                                       unsigned char *at,
                                       const struct tide_gc_table *table);

/** A table without an array, as a record if there are others like it. */
unsigned char *tide_cursor_put_record(struct tide_encoder *e, unsigned char *at,
                                      const struct tide_gc_table *table,
                                      unsigned char *hint);

/** Add the key to the path, and fail. */
unsigned char *tide_cursor_fail_at(struct tide_encoder *e, uint64_t key);
/** A table is not any more what it was when its writing began. */
unsigned char *tide_cursor_fail_changed(struct tide_encoder *e);

static inline void tide_cursor_settle(struct tide_encoder *e,
                                      const unsigned char *at)
{
    e->out->used = (size_t)(at - e->out->data);
}

static inline unsigned char *tide_cursor_resume(struct tide_encoder *e)
{
    e->limit = e->out->data + e->out->capacity;
    return e->out->data + e->out->used;
}

static inline unsigned char *tide_cursor_room(struct tide_encoder *e,
                                              unsigned char *at, size_t size)
{
    return (size_t)(e->limit - at) >= size ? at : tide_cursor_grow(e, at, size);
}

static inline unsigned char *
tide_cursor_put_number(struct tide_encoder *e, unsigned char *at, uint64_t bits)
{
    at = tide_cursor_room(e, at, TIDE_NUMBER_MAX);
    return at != NULL ? tide_write_number(at, tide_bits_number(bits)) : NULL;
}

static inline unsigned char *
tide_cursor_put_string(struct tide_encoder *e, unsigned char *at,
                       const struct tide_gc_string *string)
{
    size_t length = string->length;
    if (length >= TIDE_PAGES_FROM)
        return tide_cursor_put_large(e, at, string);
    at = tide_cursor_room(e, at, 1 + TIDE_VARINT_MAX + length);
    if (at == NULL)
        return NULL;
    at = tide_write_string_head(at, length);
    tide_write_text(at, tide_gc_string_text(string), length);
    return at + length;
}

static inline unsigned char *tide_cursor_put(struct tide_encoder *e,
                                             unsigned char *at, uint64_t bits,
                                             unsigned char *hint)
{
    if (tide_bits_is_number(bits))
        return tide_cursor_put_number(e, at, bits);
    if (tide_bits_kind(bits) == TIDE_KIND_STRING)
        return tide_cursor_put_string(e, at, tide_bits_pointer(bits));
    return tide_cursor_put_other(e, at, bits, hint);
}

#endif
