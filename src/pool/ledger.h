/**
 * @file ledger.h
 * @brief What a job is: items, the chunks they go out in, what has come back.
 *
 * A ledger knows nothing of slots, workers or bytes: an engine takes spans of
 * items from it and reports what became of them. All indices of items are
 * 0-based; those in a span are relative to its segment.
 *
 *   job      [ segment 0 | segment 1 | ... ]       in input order
 *   segment  items that were encoded together, sent in one or more spans
 *   span     items [first, last) of a segment, with a worker or about to be
 */
#ifndef TIDE_POOL_LEDGER_H
#define TIDE_POOL_LEDGER_H

#include <stddef.h>
#include <stdint.h>

struct tide_segment {
    struct tide_segment *next;
    uint64_t base;    /* index in the job of its first item */
    uint32_t count;   /* items in it */
    uint32_t cut;     /* items handed out for the first time */
    uint32_t settled; /* items that have reached their final state */
    int is_open; /* items may be added; it is handed back with the ledger only */
};

struct tide_span {
    struct tide_segment *segment;
    uint32_t first;
    uint32_t last;
};

struct tide_job {
    uint64_t added;       /* items in all segments so far */
    uint64_t settled;     /* items that have reached their final state */
    uint32_t flying;      /* spans handed out and not yet reported */
    uint32_t fixed_chunk; /* items per span; 0: adaptive */
    int sealed;           /* no segment will be added */
    int stopped;          /* nothing more is handed out */
    double sample_ns;     /* recent work, older work counting less and less */
    double sample_items;
    struct tide_segment *segments; /* not yet settled, oldest first */
    struct tide_segment **segments_tail;
    struct tide_segment *cutting; /* the first with items not handed out */
    struct tide_span *again;      /* spans to be handed out once more */
    size_t again_count;
    size_t again_capacity;
    struct tide_span first_again; /* a job of one span needs no more room */
};

/** @param fixed_chunk  items per span, 0 for adaptive */
void tide_job_init(struct tide_job *job, uint32_t fixed_chunk);

/** Free the ledger's memory; its counts stay. @param release  for each segment left */
void tide_job_destroy(struct tide_job *job,
                      void (*release)(struct tide_segment *, void *),
                      void *context);

/** Append a segment, which the ledger owns until it hands it back. */
void tide_job_add(struct tide_job *job, struct tide_segment *segment);

/** Append a segment without items, the last one: they are added one by one. */
void tide_job_add_open(struct tide_job *job, struct tide_segment *segment);

/** One more item in an open segment. */
void tide_job_extend(struct tide_job *job, struct tide_segment *segment);

/** No more segments or items will come. */
void tide_job_seal(struct tide_job *job);

/**
 * How many items a span should have now.
 *
 * Adaptive: TIDE_CHUNK_NS of work as measured, but no more than an even share of
 * what is left (so that the last chunks are small), a single item while nothing
 * has been measured.
 *
 * @param left     items that are left to be handed out
 * @param workers  that share the work
 */
uint32_t tide_job_chunk(const struct tide_job *job, uint64_t left,
                        uint32_t workers);

/** How many items make TIDE_CHUNK_NS of work; 1 while nothing was measured. */
uint32_t tide_job_chunk_ideal(const struct tide_job *job);

/** May one more span go out, or would it only lengthen the queue? */
int tide_job_wants_flight(const struct tide_job *job, uint32_t workers);

/** Items added and not yet handed out, spans to be repeated not counted. */
uint64_t tide_job_uncut(const struct tide_job *job);

/**
 * The next span of at most `count` items; spans to be repeated come first.
 *
 * @return 1; 0 if there is none now (or no memory: with nothing flying and the
 *         job not over it will get none)
 */
int tide_job_cut(struct tide_job *job, uint32_t count, struct tide_span *out);

/**
 * A part of a flying span is to be run once more. Call it before the report of the
 * span, which is told how many items were repeated so.
 *
 * @return 0; -1 if the job is stopped or without memory: then its items have to be
 *         settled
 */
int tide_job_repeat(struct tide_job *job, const struct tide_span *span);

/**
 * Report a span: `done` of its items, from the first on, have reached their final
 * state, but for `repeated` of them, after `elapsed_ns` of work. The others are
 * handed out again, or dropped if the job is stopped.
 *
 * @return the segment if nothing of it is left: it is the caller's again; else
 *         NULL
 */
struct tide_segment *tide_job_report(struct tide_job *job,
                                     const struct tide_span *span,
                                     uint32_t done, uint32_t repeated,
                                     uint64_t elapsed_ns);

/** What an item has taken lately, in nanoseconds; 0 if nothing was measured. */
double tide_job_mean_ns(const struct tide_job *job);

/** Hand out nothing more. */
void tide_job_stop(struct tide_job *job);

/** Has the job reached its end: nothing flying, nothing to be handed out? */
int tide_job_is_over(const struct tide_job *job);

#endif
