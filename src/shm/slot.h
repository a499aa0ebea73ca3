/**
 * @file slot.h
 * @brief One chunk of work, as it lies in shared memory.
 *
 * What the request and reply bytes mean is the business of the rooms above; who
 * may write what and when is told in board.h.
 */
#ifndef TIDE_SHM_SLOT_H
#define TIDE_SHM_SLOT_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

enum {
    TIDE_ARGS_BYTES = 16,   /* arguments this small are in the slot, */
    TIDE_RESULT_BYTES = 24, /* and results this small */
    TIDE_LINE = 64
};

/** In `form`: the arguments are in a block of the host's region. */
#define TIDE_REQUEST_BLOCK UINT16_C(0x8000)

/** In `form`: the result is in a block of the worker's region. */
#define TIDE_REPLY_BLOCK UINT32_C(0x80000000)

enum tide_slot_state {
    TIDE_SLOT_FREE,
    TIDE_SLOT_READY,
    TIDE_SLOT_CLAIMED,
    TIDE_SLOT_DONE,
    TIDE_SLOT_LOST
};

struct tide_request {    /* written by the host while the slot is FREE */
    uint64_t function;   /* block that says what to run */
    uint64_t stream;     /* of random numbers, of item 0; 0 for none */
    uint32_t length;     /* of the arguments, in bytes */
    uint32_t timeout_ms; /* an item may take; 0 for ever */
    uint16_t form; /* TIDE_REQUEST_BLOCK and what the rooms above define */
    uint16_t flags;
    uint32_t first; /* items [first, count) of the arguments are to be run */
    uint32_t count;
    uint32_t origin; /* of item 0 in its job, modulo 2^32 */
    union {
        uint64_t offset;
        unsigned char bytes[TIDE_ARGS_BYTES];
    } args;
};

struct tide_reply { /* written by the worker while the slot is CLAIMED */
    uint32_t hand;  /* the item being run; those before it are complete */
    uint32_t next;  /* link of the done stack, only after DONE */
    uint32_t form;  /* TIDE_REPLY_BLOCK and what the rooms above define */
    uint32_t mark;
    uint64_t start_ns; /* when the slot was claimed */
    uint64_t end_ns;   /* when it was finished */
    uint64_t length;
    union {
        uint64_t offset;
        unsigned char bytes[TIDE_RESULT_BYTES];
    } result;
};

struct tide_slot {
    alignas(TIDE_LINE) _Atomic uint64_t word; /* state, owner, sequence */
    struct tide_request request;
    alignas(TIDE_LINE) struct tide_reply reply;
};

#endif
