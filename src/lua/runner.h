/**
 * @file runner.h
 * @brief Runs one span of items in a worker's state.
 */
#ifndef TIDE_LUA_RUNNER_H
#define TIDE_LUA_RUNNER_H

#include "lua/codec.h"
#include "lua/form.h"
#include "shm/board.h"

#include <lua.h>

enum { TIDE_KEEPERS_MAX = 16 };

/** When a worker is to make room for a fresh one; 0: never. */
struct tide_worker_limits {
    uint64_t tasks;      /* items it may run */
    uint64_t rss_bytes;  /* private memory it may have between two items, */
    uint64_t born_bytes; /* besides what it began with: a copy, for a start */
};

/** What a worker process runs spans with. */
struct tide_runner {
    lua_State *L;
    struct tide_codec *codec;
    const struct tide_board *board;
    struct tide_heap heap; /* of the worker's region */
    struct tide_worker_limits limits;
    uint64_t tasks_run;
    uint64_t looked_ns;    /* when memory was looked at last */
    uint32_t keeper_count; /* functions in the cache that name shared objects */
    uint64_t keepers[TIDE_KEEPERS_MAX];
    int retires; /* a limit was reached: no further span */

    /* Of the span being run. */
    struct tide_buffer
        out; /* where messages of results go; first, see grow() */
    struct tide_slot *slot;
    struct tide_request request; /* a private copy */
    uint32_t end; /* run items up to here: `request.count`, or fewer */
    enum tide_args_form form;
    const unsigned char *args;
    const unsigned char *args_end;
    size_t column_bytes;  /* before the messages in the reply's block */
    size_t refused_bytes; /* for which there was no room */
};

/** Bind a runner to a state and a region. */
void tide_runner_init(struct tide_runner *runner, lua_State *L,
                      const struct tide_board *board, struct tide_heap heap,
                      const struct tide_worker_limits *limits);

/** Set up the stack of the C function that is to run spans. May raise. */
void tide_runner_enter(struct tide_runner *runner);

/**
 * Run the items of a claimed slot and write its reply. Errors of jobs become
 * results; what raises is only lack of memory outside a job.
 *
 * @return 1 if an item failed and stopped the span: the host wants to know now
 */
int tide_runner_run(struct tide_runner *runner, struct tide_slot *slot);

/**
 * Forget the last span, which may keep shared objects from being collected; and
 * with `functions` every function that names some. Between two spans.
 */
void tide_runner_forget(struct tide_runner *runner, int functions);

/** Make `message` the error of the item in hand, which an error has left. */
void tide_runner_fail(struct tide_runner *runner, const char *message);

#endif
