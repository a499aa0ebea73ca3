/*
 * Fault points for specs, in builds that have them: tidemill.core has these two
 * functions then, and no trace of them else.
 */
#include "base/fault.h"
#include "lua/module.h"

#include <lauxlib.h>
#include <signal.h>
#include <string.h>

static enum tide_fault check_fault(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    for (unsigned i = 0; i < TIDE_FAULT_COUNT; i++)
        if (strcmp(name, tide_fault_name(i)) == 0)
            return (enum tide_fault)i;
    return (enum tide_fault)luaL_error(L, "no fault point '%s'", name);
}

static uint32_t check_roles(lua_State *L, int index)
{
    static const char *const names[] = { "any", "host", "supervisor", "worker",
                                         NULL };
    static const uint32_t roles[] = { TIDE_FAULT_HOST | TIDE_FAULT_SUPERVISOR |
                                          TIDE_FAULT_WORKER,
                                      TIDE_FAULT_HOST, TIDE_FAULT_SUPERVISOR,
                                      TIDE_FAULT_WORKER };
    return roles[luaL_checkoption(L, index, "any", names)];
}

/*
 * fault(name, action, at = 1, every = nil, role = "any"): from its hit number `at`
 * on, once or at every so many hits, the point fires in processes of this role.
 * The action: "die", "stop", an errno to fail with, or nil to set it off.
 */
static int core_fault(lua_State *L)
{
    static const char *const actions[] = { "die", "stop", NULL };
    static const int signals[] = { SIGKILL, SIGSTOP };
    enum tide_fault fault = check_fault(L, 1);
    struct tide_fault_order order = {
        .at = (uint32_t)luaL_optint(L, 3, 1),
        .every = (uint32_t)luaL_optint(L, 4, 0),
        .roles = check_roles(L, 5),
    };
    if (lua_type(L, 2) == LUA_TNUMBER) {
        order.action = TIDE_FAULT_FAIL;
        order.value = (int)lua_tointeger(L, 2);
    } else if (!lua_isnoneornil(L, 2)) {
        order.action = TIDE_FAULT_SIGNAL;
        order.value = signals[luaL_checkoption(L, 2, NULL, actions)];
    }
    tide_fault_set(fault, &order);
    return 0;
}

/* faults() -> how often each point has fired since it was set, by name */
static int core_faults(lua_State *L)
{
    lua_createtable(L, 0, TIDE_FAULT_COUNT);
    for (unsigned i = 0; i < TIDE_FAULT_COUNT; i++) {
        lua_pushnumber(L, tide_fault_fired(i));
        lua_setfield(L, -2, tide_fault_name(i));
    }
    return 1;
}

const luaL_Reg tide_core_fault[] = {
    { "fault", core_fault },
    { "faults", core_faults },
    { NULL, NULL },
};
