#include "lua/random.h"

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t tide_random_stream(uint64_t seed, uint64_t job)
{
    uint64_t stream =
        mix(mix(seed + TIDE_STREAM_STEP) + job * TIDE_STREAM_STEP);
    return stream != 0 ? stream : 1;
}

double tide_random_seed(uint64_t stream, uint64_t item)
{
    return (double)(mix(stream + item * TIDE_STREAM_STEP) >> 11);
}
