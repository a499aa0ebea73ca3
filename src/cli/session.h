/**
 * @file session.h
 * @brief The prompt of `tidemill -i`.
 */
#ifndef TIDE_CLI_SESSION_H
#define TIDE_CLI_SESSION_H

#include <lua.h>

/** Read, run and print until the input ends. What is wrong is said and survived. */
void tide_session_run(lua_State *L);

#endif
