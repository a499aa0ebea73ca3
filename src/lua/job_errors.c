/*
 * Error objects, and what becomes of an item that failed: another try, or its
 * final state. The tries are counted by item, and only of items that failed in a
 * job that grants tries.
 */
#include "lua/job_calls.h"

#include <lauxlib.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

/* ---- error objects ---- */

void tide_error_object_set(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_ERROR);
    lua_setmetatable(L, -2);
}

void tide_error_object_push(lua_State *L, const char *kind, const char *message)
{
    lua_createtable(L, 0, 8);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, message);
    lua_setfield(L, -2, "message");
    tide_error_object_set(L);
}

void tide_error_object_copy(lua_State *L)
{
    int original = lua_gettop(L);
    lua_createtable(L, 0, 8);
    lua_pushnil(L);
    while (lua_next(L, original) != 0) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, original + 1);
    }
    tide_error_object_set(L);
}

static void set_number(lua_State *L, const char *field, double value)
{
    lua_pushnumber(L, value);
    lua_setfield(L, -2, field);
}

/* Push how the worker ended. */
static void push_end(const struct tide_terms *terms, lua_State *L,
                     const struct tide_death *death)
{
    const double ms_per_s = 1e3;
    int status = death->wait_status;
    if (death->cause == TIDE_DEATH_TIMEOUT)
        lua_pushfstring(L, "was killed after %f s",
                        terms->timeout_ms / ms_per_s);
    else if (WIFSIGNALED(status))
        lua_pushfstring(L, "was killed by signal %d (%s)", WTERMSIG(status),
                        strsignal(WTERMSIG(status)));
    else
        lua_pushfstring(L, "ended with exit code %d", WEXITSTATUS(status));
}

void tide_job_push_death(const struct tide_lua_job *job, lua_State *L,
                         uint64_t index, const struct tide_death *death)
{
    int status = death->wait_status;
    int timed_out = death->cause == TIDE_DEATH_TIMEOUT;
    lua_pushfstring(L, "worker %d (pid %d) ", (int)death->worker + 1,
                    (int)death->pid);
    push_end(tide_job_terms(job, index), L, death);
    if ((job->order.flags & TIDE_JOB_CALLS) != 0)
        lua_pushliteral(L, " while it ran the call");
    else
        lua_pushfstring(L, " while it ran item %d", (int)index + 1);
    lua_concat(L, 3);
    tide_error_object_push(L, timed_out ? "timeout" : "worker",
                           lua_tostring(L, -1));
    lua_replace(L, -2);
    set_number(L, "worker", death->worker + 1);
    set_number(L, "pid", death->pid);
    if (WIFSIGNALED(status))
        set_number(L, "signal", WTERMSIG(status));
    else
        set_number(L, "exitcode", WEXITSTATUS(status));
}

/* ---- tries ---- */

/* Failures of an item so far, of both sorts, in one number of its table. */
enum { RAISED_UNIT = 1 << 16, TRIES_MAX = RAISED_UNIT - 1 };

/* Count a failure of the item; returns how many there were of its sort. */
static uint32_t count_failure(struct tide_lua_job *job, lua_State *L,
                              uint64_t index, enum tide_failure failure,
                              uint32_t *tries)
{
    tide_job_push(job, L, TIDE_JOB_ATTEMPTS);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        tide_job_store(job, L, TIDE_JOB_ATTEMPTS);
    }
    lua_pushnumber(L, (double)index);
    lua_rawget(L, -2);
    uint32_t counts = (uint32_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    counts += failure == TIDE_FAILURE_LOST ? 1 : RAISED_UNIT;
    lua_pushnumber(L, (double)index);
    lua_pushnumber(L, counts);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    uint32_t lost = counts % RAISED_UNIT, raised = counts / RAISED_UNIT;
    *tries = lost + raised;
    return failure == TIDE_FAILURE_LOST ? lost : raised;
}

static uint32_t tries_granted(const struct tide_terms *terms,
                              enum tide_failure failure)
{
    uint32_t granted = failure == TIDE_FAILURE_LOST     ? terms->retries
                       : failure == TIDE_FAILURE_RAISED ? terms->error_retries
                                                        : 0;
    return granted < TRIES_MAX ? granted : TRIES_MAX - 1;
}

/* ---- final states ---- */

/* The error on top is the item's final state. */
static void settle_failed(struct tide_lua_job *job, lua_State *L,
                          uint64_t index)
{
    const unsigned flags = job->order.flags;
    job->failed++;
    if (job->calls != NULL) {
        tide_calls_fail(job, L, index);
        return;
    }
    /* Without it there is no sum. */
    int fatal = (flags & TIDE_JOB_FOLD) != 0 ||
                (flags & (TIDE_JOB_STREAM | TIDE_JOB_COLLECT)) == 0;
    if (fatal) {
        tide_job_fail(job, L);
    } else if ((flags & TIDE_JOB_STREAM) != 0) {
        tide_ring_land(job, L, index, 0, 1);
    } else {
        int listed = (flags & TIDE_JOB_EFFECT) != 0;
        tide_job_push(job, L, TIDE_JOB_RESULTS);
        lua_insert(L, -2);
        lua_rawseti(L, -2, (int)(listed ? job->failed : index + 1));
        lua_pop(L, 1);
    }
}

/* Say in the error on top which item it is of. */
static void name_item(const struct tide_lua_job *job, lua_State *L,
                      uint64_t index, uint32_t tries)
{
    if ((job->order.flags & TIDE_JOB_CALLS) == 0)
        set_number(L, "index", (double)index + 1);
    set_number(L, "attempts", tries);
}

void tide_job_fail_item(struct tide_lua_job *job, lua_State *L,
                        struct tide_lua_segment *segment, uint32_t item,
                        enum tide_failure failure)
{
    const unsigned no_item = TIDE_JOB_CALLS | TIDE_JOB_BROADCAST;
    uint64_t index = segment->origin + item;
    const struct tide_terms *terms = tide_job_terms(job, index);
    uint32_t granted = tries_granted(terms, failure);
    uint32_t tries = 1;
    struct tide_span span = { &segment->part, item, item + 1 };
    if ((terms->retries > 0 || terms->error_retries > 0) &&
        count_failure(job, L, index, failure, &tries) <= granted &&
        tide_job_repeat(&job->ledger, &span) == 0) {
        job->owner->repeated++;
        lua_pop(L, 1);
        return;
    }
    name_item(job, L, index, tries);
    if ((job->order.flags & no_item) == 0) {
        tide_job_push_item(job, L, segment, item);
        lua_setfield(L, -2, "item");
    }
    settle_failed(job, L, index);
}

void tide_job_refuse_item(struct tide_lua_job *job, lua_State *L,
                          uint64_t index)
{
    job->refused++;
    name_item(job, L, index, 1);
    if ((job->order.flags & TIDE_JOB_BROADCAST) == 0) {
        tide_job_push(job, L, TIDE_JOB_ITEMS);
        tide_job_push_element(L, lua_gettop(L), index - job->item_base);
        lua_setfield(L, -3, "item");
        lua_pop(L, 1);
    }
    settle_failed(job, L, index);
}
