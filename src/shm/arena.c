#include "shm/arena.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int map(struct tide_arena *arena, int fd, struct tide_error *err)
{
    void *base = TIDE_FAULT(ARENA_MAP)
                     ? MAP_FAILED
                     : mmap(NULL, arena->size, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return tide_fail_errno(err, "cannot map %zu bytes", arena->size);
    madvise(base, arena->size, MADV_DONTDUMP); /* only shrinks core files */
    arena->base = base;
    return TIDE_OK;
}

/* Beyond the limit on file sizes ftruncate() and pwrite() raise SIGXFSZ. */
static int is_within_limit(uint64_t end)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || end <= limit.rlim_cur;
}

/* A script may have closed what is not its own, and the number be another's. */
int tide_arena_has_fd(const struct tide_arena *arena)
{
    struct stat file;
    return arena->fd >= 0 && fstat(arena->fd, &file) == 0 &&
           file.st_dev == arena->device && file.st_ino == arena->inode;
}

static void close_descriptor(struct tide_arena *arena)
{
    if (tide_arena_has_fd(arena))
        close(arena->fd);
    arena->fd = -1;
}

static int resize(struct tide_arena *arena, struct tide_error *err)
{
    errno = EFBIG;
    if (TIDE_FAULT(ARENA_SIZE) || !is_within_limit(arena->size) ||
        ftruncate(arena->fd, (off_t)arena->size) != 0)
        return tide_fail_errno(err, "cannot size a memory object to %zu bytes",
                               arena->size);
    /* Were it cut off, whoever has it mapped would die of SIGBUS. */
    fcntl(arena->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return TIDE_OK;
}

int tide_arena_create_named(struct tide_arena *arena, const char *name,
                            size_t size, struct tide_error *err)
{
    *arena = (struct tide_arena){ .size = size, .fd = -1 };
    int fd = TIDE_FAULT(ARENA_CREATE)
                 ? -1
                 : memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return tide_fail_errno(err, "cannot create a memory object");
    struct stat file;
    if (fstat(fd, &file) == 0) {
        arena->device = file.st_dev;
        arena->inode = file.st_ino;
        /* A host started with 0, 1 or 2 closed must not get the arena there. */
        arena->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    }
    close(fd);
    if (arena->fd < 0)
        return tide_fail_errno(err, "cannot create a memory object");
    int status = resize(arena, err);
    if (status == TIDE_OK)
        status = map(arena, arena->fd, err);
    if (status != TIDE_OK)
        close_descriptor(arena);
    return status;
}

/* ---- those of pools ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tide_arena *created;

static void hold_still(void)
{
    pthread_mutex_lock(&lock);
}

static void go_on(void)
{
    pthread_mutex_unlock(&lock);
}

/* No fork meets the list half changed by another thread. */
static void watch_forks(void)
{
    pthread_atfork(hold_still, go_on, go_on);
}

int tide_arena_create(struct tide_arena *arena, size_t size,
                      struct tide_error *err)
{
    int status = tide_arena_create_named(arena, "tidemill", size, err);
    if (status != TIDE_OK)
        return status;
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
    pthread_mutex_lock(&lock);
    arena->next = created;
    created = arena;
    pthread_mutex_unlock(&lock);
    return TIDE_OK;
}

static void forget(const struct tide_arena *arena)
{
    pthread_mutex_lock(&lock);
    struct tide_arena **at = &created;
    while (*at != NULL && *at != arena)
        at = &(*at)->next;
    if (*at != NULL)
        *at = arena->next;
    pthread_mutex_unlock(&lock);
}

/* Only the mappings: descriptors are closed by whoever is forked. */
void tide_arena_leave_all(void)
{
    for (struct tide_arena *arena = created; arena; arena = arena->next) {
        munmap(arena->base, arena->size);
        arena->base = NULL;
    }
    created = NULL;
}

int tide_arena_attach(struct tide_arena *arena, int fd, size_t size,
                      struct tide_error *err)
{
    *arena = (struct tide_arena){ .size = size, .fd = -1 };
    return map(arena, fd, err);
}

void tide_arena_keep(struct tide_arena *arena, int fd)
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        return;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    arena->device = file.st_dev;
    arena->inode = file.st_ino;
    arena->fd = fd;
}

uint64_t tide_arena_resident(const struct tide_arena *arena)
{
    const uint64_t stat_block_bytes = 512;
    struct stat file;
    if (!tide_arena_has_fd(arena) || fstat(arena->fd, &file) != 0)
        return 0;
    return (uint64_t)file.st_blocks * stat_block_bytes;
}

void tide_arena_destroy(struct tide_arena *arena)
{
    forget(arena);
    if (arena->base != NULL)
        munmap(arena->base, arena->size);
    arena->base = NULL;
    close_descriptor(arena);
}

size_t tide_arena_write(const struct tide_arena *arena, uint64_t offset,
                        const void *bytes, size_t size)
{
    const char *from = bytes;
    size_t written = 0;
    if (!tide_arena_has_fd(arena) || !is_within_limit(offset + size))
        return 0;
    while (written < size) {
        ssize_t count = pwrite(arena->fd, from + written, size - written,
                               (off_t)(offset + written));
        if (count > 0)
            written += (size_t)count;
        else if (count == 0 || errno != EINTR)
            break;
    }
    return written;
}

void tide_arena_punch(const struct tide_arena *arena, uint64_t offset,
                      size_t size)
{
    const uint64_t page = 4096;
    uint64_t from = (offset + page - 1) & ~(page - 1);
    uint64_t to = (offset + size) & ~(page - 1);
    if (to > from)
        madvise(arena->base + from, to - from, MADV_REMOVE);
}
