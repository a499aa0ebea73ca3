/**
 * @file queue.h
 * @brief A queue of messages among processes: many producers, many consumers.
 *
 *   Process     May call
 *   producer    tide_queue_put, _wait_for_room
 *   consumer    tide_queue_get, then _put_away; _wait_for_item; _done
 *   any         tide_queue_close, _size, _wait_for_done
 *
 * All hold the object (object.h). Nobody serves the queue: who puts copies into
 * shared memory, who gets copies out. A process killed at any instant leaves a queue
 * that works; with it is lost what it was about to put, or had taken.
 */
#ifndef TIDE_SHARE_QUEUE_H
#define TIDE_SHARE_QUEUE_H

#include "share/load.h"
#include "share/waiters.h"

/** Say what happens to queues at a death; before the process enters. */
void tide_queue_define(void);

/** @param capacity  items; 0: as many as memory takes */
int tide_queue_make(tide_handle *out, uint64_t capacity,
                    struct tide_error *err);

/**
 * Append a copy of a message.
 *
 * @return TIDE_OK; TIDE_EAGAIN: it is full; TIDE_ECLOSED; TIDE_ENOMEM
 */
int tide_queue_put(tide_handle handle, const struct tide_message *message,
                   struct tide_error *err);

/** What was taken from a queue. */
struct tide_queue_item {
    const unsigned char *bytes; /* in `room`, or in the block */
    size_t length;
    uint64_t block; /* ours until tide_queue_put_away(); 0: there is none */
};

enum { TIDE_QUEUE_ROOM_BYTES = 2048 };

/**
 * Take the oldest message. Objects that it names are held for it until it is put
 * away.
 *
 * @param room  for TIDE_QUEUE_ROOM_BYTES, where small ones are copied to
 * @return TIDE_OK; TIDE_EAGAIN: it is empty; TIDE_ECLOSED: it is, and will be
 */
int tide_queue_get(struct tide_queue_item *out, tide_handle handle,
                   unsigned char *room);

/** The caller has read the item, and holds what of it is to live on. */
void tide_queue_put_away(tide_handle handle,
                         const struct tide_queue_item *item);

/** Wait until it may be worth while to put, or get. @return as tide_wait_rest() */
int tide_queue_wait_for_room(struct tide_wait *wait);
int tide_queue_wait_for_item(struct tide_wait *wait);

/** One item that was taken is done. @return 0; -1: there is none that is not */
int tide_queue_done(tide_handle handle);

/** Wait until every item that was put is done. @return as tide_wait_rest() */
int tide_queue_wait_for_done(struct tide_wait *wait);

/** Items in it now. */
uint64_t tide_queue_size(tide_handle handle);
uint64_t tide_queue_capacity(tide_handle handle); /* 0: without bound */

/** No more is put; what is in it can be taken. */
void tide_queue_close(tide_handle handle);
int tide_queue_is_closed(tide_handle handle);

#endif
