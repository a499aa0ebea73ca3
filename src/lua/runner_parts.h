/**
 * @file runner_parts.h
 * @brief What the files of runner.h share: the stack, items one at a time, and
 *        the ways through a span.
 */
#ifndef TIDE_LUA_RUNNER_PARTS_H
#define TIDE_LUA_RUNNER_PARTS_H

#include "lua/runner.h"

/** The stack of the state; what an item leaves is above AT_FUNCTION. */
enum tide_runner_at {
    TIDE_AT_HANDLER = 1,
    TIDE_AT_FUNCTIONS, /* by id; prototypes by -id; combine functions by id + .5 */
    TIDE_AT_LOOPS,     /* by prototype and kind */
    TIDE_AT_COMBINE, /* of a fold, */
    TIDE_AT_SPARE,   /* and its roots */
    TIDE_AT_FUNCTION
};

/** Count one more entry of the table at `index`; at `limit` it is emptied first. */
void tide_runner_count_entry(lua_State *L, int index, int limit);

/** Everything is in place: items before `item` are complete. */
void tide_runner_advance(struct tide_runner *runner, uint32_t item);

/** The larger buffer that results need at first, `column_bytes` before it. */
int tide_runner_reserve(struct tide_runner *runner);

/** Push item's arguments; their number, or -1 with an error on top. */
int tide_runner_push_args(struct tide_runner *runner, uint32_t item);

/** Run one item; its results are above AT_FUNCTION. -1 with an error on top. */
int tide_runner_call(struct tide_runner *runner, uint32_t item);

/** Append the values above AT_FUNCTION as a message. -1 with an error on top. */
int tide_runner_put_values(struct tide_runner *runner, unsigned head);

/** Write the values above AT_FUNCTION as the item's result. 1: it stops the span. */
int tide_runner_put_results(struct tide_runner *runner, uint32_t item);

/** Write the error on top as the item's result. 1: it stops the span. */
int tide_runner_put_error(struct tide_runner *runner, uint32_t item);

/** Items from `item` on, one at a time. Returns 1 if one stopped the span. */
int tide_runner_run_items(struct tide_runner *runner, uint32_t item);

/** The kinds of compiled loops: see columns.lua. */
enum tide_loop {
    TIDE_LOOP_NUMBER,
    TIDE_LOOP_BOOLEAN,
    TIDE_LOOP_TRUTH,
    TIDE_LOOP_EFFECT,
    TIDE_LOOP_FOLD
};

/** Can a compiled loop run this span? */
int tide_runner_has_columns(const struct tide_runner *runner);

/**
 * Push a loop of this kind, its function and its first arguments: the function,
 * args, results, hand, item, end, origin. `results` may be NULL.
 */
void tide_runner_push_loop(struct tide_runner *runner, enum tide_loop kind,
                           unsigned char *results, uint32_t item);

/** End the column of results before `item`. */
void tide_runner_close_column(struct tide_runner *runner, uint32_t item);

/** Has a limit been reached? Memory is looked at only now and then. */
int tide_runner_look(struct tide_runner *runner);

/** Run a span by a compiled loop. Returns 1 if an item stopped it. */
int tide_runner_run_columns(struct tide_runner *runner);

/** Is the function of the span a task of the host's, its arguments messages? */
int tide_runner_has_task(const struct tide_runner *runner);

/** Run such a span. Returns 1 if an item stopped it. */
int tide_runner_run_tasks(struct tide_runner *runner);

/** Run a span and fold its results. Returns 1 if an item stopped it. */
int tide_runner_run_fold(struct tide_runner *runner);

#endif
