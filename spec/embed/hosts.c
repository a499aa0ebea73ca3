/*
 * Hosts of every kind: with threads, with their own idea of SIGCHLD, with thousands
 * of descriptors, short of address space, forked, and executed as a supervisor.
 *
 *   hosts [LIBRARY COMMAND]   the library for workers, and the command to load it
 */
#include "embed.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>

static int answer(lua_State *L)
{
    lua_pushnumber(L, 42);
    return 1;
}

static void bring(lua_State *L, void *unused)
{
    (void)unused;
    lua_register(L, "answer", answer);
}

static int upper(tide_output *out, const void *bytes, size_t size, void *data)
{
    const char *text = bytes;
    (void)data;
    for (size_t i = 0; i < size; i++) {
        char letter = text[i];
        if (letter >= 'a' && letter <= 'z')
            letter = (char)(letter - 'a' + 'A');
        if (tide_output_write(out, &letter, 1) != 0)
            return 1;
    }
    return 0;
}

static const struct tide_task tasks[] = { { "upper", upper, NULL } };

/* The same for who starts and for who is started. */
static const struct tide_start_options executed = {
    .size = sizeof executed,
    .hook = bring,
    .tasks = tasks,
    .task_count = 1,
    .program = "/proc/self/exe",
};

static void work_without_exit(tide_mill *mill)
{
    enum { COUNT = 200 };
    double numbers[COUNT];
    size_t count = COUNT;
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    for (int i = 0; i < COUNT; i++)
        numbers[i] = i;
    tide_args *items = tide_args_each(tide_args_new(), numbers, COUNT);
    CHECK_OK(tide_mill_map(&call, mill, "x -> x + 1", items, NULL, &err), err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(tide_get_numbers(numbers, &count, call, "") == TIDE_OK);
    for (int i = 0; i < COUNT; i++)
        CHECK(numbers[i] == i + 1);
    tide_call_free(call);
    tide_args_free(items);
}

static void work(tide_mill *mill)
{
    struct tide_error err = { 0 };
    work_without_exit(mill);
    CHECK_STATUS(TIDE_EWORKER, try_call(mill, "() -> os.exit(1)", NULL, &err),
                 err);
}

static void work_by(const struct tide_start_options *start)
{
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = start,
                                               .processes = 2 };
    tide_mill *mill = open_mill(&options);
    work(mill);
    tide_mill_free(mill);
}

/* ---- executed ---- */

static void use_hook_and_task(const struct tide_start_options *start)
{
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = start,
                                               .processes = 2 };
    struct tide_error err = { 0 };
    const char *text = NULL;
    tide_mill *mill = open_mill(&options);
    work(mill);
    tide_call *call = call_and_wait(mill, "() -> answer() + 1", NULL);
    CHECK(number_at(call, "1") == 43);
    tide_call_free(call);
    CHECK_OK(tide_mill_run(&call, mill, "upper", "tide", 4, NULL, &err), err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(tide_get_string(&text, NULL, call, "1") == TIDE_OK);
    CHECK(strcmp(text, "TIDE") == 0);
    tide_call_free(call);
    tide_mill_free(mill);
}

/* The command, that knows of no options but these. */
static void leave_out_libraries(const char *command)
{
    const struct tide_start_options start = { .size = sizeof start,
                                              .without = TIDE_SANDBOX,
                                              .program = command };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &start };
    struct tide_error err = { 0 };
    tide_mill *mill = open_mill(&options);
    work_without_exit(mill);
    CHECK_STATUS(TIDE_ETASK, try_call(mill, "() -> os.exit(1)", NULL, &err),
                 err);
    CHECK_STATUS(TIDE_ETASK, try_call(mill, "() -> io.open('x')", NULL, &err),
                 err);
    tide_mill_free(mill);
}

/* What a script starts by itself has to be what the host started. */
static void spawn_from_a_script(void)
{
    static const char script[] = "tidemill = require 'tidemill'\n"
                                 "tidemill.pool { start_method = 'spawn' }\n";
    const struct tide_start_options start = { .size = sizeof start,
                                              .hook = bring };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &start };
    struct tide_error err = { 0 };
    tide_mill *mill = open_mill(&options);
    setenv("TIDEMILL_COMMAND", "/bin/true", 1);
    CHECK_STATUS(TIDE_ETASK,
                 tide_mill_load(mill, "x", script, strlen(script), &err), err);
    CHECK(strstr(err.text, "'program'") != NULL);
    unsetenv("TIDEMILL_COMMAND");
    tide_mill_free(mill);
}

static void refuse_programs(void)
{
    struct tide_error err = { 0 };
    tide_starter *starter = NULL;
    struct tide_start_options start = { .size = sizeof start,
                                        .program = "/nowhere/program" };
    CHECK_STATUS(TIDE_ESYS, tide_start(&starter, &start, &err), err);
    CHECK(err.os_errno == ENOENT && starter == NULL);
    CHECK(strstr(err.text, "/nowhere/program") != NULL);
    start =
        (struct tide_start_options){ .size = sizeof start, .library = "x.so" };
    CHECK_STATUS(TIDE_EINVAL, tide_start(&starter, &start, &err), err);
    CHECK_STATUS(TIDE_EINVAL,
                 tide_start(&starter, &(struct tide_start_options){ 0 }, &err),
                 err);
    /* One that is no supervisor ends, or does what it always does; either way the
     * pool says that it is broken. */
    const struct tide_start_options other = { .size = sizeof other,
                                              .hook = bring,
                                              .program = "/bin/true" };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &other };
    tide_mill *mill = NULL;
    CHECK_STATUS(TIDE_EBROKEN, tide_mill_open(&mill, &options, &err), err);
}

/* ---- threads ---- */

static atomic_int stop;

static void *keep_busy(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
        free(malloc(100));
    return NULL;
}

/* It holds the lock of stdin while it waits, as any program may. */
static void *read_for_ever(void *pipe)
{
    char line[10];
    (void)!fgets(line, sizeof line, pipe);
    return NULL;
}

static void *have_a_mill(void *unused)
{
    (void)unused;
    work_by(&executed);
    return NULL;
}

static void with_threads(void)
{
    enum { COUNT = 3 };
    pthread_t threads[COUNT], busy, reader;
    int ends[2];
    CHECK(pipe(ends) == 0);
    FILE *pipe_file = fdopen(ends[0], "r");
    CHECK(pthread_create(&busy, NULL, keep_busy, NULL) == 0);
    CHECK(pthread_create(&reader, NULL, read_for_ever, pipe_file) == 0);
    for (int i = 0; i < COUNT; i++)
        CHECK(pthread_create(&threads[i], NULL, have_a_mill, NULL) == 0);
    for (int i = 0; i < COUNT; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    atomic_store(&stop, 1);
    CHECK(pthread_join(busy, NULL) == 0);
    close(ends[1]);
    CHECK(pthread_join(reader, NULL) == 0);
    fclose(pipe_file);
}

/* A mill made by one thread, used and freed by others, one after the other. */
static void *use_mill(void *mill)
{
    work(mill);
    return NULL;
}

static void *free_mill(void *mill)
{
    tide_mill_free(mill);
    return NULL;
}

static void from_thread_to_thread(void)
{
    void *(*const turns[])(void *) = { use_mill, use_mill, free_mill };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &executed,
                                               .processes = 2 };
    tide_mill *mill = open_mill(&options);
    for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, turns[i], mill) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
}

/* ---- SIGCHLD ---- */

enum { SIGNALS = 32 };

static struct sigaction dispositions[SIGNALS]; /* before all */
static volatile sig_atomic_t reaped;

static void note_dispositions(void)
{
    for (int number = 1; number < SIGNALS; number++)
        sigaction(number, NULL, &dispositions[number]);
}

static void reap_all(int unused)
{
    int saved = errno;
    (void)unused;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        reaped++;
    errno = saved;
}

static void kill_supervisor(void)
{
    char path[100];
    int child = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *children = fopen(path, "r");
    CHECK(children != NULL && fscanf(children, "%d", &child) == 1);
    fclose(children);
    kill(child, SIGKILL);
}

/* If it is to be reaped by the host it is, before the mill can know. */
static void with_dead_supervisor(int reaps)
{
    struct tide_error err = { 0 };
    tide_mill *mill = open_mill(NULL);
    work(mill);
    sig_atomic_t before = reaped;
    kill_supervisor();
    while (reaps && reaped == before)
        usleep(100);
    int status;
    do /* a worker may be faster than its death */
        status = try_call(mill, "() -> 1", NULL, &err);
    while (status == TIDE_OK);
    CHECK_STATUS(TIDE_EBROKEN, status, err);
    tide_mill_free(mill);
}

static void with_own_signals(void)
{
    struct sigaction is;
    sigset_t mask, before;
    sigprocmask(SIG_SETMASK, NULL, &before);
    signal(SIGCHLD, SIG_IGN);
    work_by(NULL);
    work_by(&executed);
    with_dead_supervisor(0);
    sigaction(SIGCHLD, NULL, &is);
    CHECK(is.sa_handler == SIG_IGN);

    signal(SIGCHLD, reap_all);
    work_by(NULL);
    work_by(&executed);
    with_dead_supervisor(1);
    sigaction(SIGCHLD, NULL, &is);
    CHECK(is.sa_handler == reap_all);

    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int number = 1; number < SIGNALS; number++) {
        sigaction(number, NULL, &is); /* all others: untouched */
        CHECK(is.sa_handler == dispositions[number].sa_handler);
        CHECK(sigismember(&mask, number) == sigismember(&before, number));
    }
}

/* Not every child is ours. */
static void with_other_children(void)
{
    int status;
    pid_t other = fork();
    if (other == 0)
        _exit(7);
    work_by(NULL);
    CHECK(waitpid(other, &status, 0) == other && WEXITSTATUS(status) == 7);
}

/* ---- descriptors ---- */

static void with_many_descriptors(void)
{
    enum { COUNT = 3000 };
    struct rlimit limit;
    int fds[COUNT];
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int count = limit.rlim_cur < 4096 ? (int)limit.rlim_cur - 100 : COUNT;
    for (int i = 0; i < count; i++)
        CHECK((fds[i] = open("/dev/null", O_RDONLY)) >= 0);
    work_by(NULL);
    work_by(&executed);
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static void without_descriptors(void)
{
    struct tide_error err = { 0 };
    struct rlimit limit, before;
    tide_mill *mill = NULL;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    int fds = count_fds();
    for (rlim_t most = 3; most < 12; most++) {
        limit = before;
        limit.rlim_cur = most;
        CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        int status = tide_mill_open(&mill, NULL, &err);
        CHECK(status == TIDE_OK || status == TIDE_ESYS ||
              status == TIDE_EBROKEN);
        tide_mill_free(mill);
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
        check_nothing_left(fds);
    }
    work_by(NULL);
}

/* ---- memory ---- */

static size_t address_space(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%zu", &pages) == 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void limit_address_space(size_t more, const struct rlimit *before)
{
    struct rlimit limit = *before;
    limit.rlim_cur = address_space() + more;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* The less there is the smaller what is mapped; then a status, never more. */
static void short_of_address_space(void)
{
    struct tide_error err = { 0 };
    struct rlimit before;
    int opened = 0, refused = 0;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    for (size_t more = (size_t)4 << 30; more >= 64 << 10; more /= 2) {
        tide_mill *mill = NULL;
        limit_address_space(more, &before);
        int status = tide_mill_open(&mill, NULL, &err);
        if (status == TIDE_OK && more >= (size_t)512 << 20)
            work(mill);
        tide_mill_free(mill);
        CHECK(setrlimit(RLIMIT_AS, &before) == 0);
        if (status == TIDE_OK)
            opened++;
        else
            refused++;
        CHECK(status == TIDE_OK || status == TIDE_ENOMEM ||
              status == TIDE_ESYS || status == TIDE_EBROKEN ||
              status == TIDE_EINVAL);
        CHECK(status == TIDE_OK || more < (size_t)512 << 20);
    }
    CHECK(opened >= 3 && refused >= 1);
}

/* Everything a mill can be asked while nothing can be allocated. */
static void without_memory(void)
{
    enum { COUNT = 1 << 20 };
    struct tide_error err = { 0 };
    struct rlimit before;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    double *numbers = calloc(COUNT, sizeof *numbers);
    tide_mill *mill = open_mill(NULL);
    load(mill, "function many() local t = {} for i = 1, 1e6 do t[i] = 'x' .. i "
               "end return t end");
    tide_args *args = tide_args_numbers(tide_args_new(), numbers, COUNT);
    tide_call *call = NULL, *many = NULL;
    CHECK_OK(tide_mill_call(&many, mill, "many", NULL, NULL, &err), err);
    limit_address_space(0, &before);
    int status = tide_call_wait(many, PATIENCE_S, &err);
    CHECK(status == TIDE_ENOMEM || status == TIDE_EDECODE);
    int refused = 0;
    for (int i = 0; i < 20; i++) {
        status = tide_mill_call(&call, mill, "x -> #x", args, NULL, &err);
        CHECK(status == TIDE_OK || status == TIDE_ENOMEM ||
              status == TIDE_EENCODE);
        refused += status != TIDE_OK;
    }
    CHECK(refused > 0);
    for (int i = 0; i < 1000; i++)
        tide_args_numbers(args, numbers, 1000);
    status = tide_mill_call(&call, mill, "x -> #x", args, NULL, &err);
    CHECK(status == TIDE_ENOMEM || status == TIDE_EENCODE);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    tide_args_free(args);
    tide_mill_free(mill);
    free(numbers);
    work_by(NULL);
}

/* ---- copies ---- */

static void in_a_copy(void)
{
    struct tide_error err = { 0 };
    int status;
    tide_mill *mill = open_mill(NULL);
    tide_call *call = NULL;
    work(mill);
    pid_t copy = fork();
    if (copy == 0) {
        CHECK(tide_mill_call(&call, mill, "() -> 1", NULL, NULL, &err) !=
              TIDE_OK);
        CHECK(strstr(err.text, "process") != NULL);
        tide_mill_free(mill);
        _exit(0);
    }
    CHECK(waitpid(copy, &status, 0) == copy && status == 0);
    work(mill);
    tide_mill_free(mill);
}

/* No worker is left when the host ends in whatever way. */
static void killed(void)
{
    int ends[2], status;
    char byte;
    CHECK(pipe(ends) == 0); /* workers close their copies, the host has one */
    pid_t host = fork();
    if (host == 0) {
        struct tide_error err = { 0 };
        tide_call *call = NULL;
        tide_mill *mill = open_mill(NULL);
        tide_mill_call(&call, mill, "() -> math.max(1)", NULL, NULL, &err);
        raise(SIGKILL);
    }
    close(ends[1]);
    CHECK(read(ends[0], &byte, 1) == 0);
    CHECK(waitpid(host, &status, 0) == host && WIFSIGNALED(status));
    close(ends[0]);
}

/* ---- in use ---- */

static struct tide_error inner_error;

static void use_inside(lua_State *L, void *mill)
{
    (void)L;
    if (*(tide_mill **)mill != NULL)
        tide_mill_load(*(tide_mill **)mill, "x", "", 0, &inner_error);
}

static int call_back(lua_State *L)
{
    use_inside(L, lua_touserdata(L, lua_upvalueindex(1)));
    return 0;
}

static void bring_callback(lua_State *L, void *data)
{
    lua_pushlightuserdata(L, data);
    lua_pushcclosure(L, call_back, 1);
    lua_setglobal(L, "call_back");
}

static void from_inside(void)
{
    tide_mill *mill = NULL;
    const struct tide_start_options start = { .size = sizeof start,
                                              .hook = bring_callback,
                                              .hook_data = &mill };
    const struct tide_mill_options options = { .size = sizeof options,
                                               .start = &start };
    mill = open_mill(&options);
    load(mill, "call_back()");
    CHECK(inner_error.status == TIDE_EINVAL);
    CHECK(strstr(inner_error.text, "in use") != NULL);
    tide_mill_free(mill);
}

int main(int argc, char **argv)
{
    tide_serve(argc, argv, &executed);
    watch_time();
    note_dispositions();
    int fds = count_fds();
    use_hook_and_task(&executed);
    if (argc == 3) {
        const struct tide_start_options by_library = {
            .size = sizeof by_library,
            .tasks = tasks,
            .task_count = 1,
            .program = argv[2],
            .library = argv[1],
        };
        use_hook_and_task(&by_library);
        leave_out_libraries(argv[2]);
    }
    spawn_from_a_script();
    refuse_programs();
    check_nothing_left(fds);
    with_threads();
    from_thread_to_thread();
    check_nothing_left(fds);
    with_own_signals();
    with_other_children();
    check_nothing_left(fds);
    with_many_descriptors();
    without_descriptors();
    in_a_copy();
    killed();
    from_inside();
    check_nothing_left(fds);
    if (getenv("SPEC_NO_LIMITS") == NULL) { /* the sanitizers need much of it */
        short_of_address_space();
        without_memory();
    }
    check_nothing_left(fds);
    return EXIT_SUCCESS;
}
