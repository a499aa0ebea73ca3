/*
 * Functions as jobs send them: encoded once and known by their content, so that the
 * same function again is the same block, and workers find it decoded.
 *
 * They are in a hash table by digest. Those that no job uses are also in a list, in
 * the order in which they were let go, and the first of it goes when there are many.
 * Those that name shared objects go with their last job: they would keep them.
 */
#include "base/fault.h"
#include "lua/form.h"
#include "lua/job_parts.h"
#include "lua/trace.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum {
    IDLE_MAX = 128,    /* kept without a job */
    BUCKETS_FIRST = 64 /* doubled whenever there are as many functions */
};

/* ---- the table ---- */

static struct tide_function **bucket_of(const struct tide_functions *functions,
                                        uint64_t digest)
{
    return &functions->buckets[digest & (functions->bucket_count - 1)];
}

/* @return 0; -1 without memory, and it stays as it was */
static int grow(struct tide_functions *functions)
{
    struct tide_functions larger = *functions;
    larger.bucket_count =
        functions->bucket_count ? 2 * functions->bucket_count : BUCKETS_FIRST;
    larger.buckets = TIDE_FAULT(JOB_MALLOC)
                         ? NULL
                         : calloc(larger.bucket_count, sizeof(void *));
    if (larger.buckets == NULL)
        return -1;
    for (size_t i = 0; i < functions->bucket_count; i++) {
        while (functions->buckets[i] != NULL) {
            struct tide_function *function = functions->buckets[i];
            struct tide_function **to = bucket_of(&larger, function->digest);
            functions->buckets[i] = function->next;
            function->next = *to;
            *to = function;
        }
    }
    free(functions->buckets);
    *functions = larger;
    return 0;
}

static struct tide_function *find_function(struct tide_lua_pool *owner,
                                           const struct tide_buffer *text,
                                           uint64_t digest)
{
    if (owner->functions.bucket_count == 0)
        return NULL;
    struct tide_function *function = *bucket_of(&owner->functions, digest);
    while (function != NULL &&
           (function->digest != digest || function->size != text->used ||
            memcmp(tide_pool_at(owner->pool, function->block) +
                       sizeof(struct tide_function_head),
                   text->data, text->used) != 0))
        function = function->next;
    return function;
}

/* ---- functions without a job ---- */

static void make_idle(struct tide_functions *functions,
                      struct tide_function *function)
{
    function->idle_next = NULL;
    function->idle_previous = functions->idle_last;
    if (functions->idle_last != NULL)
        functions->idle_last->idle_next = function;
    else
        functions->idle_first = function;
    functions->idle_last = function;
    functions->idle_count++;
}

static void end_idle(struct tide_functions *functions,
                     struct tide_function *function)
{
    if (function->idle_previous != NULL)
        function->idle_previous->idle_next = function->idle_next;
    else
        functions->idle_first = function->idle_next;
    if (function->idle_next != NULL)
        function->idle_next->idle_previous = function->idle_previous;
    else
        functions->idle_last = function->idle_previous;
    functions->idle_count--;
}

/* Drop a function without a job. */
static void remove_function(struct tide_lua_pool *owner,
                            struct tide_function *function)
{
    struct tide_functions *functions = &owner->functions;
    struct tide_function **at = bucket_of(functions, function->digest);
    while (*at != function)
        at = &(*at)->next;
    *at = function->next;
    end_idle(functions, function);
    functions->count--;
    tide_recent_forget(owner, function);
    tide_pool_free_block(owner->pool, function->block);
    tide_handles_free(&function->handles);
    free(function);
}

/* A new function, idle. NULL without memory. */
static struct tide_function *add_function(struct tide_lua_pool *owner,
                                          const struct tide_buffer *text,
                                          uint64_t digest)
{
    struct tide_functions *functions = &owner->functions;
    if (functions->count == functions->bucket_count && grow(functions) != 0 &&
        functions->bucket_count == 0)
        return NULL;
    struct tide_function *function =
        TIDE_FAULT(JOB_MALLOC) ? NULL : calloc(1, sizeof *function);
    if (function == NULL)
        return NULL;
    struct tide_function_head head = { .id = functions->last_id + 1,
                                       .length = text->used };
    function->block = tide_pool_alloc(owner->pool, sizeof head + text->used);
    if (function->block == 0) {
        free(function);
        return NULL;
    }
    unsigned char *block = tide_pool_at(owner->pool, function->block);
    memcpy(block, &head, sizeof head);
    memcpy(block + sizeof head, text->data, text->used);
    function->digest = digest;
    function->size = text->used;
    struct tide_function **bucket = bucket_of(functions, digest);
    function->next = *bucket;
    *bucket = function;
    functions->count++;
    functions->last_id++;
    make_idle(functions, function);
    return function;
}

/* ---- for a job ---- */

/* As tide_encode(); a hook that it runs must not end the pool we are in. */
static int encode_busy(struct tide_lua_pool *owner, lua_State *L,
                       struct tide_buffer *text, int index, int count,
                       struct tide_error *err)
{
    owner->busy = 1;
    int status = tide_encode(owner->codec, L, text, index, count,
                             count > 1 ? TIDE_HEAD_MULTI : 0, err);
    owner->busy = 0;
    return status;
}

/* Encode the functions and find or make the block. NULL with the reason. */
static struct tide_function *encode_function(struct tide_lua_pool *owner,
                                             lua_State *L, int index, int count,
                                             struct tide_error *err)
{
    struct tide_buffer text;
    struct tide_function *function = NULL;
    size_t mark = owner->codec->sent.count;
    tide_buffer_init(&text);
    if (encode_busy(owner, L, &text, index, count, err) == TIDE_OK) {
        uint64_t digest = tide_digest(text.data, text.used);
        function = find_function(owner, &text, digest);
        if (function == NULL)
            function = add_function(owner, &text, digest);
        if (function == NULL)
            tide_fail(err, TIDE_ENOMEM,
                      "function: no room for %zu bytes in %d MB of shared "
                      "memory",
                      text.used, tide_pool_megabytes(owner->pool));
        else if (function->handles.count == 0)
            tide_handles_take(owner->codec, mark, &function->handles);
    }
    tide_handles_drop(&owner->codec->sent, mark);
    tide_buffer_free(&text);
    return function;
}

struct tide_function *tide_function_get(struct tide_lua_pool *owner,
                                        lua_State *L, int index, int count)
{
    struct tide_error err;
    struct tide_function *function =
        count == 1 ? tide_recent_find(owner, L, index) : NULL;
    if (function == NULL) {
        function = encode_function(owner, L, index, count, &err);
        if (function == NULL) {
            lua_pushfstring(L, "cannot send %s", err.text);
            tide_error_object_push(L, "encode", lua_tostring(L, -1));
            lua_error(L);
        }
        if (owner->trace != NULL)
            tide_trace_function(function, L, index);
        if (count == 1)
            tide_recent_note(owner, L, index, function);
    }
    if (function->users++ == 0)
        end_idle(&owner->functions, function);
    return function;
}

void tide_function_drop(struct tide_lua_pool *owner,
                        struct tide_function *function)
{
    if (--function->users > 0)
        return;
    make_idle(&owner->functions, function);
    /* One that names shared objects would keep them. */
    if (function->handles.count > 0)
        remove_function(owner, function);
    else if (owner->functions.idle_count > IDLE_MAX)
        remove_function(owner, owner->functions.idle_first);
}

void tide_functions_free(struct tide_lua_pool *owner)
{
    struct tide_functions *functions = &owner->functions;
    for (size_t i = 0; i < functions->bucket_count; i++) {
        while (functions->buckets[i] != NULL) {
            struct tide_function *function = functions->buckets[i];
            functions->buckets[i] = function->next;
            tide_handles_free(&function->handles);
            free(function);
        }
    }
    free(functions->buckets);
    *functions = (struct tide_functions){ .last_id = functions->last_id };
}
