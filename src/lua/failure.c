#include "lua/failure.h"

#include "lua/codec.h"

/* Have the error table on top say whose it is. */
static void name_worker(lua_State *L, uint32_t worker)
{
    int failure = lua_gettop(L);
    if (!lua_istable(L, failure))
        return;
    lua_pushliteral(L, "message");
    lua_pushfstring(L, "worker %d cannot start: ", (int)worker + 1);
    lua_pushliteral(L, "message");
    lua_rawget(L, failure);
    if (lua_isstring(L, -1)) {
        lua_concat(L, 2);
        lua_rawset(L, failure);
    }
    lua_settop(L, failure);
    lua_pushnumber(L, worker + 1.0);
    lua_setfield(L, failure, "worker");
}

int tide_failure_push(lua_State *L, const struct tide_pool *pool)
{
    for (uint32_t i = 0; i < tide_board_worker_count(&pool->board); i++) {
        struct tide_worker_record *record = &pool->board.workers[i];
        uint64_t offset = atomic_load(&record->failure);
        uint32_t bytes = atomic_load(&record->failure_bytes);
        struct tide_error err;
        int count;
        if (offset == 0 || !tide_pool_holds(pool, i, offset, bytes))
            continue;
        const unsigned char *at = tide_pool_at(pool, offset);
        if (tide_decode(tide_codec_of(L), L, &at, at + bytes, &count, NULL,
                        &err) != TIDE_OK)
            continue;
        name_worker(L, i);
        return 1;
    }
    lua_pushnil(L);
    return 0;
}

void tide_failure_push_reason(lua_State *L, const struct tide_pool *pool)
{
    tide_failure_push(L, pool);
    int failure = lua_gettop(L);
    if (lua_istable(L, failure)) {
        lua_pushliteral(L, "message");
        lua_rawget(L, failure);
    }
    if (!lua_isstring(L, -1))
        lua_pushstring(L, pool->reason);
    lua_replace(L, failure);
    lua_settop(L, failure);
}
