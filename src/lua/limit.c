/*
 * The state keeps its own allocator and gets one in front of it that counts.
 *
 * Lua 5.1 does not collect when an allocation fails, and by default it lets garbage
 * grow to the size of what is alive before it begins. A job that needs two thirds
 * of the limit would so fail of its garbage. So above half of the limit the
 * collector is told to begin again as soon as it has ended. Setting the pause is a
 * plain store in LuaJIT, allowed inside an allocation.
 */
#include "lua/limit.h"

enum { TIGHT_PAUSE = 105, TIGHT_STEP = 400 };

static void urge_collector(struct tide_limit *limit)
{
    int tight = limit->used_bytes > limit->most_bytes / 2;
    if (tight == limit->is_tight)
        return;
    const int usual = 200; /* Lua's own pause and step, in percent */
    limit->is_tight = tight;
    lua_gc(limit->L, LUA_GCSETPAUSE, tight ? TIGHT_PAUSE : usual);
    lua_gc(limit->L, LUA_GCSETSTEPMUL, tight ? TIGHT_STEP : usual);
}

static void *allocate(void *data, void *block, size_t before, size_t after)
{
    struct tide_limit *limit = data;
    size_t rest = limit->used_bytes - before;
    if (after > before &&
        (rest > limit->most_bytes || after > limit->most_bytes - rest))
        return NULL;
    void *moved = limit->inner(limit->inner_data, block, before, after);
    if (moved == NULL && after > 0)
        return NULL;
    limit->used_bytes = rest + after;
    urge_collector(limit);
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
