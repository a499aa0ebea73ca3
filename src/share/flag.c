/*
 * A flag, and who waits for it. Set: the flag first, then those who wait are woken.
 * Wait: in line first, then a look at the flag. Who is woken was told that the flag
 * was set, also if it has been cleared since. Killed in the middle of the waking, the
 * setter leaves sleepers who find the flag at the end of their slice.
 */
#include "share/sync_inner.h"

struct flag {
    _Atomic uint32_t is_set;
    struct tide_waiters waiters;
    struct tide_stuck stuck;
};

int tide_flag_make(tide_handle *out, struct tide_error *err)
{
    return tide_object_make(out, TIDE_SHARED_EVENT, sizeof(struct flag), NULL,
                            NULL, err);
}

void tide_flag_set(tide_handle handle)
{
    struct flag *flag = tide_object_body(handle);
    atomic_store(&flag->is_set, 1);
    tide_waiters_wake(&flag->waiters, UINT32_MAX);
}

void tide_flag_unset(tide_handle handle)
{
    struct flag *flag = tide_object_body(handle);
    atomic_store(&flag->is_set, 0);
}

int tide_flag_is_set(tide_handle handle)
{
    struct flag *flag = tide_object_body(handle);
    return atomic_load(&flag->is_set) != 0;
}

int tide_flag_wait(struct tide_wait *wait)
{
    struct flag *flag = tide_object_body(wait->object);
    int status = TIDE_OK;
    wait->set = &flag->waiters;
    wait->stuck = &flag->stuck;
    if (!wait->is_listed)
        tide_wait_begin(wait);
    if (atomic_load(&flag->is_set) == 0)
        status = tide_wait_rest(wait);
    if (status == TIDE_EAGAIN)
        return status;
    return tide_wait_end(wait) ? TIDE_OK : status;
}

static void bury(struct tide_object *object, uint32_t entry)
{
    struct flag *flag = tide_commons_at(object->body);
    tide_waiters_bury(&flag->waiters, &flag->stuck, entry);
}

const struct tide_kind_ops tide_flag_ops = { .bury = bury };
