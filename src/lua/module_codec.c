/*
 * The functions of `tidemill.core` that need no pool: values to bytes and back, and
 * what the codec is told about classes and globals.
 */
#include "lua/job_parts.h"
#include "lua/module.h"
#include "lua/setup.h"

#include <lauxlib.h>
#include <string.h>

static int raise_encode(lua_State *L, const struct tide_error *err)
{
    lua_pushfstring(L, "cannot send %s", err->text);
    tide_error_object_push(L, "encode", lua_tostring(L, -1));
    return lua_error(L);
}

/* Push one message with all values of the stack, behind `prefix`. */
static int push_message(lua_State *L, const char *prefix, size_t size,
                        unsigned head)
{
    struct tide_codec *codec = tide_codec_of(L);
    struct tide_error err;
    struct tide_buffer text;
    tide_buffer_init(&text);
    unsigned char *start = tide_buffer_reserve(&text, size + 1);
    if (start == NULL)
        return luaL_error(L, "not enough memory");
    memcpy(start, prefix, size);
    text.used = size;
    int status = tide_encode(codec, L, &text, 1, lua_gettop(L),
                             TIDE_HEAD_MULTI | head, &err);
    if (status == TIDE_OK)
        lua_pushlstring(L, (const char *)text.data, text.used);
    tide_buffer_free(&text);
    return status == TIDE_OK ? 1 : raise_encode(L, &err);
}

/* encode(...) -> the values as a string, for any process */
static int core_encode(lua_State *L)
{
    const char version = TIDE_FORMAT_VERSION;
    return push_message(L, &version, 1, TIDE_HEAD_FOREIGN);
}

static int keeper_gc(lua_State *L)
{
    tide_handles_free(lua_touserdata(L, 1));
    return 0;
}

/*
 * message(...) -> the same without a version, for this pool's processes; and what
 * keeps the shared objects in it, or nil
 */
static int core_message(lua_State *L)
{
    struct tide_codec *codec = tide_codec_of(L);
    size_t mark = codec->sent.count;
    push_message(L, "", 0, 0);
    if (codec->sent.count == mark)
        return 1;
    struct tide_handles *keeper = lua_newuserdata(L, sizeof *keeper);
    *keeper = (struct tide_handles){ 0 };
    lua_newtable(L);
    lua_pushcfunction(L, keeper_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    tide_handles_take(codec, mark, keeper);
    return 2;
}

/* decode(string) -> the values */
static int core_decode(lua_State *L)
{
    size_t size;
    const unsigned char *at = (const void *)luaL_checklstring(L, 1, &size);
    const unsigned char *end = at + size;
    struct tide_error err;
    int count;
    if (!tide_setup_allows_bytecode(L)) {
        tide_error_object_push(L, "decode",
                               "cannot decode: this state may not load "
                               "bytecode");
        return lua_error(L);
    }
    if (size > 0 && *at++ != TIDE_FORMAT_VERSION) {
        lua_pushfstring(L,
                        "cannot decode: the bytes are of version %d of the "
                        "format, and this is version %d",
                        at[-1], TIDE_FORMAT_VERSION);
        tide_error_object_push(L, "decode", lua_tostring(L, -1));
        return lua_error(L);
    }
    if (tide_decode(tide_codec_of(L), L, &at, end, &count, NULL, &err) ==
            TIDE_OK &&
        at == end)
        return count;
    lua_pushfstring(L, "cannot decode: %s",
                    err.status == TIDE_OK ? "bytes are left over" : err.text);
    tide_error_object_push(L, "decode", lua_tostring(L, -1));
    return lua_error(L);
}

/* register(name, metatable) */
static int core_register(lua_State *L)
{
    luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    tide_names_register(&tide_codec_of(L)->names, L, 1, 2);
    return 0;
}

/* plain_classes(on): registered classes go by value, to be registered there */
static int core_plain_classes(lua_State *L)
{
    tide_codec_of(L)->plain_classes = lua_toboolean(L, 1);
    return 0;
}

/* brought_globals() -> the set of those that a C host brings to every state, or nil */
static int core_brought_globals(lua_State *L)
{
    tide_setup_push_brought(L, "globals");
    return 1;
}

/* hide_globals(set): globals never captured, assigned by an initializer */
static int core_hide_globals(lua_State *L)
{
    struct tide_codec *codec = tide_codec_of(L);
    luaL_unref(L, LUA_REGISTRYINDEX, codec->hidden_globals);
    lua_settop(L, 1);
    codec->hidden_globals =
        lua_isnil(L, 1) ? 0 : luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int dump_part(lua_State *L, const void *part, size_t size, void *context)
{
    (void)L;
    luaL_addlstring(context, part, size);
    return 0;
}

static void note_written(void *context, const char *name, size_t length,
                         int written)
{
    lua_State *L = context;
    if (!written)
        return;
    lua_pushlstring(L, name, length);
    lua_pushboolean(L, 1);
    lua_rawset(L, 2);
}

/* assigned_globals(f, set): add the names of globals that f assigns to */
static int core_assigned_globals(lua_State *L)
{
    struct tide_codec *codec = tide_codec_of(L);
    size_t size;
    luaL_Buffer text;
    lua_settop(L, 2);
    luaL_buffinit(L, &text);
    lua_pushvalue(L, 1);
    if (!codec->captures_globals || lua_iscfunction(L, 1) ||
        lua_dump(L, dump_part, &text) != 0)
        return 0;
    lua_pop(L, 1);
    luaL_pushresult(&text);
    const unsigned char *dump = (const void *)lua_tolstring(L, -1, &size);
    tide_bytecode_globals(&codec->format, dump, size, note_written, L);
    return 0;
}

const luaL_Reg tide_core_codec[] = {
    { "encode", core_encode },
    { "message", core_message },
    { "decode", core_decode },
    { "register", core_register },
    { "plain_classes", core_plain_classes },
    { "hide_globals", core_hide_globals },
    { "brought_globals", core_brought_globals },
    { "assigned_globals", core_assigned_globals },
    { NULL, NULL },
};
