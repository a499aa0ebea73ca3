/**
 * @file seize.h
 * @brief Having a child stand still, whoever else sends it signals.
 */
#ifndef TIDE_PROC_SEIZE_H
#define TIDE_PROC_SEIZE_H

#include <sys/types.h>

/**
 * Trace a child as a debugger would, and interrupt it: waitpid(2) reports a stop that
 * only tide_process_release() and SIGKILL end. It has no signal of ours to see.
 *
 * @return 1; 0 if that is not allowed, or somebody else traces it
 */
int tide_process_seize(pid_t pid);

/**
 * Let a seized child go on whose stop was reported with `wait_status`.
 *
 * @return 1; 0 if it is stopped with its group all the same, by somebody's SIGSTOP
 */
int tide_process_release(pid_t pid, int wait_status);

#endif
