/*
 * Semaphores: counts against a model, and a kill at every instruction of a scope's
 * taking and giving, while others take and give without one.
 */
#include "check.h"
#include "share/commons_inner.h"
#include "share/sync.h"
#include "step.h"

static struct tide_error err;

static tide_handle make(uint32_t count, uint32_t limit)
{
    tide_handle semaphore;
    CHECK(tide_semaphore_make(&semaphore, count, limit, &err) == TIDE_OK);
    return semaphore;
}

static void enter_child(tide_handle semaphore)
{
    CHECK(tide_object_hold(semaphore, TIDE_SHARED_SEMAPHORE, &err) == TIDE_OK);
}

static void test_counts(void)
{
    check_begin("counts");
    tide_handle semaphore = make(3, 5);
    uint32_t count = 3, in_scopes = 0;
    for (unsigned i = 0; i < 100000; i++) {
        int scoped = check_random(2) == 0;
        if (check_random(2) == 0) {
            int status = tide_semaphore_try(semaphore, scoped);
            CHECK(status == (count > 0 ? TIDE_OK : TIDE_EAGAIN));
            count -= status == TIDE_OK;
            in_scopes += status == TIDE_OK && scoped;
            continue;
        }
        if (scoped && in_scopes == 0)
            continue;
        uint32_t more = scoped ? 1 : 1 + check_random(3);
        int status = tide_semaphore_release(semaphore, more, scoped);
        CHECK(status == (count + more <= 5 ? TIDE_OK : TIDE_EINVAL));
        count += status == TIDE_OK ? more : 0;
        in_scopes -= status == TIDE_OK && scoped;
        CHECK(tide_semaphore_count(semaphore) == count);
    }
    tide_object_drop(semaphore);
}

/* ---- a kill at every instruction ---- */

static void child_takes(void *context)
{
    tide_handle semaphore = *(tide_handle *)context;
    enter_child(semaphore);
    tide_handle warm = make(1, 0);
    CHECK(tide_semaphore_try(warm, 1) == TIDE_OK);
    step_mark();
    CHECK(tide_semaphore_try(semaphore, 1) == TIDE_OK);
    step_mark();
}

static void child_gives(void *context)
{
    tide_handle semaphore = *(tide_handle *)context;
    enter_child(semaphore);
    tide_handle warm = make(1, 0);
    CHECK(tide_semaphore_try(warm, 1) == TIDE_OK);
    CHECK(tide_semaphore_release(warm, 1, 1) == TIDE_OK);
    CHECK(tide_semaphore_try(semaphore, 1) == TIDE_OK);
    step_mark();
    CHECK(tide_semaphore_release(semaphore, 1, 1) == TIDE_OK);
    step_mark();
}

/* What the dead one has in its scope is there when somebody finds none. */
static void kill_everywhere(const char *name, void (*child)(void *))
{
    unsigned steps = 0;
    int alive = 1;
    check_begin(name);
    while (alive) {
        tide_handle semaphore = make(2, 2);
        alive = step_and_kill(child, &semaphore, steps);
        void *body = tide_object_body(semaphore);
        uint32_t count = tide_semaphore_count(semaphore);
        CHECK(count == 1 || count == 2);
        /* without a look at what the dead one has half done */
        CHECK(tide_semaphore_take_one(body) == TIDE_OK);
        CHECK(tide_semaphore_give_one(body) == TIDE_OK);
        CHECK(tide_semaphore_count(semaphore) == count);
        CHECK(tide_semaphore_try(semaphore, 1) == TIDE_OK);
        CHECK(tide_semaphore_try(semaphore, 0) == TIDE_OK);
        CHECK(tide_semaphore_try(semaphore, 0) == TIDE_EAGAIN);
        CHECK(tide_semaphore_release(semaphore, 1, 0) == TIDE_OK);
        CHECK(tide_semaphore_release(semaphore, 1, 1) == TIDE_OK);
        CHECK(tide_semaphore_release(semaphore, 1, 0) == TIDE_EINVAL);
        CHECK(tide_semaphore_count(semaphore) == 2);
        tide_object_drop(semaphore);
        steps += step_stride(3);
    }
    printf("  %s: %u instructions\n", name, steps);
}

/* ---- many ---- */

enum { TAKERS = 4, ROUNDS = 20000 };

static void take_and_give(tide_handle semaphore, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        int scoped = (int)check_random(2);
        struct tide_wait wait = { .object = semaphore,
                                  .deadline_ns = TIDE_FOREVER,
                                  .own_holds = 1 };
        int status = tide_semaphore_try(semaphore, scoped);
        while (status == TIDE_EAGAIN)
            status = tide_semaphore_wait(&wait, scoped);
        tide_wait_end(&wait);
        CHECK(status == TIDE_OK);
        CHECK(tide_semaphore_release(semaphore, 1, scoped) == TIDE_OK);
    }
}

static pid_t start(tide_handle semaphore, int scopes_only)
{
    uint64_t seed = check_random64();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        check_reseed(seed);
        enter_child(semaphore);
        if (!scopes_only) {
            take_and_give(semaphore, ROUNDS);
            _exit(EXIT_SUCCESS);
        }
        for (;;) /* to be killed */
            if (tide_semaphore_try(semaphore, 1) == TIDE_OK)
                CHECK(tide_semaphore_release(semaphore, 1, 1) == TIDE_OK);
    }
    return pid;
}

static void test_many(void)
{
    pid_t pids[TAKERS];
    int status;
    check_begin("many");
    tide_handle semaphore = make(3, 3);
    for (int i = 0; i < TAKERS; i++)
        pids[i] = start(semaphore, 0);
    for (int i = 0; i < 50; i++) {
        pid_t victim = start(semaphore, 1);
        check_spin(check_random(2000 * 1000));
        kill(victim, SIGKILL);
        CHECK(waitpid(victim, &status, 0) == victim && WIFSIGNALED(status));
    }
    for (int i = 0; i < TAKERS; i++) {
        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (int i = 0; i < 3; i++)
        CHECK(tide_semaphore_try(semaphore, 1) == TIDE_OK);
    CHECK(tide_semaphore_try(semaphore, 1) == TIDE_EAGAIN);
    CHECK(tide_semaphore_release(semaphore, 3, 1) == TIDE_OK);
    tide_object_drop(semaphore);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 1);
    CHECK(tide_commons_open(&err) == TIDE_OK);
    tide_sync_define();
    for (unsigned i = 0; i < check_rounds; i++) {
        test_counts();
        kill_everywhere("taking in a scope", child_takes);
        kill_everywhere("giving from a scope", child_gives);
        test_many();
    }
    return EXIT_SUCCESS;
}
