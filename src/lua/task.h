/**
 * @file task.h
 * @brief The host's functions on bytes, as a module.
 *
 * `tidemill.tasks` has a function for each: a string in, a string out. In a worker
 * that is given one as the function of a job, the bytes go to it and come from it
 * without becoming Lua strings.
 */
#ifndef TIDE_LUA_TASK_H
#define TIDE_LUA_TASK_H

#include "lua/buffer.h"
#include "tidemill.h"

#include <lua.h>

struct tide_output {
    struct tide_buffer *buffer; /* appended to */
};

/** Load the module. May raise. */
void tide_tasks_register(lua_State *L, const struct tide_task *tasks,
                         size_t count);

/** The task that the function at `index` is, or NULL. */
const struct tide_task *tide_task_at(lua_State *L, int index);

#endif
