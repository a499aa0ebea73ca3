/**
 * @file pool_inner.h
 * @brief What the files of the pool share.
 */
#ifndef TIDE_POOL_POOL_INNER_H
#define TIDE_POOL_POOL_INNER_H

#include "pool/pool.h"
#include "shm/board_sleep.h"

/** Make the arena, with the board and the regions in it. */
int tide_pool_lay_out(struct tide_pool *pool,
                      const struct tide_pool_options *options, int event_fd,
                      struct tide_error *err);

#endif
