/**
 * @file fault.h
 * @brief Points by name where a test can have a call fail or a process die.
 *
 * They are there in builds with TIDE_FAULTS only: in others TIDE_FAULT() is the
 * constant 0, and neither fault.c nor the Lua function that sets points is built.
 *
 * What is set lies in a page that a process shares with all that it forks, so a
 * point counts its hits over all processes, and one that fires once does so in one
 * of them. Executed processes (start method "spawn") have a page of their own.
 */
#ifndef TIDE_BASE_FAULT_H
#define TIDE_BASE_FAULT_H

#include <stdint.h>

/*
 * `fails` points stand before a call that may fail; the others are steps between
 * two stores or calls, where a process may die or be stopped.
 */
#define TIDE_FAULT_MAP(X)                                                      \
    /* memory and descriptors: fails */                                        \
    X(ARENA_CREATE, "arena.create")                                            \
    X(ARENA_SIZE, "arena.size")                                                \
    X(ARENA_MAP, "arena.map")                                                  \
    X(EVENT_OPEN, "event.open")                                                \
    X(REGION_FULL, "region.full")                                              \
    X(POOL_MALLOC, "pool.malloc")                                              \
    X(JOB_MALLOC, "job.malloc")                                                \
    X(CODEC_MALLOC, "codec.malloc")                                            \
    /* sleeps: end early */                                                    \
    X(FUTEX_WAIT, "futex.wait")                                                \
    X(HOST_POLL, "host.poll")                                                  \
    /* processes and the channel: fails */                                     \
    X(CHILD_FORK, "child.fork")                                                \
    X(OFFICE_SIGNALFD, "office.signalfd")                                      \
    X(OFFICE_PREPARE, "office.prepare")                                        \
    X(CREW_MALLOC, "crew.malloc")                                              \
    X(CHANNEL_SEND, "channel.send")                                            \
    X(CHANNEL_SHORT, "channel.short")                                          \
    X(CHANNEL_RIGHTS, "channel.rights")                                        \
    /* host: see board.c */                                                    \
    X(SUBMIT_READY, "submit.ready")                                            \
    X(SUBMIT_ENTERED, "submit.entered")                                        \
    X(SUBMIT_MAILED, "submit.mailed")                                          \
    X(REVOKE_FREED, "revoke.freed")                                            \
    X(COLLECT_TAKEN, "collect.taken")                                          \
    /* worker: see board.c and region.c */                                     \
    X(WORKER_BORN, "worker.born")                                              \
    X(WORKER_READY, "worker.ready")                                            \
    X(WORKER_UP, "worker.up")                                                  \
    X(CLAIM_OWNED, "claim.owned")                                              \
    X(CLAIM_NOTED, "claim.noted")                                              \
    X(MAIL_CLEARED, "mail.cleared")                                            \
    X(PUBLISH_NAMED, "publish.named")                                          \
    X(PUBLISH_WRITTEN, "publish.written")                                      \
    X(PUBLISH_FREED, "publish.freed")                                          \
    X(FINISH_BEGUN, "finish.begun")                                            \
    X(FINISH_DONE, "finish.done")                                              \
    X(FINISH_PUSHED, "finish.pushed")                                          \
    X(FINISH_WAKING, "finish.waking")                                          \
    X(REST_SPINNING, "rest.spinning")                                          \
    X(REST_ASLEEP, "rest.asleep")                                              \
    X(REST_LEFT, "rest.left")                                                  \
    X(REGION_CARVED, "region.carved")                                          \
    X(REGION_ALLOCATED, "region.allocated")                                    \
    X(REGION_NAMED, "region.named")                                            \
    X(REGION_FREED, "region.freed")                                            \
    X(REGION_TAKEN, "region.taken")                                            \
    X(REGION_GIVEN, "region.given")                                            \
    /* supervisor: see crew.c and watch.c */                                   \
    X(OFFICE_BEGUN, "office.begun")                                            \
    X(OFFICE_OBEYS, "office.obeys")                                            \
    X(CREW_MADE, "crew.made")                                                  \
    X(CREW_FORKED, "crew.forked")                                              \
    X(CREW_REAPED, "crew.reaped")                                              \
    X(RECLAIM_LOST, "reclaim.lost")                                            \
    X(CREW_RECLAIMED, "crew.reclaimed")                                        \
    X(CREW_VACANT, "crew.vacant")                                              \
    X(CREW_STOPPED, "crew.stopped")                                            \
    X(WATCH_SEIZE, "watch.seize")                                              \
    X(WATCH_CALLED, "watch.called")                                            \
    X(WATCH_JUDGED, "watch.judged")

enum tide_fault {
#define X(name, text) TIDE_FAULT_##name,
    TIDE_FAULT_MAP(X)
#undef X
        TIDE_FAULT_COUNT
};

/** Which processes a point is set for. */
enum tide_fault_role {
    TIDE_FAULT_HOST = 1,
    TIDE_FAULT_SUPERVISOR = 2,
    TIDE_FAULT_WORKER = 4
};

enum tide_fault_action {
    TIDE_FAULT_OFF,
    TIDE_FAULT_FAIL,  /* with `value` in errno */
    TIDE_FAULT_SIGNAL /* the process sends itself signal `value` */
};

struct tide_fault_order {
    enum tide_fault_action action;
    int value;
    uint32_t roles; /* of enum tide_fault_role */
    uint32_t at;    /* the hit that fires, from 1 */
    uint32_t every; /* and each so many after it; 0: it fires once */
};

#ifdef TIDE_FAULTS
/** Is the call to fail? Then errno is set. */
#define TIDE_FAULT(name) tide_fault_hit(TIDE_FAULT_##name)
/** What this process is from now on; one that never says is a host. */
#define TIDE_FAULT_BECOME(role) tide_fault_become(role)
#else
#define TIDE_FAULT(name)        0
#define TIDE_FAULT_BECOME(role) ((void)0)
#endif

/** A step at which the process may end. */
#define TIDE_STEP(name) ((void)TIDE_FAULT(name))

/** @return 1 if the call at this point is to fail, with errno set; else 0 */
int tide_fault_hit(enum tide_fault fault);

void tide_fault_become(enum tide_fault_role role);

/** Set a point, its counts anew. Not while it may be hit. */
void tide_fault_set(enum tide_fault fault,
                    const struct tide_fault_order *order);

/** How often a point has fired since it was set. */
uint32_t tide_fault_fired(enum tide_fault fault);

/** Its name; NULL beyond the last. */
const char *tide_fault_name(enum tide_fault fault);

#endif
