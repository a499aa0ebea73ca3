/*
 * Writing to an arena by its descriptor: the mapping has the bytes, whatever was
 * there before; and no file but the arena's is ever written to.
 */
#include "check.h"
#include "shm/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { BYTES = 1 << 20 };

static struct tide_arena arena;
static unsigned char model[BYTES];

static void open_arena(void)
{
    struct tide_error err;
    CHECK(tide_arena_create(&arena, BYTES, &err) == TIDE_OK);
    memset(model, 0, sizeof model);
}

static void test_bytes(void)
{
    static unsigned char bytes[BYTES];
    check_begin("bytes");
    open_arena();
    for (unsigned i = 0; i < check_rounds; i++) {
        uint32_t from = check_random(BYTES);
        uint32_t size = check_random(BYTES - from) >> check_random(16);
        memset(bytes, (int)check_random(256), size);
        memcpy(model + from, bytes, size);
        switch (check_random(4)) {
        case 0:
            memcpy(arena.base + from, bytes, size);
            break;
        case 1: /* zeroes, as those that pages which were given back read as */
            memset(arena.base + from, 0, size);
            memset(model + from, 0, size);
            tide_arena_punch(&arena, from, size);
            break;
        default:
            CHECK(tide_arena_write(&arena, from, bytes, size) == size);
        }
        CHECK(memcmp(arena.base, model, BYTES) == 0);
    }
    tide_arena_destroy(&arena);
}

static void test_limit(void)
{
    struct rlimit old, low;
    check_begin("limit");
    open_arena();
    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0);
    low = old;
    low.rlim_cur = BYTES / 2;
    CHECK(setrlimit(RLIMIT_FSIZE, &low) == 0);
    CHECK(tide_arena_write(&arena, 0, model, BYTES / 2) == BYTES / 2);
    CHECK(tide_arena_write(&arena, 1, model, BYTES / 2) == 0);
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK(tide_arena_write(&arena, 1, model, BYTES / 2) == BYTES / 2);
    tide_arena_destroy(&arena);
}

static void test_descriptor(void)
{
    unsigned char byte = 1;
    check_begin("descriptor");
    int before = check_fd_count();
    open_arena();
    int other = memfd_create("other", MFD_CLOEXEC);
    CHECK(other >= 0);
    CHECK(dup3(other, arena.fd, O_CLOEXEC) == arena.fd);
    CHECK(tide_arena_write(&arena, 0, &byte, 1) == 0);
    CHECK(lseek(other, 0, SEEK_END) == 0);
    CHECK(arena.base[0] == 0);
    int number = arena.fd;
    tide_arena_destroy(&arena);
    CHECK(close(other) == 0 && close(number) == 0); /* it was left open */
    CHECK(check_fd_count() == before);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 300);
    test_bytes();
    test_limit();
    test_descriptor();
    return EXIT_SUCCESS;
}
