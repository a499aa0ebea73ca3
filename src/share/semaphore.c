/*
 * A count, and who waits for it. To take one, or to give some, is one exchange of the
 * word that the count is in, by whoever comes; so a kill leaves the old count or the
 * new one.
 *
 * What is taken in a scope is to come back if the process dies: `scoped` says of each
 * entry how many it has, and for which incarnation. A change of that and of the count
 * is made inside the guard, in this order:
 *
 *   redo := what the entry will have     nothing has changed
 *   word := count', mark = the entry     the change is made: the rest can be repeated
 *   scoped[entry] := redo
 *   word := its count, mark = none       others may have changed the count meanwhile
 *
 * Who enters the guard after a death and finds a mark repeats the last two.
 *
 * Nobody tells a semaphore of a death. Who finds none to take, before it sleeps and
 * at the end of each slice, looks for what the dead have.
 */
#include "share/sync_inner.h"

#include "shm/wake.h"

struct scope {
    _Atomic uint32_t incarnation;
    _Atomic uint32_t count;
};

struct semaphore {
    struct tide_guard guard;
    _Atomic uint64_t word;   /* the count, and above it a mark: an entry + 1 */
    uint32_t limit;          /* constant; 0: none */
    _Atomic uint32_t scopes; /* entries from here on never had one */
    struct scope redo;       /* what the marked entry has */
    struct tide_waiters waiters;
    struct tide_stuck stuck;
    struct scope scoped[TIDE_ENTRIES_MAX];
};

struct plan {
    uint32_t count;
    uint32_t limit;
    int failed;
};

static void prepare(struct tide_object *object, void *context)
{
    struct plan *plan = context;
    struct semaphore *semaphore = tide_commons_at(object->body);
    atomic_init(&semaphore->word, plan->count);
    semaphore->limit = plan->limit;
    plan->failed = tide_guard_init(&semaphore->guard);
}

int tide_semaphore_make(tide_handle *out, uint32_t count, uint32_t limit,
                        struct tide_error *err)
{
    struct plan plan = { .count = count, .limit = limit };
    int status =
        tide_object_make(out, TIDE_SHARED_SEMAPHORE, sizeof(struct semaphore),
                         prepare, &plan, err);
    if (status == TIDE_OK && plan.failed) {
        tide_object_drop(*out);
        return tide_fail(err, TIDE_ESYS, "the system has no robust mutexes");
    }
    return status;
}

/* ---- the word ---- */

static uint32_t count_in(uint64_t word)
{
    return (uint32_t)word;
}

static uint32_t mark_in(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static uint64_t make_word(uint32_t count, uint32_t mark)
{
    return (uint64_t)mark << 32 | count;
}

/* Take one from the count, and set a mark; 0 keeps the one there is. */
static int try_to_take(struct semaphore *semaphore, uint32_t mark)
{
    uint64_t word = atomic_load(&semaphore->word);
    do {
        if (count_in(word) == 0)
            return TIDE_EAGAIN;
    } while (!atomic_compare_exchange_weak(
        &semaphore->word, &word,
        make_word(count_in(word) - 1, mark != 0 ? mark : mark_in(word))));
    return TIDE_OK;
}

/* Add to the count, up to the limit; and set a mark, as above. */
static int try_to_give(struct semaphore *semaphore, uint32_t count,
                       uint32_t mark)
{
    uint32_t most = semaphore->limit != 0 ? semaphore->limit : UINT32_MAX;
    uint64_t word = atomic_load(&semaphore->word);
    do {
        if (count > most || count_in(word) > most - count)
            return TIDE_EINVAL;
    } while (!atomic_compare_exchange_weak(
        &semaphore->word, &word,
        make_word(count_in(word) + count, mark != 0 ? mark : mark_in(word))));
    return TIDE_OK;
}

/* ---- scopes; inside the guard ---- */

static void copy_scope(struct scope *to, const struct scope *from)
{
    atomic_store(&to->incarnation, atomic_load(&from->incarnation));
    atomic_store(&to->count, atomic_load(&from->count));
}

static void plan_scope(struct semaphore *semaphore, uint32_t incarnation,
                       uint32_t count)
{
    atomic_store(&semaphore->redo.incarnation, incarnation);
    atomic_store(&semaphore->redo.count, count);
}

/* Do what is left of a change, if one is marked. */
static void end_change(struct semaphore *semaphore)
{
    uint64_t word = atomic_load(&semaphore->word);
    if (mark_in(word) == 0)
        return;
    copy_scope(&semaphore->scoped[mark_in(word) - 1], &semaphore->redo);
    atomic_fetch_sub(&semaphore->word, make_word(0, mark_in(word)));
}

static void enter(struct semaphore *semaphore)
{
    if (!tide_guard_enter(&semaphore->guard))
        return;
    end_change(semaphore);
    tide_guard_mended(&semaphore->guard);
}

/* Have what a scope of a dead process took. */
static void reclaim(struct semaphore *semaphore, uint32_t entry)
{
    struct scope *scope = &semaphore->scoped[entry];
    uint32_t count = atomic_load(&scope->count);
    struct tide_who who = { entry, atomic_load(&scope->incarnation) };
    if (count == 0 || tide_entry_is_alive(who))
        return;
    plan_scope(semaphore, who.incarnation, 0);
    /* Beyond the limit: somebody gave for it. There is nothing to have. */
    if (try_to_give(semaphore, count, entry + 1) == TIDE_OK)
        end_change(semaphore);
    else
        atomic_store(&scope->count, 0);
}

static void reclaim_all(struct semaphore *semaphore)
{
    uint32_t scopes = atomic_load(&semaphore->scopes);
    for (uint32_t entry = 0; entry < scopes; entry++)
        reclaim(semaphore, entry);
}

/* Of our scope, how many it has: none if a dead process had the entry before. */
static uint32_t open_scope(struct semaphore *semaphore)
{
    uint32_t self = tide_commons.self;
    struct scope *scope = &semaphore->scoped[self];
    reclaim(semaphore, self);
    if (atomic_load(&semaphore->scopes) <= self)
        atomic_store(&semaphore->scopes, self + 1);
    return atomic_load(&scope->count);
}

static int take_in_scope(struct semaphore *semaphore)
{
    uint32_t self = tide_commons.self, has = open_scope(semaphore);
    plan_scope(semaphore, tide_entry_who(self).incarnation, has + 1);
    int status = try_to_take(semaphore, self + 1);
    end_change(semaphore);
    return status;
}

static int give_from_scope(struct semaphore *semaphore, uint32_t count)
{
    uint32_t self = tide_commons.self, has = open_scope(semaphore);
    plan_scope(semaphore, tide_entry_who(self).incarnation, has - count);
    int status = try_to_give(semaphore, count, self + 1);
    end_change(semaphore);
    return status;
}

/* ---- taking and giving ---- */

static int take(struct semaphore *semaphore, int scoped)
{
    if (!scoped && try_to_take(semaphore, 0) == TIDE_OK)
        return TIDE_OK;
    enter(semaphore);
    if (count_in(atomic_load(&semaphore->word)) == 0)
        reclaim_all(semaphore);
    int status = scoped ? take_in_scope(semaphore) : try_to_take(semaphore, 0);
    tide_guard_leave(&semaphore->guard);
    return status;
}

static int give(struct semaphore *semaphore, uint32_t count, int scoped)
{
    int status;
    if (scoped) {
        enter(semaphore);
        status = give_from_scope(semaphore, count);
        tide_guard_leave(&semaphore->guard);
    } else {
        status = try_to_give(semaphore, count, 0);
    }
    if (status == TIDE_OK)
        tide_waiters_wake(&semaphore->waiters, count);
    return status;
}

int tide_semaphore_try(tide_handle handle, int scoped)
{
    return take(tide_object_body(handle), scoped);
}

int tide_semaphore_wait(struct tide_wait *wait, int scoped)
{
    struct semaphore *semaphore = tide_object_body(wait->object);
    wait->set = &semaphore->waiters;
    wait->stuck = &semaphore->stuck;
    for (;;) {
        if (!wait->is_listed)
            tide_wait_begin(wait);
        if (take(semaphore, scoped) == TIDE_OK)
            break;
        int status = tide_wait_rest(wait);
        if (status == TIDE_EAGAIN || !tide_wait_end(wait))
            return status;
    }
    /* Whoever woke us may have meant the one that comes after us, too. */
    if (tide_wait_end(wait) && count_in(atomic_load(&semaphore->word)) > 0)
        tide_waiters_wake(&semaphore->waiters, 1);
    return TIDE_OK;
}

int tide_semaphore_take_one(void *body)
{
    if (tide_commons.self == 0)
        return TIDE_EAGAIN; /* a copy that has not entered yet */
    return take(body, 0);
}

int tide_semaphore_give_one(void *body)
{
    if (tide_commons.self == 0)
        return TIDE_EAGAIN;
    return give(body, 1, 0);
}

int tide_semaphore_release(tide_handle handle, uint32_t count, int scoped)
{
    return give(tide_object_body(handle), count, scoped);
}

uint32_t tide_semaphore_count(tide_handle handle)
{
    struct semaphore *semaphore = tide_object_body(handle);
    return count_in(atomic_load(&semaphore->word));
}

static void bury(struct tide_object *object, uint32_t entry)
{
    struct semaphore *semaphore = tide_commons_at(object->body);
    tide_waiters_bury(&semaphore->waiters, &semaphore->stuck, entry);
}

const struct tide_kind_ops tide_semaphore_ops = { .bury = bury };
