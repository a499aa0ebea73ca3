/*
 * A chain of segments; producers write at the last, consumers read at the first, each
 * side inside a guard of its own. The sides meet in two words of a segment:
 *
 *   Word        Written by   When
 *   published   producer     the record before it is written whole: release
 *   next        producer     the next segment is laid out; `published` is final
 *   taken       consumer     the record is copied out: release
 *   head        consumer     all of it is taken and there is a next: to that one
 *   tail        producer     after `next`: to that one
 *   closed      anybody      inside the put guard: nothing is published after it
 *
 * Each is one store, so a kill leaves the state before it or after it:
 *
 *   Killed between                    Left                       Mended
 *   alloc and next                    a block nobody finds       freed with the queue
 *   next and tail                     tail behind                next producer, or the
 *                                                                consumer, see below:
 *                                                                along `next` to the last
 *   published and put_count           a count too low by one     next producer; or the
 *                                                                consumer of that item
 *   refer and published               an object held for         never: see object.h
 *                                     nothing
 *   taken and taken_count             a count too low            next consumer
 *   head and the free of the old      a block nobody finds       freed with the queue
 *   taken and put away                a load in hand             burial, or whoever has
 *                                                                that entry next
 *   the hand's store and the free     a load nobody finds        freed with the queue
 *
 * HANDS  A message that is large, or names objects, lies in a load. Its consumer writes
 * it into `hands` before `taken`. Died it between, the load is still in the queue: the
 * one who mends strikes it out of all hands. So once the guard has been entered (and
 * mended) a load in a dead one's hand is nobody else's.
 *
 * A segment is freed when all of it is taken, there is a next, and no producer looks at
 * it. One does while it is the tail; a producer that was killed, or is about to go on,
 * leaves it the tail after there is a next. So a consumer that comes to the end of the
 * tail goes inside the put guard once, after which it is not the tail. (Nobody goes
 * inside the other way round.)
 *
 * Neither side looks at a word of the other's while it knows that there is something:
 * `seen` and `seen_taken` are what it read there last.
 *
 * Sleep and wake: publish, then look at the takers; stand in line, then look at what
 * is published (waiters.c). The fence makes the store of the first pair visible before
 * the look.
 */
#include "share/queue_inner.h"

#include "shm/wake.h"

#include <string.h>

enum {
    FIRST_SEGMENT_BYTES = 4096,
    SEGMENT_BYTES = 1 << 16,
    INSIDE_MAX = TIDE_QUEUE_ROOM_BYTES /* larger messages have a load */
};

static struct tide_queue *queue_of(tide_handle handle)
{
    return tide_object_body(handle);
}

/* ---- making ---- */

static void prepare(struct tide_object *object, void *context)
{
    struct tide_queue *queue = tide_commons_at(object->body);
    const uint64_t *capacity = context;
    queue->capacity = *capacity;
    if (tide_guard_init(&queue->put_guard) != 0 ||
        tide_guard_init(&queue->get_guard) != 0)
        atomic_store(&queue->closed, 1);
}

static uint64_t new_segment(tide_handle handle, uint64_t bytes, uint64_t first)
{
    uint64_t offset = tide_share_alloc(handle, bytes);
    if (offset == 0)
        return 0;
    struct tide_segment *segment = tide_segment_at(offset);
    atomic_init(&segment->published, 0);
    atomic_init(&segment->taken, 0);
    atomic_init(&segment->next, 0);
    segment->first = first;
    segment->capacity = bytes - sizeof *segment;
    return offset;
}

int tide_queue_make(tide_handle *out, uint64_t capacity, struct tide_error *err)
{
    int status =
        tide_object_make(out, TIDE_SHARED_QUEUE, sizeof(struct tide_queue),
                         prepare, &capacity, err);
    if (status != TIDE_OK)
        return status;
    struct tide_queue *queue = queue_of(*out);
    uint64_t segment = new_segment(*out, FIRST_SEGMENT_BYTES, 0);
    atomic_store(&queue->tail, segment);
    atomic_store(&queue->head, segment);
    if (segment != 0 && !atomic_load(&queue->closed))
        return TIDE_OK;
    tide_object_drop(*out);
    return segment == 0
               ? tide_fail(err, TIDE_ENOMEM, "no shared memory left")
               : tide_fail(err, TIDE_ESYS, "the system has no robust mutexes");
}

/* ---- putting ---- */

static uint64_t end_of(const struct tide_segment *segment)
{
    return segment->first +
           tide_extent_unpack(atomic_load(&segment->published)).items;
}

void tide_queue_enter_put(struct tide_queue *queue)
{
    if (!tide_guard_enter(&queue->put_guard))
        return;
    uint64_t next;
    while ((next = atomic_load(
                &tide_segment_at(atomic_load(&queue->tail))->next)) != 0)
        atomic_store(&queue->tail, next);
    atomic_store(&queue->put_count,
                 end_of(tide_segment_at(atomic_load(&queue->tail))));
    tide_guard_mended(&queue->put_guard);
}

static int is_full(struct tide_queue *queue, uint64_t count)
{
    if (queue->capacity == 0 || count - queue->seen_taken < queue->capacity)
        return 0;
    queue->seen_taken = atomic_load(&queue->taken_count);
    return count - queue->seen_taken >= queue->capacity;
}

/* The segment to write a record of so many bytes to, and where. Inside the guard. */
static struct tide_segment *find_place(struct tide_queue *queue,
                                       tide_handle handle, uint32_t bytes,
                                       struct tide_extent *at)
{
    struct tide_segment *segment = tide_segment_at(
        atomic_load_explicit(&queue->tail, memory_order_relaxed));
    *at = tide_extent_unpack(
        atomic_load_explicit(&segment->published, memory_order_relaxed));
    if (bytes <= segment->capacity - at->bytes)
        return segment;
    uint64_t next =
        new_segment(handle, SEGMENT_BYTES, segment->first + at->items);
    if (next == 0)
        return NULL;
    atomic_store_explicit(&segment->next, next, memory_order_release);
    atomic_store(&queue->tail, next);
    *at = (struct tide_extent){ 0, 0 };
    return tide_segment_at(next);
}

static void write_record(struct tide_segment *segment, struct tide_extent at,
                         const struct tide_message *message, uint64_t block)
{
    struct tide_record *record = (void *)(segment->records + at.bytes);
    record->in_block = block != 0;
    record->length = block != 0 ? 0 : (uint32_t)message->length;
    if (block != 0)
        memcpy(record->bytes, &block, sizeof block);
    else
        memcpy(record->bytes, message->bytes, message->length);
    at.items++;
    at.bytes += tide_record_bytes(record);
    atomic_store_explicit(&segment->published, tide_extent_pack(at),
                          memory_order_release);
}

/* Inside the guard. */
static int append(struct tide_queue *queue, tide_handle handle,
                  const struct tide_message *message, uint64_t block)
{
    struct tide_extent at;
    uint64_t count =
        atomic_load_explicit(&queue->put_count, memory_order_relaxed);
    size_t inside = block != 0 ? sizeof block : message->length;
    if (atomic_load_explicit(&queue->closed, memory_order_relaxed))
        return TIDE_ECLOSED;
    if (is_full(queue, count))
        return TIDE_EAGAIN;
    struct tide_segment *segment =
        find_place(queue, handle,
                   (uint32_t)(sizeof(struct tide_record) + inside + 7), &at);
    if (segment == NULL)
        return TIDE_ENOMEM;
    write_record(segment, at, message, block);
    atomic_store_explicit(&queue->put_count, count + 1, memory_order_relaxed);
    return TIDE_OK;
}

int tide_queue_put(tide_handle handle, const struct tide_message *message,
                   struct tide_error *err)
{
    struct tide_queue *queue = queue_of(handle);
    uint64_t block = 0;
    int status = TIDE_OK;
    if (message->length > INSIDE_MAX || message->held_count > 0) {
        block = tide_load_make(handle, message);
        status = block != 0 ? TIDE_OK : TIDE_ENOMEM;
    }
    if (status == TIDE_OK) {
        tide_queue_enter_put(queue);
        status = append(queue, handle, message, block);
        tide_guard_leave(&queue->put_guard);
    }
    if (status != TIDE_OK) {
        tide_load_free(block);
        return status == TIDE_ENOMEM
                   ? tide_fail(err, status, "no shared memory left")
                   : status;
    }
    atomic_thread_fence(memory_order_seq_cst);
    tide_waiters_wake(&queue->takers, 1);
    return TIDE_OK;
}

/* ---- getting ---- */

/* The record that is next to be taken from the head; NULL: none is published. */
static struct tide_record *peek(struct tide_queue *queue,
                                struct tide_segment *head,
                                struct tide_extent *taken)
{
    *taken = tide_extent_unpack(
        atomic_load_explicit(&head->taken, memory_order_relaxed));
    if (taken->bytes >=
        atomic_load_explicit(&queue->seen, memory_order_relaxed)) {
        uint64_t published =
            atomic_load_explicit(&head->published, memory_order_acquire);
        atomic_store_explicit(&queue->seen, (uint32_t)published,
                              memory_order_relaxed);
        if (taken->bytes >= (uint32_t)published)
            return NULL;
    }
    return (void *)(head->records + taken->bytes);
}

void tide_queue_mend_get(struct tide_queue *queue)
{
    struct tide_extent taken;
    struct tide_segment *head = tide_segment_at(atomic_load(&queue->head));
    atomic_store(&queue->seen, 0);
    const struct tide_record *record = peek(queue, head, &taken);
    uint64_t block = record != NULL ? tide_record_load(record) : 0;
    for (uint32_t i = 0; block != 0 && i < TIDE_ENTRIES_MAX; i++)
        if (atomic_load(&queue->hands[i]) == block)
            atomic_store(&queue->hands[i], 0);
    atomic_store(&queue->taken_count, head->first + taken.items);
    tide_guard_mended(&queue->get_guard);
}

void tide_queue_enter_get(struct tide_queue *queue)
{
    if (tide_guard_enter(&queue->get_guard))
        tide_queue_mend_get(queue);
}

/* All of the head is taken. */
static void leave_segment(struct tide_queue *queue, uint64_t head,
                          uint64_t next)
{
    if (atomic_load(&queue->tail) == head) {
        tide_queue_enter_put(queue);
        tide_guard_leave(&queue->put_guard);
    }
    atomic_store(&queue->seen, 0);
    atomic_store(&queue->head, next);
    tide_share_free(head);
}

/* The next record and its segment, over the ends of segments. */
static struct tide_record *find_record(struct tide_queue *queue,
                                       struct tide_segment **segment,
                                       struct tide_extent *taken)
{
    for (;;) {
        uint64_t head =
            atomic_load_explicit(&queue->head, memory_order_relaxed);
        *segment = tide_segment_at(head);
        struct tide_record *record = peek(queue, *segment, taken);
        if (record != NULL)
            return record;
        uint64_t next =
            atomic_load_explicit(&(*segment)->next, memory_order_acquire);
        if (next == 0)
            return NULL;
        /* What was published before the next segment was linked is seen now. */
        record = peek(queue, *segment, taken);
        if (record != NULL)
            return record;
        leave_segment(queue, head, next);
    }
}

/* Somebody who had our entry died with a load in its hand, and was buried in haste. */
static void empty_hand(struct tide_queue *queue)
{
    tide_load_free(atomic_exchange(&queue->hands[tide_commons.self], 0));
}

static void copy_out(struct tide_queue *queue, const struct tide_record *record,
                     struct tide_queue_item *out, unsigned char *room)
{
    out->block = tide_record_load(record);
    if (out->block == 0) {
        memcpy(room, record->bytes, record->length);
        out->bytes = room;
        out->length = record->length;
        return;
    }
    empty_hand(queue);
    atomic_store(&queue->hands[tide_commons.self], out->block);
    struct tide_message message =
        tide_load_message(tide_commons_at(out->block));
    out->bytes = message.bytes;
    out->length = message.length;
}

/* Inside the guard. */
static int take(struct tide_queue *queue, struct tide_queue_item *out,
                unsigned char *room)
{
    struct tide_segment *segment;
    struct tide_extent taken;
    const struct tide_record *record = find_record(queue, &segment, &taken);
    if (record == NULL && atomic_load(&queue->closed))
        record = find_record(queue, &segment, &taken); /* it came before */
    if (record == NULL)
        return atomic_load(&queue->closed) ? TIDE_ECLOSED : TIDE_EAGAIN;
    copy_out(queue, record, out, room);
    taken.items++;
    taken.bytes += tide_record_bytes(record);
    atomic_store_explicit(&segment->taken, tide_extent_pack(taken),
                          memory_order_release);
    uint64_t count = segment->first + taken.items;
    atomic_store_explicit(&queue->taken_count, count, memory_order_relaxed);
    return TIDE_OK;
}

/* Its producer may have been killed before it had counted the item. */
static void help_count(struct tide_queue *queue, uint64_t taken)
{
    uint64_t put =
        atomic_load_explicit(&queue->put_count, memory_order_relaxed);
    while (put < taken &&
           !atomic_compare_exchange_weak(&queue->put_count, &put, taken))
        continue;
}

int tide_queue_get(struct tide_queue_item *out, tide_handle handle,
                   unsigned char *room)
{
    struct tide_queue *queue = queue_of(handle);
    tide_queue_enter_get(queue);
    int status = take(queue, out, room);
    uint64_t taken =
        atomic_load_explicit(&queue->taken_count, memory_order_relaxed);
    tide_guard_leave(&queue->get_guard);
    if (status != TIDE_OK)
        return status;
    help_count(queue, taken);
    if (queue->capacity != 0) {
        atomic_thread_fence(memory_order_seq_cst);
        tide_waiters_wake(&queue->putters, 1);
    }
    return TIDE_OK;
}

void tide_queue_put_away(tide_handle handle, const struct tide_queue_item *item)
{
    struct tide_queue *queue = queue_of(handle);
    if (item->block == 0)
        return;
    /* In this order: what is freed twice would be somebody else's. */
    atomic_store(&queue->hands[tide_commons.self], 0);
    tide_load_free(item->block);
}
