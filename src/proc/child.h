/**
 * @file child.h
 * @brief What a forked process does before anything else.
 */
#ifndef TIDE_PROC_CHILD_H
#define TIDE_PROC_CHILD_H

#include <sys/types.h>

enum { TIDE_CHILD_FDS = 2 };

/**
 * Fork, with stdio flushed so that nothing is printed twice, and every signal
 * blocked in the child until tide_child_*() has set its dispositions.
 */
pid_t tide_child_fork(void);

/**
 * Become a supervisor: signals that end a terminal's job are ignored (its end is
 * the host's end), SIGCHLD and SIGCONT are blocked for a signalfd, all others are
 * default. Every descriptor above 2 but those to keep is closed; those up to 2 are
 * open. When its parent dies it goes on if it was stopped.
 *
 * @param keep  first the process's own, then that of the commons or -1; the numbers
 *              they have afterwards
 */
void tide_child_become_supervisor(int keep[TIDE_CHILD_FDS]);

/**
 * Become a worker, in a child of a supervisor: killed when it (`parent`) dies,
 * SIGINT ignored, every other signal
 * default and unblocked, standard input empty, stdout line-buffered, descriptors
 * above 2 closed but `keep`, as above. Ends the process if `parent` is dead already.
 */
void tide_child_become_worker(pid_t parent, int keep[TIDE_CHILD_FDS],
                              const char *name);

/** End a child: stdio flushed, no atexit handler of the host run. */
_Noreturn void tide_child_exit(int code);

#endif
