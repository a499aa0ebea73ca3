/*
 * The slot table without a pool around it: faked deaths at the places that the
 * protocol argues about, a worker killed between any two of its instructions, and
 * the two sleeps with threads for workers (so that a race detector sees both
 * sides). Real processes are in pool_test.c.
 */
#include "base/clock.h"
#include "check.h"
#include "shm/board_inner.h"
#include "shm/wake.h"
#include "step.h"

#include <pthread.h>
#include <sched.h>

enum { WORKERS = 4, REGION_BYTES = 1 << 18 };

static struct tide_arena arena;
static struct tide_board board;

static void open_board(uint32_t slots, uint32_t workers, int cpus)
{
    struct tide_error err;
    size_t bytes;
    int event_fd;
    CHECK(tide_board_measure(&bytes, slots, workers, &err) == TIDE_OK);
    uint64_t at = (bytes + 4095) / 4096 * 4096;
    CHECK(tide_arena_create(&arena, at + workers * REGION_BYTES, &err) ==
          TIDE_OK);
    CHECK(tide_event_open(&event_fd, &err) == TIDE_OK);
    CHECK(tide_board_create(&board, &arena, slots, workers, cpus, event_fd,
                            &err) == TIDE_OK);
    tide_board_resize(&board, workers);
    for (uint32_t i = 0; i < workers; i++, at += REGION_BYTES)
        tide_region_init(&board.workers[i].region, at, at + REGION_BYTES);
}

static void close_board(void)
{
    close(board.event_fd);
    tide_board_destroy(&board);
    tide_arena_destroy(&arena);
}

/* ---- one step of each process ---- */

/* A request's number; its reply is computed from it. */
static uint64_t mix(uint64_t number)
{
    number *= UINT64_C(0x9e3779b97f4a7c15);
    return number ^ number >> 29;
}

static int submit(struct tide_board *at, uint64_t number)
{
    uint32_t slot;
    if (tide_board_take(&slot, at) != TIDE_OK)
        return 0;
    at->slots[slot].request = (struct tide_request){ .count = 1 };
    memcpy(at->slots[slot].request.args.bytes, &number, sizeof number);
    tide_board_submit(at, slot);
    return 1;
}

static uint64_t number_of(const struct tide_slot *slot)
{
    uint64_t number;
    memcpy(&number, slot->request.args.bytes, sizeof number);
    return number;
}

/* To anybody, or as mail to this worker. */
static int submit_somehow(uint64_t number, uint32_t worker)
{
    uint32_t slot;
    if (check_random(2))
        return submit(&board, number);
    if (tide_board_take(&slot, &board) != TIDE_OK)
        return 0;
    board.slots[slot].request = (struct tide_request){ .count = 1 };
    memcpy(board.slots[slot].request.args.bytes, &number, sizeof number);
    if (tide_board_submit_to(&board, slot, worker) == TIDE_OK)
        return 1;
    tide_board_release(&board, slot);
    return 0;
}

static uint32_t claim(struct tide_board *at, uint32_t worker)
{
    uint32_t slot = UINT32_MAX;
    CHECK(tide_board_claim(&slot, at, worker) == TIDE_OK);
    return slot;
}

static void answer(struct tide_board *at, uint32_t slot, uint32_t worker,
                   int urgent)
{
    uint64_t reply = mix(number_of(&at->slots[slot]));
    memcpy(at->slots[slot].reply.result.bytes, &reply, sizeof reply);
    at->slots[slot].reply.hand = 1;
    tide_board_finish(at, slot, worker, urgent);
}

static void die(struct tide_board *at, uint32_t worker)
{
    struct tide_death death = { .worker = worker,
                                .pid = 1000 + (pid_t)worker,
                                .wait_status = SIGKILL };
    tide_board_reclaim(at, &death);
}

/* The next arrival has to be `state` of request `number`. */
static void expect(enum tide_slot_state state, uint64_t number, uint32_t worker)
{
    uint32_t slot;
    struct tide_death death;
    CHECK(tide_board_next_done(&slot, &board, &death) == state);
    CHECK(number_of(&board.slots[slot]) == number);
    CHECK(death.worker == worker);
    if (state == TIDE_SLOT_LOST) {
        CHECK(death.pid == 1000 + (pid_t)worker);
        CHECK(death.wait_status == SIGKILL);
    }
    tide_board_release(&board, slot);
}

static void expect_nothing(void)
{
    uint32_t slot;
    struct tide_death death;
    CHECK(tide_board_next_done(&slot, &board, &death) == TIDE_SLOT_FREE);
}

/* ---- faked deaths ---- */

static void test_sizes(void)
{
    struct tide_error err;
    size_t bytes;
    check_begin("sizes");
    const uint32_t bad_slots[] = { 0, 3, 2 * TIDE_SLOTS_MAX, UINT32_MAX };
    const uint32_t bad_workers[] = { 0, TIDE_WORKERS_MAX + 1, UINT32_MAX };
    for (int i = 0; i < 4; i++)
        CHECK(tide_board_measure(&bytes, bad_slots[i], 1, &err) == TIDE_EINVAL);
    for (int i = 0; i < 3; i++)
        CHECK(tide_board_measure(&bytes, 2, bad_workers[i], &err) ==
              TIDE_EINVAL);
    CHECK(tide_board_measure(&bytes, TIDE_SLOTS_MAX, TIDE_WORKERS_MAX, &err) ==
          TIDE_OK);
}

static void test_orphans(void)
{
    check_begin("orphans");
    open_board(4, WORKERS, 1);
    for (uint64_t i = 0; i < 4; i++)
        CHECK(submit(&board, i));
    CHECK(!submit(&board, 4));
    uint32_t slots[4];
    for (uint32_t i = 0; i < 4; i++)
        slots[i] = claim(&board, i);

    /* 0: before DONE. 1: after DONE, before its push. 2: after its push. 3: after
     * its push, collected, not released. */
    atomic_store(&board.slots[slots[1]].word,
                 tide_word(TIDE_SLOT_DONE, 1,
                           tide_word_sequence(
                               atomic_load(&board.slots[slots[1]].word))));
    answer(&board, slots[3], 3, 0);
    uint32_t kept;
    struct tide_death death;
    CHECK(tide_board_next_done(&kept, &board, &death) == TIDE_SLOT_DONE);
    CHECK(kept == slots[3]);
    answer(&board, slots[2], 2, 0);
    for (uint32_t i = 0; i < WORKERS; i++)
        die(&board, i);
    for (uint32_t i = 0; i < WORKERS; i++)
        die(&board, i); /* a replacement that has not claimed yet */
    expect(TIDE_SLOT_DONE, 2, 2);
    expect(TIDE_SLOT_LOST, 0, 0);
    expect(TIDE_SLOT_DONE, 1, 1);
    expect_nothing();
    tide_board_release(&board, kept);

    for (uint64_t i = 0; i < 4; i++)
        CHECK(submit(&board, 10 + i));
    for (uint32_t i = 0; i < 4; i++)
        answer(&board, claim(&board, 0), 0, 0);
    for (uint64_t i = 0; i < 4; i++)
        expect(TIDE_SLOT_DONE, 10 + i, 0);
    close_board();
}

/* More reports than slots between two looks of the host: none may be lost. */
static void test_orphan_ring(void)
{
    uint32_t first;
    struct tide_death death;
    check_begin("orphan ring");
    open_board(2, WORKERS, 1);
    for (uint64_t round = 0; round < 100; round++) {
        CHECK(submit(&board, 3 * round));
        CHECK(submit(&board, 3 * round + 1));
        answer(&board, claim(&board, 0), 0, 0);
        claim(&board, 1);
        CHECK(tide_board_next_done(&first, &board, &death) == TIDE_SLOT_DONE);
        die(&board, 1); /* the second is lost */
        die(&board, 0); /* a late report of the first */
        tide_board_release(&board, first);
        CHECK(submit(&board, 3 * round + 2));
        answer(&board, claim(&board, 2), 2, 0);
        die(&board, 2); /* a third report in a table of two */
        expect(TIDE_SLOT_DONE, 3 * round + 2, 2);
        expect(TIDE_SLOT_LOST, 3 * round + 1, 1);
        expect_nothing();
    }
    close_board();
}

static void test_sequence_wrap(void)
{
    check_begin("sequence wrap");
    open_board(2, WORKERS, 1);
    for (uint32_t i = 0; i < 2; i++)
        atomic_store(&board.slots[i].word,
                     tide_word(TIDE_SLOT_FREE, 0, UINT32_MAX - 20));
    for (uint64_t i = 0; i < 100; i++) {
        uint32_t worker = (uint32_t)i % WORKERS;
        CHECK(submit(&board, i));
        uint32_t slot = claim(&board, worker);
        CHECK(tide_word_sequence(atomic_load(&board.slots[slot].word)) != 0);
        if (i % 3 != 0)
            answer(&board, slot, worker, 0);
        die(&board, worker);
        expect(i % 3 ? TIDE_SLOT_DONE : TIDE_SLOT_LOST, i, worker);
        expect_nothing();
    }
    close_board();
}

/* Spent entries: a dead worker's claim leaves the ring's head where it was. */
static void test_ring(void)
{
    check_begin("ring");
    open_board(2, WORKERS, 1);
    for (uint64_t i = 0; i < 1000; i++) {
        uint32_t worker = check_random(WORKERS);
        uint64_t head = atomic_load(&board.shared->ready_head);
        CHECK(submit(&board, i));
        uint32_t slot = claim(&board, worker);
        if (check_random(2)) /* killed between the swap and the help */
            atomic_store(&board.shared->ready_head, head);
        answer(&board, slot, worker, 0);
        expect(TIDE_SLOT_DONE, i, worker);
    }
    uint32_t slot;
    CHECK(tide_board_claim(&slot, &board, 0) == TIDE_EAGAIN);
    CHECK(!tide_board_has_ready(&board));
    close_board();
}

/* What is urgent is not slept on, also if it came before the host lay down. */
static void test_urgent(void)
{
    uint64_t soon = tide_deadline_ns(CHECK_PATIENCE_S);
    check_begin("urgent");
    open_board(4, WORKERS, 1);
    for (uint64_t i = 0; i < 4; i++)
        CHECK(submit(&board, i));
    answer(&board, claim(&board, 0), 0, 0);
    CHECK(tide_board_wait(&board, 3, -1, 0) == TIDE_ETIMEOUT);
    answer(&board, claim(&board, 0), 0, 1);
    CHECK(tide_board_wait(&board, 3, -1, soon) == TIDE_OK);
    expect(TIDE_SLOT_DONE, 0, 0);
    expect(TIDE_SLOT_DONE, 1, 0);
    expect_nothing();
    CHECK(tide_board_wait(&board, 2, -1, 0) == TIDE_ETIMEOUT);
    answer(&board, claim(&board, 0), 0, 0);
    answer(&board, claim(&board, 0), 0, 0);
    CHECK(tide_board_wait(&board, 1000, -1, soon) ==
          TIDE_OK); /* all there is */
    expect(TIDE_SLOT_DONE, 2, 0);
    expect(TIDE_SLOT_DONE, 3, 0);
    CHECK(tide_board_wait(&board, 1, -1, tide_now_ns()) == TIDE_ETIMEOUT);
    tide_board_wake_all(&board);
    CHECK(tide_board_wait(&board, 1, -1, soon) == TIDE_OK);
    close_board();
}

/* ---- every instant ---- */

enum { STEP_SLOTS = 4, STEP_REQUESTS = 12 };

static struct tide_arena copy;
static uint64_t next_number; /* of the next request that the host submits */
static uint64_t collected;   /* a bit for each request that came back */

static void write_reply(struct tide_heap *heap, uint32_t index)
{
    struct tide_slot *slot = &board.slots[index];
    uint64_t number = number_of(slot);
    uint64_t reply = mix(number);
    if (number % 3 == 0) {
        memcpy(slot->reply.result.bytes, &reply, sizeof reply);
    } else {
        for (uint64_t blocks = 0; blocks < number % 3; blocks++) {
            uint64_t offset = tide_heap_alloc(heap, UINT64_C(100) << blocks);
            CHECK(offset != 0);
            memcpy(arena.base + offset, &reply, sizeof reply);
            tide_board_publish(slot, heap, offset);
        }
    }
    atomic_thread_fence(memory_order_release);
    *(volatile uint32_t *)&slot->reply.hand = 1;
}

static void step_worker(void *unused)
{
    struct tide_heap heap;
    uint32_t index;
    (void)unused;
    tide_heap_open(&heap, &arena, &board.workers[0].region);
    step_mark();
    for (int done = 0; done < STEP_REQUESTS;) {
        if (tide_board_claim(&index, &board, 0) != TIDE_OK)
            continue;
        write_reply(&heap, index);
        tide_board_finish(&board, index, 0, 0);
        done++;
    }
    step_mark();
}

/* Take one arrival in; returns its state. */
static enum tide_slot_state
collect(struct tide_board *at, struct tide_region *region, uint64_t *numbers)
{
    uint32_t index;
    struct tide_death death;
    enum tide_slot_state state = tide_board_next_done(&index, at, &death);
    if (state == TIDE_SLOT_FREE)
        return state;
    struct tide_slot *slot = &at->slots[index];
    uint64_t number = number_of(slot);
    CHECK((*numbers >> number & 1) == 0);
    *numbers |= UINT64_C(1) << number;
    int in_block = (slot->reply.form & TIDE_REPLY_BLOCK) != 0;
    uint64_t offset = slot->reply.result.offset;
    CHECK(state == TIDE_SLOT_DONE || state == TIDE_SLOT_LOST);
    if (state == TIDE_SLOT_DONE)
        CHECK(slot->reply.hand == 1);
    if (in_block)
        CHECK(tide_block_capacity(at->arena, offset) > 0);
    if (slot->reply.hand == 1) {
        const unsigned char *bytes =
            in_block ? at->arena->base + offset : slot->reply.result.bytes;
        uint64_t reply = mix(number);
        CHECK(memcmp(bytes, &reply, sizeof reply) == 0);
    }
    if (in_block)
        tide_region_return(at->arena, region, offset);
    tide_board_release(at, index);
    return state;
}

static void host_turn(void)
{
    uint32_t slot = check_random(STEP_SLOTS);
    switch (check_random(5)) {
    case 0:
    case 1:
        collect(&board, &board.workers[0].region, &collected);
        break;
    case 2:
        if (tide_board_revoke(&board, slot) == TIDE_OK)
            CHECK(submit(&board, number_of(&board.slots[slot])));
        break;
    default:
        if (next_number < STEP_REQUESTS)
            next_number += submit_somehow(next_number, 0) != 0;
        break;
    }
}

static void *copy_array(const uint32_t *from)
{
    uint32_t *to = calloc(STEP_SLOTS, sizeof *to);
    CHECK(to != NULL);
    memcpy(to, from, STEP_SLOTS * sizeof *to);
    return to;
}

/* On a copy the worker dies here: all that is in flight has to come back, as it
 * was done, as lost, or run by another worker. */
static void look(void *unused)
{
    struct tide_board after;
    uint32_t index;
    (void)unused;
    memcpy(copy.base, arena.base, arena.size);
    tide_board_attach(&after, &copy, board.event_fd);
    after.in_flight = copy_array(board.in_flight);
    after.entries = copy_array(board.entries);
    after.free_slots = copy_array(board.free_slots);
    after.arrived = copy_array(board.arrived);
    after.free_count = board.free_count;
    after.used_count = board.used_count;
    after.arrived_at = board.arrived_at;
    after.arrived_count = board.arrived_count;
    after.flight_count = board.flight_count;
    after.ready_tail = board.ready_tail;
    after.orphans_seen = board.orphans_seen;

    uint64_t numbers = collected;
    unsigned lost = 0;
    die(&after, 0);
    struct tide_region *region = &after.workers[0].region;
    CHECK(atomic_load(&region->pending) == 0);
    CHECK(atomic_load(&region->outdated) == 0);
    /* Another worker, and its replacement, which inherits its mail. */
    for (uint32_t worker = 2; worker-- > 0;)
        while (tide_board_claim(&index, &after, worker) == TIDE_OK)
            answer(&after, index, worker, 0);
    CHECK(atomic_load(&after.workers[0].mail) == 0);
    for (;;) {
        enum tide_slot_state state = collect(&after, region, &numbers);
        if (state == TIDE_SLOT_FREE)
            break;
        lost += state == TIDE_SLOT_LOST;
    }
    CHECK(lost <= 1);
    CHECK(numbers == (UINT64_C(1) << next_number) - 1);
    CHECK(after.flight_count == 0);
    tide_board_destroy(&after);
    if (check_random(60) == 0)
        host_turn();
}

static void test_every_instant(void)
{
    struct tide_error err;
    unsigned steps = 0;
    check_begin("every instant");
    for (unsigned i = 0; i < check_rounds / 10 + 1; i++) {
        alarm(CHECK_WATCHDOG_S);
        open_board(STEP_SLOTS, 2, 1);
        CHECK(tide_arena_create(&copy, arena.size, &err) == TIDE_OK);
        next_number = collected = 0;
        unsigned taken = step_through(step_worker, look, NULL);
        steps += taken;
        while (taken && collect(&board, &board.workers[0].region, &collected))
            continue;
        CHECK(taken == 0 || collected == (1 << STEP_REQUESTS) - 1);
        tide_arena_destroy(&copy);
        close_board();
        if (taken == 0)
            break;
    }
    printf("every instant: %u%s\n", steps,
           steps ? "" : ", skipped: tracing is not possible");
}

/* ---- the end, between any two instructions of a worker that rests ---- */

static _Noreturn void rest_and_work(void)
{
    uint32_t index;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(EXIT_SUCCESS);
    step_mark();
    while (tide_board_rest(&board, 0) == TIDE_OK)
        while (tide_board_claim(&index, &board, 0) == TIDE_OK)
            answer(&board, index, 0, 0);
    _exit(EXIT_SUCCESS);
}

/* 't' between two steps, 'R' while it makes one, 'S' asleep in it. */
static char state_of(pid_t pid)
{
    char path[64];
    char line[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL && fgets(line, sizeof line, file) != NULL);
    fclose(file);
    return strrchr(line, ')')[2];
}

/* Make a step; returns 0 if it leads into a sleep. */
static int make_step(pid_t pid, int *status)
{
    unsigned asleep = 0;
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
    for (unsigned turn = 0; asleep < 3; turn++) {
        if (waitpid(pid, status, WNOHANG) == pid)
            return 1;
        sched_yield();
        if (turn > 20)
            asleep += state_of(pid) == 'S';
    }
    return 0;
}

/* The last work and the end come before step `target`, or when it sleeps. Returns
 * 0 when there were not so many steps. */
static int end_at(unsigned target)
{
    int status;
    int awake = 1;
    int naps = 0;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        rest_and_work();
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status))
        return 0; /* tracing is not possible */
    for (unsigned step = 0; step < target && awake; step++) {
        awake = make_step(pid, &status);
        if (!awake && naps++ == 0) { /* for nothing, the first time */
            tide_board_rouse(&board, 0);
            CHECK(waitpid(pid, &status, 0) == pid);
            awake = 1;
        }
    }
    CHECK(submit(&board, target));
    tide_board_kick(&board, 1);
    tide_board_close(&board);
    if (!awake)
        CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
    expect(TIDE_SLOT_DONE, target, 0);
    return awake;
}

static void test_end(void)
{
    check_begin("end");
#ifdef __SANITIZE_THREAD__
    return;
#endif
    for (unsigned i = 0; i < check_rounds / 60; i++) {
        alarm(CHECK_WATCHDOG_S);
        int going = 1;
        for (unsigned target = check_random(3); going;
             target += 1 + check_random(6)) {
            open_board(4, 1, 0); /* it sleeps at once */
            going = end_at(target);
            close_board();
        }
    }
}

/* ---- threads for workers ---- */

static void *work(void *argument)
{
    uint32_t worker = (uint32_t)(uintptr_t)argument;
    struct tide_board mine;
    struct tide_heap heap;
    uint32_t index;
    tide_board_attach(&mine, &arena, board.event_fd);
    tide_heap_open(&heap, &arena, &mine.workers[worker].region);
    for (;;) {
        if (tide_board_claim(&index, &mine, worker) == TIDE_OK) {
            write_reply(&heap, index);
            tide_board_finish(&mine, index, worker,
                              number_of(&mine.slots[index]) % 7 == 0);
        } else if (tide_board_rest(&mine, worker) != TIDE_OK) {
            CHECK(tide_board_is_closed(&mine));
            return NULL;
        }
    }
}

static void collect_one(uint64_t *count, unsigned char *seen)
{
    uint32_t index;
    struct tide_death death;
    while (tide_board_next_done(&index, &board, &death) == TIDE_SLOT_DONE) {
        struct tide_slot *slot = &board.slots[index];
        uint64_t reply = mix(number_of(slot));
        int in_block = (slot->reply.form & TIDE_REPLY_BLOCK) != 0;
        uint64_t offset = slot->reply.result.offset;
        CHECK(memcmp(in_block ? arena.base + offset : slot->reply.result.bytes,
                     &reply, sizeof reply) == 0);
        CHECK(!seen[number_of(slot)]++);
        ++*count;
        if (in_block)
            tide_region_return(&arena, &board.workers[death.worker].region,
                               offset);
        tide_board_release(&board, index);
    }
}

/* And submit it anew, for anybody. */
static void take_back_one(void)
{
    uint32_t slot = check_random(board.slot_count);
    if (tide_board_revoke(&board, slot) != TIDE_OK)
        return;
    CHECK(submit(&board, number_of(&board.slots[slot])));
    tide_board_kick(&board, 1);
}

/* Submit in bursts, wait for some of them: who sleeps has to be woken. */
static void run_threads(uint32_t slots, uint32_t workers, int cpus,
                        uint64_t requests)
{
    pthread_t threads[64];
    unsigned char *seen = calloc(requests, 1);
    uint64_t count = 0;
    uint64_t number = 0;
    int nudges = check_random(2) != 0;
    CHECK(seen != NULL);
    alarm(CHECK_WATCHDOG_S);
    open_board(slots, workers, cpus);
    for (uintptr_t i = 0; i < workers; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    while (count < requests) {
        uint32_t burst = 1 + check_random(slots);
        uint32_t sent = 0;
        while (sent < burst && number < requests &&
               submit_somehow(number, check_random(workers))) {
            sent++;
            number++;
            if (nudges)
                tide_board_nudge(&board, check_random(100 * 1000));
        }
        if (!nudges)
            tide_board_kick(&board, sent);
        if (number < requests) /* else it is closed */
            take_back_one();
        if (number == requests)
            tide_board_close(
                &board); /* what is in flight is done all the same */
        if (board.flight_count > 0)
            CHECK(tide_board_wait(&board, 1 + check_random(2 * slots), -1,
                                  tide_deadline_ns(CHECK_PATIENCE_S)) ==
                  TIDE_OK);
        collect_one(&count, seen);
    }
    for (uint32_t i = 0; i < workers; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    expect_nothing();
    close_board();
    free(seen);
}

static void test_threads(void)
{
    check_begin("threads");
    for (int cpus = 1; cpus <= 8; cpus += 7) {
        run_threads(2, 1, cpus, 20 * check_rounds);
        run_threads(2, 3, cpus, 20 * check_rounds);
        run_threads(4, 8, cpus, 20 * check_rounds);
        run_threads(64, 64, cpus, 20 * check_rounds);
        run_threads(1024, 2, cpus, 200 * check_rounds);
    }
    for (unsigned i = 0; i < check_rounds; i++)
        run_threads(4, 4, check_random(2) ? 1 : 8, 1 + check_random(6));
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 60);
    test_sizes();
    test_orphans();
    test_orphan_ring();
    test_sequence_wrap();
    test_ring();
    test_urgent();
    test_every_instant();
    test_end();
    test_threads();
    return EXIT_SUCCESS;
}
