#include "lua/task.h"

#include <lauxlib.h>

#define MODULE      "tidemill.tasks"
#define OUTPUT_TYPE "tidemill.output"

int tide_output_write(tide_output *out, const void *bytes, size_t size)
{
    unsigned char *at = tide_buffer_reserve(out->buffer, size);
    if (at == NULL)
        return -1;
    if (size > 0)
        memcpy(at, bytes, size);
    out->buffer->used += size;
    return 0;
}

static int output_gc(lua_State *L)
{
    tide_buffer_free(lua_touserdata(L, 1));
    return 0;
}

/* A buffer that is freed also if an error comes between. */
static struct tide_buffer *push_output(lua_State *L)
{
    struct tide_buffer *buffer = lua_newuserdata(L, sizeof *buffer);
    tide_buffer_init(buffer);
    if (luaL_newmetatable(L, OUTPUT_TYPE)) {
        lua_pushcfunction(L, output_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return buffer;
}

/* A task called from Lua. */
static int call_task(lua_State *L)
{
    const struct tide_task *task = lua_touserdata(L, lua_upvalueindex(1));
    size_t size;
    const char *bytes = luaL_checklstring(L, 1, &size);
    struct tide_output out = { .buffer = push_output(L) };
    int failed = task->run(&out, bytes, size, task->data);
    lua_pushlstring(L, (const char *)out.buffer->data, out.buffer->used);
    tide_buffer_free(out.buffer);
    tide_buffer_init(out.buffer);
    if (!failed)
        return 1;
    if (lua_objlen(L, -1) == 0)
        lua_pushfstring(L, "task '%s' failed: %d", task->name, failed);
    return lua_error(L);
}

void tide_tasks_register(lua_State *L, const struct tide_task *tasks,
                         size_t count)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_createtable(L, 0, (int)count);
    for (size_t i = 0; i < count; i++) {
        lua_pushlightuserdata(L, (void *)(uintptr_t)&tasks[i]);
        lua_pushcclosure(L, call_task, 1);
        lua_setfield(L, -2, tasks[i].name);
    }
    lua_setfield(L, -2, MODULE);
    lua_pop(L, 1);
}

const struct tide_task *tide_task_at(lua_State *L, int index)
{
    if (lua_tocfunction(L, index) != call_task)
        return NULL;
    lua_getupvalue(L, index, 1);
    const struct tide_task *task = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return task;
}
