/*
 * Functions as jobs send them: encoded once and known by their content, so that the
 * same function again is the same block, and workers find it decoded.
 */
#include "lua/form.h"
#include "lua/job_parts.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { FUNCTIONS_MAX = 128 /* kept without a job */ };

static struct tide_function *find_function(struct tide_lua_pool *owner,
                                           const struct tide_buffer *text,
                                           uint64_t digest)
{
    for (struct tide_function **at = &owner->functions; *at != NULL;
         at = &(*at)->next) {
        struct tide_function *function = *at;
        if (function->digest != digest || function->size != text->used ||
            memcmp(tide_pool_at(owner->pool, function->block) +
                       sizeof(struct tide_function_head),
                   text->data, text->used) != 0)
            continue;
        *at = function->next; /* to the front: it is used again */
        function->next = owner->functions;
        owner->functions = function;
        return function;
    }
    return NULL;
}

/* Drop the function unused for longest, if there are many. */
static void evict_function(struct tide_lua_pool *owner)
{
    struct tide_function **victim = NULL;
    if (owner->function_count < FUNCTIONS_MAX)
        return;
    for (struct tide_function **at = &owner->functions; *at != NULL;
         at = &(*at)->next)
        if ((*at)->users == 0)
            victim = at;
    if (victim == NULL)
        return;
    struct tide_function *function = *victim;
    if (owner->recent == function)
        owner->recent = NULL;
    *victim = function->next;
    owner->function_count--;
    tide_pool_free_block(owner->pool, function->block);
    free(function);
}

static struct tide_function *add_function(struct tide_lua_pool *owner,
                                          const struct tide_buffer *text,
                                          uint64_t digest)
{
    evict_function(owner);
    struct tide_function *function = calloc(1, sizeof *function);
    if (function == NULL)
        return NULL;
    struct tide_function_head head = { .id = owner->last_function + 1,
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
    function->next = owner->functions;
    owner->functions = function;
    owner->function_count++;
    owner->last_function++;
    return function;
}

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
    tide_buffer_init(&text);
    if (encode_busy(owner, L, &text, index, count, err) == TIDE_OK) {
        uint64_t digest = tide_digest(text.data, text.used);
        function = find_function(owner, &text, digest);
        if (function == NULL)
            function = add_function(owner, &text, digest);
        if (function == NULL)
            tide_fail(err, TIDE_ENOMEM, "function: no shared memory left");
    }
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
        if (count == 1)
            tide_recent_note(owner, L, index, function);
    }
    function->users++;
    return function;
}

void tide_function_drop(struct tide_function *function)
{
    function->users--;
}

void tide_functions_free(struct tide_lua_pool *owner)
{
    while (owner->functions != NULL) {
        struct tide_function *function = owner->functions;
        owner->functions = function->next;
        free(function);
    }
    owner->function_count = 0;
}
