/**
 * @file ending.h
 * @brief How the command ends: by a signal, or with its output written.
 *
 *   Signal          The script      What is printed          How it ends
 *   INT             is stopped      one line, on stderr      exit code 130
 *   TERM, HUP       is stopped      nothing                  by that signal
 *   PIPE            -               nothing                  by that signal
 *   QUIT and other  -               nothing                  by that signal, what
 *                                                            is unwritten is lost
 *
 * A signal that was ignored when the command started stays ignored.
 */
#ifndef TIDE_CLI_ENDING_H
#define TIDE_CLI_ENDING_H

#include <lua.h>

/** Stop what `L` runs when one of INT, TERM, HUP comes; for the whole process. */
void tide_ending_catch(lua_State *L);

/** Was the script asked to stop? */
int tide_ending_is_asked(void);

/** Write what is unwritten, print what there is to say about the signal that came.
 * @return the exit code */
int tide_ending_report(void);

/** If the signal that came has to be seen by the caller: die by it. */
void tide_ending_follow(void);

/** Does nobody read our output, so that a worker that wrote was killed? */
int tide_ending_is_unread(void);

/** End as a writer ends whom nobody reads. */
_Noreturn void tide_ending_by_pipe(void);

/** To be called at exit: what cannot be written is an error of the command. */
void tide_ending_check_output(void);

#endif
