/*
 * Packed numbers, and the shapes of records. Where the layout of tables is known,
 * a record gets its keys from a model, as a table constructor does.
 */
#include "base/fault.h"
#include "lua/decoder.h"

#include <stdlib.h>

/* ---- packed numbers ---- */

static void store_packed(uint64_t *array, const unsigned char *at,
                         unsigned width, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        array[i] = tide_bits_of_number(
            tide_read_number(at + (size_t)i * width, width));
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
        lua_pushnumber(L, tide_read_number(at + (size_t)i * width, width));
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
        model->keys[k] = key;
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
            TIDE_FAULT(CODEC_MALLOC)
                ? NULL
                : realloc(codec->models, capacity * sizeof *models);
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

void tide_decode_store_field(struct tide_decoder *d, uint32_t shape, int k)
{
    lua_State *L = d->L;
    lua_rawgeti(L, d->shapes, keys_of(shape));
    lua_rawgeti(L, -1, k + 1);
    lua_replace(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -3);
}

/* Push a record of the shape. */
static int decode_record_api(struct tide_decoder *d, uint32_t shape)
{
    int count = d->codec->models[d->first_model + shape].count;
    if ((size_t)count > tide_read_left(&d->in))
        return tide_decoder_fail_bytes(d);
    lua_createtable(d->L, 0, count);
    tide_decoder_number(d);
    if (tide_decoder_enter(d) != 0)
        return -1;
    for (int k = 0; k < count; k++) {
        if (tide_decode_value(d) != 0)
            return -1;
        tide_decode_store_field(d, shape, k);
    }
    d->depth--;
    return 0;
}

static int decode_record(struct tide_decoder *d, uint32_t shape)
{
    return d->codec->reads_layout ? tide_decode_record_direct(d, shape)
                                  : decode_record_api(d, shape);
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
