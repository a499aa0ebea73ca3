/*
 * A prototype is loaded once, however many closures of it come: see factory.h.
 *
 * Functions get their upvalues before anything can call them: the compiler folds
 * upvalues that are never assigned to into machine code, so a live function must
 * never be re-bound.
 */
#include "base/fault.h"
#include "lua/decoder.h"
#include "lua/factory.h"
#include "lua/runtime.h"

#include <lauxlib.h>
#include <stdlib.h>

enum { FACTORIES_MAX = 256 };

struct bytecode {
    const unsigned char *bytes;
    size_t size;
};

/* Push the bytecode: a copy, which is checked, and loaded. */
static int read_bytecode(struct tide_decoder *d, struct bytecode *out)
{
    const unsigned char *head = tide_read(&d->in, 2 * sizeof(uint32_t));
    if (head == NULL)
        return tide_decoder_fail_bytes(d);
    uint32_t size = tide_load32(head);
    uint32_t digest = tide_load32(head + sizeof size);
    const unsigned char *bytes = tide_read(&d->in, size);
    if (bytes == NULL)
        return tide_decoder_fail_bytes(d);
    lua_pushlstring(d->L, (const char *)bytes, size);
    out->bytes = (const unsigned char *)lua_tolstring(d->L, -1, &out->size);
    if ((uint32_t)tide_digest(out->bytes, out->size) != digest)
        return tide_decoder_fail_bytes(d);
    if (!tide_bytecode_fits(&d->codec->format, out->bytes, out->size))
        return tide_decoder_fail(d, "bytecode of another build of LuaJIT");
    return 0;
}

static int load(lua_State *L, const unsigned char *bytes, size_t size)
{
    return luaL_loadbufferx(L, (const char *)bytes, size, "=tidemill", "b");
}

/* Push the table of factories; an empty one if there are many. */
static void push_factories(struct tide_codec *codec, lua_State *L)
{
    if (codec->factories == 0 || codec->factory_count >= FACTORIES_MAX) {
        luaL_unref(L, LUA_REGISTRYINDEX, codec->factories);
        lua_newtable(L);
        codec->factories = luaL_ref(L, LUA_REGISTRYINDEX);
        codec->factory_count = 0;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, codec->factories);
}

/* Load the factory of `code`, or the function itself where there is none. */
static int load_factory(struct tide_decoder *d, const struct bytecode *code)
{
    struct tide_buffer dump;
    tide_buffer_init(&dump);
    int failed = tide_factory_compose(&d->codec->format, code->bytes,
                                      code->size, &dump) != 0 ||
                 load(d->L, dump.data, dump.used) != 0;
    tide_buffer_free(&dump);
    return failed ? tide_decoder_fail_bytes(d) : 0;
}

/* Load the function itself, on top of its bytecode. */
static int load_plain(struct tide_decoder *d, const struct bytecode *code)
{
    return load(d->L, code->bytes, code->size) != 0 ? tide_decoder_fail_bytes(d)
                                                    : 0;
}

/*
 * Replace `code`, on top, by a new closure of it, its upvalues all nil and its own.
 * The table of factories has numbers by bytecode and factories by number.
 */
static int make_closure(struct tide_decoder *d, const struct bytecode *code,
                        uint32_t *prototype)
{
    lua_State *L = d->L;
    struct tide_codec *codec = d->codec;
    int text = lua_gettop(L);
    if (!codec->makes_factories) {
        *prototype = ++codec->last_prototype;
        if (load_plain(d, code) != 0)
            return -1;
        lua_replace(L, text);
        return 0;
    }
    push_factories(codec, L);
    int factories = lua_gettop(L);
    lua_pushvalue(L, text);
    lua_rawget(L, factories);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        if (load_factory(d, code) != 0)
            return -1;
        *prototype = ++codec->last_prototype;
        codec->factory_count++;
        lua_rawseti(L, factories, (int)*prototype);
        lua_pushvalue(L, text);
        lua_pushnumber(L, *prototype);
        lua_rawset(L, factories);
    } else {
        *prototype = (uint32_t)lua_tonumber(L, -1);
    }
    lua_rawgeti(L, factories, (int)*prototype);
    lua_call(L, 0, 1); /* its parameters, the upvalues, are nil */
    lua_replace(L, text);
    lua_settop(L, text);
    return 0;
}

/*
 * Push environment `number` of the message, in which captured globals stand before
 * the state's own. They are kept in a table at base + 1.
 */
static void push_environment(struct tide_decoder *d, int number)
{
    lua_State *L = d->L;
    if (lua_isnil(L, d->base + 1)) {
        lua_newtable(L);
        lua_replace(L, d->base + 1);
    }
    lua_rawgeti(L, d->base + 1, number);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_createtable(L, 0, 2);
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_setfield(L, -2, "__newindex");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawseti(L, d->base + 1, number);
}

static int has_environment(struct tide_decoder *d, int number)
{
    if (lua_isnil(d->L, d->base + 1))
        return 0;
    lua_rawgeti(d->L, d->base + 1, number);
    int has = !lua_isnil(d->L, -1);
    lua_pop(d->L, 1);
    return has;
}

static int decode_globals(struct tide_decoder *d, int function)
{
    lua_State *L = d->L;
    uint64_t wide = tide_read_varint(&d->in);
    int number = (int)wide;
    if (d->in.bad || wide > INT32_MAX)
        return tide_decoder_fail_bytes(d);
    for (;;) {
        if (tide_decode_value(d) != 0)
            return -1;
        if (lua_isnil(L, -1))
            break;
        if (lua_type(L, -1) != LUA_TSTRING)
            return tide_decoder_fail_bytes(d);
        /* Before the value: it may be a function of this environment. */
        push_environment(d, number);
        lua_insert(L, -2);
        if (tide_decode_value(d) != 0)
            return -1;
        lua_rawset(L, -3);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    /* Nothing captured: the state's globals will do. */
    if (has_environment(d, number)) {
        push_environment(d, number);
        lua_setfenv(L, function);
    }
    return 0;
}

static int decode_environment(struct tide_decoder *d, int function)
{
    if (tide_read_byte(&d->in) == TIDE_ENV_GLOBALS)
        return decode_globals(d, function);
    if (tide_decode_value(d) != 0)
        return -1;
    if (!lua_istable(d->L, -1))
        return tide_decoder_fail_bytes(d);
    lua_setfenv(d->L, function);
    return 0;
}

static int add_cell(struct tide_decoder *d, uint32_t function, uint32_t upvalue)
{
    struct tide_codec *codec = d->codec;
    if (codec->cell_count == codec->cell_capacity) {
        size_t capacity = codec->cell_capacity ? codec->cell_capacity * 2 : 64;
        struct tide_cell_owner *cells =
            TIDE_FAULT(CODEC_MALLOC)
                ? NULL
                : realloc(codec->cells, capacity * sizeof *cells);
        if (cells == NULL)
            return tide_decoder_fail(d, "no memory left to receive it");
        codec->cells = cells;
        codec->cell_capacity = capacity;
    }
    codec->cells[codec->cell_count++] =
        (struct tide_cell_owner){ function, upvalue };
    return 0;
}

static int join_upvalue(struct tide_decoder *d, int function, uint32_t upvalue)
{
    lua_State *L = d->L;
    uint64_t cell = tide_read_varint(&d->in);
    if (d->in.bad || !d->numbered ||
        cell >= d->codec->cell_count - d->first_cell)
        return tide_decoder_fail_bytes(d);
    struct tide_cell_owner owner = d->codec->cells[d->first_cell + cell];
    lua_rawgeti(L, d->base, (int)owner.function + 1);
    lua_upvaluejoin(L, function, (int)upvalue, -1, (int)owner.upvalue);
    lua_pop(L, 1);
    return 0;
}

static int decode_upvalues(struct tide_decoder *d, int function,
                           uint32_t number)
{
    lua_Debug info;
    lua_pushvalue(d->L, function);
    lua_getinfo(d->L, ">u", &info);
    if (tide_read_varint(&d->in) != (uint64_t)info.nups)
        return tide_decoder_fail_bytes(d);
    for (uint32_t i = 1; i <= (uint32_t)info.nups; i++) {
        if (tide_read_byte(&d->in) == TIDE_CELL_JOIN) {
            if (join_upvalue(d, function, i) != 0)
                return -1;
            continue;
        }
        /* Numbered first: the value may refer to the cell it is in. */
        if (add_cell(d, number, i) != 0 || tide_decode_value(d) != 0)
            return -1;
        lua_setupvalue(d->L, function, (int)i);
    }
    return 0;
}

int tide_decode_function(struct tide_decoder *d)
{
    if (!d->numbered || d->depth >= TIDE_VALUE_DEPTH ||
        !lua_checkstack(d->L, TIDE_DECODE_SLOTS))
        return tide_decoder_fail_bytes(d);
    struct bytecode code = { 0 };
    uint32_t prototype = 0;
    if (read_bytecode(d, &code) != 0 || make_closure(d, &code, &prototype) != 0)
        return -1;
    uint32_t number = tide_decoder_number(d);
    if (number == 0)
        d->codec->root_prototype = prototype;
    int function = lua_gettop(d->L);
    d->depth++;
    if (decode_environment(d, function) != 0 ||
        decode_upvalues(d, function, number) != 0)
        return -1;
    d->depth--;
    return 0;
}
