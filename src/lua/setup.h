/**
 * @file setup.h
 * @brief What a C host gives to every state: its own, its workers' and theirs.
 *
 *   State        When                        What
 *   host's       before Tidemill is loaded   tide_setup_bind, _apply
 *   worker's     once, in the supervisor     tide_setup_bind
 *                in each copy of it          _apply, _restrict
 *
 * A setup is found from the state, so that a pool which a job makes in its worker
 * has it, too: pointers to functions hold in all processes that were forked from
 * each other.
 */
#ifndef TIDE_LUA_SETUP_H
#define TIDE_LUA_SETUP_H

#include "base/status.h"
#include "proc/supervisor.h"

#include <lua.h>

struct tide_setup {
    tide_hook_fn hook;
    void *hook_data;
    const struct tide_task *tasks;
    size_t task_count;
    unsigned without;            /* enum tide_without */
    struct tide_command command; /* how to start a supervisor */
    char without_text[12];       /* for it, if it is executed */
    void *luajit; /* a hold on the library, for C modules; or NULL */
};

/**
 * Check and copy the options of a host.
 *
 * @param options  NULL for the usual ones
 * @return TIDE_OK; TIDE_EINVAL; TIDE_ENOMEM
 */
int tide_setup_new(struct tide_setup **out,
                   const struct tide_start_options *options,
                   struct tide_error *err);

void tide_setup_free(struct tide_setup *setup);

/**
 * Have the state know its setup, which is to outlive it; NULL for none. May raise.
 * Before Tidemill's modules are loaded: if the state will be restricted they keep
 * the libraries they were loaded with.
 */
void tide_setup_bind(lua_State *L, const struct tide_setup *setup);

/** The setup of a state, or NULL. */
const struct tide_setup *tide_setup_of(lua_State *L);

/**
 * Load the module of the tasks and run the hook; note which globals and modules
 * that brings. Raises what the hook raises.
 */
void tide_setup_apply(lua_State *L);

/** Take away the libraries that scripts are not to have. May raise. */
void tide_setup_restrict(lua_State *L);

/** May a script load bytecode? It is not verified: who may can do everything. */
int tide_setup_allows_bytecode(lua_State *L);

/** Push the set of the "globals" or "modules" that the hook brought, or nil. */
void tide_setup_push_brought(lua_State *L, const char *what);

/** Registry key: the environment of Tidemill's own modules, if it is not _G. */
#define TIDE_KEY_ENVIRONMENT "tidemill.environment"

#endif
