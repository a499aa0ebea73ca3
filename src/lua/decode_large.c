/*
 * A large string mostly gets fresh memory, and the bytes are copied there before
 * anybody else sees it: to have its pages made in one go, the allocator of the
 * state is replaced for that call.
 */
#include "base/pages.h"
#include "lua/decoder.h"

/* The allocator of a state, and what a large string is made of. */
struct large_string {
    lua_Alloc allocate;
    void *heap;
    const unsigned char *bytes;
    size_t length;
};

static void *allocate_pages(void *string, void *block, size_t old_size,
                            size_t size)
{
    const struct large_string *large = string;
    void *fresh = large->allocate(large->heap, block, old_size, size);
    if (block == NULL && fresh != NULL && size >= large->length)
        tide_pages_make(fresh, size);
    return fresh;
}

static int make_large_string(lua_State *L)
{
    const struct large_string *large = lua_touserdata(L, 1);
    lua_pushlstring(L, (const char *)large->bytes, large->length);
    return 1;
}

void tide_decoder_push_large(struct tide_decoder *d, const unsigned char *bytes,
                             size_t length)
{
    lua_State *L = d->L;
    struct large_string large = { .bytes = bytes, .length = length };
    lua_pushcfunction(L, make_large_string);
    lua_pushlightuserdata(L, &large);
    large.allocate = lua_getallocf(L, &large.heap);
    lua_setallocf(L, allocate_pages, &large);
    int failed = lua_pcall(L, 1, 1, 0);
    lua_setallocf(L, large.allocate, large.heap);
    if (failed)
        lua_error(L);
}
