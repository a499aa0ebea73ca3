/**
 * @file decoder.h
 * @brief What the files of the decoder share. Not for others: see codec.h.
 */
#ifndef TIDE_LUA_DECODER_H
#define TIDE_LUA_DECODER_H

#include "lua/codec.h"
#include "lua/layout.h"
#include "lua/reader.h"

enum { TIDE_DECODE_SLOTS = 6 /* of the Lua stack, that a level may use */ };

/** One message on its way; see decode.c for the stack from `base` on. */
struct tide_decoder {
    struct tide_codec *codec;
    lua_State *L;
    struct tide_reader in;
    struct tide_error *err;
    int base;
    int depth;
    int numbered;     /* objects are kept by number */
    size_t unclaimed; /* bytes that no table counts on yet, see decode.c */
    uint32_t object_count;
    uint32_t first_cell; /* in the codec's list */
    uint32_t later_count;
    int later;  /* stack index of the numbers of later tables */
    int shapes; /* stack index of keys and model of each shape, in turn */
    uint32_t first_model; /* in the codec's list */
    int refused;          /* by a hook: read on, but nothing will come of it */
};

/** Note why; the first reason counts. Always returns -1. */
int tide_decoder_fail(struct tide_decoder *d, const char *what);
int tide_decoder_fail_bytes(struct tide_decoder *d);

/** Keep the object on top under the next number; returns the number. */
uint32_t tide_decoder_number(struct tide_decoder *d);

/** Go a level deeper, with room on the stack; the caller decrements `depth`. */
int tide_decoder_enter(struct tide_decoder *d);

/** Push a string of TIDE_PAGES_FROM bytes or more. May raise for memory. */
void tide_decoder_push_large(struct tide_decoder *d, const unsigned char *bytes,
                             size_t length);

/** Push one value, for which the caller has room. @return 0, -1 */
int tide_decode_value(struct tide_decoder *d);
/** Fill the fresh table on top: the elements 1 .. `array`, then pairs. */
int tide_decode_fill_direct(struct tide_decoder *d, uint32_t array,
                            uint32_t pairs);
/** Push a record of the shape, which is defined. */
int tide_decode_record_direct(struct tide_decoder *d, uint32_t shape);
/** Store the value on top under key `k` of the shape in the table below it. */
void tide_decode_store_field(struct tide_decoder *d, uint32_t shape, int k);
/** Push the table that follows the tag. */
int tide_decode_numbers(struct tide_decoder *d);
int tide_decode_shape(struct tide_decoder *d);
int tide_decode_shaped(struct tide_decoder *d);
int tide_decode_hooked(struct tide_decoder *d);
int tide_decode_shared(struct tide_decoder *d);
int tide_decode_function(struct tide_decoder *d);

#endif
