/* Calls: many at once, waited for in every way, failing in every way, ended. */
#include "embed.h"

#include <poll.h>
#include <sys/epoll.h>

static const char script[] =
    "local ffi = require 'ffi'\n"
    "local function poll(ms)\n" /* in the worker, which knows no declarations */
    "  ffi.cdef 'int poll(void *, unsigned long, int);'\n"
    "  ffi.C.poll(nil, 0, ms) end\n"
    "function double(x) return x * 2 end\n"
    "function for_ever() while true do poll(1) end end\n"
    "function crash() return ffi.cast('int *', 8)[0] end\n"
    "function leave(code) os.exit(code) end\n"
    "function raise(what) error(what, 0) end\n"
    "function raise_table() error({ code = 7 }) end\n"
    "function strange() return coroutine.create(print) end\n"
    "function pid() return require 'tidemill'.worker().pid end\n"
    "function greedy() local t = {} for i = 1, 1e9 do t[i] = { i } end end\n"
    "function odd_fails(x) if x % 2 == 1 then error('odd ' .. x, 0) end\n"
    "  return x end\n"
    "rules = { deep = { add = function(a, b) return a + b end } }\n";

static tide_call *start(tide_mill *mill, const char *function, double number,
                        const struct tide_call_options *options)
{
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    tide_args *args = tide_args_number(tide_args_new(), number);
    CHECK_OK(tide_mill_call(&call, mill, function, args, options, &err), err);
    tide_args_free(args);
    return call;
}

static void many_in_flight(tide_mill *mill)
{
    enum { COUNT = 300 };
    struct tide_error err = { 0 };
    tide_call *calls[COUNT], *call;
    int seen[COUNT] = { 0 };
    for (intptr_t i = 0; i < COUNT; i++) {
        const struct tide_call_options options = { .size = sizeof options,
                                                   .data = (void *)i };
        calls[i] = start(mill, "double", (double)i, &options);
    }
    /* Those that were waited for are not reported once more. */
    for (int i = 0; i < COUNT; i += 3) {
        CHECK_OK(tide_call_wait(calls[i], PATIENCE_S, &err), err);
        CHECK(number_at(calls[i], "1") == 2 * i);
        seen[i]++;
    }
    while (tide_mill_next(&call, mill, PATIENCE_S, &err) == TIDE_OK) {
        intptr_t i = (intptr_t)tide_call_data(call);
        CHECK(call == calls[i]);
        CHECK_OK(tide_call_wait(call, 0, &err), err);
        CHECK(number_at(call, "1") == 2 * (double)i);
        seen[i]++;
        tide_call_free(call);
        calls[i] = NULL;
    }
    CHECK(err.status == TIDE_EAGAIN);
    for (int i = 0; i < COUNT; i++) {
        CHECK(seen[i] == 1);
        tide_call_free(calls[i]);
    }
}

static void by_event_loop(tide_mill *mill)
{
    enum { COUNT = 200, BATCH = 20 };
    struct tide_error err = { 0 };
    struct epoll_event event = { .events = EPOLLIN };
    tide_call *call;
    int started = 0, done = 0;
    int loop = epoll_create1(EPOLL_CLOEXEC);
    int fd = tide_mill_fd(mill, &err);
    CHECK(fd >= 3 && fd == tide_mill_fd(mill, &err));
    CHECK(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event) == 0);
    while (done < COUNT) {
        for (int i = 0; i < BATCH && started < COUNT; i++, started++)
            start(mill, "double", started, NULL);
        while (tide_mill_next(&call, mill, 0, &err) == TIDE_OK) {
            done++;
            tide_call_free(call);
        }
        CHECK(err.status == TIDE_EAGAIN);
        if (done < started)
            CHECK(epoll_wait(loop, &event, 1, PATIENCE_S * 1000) == 1);
    }
    close(loop);
}

/* Calls that were freed leave nothing in the mill, however they were waited for. */
static void keep_nothing(tide_mill *mill)
{
    enum { ROUNDS = 4, COUNT = 500 };
    struct tide_error err = { 0 };
    tide_call *calls[COUNT], *next;
    tide_args *size = tide_args_number(tide_args_new(), 1000);
    for (int round = 0; round < ROUNDS; round++) {
        if (round == 1)
            load(mill, "collectgarbage() held = collectgarbage 'count'");
        for (int i = 0; i < COUNT; i++)
            CHECK_OK(tide_mill_call(&calls[i], mill,
                                    "n -> ('x'):rep(n) .. math.random()", size,
                                    NULL, &err),
                     err);
        for (int i = 0; i < COUNT; i++) {
            if (round == 2) { /* by turns: waited for, reported, neither */
                if (i % 3 == 0)
                    CHECK_OK(tide_call_wait(calls[i], PATIENCE_S, &err), err);
                else if (i % 3 == 1)
                    CHECK_OK(tide_mill_next(&next, mill, PATIENCE_S, &err),
                             err);
            } else {
                CHECK_OK(tide_call_wait(calls[i], PATIENCE_S, &err), err);
            }
        }
        for (int i = 0; i < COUNT; i++)
            tide_call_free(calls[i]);
    }
    tide_args_free(size);
    load(mill, "collectgarbage() collectgarbage()\n"
               "held = collectgarbage 'count' - held\n"
               "if held > 200 then error('holds ' .. held .. ' KB more') end");
    CHECK_STATUS(TIDE_EAGAIN, tide_mill_next(&next, mill, 0, &err), err);
}

static void names_of_functions(tide_mill *mill)
{
    struct tide_error err = { 0 };
    tide_args *args = tide_args_number(tide_args_number(tide_args_new(), 3), 4);
    const char *good[] = { "rules.deep.add", "a, b -> a + b",
                           "function_like, x -> function_like + x" };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        tide_call *call = call_and_wait(mill, good[i], args);
        CHECK(number_at(call, "1") == 7);
        tide_call_free(call);
    }
    tide_call *call = call_and_wait(mill, "math:max", args);
    CHECK(number_at(call, "1") == 4);
    tide_call_free(call);
    call = call_and_wait(mill, "math.max", args);
    CHECK(number_at(call, "1") == 4);
    tide_call_free(call);

    const char *bad[] = { "missing", "rules",   "rules.deep", "rules.x.y",
                          "",        "x -> ->", "a b",        "1" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err.text[0] = '\0';
        CHECK_STATUS(TIDE_EINVAL, try_call(mill, bad[i], args, &err), err);
        CHECK(strstr(err.text, bad[i]) != NULL);
    }
    CHECK_STATUS(TIDE_EINVAL, try_call(mill, NULL, args, &err), err);
    CHECK_STATUS(TIDE_ETASK, try_call(mill, "no.such.module:f", args, &err),
                 err);
    tide_args_free(args);
}

static void failures(tide_mill *mill)
{
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    int64_t number = 0;
    tide_args *text = tide_args_text(tide_args_new(), "a reason");
    CHECK_OK(tide_mill_call(&call, mill, "raise", text, NULL, &err), err);
    CHECK_STATUS(TIDE_ETASK, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(strcmp(err.text, "a reason") == 0);
    CHECK_STATUS(TIDE_ETASK, tide_call_wait(call, 0, NULL), err); /* again */
    CHECK(strcmp(text_at(call, "kind"), "task") == 0);
    CHECK(strcmp(text_at(call, "message"), "a reason") == 0);
    CHECK(strstr(text_at(call, "traceback"), "spec.lua") != NULL);
    CHECK(number_at(call, "worker") >= 1 && number_at(call, "pid") > 1);
    tide_call_free(call);
    tide_args_free(text);

    CHECK_OK(tide_mill_call(&call, mill, "raise_table", NULL, NULL, &err), err);
    CHECK_STATUS(TIDE_ETASK, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(number_at(call, "value.code") == 7);
    tide_call_free(call);

    CHECK_OK(tide_mill_call(&call, mill, "crash", NULL, NULL, &err), err);
    CHECK_STATUS(TIDE_EWORKER, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(tide_get_integer(&number, call, "signal") == TIDE_OK);
    CHECK(number == SIGSEGV);
    tide_call_free(call);

    call = start(mill, "leave", 3, NULL);
    CHECK_STATUS(TIDE_EWORKER, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(number_at(call, "exitcode") == 3);
    tide_call_free(call);

    CHECK_STATUS(TIDE_EENCODE, try_call(mill, "strange", NULL, &err), err);
    CHECK(strstr(err.text, "coroutine") != NULL);
    CHECK_STATUS(TIDE_ETASK, try_call(mill, "greedy", NULL, &err), err);
    CHECK(strstr(err.text, "not enough memory") != NULL);
    tide_call_free(call_and_wait(mill, "pid", NULL)); /* and it goes on */
}

static void limits(tide_mill *mill)
{
    struct tide_error err = { 0 };
    const struct tide_call_options options = { .size = sizeof options,
                                               .timeout_s = 0.05,
                                               .retries = 1 };
    tide_call *call = start(mill, "for_ever", 0, &options);
    CHECK_STATUS(TIDE_ETIMEOUT, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(number_at(call, "attempts") == 2);
    tide_call_free(call);

    struct tide_call_options wrong = { .size = sizeof wrong, .timeout_s = -1 };
    CHECK_STATUS(TIDE_EINVAL,
                 tide_mill_call(&call, mill, "double", NULL, &wrong, &err),
                 err);
    check_text(err.text,
               "pool:apply_async: timeout must be a positive number of "
               "seconds, got -1");
}

static void ends(tide_mill *mill)
{
    struct tide_error err = { 0 };
    tide_call *call = start(mill, "for_ever", 0, NULL);
    CHECK_STATUS(TIDE_EAGAIN, tide_call_wait(call, 0, &err), err);
    CHECK_STATUS(TIDE_EAGAIN, tide_call_wait(call, 0.01, &err), err);
    double number;
    CHECK(tide_get_number(&number, call, "1") == TIDE_EAGAIN);
    tide_call_cancel(call);
    CHECK_STATUS(TIDE_ECANCELLED, tide_call_wait(call, PATIENCE_S, &err), err);
    tide_call_cancel(call); /* does nothing any more */
    CHECK_STATUS(TIDE_ECANCELLED, tide_call_wait(call, 0, &err), err);
    tide_call_free(call);
    for (int i = 0; i < 3; i++) /* freed while they run */
        tide_call_free(start(mill, "for_ever", 0, NULL));
    CHECK_STATUS(TIDE_EAGAIN, tide_mill_next(&call, mill, 0, &err), err);
    CHECK(call == NULL);
    tide_call_free(call_and_wait(mill, "pid", NULL));
}

static void maps(tide_mill *mill)
{
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    struct tide_call_options options = { .size = sizeof options, .collect = 1 };
    tide_args *items = tide_args_new();
    for (int i = 1; i <= 4; i++)
        tide_args_number(items, i);
    CHECK_OK(tide_mill_map(&call, mill, "odd_fails", items, NULL, &err), err);
    CHECK_STATUS(TIDE_ETASK, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(strncmp(err.text, "odd ", 4) == 0);
    tide_call_free(call);

    CHECK_OK(tide_mill_map(&call, mill, "odd_fails", items, &options, &err),
             err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(number_at(call, "2") == 2 && number_at(call, "4") == 4);
    CHECK(strcmp(text_at(call, "1.kind"), "task") == 0);
    CHECK(strcmp(text_at(call, "3.message"), "odd 3") == 0);
    CHECK(number_at(call, "3.index") == 3);
    tide_call_free(call);

    tide_args_clear(items);
    for (int i = 1; i <= 3; i++) {
        const double pair[] = { i, 10 * i };
        tide_args_numbers(items, pair, 2);
    }
    options = (struct tide_call_options){ .size = sizeof options, .unpack = 1 };
    CHECK_OK(tide_mill_map(&call, mill, "a, b -> a + b", items, &options, &err),
             err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(number_at(call, "1") == 11 && number_at(call, "3") == 33);
    tide_call_free(call);
    tide_args_free(items);
}

static void scripts(tide_mill *mill)
{
    struct tide_error err = { 0 };
    static const char syntax[] = "function (";
    static const char raises[] = "\nerror 'at line 2'";
    CHECK_STATUS(
        TIDE_ETASK,
        tide_mill_load(mill, "syntax.lua", syntax, strlen(syntax), &err), err);
    CHECK(strstr(err.text, "syntax.lua:1:") != NULL);
    CHECK_STATUS(
        TIDE_ETASK,
        tide_mill_load(mill, "raises.lua", raises, strlen(raises), &err), err);
    CHECK(strcmp(err.text, "raises.lua:2: at line 2") == 0);
    CHECK_STATUS(TIDE_ETASK, tide_mill_load(mill, "t", "error({})", 9, &err),
                 err);
    CHECK_STATUS(TIDE_ESYS, tide_mill_load_file(mill, "/nowhere/x.lua", &err),
                 err);
    CHECK(strstr(err.text, "/nowhere/x.lua") != NULL && err.os_errno != 0);
    CHECK_STATUS(TIDE_EINVAL, tide_mill_load_file(mill, NULL, &err), err);
    CHECK_STATUS(TIDE_ETASK, tide_mill_load(mill, "exit", "os.exit()", 9, &err),
                 err);

    char path[] = "/tmp/tidemill-spec-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, "function late() return 5 end", 28) == 28);
    close(fd);
    CHECK_OK(tide_mill_load_file(mill, path, &err), err);
    unlink(path);
    tide_call *call = call_and_wait(mill, "late", NULL);
    CHECK(number_at(call, "1") == 5);
    tide_call_free(call);
}

static void broken(tide_mill *mill)
{
    char path[100];
    struct tide_error err = { 0 };
    tide_call *call = start(mill, "for_ever", 0, NULL);
    int child = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *children = fopen(path, "r");
    CHECK(children != NULL && fscanf(children, "%d", &child) == 1);
    fclose(children);
    kill(child, SIGKILL);
    CHECK_STATUS(TIDE_EBROKEN, tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(strstr(err.text, "supervisor") != NULL);
    tide_call_free(call);
    CHECK_STATUS(TIDE_EBROKEN, try_call(mill, "pid", NULL, &err), err);
}

int main(void)
{
    watch_time();
    int fds = count_fds();
    const struct tide_mill_options options = { .size = sizeof options,
                                               .processes = 2,
                                               .memory_limit_bytes = 64 << 20 };
    tide_mill *mill = open_mill(&options);
    load(mill, script);
    many_in_flight(mill);
    keep_nothing(mill);
    names_of_functions(mill);
    failures(mill);
    limits(mill);
    ends(mill);
    maps(mill);
    scripts(mill);
    by_event_loop(mill);
    many_in_flight(mill); /* also with a descriptor that somebody polls */
    ends(mill);
    broken(mill);
    tide_mill_free(mill);
    check_nothing_left(fds);

    /* Freed with calls under way: nothing of them remains. */
    mill = open_mill(&options);
    load(mill, script);
    for (int i = 0; i < 10; i++)
        start(mill, "for_ever", 0, NULL);
    tide_mill_free(mill);
    check_nothing_left(fds);
    return EXIT_SUCCESS;
}
