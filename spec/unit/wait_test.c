/*
 * Waiting from event loops and for several pools, waking workers for single
 * submits, and a supervisor that does not answer.
 */
#include "crew.h"
#include "shm/board_inner.h"

#include <poll.h>

static void await_readable(int fd)
{
    struct pollfd fds = { .fd = fd, .events = POLLIN };
    int ready;
    do
        ready = poll(&fds, 1, CHECK_PATIENCE_S * 1000);
    while (ready < 0);
    CHECK(ready == 1);
}

static int is_readable(int fd)
{
    struct pollfd fds = { .fd = fd, .events = POLLIN };
    return poll(&fds, 1, 0) == 1;
}

static uint32_t receive_all(struct tide_pool *pool)
{
    struct tide_outcome outcome;
    uint32_t count = 0;
    while (tide_pool_receive(pool, &outcome) == TIDE_OK) {
        CHECK(crew_check(&outcome) == outcome.request.count || outcome.lost);
        tide_pool_release(pool, &outcome);
        count++;
    }
    return count;
}

static uint32_t submit_some(struct tide_pool *pool, uint32_t most)
{
    uint32_t count = 0;
    while (count < most &&
           crew_submit(pool, check_random(8) ? CREW_COUNT : CREW_URGENT,
                       (struct crew_args){ count, 0 }, 0, 1 + check_random(9),
                       count) == TIDE_OK)
        count++;
    tide_pool_kick(pool, count);
    return count;
}

static void kill_somebody(struct tide_pool *pool)
{
    uint32_t count = tide_board_worker_count(&pool->board);
    pid_t pid = atomic_load(&pool->board.workers[check_random(count)].pid);
    if (pid != 0)
        kill(pid, SIGKILL);
}

/* ---- the descriptor ---- */

/* Only the descriptor says when to look: each arrival has to make it readable. */
static void fd_round(struct tide_host *host, int kills)
{
    struct tide_error err;
    int before = check_fd_count();
    struct tide_pool *pool = crew_open(host, 1 + check_random(3), 16, NULL);
    int fd = tide_pool_fd(pool, &err);
    CHECK(fd > 2 && tide_pool_fd(pool, &err) == fd);
    pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
    for (unsigned i = 0; i < 200; i++) {
        uint32_t left = submit_some(pool, 1 + check_random(20));
        alarm(CHECK_WATCHDOG_S);
        while (left > 0) {
            check_spin(check_random(3) ? 0 : check_random(40 * 1000));
            tide_pool_arm(pool);
            if (kills && check_random(30) == 0)
                kill_somebody(pool);
            await_readable(fd);
            tide_host_attend(host);
            if (check_random(20) == 0)
                CHECK(tide_pool_wait(pool, 1, crew_deadline()) == TIDE_OK);
            left -= receive_all(pool);
        }
    }
    CHECK(tide_pool_in_flight(pool) == 0);
    if (!kills) { /* and silent when there is nothing: a late raise apart */
        tide_pool_arm(pool);
        CHECK_SOON((receive_all(pool), !is_readable(fd)));
    }
    tide_pool_free(pool);
    CHECK(check_fd_count() == before);
}

static void test_fd(void)
{
    struct tide_host host;
    check_begin("fd");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++)
        fd_round(&host, i % 2);
    tide_host_stop(&host);
}

/* The end of a pool is news, also if another pool's look finds it. */
static void test_fd_gone(void)
{
    struct tide_error err;
    check_begin("fd gone");
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_host host;
        crew_start_host(&host);
        struct tide_pool *pools[2];
        int fds[2];
        for (int j = 0; j < 2; j++) {
            pools[j] = crew_open(&host, 1, 4, NULL);
            fds[j] = tide_pool_fd(pools[j], &err);
            CHECK(fds[j] > 2);
        }
        if (i % 2)
            kill(host.supervisor.pid, SIGKILL);
        else
            tide_pool_kill(pools[0]);
        while (!pools[0]->gone) {
            await_readable(fds[1]);
            tide_host_attend(&host);
            receive_all(pools[1]);
        }
        CHECK(is_readable(fds[0]));
        CHECK(tide_pools_wait(pools, 2, crew_deadline()) == TIDE_EBROKEN);
        tide_pool_free(pools[0]);
        tide_pool_free(pools[1]);
        tide_host_stop(&host);
    }
}

/* ---- several pools ---- */

static void test_pools(void)
{
    struct tide_host host;
    struct tide_pool *pools[3];
    check_begin("pools");
    crew_start_host(&host);
    for (int i = 0; i < 3; i++)
        pools[i] = crew_open(&host, 1, 8, NULL);
    CHECK(tide_pool_await_start(pools[0], crew_deadline()) == TIDE_OK);
    for (unsigned i = 0; i < 40 * check_rounds; i++) {
        uint32_t left = 0;
        alarm(CHECK_WATCHDOG_S);
        for (int j = 0; j < 3; j++)
            if (check_random(2))
                left += submit_some(pools[j], 1 + check_random(4));
        while (left > 0) {
            if (check_random(30) == 0)
                kill_somebody(pools[check_random(3)]);
            CHECK(tide_pools_wait(pools, 3, crew_deadline()) == TIDE_OK);
            for (int j = 0; j < 3; j++)
                left -= receive_all(pools[j]);
        }
    }
    uint64_t start_ns = tide_now_ns();
    while (tide_pools_wait(pools, 3, start_ns + 20 * 1000 * 1000) == TIDE_OK)
        continue; /* news of the last deaths */
    CHECK(tide_now_ns() - start_ns >= 20 * 1000 * 1000);
    for (int i = 0; i < 3; i++)
        tide_pool_free(pools[i]);
    tide_host_stop(&host);
}

/* ---- nudges ---- */

/* Whatever the estimate, everything is done: also while the host never sleeps. */
static void test_nudge(void)
{
    struct tide_host host;
    check_begin("nudge");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_pool *pool =
            crew_open(&host, 1 + check_random(4), 256, NULL);
        uint32_t left = 0;
        alarm(CHECK_WATCHDOG_S);
        pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
        for (unsigned j = 0; j < 2000; j++) {
            uint32_t count = check_random(200) ? 1 : 20000;
            if (crew_submit(pool, CREW_COUNT, (struct crew_args){ j, 0 }, 0,
                            count, j) == TIDE_OK) {
                left++;
                tide_pool_nudge(pool, tide_pool_queued(pool) *
                                          (uint64_t)check_random(2000));
            }
            check_spin(check_random(20) ? 0 : check_random(100 * 1000));
            if (i % 2 && check_random(300) == 0)
                kill_somebody(pool);
            left -= receive_all(pool);
        }
        uint64_t until_ns = crew_deadline();
        while (left > 0) {
            if (i % 4 < 2)
                tide_pool_wait(pool, 1, until_ns);
            left -= receive_all(pool);
            CHECK(tide_now_ns() < until_ns);
        }
        tide_pool_free(pool);
    }
    tide_host_stop(&host);
}

/* One long task and one short one: the second is not left behind the first. */
static void test_nudge_behind(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("nudge behind");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 8, NULL);
    CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct crew_args gate = { .number = tide_pool_alloc(pool, 8) };
        _Atomic uint64_t *open = (void *)tide_pool_at(pool, gate.number);
        atomic_store(open, 0);
        CHECK(crew_submit(pool, CREW_GATE, gate, 0, 1, 1) == TIDE_OK);
        tide_pool_nudge(pool, 1000);
        check_spin(check_random(200 * 1000));
        CHECK(crew_submit(pool, CREW_COUNT, (struct crew_args){ 0 }, 0, 1, 2) ==
              TIDE_OK);
        tide_pool_nudge(pool, 1000);
        crew_receive(pool, &outcome);
        CHECK(outcome.tag == 2);
        tide_pool_release(pool, &outcome);
        atomic_store(open, 1);
        crew_receive(pool, &outcome);
        tide_pool_release(pool, &outcome);
        tide_pool_free_block(pool, gate.number);
    }
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* ---- a supervisor that is stopped ---- */

static int supervisor_fd_count(const struct tide_host *host)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)host->supervisor.pid);
    DIR *fds = opendir(path);
    CHECK(fds != NULL);
    while (readdir(fds) != NULL)
        count++;
    closedir(fds);
    return count;
}

static void test_open_deadline(void)
{
    struct tide_host host;
    struct tide_pool *pool;
    struct tide_error err;
    check_begin("open deadline");
    crew_start_host(&host);
    struct tide_pool *first = crew_open(&host, 1, 4, NULL);
    int inside = supervisor_fd_count(&host);
    int mine = check_fd_count();
    for (unsigned i = 0; i < check_rounds / 4 + 1; i++) {
        struct tide_pool_options options = {
            .worker_count = 2,
            .region_bytes = 1 << 24,
            .start_deadline_ns = tide_deadline_ns(0.03),
        };
        kill(host.supervisor.pid, SIGSTOP);
        CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_ETIMEOUT);
        CHECK(strstr(err.text, "does not answer") != NULL);
        CHECK(check_fd_count() == mine && host.pools == first);
        kill(host.supervisor.pid, SIGCONT);
        CHECK_SOON(supervisor_fd_count(&host) == inside);
    }
    pool = crew_open(&host, 2, 4, NULL);
    CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
    tide_pool_free(pool);
    tide_pool_free(first);
    tide_host_stop(&host);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 16);
    test_open_deadline();
    test_fd_gone();
    test_fd();
    test_pools();
    test_nudge();
    test_nudge_behind();
    CHECK(!crew_has_children());
    return EXIT_SUCCESS;
}
