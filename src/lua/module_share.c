/*
 * The functions of `tidemill.core` on shared objects. A handle is two numbers here, the
 * place and the generation, since a double holds no 64 bits.
 */
#include "base/clock.h"
#include "lua/job_parts.h"
#include "lua/module.h"
#include "share/data.h"

#include <lauxlib.h>
#include <string.h>

tide_handle tide_check_handle(lua_State *L, int index)
{
    tide_handle place = (tide_handle)luaL_checknumber(L, index);
    return (tide_handle)luaL_checknumber(L, index + 1) << 32 | place;
}

void tide_push_handle(lua_State *L, tide_handle handle)
{
    lua_pushnumber(L, (uint32_t)handle);
    lua_pushnumber(L, (double)(handle >> 32));
}

int tide_raise_shared(lua_State *L, const char *what,
                      const struct tide_error *err)
{
    lua_pushfstring(L, "%s: %s", what, err->text);
    tide_error_object_push(L, "share", lua_tostring(L, -1));
    return lua_error(L);
}

/* ---- data ---- */

static struct tide_data *check_data(lua_State *L, int index)
{
    tide_handle handle = tide_check_handle(L, index);
    if (tide_object_holds(handle) == 0)
        luaL_error(L, "the shared object is not held here");
    return tide_object_body(handle);
}

/*
 * make_data(what, type, element bytes, rows or nil, cols, is matrix)
 * -> place, generation: of a value without rows, else of an array
 */
static int core_make_data(lua_State *L)
{
    struct tide_data_plan plan = {
        .kind = lua_isnil(L, 4) ? TIDE_SHARED_VALUE : TIDE_SHARED_ARRAY,
        .is_matrix = lua_toboolean(L, 6),
        .element_bytes = (uint64_t)luaL_checknumber(L, 3),
        .rows = (uint64_t)luaL_optnumber(L, 4, 1),
        .cols = (uint64_t)luaL_checknumber(L, 5),
    };
    struct tide_error err;
    tide_handle handle = 0;
    plan.name = luaL_checklstring(L, 2, &plan.name_bytes);
    struct tide_codec *codec = tide_codec_of(L);
    tide_handles_weigh(codec, L);
    if (tide_data_make(&handle, &plan, &err) != TIDE_OK)
        return tide_raise_shared(L, luaL_checkstring(L, 1), &err);
    codec->opened++;
    tide_push_handle(L, handle);
    return 2;
}

/*
 * open_data(place, generation) -> address of the first element, type, element bytes,
 * rows, cols, is matrix
 */
static int core_open_data(lua_State *L)
{
    struct tide_data *data = check_data(L, 1);
    lua_pushlightuserdata(L, tide_data_elements(data));
    lua_pushlstring(L, data->name, data->name_bytes);
    lua_pushnumber(L, (double)data->element_bytes);
    lua_pushnumber(L, (double)data->rows);
    lua_pushnumber(L, (double)data->cols);
    lua_pushboolean(L, (int)data->is_matrix);
    return 6;
}

/* lock_data(place, generation, seconds or nil) -> is it ours now, "abandoned" or nil */
static int core_lock_data(lua_State *L)
{
    int status = tide_data_lock(check_data(L, 1), tide_check_deadline(L, 3));
    lua_pushboolean(L, status != TIDE_ETIMEOUT);
    lua_pushstring(L, status == TIDE_EABANDONED ? "abandoned" : NULL);
    return 2;
}

/* unlock_data(place, generation) -> was it ours */
static int core_unlock_data(lua_State *L)
{
    lua_pushboolean(L, tide_data_unlock(check_data(L, 1)) == TIDE_OK);
    return 1;
}

/* data_function("add" or "cas", type) -> address or nil */
static int core_data_function(lua_State *L)
{
    const void *function =
        tide_data_function(luaL_checkstring(L, 1), luaL_checkstring(L, 2));
    if (function == NULL)
        return 0;
    lua_pushlightuserdata(L, (void *)(uintptr_t)function);
    return 1;
}

/* ---- all objects ---- */

/* hold(place, generation): one more, of what is held */
static int core_hold(lua_State *L)
{
    struct tide_error err;
    if (tide_object_hold(tide_check_handle(L, 1), TIDE_SHARED_NONE, &err) !=
        TIDE_OK)
        return luaL_error(L, "%s", err.text);
    return 0;
}

static void drop(uint32_t place, uint32_t generation)
{
    tide_object_drop((tide_handle)generation << 32 | place);
}

/* drop_function() -> address of void (uint32_t place, uint32_t generation) */
static int core_drop_function(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)drop);
    return 1;
}

/* commons() -> bytes of memory taken, objects, processes; nil if there are none */
static int core_commons(lua_State *L)
{
    struct tide_commons_count count;
    if (tide_commons.arena.base == NULL)
        return 0;
    tide_commons_sweep();
    tide_commons_count(&count);
    lua_pushnumber(L, (double)tide_commons_resident());
    lua_pushnumber(L, count.objects);
    lua_pushnumber(L, count.processes);
    return 3;
}

const luaL_Reg tide_core_share[] = {
    { "make_data", core_make_data },
    { "open_data", core_open_data },
    { "lock_data", core_lock_data },
    { "unlock_data", core_unlock_data },
    { "data_function", core_data_function },
    { "hold", core_hold },
    { "drop_function", core_drop_function },
    { "commons", core_commons },
    { NULL, NULL },
};
