/*
 * A count, and who waits for it. To take one from a count is one store inside the
 * guard; so a kill leaves the old count or the new one.
 *
 * What is taken in a scope is to come back if the process dies: `scoped` says of each
 * entry how many it has, and for which incarnation, in one word. A change of that and
 * of the count is two stores: `undo` has the old values of both before the first, and
 * is cleared after the second; who finds it set after a death puts them back.
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
    _Atomic uint32_t count;
    uint32_t limit;           /* constant; 0: none */
    _Atomic uint32_t scopes;  /* entries from here on never had one */
    _Atomic uint32_t undoing; /* an entry + 1, whose values are below */
    uint32_t undo_count;
    struct scope undo_scope;
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
    atomic_init(&semaphore->count, plan->count);
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

/* ---- two words as one ---- */

static void copy_scope(struct scope *to, const struct scope *from)
{
    atomic_store(&to->incarnation, atomic_load(&from->incarnation));
    atomic_store(&to->count, atomic_load(&from->count));
}

static void begin_change(struct semaphore *semaphore, uint32_t entry)
{
    semaphore->undo_count = atomic_load(&semaphore->count);
    copy_scope(&semaphore->undo_scope, &semaphore->scoped[entry]);
    atomic_store(&semaphore->undoing, entry + 1);
}

static void end_change(struct semaphore *semaphore)
{
    atomic_store(&semaphore->undoing, 0);
}

static void mend(struct semaphore *semaphore)
{
    uint32_t undoing = atomic_load(&semaphore->undoing);
    if (undoing != 0) {
        atomic_store(&semaphore->count, semaphore->undo_count);
        copy_scope(&semaphore->scoped[undoing - 1], &semaphore->undo_scope);
        end_change(semaphore);
    }
    tide_guard_mended(&semaphore->guard);
}

static void enter(struct semaphore *semaphore)
{
    if (tide_guard_enter(&semaphore->guard))
        mend(semaphore);
}

/* Have what a scope of a dead process took. Inside the guard. */
static void reclaim(struct semaphore *semaphore, uint32_t entry)
{
    struct scope *scope = &semaphore->scoped[entry];
    uint32_t count = atomic_load(&scope->count);
    struct tide_who who = { entry, atomic_load(&scope->incarnation) };
    if (count == 0 || tide_entry_is_alive(who))
        return;
    begin_change(semaphore, entry);
    atomic_fetch_add(&semaphore->count, count);
    atomic_store(&scope->count, 0);
    end_change(semaphore);
}

static void reclaim_all(struct semaphore *semaphore)
{
    uint32_t scopes = atomic_load(&semaphore->scopes);
    for (uint32_t entry = 0; entry < scopes; entry++)
        reclaim(semaphore, entry);
}

/* Add to what we have in scopes, and take as much from the count. */
static void move_to_scope(struct semaphore *semaphore, int32_t count)
{
    uint32_t self = tide_commons.self;
    struct scope *scope = &semaphore->scoped[self];
    reclaim(semaphore, self); /* of who had the entry before */
    if (atomic_load(&semaphore->scopes) <= self)
        atomic_store(&semaphore->scopes, self + 1);
    begin_change(semaphore, self);
    atomic_store(&scope->incarnation, tide_entry_who(self).incarnation);
    atomic_fetch_add(&scope->count, (uint32_t)count);
    atomic_fetch_sub(&semaphore->count, (uint32_t)count);
    end_change(semaphore);
}

/* ---- taking and giving ---- */

/* Inside the guard. */
static int take(struct semaphore *semaphore, int scoped)
{
    if (atomic_load(&semaphore->count) == 0)
        reclaim_all(semaphore);
    if (atomic_load(&semaphore->count) == 0)
        return TIDE_EAGAIN;
    if (scoped)
        move_to_scope(semaphore, 1);
    else
        atomic_fetch_sub(&semaphore->count, 1);
    return TIDE_OK;
}

static int try_to_take(struct semaphore *semaphore, int scoped)
{
    enter(semaphore);
    int status = take(semaphore, scoped);
    tide_guard_leave(&semaphore->guard);
    return status;
}

int tide_semaphore_try(tide_handle handle, int scoped)
{
    return try_to_take(tide_object_body(handle), scoped);
}

int tide_semaphore_wait(struct tide_wait *wait, int scoped)
{
    struct semaphore *semaphore = tide_object_body(wait->object);
    wait->set = &semaphore->waiters;
    wait->stuck = &semaphore->stuck;
    for (;;) {
        if (!wait->is_listed)
            tide_wait_begin(wait);
        if (try_to_take(semaphore, scoped) == TIDE_OK)
            break;
        int status = tide_wait_rest(wait);
        if (status == TIDE_EAGAIN || !tide_wait_end(wait))
            return status;
    }
    /* Whoever woke us may have meant the one that comes after us, too. */
    if (tide_wait_end(wait) && atomic_load(&semaphore->count) > 0)
        tide_waiters_wake(&semaphore->waiters, 1);
    return TIDE_OK;
}

int tide_semaphore_release(tide_handle handle, uint32_t count, int scoped)
{
    struct semaphore *semaphore = tide_object_body(handle);
    enter(semaphore);
    uint32_t now = atomic_load(&semaphore->count);
    uint32_t most = semaphore->limit != 0 ? semaphore->limit : UINT32_MAX;
    int fits = count <= most && now <= most - count;
    if (fits && scoped)
        move_to_scope(semaphore, -(int32_t)count);
    else if (fits)
        atomic_store(&semaphore->count, now + count);
    tide_guard_leave(&semaphore->guard);
    if (fits)
        tide_waiters_wake(&semaphore->waiters, count);
    return fits ? TIDE_OK : TIDE_EINVAL;
}

uint32_t tide_semaphore_count(tide_handle handle)
{
    struct semaphore *semaphore = tide_object_body(handle);
    return atomic_load(&semaphore->count);
}

static void bury(struct tide_object *object, uint32_t entry)
{
    struct semaphore *semaphore = tide_commons_at(object->body);
    tide_waiters_bury(&semaphore->waiters, &semaphore->stuck, entry);
}

const struct tide_kind_ops tide_semaphore_ops = { .bury = bury };
