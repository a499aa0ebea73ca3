#include "lua/names.h"

#include "base/fault.h"
#include "lua/layout.h"
#include "lua/setup.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define KEY_CLASSES "tidemill.classes" /* registry: name -> metatable */

/* Keep the value on top alive for as long as the state, and pop it. */
static void anchor(struct tide_names *names, lua_State *L)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, names->anchor);
    lua_insert(L, -2);
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    lua_pop(L, 1);
}

/* Name the object at `index`, unless it has a name. */
static void add(struct tide_names *names, lua_State *L, int index,
                enum tide_name_kind kind, const char *module, const char *field)
{
    const void *object = lua_topointer(L, index);
    if (tide_names_find(names, object) != NULL)
        return;
    if (names->count == names->capacity) {
        uint32_t capacity = names->capacity ? names->capacity * 2 : 512;
        struct tide_name *grown =
            TIDE_FAULT(CODEC_MALLOC)
                ? NULL
                : realloc(names->names, capacity * sizeof *grown);
        if (grown == NULL)
            return; /* it travels by value, or is refused with its path */
        names->names = grown;
        names->capacity = capacity;
    }
    lua_pushvalue(L, index);
    anchor(names, L);
    if (tide_ptrmap_add(&names->index, object, names->count) != 0)
        return;
    names->names[names->count++] = (struct tide_name){ kind, module, field };
    uint32_t hash = tide_names_hash(object, TIDE_NAMES_FILTER_BITS);
    names->filter[hash / 64] |= UINT64_C(1) << hash % 64;
    if (!lua_istable(L, index))
        return;
    hash = tide_names_hash(object, TIDE_NAMES_TABLES_BITS);
    names->tables[hash / 64] |= UINT64_C(1) << hash % 64;
}

static int is_builtin(lua_State *L, int index)
{
    lua_Debug info;
    if (lua_iscfunction(L, index))
        return 1;
    lua_pushvalue(L, index);
    lua_getinfo(L, ">S", &info);
    return strncmp(info.short_src, "[builtin:", 9) == 0;
}

/* Name what is in the module table on top of the stack. */
static void add_fields(struct tide_names *names, lua_State *L,
                       enum tide_name_kind kind, const char *module)
{
    lua_pushnil(L);
    while (lua_next(L, -2) != 0) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            const char *field = lua_tostring(L, -2);
            int is_function = lua_type(L, -1) == LUA_TFUNCTION;
            lua_pushvalue(L, -2);
            anchor(names, L); /* the text of `field` */
            if (is_function && (kind == TIDE_NAME_MODULE || is_builtin(L, -1)))
                add(names, L, lua_gettop(L), kind, module, field);
            else if (lua_istable(L, -1) && kind == TIDE_NAME_MODULE)
                add(names, L, lua_gettop(L), TIDE_NAME_METATABLE, module,
                    field);
        }
        lua_pop(L, 1);
    }
}

/* Does the host's hook load it in every state? */
static int is_brought(lua_State *L, const char *module)
{
    tide_setup_push_brought(L, "modules");
    int brought = 0;
    if (lua_istable(L, -1)) {
        lua_getfield(L, -1, module);
        brought = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return brought;
}

/* Would `require` find the module in a fresh state with our search paths? */
static int is_findable(lua_State *L, const char *module)
{
    static const char *const paths[] = { "path", "cpath" };
    int top = lua_gettop(L);
    int found = strncmp(module, "tidemill", 8) == 0 || /* we bring it along, */
                is_brought(L, module);                 /* or the host does */
    lua_getglobal(L, "package");
    for (int i = 0; i < 2 && !found && lua_istable(L, -1); i++) {
        lua_getfield(L, top + 1, "searchpath");
        lua_pushstring(L, module);
        lua_getfield(L, top + 1, paths[i]);
        found = lua_isfunction(L, -3) && lua_isstring(L, -1) &&
                lua_pcall(L, 2, 1, 0) == 0 && lua_isstring(L, -1);
        lua_settop(L, top + 1);
    }
    lua_settop(L, top);
    return found;
}

static int is_standard(const char *module)
{
    static const char *const standard[] = {
        "_G",          "bit",      "coroutine", "debug",         "ffi",
        "io",          "jit",      "jit.opt",   "jit.util",      "math",
        "os",          "package",  "string",    "string.buffer", "table",
        "table.clear", "table.new"
    };
    for (size_t i = 0; i < sizeof standard / sizeof standard[0]; i++)
        if (strcmp(standard[i], module) == 0)
            return 1;
    return 0;
}

/* Name the module whose name and value are the two values on top. */
static void add_module(struct tide_names *names, lua_State *L)
{
    if (lua_type(L, -2) != LUA_TSTRING)
        return;
    const char *module = lua_tostring(L, -2);
    int value = lua_gettop(L);
    int standard = is_standard(module);
    enum tide_name_kind kind = standard ? TIDE_NAME_STANDARD : TIDE_NAME_MODULE;
    if (!lua_istable(L, value) && !lua_isfunction(L, value))
        return;
    if (!standard && !is_findable(L, module))
        return;
    lua_pushvalue(L, -2);
    anchor(names, L); /* the text of `module` */
    add(names, L, value, kind, module, "");
    /* What a script puts into _G later is not there in a worker. */
    int is_late_globals = names->walked && strcmp(module, "_G") == 0;
    if (lua_istable(L, value) && !is_late_globals)
        add_fields(names, L, kind, module);
}

static uint64_t mix(uint64_t mark, uint64_t value)
{
    /* A sum: the order of the entries is not to matter. */
    return mark + (value ^ value >> 29) * UINT64_C(0x9e3779b97f4a7c15);
}

/* A number that changes when a module comes, goes, or is replaced by another. */
static uint64_t mark_loaded(const struct tide_names *names, lua_State *L)
{
    uint64_t mark = 0;
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    if (names->reads_layout) { /* without asking for each */
        const struct tide_gc_table *loaded = tide_gc_table_at(L, -1);
        for (uint32_t i = 0; i <= loaded->node_mask; i++)
            mark = mix(mark, loaded->nodes[i].value);
    } else {
        lua_pushnil(L);
        while (lua_next(L, -2) != 0) {
            mark = mix(mark, (uintptr_t)lua_topointer(L, -1));
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return mark;
}

/*
 * Is the module whose name and value are on top loaded by a better name, too? The
 * shorter one: `socket` extends the table of `socket.core` and is the same table.
 */
static int has_better_name(lua_State *L, int loaded)
{
    int value = lua_gettop(L), better = 0;
    if (lua_type(L, value - 1) != LUA_TSTRING || !lua_istable(L, value))
        return 0;
    const char *name = lua_tostring(L, value - 1);
    lua_pushnil(L);
    while (lua_next(L, loaded) != 0) {
        if (lua_rawequal(L, -1, value) && lua_type(L, -2) == LUA_TSTRING) {
            const char *other = lua_tostring(L, -2);
            size_t length = strlen(name), others = strlen(other);
            better |= others < length ||
                      (others == length && strcmp(other, name) < 0);
        }
        lua_pop(L, 1);
    }
    return better;
}

void tide_names_rescan(struct tide_names *names, lua_State *L)
{
    luaL_checkstack(L, 16, "too many nested calls");
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    int loaded = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, loaded) != 0) {
        if (!has_better_name(L, loaded))
            add_module(names, L);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    names->walked = 1;
    names->loaded_mark = mark_loaded(names, L);
}

int tide_names_are_stale(const struct tide_names *names, lua_State *L)
{
    luaL_checkstack(L, 4, "too many nested calls");
    return mark_loaded(names, L) != names->loaded_mark;
}

void tide_names_push_class(lua_State *L, int index)
{
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_CLASSES);
    if (!lua_istable(L, -1))
        return;
    lua_pushvalue(L, index);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

void tide_names_register(struct tide_names *names, lua_State *L, int name,
                         int index)
{
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_CLASSES);
    if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_setfield(L, LUA_REGISTRYINDEX, KEY_CLASSES);
    }
    lua_pushvalue(L, name);
    lua_pushvalue(L, index);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    lua_pushvalue(L, name);
    anchor(names, L);
    const char *text = lua_tostring(L, name);
    add(names, L, index, TIDE_NAME_CLASS, "", text);
    uint32_t at =
        tide_ptrmap_get(&names->index, lua_topointer(L, index), UINT32_MAX);
    if (at != UINT32_MAX) /* it may have had the name of a module's field */
        names->names[at] = (struct tide_name){ TIDE_NAME_CLASS, "", text };
}

void tide_names_init(struct tide_names *names, lua_State *L)
{
    *names = (struct tide_names){ 0 };
    tide_ptrmap_clear(&names->index);
    lua_newtable(L);
    names->anchor = luaL_ref(L, LUA_REGISTRYINDEX);
    tide_names_rescan(names, L);
}

void tide_names_free(struct tide_names *names)
{
    tide_ptrmap_free(&names->index);
    free(names->names);
}
