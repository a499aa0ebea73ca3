#include "lua/codec.h"

#include "lua/encoder.h"
#include "lua/factory.h"
#include "lua/layout.h"
#include "lua/state.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define KEY_CODEC "tidemill.codec"

static int codec_gc(lua_State *L)
{
    struct tide_codec *codec = lua_touserdata(L, 1);
    tide_names_free(&codec->names);
    tide_ptrmap_free(&codec->seen);
    tide_tableset_free(&codec->met);
    tide_handles_free(&codec->sent);
    free(codec->cells);
    free(codec->models);
    return 0;
}

/* The field `name` of the table on top replaces what is referred to. */
static void refer_again(lua_State *L, const char *name, int *reference)
{
    luaL_unref(L, LUA_REGISTRYINDEX, *reference > 0 ? *reference : LUA_NOREF);
    lua_getfield(L, -1, name);
    *reference = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* The helpers for cdata; without the ffi library there is no cdata. */
static int load_cdata_helpers(lua_State *L)
{
    struct tide_codec *codec = lua_touserdata(L, 1);
    tide_state_require(L, "tidemill.cdata");
    refer_again(L, "encode", &codec->cdata_encode);
    refer_again(L, "decode", &codec->cdata_decode);
    tide_state_require(L, "tidemill.shared");
    refer_again(L, "open", &codec->shared_open);
    return 0;
}

void tide_codec_reload(lua_State *L)
{
    lua_pushcfunction(L, load_cdata_helpers);
    lua_pushlightuserdata(L, tide_codec_of(L));
    if (lua_pcall(L, 1, 0, 0) != 0)
        lua_pop(L, 1);
}

/* Read tables where they are, if that can be done and is not forbidden. */
static void learn_layout(struct tide_codec *codec, lua_State *L)
{
    const char *choice = getenv("TIDEMILL_CODEC");
    lua_createtable(L, 1, 0);
    codec->ferry = luaL_ref(L, LUA_REGISTRYINDEX);
    codec->reads_layout = (choice == NULL || strcmp(choice, "api") != 0) &&
                          codec->captures_globals &&
                          tide_layout_learn(&codec->format, L) == 0;
}

static int refer(lua_State *L, const char *text)
{
    lua_pushstring(L, text);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static void make_keys(struct tide_codec *codec, lua_State *L)
{
    lua_pushcfunction(L, tide_encode_run_passes);
    codec->keys.run_passes = luaL_ref(L, LUA_REGISTRYINDEX);
    codec->keys.tidemill = refer(L, "__tidemill");
    codec->keys.encode = refer(L, "encode");
    codec->keys.decode = refer(L, "decode");
    codec->keys.index = refer(L, "__index");
    lua_newtable(L);
    codec->keys.name = luaL_ref(L, LUA_REGISTRYINDEX);
}

static struct tide_codec *make(lua_State *L)
{
    struct tide_codec *codec = lua_newuserdata(L, sizeof *codec);
    *codec = (struct tide_codec){ 0 };
    lua_newtable(L);
    lua_pushcfunction(L, codec_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, KEY_CODEC);

    make_keys(codec, L);
    tide_ptrmap_clear(&codec->seen);
    codec->captures_globals = tide_bytecode_learn(&codec->format, L) == 0;
    codec->makes_factories =
        codec->captures_globals && tide_factory_learn(&codec->format, L) == 0;
    learn_layout(codec, L);
    lua_pushcfunction(L, load_cdata_helpers);
    lua_pushlightuserdata(L, codec);
    if (lua_pcall(L, 1, 0, 0) != 0)
        lua_pop(L, 1);
    tide_names_init(&codec->names, L);
    codec->names.reads_layout = codec->reads_layout;
    return codec;
}

struct tide_codec *tide_codec_of(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_CODEC);
    struct tide_codec *codec = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return codec != NULL ? codec : make(L);
}
