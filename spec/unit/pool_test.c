/*
 * The local engine with real processes: every item of every request comes back
 * exactly once and right, whatever dies on the way.
 */
#include "crew.h"
#include "shm/board_inner.h"

#include <errno.h>

/* ---- jobs under fire ---- */

enum { REQUESTS_MAX = 1 << 16 };

/* A request goes out until all of its items have come back. */
struct job {
    struct tide_pool *pool;
    uint32_t count;    /* requests */
    uint32_t most;     /* items of a request, at most */
    uint32_t sent;     /* requests that have gone out once */
    uint32_t complete; /* requests whose items are all in */
    uint64_t lost;     /* outcomes of dead workers */
    uint64_t kills_in_hand;
    uint32_t *sizes;    /* items of each */
    uint32_t *reached;  /* items that are in */
    unsigned char *out; /* in flight now? */
};

static void open_job(struct job *job, struct tide_pool *pool, uint32_t count,
                     uint32_t most)
{
    *job = (struct job){ .pool = pool, .count = count, .most = most };
    job->sizes = calloc(count, sizeof *job->sizes);
    job->reached = calloc(count, sizeof *job->reached);
    job->out = calloc(count, 1);
    CHECK(job->sizes && job->reached && job->out);
    for (uint32_t i = 0; i < count; i++)
        job->sizes[i] = 1 + check_random(most);
}

static void close_job(struct job *job)
{
    free(job->sizes);
    free(job->reached);
    free(job->out);
}

static int send(struct job *job, uint32_t number)
{
    enum crew_task task = check_random(10) ? CREW_COUNT : CREW_URGENT;
    if (crew_submit(job->pool, task, (struct crew_args){ .number = number },
                    job->reached[number], job->sizes[number],
                    number) != TIDE_OK)
        return 0;
    CHECK(!job->out[number]);
    job->out[number] = 1;
    return 1;
}

static void send_burst(struct job *job)
{
    uint32_t sent = 0;
    uint32_t burst = 1 + check_random(2 * job->pool->board.slot_count);
    while (sent < burst && job->sent < job->count && send(job, job->sent)) {
        job->sent++;
        sent++;
    }
    tide_pool_kick(job->pool, sent);
}

static void take(struct job *job, const struct tide_outcome *outcome)
{
    uint32_t number = (uint32_t)outcome->tag;
    CHECK(number < job->sent && job->out[number]);
    CHECK(outcome->request.first == job->reached[number]);
    CHECK(outcome->request.count == job->sizes[number]);
    job->out[number] = 0;
    job->reached[number] = crew_check(outcome);
    if (outcome->lost) {
        CHECK(WIFSIGNALED(outcome->death.wait_status));
        CHECK(WTERMSIG(outcome->death.wait_status) == SIGKILL);
        CHECK(outcome->death.worker <
              tide_board_worker_count(&job->pool->board));
        job->lost++;
        job->kills_in_hand += job->reached[number] < job->sizes[number];
    } else {
        CHECK(job->reached[number] == job->sizes[number]);
    }
}

static void receive_all(struct job *job)
{
    struct tide_outcome outcome;
    while (tide_pool_receive(job->pool, &outcome) == TIDE_OK) {
        uint32_t number = (uint32_t)outcome.tag;
        take(job, &outcome);
        tide_pool_release(job->pool, &outcome);
        if (job->reached[number] == job->sizes[number]) {
            job->complete++;
        } else {
            CHECK_SOON(send(job, number));
            tide_pool_kick(job->pool, 1);
        }
    }
}

static void run_job(struct job *job)
{
    while (job->complete < job->count) {
        CHECK(!job->pool->gone);
        send_burst(job);
        if (tide_pool_in_flight(job->pool) > 0)
            CHECK(tide_pool_wait(job->pool, 1 + check_random(8),
                                 crew_deadline()) == TIDE_OK);
        receive_all(job);
    }
    CHECK(tide_pool_in_flight(job->pool) == 0);
}

static uint32_t restart_count(const struct tide_pool *pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < tide_board_worker_count(&pool->board); i++)
        count += atomic_load(&pool->board.workers[i].restarts);
    return count;
}

/* No block of a worker's region is held by anybody once all is returned. */
static void check_regions(const struct tide_pool *pool)
{
    for (uint32_t i = 0; i < tide_board_worker_count(&pool->board); i++) {
        const struct tide_region *region = &pool->board.workers[i].region;
        uint64_t top = atomic_load(&region->top);
        for (uint64_t at = region->first; at < top;) {
            struct {
                uint32_t class_index;
                uint32_t state;
            } header;
            memcpy(&header, pool->arena.base + at, sizeof header);
            CHECK(tide_block_capacity(&pool->arena, at + 16) == 0);
            at += (uint64_t)(4 + header.class_index % 4)
                  << (header.class_index / 4 + 4);
        }
    }
}

static unsigned kill_round(struct tide_host *host, uint32_t workers,
                           uint32_t slots, uint32_t requests)
{
    struct crew_config config = { .life_ns = 1000 + check_random(1500 * 1000),
                                  .seed = check_random64() };
    struct tide_pool *pool = crew_open(host, workers, slots, &config);
    struct job job;
    alarm(CHECK_WATCHDOG_S);
    if (check_random(2)) /* near the end of the sequence numbers */
        for (uint32_t i = 0; i < slots; i++)
            atomic_store(
                &pool->board.slots[i].word,
                tide_word(TIDE_SLOT_FREE, 0, UINT32_MAX - check_random(5)));
    if (check_random(2))
        pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
    open_job(&job, pool, requests, check_random(2) ? 3 : 200);
    run_job(&job);
    unsigned kills = restart_count(pool);
    tide_pool_kill(pool);
    CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
    CHECK(pool->gone && !pool->broken);
    check_regions(pool);
    tide_pool_free(pool);
    close_job(&job);
    return kills;
}

static void test_kills(void)
{
    static const uint32_t shapes[][3] = {
        { 1, 2, 400 },   { 2, 2, 400 },   { 3, 4, 600 },
        { 8, 16, 1500 }, { 64, 8, 1000 }, { 4, 1024, 4000 },
    };
    struct tide_host host;
    unsigned kills = 0;
    check_begin("kills");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        const uint32_t *shape = shapes[i % (sizeof shapes / sizeof shapes[0])];
        kills += kill_round(&host, shape[0], shape[1], shape[2]);
    }
    tide_host_stop(&host);
    printf("kills: %u\n", kills);
}

/* ---- ends ---- */

/* Close with work in flight: all of it is done, then the workers leave. */
static void test_close(void)
{
    struct tide_host host;
    check_begin("close");
    crew_start_host(&host);
    for (unsigned i = 0; i < 10 * check_rounds; i++) {
        alarm(CHECK_WATCHDOG_S);
        struct tide_pool *pool =
            crew_open(&host, 1 + check_random(4), 2u << check_random(5), NULL);
        struct job job;
        if (check_random(2))
            CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
        if (check_random(2))
            pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
        open_job(&job, pool, pool->board.slot_count, 20);
        uint32_t sent = check_random(pool->board.slot_count + 1);
        while (job.sent < sent && send(&job, job.sent))
            job.sent++;
        if (check_random(2))
            tide_pool_kick(pool, sent);
        tide_pool_close(pool);
        if (check_random(2))
            CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
        while (job.complete < sent) {
            CHECK(pool->gone ||
                  tide_pool_wait(pool, sent, crew_deadline()) != TIDE_ETIMEOUT);
            uint32_t before = job.complete;
            int gone = pool->gone;
            receive_all(&job);
            CHECK(!gone || job.complete > before);
        }
        CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
        CHECK(!pool->broken && restart_count(pool) == 0);
        tide_pool_free(pool);
        close_job(&job);
    }
    tide_host_stop(&host);
}

/* Kill with work in flight: what was done can be received, the rest never. */
static void test_kill(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("kill");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_pool *pool = crew_open(&host, 3, 64, NULL);
        struct job job;
        uint32_t received = 0;
        open_job(&job, pool, 64, 50);
        send_burst(&job);
        check_spin(check_random(200 * 1000));
        tide_pool_kill(pool);
        if (check_random(2)) {
            CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
            CHECK(tide_pool_wait(pool, 1, crew_deadline()) == TIDE_EBROKEN);
            while (tide_pool_receive(pool, &outcome) == TIDE_OK) {
                take(&job, &outcome);
                tide_pool_release(pool, &outcome);
                received++;
            }
            CHECK(received + tide_pool_in_flight(pool) == job.sent);
        }
        tide_pool_free(pool);
        close_job(&job);
    }
    tide_host_stop(&host);
}

/* ---- sleep and wake ---- */

/* One request at a time: each needs both wake-ups, or it hangs. */
static void test_ping_pong(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("ping pong");
    crew_start_host(&host);
    for (uint32_t cpus = 1; cpus <= 64; cpus *= 64) {
        struct tide_pool *pool = crew_open(&host, 3, 2, NULL);
        pool->board.shared->cpu_count = cpus;
        for (uint64_t i = 0; i < 100 * check_rounds; i++) {
            alarm(CHECK_WATCHDOG_S);
            check_spin(check_random(4) ? 0 : check_random(60 * 1000));
            CHECK(crew_submit(pool, CREW_COUNT,
                              (struct crew_args){ .number = i }, 0, 1,
                              i) == TIDE_OK);
            tide_pool_kick(pool, 1);
            check_spin(check_random(4) ? 0 : check_random(60 * 1000));
            crew_receive(pool, &outcome);
            CHECK(outcome.tag == i && crew_check(&outcome) == 1);
            tide_pool_release(pool, &outcome);
        }
        CHECK(restart_count(pool) == 0);
        tide_pool_free(pool);
    }
    tide_host_stop(&host);
}

static _Atomic uint64_t *word_at(struct tide_pool *pool, uint64_t offset)
{
    return (void *)tide_pool_at(pool, offset);
}

static uint64_t new_word(struct tide_pool *pool)
{
    uint64_t offset = tide_pool_alloc(pool, sizeof(uint64_t));
    CHECK(offset != 0);
    atomic_store(word_at(pool, offset), 0);
    return offset;
}

/* An urgent reply ends a wait for more, also when it comes before the wait. */
static void test_urgent(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("urgent");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
    for (unsigned i = 0; i < 20 * check_rounds; i++) {
        alarm(CHECK_WATCHDOG_S);
        struct crew_args gate = { .number = new_word(pool) };
        CHECK(crew_submit(pool, CREW_GATE, gate, 0, 1, 1) == TIDE_OK);
        tide_pool_kick(pool, 1);
        CHECK(crew_submit(pool, CREW_URGENT, (struct crew_args){ 5, 0 }, 0, 1,
                          2) == TIDE_OK);
        tide_pool_kick(pool, 1);
        check_spin(check_random(40 * 1000));
        while (tide_pool_receive(pool, &outcome) != TIDE_OK)
            CHECK(tide_pool_wait(pool, 2, crew_deadline()) == TIDE_OK);
        CHECK(outcome.tag == 2);
        tide_pool_release(pool, &outcome);
        atomic_store(word_at(pool, gate.number), 1);
        crew_receive(pool, &outcome);
        CHECK(outcome.tag == 1);
        tide_pool_release(pool, &outcome);
        tide_pool_free_block(pool, gate.number);
    }
    tide_pool_free(pool);
    tide_host_stop(&host);
}

static void wait_asleep(const struct tide_pool *pool, uint64_t bits)
{
    CHECK_SOON(atomic_load(&pool->board.shared->asleep[0]) == bits);
}

/* A worker stopped in its sleep is woken for work: another has to do it. */
static void test_stopped(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("stopped");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
    CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
    for (unsigned i = 0; i < check_rounds; i++) {
        alarm(CHECK_WATCHDOG_S);
        wait_asleep(pool, 3);
        uint32_t stopped = check_random(2);
        pid_t pid = atomic_load(&pool->board.workers[stopped].pid);
        kill(pid, SIGSTOP);
        for (uint64_t j = 0; j < 4; j++) {
            CHECK(crew_submit(pool, CREW_COUNT, (struct crew_args){ j, 0 }, 0,
                              1, j) == TIDE_OK);
            tide_pool_kick(pool, 1);
            crew_receive(pool, &outcome);
            CHECK(outcome.tag == j && crew_check(&outcome) == 1);
            tide_pool_release(pool, &outcome);
        }
        kill(pid, SIGCONT);

        /* And it works again: two that wait for each other need both. */
        struct crew_args gate = { .number = new_word(pool),
                                  .begun = new_word(pool) };
        for (uint64_t j = 0; j < 2; j++)
            CHECK(crew_submit(pool, CREW_GATE, gate, 0, 1, j) == TIDE_OK);
        tide_pool_kick(pool, 2);
        CHECK_SOON(atomic_load(word_at(pool, gate.begun)) == 2);
        atomic_store(word_at(pool, gate.number), 1);
        for (int j = 0; j < 2; j++) {
            crew_receive(pool, &outcome);
            tide_pool_release(pool, &outcome);
        }
        tide_pool_free_block(pool, gate.number);
        tide_pool_free_block(pool, gate.begun);
    }
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* ---- deaths with a cause ---- */

static void expect_death(struct tide_pool *pool, enum crew_task task,
                         uint64_t number, int by_signal)
{
    struct tide_outcome outcome;
    CHECK(crew_submit(pool, task, (struct crew_args){ .number = number }, 0, 9,
                      77) == TIDE_OK);
    tide_pool_kick(pool, 1);
    crew_receive(pool, &outcome);
    CHECK(outcome.lost && outcome.tag == 77);
    CHECK(crew_check(&outcome) == 8); /* the ninth was in its hand */
    int status = outcome.death.wait_status;
    CHECK(outcome.death.pid > 0);
    if (by_signal)
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == (int)number);
    else
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (int)number);
    tide_pool_release(pool, &outcome);
}

/* However many items kill their workers, the pool lives. */
static void test_deaths(void)
{
    struct tide_host host;
    check_begin("deaths");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
    for (unsigned i = 0; i < check_rounds; i++) {
        expect_death(pool, CREW_EXIT, check_random(256), 0);
        expect_death(pool, CREW_SIGNAL, SIGKILL, 1);
        expect_death(pool, CREW_SIGNAL, SIGTERM, 1);
        expect_death(pool, CREW_SIGNAL, SIGUSR1, 1);
    }
    CHECK(!pool->gone && restart_count(pool) >= 4 * check_rounds - 1);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* ---- memory and sizes ---- */

static void test_lies(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("lies");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 1, 2, NULL);
    const struct tide_region *region = &pool->board.workers[0].region;
    const uint64_t lies[] = {
        0,
        8,
        region->first,
        region->first + 8,
        region->first + 16,
        region->first + 24,
        region->end,
        region->end - 1,
        region->end + 4096,
        UINT64_MAX,
        UINT64_MAX - 15,
        pool->arena.size,
        pool->arena.size - 8,
        pool->region->first + 16,
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        CHECK(crew_submit(pool, CREW_LIE, (struct crew_args){ lies[i], 0 }, 0,
                          1, i) == TIDE_OK);
        tide_pool_kick(pool, 1);
        crew_receive(pool, &outcome);
        CHECK(outcome.capacity == 0 && !outcome.lost);
        tide_pool_release(pool, &outcome);
        CHECK(atomic_load(&region->returned) == 0);
    }
    tide_pool_free(pool);
    tide_host_stop(&host);
}

static void test_exhaustion(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    struct tide_pool *pool;
    struct tide_error err;
    struct tide_pool_options options = { .worker_count = 1,
                                         .slot_count = 4,
                                         .region_bytes = 1 << 16 };
    check_begin("exhaustion");
    crew_start_host(&host);
    CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_OK);
    for (int round = 0; round < 20; round++) {
        uint64_t blocks[100];
        int count = 0;
        while ((blocks[count] = tide_pool_alloc(pool, 3000)) != 0)
            CHECK(++count < 100);
        CHECK(count > 10);
        while (count > 0)
            tide_pool_free_block(pool, blocks[--count]);
        /* A reply that outgrows the region stops where it was. */
        CHECK(crew_submit(pool, CREW_COUNT, (struct crew_args){ 1, 0 }, 0,
                          100000, 3) == TIDE_OK);
        tide_pool_kick(pool, 1);
        crew_receive(pool, &outcome);
        uint32_t reached = crew_check(&outcome);
        CHECK(!outcome.lost && reached > 100 && reached < 100000);
        tide_pool_release(pool, &outcome);
    }
    tide_pool_free(pool);
    tide_host_stop(&host);
}

static void test_sizes(void)
{
    static const uint32_t workers[] = { 0, TIDE_WORKERS_MAX + 1, INT32_MAX,
                                        UINT32_MAX };
    static const uint32_t slots[] = { 3, 5000, TIDE_SLOTS_MAX * 2, UINT32_MAX };
    static const uint64_t regions[] = { 1, 4097, UINT64_MAX, UINT64_MAX / 2,
                                        (UINT64_C(1) << 44) + 4096 };
    struct tide_host host;
    struct tide_pool *pool;
    struct tide_error err;
    check_begin("sizes");
    crew_start_host(&host);
    int fds = check_fd_count();
    for (int i = 0; i < 4; i++) {
        struct tide_pool_options options = { .worker_count = workers[i] };
        CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_EINVAL);
        options = (struct tide_pool_options){ .worker_count = 1,
                                              .slot_count = slots[i] };
        CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_EINVAL);
    }
    for (int i = 0; i < 5; i++) {
        struct tide_pool_options options = { .worker_count = 2,
                                             .region_bytes = regions[i] };
        int status = tide_pool_open(&pool, &host, &options, &err);
        if (status != TIDE_OK)
            fprintf(stderr, "%" PRIu64 " bytes: %s\n", regions[i], err.text);
        CHECK(status == TIDE_OK);
        for (uint32_t j = 0; j < 2; j++)
            CHECK(pool->board.workers[j].region.first % 16 == 0 &&
                  pool->board.workers[j].region.end <= pool->arena.size);
        tide_pool_kill(pool);
        CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
        tide_pool_free(pool);
    }
    struct tide_pool_options options = { .worker_count = 1,
                                         .region_bytes = 4096,
                                         .config = &host,
                                         .config_bytes = SIZE_MAX };
    CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_ENOMEM);
    CHECK(host.pools == NULL && check_fd_count() == fds);
    tide_host_stop(&host);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 24);
    test_sizes();
    test_exhaustion();
    test_lies();
    test_deaths();
    test_stopped();
    test_urgent();
    test_ping_pong();
    test_close();
    test_kill();
    test_kills();
    CHECK(!crew_has_children());
    return EXIT_SUCCESS;
}
