/*
 * Tables read where they are, see layout.h. A level is a frame on the C stack, not
 * values on the Lua stack: nothing that plain data needs runs Lua code or the
 * collector, and the root is on the stack. Before anything that might, the tables
 * of all frames are put on the Lua stack (anchored), where each stays until its
 * frame is left; and what is read afterwards is read anew, since a hook may have
 * changed it.
 *
 * Most messages are trees of plain data. So a message is first written without
 * numbers for its objects, and only whether a table was met before is noted, a bit
 * each. What needs numbers (a table met again, a metatable, a function, depth)
 * begins the message anew, with them.
 */
#include "lua/encoder.h"
#include "lua/writer.h"

#include <string.h>

enum { PACK_FROM = 8 /* numbers; fewer are no longer with a tag each */ };

struct tide_frame {
    struct tide_frame *up;
    const struct tide_gc_table *table;
    int anchored;
};

static int put_value_slow(struct tide_encoder *e, uint64_t bits);

static int want_numbers(struct tide_encoder *e)
{
    e->wants_numbers = 1;
    return -1;
}

/* ---- the Lua stack ---- */

/* Push any value: through a table, from which the collector never sees it. */
static void push_bits(struct tide_encoder *e, uint64_t bits)
{
    lua_State *L = e->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->codec->ferry);
    uint64_t *place = &tide_gc_table_at(L, -1)->array[1];
    *place = bits;
    lua_rawgeti(L, -1, 1);
    *place = TIDE_BITS_NIL;
    lua_replace(L, -2);
}

static void anchor(struct tide_encoder *e, struct tide_frame *frame)
{
    if (frame == NULL || frame->anchored)
        return;
    anchor(e, frame->up);
    push_bits(e, tide_bits_of(TIDE_KIND_TABLE, frame->table));
    frame->anchored = 1;
}

/* Push a value for what may run the collector. */
static int push(struct tide_encoder *e, uint64_t bits)
{
    if (!lua_checkstack(e->L, TIDE_TABLE_DEPTH + TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);
    anchor(e, e->frame);
    push_bits(e, bits);
    return 0;
}

static void pop(struct tide_encoder *e)
{
    lua_settop(e->L, -2);
}

static int at_key(struct tide_encoder *e, uint64_t key)
{
    if (e->wants_numbers || e->wants_hooks || push(e, key) != 0)
        return -1;
    return tide_encoder_at_key(e, lua_gettop(e->L));
}

/* ---- scalars ---- */

static inline int put_number(struct tide_encoder *e, uint64_t bits)
{
    unsigned char *at = tide_buffer_reserve(e->out, TIDE_NUMBER_MAX);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    unsigned char *end = tide_write_number(at, tide_bits_number(bits));
    e->out->used += (size_t)(end - at);
    return 0;
}

static inline int put_string(struct tide_encoder *e,
                             const struct tide_gc_string *string)
{
    size_t length = string->length;
    unsigned char *at =
        tide_buffer_reserve(e->out, 1 + TIDE_VARINT_MAX + length);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    unsigned char *text = tide_write_string_head(at, length);
    memcpy(text, tide_gc_string_text(string), length);
    e->out->used += (size_t)(text - at) + length;
    return 0;
}

static inline int put_value(struct tide_encoder *e, uint64_t bits)
{
    uint32_t kind = tide_bits_kind(bits);
    if (kind >= TIDE_KIND_NUMBER)
        return put_number(e, bits);
    if (kind == TIDE_KIND_STRING)
        return put_string(e, tide_bits_pointer(bits));
    return put_value_slow(e, bits);
}

/* ---- arrays of numbers ---- */

/* The numbers of a table that has nothing else; 0 if it has, or has few. */
static uint32_t count_numbers(const struct tide_gc_table *table)
{
    const uint64_t *array = table->array;
    uint32_t size = table->array_size, count = 0;
    if (size <= PACK_FROM || array[0] != TIDE_BITS_NIL ||
        table->node_mask != 0 || table->nodes->value != TIDE_BITS_NIL)
        return 0;
    while (count + 1 < size && tide_bits_is_number(array[count + 1]))
        count++;
    for (uint32_t i = count + 1; i < size; i++)
        if (array[i] != TIDE_BITS_NIL)
            return 0;
    return count >= PACK_FROM ? count : 0;
}

/* The bytes that the widest of the numbers takes: 8 unless all are whole. */
static unsigned width_of(const uint64_t *numbers, uint32_t count)
{
    int32_t low = 0, high = 0;
    for (uint32_t i = 0; i < count; i++) {
        double number = tide_bits_number(numbers[i]);
        if (!(number >= INT32_MIN && number <= INT32_MAX))
            return 8;
        int32_t whole = (int32_t)number;
        if (tide_bits_of_number(whole) != numbers[i]) /* also for -0 */
            return 8;
        low = whole < low ? whole : low;
        high = whole > high ? whole : high;
    }
    if (low >= INT8_MIN && high <= INT8_MAX)
        return 1;
    return low >= INT16_MIN && high <= INT16_MAX ? 2 : 4;
}

static void write_numbers(unsigned char *at, const uint64_t *numbers,
                          uint32_t count, unsigned width)
{
    if (width == 8) {
        memcpy(at, numbers, count * sizeof *numbers);
        return;
    }
    for (uint32_t i = 0; i < count; i++, at += width) {
        int32_t whole = (int32_t)tide_bits_number(numbers[i]);
        memcpy(at, &whole, width); /* little-endian: its low bytes */
    }
}

static int put_numbers(struct tide_encoder *e,
                       const struct tide_gc_table *table, uint32_t count)
{
    const uint64_t *numbers = table->array + 1;
    unsigned width = width_of(numbers, count);
    size_t bytes = (size_t)count * width;
    unsigned char *start =
        tide_buffer_reserve(e->out, 2 + TIDE_VARINT_MAX + bytes);
    if (start == NULL)
        return tide_encoder_fail_memory(e);
    unsigned char *at = start;
    *at++ = TIDE_TAG_NUMBERS;
    *at++ = (unsigned char)width;
    at = tide_write_varint(at, count);
    write_numbers(at, numbers, count, width);
    e->out->used += (size_t)(at - start) + bytes;
    return 0;
}

/* ---- records ---- */

/* The keys of a table of few pairs with strings as keys; 0 for another. */
static uint32_t gather_keys(const struct tide_gc_table *table, uint64_t *keys,
                            uint64_t *hash)
{
    uint32_t count = 0;
    if (table->array_size != 0 || table->node_mask >= TIDE_SHAPE_NODES_MAX)
        return 0;
    *hash = 0;
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

/* The shape with these keys, met once more; it may have been another before. */
static struct tide_shape *meet(struct tide_encoder *e, const uint64_t *keys,
                               uint32_t count, uint64_t hash)
{
    uint64_t place = hash * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    struct tide_shape *shape =
        &e->codec->shapes.places[place % TIDE_SHAPE_PLACES];
    int same =
        shape->generation == e->shape_generation && shape->count == count;
    for (uint32_t i = 0; i < count && same; i++)
        same = shape->keys[i] == keys[i];
    if (!same) {
        shape->generation = e->shape_generation;
        shape->met = 0;
        shape->count = count;
        memcpy(shape->keys, keys, count * sizeof *keys);
    }
    shape->met++;
    return shape;
}

/* The tag, and the keys if the shape is new. */
static int put_shape(struct tide_encoder *e, struct tide_shape *shape)
{
    unsigned char *at = tide_buffer_reserve(e->out, 2);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    e->out->used += 2;
    if (shape->met > TIDE_SHAPE_FROM) {
        at[0] = TIDE_TAG_SHAPED;
        at[1] = (unsigned char)shape->number;
        return 0;
    }
    e->head |= TIDE_HEAD_SHAPES;
    shape->number = e->shape_count++;
    at[0] = TIDE_TAG_SHAPE;
    at[1] = (unsigned char)shape->count;
    for (uint32_t i = 0; i < shape->count; i++)
        if (put_string(e, tide_bits_pointer(shape->keys[i])) != 0)
            return -1;
    return 0;
}

static int put_fields(struct tide_encoder *e, const struct tide_gc_table *table,
                      const uint64_t *keys, uint32_t count)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i <= table->node_mask; i++) {
        const struct tide_gc_node *node = &table->nodes[i];
        if (node->value == TIDE_BITS_NIL)
            continue;
        if (at == count || node->key != keys[at])
            return tide_encoder_fail_changed(e);
        if (put_value(e, node->value) != 0)
            return at_key(e, keys[at]);
        at++;
    }
    return at == count ? 0 : tide_encoder_fail_changed(e);
}

/* Write the table as a record. @return 1; 0 if it is none, -1 */
static int put_record(struct tide_encoder *e, const struct tide_gc_table *table)
{
    uint64_t keys[TIDE_SHAPE_KEYS_MAX];
    uint64_t hash;
    uint32_t count = gather_keys(table, keys, &hash);
    if (count == 0)
        return 0;
    struct tide_shape *shape = meet(e, keys, count, hash);
    if (shape->met < TIDE_SHAPE_FROM)
        return 0;
    if (shape->met == TIDE_SHAPE_FROM && e->shape_count == TIDE_SHAPES_MAX) {
        shape->met--;
        return 0;
    }
    return put_shape(e, shape) != 0 || put_fields(e, table, keys, count) != 0
               ? -1
               : 1;
}

/* ---- tables ---- */

/* How many values there are from index 1 on without a hole. */
static uint32_t run_of(const struct tide_gc_table *table)
{
    uint32_t next = 1;
    while (next < table->array_size && table->array[next] != TIDE_BITS_NIL)
        next++;
    return next - 1;
}

static int put_array(struct tide_encoder *e, const struct tide_gc_table *table,
                     uint32_t run)
{
    for (uint32_t i = 1; i <= run; i++) {
        if (i >= table->array_size || table->array[i] == TIDE_BITS_NIL)
            return tide_encoder_fail_changed(e);
        if (put_value(e, table->array[i]) != 0)
            return at_key(e, tide_bits_of_number(i));
    }
    return 0;
}

static int put_pair(struct tide_encoder *e, uint64_t key, uint64_t value)
{
    if (put_value(e, key) != 0 || put_value(e, value) != 0)
        return at_key(e, key);
    return 0;
}

/* All but the values from 1 to `run`; their number goes to `count`. */
static int put_pairs(struct tide_encoder *e, const struct tide_gc_table *table,
                     uint32_t run, uint32_t *count)
{
    *count = 0;
    for (uint32_t i = 0; i < table->array_size; i += i == 0 ? run + 1 : 1) {
        uint64_t value = table->array[i];
        if (value == TIDE_BITS_NIL)
            continue;
        ++*count;
        if (put_pair(e, tide_bits_of_number(i), value) != 0)
            return -1;
    }
    for (uint32_t i = 0; i <= table->node_mask; i++) {
        const struct tide_gc_node *node = &table->nodes[i];
        if (node->value == TIDE_BITS_NIL)
            continue;
        ++*count;
        if (put_pair(e, node->key, node->value) != 0)
            return -1;
    }
    return 0;
}

static int put_metatable(struct tide_encoder *e,
                         const struct tide_gc_table *table)
{
    if (push(e, tide_bits_of(TIDE_KIND_TABLE, table)) != 0 ||
        tide_encode_metatable(e, lua_gettop(e->L)) != 0)
        return -1;
    pop(e);
    return 0;
}

/* Counts, values, pairs; a metatable at last. */
static int put_entries(struct tide_encoder *e,
                       const struct tide_gc_table *table)
{
    uint32_t run = run_of(table), pairs;
    int has_meta = table->metatable != NULL;
    uint64_t most = (uint64_t)table->array_size - run + table->node_mask + 1;
    int small = run <= TIDE_SMALL_TABLE_MAX && most <= TIDE_SMALL_TABLE_MAX;
    unsigned tag = small ? TIDE_TAG_SMALL_TABLE : TIDE_TAG_TABLE;
    size_t count_bytes = small ? 2 : 2 * sizeof(uint32_t);
    unsigned char *at = tide_buffer_reserve(e->out, 1 + count_bytes);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    *at = (unsigned char)(has_meta ? tag + 1 : tag);
    size_t counts = e->out->used + 1;
    e->out->used += 1 + count_bytes;
    if (put_array(e, table, run) != 0 || put_pairs(e, table, run, &pairs) != 0)
        return -1;
    if (small && pairs > TIDE_SMALL_TABLE_MAX)
        return tide_encoder_fail_changed(e);
    tide_encoder_store_counts(e, counts, small, run, pairs);
    if (!has_meta)
        return 0;
    return table->metatable != NULL ? put_metatable(e, table)
                                    : tide_encoder_fail_changed(e);
}

/* Write a table in the shortest way. */
static int put_content(struct tide_encoder *e,
                       const struct tide_gc_table *table)
{
    if (table->metatable != NULL)
        return put_entries(e, table);
    uint32_t numbers = count_numbers(table);
    if (numbers > 0)
        return put_numbers(e, table, numbers);
    int done = put_record(e, table);
    if (done != 0)
        return done < 0 ? -1 : 0;
    return put_entries(e, table);
}

static int put_body(struct tide_encoder *e, const struct tide_gc_table *table,
                    int (*put)(struct tide_encoder *,
                               const struct tide_gc_table *))
{
    struct tide_frame frame = { .up = e->frame, .table = table };
    e->frame = &frame;
    e->depth++;
    int failed = put(e, table);
    e->depth--;
    e->frame = frame.up;
    if (failed)
        return -1;
    if (frame.anchored)
        pop(e);
    return 0;
}

/* A table that has a number; the general case. */
static int put_numbered(struct tide_encoder *e,
                        const struct tide_gc_table *table)
{
    uint64_t bits = tide_bits_of(TIDE_KIND_TABLE, table);
    if (table->metatable != NULL) {
        if (push(e, bits) != 0)
            return -1;
        int hooked = tide_encode_hooked(e, lua_gettop(e->L));
        pop(e);
        if (hooked != 0)
            return hooked < 0 ? -1 : 0;
    }
    int referred = tide_encoder_refer(e, table);
    if (referred != 0)
        return referred < 0 ? -1 : 0;
    if (e->depth < TIDE_TABLE_DEPTH)
        return put_body(e, table, put_content);
    if (push(e, bits) != 0 || tide_encoder_postpone(e, lua_gettop(e->L)) != 0)
        return -1;
    pop(e);
    return 0;
}

static int put_table(struct tide_encoder *e, const struct tide_gc_table *table)
{
    const struct tide_name *name = tide_names_find(&e->codec->names, table);
    if (name != NULL && name->kind < TIDE_NAME_METATABLE)
        return tide_encode_name(e, name);
    if (e->numbers)
        return put_numbered(e, table);
    if (table->metatable != NULL || e->depth >= TIDE_TABLE_DEPTH)
        return want_numbers(e);
    int is_new = tide_tableset_add(&e->codec->met, table);
    if (is_new < 0)
        return tide_encoder_fail_memory(e);
    return is_new ? put_body(e, table, put_content) : want_numbers(e);
}

/* ---- values ---- */

/* Not plain data: by the general encoder. */
static int put_other(struct tide_encoder *e, uint64_t bits)
{
    if (!e->numbers)
        return want_numbers(e);
    if (push(e, bits) != 0 || tide_encode_value(e, lua_gettop(e->L)) != 0)
        return -1;
    pop(e);
    return 0;
}

static int put_value_slow(struct tide_encoder *e, uint64_t bits)
{
    uint32_t kind = tide_bits_kind(bits);
    if (kind == TIDE_KIND_TABLE)
        return put_table(e, tide_bits_pointer(bits));
    if (kind <= TIDE_KIND_TRUE) /* in the order of the tags */
        return tide_encoder_put_byte(e, TIDE_TAG_NIL + kind);
    return put_other(e, bits);
}

int tide_encode_table_direct(struct tide_encoder *e, int index)
{
    return put_table(e, lua_topointer(e->L, index));
}

int tide_encode_body_direct(struct tide_encoder *e, int index)
{
    return put_body(e, lua_topointer(e->L, index), put_entries);
}
