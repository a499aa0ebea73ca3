/*
 * Tables written in fewer bytes than their entries would take one by one: arrays of
 * numbers, and records, tables of a few pairs whose keys others have as well.
 */
#include "lua/encode_cursor.h"

/* ---- arrays of numbers ---- */

uint32_t tide_cursor_count_numbers(const struct tide_gc_table *table)
{
    const uint64_t *array = table->array;
    uint32_t size = table->array_size, count = 0;
    if (array[0] != TIDE_BITS_NIL || table->node_mask != 0 ||
        table->nodes->value != TIDE_BITS_NIL)
        return 0;
    /* By the kind: in this loop that is faster than tide_bits_is_number(). */
    while (count + 1 < size &&
           tide_bits_kind(array[count + 1]) >= TIDE_KIND_NUMBER)
        count++;
    for (uint32_t i = count + 1; i < size; i++)
        if (array[i] != TIDE_BITS_NIL)
            return 0;
    return count >= TIDE_PACK_FROM ? count : 0;
}

/* The bytes that the widest of the numbers takes: 8 unless all are whole. */
static unsigned width_of(const uint64_t *numbers, uint32_t count)
{
    int32_t low = 0, high = 0;
    for (uint32_t i = 0; i < count; i++) {
        int32_t whole = tide_whole_of(tide_bits_number(numbers[i]));
        if (tide_bits_of_number(whole) != numbers[i]) /* also for -0 */
            return 8;
        low = whole < low ? whole : low;
        high = whole > high ? whole : high;
    }
    if (low >= INT8_MIN && high <= INT8_MAX)
        return 1;
    return low >= INT16_MIN && high <= INT16_MAX ? 2 : 4;
}

/* Inlined once for each width, which makes of memcpy() a store. */
static inline void write_narrow(unsigned char *at, const uint64_t *numbers,
                                uint32_t count, const unsigned width)
{
    for (uint32_t i = 0; i < count; i++, at += width) {
        int32_t whole = tide_whole_of(tide_bits_number(numbers[i]));
        memcpy(at, &whole, width); /* little-endian: its low bytes */
    }
}

static void write_numbers(unsigned char *at, const uint64_t *numbers,
                          uint32_t count, unsigned width)
{
    switch (width) {
    case 1:
        write_narrow(at, numbers, count, 1);
        break;
    case 2:
        write_narrow(at, numbers, count, 2);
        break;
    case 4:
        write_narrow(at, numbers, count, 4);
        break;
    default:
        memcpy(at, numbers, count * sizeof *numbers);
    }
}

unsigned char *tide_cursor_put_numbers(struct tide_encoder *e,
                                       unsigned char *at,
                                       const struct tide_gc_table *table,
                                       uint32_t count)
{
    const uint64_t *numbers = table->array + 1;
    unsigned width = width_of(numbers, count);
    size_t bytes = (size_t)count * width;
    at = tide_cursor_room(e, at, 2 + TIDE_VARINT_MAX + bytes);
    if (at == NULL)
        return NULL;
    *at++ = TIDE_TAG_NUMBERS;
    *at++ = (unsigned char)width;
    at = tide_write_varint(at, count);
    if (width == 8 && bytes >= TIDE_PAGES_FROM && e->out->fill != NULL) {
        tide_cursor_settle(e, at);
        tide_buffer_put_large(e->out, numbers, bytes);
        return tide_cursor_resume(e);
    }
    write_numbers(at, numbers, count, width);
    return at + bytes;
}

/* ---- records ---- */

enum {
    PROBES = 4,
    NO_KEY = 0 /* behind the keys of a shape; no value is all zeros but 0.0 */
};

/* The keys of a table of few pairs with strings as keys; 0 for another. */
static uint32_t gather_keys(const struct tide_gc_table *table, uint64_t *keys,
                            uint64_t *hash)
{
    uint32_t count = 0;
    *hash = 0;
    if (table->array_size != 0 || table->node_mask >= TIDE_SHAPE_NODES_MAX)
        return 0;
    for (uint32_t i = 0; i <= table->node_mask; i++) {
        const struct tide_gc_node *node = &table->nodes[i];
        if (node->value == TIDE_BITS_NIL)
            continue;
        if (count == TIDE_SHAPE_KEYS_MAX ||
            tide_bits_kind(node->key) != TIDE_KIND_STRING)
            return 0;
        keys[count++] = node->key;
        *hash = (*hash << 7 | *hash >> 57) ^ node->key;
    }
    return count;
}

static uint64_t hash_of(const struct tide_gc_table *table)
{
    uint64_t keys[TIDE_SHAPE_KEYS_MAX];
    uint64_t hash;
    return gather_keys(table, keys, &hash) != 0 ? hash : 0;
}

/* Does the table have the keys of the shape, and no others? */
static inline int fits(const struct tide_shape *shape,
                       const struct tide_gc_table *table)
{
    const uint64_t *key = shape->keys;
    const struct tide_gc_node *node = table->nodes;
    const struct tide_gc_node *end = node + table->node_mask + 1;
    for (; node < end; node++) {
        if (node->value == TIDE_BITS_NIL)
            continue;
        if (node->key != *key)
            return 0;
        key++;
    }
    return *key == NO_KEY;
}

/*
 * Where the shape of the table is, or is to be: in one of a few places from the one
 * its keys lead to. If others have all of those, it takes the first from them.
 */
static unsigned place_of(const struct tide_encoder *e,
                         const struct tide_gc_table *table, uint64_t hash)
{
    const struct tide_shape *places = e->codec->shapes.places;
    uint64_t mixed = hash * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    unsigned home = (unsigned)(mixed % TIDE_SHAPE_PLACES);
    for (unsigned i = 0; i < PROBES; i++) {
        unsigned place = (home + i) % TIDE_SHAPE_PLACES;
        if (places[place].generation != e->shape_generation ||
            fits(&places[place], table))
            return place;
    }
    return home;
}

/* The shape of a table that is not as the hint had it; NULL if it has none. */
TIDE_OUTLINE static struct tide_shape *
find_shape(struct tide_encoder *e, const struct tide_gc_table *table,
           unsigned char *hint)
{
    uint64_t keys[TIDE_SHAPE_KEYS_MAX];
    uint64_t hash;
    uint32_t count = gather_keys(table, keys, &hash);
    if (count == 0)
        return NULL;
    *hint = (unsigned char)place_of(e, table, hash);
    struct tide_shape *shape = &e->codec->shapes.places[*hint];
    if (shape->generation != e->shape_generation || !fits(shape, table)) {
        shape->generation = e->shape_generation;
        shape->met = 0;
        shape->count = count;
        shape->hash = hash;
        memcpy(shape->keys, keys, count * sizeof *keys);
        shape->keys[count] = NO_KEY;
    }
    return shape;
}

/* The tag and the keys of a new shape. */
TIDE_OUTLINE static unsigned char *define_shape(struct tide_encoder *e,
                                                unsigned char *at,
                                                struct tide_shape *shape)
{
    e->head |= TIDE_HEAD_SHAPES;
    shape->number = e->shape_count++;
    *at++ = TIDE_TAG_SHAPE;
    *at++ = (unsigned char)shape->count;
    for (uint32_t i = 0; i < shape->count && at != NULL; i++)
        at = tide_cursor_put_string(e, at, tide_bits_pointer(shape->keys[i]));
    return at;
}

static inline unsigned char *
put_shape(struct tide_encoder *e, unsigned char *at, struct tide_shape *shape)
{
    at = tide_cursor_room(e, at, 2);
    if (at == NULL)
        return NULL;
    if (shape->met == TIDE_SHAPE_FROM)
        return define_shape(e, at, shape);
    at[0] = TIDE_TAG_SHAPED;
    at[1] = (unsigned char)shape->number;
    return at + 2;
}

/*
 * The values; the shape itself may go when there are others in them. A hook may
 * have changed the table (its nodes, its keys, or which have values).
 */
static unsigned char *put_fields(struct tide_encoder *e, unsigned char *at,
                                 const struct tide_gc_table *table,
                                 struct tide_shape *shape)
{
    uint64_t hash = shape->hash;
    unsigned char *hint = shape->hints;
    const struct tide_gc_node *nodes = table->nodes, *node = nodes;
    const uint32_t mask = table->node_mask;
    const struct tide_gc_node *end = node + mask + 1;
    e->depth++;
    for (; node < end; node++) {
        uint64_t value = node->value, key = node->key;
        if (tide_bits_is_number(value)) {
            at = tide_cursor_put_number(e, at, value);
        } else if (tide_bits_kind(value) == TIDE_KIND_STRING) {
            at = tide_cursor_put_string(e, at, tide_bits_pointer(value));
        } else {
            if (value == TIDE_BITS_NIL)
                continue;
            /* A hook may have given values to more keys than there were. */
            if (hint == shape->hints + TIDE_SHAPE_KEYS_MAX)
                return tide_cursor_fail_changed(e);
            at = tide_cursor_put_other(e, at, value, hint);
            if (at != NULL &&
                (table->nodes != nodes || table->node_mask != mask))
                return tide_cursor_fail_changed(e);
        }
        if (at == NULL)
            return tide_cursor_fail_at(e, key);
        hint++;
    }
    e->depth--;
    return e->numbers && hash_of(table) != hash ? tide_cursor_fail_changed(e)
                                                : at;
}

unsigned char *tide_cursor_put_record(struct tide_encoder *e, unsigned char *at,
                                      const struct tide_gc_table *table,
                                      unsigned char *hint)
{
    struct tide_shape *shape = &e->codec->shapes.places[*hint];
    if (shape->generation != e->shape_generation || !fits(shape, table)) {
        shape = find_shape(e, table, hint);
        if (shape == NULL)
            return tide_cursor_put_entries(e, at, table);
    }
    if (shape->met < TIDE_SHAPE_FROM - 1 ||
        (shape->met == TIDE_SHAPE_FROM - 1 &&
         e->shape_count == TIDE_SHAPES_MAX)) {
        shape->met += shape->met < TIDE_SHAPE_FROM - 1;
        return tide_cursor_put_entries(e, at, table);
    }
    shape->met++;
    at = put_shape(e, at, shape);
    return at != NULL ? put_fields(e, at, table, shape) : NULL;
}
