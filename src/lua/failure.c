#include "lua/failure.h"

#include "lua/codec.h"

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
                        &err) == TIDE_OK)
            return (int)i + 1;
    }
    lua_pushnil(L);
    return 0;
}

void tide_failure_push_reason(lua_State *L, const struct tide_pool *pool)
{
    int worker = tide_failure_push(L, pool);
    int failure = lua_gettop(L);
    if (worker != 0 && lua_istable(L, failure)) {
        lua_pushliteral(L, "message");
        lua_rawget(L, failure);
    }
    if (lua_isstring(L, -1))
        lua_pushfstring(L, "worker %d cannot start: %s", worker,
                        lua_tostring(L, -1));
    else
        lua_pushstring(L, pool->reason);
    lua_replace(L, failure);
    lua_settop(L, failure);
}
