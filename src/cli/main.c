/*
 * The `tidemill` command: a client of the library. It alone prints, exits and
 * installs a signal handler (ending.c).
 */
#include <getopt.h>
#include <lua.h>
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ending.h"
#include "cli/script.h"
#include "cli/session.h"
#include "lua/state.h"
#include "lua/trace.h"
#include "tidemill.h"

enum { EXIT_USAGE = 2 };

enum { OPTION_PROGRESS = 256, OPTION_TRACE }; /* beside the letters */

static const char usage_line[] =
    "usage: tidemill [-i] [-j N] [-e CODE] [-l MODULE] [--trace FILE] "
    "[--progress] [-v] [-h] [SCRIPT | -] [ARGS]\n";

static const char help_text[] =
    "Run a Lua script whose work is spread over a pool of processes.\n"
    "\n"
    "  SCRIPT        the script, run by LuaJIT with ARGS in `arg` and `...`;\n"
    "                - reads it from standard input\n"
    "  -j N          workers of a pool that does not say how many\n"
    "                (default: usable processors; also TIDEMILL_PROCESSES)\n"
    "  -e CODE       run CODE first; may be repeated\n"
    "  -l MODULE     require MODULE into the global of its name first\n"
    "  -i            then read lines from standard input and run them\n"
    "  --trace FILE  write what workers did when, for ui.perfetto.dev or\n"
    "                chrome://tracing\n"
    "  --progress    show the progress of every call that may take a while\n"
    "                (also TIDEMILL_PROGRESS=1; 0 shows none)\n"
    "  -v            print the version\n"
    "  -h            print this help\n"
    "\n"
    "Exit status: 0; 1 if the script raised, with its traceback; 2 for wrong\n"
    "usage; 130 after Ctrl-C; what os.exit() says.\n";

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
        { "trace", required_argument, NULL, OPTION_TRACE },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    return getopt_long(argc, argv, "+j:e:l:ivh", long_options, NULL);
}

struct line {
    int script;        /* index of the script in argv; argc if there is none */
    int has_code;      /* -e, -l or -v was there */
    int session;       /* -i was */
    const char *trace; /* file to be written; NULL for none */
    int done;          /* nothing is left to do */
};

/* What getopt_long() returned as '?'. */
static int fail_option(const char *argument)
{
    char letter[] = { '-', (char)optopt, '\0' };
    int is_letter = optopt != 0 && optopt < OPTION_PROGRESS;
    int takes_argument =
        optopt == OPTION_TRACE || (is_letter && strchr("jel", optopt) != NULL);
    return fail_usage(takes_argument ? "an argument is missing for "
                                     : "unknown option ",
                      is_letter ? letter : argument);
}

/* Returns an exit code. */
static int check_option(struct line *out, int option, const char *argument)
{
    switch (option) {
    case 'j':
        return set_processes(optarg);
    case 'i':
        out->session = 1;
        break;
    case OPTION_TRACE:
        out->trace = optarg;
        break;
    case OPTION_PROGRESS:
        setenv("TIDEMILL_PROGRESS", "1", 1);
        break;
    case 'h':
        out->done = printf("%s\n%s", usage_line, help_text) > 0;
        break;
    case 'v':
        out->has_code =
            printf("Tidemill %s (%s)\n", TIDEMILL_VERSION, LUAJIT_VERSION) > 0;
        break;
    case '?':
        return fail_option(argument);
    default:
        out->has_code = 1;
    }
    return EXIT_SUCCESS;
}

/* Look at every option before anything runs. Returns an exit code. */
static int check_line(struct line *out, int argc, char **argv)
{
    int option, code = EXIT_SUCCESS;
    opterr = 0;
    while (code == EXIT_SUCCESS && !out->done &&
           (option = next_option(argc, argv)) != -1)
        code = check_option(out, option, argv[optind - 1]);
    out->script = optind;
    if (code != EXIT_SUCCESS || out->done || optind < argc || out->has_code ||
        out->session)
        return code;
    fputs(usage_line, stderr);
    return EXIT_USAGE;
}

/* ---- the trace ---- */

static struct tide_trace trace;

/* In a signal handler. */
static void flush_trace(void)
{
    if (trace.line.buffer != NULL)
        tide_timeline_flush(&trace.line);
}

static int end_trace(void)
{
    struct tide_error err;
    if (trace.line.buffer == NULL || trace.line.owner != getpid() ||
        tide_timeline_close(&trace.line, &err) == TIDE_OK)
        return EXIT_SUCCESS;
    fprintf(stderr, "tidemill: %s\n", err.text);
    return EXIT_FAILURE;
}

/* When the script calls os.exit(). */
static void end_trace_at_exit(void)
{
    end_trace();
}

static int begin_trace(lua_State *L, const char *path, const char *script)
{
    struct tide_error err;
    if (tide_trace_begin(&trace, L, path, script, &err) != TIDE_OK) {
        fprintf(stderr, "tidemill: %s\n", err.text);
        return EXIT_FAILURE;
    }
    return atexit(end_trace_at_exit) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- running ---- */

/* -e and -l in their order. */
static int run_options(lua_State *L, int argc, char **argv)
{
    int option, code = EXIT_SUCCESS;
    optind = 1;
    while (code == EXIT_SUCCESS && (option = next_option(argc, argv)) != -1) {
        if (option == 'e')
            code = tide_script_run_code(L, optarg);
        else if (option == 'l')
            code = tide_script_require(L, optarg);
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
    int has_script = line->script < argc;
    int code = EXIT_SUCCESS;
    tide_script_set_arg(L, argc, argv, has_script ? line->script : 0);
    if (line->trace != NULL)
        code = begin_trace(L, line->trace, argv[has_script ? line->script : 0]);
    lua_pushcfunction(L, load_tidemill);
    if (code == EXIT_SUCCESS)
        code = tide_script_call(L, 0, 0);
    if (code == EXIT_SUCCESS)
        code = run_options(L, argc, argv);
    if (code == EXIT_SUCCESS && has_script)
        code = tide_script_run_file(L, argc, argv, line->script);
    if (code == EXIT_SUCCESS && line->session)
        tide_session_run(L);
    return code;
}

int main(int argc, char **argv)
{
    struct line line = { 0 };
    tide_serve(argc, argv, NULL);
    atexit(tide_ending_check_output);
    int code = check_line(&line, argc, argv);
    if (code == EXIT_SUCCESS && !line.done) {
        lua_State *L = tide_state_new();
        if (L == NULL) {
            fputs("tidemill: out of memory\n", stderr);
            return EXIT_FAILURE;
        }
        tide_ending_catch(L, flush_trace);
        code = run_all(L, &line, argc, argv);
        lua_close(L);
        if (end_trace() != EXIT_SUCCESS && code == EXIT_SUCCESS)
            code = EXIT_FAILURE;
    }
    tide_ending_follow();
    return code;
}
