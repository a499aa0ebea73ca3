/*
 * A metatable may say how its values travel:
 *
 *   mt.__tidemill = { encode = function(value) return plain end,
 *                     decode = function(plain) return value end }
 *
 * Hooks are a script's code in the middle of a message. They run under lua_pcall()
 * with nothing of ours on their stack; what they raise, and a result that makes no
 * sense, is an error of the value they stand for. What encode() returned is kept
 * until the message is complete: its identity is in the message's map, and must not
 * become another object's.
 */
#include "lua/decoder.h"
#include "lua/encoder.h"

#include <stdio.h>

/* Push the hook `which` of the metatable on top; 0 and nothing if it has none. */
static int push_hook(lua_State *L, const char *which)
{
    int top = lua_gettop(L);
    lua_pushliteral(L, "__tidemill");
    lua_rawget(L, top);
    if (lua_istable(L, -1)) {
        lua_pushstring(L, which);
        lua_rawget(L, -2);
        lua_replace(L, top + 1);
        if (lua_isfunction(L, -1))
            return 1;
    }
    lua_settop(L, top);
    return 0;
}

static const char *error_text(lua_State *L)
{
    return lua_isstring(L, -1) ? lua_tostring(L, -1) : "an error object";
}

/* ---- encoding ---- */

static void keep(struct tide_encoder *e)
{
    lua_State *L = e->L;
    if (lua_isnil(L, e->base + TIDE_ENCODER_KEPT)) {
        lua_newtable(L);
        lua_replace(L, e->base + TIDE_ENCODER_KEPT);
    }
    lua_pushvalue(L, -1);
    lua_rawseti(L, e->base + TIDE_ENCODER_KEPT,
                (int)lua_objlen(L, e->base + TIDE_ENCODER_KEPT) + 1);
}

/* Replace the hook on top by what it makes of the value. */
static int call_encode(struct tide_encoder *e, int value)
{
    lua_State *L = e->L;
    lua_pushvalue(L, value);
    if (lua_pcall(L, 1, 1, 0) == 0) {
        keep(e);
        return 0;
    }
    snprintf(e->reason_text, sizeof e->reason_text,
             "a value whose encode hook raised: %s", error_text(L));
    return tide_encoder_fail(e, e->reason_text);
}

int tide_encode_hooked(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);
    if (!lua_getmetatable(L, index))
        return 0;
    if (!push_hook(L, "encode")) {
        lua_settop(L, top);
        return 0;
    }
    if (!e->runs_hooks) {
        e->wants_hooks = 1;
        return tide_encoder_fail(e, "a hook");
    }
    int referred = tide_encoder_refer(e, lua_topointer(L, index));
    if (referred == 0) {
        e->head |= TIDE_HEAD_REFS;
        if (++e->depth >= TIDE_VALUE_DEPTH)
            return tide_encoder_fail(
                e, "a value whose encode hook returns its like");
        if (tide_encoder_put_byte(e, TIDE_TAG_HOOKED) != 0 ||
            call_encode(e, index) != 0 || tide_encode_metatable(e, index) != 0)
            return -1;
        if (tide_encode_value(e, top + 2) != 0)
            return -1;
        e->depth--;
    }
    lua_settop(L, top);
    return referred < 0 ? -1 : 1;
}

/* As a C function of its own: the encoder, then the values. */
static int encode_protected(lua_State *L)
{
    struct tide_encoder *e = lua_touserdata(L, 1);
    if (tide_encode_message(e, 2, lua_gettop(L) - 1) != 0)
        lua_pushboolean(L, 0);
    else
        lua_pushboolean(L, 1);
    return 1;
}

/*
 * Once more for a message with hooks: with a map of its own, since a hook may
 * encode something itself, and under lua_pcall(), since a hook may change a table
 * that is being walked.
 */
int tide_encode_with_hooks(struct tide_encoder *e, int first, int count)
{
    lua_State *L = e->L;
    struct tide_ptrmap seen = { 0 };
    size_t start = e->out->used;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, count + 2))
        return tide_encoder_fail_memory(e);
    struct tide_ptrmap *outer = e->seen;
    e->seen = &seen;
    e->runs_hooks = 1;
    lua_pushcfunction(L, encode_protected);
    lua_pushlightuserdata(L, e);
    for (int i = 0; i < count; i++)
        lua_pushvalue(L, first + i);
    int failed = lua_pcall(L, count + 1, 1, 0);
    if (failed) {
        e->out->used = start;
        tide_encoder_fail(e, "a value that changed while it was sent");
    }
    failed = failed || !lua_toboolean(L, -1);
    tide_ptrmap_free(&seen);
    e->seen = outer;
    lua_settop(L, top);
    return failed;
}

/* ---- decoding ---- */

int tide_decode_hooked(struct tide_decoder *d)
{
    lua_State *L = d->L;
    int top = lua_gettop(L);
    if (!d->numbered || d->depth >= TIDE_VALUE_DEPTH ||
        !lua_checkstack(L, TIDE_DECODE_SLOTS))
        return tide_decoder_fail_bytes(d);
    uint32_t number = d->object_count++; /* before what it is made of */
    d->depth++;
    if (tide_decode_value(d) != 0)
        return -1;
    if (!lua_istable(L, -1) || !push_hook(L, "decode"))
        return tide_decoder_fail(d, "a class without a decode hook here");
    if (tide_decode_value(d) != 0)
        return -1;
    d->depth--;
    if (lua_pcall(L, 1, 1, 0) != 0) {
        char text[TIDE_ERROR_TEXT_BYTES];
        snprintf(text, sizeof text, "a decode hook raised: %s", error_text(L));
        return tide_decoder_fail(d, text);
    }
    if (lua_isnil(L, -1))
        return tide_decoder_fail(d, "a decode hook returned nil");
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, d->base, (int)number + 1);
    return 0;
}
