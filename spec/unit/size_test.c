/*
 * Pools that change their size or their workers under load: nothing is lost, and
 * nothing is killed but by the test.
 */
#include "crew.h"
#include "shm/board_inner.h"

#include <sys/resource.h>

enum { ROOM = 8, TAGS = 1 << 16 };

static unsigned char is_in[TAGS];

static struct tide_pool *open_sized(struct tide_host *host, uint32_t workers,
                                    uint32_t room, uint32_t slots,
                                    const struct crew_config *config)
{
    struct tide_pool *pool;
    struct tide_error err = { 0 };
    struct tide_pool_options options = {
        .worker_count = workers,
        .worker_max = room,
        .slot_count = slots,
        .region_bytes = 1 << 24,
        .config = config,
        .config_bytes = config ? sizeof *config : 0,
    };
    CHECK(tide_pool_open(&pool, host, &options, &err) == TIDE_OK);
    return pool;
}

static uint32_t running_count(struct tide_pool *pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < tide_board_worker_count(&pool->board); i++)
        count += atomic_load(&pool->board.workers[i].pid) != 0;
    return count;
}

static uint32_t restart_count(struct tide_pool *pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < tide_board_worker_count(&pool->board); i++)
        count += atomic_load(&pool->board.workers[i].restarts);
    return count;
}

static void resize(struct tide_pool *pool, uint32_t count)
{
    struct tide_error err;
    CHECK(tide_pool_resize(pool, count, &err) == TIDE_OK);
    CHECK(tide_pool_workers(pool) == count);
}

/* ---- a load ---- */

struct load {
    struct tide_pool *pool;
    uint64_t sent;
    uint64_t total;
    uint64_t received;
    uint64_t lost;
};

static void send_some(struct load *load)
{
    while (load->sent < load->total && tide_pool_has_slot(load->pool) &&
           check_random(12) != 0) {
        struct crew_args args = { .number = load->sent };
        struct tide_request request = {
            .count = 1 + check_random(check_random(4) ? 20 : 3000),
            .length = sizeof args
        };
        int status;
        memcpy(request.args.bytes, &args, sizeof args);
        uint32_t worker = check_random(8 * tide_pool_workers(load->pool));
        if (worker < tide_pool_workers(load->pool))
            status = tide_pool_submit_to(NULL, load->pool, worker, &request,
                                         load->sent);
        else
            status = tide_pool_submit(NULL, load->pool, &request, load->sent);
        CHECK(status == TIDE_OK || status == TIDE_EAGAIN);
        load->sent += status == TIDE_OK;
        tide_pool_kick(load->pool, 1);
    }
}

static void receive_some(struct load *load)
{
    struct tide_outcome outcome;
    while (tide_pool_receive(load->pool, &outcome) == TIDE_OK) {
        CHECK(outcome.tag < load->sent && !is_in[outcome.tag]++);
        uint32_t hand = crew_check(&outcome);
        CHECK(outcome.lost || hand == outcome.request.count);
        load->lost += outcome.lost != 0;
        load->received++;
        tide_pool_release(load->pool, &outcome);
    }
}

static void run_load(struct load *load, uint32_t room, int kills)
{
    while (load->received < load->total) {
        alarm(CHECK_WATCHDOG_S);
        CHECK(!load->pool->gone);
        send_some(load);
        if (room != 0 && check_random(6) == 0)
            resize(load->pool, 1 + check_random(room));
        if (kills && check_random(10) == 0) {
            uint32_t worker =
                check_random(tide_board_worker_count(&load->pool->board));
            pid_t pid = atomic_load(&load->pool->board.workers[worker].pid);
            if (pid != 0)
                kill(pid, SIGKILL);
        }
        if (tide_pool_in_flight(load->pool) > 0)
            CHECK(tide_pool_wait(load->pool, 1 + check_random(8),
                                 crew_deadline()) == TIDE_OK);
        receive_some(load);
    }
    CHECK(load->received == load->sent);
}

static struct load open_load(struct tide_pool *pool, uint64_t total)
{
    CHECK(total <= TAGS);
    memset(is_in, 0, sizeof is_in);
    return (struct load){ .pool = pool, .total = total };
}

/* ---- resize ---- */

static void test_resize(void)
{
    struct tide_host host;
    uint64_t lost = 0;
    check_begin("resize");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_pool *pool = open_sized(&host, 1 + check_random(ROOM), ROOM,
                                            2u << check_random(6), NULL);
        struct load load = open_load(pool, 1000);
        pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
        run_load(&load, ROOM, i % 2);
        CHECK(i % 2 || load.lost == 0);
        lost += load.lost;
        uint32_t count = 1 + check_random(ROOM);
        resize(pool, count);
        CHECK_SOON(running_count(pool) == count);
        CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
        if (check_random(2))
            tide_pool_close(pool);
        else
            tide_pool_kill(pool);
        CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
        CHECK(!pool->broken && running_count(pool) == 0);
        tide_pool_free(pool);
    }
    printf("resize: %" PRIu64 " lost to kills\n", lost);
    tide_host_stop(&host);
}

/* Who is not wanted finishes what it has: nobody is killed, nobody replaced. */
static void test_shrink_busy(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("shrink busy");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_pool *pool = open_sized(&host, 3, 4, 8, NULL);
        struct crew_args gate = { .number = tide_pool_alloc(pool, 8),
                                  .begun = tide_pool_alloc(pool, 8) };
        _Atomic uint64_t *open = (void *)tide_pool_at(pool, gate.number);
        _Atomic uint64_t *begun = (void *)tide_pool_at(pool, gate.begun);
        atomic_store(open, 0);
        atomic_store(begun, 0);
        for (uint64_t j = 0; j < 3; j++)
            CHECK(crew_submit(pool, CREW_GATE, gate, 0, 2, j) == TIDE_OK);
        tide_pool_kick(pool, 3);
        CHECK_SOON(atomic_load(begun) == 3);
        struct crew_args args = { 0 };
        struct tide_request request = { .count = 1, .length = sizeof args };
        memcpy(request.args.bytes, &args, sizeof args);
        CHECK(tide_pool_submit_to(NULL, pool, 2, &request, 3) == TIDE_OK);
        CHECK(tide_pool_submit_to(NULL, pool, 2, &request, 9) == TIDE_EAGAIN);
        resize(pool, 1);
        CHECK(tide_pool_submit_to(NULL, pool, 2, &request, 9) == TIDE_EINVAL);
        CHECK(crew_submit(pool, CREW_COUNT, args, 0, 1, 4) == TIDE_OK);
        tide_pool_kick(pool, 1);
        atomic_store(open, 1);
        for (int j = 0; j < 5; j++) {
            crew_receive(pool, &outcome);
            CHECK(!outcome.lost);
            CHECK(outcome.tag != 3 || outcome.death.worker == 2);
            CHECK(outcome.tag != 4 || outcome.death.worker == 0);
            tide_pool_release(pool, &outcome);
        }
        CHECK_SOON(running_count(pool) == 1);
        CHECK(restart_count(pool) == 0);
        resize(pool, 4);
        CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
        CHECK_SOON(running_count(pool) == 4);
        CHECK(restart_count(pool) == 0);
        tide_pool_free(pool);
    }
    tide_host_stop(&host);
}

static void test_limits(void)
{
    struct tide_host host;
    struct tide_error err;
    check_begin("limits");
    crew_start_host(&host);
    struct tide_pool *pool = open_sized(&host, 2, 5, 4, NULL);
    CHECK(tide_pool_resize(pool, 0, &err) == TIDE_EINVAL);
    CHECK(tide_pool_resize(pool, 6, &err) == TIDE_EINVAL);
    CHECK(strstr(err.text, "room for 1 .. 5") != NULL);
    resize(pool, 5);
    tide_pool_close(pool);
    CHECK(tide_pool_resize(pool, 2, &err) == TIDE_ECLOSED);
    tide_pool_free(pool);
    pool = open_sized(&host, 2, 0, 4, NULL);
    resize(pool, 40);
    CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
    CHECK_SOON(running_count(pool) == 40);
    CHECK(tide_pool_resize(pool, 257, &err) == TIDE_EINVAL);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* Little address space: there is a pool, but it cannot grow. */
static void test_address_space(void)
{
    int status;
    check_begin("address space");
#ifdef __SANITIZE_ADDRESS__
    return;
#endif
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct tide_host host;
        struct tide_error err;
        struct tide_pool *pool;
        struct tide_pool_options options = { .worker_count = 2 };
        struct rlimit limit = { UINT64_C(1) << 38, UINT64_C(1) << 38 };
        CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
        crew_start_host(&host);
        CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_OK);
        CHECK(tide_pool_resize(pool, 3, &err) == TIDE_EINVAL);
        struct load load = open_load(pool, 200);
        run_load(&load, 2, 0);
        tide_pool_free(pool);
        tide_host_stop(&host);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* ---- retirement ---- */

static void test_retire(void)
{
    struct tide_host host;
    check_begin("retire");
    crew_start_host(&host);
    struct crew_config config = { .retire_after = 1 };
    struct tide_pool *pool = open_sized(&host, 2, 2, 64, &config);
    uint64_t total = check_rounds * 400;
    struct load load = open_load(pool, total < TAGS ? total : TAGS);
    run_load(&load, 0, 0);
    CHECK(load.lost == 0 && !pool->gone);
    CHECK_SOON(restart_count(pool) == load.total);
    printf("retired: %u\n", restart_count(pool));
    tide_pool_free(pool);

    config = (struct crew_config){ .retire_idle = 500 };
    pool = open_sized(&host, 2, 2, 64, &config);
    load = open_load(pool, 200);
    run_load(&load, 0, 0);
    CHECK(load.lost == 0 && !pool->gone);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 24);
    test_address_space(); /* before there is anything that a fork inherits */
    test_limits();
    test_resize();
    test_shrink_busy();
    test_retire();
    CHECK(!crew_has_children());
    return EXIT_SUCCESS;
}
