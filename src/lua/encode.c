/*
 * One pass over the values, depth first; see encode_passes.c for how many it takes. Tables are written where they are met,
 * down to TIDE_TABLE_DEPTH; deeper ones leave a LATER_TABLE and wait in a list,
 * and are written one after the other behind the values, each starting at depth
 * 0 again. So neither depth nor a long chain costs C stack.
 *
 * Stack of the Lua state while a message is written, from `base` on:
 *   base      the list of later tables, nil until there is one; at -i the hook
 *             depth of the i-th, if it has one
 *   base + 1  the names of globals captured, by environment, nil likewise
 *   ...       three values per level: table, key, value
 *
 * No value is allocated for plain data. A failure unwinds through the levels,
 * and each adds its step to the path in the error text.
 */
#include "base/pages.h"
#include "lua/encoder.h"
#include "lua/scalars.h"
#include "lua/writer.h"

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
int tide_encoder_at_key(struct tide_encoder *e, int index)
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

int tide_encoder_fail_changed(struct tide_encoder *e)
{
    return tide_encoder_fail(e, "a value that changed while it was sent");
}

/* ---- bytes ---- */

int tide_encoder_put(struct tide_encoder *e, const void *bytes, size_t size)
{
    unsigned char *at = tide_buffer_reserve(e->out, size);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    if (size >= TIDE_PAGES_FROM) {
        tide_buffer_put_large(e->out, bytes, size);
        return 0;
    }
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

/* `tag` and a varint. */
int tide_encoder_put_tagged(struct tide_encoder *e, unsigned tag,
                            uint64_t value)
{
    unsigned char *at = tide_buffer_reserve(e->out, 11);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    *at = (unsigned char)tag;
    e->out->used += (size_t)(tide_write_varint(at + 1, value) - at);
    return 0;
}

int tide_encoder_put_varint(struct tide_encoder *e, uint64_t value)
{
    unsigned char bytes[TIDE_VARINT_MAX];
    size_t size = (size_t)(tide_write_varint(bytes, value) - bytes);
    return tide_encoder_put(e, bytes, size);
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
    unsigned char *at = tide_buffer_reserve(e->out, TIDE_NUMBER_MAX);
    if (at == NULL)
        return tide_encoder_fail_memory(e);
    e->out->used += (size_t)(tide_write_number(at, number) - at);
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
    tide_encoder_stop_collector(e);
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->codec->cdata_encode);
    lua_pushvalue(L, index);
    lua_call(L, 1, 2);
    e->read_cdata = 1;
    int failed;
    if (lua_isnil(L, -2)) { /* nil and what it is, or a type and its bytes */
        snprintf(e->reason_text, sizeof e->reason_text, "%s",
                 lua_tostring(L, -1));
        failed = tide_encoder_fail(e, e->reason_text);
    } else if (lua_isboolean(L, -2)) { /* a shared object */
        failed = tide_encode_shared(e, lua_gettop(L));
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

void tide_encoder_refresh_names(struct tide_encoder *e)
{
    struct tide_names *names = &e->codec->names;
    if (!tide_names_are_stale(names, e->L))
        return;
    tide_encoder_stop_collector(e);
    tide_names_rescan(names, e->L);
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
    tide_encoder_refresh_names(e);
    return tide_names_find(names, object);
}

int tide_encode_metatable(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    if (!lua_getmetatable(L, index))
        return tide_encoder_fail_changed(e);
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

int tide_encoder_postpone(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    if (e->later_count == 0) {
        tide_encoder_stop_collector(e);
        lua_newtable(L);
        lua_replace(L, e->base);
    }
    lua_pushvalue(L, index);
    lua_rawseti(L, e->base, ++e->later_count);
    if (e->hook_depth > 0) {
        lua_pushnumber(L, e->hook_depth);
        lua_rawseti(L, e->base, -e->later_count);
    }
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
    return e->depth >= TIDE_TABLE_DEPTH ? tide_encoder_postpone(e, index)
                                        : tide_encode_body(e, index);
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

/* May the first pass meet it? A table may turn out to be not. */
static int is_plain(int type)
{
    return type <= LUA_TTABLE;
}

int tide_encode_value(struct tide_encoder *e, int index)
{
    int type = lua_type(e->L, index);
    if (!is_plain(type) && !e->numbers) {
        e->wants_numbers = 1;
        return -1;
    }
    switch (type) {
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
        return e->codec->reads_layout ? tide_encode_table_direct(e, index)
                                      : encode_table(e, index);
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
        lua_rawgeti(L, e->base, -i);
        e->hook_depth = (int)lua_tonumber(L, -1);
        lua_pop(L, 1);
        lua_rawgeti(L, e->base, i);
        int body = lua_gettop(L);
        if (e->codec->reads_layout ? tide_encode_body_direct(e, body) != 0
                                   : tide_encode_body(e, body) != 0)
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

int tide_encode_message(struct tide_encoder *e, int first, int count)
{
    lua_State *L = e->L;
    size_t start = e->out->used;
    int top = lua_gettop(L);
    e->base = top + 1;
    if (e->numbers)
        tide_ptrmap_clear(e->seen);
    else
        tide_tableset_clear(&e->codec->met);
    e->shape_generation = ++e->codec->shapes.generation;
    if (!lua_checkstack(L, 2 * TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);
    lua_settop(L, top + 2);
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

int tide_encode(struct tide_codec *codec, lua_State *L,
                struct tide_buffer *buffer, int first, int count, unsigned head,
                struct tide_error *err)
{
    if (codec->reads_layout &&
        tide_scalars_encode(L, buffer, first, count, head) == 0)
        return TIDE_OK;
    struct tide_encoder e = { .codec = codec,
                              .L = L,
                              .out = buffer,
                              .err = err,
                              .asked = head & TIDE_HEAD_ALL,
                              .head = head & TIDE_HEAD_ALL,
                              .foreign = (head & TIDE_HEAD_FOREIGN) != 0 };
    size_t sent = codec->sent.count;
    int begins_plain = codec->reads_layout && is_plain(lua_type(L, first));
    int failed = begins_plain ? tide_encode_message(&e, first, count) : 0;
    if (!begins_plain || e.wants_numbers)
        failed = tide_encode_protected(&e, first, count);
    if (failed)
        tide_handles_drop(&codec->sent, sent);
    return failed ? report(&e) : TIDE_OK;
}
