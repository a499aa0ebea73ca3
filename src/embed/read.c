/*
 * Results are read where they are, in the mill's state: a getter is one query, run
 * as a part. Tables are read raw, so that no code of theirs runs.
 *
 * A string is borrowed from the state. The entry of its call holds the table that
 * holds it, and nobody changes that.
 */
#include "embed/embed.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES = 1, PER_LEVEL = 3, KEY = 1, VALUE = 2, LEVELS_MAX = 200 };

enum want {
    WANT_TYPE,
    WANT_BOOL,
    WANT_NUMBER,
    WANT_INTEGER,
    WANT_STRING,
    WANT_NUMBERS,
    WANT_LENGTH,
    WANT_TABLE, /* and go there */
    WANT_NEXT,
};

struct query {
    tide_call *call;
    const char *path;
    enum want want;
    int found; /* and of the type that is wanted */
    enum tide_type type;
    int truth;
    double number;
    int64_t integer;
    const char *text;
    size_t size; /* of a text or list; before, the room for numbers */
    double *numbers;
};

/* Where the entry has the table of a level; 0 is the values as such. */
static int place_of(int level)
{
    return level == 0 ? VALUES : VALUES + 1 + (level - 1) * PER_LEVEL;
}

/* ---- finding ---- */

/* Replace the table on top by what it has under a name. */
static void step(lua_State *L, const char *name, size_t length)
{
    char *end;
    long number = strtol(name, &end, 10);
    if (end == name + length && length > 0 && (*name == '-' || *name >= '0')) {
        lua_pushnumber(L, (double)number);
        lua_rawget(L, -2);
        if (!lua_isnil(L, -1)) {
            lua_replace(L, -2);
            return;
        }
        lua_pop(L, 1);
    }
    lua_pushlstring(L, name, length);
    lua_rawget(L, -2);
    lua_replace(L, -2);
}

/* Push where paths begin, of the entry at `entry`. */
static void push_base(lua_State *L, int entry, const tide_call *call)
{
    int place = place_of(call->level);
    if (call->level > 0) {
        lua_rawgeti(L, entry, place + KEY);
        int is_at_pair = !lua_isnil(L, -1);
        lua_pop(L, 1);
        place += is_at_pair ? VALUE : 0;
    }
    lua_rawgeti(L, entry, place);
}

/* Push what is at the path, or nil. */
static void push_value(lua_State *L, int entry, const tide_call *call,
                       const char *path)
{
    if (strcmp(path, "@") == 0 && call->level > 0) {
        lua_rawgeti(L, entry, place_of(call->level) + KEY);
        return;
    }
    push_base(L, entry, call);
    while (*path != '\0' && lua_istable(L, -1)) {
        size_t length = strcspn(path, ".");
        step(L, path, length);
        path += length + (path[length] == '.');
    }
    if (*path != '\0') { /* something has no fields */
        lua_pop(L, 1);
        lua_pushnil(L);
    }
}

/* ---- taking ---- */

static void take_integer(lua_State *L, struct query *query)
{
    const double limit = 9223372036854775808.0; /* 2^63 */
    if (lua_type(L, -1) == LUA_TNUMBER) {
        double number = lua_tonumber(L, -1);
        query->found = number >= -limit && number < limit &&
                       number == (double)(int64_t)number;
        if (query->found)
            query->integer = (int64_t)number;
    } else if (lua_type(L, -1) > LUA_TTHREAD) { /* a cdata */
        int value = lua_gettop(L);
        tide_mill_push(L, TIDE_MILL_TAKE_INTEGER);
        lua_pushlightuserdata(L, &query->integer);
        lua_pushvalue(L, value);
        lua_call(L, 3, 1);
        query->found = lua_toboolean(L, -1);
    }
}

static void take_numbers(lua_State *L, struct query *query)
{
    size_t room = query->size;
    query->size = lua_objlen(L, -1);
    query->found = query->size <= room;
    for (size_t i = 0; i < query->size && query->found; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        query->found = lua_type(L, -1) == LUA_TNUMBER;
        query->numbers[i] = lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
}

static enum tide_type type_of(lua_State *L)
{
    switch (lua_type(L, -1)) {
    case LUA_TNIL:
        return TIDE_TYPE_NIL;
    case LUA_TBOOLEAN:
        return TIDE_TYPE_BOOL;
    case LUA_TNUMBER:
        return TIDE_TYPE_NUMBER;
    case LUA_TSTRING:
        return TIDE_TYPE_STRING;
    case LUA_TTABLE:
        return TIDE_TYPE_TABLE;
    default:
        break;
    }
    struct query query = { 0 };
    take_integer(L, &query);
    return query.found ? TIDE_TYPE_INTEGER : TIDE_TYPE_OTHER;
}

/* Make the table on top the one where paths begin. */
static void enter(lua_State *L, int entry, struct query *query)
{
    query->found = lua_istable(L, -1) && query->call->level < LEVELS_MAX;
    if (!query->found)
        return;
    int place = place_of(query->call->level + 1);
    lua_rawseti(L, entry, place);
    lua_pushnil(L);
    lua_rawseti(L, entry, place + KEY);
    query->call->level++;
}

static void next(lua_State *L, int entry, struct query *query)
{
    int place = place_of(query->call->level);
    lua_rawgeti(L, entry, place);
    lua_rawgeti(L, entry, place + KEY);
    query->found = lua_next(L, -2);
    if (!query->found)
        return; /* it stays at the last pair */
    lua_rawseti(L, entry, place + VALUE);
    lua_rawseti(L, entry, place + KEY);
}

static void take(lua_State *L, struct query *query)
{
    switch (query->want) {
    case WANT_BOOL:
        query->found = lua_isboolean(L, -1);
        query->truth = lua_toboolean(L, -1);
        break;
    case WANT_NUMBER:
        query->found = lua_type(L, -1) == LUA_TNUMBER;
        query->number = lua_tonumber(L, -1);
        break;
    case WANT_INTEGER:
        take_integer(L, query);
        break;
    case WANT_STRING:
        query->found = lua_type(L, -1) == LUA_TSTRING;
        if (query->found)
            query->text = lua_tolstring(L, -1, &query->size);
        break;
    case WANT_NUMBERS:
        if (lua_istable(L, -1))
            take_numbers(L, query);
        break;
    case WANT_LENGTH:
        query->found = lua_istable(L, -1);
        query->size = query->found ? lua_objlen(L, -1) : 0;
        break;
    default:
        query->found = 1;
        query->type = type_of(L);
        break;
    }
}

static void run(lua_State *L, void *data)
{
    struct query *query = data;
    lua_rawgeti(L, LUA_REGISTRYINDEX, query->call->entry);
    int entry = lua_gettop(L);
    if (query->want == WANT_NEXT) {
        next(L, entry, query);
        return;
    }
    push_value(L, entry, query->call, query->path);
    if (query->want == WANT_TABLE)
        enter(L, entry, query);
    else
        take(L, query);
}

static int ask(struct query *query)
{
    if (query->call == NULL || query->path == NULL)
        return TIDE_EINVAL;
    if (query->call->status == TIDE_EAGAIN)
        return TIDE_EAGAIN;
    int status = tide_mill_run_part(query->call->mill, run, query, NULL);
    return status != TIDE_OK ? status : query->found ? TIDE_OK : TIDE_EINVAL;
}

/* ---- getters ---- */

enum tide_type tide_get_type(tide_call *call, const char *path)
{
    struct query query = { call, path, .want = WANT_TYPE };
    return ask(&query) == TIDE_OK ? query.type : TIDE_TYPE_NIL;
}

int tide_get_bool(int *out, tide_call *call, const char *path)
{
    struct query query = { call, path, .want = WANT_BOOL };
    int status = ask(&query);
    if (status == TIDE_OK)
        *out = query.truth;
    return status;
}

int tide_get_number(double *out, tide_call *call, const char *path)
{
    struct query query = { call, path, .want = WANT_NUMBER };
    int status = ask(&query);
    if (status == TIDE_OK)
        *out = query.number;
    return status;
}

int tide_get_integer(int64_t *out, tide_call *call, const char *path)
{
    struct query query = { call, path, .want = WANT_INTEGER };
    int status = ask(&query);
    if (status == TIDE_OK)
        *out = query.integer;
    return status;
}

int tide_get_string(const char **out, size_t *size, tide_call *call,
                    const char *path)
{
    struct query query = { call, path, .want = WANT_STRING };
    int status = ask(&query);
    if (status != TIDE_OK)
        return status;
    *out = query.text;
    if (size != NULL)
        *size = query.size;
    return TIDE_OK;
}

int tide_get_numbers(double *out, size_t *count, tide_call *call,
                     const char *path)
{
    struct query query = { call, path, .want = WANT_NUMBERS };
    query.numbers = out;
    query.size = *count;
    int status = ask(&query);
    *count = status == TIDE_OK || query.size > *count ? query.size : 0;
    return status;
}

size_t tide_get_length(tide_call *call, const char *path)
{
    struct query query = { call, path, .want = WANT_LENGTH };
    return ask(&query) == TIDE_OK ? query.size : 0;
}

/* ---- the cursor ---- */

int tide_call_enter(tide_call *call, const char *path)
{
    struct query query = { call, path, .want = WANT_TABLE };
    return ask(&query);
}

int tide_call_next(tide_call *call)
{
    struct query query = { call, "", .want = WANT_NEXT };
    return call != NULL && call->level > 0 && ask(&query) == TIDE_OK;
}

void tide_call_leave(tide_call *call)
{
    if (call != NULL && call->level > 0)
        call->level--;
}
