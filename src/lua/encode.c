/*
 * One pass over the values, depth first. Tables are written where they are met,
 * down to TIDE_TABLE_DEPTH; deeper ones leave a LATER_TABLE and wait in a list,
 * and are written one after the other behind the values, each starting at depth
 * 0 again. So neither depth nor a long chain costs C stack.
 *
 * Stack of the Lua state while a message is written, from `base` on:
 *   base      the list of later tables, nil until there is one
 *   base + 1  the names of globals captured, by environment, nil likewise
 *   base + 2  what hooks have made, kept until the message is complete
 *   ...       three values per level: table, key, value
 *
 * No value is allocated for plain data. A failure unwinds through the levels,
 * and each adds its step to the path in the error text.
 */
#include "lua/encoder.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

enum { CDATA_TYPE = 10 };

/* ---- failing ---- */

int tide_encoder_fail(struct tide_encoder *e, const char *reason)
{
    e->reason = reason;
    return -1;
}

int tide_encoder_fail_memory(struct tide_encoder *e)
{
    return tide_encoder_fail(e, NULL);
}

static void prepend(struct tide_encoder *e, const char *step,
                    const char *separator)
{
    char joined[sizeof e->path];
    int length = snprintf(joined, sizeof joined, "%s%s%s", step,
                          e->path[0] ? separator : "", e->path);
    if (length >= (int)sizeof joined)
        memcpy(joined + sizeof joined - 4, "...", 4);
    memcpy(e->path, joined, sizeof joined);
}

/* The path so far begins with a key: say so before something else precedes it. */
static void close_field(struct tide_encoder *e)
{
    if (e->path_is_field)
        prepend(e, "field ", "");
    e->path_is_field = 0;
}

/* Add the key at `index` to the front of the path. Always returns -1. */
static int at_key(struct tide_encoder *e, int index)
{
    char step[80];
    int type = lua_type(e->L, index);
    if (type == LUA_TSTRING)
        snprintf(step, sizeof step, "%s", lua_tostring(e->L, index));
    else if (type == LUA_TNUMBER)
        snprintf(step, sizeof step, "[%.14g]", lua_tonumber(e->L, index));
    else
        snprintf(step, sizeof step, "[%s]", lua_typename(e->L, type));
    prepend(e, step, !e->path_is_field ? ", " : e->path[0] == '[' ? "" : ".");
    e->path_is_field = 1;
    return -1;
}

/* Add "KIND 'NAME' of function <FILE:LINE>" to the path. Always returns -1. */
int tide_encoder_at_variable(struct tide_encoder *e, int function,
                             const char *kind, const char *name)
{
    lua_Debug info;
    char step[sizeof e->path];
    lua_pushvalue(e->L, function);
    lua_getinfo(e->L, ">S", &info);
    close_field(e);
    snprintf(step, sizeof step, "%s '%s' of function <%s:%d>", kind, name,
             info.short_src, info.linedefined);
    prepend(e, step, ", ");
    return -1;
}

/* ---- bytes ---- */

int tide_encoder_put(struct tide_encoder *e, const void *bytes, size_t size)
{
    unsigned char *at = tide_buffer_reserve(e->out, size);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    memcpy(at, bytes, size);
    e->out->used += size;
    return 0;
}

int tide_encoder_put_byte(struct tide_encoder *e, unsigned byte)
{
    unsigned char *at = tide_buffer_reserve(e->out, 1);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    *at = (unsigned char)byte;
    e->out->used++;
    return 0;
}

static size_t write_varint(unsigned char *at, uint64_t value)
{
    size_t size = 0;
    for (; value >= 0x80; value >>= 7)
        at[size++] = (unsigned char)(value | 0x80);
    at[size++] = (unsigned char)value;
    return size;
}

/* `tag` and a varint. */
int tide_encoder_put_tagged(struct tide_encoder *e, unsigned tag,
                            uint64_t value)
{
    unsigned char *at = tide_buffer_reserve(e->out, 11);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    *at = (unsigned char)tag;
    e->out->used += 1 + write_varint(at + 1, value);
    return 0;
}

int tide_encoder_put_varint(struct tide_encoder *e, uint64_t value)
{
    unsigned char bytes[10];
    return tide_encoder_put(e, bytes, write_varint(bytes, value));
}

static int put_text(struct tide_encoder *e, const char *text)
{
    size_t length = strlen(text);
    return tide_encoder_put_varint(e, length) ||
           tide_encoder_put(e, text, length);
}

/* ---- scalars ---- */

static int encode_number(struct tide_encoder *e, double number)
{
    const double whole_limit = 9007199254740992.0; /* 2^53 */
    unsigned char *at = tide_buffer_reserve(e->out, 11);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    if (number > -whole_limit && number < whole_limit) {
        int64_t whole = (int64_t)number;
        uint64_t bits;
        memcpy(&bits, &number, sizeof bits);
        if ((double)whole == number && (whole != 0 || bits == 0)) {
            if (whole >= 0 && whole <= TIDE_SHORT_MAX) {
                at[0] = (unsigned char)(TIDE_TAG_SMALL_INT + whole);
                e->out->used += 1;
                return 0;
            }
            at[0] = TIDE_TAG_INTEGER;
            uint64_t zigzag = (uint64_t)whole << 1 ^ (uint64_t)(whole >> 63);
            e->out->used += 1 + write_varint(at + 1, zigzag);
            return 0;
        }
    }
    at[0] = TIDE_TAG_DOUBLE;
    memcpy(at + 1, &number, sizeof number);
    e->out->used += 1 + sizeof number;
    return 0;
}

int tide_encode_string(struct tide_encoder *e, int index)
{
    size_t length;
    const char *text = lua_tolstring(e->L, index, &length);
    int failed =
        length <= TIDE_SHORT_MAX
            ? tide_encoder_put_byte(e, TIDE_TAG_SHORT_STRING + (unsigned)length)
            : tide_encoder_put_tagged(e, TIDE_TAG_STRING, length);
    return failed || tide_encoder_put(e, text, length) ? -1 : 0;
}

static int encode_cdata(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    if (e->codec->cdata_encode == 0)
        return tide_encoder_fail(e, "cdata: the ffi library is not available");
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->codec->cdata_encode);
    lua_pushvalue(L, index);
    lua_call(L, 1, 2);
    int failed;
    if (lua_isnil(L, -2)) { /* nil and what it is, or a type and its bytes */
        snprintf(e->reason_text, sizeof e->reason_text, "%s",
                 lua_tostring(L, -1));
        failed = tide_encoder_fail(e, e->reason_text);
    } else {
        size_t length;
        const char *bytes = lua_tolstring(L, -1, &length);
        failed = tide_encoder_put_byte(e, TIDE_TAG_CDATA) ||
                 put_text(e, lua_tostring(L, -2)) ||
                 tide_encoder_put_varint(e, length) ||
                 tide_encoder_put(e, bytes, length);
    }
    lua_pop(L, 2);
    return failed ? -1 : 0;
}

int tide_encode_name(struct tide_encoder *e, const struct tide_name *name)
{
    return tide_encoder_put_byte(e, TIDE_TAG_NAME) ||
                   put_text(e, name->module) || put_text(e, name->field)
               ? -1
               : 0;
}

/* ---- objects ---- */

/* Refer to an object seen before, or number a new one. 1: it was referred to. */
int tide_encoder_refer(struct tide_encoder *e, const void *object)
{
    uint32_t number = tide_ptrmap_get(e->seen, object, UINT32_MAX);
    if (number != UINT32_MAX) {
        e->head |= TIDE_HEAD_REFS;
        return tide_encoder_put_tagged(e, TIDE_TAG_REF, number) ? -1 : 1;
    }
    if (tide_ptrmap_add(e->seen, object, e->object_count++) != 0)
        return tide_encoder_fail_memory(e);
    return 0;
}

static void store_counts(struct tide_encoder *e, size_t head, int small,
                         uint32_t array, uint32_t pairs)
{
    unsigned char *at = e->out->data + head;
    if (small) {
        at[0] = (unsigned char)array;
        at[1] = (unsigned char)pairs;
    } else {
        memcpy(at, &array, sizeof array);
        memcpy(at + sizeof array, &pairs, sizeof pairs);
    }
}

/* A table outgrew its small counts: make room for large ones. */
static int widen(struct tide_encoder *e, size_t head)
{
    const size_t more = 2 * sizeof(uint32_t) - 2;
    if (tide_buffer_reserve(e->out, more) == NULL)
        return tide_encoder_fail_memory(e);
    unsigned char *body = e->out->data + head + 2;
    memmove(body + more, body, e->out->used - head - 2);
    e->out->used += more;
    e->out->data[head - 1] += TIDE_TAG_TABLE - TIDE_TAG_SMALL_TABLE;
    return 0;
}

/* The array values and pairs of the table at `index`, counts at `head`. */
static int encode_entries(struct tide_encoder *e, int index, size_t head,
                          int small)
{
    lua_State *L = e->L;
    uint32_t array = 0, pairs = 0;
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        int value = lua_gettop(L);
        if (small &&
            (array == TIDE_SMALL_TABLE_MAX || pairs == TIDE_SMALL_TABLE_MAX)) {
            if (widen(e, head) != 0)
                return -1;
            small = 0;
        }
        if (pairs == 0 && lua_type(L, value - 1) == LUA_TNUMBER &&
            lua_tonumber(L, value - 1) == array + 1.0) {
            array++;
        } else {
            pairs++;
            if (tide_encode_value(e, value - 1) != 0)
                return at_key(e, value - 1);
        }
        if (tide_encode_value(e, value) != 0)
            return at_key(e, value - 1);
        lua_settop(L, value - 1);
    }
    store_counts(e, head, small, array, pairs);
    return 0;
}

/* The name of a metatable, which its module may have been loaded for just now. */
static const struct tide_name *name_metatable(struct tide_encoder *e,
                                              const void *object)
{
    const struct tide_names *names = &e->codec->names;
    const struct tide_name *name = tide_names_find(names, object);
    if (name != NULL ||
        tide_ptrmap_get(e->seen, object, UINT32_MAX) != UINT32_MAX)
        return name;
    tide_names_refresh(&e->codec->names, e->L);
    return tide_names_find(names, object);
}

int tide_encode_metatable(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    lua_getmetatable(L, index);
    const struct tide_name *name = name_metatable(e, lua_topointer(L, -1));
    if (name != NULL && name->kind == TIDE_NAME_CLASS &&
        e->codec->plain_classes)
        name = NULL;
    int failed = name != NULL ? tide_encode_name(e, name)
                              : tide_encode_value(e, lua_gettop(L));
    lua_pop(L, 1);
    if (failed) {
        close_field(e);
        prepend(e, "metatable", ", ");
    }
    return failed;
}

/* The body of a table: tag, counts, entries, metatable. */
static int encode_table_body(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    int has_meta = lua_getmetatable(L, index);
    if (has_meta)
        lua_pop(L, 1);
    int small = lua_objlen(L, index) <= TIDE_SMALL_TABLE_MAX;
    unsigned tag = small ? TIDE_TAG_SMALL_TABLE : TIDE_TAG_TABLE;
    size_t count_bytes = small ? 2 : 2 * sizeof(uint32_t);
    if (!lua_checkstack(L, TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);
    if (tide_encoder_put_byte(e, has_meta ? tag + 1 : tag) != 0 ||
        tide_buffer_reserve(e->out, count_bytes) == NULL)
        return tide_encoder_fail_memory(e);
    size_t head = e->out->used;
    e->out->used += count_bytes;
    e->depth++;
    int failed = encode_entries(e, index, head, small) ||
                 (has_meta && tide_encode_metatable(e, index));
    e->depth--;
    return failed ? -1 : 0;
}

static int postpone(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    if (e->later_count == 0) {
        lua_newtable(L);
        lua_replace(L, e->base);
    }
    lua_pushvalue(L, index);
    lua_rawseti(L, e->base, ++e->later_count);
    e->head |= TIDE_HEAD_LATER | TIDE_HEAD_REFS;
    return tide_encoder_put_byte(e, TIDE_TAG_LATER_TABLE);
}

static int encode_table(struct tide_encoder *e, int index)
{
    const void *object = lua_topointer(e->L, index);
    const struct tide_name *name = tide_names_find(&e->codec->names, object);
    if (name != NULL && name->kind < TIDE_NAME_METATABLE)
        return tide_encode_name(e, name);
    int hooked = tide_encode_hooked(e, index);
    if (hooked != 0)
        return hooked < 0 ? -1 : 0;
    int referred = tide_encoder_refer(e, object);
    if (referred != 0)
        return referred < 0 ? -1 : 0;
    return e->depth >= TIDE_TABLE_DEPTH ? postpone(e, index)
                                        : encode_table_body(e, index);
}

/* ---- values ---- */

static int encode_userdata(struct tide_encoder *e, int index)
{
    int hooked = tide_encode_hooked(e, index);
    if (hooked != 0)
        return hooked < 0 ? -1 : 0;
    return tide_encoder_fail(e, "userdata (build it in the worker: require it "
                                "there, or use an initializer)");
}

int tide_encode_value(struct tide_encoder *e, int index)
{
    switch (lua_type(e->L, index)) {
    case LUA_TNIL:
        return tide_encoder_put_byte(e, TIDE_TAG_NIL);
    case LUA_TBOOLEAN:
        return tide_encoder_put_byte(
            e, lua_toboolean(e->L, index) ? TIDE_TAG_TRUE : TIDE_TAG_FALSE);
    case LUA_TNUMBER:
        return encode_number(e, lua_tonumber(e->L, index));
    case LUA_TSTRING:
        return tide_encode_string(e, index);
    case LUA_TTABLE:
        return encode_table(e, index);
    case LUA_TFUNCTION:
        return tide_encode_function(e, index);
    case CDATA_TYPE:
        return encode_cdata(e, index);
    case LUA_TTHREAD:
        return tide_encoder_fail(e, "a coroutine");
    case LUA_TLIGHTUSERDATA:
        return tide_encoder_fail(e, "a pointer");
    default:
        return encode_userdata(e, index);
    }
}

static int encode_later(struct tide_encoder *e)
{
    lua_State *L = e->L;
    for (int i = 1; i <= e->later_count; i++) { /* it may grow on the way */
        lua_rawgeti(L, e->base, i);
        if (encode_table_body(e, lua_gettop(L)) != 0)
            return -1;
        lua_pop(L, 1);
        lua_pushnil(L);
        lua_rawseti(L, e->base, i);
    }
    return e->later_count > 0 ? tide_encoder_put_byte(e, TIDE_TAG_NIL) : 0;
}

static int report(struct tide_encoder *e)
{
    close_field(e);
    if (e->reason == NULL)
        return tide_fail(e->err, TIDE_ENOMEM, "no memory left to send it");
    return tide_fail(e->err, TIDE_EINVAL, "%s%s%s", e->path,
                     e->path[0] ? ": " : "", e->reason);
}

/* One message from the values at `first`. */
static int encode_message(struct tide_encoder *e, int first, int count)
{
    lua_State *L = e->L;
    size_t start = e->out->used;
    int top = lua_gettop(L);
    e->base = top + 1;
    tide_ptrmap_clear(e->seen);
    if (!lua_checkstack(L, 2 * TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);
    lua_settop(L, top + 3);
    int failed = tide_encoder_put_byte(e, e->head);
    if (!failed && (e->head & TIDE_HEAD_MULTI) != 0)
        failed = tide_encoder_put_varint(e, (uint64_t)count);
    for (int i = 0; i < count && !failed; i++)
        failed = tide_encode_value(e, first + i);
    if (!failed)
        failed = encode_later(e);
    lua_settop(L, top);
    if (failed)
        e->out->used = start;
    else
        e->out->data[start] = (unsigned char)e->head;
    return failed;
}

/* As a C function of its own: the encoder, then the values. */
static int encode_protected(lua_State *L)
{
    struct tide_encoder *e = lua_touserdata(L, 1);
    if (encode_message(e, 2, lua_gettop(L) - 1) != 0)
        lua_pushboolean(L, 0);
    else
        lua_pushboolean(L, 1);
    return 1;
}

/*
 * Once more for a message with hooks: with a map of its own, since a hook may
 * encode something itself, and under lua_pcall(), since a hook may change a table
 * that is being walked.
 */
static int encode_with_hooks(struct tide_encoder *e, int first, int count)
{
    lua_State *L = e->L;
    struct tide_ptrmap seen = { 0 };
    size_t start = e->out->used;
    int top = lua_gettop(L);
    e->seen = &seen;
    e->runs_hooks = 1;
    if (!lua_checkstack(L, count + 2))
        return tide_encoder_fail_memory(e);
    lua_pushcfunction(L, encode_protected);
    lua_pushlightuserdata(L, e);
    for (int i = 0; i < count; i++)
        lua_pushvalue(L, first + i);
    int failed = lua_pcall(L, count + 1, 1, 0);
    if (failed) {
        e->out->used = start;
        tide_encoder_fail(e, "a value that changed while it was sent");
    }
    failed = failed || !lua_toboolean(L, -1);
    tide_ptrmap_free(&seen);
    lua_settop(L, top);
    return failed;
}

int tide_encode(struct tide_codec *codec, lua_State *L,
                struct tide_buffer *buffer, int first, int count, unsigned head,
                struct tide_error *err)
{
    const struct tide_encoder fresh = { .codec = codec,
                                        .seen = &codec->seen,
                                        .L = L,
                                        .out = buffer,
                                        .err = err,
                                        .head = head };
    struct tide_encoder e = fresh;
    int failed = encode_message(&e, first, count);
    if (failed && e.wants_hooks) {
        e = fresh;
        failed = encode_with_hooks(&e, first, count);
    }
    return failed ? report(&e) : TIDE_OK;
}
