/**
 * @file form.h
 * @brief How arguments and results lie in requests and replies.
 *
 * Arguments (request.form), for all items of a segment:
 *   MESSAGE   one item only: a message
 *   MESSAGES  u32 n, u32 offset[n], messages; offsets from the start of the
 *             arguments
 *   COLUMN    double[count]
 *   RANGE     double first, double step: item i is
 *             first + (request.origin + i) * step
 *
 * Results, for the items [request.first, request.count) as far as they were run:
 *   a column, then messages. The column holds the first results while they are
 *   all numbers or all booleans (reply.form says which, if there is one):
 *     NUMBER   double, BOOLEAN  one byte
 *   of items request.first + 0 .. mark - 1, or up to the item in hand if `mark` is
 *   TIDE_MARK_OPEN. It takes 8 bytes an item of the span, whatever its kind.
 *   Messages follow, `length` bytes of them, one per item.
 *   With FAILED the item in hand raised and nothing after it was run: its error
 *   is the last message. Without, and without a death, a worker may still have
 *   stopped early: the rest is for another.
 *   With EFFECT there is no column, and messages only for items that failed: the
 *   item, then its error.
 *   With FOLD there is no column, and one message for each of the largest aligned
 *   blocks of 2^n items that the items run make up, in their order; aligned by the
 *   item's index in the job. They are there only when the span has ended.
 */
#ifndef TIDE_LUA_FORM_H
#define TIDE_LUA_FORM_H

#include <stdint.h>

enum tide_args_form {
    TIDE_ARGS_MESSAGE,
    TIDE_ARGS_MESSAGES,
    TIDE_ARGS_COLUMN,
    TIDE_ARGS_RANGE
};

/* request.flags */
enum tide_run_flags {
    TIDE_RUN_ALL = 1,    /* every return value, not only the first */
    TIDE_RUN_ON = 2,     /* an error does not stop the span */
    TIDE_RUN_TRUTH = 4,  /* only whether a result is true */
    TIDE_RUN_EFFECT = 8, /* results do not travel */
    TIDE_RUN_FOLD = 16,  /* results are folded */
    TIDE_RUN_SEEDED = 32 /* an item has its own random numbers */
};

/* reply.form, beside TIDE_REPLY_BLOCK */
enum tide_reply_form {
    TIDE_REPLY_NUMBER = 1,
    TIDE_REPLY_BOOLEAN = 2,
    TIDE_REPLY_COLUMN = TIDE_REPLY_NUMBER | TIDE_REPLY_BOOLEAN,
    TIDE_REPLY_FAILED = 4
};

#define TIDE_MARK_OPEN UINT32_MAX

enum { TIDE_COLUMN_BYTES = 8 };

/** At the start of a function block; a message follows. */
struct tide_function_head {
    uint64_t id; /* never used twice in a pool */
    uint64_t length;
};

#endif
