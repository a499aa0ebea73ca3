/**
 * @file dict_inner.h
 * @brief How a dictionary lies in shared memory. The argument is in dict.c.
 */
#ifndef TIDE_SHARE_DICT_INNER_H
#define TIDE_SHARE_DICT_INNER_H

#include "share/dict.h"
#include "share/guard.h"

#include <stdalign.h>

enum {
    TIDE_DICT_PARTS = 16,
    TIDE_DICT_TABLES = 40,
    TIDE_CELL_BYTES = 22, /* a value this small is in its node */
    TIDE_NODE_UNIT = 16,
    TIDE_NODE_CLASSES = 16 /* of small nodes, by size */
};

/** What is in a list: nodes, and the beginnings of buckets among them. */
struct tide_link {
    _Atomic uint64_t next; /* offset of the next link, or 0 */
    uint64_t order;        /* odd for a node; constant */
};

struct tide_bucket {
    struct tide_link link; /* first */
    _Atomic uint64_t is_linked;
};

struct tide_node {
    struct tide_link link;  /* first */
    _Atomic uint64_t owner; /* incarnation and entry of who updates it, or 0 */
    _Atomic uint64_t value; /* see enum tide_value_form */
    uint32_t key_length;
    unsigned char cells[2][TIDE_CELL_BYTES];
    unsigned char key[];
};

/** The low bits of a value; above them the length in a cell, or the load. */
enum tide_value_form {
    TIDE_VALUE_NONE,
    TIDE_VALUE_CELL_0,
    TIDE_VALUE_CELL_1,
    TIDE_VALUE_LOAD,
    TIDE_VALUE_MASK = 3,
    TIDE_VALUE_SHIFT = 2
};

/** Some of the keys, with a guard of their own. */
struct tide_part {
    alignas(64) struct tide_guard guard;
    _Atomic uint64_t count;                    /* nodes with a value */
    _Atomic uint64_t first;                    /* offset of the first link */
    _Atomic uint32_t bits;                     /* there are 2^bits buckets, */
    _Atomic uint64_t tables[TIDE_DICT_TABLES]; /* and here they are */

    /* Memory for small nodes. */
    _Atomic uint64_t slabs; /* all of them; the first word names the next one */
    _Atomic uint64_t fresh; /* of the last slab, not used yet: from here */
    _Atomic uint64_t fresh_end;               /* to here */
    _Atomic uint64_t free[TIDE_NODE_CLASSES]; /* nodes that were removed */
};

struct tide_dict {
    struct tide_part parts[TIDE_DICT_PARTS];
    struct tide_waiters waiters;
    struct tide_stuck stuck;
};

static inline struct tide_node *tide_node_at(uint64_t offset)
{
    return tide_commons_at(offset);
}

static inline struct tide_part *tide_part_of(struct tide_dict *dict,
                                             uint64_t hash)
{
    return &dict->parts[hash >> 60];
}

/* ---- dict_list.c: all inside the guard ---- */

/** A place in the list of a part. */
struct tide_spot {
    _Atomic uint64_t *from; /* what points there */
    struct tide_node *node; /* the key's own, or NULL */
};

/** The order of keys with this hash. */
uint64_t tide_dict_order(uint64_t hash);

/** Where a key is, or is to be inserted. */
struct tide_spot tide_part_seek(struct tide_part *part, tide_handle handle,
                                const struct tide_dict_key *key);

/** The first node with a value that comes after a key, which need not be there. */
struct tide_node *tide_part_after(struct tide_part *part, tide_handle handle,
                                  const struct tide_dict_key *key);

/** That of the whole part. */
struct tide_node *tide_part_first(struct tide_part *part);

/** Insert a node without a value at a spot. NULL without memory. */
struct tide_node *tide_part_insert(struct tide_part *part, tide_handle handle,
                                   struct tide_spot *spot,
                                   const struct tide_dict_key *key);

/** Take the node at a spot out of the list, and free it. */
void tide_part_remove(struct tide_part *part, struct tide_spot *spot);

/** More keys have a value: have more buckets if that is too many for them. */
void tide_part_grow(struct tide_part *part);

/** How many have a value, counted. */
uint64_t tide_part_recount(struct tide_part *part);

/** Free all nodes and tables. */
void tide_part_free(struct tide_part *part);

#endif
