/*
 * A dump is a header and then prototypes, inner ones before the outer:
 *
 *   1B 'L' 'J' version flags [length name]          name only if not stripped
 *   (size prototype)* 0
 *
 *   prototype: flags params framesize upvalues : bytes
 *              gc constants, numbers, instructions : uleb128
 *              [debug size, [first line, lines]]     only if not stripped
 *              instructions (4 bytes each), upvalues (2 bytes each),
 *              gc constants, numbers, debug info
 *
 * An instruction is op, A, then D in 16 bits. GGET and GSET name the global by a
 * gc constant: D counts from the end of the list as it is written.
 *
 * Source: the comments and readers of LuaJIT's lj_bcdump.h and lj_bcread.c.
 */
#include "lua/bytecode.h"

#include "base/fault.h"
#include "lua/reader.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { FLAG_FFI = 0x04, INSTRUCTION_BYTES = 4 };

enum constant_kind {
    KGC_CHILD,
    KGC_TABLE,
    KGC_INT64,
    KGC_UINT64,
    KGC_COMPLEX,
    KGC_STRING
};
enum table_kind { KTAB_INT = 3, KTAB_NUMBER = 4, KTAB_STRING = 5 };

struct text {
    const char *bytes; /* NULL: not a string */
    size_t length;
};

/* Constants and counts are 32 bits wide. */
static uint32_t take_uleb(struct tide_reader *in)
{
    return (uint32_t)tide_read_varint(in);
}

static void skip_table_value(struct tide_reader *in)
{
    uint32_t kind = take_uleb(in);
    if (kind >= KTAB_STRING) {
        tide_read(in, kind - KTAB_STRING);
    } else if (kind == KTAB_NUMBER) {
        take_uleb(in);
        take_uleb(in);
    } else if (kind == KTAB_INT) {
        take_uleb(in);
    }
}

static void skip_table(struct tide_reader *in)
{
    uint32_t array = take_uleb(in);
    uint32_t pairs = take_uleb(in);
    for (uint32_t i = 0; i < array && !in->bad; i++)
        skip_table_value(in);
    for (uint32_t i = 0; i < pairs && !in->bad; i++) {
        skip_table_value(in);
        skip_table_value(in);
    }
}

static struct text take_constant(struct tide_reader *in)
{
    struct text text = { 0 };
    uint32_t kind = take_uleb(in);
    if (kind >= KGC_STRING) {
        text.length = kind - KGC_STRING;
        text.bytes = (const char *)tide_read(in, text.length);
    } else if (kind == KGC_TABLE) {
        skip_table(in);
    } else if (kind != KGC_CHILD) {
        for (int words = kind == KGC_COMPLEX ? 4 : 2; words > 0; words--)
            take_uleb(in);
    }
    return text;
}

static void visit_instructions(const struct tide_bytecode_format *format,
                               const unsigned char *code, size_t count,
                               const struct text *constants,
                               uint32_t constant_count, tide_global_fn visit,
                               void *context)
{
    for (size_t i = 0; i < count; i++, code += INSTRUCTION_BYTES) {
        int written = code[0] == format->set_op;
        uint32_t index = (uint32_t)code[2] | (uint32_t)code[3] << 8;
        if ((!written && code[0] != format->get_op) || index >= constant_count)
            continue;
        const struct text *name = &constants[constant_count - 1 - index];
        if (name->bytes != NULL)
            visit(context, name->bytes, name->length, written);
    }
}

static void visit_prototype(const struct tide_bytecode_format *format,
                            struct tide_reader *in, int stripped,
                            tide_global_fn visit, void *context)
{
    const unsigned char *head = tide_read(in, 4);
    uint32_t constant_count = take_uleb(in);
    take_uleb(in); /* numbers: behind what is of interest */
    uint32_t instruction_count = take_uleb(in);
    if (!stripped && take_uleb(in) != 0) {
        take_uleb(in);
        take_uleb(in);
    }
    const unsigned char *code =
        tide_read(in, (size_t)instruction_count * INSTRUCTION_BYTES);
    if (in->bad || tide_read(in, (size_t)head[3] * 2) == NULL ||
        constant_count > (size_t)(in->end - in->at)) {
        in->bad = 1;
        return;
    }
    struct text *constants =
        TIDE_FAULT(CODEC_MALLOC)
            ? NULL
            : calloc(constant_count + 1, sizeof *constants);
    if (constants == NULL) {
        in->bad = 1;
        return;
    }
    for (uint32_t i = 0; i < constant_count && !in->bad; i++)
        constants[i] = take_constant(in);
    if (!in->bad)
        visit_instructions(format, code, instruction_count, constants,
                           constant_count, visit, context);
    free(constants);
}

int tide_bytecode_fits(const struct tide_bytecode_format *format,
                       const unsigned char *dump, size_t size)
{
    const unsigned char must_agree =
        (unsigned char)~(TIDE_DUMP_STRIPPED | FLAG_FFI);
    return size > sizeof format->header &&
           memcmp(dump, format->header, sizeof format->header) == 0 &&
           (dump[sizeof format->header] & must_agree) == format->flags;
}

int tide_bytecode_globals(const struct tide_bytecode_format *format,
                          const unsigned char *dump, size_t size,
                          tide_global_fn visit, void *context)
{
    struct tide_reader in = { .at = dump, .end = dump + size };
    if (!tide_bytecode_fits(format, dump, size))
        return -1;
    tide_read(&in, sizeof format->header);
    int stripped = (take_uleb(&in) & TIDE_DUMP_STRIPPED) != 0;
    if (!stripped)
        tide_read(&in, take_uleb(&in));
    for (;;) {
        uint32_t length = take_uleb(&in);
        if (in.bad)
            return -1;
        if (length == 0)
            return 0;
        const unsigned char *bytes = tide_read(&in, length);
        if (bytes == NULL)
            return -1;
        struct tide_reader inner = { .at = bytes, .end = bytes + length };
        visit_prototype(format, &inner, stripped, visit, context);
        if (inner.bad)
            return -1;
    }
}

/* ---- learning the format ---- */

static int collect(lua_State *L, const void *part, size_t size, void *context)
{
    struct tide_dump *dump = context;
    (void)L;
    if (size > sizeof dump->bytes - dump->size)
        return 1;
    memcpy(dump->bytes + dump->size, part, size);
    dump->size += size;
    return 0;
}

int tide_dump_top(lua_State *L, struct tide_dump *out)
{
    out->size = 0;
    int failed = lua_dump(L, collect, out);
    lua_pop(L, 1);
    return failed ? -1 : 0;
}

struct hit {
    int reads;
    int writes;
};

static void count_hit(void *context, const char *name, size_t length,
                      int written)
{
    struct hit *hit = context;
    if (length == 1 && name[0] == (written ? 'b' : 'a')) {
        hit->reads += !written;
        hit->writes += written;
    }
}

/* Dump `b = a`: its instructions are GGET, GSET, RET0. */
int tide_bytecode_learn(struct tide_bytecode_format *out, lua_State *L)
{
    struct tide_dump sample = { .size = 0 };
    luaL_loadbuffer(L, "b = a", 5, "=b");
    int failed = tide_dump_top(L, &sample);
    static const unsigned char known[] = { 0x1b, 'L', 'J', 2 };
    if (failed || sample.size < 24 ||
        memcmp(sample.bytes, known, sizeof known) != 0)
        return -1;
    memcpy(out->header, known, sizeof known);
    out->flags =
        (unsigned char)(sample.bytes[4] & ~(TIDE_DUMP_STRIPPED | FLAG_FFI));

    /* name "=b" (3 bytes), prototype size, 4 + 3 + 3 bytes before the code */
    const unsigned char *code = sample.bytes + 5 + 3 + 1 + 10;
    for (size_t skip = 0; skip < 2; skip++, code++) {
        struct hit hit = { 0 };
        out->get_op = code[0];
        out->set_op = code[INSTRUCTION_BYTES];
        if (tide_bytecode_globals(out, sample.bytes, sample.size, count_hit,
                                  &hit) == 0 &&
            hit.reads == 1 && hit.writes == 1)
            return 0;
    }
    return -1;
}

/* FNV-1a, eight bytes a step; source: the FNV reference by Fowler, Noll, Vo. */
uint64_t tide_digest(const unsigned char *bytes, size_t size)
{
    const uint64_t prime = UINT64_C(0x100000001b3);
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ size;
    for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        hash = (hash ^ word) * prime;
        hash ^= hash >> 32; /* the product carries upwards only */
        bytes += sizeof word;
    }
    for (; size > 0; size--)
        hash = (hash ^ *bytes++) * prime;
    return hash ^ hash >> 29;
}
