/*
 * A pool is an arena (pool_layout.c), a board in it, and a crew that the supervisor
 * keeps.
 *
 * What a worker wrote is not trusted: an outcome is a copy, and its block must
 * lie in the region of the worker that claimed the slot.
 */
#include "pool/pool_inner.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/pages.h"
#include "proc/channel.h"
#include "shm/wake.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { START_PATIENCE_S = 30 };

static uint32_t last_crew; /* of this process, whichever host has it */

/* ---- opening ---- */

static int copy_config(struct tide_pool *pool,
                       const struct tide_pool_options *options,
                       struct tide_error *err)
{
    if (options->config_bytes == 0)
        return TIDE_OK;
    pool->config = tide_pool_alloc(pool, options->config_bytes);
    if (pool->config == 0)
        return tide_fail(err, TIDE_ENOMEM,
                         "no room for %zu bytes of options in %d MB of shared "
                         "memory",
                         options->config_bytes, tide_pool_megabytes(pool));
    memcpy(tide_pool_at(pool, pool->config), options->config,
           options->config_bytes);
    return TIDE_OK;
}

/* Wait for news of the supervisor. */
static int listen(struct tide_pool *pool, uint64_t deadline_ns)
{
    struct pollfd fd = { .fd = pool->host->supervisor.channel,
                         .events = POLLIN };
    int ready = TIDE_FAULT(HOST_POLL)
                    ? -1
                    : poll(&fd, 1, tide_poll_timeout_ms(deadline_ns));
    if (ready == 0)
        return TIDE_ETIMEOUT;
    int status = ready > 0 ? TIDE_OK : errno == EINTR ? TIDE_EINTR : TIDE_ESYS;
    tide_host_attend(pool->host);
    return status;
}

static int start_crew(struct tide_pool *pool,
                      const struct tide_pool_options *options,
                      struct tide_error *err)
{
    struct tide_message order = { .kind = TIDE_MESSAGE_CREATE,
                                  .crew = pool->crew,
                                  .host = tide_commons_self(),
                                  .arena_bytes = pool->arena.size,
                                  .config = pool->config,
                                  .config_bytes = options->config_bytes };
    int fds[TIDE_MESSAGE_FDS] = { pool->arena.fd, pool->board.event_fd };
    tide_host_attend(pool->host); /* news that nobody reads hold it up */
    uint64_t deadline_ns = options->start_deadline_ns
                               ? options->start_deadline_ns
                               : tide_deadline_ns(START_PATIENCE_S);
    int status = TIDE_EBROKEN;
    if (pool->host->alive)
        status = tide_channel_send(pool->host->supervisor.channel, &order, fds);
    if (status != TIDE_OK && status != TIDE_ETIMEOUT)
        return tide_fail(err, TIDE_EBROKEN, "the supervisor is gone");
    while (status != TIDE_ETIMEOUT && !pool->started && !pool->gone)
        status = listen(pool, deadline_ns); /* it answers, or its end is seen */
    if (status == TIDE_ETIMEOUT)
        return tide_fail(
            err, TIDE_ETIMEOUT,
            "cannot start %u workers: the supervisor (pid %d) does "
            "not answer",
            options->worker_count, (int)pool->host->supervisor.pid);
    /* Started and gone already is a pool whose workers may have left a reason. */
    if (!pool->started)
        return tide_fail(err, TIDE_EBROKEN, "%s", pool->reason);
    return TIDE_OK;
}

/* Every slot that was ever used is free: nothing is under way, or being taken in. */
static int is_quiet(const void *context)
{
    const struct tide_pool *pool = context;
    return pool->board.used_count == pool->board.free_count;
}

int tide_pool_open(struct tide_pool **out, struct tide_host *host,
                   const struct tide_pool_options *options,
                   struct tide_error *err)
{
    int event_fd = -1;
    struct tide_pool *pool =
        TIDE_FAULT(POOL_MALLOC) ? NULL : calloc(1, sizeof *pool);
    if (pool == NULL)
        return tide_fail(err, TIDE_ENOMEM, "cannot allocate a pool");
    pool->host = host;
    pool->arena.fd = pool->board.event_fd = pool->wait_fd = -1;
    pool->crew = ++last_crew;
    tide_crew_opened(pool->crew, is_quiet, pool);
    pool->next = host->pools;
    host->pools = pool;

    int status = tide_event_open(&event_fd, err);
    if (status == TIDE_OK)
        status = tide_pool_lay_out(pool, options, event_fd, err);
    pool->board.event_fd = event_fd;
    if (status == TIDE_OK)
        status = copy_config(pool, options, err);
    if (status == TIDE_OK)
        status = start_crew(pool, options, err);
    if (status != TIDE_OK) {
        tide_pool_free(pool);
        return status;
    }
    *out = pool;
    return TIDE_OK;
}

static int all_up(const struct tide_pool *pool)
{
    for (uint32_t i = 0; i < tide_board_wanted(&pool->board); i++)
        if (atomic_load(&pool->board.workers[i].phase) != TIDE_WORKER_UP)
            return 0;
    return 1;
}

int tide_pool_await_start(struct tide_pool *pool, uint64_t deadline_ns)
{
    while (!pool->gone && !all_up(pool)) {
        int status = tide_pool_wait(pool, 1, deadline_ns);
        if (status == TIDE_ETIMEOUT || status == TIDE_EINTR)
            return status;
    }
    return pool->gone ? TIDE_EBROKEN : TIDE_OK;
}

/* ---- memory ---- */

uint64_t tide_pool_alloc(struct tide_pool *pool, uint64_t bytes)
{
    uint64_t offset = tide_heap_alloc(&pool->heap, bytes);
    tide_heap_settle(&pool->heap);
    return offset;
}

void tide_pool_free_block(struct tide_pool *pool, uint64_t offset)
{
    tide_heap_free(&pool->heap, offset);
}

int tide_pool_megabytes(const struct tide_pool *pool)
{
    const uint64_t megabyte = 1000000;
    return (int)((pool->region->end - pool->region->first) / megabyte);
}

unsigned char *tide_pool_at(const struct tide_pool *pool, uint64_t offset)
{
    return pool->arena.base + offset;
}

void tide_pool_write(struct tide_pool *pool, uint64_t offset, const void *bytes,
                     size_t size)
{
    unsigned char *to = tide_pool_at(pool, offset);
    size_t done = 0;
    if (size >= TIDE_PAGES_FROM && tide_pages_are_missing(to, size))
        done = tide_arena_write(&pool->arena, offset, bytes, size);
    if (size - done >= TIDE_PAGES_FROM)
        tide_pages_make(to + done, size - done);
    memcpy(to + done, (const char *)bytes + done, size - done);
}

/* ---- requests ---- */

/* Is there a supervisor to be told what to do? */
static int has_supervisor(const struct tide_pool *pool)
{
    return !pool->gone && pool->host->alive && tide_host_is_ours(pool->host);
}

/* Have the supervisor look at our board. */
static void ring(const struct tide_pool *pool)
{
    if (has_supervisor(pool))
        tide_channel_ring(pool->host->supervisor.channel, pool->crew);
}

int tide_pool_has_slot(const struct tide_pool *pool)
{
    return pool->board.free_count > 0 ||
           pool->board.used_count < tide_board_slot_count(&pool->board);
}

/* The supervisor looks at time limits only while it knows of some. */
static void watch(struct tide_pool *pool, uint32_t timeout_ms)
{
    if (timeout_ms != 0 && tide_board_demand_watch(&pool->board, timeout_ms))
        ring(pool);
}

/* A slot with the request in it, not yet submitted. */
static int fill_slot(uint32_t *out, struct tide_pool *pool,
                     const struct tide_request *request, uint64_t tag)
{
    if (tide_board_take(out, &pool->board) != TIDE_OK)
        return TIDE_EAGAIN;
    pool->board.slots[*out].request = *request;
    pool->tags[*out] = tag;
    return TIDE_OK;
}

int tide_pool_submit(uint32_t *slot, struct tide_pool *pool,
                     const struct tide_request *request, uint64_t tag)
{
    uint32_t taken;
    if (fill_slot(&taken, pool, request, tag) != TIDE_OK)
        return TIDE_EAGAIN;
    tide_board_submit(&pool->board, taken);
    watch(pool, request->timeout_ms);
    if (slot != NULL)
        *slot = taken;
    return TIDE_OK;
}

int tide_pool_submit_to(uint32_t *slot, struct tide_pool *pool, uint32_t worker,
                        const struct tide_request *request, uint64_t tag)
{
    uint32_t taken;
    if (worker >= tide_pool_workers(pool))
        return TIDE_EINVAL;
    if (fill_slot(&taken, pool, request, tag) != TIDE_OK)
        return TIDE_EAGAIN;
    if (tide_board_submit_to(&pool->board, taken, worker) != TIDE_OK) {
        tide_board_release(&pool->board, taken);
        return TIDE_EAGAIN;
    }
    watch(pool, request->timeout_ms);
    if (slot != NULL)
        *slot = taken;
    return TIDE_OK;
}

int tide_pool_revoke(struct tide_pool *pool, uint32_t slot)
{
    return tide_board_revoke(&pool->board, slot);
}

void tide_pool_cut_off(struct tide_pool *pool, uint32_t slot)
{
    uint32_t sequence = tide_board_flight_of(&pool->board, slot);
    if (sequence == 0)
        return;
    tide_board_cut_off(&pool->board, slot, sequence);
    ring(pool);
}

uint32_t tide_pool_hand(const struct tide_pool *pool, uint32_t slot)
{
    const struct tide_slot *flying = &pool->board.slots[slot];
    uint32_t first = flying->request.first;
    uint32_t count = flying->request.count;
    uint32_t hand = *(const volatile uint32_t *)&flying->reply.hand;
    return hand < first ? first : hand > count ? count : hand;
}

uint32_t tide_pool_queued(const struct tide_pool *pool)
{
    return tide_board_queued(&pool->board);
}

void tide_pool_kick(struct tide_pool *pool, uint32_t count)
{
    tide_board_kick(&pool->board, count);
}

void tide_pool_nudge(struct tide_pool *pool, uint64_t backlog_ns)
{
    tide_board_nudge(&pool->board, backlog_ns);
}

uint32_t tide_pool_in_flight(const struct tide_pool *pool)
{
    return pool->board.flight_count + pool->board.arrived_count -
           pool->board.arrived_at;
}

uint32_t tide_pool_arrived(const struct tide_pool *pool)
{
    return pool->board.arrived_count - pool->board.arrived_at +
           tide_board_finished(&pool->board);
}

/* ---- size ---- */

uint32_t tide_pool_workers(const struct tide_pool *pool)
{
    return tide_board_wanted(&pool->board);
}

int tide_pool_resize(struct tide_pool *pool, uint32_t count,
                     struct tide_error *err)
{
    uint32_t room = tide_board_place_count(&pool->board);
    if (count == 0 || count > room)
        return tide_fail(err, TIDE_EINVAL,
                         "cannot resize to %u workers: this pool has room for "
                         "1 .. %u",
                         count, room);
    if (pool->gone || tide_board_is_closed(&pool->board))
        return tide_fail(err, TIDE_ECLOSED,
                         "cannot resize to %u workers: the pool is closed",
                         count);
    tide_board_resize(&pool->board, count);
    ring(pool);
    return TIDE_OK;
}

/* ---- outcomes ---- */

static struct tide_region *region_of(const struct tide_pool *pool,
                                     const struct tide_outcome *outcome)
{
    return &pool->board.workers[outcome->death.worker].region;
}

/* Find the reply's bytes; a reply that points elsewhere has none. */
static void locate_bytes(const struct tide_pool *pool, struct tide_slot *slot,
                         struct tide_outcome *out)
{
    if ((out->reply.form & TIDE_REPLY_BLOCK) == 0) {
        out->bytes = slot->reply.result.bytes;
        out->capacity = TIDE_RESULT_BYTES;
        return;
    }
    uint64_t offset = out->reply.result.offset;
    uint32_t worker = out->death.worker;
    out->capacity = 0;
    if (!tide_pool_holds(pool, worker, offset, 1))
        offset = 0;
    else
        out->capacity = tide_block_capacity(&pool->arena, offset);
    if (!tide_pool_holds(pool, worker, offset, out->capacity))
        out->capacity = 0;
    out->bytes = pool->arena.base + offset;
    if (out->capacity == 0)
        out->reply.form &= ~TIDE_REPLY_BLOCK; /* nothing to give back */
}

int tide_pool_receive(struct tide_pool *pool, struct tide_outcome *out)
{
    uint32_t index;
    enum tide_slot_state state =
        tide_board_next_done(&index, &pool->board, &out->death);
    if (state == TIDE_SLOT_FREE && pool->is_external) {
        tide_event_clear(pool->board.event_fd); /* then look once more */
        state = tide_board_next_done(&index, &pool->board, &out->death);
    }
    if (state == TIDE_SLOT_FREE)
        return TIDE_EAGAIN;
    struct tide_slot *slot = &pool->board.slots[index];
    out->slot = index;
    out->tag = pool->tags[index];
    out->lost = state == TIDE_SLOT_LOST;
    out->request = slot->request;
    out->reply = slot->reply;
    locate_bytes(pool, slot, out);
    return TIDE_OK;
}

void tide_pool_release(struct tide_pool *pool,
                       const struct tide_outcome *outcome)
{
    if ((outcome->reply.form & TIDE_REPLY_BLOCK) != 0)
        tide_region_return(&pool->arena, region_of(pool, outcome),
                           outcome->reply.result.offset);
    tide_board_release(&pool->board, outcome->slot);
}

int tide_pool_wait(struct tide_pool *pool, uint32_t count, uint64_t deadline_ns)
{
    int status = TIDE_EBROKEN;
    if (!pool->gone)
        status = tide_board_wait(&pool->board, count,
                                 pool->host->supervisor.channel, deadline_ns);
    tide_host_attend(pool->host);
    if (pool->is_external)
        tide_pool_arm(pool);
    return status;
}

/* ---- ending ---- */

void tide_pool_close(struct tide_pool *pool)
{
    if (pool->gone || tide_board_is_closed(&pool->board))
        return;
    tide_board_close(&pool->board);
    ring(pool); /* who is stopped does not see it */
}

void tide_pool_kill(struct tide_pool *pool)
{
    if (pool->board.shared == NULL || !has_supervisor(pool))
        return;
    tide_board_stop(&pool->board);
    ring(pool);
}

void tide_pool_signal(struct tide_pool *pool, int signal_number)
{
    if (!has_supervisor(pool))
        return;
    tide_board_signal(&pool->board, signal_number);
    ring(pool);
}

int tide_pool_process(const struct tide_pool *pool, uint32_t worker, pid_t *pid,
                      int *wait_status)
{
    struct tide_worker_record *record = &pool->board.workers[worker];
    *pid = atomic_load(&record->pid);
    pid_t last = atomic_load(&record->last_pid);
    if (last != 0)
        *pid = last;
    /* With the supervisor its workers are killed, and nobody can say so. */
    *wait_status = last != 0 ? atomic_load(&record->last_status) : SIGKILL;
    return pool->gone;
}

int tide_pool_join(struct tide_pool *pool, uint64_t deadline_ns)
{
    while (!pool->gone) {
        int status = listen(pool, deadline_ns);
        if (status == TIDE_ETIMEOUT || status == TIDE_EINTR)
            return status;
    }
    return TIDE_OK;
}

void tide_pool_on_gone(struct tide_pool *pool, const char *reason)
{
    if (pool->gone)
        return;
    pool->gone = 1;
    pool->broken = reason != NULL;
    pool->gone_ns = tide_now_ns();
    if (reason != NULL)
        snprintf(pool->reason, sizeof pool->reason, "%s", reason);
    /* Another pool's look at the channel may have found it. */
    if (pool->is_external)
        tide_event_raise(pool->board.event_fd);
}

static void unlink_pool(struct tide_pool *pool)
{
    struct tide_pool **at = &pool->host->pools;
    while (*at != NULL && *at != pool)
        at = &(*at)->next;
    if (*at == pool)
        *at = pool->next;
}

void tide_pool_free(struct tide_pool *pool)
{
    tide_pool_kill(pool);
    unlink_pool(pool);
    tide_crew_closed(pool->crew);
    /* In a forked copy of the host the number may be somebody else's by now. */
    if (tide_host_is_ours(pool->host)) {
        if (pool->board.event_fd >= 0)
            close(pool->board.event_fd);
        if (pool->wait_fd >= 0)
            close(pool->wait_fd);
    }
    tide_board_destroy(&pool->board);
    tide_arena_destroy(&pool->arena);
    free(pool->tags);
    free(pool);
}
