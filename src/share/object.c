/*
 * The word of an object:
 *
 *   63         40 39          8 7     0
 *   | turn or who | generation | state |
 *
 * BUILDING and FREEING name the entry of who is at it. LIVE has a turn, which counts
 * the bits that were set and the references that were made.
 *
 * Is anybody left? Bits are in many words, so they cannot be looked at in one
 * instant: one may be set in a word that was looked at already, and the one that
 * guarded it be cleared in a word that was not. Who sets a bit then counts the turn,
 * before its guard is let go. So who found every bit clear, with the guard's among
 * them, and sets FREEING in the word as it was before the look, fails if there was
 * such a bit. Whoever clears a bit looks; the last one to clear finds all clear.
 *
 * A process that holds nothing here may be given a number that means nothing, or
 * not any more. So a bit is set first, and looked then whether the object is still
 * what it was; if not, the bit is taken back, and whoever looked meanwhile and left
 * because of it is made good by another look.
 */
#include "share/commons_inner.h"

#include "base/pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { TURN_SHIFT = 40, GENERATION_SHIFT = 8, STATE_MASK = 0xff, NEAR = 64 };

#define TURN (UINT64_C(1) << TURN_SHIFT)

static struct tide_kind_ops kinds[TIDE_SHARED_COUNT];

void tide_kind_define(enum tide_object_kind kind,
                      const struct tide_kind_ops *ops)
{
    kinds[kind] = *ops;
}

/* ---- words ---- */

static uint64_t make_word(enum tide_object_state state, uint32_t generation,
                          uint32_t who)
{
    return (uint64_t)who << TURN_SHIFT |
           (uint64_t)generation << GENERATION_SHIFT | state;
}

static enum tide_object_state state_of(uint64_t word)
{
    return (enum tide_object_state)(word & STATE_MASK);
}

static uint32_t generation_of(uint64_t word)
{
    return (uint32_t)(word >> GENERATION_SHIFT);
}

static uint32_t who_of(uint64_t word)
{
    return (uint32_t)(word >> TURN_SHIFT);
}

static tide_handle make_handle(uint32_t place, uint32_t generation)
{
    return (tide_handle)generation << 32 | place;
}

static uint32_t generation_in(tide_handle handle)
{
    return (uint32_t)(handle >> 32);
}

static uint32_t place_of(const struct tide_object *object)
{
    return (uint32_t)(object - tide_commons.objects);
}

static int is_live(uint64_t word, tide_handle handle)
{
    return state_of(word) == TIDE_OBJECT_LIVE &&
           generation_of(word) == generation_in(handle);
}

/* The header that a number names, whatever it is; NULL if there is none. */
static struct tide_object *find(tide_handle handle)
{
    uint32_t place = (uint32_t)handle;
    uint32_t top = atomic_load(&tide_shared()->object_top);
    return place > 0 && place < top ? &tide_commons.objects[place] : NULL;
}

int tide_tag_is_live(uint64_t tag)
{
    const struct tide_object *object = find(tag);
    if (object == NULL)
        return 0;
    uint64_t word = atomic_load(&object->word);
    return state_of(word) != TIDE_OBJECT_FREE &&
           generation_of(word) == generation_in(tag);
}

/* ---- bits ---- */

static _Atomic uint64_t *bits_of(struct tide_object *object, uint32_t entry)
{
    return &object->holders[entry / 64];
}

static uint64_t bit_of(uint32_t entry)
{
    return UINT64_C(1) << (entry % 64);
}

static int has_holders(const struct tide_object *object)
{
    uint64_t any = atomic_load(&object->references);
    for (uint32_t i = 0; i < TIDE_ENTRIES_MAX / 64; i++)
        any |= atomic_load(&object->holders[i]);
    return any != 0;
}

/* Count a turn of what is certainly LIVE. */
static void count_turn(struct tide_object *object)
{
    atomic_fetch_add(&object->word, TURN); /* its carry leaves at the top */
}

/* ---- freeing ---- */

/* The memory is back. */
static void finish(struct tide_object *object, uint32_t generation)
{
    atomic_store(&object->word, make_word(TIDE_OBJECT_FREE, generation + 1, 0));
    atomic_store(&tide_shared()->object_hint, place_of(object));
}

/* Free the object if nobody is left. */
static void free_if_last(struct tide_object *object)
{
    uint64_t word = atomic_load(&object->word);
    uint32_t generation = generation_of(word);
    if (state_of(word) != TIDE_OBJECT_LIVE || has_holders(object) ||
        !atomic_compare_exchange_strong(
            &object->word, &word,
            make_word(TIDE_OBJECT_FREEING, generation, tide_commons.self)))
        return;
    uint32_t kind = atomic_load(&object->kind);
    if (kind < TIDE_SHARED_COUNT && kinds[kind].destroy != NULL)
        kinds[kind].destroy(object);
    tide_share_free_clean(object->body);
    finish(object, generation);
}

/* ---- our holds ---- */

static int grow_holds(uint32_t place)
{
    uint32_t capacity = tide_share.hold_capacity;
    if (place < capacity)
        return 0;
    uint32_t larger = capacity < NEAR ? NEAR : capacity;
    while (larger <= place)
        larger *= 2;
    struct tide_hold *holds = realloc(tide_share.holds, larger * sizeof *holds);
    if (holds == NULL)
        return -1;
    memset(holds + capacity, 0, (larger - capacity) * sizeof *holds);
    tide_share.holds = holds;
    tide_share.hold_capacity = larger;
    return 0;
}

/* Our holds of this very object; NULL if we have none. */
static struct tide_hold *hold_of(tide_handle handle)
{
    uint32_t place = (uint32_t)handle;
    if (tide_commons.self == 0 || place >= tide_share.hold_capacity)
        return NULL;
    struct tide_hold *hold = &tide_share.holds[place];
    return hold->count > 0 && hold->generation == generation_in(handle) ? hold
                                                                        : NULL;
}

static void begin_hold(tide_handle handle)
{
    tide_share.held_bytes += tide_object_at(handle)->body_bytes;
    tide_share.holds[(uint32_t)handle] =
        (struct tide_hold){ .count = 1, .generation = generation_in(handle) };
}

uint32_t tide_object_holds(tide_handle handle)
{
    const struct tide_hold *hold = hold_of(handle);
    return hold != NULL ? hold->count : 0;
}

static int refuse(struct tide_error *err)
{
    return tide_fail(err, TIDE_EINVAL, "the shared object is no more");
}

static int is_of_kind(const struct tide_object *object,
                      enum tide_object_kind kind)
{
    return kind == TIDE_SHARED_NONE || atomic_load(&object->kind) == kind;
}

/* Set our bit, if the object is, and remains, what the handle says. */
static int set_bit(struct tide_object *object, tide_handle handle,
                   enum tide_object_kind kind)
{
    uint32_t self = tide_commons.self;
    atomic_fetch_or(bits_of(object, self), bit_of(self));
    uint64_t word = atomic_load(&object->word);
    while (is_live(word, handle) && is_of_kind(object, kind))
        if (atomic_compare_exchange_weak(&object->word, &word, word + TURN))
            return 0;
    atomic_fetch_and(bits_of(object, self), ~bit_of(self));
    free_if_last(object);
    return -1;
}

int tide_object_hold(tide_handle handle, enum tide_object_kind kind,
                     struct tide_error *err)
{
    int status = tide_commons_enter(err);
    if (status != TIDE_OK)
        return status;
    struct tide_object *object = find(handle);
    if (object == NULL || !is_live(atomic_load(&object->word), handle) ||
        !is_of_kind(object, kind))
        return refuse(err);
    struct tide_hold *hold = hold_of(handle);
    if (hold != NULL) {
        hold->count++;
        return TIDE_OK;
    }
    if (grow_holds((uint32_t)handle) != 0)
        return tide_fail(err, TIDE_ENOMEM, "out of memory");
    if (set_bit(object, handle, kind) != 0)
        return refuse(err);
    begin_hold(handle);
    return TIDE_OK;
}

void tide_object_drop(tide_handle handle)
{
    struct tide_hold *hold = hold_of(handle);
    if (hold == NULL || --hold->count > 0)
        return;
    uint32_t self = tide_commons.self;
    struct tide_object *object = tide_object_at(handle);
    tide_share.held_bytes -= object->body_bytes;
    atomic_fetch_and(bits_of(object, self), ~bit_of(self));
    free_if_last(object);
    tide_commons_sweep();
}

uint64_t tide_objects_held_bytes(void)
{
    return tide_share.held_bytes;
}

uint32_t tide_object_others(tide_handle handle)
{
    const struct tide_object *object = tide_object_at(handle);
    uint32_t count = 0;
    for (uint32_t i = 0; i < TIDE_ENTRIES_MAX / 64; i++) {
        uint64_t bits = atomic_load(&object->holders[i]);
        for (; bits != 0; bits &= bits - 1) {
            uint32_t entry = i * 64 + (uint32_t)__builtin_ctzll(bits);
            count += entry != tide_commons.self && tide_entry_is_manned(entry);
        }
    }
    return count;
}

void tide_commons_count(struct tide_commons_count *out)
{
    const struct tide_commons_shared *shared = tide_shared();
    *out = (struct tide_commons_count){ 0, 0 };
    for (uint32_t i = 1; i < atomic_load(&shared->object_top); i++)
        out->objects += state_of(atomic_load(&tide_commons.objects[i].word)) ==
                        TIDE_OBJECT_LIVE;
    for (uint32_t i = TIDE_FIRST_ENTRY; i < atomic_load(&shared->entry_top);
         i++)
        out->processes += (uint32_t)tide_entry_is_manned(i);
}

/* ---- making ---- */

static int claim(uint32_t place, uint32_t *generation)
{
    struct tide_object *object = &tide_commons.objects[place];
    uint64_t word = atomic_load(&object->word);
    *generation = generation_of(word);
    return state_of(word) == TIDE_OBJECT_FREE &&
           atomic_compare_exchange_strong(
               &object->word, &word,
               make_word(TIDE_OBJECT_BUILDING, *generation, tide_commons.self));
}

/* Claim one of `count` places from `from` on, around at `top`. */
static uint32_t claim_between(uint32_t from, uint32_t count, uint32_t top,
                              uint32_t *generation)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = 1 + (from + i - 1) % (top - 1);
        if (claim(place, generation))
            return place;
    }
    return 0;
}

/* A few places from where one was freed last; else a new one; else any. */
static uint32_t claim_place(uint32_t *generation)
{
    struct tide_commons_shared *shared = tide_shared();
    uint32_t top = atomic_load(&shared->object_top);
    uint32_t hint = atomic_load(&shared->object_hint);
    uint32_t place = 0;
    if (hint == 0 || hint >= top)
        hint = 1;
    if (top > 1) /* there is a place */
        place = claim_between(hint, NEAR < top ? NEAR : top, top, generation);
    while (place == 0 && top < tide_commons.object_count) {
        if (atomic_compare_exchange_strong(&shared->object_top, &top,
                                           top + 1)) {
            atomic_store(&shared->object_hint, hint + NEAR);
            place = claim(top, generation) ? top : 0;
        }
    }
    if (place == 0 && top > 1)
        place = claim_between(1, top, top, generation);
    return place;
}

/* Where the system makes huge pages for shared memory that asks for them. */
static void advise(const struct tide_object *object)
{
    const uint64_t huge = UINT64_C(2) << 20;
    uint64_t from = (object->body + huge - 1) / huge * huge;
    uint64_t to = (object->body + object->body_bytes) / huge * huge;
    if (to > from && tide_pages_are_huge_on_request())
        madvise(tide_commons_at(from), to - from, MADV_HUGEPAGE);
}

static int allocate_body(struct tide_object *object, tide_handle handle,
                         uint64_t bytes)
{
    object->body = 0;
    object->body_bytes = bytes;
    if (bytes == 0)
        return 0;
    object->body = tide_share_alloc_tagged(handle, bytes, 1);
    if (object->body != 0)
        advise(object);
    return object->body != 0 ? 0 : -1;
}

int tide_object_make(tide_handle *out, enum tide_object_kind kind,
                     uint64_t body_bytes,
                     void (*prepare)(struct tide_object *, void *context),
                     void *context, struct tide_error *err)
{
    uint32_t generation = 0;
    int status = tide_commons_enter(err);
    if (status != TIDE_OK)
        return status;
    tide_commons_sweep();
    uint32_t self = tide_commons.self, place = claim_place(&generation);
    if (place == 0)
        return tide_fail(err, TIDE_ENOMEM, "more than %u objects are shared",
                         tide_commons.object_count - 1);
    struct tide_object *object = &tide_commons.objects[place];
    *out = make_handle(place, generation);
    if (grow_holds(place) != 0 ||
        allocate_body(object, *out, body_bytes) != 0) {
        finish(object, generation);
        return tide_fail(err, TIDE_ENOMEM,
                         "no shared memory left for %llu bytes",
                         (unsigned long long)body_bytes);
    }
    object->maker = self;
    object->detail[0] = object->detail[1] = 0;
    atomic_store(&object->kind, kind);
    atomic_store(&object->references, 0);
    if (prepare != NULL)
        prepare(object, context);
    begin_hold(*out);
    atomic_fetch_or(bits_of(object, self), bit_of(self));
    atomic_store(&object->word, make_word(TIDE_OBJECT_LIVE, generation, 0));
    return TIDE_OK;
}

/* ---- references ---- */

void tide_object_refer(tide_handle handle)
{
    struct tide_object *object = tide_object_at(handle);
    atomic_fetch_add(&object->references, 1);
    count_turn(object);
}

void tide_object_unrefer(tide_handle handle)
{
    struct tide_object *object = tide_object_at(handle);
    if (atomic_fetch_sub(&object->references, 1) == 1)
        free_if_last(object);
}

/* ---- forks ---- */

void tide_objects_hold_for(uint32_t entry)
{
    for (uint32_t i = 1; i < tide_share.hold_capacity; i++) {
        if (tide_share.holds[i].count == 0)
            continue;
        struct tide_object *object = &tide_commons.objects[i];
        atomic_fetch_or(bits_of(object, entry), bit_of(entry));
        count_turn(object);
    }
}

void tide_objects_adopt(void)
{
    tide_share.is_copy = 0;
    for (uint32_t i = 1; i < tide_share.hold_capacity; i++) {
        struct tide_hold *hold = &tide_share.holds[i];
        if (hold->count > 0 &&
            set_bit(&tide_commons.objects[i], make_handle(i, hold->generation),
                    TIDE_SHARED_NONE) != 0)
            hold->count = 0;
    }
}

/* ---- deaths ---- */

static void bury_at(struct tide_object *object, uint32_t entry)
{
    uint64_t word = atomic_load(&object->word);
    uint32_t generation = generation_of(word);
    uint32_t kind = atomic_load(&object->kind);
    switch (state_of(word)) {
    case TIDE_OBJECT_BUILDING: /* its blocks are of that region: see audit */
        if (who_of(word) == entry)
            finish(object, generation);
        break;
    case TIDE_OBJECT_FREEING:
        if (who_of(word) != entry)
            break;
        atomic_store(&object->word, make_word(TIDE_OBJECT_FREEING, generation,
                                              tide_commons.self));
        tide_share_free_tagged(make_handle(place_of(object), generation));
        finish(object, generation);
        break;
    case TIDE_OBJECT_LIVE:
        if ((atomic_load(bits_of(object, entry)) & bit_of(entry)) != 0) {
            if (kind < TIDE_SHARED_COUNT && kinds[kind].bury != NULL)
                kinds[kind].bury(object, entry);
            atomic_fetch_and(bits_of(object, entry), ~bit_of(entry));
        }
        free_if_last(object); /* it may have died between the two */
        break;
    default:
        break;
    }
}

void tide_objects_bury(uint32_t entry)
{
    uint32_t top = atomic_load(&tide_shared()->object_top);
    for (uint32_t i = 1; i < top; i++)
        bury_at(&tide_commons.objects[i], entry);
}
