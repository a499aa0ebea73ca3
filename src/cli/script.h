/**
 * @file script.h
 * @brief Runs Lua code and says what was wrong with it.
 *
 * All return an exit code: EXIT_SUCCESS, or what was wrong is on standard error.
 */
#ifndef TIDE_CLI_SCRIPT_H
#define TIDE_CLI_SCRIPT_H

#include <lua.h>

/**
 * Call the function below `argument_count` arguments; both are popped.
 *
 * @param result_count  as for lua_call(); there are results only on success
 */
int tide_script_call(lua_State *L, int argument_count, int result_count);

/** Run code given on the command line. */
int tide_script_run_code(lua_State *L, const char *code);

/** Require a module into the global of its name. */
int tide_script_require(lua_State *L, const char *module);

/** Run the file argv[script], "-" for standard input, with what follows it. */
int tide_script_run_file(lua_State *L, int argc, char **argv, int script);

/** Set `arg`: 0 is the script, 1 and on its arguments, below 0 what came before. */
void tide_script_set_arg(lua_State *L, int argc, char **argv, int script);

#endif
