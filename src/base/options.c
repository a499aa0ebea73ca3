#include "base/options.h"

#include <string.h>

int tide_take_options(void *out, size_t size, const void *given,
                      size_t given_size)
{
    const unsigned char *bytes = given;
    if (given_size < sizeof given_size)
        return -1;
    for (size_t i = size; i < given_size; i++)
        if (bytes[i] != 0)
            return -1;
    memset(out, 0, size);
    memcpy(out, given, given_size < size ? given_size : size);
    memcpy(out, &size, sizeof size);
    return 0;
}
