/**
 * @file random.h
 * @brief Random numbers of their own for every item.
 *
 * With a pool's `seed`, `math.random` is seeded anew before each item, from the
 * seed, the job's number in its pool and the item's place in the job. So item i
 * gets the same numbers whatever the chunks and workers, and again when it is
 * tried again.
 *
 * The three are mixed by SplitMix64 (Steele, Lea, Flood: Fast splittable
 * pseudorandom number generators, OOPSLA 2014): a job's stream is the mix of seed
 * and number, an item's seed the mix of stream + i * the golden gamma. 53 bits of
 * it go to math.randomseed, which fills the state of LuaJIT's generator from them
 * (a combined Tausworthe generator of period 2^223; L'Ecuyer 1996) and discards
 * its first ten numbers.
 */
#ifndef TIDE_LUA_RANDOM_H
#define TIDE_LUA_RANDOM_H

#include <lua.h>
#include <stdint.h>

/** The golden gamma: from one item's stream to the next. */
#define TIDE_STREAM_STEP UINT64_C(0x9e3779b97f4a7c15)

/** The stream of item 0 of a pool's job; never 0. */
uint64_t tide_random_stream(uint64_t seed, uint64_t job);

/** What item `item` seeds math.random with: a whole number below 2^53. */
double tide_random_seed(uint64_t stream, uint64_t item);

#endif
