/*
 * How a pool comes to be. It weighs little for the collector: many that were dropped
 * may be left, with their workers. They are looked for each time the number of pools
 * has doubled, and when there is no room for one more.
 */
#include "base/clock.h"
#include "lua/failure.h"
#include "lua/module.h"
#include "lua/promise.h"
#include "lua/trace.h"

#include <lauxlib.h>
#include <string.h>

enum {
    POOLS_LEAST = 8, /* before dropped ones are looked for */
    ROUND_S = 1      /* of one sleep, see waiting.lua */
};

static void collect_dropped(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_gc(L, LUA_GCCOLLECT, 0); /* what finalizers let go */
}

static uint32_t count_pools(const struct tide_host *host)
{
    uint32_t count = 0;
    for (struct tide_pool *pool = host->pools; pool; pool = pool->next)
        count++;
    return count;
}

static int open_pool(struct tide_pool **out, lua_State *L,
                     struct tide_host *host,
                     const struct tide_pool_options *options,
                     struct tide_error *err)
{
    if (count_pools(host) >= host->pools_most) {
        collect_dropped(L);
        host->pools_most = 2 * count_pools(host) + POOLS_LEAST;
    }
    if (tide_pool_open(out, host, options, err) == TIDE_OK)
        return TIDE_OK;
    collect_dropped(L);
    return tide_pool_open(out, host, options, err);
}

static int refuse(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

/* There may be a thousand of them: no more room than one call takes. */
static void make_single(struct tide_pool_options *options)
{
    options->single = 1;
    options->worker_max = 1;
    options->slot_count = 2;
    options->region_bytes = UINT64_C(1) << 34;
}

/* Push the table of active jobs. To let go of one must take no memory. */
static void push_active(lua_State *L)
{
    lua_newtable(L);
    lua_pushnumber(L, 0);
    lua_rawseti(L, -2, 0); /* free places: see luaL_unref() */
    lua_createtable(L, TIDE_CHAIN_LAST, 0);
    for (int place = TIDE_CHAIN_FIRST; place <= TIDE_CHAIN_LAST; place++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, place);
    }
    lua_rawseti(L, -2, TIDE_ACTIVE_FINISHED);
}

int tide_core_open(lua_State *L)
{
    size_t config_bytes;
    const char *config = luaL_checklstring(L, 2, &config_bytes);
    struct tide_pool_options options = {
        .worker_count = (uint32_t)luaL_checkint(L, 1),
        .config = config,
        .config_bytes = config_bytes,
    };
    struct tide_error err;
    struct tide_pool *pool;
    if (lua_toboolean(L, 6))
        make_single(&options);
    lua_settop(L, 5);
    struct tide_host *host = tide_push_host(L, luaL_checkstring(L, 3), &err);
    int host_index = lua_gettop(L);
    if (host == NULL)
        return refuse(L, err.text);

    struct tide_lua_pool *owner = lua_newuserdata(L, sizeof *owner);
    *owner = (struct tide_lua_pool){ 0 };
    owner->owns_host = strcmp(lua_tostring(L, 3), "inherit") == 0;
    lua_createtable(L, TIDE_POOL_JOBS, 0);
    lua_pushvalue(L, host_index);
    lua_rawseti(L, -2, TIDE_POOL_HOST); /* needed as long as the pool lives */
    push_active(L);
    lua_rawseti(L, -2, TIDE_POOL_JOBS);
    lua_pushvalue(L, 5);
    lua_rawseti(L, -2, TIDE_POOL_KEEPER);
    lua_setfenv(L, -2);
    if (open_pool(&pool, L, host, &options, &err) != TIDE_OK)
        return refuse(L, err.text);
    if (tide_jobs_init(owner, pool, tide_codec_of(L)) != 0) {
        tide_pool_free(pool);
        return refuse(L, "out of memory");
    }
    tide_trace_pool(owner, L, luaL_checkstring(L, 4));
    luaL_getmetatable(L, TIDE_POOL_TYPE);
    owner->metatable = lua_topointer(L, -1);
    lua_setmetatable(L, -2);
    return 1;
}

int tide_core_await_start(lua_State *L)
{
    struct tide_lua_pool *owner = tide_enter_pool(L, 1);
    int status = tide_pool_await_start(owner->pool, tide_deadline_ns(ROUND_S));
    if (status != TIDE_EBROKEN) {
        lua_pushboolean(L, status == TIDE_OK);
        return 1;
    }
    lua_pushnil(L);
    if (tide_failure_push(L, owner->pool) == 0)
        lua_pushstring(L, owner->pool->reason);
    tide_free_pool(owner, L);
    return 2;
}
