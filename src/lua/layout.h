/**
 * @file layout.h
 * @brief Strings and tables of the running LuaJIT as they lie in memory.
 *
 * Plain data goes several times faster when the codec reads a table where it is
 * than when it asks for every value. Whether the structures below are those of
 * the LuaJIT we run in is not assumed but tried out, on strings and tables of
 * known contents, when a state's codec is made; if anything is not as it is
 * written here (other builds have other layouts), the codec uses the public
 * functions only.
 *
 * Rules for all who read or write through them:
 *   - A pointer is good until the collector may run: while the object is on the
 *     Lua stack, or while nothing calls into Lua.
 *   - What Lua code could have changed in between is read again.
 *   - An object is stored only in a table for which tide_layout_is_white()
 *     holds: the collector would have to be told of others. A number, boolean
 *     or nil may be stored in any.
 */
#ifndef TIDE_LUA_LAYOUT_H
#define TIDE_LUA_LAYOUT_H

#include "lua/bytecode.h"

#include <lua.h>
#include <stdint.h>
#include <string.h>

struct tide_gc_string {
    uint64_t next;
    unsigned char marked;
    unsigned char type;
    unsigned char reserved;
    unsigned char hash_kind;
    uint32_t id;
    uint32_t hash;
    uint32_t length; /* the bytes follow, and a zero */
};

struct tide_gc_node {
    uint64_t value; /* an entry counts only if this is not nil */
    uint64_t key;
    struct tide_gc_node *next;
};

struct tide_gc_table {
    uint64_t next;
    unsigned char marked;
    unsigned char type;
    unsigned char no_metamethods; /* a cache: those known to be absent */
    signed char colocated;
    uint64_t *array; /* indices 0 .. array_size - 1 */
    uint64_t gray;
    const struct tide_gc_table *metatable;
    struct tide_gc_node *nodes; /* node_mask + 1 of them, at least one */
    uint32_t array_size;
    uint32_t node_mask;
    struct tide_gc_node *free;
};

/** A coroutine, or the main one: a lua_State. */
struct tide_gc_state {
    uint64_t next;
    unsigned char marked;
    unsigned char type;
    unsigned char unused[2];
    uint64_t global;
    uint64_t gray;
    uint64_t *base;
    uint64_t *top;     /* where the next value is pushed */
    uint64_t *maximum; /* so far the stack needs not grow */
};

/*
 * A value is 64 bits: a double, or one of the negative NaNs that no operation
 * yields, with a kind in the upper 17 bits and mostly a pointer below.
 */
#define TIDE_BITS_KIND(kind)  (~(uint64_t)(kind) << 47)   /* and a pointer */
#define TIDE_BITS_PLAIN(kind) (~((uint64_t)(kind) << 47)) /* no pointer */
#define TIDE_BITS_NIL         TIDE_BITS_PLAIN(0)
#define TIDE_BITS_FALSE       TIDE_BITS_PLAIN(1)
#define TIDE_BITS_TRUE        TIDE_BITS_PLAIN(2)
#define TIDE_BITS_NAN         UINT64_C(0xfff8000000000000) /* of all NaNs only this */
#define TIDE_BITS_POINTER     ((UINT64_C(1) << 47) - 1)

enum tide_kind { /* the complement of the upper 17 bits */
                 TIDE_KIND_NIL = 0,
                 TIDE_KIND_FALSE = 1,
                 TIDE_KIND_TRUE = 2,
                 TIDE_KIND_STRING = 4,
                 TIDE_KIND_TABLE = 11,
                 TIDE_KIND_NUMBER = 13 /* and all above */
};

/** Find out whether the layout is that of this LuaJIT. May raise for memory.
 * @return 0, or -1 if it is not */
int tide_layout_learn(const struct tide_bytecode_format *format, lua_State *L);

static inline uint32_t tide_bits_kind(uint64_t bits)
{
    return ~(uint32_t)((int64_t)bits >> 47);
}

static inline int tide_bits_is_number(uint64_t bits)
{
    return bits < TIDE_BITS_KIND(TIDE_KIND_NUMBER - 1);
}

static inline void *tide_bits_pointer(uint64_t bits)
{
    return (void *)(uintptr_t)(bits & TIDE_BITS_POINTER);
}

static inline uint64_t tide_bits_of(enum tide_kind kind, const void *object)
{
    return TIDE_BITS_KIND(kind) | (uint64_t)(uintptr_t)object;
}

static inline uint64_t tide_bits_of_number(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return number == number ? bits : TIDE_BITS_NAN;
}

static inline double tide_bits_number(uint64_t bits)
{
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static inline const char *
tide_gc_string_text(const struct tide_gc_string *string)
{
    return (const char *)(string + 1);
}

static inline struct tide_gc_table *tide_gc_table_at(lua_State *L, int index)
{
    return (struct tide_gc_table *)(uintptr_t)lua_topointer(L, index);
}

static inline struct tide_gc_state *tide_gc_state_of(lua_State *L)
{
    return (struct tide_gc_state *)(void *)L;
}

/** The value on top of the stack. */
static inline uint64_t tide_stack_bits(lua_State *L)
{
    return tide_gc_state_of(L)->top[-1];
}

/** Pop `count` values. */
static inline void tide_stack_drop(lua_State *L, int count)
{
    tide_gc_state_of(L)->top -= count;
}

/** Can so many values be pushed? */
static inline int tide_stack_has_room(lua_State *L, int count)
{
    const struct tide_gc_state *state = tide_gc_state_of(L);
    return state->maximum - state->top > count;
}

/** May objects be stored in the table just so? True for every fresh table. */
static inline int tide_layout_is_white(const struct tide_gc_table *table)
{
    return (table->marked & 3) != 0;
}

/**
 * Make a fresh table, created for as many pairs as `model` has, have the keys of
 * `model` at the same places, all values nil.
 *
 * @return 0, or -1 if the tables are not of the same size; nothing is done then
 */
static inline int tide_layout_take_keys(struct tide_gc_table *fresh,
                                        const struct tide_gc_table *model)
{
    if (fresh->node_mask != model->node_mask || !tide_layout_is_white(fresh))
        return -1;
    for (uint32_t i = 0; i <= model->node_mask; i++) {
        const struct tide_gc_node *node = &model->nodes[i];
        fresh->nodes[i].key = node->key;
        if (node->next != NULL)
            fresh->nodes[i].next = fresh->nodes + (node->next - model->nodes);
    }
    fresh->no_metamethods = 0;
    return 0;
}

/**
 * Give a table a pair, whose key is a string, if its place is free: then the table
 * has no such key yet.
 *
 * @return 0, or -1 if it has to be done by the public functions
 */
static inline int tide_layout_put_field(struct tide_gc_table *table,
                                        uint64_t key, uint64_t value)
{
    const struct tide_gc_string *string = tide_bits_pointer(key);
    struct tide_gc_node *node = &table->nodes[string->id & table->node_mask];
    /* A mask of 0 is that of the one node which all empty tables share. */
    if (table->node_mask == 0 || node->key != TIDE_BITS_NIL ||
        node->value != TIDE_BITS_NIL || node->next != NULL ||
        !tide_layout_is_white(table))
        return -1;
    node->key = key;
    node->value = value;
    table->no_metamethods = 0;
    return 0;
}

#endif
