/**
 * @file names.h
 * @brief Functions and modules that travel as names.
 *
 * A name is a module and a field in it, or a module alone. Known are the
 * standard libraries, as they are when the state's codec is made, and every
 * module of package.loaded that `require` would find again in a worker.
 */
#ifndef TIDE_LUA_NAMES_H
#define TIDE_LUA_NAMES_H

#include "lua/ptrmap.h"

#include <lua.h>
#include <stdint.h>

enum tide_name_kind {
    TIDE_NAME_STANDARD,  /* there in every fresh state */
    TIDE_NAME_MODULE,    /* found by `require` */
    TIDE_NAME_METATABLE, /* a table in a module: by name only as metatable */
    TIDE_NAME_CLASS      /* a metatable that was registered; module is "" */
};

struct tide_name {
    enum tide_name_kind kind;
    const char *module; /* anchored in the state */
    const char *field;  /* "" for the module itself */
};

enum { TIDE_NAMES_FILTER_BITS = 14, TIDE_NAMES_TABLES_BITS = 12 };

struct tide_names {
    struct tide_ptrmap index; /* object -> place in `names` */
    struct tide_name *names;
    uint32_t count;
    uint32_t capacity;
    int reads_layout;     /* tables may be read where they are */
    int walked;           /* the standard libraries are known */
    uint64_t loaded_mark; /* of package.loaded when it was walked */
    int anchor; /* registry reference: keeps objects and texts alive */
    /* A bit by a hash of each object, and of each table: most others are seen not
       to be among them at a glance. */
    uint64_t filter[(1 << TIDE_NAMES_FILTER_BITS) / 64];
    uint64_t tables[(1 << TIDE_NAMES_TABLES_BITS) / 64];
};

/** Learn the standard libraries. May raise for memory. */
void tide_names_init(struct tide_names *names, lua_State *L);
void tide_names_free(struct tide_names *names);

/** Were modules loaded since the last walk? Runs no Lua code. */
int tide_names_are_stale(const struct tide_names *names, lua_State *L);

/**
 * Register the metatable at `index`; the text at `name` names it. A name that is
 * taken means the new one from now on.
 */
void tide_names_register(struct tide_names *names, lua_State *L, int name,
                         int index);

/** Push the metatable registered by the name at `index`, or nil. */
void tide_names_push_class(lua_State *L, int index);

/** Walk all modules again, for what they got since they were loaded. */
void tide_names_rescan(struct tide_names *names, lua_State *L);

/** Of as many bits as the filter is for. */
static inline uint32_t tide_names_hash(const void *object, unsigned bits)
{
    uint64_t number = (uint64_t)(uintptr_t)object >> 3;
    return (uint32_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits));
}

/** May there be a name for the object? Says no for most that have none. */
static inline int tide_names_may_have(const struct tide_names *names,
                                      const void *object)
{
    uint32_t hash = tide_names_hash(object, TIDE_NAMES_FILTER_BITS);
    return (names->filter[hash / 64] >> hash % 64 & 1) != 0;
}

/** May there be one for the table? */
static inline int tide_names_may_have_table(const struct tide_names *names,
                                            const void *table)
{
    uint32_t hash = tide_names_hash(table, TIDE_NAMES_TABLES_BITS);
    return (names->tables[hash / 64] >> hash % 64 & 1) != 0;
}

/** The name of the object with this lua_topointer(), or NULL. */
static inline const struct tide_name *
tide_names_find(const struct tide_names *names, const void *object)
{
    if (!tide_names_may_have(names, object))
        return NULL;
    uint32_t at = tide_ptrmap_get(&names->index, object, UINT32_MAX);
    return at == UINT32_MAX ? NULL : &names->names[at];
}

#endif
