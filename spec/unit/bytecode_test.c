/*
 * The bytecode reader: it finds the globals that functions use, and survives every
 * damage. Dumps are read from buffers of their exact size, so that a sanitizer or
 * valgrind sees a read past the end.
 */
#include "check.h"
#include "lua/bytecode.h"

#include <lauxlib.h>
#include <lualib.h>

enum { NAMES_MAX = 1000, NAME_BYTES = 64 };

static lua_State *L;
static struct tide_bytecode_format format;

struct dump {
    unsigned char *bytes;
    size_t size;
};

struct use {
    char name[NAME_BYTES];
    size_t length;
    int reads;
    int writes;
};

struct uses {
    const struct dump *dump; /* names have to lie in it */
    struct use list[NAMES_MAX];
    size_t count;
};

static struct uses uses;

/* ---- dumps ---- */

static void open_state(void)
{
    L = luaL_newstate();
    CHECK(L != NULL);
    luaL_openlibs(L);
    CHECK(tide_bytecode_learn(&format, L) == 0);
    CHECK(lua_gettop(L) == 0);
}

static struct dump dump_source(const char *source, size_t length, int strip)
{
    lua_getglobal(L, "string");
    lua_getfield(L, -1, "dump");
    if (luaL_loadbuffer(L, source, length, "=source") != 0)
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    CHECK(lua_isfunction(L, -1));
    lua_pushboolean(L, strip);
    lua_call(L, 2, 1);
    struct dump dump;
    const char *bytes = lua_tolstring(L, -1, &dump.size);
    dump.bytes = malloc(dump.size);
    CHECK(bytes != NULL && dump.bytes != NULL);
    memcpy(dump.bytes, bytes, dump.size);
    lua_settop(L, 0);
    return dump;
}

static void note_use(void *context, const char *name, size_t length,
                     int written)
{
    struct uses *into = context;
    const char *begin = (const char *)into->dump->bytes;
    const char *end = begin + into->dump->size;
    CHECK(name >= begin && name <= end && length <= (size_t)(end - name));
    CHECK(written == 0 || written == 1);
    size_t at = 0;
    while (at < into->count && (into->list[at].length != length ||
                                memcmp(into->list[at].name, name, length) != 0))
        at++;
    if (length > NAME_BYTES || at == NAMES_MAX)
        return; /* of a damaged dump */
    if (at == into->count) {
        into->count++;
        into->list[at] = (struct use){ .length = length };
        memcpy(into->list[at].name, name, length);
    }
    into->list[at].reads += !written;
    into->list[at].writes += written;
}

static int find_uses(const struct dump *dump)
{
    uses.dump = dump;
    uses.count = 0;
    return tide_bytecode_globals(&format, dump->bytes, dump->size, note_use,
                                 &uses);
}

static const struct use *use_of(const char *name)
{
    for (size_t i = 0; i < uses.count; i++)
        if (uses.list[i].length == strlen(name) &&
            memcmp(uses.list[i].name, name, strlen(name)) == 0)
            return &uses.list[i];
    return NULL;
}

/* `reads` and `writes` are words: exactly these globals are used. */
static void check_words(const char *words, int written, size_t *known)
{
    char text[512];
    snprintf(text, sizeof text, "%s", words);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        const struct use *use = use_of(word);
        if (use == NULL)
            fprintf(stderr, "not found: %s\n", word);
        CHECK(use != NULL && (written ? use->writes : use->reads) > 0);
        ++*known;
    }
}

/* ---- what a source uses ---- */

struct sample {
    const char *source;
    const char *reads;
    const char *writes;
};

static const struct sample samples[] = {
    { "", "", "" },
    { "return 1", "", "" },
    { "a = b", "b", "a" },
    { "local a = 1; return a", "", "" },
    { "return x.y.z, w:v()", "x w", "" },
    { "f(g(h))", "f g h", "" },
    { "function one() return two end", "two", "one" },
    /* nested, to any depth, and recursive */
    { "return function() return function() return deep, function() q = r end "
      "end end",
      "deep r", "q" },
    { "local function f(n) return n < 2 and n or f(n - 1) + base end return f",
      "base", "" },
    { "local t = {} function t.m(self, ...) return select('#', ...) end "
      "return t",
      "select", "" },
    { "local up = seed return function() up = up + step return up end",
      "seed step", "" },
    /* constants of each kind, before and after a global */
    { "local a = before; local c = { 1LL, 2ULL, -3LL, 4i, 1.5, 1e300, -0.0, "
      "'text', true, false, nil, 70000, -5, 0x7fffffff } return a, c, after",
      "before after", "" },
    { "return 123456789012345678LL + x, 0xffffffffffffffffULL, 2.5i", "x", "" },
    { "local t = { 1, 2.5, 'three', true, false, nil, { 'inner' }, k = 'v', "
      "[10] = 1e9, [2.5] = 'half', [true] = 'yes', ['long key'] = -1 } "
      "return t, outer",
      "outer", "" },
    { "return { a = 1, b = 2, c = 3, [1] = 1, [2] = 2, [3] = 3 }, "
      "{ 1, 2, 3, n = nil }, last",
      "last", "" },
    { "return '', 'x', ('a'):rep(3), [[\n\n]], '\\0\\255\\n', g", "g", "" },
    { "for i = 1, n do s = s + i end for k, v in pairs(t) do u(k, v) end",
      "n s pairs t u", "s" },
    { "while go do if stop then break end goto on ::on:: end", "go stop", "" },
    { "\xc3\xa9t\xc3\xa9 = \xff\x80\xfe", "\xff\x80\xfe", "\xc3\xa9t\xc3\xa9" },
    { "return _G, _ENV, self, arg, ...", "_G _ENV self arg", "" },
};

enum { SAMPLES = sizeof samples / sizeof samples[0] };

static void check_sample(const struct sample *sample, int strip)
{
    struct dump dump =
        dump_source(sample->source, strlen(sample->source), strip);
    size_t known = 0;
    size_t found = 0;
    CHECK(tide_bytecode_fits(&format, dump.bytes, dump.size));
    CHECK(find_uses(&dump) == 0);
    check_words(sample->reads, 0, &known);
    check_words(sample->writes, 1, &known);
    for (size_t i = 0; i < uses.count; i++)
        found += (size_t)(uses.list[i].reads > 0) + (uses.list[i].writes > 0);
    CHECK(found == known);
    free(dump.bytes);
}

static void test_samples(void)
{
    check_begin("samples");
    for (int i = 0; i < SAMPLES; i++)
        for (int strip = 0; strip < 2; strip++)
            check_sample(&samples[i], strip);
}

/* A source of many lines, globals and constants, made of `count` pieces. */
static char *long_source(unsigned count)
{
    char *source = malloc(count * 64 + 64);
    CHECK(source != NULL);
    size_t used = 0;
    for (unsigned i = 0; i < count; i++)
        used += (size_t)sprintf(source + used,
                                "w%u = r%u + %u.5\n\n\ns = 'string %u'\n", i, i,
                                i, i);
    return source;
}

static void test_many(void)
{
    enum { COUNT = 450 };
    check_begin("many");
    char *source = long_source(COUNT);
    for (int strip = 0; strip < 2; strip++) {
        struct dump dump = dump_source(source, strlen(source), strip);
        CHECK(find_uses(&dump) == 0);
        CHECK(uses.count == 2 * COUNT + 1);
        for (unsigned i = 0; i < COUNT; i++) {
            char name[16];
            snprintf(name, sizeof name, "w%u", i);
            CHECK(use_of(name)->writes == 1 && use_of(name)->reads == 0);
            name[0] = 'r';
            CHECK(use_of(name)->writes == 0 && use_of(name)->reads == 1);
        }
        CHECK(use_of("s")->writes == COUNT);
        free(dump.bytes);
    }
    free(source);
}

static void test_learn(void)
{
    struct tide_bytecode_format other;
    check_begin("learn");
    CHECK(format.get_op != format.set_op);
    static const char *const modes[] = { "jit.off()", "jit.on()",
                                         "jit.opt.start(0)",
                                         "collectgarbage()" };
    for (int i = 0; i < 4; i++) {
        CHECK(luaL_dostring(L, modes[i]) == 0);
        memset(&other, 0, sizeof other);
        CHECK(tide_bytecode_learn(&other, L) == 0);
        CHECK(memcmp(&other, &format, sizeof format) == 0);
    }
    CHECK(luaL_dostring(L, "return a, b") == 0);
    CHECK(lua_isnil(L, -1) && lua_isnil(L, -2)); /* nothing was run */
    lua_settop(L, 0);
}

/* ---- damage ---- */

static struct dump copy_of(const struct dump *dump, size_t size)
{
    struct dump copy = { .bytes = malloc(size ? size : 1), .size = size };
    CHECK(copy.bytes != NULL);
    memcpy(copy.bytes, dump->bytes, size);
    return copy;
}

static void truncate_everywhere(const struct dump *dump)
{
    for (size_t size = 0; size < dump->size; size++) {
        struct dump copy = copy_of(dump, size);
        CHECK(find_uses(&copy) == -1);
        free(copy.bytes);
    }
}

static void test_truncation(void)
{
    check_begin("truncation");
    for (int i = 0; i < SAMPLES; i++)
        for (int strip = 0; strip < 2; strip++) {
            struct dump dump = dump_source(samples[i].source,
                                           strlen(samples[i].source), strip);
            truncate_everywhere(&dump);
            free(dump.bytes);
        }
    char *source = long_source(20);
    struct dump dump = dump_source(source, strlen(source), 0);
    truncate_everywhere(&dump);
    free(dump.bytes);
    free(source);
}

static void damage(struct dump *dump)
{
    static const unsigned char extremes[] = { 0, 1, 0x7f, 0x80, 0xfe, 0xff };
    for (uint32_t changes = 1 + check_random(4); changes > 0; changes--) {
        uint32_t at = check_random((uint32_t)dump->size);
        switch (check_random(4)) {
        case 0:
            dump->bytes[at] = (unsigned char)check_random(256);
            break;
        case 1:
            dump->bytes[at] = extremes[check_random(sizeof extremes)];
            break;
        case 2: /* the longest number that fits */
            while (at < dump->size && check_random(12) != 0)
                dump->bytes[at++] |= 0x80;
            break;
        default:
            dump->bytes[at] ^= (unsigned char)(1u << check_random(8));
        }
    }
}

static void test_damage(void)
{
    check_begin("damage");
    for (unsigned i = 0; i < check_rounds; i++) {
        const struct sample *sample = &samples[check_random(SAMPLES)];
        struct dump dump = dump_source(sample->source, strlen(sample->source),
                                       (int)check_random(2));
        for (int j = 0; j < 20; j++) {
            struct dump copy = copy_of(
                &dump, check_random(4) ? dump.size
                                       : 1 + check_random((uint32_t)dump.size));
            damage(&copy);
            int status = find_uses(&copy);
            CHECK(status == 0 || status == -1);
            free(copy.bytes);
        }
        free(dump.bytes);
    }
}

/* Every single bit of a dump with everything in it. */
static void test_each_bit(void)
{
    check_begin("each bit");
    for (int i = 0; i < SAMPLES; i++) {
        struct dump dump =
            dump_source(samples[i].source, strlen(samples[i].source), i % 2);
        for (size_t bit = 0; bit < 8 * dump.size; bit++) {
            dump.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            int status = find_uses(&dump);
            CHECK(status == 0 || status == -1);
            if (bit < 32) /* signature and version */
                CHECK(status == -1);
            dump.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        free(dump.bytes);
    }
}

static void test_noise(void)
{
    check_begin("noise");
    for (unsigned i = 0; i < check_rounds; i++) {
        struct dump dump = { .size = 5 + check_random(200) };
        dump.bytes = malloc(dump.size);
        CHECK(dump.bytes != NULL);
        for (size_t j = 0; j < dump.size; j++)
            dump.bytes[j] =
                (unsigned char)check_random(check_random(2) ? 256 : 10);
        memcpy(dump.bytes, format.header, sizeof format.header);
        dump.bytes[4] = format.flags | TIDE_DUMP_STRIPPED;
        int status = find_uses(&dump);
        CHECK(status == 0 || status == -1);
        free(dump.bytes);
    }
}

static void test_fits(void)
{
    check_begin("fits");
    struct dump dump = dump_source("return 1LL", 10, 1);
    CHECK(tide_bytecode_fits(&format, dump.bytes, dump.size));
    for (size_t size = 0; size <= 4; size++)
        CHECK(!tide_bytecode_fits(&format, dump.bytes, size));
    for (size_t at = 0; at < 4; at++) {
        dump.bytes[at]++;
        CHECK(!tide_bytecode_fits(&format, dump.bytes, dump.size));
        dump.bytes[at]--;
    }
    dump.bytes[4] ^= 0x08; /* the other frame layout */
    CHECK(!tide_bytecode_fits(&format, dump.bytes, dump.size));
    CHECK(find_uses(&dump) == -1);
    free(dump.bytes);
}

/* ---- the digest ---- */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_digest(void)
{
    enum { SIZE = 64 };
    static uint64_t all[SIZE * 8 + SIZE + 1];
    unsigned char bytes[SIZE + 8];
    size_t count = 0;
    check_begin("digest");
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)check_random(256);

    /* Any alignment, the same digest. */
    uint64_t digest = tide_digest(bytes, SIZE);
    for (size_t shift = 1; shift < 8; shift++) {
        unsigned char moved[SIZE + 8];
        memcpy(moved + shift, bytes, SIZE);
        CHECK(tide_digest(moved + shift, SIZE) == digest);
    }
    /* Another bit, another length: another digest. */
    for (size_t bit = 0; bit < 8 * SIZE; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        all[count++] = tide_digest(bytes, SIZE);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    for (size_t size = 0; size <= SIZE; size++)
        all[count++] = tide_digest(bytes, size);
    qsort(all, count, sizeof all[0], compare);
    for (size_t i = 1; i < count; i++)
        CHECK(all[i] != all[i - 1]);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 20000);
    open_state();
    test_learn();
    test_samples();
    test_many();
    test_fits();
    test_truncation();
    test_each_bit();
    test_damage();
    test_noise();
    test_digest();
    lua_close(L);
    return EXIT_SUCCESS;
}
