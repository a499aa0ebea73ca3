/*
 * Supervisors that a host starts, and programs that are executed to be one.
 */
#include "embed/embed.h"

#include "lua/module_host.h"
#include "lua/state.h"
#include "lua/worker.h"

#include <dlfcn.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int tide_pass_on(const struct tide_error *err)
{
    return err != NULL && err->status != TIDE_OK ? err->status : TIDE_EINVAL;
}

int tide_start(tide_starter **out, const struct tide_start_options *options,
               struct tide_error *err)
{
    *out = NULL;
    tide_starter *starter = malloc(sizeof *starter);
    if (starter == NULL)
        return tide_fail(err, TIDE_ENOMEM, "cannot allocate a starter");
    int status = tide_setup_new(&starter->setup, options, err);
    if (status != TIDE_OK) {
        free(starter);
        return status;
    }
    struct tide_worker_ops ops = tide_lua_worker_ops(starter->setup);
    status =
        tide_host_start(&starter->host, &ops, &starter->setup->command, err);
    if (status != TIDE_OK) {
        tide_setup_free(starter->setup);
        free(starter);
        return status;
    }
    *out = starter;
    return TIDE_OK;
}

void tide_stop(tide_starter *starter)
{
    if (starter == NULL)
        return;
    tide_host_stop(&starter->host);
    tide_setup_free(starter->setup);
    free(starter);
}

/* ---- executed ---- */

/* What a library has to say, which stays loaded. */
static const struct tide_start_options *ask_library(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    tide_start_library_fn ask = NULL;
    if (library != NULL)
        *(void **)&ask = dlsym(library, "tide_start_library");
    return ask != NULL ? ask() : NULL;
}

/*
 * There is nobody to print to: the host is told that its supervisor has ended, by
 * the end of the channel.
 */
void tide_serve(int argc, char **argv, const struct tide_start_options *options)
{
    struct tide_setup *setup;
    struct tide_error err;
    if (argc < 2 || strcmp(argv[1], TIDE_SUPERVISE) != 0)
        return;
    if (argc > 3 && (options = ask_library(argv[3])) == NULL)
        _exit(EXIT_FAILURE);
    if (tide_setup_new(&setup, options, &err) != TIDE_OK)
        _exit(EXIT_FAILURE);
    if (argc > 2) /* who starts a mill decides on that */
        setup->without |= (unsigned)strtoul(argv[2], NULL, 10);
    setup->command =
        (struct tide_command){ 0 }; /* its workers have no threads */
    struct tide_worker_ops ops = tide_lua_worker_ops(setup);
    tide_supervisor_serve(&ops);
}

/* ---- for a state of the host's ---- */

static void prepare_state(lua_State *L, const tide_starter *starter)
{
    tide_state_register(L);
    tide_setup_bind(L, starter->setup);
    tide_setup_apply(L);
}

static int adopt(lua_State *L)
{
    const tide_starter *starter = lua_touserdata(L, 1);
    prepare_state(L, starter);
    tide_host_adopt(L, &starter->host, starter->setup); /* raises, or is done */
    return 0;
}

/* The setup was not to outlive the starter. */
static int forget(lua_State *L)
{
    tide_setup_bind(L, NULL);
    return 0;
}

int tide_starter_adopt(lua_State *L, tide_starter *starter,
                       struct tide_error *err)
{
    int top = lua_gettop(L);
    int failed = lua_cpcall(L, adopt, starter);
    if (!failed) {
        free(starter); /* what it had is the state's */
        return TIDE_OK;
    }
    int status =
        failed == LUA_ERRMEM
            ? tide_fail(err, TIDE_ENOMEM, "cannot adopt a starter")
            : tide_fail(err, TIDE_EINIT, "the hook raised: %s",
                        lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1)
                                                       : luaL_typename(L, -1));
    lua_settop(L, top);
    if (lua_cpcall(L, forget, NULL) != 0)
        lua_settop(L, top);
    tide_stop(starter);
    return status;
}

int tide_adopt(lua_State *L, tide_starter *starter, struct tide_error *err)
{
    if (starter == NULL)
        return tide_pass_on(err);
    if (starter->setup->without == 0)
        return tide_starter_adopt(L, starter, err);
    tide_stop(starter);
    return tide_fail(err, TIDE_EINVAL,
                     "only a mill's state can be without libraries");
}
