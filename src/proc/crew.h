/**
 * @file crew.h
 * @brief A crew in the supervisor: a board and the processes that work at it.
 *
 * For the files of the supervisor process only. crew.c tells the states of a
 * place, office.c has the loop that all events come through.
 */
#ifndef TIDE_PROC_CREW_H
#define TIDE_PROC_CREW_H

#include "proc/channel.h"
#include "proc/supervisor.h"
#include "proc/watch.h"
#include "shm/arena.h"
#include "shm/board.h"

#include <stdint.h>
#include <sys/types.h>

enum tide_place_state { TIDE_VACANT, TIDE_RUNNING, TIDE_ENDED };

struct tide_place {
    enum tide_place_state state;
    pid_t pid;
    uint64_t since_ns;  /* RUNNING: when it was forked */
    uint64_t due_ns;    /* VACANT: when to fork */
    uint64_t items;     /* its record's total when it was forked */
    uint64_t killed_ns; /* RUNNING: when we sent SIGKILL first; 0: we did not */
    struct tide_who who; /* reserved for it in the commons */
    struct tide_watch watch;
};

struct tide_crew {
    struct tide_crew *next;
    uint32_t id;
    struct tide_who host;
    uint32_t place_count; /* room */
    uint32_t manned;      /* places from here on never had a process */
    uint32_t wanted;      /* places from here on are to be ENDED */
    struct tide_arena arena;
    struct tide_board board;
    int event_fd;
    uint64_t config;
    uint64_t config_bytes;
    uint32_t futile; /* deaths in a row before any item */
    int started;     /* every place has had a process */
    int stopping;
    int broken;
    uint32_t cuts_heeded; /* see tide_watch_heed_cuts() */
    int is_watching;      /* there is timed work, or was lately, */
    uint64_t timed_ns;    /* and was seen last then */
    int is_pursuing;      /* somebody is to be killed who still lives */
    int is_holding;       /* somebody may be held, see watch.c */
    int is_killing;       /* somebody was killed who is not reaped yet */
    char reason[TIDE_REASON_BYTES];
    struct tide_place places[];
};

struct tide_office {
    struct tide_worker_ops ops;
    void *context;
    int channel;
    int host_fd;      /* pidfd, -1 on a kernel without */
    int signal_fd;    /* of SIGCHLD and SIGCONT */
    uint64_t seen_ns; /* when the loop last came round */
    struct tide_crew *crews;
};

/**
 * The places and the board as a CREATE message describes them, nobody forked.
 *
 * @param event_fd  the crew's from now on, unless it fails
 * @return NULL with the cause in `err`
 */
struct tide_crew *tide_crew_new(const struct tide_message *order, int arena_fd,
                                int event_fd, struct tide_error *err);

/** Unmap, close and free; every place is ENDED. */
void tide_crew_free(struct tide_crew *crew);

/** Fork a worker for each place, until one fails and stops the crew. */
void tide_crew_start(struct tide_office *office, struct tide_crew *crew);

/** The first `count` workers are wanted from now on. */
void tide_crew_resize(struct tide_crew *crew, uint32_t count);

/** Kill every worker; a vacancy is ENDED. */
void tide_crew_stop(struct tide_crew *crew);

/** Send a signal to every worker. */
void tide_crew_signal(struct tide_crew *crew, int signal_number);

/** Kill the process in a RUNNING place. */
void tide_crew_kill(struct tide_crew *crew, uint32_t index);

/** Wait no longer for who was killed and cannot die. @return when to look again, or
 * TIDE_FOREVER */
uint64_t tide_crew_give_up(struct tide_crew *crew, uint64_t now_ns);

/** Fork one of what is due. @return when the next one is, or TIDE_FOREVER */
uint64_t tide_crew_fork_due(struct tide_office *office, struct tide_crew *crew,
                            uint64_t now_ns);

/** waitpid(2) reports `status` of the process in place `index`. */
void tide_crew_take_note(struct tide_crew *crew, uint32_t index, int status,
                         uint64_t now_ns);

/** Is every place ENDED, and will stay so? */
int tide_crew_is_gone(const struct tide_crew *crew);

#endif
