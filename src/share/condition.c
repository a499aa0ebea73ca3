/*
 * A lock, and who waits for a notification. One stands in line while it has the lock,
 * and a notifier has the lock: so nobody who waits is missed. The line itself is in
 * waiters.c; it needs no lock to be left.
 */
#include "share/sync_inner.h"

struct condition {
    struct tide_waiters waiters;
    struct tide_stuck stuck;
};

enum { DETAIL_LOCK };

static void prepare(struct tide_object *object, void *context)
{
    const tide_handle *lock = context;
    object->detail[DETAIL_LOCK] = *lock;
    tide_object_refer(*lock);
}

int tide_condition_make(tide_handle *out, tide_handle lock,
                        struct tide_error *err)
{
    return tide_object_make(out, TIDE_SHARED_CONDITION,
                            sizeof(struct condition), prepare, &lock, err);
}

tide_handle tide_condition_lock(tide_handle handle)
{
    return tide_object_at(handle)->detail[DETAIL_LOCK];
}

void tide_condition_begin(struct tide_wait *wait)
{
    struct condition *condition = tide_object_body(wait->object);
    wait->set = &condition->waiters;
    wait->stuck = &condition->stuck;
    tide_wait_begin(wait);
}

int tide_condition_wait(struct tide_wait *wait)
{
    int status = tide_wait_rest(wait);
    if (status == TIDE_EAGAIN)
        return status;
    return tide_wait_end(wait) ? TIDE_OK : status;
}

uint32_t tide_condition_notify(tide_handle handle, uint32_t count)
{
    struct condition *condition = tide_object_body(handle);
    return tide_waiters_wake(&condition->waiters, count);
}

static void destroy(struct tide_object *object)
{
    tide_object_unrefer(object->detail[DETAIL_LOCK]);
}

static void bury(struct tide_object *object, uint32_t entry)
{
    struct condition *condition = tide_commons_at(object->body);
    tide_waiters_bury(&condition->waiters, &condition->stuck, entry);
}

const struct tide_kind_ops tide_condition_ops = { .destroy = destroy,
                                                  .bury = bury };
