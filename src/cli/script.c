#include "cli/script.h"

#include "cli/ending.h"
#include "lua/errors.h"
#include "lua/runtime.h"
#include "lua/state.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Push where the error at 1 was raised, also if it has been raised again since. */
static void push_traceback(lua_State *L)
{
    int top = lua_gettop(L);
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_TRACE);
    if (lua_istable(L, -1)) {
        lua_rawgeti(L, top + 1, 1);
        lua_rawgeti(L, top + 1, 2);
        if (lua_rawequal(L, top + 2, 1) && lua_isstring(L, top + 3)) {
            lua_replace(L, top + 1);
            lua_settop(L, top + 1);
            return;
        }
    }
    lua_settop(L, top);
    luaL_traceback(L, L, NULL, 1);
}

/* Is the error at 1 of an item whose worker was killed because it wrote? */
static int is_by_pipe(lua_State *L)
{
    int signal_number = 0;
    if (lua_istable(L, 1)) {
        lua_pushliteral(L, "signal");
        lua_rawget(L, 1);
        signal_number = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    return signal_number == SIGPIPE && tide_ending_is_unread();
}

static int add_traceback(lua_State *L)
{
    if (is_by_pipe(L))
        tide_ending_by_pipe();
    if (lua_type(L, 1) == LUA_TSTRING)
        lua_pushfstring(L, "%s\n", lua_tostring(L, 1));
    else if (luaL_callmeta(L, 1, "__tostring") && lua_isstring(L, -1))
        lua_pushliteral(L, "\nin the script: ");
    else
        lua_pushfstring(L, "(error object is a %s value)\n",
                        luaL_typename(L, 1));
    push_traceback(L);
    lua_concat(L, lua_gettop(L) - 1);
    return 1;
}

int tide_script_call(lua_State *L, int argument_count, int result_count)
{
    int function = lua_gettop(L) - argument_count;
    lua_pushcfunction(L, add_traceback);
    lua_insert(L, function);
    tide_ending_listen();
    int failed = lua_pcall(L, argument_count, result_count, function);
    int code = EXIT_SUCCESS;
    if (tide_ending_settle()) {
        code = tide_ending_report();
    } else if (failed) {
        fflush(stdout);
        fprintf(stderr, "tidemill: %s\n", lua_tostring(L, -1));
        code = EXIT_FAILURE;
    }
    lua_remove(L, function);
    if (code != EXIT_SUCCESS)
        lua_settop(L, function - 1);
    return code;
}

/* Report what could not be loaded, on top of the stack. */
static int report_load(lua_State *L)
{
    fprintf(stderr, "tidemill: %s\n", lua_tostring(L, -1));
    return EXIT_FAILURE;
}

int tide_script_run_code(lua_State *L, const char *code)
{
    if (luaL_loadbuffer(L, code, strlen(code), "=(command line)") != 0)
        return report_load(L);
    return tide_script_call(L, 0, 0);
}

static int require_global(lua_State *L)
{
    const char *module = lua_tostring(L, 1);
    tide_state_require(L, module);
    lua_setglobal(L, module);
    return 0;
}

int tide_script_require(lua_State *L, const char *module)
{
    lua_pushcfunction(L, require_global);
    lua_pushstring(L, module);
    return tide_script_call(L, 1, 0);
}

void tide_script_set_arg(lua_State *L, int argc, char **argv, int script)
{
    lua_createtable(L, argc - script, script + 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

int tide_script_run_file(lua_State *L, int argc, char **argv, int script)
{
    const char *path = argv[script];
    if (luaL_loadfile(L, strcmp(path, "-") == 0 ? NULL : path) != 0)
        return report_load(L);
    int count = argc - script - 1;
    luaL_checkstack(L, count + 4, "too many arguments");
    for (int i = 1; i <= count; i++)
        lua_pushstring(L, argv[script + i]);
    return tide_script_call(L, count, 0);
}
