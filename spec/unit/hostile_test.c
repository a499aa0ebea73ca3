/*
 * A worker that was taken over: it writes random words wherever it can reach in the
 * arena of its pool, all the while the host and the supervisor work. Neither may
 * crash or hang: each wait of the host ends at its deadline, the supervisor answers,
 * and another pool of the same host does its work without a fault.
 *
 * What the wild pool delivers is not looked at, but it is read to its end: under a
 * sanitizer a read beyond the arena is a failure.
 */
#include "crew.h"
#include "share/commons.h"
#include "shm/board_inner.h"

enum {
    WORKERS = 3,
    SLOTS = 16,
    TURN_MS = 150, /* how long one wild pool is served */
    TAME = 200     /* requests of the other pool meanwhile */
};

enum aim { /* where it writes */
           AT_HEAD,
           AT_RECORDS,
           AT_SLOTS,
           AT_RINGS,
           AT_REGIONS,
           ANYWHERE,
           AIMS
};

struct wild_config {
    uint32_t aim;
    uint32_t gently; /* one word now and then, so that more is gone through */
    uint64_t seed;
};

/* ---- the worker ---- */

struct target {
    uint64_t at;
    uint64_t bytes;
};

static struct target take_aim(const struct tide_board *board,
                              const struct wild_config *config)
{
    const unsigned char *base = board->arena->base;
    const uint64_t records = (uint64_t)((char *)board->workers - (char *)base);
    const uint64_t slots = (uint64_t)((char *)board->slots - (char *)base);
    const uint64_t rings = (uint64_t)((char *)board->ready - (char *)base);
    const uint64_t regions = rings + SLOTS * 24;
    switch (config->aim) {
    case AT_HEAD:
        /* But for its first line, which is read by attaching processes alone. */
        return (struct target){ TIDE_LINE, records - TIDE_LINE };
    case AT_RECORDS:
        return (struct target){ records, slots - records };
    case AT_SLOTS:
        return (struct target){ slots, rings - slots };
    case AT_RINGS:
        return (struct target){ rings, regions - rings };
    case AT_REGIONS:
        return (struct target){ regions, 1 << 16 };
    default:
        return (struct target){ TIDE_LINE, (1 << 16) + regions - TIDE_LINE };
    }
}

/* A word that might pass for something: a small number, an offset, a slot's word. */
static uint64_t make_word(uint64_t arena_bytes)
{
    switch (check_random(6)) {
    case 0:
        return check_random(SLOTS + 2);
    case 1:
        return check_random64() % arena_bytes & ~UINT64_C(15);
    case 2:
        return tide_word((enum tide_slot_state)check_random(6),
                         check_random(WORKERS + 2), check_random(8));
    case 3:
        return (uint64_t)check_random(SLOTS * 2) << 32 |
               check_random(SLOTS + 2);
    case 4:
        return UINT64_MAX - check_random(3);
    default:
        return check_random64();
    }
}

static _Noreturn void go_wild(struct tide_worker_env *env,
                              const struct wild_config *config)
{
    const struct tide_arena *arena = env->board->arena;
    struct target target = take_aim(env->board, config);
    check_reseed(config->seed ^ (uint64_t)getpid());
    tide_event_raise(env->board->event_fd);
    for (;;) {
        uint64_t at = target.at + (check_random64() % (target.bytes / 4)) * 4;
        uint64_t word = make_word(arena->size);
        if (check_random(2))
            *(volatile uint32_t *)(void *)(arena->base + at) = (uint32_t)word;
        else
            *(volatile uint64_t *)(void *)(arena->base + at / 8 * 8) = word;
        if (check_random(64) == 0)
            tide_event_raise(env->board->event_fd);
        if (config->gently)
            check_spin(check_random(20 * 1000));
        if (check_random(200 * 1000) == 0)
            raise(SIGKILL); /* and is reclaimed in the midst of it */
    }
}

static int run(struct tide_worker_env *env)
{
    struct wild_config config;
    if (env->config == NULL || env->config_bytes != sizeof config)
        return crew_main(env); /* of the tame pool */
    memcpy(&config, env->config, sizeof config);
    if (env->index == 0)
        go_wild(env, &config);
    env->config = NULL; /* the others do their work as well as they can */
    return crew_main(env);
}

/* ---- the host ---- */

static unsigned received;
static volatile unsigned char sink;

/* Read all that is said to be readable. */
static void take_in(struct tide_pool *pool)
{
    struct tide_outcome outcome;
    for (unsigned i = 0; i < 2 * SLOTS; i++) {
        if (tide_pool_receive(pool, &outcome) != TIDE_OK)
            return;
        for (uint64_t at = 0; at < outcome.capacity; at += 1 + at / 64)
            sink = outcome.bytes[at];
        if (outcome.capacity > 0)
            sink = outcome.bytes[outcome.capacity - 1];
        tide_pool_release(pool, &outcome);
        received++;
    }
}

static void hand_out(struct tide_pool *pool, uint64_t *block)
{
    uint32_t slot;
    struct tide_request request = { .count = 1 + check_random(40),
                                    .timeout_ms = check_random(3) * 5,
                                    .length = sizeof(struct crew_args) };
    if (check_random(4) == 0) {
        tide_pool_submit_to(&slot, pool, check_random(WORKERS), &request, 0);
    } else if (tide_pool_submit(&slot, pool, &request, 0) == TIDE_OK) {
        if (check_random(4) == 0)
            tide_pool_revoke(pool, slot);
        else if (check_random(8) == 0)
            tide_pool_cut_off(pool, slot);
        tide_pool_nudge(pool, check_random(100000));
    }
    sink = (unsigned char)tide_pool_hand(pool, check_random(SLOTS));
    /* Its own region is in reach as well. */
    tide_pool_free_block(pool, *block);
    *block = tide_pool_alloc(pool, 64 + check_random(100 * 1000));
    if (*block != 0) {
        CHECK(pool->heap.capacity >= 64);
        memset(tide_pool_at(pool, *block), 1, 64);
        tide_pool_at(pool, *block)[pool->heap.capacity - 1] = 1;
    }
}

static void serve_tame(struct tide_pool *tame, unsigned *done, unsigned *sent)
{
    struct tide_outcome outcome;
    while (*sent < *done + 8 && *sent < TAME) {
        struct crew_args args = { .number = *sent };
        CHECK(crew_submit(tame, CREW_COUNT, args, 0, 20, *sent) == TIDE_OK);
        ++*sent;
    }
    tide_pool_kick(tame, 8);
    while (tide_pool_receive(tame, &outcome) == TIDE_OK) {
        CHECK(!outcome.lost && crew_check(&outcome) == 20);
        tide_pool_release(tame, &outcome);
        ++*done;
    }
}

/* A wait ends at its deadline, however often it says that something has come. */
static void wait_a_little(struct tide_pool *pool)
{
    uint64_t until = tide_now_ns() + check_random(1000 * 1000);
    while (!pool->gone && tide_now_ns() < until)
        if (tide_pool_wait(pool, 1 + check_random(4), until) == TIDE_ETIMEOUT)
            break;
}

static void serve_wild(struct tide_host *host, struct tide_pool *tame,
                       const struct wild_config *config)
{
    struct tide_pool *pool;
    struct tide_error err;
    struct tide_pool_options options = { .worker_count = WORKERS,
                                         .slot_count = SLOTS,
                                         .region_bytes = 1 << 20,
                                         .config = config,
                                         .config_bytes = sizeof *config };
    unsigned done = 0, sent = 0;
    uint64_t block = 0;
    alarm(CHECK_WATCHDOG_S);
    int status = tide_pool_open(&pool, host, &options, &err);
    CHECK(status == TIDE_OK || status == TIDE_EBROKEN);
    if (status != TIDE_OK)
        return;
    uint64_t until = tide_now_ns() + TURN_MS * UINT64_C(1000000);
    while (tide_now_ns() < until) {
        hand_out(pool, &block);
        if (check_random(16) == 0)
            tide_pool_resize(pool, 1 + check_random(WORKERS), &err);
        if (check_random(4) == 0)
            wait_a_little(pool);
        take_in(pool);
        serve_tame(tame, &done, &sent);
        tide_host_attend(host);
    }
    CHECK_SOON((serve_tame(tame, &done, &sent), done == TAME));
    if (check_random(2))
        tide_pool_close(pool);
    tide_pool_kill(pool);
    CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
    CHECK(host->alive && pool->gone);
    take_in(pool);
    tide_pool_free(pool);
}

static void test_wild(void)
{
    struct tide_host host;
    struct tide_error err;
    const struct tide_worker_ops ops = { .run = run };
    check_begin("wild");
    CHECK(tide_commons_open(&err) == TIDE_OK); /* kept to the end */
    int fds = check_fd_count();
    CHECK(tide_host_start(&host, &ops, NULL, &err) == TIDE_OK);
    struct tide_pool *tame = crew_open(&host, 2, 64, NULL);
    for (unsigned round = 0; round < check_rounds; round++) {
        struct wild_config config = { .aim = round % AIMS,
                                      .gently = round / AIMS % 2,
                                      .seed = check_random64() };
        serve_wild(&host, tame, &config);
        CHECK(!tame->gone);
        CHECK(atomic_load(&tame->board.workers[0].restarts) == 0);
        CHECK(atomic_load(&tame->board.workers[1].restarts) == 0);
    }
    tide_pool_close(tame);
    CHECK(tide_pool_join(tame, crew_deadline()) == TIDE_OK);
    tide_pool_free(tame);
    tide_host_stop(&host);
    CHECK(!crew_has_children());
    CHECK(check_fd_count() == fds);
    printf("wild: %u received\n", received);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 2 * AIMS);
    test_wild();
    return EXIT_SUCCESS;
}
