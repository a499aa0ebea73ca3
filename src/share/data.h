/**
 * @file data.h
 * @brief Objects that are data: a value or many of one C type, with a lock.
 *
 * The body is a head, the name of the type, and the elements from a cache line on. What
 * the type is matters to the rooms above; here it is a name and a size.
 */
#ifndef TIDE_SHARE_DATA_H
#define TIDE_SHARE_DATA_H

#include "share/object.h"

/** What a body begins with; constant but for the lock. */
struct tide_data {
    pthread_mutex_t lock; /* robust and recursive */
    uint64_t element_bytes;
    uint64_t rows;     /* of an array 1 */
    uint64_t cols;     /* of an array its length */
    uint64_t elements; /* from the beginning of this */
    uint32_t is_matrix;
    uint32_t name_bytes; /* without the zero at the end */
    char name[];
};

/** What is to be made. */
struct tide_data_plan {
    enum tide_object_kind kind; /* VALUE or ARRAY */
    int is_matrix;
    const char *name;
    size_t name_bytes;
    uint64_t element_bytes;
    uint64_t rows;
    uint64_t cols;
};

/** Make it, zeroed. @return as tide_object_make() */
int tide_data_make(tide_handle *out, const struct tide_data_plan *plan,
                   struct tide_error *err);

/** The first element. */
static inline void *tide_data_elements(struct tide_data *data)
{
    return (unsigned char *)data + data->elements;
}

/**
 * Lock it, once more if it is ours.
 *
 * @return TIDE_OK; TIDE_EABANDONED: locked, but who had it is dead; TIDE_ETIMEOUT
 */
int tide_data_lock(struct tide_data *data, uint64_t deadline_ns);

/** Unlock it. @return TIDE_OK; TIDE_EINVAL if it is not ours */
int tide_data_unlock(struct tide_data *data);

/**
 * A function on elements of a type, as a pointer to be cast: "add" is T (T *, T),
 * which returns the new value; "cas" is bool (T *, T old, T new). Both are atomic.
 * NULL if there is none.
 */
const void *tide_data_function(const char *operation, const char *type);

#endif
