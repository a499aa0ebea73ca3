/* Values there and back: what can be sent, what can be read, and what is refused. */
#include "embed.h"

#include <math.h>

static void send_every_type(tide_mill *mill)
{
    const double list[] = { 1.5, -2, 3 };
    tide_args *args = tide_args_new();
    tide_args_nil(args);
    tide_args_bool(args, 1);
    tide_args_number(args, 0.1);
    tide_args_integer(args, 7);
    tide_args_integer(args, INT64_MAX);
    tide_args_integer(args, INT64_MIN);
    tide_args_string(args, "a\0b", 3);
    tide_args_text(args, "text");
    tide_args_numbers(args, list, 3);
    tide_args_bool(args, 0);
    tide_args_nil(args);
    tide_call *call = call_and_wait(mill, "echo", args);
    tide_args_free(args);

    int truth = 0;
    int64_t integer = 0;
    const char *text = NULL;
    size_t size = 0;
    double read[3] = { 0 };
    CHECK(tide_get_type(call, "1") == TIDE_TYPE_NIL);
    CHECK(tide_get_bool(&truth, call, "2") == TIDE_OK && truth == 1);
    CHECK(number_at(call, "3") == 0.1);
    CHECK(number_at(call, "4") == 7);
    CHECK(tide_get_type(call, "5") == TIDE_TYPE_INTEGER);
    CHECK(tide_get_integer(&integer, call, "5") == TIDE_OK);
    CHECK(integer == INT64_MAX);
    CHECK(tide_get_integer(&integer, call, "6") == TIDE_OK);
    CHECK(integer == INT64_MIN);
    CHECK(tide_get_integer(&integer, call, "4") == TIDE_OK && integer == 7);
    CHECK(tide_get_string(&text, &size, call, "7") == TIDE_OK);
    CHECK(size == 3 && memcmp(text, "a\0b", 4) == 0);
    CHECK(strcmp(text_at(call, "8"), "text") == 0);
    size = 3;
    CHECK(tide_get_numbers(read, &size, call, "9") == TIDE_OK);
    CHECK(size == 3 && memcmp(read, list, sizeof list) == 0);
    CHECK(tide_get_bool(&truth, call, "10") == TIDE_OK && truth == 0);
    CHECK(number_at(call, "n") == 11); /* how many were returned */

    /* What is not there, or of another type, leaves the place as it was. */
    double number = 5;
    CHECK(tide_get_number(&number, call, "2") == TIDE_EINVAL);
    CHECK(tide_get_number(&number, call, "99") == TIDE_EINVAL);
    CHECK(tide_get_number(&number, call, "4.x.y") == TIDE_EINVAL);
    CHECK(tide_get_integer(&integer, call, "3") == TIDE_EINVAL);
    CHECK(tide_get_string(&text, &size, call, "4") == TIDE_EINVAL);
    CHECK(tide_get_number(&number, NULL, "1") == TIDE_EINVAL);
    CHECK(tide_get_number(&number, call, NULL) == TIDE_EINVAL);
    CHECK(number == 5);
    size = 2;
    CHECK(tide_get_numbers(read, &size, call, "9") == TIDE_EINVAL);
    CHECK(size == 3); /* so much room is needed */
    CHECK(tide_get_length(call, "9") == 3 && tide_get_length(call, "3") == 0);
    tide_call_free(call);
}

static void send_records(tide_mill *mill)
{
    tide_args *args = tide_args_begin(tide_args_new());
    for (int i = 1; i <= 3; i++) {
        tide_args_begin(args);
        tide_args_integer(tide_args_name(args, "id"), i);
        tide_args_text(tide_args_name(args, "na.me"), "x");
        tide_args_begin(tide_args_name(args, "tags"));
        tide_args_text(tide_args_text(args, "red"), "blue");
        tide_args_end(args);
        tide_args_end(args);
    }
    tide_args_end(args);
    tide_call *call = call_and_wait(mill, "echo", args);
    tide_args_free(args);
    CHECK(tide_get_length(call, "1") == 3);
    CHECK(number_at(call, "1.3.id") == 3);
    CHECK(strcmp(text_at(call, "1.2.tags.2"), "blue") == 0);
    CHECK(tide_get_type(call, "1.2.tags") == TIDE_TYPE_TABLE);

    /* By cursor: a list of records, and the keys of each. */
    int records = 0, fields = 0;
    double sum = 0;
    CHECK(tide_call_enter(call, "1") == TIDE_OK);
    while (tide_call_next(call)) {
        records++;
        sum += number_at(call, "@") * 100 + number_at(call, "id");
        CHECK(tide_call_enter(call, "") == TIDE_OK);
        while (tide_call_next(call)) {
            fields++;
            if (strcmp(text_at(call, "@"), "na.me") == 0)
                CHECK(strcmp(text_at(call, ""), "x") == 0);
            else if (strcmp(text_at(call, "@"), "tags") == 0)
                CHECK(strcmp(text_at(call, "1"), "red") == 0);
        }
        tide_call_leave(call);
    }
    CHECK(records == 3 && fields == 9 && sum == 606);
    CHECK(!tide_call_next(call)); /* still at the end */
    tide_call_leave(call);
    tide_call_leave(call); /* one too many does nothing */
    CHECK(number_at(call, "1.1.id") == 1);
    CHECK(tide_call_enter(call, "1.1.id") == TIDE_EINVAL);
    CHECK(!tide_call_next(call));
    tide_call_free(call);
}

static void read_odd_results(tide_mill *mill)
{
    int64_t integer = 0;
    tide_call *call = call_and_wait(mill, "odd", NULL);
    CHECK(tide_get_integer(&integer, call, "1") == TIDE_OK);
    CHECK((uint64_t)integer == UINT64_MAX);
    CHECK(tide_get_type(call, "2") == TIDE_TYPE_OTHER);
    CHECK(number_at(call, "3.10") == 1);  /* the number goes before the name */
    CHECK(number_at(call, "3.011") == 2); /* which is the number 11 */
    CHECK(number_at(call, "3.-1") == 3);
    CHECK(number_at(call, "3.7") == 4); /* there is only the name */
    CHECK(isnan(number_at(call, "4")));
    CHECK(tide_get_integer(&integer, call, "4") == TIDE_EINVAL);
    CHECK(tide_get_integer(&integer, call, "5") == TIDE_EINVAL); /* 2^63 */
    CHECK(strcmp(text_at(call, "6."), "end") == 0);
    CHECK(tide_get_type(call, "6.x") == TIDE_TYPE_NIL);
    tide_call_free(call);
}

/* What is built in a wrong way is refused by the call, with the reason. */
static void refuse(tide_mill *mill, tide_args *args, const char *why)
{
    struct tide_error err = { 0 };
    CHECK_STATUS(TIDE_EINVAL, try_call(mill, "echo", args, &err), err);
    if (strstr(err.text, why) == NULL) {
        fprintf(stderr, "'%s' is not in '%s'\n", why, err.text);
        CHECK(0);
    }
    tide_args_number(tide_args_clear(args), 1); /* can be used once more */
    CHECK_OK(try_call(mill, "echo", args, &err), err);
    tide_args_free(args);
}

static void refuse_misuse(tide_mill *mill)
{
    refuse(mill, tide_args_begin(tide_args_new()), "no end");
    refuse(mill, tide_args_end(tide_args_new()), "where there is none");
    refuse(mill, tide_args_name(tide_args_new(), "x"), "a name");
    refuse(mill,
           tide_args_end(tide_args_name(tide_args_begin(tide_args_new()), "x")),
           "where there is none");
    refuse(mill, tide_args_text(tide_args_new(), NULL), "NULL");
    tide_args *deep = tide_args_new();
    for (int i = 0; i < 61; i++)
        tide_args_begin(deep);
    refuse(mill, deep, "too deeply");
}

static void nest_as_deep_as_allowed(tide_mill *mill)
{
    char path[200] = "1";
    tide_args *args = tide_args_new();
    for (int i = 0; i < 60; i++) {
        tide_args_begin(args);
        strcat(path, ".1");
    }
    tide_args_number(args, 42);
    for (int i = 0; i < 60; i++)
        tide_args_end(args);
    tide_call *call = call_and_wait(mill, "echo", args);
    CHECK(number_at(call, path) == 42);
    tide_call_free(call);
    tide_args_free(args);
}

static void map_over_values(tide_mill *mill)
{
    enum { COUNT = 5000 };
    static double numbers[COUNT];
    struct tide_error err = { 0 };
    tide_call *call = NULL;
    size_t count = COUNT;
    for (int i = 0; i < COUNT; i++)
        numbers[i] = i;
    tide_args *items = tide_args_each(tide_args_new(), numbers, COUNT);
    CHECK_OK(tide_mill_map(&call, mill, "x -> x * 2", items, NULL, &err), err);
    CHECK_OK(tide_call_wait(call, TIDE_WAIT_FOREVER, &err), err);
    CHECK(tide_get_numbers(numbers, &count, call, "") == TIDE_OK);
    CHECK(count == COUNT);
    for (int i = 0; i < COUNT; i++)
        CHECK(numbers[i] == 2 * i);
    tide_call_free(call);

    tide_args_nil(tide_args_number(tide_args_clear(items), 1));
    CHECK_STATUS(TIDE_EINVAL,
                 tide_mill_map(&call, mill, "x -> x", items, NULL, &err), err);
    CHECK(call == NULL && strstr(err.text, "item 2 is nil") != NULL);

    tide_args_clear(items);
    CHECK_OK(tide_mill_map(&call, mill, "x -> x", items, NULL, &err), err);
    CHECK_OK(tide_call_wait(call, PATIENCE_S, &err), err);
    CHECK(tide_get_length(call, "") == 0);
    tide_call_free(call);
    tide_args_free(items);
}

/* Options of an older program are shorter; of a newer one they may ask too much. */
static void take_other_versions(void)
{
    struct {
        struct tide_mill_options options;
        int more;
    } newer = { .options = { .size = sizeof newer, .processes = 1 } };
    struct tide_mill_options older = {
        .size = offsetof(struct tide_mill_options, retries),
        .processes = 1,
        .retries = 1u << 31, /* beyond its end: not looked at */
    };
    struct tide_error err = { 0 };
    tide_mill *mill = NULL;
    tide_mill_free(open_mill(&newer.options));
    tide_mill_free(open_mill(&older));
    newer.more = 1;
    CHECK_STATUS(TIDE_EINVAL, tide_mill_open(&mill, &newer.options, &err), err);
    CHECK_STATUS(TIDE_EINVAL,
                 tide_mill_open(&mill, &(struct tide_mill_options){ 0 }, &err),
                 err);
    CHECK(mill == NULL);
}

/* A row of calls needs one look. */
static void pass_failures_on(void)
{
    const struct tide_mill_options options = { .size = sizeof options,
                                               .processes = 1u << 20 };
    struct tide_error err = { 0 };
    tide_mill *mill = NULL;
    tide_call *call = NULL;
    CHECK(tide_mill_open(&mill, &options, &err) == TIDE_EINVAL);
    CHECK(strstr(err.text, "processes") != NULL);
    CHECK(tide_mill_load(mill, "x", "", 0, &err) == TIDE_EINVAL);
    CHECK(tide_mill_call(&call, mill, "f", NULL, NULL, &err) == TIDE_EINVAL);
    CHECK(tide_call_wait(call, 1, &err) == TIDE_EINVAL);
    CHECK(strstr(err.text, "processes") != NULL);
    tide_call_cancel(call);
    tide_call_free(call);
    tide_mill_free(mill);
}

int main(void)
{
    watch_time();
    int fds = count_fds();
    const struct tide_mill_options options = { .size = sizeof options,
                                               .processes = 2 };
    tide_mill *mill = open_mill(&options);
    load(mill, "function echo(...) return ... end\n"
               "local odd_table = { [10] = 1, ['10'] = 9, [11] = 2, [-1] = 3,\n"
               "  ['7'] = 4 }\n"
               "function odd()\n"
               "  return -1ULL, function() end, odd_table, 0/0, 2^63, 'end'\n"
               "end\n");
    send_every_type(mill);
    send_records(mill);
    read_odd_results(mill);
    refuse_misuse(mill);
    nest_as_deep_as_allowed(mill);
    map_over_values(mill);
    tide_mill_free(mill);
    take_other_versions();
    pass_failures_on();
    check_nothing_left(fds);
    return EXIT_SUCCESS;
}
