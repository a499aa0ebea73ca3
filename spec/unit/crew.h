/**
 * @file crew.h
 * @brief Workers for the tests of supervisor and pool: no Lua, and faults on order.
 *
 * A request has items [first, count). The result of each is a number computed from
 * the request's and the item's, written one after the other, at first into the
 * slot, then into blocks that grow.
 */
#ifndef TIDE_UNIT_CREW_H
#define TIDE_UNIT_CREW_H

#include "check.h"
#include "pool/pool.h"
#include "shm/board_worker.h"
#include "shm/wake.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum crew_fault {
    CREW_SOUND,
    CREW_EXITS,  /* at its start, with `code` */
    CREW_DIES,   /* at its start, of signal `code` */
    CREW_REFUSES /* at its start, with a reason in its record */
};

struct crew_config {
    uint32_t fault;
    int code;
    uint32_t life_ns; /* SIGKILL at a random instant up to this; 0: lives */
    uint64_t seed;
    uint32_t retire_after; /* so many slots; 0: never */
    uint32_t retire_idle;  /* before any slot, while less restarts than that */
};

enum crew_task { /* in request.flags */
                 CREW_COUNT,
                 CREW_URGENT, /* as CREW_COUNT, and finished as urgent */
                 CREW_EXIT, /* with code `number`, at the item before the last */
                 CREW_SIGNAL, /* `number` to itself, there */
                 CREW_GATE, /* wait until the word in the block `number` is not 0 */
                 CREW_LIE,  /* reply with a block at offset `number` */
                 CREW_TIMED /* items take as long as the block `number` says */
};

struct crew_args {
    uint64_t number;
    uint64_t begun; /* CREW_GATE: block with a count of those that wait; or 0 */
};

struct crew_time { /* CREW_TIMED: an entry of the block per item */
    uint64_t takes_ns;
    int naps;                  /* asleep, not busy */
    _Atomic uint64_t begun_ns; /* not in hand before */
    _Atomic int begun;
};

static inline uint64_t crew_result(uint64_t number, uint32_t item)
{
    uint64_t mixed = (number + 1) * UINT64_C(0x9e3779b97f4a7c15) + item;
    return mixed ^ mixed >> 31;
}

/* ---- in the worker ---- */

struct crew_worker {
    struct tide_board *board;
    struct tide_heap heap;
    struct tide_slot *slot;
    unsigned char *bytes;
    uint64_t capacity;
    uint64_t used;
};

/* The processor keeps our stores in order; the compiler is told to. */
static inline void crew_advance(struct crew_worker *worker, uint32_t hand)
{
    atomic_thread_fence(memory_order_release);
    *(volatile uint64_t *)&worker->slot->reply.length = worker->used;
    atomic_thread_fence(memory_order_release);
    *(volatile uint32_t *)&worker->slot->reply.hand = hand;
}

static inline int crew_reserve(struct crew_worker *worker, uint64_t bytes)
{
    if (worker->used + bytes <= worker->capacity)
        return 1;
    const struct tide_arena *arena = worker->board->arena;
    uint64_t offset = tide_heap_alloc(&worker->heap, 2 * worker->capacity);
    if (offset == 0)
        return 0;
    memcpy(arena->base + offset, worker->bytes, worker->used);
    /* What is in the slot is overwritten: nothing of it counts any more. */
    if ((worker->slot->reply.form & TIDE_REPLY_BLOCK) == 0)
        crew_advance(worker, worker->slot->request.first);
    tide_board_publish(worker->slot, &worker->heap, offset);
    worker->bytes = arena->base + offset;
    worker->capacity = tide_block_capacity(arena, offset);
    return 1;
}

static inline void crew_misbehave(struct crew_worker *worker,
                                  const struct crew_args *args)
{
    unsigned char *base = worker->board->arena->base;
    switch (worker->slot->request.flags) {
    case CREW_EXIT:
        _exit((int)args->number);
    case CREW_SIGNAL:
        raise((int)args->number);
        break;
    case CREW_GATE:
        if (args->begun != 0)
            atomic_fetch_add((_Atomic uint64_t *)(void *)(base + args->begun),
                             1);
        while (atomic_load((_Atomic uint64_t *)(void *)(base + args->number)) ==
               0)
            check_yield();
        break;
    default:
        break;
    }
}

static inline void crew_pass_time(struct crew_worker *worker,
                                  const struct crew_args *args, uint32_t item)
{
    struct crew_time *time =
        (void *)(worker->board->arena->base + args->number);
    uint64_t ns = time[item].takes_ns;
    atomic_store(&time[item].begun, 1);
    if (time[item].naps)
        nanosleep(&(struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
                                      .tv_nsec = (long)(ns % 1000000000) },
                  NULL);
    else
        check_spin(ns);
    if (item + 1 < worker->slot->request.count)
        atomic_store(&time[item + 1].begun_ns, tide_now_ns());
}

static inline void crew_run(struct crew_worker *worker)
{
    const struct tide_request *request = &worker->slot->request;
    struct crew_args args;
    memcpy(&args, request->args.bytes, sizeof args);
    worker->bytes = worker->slot->reply.result.bytes;
    worker->capacity = TIDE_RESULT_BYTES;
    worker->used = 0;
    for (uint32_t item = request->first; item < request->count; item++) {
        uint64_t result = crew_result(args.number, item);
        if (!crew_reserve(worker, sizeof result))
            return; /* the host sees how far it got */
        if (item + 1 == request->count)
            crew_misbehave(worker, &args);
        if (request->flags == CREW_TIMED)
            crew_pass_time(worker, &args, item);
        memcpy(worker->bytes + worker->used, &result, sizeof result);
        worker->used += sizeof result;
        crew_advance(worker, item + 1);
    }
    if (request->flags == CREW_LIE) {
        worker->slot->reply.form |= TIDE_REPLY_BLOCK;
        worker->slot->reply.result.offset = args.number;
    }
}

/* SIGKILL from the kernel's own timer: at any instant, and to nobody else. Lives
 * get longer, so that there is progress however slow the machine is. */
static inline void crew_set_end(const struct crew_config *config,
                                uint32_t restarts)
{
    uint32_t most_ns = config->life_ns + restarts * 10 * 1000;
    timer_t timer;
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL,
                              .sigev_signo = SIGKILL };
    check_reseed(config->seed ^ (uint64_t)getpid() ^ tide_now_ns());
    struct itimerspec end = { .it_value.tv_nsec =
                                  1 + (long)check_random(most_ns) };
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0)
        timer_settime(timer, 0, &end, NULL);
}

static inline void crew_start_badly(struct crew_worker *worker,
                                    const struct crew_config *config,
                                    struct tide_worker_record *record)
{
    static const char reason[] = "no will to work";
    if (config->fault == CREW_EXITS)
        _exit(config->code);
    if (config->fault == CREW_DIES) {
        raise(config->code);
        _exit(0);
    }
    if (config->fault == CREW_REFUSES) {
        uint64_t offset = tide_heap_alloc(&worker->heap, sizeof reason);
        CHECK(offset != 0);
        memcpy(worker->board->arena->base + offset, reason, sizeof reason);
        atomic_store(&record->failure_bytes, (uint32_t)sizeof reason);
        atomic_store(&record->failure, offset);
        tide_heap_settle(&worker->heap);
        _exit(TIDE_EXIT_NOT_STARTED);
    }
}

static inline int crew_main(struct tide_worker_env *env)
{
    struct tide_worker_record *record = &env->board->workers[env->index];
    struct crew_worker worker = { .board = env->board };
    struct crew_config config = { 0 };
    uint32_t index;
    uint32_t done = 0;
    if (env->config != NULL)
        memcpy(&config, env->config, sizeof config);
    tide_heap_open(&worker.heap, env->board->arena, &record->region);
    crew_start_badly(&worker, &config, record);
    atomic_store(&record->phase, TIDE_WORKER_UP);
    tide_event_raise(env->board->event_fd);
    if (config.life_ns != 0)
        crew_set_end(&config, atomic_load(&record->restarts));
    if (atomic_load(&record->restarts) < config.retire_idle)
        return TIDE_EXIT_RETIRED;
    for (;;) {
        if (tide_board_claim(&index, env->board, env->index) == TIDE_OK) {
            worker.slot = &env->board->slots[index];
            worker.slot->reply.start_ns = tide_now_ns();
            crew_run(&worker);
            worker.slot->reply.end_ns = tide_now_ns();
            atomic_fetch_add(&record->items, 1);
            tide_board_finish(env->board, index, env->index,
                              worker.slot->request.flags == CREW_URGENT);
            if (++done == config.retire_after)
                return TIDE_EXIT_RETIRED;
        } else if (tide_board_rest(env->board, env->index) != TIDE_OK) {
            return 0;
        }
    }
}

static const struct tide_worker_ops crew_ops = { .run = crew_main };

/* ---- in the host ---- */

static inline struct tide_pool *crew_open(struct tide_host *host,
                                          uint32_t workers, uint32_t slots,
                                          const struct crew_config *config)
{
    struct tide_pool *pool;
    struct tide_error err = { 0 };
    struct tide_pool_options options = {
        .worker_count = workers,
        .slot_count = slots,
        .region_bytes = 1 << 24,
        .config = config,
        .config_bytes = config ? sizeof *config : 0,
    };
    int status = tide_pool_open(&pool, host, &options, &err);
    if (status != TIDE_OK)
        fprintf(stderr, "cannot open a pool: %s\n", err.text);
    CHECK(status == TIDE_OK);
    return pool;
}

static inline void crew_start_host(struct tide_host *host)
{
    struct tide_error err;
    CHECK(tide_host_start(host, &crew_ops, NULL, &err) == TIDE_OK);
}

static inline int crew_submit(struct tide_pool *pool, enum crew_task task,
                              struct crew_args args, uint32_t first,
                              uint32_t count, uint64_t tag)
{
    struct tide_request request = { .flags = (uint16_t)task,
                                    .first = first,
                                    .count = count,
                                    .length = sizeof args };
    memcpy(request.args.bytes, &args, sizeof args);
    return tide_pool_submit(NULL, pool, &request, tag);
}

/* Check what an outcome holds of its items; returns how far it got. */
static inline uint32_t crew_check(const struct tide_outcome *outcome)
{
    struct crew_args args;
    memcpy(&args, outcome->request.args.bytes, sizeof args);
    uint32_t first = outcome->request.first;
    uint32_t hand = outcome->reply.hand;
    CHECK(hand >= first && hand <= outcome->request.count);
    CHECK((uint64_t)(hand - first) * sizeof(uint64_t) <= outcome->capacity);
    for (uint32_t item = first; item < hand; item++) {
        uint64_t result;
        memcpy(&result, outcome->bytes + (item - first) * sizeof result,
               sizeof result);
        CHECK(result == crew_result(args.number, item));
    }
    return hand;
}

static inline uint64_t crew_deadline(void)
{
    return tide_deadline_ns(CHECK_PATIENCE_S);
}

/* The next outcome, waiting for it. */
static inline void crew_receive(struct tide_pool *pool,
                                struct tide_outcome *out)
{
    while (tide_pool_receive(pool, out) != TIDE_OK) {
        CHECK(!pool->gone);
        CHECK(tide_pool_wait(pool, 1, crew_deadline()) != TIDE_ETIMEOUT);
    }
}

/* Is there a process, not a zombie, with this pid? */
static inline int crew_runs(pid_t pid)
{
    char path[64];
    char line[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    char *text = fgets(line, sizeof line, file);
    fclose(file);
    const char *end = text ? strrchr(text, ')') : NULL;
    return end != NULL && end[2] != 'Z' && end[2] != 'X';
}

static inline int crew_has_children(void)
{
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

#endif
