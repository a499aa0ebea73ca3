/**
 * @file office.h
 * @brief What a supervisor process does, from its fork to its end.
 */
#ifndef TIDE_PROC_OFFICE_H
#define TIDE_PROC_OFFICE_H

#include "proc/supervisor.h"

/**
 * Serve `host` until it has ended or closed its end; in the forked process.
 *
 * @param channel  its end; every other descriptor above 2 is closed
 */
_Noreturn void tide_office_run(const struct tide_worker_ops *ops, int channel,
                               pid_t host);

#endif
