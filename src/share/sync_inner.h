/**
 * @file sync_inner.h
 * @brief What the kinds of sync.h do at a death, and at their own end.
 */
#ifndef TIDE_SHARE_SYNC_INNER_H
#define TIDE_SHARE_SYNC_INNER_H

#include "share/sync.h"

extern const struct tide_kind_ops tide_semaphore_ops;
extern const struct tide_kind_ops tide_flag_ops;
extern const struct tide_kind_ops tide_condition_ops;
extern const struct tide_kind_ops tide_barrier_ops;

#endif
