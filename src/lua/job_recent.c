/*
 * The function used last, so that the same one again costs no encoding. Its bytes
 * depend on more than the function: on its upvalues and on the globals it reads.
 * So only a function is kept for which all of these are values that cannot change
 * inside: none, booleans, numbers, strings, and what travels by its name. They are
 * remembered, and compared each time.
 *
 *   TIDE_ACTIVE_RECENT in the table of active jobs: a list
 *     1           the function
 *     2           how many upvalues
 *     3 ..        their values, then name and value of each global
 *
 * The list is made when a function comes for the second time in a row: most that
 * come once are made anew each time.
 */
#include "lua/buffer.h"
#include "lua/bytecode.h"
#include "lua/job_parts.h"

#include <lauxlib.h>
#include <math.h>
#include <string.h>

static int append(lua_State *L, const void *part, size_t size, void *context)
{
    (void)L;
    struct tide_buffer *code = context;
    unsigned char *at = tide_buffer_reserve(code, size);
    if (at == NULL)
        return -1;
    memcpy(at, part, size);
    code->used += size;
    return 0;
}

/* Does the value on top travel as what it is now, for ever? */
static int is_constant(const struct tide_lua_pool *owner, lua_State *L)
{
    switch (lua_type(L, -1)) {
    case LUA_TNIL:
    case LUA_TBOOLEAN:
    case LUA_TNUMBER:
    case LUA_TSTRING:
        return 1;
    case LUA_TFUNCTION:
    case LUA_TTABLE:
        return tide_names_find(&owner->codec->names, lua_topointer(L, -1)) !=
               NULL;
    default:
        return 0;
    }
}

/* The list is on top and the value above it. Returns 0 if it is not constant. */
static int note_value(const struct tide_lua_pool *owner, lua_State *L)
{
    int constant = is_constant(owner, L);
    if (lua_isnil(L, -1)) { /* a list has no holes */
        lua_pop(L, 1);
        lua_pushlightuserdata(L, NULL);
    }
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    return constant;
}

static int note_upvalues(const struct tide_lua_pool *owner, lua_State *L,
                         int index)
{
    int count = 0;
    lua_pushnumber(L, 0);
    lua_rawseti(L, -2, 2);
    while (lua_getupvalue(L, index, count + 1) != NULL) {
        if (!note_value(owner, L))
            return 0;
        count++;
    }
    lua_pushnumber(L, count);
    lua_rawseti(L, -2, 2);
    return 1;
}

struct globals {
    const struct tide_lua_pool *owner;
    lua_State *L;
    int constant;
};

static void note_global(void *context, const char *name, size_t length,
                        int written)
{
    struct globals *globals = context;
    lua_State *L = globals->L;
    if (written)
        return;
    lua_pushlstring(L, name, length);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, (int)lua_objlen(L, -3) + 1);
    lua_rawget(L, LUA_GLOBALSINDEX);
    globals->constant &= note_value(globals->owner, L);
}

/* Are the function's globals the script's, without a metamethod that has a say? */
static int has_plain_globals(lua_State *L, int index)
{
    int top = lua_gettop(L);
    lua_getfenv(L, index);
    int plain =
        lua_rawequal(L, -1, LUA_GLOBALSINDEX) && !lua_getmetatable(L, -1);
    lua_settop(L, top);
    return plain;
}

static int note_globals(const struct tide_lua_pool *owner, lua_State *L,
                        int index)
{
    struct globals globals = { owner, L, owner->codec->captures_globals };
    struct tide_buffer code;
    if (!globals.constant || !has_plain_globals(L, index))
        return 0;
    tide_buffer_init(&code);
    lua_pushvalue(L, index);
    int failed = lua_dump(L, append, &code);
    lua_pop(L, 1);
    if (!failed)
        failed = tide_bytecode_globals(&owner->codec->format, code.data,
                                       code.used, note_global, &globals);
    tide_buffer_free(&code);
    return !failed && globals.constant;
}

static void remember(struct tide_lua_pool *owner, lua_State *L, int index,
                     struct tide_function *function)
{
    int top = lua_gettop(L);
    lua_createtable(L, 4, 0);
    lua_pushvalue(L, index);
    lua_rawseti(L, -2, 1);
    if (note_upvalues(owner, L, index) && note_globals(owner, L, index)) {
        lua_settop(L, top + 1);
        lua_rawseti(L, owner->at, TIDE_ACTIVE_RECENT);
        owner->recent = function;
    }
    lua_settop(L, top);
}

/* Is the value on top the one below it, as it was noted? */
static int is_same(lua_State *L)
{
    if (lua_isnil(L, -1))
        return lua_islightuserdata(L, -2);
    if (lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) == 0 &&
        lua_type(L, -2) == LUA_TNUMBER) /* 0 equals -0 */
        return lua_tonumber(L, -2) == 0 &&
               signbit(lua_tonumber(L, -1)) == signbit(lua_tonumber(L, -2));
    return lua_rawequal(L, -1, -2);
}

/* Is what the list remembers still so? The list is on top. */
static int is_unchanged(lua_State *L, int index)
{
    int list = lua_gettop(L), same = 1;
    lua_rawgeti(L, list, 2);
    int upvalues = (int)lua_tonumber(L, -1);
    int count = (int)lua_objlen(L, list);
    for (int i = 1; i <= upvalues && same; i++) {
        lua_rawgeti(L, list, 2 + i);
        if (lua_getupvalue(L, index, i) == NULL)
            lua_pushnil(L);
        same = is_same(L);
        lua_settop(L, list);
    }
    for (int i = 3 + upvalues; i < count && same; i += 2) {
        lua_rawgeti(L, list, i + 1);
        lua_rawgeti(L, list, i);
        lua_rawget(L, LUA_GLOBALSINDEX);
        same = is_same(L);
        lua_settop(L, list);
    }
    return same;
}

struct tide_function *tide_recent_find(struct tide_lua_pool *owner,
                                       lua_State *L, int index)
{
    int top = lua_gettop(L);
    if (owner->recent == NULL)
        return NULL;
    lua_rawgeti(L, owner->at, TIDE_ACTIVE_RECENT);
    lua_rawgeti(L, -1, 1);
    int found = lua_rawequal(L, -1, index);
    lua_settop(L, top + 1);
    found = found && has_plain_globals(L, index) && is_unchanged(L, index);
    lua_settop(L, top);
    return found ? owner->recent : NULL;
}

void tide_recent_note(struct tide_lua_pool *owner, lua_State *L, int index,
                      struct tide_function *function)
{
    const void *pointer = lua_topointer(L, index);
    if (lua_isfunction(L, index) && !lua_iscfunction(L, index) &&
        owner->last_seen == pointer)
        remember(owner, L, index, function);
    owner->last_seen = pointer;
}
