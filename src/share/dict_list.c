/*
 * A part is one list of nodes in the order of their keys' reversed hashes, and a table
 * of buckets that begin in it (Shalev and Shavit's split-ordered list). Bucket b of
 * 2^k is a link of order reverse(b); between it and the next bucket's are the keys
 * whose hashes have b in their low k bits. Twice as many buckets are one store: no node
 * moves, and a new bucket's link is put in its place when that is looked for first. So
 * nobody is ever held up by growth, and there is no instant at which a kill could
 * leave it half done.
 *
 * Orders of buckets are even, those of keys odd. Keys of the same order lie in the
 * order of their bytes: every key has a place of its own, at which to go on.
 *
 * Buckets lie in tables, each as large as all before it; a table is made when one of
 * its buckets is. Where there is no memory for one, the search begins at the bucket
 * that was split, and is longer.
 *
 * Small nodes are cut from slabs, one after the other, and removed ones kept by size,
 * so that a node is a line or two. A kill may lose one of them until the dictionary is
 * freed: each word here is stored before the memory is used, or after it is not.
 */
#include "share/dict_inner.h"

#include <string.h>

enum { FIRST_BITS = 4, NODES_PER_BUCKET = 2, SLAB_BYTES = 16384 };

/* ---- order ---- */

static uint64_t reverse(uint64_t bits)
{
    const uint64_t ones = UINT64_C(0x5555555555555555);
    const uint64_t twos = UINT64_C(0x3333333333333333);
    const uint64_t fours = UINT64_C(0x0f0f0f0f0f0f0f0f);
    bits = (bits >> 1 & ones) | (bits & ones) << 1;
    bits = (bits >> 2 & twos) | (bits & twos) << 2;
    bits = (bits >> 4 & fours) | (bits & fours) << 4;
    return __builtin_bswap64(bits);
}

uint64_t tide_dict_order(uint64_t hash)
{
    return reverse(hash) | 1;
}

static int compare_keys(const struct tide_node *node,
                        const struct tide_dict_key *key)
{
    if (node->key_length != key->length)
        return node->key_length < key->length ? -1 : 1;
    return memcmp(node->key, key->bytes, key->length);
}

/* Go on from `from` to the first link that is not before this order, and key. */
static struct tide_spot walk(_Atomic uint64_t *from, uint64_t order,
                             const struct tide_dict_key *key)
{
    for (;;) {
        uint64_t next = atomic_load_explicit(from, memory_order_relaxed);
        struct tide_node *node = tide_node_at(next);
        if (next == 0 || node->link.order > order)
            return (struct tide_spot){ from, NULL };
        if (node->link.order == order) {
            int compared = compare_keys(node, key);
            if (compared >= 0)
                return (struct tide_spot){ from, compared == 0 ? node : NULL };
        }
        from = &node->link.next;
    }
}

/* Put a link that is whole but for `next` where `from` points. */
static void link_in(_Atomic uint64_t *from, struct tide_link *link)
{
    atomic_store(&link->next, atomic_load_explicit(from, memory_order_relaxed));
    atomic_store(from, tide_commons_offset(link));
}

/* ---- buckets ---- */

static uint32_t highest_bit(uint64_t bucket)
{
    return 63 - (uint32_t)__builtin_clzll(bucket);
}

/* NULL without memory for its table. */
static struct tide_bucket *bucket_at(struct tide_part *part, tide_handle handle,
                                     uint64_t number)
{
    int is_early = number >> FIRST_BITS == 0;
    uint32_t bits = is_early ? FIRST_BITS : highest_bit(number);
    uint32_t index = is_early ? 0 : bits - FIRST_BITS + 1;
    uint64_t base = is_early ? 0 : UINT64_C(1) << bits;
    uint64_t table =
        atomic_load_explicit(&part->tables[index], memory_order_relaxed);
    if (table == 0) {
        size_t bytes = sizeof(struct tide_bucket) << bits;
        table = tide_share_alloc(handle, bytes);
        if (table == 0)
            return NULL;
        memset(tide_commons_at(table), 0, bytes);
        atomic_store(&part->tables[index], table);
    }
    return (struct tide_bucket *)tide_commons_at(table) + (number - base);
}

/* Put a bucket in its place in the list, which comes after `from`. */
static void link_bucket(struct tide_bucket *bucket, _Atomic uint64_t *from,
                        uint64_t number)
{
    uint64_t next;
    const struct tide_link *link;
    bucket->link.order = reverse(number);
    while ((next = atomic_load_explicit(from, memory_order_relaxed)) != 0) {
        struct tide_link *at = tide_commons_at(next);
        if (at->order >= bucket->link.order)
            break;
        from = &at->next;
    }
    link = next != 0 ? tide_commons_at(next) : NULL;
    if (link != &bucket->link) /* else who put it there was killed then */
        link_in(from, &bucket->link);
    atomic_store(&bucket->is_linked, 1);
}

/* From where to look for the keys of a bucket. */
static _Atomic uint64_t *find_bucket(struct tide_part *part, tide_handle handle,
                                     uint64_t number)
{
    if (number == 0)
        return &part->first;
    struct tide_bucket *bucket = bucket_at(part, handle, number);
    if (bucket == NULL ||
        atomic_load_explicit(&bucket->is_linked, memory_order_relaxed) == 0) {
        uint64_t parent = number & ~(UINT64_C(1) << highest_bit(number));
        _Atomic uint64_t *from = find_bucket(part, handle, parent);
        if (bucket == NULL)
            return from;
        link_bucket(bucket, from, number);
    }
    return &bucket->link.next;
}

static uint64_t bucket_of(struct tide_part *part, uint64_t hash)
{
    uint32_t bits = atomic_load_explicit(&part->bits, memory_order_relaxed);
    return hash & ((UINT64_C(1) << bits) - 1);
}

void tide_part_grow(struct tide_part *part)
{
    uint32_t bits = atomic_load_explicit(&part->bits, memory_order_relaxed);
    uint64_t count = atomic_load_explicit(&part->count, memory_order_relaxed);
    if (count > (uint64_t)NODES_PER_BUCKET << bits &&
        bits < FIRST_BITS + TIDE_DICT_TABLES - 1)
        atomic_store(&part->bits, bits + 1);
}

/* ---- memory of nodes ---- */

static size_t node_bytes(size_t key_length)
{
    return sizeof(struct tide_node) + key_length;
}

/* The class of a small node; TIDE_NODE_CLASSES for a large one. */
static size_t class_of(size_t bytes)
{
    size_t class = (bytes - 1) / TIDE_NODE_UNIT;
    return class < TIDE_NODE_CLASSES ? class : TIDE_NODE_CLASSES;
}

static int add_slab(struct tide_part *part, tide_handle handle)
{
    uint64_t slab = tide_share_alloc(handle, SLAB_BYTES);
    if (slab == 0)
        return -1;
    uint64_t *next = tide_commons_at(slab);
    *next = atomic_load(&part->slabs);
    atomic_store(&part->slabs, slab);
    atomic_store(&part->fresh_end, 0);
    atomic_store(&part->fresh, slab + TIDE_NODE_UNIT);
    atomic_store(&part->fresh_end, slab + SLAB_BYTES);
    return 0;
}

static uint64_t alloc_node(struct tide_part *part, tide_handle handle,
                           size_t bytes)
{
    size_t class = class_of(bytes);
    if (class == TIDE_NODE_CLASSES)
        return tide_share_alloc(handle, bytes);
    uint64_t free =
        atomic_load_explicit(&part->free[class], memory_order_relaxed);
    if (free != 0) {
        atomic_store(&part->free[class],
                     atomic_load(&tide_node_at(free)->link.next));
        return free;
    }
    size_t size = (class + 1) * TIDE_NODE_UNIT;
    uint64_t fresh = atomic_load_explicit(&part->fresh, memory_order_relaxed);
    if (fresh + size > atomic_load(&part->fresh_end)) {
        if (add_slab(part, handle) != 0)
            return 0;
        fresh = atomic_load(&part->fresh);
    }
    atomic_store(&part->fresh, fresh + size);
    return fresh;
}

static void free_node(struct tide_part *part, struct tide_node *node)
{
    uint64_t offset = tide_commons_offset(node);
    size_t class = class_of(node_bytes(node->key_length));
    if (class == TIDE_NODE_CLASSES) {
        tide_share_free(offset);
        return;
    }
    atomic_store(&node->link.next, atomic_load(&part->free[class]));
    atomic_store(&part->free[class], offset);
}

/* ---- nodes ---- */

struct tide_spot tide_part_seek(struct tide_part *part, tide_handle handle,
                                const struct tide_dict_key *key)
{
    _Atomic uint64_t *from =
        find_bucket(part, handle, bucket_of(part, key->hash));
    return walk(from, tide_dict_order(key->hash), key);
}

struct tide_node *tide_part_insert(struct tide_part *part, tide_handle handle,
                                   struct tide_spot *spot,
                                   const struct tide_dict_key *key)
{
    uint64_t offset = alloc_node(part, handle, node_bytes(key->length));
    if (offset == 0)
        return NULL;
    struct tide_node *node = tide_node_at(offset);
    node->link.order = tide_dict_order(key->hash);
    atomic_store_explicit(&node->owner, 0, memory_order_relaxed);
    atomic_store_explicit(&node->value, TIDE_VALUE_NONE, memory_order_relaxed);
    node->key_length = key->length;
    memcpy(node->key, key->bytes, key->length);
    link_in(spot->from, &node->link);
    spot->node = node;
    return node;
}

void tide_part_remove(struct tide_part *part, struct tide_spot *spot)
{
    atomic_store(spot->from, atomic_load(&spot->node->link.next));
    free_node(part, spot->node);
    spot->node = NULL;
}

/* The first node with a value from the link at `offset` on. */
static struct tide_node *with_value(uint64_t offset)
{
    while (offset != 0) {
        struct tide_node *node = tide_node_at(offset);
        if ((node->link.order & 1) != 0 &&
            atomic_load(&node->value) != TIDE_VALUE_NONE)
            return node;
        offset = atomic_load(&node->link.next);
    }
    return NULL;
}

struct tide_node *tide_part_first(struct tide_part *part)
{
    return with_value(atomic_load(&part->first));
}

struct tide_node *tide_part_after(struct tide_part *part, tide_handle handle,
                                  const struct tide_dict_key *key)
{
    struct tide_spot spot = tide_part_seek(part, handle, key);
    return with_value(
        atomic_load(spot.node != NULL ? &spot.node->link.next : spot.from));
}

uint64_t tide_part_recount(struct tide_part *part)
{
    uint64_t count = 0;
    struct tide_node *node = tide_part_first(part);
    for (; node != NULL; node = with_value(atomic_load(&node->link.next)))
        count++;
    return count;
}

/* What a node has besides its place in a slab. */
static void free_rest(const struct tide_node *node)
{
    uint64_t value = atomic_load(&node->value);
    if ((value & TIDE_VALUE_MASK) == TIDE_VALUE_LOAD)
        tide_load_free(value & ~(uint64_t)TIDE_VALUE_MASK);
    if (class_of(node_bytes(node->key_length)) == TIDE_NODE_CLASSES)
        tide_share_free(tide_commons_offset(node));
}

void tide_part_free(struct tide_part *part)
{
    uint64_t next;
    for (uint64_t at = atomic_load(&part->first); at != 0; at = next) {
        const struct tide_node *node = tide_node_at(at);
        next = atomic_load(&node->link.next);
        if ((node->link.order & 1) != 0)
            free_rest(node);
    }
    for (uint64_t slab = atomic_load(&part->slabs); slab != 0; slab = next) {
        next = *(const uint64_t *)tide_commons_at(slab);
        tide_share_free(slab);
    }
    for (uint32_t i = 0; i < TIDE_DICT_TABLES; i++)
        tide_share_free(atomic_load(&part->tables[i]));
}
