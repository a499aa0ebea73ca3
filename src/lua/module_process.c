/*
 * The functions of `tidemill.core` on a pool that is single: one process, which runs
 * one job, and whose end is of interest.
 */
#include "lua/failure.h"
#include "lua/module.h"

#include <lauxlib.h>
#include <sys/wait.h>

/* signal(pool, number): send it to the workers */
static int core_signal(lua_State *L)
{
    struct tide_lua_pool *owner = tide_check_pool(L, 1);
    if (owner->pool != NULL)
        tide_pool_signal(owner->pool, luaL_checkint(L, 2));
    return 0;
}

/*
 * ending(pool) -> pid of its only worker; and, if it had ended at the last step, how:
 * its exit code, or the negative number of the signal that killed it; and when, as
 * the ends of promises
 */
static int core_ending(lua_State *L)
{
    const struct tide_lua_pool *owner = tide_check_pool(L, 1);
    pid_t pid;
    int status;
    if (owner->pool == NULL)
        return 0;
    int ended = tide_pool_process(owner->pool, 0, &pid, &status);
    lua_pushnumber(L, pid);
    if (!ended)
        return 1;
    lua_pushnumber(L, WIFSIGNALED(status) ? -WTERMSIG(status)
                                          : WEXITSTATUS(status));
    lua_pushnumber(L, (double)owner->pool->gone_ns);
    return 3;
}

/*
 * start_failure(pool) -> what a worker raised that could not start (a table), or nil
 */
static int core_start_failure(lua_State *L)
{
    const struct tide_lua_pool *owner = tide_check_pool(L, 1);
    if (owner->pool == NULL)
        return 0;
    tide_failure_push(L, owner->pool);
    return 1;
}

const luaL_Reg tide_core_process[] = {
    { "signal", core_signal },
    { "ending", core_ending },
    { "start_failure", core_start_failure },
    { NULL, NULL },
};
