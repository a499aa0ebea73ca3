/**
 * @file board_sleep.h
 * @brief How the host wakes workers, and sleeps until they have done something.
 */
#ifndef TIDE_SHM_BOARD_SLEEP_H
#define TIDE_SHM_BOARD_SLEEP_H

#include "shm/board.h"

/* ---- waking workers ---- */

/** Wake up to `count` sleeping workers for work submitted before. */
void tide_board_kick(struct tide_board *board, uint32_t count);

/**
 * After a single submit: wake a worker if those that are awake would not come to
 * the work in a while. `backlog_ns` is about how much work waits.
 */
void tide_board_nudge(struct tide_board *board, uint64_t backlog_ns);

/** Before the host sleeps: wake workers for all that waits. */
void tide_board_rally(struct tide_board *board);

/* ---- sleeping ---- */

/**
 * Sleep until `count` slots have arrived (or all in flight, if those are fewer),
 * an urgent one has, a worker asked for attention or died, `watch_fd` is readable
 * or hung up, or the deadline has passed.
 *
 * @param watch_fd  also waited for; -1 for none
 * @return TIDE_OK (look again: the wait may end early), TIDE_ETIMEOUT,
 *         TIDE_EINTR after a signal
 */
int tide_board_wait(struct tide_board *board, uint32_t count, int watch_fd,
                    uint64_t deadline_ns);

/**
 * As the beginning of tide_board_wait(), for a host that sleeps elsewhere: from now
 * on the event is raised when a slot arrives.
 *
 * @return 1 if something has arrived already, and no event may come for it
 */
int tide_board_arm(struct tide_board *board);

/** No event for arrivals any more. */
void tide_board_disarm(struct tide_board *board);

#endif
