/**
 * @file still.h
 * @brief Whether a process can still do anything of its own.
 */
#ifndef TIDE_PROC_STILL_H
#define TIDE_PROC_STILL_H

#include <sys/types.h>

/**
 * Is it off its processor: asleep in a system call, interruptible or not, stopped,
 * traced, or a zombie? A process that was sent SIGSTOP or SIGKILL before and is found
 * so runs no instruction of its program until SIGCONT, or ever again: the kernel looks
 * at signals on the way back to it.
 *
 * @return 1; 0 if it is running or ready to, or there is no telling
 */
int tide_process_is_still(pid_t pid);

#endif
