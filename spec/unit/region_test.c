/*
 * The region allocator: what it promises to its owner, and what it keeps of that
 * when the owner is killed at any instant.
 *
 * The layout of a block's header is repeated here on purpose: a walk that is
 * written a second time finds what the first one misses.
 */
#include "check.h"
#include "shm/board.h"
#include "shm/board_worker.h"
#include "shm/region.h"
#include "step.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, FIRST = PAGE, HEADER = 16 };

enum state { FREE = 1, FREE_COLD, USED, GIVEN };

struct header {
    uint32_t class_index;
    uint32_t state;
    uint64_t next;
};

static struct tide_arena arena;
static struct tide_region *region;

static void open_arena(uint64_t bytes)
{
    struct tide_error err;
    CHECK(tide_arena_create(&arena, (size_t)bytes, &err) == TIDE_OK);
    region = (void *)arena.base;
    tide_region_init(region, FIRST, bytes);
}

static const struct header *header_at(const struct tide_arena *in, uint64_t at)
{
    return (const void *)(in->base + at);
}

static uint64_t bytes_of(const struct header *header)
{
    uint32_t index = header->class_index;
    return (uint64_t)(4 + index % 4) << (index / 4 + 4);
}

/* ---- a private heap ---- */

static uint64_t capacity_for(uint64_t size)
{
    struct tide_heap heap;
    tide_region_init(region, FIRST, arena.size);
    tide_heap_open(&heap, &arena, region);
    uint64_t offset = tide_heap_alloc(&heap, size);
    return offset ? tide_block_capacity(&arena, offset) : 0;
}

static void check_size(uint64_t size)
{
    uint64_t capacity = capacity_for(size);
    CHECK(capacity >= size);
    CHECK(capacity + HEADER <= (size + HEADER) * 5 / 4 + 64);
    CHECK(capacity_for(capacity) == capacity);
    CHECK(capacity_for(capacity + 1) > capacity);
    CHECK((capacity + HEADER) % 16 == 0);
}

static void test_classes(void)
{
    check_begin("classes");
    open_arena(UINT64_C(1) << 42);
    for (uint64_t size = 0; size < 3000; size++)
        check_size(size);
    for (unsigned power = 6; power < 40; power++)
        for (uint64_t quarter = 4; quarter < 8; quarter++)
            for (uint64_t off = 0; off < 40; off++)
                check_size((quarter << (power - 2)) + off - 20 + 10);
    CHECK(capacity_for(UINT64_MAX) == 0);
    CHECK(capacity_for(UINT64_MAX - HEADER) == 0);
    CHECK(capacity_for(arena.size) == 0);
    CHECK(capacity_for(arena.size - FIRST) == 0);
    tide_arena_destroy(&arena);
}

struct piece {
    uint64_t offset;
    uint64_t size;
    unsigned char mark;
};

static void fill(const struct piece *piece)
{
    memset(arena.base + piece->offset, piece->mark, piece->size);
}

static void check_filled(const struct piece *piece)
{
    const unsigned char *bytes = arena.base + piece->offset;
    for (uint64_t i = 0; i < piece->size; i++)
        CHECK(bytes[i] == piece->mark);
}

static uint64_t random_size(void)
{
    return check_random(1u << (4 + check_random(12)));
}

/* Every live piece is filled with its mark; an overlap shows as another mark. */
static void test_random(void)
{
    enum { PIECES = 300 };
    struct piece pieces[PIECES] = { { 0 } };
    struct tide_heap heap;
    unsigned failures = 0;
    check_begin("random");
    open_arena(4 << 20);
    tide_heap_open(&heap, &arena, region);
    for (unsigned i = 0; i < 200 * 1000; i++) {
        struct piece *piece = &pieces[check_random(PIECES)];
        if (piece->offset != 0) {
            check_filled(piece);
            if (check_random(2))
                tide_heap_free(&heap, piece->offset);
            else
                tide_region_return(&arena, region, piece->offset);
            piece->offset = 0;
            continue;
        }
        piece->size = random_size();
        piece->mark = (unsigned char)check_random(256);
        piece->offset = tide_heap_alloc(&heap, piece->size);
        tide_heap_settle(&heap);
        failures += piece->offset == 0;
        if (piece->offset == 0)
            continue;
        CHECK(piece->offset % 16 == 0);
        CHECK(piece->offset > region->first);
        CHECK(piece->offset + piece->size <= region->end);
        CHECK(tide_block_capacity(&arena, piece->offset) >= piece->size);
        fill(piece);
        if (check_random(1000) == 0)
            tide_heap_open(&heap, &arena, region); /* as after a death */
    }
    CHECK(failures < 20 * 1000);
    tide_arena_destroy(&arena);
}

static void test_exhaustion(void)
{
    enum { MOST = 4096 };
    static uint64_t offsets[MOST];
    struct tide_heap heap;
    check_begin("exhaustion");
    open_arena(FIRST + (1 << 20));
    tide_heap_open(&heap, &arena, region);
    for (int round = 0; round < 3; round++) {
        unsigned count = 0;
        while ((offsets[count] = tide_heap_alloc(&heap, 1000)) != 0)
            count++;
        CHECK(count == (1 << 20) / 1024);
        CHECK(tide_heap_alloc(&heap, 0) == 0);
        for (unsigned i = 0; i < count; i++) {
            if (round == 1)
                tide_region_return(&arena, region, offsets[i]);
            else
                tide_heap_free(&heap, offsets[i]);
        }
        /* Blocks are not joined, but a smaller request takes a larger one. */
        CHECK(tide_heap_alloc(&heap, 100 * 1000) == 0);
        uint64_t small = tide_heap_alloc(&heap, 10);
        CHECK(small != 0);
        tide_heap_free(&heap, small);
        tide_heap_free(&heap, 0);
    }
    tide_arena_destroy(&arena);
}

static uint64_t arena_pages_bytes(void)
{
    struct stat info;
    CHECK(fstat(arena.fd, &info) == 0);
    return (uint64_t)info.st_blocks * 512;
}

static void test_pages(void)
{
    enum { COUNT = 60 };
    const uint64_t size = 3 << 20;
    uint64_t offsets[COUNT];
    struct tide_heap heap;
    check_begin("pages");
    open_arena(UINT64_C(1) << 30);
    tide_heap_open(&heap, &arena, region);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < COUNT; i++) {
            offsets[i] = tide_heap_alloc(&heap, size);
            CHECK(offsets[i] != 0);
            memset(arena.base + offsets[i], 1, size);
        }
        CHECK(arena_pages_bytes() >= COUNT * size);
        for (int i = 0; i < COUNT; i++)
            tide_region_return(&arena, region, offsets[i]);
        tide_heap_free(&heap, tide_heap_alloc(&heap, 1));
        CHECK(arena_pages_bytes() <= (128 << 20) + COUNT * 2 * PAGE);
    }
    CHECK(atomic_load(&region->top) < 2 * COUNT * size); /* blocks are reused */
    tide_arena_destroy(&arena);
}

/* A wild owner's links lead the supervisor neither astray nor in a circle. */
static void test_scribbled(void)
{
    struct tide_heap heap;
    check_begin("scribbled");
    open_arena(1 << 20);
    tide_heap_open(&heap, &arena, region);
    uint64_t a = tide_heap_alloc(&heap, 100);
    uint64_t b = tide_heap_alloc(&heap, 100);
    const uint64_t wild[] = {
        1, 8, UINT64_MAX - 7, arena.size, arena.size - 8, 1 << 30
    };
    for (size_t i = 0; i < sizeof wild / sizeof wild[0]; i++) {
        atomic_store(&region->pending, wild[i]);
        tide_region_settle(&arena, region, 0);
        CHECK(atomic_load(&region->pending) == 0);
        atomic_store(&region->pending, a - HEADER);
        atomic_store(&region->returned, wild[i]);
        tide_region_settle(&arena, region, 0);
        CHECK(tide_block_capacity(&arena, wild[i]) == 0);
    }
    ((struct header *)(void *)(arena.base + b - HEADER))->next = b - HEADER;
    atomic_store(&region->returned, b - HEADER);
    atomic_store(&region->pending, a - HEADER);
    tide_region_settle(&arena, region, 0);
    CHECK(tide_block_capacity(&arena, a) >= 100); /* it stayed as it was */
    tide_arena_destroy(&arena);
}

/* ---- audit: is every block in exactly one place? ---- */

enum { SLOTS = 8, BLOCKS = 1 << 14 };

struct shared {
    _Atomic uint32_t hand;  /* the slot that the owner works at */
    _Atomic uint32_t pause; /* asks the consumer to hold still */
    _Atomic uint32_t paused;
    _Atomic uint32_t stop;
    _Atomic uint64_t consumed;
    _Atomic uint64_t opened; /* owners that have got to work */
    struct tide_slot slots[SLOTS];
};

static struct shared *shared;

static int holds_block(const struct tide_slot *slot, uint64_t at)
{
    uint32_t state = (uint32_t)atomic_load(&slot->word);
    return state != TIDE_SLOT_FREE &&
           (slot->reply.form & TIDE_REPLY_BLOCK) != 0 &&
           slot->reply.result.offset == at + HEADER;
}

/* Blocks on the return stack, each once. */
static unsigned count_returned(const struct tide_arena *in,
                               const struct tide_region *from)
{
    unsigned count = 0;
    uint64_t at = atomic_load(&from->returned);
    for (; at != 0; at = header_at(in, at)->next) {
        CHECK(header_at(in, at)->state == GIVEN);
        CHECK(++count < BLOCKS);
    }
    return count;
}

/* A used block is in one slot, a given one on the stack, the others are free. */
static void audit(const struct tide_arena *in, const struct tide_region *of,
                  const struct tide_slot *slots)
{
    unsigned given = 0;
    unsigned used = 0;
    unsigned in_slots = 0;
    for (uint64_t at = of->first; at < atomic_load(&of->top);) {
        const struct header *header = header_at(in, at);
        unsigned holders = 0;
        for (int i = 0; i < SLOTS; i++)
            holders += holds_block(&slots[i], at) != 0;
        CHECK(header->state >= FREE && header->state <= GIVEN);
        CHECK(holders == (header->state == USED));
        used += header->state == USED;
        given += header->state == GIVEN;
        at += bytes_of(header);
    }
    for (int i = 0; i < SLOTS; i++)
        in_slots += (uint32_t)atomic_load(&slots[i].word) != TIDE_SLOT_FREE &&
                    (slots[i].reply.form & TIDE_REPLY_BLOCK) != 0;
    CHECK(in_slots == used);
    CHECK(given == count_returned(in, of));
}

/* What the supervisor does for a dead owner. */
static void reclaim(const struct tide_arena *in, struct tide_region *of,
                    struct tide_slot *slots, uint32_t hand)
{
    struct tide_slot *slot = &slots[hand];
    uint64_t published = 0;
    int claimed = (uint32_t)atomic_load(&slot->word) == TIDE_SLOT_CLAIMED;
    if (claimed && (slot->reply.form & TIDE_REPLY_BLOCK) != 0)
        published = slot->reply.result.offset;
    tide_region_settle(in, of, published);
    if (claimed)
        atomic_store(&slot->word, TIDE_SLOT_LOST);
}

/* ---- the owner ---- */

static void write_marks(uint64_t offset)
{
    uint64_t capacity = tide_block_capacity(&arena, offset);
    memcpy(arena.base + offset, &offset, sizeof offset);
    memcpy(arena.base + offset + capacity - sizeof offset, &offset,
           sizeof offset);
}

/* Fill one slot: a reply that may grow from block to block, as workers do. */
static void fill_slot(struct tide_heap *heap, uint32_t index)
{
    struct tide_slot *slot = &shared->slots[index];
    uint64_t size = random_size();
    slot->reply.form = 0;
    atomic_store(&shared->hand, index);
    atomic_store(&slot->word, TIDE_SLOT_CLAIMED);
    for (uint32_t blocks = check_random(5); blocks > 0; blocks--) {
        uint64_t offset = tide_heap_alloc(heap, size);
        if (offset == 0)
            break;
        write_marks(offset);
        tide_board_publish(slot, heap, offset);
        size += size / 2 + 1;
    }
    if (check_random(4) == 0)
        tide_heap_free(heap, tide_heap_alloc(heap, random_size()));
    atomic_store(&slot->word, TIDE_SLOT_DONE);
}

static int find_slot(uint32_t *out, uint32_t state)
{
    uint32_t from = check_random(SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++) {
        *out = (from + i) % SLOTS;
        if ((uint32_t)atomic_load(&shared->slots[*out].word) == state)
            return 1;
    }
    return 0;
}

static _Noreturn void own(uint64_t seed)
{
    struct tide_heap heap;
    uint32_t index;
    check_reseed(seed);
    tide_heap_open(&heap, &arena, region);
    atomic_fetch_add(&shared->opened, 1);
    for (;;)
        if (find_slot(&index, TIDE_SLOT_FREE))
            fill_slot(&heap, index);
        else
            sched_yield();
}

/* ---- the consumer ---- */

static void consume(uint32_t index)
{
    struct tide_slot *slot = &shared->slots[index];
    uint64_t offset = slot->reply.result.offset;
    int lost = (uint32_t)atomic_load(&slot->word) == TIDE_SLOT_LOST;
    if ((slot->reply.form & TIDE_REPLY_BLOCK) != 0) {
        uint64_t mark[2];
        uint64_t capacity = tide_block_capacity(&arena, offset);
        CHECK(capacity > 0);
        memcpy(&mark[0], arena.base + offset, sizeof mark[0]);
        memcpy(&mark[1], arena.base + offset + capacity - sizeof mark[1],
               sizeof mark[1]);
        CHECK(lost || (mark[0] == offset && mark[1] == offset));
        memset(arena.base + offset, 0, sizeof mark[0]);
        atomic_store(&slot->word, TIDE_SLOT_FREE);
        tide_region_return(&arena, region, offset);
    } else {
        atomic_store(&slot->word, TIDE_SLOT_FREE);
    }
    atomic_fetch_add(&shared->consumed, 1);
}

static _Noreturn void consume_all(uint64_t seed)
{
    uint32_t index;
    check_reseed(seed);
    while (!atomic_load(&shared->stop)) {
        while (atomic_load(&shared->pause) && !atomic_load(&shared->stop)) {
            atomic_store(&shared->paused, 1);
            sched_yield();
        }
        atomic_store(&shared->paused, 0);
        if (find_slot(&index, TIDE_SLOT_DONE) ||
            find_slot(&index, TIDE_SLOT_LOST))
            consume(index);
        else
            sched_yield();
    }
    _exit(EXIT_SUCCESS);
}

/* ---- kills ---- */

static void check_alive(pid_t pid)
{
    CHECK(waitpid(pid, NULL, WNOHANG) == 0);
}

static void kill_one_owner(pid_t consumer)
{
    uint64_t seed = check_random64();
    uint64_t before = atomic_load(&shared->opened);
    int status;
    pid_t owner = fork();
    CHECK(owner >= 0);
    if (owner == 0)
        own(seed);
    if (check_random(8) != 0) /* else it dies at any point of its start */
        CHECK_SOON(atomic_load(&shared->opened) != before);
    check_spin(check_random(300 * 1000));
    kill(owner, SIGKILL);
    CHECK(waitpid(owner, &status, 0) == owner);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    reclaim(&arena, region, shared->slots, atomic_load(&shared->hand));

    check_alive(consumer);
    atomic_store(&shared->pause, 1);
    CHECK_SOON(atomic_load(&shared->paused));
    audit(&arena, region, shared->slots);
    atomic_store(&shared->pause, 0);
    CHECK_SOON(!atomic_load(&shared->paused));
}

static void open_shared(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
}

static void test_kills(void)
{
    int status;
    check_begin("kills");
    open_arena(4 << 20);
    open_shared();
    pid_t consumer = fork();
    CHECK(consumer >= 0);
    if (consumer == 0) {
        alarm(0);
        consume_all(check_seed);
    }
    for (unsigned i = 0; i < check_rounds; i++) {
        alarm(CHECK_WATCHDOG_S);
        kill_one_owner(consumer);
    }
    atomic_store(&shared->stop, 1);
    CHECK(waitpid(consumer, &status, 0) == consumer && status == 0);
    printf("kills: %u, %" PRIu64 " slots consumed\n", check_rounds,
           atomic_load(&shared->consumed));
    munmap(shared, sizeof *shared);
    tide_arena_destroy(&arena);
}

/* ---- every instant ---- */

static struct tide_arena copy;

static void step_owner(void *unused)
{
    struct tide_heap heap;
    uint32_t index;
    (void)unused;
    tide_heap_open(&heap, &arena, region);
    step_mark();
    for (int filled = 0; filled < 12;) {
        if (find_slot(&index, TIDE_SLOT_FREE)) {
            fill_slot(&heap, index);
            filled++;
        }
    }
    step_mark();
}

/* Reclaim and audit a copy: the process goes on in the original, where now and
 * then something is consumed between two of its instructions. */
static void look(void *unused)
{
    static struct tide_slot slots[SLOTS];
    struct tide_region *of = (void *)copy.base;
    uint32_t index;
    (void)unused;
    memcpy(copy.base, arena.base, (size_t)atomic_load(&region->top));
    memcpy(slots, shared->slots, sizeof slots);
    reclaim(&copy, of, slots, atomic_load(&shared->hand));
    audit(&copy, of, slots);
    if (check_random(100) == 0 && find_slot(&index, TIDE_SLOT_DONE))
        consume(index);
}

static void test_every_instant(void)
{
    struct tide_error err;
    unsigned steps = 0;
    check_begin("every instant");
    open_arena(1 << 20);
    open_shared();
    CHECK(tide_arena_create(&copy, arena.size, &err) == TIDE_OK);
    for (unsigned i = 0; i < check_rounds / 100 + 1; i++) {
        alarm(CHECK_WATCHDOG_S);
        memset(shared, 0, sizeof *shared);
        tide_region_init(region, FIRST, FIRST + (1 << 18));
        check_random64(); /* the child's choices */
        unsigned taken = step_through(step_owner, look, NULL);
        if (taken == 0) {
            printf("every instant: skipped, tracing is not possible\n");
            break;
        }
        steps += taken;
    }
    printf("every instant: %u\n", steps);
    munmap(shared, sizeof *shared);
    tide_arena_destroy(&copy);
    tide_arena_destroy(&arena);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 300);
    test_classes();
    test_random();
    test_exhaustion();
    test_pages();
    test_scribbled();
    test_every_instant();
    test_kills();
    return EXIT_SUCCESS;
}
