/*
 * Tables filled where they are, see layout.h. Each store looks first whether the
 * place is still there and may be written to: a hook may have got hold of the
 * table, and the collector may have visited it. If not, the public functions do it.
 *
 * What is allocated is on the Lua stack until it is stored, each table right below
 * what goes into it; numbers, booleans and nil never are.
 */
#include "lua/decoder.h"

/* What read_item() did: how many values it pushed. */
enum item { ITEM_FAILED = -1, ITEM_PLAIN = 0, ITEM_PUSHED = 1 };

static enum item read_item(struct tide_decoder *d, uint64_t *bits);

static int enter(struct tide_decoder *d)
{
    if (d->depth >= TIDE_VALUE_DEPTH ||
        !tide_stack_has_room(d->L, TIDE_DECODE_SLOTS))
        return tide_decoder_enter(d);
    d->depth++;
    return 0;
}

/* May an item be stored in the table directly? */
static inline int may_store(const struct tide_gc_table *table, enum item item)
{
    return item == ITEM_PLAIN || tide_layout_is_white(table);
}

/* Push what read_item() left as bits. */
static void push_plain(struct tide_decoder *d, uint64_t bits)
{
    if (tide_bits_is_number(bits))
        lua_pushnumber(d->L, tide_bits_number(bits));
    else if (bits == TIDE_BITS_NIL)
        lua_pushnil(d->L);
    else
        lua_pushboolean(d->L, bits == TIDE_BITS_TRUE);
}

/* ---- tables ---- */

static int fill_array(struct tide_decoder *d, struct tide_gc_table *table,
                      uint32_t count)
{
    for (uint32_t i = 1; i <= count; i++) {
        uint64_t bits = TIDE_BITS_NIL;
        enum item item = read_item(d, &bits);
        if (item == ITEM_FAILED)
            return -1;
        if (i < table->array_size && may_store(table, item)) {
            table->array[i] = bits;
            tide_stack_drop(d->L, (int)item);
        } else {
            if (item == ITEM_PLAIN)
                push_plain(d, bits);
            lua_rawseti(d->L, -2, (int)i);
        }
    }
    return 0;
}

/* A pair by the public functions; what was pushed of it is on top. */
static void store_pair(struct tide_decoder *d, enum item key_item, uint64_t key,
                       enum item item, uint64_t value)
{
    if (key_item == ITEM_PLAIN) {
        push_plain(d, key);
        if (item == ITEM_PUSHED)
            lua_insert(d->L, -2);
    }
    if (item == ITEM_PLAIN)
        push_plain(d, value);
    lua_rawset(d->L, -3);
}

static int fill_pairs(struct tide_decoder *d, struct tide_gc_table *table,
                      uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t key = TIDE_BITS_NIL, value = TIDE_BITS_NIL;
        enum item key_item = read_item(d, &key);
        if (key_item == ITEM_FAILED)
            return -1;
        if (key == TIDE_BITS_NIL || key == TIDE_BITS_NAN)
            return tide_decoder_fail_bytes(d);
        enum item item = read_item(d, &value);
        if (item == ITEM_FAILED)
            return -1;
        if (tide_bits_kind(key) == TIDE_KIND_STRING && value != TIDE_BITS_NIL &&
            tide_layout_put_field(table, key, value) == 0)
            tide_stack_drop(d->L, (int)key_item + (int)item);
        else
            store_pair(d, key_item, key, item, value);
    }
    return 0;
}

int tide_decode_fill_direct(struct tide_decoder *d, uint32_t array,
                            uint32_t pairs)
{
    struct tide_gc_table *table = tide_bits_pointer(tide_stack_bits(d->L));
    return fill_array(d, table, array) != 0 || fill_pairs(d, table, pairs) != 0
               ? -1
               : 0;
}

static int decode_small_table(struct tide_decoder *d)
{
    uint32_t array = tide_read_byte(&d->in);
    uint32_t pairs = tide_read_byte(&d->in);
    if (d->in.bad || array + 2 * pairs > tide_read_left(&d->in))
        return tide_decoder_fail_bytes(d);
    lua_createtable(d->L, (int)array, (int)pairs);
    tide_decoder_number(d);
    if (enter(d) != 0 || tide_decode_fill_direct(d, array, pairs) != 0)
        return -1;
    d->depth--;
    return 0;
}

/* ---- records ---- */

static const struct tide_model *model_of(const struct tide_decoder *d,
                                         uint32_t shape)
{
    return &d->codec->models[d->first_model + shape];
}

/* Is the place of key `k` in the table where the model has it? */
static inline int has_place(const struct tide_gc_table *table,
                            const struct tide_model *model, int k)
{
    return model->table != NULL && model->place[k] <= table->node_mask &&
           table->nodes[model->place[k]].key == model->keys[k];
}

static int fill_record(struct tide_decoder *d, struct tide_gc_table *table,
                       uint32_t shape, int count)
{
    for (int k = 0; k < count; k++) {
        uint64_t bits = TIDE_BITS_NIL;
        enum item item = read_item(d, &bits);
        if (item == ITEM_FAILED)
            return -1;
        /* The list of models may have moved: a value may define a shape. */
        const struct tide_model *model = model_of(d, shape);
        if (has_place(table, model, k) && may_store(table, item)) {
            table->nodes[model->place[k]].value = bits;
            tide_stack_drop(d->L, (int)item);
        } else {
            if (item == ITEM_PLAIN)
                push_plain(d, bits);
            tide_decode_store_field(d, shape, k);
        }
    }
    return 0;
}

int tide_decode_record_direct(struct tide_decoder *d, uint32_t shape)
{
    const struct tide_model *model = model_of(d, shape);
    int count = model->count;
    if ((size_t)count > tide_read_left(&d->in))
        return tide_decoder_fail_bytes(d);
    lua_createtable(d->L, 0, count);
    tide_decoder_number(d);
    struct tide_gc_table *table = tide_bits_pointer(tide_stack_bits(d->L));
    if (model->table != NULL) /* if not all is well, no key is in its place */
        tide_layout_take_keys(table, model->table);
    if (enter(d) != 0 || fill_record(d, table, shape, count) != 0)
        return -1;
    d->depth--;
    return 0;
}

static int decode_shaped(struct tide_decoder *d)
{
    uint32_t shape = tide_read_byte(&d->in);
    if (d->in.bad || shape >= d->codec->model_count - d->first_model)
        return tide_decoder_fail_bytes(d);
    return tide_decode_record_direct(d, shape);
}

/* ---- values ---- */

/* Read something that is allocated, or damaged. */
static enum item read_object(struct tide_decoder *d, unsigned tag,
                             uint64_t *bits)
{
    struct tide_reader *in = &d->in;
    int failed = 0;
    if (tag >= TIDE_TAG_SHORT_STRING) {
        size_t length = tag - TIDE_TAG_SHORT_STRING;
        if (tide_read_left(in) <= length)
            return (enum item)tide_decoder_fail_bytes(d);
        lua_pushlstring(d->L, (const char *)in->at + 1, length);
        in->at += 1 + length;
    } else if (tag == TIDE_TAG_SMALL_TABLE) {
        in->at++;
        failed = decode_small_table(d);
    } else if (tag == TIDE_TAG_SHAPED) {
        in->at++;
        failed = decode_shaped(d);
    } else {
        failed = tide_decode_value(d);
    }
    if (failed)
        return ITEM_FAILED;
    *bits = tide_stack_bits(d->L);
    return ITEM_PUSHED;
}

/* The size of a number's bytes behind its tag, one of the three. */
static inline size_t size_of_number(unsigned tag)
{
    return tag == TIDE_TAG_DOUBLE  ? sizeof(double)
           : tag == TIDE_TAG_INT32 ? sizeof(int32_t)
                                   : sizeof(int16_t);
}

/* Read a value; only what is allocated is pushed. */
static enum item read_item(struct tide_decoder *d, uint64_t *bits)
{
    struct tide_reader *in = &d->in;
    size_t left = tide_read_left(in);
    if (left == 0)
        return (enum item)tide_decoder_fail_bytes(d);
    const unsigned char *at = in->at;
    unsigned tag = tide_load8(at);
    if (tag >= TIDE_TAG_SMALL_INT) {
        *bits = tide_bits_of_number(tag - TIDE_TAG_SMALL_INT);
        in->at = at + 1;
    } else if (tag >= TIDE_TAG_STRING) {
        return read_object(d, tag, bits);
    } else if (tag <= TIDE_TAG_TRUE) { /* the kinds are in the same order */
        *bits = TIDE_BITS_PLAIN(tag);
        in->at = at + 1;
    } else {
        size_t size = size_of_number(tag);
        if (left <= size)
            return (enum item)tide_decoder_fail_bytes(d);
        *bits = tide_bits_of_number(tide_read_number(at + 1, size));
        in->at = at + 1 + size;
    }
    return ITEM_PLAIN;
}
