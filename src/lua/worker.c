/*
 * The supervisor prepares one state, and each worker goes on in its own copy of
 * it: a fresh state for the price of a fork, with nothing of the host's in it. With
 * `inherit` the supervisor is forked for the pool alone, and the state is a copy of
 * the host's.
 *
 * What a worker starts with is the pool's config block, two messages:
 *   1. a table: path, cpath, cwd, name, preload (a list of modules), classes
 *      (registered metatables by name), maxtasksperchild, max_rss, memory_limit
 *   2. the initializer and its arguments, or nil
 * The first must be in force before the second is decoded, since functions may
 * name modules that are found on the script's search path. A failure goes into a
 * block that the worker's record names, and ends the worker.
 */
#include "lua/worker.h"
#include "lua/runtime.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/memory.h"
#include "lua/errors.h"
#include "lua/escrow.h"
#include "lua/limit.h"
#include "lua/runner.h"
#include "lua/state.h"
#include "proc/child.h"
#include "share/commons.h"
#include "shm/board_worker.h"
#include "shm/wake.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <unistd.h>

enum { STUCK_MAX = 3 };

static const struct tide_worker_env *self;
static struct tide_worker_limits limits;
static struct tide_limit heap_limit;

const struct tide_worker_env *tide_worker_self(void)
{
    return self;
}

/* ---- the state ---- */

static int load_libraries(lua_State *L)
{
    tide_setup_bind(L, lua_touserdata(L, 1));
    tide_state_require(L, "ffi");
    tide_state_require(L, "tidemill.columns");
    tide_codec_of(L);
    lua_settop(L, 0);
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

static void *prepare(void *setup)
{
    lua_State *L = TIDE_FAULT(OFFICE_PREPARE) ? NULL : tide_state_new();
    if (L != NULL && lua_cpcall(L, load_libraries, setup) != 0)
        fprintf(stderr, "tidemill: cannot prepare workers: %s\n",
                lua_tostring(L, -1));
    return L;
}

/*
 * A job's output is no part of its result: that it was lost is said here, once, and
 * noted for the exit status of the command.
 */
static void write_output(void)
{
    static int told;
    if (__fpending(stdout) > 0)
        fflush(stdout);
    if (!ferror(stdout) || told)
        return;
    told = 1;
    tide_commons_lose_output();
    fprintf(stderr, "tidemill: worker %u (pid %d) cannot write its output\n",
            self->index + 1, (int)getpid());
}

/* os.exit() in a job: the process ends, nothing of the host's is run. */
static int exit_worker(lua_State *L)
{
    int code = lua_isboolean(L, 1)
                   ? (lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE)
                   : luaL_optint(L, 1, EXIT_SUCCESS);
    write_output();
    tide_child_exit(code);
}

/* ---- starting ---- */

/* package[name] = the string field `name` of the table on top. */
static void set_search_path(lua_State *L, const char *name)
{
    lua_getglobal(L, "package");
    if (lua_istable(L, -1)) { /* not in a copy of a restricted state */
        lua_getfield(L, -2, name);
        lua_setfield(L, -2, name);
    }
    lua_pop(L, 1);
}

static void seed_random(lua_State *L)
{
    uint64_t seed = tide_now_ns() ^ (uint64_t)getpid() << 20;
    lua_getglobal(L, "math");
    lua_getfield(L, -1, "randomseed");
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_RANDOMSEED);
    lua_pushnumber(L, (double)(seed % (UINT64_C(1) << 53)));
    lua_call(L, 1, 0);
    lua_pop(L, 1);
}

static void replace_exit(lua_State *L)
{
    lua_getglobal(L, "os");
    lua_pushcfunction(L, exit_worker);
    lua_setfield(L, -2, "exit");
    lua_pop(L, 1);
}

static void require_all(lua_State *L)
{
    lua_getfield(L, -1, "preload");
    for (int i = 1; lua_istable(L, -1) && i <= (int)lua_objlen(L, -1); i++) {
        lua_rawgeti(L, -1, i);
        tide_state_require(L, lua_tostring(L, -1));
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

/* The script's classes, by name in the field `classes` of the table on top. */
static void register_classes(lua_State *L)
{
    lua_getfield(L, -1, "classes");
    int classes = lua_gettop(L);
    if (lua_isnil(L, classes)) { /* a copy has them */
        lua_pop(L, 1);
        return;
    }
    lua_pushnil(L);
    while (lua_next(L, classes) != 0) {
        tide_names_register(&tide_codec_of(L)->names, L, classes + 1,
                            classes + 2);
        lua_settop(L, classes + 1);
    }
    lua_settop(L, classes - 1);
}

static int decode_next(lua_State *L, const unsigned char **at,
                       const unsigned char *end)
{
    struct tide_error err;
    int count;
    if (tide_decode(tide_codec_of(L), L, at, end, &count, NULL, &err) !=
        TIDE_OK)
        luaL_error(L, "cannot receive the pool's options: %s", err.text);
    return count;
}

/* The number in the field `name` of the table on top, 0 for none. */
static uint64_t get_limit(lua_State *L, const char *name)
{
    lua_getfield(L, -1, name);
    uint64_t value = (uint64_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static void set_limits(lua_State *L)
{
    limits.tasks = get_limit(L, "maxtasksperchild");
    limits.rss_bytes = get_limit(L, "max_rss");
    limits.born_bytes = tide_private_bytes();
    uint64_t heap_bytes = get_limit(L, "memory_limit");
    if (heap_bytes != 0)
        tide_limit_set(&heap_limit, L, heap_bytes);
}

/* Everything before the first task; raises what the initializer raises. */
static int start(lua_State *L)
{
    const struct tide_worker_env *env = lua_touserdata(L, 1);
    seed_random(L);
    replace_exit(L);
    tide_setup_apply(L);
    if (env->config == NULL)
        return 0;
    const unsigned char *at = env->config;
    const unsigned char *end = at + env->config_bytes;
    decode_next(L, &at, end);
    set_search_path(L, "path");
    set_search_path(L, "cpath");
    lua_getfield(L, -1, "name");
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_POOL_NAME);
    register_classes(L);
    set_limits(L);
    lua_getfield(L, -1, "cwd");
    if (lua_isstring(L, -1) && chdir(lua_tostring(L, -1)) != 0)
        luaL_error(L, "cannot change to directory '%s'", lua_tostring(L, -1));
    lua_pop(L, 1);
    require_all(L);
    tide_setup_restrict(L);
    int count = decode_next(L, &at, end);
    if (!lua_isnil(L, -count))
        lua_call(L, count - 1, 0);
    return 0;
}

/* Leave the error on top where the host finds it. */
static void leave_failure(struct tide_worker_env *env, lua_State *L,
                          struct tide_heap *heap)
{
    struct tide_worker_record *record = &env->board->workers[env->index];
    struct tide_buffer text;
    tide_buffer_init(&text);
    if (tide_error_encode(tide_codec_of(L), L, &text) == TIDE_OK) {
        uint64_t offset = tide_heap_alloc(heap, text.used);
        if (offset != 0) {
            memcpy(env->board->arena->base + offset, text.data, text.used);
            atomic_store(&record->failure_bytes, (uint32_t)text.used);
            atomic_store(&record->failure, offset);
            tide_heap_settle(heap);
        }
    }
    tide_buffer_free(&text);
}

static int start_state(struct tide_worker_env *env, lua_State *L,
                       struct tide_heap *heap)
{
    lua_settop(L, 0);
    lua_pushcfunction(L, tide_error_handler);
    lua_pushcfunction(L, start);
    lua_pushlightuserdata(L, env);
    if (lua_pcall(L, 1, 0, 1) == 0)
        return 0;
    tide_error_wrap(L);
    if (tide_board_is_single(env->board))
        tide_error_print(L);
    leave_failure(env, L, heap);
    return -1;
}

struct loop {
    struct tide_worker_env *env;
    struct tide_runner runner;
    uint64_t now_ns;
    uint32_t slot;  /* being run; UINT32_MAX for none */
    uint32_t stuck; /* rounds that ended without finishing it */
    int failed;     /* the last slot did */
    struct tide_escrow escrow;
    uint64_t opened; /* shared objects received when they were collected last */
    uint64_t doze_ns; /* see rest() */
};

/* ---- shared objects ---- */

/*
 * What the jobs have left of shared objects is garbage, but garbage keeps them, and
 * an idle worker makes no more of it that would bring the collector round. So a
 * worker that has been idle for a moment runs it. If it is idle for longer it also
 * forgets functions that name objects, with the machine code that names those, and
 * which it would have to make anew. And it looks now and then whether the host has
 * collected what it sent.
 */
enum {
    FIRST_DOZE_NS = 10 * 1000 * 1000,
    FORGET_NS = 80 * 1000 * 1000,
    LAST_DOZE_NS = 500 * 1000 * 1000
};

static void collect(struct loop *loop, int forget)
{
    lua_State *L = loop->runner.L;
    if (forget && loop->runner.keeper_count > 0)
        luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
    tide_runner_forget(&loop->runner, forget);
    tide_handles_collect(loop->runner.codec, L);
    loop->opened = loop->runner.codec->opened;
}

static int has_garbage(const struct loop *loop)
{
    return loop->opened != loop->runner.codec->opened ||
           loop->runner.keeper_count > 0;
}

/* As tide_board_rest(). */
static int rest(struct loop *loop)
{
    struct tide_worker_env *env = loop->env;
    if (loop->escrow.first == NULL && !has_garbage(loop))
        return tide_board_rest(env->board, env->index);
    int status =
        tide_board_doze(env->board, env->index, tide_now_ns() + loop->doze_ns);
    tide_escrow_look(&loop->escrow, env->board);
    if (status != TIDE_ETIMEOUT)
        return status;
    int forget = loop->doze_ns >= FORGET_NS && loop->runner.keeper_count > 0;
    if (forget || loop->opened != loop->runner.codec->opened)
        collect(loop, forget);
    if (loop->doze_ns < LAST_DOZE_NS)
        loop->doze_ns *= 2;
    return TIDE_OK;
}

/* ---- the loop ---- */

static void count_work(struct tide_worker_record *record,
                       const struct tide_slot *slot)
{
    const struct tide_reply *reply = &slot->reply;
    uint64_t items = atomic_load_explicit(&record->items, memory_order_relaxed);
    uint64_t chunks =
        atomic_load_explicit(&record->chunks, memory_order_relaxed);
    uint64_t busy =
        atomic_load_explicit(&record->busy_ns, memory_order_relaxed);
    atomic_store_explicit(&record->items,
                          items + reply->hand - slot->request.first,
                          memory_order_relaxed);
    atomic_store_explicit(&record->chunks, chunks + 1, memory_order_relaxed);
    atomic_store_explicit(&record->busy_ns,
                          busy + reply->end_ns - reply->start_ns,
                          memory_order_relaxed);
}

static void count_heap(struct tide_worker_record *record, lua_State *L)
{
    const uint64_t kib = 1024;
    atomic_store_explicit(&record->heap_bytes,
                          (uint64_t)lua_gc(L, LUA_GCCOUNT, 0) * kib,
                          memory_order_relaxed);
}

static void finish_slot(struct loop *loop, int urgent)
{
    struct tide_worker_env *env = loop->env;
    struct tide_slot *slot = &env->board->slots[loop->slot];
    write_output();
    loop->now_ns = tide_now_ns();
    slot->reply.end_ns = loop->now_ns;
    count_work(&env->board->workers[env->index], slot);
    count_heap(&env->board->workers[env->index], loop->runner.L);
    uint32_t done = loop->slot;
    tide_escrow_keep(&loop->escrow, loop->runner.codec, env->board, done);
    loop->slot = UINT32_MAX;
    loop->stuck = 0;
    loop->failed = urgent;
    loop->doze_ns = FIRST_DOZE_NS;
    tide_board_finish(env->board, done, env->index, urgent);
    if (loop->escrow.first != NULL)
        tide_escrow_look(&loop->escrow, env->board);
    if (loop->opened != loop->runner.codec->opened &&
        tide_handles_are_heavy(loop->runner.codec))
        collect(loop, 1);
}

/* Claim and run until the board is closed, or the worker has done its part. */
static void serve(struct loop *loop)
{
    struct tide_worker_env *env = loop->env;
    while (!loop->runner.retires) {
        uint32_t index;
        if (tide_board_claim(&index, env->board, env->index) != TIDE_OK) {
            if (rest(loop) != TIDE_OK)
                return;
            loop->now_ns = tide_now_ns();
            continue;
        }
        struct tide_slot *slot = &env->board->slots[index];
        loop->slot = index;
        slot->reply.start_ns = loop->now_ns;
        finish_slot(loop, tide_runner_run(&loop->runner, slot));
    }
}

static int serve_protected(lua_State *L)
{
    struct loop *loop = lua_touserdata(L, 1);
    const char *message = lua_tostring(L, 2);
    if (message == NULL)
        message = "an error outside the job";
    tide_runner_enter(&loop->runner);
    if (loop->slot != UINT32_MAX) { /* the error left it unfinished */
        tide_runner_fail(&loop->runner, message);
        finish_slot(loop, 1);
    }
    serve(loop);
    return 0;
}

/* Of a worker that has done its part. */
static int exit_code(const struct loop *loop)
{
    if (tide_board_is_single(loop->env->board))
        return loop->failed ? EXIT_FAILURE : EXIT_SUCCESS;
    return loop->runner.retires ? TIDE_EXIT_RETIRED : EXIT_SUCCESS;
}

/* Returns the worker's exit code. */
static int serve_all(struct tide_worker_env *env, lua_State *L,
                     const struct tide_heap *heap)
{
    struct loop loop = { .env = env,
                         .now_ns = tide_now_ns(),
                         .slot = UINT32_MAX,
                         .doze_ns = FIRST_DOZE_NS };
    if (tide_board_is_single(env->board))
        limits.tasks = 1;
    tide_runner_init(&loop.runner, L, env->board, *heap, &limits);
    lua_settop(L, 0);
    lua_pushnil(L);
    for (;;) {
        lua_pushcfunction(L, serve_protected);
        lua_pushlightuserdata(L, &loop);
        lua_pushvalue(L, -3); /* the error that ended the last round */
        if (lua_pcall(L, 2, 1, 0) == 0)
            return exit_code(&loop);
        lua_replace(L, 1);
        lua_settop(L, 1);
        lua_gc(L, LUA_GCCOLLECT, 0); /* most likely there was no memory */
        if (loop.slot != UINT32_MAX && ++loop.stuck > STUCK_MAX)
            return EXIT_FAILURE; /* not even for saying so */
    }
}

/* Returns the worker's exit code. */
static int work(struct tide_worker_env *env, lua_State *L)
{
    struct tide_worker_record *record = &env->board->workers[env->index];
    struct tide_heap heap;
    self = env;
    if (L == NULL)
        return EXIT_FAILURE;
    tide_heap_open(&heap, env->board->arena, &record->region);
    if (start_state(env, L, &heap) != 0)
        return TIDE_EXIT_NOT_STARTED;
    TIDE_STEP(WORKER_READY);
    atomic_store(&record->phase, TIDE_WORKER_UP);
    TIDE_STEP(WORKER_UP);
    tide_event_raise(env->board->event_fd); /* a host may wait for the start */
    return serve_all(env, L, &heap);
}

static int run(struct tide_worker_env *env)
{
    lua_State *L = env->context;
    int code = work(env, L);
    if (L != NULL && code != TIDE_EXIT_NOT_STARTED)
        lua_close(L); /* finalizers run, files are written out */
    write_output();
    return code;
}

/* The host was in the middle of a call: its stack stays as it is. */
static int run_copy(struct tide_worker_env *env)
{
    lua_State *host = env->context;
    lua_sethook(host, NULL, 0, 0);
    lua_State *L = lua_checkstack(host, 1) ? lua_newthread(host) : NULL;
    int code = work(env, L); /* what the host made is not ours to finalize */
    write_output();
    return code;
}

static void *pass_on(void *argument)
{
    return argument;
}

struct tide_worker_ops tide_lua_copy_ops(lua_State *L)
{
    return (struct tide_worker_ops){ .prepare = pass_on,
                                     .run = run_copy,
                                     .argument = L };
}

struct tide_worker_ops tide_lua_worker_ops(const struct tide_setup *setup)
{
    return (struct tide_worker_ops){ .prepare = prepare,
                                     .run = run,
                                     .argument = (void *)(uintptr_t)setup };
}
