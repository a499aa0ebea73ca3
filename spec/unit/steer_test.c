/*
 * Work that is taken back, cut off, timed, or meant for one worker: each request
 * has exactly one end, whatever it races with.
 */
#include "crew.h"
#include "shm/board_inner.h"

enum { TAGS = 1 << 16 };

static unsigned char state_of[TAGS]; /* by tag */
enum { UNKNOWN, SENT, REVOKED, RECEIVED };

static uint32_t send_one(struct tide_pool *pool, enum crew_task task,
                         struct crew_args args, uint64_t tag)
{
    struct tide_request request = { .flags = task,
                                    .count = 3,
                                    .length = sizeof args };
    uint32_t slot = UINT32_MAX;
    memcpy(request.args.bytes, &args, sizeof args);
    CHECK(tide_pool_submit(&slot, pool, &request, tag) == TIDE_OK);
    CHECK(slot < pool->board.slot_count);
    return slot;
}

static uint64_t new_word(struct tide_pool *pool)
{
    uint64_t offset = tide_pool_alloc(pool, sizeof(uint64_t));
    CHECK(offset != 0);
    memset(tide_pool_at(pool, offset), 0, sizeof(uint64_t));
    return offset;
}

static _Atomic uint64_t *word_at(struct tide_pool *pool, uint64_t offset)
{
    return (void *)tide_pool_at(pool, offset);
}

/* ---- revoke ---- */

static void take_back(struct tide_pool *pool, uint32_t slot, uint64_t tag)
{
    uint32_t before = tide_pool_in_flight(pool);
    if (tide_pool_revoke(pool, slot) != TIDE_OK)
        return;
    CHECK(state_of[tag] == SENT);
    state_of[tag] = REVOKED;
    CHECK(tide_pool_in_flight(pool) == before - 1);
    CHECK(tide_pool_revoke(pool, slot) == TIDE_EAGAIN);
}

static uint32_t receive_some(struct tide_pool *pool)
{
    struct tide_outcome outcome;
    uint32_t count = 0;
    while (tide_pool_receive(pool, &outcome) == TIDE_OK) {
        CHECK(outcome.tag < TAGS && state_of[outcome.tag] == SENT);
        state_of[outcome.tag] = RECEIVED;
        uint32_t reached = crew_check(&outcome);
        CHECK(outcome.lost || reached == 3);
        tide_pool_release(pool, &outcome);
        count++;
    }
    return count;
}

static void revoke_burst(struct tide_pool *pool, uint64_t *tag)
{
    uint32_t slots[64];
    uint64_t first = *tag;
    uint32_t count = 0;
    uint32_t burst = 1 + check_random(40);
    while (count < burst && *tag < TAGS && tide_pool_has_slot(pool)) {
        state_of[*tag] = SENT;
        slots[count++] =
            send_one(pool, CREW_COUNT, (struct crew_args){ *tag, 0 }, *tag);
        ++*tag;
        if (check_random(3) == 0)
            tide_pool_kick(pool, 1);
    }
    tide_pool_kick(pool, count);
    check_spin(check_random(3) ? 0 : check_random(20 * 1000));
    for (uint32_t i = 0; i < count; i++)
        if (check_random(2))
            take_back(pool, slots[i], first + i);
}

static void test_revoke_race(void)
{
    struct tide_host host;
    unsigned counts[4] = { 0 };
    check_begin("revoke race");
    crew_start_host(&host);
    for (unsigned i = 0; i < check_rounds; i++) {
        struct crew_config deadly = { .life_ns = 400 * 1000,
                                      .seed = check_random64() };
        struct tide_pool *pool =
            crew_open(&host, 1 + check_random(3), 1u << (1 + check_random(6)),
                      check_random(4) ? NULL : &deadly);
        uint64_t tag = 0;
        alarm(CHECK_WATCHDOG_S);
        memset(state_of, UNKNOWN, sizeof state_of);
        pool->board.shared->cpu_count = check_random(2) ? 1 : 64;
        while (tag < 2000) {
            revoke_burst(pool, &tag);
            receive_some(pool);
        }
        while (tide_pool_in_flight(pool) > 0) {
            CHECK(tide_pool_wait(pool, 1, crew_deadline()) == TIDE_OK);
            receive_some(pool);
        }
        for (uint64_t j = 0; j < tag; j++) {
            CHECK(state_of[j] == REVOKED || state_of[j] == RECEIVED);
            counts[state_of[j]]++;
        }
        tide_pool_free(pool);
    }
    printf("revoked: %u of %u\n", counts[REVOKED],
           counts[REVOKED] + counts[RECEIVED]);
    tide_host_stop(&host);
}

/* Revoking for ever, with work that waits at the head: the ring has room, and
 * what waits keeps its order. */
static void test_revoke_ring(void)
{
    struct tide_host host;
    struct tide_outcome outcome;
    check_begin("revoke ring");
    crew_start_host(&host);
    for (uint32_t slots = 4; slots <= 64; slots *= 4) {
        struct tide_pool *pool = crew_open(&host, 1, slots, NULL);
        struct crew_args gate = { new_word(pool), new_word(pool) };
        send_one(pool, CREW_GATE, gate, 1000);
        tide_pool_kick(pool, 1);
        CHECK_SOON(atomic_load(word_at(pool, gate.begun)) == 1);
        for (uint64_t i = 0; i < slots / 2; i++) {
            send_one(pool, CREW_COUNT, (struct crew_args){ i, 0 }, i);
            for (uint32_t j = 0; j < 10 * slots; j++) {
                uint32_t kept = send_one(pool, CREW_COUNT,
                                         (struct crew_args){ 7, 0 }, 2000);
                CHECK(tide_pool_revoke(pool, kept) == TIDE_OK);
            }
        }
        atomic_store(word_at(pool, gate.number), 1);
        crew_receive(pool, &outcome);
        CHECK(outcome.tag == 1000);
        tide_pool_release(pool, &outcome);
        for (uint64_t i = 0; i < slots / 2; i++) {
            crew_receive(pool, &outcome);
            CHECK(outcome.tag == i);
            tide_pool_release(pool, &outcome);
        }
        CHECK(tide_pool_in_flight(pool) == 0);
        tide_pool_free(pool);
    }
    tide_host_stop(&host);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 24);
    test_revoke_race();
    test_revoke_ring();
    CHECK(!crew_has_children());
    return EXIT_SUCCESS;
}
