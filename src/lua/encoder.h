/**
 * @file encoder.h
 * @brief What the files of the encoder share. Not for others: see codec.h.
 */
#ifndef TIDE_LUA_ENCODER_H
#define TIDE_LUA_ENCODER_H

#include "lua/codec.h"
#include "lua/layout.h"

#include <string.h>

enum {
    TIDE_LEVEL_SLOTS = 8 /* of the Lua stack, that a level may use */
};

/** One message on its way; see encode.c for the stack from `base` on. */
struct tide_encoder {
    struct tide_codec *codec;
    struct tide_ptrmap *seen; /* objects and cells of the message */
    lua_State *L;
    struct tide_buffer *out;
    unsigned char *limit; /* end of its room, see encode_cursor.h */
    struct tide_error *err;
    int base;
    int depth;
    int hook_depth; /* values made by hooks, within each other */
    int later_count;
    uint32_t object_count;
    uint32_t cell_count;
    uint32_t environment_count; /* that globals were captured from */
    unsigned asked;             /* the head that the caller wants, */
    unsigned head;              /* and what was found to be needed */
    int read_cdata;
    int foreign;       /* shared objects cannot go there */
    int numbers;       /* objects are numbered; else tables are only noted */
    int wants_numbers; /* they are needed: start again, with them */
    struct tide_frame *frame; /* innermost, see encode_direct.c */
    uint32_t shape_generation;
    uint32_t shape_count;
    int runs_hooks;  /* the trial, see encode_passes.c */
    int wants_hooks; /* a hook is needed: start again with a trial */
    int results;     /* stack index of what hooks have returned, or 0 */
    int result_count;
    int stopped_collector;
    int path_is_field; /* the path so far begins with a field */
    char path[TIDE_ERROR_TEXT_BYTES];
    const char *reason;
    char reason_text[96];
};

/* Everything here returns 0, or -1 after noting why; then the levels above add
 * their step to the path. */

/** Note why a value cannot travel. Always returns -1. */
int tide_encoder_fail(struct tide_encoder *e, const char *reason);
int tide_encoder_fail_memory(struct tide_encoder *e);
int tide_encoder_fail_changed(struct tide_encoder *e);

/** Add "KIND 'NAME' of function <FILE:LINE>" to the path. Always returns -1. */
int tide_encoder_at_variable(struct tide_encoder *e, int function,
                             const char *kind, const char *name);

int tide_encoder_put(struct tide_encoder *e, const void *bytes, size_t size);
int tide_encoder_put_byte(struct tide_encoder *e, unsigned byte);
int tide_encoder_put_varint(struct tide_encoder *e, uint64_t value);
/** A tag and a varint. */
int tide_encoder_put_tagged(struct tide_encoder *e, unsigned tag,
                            uint64_t value);

/** Refer to an object seen before (returns 1), or number a new one (0). */
int tide_encoder_refer(struct tide_encoder *e, const void *object);

/** Learn modules loaded since the last message. */
void tide_encoder_refresh_names(struct tide_encoder *e);

/** Add the key at `index` to the path. Always returns -1. */
int tide_encoder_at_key(struct tide_encoder *e, int index);

/** Write the counts of a table to the message, `at` bytes into the buffer. */
static inline void tide_encoder_store_counts(struct tide_encoder *e, size_t at,
                                             int small, uint32_t array,
                                             uint32_t pairs)
{
    unsigned char *counts = e->out->data + at;
    if (small) {
        counts[0] = (unsigned char)array;
        counts[1] = (unsigned char)pairs;
    } else {
        memcpy(counts, &array, sizeof array);
        memcpy(counts + sizeof array, &pairs, sizeof pairs);
    }
}

/** Write the body of the table at `index` later, a mark for it now. */
int tide_encoder_postpone(struct tide_encoder *e, int index);

int tide_encode_name(struct tide_encoder *e, const struct tide_name *name);
int tide_encode_string(struct tide_encoder *e, int index);
/** Write the metatable of the value at `index`, which has one. */
int tide_encode_metatable(struct tide_encoder *e, int index);
/** Write a table or userdata by its hook. @return 1; 0 if it has none; -1 */
int tide_encode_hooked(struct tide_encoder *e, int index);
/** Write the body of a table by the public functions. */
int tide_encode_body(struct tide_encoder *e, int index);
/** The same by the layout, and a table in whichever form suits it. */
int tide_encode_body_direct(struct tide_encoder *e, int index);
int tide_encode_table_direct(struct tide_encoder *e, int index);
int tide_encode_function(struct tide_encoder *e, int index);
/** Write a shared object of the bytes at `index`, and hold it. */
int tide_encode_shared(struct tide_encoder *e, int index);
int tide_encode_value(struct tide_encoder *e, int index);
/** A pass: one message with the `count` values from `first` on. */
int tide_encode_message(struct tide_encoder *e, int first, int count);

/** Might a run of the collector change what is being written? */
int tide_encoder_minds_collector(const struct tide_encoder *e);
/** Call this before whatever might run the collector. */
void tide_encoder_stop_collector(struct tide_encoder *e);

/**
 * Replace the number on top, of a result, by the result. @return 1; 0 if it is no
 * number, and popped
 */
int tide_encoder_result(struct tide_encoder *e);
/** Keep the result on top. @return its number */
double tide_encoder_add_result(struct tide_encoder *e);

/** All passes that take numbers; of the codec's keys. */
int tide_encode_run_passes(lua_State *L);
/** These passes for the `count` values from `first` on, protected. */
int tide_encode_protected(struct tide_encoder *e, int first, int count);

#endif
