/**
 * @file shapes.h
 * @brief Records: tables of pairs whose keys are the same few strings.
 *
 * A table whose keys have been met often enough in a message defines a shape, and
 * those with the same keys after it have no keys in the message, only the shape's
 * number. The encoder knows shapes by where strings are, which does not change
 * while a message is written; the decoder copies the keys from a model.
 */
#ifndef TIDE_LUA_SHAPES_H
#define TIDE_LUA_SHAPES_H

#include <stdint.h>

enum {
    TIDE_SHAPE_KEYS_MAX = 16,
    TIDE_SHAPE_NODES_MAX = 32, /* places of a table of that many pairs */
    TIDE_SHAPES_MAX = 255,     /* of a message */
    TIDE_SHAPE_PLACES = 64,    /* of those an encoder remembers */
    TIDE_SHAPE_FROM = 4        /* the how manieth table defines the shape */
};

/** Keys that the encoder has met, in the order in which a table has them. */
struct tide_shape {
    uint32_t generation; /* the message */
    uint32_t met;
    uint32_t number; /* from TIDE_SHAPE_FROM on */
    uint32_t count;
    uint64_t hash;
    uint64_t keys[TIDE_SHAPE_KEYS_MAX + 1]; /* 0 behind the last */
    /* Where the shape of the last table in each field was found. */
    unsigned char hints[TIDE_SHAPE_KEYS_MAX];
};

struct tide_shapes {
    uint32_t generation;
    struct tide_shape places[TIDE_SHAPE_PLACES]; /* by hash; new ones replace */
};

/** What the decoder needs to make a table of a shape. */
struct tide_model {
    const struct tide_gc_table *table; /* anchored; NULL if not to be copied */
    uint64_t keys[TIDE_SHAPE_KEYS_MAX];
    uint8_t count;
    uint8_t place[TIDE_SHAPE_KEYS_MAX]; /* of each key among the nodes */
};

#endif
