/*
 * Messages are written where workers will read them: first into the few bytes of a
 * request, then, as they grow, into larger and larger blocks of the host's region.
 */
#include "lua/job_parts.h"

static int grow(struct tide_buffer *buffer, size_t need)
{
    struct tide_block_buffer *mine = (void *)buffer;
    if (need > UINT32_MAX) /* see struct tide_request */
        return -1;
    uint64_t block =
        tide_pool_alloc(mine->pool, tide_buffer_next(buffer, need));
    if (block == 0)
        return -1;
    buffer->capacity = (size_t)mine->pool->heap.capacity;
    if (buffer->used > 0)
        tide_pool_write(mine->pool, block, buffer->data, buffer->used);
    tide_pool_free_block(mine->pool, mine->block);
    mine->block = block;
    buffer->data = tide_pool_at(mine->pool, block);
    return 0;
}

/* There is room for large data in a block only. */
static void fill(struct tide_buffer *buffer, const void *bytes, size_t size)
{
    struct tide_block_buffer *mine = (void *)buffer;
    tide_pool_write(mine->pool, mine->block + buffer->used, bytes, size);
}

void tide_block_buffer_init(struct tide_block_buffer *out,
                            struct tide_pool *pool, unsigned char *bytes)
{
    *out = (struct tide_block_buffer){ .pool = pool };
    out->buffer = (struct tide_buffer){ .capacity = TIDE_ARGS_BYTES,
                                        .grow = grow,
                                        .fill = fill };
    out->buffer.data = bytes;
}
