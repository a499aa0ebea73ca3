/*
 * The arena of a pool: the board, then one region per process. Regions are made
 * as large as address space allows, since only touched pages cost anything.
 *
 *   [board | host's region header | host's region | worker 1's region | ...]
 *
 * A pool has room for more workers than there are, so that it can grow. Those get
 * less address space: most pools never see them, and a process has room for some
 * hundred arenas of a terabyte.
 *
 * An arena belongs to one pool, so that a worker gone wild can harm no other
 * pool, and the system takes all of it back when the pool ends.
 */
#include "base/fault.h"
#include "pool/pool_inner.h"

#include <stdlib.h>

enum { DEFAULT_SLOTS = 4096, DEFAULT_PLACES = 256, PAGE_BYTES = 4096 };

static const uint64_t default_region_bytes = UINT64_C(1) << 36;
static const uint64_t least_region_bytes = UINT64_C(1) << 24;
/* The supervisor maps the arenas of all pools: room for a dozen of the largest. */
static const uint64_t most_arena_bytes = UINT64_C(1) << 43;

/* Of the places that only a resize mans. */
static const uint64_t most_spare_bytes = UINT64_C(1) << 32;

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/* ---- the arena ---- */

struct plan {
    uint32_t slot_count;
    uint32_t worker_count;
    uint32_t place_count;
    size_t board_bytes;
    uint64_t head_bytes;   /* board and the header of our region */
    uint64_t region_bytes; /* ours, and of each worker there is at first */
    uint64_t spare_bytes;  /* of each other one */
};

static uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* All of it follows from counts and region size. */
static int measure(struct plan *plan, uint64_t region_bytes,
                   struct tide_error *err)
{
    int status = tide_board_measure(&plan->board_bytes, plan->slot_count,
                                    plan->place_count, err);
    if (status != TIDE_OK)
        return status;
    plan->head_bytes =
        round_up(plan->board_bytes + sizeof(struct tide_region), PAGE_BYTES);
    uint64_t spare_count = plan->place_count - plan->worker_count;
    uint64_t most =
        (most_arena_bytes - plan->head_bytes - spare_count * most_spare_bytes) /
        (plan->worker_count + 1);
    if (region_bytes < PAGE_BYTES)
        region_bytes = PAGE_BYTES;
    region_bytes = least_of(region_bytes, most);
    plan->region_bytes = region_bytes - region_bytes % PAGE_BYTES;
    plan->spare_bytes = least_of(plan->region_bytes, most_spare_bytes);
    return TIDE_OK;
}

static size_t arena_bytes(const struct plan *plan)
{
    uint64_t spare_count = plan->place_count - plan->worker_count;
    return (size_t)(plan->head_bytes +
                    plan->region_bytes * (plan->worker_count + 1) +
                    plan->spare_bytes * spare_count);
}

/* Map as much as the address space has room for: without room to grow rather than
 * with small regions. */
static int map_arena(struct tide_pool *pool, struct plan *plan,
                     uint64_t region_bytes, struct tide_error *err)
{
    for (;;) {
        int status = measure(plan, region_bytes, err);
        if (status == TIDE_OK)
            status = tide_arena_create(&pool->arena, arena_bytes(plan), err);
        if (status != TIDE_ESYS)
            return status;
        if (plan->place_count > plan->worker_count)
            plan->place_count = plan->worker_count;
        else if (plan->region_bytes / 2 >= least_region_bytes)
            region_bytes = plan->region_bytes / 2;
        else
            return status;
    }
}

static int make_plan(struct plan *out, const struct tide_pool_options *options,
                     struct tide_error *err)
{
    uint32_t workers = options->worker_count;
    uint32_t places =
        options->worker_max ? options->worker_max : DEFAULT_PLACES;
    *out =
        (struct plan){ .slot_count = options->slot_count ? options->slot_count
                                                         : DEFAULT_SLOTS,
                       .worker_count = workers,
                       .place_count = places < workers ? workers : places };
    if (workers == 0 || workers > TIDE_WORKERS_MAX)
        return tide_fail(err, TIDE_EINVAL, "worker count %u is not in 1 .. %d",
                         workers, TIDE_WORKERS_MAX);
    return TIDE_OK;
}

static uint64_t region_at(const struct tide_pool *pool, uint32_t worker)
{
    uint32_t full = worker < pool->full_count ? worker : pool->full_count;
    return pool->regions_at + full * pool->region_bytes +
           (worker - full) * pool->spare_bytes;
}

int tide_pool_holds(const struct tide_pool *pool, uint32_t worker,
                    uint64_t offset, uint64_t size)
{
    uint64_t end = region_at(pool, worker + 1);
    return offset > region_at(pool, worker) && offset <= end &&
           size <= end - offset;
}

static void open_regions(struct tide_pool *pool, const struct plan *plan)
{
    pool->regions_at = plan->head_bytes + plan->region_bytes;
    pool->region_bytes = plan->region_bytes;
    pool->spare_bytes = plan->spare_bytes;
    pool->full_count = plan->worker_count;
    pool->region = (void *)(pool->arena.base + plan->board_bytes);
    tide_region_init(pool->region, plan->head_bytes, pool->regions_at);
    for (uint32_t i = 0; i < plan->place_count; i++)
        tide_region_init(&pool->board.workers[i].region, region_at(pool, i),
                         region_at(pool, i + 1));
    tide_heap_open(&pool->heap, &pool->arena, pool->region);
}

int tide_pool_lay_out(struct tide_pool *pool,
                      const struct tide_pool_options *options, int event_fd,
                      struct tide_error *err)
{
    struct plan plan;
    uint64_t region_bytes =
        options->region_bytes ? options->region_bytes : default_region_bytes;
    int status = make_plan(&plan, options, err);
    if (status == TIDE_OK)
        status = map_arena(pool, &plan, region_bytes, err);
    if (status == TIDE_OK)
        status = tide_board_create(&pool->board, &pool->arena, plan.slot_count,
                                   plan.place_count, pool->host->cpu_count,
                                   event_fd, err);
    if (status != TIDE_OK)
        return status;
    tide_board_resize(&pool->board, plan.worker_count);
    if (options->single)
        tide_board_make_single(&pool->board);
    open_regions(pool, &plan);
    pool->tags = TIDE_FAULT(POOL_MALLOC)
                     ? NULL
                     : calloc(plan.slot_count, sizeof *pool->tags);
    return pool->tags ? TIDE_OK
                      : tide_fail(err, TIDE_ENOMEM, "cannot allocate %u slots",
                                  plan.slot_count);
}
