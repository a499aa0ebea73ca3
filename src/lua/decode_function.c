/*
 * Functions get their upvalues before anything can call them: the compiler folds
 * upvalues that are never assigned to into machine code, so a live function must
 * never be re-bound.
 */
#include "lua/decoder.h"

#include <lauxlib.h>
#include <stdlib.h>

static int load_bytecode(struct tide_decoder *d)
{
    uint32_t head[2];
    const unsigned char *bytes = tide_read(&d->in, sizeof head);
    if (bytes == NULL)
        return tide_decoder_fail_bytes(d);
    memcpy(head, bytes, sizeof head);
    const unsigned char *code = tide_read(&d->in, head[0]);
    if (code == NULL || (uint32_t)tide_digest(code, head[0]) != head[1])
        return tide_decoder_fail_bytes(d);
    if (!tide_bytecode_fits(&d->codec->format, code, head[0]))
        return tide_decoder_fail(d, "bytecode of another build of LuaJIT");
    if (luaL_loadbufferx(d->L, (const char *)code, head[0], "=tidemill", "b") !=
        0)
        return tide_decoder_fail_bytes(d);
    return 0;
}

/* The environment in which captured globals stand before the state's own. */
static void push_captured_globals(struct tide_decoder *d)
{
    lua_State *L = d->L;
    if (lua_isnil(L, d->base + 1)) {
        lua_newtable(L);
        lua_createtable(L, 0, 2);
        lua_pushvalue(L, LUA_GLOBALSINDEX);
        lua_setfield(L, -2, "__index");
        lua_pushvalue(L, LUA_GLOBALSINDEX);
        lua_setfield(L, -2, "__newindex");
        lua_setmetatable(L, -2);
        lua_replace(L, d->base + 1);
    }
    lua_pushvalue(L, d->base + 1);
}

static int decode_globals(struct tide_decoder *d, int function)
{
    lua_State *L = d->L;
    for (;;) {
        if (tide_decode_value(d) != 0)
            return -1;
        if (lua_isnil(L, -1))
            break;
        if (tide_decode_value(d) != 0)
            return -1;
        push_captured_globals(d);
        lua_insert(L, -3);
        lua_rawset(L, -3);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    if (!lua_isnil(L, d->base + 1)) {
        push_captured_globals(d);
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
    if (d->cell_count == codec->cell_capacity) {
        size_t capacity = codec->cell_capacity ? codec->cell_capacity * 2 : 64;
        struct tide_cell_owner *cells =
            realloc(codec->cells, capacity * sizeof *cells);
        if (cells == NULL)
            return tide_decoder_fail(d, "no memory left to receive it");
        codec->cells = cells;
        codec->cell_capacity = capacity;
    }
    codec->cells[d->cell_count++] =
        (struct tide_cell_owner){ function, upvalue };
    return 0;
}

static int join_upvalue(struct tide_decoder *d, int function, uint32_t upvalue)
{
    lua_State *L = d->L;
    uint64_t cell = tide_read_varint(&d->in);
    if (d->in.bad || !d->numbered || cell >= d->cell_count)
        return tide_decoder_fail_bytes(d);
    struct tide_cell_owner owner = d->codec->cells[cell];
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
    if (load_bytecode(d) != 0)
        return -1;
    uint32_t number = tide_decoder_number(d);
    int function = lua_gettop(d->L);
    d->depth++;
    if (decode_environment(d, function) != 0 ||
        decode_upvalues(d, function, number) != 0)
        return -1;
    d->depth--;
    return 0;
}
