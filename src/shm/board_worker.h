/**
 * @file board_worker.h
 * @brief The part of a board that workers call; see board.h.
 */
#ifndef TIDE_SHM_BOARD_WORKER_H
#define TIDE_SHM_BOARD_WORKER_H

#include "shm/board.h"

/**
 * Claim the worker's mail, or else the oldest ready slot. Lock-free; wait-free
 * while there is work.
 *
 * @return TIDE_OK; TIDE_EAGAIN if nothing is ready
 */
int tide_board_claim(uint32_t *out, struct tide_board *board, uint32_t worker);

/**
 * Record `offset`, a block just allocated from `heap`, as where the slot's result
 * is. From here on the block is returned by the host, also if the worker dies.
 * A block recorded before is freed.
 */
void tide_board_publish(struct tide_slot *slot, struct tide_heap *heap,
                        uint64_t offset);

/**
 * Hand over a claimed slot whose reply is complete, except `next` and `end_ns`.
 *
 * @param urgent  the host shall not sleep on it, however few it waits for
 */
void tide_board_finish(struct tide_board *board, uint32_t slot, uint32_t worker,
                       int urgent);

/**
 * Wait for work: spin a little if a processor is idle, then sleep.
 *
 * @return TIDE_OK (claim again), TIDE_ECLOSED when there will be no more, or none
 *         for this worker
 */
int tide_board_rest(struct tide_board *board, uint32_t worker);

/**
 * The same, until a deadline.
 *
 * @return also TIDE_ETIMEOUT: there is nothing to claim
 */
int tide_board_doze(struct tide_board *board, uint32_t worker,
                    uint64_t deadline_ns);

/** The sequence of a slot that the caller has claimed. */
uint32_t tide_board_sequence(const struct tide_board *board, uint32_t slot);

/** Has the host released a slot that the caller finished with this sequence? */
int tide_board_is_collected(const struct tide_board *board, uint32_t slot,
                            uint32_t sequence);

#endif
