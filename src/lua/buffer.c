#include "lua/buffer.h"

#include "base/fault.h"
#include "base/pages.h"

#include <stdlib.h>

enum { SMALLEST_BYTES = 256 };

size_t tide_buffer_next(const struct tide_buffer *buffer, size_t need)
{
    size_t capacity = buffer->capacity * 2;
    if (capacity < SMALLEST_BYTES)
        capacity = SMALLEST_BYTES;
    return capacity < need ? need : capacity;
}

static int grow_private(struct tide_buffer *buffer, size_t need)
{
    size_t capacity = tide_buffer_next(buffer, need);
    unsigned char *data =
        TIDE_FAULT(CODEC_MALLOC) ? NULL : realloc(buffer->data, capacity);
    if (data == NULL)
        return -1;
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

void tide_buffer_put_large(struct tide_buffer *buffer, const void *bytes,
                           size_t size)
{
    unsigned char *at = buffer->data + buffer->used;
    if (buffer->fill != NULL) {
        buffer->fill(buffer, bytes, size);
    } else {
        tide_pages_make(at, size);
        memcpy(at, bytes, size);
    }
    buffer->used += size;
}

void tide_buffer_init(struct tide_buffer *buffer)
{
    *buffer = (struct tide_buffer){ .grow = grow_private };
}

void tide_buffer_free(struct tide_buffer *buffer)
{
    free(buffer->data);
    tide_buffer_init(buffer);
}
