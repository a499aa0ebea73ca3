/**
 * @file buffer.h
 * @brief A growing run of bytes that does not care where its memory is.
 *
 * The codec writes through it into private memory, into a block of the host's
 * region, or into the reply of a slot; only `grow` knows which.
 */
#ifndef TIDE_LUA_BUFFER_H
#define TIDE_LUA_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tide_buffer {
    unsigned char *data;
    size_t used;
    size_t capacity;
    /**
     * Provide at least `capacity` bytes, the first `used` kept.
     * @return 0, or -1 if there is no memory: the buffer is then unchanged
     */
    int (*grow)(struct tide_buffer *buffer, size_t capacity);
    /** Copy TIDE_PAGES_FROM bytes or more to where room is; may be NULL. */
    void (*fill)(struct tide_buffer *buffer, const void *bytes, size_t size);
};

/** A buffer in private memory; free it with tide_buffer_free(). */
void tide_buffer_init(struct tide_buffer *buffer);
void tide_buffer_free(struct tide_buffer *buffer);

/** The capacity to ask for when `need` bytes are wanted: at least doubling. */
size_t tide_buffer_next(const struct tide_buffer *buffer, size_t need);

/** Append large data, for which there is room. */
void tide_buffer_put_large(struct tide_buffer *buffer, const void *bytes,
                           size_t size);

/** Room for `size` more bytes; returns where they go, NULL without memory. */
static inline unsigned char *tide_buffer_reserve(struct tide_buffer *buffer,
                                                 size_t size)
{
    if (size > buffer->capacity - buffer->used &&
        buffer->grow(buffer, buffer->used + size) != 0)
        return NULL;
    return buffer->data + buffer->used;
}

#endif
