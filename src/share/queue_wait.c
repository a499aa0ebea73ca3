/*
 * Waiting at a queue, the count of what is done, and the queue's own end.
 */
#include "share/queue_inner.h"

#include "shm/wake.h"

#include <errno.h>

static struct tide_queue *queue_of(tide_handle handle)
{
    return tide_object_body(handle);
}

/* ---- waiting ---- */

static int has_item(struct tide_queue *queue)
{
    return atomic_load(&queue->put_count) > atomic_load(&queue->taken_count) ||
           atomic_load(&queue->closed);
}

static int has_room(struct tide_queue *queue)
{
    uint64_t taken = atomic_load(&queue->taken_count);
    return queue->capacity == 0 ||
           atomic_load(&queue->put_count) < taken + queue->capacity ||
           atomic_load(&queue->closed);
}

static int is_done(struct tide_queue *queue)
{
    return atomic_load(&queue->done_count) >= atomic_load(&queue->put_count);
}

static int spin(struct tide_queue *queue, int (*is_met)(struct tide_queue *))
{
    for (int turn = tide_spin_turns(); turn > 0; turn--) {
        if (is_met(queue))
            return 1;
        tide_pause();
    }
    return is_met(queue);
}

/* In line first, then a look: who comes after the look sees us. */
static int wait_for(struct tide_wait *wait, struct tide_queue *queue,
                    struct tide_waiters *set,
                    int (*is_met)(struct tide_queue *))
{
    int status = TIDE_OK;
    wait->set = set;
    wait->stuck = &queue->stuck;
    if (!wait->is_listed) {
        if (spin(queue, is_met))
            return TIDE_OK;
        tide_wait_begin(wait);
    }
    if (!is_met(queue))
        status = tide_wait_rest(wait);
    if (status == TIDE_EAGAIN)
        return status;
    return tide_wait_end(wait) ? TIDE_OK : status;
}

int tide_queue_wait_for_item(struct tide_wait *wait)
{
    struct tide_queue *queue = queue_of(wait->object);
    return wait_for(wait, queue, &queue->takers, has_item);
}

int tide_queue_wait_for_room(struct tide_wait *wait)
{
    struct tide_queue *queue = queue_of(wait->object);
    return wait_for(wait, queue, &queue->putters, has_room);
}

int tide_queue_wait_for_done(struct tide_wait *wait)
{
    struct tide_queue *queue = queue_of(wait->object);
    for (;;) {
        int status = wait_for(wait, queue, &queue->joiners, is_done);
        if (status != TIDE_OK || is_done(queue))
            return status;
    }
}

/* ---- counts ---- */

int tide_queue_done(tide_handle handle)
{
    struct tide_queue *queue = queue_of(handle);
    uint64_t done = atomic_load(&queue->done_count);
    do {
        if (done >= atomic_load(&queue->taken_count))
            return -1;
    } while (
        !atomic_compare_exchange_weak(&queue->done_count, &done, done + 1));
    if (is_done(queue))
        tide_waiters_wake(&queue->joiners, UINT32_MAX);
    return 0;
}

uint64_t tide_queue_size(tide_handle handle)
{
    struct tide_queue *queue = queue_of(handle);
    uint64_t taken = atomic_load(&queue->taken_count);
    uint64_t put = atomic_load(&queue->put_count);
    return put > taken ? put - taken : 0;
}

uint64_t tide_queue_capacity(tide_handle handle)
{
    return queue_of(handle)->capacity;
}

/* ---- the end ---- */

void tide_queue_close(tide_handle handle)
{
    struct tide_queue *queue = queue_of(handle);
    tide_queue_enter_put(queue);
    atomic_store(&queue->closed, 1);
    tide_guard_leave(&queue->put_guard);
    tide_waiters_wake(&queue->takers, UINT32_MAX);
    tide_waiters_wake(&queue->putters, UINT32_MAX);
}

int tide_queue_is_closed(tide_handle handle)
{
    return atomic_load(&queue_of(handle)->closed) != 0;
}

/* Free what was not taken of a segment, and the segment. @return the next one */
static uint64_t free_segment(uint64_t offset)
{
    struct tide_segment *segment = tide_segment_at(offset);
    uint32_t at = (uint32_t)atomic_load(&segment->taken);
    uint32_t end = (uint32_t)atomic_load(&segment->published);
    while (at < end) {
        const struct tide_record *record = (void *)(segment->records + at);
        tide_load_free(tide_record_load(record));
        at += tide_record_bytes(record);
    }
    uint64_t next = atomic_load(&segment->next);
    tide_share_free(offset);
    return next;
}

static void destroy(struct tide_object *object)
{
    struct tide_queue *queue = tide_commons_at(object->body);
    if (atomic_load(&queue->head) == 0)
        return; /* it was never whole */
    tide_queue_mend_get(queue);
    for (uint32_t i = 0; i < TIDE_ENTRIES_MAX; i++)
        tide_load_free(atomic_exchange(&queue->hands[i], 0));
    for (uint64_t at = atomic_load(&queue->head); at != 0;)
        at = free_segment(at);
}

/* Without the guard nobody can tell whether its load is still in the queue. */
static void empty_hand(struct tide_queue *queue, uint32_t entry)
{
    if (atomic_load(&queue->hands[entry]) == 0)
        return;
    int status = pthread_mutex_trylock(&queue->get_guard.mutex);
    if (status == EBUSY)
        return; /* see the other empty_hand() */
    if (status == EOWNERDEAD)
        tide_queue_mend_get(queue);
    uint64_t block = atomic_exchange(&queue->hands[entry], 0);
    tide_guard_leave(&queue->get_guard);
    tide_load_free(block);
}

static void bury(struct tide_object *object, uint32_t entry)
{
    struct tide_queue *queue = tide_commons_at(object->body);
    tide_waiters_bury(&queue->takers, &queue->stuck, entry);
    tide_waiters_bury(&queue->putters, &queue->stuck, entry);
    tide_waiters_bury(&queue->joiners, &queue->stuck, entry);
    empty_hand(queue, entry);
}

void tide_queue_define(void)
{
    static const struct tide_kind_ops ops = { .destroy = destroy,
                                              .bury = bury };
    tide_kind_define(TIDE_SHARED_QUEUE, &ops);
}
