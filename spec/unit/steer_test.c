/*
 * Work that is taken back, cut off, timed, or meant for one worker: each request
 * has exactly one end, whatever it races with.
 */
#include "crew.h"
#include "shm/board_inner.h"

enum { TAGS = 1 << 16 };

static unsigned char state_of[TAGS]; /* by tag */
enum { UNKNOWN, SENT, REVOKED, RECEIVED };

static uint32_t send_one(struct tide_pool *pool, enum crew_task task,
                         struct crew_args args, uint64_t tag)
{
    struct tide_request request = { .flags = (uint16_t)task,
                                    .count = 3,
                                    .length = sizeof args };
    uint32_t slot = UINT32_MAX;
    memcpy(request.args.bytes, &args, sizeof args);
    CHECK(tide_pool_submit(&slot, pool, &request, tag) == TIDE_OK);
    CHECK(slot < pool->board.slot_count);
    return slot;
}

static uint64_t new_word(struct tide_pool *pool)
{
    uint64_t offset = tide_pool_alloc(pool, sizeof(uint64_t));
    CHECK(offset != 0);
    memset(tide_pool_at(pool, offset), 0, sizeof(uint64_t));
    return offset;
}

static _Atomic uint64_t *word_at(struct tide_pool *pool, uint64_t offset)
{
    return (void *)tide_pool_at(pool, offset);
}

/* ---- revoke ---- */

static void take_back(struct tide_pool *pool, uint32_t slot, uint64_t tag)
{
    uint32_t before = tide_pool_in_flight(pool);
    if (tide_pool_revoke(pool, slot) != TIDE_OK)
        return;
    CHECK(state_of[tag] == SENT);
    state_of[tag] = REVOKED;
    CHECK(tide_pool_in_flight(pool) == before - 1);
    CHECK(tide_pool_revoke(pool, slot) == TIDE_EAGAIN);
}

static uint32_t receive_some(struct tide_pool *pool)
{
    struct tide_outcome outcome;
    uint32_t count = 0;
    while (tide_pool_receive(pool, &outcome) == TIDE_OK) {
        CHECK(outcome.tag < TAGS && state_of[outcome.tag] == SENT);
        state_of[outcome.tag] = RECEIVED;
        uint32_t reached = crew_check(&outcome);
        CHECK(outcome.lost || reached == 3);
        tide_pool_release(pool, &outcome);
        count++;
    }
    return count;
}

static void revoke_burst(struct tide_pool *pool, uint64_t *tag)
{
    uint32_t slots[64];
    uint64_t first = *tag;
    uint32_t count = 0;
    uint32_t burst = 1 + check_random(40);
    while (count < burst && *tag < TAGS && tide_pool_has_slot(pool)) {
        state_of[*tag] = SENT;
        slots[count++] =
            send_one(pool, CREW_COUNT, (struct crew_args){ *tag, 0 }, *tag);
        ++*tag;
        if (check_random(3) == 0)
            tide_pool_kick(pool, 1);
    }
    tide_pool_kick(pool, count);
    check_spin(check_random(3) ? 0 : check_random(20 * 1000));
    for (uint32_t i = 0; i < count; i++)
        if (check_random(2))
            take_back(pool, slots[i], first + i);
}

static void test_revoke_race(void)
{
    struct tide_host host;
    unsigned counts[4] = { 0 };
    check_begin("revoke race");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct crew_config deadly = { .life_ns = 400 * 1000,
                                      .seed = check_random64() };
        struct tide_pool *pool =
            crew_open(&host, 1 + check_random(3), 1u << (1 + check_random(6)),
                      check_random(4) ? NULL : &deadly);
        uint64_t tag = 0;
        alarm(CHECK_WATCHDOG_S);
        memset(state_of, UNKNOWN, sizeof state_of);
        pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
        while (tag < 2000) {
            revoke_burst(pool, &tag);
            receive_some(pool);
        }
        while (tide_pool_in_flight(pool) > 0) {
            CHECK(tide_pool_wait(pool, 1, crew_deadline()) == TIDE_OK);
            receive_some(pool);
        }
        for (uint64_t j = 0; j < tag; j++) {
            CHECK(state_of[j] == REVOKED || state_of[j] == RECEIVED);
            counts[state_of[j]]++;
        }
        tide_pool_free(pool);
    }
    printf("revoked: %u of %u\n", counts[REVOKED],
           counts[REVOKED] + counts[RECEIVED]);
    tide_host_stop(&host);
}

/* Revoking for ever, with work that waits at the head: the ring has room, and
 * what waits keeps its order. */
static void test_revoke_ring(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("revoke ring");
    crew_start_host(&host);
    for (uint32_t slots = 4; slots <= 64; slots *= 4) {
        struct tide_pool *pool = crew_open(&host, 1, slots, NULL);
        struct crew_args gate = { new_word(pool), new_word(pool) };
        send_one(pool, CREW_GATE, gate, 1000);
        tide_pool_kick(pool, 1);
        CHECK_SOON(atomic_load(word_at(pool, gate.begun)) == 1);
        for (uint64_t i = 0; i < slots / 2; i++) {
            send_one(pool, CREW_COUNT, (struct crew_args){ i, 0 }, i);
            for (uint32_t j = 0; j < 10 * slots; j++) {
                uint32_t kept = send_one(pool, CREW_COUNT,
                                         (struct crew_args){ 7, 0 }, 2000);
                CHECK(tide_pool_revoke(pool, kept) == TIDE_OK);
            }
        }
        atomic_store(word_at(pool, gate.number), 1);
        crew_receive(pool, &outcome);
        CHECK(outcome.tag == 1000);
        tide_pool_release(pool, &outcome);
        for (uint64_t i = 0; i < slots / 2; i++) {
            crew_receive(pool, &outcome);
            CHECK(outcome.tag == i);
            tide_pool_release(pool, &outcome);
        }
        CHECK(tide_pool_in_flight(pool) == 0);
        tide_pool_free(pool);
    }
    tide_host_stop(&host);
}

/* ---- time limits ---- */

enum { TIMED_ITEMS = 6 };

/* A request whose items take given times; the rest goes out again after a loss. */
struct timed {
    uint64_t block; /* of struct crew_time */
    uint32_t timeout_ms;
    uint32_t next;    /* item that comes next */
    uint32_t lost[2]; /* items, by cause: over time, plain */
    int in_flight;
};

static struct crew_time *times_of(struct tide_pool *pool,
                                  const struct timed *timed)
{
    return (void *)tide_pool_at(pool, timed->block);
}

static uint32_t send_timed(struct tide_pool *pool, struct timed *timed,
                           uint64_t tag)
{
    struct crew_args args = { .number = timed->block };
    struct tide_request request = { .flags = CREW_TIMED,
                                    .timeout_ms = timed->timeout_ms,
                                    .first = timed->next,
                                    .count = TIMED_ITEMS,
                                    .length = sizeof args };
    uint32_t slot;
    atomic_store(&times_of(pool, timed)[timed->next].begun_ns, tide_now_ns());
    memcpy(request.args.bytes, &args, sizeof args);
    CHECK(tide_pool_submit(&slot, pool, &request, tag) == TIDE_OK);
    tide_pool_kick(pool, 1);
    timed->in_flight = 1;
    return slot;
}

/* Whoever was killed for its time really had the item for so long. */
static void take_timed(struct tide_pool *pool, struct timed *timed,
                       const struct tide_outcome *outcome)
{
    uint64_t now_ns = tide_now_ns();
    uint32_t hand = crew_check(outcome);
    CHECK(timed->in_flight && outcome->request.first == timed->next);
    timed->in_flight = 0;
    timed->next = hand;
    if (!outcome->lost) {
        CHECK(hand == TIMED_ITEMS);
        return;
    }
    CHECK(WIFSIGNALED(outcome->death.wait_status));
    if (outcome->death.cause == TIDE_DEATH_TIMEOUT) {
        /* One that an outsider stopped may not have come to hand it over. */
        uint32_t item = hand < TIMED_ITEMS ? hand : TIMED_ITEMS - 1;
        uint64_t begun_ns = atomic_load(&times_of(pool, timed)[item].begun_ns);
        CHECK(now_ns - begun_ns >= timed->timeout_ms * UINT64_C(1000000));
    } else {
        CHECK(outcome->death.cause == TIDE_DEATH_PLAIN);
    }
    timed->lost[outcome->death.cause == TIDE_DEATH_PLAIN]++;
    if (hand < TIMED_ITEMS)
        timed->next++;
}

static void open_timed(struct tide_pool *pool, struct timed *timed,
                       uint32_t timeout_ms)
{
    *timed = (struct timed){ .timeout_ms = timeout_ms };
    timed->block =
        tide_pool_alloc(pool, TIMED_ITEMS * sizeof(struct crew_time));
    CHECK(timed->block != 0);
    for (uint32_t i = 0; i < TIMED_ITEMS; i++) {
        struct crew_time *time = &times_of(pool, timed)[i];
        uint64_t limit_ns = timeout_ms * UINT64_C(1000000);
        memset(time, 0, sizeof *time);
        time->naps = check_random(3) == 0;
        time->takes_ns =
            check_random(3) ? check_random(60 * 1000)
                            : limit_ns - 300 * 1000 + check_random(2000 * 1000);
        if (check_random(60) == 0)
            time->takes_ns = UINT64_C(3600) * 1000 * 1000 * 1000;
    }
}

/* An outsider stops workers and lets them go on. */
static void harass(struct tide_pool *pool, uint32_t *stopped)
{
    uint32_t worker = check_random(tide_board_worker_count(&pool->board));
    pid_t pid = atomic_load(&pool->board.workers[worker].pid);
    if (pid != 0 && check_random(20) == 0)
        kill(pid, (*stopped ^= 1u << worker) >> worker & 1 ? SIGSTOP : SIGCONT);
}

static void release_all(struct tide_pool *pool, uint32_t *stopped)
{
    *stopped = 0;
    for (uint32_t i = 0; i < tide_board_worker_count(&pool->board); i++) {
        pid_t pid = atomic_load(&pool->board.workers[i].pid);
        if (pid != 0)
            kill(pid, SIGCONT);
    }
}

static void run_timed(struct tide_host *host, uint32_t requests, int outsider,
                      uint32_t *lost)
{
    struct tide_pool *pool = crew_open(host, 2, 8, NULL);
    struct timed *timed = calloc(requests, sizeof *timed);
    struct tide_outcome outcome;
    uint32_t stopped = 0;
    uint32_t sent = 0;
    uint32_t complete = 0;
    CHECK(timed != NULL);
    while (complete < requests) {
        alarm(CHECK_WATCHDOG_S);
        while (sent < requests && tide_pool_in_flight(pool) < 5) {
            open_timed(pool, &timed[sent], 1 + check_random(3));
            send_timed(pool, &timed[sent], sent);
            sent++;
        }
        /* Work that waits for stopped workers has no limit. */
        uint64_t until = outsider ? tide_deadline_ns(0.02) : crew_deadline();
        if (tide_pool_wait(pool, 1, until) == TIDE_ETIMEOUT) {
            CHECK(outsider);
            release_all(pool, &stopped);
        }
        if (outsider)
            harass(pool, &stopped);
        if (tide_pool_receive(pool, &outcome) != TIDE_OK)
            continue;
        struct timed *one = &timed[outcome.tag];
        take_timed(pool, one, &outcome);
        tide_pool_release(pool, &outcome);
        if (one->next < TIMED_ITEMS) {
            send_timed(pool, one, outcome.tag);
            continue;
        }
        complete++;
        for (uint32_t i = 0; i < 2; i++)
            lost[i] += one->lost[i];
        tide_pool_free_block(pool, one->block);
    }
    CHECK(outsider || lost[1] == 0);
    free(timed);
    tide_pool_free(pool);
}

static void test_time_limits(void)
{
    struct tide_host host;
    uint32_t lost[2] = { 0 };
    uint32_t requests = 8 * check_rounds;
    check_begin("time limits");
    crew_start_host(&host);
    run_timed(&host, requests, 0, lost);
    printf("over time: %u of %u", lost[0], requests * TIMED_ITEMS);
    lost[0] = lost[1] = 0;
    run_timed(&host, requests, 1, lost);
    printf("; with an outsider: %u, %u plain\n", lost[0], lost[1]);
    tide_host_stop(&host);
}

/* The supervisor says its pid a moment after the fork. */
static pid_t first_worker(struct tide_pool *pool)
{
    pid_t pid;
    CHECK_SOON((pid = atomic_load(&pool->board.workers[0].pid)) != 0);
    return pid;
}

/* For how long does the pool's only worker hold one endless item? */
static uint64_t time_to_kill(struct tide_pool *pool, uint32_t timeout_ms,
                             int stop_signal)
{
    struct timed timed;
    struct tide_outcome outcome;
    open_timed(pool, &timed, timeout_ms);
    struct crew_time *time = times_of(pool, &timed);
    time->takes_ns = UINT64_C(3600) * 1000 * 1000 * 1000;
    send_timed(pool, &timed, 5);
    CHECK_SOON(atomic_load(&time->begun) != 0);
    pid_t pid = first_worker(pool);
    if (stop_signal != 0)
        kill(pid, stop_signal);
    uint64_t begun_ns = atomic_load(&time->begun_ns);
    crew_receive(pool, &outcome);
    uint64_t took_ns = tide_now_ns() - begun_ns;
    CHECK(outcome.lost && outcome.death.cause == TIDE_DEATH_TIMEOUT);
    CHECK(outcome.death.pid == pid && outcome.reply.hand == 0);
    take_timed(pool, &timed, &outcome);
    tide_pool_release(pool, &outcome);
    tide_pool_free_block(pool, timed.block);
    return took_ns;
}

static void test_overdue(void)
{
    static const int signals[] = { 0, SIGSTOP, SIGTSTP, SIGCONT };
    struct tide_host host;
    uint64_t worst_ns = 0;
    check_begin("overdue");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 1, 4, NULL);
    for (unsigned i = 0; i < check_rounds; i++) {
        uint32_t timeout_ms = 1 + check_random(50);
        uint64_t took_ns = time_to_kill(pool, timeout_ms, signals[i % 4]);
        CHECK(took_ns >= timeout_ms * UINT64_C(1000000));
        uint64_t late_ns = took_ns - timeout_ms * UINT64_C(1000000);
        worst_ns = late_ns > worst_ns ? late_ns : worst_ns;
    }
    printf("killed at most %.1f ms late\n", (double)worst_ns / 1e6);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* Stopped between its claim and the note in its record that it has a slot. */
static void test_overdue_unsaid(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    struct timed timed;
    check_begin("overdue unsaid");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 1, 4, NULL);
    for (unsigned i = 0; i < check_rounds; i++) {
        open_timed(pool, &timed, 20);
        struct crew_time *time = times_of(pool, &timed);
        time->takes_ns = UINT64_C(3600) * 1000 * 1000 * 1000;
        send_timed(pool, &timed, 5);
        CHECK_SOON(atomic_load(&time->begun) != 0);
        pid_t pid = first_worker(pool);
        kill(pid, SIGSTOP);
        atomic_store(&pool->board.workers[0].hand, 0);
        crew_receive(pool, &outcome);
        kill(pid, SIGCONT); /* its successor, if we were slow to stop it */
        take_timed(pool, &timed, &outcome);
        CHECK(outcome.lost && outcome.death.cause == TIDE_DEATH_TIMEOUT);
        tide_pool_release(pool, &outcome);
        tide_pool_free_block(pool, timed.block);
    }
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* The watch ends when there is no timed work, and begins again in time. */
static void test_watch_end(void)
{
    struct tide_host host;
    check_begin("watch end");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 1, 4, NULL);
    _Atomic uint32_t *watching = &pool->board.shared->watching;
    for (unsigned i = 0; i < check_rounds / 12 + 1; i++) {
        CHECK(atomic_load(watching) == 0);
        time_to_kill(pool, 5, 0);
        CHECK(atomic_load(watching) != 0);
        CHECK_SOON(atomic_load(watching) == 0);
    }
    time_to_kill(pool, 5, 0);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* ---- cut off ---- */

/* It is over before, while or after it is cut off; what follows it never is. */
static void test_cut_off(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    unsigned lost = 0;
    check_begin("cut off");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 8, NULL);
    for (unsigned i = 0; i < 20 * check_rounds; i++) {
        struct timed timed;
        alarm(CHECK_WATCHDOG_S);
        open_timed(pool, &timed, 1);
        timed.timeout_ms = check_random(2) ? 0 : 1000;
        uint64_t total_ns = 0;
        for (uint32_t j = 0; j < TIMED_ITEMS; j++)
            total_ns += times_of(pool, &timed)[j].takes_ns =
                check_random(40 * 1000);
        uint32_t slot = send_timed(pool, &timed, 1);
        for (uint64_t j = 0; j < 3; j++) /* the innocent */
            send_one(pool, CREW_COUNT, (struct crew_args){ j, 0 }, 2);
        tide_pool_kick(pool, 3);
        check_spin(check_random((uint32_t)total_ns + 100 * 1000));
        int revoked =
            check_random(2) && tide_pool_revoke(pool, slot) == TIDE_OK;
        CHECK(tide_pool_hand(pool, slot) <= TIMED_ITEMS);
        for (uint32_t j = check_random(3); j < 3 && !revoked; j++)
            tide_pool_cut_off(pool, slot);
        for (int left = revoked ? 3 : 4; left > 0; left--) {
            crew_receive(pool, &outcome);
            crew_check(&outcome);
            CHECK(!outcome.lost || (outcome.tag == 1 && !revoked &&
                                    outcome.death.cause == TIDE_DEATH_CANCEL));
            lost += outcome.lost != 0;
            tide_pool_release(pool, &outcome);
        }
        tide_pool_free_block(pool, timed.block);
    }
    printf("cut off: %u of %u\n", lost, 20 * check_rounds);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* One that never ends, also while its worker is stopped. */
static void test_cut_off_endless(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("cut off endless");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 1, 4, NULL);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct crew_args gate = { new_word(pool), new_word(pool) };
        uint32_t slot = send_one(pool, CREW_GATE, gate, 1);
        tide_pool_kick(pool, 1);
        CHECK_SOON(atomic_load(word_at(pool, gate.begun)) == 1);
        if (check_random(2))
            kill(first_worker(pool), SIGSTOP);
        CHECK(tide_pool_revoke(pool, slot) == TIDE_EAGAIN);
        tide_pool_cut_off(pool, slot);
        crew_receive(pool, &outcome);
        CHECK(outcome.lost && outcome.death.cause == TIDE_DEATH_CANCEL);
        CHECK(crew_check(&outcome) == 2);
        tide_pool_release(pool, &outcome);
        tide_pool_cut_off(pool, slot); /* nobody's */
        tide_pool_free_block(pool, gate.number);
        tide_pool_free_block(pool, gate.begun);
    }
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* ---- mail ---- */

enum { MAIL_WORKERS = 3 };

struct post {
    struct tide_pool *pool;
    uint32_t sent; /* tags below it */
    uint32_t lost;
    uint32_t slots[MAIL_WORKERS]; /* of the newest mail, */
    uint64_t tags[MAIL_WORKERS];  /* and its tag */
    unsigned char to[TAGS];       /* worker + 1 by tag; 0: anybody */
};

static void post_one(struct post *post, uint32_t to)
{
    struct crew_args args = { .number = post->sent };
    struct tide_request request = { .flags = CREW_COUNT,
                                    .count = 3,
                                    .length = sizeof args };
    int status = TIDE_EAGAIN;
    uint32_t slot;
    memcpy(request.args.bytes, &args, sizeof args);
    if (to == 0)
        status = tide_pool_submit(&slot, post->pool, &request, post->sent);
    else
        status = tide_pool_submit_to(&slot, post->pool, to - 1, &request,
                                     post->sent);
    if (status != TIDE_OK)
        return;
    if (to != 0) {
        post->slots[to - 1] = slot;
        post->tags[to - 1] = post->sent;
    } else {
        tide_pool_kick(post->pool, 1);
    }
    state_of[post->sent] = SENT;
    post->to[post->sent++] = (unsigned char)to;
}

static void take_mail(struct post *post)
{
    struct tide_outcome outcome;
    while (tide_pool_receive(post->pool, &outcome) == TIDE_OK) {
        CHECK(outcome.tag < post->sent && state_of[outcome.tag] == SENT);
        CHECK(post->to[outcome.tag] == 0 ||
              post->to[outcome.tag] == outcome.death.worker + 1);
        state_of[outcome.tag] = RECEIVED;
        post->lost += outcome.lost != 0;
        CHECK(crew_check(&outcome) == 3 || outcome.lost);
        tide_pool_release(post->pool, &outcome);
    }
}

static void revoke_mail(struct post *post)
{
    uint32_t worker = check_random(MAIL_WORKERS);
    uint64_t tag = post->tags[worker];
    /* Not received yet, so the slot is still its own. */
    if (tag < post->sent && state_of[tag] == SENT && post->to[tag] != 0 &&
        tide_pool_revoke(post->pool, post->slots[worker]) == TIDE_OK)
        state_of[tag] = REVOKED;
}

static void kill_somebody(struct tide_pool *pool)
{
    pid_t pid =
        atomic_load(&pool->board.workers[check_random(MAIL_WORKERS)].pid);
    if (pid != 0)
        kill(pid, SIGKILL);
}

/* Mail and work for all, revoked at random, workers killed at random. */
static void mail_round(struct tide_host *host, struct post *post, int kills)
{
    struct tide_pool *pool = crew_open(host, MAIL_WORKERS, 16, NULL);
    uint32_t total = 1500;
    *post = (struct post){ .pool = pool };
    memset(post->tags, 0xff, sizeof post->tags);
    memset(state_of, UNKNOWN, sizeof state_of);
    pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
    alarm(CHECK_WATCHDOG_S);
    while (post->sent < total) {
        post_one(post, check_random(MAIL_WORKERS + 1));
        if (check_random(10) == 0)
            revoke_mail(post);
        if (kills && check_random(40) == 0)
            kill_somebody(pool);
        if (check_random(4) == 0 && tide_pool_in_flight(pool) > 0)
            CHECK(tide_pool_wait(pool, 1, crew_deadline()) == TIDE_OK);
        take_mail(post);
    }
    if (check_random(2))
        tide_pool_close(pool);
    while (tide_pool_in_flight(pool) > 0) {
        CHECK(tide_pool_wait(pool, 1, crew_deadline()) != TIDE_ETIMEOUT);
        take_mail(post);
    }
    for (uint32_t i = 0; i < total; i++)
        CHECK(state_of[i] == RECEIVED || state_of[i] == REVOKED);
    tide_pool_free(pool);
}

static void test_mail(void)
{
    static struct post post;
    struct tide_host host;
    uint32_t lost = 0;
    check_begin("mail");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        mail_round(&host, &post, i % 2);
        CHECK(i % 2 || post.lost == 0);
        lost += post.lost;
    }
    printf("mail: %u lost\n", lost);
    tide_host_stop(&host);
}

/* One letter at a time to a worker that may be asleep: each has to wake it. */
static void test_mail_wakes(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("mail wakes");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, MAIL_WORKERS, 8, NULL);
    for (uint64_t i = 0; i < 200 * check_rounds; i++) {
        struct crew_args args = { .number = i };
        struct tide_request request = { .count = 1, .length = sizeof args };
        uint32_t worker = check_random(MAIL_WORKERS);
        alarm(CHECK_WATCHDOG_S);
        memcpy(request.args.bytes, &args, sizeof args);
        CHECK(tide_pool_submit_to(NULL, pool, worker, &request, i) == TIDE_OK);
        check_spin(check_random(4) ? 0 : check_random(60 * 1000));
        crew_receive(pool, &outcome);
        CHECK(outcome.tag == i && outcome.death.worker == worker);
        tide_pool_release(pool, &outcome);
    }
    CHECK(tide_pool_submit_to(NULL, pool, MAIL_WORKERS,
                              &(struct tide_request){ .count = 1 },
                              1) == TIDE_EINVAL);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* ---- a supervisor that is stopped ---- */

enum { BELLS = 2000 }; /* more than its queue takes */

/* Nothing that the host says waits, and nothing is lost: it is done later. */
static void test_stopped_supervisor(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    struct tide_error err;
    check_begin("stopped supervisor");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 64, NULL);
    struct tide_pool *ended = crew_open(&host, 1, 64, NULL);
    struct crew_args gate = { new_word(pool), new_word(pool) };
    uint32_t slot = send_one(pool, CREW_GATE, gate, 1);
    tide_pool_kick(pool, 1);
    CHECK_SOON(atomic_load(word_at(pool, gate.begun)) == 1);
    kill(host.supervisor.pid, SIGSTOP);
    uint64_t began_ns = tide_now_ns();
    for (uint32_t i = 0; i < BELLS; i++)
        CHECK(tide_pool_resize(pool, 1 + i % 4, &err) == TIDE_OK);
    tide_pool_cut_off(pool, slot);
    struct tide_request timed = {
        .flags = CREW_GATE, .count = 3, .timeout_ms = 20, .length = sizeof gate
    };
    memcpy(timed.args.bytes, &gate, sizeof gate);
    CHECK(tide_pool_submit(NULL, pool, &timed, 2) == TIDE_OK);
    tide_pool_kick(pool, 1);
    tide_pool_kill(ended);
    CHECK(tide_now_ns() - began_ns < UINT64_C(2) * 1000 * 1000 * 1000);
    kill(host.supervisor.pid, SIGCONT);
    for (int i = 0; i < 2; i++) {
        crew_receive(pool, &outcome);
        CHECK(outcome.lost);
        CHECK(outcome.death.cause ==
              (outcome.tag == 1 ? TIDE_DEATH_CANCEL : TIDE_DEATH_TIMEOUT));
        tide_pool_release(pool, &outcome);
    }
    CHECK(tide_pool_join(ended, crew_deadline()) == TIDE_OK);
    CHECK(tide_pool_workers(pool) == 4);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_SOON(atomic_load(&pool->board.workers[i].pid) != 0);
    tide_pool_free(ended);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* Time goes on for who is continued all the time, and never stopped. */
static void test_pestered_supervisor(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("pestered supervisor");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 1, 4, NULL);
    struct crew_args gate = { new_word(pool), 0 };
    struct tide_request timed = {
        .flags = CREW_GATE, .count = 3, .timeout_ms = 100, .length = sizeof gate
    };
    memcpy(timed.args.bytes, &gate, sizeof gate);
    CHECK(tide_pool_submit(NULL, pool, &timed, 1) == TIDE_OK);
    tide_pool_kick(pool, 1);
    uint64_t limit_ns = tide_deadline_ns(3);
    CHECK_SOON((kill(host.supervisor.pid, SIGCONT),
                tide_pool_receive(pool, &outcome) == TIDE_OK));
    CHECK(tide_now_ns() < limit_ns);
    CHECK(outcome.lost && outcome.death.cause == TIDE_DEATH_TIMEOUT);
    tide_pool_release(pool, &outcome);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 24);
    test_revoke_race();
    test_revoke_ring();
    test_time_limits();
    test_overdue();
    test_overdue_unsaid();
    test_watch_end();
    test_cut_off();
    test_cut_off_endless();
    test_mail();
    test_mail_wakes();
    test_stopped_supervisor();
    test_pestered_supervisor();
    CHECK(!crew_has_children());
    return EXIT_SUCCESS;
}
