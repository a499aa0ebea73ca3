/*
 * Queues: what they promise to processes that are killed at every instruction of a
 * put and of a get, and to many at once.
 */
#include "check.h"
#include "share/commons_inner.h"
#include "share/queue.h"
#include "share/sync.h"
#include "step.h"

#include <sys/mman.h>

static struct tide_error err;
static unsigned char room[TIDE_QUEUE_ROOM_BYTES];

static unsigned count_live(void)
{
    unsigned count = 0;
    tide_commons_sweep();
    for (uint32_t i = 1; i < atomic_load(&tide_shared()->object_top); i++)
        count += (atomic_load(&tide_commons.objects[i].word) & 0xff) !=
                 TIDE_OBJECT_FREE;
    return count;
}

/* ---- messages: a number, and as many bytes as it says ---- */

struct letter {
    uint64_t number;
    uint64_t bytes;
    unsigned char text[1 << 17];
};

static struct letter letter;

static void write_letter(uint64_t number, uint64_t bytes)
{
    letter.number = number;
    letter.bytes = bytes;
    memset(letter.text, (int)(number & 0xff), bytes);
}

static int post(tide_handle queue, const tide_handle *held, size_t held_count)
{
    const struct tide_message message = {
        .bytes = (const unsigned char *)&letter,
        .length = offsetof(struct letter, text) + letter.bytes,
        .held = held,
        .held_count = held_count,
    };
    return tide_queue_put(queue, &message, &err);
}

static int put(tide_handle queue, uint64_t number, uint64_t bytes)
{
    write_letter(number, bytes);
    return post(queue, NULL, 0);
}

static int put_holding(tide_handle queue, uint64_t number, uint64_t bytes,
                       const tide_handle *held, size_t held_count)
{
    write_letter(number, bytes);
    return post(queue, held, held_count);
}

/* The next number, 0 if there is none; the bytes behind it are looked at. */
static uint64_t get(tide_handle queue)
{
    struct tide_queue_item item;
    uint64_t head[2];
    int status = tide_queue_get(&item, queue, room);
    if (status != TIDE_OK) {
        CHECK(status == TIDE_EAGAIN || status == TIDE_ECLOSED);
        return 0;
    }
    memcpy(head, item.bytes, sizeof head);
    CHECK(item.length == sizeof head + head[1]);
    for (uint64_t i = 0; i < head[1]; i++)
        CHECK(item.bytes[sizeof head + i] == (head[0] & 0xff));
    tide_queue_put_away(queue, &item);
    return head[0];
}

static tide_handle make(uint64_t capacity)
{
    tide_handle queue;
    CHECK(tide_queue_make(&queue, capacity, &err) == TIDE_OK);
    return queue;
}

static uint64_t some_bytes(void)
{
    switch (check_random(20)) {
    case 0:
        return check_random(1 << 17);
    case 1:
        return check_random(3000);
    default:
        return check_random(100);
    }
}

/* ---- one process ---- */

static void test_order(void)
{
    check_begin("order");
    tide_handle queue = make(0);
    uint64_t in = 0, out = 0;
    for (unsigned i = 0; i < 20000; i++) {
        if (check_random(100) < (i / 2000 % 2 ? 40 : 60)) {
            CHECK(put(queue, ++in, some_bytes()) == TIDE_OK);
        } else {
            uint64_t got = get(queue);
            CHECK(got == (out < in ? ++out : 0));
        }
        CHECK(tide_queue_size(queue) == in - out);
    }
    tide_object_drop(queue);
    CHECK(count_live() == 0);
}

static void test_capacity(void)
{
    check_begin("capacity");
    tide_handle queue = make(3);
    uint64_t in = 0, out = 0;
    for (unsigned i = 0; i < 5000; i++) {
        if (check_random(2) == 0) {
            int status = put(queue, in + 1, some_bytes());
            CHECK(status == (in - out < 3 ? TIDE_OK : TIDE_EAGAIN));
            in += status == TIDE_OK;
        } else {
            CHECK(get(queue) == (out < in ? ++out : 0));
        }
    }
    tide_queue_close(queue);
    CHECK(put(queue, 1, 0) == TIDE_ECLOSED);
    while (out < in)
        CHECK(get(queue) == ++out);
    struct tide_queue_item item;
    CHECK(tide_queue_get(&item, queue, room) == TIDE_ECLOSED);
    tide_object_drop(queue);
    CHECK(count_live() == 0);
}

static void test_done(void)
{
    check_begin("done");
    tide_handle queue = make(0);
    CHECK(tide_queue_done(queue) == -1);
    struct tide_wait wait = { .object = queue, .deadline_ns = 1 };
    CHECK(tide_queue_wait_for_done(&wait) == TIDE_OK);
    put(queue, 1, 0);
    CHECK(tide_queue_done(queue) == -1);
    wait = (struct tide_wait){ .object = queue, .deadline_ns = 1 };
    CHECK(tide_queue_wait_for_done(&wait) == TIDE_ETIMEOUT);
    CHECK(get(queue) == 1 && tide_queue_done(queue) == 0);
    wait = (struct tide_wait){ .object = queue, .deadline_ns = 1 };
    CHECK(tide_queue_wait_for_done(&wait) == TIDE_OK);
    tide_object_drop(queue);
    CHECK(count_live() == 0);
}

/* What a message names lives as long as it is queued. */
static void test_held(void)
{
    check_begin("held");
    tide_handle queue = make(0), others[4];
    for (int i = 0; i < 4; i++)
        CHECK(tide_object_make(&others[i], TIDE_SHARED_ARRAY, 64, NULL, NULL,
                               &err) == TIDE_OK);
    put_holding(queue, 1, 10, others, 2);
    put_holding(queue, 2, 5000, others + 1, 3);
    for (int i = 0; i < 4; i++)
        tide_object_drop(others[i]);
    CHECK(count_live() == 5);
    CHECK(get(queue) == 1 && count_live() == 4);
    CHECK(get(queue) == 2 && count_live() == 1);
    CHECK(tide_object_make(&others[0], TIDE_SHARED_ARRAY, 64, NULL, NULL,
                           &err) == TIDE_OK);
    put_holding(queue, 3, 0, others, 1);
    tide_object_drop(others[0]);
    CHECK(count_live() == 2);
    tide_object_drop(queue); /* and what is in it */
    CHECK(count_live() == 0);
}

/* ---- a kill at every instruction ---- */

struct plan {
    tide_handle queue;
    tide_handle held;
    uint64_t bytes;
};

/* Functions are bound and pages there. */
static void warm_up(const struct plan *plan)
{
    tide_handle queue = make(0);
    put_holding(queue, 7, plan->bytes, &plan->held,
                plan->bytes > TIDE_QUEUE_ROOM_BYTES);
    put(queue, 8, 0);
    CHECK(get(queue) == 7);
    tide_object_drop(queue);
}

static void child_puts(void *context)
{
    const struct plan *plan = context;
    CHECK(tide_object_hold(plan->queue, TIDE_SHARED_QUEUE, &err) == TIDE_OK);
    CHECK(tide_object_hold(plan->held, TIDE_SHARED_NONE, &err) == TIDE_OK);
    warm_up(plan);
    write_letter(99, plan->bytes);
    step_mark();
    post(plan->queue, &plan->held, plan->bytes > TIDE_QUEUE_ROOM_BYTES);
    step_mark();
}

static void child_gets(void *context)
{
    const struct plan *plan = context;
    struct tide_queue_item item;
    CHECK(tide_object_hold(plan->queue, TIDE_SHARED_QUEUE, &err) == TIDE_OK);
    CHECK(tide_object_hold(plan->held, TIDE_SHARED_NONE, &err) == TIDE_OK);
    warm_up(plan);
    step_mark();
    tide_queue_get(&item, plan->queue, room);
    tide_queue_put_away(plan->queue, &item);
    step_mark();
}

/* Use up what was freed, so that who still looks at it finds nothing it knows. */
static void scribble(tide_handle queue)
{
    uint64_t blocks[20];
    for (int i = 0; i < 20; i++) {
        blocks[i] = tide_share_alloc(queue, i % 2 ? 65536 : 4096);
        memset(tide_commons_at(blocks[i]), 0xff, i % 2 ? 65536 : 4096);
    }
    for (int i = 0; i < 20; i++)
        tide_share_free(blocks[i]);
}

/*
 * The queue works for who is left: what is in it comes, perhaps 99, then 1000, then
 * nothing. Either the next one to put comes first, or the next to get.
 */
static void check_usable(tide_handle queue, uint64_t first, uint64_t last)
{
    int gets_first = (int)check_random(2);
    if (!gets_first)
        CHECK(put(queue, 1000, 70) == TIDE_OK);
    uint64_t got = get(queue);
    CHECK(got == first || got == first + 1);
    while (got < last)
        CHECK(get(queue) == ++got);
    got = get(queue);
    if (got == 99)
        got = get(queue);
    if (gets_first) {
        CHECK(got == 0);
        scribble(queue);
        CHECK(put(queue, 1000, 70) == TIDE_OK);
        got = get(queue);
    }
    CHECK(got == 1000 && get(queue) == 0 && tide_queue_size(queue) == 0);
    CHECK(put(queue, 5, 3000) == TIDE_OK && get(queue) == 5);
}

static void kill_everywhere(const char *name, void (*child)(void *),
                            uint64_t bytes, unsigned full)
{
    unsigned steps = 0, is_large = bytes > TIDE_QUEUE_ROOM_BYTES;
    int alive = 1;
    check_begin(name);
    while (alive) {
        struct plan plan = { .queue = make(0), .bytes = bytes };
        CHECK(tide_object_make(&plan.held, TIDE_SHARED_ARRAY, 64, NULL, NULL,
                               &err) == TIDE_OK);
        for (uint64_t i = 1; i <= 3; i++)
            put(plan.queue, i, i == 1 ? bytes : 0);
        for (unsigned i = 0; i < full; i++)
            put(plan.queue, 3 + i + 1, 1000);
        alive = step_and_kill(child, &plan, steps);
        check_usable(plan.queue, 1, 3 + full);
        tide_object_drop(plan.held);
        tide_object_drop(plan.queue);
        /* A kill while the objects of a message are counted may leave one. */
        unsigned left = count_live();
        CHECK(left == 0 || (bytes > TIDE_QUEUE_ROOM_BYTES && left == 1));
        for (uint32_t i = 1; left > 0 && i < tide_commons.object_count; i++) {
            struct tide_object *object = &tide_commons.objects[i];
            if ((atomic_load(&object->word) & 0xff) != TIDE_OBJECT_LIVE)
                continue;
            tide_object_unrefer((atomic_load(&object->word) << 24 &
                                 UINT64_C(0xffffffff00000000)) |
                                i);
            left--;
        }
        CHECK(count_live() == 0);
        steps += step_stride(40) * (is_large ? 20U : 1U);
    }
    printf("  %s: %u instructions\n", name, steps);
}

static void test_kills(void)
{
    kill_everywhere("put, a small one", child_puts, 40, 0);
    kill_everywhere("put, a load", child_puts, 2100, 0);
    kill_everywhere("put, a new segment", child_puts, 1000, 2);
    kill_everywhere("get, a small one", child_gets, 40, 0);
    kill_everywhere("get, a load", child_gets, 2100, 0);
}

/* ---- many ---- */

enum { SIDES = 3, ITEMS = 20000 };

struct ledger {
    _Atomic uint32_t seen[SIDES][ITEMS + 1];
    _Atomic uint64_t got;
};

static struct ledger *ledger;

static void await(int (*wait_for)(struct tide_wait *), tide_handle queue)
{
    struct tide_wait wait = { .object = queue,
                              .deadline_ns = TIDE_FOREVER,
                              .own_holds = 1 };
    int status;
    do
        status = wait_for(&wait);
    while (status == TIDE_EAGAIN);
    CHECK(status == TIDE_OK);
}

static void produce(tide_handle queue, uint64_t side)
{
    for (uint64_t i = 1; i <= ITEMS; i++)
        while (put(queue, side << 32 | i, i % 1000 == 0 ? 3000 : i % 60) ==
               TIDE_EAGAIN)
            await(tide_queue_wait_for_room, queue);
}

static void consume(tide_handle queue)
{
    uint64_t last[SIDES] = { 0 };
    for (;;) {
        uint64_t got = get(queue);
        if (got == 0) {
            if (tide_queue_is_closed(queue) && tide_queue_size(queue) == 0)
                return;
            await(tide_queue_wait_for_item, queue);
            continue;
        }
        uint32_t side = (uint32_t)(got >> 32), number = (uint32_t)got;
        CHECK(number > last[side]); /* of each in order */
        last[side] = number;
        atomic_fetch_add(&ledger->seen[side][number], 1);
        atomic_fetch_add(&ledger->got, 1);
    }
}

static pid_t start(tide_handle queue, int side)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(tide_object_hold(queue, TIDE_SHARED_QUEUE, &err) == TIDE_OK);
        if (side >= 0)
            produce(queue, (uint64_t)side);
        else
            consume(queue);
        _exit(EXIT_SUCCESS);
    }
    return pid;
}

static void finish(pid_t pid, int killed)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

static void test_many(uint64_t capacity, int kills)
{
    pid_t producers[SIDES], consumers[SIDES];
    check_begin(kills ? "many, some killed" : "many");
    memset(ledger, 0, sizeof *ledger);
    tide_handle queue = make(capacity);
    for (int i = 0; i < SIDES; i++) {
        producers[i] = start(queue, i);
        consumers[i] = start(queue, -1);
    }
    for (int i = 0; i < (kills ? 30 : 0); i++) {
        check_spin(check_random(2000 * 1000));
        int victim = (int)check_random(SIDES);
        kill(consumers[victim], SIGKILL);
        finish(consumers[victim], 1);
        consumers[victim] = start(queue, -1);
    }
    if (kills)
        kill(producers[0], SIGKILL);
    for (int i = 0; i < SIDES; i++)
        finish(producers[i], kills);
    tide_queue_close(queue);
    for (int i = 0; i < SIDES; i++)
        finish(consumers[i], 0);
    uint64_t got = 0;
    for (int side = kills ? 1 : 0; side < SIDES; side++)
        for (uint32_t i = 1; i <= ITEMS; i++) {
            CHECK(atomic_load(&ledger->seen[side][i]) <= 1);
            got += atomic_load(&ledger->seen[side][i]);
        }
    CHECK(kills ? got + 40 >= (SIDES - 1) * ITEMS : got == SIDES * ITEMS);
    tide_object_drop(queue);
    CHECK(count_live() == 0);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 1);
    CHECK(tide_commons_open(&err) == TIDE_OK);
    tide_queue_define();
    tide_sync_define();
    ledger = mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(ledger != MAP_FAILED);
    for (unsigned i = 0; i < check_rounds; i++) {
        test_order();
        test_capacity();
        test_done();
        test_held();
        test_many(0, 0);
        test_many(5, 0);
        test_many(0, 1);
        test_many(5, 1);
        test_kills();
    }
    return EXIT_SUCCESS;
}
