/*
 * Values wait as a program: one byte that says what, then its bytes. A table is what
 * stands between BEGIN and END; a NAME goes before a value. So appending touches no
 * Lua state, and the whole is checked as it is made: what is pushed is well formed.
 *
 *   NIL | FALSE | TRUE | BEGIN | END
 *   NUMBER 8 bytes | INTEGER 8 bytes
 *   STRING 8 bytes length, bytes | NAME likewise
 *   NUMBERS 8 bytes count, doubles
 */
#include "embed/embed.h"

#include "lua/buffer.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 60, SLOTS_PER_LEVEL = 4 };

enum op {
    OP_NIL,
    OP_FALSE,
    OP_TRUE,
    OP_BEGIN,
    OP_END,
    OP_NUMBER,
    OP_INTEGER,
    OP_STRING,
    OP_NAME,
    OP_NUMBERS
};

struct tide_args {
    struct tide_buffer text;
    int depth;         /* tables begun */
    int named;         /* a name waits for its value */
    const char *wrong; /* the first thing that was */
    int status;        /* of it */
};

/* What is returned without memory: nothing can be appended to it. */
static tide_args no_args = { .wrong = "out of memory", .status = TIDE_ENOMEM };

tide_args *tide_args_new(void)
{
    tide_args *args = malloc(sizeof *args);
    if (args == NULL)
        return &no_args;
    *args = (tide_args){ .status = TIDE_OK };
    tide_buffer_init(&args->text);
    return args;
}

void tide_args_free(tide_args *args)
{
    if (args == NULL || args == &no_args)
        return;
    tide_buffer_free(&args->text);
    free(args);
}

tide_args *tide_args_clear(tide_args *args)
{
    if (args == &no_args)
        return args;
    struct tide_buffer text = args->text;
    *args = (tide_args){ .text = text, .status = TIDE_OK };
    args->text.used = 0;
    return args;
}

/* ---- appending ---- */

static tide_args *go_wrong(tide_args *args, int status, const char *what)
{
    if (args->wrong == NULL) {
        args->wrong = what;
        args->status = status;
    }
    return args;
}

static void put(tide_args *args, enum op op, const void *bytes, size_t size)
{
    unsigned char *at =
        size < SIZE_MAX - 1 ? tide_buffer_reserve(&args->text, size + 1) : NULL;
    if (at == NULL) {
        go_wrong(args, TIDE_ENOMEM, "out of memory");
        return;
    }
    *at = (unsigned char)op;
    if (size > 0)
        memcpy(at + 1, bytes, size);
    args->text.used += size + 1;
}

/* A value of so many bytes. */
static tide_args *put_value(tide_args *args, enum op op, const void *bytes,
                            size_t size)
{
    if (args->wrong != NULL)
        return args;
    args->named = 0;
    put(args, op, bytes, size);
    return args;
}

/* A count, and what is so many times as large. */
static tide_args *put_counted(tide_args *args, enum op op, const void *bytes,
                              size_t count, size_t each)
{
    uint64_t wide = count;
    if (args->wrong != NULL)
        return args;
    if (bytes == NULL && count > 0)
        return go_wrong(args, TIDE_EINVAL, "a value is NULL");
    if (count > (SIZE_MAX / 2) / each)
        return go_wrong(args, TIDE_ENOMEM, "out of memory");
    size_t before = args->text.used;
    put(args, op, &wide, sizeof wide);
    unsigned char *at = tide_buffer_reserve(&args->text, count * each);
    if (args->wrong != NULL || at == NULL) {
        args->text.used = before;
        return go_wrong(args, TIDE_ENOMEM, "out of memory");
    }
    if (count > 0)
        memcpy(at, bytes, count * each);
    args->text.used += count * each;
    args->named = op == OP_NAME;
    return args;
}

tide_args *tide_args_nil(tide_args *args)
{
    return put_value(args, OP_NIL, NULL, 0);
}

tide_args *tide_args_bool(tide_args *args, int value)
{
    return put_value(args, value ? OP_TRUE : OP_FALSE, NULL, 0);
}

tide_args *tide_args_number(tide_args *args, double value)
{
    return put_value(args, OP_NUMBER, &value, sizeof value);
}

tide_args *tide_args_integer(tide_args *args, int64_t value)
{
    const int64_t exact = INT64_C(1) << 53;
    if (value >= -exact && value <= exact)
        return tide_args_number(args, (double)value);
    return put_value(args, OP_INTEGER, &value, sizeof value);
}

tide_args *tide_args_string(tide_args *args, const void *bytes, size_t size)
{
    return put_counted(args, OP_STRING, bytes, size, 1);
}

tide_args *tide_args_text(tide_args *args, const char *text)
{
    return tide_args_string(args, text, text != NULL ? strlen(text) : 1);
}

tide_args *tide_args_numbers(tide_args *args, const double *numbers,
                             size_t count)
{
    return put_counted(args, OP_NUMBERS, numbers, count, sizeof *numbers);
}

tide_args *tide_args_each(tide_args *args, const double *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tide_args_number(args, numbers[i]);
    return args;
}

tide_args *tide_args_begin(tide_args *args)
{
    if (args->wrong != NULL)
        return args;
    if (args->depth == DEPTH_MAX)
        return go_wrong(args, TIDE_EINVAL, "tables are nested too deeply");
    args->depth++;
    return put_value(args, OP_BEGIN, NULL, 0);
}

tide_args *tide_args_name(tide_args *args, const char *name)
{
    if (args->wrong != NULL)
        return args;
    if (args->depth == 0 || args->named || name == NULL)
        return go_wrong(args, TIDE_EINVAL, "a name is not before a field");
    return put_counted(args, OP_NAME, name, strlen(name), 1);
}

tide_args *tide_args_end(tide_args *args)
{
    if (args->wrong != NULL)
        return args;
    if (args->depth == 0 || args->named)
        return go_wrong(args, TIDE_EINVAL, "a table ends where there is none");
    args->depth--;
    return put_value(args, OP_END, NULL, 0);
}

/* ---- pushing ---- */

int tide_args_check(const tide_args *args, struct tide_error *err)
{
    if (args != NULL && args->wrong != NULL)
        return tide_fail(err, args->status, "cannot send the values: %s",
                         args->wrong);
    if (args != NULL && args->depth > 0)
        return tide_fail(err, TIDE_EINVAL,
                         "cannot send the values: a table has no end");
    return TIDE_OK;
}

static uint64_t take_count(const unsigned char **at)
{
    uint64_t count;
    memcpy(&count, *at, sizeof count);
    *at += sizeof count;
    return count;
}

static void push_integer(lua_State *L, const unsigned char *at)
{
    int64_t value;
    memcpy(&value, at, sizeof value);
    tide_mill_push(L, TIDE_MILL_INTEGER);
    lua_pushlightuserdata(L, &value);
    lua_call(L, 2, 1);
}

static void push_numbers(lua_State *L, const unsigned char *at, uint64_t count)
{
    double value;
    lua_createtable(L, count < INT32_MAX ? (int)count : 0, 0);
    for (uint64_t i = 0; i < count; i++) {
        memcpy(&value, at + i * sizeof value, sizeof value);
        lua_pushnumber(L, value);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static const unsigned char *push_text(lua_State *L, const unsigned char *at)
{
    size_t size = (size_t)take_count(&at);
    lua_pushlstring(L, (const char *)at, size);
    return at + size;
}

static const unsigned char *push_value(lua_State *L, const unsigned char *at);

/* The table whose BEGIN was read. */
static const unsigned char *push_table(lua_State *L, const unsigned char *at)
{
    int length = 0;
    luaL_checkstack(L, SLOTS_PER_LEVEL, "values are nested too deeply");
    lua_newtable(L);
    while (*at != OP_END) {
        if (*at == OP_NAME) {
            at = push_value(L, push_text(L, at + 1));
            lua_rawset(L, -3);
        } else {
            at = push_value(L, at);
            lua_rawseti(L, -2, ++length);
        }
    }
    return at + 1;
}

/* Push the value at `at`; returns behind it. */
static const unsigned char *push_value(lua_State *L, const unsigned char *at)
{
    double number;
    uint64_t count;
    enum op op = (enum op) * at++;
    switch (op) {
    case OP_NUMBER:
        memcpy(&number, at, sizeof number);
        lua_pushnumber(L, number);
        return at + sizeof number;
    case OP_INTEGER:
        push_integer(L, at);
        return at + sizeof(int64_t);
    case OP_STRING:
        return push_text(L, at);
    case OP_NUMBERS:
        count = take_count(&at);
        push_numbers(L, at, count);
        return at + count * sizeof number;
    case OP_BEGIN:
        return push_table(L, at);
    case OP_FALSE:
    case OP_TRUE:
        lua_pushboolean(L, op == OP_TRUE);
        return at;
    default:
        lua_pushnil(L);
        return at;
    }
}

int tide_args_push_list(lua_State *L, const tide_args *args)
{
    int count = 0;
    lua_newtable(L);
    if (args == NULL)
        return 0;
    const unsigned char *at = args->text.data;
    const unsigned char *end = at + args->text.used;
    while (at < end) {
        at = push_value(L, at);
        lua_rawseti(L, -2, ++count);
    }
    return count;
}
