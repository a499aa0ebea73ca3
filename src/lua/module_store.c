/*
 * Queues and dictionaries for the Lua half. A value is a message of the codec; it is
 * encoded before the object is touched and decoded after, from a copy: nothing of
 * Lua's runs while others are kept waiting.
 */
#include "base/clock.h"
#include "lua/job_parts.h"
#include "lua/module.h"
#include "lua/shared.h"
#include "share/dict.h"
#include "share/queue.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* ---- queues ---- */

/* queue_make(capacity) -> place, generation; 0: without bound */
static int core_queue_make(lua_State *L)
{
    struct tide_error err;
    tide_handle handle = 0;
    int status = tide_queue_make(&handle, (uint64_t)lua_tonumber(L, 1), &err);
    return tide_push_made(L, status, handle, "queue", &err);
}

static int step_put(struct tide_wait *wait, void *context)
{
    const struct tide_draft *draft = context;
    for (;;) {
        int status = tide_queue_put(wait->object, &draft->message, NULL);
        if (status == TIDE_EAGAIN)
            status = tide_queue_wait_for_room(wait);
        else
            return status;
        if (status != TIDE_OK)
            return status;
    }
}

/* Under lua_pcall(): a draft is in the way of errors. */
static int put_waiting(lua_State *L)
{
    struct tide_wait *wait = lua_touserdata(L, 1);
    lua_pushnumber(L,
                   tide_wait_through(L, wait, step_put, lua_touserdata(L, 2)));
    return 1;
}

static int put_slowly(lua_State *L, struct tide_draft *draft)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_QUEUE, 4);
    lua_pushcfunction(L, put_waiting);
    lua_pushlightuserdata(L, &wait);
    lua_pushlightuserdata(L, draft);
    if (lua_pcall(L, 2, 1, 0) != 0) {
        tide_draft_discard(draft);
        lua_error(L);
    }
    return (int)lua_tonumber(L, -1);
}

/*
 * queue_put(queue, value, waits, seconds or nil) -> how it ended; "full" if it does not
 * wait
 */
static int core_queue_put(lua_State *L)
{
    struct tide_draft draft;
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_QUEUE);
    tide_draft_compose(&draft, L, 2);
    int status = tide_queue_put(handle, &draft.message, NULL);
    int is_full = status == TIDE_EAGAIN;
    if (is_full && lua_toboolean(L, 3))
        status = put_slowly(L, &draft);
    tide_draft_discard(&draft);
    if (status == TIDE_ENOMEM)
        return tide_raise_full(L);
    if (status == TIDE_EAGAIN)
        lua_pushliteral(L, "full");
    else
        tide_push_wait_text(L, status);
    return 1;
}

struct taking {
    struct tide_queue_item item;
    unsigned char room[TIDE_QUEUE_ROOM_BYTES];
};

static int step_get(struct tide_wait *wait, void *context)
{
    struct taking *taking = context;
    for (;;) {
        int status = tide_queue_get(&taking->item, wait->object, taking->room);
        if (status == TIDE_EAGAIN)
            status = tide_queue_wait_for_item(wait);
        else
            return status;
        if (status != TIDE_OK)
            return status;
    }
}

/*
 * queue_get(object, waits, seconds or nil) -> how it ended and the value; "empty" if it
 * does not wait
 */
static int core_queue_get(lua_State *L)
{
    struct taking taking;
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_QUEUE);
    int status = tide_queue_get(&taking.item, handle, taking.room);
    if (status == TIDE_EAGAIN && lua_toboolean(L, 2)) {
        struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_QUEUE, 3);
        status = tide_wait_through(L, &wait, step_get, &taking);
    }
    if (status == TIDE_EAGAIN)
        lua_pushliteral(L, "empty");
    else
        tide_push_wait_text(L, status);
    if (status != TIDE_OK)
        return 1;
    int decoded = tide_push_message(L, taking.item.bytes, taking.item.length);
    tide_queue_put_away(handle, &taking.item);
    return decoded ? 2 : lua_error(L);
}

/* queue_done(object) -> false: there is no item that is not */
static int core_queue_done(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_QUEUE);
    lua_pushboolean(L, tide_queue_done(handle) == 0);
    return 1;
}

static int step_done(struct tide_wait *wait, void *context)
{
    (void)context;
    return tide_queue_wait_for_done(wait);
}

/* queue_join(object, seconds or nil) -> how it ended */
static int core_queue_join(lua_State *L)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_QUEUE, 2);
    tide_push_wait_text(L, tide_wait_through(L, &wait, step_done, NULL));
    return 1;
}

/* queue_look(object) -> size, capacity, whether it is closed */
static int core_queue_look(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_QUEUE);
    lua_pushnumber(L, (double)tide_queue_size(handle));
    lua_pushnumber(L, (double)tide_queue_capacity(handle));
    lua_pushboolean(L, tide_queue_is_closed(handle));
    return 3;
}

/* queue_close(object) */
static int core_queue_close(lua_State *L)
{
    tide_queue_close(tide_check_object(L, 1, TIDE_SHARED_QUEUE));
    return 0;
}

/* ---- keys of dictionaries ---- */

enum { KEY_ROOM = 256, KEY_MAX = 1 << 20 };

/* The bytes of a key: what it is, and what is in it. The Lua half has checked it. */
struct key_room {
    struct tide_dict_key key;
    unsigned char bytes[KEY_ROOM];
};

static void write_key(struct tide_dict_key *out, unsigned char *room,
                      lua_State *L, int index)
{
    unsigned char *bytes = room;
    size_t length = 0;
    const void *data = "";
    double number;
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
        number = lua_tonumber(L, index) + 0.0; /* -0 is 0 */
        data = &number;
        length = sizeof number;
        break;
    case LUA_TSTRING:
        data = lua_tolstring(L, index, &length);
        break;
    case LUA_TBOOLEAN:
        length = (size_t)lua_toboolean(L, index);
        break;
    default:
        luaL_error(L, "not a key");
    }
    if (length >= KEY_MAX)
        luaL_error(L, "a key of %d bytes is too long", (int)length);
    if (length >= KEY_ROOM)
        bytes = lua_newuserdata(L, length + 1); /* stays until we return */
    bytes[0] = (unsigned char)lua_type(L, index);
    if (lua_isboolean(L, index))
        bytes[length] = bytes[0]; /* which it is, its length says */
    else
        memcpy(bytes + 1, data, length);
    *out = tide_dict_key_of(bytes, length + 1);
}

static void push_key(lua_State *L, const unsigned char *bytes, size_t length)
{
    double number;
    switch (bytes[0]) {
    case LUA_TNUMBER:
        memcpy(&number, bytes + 1, sizeof number);
        lua_pushnumber(L, number);
        break;
    case LUA_TSTRING:
        lua_pushlstring(L, (const char *)bytes + 1, length - 1);
        break;
    default:
        lua_pushboolean(L, length > 1);
        break;
    }
}

/* ---- dictionaries ---- */

/* dict_make() -> place, generation */
static int core_dict_make(lua_State *L)
{
    struct tide_error err;
    tide_handle handle = 0;
    int status = tide_dict_make(&handle, &err);
    return tide_push_made(L, status, handle, "dict", &err);
}

/* Room for what did not fit, kept on the stack. */
static void enlarge(lua_State *L, struct tide_dict_copy *copy)
{
    copy->room_bytes = copy->needed + copy->needed / 4;
    copy->room = lua_newuserdata(L, copy->room_bytes);
}

/* Push the copy's value; it holds by itself what is in it. */
static int push_copy(lua_State *L, const struct tide_dict_copy *copy)
{
    const struct tide_message *message = &copy->message;
    int decoded = tide_push_message(L, message->bytes, message->length);
    for (size_t i = 0; i < message->held_count; i++)
        tide_object_drop(message->held[i]);
    return decoded ? 1 : lua_error(L);
}

/* dict_get(object, key) -> value or nil */
static int core_dict_get(lua_State *L)
{
    unsigned char room[TIDE_QUEUE_ROOM_BYTES];
    struct key_room key;
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_DICT);
    int status;
    write_key(&key.key, key.bytes, L, 2);
    while ((status = tide_dict_get(handle, &key.key, &copy)) == TIDE_ENOMEM)
        enlarge(L, &copy);
    return status == TIDE_OK ? push_copy(L, &copy) : 0;
}

/* dict_next(object, part, key or nil) -> part, key, value, or nothing */
static int core_dict_next(lua_State *L)
{
    unsigned char room[TIDE_QUEUE_ROOM_BYTES];
    struct key_room after;
    struct tide_dict_copy copy = { .room = room, .room_bytes = sizeof room };
    struct tide_dict_place place = { .part = (uint32_t)lua_tonumber(L, 2) };
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_DICT);
    int has_key = !lua_isnoneornil(L, 3), status;
    if (has_key)
        write_key(&after.key, after.bytes, L, 3);
    while ((status = tide_dict_next(handle, &place, has_key ? &after.key : NULL,
                                    &copy)) == TIDE_ENOMEM)
        enlarge(L, &copy);
    if (status != TIDE_OK)
        return 0;
    lua_pushnumber(L, place.part);
    push_key(L, copy.key, copy.key_length);
    return 2 + push_copy(L, &copy);
}

struct setting {
    const struct tide_dict_key *key;
    const struct tide_message *message; /* NULL: no value */
};

static int step_set(struct tide_wait *wait, void *context)
{
    const struct setting *setting = context;
    for (;;) {
        int status =
            tide_dict_set(wait->object, setting->key, setting->message);
        if (status == TIDE_EAGAIN)
            status = tide_dict_wait(wait);
        else
            return status;
        if (status != TIDE_OK)
            return status;
    }
}

/* Under lua_pcall(). */
static int set_waiting(lua_State *L)
{
    struct tide_wait *wait = lua_touserdata(L, 1);
    lua_pushnumber(L,
                   tide_wait_through(L, wait, step_set, lua_touserdata(L, 2)));
    tide_wait_end(wait);
    return 1;
}

static int set_slowly(lua_State *L, struct tide_draft *draft,
                      struct setting *setting)
{
    struct tide_wait wait = tide_new_wait(L, TIDE_SHARED_DICT, 4);
    lua_pushcfunction(L, set_waiting);
    lua_pushlightuserdata(L, &wait);
    lua_pushlightuserdata(L, setting);
    if (lua_pcall(L, 2, 1, 0) != 0) {
        tide_draft_discard(draft);
        lua_error(L);
    }
    return (int)lua_tonumber(L, -1);
}

/* dict_set(object, key, value or nil) -> how it ended */
static int core_dict_set(lua_State *L)
{
    struct tide_draft draft;
    struct key_room key;
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_DICT);
    lua_settop(L, 3);
    write_key(&key.key, key.bytes, L, 2);
    tide_draft_compose(&draft, L, 3);
    struct setting setting = { &key.key,
                               lua_isnil(L, 3) ? NULL : &draft.message };
    int status = tide_dict_set(handle, &key.key, setting.message);
    if (status == TIDE_EAGAIN) {
        lua_settop(L, 4); /* a deadline of nil; the long key may go */
        write_key(&key.key, key.bytes, L, 2);
        status = set_slowly(L, &draft, &setting);
    }
    tide_draft_discard(&draft);
    if (status == TIDE_ENOMEM)
        return tide_raise_full(L);
    tide_push_wait_text(L, status);
    return 1;
}

/* ---- updates ---- */

struct update {
    const struct tide_dict_key *key;
    struct tide_dict_copy copy;
    int has_value;
};

static int step_begin(struct tide_wait *wait, void *context)
{
    struct update *update = context;
    for (;;) {
        int status = tide_dict_begin(wait->object, update->key, &update->copy,
                                     &update->has_value);
        if (status == TIDE_EAGAIN)
            status = tide_dict_wait(wait);
        else
            return status;
        if (status != TIDE_OK)
            return status;
    }
}

/* Own the key. Returns a status other than TIDE_EAGAIN. */
static int begin(lua_State *L, tide_handle handle, struct update *update)
{
    struct tide_wait wait = { .object = handle,
                              .deadline_ns = TIDE_FOREVER,
                              .own_holds = 1 };
    int status;
    while ((status = tide_wait_through(L, &wait, step_begin, update)) ==
               TIDE_ENOMEM &&
           update->copy.needed > update->copy.room_bytes)
        enlarge(L, &update->copy);
    tide_wait_end(&wait);
    return status;
}

/* Under lua_pcall(): key, function, update -> the new value, encoded and committed. */
static int compute(lua_State *L)
{
    struct update *update = lua_touserdata(L, 3);
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_DICT);
    struct tide_draft draft;
    lua_pushvalue(L, 2);
    if (update->has_value)
        push_copy(L, &update->copy);
    else
        lua_pushnil(L);
    lua_call(L, 1, 1);
    tide_draft_compose(&draft, L, 4);
    int status = tide_dict_commit(handle, update->key,
                                  lua_isnil(L, 4) ? NULL : &draft.message);
    tide_draft_discard(&draft);
    return status == TIDE_OK ? 1 : tide_raise_full(L);
}

/*
 * dict_update(object, key, f) -> how it ended, the new value; "ours" if f of an update
 * of that key is under way in this process
 */
static int core_dict_update(lua_State *L)
{
    unsigned char room[TIDE_QUEUE_ROOM_BYTES];
    struct key_room key;
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_DICT);
    write_key(&key.key, key.bytes, L, 2);
    struct update update = {
        .key = &key.key, .copy = { .room = room, .room_bytes = sizeof room }
    };
    int status = begin(L, handle, &update);
    if (status == TIDE_EINVAL) {
        lua_pushliteral(L, "ours");
        return 1;
    }
    if (status == TIDE_ENOMEM)
        return tide_raise_full(L);
    tide_push_wait_text(L, status);
    if (status != TIDE_OK)
        return 1;
    lua_pushcfunction(L, compute);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    lua_pushlightuserdata(L, &update);
    if (lua_pcall(L, 3, 1, 0) != 0) {
        tide_dict_abort(handle, &key.key);
        return lua_error(L);
    }
    return 2;
}

/* dict_count(object) */
static int core_dict_count(lua_State *L)
{
    tide_handle handle = tide_check_object(L, 1, TIDE_SHARED_DICT);
    lua_pushnumber(L, (double)tide_dict_count(handle));
    return 1;
}

const luaL_Reg tide_core_store[] = {
    { "queue_make", core_queue_make },   { "queue_put", core_queue_put },
    { "queue_get", core_queue_get },     { "queue_done", core_queue_done },
    { "queue_join", core_queue_join },   { "queue_look", core_queue_look },
    { "queue_close", core_queue_close }, { "dict_make", core_dict_make },
    { "dict_get", core_dict_get },       { "dict_set", core_dict_set },
    { "dict_next", core_dict_next },     { "dict_update", core_dict_update },
    { "dict_count", core_dict_count },   { NULL, NULL },
};
