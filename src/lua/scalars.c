#include "lua/scalars.h"

#include "lua/layout.h"
#include "lua/reader.h"
#include "lua/writer.h"

enum {
    COUNT_MAX = 4,
    TEXT_MAX = 15,
    BYTES_MAX = 2 + COUNT_MAX * (1 + TEXT_MAX)
};

/* ---- encoding ---- */

/* Write one value; returns behind it, NULL if it is none of those. */
static unsigned char *put(unsigned char *at, uint64_t bits)
{
    if (tide_bits_is_number(bits))
        return tide_write_number(at, tide_bits_number(bits));
    switch (tide_bits_kind(bits)) {
    case TIDE_KIND_NIL:
        *at = TIDE_TAG_NIL;
        return at + 1;
    case TIDE_KIND_FALSE:
        *at = TIDE_TAG_FALSE;
        return at + 1;
    case TIDE_KIND_TRUE:
        *at = TIDE_TAG_TRUE;
        return at + 1;
    case TIDE_KIND_STRING:
        break;
    default:
        return NULL;
    }
    const struct tide_gc_string *string = tide_bits_pointer(bits);
    if (string->length > TEXT_MAX)
        return NULL;
    at = tide_write_string_head(at, string->length);
    tide_write_text(at, tide_gc_string_text(string), string->length);
    return at + string->length;
}

int tide_scalars_encode(lua_State *L, struct tide_buffer *buffer, int first,
                        int count, unsigned head)
{
    unsigned char bytes[BYTES_MAX];
    unsigned char *end = bytes;
    if (count > COUNT_MAX || (head & ~(unsigned)TIDE_HEAD_MULTI) != 0)
        return -1;
    *end++ = (unsigned char)head;
    if ((head & TIDE_HEAD_MULTI) != 0)
        *end++ = (unsigned char)count;
    const uint64_t *values = tide_gc_state_of(L)->base + first - 1;
    for (int i = 0; i < count; i++) {
        end = put(end, values[i]);
        if (end == NULL)
            return -1;
    }
    size_t size = (size_t)(end - bytes);
    unsigned char *to = tide_buffer_reserve(buffer, size);
    if (to == NULL)
        return -1;
    memcpy(to, bytes, size);
    buffer->used += size;
    return 0;
}

/* ---- decoding ---- */

/* Push the next value. Returns -1 if it is none of those, or not all there. */
static int push(lua_State *L, struct tide_reader *in)
{
    static const unsigned char widths[] = {
        [TIDE_TAG_INT16] = 2, [TIDE_TAG_INT32] = 4, [TIDE_TAG_DOUBLE] = 8
    };
    unsigned tag = tide_read_byte(in);
    const unsigned char *bytes;
    if (in->bad)
        return -1;
    if (tag >= TIDE_TAG_SMALL_INT) {
        lua_pushnumber(L, (double)(tag - TIDE_TAG_SMALL_INT));
        return 0;
    }
    if (tag >= TIDE_TAG_SHORT_STRING) {
        size_t length = tag - TIDE_TAG_SHORT_STRING;
        bytes = tide_read(in, length);
        if (bytes == NULL || length > TEXT_MAX)
            return -1;
        lua_pushlstring(L, (const char *)bytes, length);
        return 0;
    }
    switch (tag) {
    case TIDE_TAG_NIL:
        lua_pushnil(L);
        return 0;
    case TIDE_TAG_FALSE:
    case TIDE_TAG_TRUE:
        lua_pushboolean(L, tag == TIDE_TAG_TRUE);
        return 0;
    case TIDE_TAG_INT16:
    case TIDE_TAG_INT32:
    case TIDE_TAG_DOUBLE:
        bytes = tide_read(in, widths[tag]);
        if (bytes == NULL)
            return -1;
        lua_pushnumber(L, tide_read_number(bytes, widths[tag]));
        return 0;
    default:
        return -1;
    }
}

int tide_scalars_decode(lua_State *L, const unsigned char **at,
                        const unsigned char *end, unsigned *head)
{
    struct tide_reader in = { .at = *at, .end = end };
    unsigned is = tide_read_byte(&in);
    unsigned count = (is & TIDE_HEAD_MULTI) != 0 ? tide_read_byte(&in) : 1;
    if (in.bad || count > COUNT_MAX || (is & ~(unsigned)TIDE_HEAD_MULTI) != 0 ||
        !lua_checkstack(L, COUNT_MAX))
        return -1;
    for (unsigned i = 0; i < count; i++) {
        if (push(L, &in) != 0) {
            lua_pop(L, (int)i);
            return -1;
        }
    }
    *at = in.at;
    *head = is;
    return (int)count;
}
