#include "share/sync_inner.h"

void tide_sync_define(void)
{
    tide_kind_define(TIDE_SHARED_SEMAPHORE, &tide_semaphore_ops);
    tide_kind_define(TIDE_SHARED_EVENT, &tide_flag_ops);
    tide_kind_define(TIDE_SHARED_CONDITION, &tide_condition_ops);
    tide_kind_define(TIDE_SHARED_BARRIER, &tide_barrier_ops);
}
