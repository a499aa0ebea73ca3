/*
 * The ring of a stream: results that wait for the script to take them. Two tables of
 * `capacity` places: the values, and for each whose it is:
 *
 *   places[p]   false or nil   nothing is there
 *               i              the result of item i, from 1
 *               -i             the error of item i
 *               i * 64 + n     of a FOLD: the partial result of 2^n items from i on
 *   places[0]   the capacity
 *
 * A position only grows; its place is the position modulo the capacity. The next
 * position is that of the item in an ordered stream, and that of the landing in
 * one that is not. So the script finds the next result at the place of the number
 * of results it has taken, whatever the order, without a call into C; it clears
 * the place.
 *
 * What may land is bounded by the window (tide_jobs_room()), except for a FOLD,
 * where a span leaves a few. So a ring grows when it has to, in place: an entry
 * stays or moves up by the old capacity, as that bit of its position says.
 */
#include "lua/form.h"
#include "lua/job_parts.h"

#include <lauxlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 16, LEVELS = 64, COMPILED_FROM = 16 };

/* Push the tables of values and places. */
static void push_tables(const struct tide_lua_job *job, lua_State *L)
{
    tide_job_push(job, L, TIDE_JOB_RESULTS);
    tide_job_push(job, L, TIDE_JOB_PLACES);
}

static void set_capacity(struct tide_ring *ring, lua_State *L, int places,
                         uint64_t capacity)
{
    ring->capacity = capacity;
    lua_pushnumber(L, (double)capacity);
    lua_rawseti(L, places, 0);
}

static void move_entry(lua_State *L, int table, int from, int to, int empty)
{
    lua_rawgeti(L, table, from);
    lua_rawseti(L, table, to);
    if (empty)
        lua_pushboolean(L, 0);
    else
        lua_pushnil(L);
    lua_rawseti(L, table, from);
}

/* Twice the capacity. */
static void grow(struct tide_lua_job *job, lua_State *L, int values, int places)
{
    struct tide_ring *ring = &job->ring;
    int unordered = (job->order.flags & TIDE_JOB_UNORDERED) != 0;
    uint64_t old = ring->capacity;
    for (uint64_t place = 0; place < old; place++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, places, (int)(old + place) + 1);
    }
    for (uint64_t place = 0; place < old; place++) {
        lua_rawgeti(L, places, (int)place + 1);
        double whose = lua_tonumber(L, -1);
        lua_pop(L, 1);
        if (whose == 0)
            continue;
        /* Unordered, the oldest position at this place that is not taken. */
        uint64_t position = unordered
                                ? ring->taken + ((place - ring->taken) % old)
                                : (uint64_t)(whose < 0 ? -whose : whose) - 1;
        if ((position & old) == 0)
            continue;
        move_entry(L, values, (int)place + 1, (int)(place + old) + 1, 0);
        move_entry(L, places, (int)place + 1, (int)(place + old) + 1, 1);
    }
    set_capacity(ring, L, places, old * 2);
}

/* Room up to, not including, position `end`; `values` and `places` are on top. */
static void reserve(struct tide_lua_job *job, lua_State *L, uint64_t end)
{
    struct tide_ring *ring = &job->ring;
    int places = lua_gettop(L);
    if (ring->capacity == 0) {
        for (int i = 1; i <= FIRST_CAPACITY; i++) {
            lua_pushboolean(L, 0);
            lua_rawseti(L, places, i);
        }
        set_capacity(ring, L, places, FIRST_CAPACITY);
    }
    while (end > ring->taken + ring->capacity)
        grow(job, L, places - 1, places);
}

/* The position of what lands now for item `index`. */
static uint64_t next_position(const struct tide_lua_job *job, uint64_t index)
{
    return (job->order.flags & TIDE_JOB_UNORDERED) != 0 ? job->ring.landed
                                                        : index;
}

void tide_ring_land(struct tide_lua_job *job, lua_State *L, uint64_t index,
                    unsigned level, int failed)
{
    uint64_t position = next_position(job, index);
    double whose = (double)index + 1;
    if ((job->order.flags & TIDE_JOB_FOLD) != 0)
        whose = whose * LEVELS + level;
    push_tables(job, L);
    reserve(job, L, position + 1);
    int place = (int)(position & (job->ring.capacity - 1)) + 1;
    lua_pushnumber(L, failed ? -whose : whose);
    lua_rawseti(L, -2, place);
    lua_pop(L, 1);
    lua_insert(L, -2);
    lua_rawseti(L, -2, place);
    lua_pop(L, 1);
    job->ring.landed++;
}

/* At most TIDE_COLUMN_RUN entries that lie side by side. The tables are on top. */
static void land_run(lua_State *L, const unsigned char *column, int boolean,
                     uint64_t index, uint64_t place, uint32_t count)
{
    int places = lua_gettop(L);
    if (count >= COMPILED_FROM) {
        double numbers[TIDE_COLUMN_RUN];
        const void *run = column;
        if (!boolean) {
            tide_column_copy(numbers, column, count);
            run = numbers;
        }
        lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_COLUMNS);
        lua_getfield(L, -1, boolean ? "land_booleans" : "land_numbers");
        lua_pushlightuserdata(L, (void *)(uintptr_t)run);
        lua_pushvalue(L, places - 1);
        lua_pushvalue(L, places);
        lua_pushnumber(L, (double)place);
        lua_pushnumber(L, (double)index);
        lua_pushnumber(L, count);
        lua_call(L, 6, 0);
        lua_settop(L, places);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        tide_column_push(L, column, boolean, i);
        lua_rawseti(L, places - 1, (int)(place + i) + 1);
        lua_pushnumber(L, (double)(index + i) + 1);
        lua_rawseti(L, places, (int)(place + i) + 1);
    }
}

void tide_ring_land_column(struct tide_lua_job *job, lua_State *L,
                           const unsigned char *column, int boolean,
                           uint64_t index, uint32_t count)
{
    const size_t width = boolean ? 1 : TIDE_COLUMN_BYTES;
    uint64_t position = next_position(job, index);
    push_tables(job, L);
    reserve(job, L, position + count);
    while (count > 0) {
        uint64_t place = position & (job->ring.capacity - 1);
        uint64_t room = job->ring.capacity - place;
        uint32_t run = count < room ? count : (uint32_t)room;
        if (run > TIDE_COLUMN_RUN)
            run = TIDE_COLUMN_RUN;
        land_run(L, column, boolean, index, place, run);
        column += run * width;
        position += run;
        index += run;
        count -= run;
        job->ring.landed += run;
    }
    lua_pop(L, 2);
}

int tide_ring_has_next(const struct tide_lua_job *job, lua_State *L)
{
    if (job->ring.capacity == 0)
        return 0;
    if ((job->order.flags & TIDE_JOB_UNORDERED) != 0)
        return job->ring.landed > job->ring.taken;
    tide_job_push(job, L, TIDE_JOB_PLACES);
    lua_rawgeti(L, -1, (int)(job->ring.taken & (job->ring.capacity - 1)) + 1);
    int there = lua_toboolean(L, -1);
    lua_pop(L, 2);
    return there;
}
