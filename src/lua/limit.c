/*
 * The state keeps its own allocator and gets one in front of it that counts.
 *
 * Lua 5.1 does not collect when an allocation fails, and by default it lets garbage
 * grow to the size of what is alive before it begins. A job that needs two thirds
 * of the limit would so fail of its garbage. So above half of the limit the
 * collector is told to begin again as soon as it has ended.
 *
 * That pays a little for each allocation, and a few large ones are over before it
 * has got far. So after one that is large the collector is told to run a whole
 * cycle at its next check, and so it is when an allocation has failed: what a caught
 * error leaves behind is garbage up to the limit, and even its message needs memory.
 * It is taken on credit until that cycle is over.
 *
 * To set pause, step or threshold is a plain store in LuaJIT, allowed inside an
 * allocation; a step of 0 is a whole cycle.
 */
#include "lua/limit.h"

enum { LARGE_PART = 32, CREDIT_PART = 16, CREDIT_BYTES = 64 * 1024 };

static void set_mood(struct tide_limit *limit, enum tide_limit_mood mood)
{
    static const struct {
        int pause, step; /* in percent; Lua's own are 200 and 200 */
    } moods[] = {
        [TIDE_LIMIT_CALM] = { 200, 200 },
        [TIDE_LIMIT_TIGHT] = { 105, 400 },
        [TIDE_LIMIT_URGENT] = { 105, 0 },
    };
    if (mood == TIDE_LIMIT_URGENT) {
        limit->urgent_bytes = limit->used_bytes;
        lua_gc(limit->L, LUA_GCRESTART, 0); /* it is due at once */
    }
    if (mood == limit->mood)
        return;
    limit->mood = mood;
    lua_gc(limit->L, LUA_GCSETPAUSE, moods[mood].pause);
    lua_gc(limit->L, LUA_GCSETSTEPMUL, moods[mood].step);
}

static void urge_collector(struct tide_limit *limit, size_t before,
                           size_t after)
{
    int is_tight = limit->used_bytes > limit->most_bytes / 2;
    if (is_tight && after > before &&
        after - before > limit->most_bytes / LARGE_PART)
        set_mood(limit, TIDE_LIMIT_URGENT);
    else if (limit->mood != TIDE_LIMIT_URGENT ||
             limit->used_bytes < limit->urgent_bytes)
        set_mood(limit, is_tight ? TIDE_LIMIT_TIGHT : TIDE_LIMIT_CALM);
    if (limit->used_bytes < limit->most_bytes - limit->most_bytes / CREDIT_PART)
        limit->credit_bytes = 0;
}

static void *refuse(struct tide_limit *limit)
{
    set_mood(limit, TIDE_LIMIT_URGENT);
    limit->credit_bytes = limit->most_bytes / CREDIT_PART + CREDIT_BYTES;
    return NULL;
}

static void *allocate(void *data, void *block, size_t before, size_t after)
{
    struct tide_limit *limit = data;
    size_t rest = limit->used_bytes - before;
    size_t most = limit->most_bytes + limit->credit_bytes;
    if (after > before && (rest > most || after > most - rest))
        return refuse(limit);
    void *moved = limit->inner(limit->inner_data, block, before, after);
    if (moved == NULL && after > 0)
        return NULL;
    limit->used_bytes = rest + after;
    urge_collector(limit, before, after);
    return moved;
}

void tide_limit_set(struct tide_limit *limit, lua_State *L, size_t most_bytes)
{
    const size_t kib = 1024;
    lua_gc(L, LUA_GCCOLLECT, 0);
    *limit = (struct tide_limit){ .L = L, .most_bytes = most_bytes };
    limit->used_bytes = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * kib +
                        (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    limit->inner = lua_getallocf(L, &limit->inner_data);
    lua_setallocf(L, allocate, limit);
}
