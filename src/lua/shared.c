#include "lua/shared.h"
#include "lua/runtime.h"

#include "lua/codec.h"
#include "lua/job_parts.h"
#include "lua/module.h"
#include "share/dict.h"
#include "share/queue.h"
#include "share/sync.h"

#include <stdlib.h>
#include <string.h>

/* As lj_obj.h has it: lua.h does not name it. */
enum { TYPE_CDATA = 10 };

/* What a value of the Lua half begins with: see lua/tidemill/shared.lua. */
struct value {
    uint32_t place;
    uint32_t generation;
};

tide_handle tide_check_object(lua_State *L, int index,
                              enum tide_object_kind kind)
{
    struct tide_error err;
    tide_handle handle = 0;
    if (lua_type(L, index) == TYPE_CDATA) {
        const struct value *value = lua_topointer(L, index);
        handle = (tide_handle)value->generation << 32 | value->place;
    }
    if (tide_commons.self == 0 && tide_commons_enter(&err) != TIDE_OK)
        tide_raise_shared(L, "cannot share", &err);
    if (tide_object_holds(handle) == 0 ||
        atomic_load(&tide_object_at(handle)->kind) != kind)
        luaL_error(L, "not such a shared object");
    return handle;
}

int tide_push_made(lua_State *L, int status, tide_handle handle,
                   const char *what, const struct tide_error *err)
{
    if (status != TIDE_OK) {
        lua_pushfstring(L, "cannot make a %s", what);
        return tide_raise_shared(L, lua_tostring(L, -1), err);
    }
    tide_codec_of(L)->opened++;
    tide_handles_weigh(tide_codec_of(L), L);
    tide_push_handle(L, handle);
    return 2;
}

/* ---- waits ---- */

enum { OWN_HOLDS = 1 /* the value's */ };

struct tide_wait tide_new_wait(lua_State *L, enum tide_object_kind kind,
                               int deadline)
{
    return (struct tide_wait){
        .object = tide_check_object(L, 1, kind),
        .deadline_ns = tide_check_deadline(L, deadline),
        .own_holds = OWN_HOLDS,
    };
}

/* Somebody else may need what woke us. */
static void give_up(struct tide_wait *wait)
{
    if (tide_wait_end(wait))
        tide_waiters_wake(wait->set, 1);
}

static void breathe(lua_State *L, struct tide_wait *wait)
{
    lua_getfield(L, LUA_REGISTRYINDEX, TIDE_KEY_BREATHE);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
    } else if (lua_pcall(L, 0, 0, 0) != 0) {
        give_up(wait);
        lua_error(L);
    }
}

int tide_wait_through(lua_State *L, struct tide_wait *wait,
                      int (*step)(struct tide_wait *, void *), void *context)
{
    int status;
    luaL_checkstack(L, 4, "too many nested calls");
    while ((status = step(wait, context)) == TIDE_EAGAIN)
        breathe(L, wait);
    return status;
}

void tide_push_wait_text(lua_State *L, int status)
{
    lua_pushstring(L, status == TIDE_OK         ? "done"
                      : status == TIDE_ETIMEOUT ? "timeout"
                      : status == TIDE_ECLOSED  ? "closed"
                                                : "alone");
}

/* ---- values ---- */

static int grow(struct tide_buffer *buffer, size_t need)
{
    struct tide_draft *draft = (void *)buffer;
    int is_inside = buffer->data == draft->room;
    size_t capacity = tide_buffer_next(buffer, need);
    unsigned char *data = realloc(is_inside ? NULL : buffer->data, capacity);
    if (data == NULL)
        return -1;
    if (is_inside)
        memcpy(data, draft->room, buffer->used);
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

void tide_draft_discard(struct tide_draft *draft)
{
    if (draft->buffer.data != draft->room)
        free(draft->buffer.data);
    tide_handles_free(&draft->handles);
}

void tide_draft_compose(struct tide_draft *draft, lua_State *L, int index)
{
    struct tide_error err;
    struct tide_codec *codec = tide_codec_of(L);
    size_t mark = codec->sent.count;
    draft->handles = (struct tide_handles){ 0 };
    draft->buffer = (struct tide_buffer){ .data = draft->room,
                                          .capacity = sizeof draft->room,
                                          .grow = grow };
    if (tide_encode(codec, L, &draft->buffer, index, 1, 0, &err) != TIDE_OK) {
        tide_draft_discard(draft);
        lua_pushfstring(L, "cannot send %s", err.text);
        tide_error_object_push(L, "encode", lua_tostring(L, -1));
        lua_error(L);
    }
    tide_handles_take(codec, mark, &draft->handles);
    draft->message = (struct tide_message){
        .bytes = draft->buffer.data,
        .length = draft->buffer.used,
        .held = draft->handles.list,
        .held_count = draft->handles.count,
    };
}

int tide_push_message(lua_State *L, const unsigned char *bytes, size_t length)
{
    struct tide_codec *codec = tide_codec_of(L);
    struct tide_error err;
    uint64_t opened = codec->opened;
    int count;
    if (tide_decode(codec, L, &bytes, bytes + length, &count, NULL, &err) ==
        TIDE_OK) {
        if (codec->opened != opened)
            tide_handles_weigh(codec, L);
        return 1;
    }
    lua_pushfstring(L, "cannot receive %s", err.text);
    tide_error_object_push(L, "decode", lua_tostring(L, -1));
    lua_replace(L, -2);
    return 0;
}

int tide_raise_full(lua_State *L)
{
    tide_error_object_push(L, "encode", "no shared memory left");
    return lua_error(L);
}

/* ---- opening ---- */

void tide_open_shared(lua_State *L)
{
    tide_commons_open(NULL);
    tide_sync_define();
    tide_queue_define();
    tide_dict_define();
    luaL_setfuncs(L, tide_core_sync, 0);
    luaL_setfuncs(L, tide_core_store, 0);
}
