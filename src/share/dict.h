/**
 * @file dict.h
 * @brief A dictionary among processes: keys and values are bytes.
 *
 * The caller holds the object (object.h). Looks and changes are inside a guard, of
 * the part of the dictionary that a key belongs to, for as long as it takes to copy a
 * value. A process killed at any instant leaves each key with its old value or its
 * new one.
 *
 * An update takes longer, since somebody else computes the new value: meanwhile the
 * key is owned by that process. Others can look at it, with its old value; to change
 * it they wait. If the owner dies the old value stays.
 */
#ifndef TIDE_SHARE_DICT_H
#define TIDE_SHARE_DICT_H

#include "share/load.h"
#include "share/waiters.h"

/** Say what happens to dictionaries at a death; before the process enters. */
void tide_dict_define(void);

int tide_dict_make(tide_handle *out, struct tide_error *err);

struct tide_dict_key {
    const unsigned char *bytes;
    uint32_t length;
    uint64_t hash;
};

/** A key of these bytes, which stay the caller's. */
struct tide_dict_key tide_dict_key_of(const void *bytes, size_t length);

/** Where a copy of a value, and a key, goes to. */
struct tide_dict_copy {
    unsigned char *room;
    size_t room_bytes;
    size_t needed; /* out: what the copy took, or would have taken */
    struct tide_message message; /* out: in the room */
    const unsigned char *key;    /* out, of tide_dict_next(): in the room */
    uint32_t key_length;
};

/**
 * Copy the value of a key. The objects that it names are held once for the caller.
 *
 * @return TIDE_OK; TIDE_EAGAIN: there is none; TIDE_ENOMEM: `needed` is more than
 *         there is room for
 */
int tide_dict_get(tide_handle handle, const struct tide_dict_key *key,
                  struct tide_dict_copy *out);

/**
 * Give a key a value, or none (NULL).
 *
 * @return TIDE_OK; TIDE_EAGAIN: it is another's, wait; TIDE_ENOMEM
 */
int tide_dict_set(tide_handle handle, const struct tide_dict_key *key,
                  const struct tide_message *message);

/**
 * Make a key ours, and copy its value.
 *
 * @param has_value  0: there is none
 * @return TIDE_OK; TIDE_EAGAIN: it is another's, wait; TIDE_EINVAL: it is ours
 *         already; TIDE_ENOMEM: no memory, or as tide_dict_get(), and it is not ours
 */
int tide_dict_begin(tide_handle handle, const struct tide_dict_key *key,
                    struct tide_dict_copy *out, int *has_value);

/** Give our key a value, or none, and back. @return as tide_dict_set() */
int tide_dict_commit(tide_handle handle, const struct tide_dict_key *key,
                     const struct tide_message *message);

/** Give our key back as it is. */
void tide_dict_abort(tide_handle handle, const struct tide_dict_key *key);

/**
 * Wait until a key that was another's may be free: try again after TIDE_OK.
 *
 * @return as tide_wait_rest()
 */
int tide_dict_wait(struct tide_wait *wait);

/** A place in the order of keys. All zero: before the first. */
struct tide_dict_place {
    uint32_t part;
    uint64_t order;
};

/**
 * Copy the next key after a place and the key `after` there, with its value.
 *
 * Keys that are there all the time come once each; others may come or not.
 *
 * @param after  the last one's; NULL at the beginning
 * @return as tide_dict_get(); TIDE_EAGAIN: there is no other
 */
int tide_dict_next(tide_handle handle, struct tide_dict_place *place,
                   const struct tide_dict_key *after,
                   struct tide_dict_copy *out);

/** How many keys have a value. */
uint64_t tide_dict_count(tide_handle handle);

#endif
