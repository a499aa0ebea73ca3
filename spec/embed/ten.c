#include <stdio.h>
#include <tidemill.h>

int main(void)
{
    struct tide_error err;
    tide_mill *mill;
    tide_call *call;
    double numbers[] = { 1, 2, 3, 4 };
    size_t count = 4;
    tide_args *items = tide_args_each(tide_args_new(), numbers, count);
    tide_mill_open(&mill, NULL, &err);
    tide_mill_map(&call, mill, "x -> x * x", items, NULL, &err);
    if (tide_call_wait(call, TIDE_WAIT_FOREVER, &err) != TIDE_OK)
        return fprintf(stderr, "%s\n", err.text), 1;
    tide_get_numbers(numbers, &count, call, "");
    printf("%g %g %g %g\n", numbers[0], numbers[1], numbers[2], numbers[3]);
    tide_args_free(items);
    tide_mill_free(mill);
}
