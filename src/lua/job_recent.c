/*
 * Functions used lately, so that one of them again costs no encoding. Its bytes
 * depend on more than the function: on its upvalues and on the globals it reads.
 * So only a function is kept for which all of these are values that cannot change
 * inside: none, booleans, numbers, strings, and what travels by its name. They are
 * remembered, and compared each time.
 *
 *   TIDE_ACTIVE_RECENT - n in the table of active jobs: a list
 *     1           the function, so that nothing else is where it is
 *     2 ..        the values of its upvalues, then name and value of each global
 *
 * The list is made when a function comes for the second time: most that come once
 * are made anew each time.
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

/* Returns how many there are, -1 if one is not constant. */
static int note_upvalues(const struct tide_lua_pool *owner, lua_State *L,
                         int index)
{
    int count = 0;
    while (lua_getupvalue(L, index, count + 1) != NULL) {
        if (!note_value(owner, L))
            return -1;
        count++;
    }
    return count;
}

struct globals {
    const struct tide_lua_pool *owner;
    lua_State *L;
    int constant;
    int count;
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
    globals->count++;
}

/* Are the function's globals the script's, without a metamethod that has a say? */
static int has_plain_globals(lua_State *L, int index)
{
    lua_getfenv(L, index);
    int plain = lua_topointer(L, -1) == lua_topointer(L, LUA_GLOBALSINDEX);
    if (plain && lua_getmetatable(L, -1)) {
        plain = 0;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return plain;
}

/* Returns how many there are, -1 if one is not constant. */
static int note_globals(const struct tide_lua_pool *owner, lua_State *L,
                        int index)
{
    struct globals globals = { owner, L, owner->codec->captures_globals, 0 };
    struct tide_buffer code;
    if (!globals.constant || !has_plain_globals(L, index))
        return -1;
    tide_buffer_init(&code);
    lua_pushvalue(L, index);
    int failed = lua_dump(L, append, &code);
    lua_pop(L, 1);
    if (!failed)
        failed = tide_bytecode_globals(&owner->codec->format, code.data,
                                       code.used, note_global, &globals);
    tide_buffer_free(&code);
    return !failed && globals.constant ? globals.count : -1;
}

/* Where it is or, if it is not, where the next one is to go. */
static struct tide_recent *place_for(struct tide_lua_pool *owner,
                                     const void *identity)
{
    for (int i = 0; i < TIDE_RECENT_MAX; i++)
        if (owner->recents.kept[i].identity == identity)
            return &owner->recents.kept[i];
    return &owner->recents.kept[owner->recents.seen_count % TIDE_RECENT_MAX];
}

static int list_of(const struct tide_lua_pool *owner,
                   const struct tide_recent *recent)
{
    return TIDE_ACTIVE_RECENT - (int)(recent - owner->recents.kept);
}

static void remember(struct tide_lua_pool *owner, lua_State *L, int index,
                     struct tide_function *function)
{
    const void *identity = lua_topointer(L, index);
    struct tide_recent *recent = place_for(owner, identity);
    int top = lua_gettop(L);
    recent->function = NULL;
    lua_createtable(L, 4, 0);
    lua_pushvalue(L, index);
    lua_rawseti(L, -2, 1);
    int upvalues = note_upvalues(owner, L, index);
    int globals = upvalues < 0 ? -1 : note_globals(owner, L, index);
    lua_settop(L, top + 1);
    if (globals >= 0) {
        lua_rawseti(L, owner->at, list_of(owner, recent));
        *recent = (struct tide_recent){ .identity = identity,
                                        .function = function,
                                        .upvalues = upvalues,
                                        .globals = globals };
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

/* Is what the list remembers still so? */
static int is_unchanged(const struct tide_lua_pool *owner, lua_State *L,
                        const struct tide_recent *recent, int index)
{
    int top = lua_gettop(L), same = 1;
    int end = 2 + recent->upvalues + 2 * recent->globals;
    if (end == 2)
        return 1;
    lua_rawgeti(L, owner->at, list_of(owner, recent));
    for (int i = 2; i < 2 + recent->upvalues && same; i++) {
        lua_rawgeti(L, top + 1, i);
        if (lua_getupvalue(L, index, i - 1) == NULL)
            lua_pushnil(L);
        same = is_same(L);
        lua_settop(L, top + 1);
    }
    for (int i = 2 + recent->upvalues; i < end && same; i += 2) {
        lua_rawgeti(L, top + 1, i + 1);
        lua_rawgeti(L, top + 1, i);
        lua_rawget(L, LUA_GLOBALSINDEX);
        same = is_same(L);
        lua_settop(L, top + 1);
    }
    lua_settop(L, top);
    return same;
}

struct tide_function *tide_recent_find(struct tide_lua_pool *owner,
                                       lua_State *L, int index)
{
    const void *identity = lua_topointer(L, index);
    const struct tide_recent *recent = place_for(owner, identity);
    return recent->function != NULL && recent->identity == identity &&
                   has_plain_globals(L, index) &&
                   is_unchanged(owner, L, recent, index)
               ? recent->function
               : NULL;
}

void tide_recent_note(struct tide_lua_pool *owner, lua_State *L, int index,
                      struct tide_function *function)
{
    const void *identity = lua_topointer(L, index);
    if (!lua_isfunction(L, index) || lua_iscfunction(L, index))
        return;
    for (int i = 0; i < TIDE_RECENT_MAX; i++) {
        if (owner->recents.seen[i] == identity) {
            remember(owner, L, index, function);
            break;
        }
    }
    owner->recents.seen[owner->recents.seen_count++ % TIDE_RECENT_MAX] =
        identity;
}

void tide_recent_forget(struct tide_lua_pool *owner,
                        const struct tide_function *function)
{
    for (int i = 0; i < TIDE_RECENT_MAX; i++)
        if (owner->recents.kept[i].function == function)
            owner->recents.kept[i].function = NULL;
}
