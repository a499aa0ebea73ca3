/*
 * A line is tried as an expression, whose values are printed, and then as code. Code
 * that is wrong only because it ends too early gets another line. Ctrl-C gives up
 * what has been typed so far.
 */
#include "cli/session.h"

#include "cli/ending.h"
#include "cli/script.h"

#include <errno.h>
#include <lauxlib.h>
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tidemill.h"

static const char chunk_name[] = "=stdin";

/* Push a line without its end. @return 0; -1 at the end of the input, EINTR */
static int push_line(lua_State *L, const char *prompt)
{
    char *text = NULL;
    size_t capacity = 0;
    fputs(prompt, stdout);
    fflush(stdout);
    errno = 0;
    ssize_t length = getline(&text, &capacity, stdin);
    int problem = errno == EINTR ? EINTR : -1;
    if (length >= 0) {
        if (length > 0 && text[length - 1] == '\n')
            length--;
        lua_pushlstring(L, text, (size_t)length);
    } else {
        clearerr(stdin);
    }
    free(text);
    return length >= 0 ? 0 : problem;
}

/* In `=expression` the sign stands for `return`. */
static void replace_sign(lua_State *L, int index)
{
    const char *text = lua_tostring(L, index);
    if (text[0] != '=')
        return;
    lua_pushfstring(L, "return %s", text + 1);
    lua_replace(L, index);
}

static int load_between(lua_State *L, const char *before, int index,
                        const char *after)
{
    size_t length;
    lua_pushstring(L, before);
    lua_pushvalue(L, index);
    lua_pushstring(L, after);
    lua_concat(L, 3);
    const char *code = lua_tolstring(L, -1, &length);
    int status = luaL_loadbuffer(L, code, length, chunk_name);
    lua_remove(L, -2);
    return status;
}

static int give_back(lua_State *L)
{
    return lua_gettop(L);
}

/* Compile the text at `index`, as an expression if it is one. */
static int load_text(lua_State *L, int index)
{
    /* The second way takes the values of the first, or a call would be a tail
     * call and its errors would not say where. */
    if (load_between(L, "return ", index, "") == 0) {
        lua_pop(L, 1);
        return load_between(L, "return (...)(", index, "\n)");
    }
    lua_pop(L, 1);
    return load_between(L, "", index, "");
}

/* Is the message on top that of code which ends too early? */
static int is_unfinished(lua_State *L)
{
    static const char end[] = "'<eof>'";
    size_t length;
    const char *message = lua_tolstring(L, -1, &length);
    return message != NULL && length >= sizeof end - 1 &&
           strcmp(message + length - (sizeof end - 1), end) == 0;
}

/*
 * Read a chunk and push it as a function.
 *
 * @return 0; EINTR, or EINVAL after a message: try again; -1 at the end of the input
 */
static int push_chunk(lua_State *L)
{
    const int text = lua_gettop(L) + 1;
    int problem = push_line(L, "> ");
    if (problem == 0)
        replace_sign(L, text);
    while (problem == 0) {
        if (load_text(L, text) == 0) {
            lua_replace(L, text);
            return 0;
        }
        if (!is_unfinished(L)) {
            fprintf(stderr, "tidemill: %s\n", lua_tostring(L, -1));
            problem = EINVAL;
            break;
        }
        lua_pop(L, 1);
        lua_pushliteral(L, "\n");
        problem = push_line(L, ">> ");
        if (problem == 0)
            lua_concat(L, 3);
    }
    lua_settop(L, text - 1);
    return problem;
}

/* Call `print` on what is on the stack. */
static void print_results(lua_State *L)
{
    int count = lua_gettop(L);
    if (count == 0)
        return;
    luaL_checkstack(L, 2, "too many results");
    lua_getglobal(L, "print");
    lua_insert(L, 1);
    tide_script_call(L, count, 0);
}

void tide_session_run(lua_State *L)
{
    int problem;
    tide_ending_begin_session();
    if (isatty(STDIN_FILENO))
        printf("Tidemill %s (%s); Ctrl-D ends the session\n", TIDEMILL_VERSION,
               LUAJIT_VERSION);
    do {
        lua_settop(L, 0);
        problem = push_chunk(L);
        if (problem == EINTR)
            putchar('\n');
        lua_pushcfunction(L, give_back); /* what load_text() takes */
        if (problem == 0 && tide_script_call(L, 1, LUA_MULTRET) == EXIT_SUCCESS)
            print_results(L);
    } while (problem != -1 && !tide_ending_is_asked());
    putchar('\n');
}
