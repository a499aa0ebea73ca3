/*
 * The ledger of a job against a plain model: every item is handed out, settled
 * once, and every segment comes back once, in whatever order spans are reported,
 * however far they got and whatever is repeated.
 */
#include "check.h"
#include "pool/ledger.h"

enum { SEGMENTS = 12, ITEMS = 60, FLIGHT = 24 };

struct model {
    struct tide_job job;
    struct tide_segment *segments[SEGMENTS];
    unsigned char settled[SEGMENTS][ITEMS];
    unsigned char flies[SEGMENTS][ITEMS];
    unsigned char handed_out[SEGMENTS][ITEMS]; /* at least once */
    int returned[SEGMENTS];
    struct tide_span flying[FLIGHT];
    unsigned flying_count;
    unsigned added;
    uint64_t item_count;
    uint64_t settled_count;
};

struct numbered {
    struct tide_segment part; /* first */
    unsigned number;
};

static unsigned index_of(const struct tide_segment *segment)
{
    return ((const struct numbered *)(const void *)segment)->number;
}

static void add_segment(struct model *model)
{
    struct numbered *numbered = calloc(1, sizeof *numbered);
    CHECK(numbered != NULL);
    struct tide_segment *segment = &numbered->part;
    segment->count = 1 + check_random(ITEMS);
    numbered->number = model->added;
    model->segments[model->added++] = segment;
    tide_job_add(&model->job, segment);
    CHECK(segment->base == model->item_count);
    model->item_count += segment->count;
    CHECK(model->job.added == model->item_count);
}

static uint64_t count_uncut(const struct model *model)
{
    uint64_t count = 0;
    for (unsigned s = 0; s < model->added; s++)
        for (uint32_t i = 0;
             !model->returned[s] && i < model->segments[s]->count; i++)
            count += !model->handed_out[s][i];
    return count;
}

/* Fresh items come in input order: nothing before `span` is still uncut. */
static void check_order(const struct model *model, const struct tide_span *span)
{
    unsigned s = index_of(span->segment);
    if (model->handed_out[s][span->first])
        return; /* a repeat */
    for (unsigned before = 0; before < s; before++)
        for (uint32_t i = 0;
             !model->returned[before] && i < model->segments[before]->count;
             i++)
            CHECK(model->handed_out[before][i]);
    for (uint32_t i = 0; i < span->first; i++)
        CHECK(model->handed_out[s][i]);
}

static int cut(struct model *model)
{
    struct tide_span span;
    uint32_t most = 1 + check_random(20);
    if (model->flying_count == FLIGHT ||
        !tide_job_cut(&model->job, most, &span))
        return 0;
    unsigned s = index_of(span.segment);
    CHECK(span.segment == model->segments[s] && !model->returned[s]);
    CHECK(span.first < span.last && span.last <= span.segment->count);
    CHECK(model->handed_out[s][span.first] || span.last - span.first <= most);
    check_order(model, &span);
    for (uint32_t i = span.first; i < span.last; i++) {
        CHECK(!model->flies[s][i] && !model->settled[s][i]);
        model->flies[s][i] = model->handed_out[s][i] = 1;
    }
    model->flying[model->flying_count++] = span;
    CHECK(model->job.flying == model->flying_count);
    return 1;
}

static void report(struct model *model)
{
    unsigned which = check_random(model->flying_count);
    struct tide_span span = model->flying[which];
    struct tide_segment *segment = span.segment;
    unsigned s = index_of(segment);
    uint32_t size = span.last - span.first;
    uint32_t done = check_random(3) ? size : check_random(size + 1);
    uint32_t repeats = 0;
    model->flying[which] = model->flying[--model->flying_count];
    for (uint32_t i = span.first; i < span.last; i++) {
        model->flies[s][i] = 0;
        struct tide_span again = { segment, i, i + 1 };
        int repeated = i - span.first < done && check_random(8) == 0 &&
                       tide_job_repeat(&model->job, &again) == 0;
        repeats += (uint32_t)repeated;
        CHECK(!repeated || !model->job.stopped);
        if (!repeated && (i - span.first < done || model->job.stopped)) {
            model->settled[s][i] = 1;
            model->settled_count++;
        }
    }
    uint32_t left = 0;
    for (uint32_t i = 0; i < segment->count; i++)
        left += !model->settled[s][i];
    /* More than there were counts as all. */
    uint32_t said = done == size && check_random(2) ? done + 5 : done;
    struct tide_segment *back =
        tide_job_report(&model->job, &span, said, repeats,
                        check_random(3) ? check_random(1 << 20) : 0);
    CHECK(model->job.settled == model->settled_count);
    CHECK((back != NULL) == (left == 0));
    if (back != NULL) {
        CHECK(back == segment && !model->returned[s]);
        model->returned[s] = 1;
        free(back);
    }
}

static void release(struct tide_segment *segment, void *context)
{
    struct model *model = context;
    unsigned s = index_of(segment);
    CHECK(model->segments[s] == segment && !model->returned[s]);
    model->returned[s] = 1;
    free(segment);
}

/* Run a job to its end, or to a stop, or to being dropped. */
static void run(struct model *model)
{
    unsigned segments = check_random(SEGMENTS + 1);
    uint32_t stop_at = check_random(3) ? UINT32_MAX : check_random(400);
    uint32_t drop_at = check_random(5) ? UINT32_MAX : check_random(400);
    tide_job_init(&model->job, check_random(2) ? 0 : 1 + check_random(9));
    for (uint32_t turn = 0; !tide_job_is_over(&model->job) && turn < drop_at;
         turn++) {
        CHECK(turn < 100 * 1000);
        if (turn == stop_at)
            tide_job_stop(&model->job);
        CHECK(model->job.stopped ||
              tide_job_uncut(&model->job) == count_uncut(model));
        uint32_t choice = check_random(4);
        if (choice == 0 && model->added < segments && !model->job.sealed)
            add_segment(model);
        else if (choice == 1 && model->added == segments)
            tide_job_seal(&model->job);
        else if (choice == 2 || !cut(model))
            if (model->flying_count > 0)
                report(model);
    }
    if (tide_job_is_over(&model->job)) {
        CHECK(model->flying_count == 0);
        if (!model->job.stopped)
            CHECK(model->settled_count == model->item_count &&
                  model->job.segments == NULL);
    }
    tide_job_destroy(&model->job, release, model);
    for (unsigned s = 0; s < model->added; s++)
        CHECK(model->returned[s]);
}

static void test_model(void)
{
    check_begin("model");
    for (unsigned i = 0; i < check_rounds; i++) {
        static struct model model;
        memset(&model, 0, sizeof model);
        run(&model);
    }
}

/* ---- chunks ---- */

/* A job of `count` items that has measured `items` of `each_ns`. */
static void open_measured(struct tide_job *job, struct tide_segment *segment,
                          uint32_t items, uint64_t each_ns)
{
    struct tide_span span;
    *segment = (struct tide_segment){ .count = 1000 * 1000 };
    tide_job_init(job, 0);
    tide_job_add(job, segment);
    CHECK(tide_job_cut(job, items, &span));
    CHECK(tide_job_report(job, &span, items, 0, items * each_ns) == NULL);
}

static void keep(struct tide_segment *segment, void *context)
{
    (void)segment;
    (void)context;
}

static void test_chunks(void)
{
    struct tide_job job;
    struct tide_segment segment;
    check_begin("chunks");

    tide_job_init(&job, 7);
    CHECK(tide_job_chunk(&job, 1000, 4) == 7);
    CHECK(tide_job_wants_flight(&job, 4));
    tide_job_init(&job, 0);
    CHECK(tide_job_chunk(&job, 1000, 4) == 1); /* nothing is known */

    /* About a millisecond of work, at least one item. */
    open_measured(&job, &segment, 10, 10 * 1000);
    CHECK(tide_job_chunk(&job, 1000 * 1000, 4) == 100);
    tide_job_destroy(&job, keep, NULL);
    open_measured(&job, &segment, 3, UINT64_C(20) * 1000 * 1000);
    CHECK(tide_job_chunk(&job, 1000 * 1000, 4) == 1);
    tide_job_destroy(&job, keep, NULL);

    /* No more than a share of what is left, down to one. */
    open_measured(&job, &segment, 100, 1);
    uint64_t left = 1000 * 1000;
    for (uint32_t last = UINT32_MAX; left > 0;) {
        uint32_t chunk = tide_job_chunk(&job, left, 4);
        CHECK(chunk >= 1 && chunk <= last);
        CHECK(chunk == 1 || chunk <= left / 4);
        last = chunk;
        left -= chunk < left ? chunk : left;
    }
    CHECK(tide_job_chunk(&job, 0, 4) == 1);
    CHECK(tide_job_chunk(&job, UINT64_MAX, 1) <= UINT32_MAX);
    tide_job_destroy(&job, keep, NULL);
}

/* The first item pays for decoding and compiling: it is outvoted soon. */
static void test_warm_up(void)
{
    struct tide_job job;
    struct tide_segment segment;
    struct tide_span span;
    check_begin("warm-up");
    open_measured(&job, &segment, 1, UINT64_C(5) * 1000 * 1000);
    unsigned rounds = 0;
    while (tide_job_chunk(&job, 1000 * 1000, 2) < 500) {
        uint32_t chunk = tide_job_chunk(&job, 1000 * 1000, 2);
        CHECK(++rounds < 30);
        CHECK(tide_job_cut(&job, chunk, &span));
        tide_job_report(&job, &span, chunk, 0, chunk * UINT64_C(1000));
    }
    tide_job_destroy(&job, keep, NULL);
}

static void test_flight(void)
{
    struct tide_job job;
    struct tide_segment segment = { .count = 1000 };
    struct tide_span spans[100];
    unsigned count = 0;
    check_begin("flight");
    tide_job_init(&job, 0);
    tide_job_add(&job, &segment);
    while (tide_job_wants_flight(&job, 3)) {
        CHECK(count < 100 && tide_job_cut(&job, 1, &spans[count]));
        count++;
    }
    CHECK(count >= 3 && count <= 24);
    tide_job_report(&job, &spans[--count], 1, 0, 1000);
    CHECK(tide_job_wants_flight(&job, 3));
    tide_job_destroy(&job, keep, NULL);
}

/* A segment whose items come one by one is handed back with the ledger only. */
static void test_open(void)
{
    struct tide_job job;
    struct tide_segment segment = { .count = 7 };
    struct tide_span span;
    check_begin("open segment");
    tide_job_init(&job, 1);
    tide_job_add_open(&job, &segment);
    CHECK(tide_job_uncut(&job) == 0 && !tide_job_cut(&job, 1, &span));
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t more = 1 + i % 3;
        uint32_t first = segment.count;
        for (uint32_t k = 0; k < more; k++)
            tide_job_extend(&job, &segment);
        CHECK(tide_job_uncut(&job) == more);
        for (uint32_t k = 0; k < more; k++) {
            CHECK(tide_job_cut(&job, 1, &span));
            CHECK(span.first == first + k && span.last == span.first + 1);
            CHECK(tide_job_report(&job, &span, 1, 0, 0) == NULL);
        }
        CHECK(!tide_job_cut(&job, 1, &span) && !tide_job_is_over(&job));
    }
    CHECK(job.settled == segment.count);
    tide_job_seal(&job);
    CHECK(tide_job_is_over(&job));
    tide_job_destroy(&job, keep, NULL);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 3000);
    test_model();
    test_chunks();
    test_warm_up();
    test_flight();
    test_open();
    return EXIT_SUCCESS;
}
