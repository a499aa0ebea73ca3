/**
 * @file arena.h
 * @brief One anonymous, sparse, shared mapping that processes talk through.
 *
 * It has no name in the file system, so nothing can be left behind; it costs
 * the pages that were touched, not its size. Processes map it at different
 * addresses: what is stored in it are offsets, 0 meaning "none".
 */
#ifndef TIDE_SHM_ARENA_H
#define TIDE_SHM_ARENA_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct tide_arena {
    unsigned char *base;
    size_t size;
    int fd; /* close-on-exec, above 2; -1 where it is attached */
    uint64_t device, inode;  /* of what `fd` is to be */
    struct tide_arena *next; /* of those that this process created */
};

/**
 * Create and map an arena.
 *
 * @param name  shown where the system lists mappings, for people
 * @param size  bytes, a multiple of the page size
 * @return TIDE_OK; TIDE_ESYS where the system refuses the memory object or the
 *         mapping (a caller may try again with less)
 */
int tide_arena_create_named(struct tide_arena *arena, const char *name,
                            size_t size, struct tide_error *err);

/** The same, of a pool. It stays where it is in memory, until it is destroyed. */
int tide_arena_create(struct tide_arena *arena, size_t size,
                      struct tide_error *err);

/** Map the arena behind `fd`, which stays the caller's and is not kept. */
int tide_arena_attach(struct tide_arena *arena, int fd, size_t size,
                      struct tide_error *err);

/** The descriptor of an attached arena, above 2: from now on it is the arena's. */
void tide_arena_keep(struct tide_arena *arena, int fd);

/** Is its descriptor open, and still its own? */
int tide_arena_has_fd(const struct tide_arena *arena);

/** Bytes of memory it takes now; 0 if that cannot be told. */
uint64_t tide_arena_resident(const struct tide_arena *arena);

/**
 * In a forked child: unmap all arenas that its maker created, whose memory it would
 * keep. Pools that it has copies of must not be used any more.
 */
void tide_arena_leave_all(void);

/** Unmap and close. The memory is gone when the last process has done so. */
void tide_arena_destroy(struct tide_arena *arena);

/**
 * Copy to [offset, offset + size) by way of the descriptor. Where there are no
 * pages yet that takes half the time of a copy to the mapping: the system makes
 * each with the bytes in it, without a zeroed page and a fault before.
 *
 * @return how many bytes were written, from the first on; 0 without the descriptor,
 *         or where the system or a limit on file sizes is against it
 */
size_t tide_arena_write(const struct tide_arena *arena, uint64_t offset,
                        const void *bytes, size_t size);

/** Give the whole pages in [offset, offset + size) back; they read as zero. */
void tide_arena_punch(const struct tide_arena *arena, uint64_t offset,
                      size_t size);

/** Is [offset, offset + size) inside the arena? */
static inline int tide_arena_holds(const struct tide_arena *arena,
                                   uint64_t offset, uint64_t size)
{
    return offset <= arena->size && size <= arena->size - offset;
}

#endif
