/*
 * The board with threads for processes, for a race detector, which sees only one
 * process: a host that submits, revokes, mails, resizes, waits and collects; workers
 * that may end between any two calls, as a killed one does; and a supervisor that
 * reaps them, by pthread_join() for waitpid(2), reclaims, rouses and replaces.
 *
 * What a worker writes while others look at it on purpose (hints: see tsan.supp) is
 * no race of the protocol. Without a detector this is a test of its own: each request
 * comes back, once, complete or lost.
 */
#include "base/clock.h"
#include "check.h"
#include "shm/board_inner.h"
#include "shm/wake.h"

#include <pthread.h>

enum {
    WORKERS = 3,
    SLOTS = 8,
    REGION_BYTES = 1 << 20,
    REQUESTS = 400, /* a round */
    DEATH_IN = 40   /* one in so many calls of a worker is its last */
};

static struct tide_arena arena;
static struct tide_board board;

enum { ALIVE, DEAD, LEFT, VACANT };

static struct place {
    pthread_t thread;
    uint32_t index;
    uint64_t seed;
    _Atomic int state; /* the thread says how it ended */
} places[WORKERS];

static _Atomic int at_end; /* the supervisor replaces nobody any more */

/* ---- workers ---- */

/* A generator of its own: check.h's is the host's. */
static int is_last(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % DEATH_IN == 0;
}

/* Returns 0 if it died in it. */
static int answer(struct tide_board *mine, struct tide_heap *heap,
                  uint32_t index, uint64_t *state)
{
    struct tide_slot *slot = &mine->slots[index];
    uint64_t number;
    memcpy(&number, slot->request.args.bytes, sizeof number);
    slot->reply.start_ns = tide_now_ns();
    for (uint64_t blocks = 0; blocks < number % 3; blocks++) {
        uint64_t offset = tide_heap_alloc(heap, UINT64_C(100) << blocks);
        CHECK(offset != 0);
        memcpy(arena.base + offset, &number, sizeof number);
        if (is_last(state))
            return 0;
        tide_board_publish(slot, heap, offset);
        if (is_last(state))
            return 0;
    }
    if (number % 3 == 0)
        memcpy(slot->reply.result.bytes, &number, sizeof number);
    slot->reply.hand = 1;
    slot->reply.end_ns = tide_now_ns();
    return 1;
}

static int work(struct place *place)
{
    struct tide_board mine;
    struct tide_heap heap;
    uint32_t index;
    uint64_t state = place->seed | 1;
    tide_board_attach(&mine, &arena, board.event_fd);
    tide_heap_open(&heap, &arena, &mine.workers[place->index].region);
    for (;;) {
        if (is_last(&state))
            return DEAD;
        if (tide_board_claim(&index, &mine, place->index) != TIDE_OK) {
            if (tide_board_rest(&mine, place->index) != TIDE_OK)
                return LEFT;
            continue;
        }
        if (is_last(&state) || !answer(&mine, &heap, index, &state))
            return DEAD;
        tide_board_finish(&mine, index, place->index, state % 7 == 0);
    }
}

static void *be_worker(void *argument)
{
    struct place *place = argument;
    atomic_store(&place->state, work(place));
    return NULL;
}

/* ---- supervisor ---- */

static void start(struct place *place, uint64_t seed)
{
    place->seed = seed;
    atomic_store(&place->state, ALIVE);
    CHECK(pthread_create(&place->thread, NULL, be_worker, place) == 0);
}

static void bury(struct tide_board *mine, struct place *place)
{
    struct tide_death death = { .worker = place->index,
                                .wait_status = SIGKILL };
    CHECK(pthread_join(place->thread, NULL) == 0);
    tide_board_reclaim(mine, &death);
    atomic_store(&place->state, VACANT);
    tide_board_wake_all(mine);
}

static void *supervise(void *unused)
{
    struct tide_board mine;
    uint64_t seed = check_seed + 1;
    (void)unused;
    tide_board_attach(&mine, &arena, board.event_fd);
    for (unsigned vacant = 0; vacant < WORKERS;) {
        vacant = 0;
        for (uint32_t i = 0; i < WORKERS; i++) {
            struct place *place = &places[i];
            int state = atomic_load(&place->state);
            if (state == DEAD || state == LEFT)
                bury(&mine, place);
            else if (state == VACANT && !atomic_load(&at_end) &&
                     (i < tide_board_wanted(&mine) ||
                      tide_board_has_mail(&mine, i)))
                start(place, seed = seed * 25214903917 + 11);
            else if (check_seed % 3 == 0 && state == ALIVE)
                tide_board_rouse(&mine, i); /* as if it had been stopped */
            vacant += atomic_load(&place->state) == VACANT &&
                      atomic_load(&at_end) != 0;
        }
        check_yield();
    }
    return NULL;
}

/* ---- host ---- */

static unsigned char seen[REQUESTS];
static unsigned sent, back, lost;

static void submit(uint64_t number)
{
    uint32_t slot;
    CHECK(tide_board_take(&slot, &board) == TIDE_OK);
    board.slots[slot].request = (struct tide_request){ .count = 1 };
    memcpy(board.slots[slot].request.args.bytes, &number, sizeof number);
    uint32_t worker = check_random(tide_board_wanted(&board));
    if (check_random(4) == 0 &&
        tide_board_submit_to(&board, slot, worker) == TIDE_OK)
        return;
    tide_board_submit(&board, slot);
    if (check_random(2))
        tide_board_kick(&board, 1);
    else
        tide_board_nudge(&board, check_random(200 * 1000));
}

static void take_in(void)
{
    uint32_t index;
    struct tide_death death;
    enum tide_slot_state state;
    while ((state = tide_board_next_done(&index, &board, &death)) !=
           TIDE_SLOT_FREE) {
        struct tide_slot *slot = &board.slots[index];
        int in_block = (slot->reply.form & TIDE_REPLY_BLOCK) != 0;
        uint64_t offset = slot->reply.result.offset;
        uint64_t number, reply;
        memcpy(&number, slot->request.args.bytes, sizeof number);
        memcpy(&reply,
               in_block ? arena.base + offset : slot->reply.result.bytes,
               sizeof reply);
        CHECK(state == TIDE_SLOT_LOST || reply == number);
        if (in_block)
            tide_region_return(&arena, &board.workers[death.worker].region,
                               offset);
        tide_board_release(&board, index);
        if (state == TIDE_SLOT_LOST) {
            lost++;
            submit(number);
        } else {
            CHECK(!seen[number]++);
            back++;
        }
    }
}

static void take_back(void)
{
    uint32_t slot = check_random(SLOTS);
    uint64_t number;
    if (tide_board_revoke(&board, slot) != TIDE_OK)
        return;
    memcpy(&number, board.slots[slot].request.args.bytes, sizeof number);
    submit(number);
}

static void be_host(void)
{
    while (back < REQUESTS) {
        while (sent < REQUESTS && sent < back + SLOTS)
            submit(sent++);
        if (check_random(8) == 0)
            take_back();
        if (check_random(32) == 0)
            tide_board_resize(&board, 1 + check_random(WORKERS));
        if (check_random(2))
            CHECK(tide_board_wait(&board, 1 + check_random(SLOTS), -1,
                                  tide_deadline_ns(CHECK_PATIENCE_S)) ==
                  TIDE_OK);
        take_in();
    }
    CHECK(board.flight_count == 0);
}

static void open_board(void)
{
    struct tide_error err;
    size_t bytes;
    int event_fd;
    CHECK(tide_board_measure(&bytes, SLOTS, WORKERS, &err) == TIDE_OK);
    uint64_t at = (bytes + 4095) / 4096 * 4096;
    CHECK(tide_arena_create(&arena, at + WORKERS * REGION_BYTES, &err) ==
          TIDE_OK);
    CHECK(tide_event_open(&event_fd, &err) == TIDE_OK);
    CHECK(tide_board_create(&board, &arena, SLOTS, WORKERS,
                            1 + (int)check_random(8), event_fd,
                            &err) == TIDE_OK);
    tide_board_resize(&board, WORKERS);
    for (uint32_t i = 0; i < WORKERS; i++, at += REGION_BYTES)
        tide_region_init(&board.workers[i].region, at, at + REGION_BYTES);
}

static void test_races(void)
{
    pthread_t supervisor;
    check_begin("races");
    for (unsigned round = 0; round < check_rounds; round++) {
        alarm(CHECK_WATCHDOG_S);
        open_board();
        memset(seen, 0, sizeof seen);
        sent = back = 0;
        atomic_store(&at_end, 0);
        for (uint32_t i = 0; i < WORKERS; i++) {
            places[i].index = i;
            start(&places[i], check_random64());
        }
        CHECK(pthread_create(&supervisor, NULL, supervise, NULL) == 0);
        be_host();
        tide_board_close(&board);
        atomic_store(&at_end, 1);
        CHECK(pthread_join(supervisor, NULL) == 0);
        close(board.event_fd);
        tide_board_destroy(&board);
        tide_arena_destroy(&arena);
    }
    printf("races: %u lost\n", lost);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 20);
    test_races();
    return EXIT_SUCCESS;
}
