/*
 * The decoder on arbitrary bytes, for libFuzzer. After each input:
 *
 *   - there is a result, the stack as codec.h says, or TIDE_EINVAL with a reason
 *     and the stack unchanged; nothing is raised but for memory;
 *   - what was allocated on the way is in proportion to the input;
 *   - a result that can be encoded again can be decoded again.
 *
 * Loading bytecode is running code, and the digest in a message is no signature:
 * the fuzzer finds one that fits. So the linker puts the loader below in the place
 * of LuaJIT's (--wrap), and it loads what the samples have made it load before,
 * nothing else. For hooks, which a message may well choose, there are only
 * libraries that do no harm. LuaJIT's allocator is replaced likewise, by one that
 * the sanitizer watches and that has an end.
 */
#include "lua/codec.h"
#include "lua/names.h"
#include "lua/state.h"
#include "share/commons.h"

#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MEMORY_MAX = 64 << 20,    /* of a state, in bytes */
    KEPT_MAX = 4 << 20,       /* by a state between inputs */
    BYTES_PER_BYTE = 512,     /* allocated, for each of the input */
    BYTES_ANYWAY = 256 << 10, /* for an input of any size: factories, types */
    INPUTS_PER_COLLECTION = 500,
    INPUTS_PER_STATE = 20000, /* types of cdata stay as long as their state */
    KNOWN_MAX = 256
};

static struct {
    size_t used;
    size_t grown; /* since the input began */
} memory;

static struct {
    int learning; /* what is loaded now may be loaded ever after */
    int count;
    struct tide_buffer dumps[KNOWN_MAX];
} known;

static struct {
    lua_State *L;
    struct tide_codec *codec;
    size_t used; /* when it was made */
    unsigned inputs;
} state;

struct input {
    const unsigned char *bytes;
    size_t size;
};

__attribute__((noreturn, format(printf, 1, 2))) static void
die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("decode_fuzz: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort(); /* libFuzzer saves the input */
}

/* ---- in the place of LuaJIT's ---- */

lua_State *__wrap_luaL_newstate(void);
int __wrap_luaL_loadbufferx(lua_State *L, const char *text, size_t size,
                            const char *name, const char *mode);
int __real_luaL_loadbufferx(lua_State *L, const char *text, size_t size,
                            const char *name, const char *mode);

static void *allocate(void *unused, void *block, size_t old, size_t size)
{
    (void)unused;
    if (size == 0) {
        memory.used -= old;
        free(block);
        return NULL;
    }
    if (size > old) {
        if (size - old > MEMORY_MAX - memory.used)
            return NULL;
        memory.grown += size - old;
    }
    void *moved = realloc(block, size);
    if (moved != NULL)
        memory.used += size - old;
    return moved;
}

lua_State *__wrap_luaL_newstate(void)
{
    return lua_newstate(allocate, NULL);
}

static int is_known(const char *text, size_t size)
{
    for (int i = 0; i < known.count; i++)
        if (known.dumps[i].used == size &&
            memcmp(known.dumps[i].data, text, size) == 0)
            return 1;
    return 0;
}

static void learn(const char *text, size_t size)
{
    if (is_known(text, size))
        return;
    if (known.count == KNOWN_MAX)
        die("the samples have too many functions");
    struct tide_buffer *dump = &known.dumps[known.count++];
    tide_buffer_init(dump);
    memcpy(tide_buffer_reserve(dump, size), text, size);
    dump->used = size;
}

int __wrap_luaL_loadbufferx(lua_State *L, const char *text, size_t size,
                            const char *name, const char *mode)
{
    if (known.learning)
        learn(text, size);
    if (is_known(text, size))
        return __real_luaL_loadbufferx(L, text, size, name, mode);
    lua_pushliteral(L, "bytecode that no sample has");
    return LUA_ERRSYNTAX;
}

/* ---- the state ---- */

/* There and back, twice: a function loaded and dumped may be other bytecode. */
static void learn_sample(int first, int count)
{
    lua_State *L = state.L;
    struct tide_error err;
    struct tide_buffer bytes;
    tide_buffer_init(&bytes);
    for (int i = 0; i < 2; i++, first = lua_gettop(L) - count + 1) {
        bytes.used = 0;
        if (tide_encode(state.codec, L, &bytes, first, count, TIDE_HEAD_MULTI,
                        &err) != TIDE_OK)
            die("cannot encode a sample: %s", err.text);
        const unsigned char *at = bytes.data;
        if (tide_decode(state.codec, L, &at, at + bytes.used, &count, NULL,
                        &err) != TIDE_OK)
            die("cannot decode a sample: %s", err.text);
    }
    tide_buffer_free(&bytes);
}

static int register_class(lua_State *L)
{
    tide_names_register(&state.codec->names, L, 1, 2);
    return 0;
}

/* samples.lua, a chunk with the same name as in make_corpus.lua. */
static void load_samples(lua_State *L)
{
    static char text[1 << 16];
    FILE *file = fopen(FUZZ_SAMPLES, "rb");
    size_t size = file != NULL ? fread(text, 1, sizeof text, file) : 0;
    if (size == 0 || size == sizeof text)
        die("cannot read %s", FUZZ_SAMPLES);
    fclose(file);
    if (luaL_loadbuffer(L, text, size, "@samples.lua") != 0)
        die("%s", lua_tostring(L, -1));
    lua_pushcfunction(L, register_class);
    lua_call(L, 1, 1);
}

static void learn_samples(lua_State *L)
{
    load_samples(L);
    int samples = lua_gettop(L);
    for (int i = 1; i <= (int)lua_objlen(L, samples); i++) {
        lua_rawgeti(L, samples, i);
        lua_getfield(L, -1, "n");
        int count = (int)lua_tonumber(L, -1);
        lua_pop(L, 1);
        for (int k = 1; k <= count; k++)
            lua_rawgeti(L, samples + 1, k);
        learn_sample(samples + 2, count);
        lua_settop(L, samples);
    }
}

/*
 * Objects that a message may name, rightly or not. They are there as long as the
 * process, so that handles in the corpus stay what they are; make_corpus.lua makes
 * the same ones, in this order.
 */
static const char share[] =
    "local core, value, array = ...\n"
    "if (select(2, core.commons()) or 0) == 0 then\n"
    "  for _, made in ipairs { array.new('double', 16), array.matrix('int', 4, "
    "5),\n"
    "    value.new 'int64_t' } do core.hold(made.place, made.generation) end\n"
    "end\n";

static void share_objects(lua_State *L)
{
    if (luaL_loadbuffer(L, share, sizeof share - 1, "=share") != 0)
        die("%s", lua_tostring(L, -1));
    tide_state_require(L, "tidemill.core");
    tide_state_require(L, "tidemill.shared.value");
    tide_state_require(L, "tidemill.shared.array");
    lua_call(L, 3, 0);
}

/* The corpus has a message that names each of them: it loads what opens them. */
static void open_shared(lua_State *L)
{
    static unsigned char bytes[1 << 12];
    struct tide_error err;
    int count;
    FILE *file = fopen(FUZZ_SHARED, "rb");
    size_t size = file != NULL ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (file != NULL)
        fclose(file);
    const unsigned char *at = bytes;
    if (tide_decode(state.codec, L, &at, at + size, &count, NULL, &err) !=
        TIDE_OK)
        die("cannot decode %s: %s", FUZZ_SHARED, err.text);
    lua_settop(L, 0);
}

/* Set the fields of the table on top to nil, but those in the list. */
static void keep_only(lua_State *L, const char *const *kept)
{
    int table = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, table) != 0) {
        const char *name = lua_tostring(L, -2);
        int is_kept = 0;
        for (int i = 0; kept[i] != NULL; i++)
            is_kept |= strcmp(kept[i], name) == 0;
        lua_settop(L, table + 1);
        if (!is_kept) {
            lua_pushvalue(L, -1);
            lua_pushnil(L);
            lua_rawset(L, table);
        }
    }
}

/* Leave what any function may call with anything. */
static void tame(lua_State *L)
{
    static const char *const modules[] = { "_G",   "string", "table",
                                           "math", "bit",    NULL };
    static const char *const globals[] = {
        "_G",     "_VERSION", "assert", "bit",   "error",    "getmetatable",
        "ipairs", "math",     "next",   "pairs", "rawequal", "rawget",
        "rawset", "select",   "string", "table", "tonumber", "tostring",
        "type",   "unpack",   "xpcall", NULL
    };
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    keep_only(L, modules);
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    keep_only(L, globals);
}

static int prepare(lua_State *L)
{
    tide_state_require(L, "ffi"); /* as worker.c does */
    tide_state_require(L, "tidemill.columns");
    state.codec = tide_codec_of(L);
    lua_settop(L, 0);
    learn_samples(L);
    share_objects(L);
    open_shared(L);
    tame(L);
    return 0;
}

static int try_input(lua_State *L);

static void renew(void)
{
    if (tide_commons_open(NULL) != TIDE_OK)
        die("nothing can be shared");
    if (state.L != NULL)
        lua_close(state.L);
    if (memory.used != 0)
        die("a state that was closed keeps %zu bytes", memory.used);
    known.learning = 1;
    state.L = tide_state_new();
    if (state.L == NULL || lua_cpcall(state.L, prepare, NULL) != 0)
        die("cannot prepare: %s",
            state.L != NULL ? lua_tostring(state.L, -1) : "no memory");
    known.learning = 0;
    lua_settop(state.L, 0);
    lua_pushcfunction(state.L, try_input);
    lua_gc(state.L, LUA_GCCOLLECT, 0);
    lua_gc(state.L, LUA_GCCOLLECT, 0);
    state.used = memory.used;
}

/* ---- an input ---- */

static void check_refusal(lua_State *L, int top, int status,
                          const struct tide_error *err)
{
    if (status != TIDE_EINVAL || err->status != TIDE_EINVAL ||
        err->text[0] == '\0')
        die("refused with status %d, '%s'", status, err->text);
    if (lua_gettop(L) != top)
        die("refused, and left %d values", lua_gettop(L) - top);
}

/* The values on top, from `first` on, once more. */
static void send_on(lua_State *L, int first, int count, unsigned head)
{
    struct tide_error err = { 0 };
    struct tide_buffer bytes;
    int again = 0, top = lua_gettop(L);
    tide_buffer_init(&bytes);
    int status = tide_encode(state.codec, L, &bytes, first, count,
                             head & (TIDE_HEAD_MULTI | TIDE_HEAD_ERROR), &err);
    if (lua_gettop(L) != top || (status != TIDE_OK && bytes.used != 0))
        die("encoding left something behind");
    const unsigned char *at = bytes.data;
    if (status == TIDE_OK) {
        status = tide_decode(state.codec, L, &at, at + bytes.used, &again, NULL,
                             &err);
        if (status != TIDE_OK && strstr(err.text, "hook") == NULL)
            die("what was encoded is refused: %s", err.text);
        if (status == TIDE_OK &&
            (again != count || at != bytes.data + bytes.used))
            die("what was encoded is %d values, not %d", again, count);
        for (int i = 0; status == TIDE_OK && i < count; i++)
            if (lua_type(L, first + i) != lua_type(L, top + 1 + i))
                die("value %d is of another type", i + 1);
    }
    tide_buffer_free(&bytes);
    tide_handles_drop(&state.codec->sent, 0);
}

static int try_input(lua_State *L)
{
    const struct input *input = lua_touserdata(L, 1);
    const unsigned char *at = input->bytes, *end = at + input->size;
    struct tide_error err = { 0 };
    int count = -1, top = lua_gettop(L);
    unsigned head = 0;
    memory.grown = 0;
    int status = tide_decode(state.codec, L, &at, end, &count, &head, &err);
    if (memory.grown > BYTES_ANYWAY + BYTES_PER_BYTE * input->size)
        die("%zu bytes were allocated for %zu", memory.grown, input->size);
    if (status != TIDE_OK) {
        check_refusal(L, top, status, &err);
        return 0;
    }
    if (lua_gettop(L) != top + count)
        die("%d values, and %d are said", lua_gettop(L) - top, count);
    if (at <= input->bytes || at > end)
        die("the message has no end");
    send_on(L, top + 1, count, head);
    return 0;
}

static void check_kept(void)
{
    lua_gc(state.L, LUA_GCCOLLECT, 0);
    if (memory.used > state.used + KEPT_MAX)
        die("%zu bytes are kept, %zu at first", memory.used, state.used);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size)
{
    struct input input = { bytes, size };
    if (state.inputs % INPUTS_PER_STATE == 0)
        renew();
    if (++state.inputs % INPUTS_PER_COLLECTION == 0)
        check_kept();
    lua_State *L = state.L;
    lua_pushvalue(L, 1);
    lua_pushlightuserdata(L, &input);
    int status = lua_pcall(L, 1, 0, 0);
    if (status != 0 && status != LUA_ERRMEM)
        die("raised: %s", lua_tostring(L, -1));
    if (status == LUA_ERRMEM && input.size < MEMORY_MAX / BYTES_PER_BYTE / 4)
        die("no memory is left");
    lua_settop(L, 1);
    return 0;
}
