/**
 * @file watch.h
 * @brief Deadlines of items, work that the host cuts off, and workers that cannot
 *        leave, in the supervisor.
 */
#ifndef TIDE_PROC_WATCH_H
#define TIDE_PROC_WATCH_H

#include "shm/board_super.h"

#include <stdint.h>

struct tide_crew;

enum tide_arrest {
    TIDE_AT_LARGE, /* as far as we have to do with it */
    TIDE_CALLED,   /* made to stop, to be looked at when it stands still */
    TIDE_KILLED    /* found guilty */
};

/** What is known of the process in a place; all zero for a new one. */
struct tide_watch {
    enum tide_arrest arrest;
    enum tide_death_cause verdict; /* KILLED: why */
    int is_held;                   /* stopped by somebody else */
    int is_seized;                 /* CALLED: traced, nobody else lets it go */
    int has_item;
    int is_cut;            /* the host wants `cut` to end, */
    struct tide_item item; /* in hand when it was looked at, */
    struct tide_item cut;  /* of which only slot and sequence count */
    uint64_t since_ns;     /* and first seen then */
    uint64_t called_ns;    /* CALLED: when */
    uint64_t stuck_ns;     /* seen STUCK first, or urged last, then; or 0 */
    uint32_t urged;        /* how often it was sent SIGCONT for that */
};

/** Work with a time limit was submitted. */
void tide_watch_begin(struct tide_crew *crew, uint64_t now_ns);

/** Pursue who runs what the host wants cut off, if it has said so anew. */
void tide_watch_heed_cuts(struct tide_crew *crew);

/** Look at what runs, arrest who is overdue, urge who is stuck. @return when to look
 * again */
uint64_t tide_watch_look(struct tide_crew *crew, uint64_t now_ns);

/**
 * A stop was reported, with this status.
 *
 * @return 1 if it was ours, and is settled; 0 if the worker stays stopped
 */
int tide_watch_on_stop(struct tide_crew *crew, uint32_t index, int wait_status,
                       uint64_t now_ns);

/** A stopped worker goes on. */
void tide_watch_on_continue(struct tide_crew *crew, uint32_t index);

/** The supervisor stood still so long, and with it whoever it watches. */
void tide_watch_excuse(struct tide_crew *crew, uint64_t gap_ns);

/** Why the worker died that was just reaped; before its slot is settled. */
enum tide_death_cause tide_watch_cause(const struct tide_crew *crew,
                                       uint32_t index, int wait_status);

#endif
