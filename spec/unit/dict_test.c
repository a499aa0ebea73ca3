/*
 * Dictionaries: against a model, through growth, with many processes, and with a kill
 * at every instruction of a change.
 */
#include "check.h"
#include "share/commons_inner.h"
#include "share/dict_inner.h"
#include "share/sync.h"
#include "step.h"

enum { KEYS = 3000, VALUE_MAX = 400 };

static struct tide_error err;
static unsigned char room[4096];

static unsigned count_live(void)
{
    unsigned count = 0;
    tide_commons_sweep();
    for (uint32_t i = 1; i < atomic_load(&tide_shared()->object_top); i++)
        count += (atomic_load(&tide_commons.objects[i].word) & 0xff) !=
                 TIDE_OBJECT_FREE;
    return count;
}

static tide_handle make(void)
{
    tide_handle dict;
    CHECK(tide_dict_make(&dict, &err) == TIDE_OK);
    return dict;
}

/* ---- keys are numbers, values so many bytes of one letter ---- */

static struct tide_dict_key key_of(const uint64_t *number)
{
    return tide_dict_key_of(number, sizeof *number);
}

static int set(tide_handle dict, uint64_t number, unsigned length)
{
    unsigned char value[VALUE_MAX];
    struct tide_dict_key key = key_of(&number);
    const struct tide_message message = { .bytes = value, .length = length };
    memset(value, 'a' + (int)(length % 26), length);
    return tide_dict_set(dict, &key, length > 0 ? &message : NULL);
}

static unsigned length_of(const struct tide_dict_copy *copy)
{
    unsigned length = (unsigned)copy->message.length;
    for (unsigned i = 0; i < length; i++)
        CHECK(copy->message.bytes[i] == 'a' + length % 26);
    return length;
}

/* 0 if there is none. */
static unsigned get(tide_handle dict, uint64_t number)
{
    struct tide_dict_key key = key_of(&number);
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    int status = tide_dict_get(dict, &key, &copy);
    CHECK(status == TIDE_OK || status == TIDE_EAGAIN);
    return status == TIDE_OK ? length_of(&copy) : 0;
}

/* Each key once, with its value: as the model says. */
static void check_walk(tide_handle dict, const unsigned *model)
{
    static unsigned char seen[KEYS];
    struct tide_dict_place place = { 0 };
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    struct tide_dict_key after;
    uint64_t number, count = 0;
    int status;
    memset(seen, 0, sizeof seen);
    while ((status = tide_dict_next(dict, &place, count > 0 ? &after : NULL,
                                    &copy)) == TIDE_OK) {
        CHECK(copy.key_length == sizeof number);
        memcpy(&number, copy.key, sizeof number);
        CHECK(number < KEYS && !seen[number]++);
        CHECK(length_of(&copy) == model[number]);
        after = key_of(&number);
        count++;
    }
    CHECK(status == TIDE_EAGAIN && count == tide_dict_count(dict));
    for (unsigned i = 0; i < KEYS; i++)
        CHECK(seen[i] == (model[i] > 0));
}

static void test_model(void)
{
    static unsigned model[KEYS];
    check_begin("model");
    memset(model, 0, sizeof model);
    tide_handle dict = make();
    for (unsigned i = 0; i < 60000; i++) {
        uint64_t number = check_random(i < 30000 ? KEYS : 300);
        if (check_random(3) == 0) {
            CHECK(get(dict, number) == model[number]);
            continue;
        }
        unsigned length = check_random(3) == 0   ? 0
                          : check_random(2) == 0 ? check_random(30)
                                                 : check_random(VALUE_MAX);
        CHECK(set(dict, number, length) == TIDE_OK);
        model[number] = length;
        if (i % 10000 == 0)
            check_walk(dict, model);
    }
    check_walk(dict, model);
    for (unsigned i = 0; i < KEYS; i++)
        set(dict, i, 0);
    CHECK(tide_dict_count(dict) == 0);
    tide_object_drop(dict);
    CHECK(count_live() == 0);
}

/* Keys of one hash: they differ in their bytes. */
static void test_collisions(void)
{
    check_begin("collisions");
    tide_handle dict = make();
    unsigned char found[8] = { 0 };
    for (unsigned char i = 0; i < 8; i++) {
        const struct tide_dict_key key = { &i, 1, 42 };
        const struct tide_message message = { .bytes = &i, .length = 1 };
        CHECK(tide_dict_set(dict, &key, &message) == TIDE_OK);
    }
    struct tide_dict_place place = { 0 };
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    struct tide_dict_key after;
    unsigned count = 0;
    unsigned char last;
    while (tide_dict_next(dict, &place, count > 0 ? &after : NULL, &copy) ==
           TIDE_OK) {
        last = copy.key[0];
        CHECK(last < 8 && !found[last]++ && copy.message.bytes[0] == last);
        after = (struct tide_dict_key){ &last, 1, 42 };
        if (last == 3) /* what was given last may go */
            CHECK(tide_dict_set(dict, &after, NULL) == TIDE_OK);
        count++;
    }
    CHECK(count == 8 && tide_dict_count(dict) == 7);
    tide_object_drop(dict);
}

static void test_held(void)
{
    tide_handle dict = make(), other;
    uint64_t number = 7;
    struct tide_dict_key key = key_of(&number);
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    check_begin("held");
    CHECK(tide_object_make(&other, TIDE_SHARED_ARRAY, 64, NULL, NULL, &err) ==
          TIDE_OK);
    const struct tide_message message = {
        .bytes = (const void *)"x", .length = 1, .held = &other, .held_count = 1
    };
    CHECK(tide_dict_set(dict, &key, &message) == TIDE_OK);
    tide_object_drop(other);
    CHECK(count_live() == 2);
    CHECK(tide_dict_get(dict, &key, &copy) == TIDE_OK);
    CHECK(copy.message.held_count == 1 && copy.message.held[0] == other);
    CHECK(tide_object_holds(other) == 1);
    CHECK(set(dict, 7, 0) == TIDE_OK && count_live() == 2);
    tide_object_drop(other);
    CHECK(count_live() == 1);
    copy.room_bytes = 3;
    set(dict, 7, 100);
    CHECK(tide_dict_get(dict, &key, &copy) == TIDE_ENOMEM);
    CHECK(copy.needed == 100);
    tide_object_drop(dict);
    CHECK(count_live() == 0);
}

static void test_updates(void)
{
    tide_handle dict = make();
    uint64_t number = 7;
    struct tide_dict_key key = key_of(&number);
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    int has_value;
    check_begin("updates");
    CHECK(tide_dict_begin(dict, &key, &copy, &has_value) == TIDE_OK);
    CHECK(!has_value && get(dict, 7) == 0 && tide_dict_count(dict) == 0);
    CHECK(tide_dict_begin(dict, &key, &copy, &has_value) == TIDE_EINVAL);
    CHECK(set(dict, 7, 5) == TIDE_OK && get(dict, 7) == 5);
    tide_dict_abort(dict, &key);
    CHECK(get(dict, 7) == 5 && tide_dict_count(dict) == 1);
    CHECK(tide_dict_begin(dict, &key, &copy, &has_value) == TIDE_OK);
    CHECK(has_value && length_of(&copy) == 5);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(tide_object_hold(dict, TIDE_SHARED_DICT, &err) == TIDE_OK);
        CHECK(get(dict, 7) == 5 && set(dict, 7, 9) == TIDE_EAGAIN);
        CHECK(tide_dict_begin(dict, &key, &copy, &has_value) == TIDE_EAGAIN);
        _exit(EXIT_SUCCESS);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(tide_dict_commit(dict, &key, NULL) == TIDE_OK);
    CHECK(get(dict, 7) == 0 && tide_dict_count(dict) == 0);
    pid = fork(); /* one that dies with a key in its hand */
    if (pid == 0) {
        CHECK(tide_object_hold(dict, TIDE_SHARED_DICT, &err) == TIDE_OK);
        CHECK(tide_dict_begin(dict, &key, &copy, &has_value) == TIDE_OK);
        raise(SIGKILL);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(set(dict, 7, 9) == TIDE_OK && get(dict, 7) == 9);
    tide_object_drop(dict);
    CHECK(count_live() == 0);
}

/* ---- a kill at every instruction ---- */

struct plan {
    tide_handle dict;
    unsigned from, to; /* lengths of the value before and after */
    int updates;
};

static void change(const struct plan *plan)
{
    uint64_t number = 7;
    struct tide_dict_key key = key_of(&number);
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    int has_value;
    if (!plan->updates) {
        set(plan->dict, number, plan->to);
        return;
    }
    unsigned char value[VALUE_MAX];
    const struct tide_message message = { .bytes = value, .length = plan->to };
    memset(value, 'a' + (int)(plan->to % 26), plan->to);
    tide_dict_begin(plan->dict, &key, &copy, &has_value);
    tide_dict_commit(plan->dict, &key, plan->to > 0 ? &message : NULL);
}

static void child_changes(void *context)
{
    struct plan *plan = context, warm = *plan;
    CHECK(tide_object_hold(plan->dict, TIDE_SHARED_DICT, &err) == TIDE_OK);
    warm.dict = make();
    set(warm.dict, 7, plan->from);
    change(&warm);
    step_mark();
    change(plan);
    step_mark();
}

static void kill_everywhere(const char *name, unsigned from, unsigned to,
                            int updates)
{
    unsigned steps = 0;
    int alive = 1;
    check_begin(name);
    while (alive) {
        struct plan plan = { make(), from, to, updates };
        for (uint64_t i = 0; i < 40; i++)
            set(plan.dict, i, i == 7 ? from : 3);
        alive = step_and_kill(child_changes, &plan, steps);
        unsigned length = get(plan.dict, 7);
        CHECK(length == from || length == to);
        for (uint64_t i = 0; i < 100; i++) {
            if (i != 7)
                CHECK(get(plan.dict, i) == (i < 40 ? 3 : 0));
            CHECK(set(plan.dict, i, 30) == TIDE_OK && get(plan.dict, i) == 30);
        }
        CHECK(tide_dict_count(plan.dict) == 100);
        tide_object_drop(plan.dict);
        CHECK(count_live() == 0);
        steps += step_stride(40);
    }
    printf("  %s: %u instructions\n", name, steps);
}

static void test_kills(void)
{
    for (int updates = 0; updates <= 1; updates++) {
        kill_everywhere("a new key", 0, 10, updates);
        kill_everywhere("a small value", 10, 11, updates);
        kill_everywhere("a larger value", 100, 120, updates);
        kill_everywhere("from a cell to a load", 10, 100, updates);
        kill_everywhere("no value", 100, 0, updates);
    }
}

/* ---- many ---- */

enum { WRITERS = 3, ROUNDS = 3000 };

static void begin_update(tide_handle dict, const struct tide_dict_key *key,
                         struct tide_dict_copy *copy, int *has_value)
{
    struct tide_wait wait = { .object = dict,
                              .deadline_ns = TIDE_FOREVER,
                              .own_holds = 1 };
    int status;
    while ((status = tide_dict_begin(dict, key, copy, has_value)) ==
           TIDE_EAGAIN) {
        int waited = tide_dict_wait(&wait);
        CHECK(waited == TIDE_OK || waited == TIDE_EAGAIN);
    }
    tide_wait_end(&wait);
    CHECK(status == TIDE_OK);
}

/* Count to the end in a few keys that all count in. */
static void count_up(tide_handle dict, unsigned rounds)
{
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t number = i % 3, value = 0;
        struct tide_dict_key key = key_of(&number);
        int has_value;
        begin_update(dict, &key, &copy, &has_value);
        if (has_value)
            memcpy(&value, copy.message.bytes, sizeof value);
        value++;
        const struct tide_message message = { .bytes = (void *)&value,
                                              .length = sizeof value };
        CHECK(tide_dict_commit(dict, &key, &message) == TIDE_OK);
        set(dict, 1000 + check_random(2000), check_random(60)); /* growth */
        get(dict, 1000 + check_random(2000));
    }
}

static pid_t start(tide_handle dict, unsigned rounds)
{
    uint64_t seed = check_random64();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        check_reseed(seed);
        CHECK(tide_object_hold(dict, TIDE_SHARED_DICT, &err) == TIDE_OK);
        count_up(dict, rounds);
        _exit(EXIT_SUCCESS);
    }
    return pid;
}

static void test_many(void)
{
    pid_t pids[WRITERS], victim;
    int status;
    uint64_t sum = 0;
    check_begin("many");
    tide_handle dict = make();
    for (int i = 0; i < WRITERS; i++)
        pids[i] = start(dict, ROUNDS);
    for (int i = 0; i < 30; i++) { /* some get killed: each adds what it adds */
        victim = start(dict, 1000 * 1000);
        check_spin(check_random(3000 * 1000));
        kill(victim, SIGKILL);
        CHECK(waitpid(victim, &status, 0) == victim && WIFSIGNALED(status));
    }
    for (int i = 0; i < WRITERS; i++) {
        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (uint64_t number = 0; number < 3; number++) {
        struct tide_dict_key key = key_of(&number);
        struct tide_dict_copy copy = { .room = room,
                                       .room_bytes = sizeof room };
        uint64_t value;
        CHECK(tide_dict_get(dict, &key, &copy) == TIDE_OK);
        memcpy(&value, copy.message.bytes, sizeof value);
        sum += value;
    }
    CHECK(sum >= WRITERS * ROUNDS);
    struct tide_dict_place place = { 0 };
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    struct tide_dict_key after;
    uint64_t count = 0, number;
    while (tide_dict_next(dict, &place, count > 0 ? &after : NULL, &copy) ==
           TIDE_OK) {
        memcpy(&number, copy.key, sizeof number);
        if (number > 2)
            length_of(&copy);
        after = key_of(&number);
        count++;
    }
    CHECK(count == tide_dict_count(dict));
    tide_object_drop(dict);
    CHECK(count_live() == 0);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 1);
    CHECK(tide_commons_open(&err) == TIDE_OK);
    tide_dict_define();
    tide_sync_define();
    for (unsigned i = 0; i < check_rounds; i++) {
        test_model();
        test_collisions();
        test_held();
        test_updates();
        test_many();
        test_kills();
    }
    return EXIT_SUCCESS;
}
