/*
 * The body of a table (tag, counts, entries, metatable) by the public functions
 * only: for a LuaJIT whose layout is not known. See encode_direct.c for the other.
 */
#include "lua/encoder.h"

#include <string.h>

/* A table outgrew its small counts: make room for large ones. */
static int widen(struct tide_encoder *e, size_t head)
{
    const size_t more = 2 * sizeof(uint32_t) - 2;
    if (tide_buffer_reserve(e->out, more) == NULL)
        return tide_encoder_fail_memory(e);
    unsigned char *body = e->out->data + head + 2;
    memmove(body + more, body, e->out->used - head - 2);
    e->out->used += more;
    e->out->data[head - 1] += TIDE_TAG_TABLE - TIDE_TAG_SMALL_TABLE;
    return 0;
}

/* The array values and pairs of the table at `index`, counts at `head`. */
static int encode_entries(struct tide_encoder *e, int index, size_t head,
                          int small)
{
    lua_State *L = e->L;
    uint32_t array = 0, pairs = 0;
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        int value = lua_gettop(L);
        if (small &&
            (array == TIDE_SMALL_TABLE_MAX || pairs == TIDE_SMALL_TABLE_MAX)) {
            if (widen(e, head) != 0)
                return -1;
            small = 0;
        }
        if (pairs == 0 && lua_type(L, value - 1) == LUA_TNUMBER &&
            lua_tonumber(L, value - 1) == array + 1.0) {
            array++;
        } else {
            pairs++;
            if (tide_encode_value(e, value - 1) != 0)
                return tide_encoder_at_key(e, value - 1);
        }
        if (tide_encode_value(e, value) != 0)
            return tide_encoder_at_key(e, value - 1);
        lua_settop(L, value - 1);
    }
    tide_encoder_store_counts(e, head, small, array, pairs);
    return 0;
}

int tide_encode_body(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    int has_meta = lua_getmetatable(L, index);
    if (has_meta)
        lua_pop(L, 1);
    int small = lua_objlen(L, index) <= TIDE_SMALL_TABLE_MAX;
    unsigned tag = small ? TIDE_TAG_SMALL_TABLE : TIDE_TAG_TABLE;
    size_t count_bytes = small ? 2 : 2 * sizeof(uint32_t);
    if (!lua_checkstack(L, TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);
    if (tide_encoder_put_byte(e, has_meta ? tag + 1 : tag) != 0 ||
        tide_buffer_reserve(e->out, count_bytes) == NULL)
        return tide_encoder_fail_memory(e);
    size_t head = e->out->used;
    e->out->used += count_bytes;
    e->depth++;
    int failed = encode_entries(e, index, head, small) ||
                 (has_meta && tide_encode_metatable(e, index));
    e->depth--;
    return failed ? -1 : 0;
}
