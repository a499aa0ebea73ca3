/*
 * Sixteen parts, by the high bits of the hash; each has a guard, a list of nodes and a
 * table into it (dict_list.c). A change is one store, inside the guard:
 *
 *   Change          Store                      Before it
 *   a new key       the link to the node       the node is whole, without a value
 *   a new value     the node's `value`         the value is in the other cell, or
 *                                              in a load
 *   no value        the link past the node     -
 *   an update       `value`, then `owner`      as above
 *
 * A kill leaves what was before the store or after it, and besides: a node or a load
 * that nobody finds, freed with the dictionary; a `count` that is wrong, counted anew
 * by who enters next; an owner that is dead, which is as none.
 *
 * A node that is owned stays where it is. Without a value it is as none. A load that
 * nobody can find any more is freed outside the guard.
 */
#include "share/dict_inner.h"

#include "shm/wake.h"

#include <string.h>

static struct tide_dict *dict_of(tide_handle handle)
{
    return tide_object_body(handle);
}

/* ---- making ---- */

static void prepare(struct tide_object *object, void *context)
{
    struct tide_dict *dict = tide_commons_at(object->body);
    int *failed = context;
    for (uint32_t i = 0; i < TIDE_DICT_PARTS; i++)
        *failed |= tide_guard_init(&dict->parts[i].guard);
}

int tide_dict_make(tide_handle *out, struct tide_error *err)
{
    int failed = 0;
    int status = tide_object_make(
        out, TIDE_SHARED_DICT, sizeof(struct tide_dict), prepare, &failed, err);
    if (status != TIDE_OK || !failed)
        return status;
    tide_object_drop(*out);
    return tide_fail(err, TIDE_ESYS, "the system has no robust mutexes");
}

static uint64_t mix(uint64_t a)
{
    a = (a ^ a >> 32) * UINT64_C(0xd6e8feb86659fd93);
    a = (a ^ a >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return a ^ a >> 32;
}

struct tide_dict_key tide_dict_key_of(const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    uint64_t hash = length, word;
    size_t left = length;
    for (; left >= sizeof word; left -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = mix(hash ^ word) + UINT64_C(0x9e3779b97f4a7c15);
    }
    word = 0;
    memcpy(&word, at, left);
    return (struct tide_dict_key){ .bytes = bytes,
                                   .length = (uint32_t)length,
                                   .hash = mix(hash ^ word) };
}

static struct tide_part *enter(struct tide_dict *dict, uint64_t hash)
{
    struct tide_part *part = tide_part_of(dict, hash);
    if (tide_guard_enter(&part->guard)) {
        atomic_store(&part->count, tide_part_recount(part));
        tide_guard_mended(&part->guard);
    }
    return part;
}

/* ---- owners ---- */

static uint64_t our_name(void)
{
    uint32_t self = tide_commons.self;
    return (uint64_t)tide_entry_who(self).incarnation << 32 | self;
}

static int is_another_s(const struct tide_node *node)
{
    uint64_t owner = atomic_load(&node->owner);
    struct tide_who who = { (uint32_t)owner, (uint32_t)(owner >> 32) };
    return owner != 0 && owner != our_name() && tide_entry_is_alive(who);
}

static int is_ours(const struct tide_node *node)
{
    return atomic_load(&node->owner) == our_name();
}

static void tell(struct tide_dict *dict)
{
    atomic_thread_fence(memory_order_seq_cst);
    tide_waiters_wake(&dict->waiters, UINT32_MAX);
}

/* ---- values ---- */

static uint64_t load_of(uint64_t value)
{
    return (value & TIDE_VALUE_MASK) == TIDE_VALUE_LOAD
               ? value & ~(uint64_t)TIDE_VALUE_MASK
               : 0;
}

static int fits_cell(const struct tide_message *message)
{
    return message->length <= TIDE_CELL_BYTES && message->held_count == 0;
}

/* The word for a message, which goes into `load` or the cell that is not in use. */
static uint64_t prepare_value(struct tide_node *node,
                              const struct tide_message *message, uint64_t load)
{
    if (load != 0)
        return load | TIDE_VALUE_LOAD;
    uint64_t now = atomic_load_explicit(&node->value, memory_order_relaxed);
    enum tide_value_form form = (now & TIDE_VALUE_MASK) == TIDE_VALUE_CELL_0
                                    ? TIDE_VALUE_CELL_1
                                    : TIDE_VALUE_CELL_0;
    memcpy(node->cells[form - TIDE_VALUE_CELL_0], message->bytes,
           message->length);
    return (uint64_t)message->length << TIDE_VALUE_SHIFT | form;
}

/* What a node's value is, in place. */
static struct tide_message message_of(const struct tide_node *node)
{
    uint64_t value = atomic_load_explicit(&node->value, memory_order_relaxed);
    uint64_t load = load_of(value);
    if (load != 0)
        return tide_load_message(tide_commons_at(load));
    return (struct tide_message){
        .bytes = node->cells[(value & TIDE_VALUE_MASK) == TIDE_VALUE_CELL_1],
        .length = (size_t)(value >> TIDE_VALUE_SHIFT),
    };
}

static size_t round_up(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

/* Copy a node's value, and its key if `with_key`, and hold what it names. */
static int copy_out(struct tide_dict_copy *out, const struct tide_node *node,
                    int with_key)
{
    struct tide_message message = message_of(node);
    size_t key_bytes = with_key ? round_up(node->key_length) : 0;
    size_t held_bytes = message.held_count * sizeof(tide_handle);
    out->needed = key_bytes + held_bytes + message.length;
    if (out->needed > out->room_bytes)
        return TIDE_ENOMEM;
    unsigned char *at = out->room;
    out->key = at;
    out->key_length = node->key_length;
    if (with_key)
        memcpy(at, node->key, node->key_length);
    tide_handle *held = (void *)(at + key_bytes);
    for (size_t i = 0; i < message.held_count; i++) {
        held[i] = message.held[i];
        tide_object_hold(held[i], TIDE_SHARED_NONE, NULL);
    }
    memcpy(at + key_bytes + held_bytes, message.bytes, message.length);
    message.held = held;
    message.bytes = at + key_bytes + held_bytes;
    out->message = message;
    return TIDE_OK;
}

/* ---- looking ---- */

int tide_dict_get(tide_handle handle, const struct tide_dict_key *key,
                  struct tide_dict_copy *out)
{
    struct tide_part *part = enter(dict_of(handle), key->hash);
    struct tide_node *node = tide_part_seek(part, handle, key).node;
    int status = TIDE_EAGAIN;
    if (node != NULL && atomic_load(&node->value) != TIDE_VALUE_NONE)
        status = copy_out(out, node, 0);
    tide_guard_leave(&part->guard);
    return status;
}

int tide_dict_next(tide_handle handle, struct tide_dict_place *place,
                   const struct tide_dict_key *after,
                   struct tide_dict_copy *out)
{
    struct tide_dict *dict = dict_of(handle);
    int status = TIDE_EAGAIN;
    uint32_t index = place->part;
    for (; index < TIDE_DICT_PARTS && status == TIDE_EAGAIN; index++) {
        struct tide_part *part = enter(dict, (uint64_t)index << 60);
        const struct tide_node *node =
            after != NULL && index == place->part
                ? tide_part_after(part, handle, after)
                : tide_part_first(part);
        if (node != NULL)
            status = copy_out(out, node, 1);
        tide_guard_leave(&part->guard);
    }
    if (status == TIDE_OK)
        place->part = index - 1;
    return status;
}

uint64_t tide_dict_count(tide_handle handle)
{
    struct tide_dict *dict = dict_of(handle);
    uint64_t count = 0;
    for (uint32_t i = 0; i < TIDE_DICT_PARTS; i++)
        count += atomic_load(&dict->parts[i].count);
    return count;
}

/* ---- changing ---- */

static void count_by(struct tide_part *part, int64_t change)
{
    uint64_t count = atomic_load_explicit(&part->count, memory_order_relaxed);
    atomic_store_explicit(&part->count, count + (uint64_t)change,
                          memory_order_relaxed);
}

static void take_out(struct tide_part *part, struct tide_spot *spot,
                     uint64_t *garbage)
{
    uint64_t value = atomic_load(&spot->node->value);
    *garbage = load_of(value);
    tide_part_remove(part, spot);
    if (value != TIDE_VALUE_NONE)
        count_by(part, -1);
}

static void give_value(struct tide_part *part, struct tide_node *node,
                       uint64_t value, uint64_t *garbage)
{
    uint64_t old = atomic_load_explicit(&node->value, memory_order_relaxed);
    atomic_store(&node->value, value);
    *garbage = load_of(old);
    if (old == TIDE_VALUE_NONE && value != TIDE_VALUE_NONE) {
        count_by(part, 1);
        tide_part_grow(part);
    } else if (old != TIDE_VALUE_NONE && value == TIDE_VALUE_NONE) {
        count_by(part, -1);
    }
}

/* Inside the guard; the key is not another's. */
static int change(struct tide_part *part, tide_handle handle,
                  const struct tide_dict_key *key, struct tide_spot *spot,
                  const struct tide_message *message, uint64_t load,
                  uint64_t *garbage)
{
    if (message == NULL) {
        if (spot->node == NULL)
            return TIDE_OK;
        if (is_ours(spot->node))
            give_value(part, spot->node, TIDE_VALUE_NONE, garbage);
        else
            take_out(part, spot, garbage);
        return TIDE_OK;
    }
    if (spot->node == NULL && tide_part_insert(part, handle, spot, key) == NULL)
        return TIDE_ENOMEM;
    give_value(part, spot->node, prepare_value(spot->node, message, load),
               garbage);
    return TIDE_OK;
}

/* A load for a message that needs one. Returns -1 without memory. */
static int make_load(uint64_t *out, tide_handle handle,
                     const struct tide_message *message)
{
    *out = 0;
    if (message == NULL || fits_cell(message))
        return 0;
    *out = tide_load_make(handle, message);
    return *out != 0 ? 0 : -1;
}

int tide_dict_set(tide_handle handle, const struct tide_dict_key *key,
                  const struct tide_message *message)
{
    uint64_t garbage = 0; /* a load, freed when the guard is left */
    uint64_t load;
    int status = TIDE_EAGAIN;
    if (make_load(&load, handle, message) != 0)
        return TIDE_ENOMEM;
    struct tide_part *part = enter(dict_of(handle), key->hash);
    struct tide_spot spot = tide_part_seek(part, handle, key);
    if (spot.node == NULL || !is_another_s(spot.node))
        status = change(part, handle, key, &spot, message, load, &garbage);
    tide_guard_leave(&part->guard);
    if (status != TIDE_OK)
        tide_load_free(load);
    tide_load_free(garbage);
    return status;
}

/* ---- updates ---- */

/* Inside the guard. */
static int own(struct tide_part *part, tide_handle handle,
               const struct tide_dict_key *key, struct tide_dict_copy *out,
               int *has_value)
{
    struct tide_spot spot = tide_part_seek(part, handle, key);
    int status = TIDE_OK;
    *has_value = 0;
    if (spot.node == NULL)
        tide_part_insert(part, handle, &spot, key);
    if (spot.node == NULL)
        return TIDE_ENOMEM;
    if (is_another_s(spot.node))
        return TIDE_EAGAIN;
    if (is_ours(spot.node))
        return TIDE_EINVAL;
    if (atomic_load(&spot.node->value) != TIDE_VALUE_NONE) {
        *has_value = 1;
        status = copy_out(out, spot.node, 0);
    }
    if (status == TIDE_OK)
        atomic_store(&spot.node->owner, our_name());
    return status;
}

int tide_dict_begin(tide_handle handle, const struct tide_dict_key *key,
                    struct tide_dict_copy *out, int *has_value)
{
    out->needed = 0;
    struct tide_part *part = enter(dict_of(handle), key->hash);
    int status = own(part, handle, key, out, has_value);
    tide_guard_leave(&part->guard);
    return status;
}

/* Our key is nobody's from now on; without a value it is not there. */
static void disown(struct tide_part *part, struct tide_spot *spot)
{
    atomic_store(&spot->node->owner, 0);
    if (atomic_load(&spot->node->value) == TIDE_VALUE_NONE)
        tide_part_remove(part, spot);
}

int tide_dict_commit(tide_handle handle, const struct tide_dict_key *key,
                     const struct tide_message *message)
{
    struct tide_dict *dict = dict_of(handle);
    uint64_t garbage = 0;
    uint64_t load;
    if (make_load(&load, handle, message) != 0)
        return TIDE_ENOMEM;
    struct tide_part *part = enter(dict, key->hash);
    struct tide_spot spot = tide_part_seek(part, handle, key);
    int status = change(part, handle, key, &spot, message, load, &garbage);
    if (status == TIDE_OK)
        disown(part, &spot);
    tide_guard_leave(&part->guard);
    tide_load_free(garbage);
    tell(dict);
    return status;
}

void tide_dict_abort(tide_handle handle, const struct tide_dict_key *key)
{
    struct tide_dict *dict = dict_of(handle);
    struct tide_part *part = enter(dict, key->hash);
    struct tide_spot spot = tide_part_seek(part, handle, key);
    if (spot.node != NULL && is_ours(spot.node))
        disown(part, &spot);
    tide_guard_leave(&part->guard);
    tell(dict);
}

int tide_dict_wait(struct tide_wait *wait)
{
    struct tide_dict *dict = dict_of(wait->object);
    wait->set = &dict->waiters;
    wait->stuck = &dict->stuck;
    if (!wait->is_listed) {
        tide_wait_begin(wait); /* and the caller tries once more */
        return TIDE_OK;
    }
    int status = tide_wait_rest(wait);
    if (status != TIDE_EAGAIN && tide_wait_end(wait))
        return TIDE_OK;
    return status;
}

/* ---- the end ---- */

static void destroy(struct tide_object *object)
{
    struct tide_dict *dict = tide_commons_at(object->body);
    for (uint32_t i = 0; i < TIDE_DICT_PARTS; i++)
        tide_part_free(&dict->parts[i]);
}

static void bury(struct tide_object *object, uint32_t entry)
{
    struct tide_dict *dict = tide_commons_at(object->body);
    tide_waiters_bury(&dict->waiters, &dict->stuck, entry);
}

void tide_dict_define(void)
{
    static const struct tide_kind_ops ops = { .destroy = destroy,
                                              .bury = bury };
    tide_kind_define(TIDE_SHARED_DICT, &ops);
}
