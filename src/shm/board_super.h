/**
 * @file board_super.h
 * @brief The board as the supervisor uses it: deaths, stops, and what runs.
 */
#ifndef TIDE_SHM_BOARD_SUPER_H
#define TIDE_SHM_BOARD_SUPER_H

#include "shm/board.h"

/** What a worker is doing, as the supervisor sees it. */
struct tide_item {
    uint32_t slot;
    uint32_t sequence;
    uint32_t hand;
    uint32_t count; /* `hand` is no item any more when it is there */
    uint32_t timeout_ms;
};

/**
 * After worker `death->worker` was reaped: settle its region, mark the slot in
 * its hand LOST and tell the host. The caller then wakes everybody.
 */
void tide_board_reclaim(struct tide_board *board,
                        const struct tide_death *death);

/**
 * Worker `worker` was stopped by a signal: nobody shall count on it to wake up.
 * When it goes on it looks for work. The caller then wakes everybody.
 */
void tide_board_rouse(struct tide_board *board, uint32_t worker);

/** Is there a slot that only this worker may claim, or was lately? */
int tide_board_has_mail(const struct tide_board *board, uint32_t worker);

/** What `worker` runs now. @return 1; 0 if it runs nothing, or lies */
int tide_board_item_of(struct tide_item *out, const struct tide_board *board,
                       uint32_t worker);

/**
 * As tide_board_item_of(), for a worker that was stopped and may have claimed a slot
 * without having said so: looks at all slots.
 */
int tide_board_find_claimed(struct tide_item *out,
                            const struct tide_board *board, uint32_t worker);

/** The same; if it has claimed none, what it has finished last and perhaps not handed
 * over. */
int tide_board_find_item(struct tide_item *out, const struct tide_board *board,
                         uint32_t worker);

/** Who runs `slot` in this flight. @return 1; 0 if nobody does */
int tide_board_owner_of(uint32_t *out, const struct tide_board *board,
                        uint32_t slot, uint32_t sequence);

/** Did the host say tide_board_stop()? */
int tide_board_is_stopped(const struct tide_board *board);

/** Signals that it wants sent since the last call: bit n for n. */
uint64_t tide_board_take_signals(struct tide_board *board);

/** How often the host has said tide_board_cut_off(). */
uint32_t tide_board_cut_count(const struct tide_board *board);

/** The flight of a slot that the host wants cut off; 0 for none, or an old one. */
uint32_t tide_board_cut_of(const struct tide_board *board, uint32_t slot);

/** The shortest limit asked for since the watch began, in ms; 0: no watch. */
uint32_t tide_board_watching(const struct tide_board *board);

/** End the watch if there is no timed work. @return 1; 0: there is, go on */
int tide_board_end_watch(struct tide_board *board);

/** Wake every sleeping worker and the host. */
void tide_board_wake_all(struct tide_board *board);

#endif
