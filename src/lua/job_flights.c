/*
 * Flights: spans with the engine. A flight is the tag of its request, by which the
 * outcome finds its job; a job knows its flights, to take them back.
 */
#include "lua/job_calls.h"
#include "lua/job_feed.h"

/* What the engine needs to run the span. */
static void make_request(struct tide_request *out,
                         const struct tide_lua_job *job,
                         const struct tide_span *span)
{
    const struct tide_lua_segment *segment = (void *)span->segment;
    if (job->calls == NULL)
        *out = segment->request;
    else
        tide_calls_request(out, job, span->first);
    out->first = span->first;
    out->count = span->last;
}

static int submit(uint32_t *slot, const struct tide_lua_job *job,
                  const struct tide_request *request, uint64_t tag)
{
    struct tide_pool *pool = job->owner->pool;
    return (job->order.flags & TIDE_JOB_BROADCAST) != 0
               ? tide_pool_submit_to(slot, pool, request->first, request, tag)
               : tide_pool_submit(slot, pool, request, tag);
}

int tide_flight_start(struct tide_lua_job *job, const struct tide_span *span)
{
    struct tide_lua_pool *owner = job->owner;
    struct tide_flight *flight = owner->free_flights;
    struct tide_request request;
    uint32_t slot;
    make_request(&request, job, span);
    int status = submit(&slot, job, &request, (uint64_t)(uintptr_t)flight);
    if (status != TIDE_OK)
        return status;
    owner->free_flights = flight->next;
    *flight = (struct tide_flight){ .job = job,
                                    .span = *span,
                                    .slot = slot,
                                    .next = job->flights,
                                    .link = &job->flights };
    if (flight->next != NULL)
        flight->next->link = &flight->next;
    job->flights = flight;
    if (job->calls != NULL)
        job->calls->items[span->first].flight =
            (uint32_t)(flight - owner->flights) + 1;
    return TIDE_OK;
}

void tide_flight_end(struct tide_flight *flight)
{
    struct tide_lua_job *job = flight->job;
    struct tide_lua_pool *owner = job->owner;
    if (job->calls != NULL)
        job->calls->items[flight->span.first].flight = 0;
    *flight->link = flight->next;
    if (flight->next != NULL)
        flight->next->link = flight->link;
    flight->job = NULL;
    flight->next = owner->free_flights;
    owner->free_flights = flight;
}

void tide_flight_recall(struct tide_flight *flight, int kill)
{
    struct tide_lua_job *job = flight->job;
    struct tide_lua_pool *owner = job->owner;
    struct tide_span span = flight->span;
    int in_hand =
        owner->taking && owner->outcome.tag == (uint64_t)(uintptr_t)flight;
    if (in_hand || owner->ended) /* then the pool is gone, or as good as */
        return;
    if (tide_pool_revoke(owner->pool, flight->slot) == TIDE_OK) {
        tide_flight_end(flight);
        tide_job_settle_span(job, &span, span.last - span.first, 0);
    } else if (kill) {
        tide_pool_cut_off(owner->pool, flight->slot);
    }
}

void tide_flights_recall(struct tide_lua_job *job, int kill)
{
    struct tide_flight *next;
    for (struct tide_flight *flight = job->flights; flight; flight = next) {
        next = flight->next;
        tide_flight_recall(flight, kill);
    }
}
