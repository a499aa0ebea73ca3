/*
 * The `tidemill` command: a client of the library. It alone prints, exits and
 * installs a signal handler (ending.c).
 */
#include <getopt.h>
#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/ending.h"
#include "lua/errors.h"
#include "lua/state.h"
#include "lua/worker.h"
#include "tidemill.h"

enum { EXIT_USAGE = 2 };

enum { OPTION_PROGRESS = 256 }; /* beside the letters */

static const char usage_line[] =
    "usage: tidemill [-j N] [-e CODE] [-l MODULE] [--progress] [-v] [-h] "
    "[SCRIPT | -] [ARGS]\n";

static const char help_text[] =
    "Run a Lua script whose work is spread over a pool of processes.\n"
    "\n"
    "  SCRIPT     the script, run by LuaJIT with ARGS in `arg` and `...`;\n"
    "             - reads it from standard input\n"
    "  -j N       workers of a pool that does not say how many\n"
    "             (default: usable processors; also TIDEMILL_PROCESSES)\n"
    "  -e CODE    run CODE first; may be repeated\n"
    "  -l MODULE  require MODULE into the global of its name first\n"
    "  --progress show the progress of every call that may take a while\n"
    "             (also TIDEMILL_PROGRESS=1; 0 shows none)\n"
    "  -v         print the version\n"
    "  -h         print this help\n"
    "\n"
    "Exit status: 0; 1 if the script raised, with its traceback; 2 for wrong\n"
    "usage; 130 after Ctrl-C; what os.exit() says.\n";

/* ---- running Lua ---- */

/* Push where the error at 1 was raised, also if it has been raised again since. */
static void push_traceback(lua_State *L)
{
    int top = lua_gettop(L);
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_TRACE);
    if (lua_istable(L, -1)) {
        lua_rawgeti(L, top + 1, 1);
        lua_rawgeti(L, top + 1, 2);
        if (lua_rawequal(L, top + 2, 1) && lua_isstring(L, top + 3)) {
            lua_replace(L, top + 1);
            lua_settop(L, top + 1);
            return;
        }
    }
    lua_settop(L, top);
    luaL_traceback(L, L, NULL, 1);
}

/* Is the error at 1 of an item whose worker was killed because it wrote? */
static int is_by_pipe(lua_State *L)
{
    int signal_number = 0;
    if (lua_istable(L, 1)) {
        lua_pushliteral(L, "signal");
        lua_rawget(L, 1);
        signal_number = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    return signal_number == SIGPIPE && tide_ending_is_unread();
}

static int add_traceback(lua_State *L)
{
    if (is_by_pipe(L))
        tide_ending_by_pipe();
    if (lua_type(L, 1) == LUA_TSTRING)
        lua_pushfstring(L, "%s\n", lua_tostring(L, 1));
    else if (luaL_callmeta(L, 1, "__tostring") && lua_isstring(L, -1))
        lua_pushliteral(L, "\nin the script: ");
    else
        lua_pushfstring(L, "(error object is a %s value)\n",
                        luaL_typename(L, 1));
    push_traceback(L);
    lua_concat(L, lua_gettop(L) - 1);
    return 1;
}

/* Call the function below `argument_count` arguments. Returns an exit code. */
static int call(lua_State *L, int argument_count)
{
    int function = lua_gettop(L) - argument_count;
    lua_pushcfunction(L, add_traceback);
    lua_insert(L, function);
    int failed = lua_pcall(L, argument_count, 0, function);
    lua_sethook(L, NULL, 0, 0);
    if (tide_ending_is_asked())
        return tide_ending_report();
    if (failed) {
        fflush(stdout);
        fprintf(stderr, "tidemill: %s\n", lua_tostring(L, -1));
        return EXIT_FAILURE;
    }
    lua_remove(L, function);
    return EXIT_SUCCESS;
}

/* Report what could not be loaded, on top of the stack. */
static int report_load(lua_State *L)
{
    fprintf(stderr, "tidemill: %s\n", lua_tostring(L, -1));
    return EXIT_FAILURE;
}

static int run_code(lua_State *L, const char *code)
{
    if (luaL_loadbuffer(L, code, strlen(code), "=(command line)") != 0)
        return report_load(L);
    return call(L, 0);
}

static int require_global(lua_State *L)
{
    const char *module = lua_tostring(L, 1);
    tide_state_require(L, module);
    lua_setglobal(L, module);
    return 0;
}

static int run_require(lua_State *L, const char *module)
{
    lua_pushcfunction(L, require_global);
    lua_pushstring(L, module);
    return call(L, 1);
}

/* arg[0] is the script, arg[1] and on its arguments, below 0 what came before. */
static void set_arg(lua_State *L, int argc, char **argv, int script)
{
    lua_createtable(L, argc - script, script + 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

static int run_script(lua_State *L, int argc, char **argv, int script)
{
    const char *path = argv[script];
    if (luaL_loadfile(L, strcmp(path, "-") == 0 ? NULL : path) != 0)
        return report_load(L);
    int count = argc - script - 1;
    luaL_checkstack(L, count + 4, "too many arguments");
    for (int i = 1; i <= count; i++)
        lua_pushstring(L, argv[script + i]);
    return call(L, count);
}

/* ---- the command line ---- */

static int fail_usage(const char *message, const char *what)
{
    fprintf(stderr, "tidemill: %s%s (tidemill -h for help)\n", message, what);
    return EXIT_USAGE;
}

static int set_processes(const char *text)
{
    char *end;
    long count = strtol(text, &end, 10);
    if (end == text || *end != '\0' || count < 1)
        return fail_usage("-j takes a number of workers from 1, not ", text);
    return setenv("TIDEMILL_PROCESSES", text, 1) == 0 ? EXIT_SUCCESS
                                                      : EXIT_FAILURE;
}

static int next_option(int argc, char **argv)
{
    static const struct option long_options[] = {
        { "progress", no_argument, NULL, OPTION_PROGRESS },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    return getopt_long(argc, argv, "+j:e:l:vh", long_options, NULL);
}

struct line {
    int script;   /* index of the script in argv; argc if there is none */
    int has_code; /* -e, -l or -v was there */
    int done;     /* nothing is left to do */
};

/* Look at every option before anything runs. Returns an exit code. */
static int check_line(struct line *out, int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = next_option(argc, argv)) != -1) {
        int code = EXIT_SUCCESS;
        char letter[] = { '-', (char)optopt, '\0' };
        const char *text = optopt != 0 ? letter : argv[optind - 1];
        if (option == 'j')
            code = set_processes(optarg);
        else if (option == OPTION_PROGRESS)
            setenv("TIDEMILL_PROGRESS", "1", 1);
        else if (option == 'h')
            out->done = printf("%s\n%s", usage_line, help_text) > 0;
        else if (option == 'v')
            out->has_code = printf("Tidemill %s (%s)\n", TIDEMILL_VERSION,
                                   LUAJIT_VERSION) > 0;
        else if (option == '?')
            code = fail_usage(optopt != 0 && strchr("jel", optopt) != NULL
                                  ? "an argument is missing for "
                                  : "unknown option ",
                              text);
        else
            out->has_code = 1;
        if (code != EXIT_SUCCESS || out->done)
            return code;
    }
    out->script = optind;
    if (optind < argc || out->has_code)
        return EXIT_SUCCESS;
    fputs(usage_line, stderr);
    return EXIT_USAGE;
}

/* -e and -l in their order. */
static int run_options(lua_State *L, int argc, char **argv)
{
    int option, code = EXIT_SUCCESS;
    optind = 1;
    while (code == EXIT_SUCCESS && (option = next_option(argc, argv)) != -1) {
        if (option == 'e')
            code = run_code(L, optarg);
        else if (option == 'l')
            code = run_require(L, optarg);
    }
    return code;
}

static int load_tidemill(lua_State *L)
{
    tide_state_require(L, "tidemill"); /* forks the supervisor while small */
    return 0;
}

static int run_all(lua_State *L, const struct line *line, int argc, char **argv)
{
    set_arg(L, argc, argv, line->script < argc ? line->script : 0);
    lua_pushcfunction(L, load_tidemill);
    int code = call(L, 0);
    if (code == EXIT_SUCCESS)
        code = run_options(L, argc, argv);
    if (code == EXIT_SUCCESS && line->script < argc)
        code = run_script(L, argc, argv, line->script);
    return code;
}

int main(int argc, char **argv)
{
    struct line line = { 0 };
    if (argc == 2 && strcmp(argv[1], TIDE_SUPERVISE) == 0) {
        struct tide_worker_ops ops = tide_lua_worker_ops();
        tide_supervisor_serve(&ops);
    }
    atexit(tide_ending_check_output);
    int code = check_line(&line, argc, argv);
    if (code == EXIT_SUCCESS && !line.done) {
        lua_State *L = tide_state_new();
        if (L == NULL) {
            fputs("tidemill: out of memory\n", stderr);
            return EXIT_FAILURE;
        }
        tide_ending_catch(L);
        code = run_all(L, &line, argc, argv);
        lua_close(L);
    }
    tide_ending_follow();
    return code;
}
