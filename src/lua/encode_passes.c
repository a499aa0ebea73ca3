/*
 * A message is of one state of its values: the encoder reads them while nothing else
 * can run. For that it makes up to four passes, and keeps what the last one wrote:
 *
 *   plain      tables by their layout, without numbers, see encode_direct.c. It
 *              calls nothing that could run Lua code or the collector, so it needs
 *              no protection. Where numbers are needed it gives up.
 *   numbered   any value, under lua_pcall(). Where a hook is needed it gives up.
 *   trial      the hooks are called, and what they return is kept. What it writes is
 *              thrown away: a hook may have changed what was written before it.
 *   final      the hooks' results are there already. A value with a hook that has
 *              none came in meanwhile: the message fails.
 *
 * Lua code that could run in a numbered or final pass are finalizers: they could
 * change a table that is being written, encode something themselves, or free an
 * object, so that another is at the address that the message's map knows. So the
 * collector is stopped before the first thing that might run it; unless nothing has
 * been read yet, as with the function of a job, which comes first: to begin again
 * costs the collector a step.
 */
#include "lua/encoder.h"

#include <stdio.h>
#include <string.h>

int tide_encoder_minds_collector(const struct tide_encoder *e)
{
    int has_read = e->object_count > 1 || e->cell_count > 0 || e->read_cdata;
    return has_read && !e->runs_hooks && !e->stopped_collector;
}

void tide_encoder_stop_collector(struct tide_encoder *e)
{
    if (!tide_encoder_minds_collector(e) || !lua_gc(e->L, LUA_GCISRUNNING, 0))
        return;
    lua_gc(e->L, LUA_GCSTOP, 0);
    e->stopped_collector = 1;
}

/* ---- what Lua code has returned ---- */

/*
 * The table `results` has the number of a result by what was asked for, and the
 * results by number, from 1 on: so nil is a result too. At 0 is a table of such
 * numbers by environment and global. It keeps all of them alive, as the identity
 * of each may be in the message.
 */

int tide_encoder_result(struct tide_encoder *e)
{
    lua_State *L = e->L;
    if (!lua_isnumber(L, -1)) {
        lua_pop(L, 1);
        return 0;
    }
    lua_rawgeti(L, e->results, (int)lua_tonumber(L, -1));
    lua_replace(L, -2);
    return 1;
}

double tide_encoder_add_result(struct tide_encoder *e)
{
    lua_pushvalue(e->L, -1);
    lua_rawseti(e->L, e->results, ++e->result_count);
    return e->result_count;
}

/* ---- passes ---- */

/* Make ready for another pass, numbered. */
static void restart(struct tide_encoder *e)
{
    *e = (struct tide_encoder){
        .codec = e->codec,
        .seen = e->seen,
        .L = e->L,
        .out = e->out,
        .err = e->err,
        .asked = e->asked,
        .foreign = e->foreign,
        .head = e->asked,
        .numbers = 1,
        .results = e->results,
        .result_count = e->result_count,
        .stopped_collector = e->stopped_collector,
    };
}

static void make_results(struct tide_encoder *e)
{
    lua_State *L = e->L;
    lua_newtable(L);
    e->results = lua_gettop(L);
    lua_newtable(L);
    lua_rawseti(L, e->results, 0);
}

/* As a C function: the encoder, then the values. Returns whether it failed. */
int tide_encode_run_passes(lua_State *L)
{
    struct tide_encoder *e = lua_touserdata(L, 1);
    int count = lua_gettop(L) - 1;
    size_t start = e->out->used;
    restart(e);
    int failed = tide_encode_message(e, 2, count);
    if (failed && e->wants_hooks) {
        make_results(e);
        restart(e);
        e->runs_hooks = 1;
        failed = tide_encode_message(e, 2, count);
        if (!failed) {
            e->out->used = start;
            restart(e);
            failed = tide_encode_message(e, 2, count);
        }
    }
    lua_pushboolean(L, failed);
    return 1;
}

static int fail_raised(struct tide_encoder *e, int status)
{
    e->path[0] = '\0';
    if (status == LUA_ERRMEM)
        return tide_encoder_fail_memory(e);
    const char *text = lua_tostring(e->L, -1);
    snprintf(e->reason_text, sizeof e->reason_text,
             "a value that could not be read: %s", text ? text : "an error");
    return tide_encoder_fail(e, e->reason_text);
}

int tide_encode_protected(struct tide_encoder *e, int first, int count)
{
    lua_State *L = e->L;
    struct tide_codec *codec = e->codec;
    size_t start = e->out->used;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, count + 2))
        return tide_encoder_fail_memory(e);
    /* The map is out of the reach of a hook that encodes something itself. */
    struct tide_ptrmap seen = codec->seen;
    codec->seen = (struct tide_ptrmap){ 0 };
    e->seen = &seen;
    lua_rawgeti(L, LUA_REGISTRYINDEX, codec->keys.run_passes);
    lua_pushlightuserdata(L, e);
    for (int i = 0; i < count; i++)
        lua_pushvalue(L, first + i);
    int status = lua_pcall(L, count + 1, 1, 0);
    int failed = status != 0 ? fail_raised(e, status) : lua_toboolean(L, -1);
    if (failed)
        e->out->used = start;
    if (e->stopped_collector)
        lua_gc(L, LUA_GCRESTART, 0);
    tide_ptrmap_free(&codec->seen);
    codec->seen = seen;
    e->seen = NULL;
    lua_settop(L, top);
    return failed;
}
