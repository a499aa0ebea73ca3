/**
 * @file channel.h
 * @brief Whole messages, with descriptors, between host and supervisor.
 *
 *   Direction             Message      Meaning
 *   host -> supervisor    CREATE       man a board: arena and eventfd attached
 *   host -> supervisor    COMMONS      map them; to one that was executed, at first
 *   host -> supervisor    LOOK         a board says something new: see board_watch.c
 *   supervisor -> host    STARTED      every worker of the crew was forked
 *   supervisor -> host    GONE         no worker is left, and why; the last word
 *
 * What the host wants of a crew it writes on the crew's board; LOOK is only a bell.
 * After any message the supervisor looks at every board, so a bell that finds the
 * queue full is not missed: there are messages that will be read after it.
 *
 * Either side sees end-of-file at once when the other is dead.
 */
#ifndef TIDE_PROC_CHANNEL_H
#define TIDE_PROC_CHANNEL_H

#include "base/status.h"
#include "share/commons.h"

#include <stdint.h>

enum { TIDE_MESSAGE_FDS = 2, TIDE_REASON_BYTES = 200 };

enum tide_message_kind {
    TIDE_MESSAGE_CREATE,
    TIDE_MESSAGE_COMMONS,
    TIDE_MESSAGE_LOOK,
    TIDE_MESSAGE_STARTED,
    TIDE_MESSAGE_GONE
};

struct tide_message {
    uint32_t kind;                  /* enum tide_message_kind */
    uint32_t crew;                  /* chosen by the host */
    struct tide_who host;           /* CREATE: whom the workers work for */
    uint64_t arena_bytes;           /* CREATE, COMMONS */
    uint64_t config;                /* CREATE: block for the workers, or 0 */
    uint64_t config_bytes;          /* CREATE */
    uint32_t broken;                /* GONE: ended against the host's will */
    char reason[TIDE_REASON_BYTES]; /* GONE and broken: why */
};

/** A pair of connected ends, close-on-exec and above 2; the first is the host's. */
int tide_channel_open(int ends[2], struct tide_error *err);

/**
 * Send a message; waits while the other side's queue is full, the host some seconds
 * at most: a supervisor may be stopped, with some hundred messages in its queue.
 *
 * @param fds  NULL, or TIDE_MESSAGE_FDS descriptors that are passed along
 * @return TIDE_OK; TIDE_EBROKEN if the other side is gone; TIDE_ETIMEOUT;
 *         TIDE_ESYS
 */
int tide_channel_send(int end, const struct tide_message *message,
                      const int *fds);

/** Send LOOK unless the queue is full. Never waits. */
void tide_channel_ring(int end, uint32_t crew);

/**
 * Receive a message if there is one; never blocks.
 *
 * @param fds  TIDE_MESSAGE_FDS places, -1 where none came; theirs is the caller's
 * @return TIDE_OK; TIDE_EAGAIN; TIDE_EBROKEN if the other side is gone or what
 *         came is no message
 */
int tide_channel_receive(int end, struct tide_message *out, int *fds);

/** Close the descriptors that came with a message. */
void tide_channel_drop(int *fds);

#endif
