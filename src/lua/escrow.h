/**
 * @file escrow.h
 * @brief Shared objects that a worker has sent, until the host has collected them.
 *
 * The worker may have no value of them any more when the host comes to decode its
 * reply. So it keeps a hold of them as long as the slot stands as it left it. Should
 * the worker die before, its host lets go of them: see share/burial.c.
 */
#ifndef TIDE_LUA_ESCROW_H
#define TIDE_LUA_ESCROW_H

#include "lua/codec.h"
#include "shm/board.h"

struct tide_parcel; /* of one slot */

struct tide_escrow {
    struct tide_parcel *first;
};

/** The slot is about to be finished: keep what its reply names. */
void tide_escrow_keep(struct tide_escrow *escrow, struct tide_codec *codec,
                      const struct tide_board *board, uint32_t slot);

/** Let go of what the host has collected. */
void tide_escrow_look(struct tide_escrow *escrow,
                      const struct tide_board *board);

#endif
