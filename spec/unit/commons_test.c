/*
 * The commons: what they promise to processes that make, hold, drop and die.
 *
 * Every body begins with the handle of its object. So one that was freed while
 * somebody held it, or given to two, shows.
 */
#include "check.h"
#include "share/commons_inner.h"
#include "step.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { LARGE = 300 * 1000, KEPT = 8 };

static struct tide_error err;

/* ---- objects ---- */

static void sign(struct tide_object *object, void *context)
{
    const unsigned char *body = tide_commons_at(object->body);
    uint64_t bytes = object->body_bytes;
    (void)context;
    for (uint64_t i = 0; i < bytes; i += bytes / 64 + 1)
        CHECK(body[i] == 0);
    CHECK(body[bytes - 1] == 0);
}

static tide_handle make(uint64_t bytes)
{
    tide_handle handle = 0;
    if (tide_object_make(&handle, TIDE_SHARED_ARRAY, bytes, sign, NULL, &err) !=
        TIDE_OK)
        return 0;
    unsigned char *body = tide_object_body(handle);
    CHECK(tide_commons_offset(body) % 64 == 0);
    memset(body, 0xa5, bytes);
    memcpy(body, &handle, sizeof handle);
    return handle;
}

static void check_signed(tide_handle handle)
{
    tide_handle found;
    memcpy(&found, tide_object_body(handle), sizeof found);
    CHECK(found == handle);
    CHECK(tide_object_holds(handle) > 0);
}

static uint64_t random_bytes(void)
{
    return check_random(20) == 0 ? LARGE + check_random(LARGE)
                                 : 8 + check_random(2000);
}

/* ---- audit ---- */

static unsigned count_live(void)
{
    unsigned count = 0;
    for (uint32_t i = 1; i < atomic_load(&tide_shared()->object_top); i++) {
        uint64_t state = atomic_load(&tide_commons.objects[i].word) & 0xff;
        CHECK(state == TIDE_OBJECT_FREE || state == TIDE_OBJECT_LIVE);
        count += state == TIDE_OBJECT_LIVE;
    }
    return count;
}

struct tally {
    unsigned bodies;
    unsigned strays;
};

static void tally_block(uint64_t block, void *context)
{
    struct tally *tally = context;
    uint64_t tag = *(uint64_t *)tide_commons_at(block);
    const struct tide_object *object = &tide_commons.objects[(uint32_t)tag];
    uint32_t place = (uint32_t)tag;
    if (place < tide_commons.object_count && tide_tag_is_live(tag) &&
        object->body > block && object->body - block <= 64)
        tally->bodies++;
    else
        tally->strays++;
}

/* Every live object has its block, and how many blocks are in no object? */
static unsigned audit(void)
{
    struct tally tally = { 0, 0 };
    for (uint32_t i = 1; i < atomic_load(&tide_shared()->entry_top); i++)
        tide_region_visit(&tide_commons.arena, &tide_commons.entries[i].region,
                          tally_block, &tally);
    CHECK(tally.bodies == count_live());
    return tally.strays;
}

/* ---- one process ---- */

static void test_objects(void)
{
    check_begin("objects");
    tide_handle a = make(100);
    tide_handle b = make(LARGE);
    CHECK(a != 0 && b != 0 && a != b);
    CHECK(tide_commons.self == TIDE_FIRST_ENTRY);
    CHECK(tide_object_holds(a) == 1 && tide_object_others(a) == 0);
    CHECK(tide_object_hold(a, TIDE_SHARED_ARRAY, &err) == TIDE_OK);
    CHECK(tide_object_hold(a, TIDE_SHARED_NONE, &err) == TIDE_OK);
    CHECK(tide_object_hold(a, TIDE_SHARED_QUEUE, &err) == TIDE_EINVAL);
    CHECK(tide_object_holds(a) == 3);
    tide_object_drop(a);
    tide_object_drop(a);
    check_signed(a);
    tide_object_drop(a);
    CHECK(count_live() == 1);
    CHECK(tide_object_hold(a, TIDE_SHARED_ARRAY, &err) == TIDE_EINVAL);
    tide_object_drop(a); /* not ours: nothing happens */
    tide_handle c = make(100);
    CHECK((uint32_t)c == (uint32_t)a && c != a);
    tide_object_drop(a);
    check_signed(c);
    tide_object_drop(c);
    tide_object_drop(b);
    CHECK(count_live() == 0 && audit() == 0);
}

static void test_forged(void)
{
    check_begin("forged handles");
    tide_handle kept = make(64);
    const tide_handle forged[] = { 0,
                                   1,
                                   kept + 1,
                                   kept + (UINT64_C(1) << 32),
                                   UINT32_MAX,
                                   UINT64_MAX,
                                   (uint64_t)INT32_MAX,
                                   tide_commons.object_count };
    for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++)
        if (forged[i] != kept)
            CHECK(tide_object_hold(forged[i], TIDE_SHARED_NONE, &err) ==
                  TIDE_EINVAL);
    for (unsigned i = 0; i < 100 * 1000; i++) {
        tide_handle handle = check_random64() >> check_random(64);
        if (handle != kept)
            CHECK(tide_object_hold(handle, TIDE_SHARED_NONE, &err) ==
                  TIDE_EINVAL);
    }
    tide_object_drop(kept);
}

/* Bodies are zeroed however their memory was used before: make() looks. */
static void test_recycling(void)
{
    tide_handle kept[200] = { 0 };
    check_begin("recycling");
    for (unsigned i = 0; i < 20 * 1000; i++) {
        tide_handle *slot = &kept[check_random(200)];
        if (*slot != 0) {
            check_signed(*slot);
            tide_object_drop(*slot);
        }
        *slot = make(random_bytes());
        CHECK(*slot != 0);
        if (check_random(10) == 0) {
            uint64_t stray = tide_share_alloc(*slot, random_bytes());
            CHECK(stray % 64 == 0 && tide_share_capacity(stray) >= 8);
            memset(tide_commons_at(stray), 0x5a, tide_share_capacity(stray));
            tide_share_free(stray);
        }
    }
    for (unsigned i = 0; i < 200; i++)
        if (kept[i] != 0)
            tide_object_drop(kept[i]);
    CHECK(count_live() == 0 && audit() == 0);
    CHECK(atomic_load(&tide_shared()->object_top) <
          400); /* places are reused */
}

static void test_pages(void)
{
    const uint64_t bytes = 64 << 20;
    check_begin("pages");
    uint64_t before = tide_commons_resident();
    for (int i = 0; i < 3; i++) {
        tide_handle handle = make(bytes);
        CHECK(tide_commons_resident() >= before + bytes);
        tide_object_drop(handle);
        CHECK(tide_commons_resident() < before + (1 << 20));
    }
    CHECK(make(UINT64_MAX) == 0 && make(UINT64_MAX - 63) == 0);
    CHECK(make(UINT64_C(1) << 46) == 0);
    CHECK(count_live() == 0 && audit() == 0);
}

/* ---- processes ---- */

static void reap(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == EXIT_SUCCESS);
    tide_commons_reaped(pid);
}

/* A copy holds what its parent held, and what it drops is only its own. */
static void test_copies(void)
{
    int pipes[2];
    char byte;
    check_begin("copies");
    CHECK(pipe(pipes) == 0);
    tide_handle a = make(100);
    tide_handle b = make(100);
    struct tide_who who = tide_commons_reserve();
    CHECK(who.entry != 0 && tide_object_others(a) == 1);
    pid_t pid = fork();
    if (pid == 0) {
        tide_commons_become(who);
        CHECK(tide_commons.self == who.entry && tide_object_others(b) == 1);
        tide_object_drop(a);
        CHECK(write(pipes[1], "x", 1) == 1);
        pause();
    }
    CHECK(read(pipes[0], &byte, 1) == 1);
    CHECK(tide_entry_is_alive(who));
    CHECK(tide_object_others(a) == 0 && tide_object_others(b) == 1);
    tide_object_drop(b);
    CHECK(count_live() == 2);
    kill(pid, SIGKILL);
    CHECK_SOON(!tide_entry_is_alive(who)); /* it is not reaped */
    tide_commons_sweep();
    CHECK(count_live() == 1);
    reap(pid);
    who = tide_commons_reserve();
    CHECK(tide_object_others(a) == 1);
    tide_commons_cancel(who);
    CHECK(tide_object_others(a) == 0);
    tide_object_drop(a);
    CHECK(count_live() == 0);
    close(pipes[0]);
    close(pipes[1]);
}

/* A fork that nobody prepared: the child gets an entry of its own. */
static void test_strangers(void)
{
    check_begin("strangers");
    tide_handle a = make(100);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(tide_object_holds(a) == 0);
        tide_object_drop(a);
        CHECK(tide_commons_enter(&err) == TIDE_OK);
        CHECK(tide_commons.self != TIDE_FIRST_ENTRY);
        CHECK(tide_object_others(a) == 1);
        check_signed(a);
        tide_object_drop(a);
        _exit(EXIT_SUCCESS);
    }
    reap(pid);
    check_signed(a);
    tide_object_drop(a);
    CHECK(count_live() == 0);
}

static void test_full(void)
{
    enum { MOST = TIDE_ENTRIES_MAX };
    static pid_t pids[MOST];
    int full[2], up[2];
    unsigned joined = 0, refused = 0;
    check_begin("full");
    CHECK(pipe(full) == 0 && pipe(up) == 0);
    tide_handle a = make(100);
    for (unsigned i = 0; i < MOST; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            char said;
            int status = tide_object_hold(a, TIDE_SHARED_NONE, &err);
            CHECK(status == TIDE_OK ||
                  (status == TIDE_ENOMEM && strstr(err.text, "processes")));
            said = status == TIDE_OK ? 'j' : 'r';
            CHECK(write(up[1], &said, 1) == 1);
            close(full[1]);
            (void)!read(full[0], &said, 1); /* until the end */
            _exit(EXIT_SUCCESS);
        }
        char said;
        CHECK(read(up[0], &said, 1) == 1);
        joined += said == 'j';
        refused += said == 'r';
    }
    CHECK(joined == tide_commons.entry_count - 2 && refused >= 1);
    CHECK(tide_object_others(a) == joined);
    for (unsigned i = 0; i < MOST; i++)
        kill(pids[i], SIGKILL);
    for (unsigned i = 0; i < MOST; i++)
        reap(pids[i]);
    CHECK(tide_object_others(a) == 0);
    tide_commons_sweep();
    CHECK(count_live() == 1);
    tide_object_drop(a);
    for (int i = 0; i < 2; i++) {
        close(full[i]);
        close(up[i]);
    }
}

/* ---- kills ---- */

enum { WORKERS = 3 };

/* What pools do with slots: the host's word to a worker and back. */
struct desk {
    _Atomic tide_handle argument; /* held by the host until `taken` says so */
    _Atomic uint64_t taken;
    _Atomic tide_handle
        result; /* held by the worker until `received` says so */
    _Atomic uint64_t received;
    _Atomic uint64_t rounds;
};

static struct desk *desks;

static void keep(tide_handle *kept, tide_handle handle)
{
    tide_handle *slot = &kept[check_random(KEPT)];
    if (*slot != 0) {
        check_signed(*slot);
        tide_object_drop(*slot);
    }
    *slot = handle;
}

static _Noreturn void work(uint32_t index, struct tide_who host, uint64_t seed)
{
    struct desk *desk = &desks[index];
    tide_handle kept[KEPT] = { 0 };
    tide_handle sent = 0;
    uint64_t argument_at = atomic_load(&desk->taken);
    uint64_t sent_at = 0;
    check_reseed(seed);
    tide_commons_set_heir(host, index);
    for (;;) {
        tide_handle argument = atomic_load(&desk->argument);
        if (argument != 0 && argument_at == atomic_load(&desk->taken)) {
            CHECK(tide_object_hold(argument, TIDE_SHARED_ARRAY, &err) ==
                  TIDE_OK);
            check_signed(argument);
            atomic_store(&desk->argument, 0);
            argument_at++;
            atomic_store(&desk->taken, argument_at);
            keep(kept, argument);
        }
        if (sent != 0 && atomic_load(&desk->received) > sent_at) {
            tide_object_drop(sent);
            sent = 0;
        }
        if (sent == 0) { /* something of ours, or somebody's */
            sent = kept[check_random(KEPT)];
            if (sent == 0 || tide_object_hold(sent, TIDE_SHARED_ARRAY, &err))
                sent = make(random_bytes());
            CHECK(sent != 0);
            sent_at = atomic_load(&desk->received);
            atomic_store(&desk->result, sent);
        }
        keep(kept, make(random_bytes()));
        atomic_fetch_add(&desk->rounds, 1);
    }
}

static void take_result(struct desk *desk, tide_handle *kept)
{
    tide_handle result = atomic_load(&desk->result);
    if (result == 0)
        return;
    CHECK(tide_object_hold(result, TIDE_SHARED_ARRAY, &err) == TIDE_OK);
    check_signed(result);
    atomic_store(&desk->result, 0);
    atomic_fetch_add(&desk->received, 1);
    keep(kept, result);
}

/* The host's part of one desk: `pinned` is on it, or was taken. */
static void serve(struct desk *desk, tide_handle *pinned, tide_handle *kept)
{
    take_result(desk, kept);
    if (*pinned != 0 && atomic_load(&desk->argument) == 0) {
        tide_object_drop(*pinned);
        *pinned = 0;
    }
    if (*pinned == 0) {
        tide_handle chosen = kept[check_random(KEPT)];
        if (chosen != 0 &&
            tide_object_hold(chosen, TIDE_SHARED_ARRAY, &err) == TIDE_OK)
            *pinned = chosen;
        else
            *pinned = make(random_bytes());
        atomic_store(&desk->argument, *pinned);
    }
}

static pid_t hire(uint32_t index)
{
    struct tide_who host = tide_commons_self();
    uint64_t seed = check_random64();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(0);
        tide_commons_leave_behind();
        work(index, host, seed);
    }
    return pid;
}

/* Reap it as a supervisor, then do what a host does. */
static void bury(uint32_t index, pid_t pid, tide_handle *pinned,
                 tide_handle *kept)
{
    int status;
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    tide_commons_sweep(); /* is not to bury it */
    tide_commons_reaped(pid);
    struct tide_deaths deaths = tide_deaths_now();
    take_result(&desks[index], kept);
    tide_crew_settled(index, deaths);
    if (*pinned != 0)
        tide_object_drop(*pinned);
    *pinned = 0;
    atomic_store(&desks[index].argument, 0);
}

static int is_never_quiet(const void *pool)
{
    (void)pool;
    return 0;
}

static void test_kills(void)
{
    tide_handle kept[KEPT] = { 0 };
    tide_handle pinned[WORKERS] = { 0 };
    pid_t pids[WORKERS];
    check_begin("kills");
    desks = mmap(NULL, sizeof *desks * WORKERS, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(desks != MAP_FAILED);
    for (uint32_t i = 0; i < WORKERS; i++) {
        tide_crew_opened(i, is_never_quiet, NULL);
        pids[i] = hire(i);
    }
    for (unsigned round = 0; round < check_rounds; round++) {
        alarm(CHECK_WATCHDOG_S);
        uint64_t until = tide_now_ns() + check_random(400 * 1000);
        uint32_t victim = check_random(WORKERS);
        do {
            for (uint32_t i = 0; i < WORKERS; i++)
                serve(&desks[i], &pinned[i], kept);
            CHECK(waitpid(-1, NULL, WNOHANG) == 0);
        } while (tide_now_ns() < until);
        bury(victim, pids[victim], &pinned[victim], kept);
        pids[victim] = hire(victim);
    }
    uint64_t rounds = 0;
    for (uint32_t i = 0; i < WORKERS; i++) {
        bury(i, pids[i], &pinned[i], kept);
        rounds += atomic_load(&desks[i].rounds);
        tide_crew_closed(i);
    }
    for (int i = 0; i < KEPT; i++)
        if (kept[i] != 0)
            tide_object_drop(kept[i]);
    CHECK(count_live() == 0);
    unsigned strays = audit();
    CHECK(strays <= check_rounds / 100 + 1); /* killed while handing one back */
    CHECK(atomic_load(&tide_shared()->entry_top) < 2 + TIDE_ENTRIES_MAX);
    CHECK(tide_commons_resident() < (64 << 20));
    printf("kills: %u, %" PRIu64 " rounds, %u blocks lost\n", check_rounds,
           rounds, strays);
    munmap(desks, sizeof *desks * WORKERS);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 600);
    CHECK(tide_commons_open(&err) == TIDE_OK);
    CHECK(tide_commons_open(&err) == TIDE_OK);
    test_objects();
    test_forged();
    test_recycling();
    test_pages();
    test_copies();
    test_strangers();
    test_kills();
    test_full();
    return EXIT_SUCCESS;
}
