#include "lua/handles.h"

#include "lua/decoder.h"
#include "lua/encoder.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 8 };

/* Bytes that may be held before the collector is run for them. */
static const uint64_t light_bytes = UINT64_C(64) << 20;

/* ---- lists ---- */

static int reserve(struct tide_handles *handles, size_t more)
{
    size_t need = handles->count + more;
    size_t capacity = handles->capacity ? handles->capacity : FIRST_CAPACITY;
    if (need <= handles->capacity)
        return 0;
    while (capacity < need)
        capacity *= 2;
    tide_handle *list = realloc(handles->list, capacity * sizeof *list);
    if (list == NULL)
        return -1;
    handles->list = list;
    handles->capacity = capacity;
    return 0;
}

int tide_handles_add(struct tide_handles *handles, tide_handle handle,
                     enum tide_object_kind kind, struct tide_error *err)
{
    if (handles->count > 0 && handles->list[handles->count - 1] == handle)
        return TIDE_OK;
    if (reserve(handles, 1) != 0)
        return tide_fail(err, TIDE_ENOMEM, "no memory left to send it");
    int status = tide_object_hold(handle, kind, err);
    if (status == TIDE_OK)
        handles->list[handles->count++] = handle;
    return status;
}

void tide_handles_drop(struct tide_handles *handles, size_t from)
{
    while (handles->count > from)
        tide_object_drop(handles->list[--handles->count]);
}

void tide_handles_free(struct tide_handles *handles)
{
    tide_handles_drop(handles, 0);
    free(handles->list);
    *handles = (struct tide_handles){ 0 };
}

void tide_handles_take(struct tide_codec *codec, size_t mark,
                       struct tide_handles *out)
{
    struct tide_handles *sent = &codec->sent;
    if (sent->count <= mark)
        return;
    if (reserve(out, sent->count - mark) == 0) {
        memcpy(out->list + out->count, sent->list + mark,
               (sent->count - mark) * sizeof *sent->list);
        out->count += sent->count - mark;
    }
    sent->count = mark;
}

int tide_handles_are_heavy(const struct tide_codec *codec)
{
    return tide_objects_held_bytes() > codec->light_bytes + light_bytes;
}

void tide_handles_collect(struct tide_codec *codec, lua_State *L)
{
    uint64_t before = tide_objects_held_bytes();
    lua_gc(L, LUA_GCCOLLECT, 0);
    uint64_t twice = 2 * tide_objects_held_bytes();
    /* What comes again and again, as an argument, is not to be collected each time. */
    codec->light_bytes = twice > before / 2 ? twice : before / 2;
}

void tide_handles_weigh(struct tide_codec *codec, lua_State *L)
{
    if (tide_handles_are_heavy(codec))
        tide_handles_collect(codec, L);
}

/* ---- messages ---- */

/*
 * What the Lua half makes of an object, and what it makes an object of: the handle
 * and the kind, and then whatever it wants.
 */
struct form {
    tide_handle handle;
    uint32_t kind;
};

enum { FORM_BYTES = sizeof(tide_handle) + sizeof(uint32_t) };

static void read_form(struct form *form, const void *bytes)
{
    memcpy(&form->handle, bytes, sizeof form->handle);
    memcpy(&form->kind, (const char *)bytes + sizeof form->handle,
           sizeof form->kind);
}

int tide_encode_shared(struct tide_encoder *e, int index)
{
    struct form form;
    struct tide_error err;
    size_t length;
    const char *bytes = lua_tolstring(e->L, index, &length);
    if (length < FORM_BYTES)
        return tide_encoder_fail(e, "a shared object without handle");
    if (e->foreign)
        return tide_encoder_fail(e, "a shared object (its memory is not kept: "
                                    "send it to a worker, or send its values)");
    read_form(&form, bytes);
    if (tide_handles_add(&e->codec->sent, form.handle,
                         (enum tide_object_kind)form.kind, &err) != TIDE_OK)
        return err.status == TIDE_ENOMEM
                   ? tide_encoder_fail_memory(e)
                   : tide_encoder_fail(e, "a shared object that is no more");
    return tide_encoder_put_tagged(e, TIDE_TAG_SHARED, length) ||
                   tide_encoder_put(e, bytes, length)
               ? -1
               : 0;
}

int tide_decode_shared(struct tide_decoder *d)
{
    lua_State *L = d->L;
    struct form form;
    struct tide_error err;
    uint64_t length = tide_read_varint(&d->in);
    const unsigned char *bytes = tide_read(&d->in, length);
    if (bytes == NULL || length < FORM_BYTES)
        return tide_decoder_fail_bytes(d);
    if (d->codec->shared_open == 0)
        return tide_decoder_fail(d, "a shared object: the ffi library is not "
                                    "available");
    read_form(&form, bytes);
    if (form.kind == TIDE_SHARED_NONE || form.kind >= TIDE_SHARED_COUNT)
        return tide_decoder_fail_bytes(d);
    if (tide_object_hold(form.handle, (enum tide_object_kind)form.kind, &err) !=
        TIDE_OK)
        return tide_decoder_fail(d, err.text);
    lua_rawgeti(L, LUA_REGISTRYINDEX, d->codec->shared_open);
    lua_pushlstring(L, (const char *)bytes, (size_t)length);
    if (lua_pcall(L, 1, 1, 0) == 0 && !lua_isnil(L, -1)) {
        d->codec->opened++;
        return 0;
    }
    tide_object_drop(form.handle); /* it is the value's only if there is one */
    return tide_decoder_fail(d, lua_isstring(L, -1)
                                    ? lua_tostring(L, -1)
                                    : "a shared object that is not one");
}
