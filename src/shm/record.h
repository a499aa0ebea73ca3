/**
 * @file record.h
 * @brief What a board holds of each of its workers.
 *
 * The worker writes its record, but for `phase`, `pid`, `last_pid`, `last_status`
 * and `restarts`, which the supervisor writes while there is no process, and
 * `mail`, see board.c.
 */
#ifndef TIDE_SHM_RECORD_H
#define TIDE_SHM_RECORD_H

#include "shm/region.h"
#include "shm/slot.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

enum tide_worker_phase {
    TIDE_WORKER_VACANT,   /* no process */
    TIDE_WORKER_STARTING, /* forked, not yet able to claim */
    TIDE_WORKER_UP,       /* claims work */
    TIDE_WORKER_LEFT      /* ends because it is not wanted any more */
};

struct tide_worker_record {
    alignas(TIDE_LINE) _Atomic uint32_t wake; /* futex: changes to wake it */
    _Atomic uint32_t hand;  /* slot + 1 that it claimed last; 0 for none */
    _Atomic uint32_t phase; /* enum tide_worker_phase */
    _Atomic int32_t pid;
    _Atomic int32_t last_pid;       /* of the process that ended here last, */
    _Atomic int32_t last_status;    /* and how: as waitpid(2) gives it */
    _Atomic uint32_t restarts;      /* replacements of this worker so far */
    _Atomic uint32_t failure_bytes; /* why it could not start, in a block */
    _Atomic uint64_t failure;
    _Atomic uint64_t items; /* totals over all incarnations */
    _Atomic uint64_t chunks;
    _Atomic uint64_t busy_ns;
    _Atomic uint64_t heap_bytes; /* of its Lua state */
    _Atomic uint64_t mail;       /* sequence, slot + 1 only it may run; or 0 */
    struct tide_region region;
};

#endif
