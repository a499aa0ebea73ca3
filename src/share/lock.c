/*
 * A robust mutex of the system is a lock that tells its next owner of the last one's
 * death. Its owner is a process: only that can give it back. The system wakes a
 * waiter when the owner dies, so a wait has an end unless a living process keeps it.
 *
 * `owner` names the process that has it, and is of use to that one only: written
 * after the mutex was acquired and cleared before it is given back, it says "mine"
 * to nobody else, whatever the dead have left there. Recursion is counted here and not
 * in the mutex, so that a condition can give back all of it at once.
 */
#include "share/sync.h"

#include "base/clock.h"
#include "shm/wake.h"

#include <errno.h>
#include <time.h>

enum { SLICE_NS = 200 * 1000 * 1000, NS_PER_S = 1000 * 1000 * 1000 };

struct plan {
    int recursive;
    int failed;
};

static void prepare(struct tide_object *object, void *context)
{
    struct plan *plan = context;
    struct tide_lock *lock = tide_commons_at(object->body);
    lock->recursive = (uint32_t)plan->recursive;
    plan->failed = tide_guard_init(&lock->guard);
}

int tide_lock_make(tide_handle *out, int recursive, struct tide_error *err)
{
    struct plan plan = { .recursive = recursive };
    int status = tide_object_make(
        out, TIDE_SHARED_LOCK, sizeof(struct tide_lock), prepare, &plan, err);
    if (status == TIDE_OK && plan.failed) {
        tide_object_drop(*out);
        return tide_fail(err, TIDE_ESYS, "the system has no robust mutexes");
    }
    return status;
}

static uint64_t our_name(void)
{
    uint32_t self = tide_commons.self;
    return (uint64_t)tide_entry_who(self).incarnation << 32 | self;
}

int tide_lock_is_ours(const struct tide_lock *lock)
{
    return tide_commons.self != 0 && lock->owner == our_name();
}

/* What a call on the mutex has returned. */
static int judge(struct tide_lock *lock, int status)
{
    if (status != 0 && status != EOWNERDEAD)
        return TIDE_TAKEN_BY_OTHER;
    if (status == EOWNERDEAD)
        tide_guard_mended(&lock->guard);
    lock->owner = our_name();
    lock->depth = 0;
    return status == 0 ? TIDE_TAKEN : TIDE_ABANDONED;
}

int tide_lock_try(struct tide_lock *lock)
{
    if (tide_commons.self == 0)
        return TIDE_TAKEN_BY_OTHER; /* a copy that has not entered yet */
    if (!tide_lock_is_ours(lock))
        return judge(lock, pthread_mutex_trylock(&lock->guard.mutex));
    if (!lock->recursive)
        return TIDE_TAKEN_BY_US;
    lock->depth++;
    return TIDE_TAKEN;
}

int tide_lock_wait(struct tide_lock *lock, uint64_t deadline_ns)
{
    for (int turn = tide_spin_turns(); turn > 0; turn--) {
        int taken = tide_lock_try(lock);
        if (taken != TIDE_TAKEN_BY_OTHER)
            return taken;
        tide_pause();
    }
    uint64_t at_ns = tide_now_ns() + SLICE_NS;
    if (at_ns > deadline_ns)
        at_ns = deadline_ns;
    const struct timespec at = { .tv_sec = (time_t)(at_ns / NS_PER_S),
                                 .tv_nsec = (long)(at_ns % NS_PER_S) };
    return judge(lock, pthread_mutex_clocklock(&lock->guard.mutex,
                                               CLOCK_MONOTONIC, &at));
}

int tide_lock_release(struct tide_lock *lock)
{
    if (!tide_lock_is_ours(lock))
        return -1;
    if (lock->depth > 0) {
        lock->depth--;
        return 0;
    }
    lock->owner = 0;
    tide_guard_leave(&lock->guard);
    return 0;
}

uint32_t tide_lock_release_all(struct tide_lock *lock)
{
    if (!tide_lock_is_ours(lock))
        return 0;
    uint32_t times = lock->depth + 1;
    lock->depth = 0;
    tide_lock_release(lock);
    return times;
}

void tide_lock_deepen(struct tide_lock *lock, uint32_t times)
{
    lock->depth += times - 1;
}
