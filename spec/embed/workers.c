/* What a host gives its workers: C functions by a hook, tasks, fewer libraries. */
#include "embed.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* ---- a hook ---- */

static int weigh(lua_State *L)
{
    const double *weight = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushnumber(L, luaL_checknumber(L, 1) * *weight);
    return 1;
}

static int make_point(lua_State *L)
{
    double *point = lua_newuserdata(L, sizeof *point);
    *point = luaL_checknumber(L, 1);
    luaL_getmetatable(L, "spec.point");
    lua_setmetatable(L, -2);
    return 1;
}

static int read_point(lua_State *L)
{
    const double *point = luaL_checkudata(L, 1, "spec.point");
    lua_pushnumber(L, *point);
    return 1;
}

static void bring(lua_State *L, void *data)
{
    static const luaL_Reg functions[] = { { "point", make_point },
                                          { NULL, NULL } };
    luaL_register(L, "rules", functions); /* a global, and a module */
    lua_pushlightuserdata(L, data);
    lua_pushcclosure(L, weigh, 1);
    lua_setfield(L, -2, "weigh");
    luaL_newmetatable(L, "spec.point");
    lua_newtable(L);
    lua_pushcfunction(L, read_point);
    lua_setfield(L, -2, "read");
    lua_setfield(L, -2, "__index");
    lua_pushnumber(L, 10);
    lua_setglobal(L, "brought");
}

static const char hook_script[] =
    "local weigh = rules.weigh\n" /* an upvalue: travels by its name */
    "assert(brought == 10)\n"
    "function weigh_all(x) return rules.weigh(x) + weigh(x) + brought end\n"
    "function point(x) return rules.point(x):read() end\n"
    "function send_point(x) return rules.point(x) end\n"
    "function nested(x)\n"
    "  return require 'tidemill'.pool(2):map(weigh_all, { x, x })[2] end\n"
    "function restart() os.exit(1) end\n";

static void use_hook(const struct tide_mill_options *options)
{
    struct tide_error err = { 0 };
    tide_args *args = tide_args_number(tide_args_new(), 2);
    tide_mill *mill = open_mill(options);
    load(mill, hook_script);
    tide_call *call = call_and_wait(mill, "weigh_all", args);
    CHECK(number_at(call, "1") == 22);
    tide_call_free(call);
    call = call_and_wait(mill, "point", args);
    CHECK(number_at(call, "1") == 2);
    tide_call_free(call);
    call = call_and_wait(mill, "rules.weigh", args);
    CHECK(number_at(call, "1") == 6);
    tide_call_free(call);
    call = call_and_wait(mill, "rules:weigh", args);
    CHECK(number_at(call, "1") == 6);
    tide_call_free(call);
    /* In workers of workers, and in those that replace one, it runs as well. */
    call = call_and_wait(mill, "nested", args);
    CHECK(number_at(call, "1") == 22);
    tide_call_free(call);
    for (int i = 0; i < 4; i++) {
        CHECK_STATUS(TIDE_EWORKER, try_call(mill, "restart", NULL, &err), err);
        CHECK_OK(try_call(mill, "weigh_all", args, &err), err);
    }
    CHECK_STATUS(TIDE_EENCODE, try_call(mill, "send_point", args, &err), err);
    tide_mill_free(mill);
    tide_args_free(args);
}

static void raise_everywhere(lua_State *L, void *unused)
{
    (void)unused;
    luaL_error(L, "the hook does not like it here");
}

static void raise_in_worker(lua_State *L, void *data)
{
    if (getpid() != *(const pid_t *)data)
        luaL_error(L, "no database in process %d", (int)getpid());
}

static void die_in_worker(lua_State *L, void *data)
{
    (void)L;
    if (getpid() != *(const pid_t *)data)
        abort();
}

static void fail_in_hook(void)
{
    pid_t self = getpid();
    struct tide_error err = { 0 };
    tide_mill *mill = NULL;
    struct tide_start_options start = { .size = sizeof start,
                                        .hook = raise_everywhere };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &start };
    CHECK_STATUS(TIDE_EINIT, tide_mill_open(&mill, &options, &err), err);
    CHECK(strstr(err.text, "the hook does not like it here") != NULL);
    start.hook = raise_in_worker;
    start.hook_data = &self;
    CHECK_STATUS(TIDE_EINIT, tide_mill_open(&mill, &options, &err), err);
    CHECK(strstr(err.text, "no database in process ") != NULL);
    start.hook = die_in_worker;
    CHECK_STATUS(TIDE_EBROKEN, tide_mill_open(&mill, &options, &err), err);
    CHECK(strstr(err.text, "workers die before they take an item") != NULL);
    CHECK(mill == NULL);
}

/* ---- a state of one's own ---- */

static void adopt_state(const struct tide_start_options *start)
{
    static const char script[] =
        "local tidemill = require 'tidemill'\n"
        "local weigh = rules.weigh\n"
        "local function f(x) return weigh(x) + rules.weigh(x) + brought end\n"
        "return tidemill.with(2, function(pool)\n"
        "  return pool:map(f, { 1, 2 })[2], pool:apply(\n"
        "    require 'tidemill.tasks'.reverse, { 'abc' }) end)\n";
    struct tide_error err = { 0 };
    tide_starter *starter = NULL;
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    CHECK_OK(tide_start(&starter, start, &err), err);
    lua_pushnumber(L, 1); /* what is on the stack stays */
    CHECK_OK(tide_adopt(L, starter, &err), err);
    CHECK(lua_gettop(L) == 1);
    if (luaL_dostring(L, script) != 0) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        CHECK(0);
    }
    CHECK(lua_tonumber(L, 2) == 22);
    CHECK(strcmp(lua_tostring(L, 3), "cba") == 0);
    lua_close(L);

    const struct tide_start_options raises = { .size = sizeof raises,
                                               .hook = raise_everywhere };
    const struct tide_start_options without = { .size = sizeof without,
                                                .without = TIDE_SANDBOX };
    L = luaL_newstate();
    luaL_openlibs(L);
    CHECK_OK(tide_start(&starter, &raises, &err), err);
    CHECK_STATUS(TIDE_EINIT, tide_adopt(L, starter, &err), err);
    CHECK_OK(tide_start(&starter, &without, &err), err);
    CHECK_STATUS(TIDE_EINVAL, tide_adopt(L, starter, &err), err);
    CHECK(lua_gettop(L) == 0);
    lua_close(L);
}

/* ---- tasks ---- */

static int reverse(tide_output *out, const void *bytes, size_t size, void *data)
{
    (void)data;
    for (const char *at = bytes; size > 0; size--)
        if (tide_output_write(out, at + size - 1, 1) != 0)
            return 1;
    return 0;
}

static int repeat(tide_output *out, const void *bytes, size_t size, void *data)
{
    const int *times = data;
    for (int i = 0; i < *times; i++)
        if (tide_output_write(out, bytes, size) != 0)
            return 1;
    return 0;
}

static int refuse(tide_output *out, const void *bytes, size_t size, void *data)
{
    (void)data;
    tide_output_write(out, "half an answer", size == 0 ? 0 : 14);
    (void)bytes;
    return 5;
}

static int crash(tide_output *out, const void *bytes, size_t size, void *data)
{
    (void)data;
    tide_output_write(out, bytes, size);
    if (size > 0 && *(const char *)bytes == '!')
        raise(SIGSEGV);
    return 0;
}

static void run_task(tide_mill *mill, const char *task, const void *bytes,
                     size_t size, const void *expected, size_t expected_size)
{
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    const char *answer = NULL;
    size_t answer_size = 0;
    CHECK_OK(tide_mill_run(&call, mill, task, bytes, size, NULL, &err), err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(tide_get_string(&answer, &answer_size, call, "1") == TIDE_OK);
    CHECK(answer_size == expected_size);
    CHECK(memcmp(answer, expected, expected_size) == 0);
    tide_call_free(call);
}

static void answer_of_every_size(tide_mill *mill)
{
    enum { MOST = 3 << 20 };
    char *bytes = malloc(MOST), *backwards = malloc(MOST);
    static const size_t sizes[] = {
        0, 1, 63, 64, 100, 500, 5000, 1u << 17, MOST
    };
    CHECK(bytes != NULL && backwards != NULL);
    for (size_t i = 0; i < MOST; i++)
        bytes[i] = (char)(i * 7 + i / 251);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t i = 0; i < sizes[s]; i++)
            backwards[i] = bytes[sizes[s] - 1 - i];
        run_task(mill, "reverse", bytes, sizes[s], backwards, sizes[s]);
    }
    free(bytes);
    free(backwards);
}

static void map_tasks(tide_mill *mill)
{
    enum { COUNT = 1000 };
    struct tide_error err = { 0 };
    struct tide_call_options options = { .size = sizeof options, .collect = 1 };
    char text[32];
    tide_call *call = NULL;
    tide_args *items = tide_args_new();
    for (int i = 0; i < COUNT; i++) {
        int size = snprintf(text, sizeof text, "%d", i);
        if (i == 100 || i == 700)
            tide_args_text(items, "!");
        else
            tide_args_string(items, text, (size_t)size);
    }
    CHECK_OK(tide_mill_map(&call, mill, "tidemill.tasks:crash", items, &options,
                           &err),
             err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(tide_get_length(call, "") == COUNT);
    for (int i = 0; i < COUNT; i++) {
        char path[32];
        snprintf(path, sizeof path, "%d", i + 1);
        snprintf(text, sizeof text, "%d", i);
        if (i != 100 && i != 700)
            CHECK(strcmp(text_at(call, path), text) == 0);
    }
    CHECK(strcmp(text_at(call, "101.kind"), "worker") == 0);
    CHECK(number_at(call, "701.signal") == SIGSEGV);
    tide_call_free(call);

    /* Numbers become strings as in any function of a library; a table is none. */
    tide_args_end(tide_args_begin(
        tide_args_text(tide_args_number(tide_args_clear(items), 123), "ab")));
    CHECK_OK(tide_mill_map(&call, mill, "tidemill.tasks:reverse", items,
                           &options, &err),
             err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(strcmp(text_at(call, "1"), "321") == 0);
    CHECK(strcmp(text_at(call, "2"), "ba") == 0);
    CHECK(strcmp(text_at(call, "3.kind"), "task") == 0);
    tide_call_free(call);
    tide_args_free(items);
}

static void fail_in_tasks(tide_mill *mill)
{
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    CHECK_OK(tide_mill_run(&call, mill, "refuse", "x", 1, NULL, &err), err);
    CHECK_STATUS(TIDE_ETASK, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(strcmp(err.text, "half an answer") == 0);
    tide_call_free(call);
    CHECK_OK(tide_mill_run(&call, mill, "refuse", NULL, 0, NULL, &err), err);
    CHECK_STATUS(TIDE_ETASK, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(strcmp(err.text, "task 'refuse' failed: 5") == 0);
    tide_call_free(call);
    CHECK_OK(tide_mill_run(&call, mill, "crash", "!", 1, NULL, &err), err);
    CHECK_STATUS(TIDE_EWORKER, tide_call_wait(call, PATIENCE_S, &err), err);
    tide_call_free(call);
    CHECK_STATUS(TIDE_EINVAL,
                 tide_mill_run(&call, mill, "absent", "", 0, NULL, &err), err);
    CHECK(strstr(err.text, "absent") != NULL);
}

static void run_tasks(const struct tide_mill_options *options)
{
    tide_mill *mill = open_mill(options);
    load(mill, "local tasks = require 'tidemill.tasks'\n"
               "function both(text)\n"
               "  local ok, why = pcall(tasks.refuse, text)\n"
               "  return tasks.reverse(text) .. why end\n");
    answer_of_every_size(mill);
    run_task(mill, "repeat", "abc", 3, "abcabcabc", 9);
    map_tasks(mill);
    fail_in_tasks(mill);
    tide_args *args = tide_args_text(tide_args_new(), "tide");
    tide_call *call = call_and_wait(mill, "both", args);
    CHECK(strcmp(text_at(call, "1"), "edithalf an answer") == 0);
    tide_call_free(call);
    tide_args_free(args);
    tide_mill_free(mill);
}

/* ---- fewer libraries ---- */

static const char look[] =
    "function look()\n"
    "  local found = {}\n"
    "  for _, name in ipairs { 'io', 'os', 'jit', 'debug', 'package',\n"
    "      'require', 'module', 'loadfile', 'dofile', 'getfenv', 'setfenv',\n"
    "      'math', 'string', 'table', 'bit', 'coroutine', 'pcall' } do\n"
    "    if _G[name] ~= nil then found[#found + 1] = name end\n"
    "  end\n"
    "  if require and pcall(require, 'ffi') then found[#found + 1] = 'ffi' "
    "end\n"
    "  if os.exit or os.execute or os.getenv then found.os = true end\n"
    "  local ok = load(string.dump(function() end))\n"
    "  ok = ok ~= nil\n"
    "  if ok then found[#found + 1] = 'bytecode' end\n"
    "  if require then\n"
    "    local tidemill = require 'tidemill'\n"
    "    local decodes = pcall(tidemill.decode, tidemill.encode(1))\n"
    "    if decodes ~= ok then error 'decode' end\n"
    "  end\n"
    "  local more = load('return ...', 'x')(1) + loadstring('return 1')()\n"
    "  assert(more == 2 and os.time() > 0)\n"
    "  return table.concat(found, ' '), found.os or false\n"
    "end\n"
    "here = look()\n"
    "function there() return here end\n";

static void look_around(unsigned without, const char *expected, int whole_os)
{
    const struct tide_start_options start = { .size = sizeof start,
                                              .without = without };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &start,
                                               .processes = 2 };
    int os = 0;
    tide_mill *mill = open_mill(&options);
    load(mill, look);
    tide_call *call = call_and_wait(mill, "look", NULL);
    check_text(text_at(call, "1"), expected);
    CHECK(tide_get_bool(&os, call, "2") == TIDE_OK && os == whole_os);
    tide_call_free(call);
    call = call_and_wait(mill, "there", NULL);
    check_text(text_at(call, "1"), expected);
    tide_call_free(call);

    /* What Tidemill itself needs of them, it has. */
    double numbers[3] = { 1, 2, 3 };
    size_t count = 3;
    struct tide_error err = { 0 };
    tide_args *items = tide_args_each(tide_args_new(), numbers, count);
    CHECK_OK(tide_mill_map(&call, mill, "x -> x + 1", items, NULL, &err), err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(tide_get_numbers(numbers, &count, call, "") == TIDE_OK);
    CHECK(numbers[2] == 4);
    tide_call_free(call);
    int64_t integer = 0;
    tide_args_integer(tide_args_clear(items), INT64_MAX);
    call = call_and_wait(mill, "x -> x", items);
    CHECK(tide_get_integer(&integer, call, "1") == TIDE_OK);
    CHECK(integer == INT64_MAX);
    tide_call_free(call);
    CHECK_STATUS(TIDE_ETASK, try_call(mill, "() -> error('x')", NULL, &err),
                 err);
    tide_args_free(items);
    tide_mill_free(mill);
}

int main(void)
{
    watch_time();
    int fds = count_fds();
    double weight = 3;
    int times = 3;
    const struct tide_task tasks[] = { { "reverse", reverse, NULL },
                                       { "repeat", repeat, &times },
                                       { "refuse", refuse, NULL },
                                       { "crash", crash, NULL } };
    const struct tide_start_options start = {
        .size = sizeof start,
        .hook = bring,
        .hook_data = &weight,
        .tasks = tasks,
        .task_count = sizeof tasks / sizeof tasks[0],
    };
    struct tide_mill_options options = { .size = sizeof options,
                                         .start = &start,
                                         .processes = 2 };
    use_hook(&options);
    run_tasks(&options);
    check_nothing_left(fds);

    /* Started early, used later; or not at all. */
    struct tide_error err = { 0 };
    CHECK_OK(tide_start(&options.starter, &start, &err), err);
    options.start = NULL;
    use_hook(&options);
    tide_starter *unused = NULL;
    CHECK_OK(tide_start(&unused, NULL, &err), err);
    tide_stop(unused);
    tide_stop(NULL);
    fail_in_hook();
    adopt_state(&start);
    check_nothing_left(fds);

    look_around(0,
                "io os jit debug package require module loadfile dofile "
                "getfenv setfenv math string table bit coroutine pcall ffi "
                "bytecode",
                1);
    look_around(TIDE_SANDBOX, "os math string table bit coroutine pcall", 0);
    look_around(TIDE_WITHOUT_FFI | TIDE_WITHOUT_IO,
                "os jit debug package require module getfenv setfenv math "
                "string table bit coroutine pcall",
                1);
    check_nothing_left(fds);
    return EXIT_SUCCESS;
}
