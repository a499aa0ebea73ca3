#include "lua/promise.h"

#include "lua/layout.h"

/*
 * As below, for the promise at `place` of a list, which is taken out of it: where it
 * lies, without a call into Lua. Only what the collector need not be told of is done
 * so: see the rules in layout.h. Returns 0 if it was not.
 */
static int keep_in_place(struct tide_lua_pool *owner, lua_State *L,
                         struct tide_gc_table *list, uint32_t place, int count)
{
    uint64_t value = tide_stack_bits(L);
    if (place >= list->array_size ||
        tide_bits_kind(list->array[place]) != TIDE_KIND_TABLE)
        return 0;
    struct tide_gc_table *promise = tide_bits_pointer(list->array[place]);
    uint64_t *places = promise->array;
    int is_free = tide_bits_is_number(value) ||
                  tide_bits_kind(value) <= TIDE_KIND_TRUE ||
                  tide_layout_is_white(promise);
    if (promise->array_size <= TIDE_PROMISE_WATCHERS || !is_free ||
        places[TIDE_PROMISE_WATCHERS] != TIDE_BITS_FALSE)
        return 0;
    places[TIDE_PROMISE_VALUE] = value;
    places[TIDE_PROMISE_ENDED] = tide_bits_of_number((double)++owner->last_end);
    places[TIDE_PROMISE_COUNT] = tide_bits_of_number(count);
    list->array[place] = TIDE_BITS_NIL;
    tide_stack_drop(L, 1);
    return 1;
}

/* Pop watchers, which go to the end of the chain. */
static void chain_watchers(struct tide_lua_pool *owner, lua_State *L)
{
    lua_rawgeti(L, owner->at, TIDE_ACTIVE_FINISHED);
    lua_pushvalue(L, -2);
    lua_rawgeti(L, -2, TIDE_CHAIN_LAST);
    if (lua_istable(L, -1)) {
        lua_insert(L, -2);
        lua_rawseti(L, -2, TIDE_WATCHERS_NEXT);
        lua_pop(L, 1);
    } else {
        lua_pop(L, 1);
        lua_rawseti(L, -2, TIDE_CHAIN_FIRST);
    }
    lua_insert(L, -2);
    lua_rawseti(L, -2, TIDE_CHAIN_LAST);
    lua_pop(L, 1);
    owner->finished = 1;
}

void tide_promise_keep(struct tide_lua_pool *owner, lua_State *L, int at,
                       int count)
{
    lua_rawseti(L, at, TIDE_PROMISE_VALUE);
    lua_pushnumber(L, (double)++owner->last_end);
    lua_rawseti(L, at, TIDE_PROMISE_ENDED);
    lua_pushnumber(L, count);
    lua_rawseti(L, at, TIDE_PROMISE_COUNT);
    lua_rawgeti(L, at, TIDE_PROMISE_WATCHERS);
    if (lua_istable(L, -1))
        chain_watchers(owner, L);
    else
        lua_pop(L, 1);
}

void tide_promise_keep_listed(struct tide_lua_pool *owner, lua_State *L,
                              int list, uint32_t place, int count)
{
    if (owner->codec->reads_layout &&
        keep_in_place(owner, L, tide_gc_table_at(L, list), place, count))
        return;
    int value = lua_gettop(L);
    lua_rawgeti(L, list, (int)place);
    if (lua_isnil(L, -1)) { /* it is kept */
        lua_pop(L, 2);
        return;
    }
    lua_pushnil(L);
    lua_rawseti(L, list, (int)place);
    lua_insert(L, value);
    tide_promise_keep(owner, L, value, count);
    lua_pop(L, 1);
}
