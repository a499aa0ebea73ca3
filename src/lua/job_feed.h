/**
 * @file job_feed.h
 * @brief How jobs hand out their items: the feed list, and flights.
 *
 * A job is on the feed list of its pool only while it has something to hand out, so
 * that a step costs no more however many jobs are under way. Jobs are fed in the
 * order in which they joined, each as far as it may: spans while slots are free.
 */
#ifndef TIDE_LUA_JOB_FEED_H
#define TIDE_LUA_JOB_FEED_H

#include "lua/job_parts.h"

/* ---- job_feed.c ---- */

/** Put a job on the feed list of its pool, if it is not on it. */
void tide_job_join_feed(struct tide_lua_job *job);

/** Take it off the list, if it is on it. */
void tide_job_leave_feed(struct tide_lua_job *job);

/** Has it items to hand out now? */
int tide_job_has_more(const struct tide_lua_job *job);

/** So many spans of the job were handed out: wake workers for them. */
void tide_job_wake_for(struct tide_lua_job *job, uint32_t handed);

/** Put a job's items into segments, before the script can change them. */
void tide_feed_encode(struct tide_lua_job *job, lua_State *L);

/** Hand out what can go, of all that are on the list. */
void tide_feed_hand_out(struct tide_lua_pool *owner, lua_State *L);

/* ---- job_flights.c ---- */

/**
 * Submit a span.
 *
 * @return TIDE_OK; TIDE_EAGAIN if there is no room; TIDE_EINVAL: the worker that was
 *         to run it, of a broadcast, is there no more
 */
int tide_flight_start(struct tide_lua_job *job, const struct tide_span *span);

/** It is no more: its outcome is released, or does not come. */
void tide_flight_end(struct tide_flight *flight);

/** Take it back if no worker has begun it; with `kill` end that worker if one has. */
void tide_flight_recall(struct tide_flight *flight, int kill);

/** The same for all of a job. */
void tide_flights_recall(struct tide_lua_job *job, int kill);

#endif
