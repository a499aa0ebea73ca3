/*
 * An item is in one of four places, and moves one way except for repeats:
 *
 *   uncut -> flying -> settled          tide_job_cut, tide_job_report
 *            flying -> again -> flying  a worker died before it came to the item,
 *                                       or it failed and has another try
 *
 * The adaptive chunk aims at about a millisecond: long enough that the cost of a
 * chunk (a microsecond or two) vanishes, short enough that progress, errors and
 * the end of the job come smoothly. Item times are a decaying mean in which a
 * chunk counts by its items, so that the first item of a job, which pays for
 * decoding and compiling, is outvoted as soon as larger chunks have come back.
 * Taking no more than a fixed part of what is left is guided self-scheduling
 * (Polychronopoulos and Kuck, 1987).
 */
#include "pool/ledger.h"

#include "base/fault.h"

#include <stdlib.h>

enum {
    CHUNK_NS = 1000 * 1000,
    CHUNK_MAX = 1 << 16,
    SHARES = 3, /* of what is left, a worker gets this part at most */
    FLIGHT_PER_WORKER = 4,
    UNMEASURED_PER_WORKER = 2
};

void tide_job_init(struct tide_job *job, uint32_t fixed_chunk)
{
    *job = (struct tide_job){ .fixed_chunk = fixed_chunk, .again_capacity = 1 };
    job->again = &job->first_again;
    job->segments_tail = &job->segments;
}

void tide_job_destroy(struct tide_job *job,
                      void (*release)(struct tide_segment *, void *),
                      void *context)
{
    while (job->segments != NULL) {
        struct tide_segment *segment = job->segments;
        job->segments = segment->next;
        release(segment, context);
    }
    if (job->again != &job->first_again)
        free(job->again);
    job->again = &job->first_again;
    job->again_count = 0;
    job->again_capacity = 1;
    job->segments_tail = &job->segments;
    job->cutting = NULL;
}

void tide_job_add(struct tide_job *job, struct tide_segment *segment)
{
    segment->base = job->added;
    segment->cut = segment->settled = 0;
    segment->next = NULL;
    job->added += segment->count;
    *job->segments_tail = segment;
    job->segments_tail = &segment->next;
    if (job->cutting == NULL)
        job->cutting = segment;
}

void tide_job_add_open(struct tide_job *job, struct tide_segment *segment)
{
    segment->count = 0;
    segment->is_open = 1;
    tide_job_add(job, segment);
    job->cutting = NULL; /* until there is an item */
}

void tide_job_extend(struct tide_job *job, struct tide_segment *segment)
{
    segment->count++;
    job->added++;
    if (job->cutting == NULL)
        job->cutting = segment;
}

void tide_job_seal(struct tide_job *job)
{
    job->sealed = 1;
}

double tide_job_mean_ns(const struct tide_job *job)
{
    return job->sample_items > 0 ? job->sample_ns / job->sample_items : 0;
}

uint32_t tide_job_chunk_ideal(const struct tide_job *job)
{
    double mean_ns = tide_job_mean_ns(job);
    if (job->sample_items <= 0)
        return 1;
    if (mean_ns * CHUNK_MAX <= CHUNK_NS)
        return CHUNK_MAX;
    return mean_ns < CHUNK_NS ? (uint32_t)(CHUNK_NS / mean_ns) : 1;
}

uint32_t tide_job_chunk(const struct tide_job *job, uint64_t left,
                        uint32_t workers)
{
    if (job->fixed_chunk != 0)
        return job->fixed_chunk;
    uint32_t chunk = tide_job_chunk_ideal(job);
    uint64_t share = left / (SHARES * (uint64_t)workers);
    if (chunk <= share)
        return chunk;
    return share > 0 ? (uint32_t)share : 1;
}

int tide_job_wants_flight(const struct tide_job *job, uint32_t workers)
{
    uint32_t each =
        job->sample_items > 0 ? FLIGHT_PER_WORKER : UNMEASURED_PER_WORKER;
    return job->fixed_chunk != 0 || job->flying < each * workers;
}

uint64_t tide_job_uncut(const struct tide_job *job)
{
    if (job->cutting == NULL || job->stopped)
        return 0;
    return job->added - job->cutting->base - job->cutting->cut;
}

/* Room for one more span, and to repeat every one that flies. */
static int reserve_again(struct tide_job *job)
{
    size_t need = job->again_count + job->flying + 1;
    if (need <= job->again_capacity)
        return 0;
    int is_first = job->again == &job->first_again;
    size_t capacity = job->again_capacity * 4;
    struct tide_span *again =
        TIDE_FAULT(JOB_MALLOC)
            ? NULL
            : realloc(is_first ? NULL : job->again, capacity * sizeof *again);
    if (again == NULL)
        return -1;
    if (is_first)
        again[0] = job->first_again;
    job->again = again;
    job->again_capacity = capacity;
    return 0;
}

int tide_job_cut(struct tide_job *job, uint32_t count, struct tide_span *out)
{
    if (job->stopped || (job->again_count == 0 && job->cutting == NULL) ||
        reserve_again(job) != 0)
        return 0;
    if (job->again_count > 0) {
        *out = job->again[--job->again_count];
        job->flying++;
        return 1;
    }
    struct tide_segment *segment = job->cutting;
    uint32_t left = segment->count - segment->cut;
    out->segment = segment;
    out->first = segment->cut;
    out->last = segment->cut + (count < left ? count : left);
    segment->cut = out->last;
    if (segment->cut == segment->count)
        job->cutting = segment->next;
    job->flying++;
    return 1;
}

static void unlink_segment(struct tide_job *job, struct tide_segment *segment)
{
    struct tide_segment **at = &job->segments;
    while (*at != segment)
        at = &(*at)->next;
    *at = segment->next;
    if (job->segments_tail == &segment->next)
        job->segments_tail = at;
    if (job->cutting == segment)
        job->cutting = segment->next;
}

int tide_job_repeat(struct tide_job *job, const struct tide_span *span)
{
    if (job->stopped || reserve_again(job) != 0)
        return -1;
    job->again[job->again_count++] = *span;
    return 0;
}

struct tide_segment *tide_job_report(struct tide_job *job,
                                     const struct tide_span *span,
                                     uint32_t done, uint32_t repeated,
                                     uint64_t elapsed_ns)
{
    struct tide_segment *segment = span->segment;
    uint32_t size = span->last - span->first;
    if (done > size)
        done = size;
    job->flying--;
    if (done > 0 && elapsed_ns > 0) {
        job->sample_ns = job->sample_ns / 2 + (double)elapsed_ns;
        job->sample_items = job->sample_items / 2 + done;
    }
    if (done < size && !job->stopped) {
        struct tide_span rest = *span;
        rest.first += done;
        job->again[job->again_count++] = rest;
    } else if (job->stopped) {
        done = size; /* what was not run never will be */
    }
    segment->settled += done - repeated;
    job->settled += done - repeated;
    if (segment->settled < segment->count || segment->is_open)
        return NULL;
    unlink_segment(job, segment);
    return segment;
}

void tide_job_stop(struct tide_job *job)
{
    job->stopped = 1;
    job->sealed = 1;
}

int tide_job_is_over(const struct tide_job *job)
{
    if (job->flying > 0 || !job->sealed)
        return 0;
    return job->stopped || (job->cutting == NULL && job->again_count == 0);
}
