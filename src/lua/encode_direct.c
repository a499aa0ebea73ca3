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
#include "lua/encode_cursor.h"

enum { AHEAD = 4 /* values that are on their way to the cache */ };

struct tide_frame {
    struct tide_frame *up;
    const struct tide_gc_table *table;
    int anchored;
};

static unsigned char *want_numbers(struct tide_encoder *e)
{
    e->wants_numbers = 1;
    return NULL;
}

static unsigned char *fail_memory(struct tide_encoder *e)
{
    tide_encoder_fail_memory(e);
    return NULL;
}

unsigned char *tide_cursor_fail_changed(struct tide_encoder *e)
{
    tide_encoder_fail_changed(e);
    return NULL;
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

unsigned char *tide_cursor_fail_at(struct tide_encoder *e, uint64_t key)
{
    if (!e->wants_numbers && !e->wants_hooks && push(e, key) == 0)
        tide_encoder_at_key(e, lua_gettop(e->L));
    return NULL;
}

/* ---- the message ---- */

unsigned char *tide_cursor_grow(struct tide_encoder *e, unsigned char *at,
                                size_t size)
{
    tide_cursor_settle(e, at);
    return tide_buffer_reserve(e->out, size) != NULL ? tide_cursor_resume(e)
                                                     : fail_memory(e);
}

/* Write the value, pushed, by one of the general functions. */
static unsigned char *put_by(struct tide_encoder *e, unsigned char *at,
                             uint64_t bits,
                             int (*put)(struct tide_encoder *, int))
{
    tide_cursor_settle(e, at);
    if (push(e, bits) != 0 || put(e, lua_gettop(e->L)) != 0)
        return NULL;
    pop(e);
    return tide_cursor_resume(e);
}

/* ---- tables ---- */

/* Large data is mostly on its way from memory: call for what comes soon. */
static inline void call_for(const uint64_t *array, uint32_t i)
{
    uint64_t far = array[i + AHEAD], near = array[i + AHEAD / 2];
    if (tide_bits_kind(far) == TIDE_KIND_TABLE ||
        tide_bits_kind(far) == TIDE_KIND_STRING)
        __builtin_prefetch(tide_bits_pointer(far));
    if (tide_bits_kind(near) != TIDE_KIND_TABLE)
        return;
    const struct tide_gc_table *soon = tide_bits_pointer(near);
    __builtin_prefetch(soon->nodes);
}

/* The values from 1 on without a hole; how many there were goes to `run`. */
static unsigned char *put_array(struct tide_encoder *e, unsigned char *at,
                                const struct tide_gc_table *table,
                                uint32_t *run)
{
    unsigned char hint = 0;
    const uint64_t *array = table->array;
    uint32_t size = table->array_size, i = 1;
    for (; i < size; i++) {
        uint64_t bits = array[i];
        if (size - i > AHEAD)
            call_for(array, i);
        if (tide_bits_is_number(bits)) {
            at = tide_cursor_put_number(e, at, bits);
        } else if (tide_bits_kind(bits) == TIDE_KIND_STRING) {
            at = tide_cursor_put_string(e, at, tide_bits_pointer(bits));
        } else {
            if (bits == TIDE_BITS_NIL)
                break;
            at = tide_cursor_put_other(e, at, bits, &hint);
            array = table->array; /* a hook may have changed it */
            size = table->array_size;
        }
        if (at == NULL)
            return tide_cursor_fail_at(e, tide_bits_of_number(i));
    }
    *run = i - 1;
    return at;
}

static unsigned char *put_pair(struct tide_encoder *e, unsigned char *at,
                               uint64_t key, uint64_t value)
{
    unsigned char hint = 0;
    at = tide_cursor_put(e, at, key, &hint);
    if (at != NULL)
        at = tide_cursor_put(e, at, value, &hint);
    return at != NULL ? at : tide_cursor_fail_at(e, key);
}

/* The values of the array outside of 1 .. `run`; adds their number to `count`. */
TIDE_OUTLINE static unsigned char *
put_scattered(struct tide_encoder *e, unsigned char *at,
              const struct tide_gc_table *table, uint32_t run, uint32_t *count)
{
    for (uint32_t i = 0; i < table->array_size; i += i == 0 ? run + 1 : 1) {
        uint64_t value = table->array[i];
        if (value == TIDE_BITS_NIL)
            continue;
        ++*count;
        at = put_pair(e, at, tide_bits_of_number(i), value);
        if (at == NULL)
            return NULL;
    }
    return at;
}

/* All but the values from 1 to `run`; their number goes to `count`. */
static inline unsigned char *put_pairs(struct tide_encoder *e,
                                       unsigned char *at,
                                       const struct tide_gc_table *table,
                                       uint32_t run, uint32_t *count)
{
    uint32_t pairs = 0;
    uint32_t size = table->array_size;
    while (size > run + 1 && table->array[size - 1] == TIDE_BITS_NIL)
        size--;
    if (size > 0 && (size > run + 1 || table->array[0] != TIDE_BITS_NIL))
        at = put_scattered(e, at, table, run, &pairs);
    for (uint32_t i = 0; at != NULL && i <= table->node_mask; i++) {
        const struct tide_gc_node *node = &table->nodes[i];
        if (node->value == TIDE_BITS_NIL)
            continue;
        pairs++;
        at = put_pair(e, at, node->key, node->value);
    }
    *count = pairs;
    return at;
}

static unsigned char *put_metatable(struct tide_encoder *e, unsigned char *at,
                                    const struct tide_gc_table *table)
{
    if (table->metatable == NULL)
        return tide_cursor_fail_changed(e);
    return put_by(e, at, tide_bits_of(TIDE_KIND_TABLE, table),
                  tide_encode_metatable);
}

/* Counts, values, pairs; a metatable at last. */
unsigned char *tide_cursor_put_entries(struct tide_encoder *e,
                                       unsigned char *at,
                                       const struct tide_gc_table *table)
{
    uint32_t run = 0, pairs = 0;
    int has_meta = table->metatable != NULL;
    int small =
        (uint64_t)table->array_size + table->node_mask < TIDE_SMALL_TABLE_MAX;
    at = tide_cursor_room(e, at, 1 + 2 * sizeof(uint32_t));
    if (at == NULL)
        return NULL;
    *at++ = (unsigned char)((small ? TIDE_TAG_SMALL_TABLE : TIDE_TAG_TABLE) +
                            has_meta);
    size_t counts = (size_t)(at - e->out->data);
    at += small ? 2 : 2 * sizeof(uint32_t);
    e->depth++;
    at = put_array(e, at, table, &run);
    if (at != NULL)
        at = put_pairs(e, at, table, run, &pairs);
    e->depth--;
    if (at == NULL)
        return NULL;
    if (small && (run > TIDE_SMALL_TABLE_MAX || pairs > TIDE_SMALL_TABLE_MAX))
        return tide_cursor_fail_changed(e);
    tide_encoder_store_counts(e, counts, small, run, pairs);
    return has_meta ? put_metatable(e, at, table) : at;
}

TIDE_OUTLINE static unsigned char *
put_long_array(struct tide_encoder *e, unsigned char *at,
               const struct tide_gc_table *table)
{
    uint32_t numbers = tide_cursor_count_numbers(table);
    return numbers > 0 ? tide_cursor_put_numbers(e, at, table, numbers)
                       : tide_cursor_put_entries(e, at, table);
}

/* Write a table in the shortest way. */
static inline unsigned char *put_content(struct tide_encoder *e,
                                         unsigned char *at,
                                         const struct tide_gc_table *table,
                                         unsigned char *hint)
{
    if (table->metatable != NULL)
        return tide_cursor_put_entries(e, at, table);
    if (table->array_size == 0)
        return tide_cursor_put_record(e, at, table, hint);
    return table->array_size > TIDE_PACK_FROM
               ? put_long_array(e, at, table)
               : tide_cursor_put_entries(e, at, table);
}

/* In a frame. Without a hint the table is written by its entries. */
static unsigned char *put_framed(struct tide_encoder *e, unsigned char *at,
                                 const struct tide_gc_table *table,
                                 unsigned char *hint)
{
    struct tide_frame frame = { .up = e->frame, .table = table };
    e->frame = &frame;
    at = hint != NULL ? put_content(e, at, table, hint)
                      : tide_cursor_put_entries(e, at, table);
    e->frame = frame.up;
    if (at != NULL && frame.anchored)
        pop(e);
    return at;
}

/* A table that has a number; the general case. */
TIDE_OUTLINE static unsigned char *
put_numbered(struct tide_encoder *e, unsigned char *at,
             const struct tide_gc_table *table, unsigned char *hint)
{
    uint64_t bits = tide_bits_of(TIDE_KIND_TABLE, table);
    tide_cursor_settle(e, at);
    if (table->metatable != NULL) {
        if (push(e, bits) != 0)
            return NULL;
        int hooked = tide_encode_hooked(e, lua_gettop(e->L));
        pop(e);
        if (hooked != 0)
            return hooked < 0 ? NULL : tide_cursor_resume(e);
    }
    int referred = tide_encoder_refer(e, table);
    if (referred < 0)
        return NULL;
    at = tide_cursor_resume(e);
    if (referred)
        return at;
    return e->depth < TIDE_TABLE_DEPTH
               ? put_framed(e, at, table, hint)
               : put_by(e, at, bits, tide_encoder_postpone);
}

static unsigned char *put_tree(struct tide_encoder *e, unsigned char *at,
                               const struct tide_gc_table *table,
                               unsigned char *hint);

/* A table from a page other than the last one's. */
TIDE_OUTLINE static unsigned char *
put_from_page(struct tide_encoder *e, unsigned char *at,
              const struct tide_gc_table *table, unsigned char *hint)
{
    return tide_tableset_turn(&e->codec->met, table) == 0
               ? put_tree(e, at, table, hint)
               : fail_memory(e);
}

/* A table of a message without numbers; no Lua code runs meanwhile. */
static inline unsigned char *put_tree(struct tide_encoder *e, unsigned char *at,
                                      const struct tide_gc_table *table,
                                      unsigned char *hint)
{
    struct tide_tableset *met = &e->codec->met;
    if (table->metatable != NULL || e->depth >= TIDE_TABLE_DEPTH)
        return want_numbers(e);
    if (!tide_tableset_is_turned(met, table))
        return put_from_page(e, at, table, hint);
    return tide_tableset_mark(met, table) ? put_content(e, at, table, hint)
                                          : want_numbers(e);
}

/* A table that may have a name. */
TIDE_OUTLINE static unsigned char *
put_suspect(struct tide_encoder *e, unsigned char *at,
            const struct tide_gc_table *table, unsigned char *hint)
{
    const struct tide_name *name = tide_names_find(&e->codec->names, table);
    if (name == NULL || name->kind >= TIDE_NAME_METATABLE)
        return e->numbers ? put_numbered(e, at, table, hint)
                          : put_tree(e, at, table, hint);
    tide_cursor_settle(e, at);
    return tide_encode_name(e, name) == 0 ? tide_cursor_resume(e) : NULL;
}

static inline unsigned char *put_table(struct tide_encoder *e,
                                       unsigned char *at,
                                       const struct tide_gc_table *table,
                                       unsigned char *hint)
{
    if (tide_names_may_have_table(&e->codec->names, table))
        return put_suspect(e, at, table, hint);
    if (e->numbers)
        return put_numbered(e, at, table, hint);
    return put_tree(e, at, table, hint);
}

/* ---- values ---- */

unsigned char *tide_cursor_put_large(struct tide_encoder *e, unsigned char *at,
                                     const struct tide_gc_string *string)
{
    tide_cursor_settle(e, at);
    return tide_encoder_put_tagged(e, TIDE_TAG_STRING, string->length) == 0 &&
                   tide_encoder_put(e, tide_gc_string_text(string),
                                    string->length) == 0
               ? tide_cursor_resume(e)
               : NULL;
}

/* Not plain data: by the general encoder. Or plain, but without room. */
TIDE_OUTLINE static unsigned char *put_rest(struct tide_encoder *e,
                                            unsigned char *at, uint64_t bits)
{
    if (tide_bits_kind(bits) > TIDE_KIND_TRUE && !e->numbers)
        return want_numbers(e);
    return put_by(e, at, bits, tide_encode_value);
}

unsigned char *tide_cursor_put_other(struct tide_encoder *e, unsigned char *at,
                                     uint64_t bits, unsigned char *hint)
{
    uint32_t kind = tide_bits_kind(bits);
    if (kind == TIDE_KIND_TABLE)
        return put_table(e, at, tide_bits_pointer(bits), hint);
    if (kind > TIDE_KIND_TRUE || at == e->limit)
        return put_rest(e, at, bits);
    *at = (unsigned char)(TIDE_TAG_NIL + kind); /* in the order of the tags */
    return at + 1;
}

/* ---- from the general encoder ---- */

static int settle(struct tide_encoder *e, const unsigned char *at)
{
    if (at == NULL)
        return -1;
    tide_cursor_settle(e, at);
    return 0;
}

int tide_encode_table_direct(struct tide_encoder *e, int index)
{
    unsigned char hint = 0;
    return settle(e, put_table(e, tide_cursor_resume(e),
                               lua_topointer(e->L, index), &hint));
}

int tide_encode_body_direct(struct tide_encoder *e, int index)
{
    return settle(e, put_framed(e, tide_cursor_resume(e),
                                lua_topointer(e->L, index), NULL));
}
