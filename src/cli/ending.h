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
 * A signal that was ignored when the command started stays ignored. In a session INT
 * stops only what was typed; see tide_ending_begin_session(). While the script waits in
 * os.execute() INT and QUIT go to the command it runs; if that ends by one of them, so
 * does the script.
 */
#ifndef TIDE_CLI_ENDING_H
#define TIDE_CLI_ENDING_H

#include <lua.h>

enum { TIDE_EXIT_INTERRUPTED = 130 };

/**
 * Stop what `L` runs when one of INT, TERM, HUP comes; for the whole process. `L` has
 * its libraries.
 *
 * @param before_exit  called, in the signal handler, if it has to end the process
 */
void tide_ending_catch(lua_State *L, void (*before_exit)(void));

/**
 * From now on INT is an error in what runs, once, and nothing where nothing does: a
 * session goes on after it. Only a second one, while the first is not heard, ends the
 * process.
 */
void tide_ending_begin_session(void);

/** Code runs from now on, until tide_ending_settle(). */
void tide_ending_listen(void);

/** Nothing runs any more. @return 1 if it was stopped by a signal, else 0 */
int tide_ending_settle(void);

/** Is the process to end, because of a signal? */
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

/** To be called at exit: what cannot be written, here or by workers, is an error of
 * the command. */
void tide_ending_check_output(void);

#endif
