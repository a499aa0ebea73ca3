/*
 * Memory that ends at every allocation in turn: whatever a mill is asked then is
 * answered by a status, and when there is memory again the mill goes on.
 *
 *   memory [ROUNDS]
 */
#include "embed.h"

#include <lauxlib.h>
#include <limits.h>
#include <lua.h>

enum { ROUNDS = 400 };

static pid_t host;
static lua_Alloc inner;
static void *inner_data;
static long left = LONG_MAX; /* allocations that may be made */
static long failed;

static void *allocate(void *unused, void *block, size_t before, size_t after)
{
    (void)unused;
    if (after > before && left != LONG_MAX && left-- <= 0) {
        failed++;
        return NULL;
    }
    return inner(inner_data, block, before, after);
}

/* The hook runs in the mill's state, too. */
static void watch_memory(lua_State *L, void *unused)
{
    (void)unused;
    if (getpid() != host)
        return;
    inner = lua_getallocf(L, &inner_data);
    lua_setallocf(L, allocate, NULL);
}

static int echo(tide_output *out, const void *bytes, size_t size, void *data)
{
    (void)data;
    return tide_output_write(out, bytes, size);
}

static int is_expected(int status)
{
    return status == TIDE_OK || status == TIDE_ENOMEM ||
           status == TIDE_EAGAIN || status == TIDE_EENCODE ||
           status == TIDE_EDECODE || status == TIDE_EINVAL ||
           status == TIDE_ETASK;
}

#define CHECK_EXPECTED(expression)                                             \
    do {                                                                       \
        int status_is = (expression);                                          \
        if (!is_expected(status_is)) {                                         \
            fprintf(stderr, "%s:%d: failed: %s is %d: %s\n", __FILE__,         \
                    __LINE__, #expression, status_is, err.text);               \
            _exit(EXIT_FAILURE);                                               \
        }                                                                      \
    } while (0)

static void read_all(tide_call *call)
{
    const char *text;
    double number;
    int64_t integer;
    size_t size;
    int truth;
    tide_get_type(call, "1");
    tide_get_string(&text, &size, call, "1.names.2");
    tide_get_number(&number, call, "1.numbers.1");
    tide_get_integer(&integer, call, "1.large");
    tide_get_bool(&truth, call, "1.yes");
    tide_get_length(call, "1.numbers");
    if (tide_call_enter(call, "1") != TIDE_OK)
        return;
    while (tide_call_next(call))
        tide_get_type(call, "@");
    tide_call_leave(call);
}

/* Everything, with memory for so many allocations. */
static void ask_everything(tide_mill *mill, const tide_args *args, long many)
{
    static const char script[] = "function late(x) return x end";
    struct tide_error err = { 0 };
    tide_call *call = NULL, *mapped = NULL, *task = NULL, *next = NULL;
    left = many;
    CHECK_EXPECTED(
        tide_mill_load(mill, "late.lua", script, sizeof script - 1, &err));
    CHECK_EXPECTED(tide_mill_call(&call, mill, "echo", args, NULL, &err));
    CHECK_EXPECTED(
        tide_mill_map(&mapped, mill, "x -> { x }", args, NULL, &err));
    CHECK_EXPECTED(tide_mill_run(&task, mill, "echo", "bytes", 5, NULL, &err));
    CHECK_EXPECTED(tide_call_wait(call, 0.001, &err));
    CHECK_EXPECTED(tide_mill_next(&next, mill, 0, &err));
    if (many % 4 == 0) {
        left = LONG_MAX; /* from here on there is enough, for some */
        tide_call_wait(call, PATIENCE_S, &err);
        left = many;
    }
    if (call != NULL)
        read_all(call);
    tide_call_cancel(mapped);
    tide_call_free(mapped);
    tide_call_free(task);
    tide_call_free(call);
    tide_mill_fd(mill, &err);
    left = LONG_MAX;
}

static void ask_once_more(tide_mill *mill, const tide_args *args)
{
    tide_call *next = NULL;
    struct tide_error err = { 0 };
    tide_call *call = call_and_wait(mill, "echo", args);
    CHECK(strcmp(text_at(call, "1.names.2"), "b") == 0);
    tide_call_free(call);
    CHECK_STATUS(TIDE_EAGAIN, tide_mill_next(&next, mill, 0, &err), err);
}

int main(int argc, char **argv)
{
    const struct tide_task tasks[] = { { "echo", echo, NULL } };
    const struct tide_start_options start = { .size = sizeof start,
                                              .hook = watch_memory,
                                              .tasks = tasks,
                                              .task_count = 1 };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &start,
                                               .processes = 2 };
    const double numbers[] = { 1, 2, 3 };
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : ROUNDS;
    watch_time();
    host = getpid();
    int fds = count_fds();
    tide_args *args = tide_args_begin(tide_args_new());
    tide_args_begin(tide_args_name(args, "names"));
    tide_args_end(tide_args_text(tide_args_text(args, "a"), "b"));
    tide_args_numbers(tide_args_name(args, "numbers"), numbers, 3);
    tide_args_integer(tide_args_name(args, "large"), INT64_MAX);
    tide_args_bool(tide_args_name(args, "yes"), 1);
    tide_args_end(args);

    tide_mill *mill = open_mill(&options);
    load(mill, "function echo(x) return x end");
    for (long many = 0; many < rounds; many++) {
        ask_everything(mill, args, many);
        if (many % 10 == 0)
            ask_once_more(mill, args);
    }
    ask_once_more(mill, args);
    tide_mill_free(mill);
    CHECK(failed >= ROUNDS / 2);
    tide_args_free(args);
    check_nothing_left(fds);
    return EXIT_SUCCESS;
}
