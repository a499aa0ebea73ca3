/*
 * Bytes to values. Nothing here trusts a length: tables are sized only as far as
 * the bytes of the message could fill them, all tables together, since those
 * within each other would otherwise count on the same bytes; recursion is bounded
 * as the encoder bounds it; and bytecode goes to the loader only if its digest and
 * its header are right. So what is allocated is in proportion to the message.
 *
 * Stack of the Lua state while a message is read, from `base` on:
 *   base      objects by number (from 1), nil if nothing refers back
 *   base + 1  the environments of captured globals, nil until there is one
 *   then      where the message has such: the numbers of later tables; the
 *             shapes' keys and models
 *   ...       the values
 */
#include "base/pages.h"
#include "lua/decoder.h"
#include "lua/scalars.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>

int tide_decoder_fail(struct tide_decoder *d, const char *what)
{
    if (d->err->status == TIDE_OK)
        tide_fail(d->err, TIDE_EINVAL, "%s", what);
    return -1;
}

int tide_decoder_fail_bytes(struct tide_decoder *d)
{
    return tide_decoder_fail(d, "the bytes are damaged");
}

/* Keep the object on top under the next number; returns the number. */
uint32_t tide_decoder_number(struct tide_decoder *d)
{
    uint32_t number = d->object_count++;
    if (d->numbered) {
        lua_pushvalue(d->L, -1);
        lua_rawseti(d->L, d->base, (int)number + 1);
    }
    return number;
}

int tide_decoder_enter(struct tide_decoder *d)
{
    if (d->depth >= TIDE_VALUE_DEPTH ||
        !lua_checkstack(d->L, TIDE_DECODE_SLOTS))
        return tide_decoder_fail_bytes(d);
    d->depth++;
    return 0;
}

/* ---- scalars ---- */

static int decode_number(struct tide_decoder *d, size_t width)
{
    const unsigned char *bytes = tide_read(&d->in, width);
    if (bytes == NULL)
        return tide_decoder_fail_bytes(d);
    /* Makes every NaN the canonical one. */
    lua_pushnumber(d->L, tide_read_number(bytes, width));
    return 0;
}

static int decode_string(struct tide_decoder *d, uint64_t length)
{
    const unsigned char *bytes = tide_read(&d->in, length);
    if (bytes == NULL)
        return tide_decoder_fail_bytes(d);
    if (length >= TIDE_PAGES_FROM)
        tide_decoder_push_large(d, bytes, (size_t)length);
    else
        lua_pushlstring(d->L, (const char *)bytes, (size_t)length);
    return 0;
}

/* Push a short text: a name or a type. */
static int decode_text(struct tide_decoder *d)
{
    return decode_string(d, tide_read_varint(&d->in));
}

static int decode_cdata(struct tide_decoder *d)
{
    lua_State *L = d->L;
    if (d->codec->cdata_decode == 0)
        return tide_decoder_fail(d, "cdata: the ffi library is not available");
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->codec->cdata_decode);
    if (decode_text(d) != 0) /* the type, then the bytes */
        return -1;
    if (decode_text(d) != 0)
        return -1;
    if (lua_pcall(L, 2, 1, 0) == 0 && !lua_isnil(L, -1))
        return 0;
    return tide_decoder_fail(d, "cdata of a type unknown here");
}

/* ---- names ---- */

/* Push what `require` returns for the module whose name is on top. */
static int require_module(struct tide_decoder *d)
{
    lua_State *L = d->L;
    int name = lua_gettop(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushvalue(L, name);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    /* While a module loads, and after it failed to, a mark is in its place. */
    if (lua_istable(L, -1) || lua_isfunction(L, -1))
        return 0;
    lua_pop(L, 1);
    lua_getglobal(L, "require");
    lua_pushvalue(L, name);
    if (lua_pcall(L, 1, 1, 0) == 0)
        return 0;
    char text[TIDE_ERROR_TEXT_BYTES];
    snprintf(text, sizeof text, "cannot require '%s': %s",
             lua_tostring(L, name),
             lua_isstring(L, -1) ? lua_tostring(L, -1) : "an error");
    return tide_decoder_fail(d, text);
}

/* Replace the empty module on top by the class whose name follows. */
static int decode_class(struct tide_decoder *d)
{
    lua_State *L = d->L;
    char text[TIDE_ERROR_TEXT_BYTES];
    if (decode_text(d) != 0)
        return -1;
    tide_names_push_class(L, lua_gettop(L));
    if (lua_isnil(L, -1)) {
        snprintf(text, sizeof text,
                 "the class '%s' is not registered here (register it before "
                 "the pool is made, or in the worker)",
                 lua_tostring(L, -2));
        return tide_decoder_fail(d, text);
    }
    lua_replace(L, -3);
    lua_pop(L, 1);
    return 0;
}

static int decode_name(struct tide_decoder *d)
{
    lua_State *L = d->L;
    char text[TIDE_ERROR_TEXT_BYTES];
    if (decode_text(d) != 0)
        return -1;
    if (lua_objlen(L, -1) == 0)
        return decode_class(d);
    if (require_module(d) != 0 || decode_text(d) != 0)
        return -1;
    if (lua_objlen(L, -1) == 0) {
        lua_pop(L, 1);
    } else if (lua_istable(L, -2)) {
        lua_pushvalue(L, -1);
        lua_rawget(L, -3);
        lua_replace(L, -3);
        if (lua_isnil(L, -2)) {
            snprintf(text, sizeof text, "module '%s' has no '%s' here",
                     lua_tostring(L, -3), lua_tostring(L, -1));
            return tide_decoder_fail(d, text);
        }
        lua_pop(L, 1);
    } else {
        return tide_decoder_fail_bytes(d);
    }
    lua_remove(L, -2);
    return 0;
}

/* ---- tables ---- */

static int decode_ref(struct tide_decoder *d)
{
    uint64_t number = tide_read_varint(&d->in);
    if (d->in.bad || !d->numbered || number >= d->object_count)
        return tide_decoder_fail_bytes(d);
    lua_rawgeti(d->L, d->base, (int)number + 1);
    return 0;
}

/* Not for strings: lua_tonumber() makes a NaN of "nan". */
static int is_nan(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TNUMBER &&
           lua_tonumber(L, index) != lua_tonumber(L, index);
}

static int decode_array(struct tide_decoder *d, uint32_t count)
{
    int table = lua_gettop(d->L);
    for (uint32_t i = 1; i <= count; i++) {
        if (tide_decode_value(d) != 0)
            return -1;
        lua_rawseti(d->L, table, (int)i);
    }
    return 0;
}

static int decode_pairs(struct tide_decoder *d, uint32_t count)
{
    int table = lua_gettop(d->L);
    for (uint32_t i = 0; i < count; i++) {
        if (tide_decode_value(d) != 0)
            return -1;
        if (lua_isnil(d->L, -1) || is_nan(d->L, -1))
            return tide_decoder_fail_bytes(d);
        if (tide_decode_value(d) != 0)
            return -1;
        lua_rawset(d->L, table);
    }
    return 0;
}

struct table_head {
    uint32_t array;
    uint32_t pairs;
    int has_meta;
};

static int read_table_head(struct tide_decoder *d, unsigned tag,
                           struct table_head *out)
{
    if (tag == TIDE_TAG_SMALL_TABLE || tag == TIDE_TAG_SMALL_TABLE_META) {
        out->array = tide_read_byte(&d->in);
        out->pairs = tide_read_byte(&d->in);
    } else {
        const unsigned char *bytes = tide_read(&d->in, 2 * sizeof(uint32_t));
        if (bytes == NULL)
            return tide_decoder_fail_bytes(d);
        out->array = tide_load32(bytes);
        out->pairs = tide_load32(bytes + sizeof out->array);
    }
    out->has_meta =
        tag == TIDE_TAG_SMALL_TABLE_META || tag == TIDE_TAG_TABLE_META;
    /* Every entry takes at least a byte a value, and is in one table only. */
    uint64_t least = (uint64_t)out->array + 2 * (uint64_t)out->pairs;
    if (d->in.bad || least > d->unclaimed)
        return tide_decoder_fail_bytes(d);
    d->unclaimed -= least;
    return 0;
}

/* Fill the table on top. */
static int fill_table(struct tide_decoder *d, const struct table_head *head)
{
    lua_State *L = d->L;
    if (tide_decoder_enter(d) != 0)
        return -1;
    if (d->codec->reads_layout) {
        if (tide_decode_fill_direct(d, head->array, head->pairs) != 0)
            return -1;
    } else if (decode_array(d, head->array) != 0 ||
               decode_pairs(d, head->pairs) != 0) {
        return -1;
    }
    if (head->has_meta) {
        if (tide_decode_value(d) != 0)
            return -1;
        if (!lua_istable(L, -1))
            return tide_decoder_fail_bytes(d);
        lua_setmetatable(L, -2);
    }
    d->depth--;
    return 0;
}

static int decode_table(struct tide_decoder *d, unsigned tag)
{
    struct table_head head;
    if (read_table_head(d, tag, &head) != 0)
        return -1;
    lua_createtable(d->L, (int)head.array, (int)head.pairs);
    tide_decoder_number(d);
    return fill_table(d, &head);
}

/* A table that is filled later: note its number. */
static int decode_later(struct tide_decoder *d)
{
    if (!d->numbered || d->later == 0)
        return tide_decoder_fail_bytes(d);
    lua_newtable(d->L);
    lua_pushnumber(d->L, tide_decoder_number(d));
    lua_rawseti(d->L, d->later, (int)++d->later_count);
    return 0;
}

static int decode_bodies(struct tide_decoder *d)
{
    lua_State *L = d->L;
    uint32_t done = 0;
    unsigned tag;
    while ((tag = tide_read_byte(&d->in)) != TIDE_TAG_NIL) {
        struct table_head head;
        if (tag < TIDE_TAG_SMALL_TABLE || tag > TIDE_TAG_TABLE_META ||
            done == d->later_count || read_table_head(d, tag, &head) != 0)
            return tide_decoder_fail_bytes(d);
        lua_rawgeti(L, d->later, (int)++done);
        lua_rawgeti(L, d->base, (int)lua_tonumber(L, -1) + 1);
        if (fill_table(d, &head) != 0)
            return -1;
        lua_pop(L, 2);
    }
    return d->in.bad || done != d->later_count ? tide_decoder_fail_bytes(d) : 0;
}

/* ---- values ---- */

static int decode_tagged(struct tide_decoder *d, unsigned tag)
{
    switch (tag) {
    case TIDE_TAG_NIL:
        lua_pushnil(d->L);
        return 0;
    case TIDE_TAG_FALSE:
    case TIDE_TAG_TRUE:
        lua_pushboolean(d->L, tag == TIDE_TAG_TRUE);
        return 0;
    case TIDE_TAG_INT16:
        return decode_number(d, sizeof(int16_t));
    case TIDE_TAG_INT32:
        return decode_number(d, sizeof(int32_t));
    case TIDE_TAG_DOUBLE:
        return decode_number(d, sizeof(double));
    case TIDE_TAG_STRING:
        return decode_text(d);
    case TIDE_TAG_SMALL_TABLE:
    case TIDE_TAG_SMALL_TABLE_META:
    case TIDE_TAG_TABLE:
    case TIDE_TAG_TABLE_META:
        return decode_table(d, tag);
    case TIDE_TAG_REF:
        return decode_ref(d);
    case TIDE_TAG_LATER_TABLE:
        return decode_later(d);
    case TIDE_TAG_NAME:
        return decode_name(d);
    case TIDE_TAG_FUNCTION:
        return tide_decode_function(d);
    case TIDE_TAG_CDATA:
        return decode_cdata(d);
    case TIDE_TAG_NUMBERS:
        return tide_decode_numbers(d);
    case TIDE_TAG_SHAPE:
        return tide_decode_shape(d);
    case TIDE_TAG_SHAPED:
        return tide_decode_shaped(d);
    case TIDE_TAG_SHARED:
        return tide_decode_shared(d);
    case TIDE_TAG_HOOKED:
        return tide_decode_hooked(d);
    default:
        return tide_decoder_fail_bytes(d);
    }
}

/* Push one value. The caller has room for it on the stack. */
int tide_decode_value(struct tide_decoder *d)
{
    unsigned tag = tide_read_byte(&d->in);
    if (d->in.bad)
        return tide_decoder_fail_bytes(d);
    if (tag >= TIDE_TAG_SMALL_INT) {
        lua_pushnumber(d->L, (double)(tag - TIDE_TAG_SMALL_INT));
        return 0;
    }
    if (tag >= TIDE_TAG_SHORT_STRING)
        return decode_string(d, tag - TIDE_TAG_SHORT_STRING);
    return decode_tagged(d, tag);
}

/* Push `count` values and fill what comes later. */
static int decode_values(struct tide_decoder *d, unsigned head, uint64_t count)
{
    if (count > tide_read_left(&d->in) || count > 7000 ||
        !lua_checkstack(d->L, (int)count + 3 * TIDE_DECODE_SLOTS))
        return tide_decoder_fail_bytes(d);
    for (uint64_t i = 0; i < count; i++)
        if (tide_decode_value(d) != 0)
            return -1;
    return (head & TIDE_HEAD_LATER) != 0 ? decode_bodies(d) : 0;
}

/* Push what the head asks for below the values; returns how many slots. */
static int push_tables(struct tide_decoder *d, unsigned head)
{
    lua_State *L = d->L;
    int kept = 0;
    if ((head & TIDE_HEAD_REFS) != 0) {
        d->numbered = 1;
        lua_newtable(L);
        lua_pushnil(L);
        kept = 2;
    }
    if (d->numbered && (head & TIDE_HEAD_LATER) != 0) {
        lua_newtable(L);
        d->later = d->base + kept++;
    }
    if ((head & TIDE_HEAD_SHAPES) != 0) {
        lua_newtable(L);
        d->shapes = d->base + kept++;
    }
    return kept;
}

int tide_decode(struct tide_codec *codec, lua_State *L,
                const unsigned char **at, const unsigned char *end, int *count,
                unsigned *head_out, struct tide_error *err)
{
    int top = lua_gettop(L);
    unsigned scalars_head;
    err->status = TIDE_OK;
    int scalars = tide_scalars_decode(L, at, end, &scalars_head);
    if (scalars >= 0) {
        *count = scalars;
        if (head_out != NULL)
            *head_out = scalars_head;
        return TIDE_OK;
    }
    struct tide_decoder d = { .codec = codec,
                              .L = L,
                              .in = { .at = *at, .end = end },
                              .err = err,
                              .base = top + 1,
                              .unclaimed = (size_t)(end - *at) };
    unsigned head = tide_read_byte(&d.in);
    uint64_t values =
        (head & TIDE_HEAD_MULTI) != 0 ? tide_read_varint(&d.in) : 1;
    uint32_t cells = codec->cell_count; /* a hook may decode within this */
    d.first_cell = cells;
    uint32_t models = codec->model_count;
    d.first_model = models;
    int failed = d.in.bad || (head & ~(unsigned)TIDE_HEAD_ALL) != 0 ||
                 !lua_checkstack(L, 3 * TIDE_DECODE_SLOTS);
    if (failed) {
        tide_decoder_fail_bytes(&d);
    } else {
        int kept = push_tables(&d, head);
        failed = decode_values(&d, head, values);
        for (; kept > 0 && !failed; kept--)
            lua_remove(L, top + 1);
    }
    codec->cell_count = cells;
    codec->model_count = models;
    if (!failed)
        *at = d.in.at;
    if (failed || d.refused) {
        lua_settop(L, top);
        return TIDE_EINVAL;
    }
    *count = (int)values;
    if (head_out != NULL)
        *head_out = head;
    return TIDE_OK;
}
