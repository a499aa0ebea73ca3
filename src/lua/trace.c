#include "lua/trace.h"

#include "lua/form.h"
#include "lua/job_calls.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY_TRACE "tidemill.timeline"

enum { SCRIPT = 1 /* its group; a 0 is taken for an idle processor */ };

/* ---- rows ---- */

int tide_trace_begin(struct tide_trace *trace, lua_State *L, const char *path,
                     const char *script, struct tide_error *err)
{
    const struct tide_row row = { SCRIPT, 0 };
    int status = tide_timeline_open(&trace->line, path, err);
    if (status != TIDE_OK)
        return status;
    trace->groups = SCRIPT;
    tide_timeline_name_group(&trace->line, SCRIPT, script);
    tide_timeline_name_row(&trace->line, row, "script");
    lua_pushlightuserdata(L, trace);
    lua_setfield(L, LUA_REGISTRYINDEX, KEY_TRACE);
    return TIDE_OK;
}

void tide_trace_pool(struct tide_lua_pool *owner, lua_State *L,
                     const char *name)
{
    char label[TIDE_TIMELINE_NAME_BYTES];
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_TRACE);
    struct tide_trace *trace = lua_touserdata(L, -1);
    lua_pop(L, 1);
    /* A worker that goes on in a copy of the script has a copy of the trace. */
    if (trace == NULL || trace->line.owner != getpid())
        return;
    owner->trace = trace;
    owner->trace_group = ++trace->groups;
    snprintf(label, sizeof label, "%.80s %u", name,
             owner->trace_group - SCRIPT);
    tide_timeline_name_group(&trace->line, owner->trace_group, label);
}

/* The row of a worker, which has its name by now. */
static struct tide_row row_of(struct tide_lua_pool *owner, uint32_t worker)
{
    struct tide_row row = { owner->trace_group, worker + 1 };
    while (owner->trace_rows <= worker) {
        char name[32];
        struct tide_row next = { owner->trace_group, ++owner->trace_rows };
        snprintf(name, sizeof name, "worker %u", next.row);
        tide_timeline_name_row(&owner->trace->line, next, name);
    }
    return row;
}

/* ---- what happened ---- */

void tide_trace_function(struct tide_function *function, lua_State *L,
                         int index)
{
    lua_Debug where;
    const char *name = "call";
    int line = 0;
    if (lua_isfunction(L, index)) {
        lua_pushvalue(L, index);
        lua_getinfo(L, ">S", &where);
        name = where.short_src;
        line = where.linedefined;
    }
    snprintf(function->label, sizeof function->label, line > 0 ? "%s:%d" : "%s",
             name, line);
}

static void mark_death(struct tide_lua_pool *owner, struct tide_row row,
                       uint64_t at_ns, uint64_t item)
{
    const struct tide_death *death = &owner->outcome.death;
    const char *name = death->cause == TIDE_DEATH_TIMEOUT  ? "timed out"
                       : death->cause == TIDE_DEATH_CANCEL ? "cancelled"
                                                           : "died";
    int killed = WIFSIGNALED(death->wait_status);
    tide_timeline_mark(&owner->trace->line, row, name, at_ns,
                       "\"pid\":%d,\"item\":%" PRIu64 ",\"%s\":%d",
                       (int)death->pid, item, killed ? "signal" : "exitcode",
                       killed ? WTERMSIG(death->wait_status)
                              : WEXITSTATUS(death->wait_status));
}

void tide_trace_outcome(struct tide_lua_pool *owner)
{
    const struct tide_outcome *outcome = &owner->outcome;
    const struct tide_flight *flight = (void *)(uintptr_t)outcome->tag;
    const struct tide_lua_segment *segment = (void *)flight->span.segment;
    const struct tide_lua_job *job = flight->job;
    uint32_t first = flight->span.first;
    struct tide_row row = row_of(owner, outcome->death.worker);
    /* A call counts as a job of one item. */
    uint64_t number =
        job->calls != NULL ? job->calls->first_number + first + 1 : job->number;
    uint64_t origin =
        job->calls != NULL ? 1 - (uint64_t)first : segment->origin + 1;
    uint64_t end_ns = outcome->lost ? tide_now_ns() : outcome->reply.end_ns;
    const char *failed = (outcome->reply.form & TIDE_REPLY_FAILED) != 0
                             ? ",\"failed\":true"
                             : "";
    if (outcome->reply.start_ns != 0) /* it was begun */
        tide_timeline_span(
            &owner->trace->line, row, tide_job_function(job, first)->label,
            outcome->reply.start_ns, end_ns,
            "\"job\":%" PRIu64 ",\"first\":%" PRIu64
            ",\"items\":%u,\"bytes\":%u,\"timeout_ms\":%u%s",
            number, origin + first, flight->span.last - first,
            outcome->request.length, outcome->request.timeout_ms, failed);
    if (outcome->lost)
        mark_death(owner, row, end_ns, origin + outcome->reply.hand);
}

void tide_trace_work(const struct tide_lua_pool *owner, const char *name,
                     uint64_t start_ns, const char *unit, uint64_t count)
{
    const struct tide_row row = { SCRIPT, 0 };
    if (start_ns != 0 && count > 0)
        tide_timeline_span(&owner->trace->line, row, name, start_ns,
                           tide_now_ns(), "\"%s\":%" PRIu64 ",\"pool\":%u",
                           unit, count, owner->trace_group - SCRIPT);
}
