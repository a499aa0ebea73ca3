/**
 * @file tidemill.h
 * @brief Tidemill for C programs: the module for a host's own lua_State.
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
    TIDE_EINIT /* the hook raised an error in a worker */
};

enum { TIDE_ERROR_TEXT_BYTES = 504 };

struct tide_error {
    int status;   /* enum tide_status */
    int os_errno; /* errno of the failed system call, or 0 */
    char text[TIDE_ERROR_TEXT_BYTES]; /* lower case, no full stop */
};

/** The text of a status; never NULL. */
TIDE_API const char *tide_status_text(int status);

/* ---- the module ---- */

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

#endif
