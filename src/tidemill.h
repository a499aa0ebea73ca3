/**
 * @file tidemill.h
 * @brief Tidemill for C programs: a parallel Lua engine, or the module for a
 *        lua_State of one's own.
 *
 *     struct tide_error err;
 *     tide_mill *mill;
 *     tide_call *call;
 *     double squares[4] = { 1, 2, 3, 4 };
 *     size_t count = 4;
 *     tide_args *items = tide_args_each(tide_args_new(), squares, count);
 *     tide_mill_open(&mill, NULL, &err);
 *     tide_mill_map(&call, mill, "x -> x * x", items, NULL, &err);
 *     if (tide_call_wait(call, TIDE_WAIT_FOREVER, &err) != TIDE_OK ||
 *         tide_get_numbers(squares, &count, call, "") != TIDE_OK)
 *         fprintf(stderr, "%s\n", err.text);
 *
 *   Object   Is                                    Made by         Ended by
 *   starter  a supervisor process, forked early    tide_start      tide_stop, or
 *                                                                  its new owner
 *   mill     a Lua state and a pool of workers     tide_mill_open  tide_mill_free
 *   call     a function at work in the workers,    tide_mill_call, tide_call_free,
 *            later its results                     _map, _run      tide_mill_free
 *   args     values to be sent                     tide_args_new   tide_args_free
 *
 * **Failure.** A function that can fail returns an enum tide_status, puts into
 * `err` (yours, may be NULL) what could not be done and why, and sets what `out`
 * points to to NULL. Given NULL for a mill or a call it returns the failure that
 * is in `err` already: a row of calls needs one look, at its end. No Lua error
 * and no longjmp reaches the caller, lack of memory included; nothing is
 * printed, and the process never exited.
 *
 * **Threads.** Objects belong to no thread, but a mill, with its calls, is to be
 * used by one at a time, and so is each of the others. Mills are independent of
 * each other. A program that has threads when it starts a supervisor names a
 * `program` in its options, so that it is executed, not forked.
 *
 * **Processes.** A mill has one child, the supervisor. No signal handler is
 * installed and no mask changed; SIGCHLD may be ignored, and children may be
 * reaped by others. Workers die with the program, however it ends. In a copy of
 * the program made by fork() mills can only be freed, which leaves the workers
 * alone. Descriptors are close-on-exec and above 2: two of a starter, two more of
 * a mill, one more for tide_mill_fd(); and one of the process, for what its tree
 * shares, from the first start to its end.
 *
 * **Structs.** `size` is sizeof the struct, all that is not set is 0.
 */
#ifndef TIDEMILL_H
#define TIDEMILL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TIDEMILL_VERSION "0.1.0"

#define TIDE_API __attribute__((visibility("default")))

struct lua_State;

/* ---- failure ---- */

enum tide_status {
    TIDE_OK,
    TIDE_EAGAIN,   /* not yet */
    TIDE_ETIMEOUT, /* a time limit was passed */
    TIDE_EINTR,    /* (not returned by anything here) */
    TIDE_EINVAL,   /* an argument is wrong, a value absent or of another type */
    TIDE_ENOMEM,
    TIDE_ESYS,    /* the system refused something, see `os_errno` */
    TIDE_ECLOSED, /* the pool takes no more work */
    TIDE_EBROKEN, /* the pool cannot go on, e.g. its supervisor was killed */
    TIDE_ETASK,   /* the Lua code, or a task, raised an error */
    TIDE_EWORKER, /* its worker died: it crashed, exited or was killed */
    TIDE_ECANCELLED,
    TIDE_ETERMINATED,
    TIDE_EENCODE, /* a value cannot travel to another process */
    TIDE_EDECODE,
    TIDE_EINIT,     /* the hook raised an error in a worker */
    TIDE_EABANDONED /* a lock's last holder died (not returned by anything here) */
};

enum { TIDE_ERROR_TEXT_BYTES = 504 };

struct tide_error {
    int status;   /* enum tide_status */
    int os_errno; /* errno of the failed system call, or 0 */
    char text[TIDE_ERROR_TEXT_BYTES]; /* lower case, no full stop */
};

/** The text of a status; never NULL. */
TIDE_API const char *tide_status_text(int status);

/* ---- starting ---- */

/** Gives a fresh state what the host's Lua code is to find. May raise. */
typedef void (*tide_hook_fn)(struct lua_State *L, void *data);

typedef struct tide_output tide_output;

/** In a task: append to what it returns. @return 0, -1 without memory */
TIDE_API int tide_output_write(tide_output *out, const void *bytes,
                               size_t size);

/**
 * Works in a worker on bytes that are there until it returns, and answers by `out`.
 * It must not touch Lua. If it crashes, that costs this one item.
 *
 * @return 0, or anything else to fail: what was written is then the message
 */
typedef int (*tide_task_fn)(tide_output *out, const void *bytes, size_t size,
                            void *data);

struct tide_task {
    const char *name;
    tide_task_fn run;
    void *data;
};

/** Libraries that scripts and workers do not get; of `os` the clock remains. */
enum tide_without {
    TIDE_WITHOUT_IO = 1, /* with it go loadfile and dofile */
    TIDE_WITHOUT_OS = 2,
    TIDE_WITHOUT_PACKAGE = 4, /* with it go require and module */
    TIDE_WITHOUT_DEBUG = 8,   /* with it go getfenv, setfenv, loaded bytecode */
    TIDE_WITHOUT_FFI = 16,    /* with it goes loaded bytecode */
    TIDE_WITHOUT_JIT = 32,
    TIDE_SANDBOX = 63
};

struct tide_start_options {
    size_t size;
    /* Run in every fresh worker, in the mill's own state, and in the one of
     * tide_adopt(). The globals it sets and the modules it loads are found there
     * and not sent. */
    tide_hook_fn hook;
    void *hook_data;
    const struct tide_task *tasks; /* for tide_mill_run() */
    size_t task_count;
    unsigned without; /* TIDE_WITHOUT_*; for mills, not for tide_adopt() */
    /* NULL: fork. Else execute this, found on PATH: "/proc/self/exe" or another
     * program whose main() calls tide_serve(), which then has hook and tasks; or
     * "tidemill", the command, that has those of the shared object `library`, if
     * there is one: it defines tide_start_library(). */
    const char *program;
    const char *library;
};

/** `const struct tide_start_options *tide_start_library(void)` of a `library`. */
typedef const struct tide_start_options *(*tide_start_library_fn)(void);

typedef struct tide_starter tide_starter;

/**
 * Start a supervisor, of which workers are forked: best at the beginning of main(),
 * while the process is small and has one thread. Takes a fraction of a
 * millisecond. What `options` (or NULL) points to is copied, but for what the
 * pointers to data and functions in it point to.
 */
TIDE_API int tide_start(tide_starter **out,
                        const struct tide_start_options *options,
                        struct tide_error *err);

/** End a supervisor that nobody has taken over. NULL is none. */
TIDE_API void tide_stop(tide_starter *starter);

/**
 * To be called first in the main() of a program that names itself as `program`.
 * Returns at once, unless the program was executed as a supervisor: then it is
 * one, and does not return.
 */
TIDE_API void tide_serve(int argc, char **argv,
                         const struct tide_start_options *options);

/**
 * Have the pools of a state of one's own use a starter, and run its hook in it.
 * Before luaopen_tidemill(). The starter is gone from now on, also if this fails.
 */
TIDE_API int tide_adopt(struct lua_State *L, tide_starter *starter,
                        struct tide_error *err);

/**
 * Open the module `tidemill` in a LuaJIT state: a lua_CFunction for
 * package.preload["tidemill"], and what `require "tidemill"` finds in the shared
 * object.
 *
 * Forks the supervisor if the state has none: call it early, while the process is
 * small, and from the thread that will use the state. The state must be closed
 * with lua_close() for the workers to end at once; they end in any case when the
 * process does.
 *
 * @return 1, the module on the stack; raises a Lua error if the supervisor cannot
 *         be forked
 */
TIDE_API int luaopen_tidemill(struct lua_State *L);

#ifdef __cplusplus
}
#endif

#include "tidemill_mill.h"

#endif
