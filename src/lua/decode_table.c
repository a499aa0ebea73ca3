/*
 * Arrays, packed numbers and records: what is decoded in bulk. Where the layout of
 * tables is known, values are stored directly into a fresh table, and a record gets
 * its keys from a model, as a table constructor does. Each store looks first
 * whether the place is still there and may be written to: a hook may have got hold
 * of the table, and the collector may have visited it. If not, and where the
 * layout is not known, the public functions do it.
 */
#include "lua/decoder.h"

#include <stdlib.h>

/* What read_item() did. */
enum item {
    ITEM_BITS,   /* a number, boolean or nil; nothing was pushed */
    ITEM_OBJECT, /* pushed; its bits are known too */
    ITEM_VALUE,  /* pushed */
    ITEM_FAILED = -1
};

/* ---- values ---- */

static inline double read_packed(const unsigned char *at, unsigned width)
{
    int16_t half;
    int32_t whole;
    double number;
    switch (width) {
    case 1:
        return (signed char)*at;
    case 2:
        memcpy(&half, at, sizeof half);
        return half;
    case 4:
        memcpy(&whole, at, sizeof whole);
        return whole;
    default:
        memcpy(&number, at, sizeof number);
        return number;
    }
}

static int is_table_tag(unsigned tag)
{
    return (tag >= TIDE_TAG_SMALL_TABLE && tag <= TIDE_TAG_TABLE_META) ||
           (tag >= TIDE_TAG_NUMBERS && tag <= TIDE_TAG_SHAPED) ||
           tag == TIDE_TAG_LATER_TABLE;
}

static enum item read_object(struct tide_decoder *d, unsigned tag,
                             uint64_t *bits)
{
    enum tide_kind kind =
        is_table_tag(tag) ? TIDE_KIND_TABLE
        : tag >= TIDE_TAG_SHORT_STRING || tag == TIDE_TAG_STRING
            ? TIDE_KIND_STRING
            : TIDE_KIND_NIL;
    if (tide_decode_value(d) != 0)
        return ITEM_FAILED;
    if (kind == TIDE_KIND_NIL)
        return ITEM_VALUE;
    *bits = tide_bits_of(kind, lua_topointer(d->L, -1));
    return ITEM_OBJECT;
}

/* The size of a number's bytes behind its tag; 0 for any other tag. */
static inline size_t size_of_number(unsigned tag)
{
    return tag == TIDE_TAG_DOUBLE  ? sizeof(double)
           : tag == TIDE_TAG_INT32 ? sizeof(int32_t)
           : tag == TIDE_TAG_INT16 ? sizeof(int16_t)
                                   : 0;
}

/* Read a value; only what is allocated is pushed. */
static enum item read_item(struct tide_decoder *d, uint64_t *bits)
{
    struct tide_reader *in = &d->in;
    if (in->at == in->end)
        return (enum item)tide_decoder_fail_bytes(d);
    unsigned tag = *in->at;
    if (tag >= TIDE_TAG_SMALL_INT) {
        *bits = tide_bits_of_number(tag - TIDE_TAG_SMALL_INT);
        in->at++;
        return ITEM_BITS;
    }
    if (tag <= TIDE_TAG_TRUE) { /* the kinds are in the same order */
        *bits = TIDE_BITS_PLAIN(tag);
        in->at++;
        return ITEM_BITS;
    }
    size_t size = size_of_number(tag);
    if (size == 0)
        return read_object(d, tag, bits);
    if (tide_read_left(in) <= size)
        return (enum item)tide_decoder_fail_bytes(d);
    *bits = tide_bits_of_number(read_packed(in->at + 1, (unsigned)size));
    in->at += 1 + size;
    return ITEM_BITS;
}

/* Push what read_item() left as bits. */
static void push_item(struct tide_decoder *d, enum item item, uint64_t bits)
{
    if (item != ITEM_BITS)
        return;
    if (tide_bits_is_number(bits))
        lua_pushnumber(d->L, tide_bits_number(bits));
    else if (bits == TIDE_BITS_NIL)
        lua_pushnil(d->L);
    else
        lua_pushboolean(d->L, bits == TIDE_BITS_TRUE);
}

/* May the item be stored in the table directly? */
static int may_store(const struct tide_gc_table *table, enum item item)
{
    return item == ITEM_BITS ||
           (item == ITEM_OBJECT && tide_layout_is_white(table));
}

/* ---- arrays ---- */

static int decode_array_api(struct tide_decoder *d, uint32_t count)
{
    int table = lua_gettop(d->L);
    for (uint32_t i = 1; i <= count; i++) {
        if (tide_decode_value(d) != 0)
            return -1;
        lua_rawseti(d->L, table, (int)i);
    }
    return 0;
}

int tide_decode_array(struct tide_decoder *d, uint32_t count)
{
    if (!d->codec->reads_layout)
        return decode_array_api(d, count);
    int index = lua_gettop(d->L);
    struct tide_gc_table *table = tide_gc_table_at(d->L, index);
    for (uint32_t i = 1; i <= count; i++) {
        uint64_t bits = TIDE_BITS_NIL;
        enum item item = read_item(d, &bits);
        if (item == ITEM_FAILED)
            return -1;
        if (i < table->array_size && may_store(table, item)) {
            table->array[i] = bits;
            if (item != ITEM_BITS)
                lua_settop(d->L, index);
        } else {
            push_item(d, item, bits);
            lua_rawseti(d->L, index, (int)i);
        }
    }
    return 0;
}

/* ---- packed numbers ---- */

static void store_packed(uint64_t *array, const unsigned char *at,
                         unsigned width, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        array[i] =
            tide_bits_of_number(read_packed(at + (size_t)i * width, width));
}

static void store_numbers(uint64_t *array, const unsigned char *at,
                          unsigned width, uint32_t count)
{
    if (width == 8) /* each with a constant width, to be compiled for it */
        store_packed(array, at, 8, count);
    else if (width == 4)
        store_packed(array, at, 4, count);
    else
        store_packed(array, at, width, count);
}

int tide_decode_numbers(struct tide_decoder *d)
{
    lua_State *L = d->L;
    unsigned width = tide_read_byte(&d->in);
    uint64_t count = tide_read_varint(&d->in);
    if (d->in.bad || count > INT32_MAX ||
        (width != 1 && width != 2 && width != 4 && width != 8))
        return tide_decoder_fail_bytes(d);
    const unsigned char *at = tide_read(&d->in, count * width);
    if (at == NULL)
        return tide_decoder_fail_bytes(d);
    lua_createtable(L, (int)count, 0);
    tide_decoder_number(d);
    struct tide_gc_table *table = tide_gc_table_at(L, -1);
    if (d->codec->reads_layout && count < table->array_size) {
        store_numbers(table->array + 1, at, width, (uint32_t)count);
        return 0;
    }
    for (int i = 0; i < (int)count; i++) {
        lua_pushnumber(L, read_packed(at + (size_t)i * width, width));
        lua_rawseti(L, -2, i + 1);
    }
    return 0;
}

/* ---- records ---- */

/* Where in the table of shapes the keys are; the model is behind them. */
static int keys_of(uint32_t shape)
{
    return 2 * (int)shape + 1;
}

/* Find the keys, on top of the stack, in the model. */
static int place_keys(struct tide_decoder *d, struct tide_model *model)
{
    const struct tide_gc_table *table = model->table;
    for (int k = 0; k < model->count; k++) {
        lua_rawgeti(d->L, -1, k + 1);
        uint64_t key = tide_bits_of(TIDE_KIND_STRING, lua_topointer(d->L, -1));
        lua_pop(d->L, 1);
        uint32_t i = 0;
        while (i <= table->node_mask && table->nodes[i].key != key)
            i++;
        if (i > table->node_mask || i >= TIDE_SHAPE_NODES_MAX)
            return -1;
        model->place[k] = (uint8_t)i;
    }
    return 0;
}

/* Make the table whose keys those of the shape get; its keys are on top. */
static void make_model(struct tide_decoder *d, uint32_t shape,
                       struct tide_model *model)
{
    lua_State *L = d->L;
    int keys = lua_gettop(L);
    lua_createtable(L, 0, model->count);
    for (int k = 1; k <= model->count; k++) {
        lua_rawgeti(L, keys, k);
        lua_pushboolean(L, 1);
        lua_rawset(L, -3);
    }
    model->table = tide_gc_table_at(L, -1);
    lua_rawseti(L, d->shapes, keys_of(shape) + 1);
    if (place_keys(d, model) != 0)
        model->table = NULL;
}

static int add_model(struct tide_decoder *d, const struct tide_model *model)
{
    struct tide_codec *codec = d->codec;
    if (codec->model_count == codec->model_capacity) {
        size_t capacity = codec->model_capacity ? codec->model_capacity * 2 : 8;
        struct tide_model *models =
            realloc(codec->models, capacity * sizeof *models);
        if (models == NULL)
            return tide_decoder_fail(d, "no memory left to receive it");
        codec->models = models;
        codec->model_capacity = capacity;
    }
    codec->models[codec->model_count++] = *model;
    return 0;
}

/* Read the keys of a new shape. */
static int define_shape(struct tide_decoder *d, uint32_t shape)
{
    lua_State *L = d->L;
    struct tide_model model = { .count = (uint8_t)tide_read_byte(&d->in) };
    if (d->in.bad || d->shapes == 0 || shape >= TIDE_SHAPES_MAX ||
        model.count == 0 || model.count > TIDE_SHAPE_KEYS_MAX)
        return tide_decoder_fail_bytes(d);
    lua_createtable(L, model.count, 0);
    for (int k = 1; k <= model.count; k++) {
        if (tide_decode_value(d) != 0)
            return -1;
        if (lua_type(L, -1) != LUA_TSTRING)
            return tide_decoder_fail_bytes(d);
        lua_rawseti(L, -2, k);
    }
    if (d->codec->reads_layout)
        make_model(d, shape, &model);
    lua_rawseti(L, d->shapes, keys_of(shape));
    return add_model(d, &model);
}

/* Store the value on top by the public functions, and pop it. */
static void store_field(struct tide_decoder *d, uint32_t shape, int k)
{
    lua_State *L = d->L;
    lua_rawgeti(L, d->shapes, keys_of(shape));
    lua_rawgeti(L, -1, k + 1);
    lua_replace(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -3);
}

/* The values of the record on top. */
static int decode_fields(struct tide_decoder *d, uint32_t shape,
                         const struct tide_model *model)
{
    int index = lua_gettop(d->L);
    struct tide_gc_table *table = tide_gc_table_at(d->L, index);
    for (int k = 0; k < model->count; k++) {
        uint64_t bits = TIDE_BITS_NIL;
        enum item item = read_item(d, &bits);
        if (item == ITEM_FAILED)
            return -1;
        uint8_t place = model->place[k];
        if (model->table != NULL && table->node_mask >= place &&
            table->nodes[place].key == model->table->nodes[place].key &&
            may_store(table, item)) {
            table->nodes[place].value = bits;
            if (item != ITEM_BITS)
                lua_settop(d->L, index);
        } else {
            push_item(d, item, bits);
            store_field(d, shape, k);
        }
    }
    return 0;
}

/* Push a record of the shape. */
static int decode_record(struct tide_decoder *d, uint32_t shape)
{
    /* A copy: the list may move when a value within defines a shape. */
    struct tide_model model = d->codec->models[d->first_model + shape];
    if (model.count > tide_read_left(&d->in))
        return tide_decoder_fail_bytes(d);
    lua_createtable(d->L, 0, model.count);
    tide_decoder_number(d);
    if (tide_decoder_enter(d) != 0)
        return -1;
    if (model.table != NULL &&
        tide_layout_take_keys(tide_gc_table_at(d->L, -1), model.table) != 0)
        model.table = NULL;
    if (decode_fields(d, shape, &model) != 0)
        return -1;
    d->depth--;
    return 0;
}

int tide_decode_shape(struct tide_decoder *d)
{
    uint32_t shape = d->codec->model_count - d->first_model;
    return define_shape(d, shape) != 0 ? -1 : decode_record(d, shape);
}

int tide_decode_shaped(struct tide_decoder *d)
{
    uint32_t shape = tide_read_byte(&d->in);
    if (d->in.bad || shape >= d->codec->model_count - d->first_model)
        return tide_decoder_fail_bytes(d);
    return decode_record(d, shape);
}
