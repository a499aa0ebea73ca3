/*
 * A metatable may say how its values travel:
 *
 *   mt.__tidemill = { encode = function(value) return plain end,
 *                     decode = function(plain) return value end }
 *
 * Hooks are a script's code in the middle of a message. They run under lua_pcall()
 * with nothing of ours on their stack; what they raise, and a result that makes no
 * sense, is an error of the value they stand for.
 *
 * An encode hook may do anything to the values of the message: change a table of
 * which half is written, or one that was written long ago. If the message were what
 * was read around such calls, it could have half of one state and half of another,
 * which never was. So all hooks are called before the bytes that count are
 * written, each once a value, in a pass of their own (see encode_passes.c), and
 * what travels is the state that the last of them has left. If it takes a hook
 * that was not called, or if the pass itself runs into a table that changes under
 * it, that is an error.
 */
#include "lua/decoder.h"
#include "lua/encoder.h"

#include <stdio.h>

/*
 * Push the hook of the metatable on top, `which` a key of the codec; 0 and nothing
 * if it has none.
 */
static int push_hook(lua_State *L, const struct tide_codec *codec, int which)
{
    int top = lua_gettop(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, codec->keys.tidemill);
    lua_rawget(L, top);
    if (lua_istable(L, -1)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, which);
        lua_rawget(L, -2);
        lua_replace(L, top + 1);
        if (lua_isfunction(L, -1))
            return 1;
    }
    lua_settop(L, top);
    return 0;
}

/*
 * A hook may encode or decode something whose hooks do the same. LuaJIT bounds its
 * own stack but not that of C, so this does: by what lies between the outermost
 * hook that is running and this one.
 */
int tide_call_hook(struct tide_codec *codec, lua_State *L, int arguments)
{
    enum { STACK_BYTES_MAX = 1 << 20 };
    char here;
    uintptr_t outermost = codec->outermost_hook;
    uintptr_t at = (uintptr_t)&here;
    if (outermost != 0 &&
        (at < outermost ? outermost - at : at - outermost) > STACK_BYTES_MAX) {
        lua_pushliteral(L, "hooks run hooks without end");
        return LUA_ERRRUN;
    }
    codec->outermost_hook = outermost != 0 ? outermost : at;
    int status = lua_pcall(L, arguments, 1, 0);
    codec->outermost_hook = outermost;
    return status;
}

static const char *error_text(lua_State *L)
{
    return lua_isstring(L, -1) ? lua_tostring(L, -1) : "an error object";
}

/* ---- encoding ---- */

/* Replace the hook on top by what it makes of the value. */
static int call_encode(struct tide_encoder *e, int value)
{
    lua_State *L = e->L;
    lua_pushvalue(L, value);
    if (tide_call_hook(e->codec, L, 1) == 0) {
        double number = tide_encoder_add_result(e);
        lua_pushvalue(L, value);
        lua_pushnumber(L, number);
        lua_rawset(L, e->results);
        return 0;
    }
    snprintf(e->reason_text, sizeof e->reason_text,
             "a value whose encode hook raised: %s", error_text(L));
    return tide_encoder_fail(e, e->reason_text);
}

/* Replace the hook on top by its result for the value, called once a message. */
static int push_result(struct tide_encoder *e, int value)
{
    lua_State *L = e->L;
    lua_pushvalue(L, value);
    lua_rawget(L, e->results);
    if (tide_encoder_result(e)) {
        lua_replace(L, -2);
        return 0;
    }
    return e->runs_hooks ? call_encode(e, value) : tide_encoder_fail_changed(e);
}

int tide_encode_hooked(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);
    if (!lua_getmetatable(L, index))
        return 0;
    if (!push_hook(L, e->codec, e->codec->keys.encode)) {
        lua_settop(L, top);
        return 0;
    }
    if (e->results == 0) {
        e->wants_hooks = 1;
        return tide_encoder_fail(e, "a hook");
    }
    int referred = tide_encoder_refer(e, lua_topointer(L, index));
    if (referred == 0) {
        e->head |= TIDE_HEAD_REFS;
        /* The second does not begin anew with tables that are written later. */
        if (++e->depth >= TIDE_VALUE_DEPTH ||
            ++e->hook_depth >= TIDE_VALUE_DEPTH)
            return tide_encoder_fail(
                e, "a value whose encode hook returns its like");
        if (tide_encoder_put_byte(e, TIDE_TAG_HOOKED) != 0 ||
            push_result(e, index) != 0 || tide_encode_metatable(e, index) != 0)
            return -1;
        if (tide_encode_value(e, top + 2) != 0)
            return -1;
        e->depth--;
        e->hook_depth--;
    }
    lua_settop(L, top);
    return referred < 0 ? -1 : 1;
}

/* ---- decoding ---- */

/* The message is refused, but read to its end: the next one begins there. */
static void refuse(struct tide_decoder *d, const char *why)
{
    if (!d->refused)
        tide_decoder_fail(d, why);
    d->refused = 1;
}

/* Replace the hook and the plain value on top by what the hook makes of it. */
static void call_decode(struct tide_decoder *d)
{
    lua_State *L = d->L;
    if (lua_isnil(L, -2)) {
        lua_replace(L, -2); /* no hook: the plain value has to do */
        return;
    }
    if (tide_call_hook(d->codec, L, 1) != 0) {
        char text[TIDE_ERROR_TEXT_BYTES];
        snprintf(text, sizeof text, "a decode hook raised: %s", error_text(L));
        refuse(d, text);
    } else if (lua_isnil(L, -1)) {
        refuse(d, "a decode hook returned nil");
    }
    if (d->refused) { /* something that may be a key */
        lua_pop(L, 1);
        lua_pushboolean(L, 0);
    }
}

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
    if (!lua_istable(L, -1) || !push_hook(L, d->codec, d->codec->keys.decode)) {
        refuse(d, "a class without a decode hook here");
        lua_pushnil(L);
    }
    if (tide_decode_value(d) != 0)
        return -1;
    d->depth--;
    call_decode(d);
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, d->base, (int)number + 1);
    return 0;
}
