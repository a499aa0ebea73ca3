/*
 * The dump of a factory is that of the function, with two changes:
 *
 *   header  inner prototypes...  function, its upvalues re-aimed  factory  0
 *
 * An upvalue's entry says where the enclosing function finds it when it makes the
 * closure. The entries are pointed to the factory's parameters 0 .. n - 1, the bit
 * for "never assigned" kept. The factory is a prototype of three instructions:
 *
 *   FNEW n 0     the closure of the one constant, a child prototype, into slot n
 *   UCLO 0 =>    close its upvalues over the parameters
 *   RET1 n 2     return it
 *
 * The opcodes are read from a function that the running LuaJIT has compiled, and
 * the result is tried once, so that another LuaJIT is noticed here.
 */
#include "lua/factory.h"

#include "lua/reader.h"
#include "lua/runtime.h"

#include <lauxlib.h>

enum {
    UV_LOCAL = 0x8000,
    UV_IMMUTABLE = 0x4000,
    PROTO_CHILD = 0x01,
    JUMP_BIAS = 0x80, /* high byte of a jump of no distance */
    KGC_CHILD = 0,
    INSTRUCTIONS = 3,
    UPVALUES_MAX = 200
};

/* The parts of a dump that a factory is made of. */
struct parts {
    int stripped;
    const unsigned char *last;     /* the function itself: its size field */
    const unsigned char *upvalues; /* its upvalue entries */
    const unsigned char *end;      /* behind it */
    unsigned upvalue_count;
};

static int find_upvalues(struct tide_reader in, int stripped, struct parts *out)
{
    const unsigned char *head = tide_read(&in, 4);
    tide_read_varint(&in); /* gc constants */
    tide_read_varint(&in); /* numbers */
    uint64_t instructions = tide_read_varint(&in);
    if (!stripped && tide_read_varint(&in) != 0) {
        tide_read_varint(&in);
        tide_read_varint(&in);
    }
    if (instructions > UINT32_MAX)
        return -1;
    tide_read(&in, instructions * 4);
    if (in.bad || head == NULL || head[3] > UPVALUES_MAX)
        return -1;
    out->upvalue_count = head[3];
    out->upvalues = tide_read(&in, (uint64_t)head[3] * 2);
    return in.bad ? -1 : 0;
}

static int take_apart(const struct tide_bytecode_format *format,
                      const unsigned char *dump, size_t size, struct parts *out)
{
    struct tide_reader in = { .at = dump, .end = dump + size };
    struct tide_reader body = { 0 };
    if (!tide_bytecode_fits(format, dump, size))
        return -1;
    tide_read(&in, sizeof format->header);
    out->stripped = (tide_read_varint(&in) & TIDE_DUMP_STRIPPED) != 0;
    if (!out->stripped)
        tide_read(&in, tide_read_varint(&in));
    for (;;) {
        const unsigned char *at = in.at;
        uint64_t length = tide_read_varint(&in);
        if (in.bad || length == 0)
            break;
        out->last = at;
        body.at = tide_read(&in, length);
        out->end = body.end = in.at;
    }
    if (in.bad || body.at == NULL)
        return -1;
    return find_upvalues(body, out->stripped, out);
}

static int put(struct tide_buffer *out, const void *bytes, size_t size)
{
    unsigned char *at = tide_buffer_reserve(out, size);
    if (at == NULL)
        return -1;
    memcpy(at, bytes, size);
    out->used += size;
    return 0;
}

static int put_factory(const struct tide_bytecode_format *format,
                       const struct parts *parts, struct tide_buffer *out)
{
    const unsigned char n = (unsigned char)parts->upvalue_count;
    const unsigned char frame = (unsigned char)(n + 2);
    const unsigned char head[] = {
        PROTO_CHILD, n, frame, 0, 1, 0, INSTRUCTIONS
    };
    const unsigned char code[] = {
        format->new_op,    n, 0, 0,         /* FNEW n 0 */
        format->close_op,  0, 0, JUMP_BIAS, /* UCLO 0, to the next */
        format->return_op, n, 2, 0,         /* RET1 n 2 */
        KGC_CHILD,         0                /* the end of the dump */
    };
    const unsigned char no_debug = 0;
    unsigned char size =
        (unsigned char)(sizeof head + sizeof code - 1 + !parts->stripped);
    return put(out, &size, 1) || put(out, head, sizeof head) ||
           (!parts->stripped && put(out, &no_debug, 1)) ||
           put(out, code, sizeof code);
}

int tide_factory_compose(const struct tide_bytecode_format *format,
                         const unsigned char *dump, size_t size,
                         struct tide_buffer *out)
{
    struct parts parts = { 0 };
    if (take_apart(format, dump, size, &parts) != 0 ||
        put(out, dump, (size_t)(parts.end - dump)) != 0)
        return -1;
    unsigned char *entry = out->data + out->used - (parts.end - parts.upvalues);
    for (unsigned i = 0; i < parts.upvalue_count; i++, entry += 2) {
        unsigned flags = (unsigned)entry[1] << 8 & UV_IMMUTABLE;
        entry[0] = (unsigned char)i;
        entry[1] = (unsigned char)((flags | UV_LOCAL) >> 8);
    }
    return put_factory(format, &parts, out) ? -1 : 0;
}

/* ---- learning ---- */

/*
 * `local a = ... return function() return a end`: behind what fills `a` stand
 * FNEW, UCLO, RET1 and nothing else.
 */
static int read_opcodes(struct tide_bytecode_format *format, lua_State *L)
{
    static const char text[] = "local a = ... return function() return a end";
    struct tide_dump sample;
    struct parts parts = { 0 };
    if (luaL_loadbuffer(L, text, sizeof text - 1, "=f") != 0 ||
        tide_dump_top(L, &sample) != 0 ||
        take_apart(format, sample.bytes, sample.size, &parts) != 0)
        return -1;
    const unsigned char *code_end = parts.upvalues; /* it has none */
    format->return_op = code_end[-4];
    format->close_op = code_end[-8];
    format->new_op = code_end[-12];
    return code_end[-11] == 1 && code_end[-3] == 1 ? 0 : -1;
}

/* Make two closures of one factory; each must see its own value. */
static int try_factory(const struct tide_bytecode_format *format, lua_State *L)
{
    static const char text[] =
        "local a, b = 1, 2 return function() b = b + a return b end";
    struct tide_dump sample;
    struct tide_buffer out;
    int works = 0;
    tide_buffer_init(&out);
    if (luaL_loadbuffer(L, text, sizeof text - 1, "=f") == 0 &&
        lua_pcall(L, 0, 1, 0) == 0 && tide_dump_top(L, &sample) == 0 &&
        tide_factory_compose(format, sample.bytes, sample.size, &out) == 0 &&
        luaL_loadbufferx(L, (const char *)out.data, out.used, "=f", "b") == 0) {
        double results[2];
        for (int i = 0; i < 2; i++) {
            lua_pushvalue(L, -1);
            lua_pushnumber(L, 10 * (i + 1));
            lua_pushnumber(L, 5);
            if (lua_pcall(L, 2, 1, 0) != 0 || lua_pcall(L, 0, 1, 0) != 0)
                break;
            results[i] = lua_tonumber(L, -1);
            lua_pop(L, 1);
            works = i == 1 && results[0] == 15 && results[1] == 25;
        }
    }
    tide_buffer_free(&out);
    return works ? 0 : -1;
}

int tide_factory_learn(struct tide_bytecode_format *format, lua_State *L)
{
    int top = lua_gettop(L);
    int failed = read_opcodes(format, L) || try_factory(format, L);
    lua_settop(L, top);
    return failed ? -1 : 0;
}
