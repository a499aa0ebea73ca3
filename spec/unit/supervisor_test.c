/*
 * Each state of a worker and each event of its table in crew.c, with real
 * processes; and that nothing is left behind, whoever is killed.
 */
#include "crew.h"
#include "proc/channel.h"
#include "proc/supervisor.h"
#include "shm/board_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

static struct tide_worker_record *record_of(struct tide_pool *pool,
                                            uint32_t worker)
{
    return &pool->board.workers[worker];
}

/* The worker's pid once it works; another than `before`. */
static pid_t await_worker(struct tide_pool *pool, uint32_t worker, pid_t before)
{
    struct tide_worker_record *record = record_of(pool, worker);
    pid_t pid = 0;
    CHECK_SOON((pid = atomic_load(&record->pid)) != 0 && pid != before &&
               atomic_load(&record->phase) == TIDE_WORKER_UP);
    return pid;
}

static void await_asleep(struct tide_pool *pool, uint32_t worker)
{
    CHECK_SOON(atomic_load(&pool->board.shared->asleep[0]) >> worker & 1);
}

static void await_gone(struct tide_pool *pool)
{
    CHECK(tide_pool_join(pool, crew_deadline()) == TIDE_OK);
    CHECK(pool->gone);
}

static void run_one(struct tide_pool *pool)
{
    struct tide_outcome outcome;
    CHECK(crew_submit(pool, CREW_COUNT, (struct crew_args){ 4, 0 }, 0, 30, 9) ==
          TIDE_OK);
    tide_pool_kick(pool, 1);
    crew_receive(pool, &outcome);
    CHECK(outcome.tag == 9 && !outcome.lost && crew_check(&outcome) == 30);
    tide_pool_release(pool, &outcome);
}

/* A request that holds a worker until the word behind the result is set. */
static uint64_t hold_worker(struct tide_pool *pool)
{
    struct crew_args gate = { .number = tide_pool_alloc(pool, 8),
                              .begun = tide_pool_alloc(pool, 8) };
    _Atomic uint64_t *begun = (void *)tide_pool_at(pool, gate.begun);
    CHECK(gate.number != 0 && gate.begun != 0);
    memset(tide_pool_at(pool, gate.number), 0, 8);
    atomic_store(begun, 0);
    CHECK(crew_submit(pool, CREW_GATE, gate, 0, 3, 1) == TIDE_OK);
    tide_pool_kick(pool, 1);
    CHECK_SOON(atomic_load(begun) == 1);
    return gate.number;
}

/* ---- RUNNING and VACANT ---- */

/* reaped, idle: replaced, however often */
static void test_idle_kill(void)
{
    struct tide_host host;
    check_begin("idle kill");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
    CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_OK);
    for (unsigned i = 0; i < check_rounds; i++) {
        uint32_t worker = check_random(2);
        pid_t pid = await_worker(pool, worker, 0);
        if (check_random(2))
            await_asleep(pool, worker);
        kill(pid, check_random(2) ? SIGKILL : SIGTERM);
        await_worker(pool, worker, pid);
    }
    run_one(pool);
    CHECK(!pool->gone);
    CHECK(atomic_load(&record_of(pool, 0)->restarts) +
              atomic_load(&record_of(pool, 1)->restarts) ==
          check_rounds);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* reaped, busy: its slot is lost, it is replaced */
static void test_busy_kill(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("busy kill");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 1, 4, NULL);
    for (unsigned i = 0; i < check_rounds; i++) {
        uint64_t gate = hold_worker(pool);
        pid_t pid = await_worker(pool, 0, 0);
        if (check_random(4) == 0)
            kill(pid, SIGSTOP); /* a stopped one dies as well */
        kill(pid, SIGKILL);
        crew_receive(pool, &outcome);
        CHECK(outcome.lost && outcome.death.worker == 0);
        CHECK(outcome.death.pid == pid);
        CHECK(WTERMSIG(outcome.death.wait_status) == SIGKILL);
        CHECK(crew_check(&outcome) == 2);
        tide_pool_release(pool, &outcome);
        tide_pool_free_block(pool, gate);
        await_worker(pool, 0, pid);
    }
    run_one(pool);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* reaped after close with code 0: ENDED; with another end: replaced, then ENDED */
static void test_closed(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("closed");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_pool *pool = crew_open(&host, 3, 4, NULL);
        int dies = check_random(2) != 0;
        uint64_t gate = dies ? hold_worker(pool) : 0;
        tide_pool_close(pool);
        if (dies) {
            pid_t pid = 0;
            for (uint32_t w = 0; w < 3; w++)
                if (atomic_load(&record_of(pool, w)->hand) != 0)
                    pid = atomic_load(&record_of(pool, w)->pid);
            CHECK(pid != 0 && gate != 0);
            kill(pid, SIGKILL);
            crew_receive(pool, &outcome);
            CHECK(outcome.lost);
            tide_pool_release(pool, &outcome);
        }
        await_gone(pool);
        CHECK(!pool->broken);
        uint32_t restarts = 0;
        for (uint32_t w = 0; w < 3; w++)
            restarts += atomic_load(&record_of(pool, w)->restarts);
        CHECK(restarts == (uint32_t)dies);
        tide_pool_free(pool);
    }
    tide_host_stop(&host);
}

/* ---- crash loops ---- */

static void expect_broken(struct tide_host *host, uint32_t workers,
                          const struct crew_config *config, const char *reason)
{
    struct tide_pool *pool = crew_open(host, workers, 4, config);
    CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_EBROKEN);
    CHECK(pool->gone && pool->broken);
    if (strstr(pool->reason, reason) == NULL)
        fprintf(stderr, "reason: %s\n", pool->reason);
    CHECK(strstr(pool->reason, reason) != NULL);
    CHECK(tide_pool_wait(pool, 1, crew_deadline()) == TIDE_EBROKEN);
    for (uint32_t i = 0; i < workers; i++)
        CHECK(atomic_load(&record_of(pool, i)->pid) == 0);
    tide_pool_free(pool);
}

static void test_crash_loop(void)
{
    struct tide_host host;
    check_begin("crash loop");
    crew_start_host(&host);
    struct crew_config exits = { .fault = CREW_EXITS, .code = 7 };
    struct crew_config leaves = { .fault = CREW_EXITS, .code = 0 };
    struct crew_config dies = { .fault = CREW_DIES, .code = SIGUSR2 };
    struct crew_config killed = { .fault = CREW_DIES, .code = SIGKILL };
    for (uint32_t workers = 1; workers <= 4; workers += 3) {
        expect_broken(&host, workers, &exits, "exit code 7");
        expect_broken(&host, workers, &leaves, "exit code 0");
        expect_broken(&host, workers, &dies, "signal 12");
        expect_broken(&host, workers, &killed, "signal 9");
    }
    struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
    run_one(pool); /* a broken neighbour is none of its business */
    tide_pool_free(pool);
    tide_host_stop(&host);
}

/* A worker that says why it cannot start ends the pool at once. */
static void test_refusal(void)
{
    struct tide_host host;
    check_begin("refusal");
    crew_start_host(&host);
    struct crew_config config = { .fault = CREW_REFUSES };
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_pool *pool = crew_open(&host, 3, 4, &config);
        CHECK(tide_pool_await_start(pool, crew_deadline()) == TIDE_EBROKEN);
        uint64_t failure = 0;
        uint32_t restarts = 0;
        for (uint32_t w = 0; w < 3; w++) {
            if (failure == 0)
                failure = atomic_load(&record_of(pool, w)->failure);
            restarts += atomic_load(&record_of(pool, w)->restarts);
        }
        CHECK(failure != 0 && restarts == 0);
        CHECK(strcmp((char *)tide_pool_at(pool, failure), "no will to work") ==
              0);
        tide_pool_free(pool);
    }
    tide_host_stop(&host);
}

/* ---- stops ---- */

static void test_two_pools(void)
{
    struct tide_host host;
    check_begin("two pools");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_pool *one = crew_open(&host, 2, 4, NULL);
        struct tide_pool *two = crew_open(&host, 2, 4, NULL);
        run_one(one);
        pid_t pid = await_worker(two, 0, 0);
        tide_pool_kill(one);
        if (check_random(2)) {
            await_gone(one);
            CHECK(!one->broken);
        }
        run_one(two);
        CHECK(!two->gone && await_worker(two, 0, 0) == pid);
        tide_pool_free(one);
        run_one(two);
        tide_pool_free(two);
    }
    tide_host_stop(&host);
}

/* A stopped worker is no obstacle: neither to the end of its pool nor its host's. */
static void test_stop_stopped(void)
{
    check_begin("stop stopped");
    for (int way = 0; way < 2; way++) {
        struct tide_host host;
        crew_start_host(&host);
        struct tide_pool *pool = crew_open(&host, 3, 4, NULL);
        pid_t pid = await_worker(pool, 1, 0);
        kill(pid, SIGSTOP);
        if (way == 0) {
            tide_pool_kill(pool);
            await_gone(pool);
        }
        tide_host_stop(&host);
        CHECK(!crew_runs(pid));
        tide_pool_free(pool);
    }
}

/* A supervisor that is stopped is set going, and ends in good order. */
static void test_stopped_supervisor(void)
{
    struct tide_host host;
    check_begin("stopped supervisor");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
    pid_t pid = await_worker(pool, 0, 0);
    kill(host.supervisor.pid, SIGSTOP);
    uint64_t start = tide_now_ns();
    tide_host_stop(&host);
    CHECK(tide_now_ns() - start < UINT64_C(2000) * 1000 * 1000);
    CHECK(!crew_runs(pid));
    CHECK(pool->gone && pool->broken);
    tide_pool_free(pool);
}

static void *hang(void *argument)
{
    for (;;)
        pause();
    return argument;
}

/* A supervisor that does not react is killed after some seconds, which are spent
 * beside the other tests. */
static pid_t start_wedged_supervisor(void)
{
    struct tide_supervisor supervisor;
    struct tide_error err;
    const struct tide_worker_ops ops = { .prepare = hang, .run = crew_main };
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid != 0)
        return pid;
    check_begin("wedged supervisor");
    CHECK(tide_supervisor_start(&supervisor, &ops, NULL, &err) == TIDE_OK);
    tide_supervisor_stop(&supervisor);
    CHECK(!crew_has_children());
    _exit(EXIT_SUCCESS);
}

static void await_wedged_supervisor(pid_t pid)
{
    int status;
    check_begin("wedged supervisor");
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void ignore_children(int how)
{
    signal(SIGCHLD, how == 1 ? SIG_IGN : SIG_DFL);
}

/* The host reaps, or has reaped, the supervisor itself. */
static void test_reaped_supervisor(void)
{
    check_begin("reaped supervisor");
    for (int how = 0; how < 2; how++) {
        struct tide_host host;
        ignore_children(how);
        crew_start_host(&host);
        struct tide_pool *pool = crew_open(&host, 1, 4, NULL);
        run_one(pool);
        if (how == 0) {
            kill(host.supervisor.pid, SIGKILL);
            CHECK(waitpid(host.supervisor.pid, NULL, 0) > 0);
        }
        tide_host_stop(&host);
        tide_pool_free(pool);
        ignore_children(0);
    }
}

/* ---- deaths of supervisor and host ---- */

static void test_supervisor_death(void)
{
    check_begin("supervisor death");
    for (unsigned i = 0; i < check_rounds / 4 + 1; i++) {
        struct tide_host host;
        pid_t pids[3];
        crew_start_host(&host);
        struct tide_pool *pool = crew_open(&host, 3, 4, NULL);
        for (uint32_t w = 0; w < 3; w++)
            pids[w] = await_worker(pool, w, 0);
        if (check_random(2))
            hold_worker(pool);
        kill(host.supervisor.pid, SIGKILL);
        while (!pool->gone)
            CHECK(tide_pool_wait(pool, 1, crew_deadline()) != TIDE_ETIMEOUT);
        CHECK(pool->broken && strstr(pool->reason, "supervisor") != NULL);
        for (int w = 0; w < 3; w++)
            CHECK_SOON(!crew_runs(pids[w]));
        struct tide_pool *other;
        struct tide_error err;
        struct tide_pool_options options = { .worker_count = 1 };
        CHECK(tide_pool_open(&other, &host, &options, &err) == TIDE_EBROKEN);
        tide_host_stop(&host);
        tide_pool_free(pool);
    }
}

struct family {
    _Atomic int32_t pids[8]; /* supervisor and workers */
    _Atomic int32_t ready;
};

static _Noreturn void be_host(struct family *family, uint64_t seed)
{
    struct tide_host host;
    check_reseed(seed);
    crew_start_host(&host);
    atomic_store(&family->pids[0], host.supervisor.pid);
    atomic_store(&family->ready, 1);
    struct tide_pool *pool = crew_open(&host, 3, 4, NULL);
    for (uint32_t w = 0; w < 3; w++)
        atomic_store(&family->pids[1 + w], await_worker(pool, w, 0));
    if (check_random(2))
        hold_worker(pool);
    atomic_store(&family->ready, 2);
    for (;;)
        run_one(pool);
}

static void reap_orphans(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
}

/* The host is killed at any moment: no process outlives it for long. */
static void test_host_death(void)
{
    struct family *family = mmap(NULL, sizeof *family, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check_begin("host death");
    CHECK(family != MAP_FAILED);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    for (unsigned i = 0; i < check_rounds; i++) {
        alarm(CHECK_WATCHDOG_S);
        memset(family, 0, sizeof *family);
        uint64_t seed = check_random64();
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            be_host(family, seed);
        if (check_random(2))
            CHECK_SOON(atomic_load(&family->ready) == 1 + (int)check_random(2));
        check_spin(check_random(1000 * 1000));
        if (check_random(3) == 0 && atomic_load(&family->pids[1]) != 0)
            kill(atomic_load(&family->pids[check_random(2)]), SIGSTOP);
        kill(pid, SIGKILL);
        CHECK(waitpid(pid, NULL, 0) == pid);
        /* What it leaves is given to us, and has to end by itself. */
        CHECK_SOON((reap_orphans(), waitpid(-1, NULL, WNOHANG) < 0));
        CHECK(errno == ECHILD);
    }
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
    munmap(family, sizeof *family);
}

/* ---- fork failures ---- */

static int fork_limit_child(void)
{
    struct tide_host host;
    struct tide_error err;
    struct tide_pool *pool;
    struct tide_pool_options options = { .worker_count = 200 };
    struct rlimit limit = { .rlim_cur = 30, .rlim_max = 30 };
    crew_start_host(&host);
    struct tide_pool *old = crew_open(&host, 2, 4, NULL);
    run_one(old);
    if (prlimit(host.supervisor.pid, RLIMIT_NPROC, &limit, NULL) != 0)
        return 2;
    CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_EBROKEN);
    CHECK(strstr(err.text, "cannot fork worker") != NULL);
    CHECK(strstr(err.text, "of 200") != NULL);
    run_one(old);
    tide_pool_free(old);
    tide_host_stop(&host);
    CHECK(!crew_has_children());
    return 0;
}

/* Not enough processes for a pool: it is refused, with nothing left. */
static void test_fork_failure(void)
{
    int status;
    check_begin("fork failure");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
            _exit(3);
        prctl(PR_SET_DUMPABLE,
              1); /* or prlimit() is refused after the change */
        _exit(fork_limit_child());
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    if (WEXITSTATUS(status) >= 2)
        printf("fork failure: skipped, cannot set a limit (%d)\n",
               WEXITSTATUS(status));
    else
        CHECK(WEXITSTATUS(status) == 0);
}

/* ---- the channel ---- */

static void await_supervisor_end(struct tide_supervisor *supervisor)
{
    int status;
    CHECK(waitpid(supervisor->pid, &status, 0) == supervisor->pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tide_supervisor_stop(supervisor);
}

static void start_supervisor(struct tide_supervisor *out)
{
    struct tide_error err;
    CHECK(tide_supervisor_start(out, &crew_ops, NULL, &err) == TIDE_OK);
}

static struct tide_message await_message(struct tide_supervisor *supervisor)
{
    struct tide_message message;
    int fds[TIDE_MESSAGE_FDS];
    CHECK_SOON(tide_channel_receive(supervisor->channel, &message, fds) ==
               TIDE_OK);
    return message;
}

static int supervisor_fd_count(const struct tide_supervisor *supervisor)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)supervisor->pid);
    DIR *fds = opendir(path);
    CHECK(fds != NULL);
    while (readdir(fds) != NULL)
        count++;
    closedir(fds);
    return count;
}

/* What is no message ends the supervisor; an order that makes no sense does not. */
static void test_garbage(void)
{
    struct tide_supervisor supervisor;
    struct tide_message message = { .kind = TIDE_MESSAGE_CREATE, .crew = 5 };
    char bytes[2 * sizeof message] = { 0 };
    const size_t lengths[] = { 1, sizeof message - 1, sizeof message + 1,
                               sizeof bytes };
    check_begin("garbage");
    for (int i = 0; i < 4; i++) {
        start_supervisor(&supervisor);
        CHECK(send(supervisor.channel, bytes, lengths[i], 0) ==
              (ssize_t)lengths[i]);
        await_supervisor_end(&supervisor);
    }

    start_supervisor(&supervisor);
    CHECK(tide_channel_send(supervisor.channel, &message, NULL) == TIDE_OK);
    struct tide_message reply = await_message(&supervisor);
    CHECK(reply.kind == TIDE_MESSAGE_GONE && reply.crew == 5 && reply.broken);
    CHECK(strstr(reply.reason, "descriptors") != NULL);

    int fd_count = supervisor_fd_count(&supervisor);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int fds[TIDE_MESSAGE_FDS] = { null, null };
    message.arena_bytes = 4096; /* of something that cannot be mapped */
    CHECK(tide_channel_send(supervisor.channel, &message, fds) == TIDE_OK);
    reply = await_message(&supervisor);
    CHECK(reply.kind == TIDE_MESSAGE_GONE && reply.broken);
    CHECK(strstr(reply.reason, "cannot map") != NULL);
    message.kind = 4711;
    CHECK(tide_channel_send(supervisor.channel, &message, fds) == TIDE_OK);
    message.kind = TIDE_MESSAGE_LOOK;
    CHECK(tide_channel_send(supervisor.channel, &message, fds) == TIDE_OK);
    message.kind = TIDE_MESSAGE_CREATE;
    CHECK(tide_channel_send(supervisor.channel, &message, NULL) == TIDE_OK);
    await_message(&supervisor);
    CHECK(supervisor_fd_count(&supervisor) == fd_count);
    close(null);
    tide_supervisor_stop(&supervisor);
}

/* Its table of descriptors is full: the pool is refused, nothing leaks. */
static void test_fd_limit(void)
{
    struct tide_host host;
    struct tide_pool *pool;
    struct tide_error err;
    struct tide_pool_options options = { .worker_count = 1 };
    check_begin("fd limit");
    crew_start_host(&host);
    struct tide_pool *first = crew_open(&host, 1, 4, NULL);
    int before = supervisor_fd_count(&host.supervisor);
    for (rlim_t room = 0; room < 2; room++) {
        struct rlimit old;
        CHECK(prlimit(host.supervisor.pid, RLIMIT_NOFILE, NULL, &old) == 0);
        struct rlimit limit = old;
        limit.rlim_cur = (rlim_t)before - 2 + room; /* "." and ".." */
        CHECK(prlimit(host.supervisor.pid, RLIMIT_NOFILE, &limit, NULL) == 0);
        CHECK(tide_pool_open(&pool, &host, &options, &err) == TIDE_EBROKEN);
        CHECK(prlimit(host.supervisor.pid, RLIMIT_NOFILE, &old, NULL) == 0);
        CHECK(supervisor_fd_count(&host.supervisor) == before);
    }
    run_one(first);
    tide_pool_free(first);
    tide_host_stop(&host);
}

/* ---- what is left ---- */

static void test_leaks(void)
{
    struct tide_host host;
    check_begin("leaks");
    int before = check_fd_count();
    for (int hosts = 0; hosts < 3; hosts++) {
        crew_start_host(&host);
        int inside = 0;
        for (unsigned i = 0; i < 70; i++) {
            struct tide_pool *pool =
                crew_open(&host, 1 + check_random(3), 4, NULL);
            if (check_random(2))
                run_one(pool);
            if (check_random(2))
                tide_pool_close(pool);
            if (check_random(2)) {
                tide_pool_kill(pool);
                await_gone(pool);
            }
            tide_pool_free(pool);
            if (i == 0)
                inside = check_fd_count();
        }
        CHECK(check_fd_count() == inside);
        struct tide_pool *last = crew_open(&host, 1, 4, NULL);
        run_one(last);
        tide_pool_kill(last);
        await_gone(last);
        tide_pool_free(last);
        /* 0-2, channel, commons, host, children; "." and ".." */
        CHECK_SOON(supervisor_fd_count(&host.supervisor) == 7 + 2);
        tide_host_stop(&host);
        CHECK(!crew_has_children());
    }
    CHECK(check_fd_count() == before);
}

/* A host without 0, 1 and 2: nothing of ours takes their place. */
static void test_closed_stdio(void)
{
    int status;
    check_begin("closed stdio");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct tide_host host;
        for (int fd = 0; fd < 3; fd++)
            close(fd);
        crew_start_host(&host);
        struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
        run_one(pool);
        CHECK(pool->board.event_fd > 2 && host.supervisor.channel > 2);
        for (int fd = 0; fd < 3; fd++) {
            char path[64];
            char target[64] = "";
            snprintf(path, sizeof path, "/proc/%d/fd/%d",
                     (int)await_worker(pool, 0, 0), fd);
            CHECK(readlink(path, target, sizeof target - 1) > 0);
            CHECK(strcmp(target, "/dev/null") == 0);
        }
        tide_pool_free(pool);
        tide_host_stop(&host);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* The copy has closed all and opened other files under the same numbers. */
static int reuse_numbers(const struct tide_host *host,
                         const struct tide_pool *pool)
{
    const int numbers[] = { host->supervisor.channel, pool->board.event_fd,
                            pool->arena.fd };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3; i++)
        CHECK(dup2(null, numbers[i]) == numbers[i]);
    return check_fd_count();
}

/* A copy of the host leaves the original's processes and its own files alone. */
static void test_forked_host(void)
{
    struct tide_host host;
    int status;
    check_begin("forked host");
    crew_start_host(&host);
    struct tide_pool *pool = crew_open(&host, 2, 4, NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(!tide_host_is_ours(&host));
        int fds = reuse_numbers(&host, pool);
        tide_pool_kill(pool);
        if (check_random(2)) {
            tide_host_stop(&host);
            tide_pool_free(pool);
        } else {
            tide_pool_free(pool);
            tide_host_stop(&host);
        }
        CHECK(check_fd_count() == fds);
        _exit(EXIT_SUCCESS);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    run_one(pool);
    tide_pool_free(pool);
    tide_host_stop(&host);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 30);
    pid_t wedged = start_wedged_supervisor();
    test_idle_kill();
    test_busy_kill();
    test_closed();
    test_crash_loop();
    test_refusal();
    test_two_pools();
    test_stop_stopped();
    test_stopped_supervisor();
    test_reaped_supervisor();
    test_supervisor_death();
    await_wedged_supervisor(wedged);
    test_host_death();
    test_fork_failure();
    test_garbage();
    test_fd_limit();
    test_leaks();
    test_closed_stdio();
    test_forked_host();
    CHECK(!crew_has_children());
    return EXIT_SUCCESS;
}
