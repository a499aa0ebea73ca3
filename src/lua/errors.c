#include "lua/errors.h"

#include "lua/runtime.h"
#include "lua/worker.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SHORT_BYTES = 2000 }; /* of a text for which there is no room */

/* Push the field `message` of the table at 1 if it has such a text. */
static int get_message(lua_State *L)
{
    if (!lua_istable(L, 1))
        return 0;
    lua_pushliteral(L, "message");
    lua_rawget(L, 1);
    return lua_type(L, -1) == LUA_TSTRING;
}

/* tostring() for lua_pcall(), where a table says no more than its address. */
static int call_tostring(lua_State *L)
{
    lua_settop(L, 1);
    if (!luaL_callmeta(L, 1, "__tostring") && !get_message(L)) {
        lua_getglobal(L, "tostring");
        lua_pushvalue(L, 1);
        lua_call(L, 1, 1);
    }
    if (!lua_isstring(L, -1))
        return luaL_error(L, "no string");
    return 1;
}

/* Push the text of the value at `index`, whatever it is. */
static void push_text(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TSTRING) {
        lua_pushvalue(L, index);
        return;
    }
    lua_pushcfunction(L, call_tostring);
    lua_pushvalue(L, index);
    if (lua_pcall(L, 1, 1, 0) != 0) {
        lua_pop(L, 1);
        lua_pushfstring(L, "(a %s that cannot be made a string)",
                        luaL_typename(L, index));
    }
}

/* Push the error table for the value at `index`. */
static void push_error(lua_State *L, const char *kind, int index)
{
    lua_createtable(L, 0, 4);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    push_text(L, index);
    lua_setfield(L, -2, "message");
    lua_pushvalue(L, index);
    lua_setfield(L, -2, "value");
}

int tide_error_handler(lua_State *L)
{
    luaL_checkstack(L, 8, NULL);
    push_error(L, "task", 1);
    luaL_traceback(L, L, NULL, 1);
    lua_setfield(L, -2, "traceback");
    return 1;
}

void tide_error_push(lua_State *L, const char *kind, const char *message)
{
    lua_pushstring(L, message);
    push_error(L, kind, lua_gettop(L));
    lua_remove(L, -2);
}

void tide_error_wrap(lua_State *L)
{
    if (lua_istable(L, -1))
        return;
    push_error(L, "task", lua_gettop(L));
    lua_replace(L, -2);
}

/* Without the last line of a traceback, if it says where a process begins. */
static size_t length_of(const char *traceback)
{
    static const char bottom[] = "\n\t[C]: at 0x";
    const char *last = strrchr(traceback, '\n');
    return last != NULL && strncmp(last, bottom, sizeof bottom - 1) == 0
               ? (size_t)(last - traceback)
               : strlen(traceback);
}

void tide_error_print(lua_State *L)
{
    int failure = lua_gettop(L);
    lua_pushboolean(L, 1);
    lua_setfield(L, failure, "printed");
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_POOL_NAME);
    lua_getfield(L, failure, "message");
    lua_getfield(L, failure, "traceback");
    const char *name = lua_tostring(L, failure + 1);
    const char *message = lua_tostring(L, failure + 2);
    const char *traceback = lua_tostring(L, failure + 3);
    fprintf(stderr, "tidemill: process '%s' (pid %d): %s%s%.*s\n",
            name != NULL ? name : "?", (int)getpid(), message,
            traceback != NULL ? "\n" : "",
            traceback != NULL ? (int)length_of(traceback) : 0,
            traceback != NULL ? traceback : "");
    lua_settop(L, failure);
}

/* Keep only the beginning of a text in the error table at `index`. */
static void shorten(lua_State *L, int index, const char *field)
{
    size_t length;
    lua_getfield(L, index, field);
    const char *text = lua_tolstring(L, -1, &length);
    if (text != NULL && length > SHORT_BYTES) {
        lua_pushlstring(L, text, SHORT_BYTES);
        lua_pushliteral(L, " ...");
        lua_concat(L, 2);
        lua_setfield(L, index, field);
    }
    lua_settop(L, index);
}

int tide_error_encode(struct tide_codec *codec, lua_State *L,
                      struct tide_buffer *buffer)
{
    struct tide_error err;
    int top = lua_gettop(L);
    tide_error_wrap(L);
    int status = tide_encode(codec, L, buffer, top, 1, TIDE_HEAD_ERROR, &err);
    if (status != TIDE_OK) {
        lua_pushnil(L);
        lua_setfield(L, top, "value"); /* what it was, the message says */
        status = tide_encode(codec, L, buffer, top, 1, TIDE_HEAD_ERROR, &err);
    }
    if (status != TIDE_OK) {
        shorten(L, top, "message");
        shorten(L, top, "traceback");
        status = tide_encode(codec, L, buffer, top, 1, TIDE_HEAD_ERROR, &err);
    }
    lua_settop(L, top - 1);
    return status;
}
