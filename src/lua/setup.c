/*
 * What the hook brings is seen by comparing _G and package.loaded before and after.
 * Its globals are left to the workers, where the hook brings them as well; modules
 * may go by their names, which `require` finds there.
 *
 * A restriction takes the place of a library in _G and in package.loaded. What a
 * module has kept of it in a local variable, it keeps: those of Tidemill, which are
 * given an environment of their own before they are loaded, and those that the hook
 * and `preload` load. So a host may hand out just the part of a library it chooses.
 */
#include "lua/setup.h"

#include "base/options.h"
#include "lua/task.h"

#include <dlfcn.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_SETUP   "tidemill.setup"
#define KEY_BROUGHT "tidemill.brought"

/* ---- options ---- */

/* The options in the layout of this version; zeros are what an older host had. */
static int take_options(struct tide_start_options *out,
                        const struct tide_start_options *given,
                        struct tide_error *err)
{
    *out = (struct tide_start_options){ .size = sizeof *out };
    if (given != NULL &&
        tide_take_options(out, sizeof *out, given, given->size) != 0)
        return tide_fail(err, TIDE_EINVAL,
                         "the size of the start options is %zu", given->size);
    if (out->library != NULL && out->program == NULL)
        return tide_fail(err, TIDE_EINVAL,
                         "a library needs a program that loads it");
    if ((out->without & ~(unsigned)TIDE_SANDBOX) != 0)
        return tide_fail(err, TIDE_EINVAL, "unknown libraries: 0x%x",
                         out->without);
    for (size_t i = 0; i < out->task_count; i++)
        if (out->tasks[i].name == NULL || out->tasks[i].run == NULL)
            return tide_fail(err, TIDE_EINVAL,
                             "task %zu has no name or no function", i);
    return TIDE_OK;
}

/* ---- as a whole ---- */

/*
 * C modules that scripts load, as LPeg, take Lua's functions from the program. They
 * are not there if it has loaded us, and LuaJIT with us, by dlopen(): then those of
 * our LuaJIT are put there. Returns a hold on it, or NULL.
 */
static void *share_luajit(void)
{
    Dl_info info;
    void *program = dlopen(NULL, RTLD_NOW | RTLD_LOCAL);
    int is_there = program != NULL && dlsym(program, "lua_newstate") != NULL;
    if (program != NULL)
        dlclose(program);
    if (is_there || dladdr((void *)(uintptr_t)lua_newstate, &info) == 0)
        return NULL;
    return dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

static size_t text_bytes(const char *text)
{
    return text != NULL ? strlen(text) + 1 : 0;
}

/* Copy a text to `*at`, which moves on. */
static const char *put_text(char **at, const char *text)
{
    size_t bytes = text_bytes(text);
    if (bytes == 0)
        return NULL;
    char *copy = memcpy(*at, text, bytes);
    *at += bytes;
    return copy;
}

int tide_setup_new(struct tide_setup **out,
                   const struct tide_start_options *options,
                   struct tide_error *err)
{
    struct tide_start_options taken;
    int status = take_options(&taken, options, err);
    if (status != TIDE_OK)
        return status;
    size_t task_bytes = taken.task_count * sizeof *taken.tasks;
    size_t bytes = sizeof **out + task_bytes + text_bytes(taken.program) +
                   text_bytes(taken.library);
    for (size_t i = 0; i < taken.task_count; i++)
        bytes += text_bytes(taken.tasks[i].name);
    struct tide_setup *setup = malloc(bytes);
    if (setup == NULL)
        return tide_fail(err, TIDE_ENOMEM, "cannot allocate %zu bytes", bytes);
    struct tide_task *tasks = (void *)(setup + 1);
    char *texts = (char *)tasks + task_bytes;
    for (size_t i = 0; i < taken.task_count; i++) {
        tasks[i] = taken.tasks[i];
        tasks[i].name = put_text(&texts, taken.tasks[i].name);
    }
    *setup = (struct tide_setup){
        .hook = taken.hook,
        .hook_data = taken.hook_data,
        .tasks = tasks,
        .task_count = taken.task_count,
        .without = taken.without,
        .luajit = share_luajit(),
        .command = { .path = put_text(&texts, taken.program),
                     .arguments = { setup->without_text,
                                    put_text(&texts, taken.library) } },
    };
    snprintf(setup->without_text, sizeof setup->without_text, "%u",
             taken.without);
    *out = setup;
    return TIDE_OK;
}

void tide_setup_free(struct tide_setup *setup)
{
    if (setup != NULL && setup->luajit != NULL)
        dlclose(setup->luajit);
    free(setup);
}

/* ---- of a state ---- */

/* A copy of _G as it is now, for modules that are loaded from now on. */
static void keep_libraries(lua_State *L)
{
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, LUA_GLOBALSINDEX) != 0) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
    lua_setfield(L, LUA_REGISTRYINDEX, TIDE_KEY_ENVIRONMENT);
}

void tide_setup_bind(lua_State *L, const struct tide_setup *setup)
{
    if (setup != NULL)
        lua_pushlightuserdata(L, (void *)(uintptr_t)setup);
    else
        lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, KEY_SETUP);
    if (setup != NULL && setup->without != 0)
        keep_libraries(L);
}

const struct tide_setup *tide_setup_of(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_SETUP);
    const struct tide_setup *setup = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return setup;
}

/* ---- the hook ---- */

/* Push the set of the names that the table at `index` has, without those in the set
 * at `known`, if that is not 0. */
static void push_names(lua_State *L, int index, int known)
{
    lua_newtable(L);
    int names = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, index) != 0) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        if (known != 0)
            lua_rawget(L, known);
        if (lua_type(L, names + 1) == LUA_TSTRING &&
            (known == 0 || lua_isnil(L, -1))) {
            lua_pushvalue(L, names + 1);
            lua_pushboolean(L, 1);
            lua_rawset(L, names);
        }
        lua_settop(L, names + 1);
    }
}

static int run_hook(lua_State *L)
{
    const struct tide_setup *setup = lua_touserdata(L, 1);
    lua_settop(L, 0);
    setup->hook(L, setup->hook_data);
    return 0;
}

static void apply_hook(lua_State *L, const struct tide_setup *setup)
{
    int top = lua_gettop(L);
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    push_names(L, top + 1, 0);
    push_names(L, top + 2, 0);
    lua_pushcfunction(L, run_hook);
    lua_pushlightuserdata(L, (void *)(uintptr_t)setup);
    lua_call(L, 1, 0);
    lua_createtable(L, 0, 2);
    push_names(L, top + 1, top + 3);
    lua_setfield(L, top + 5, "globals");
    push_names(L, top + 2, top + 4);
    lua_setfield(L, top + 5, "modules");
    lua_setfield(L, LUA_REGISTRYINDEX, KEY_BROUGHT);
    lua_settop(L, top);
}

void tide_setup_apply(lua_State *L)
{
    const struct tide_setup *setup = tide_setup_of(L);
    if (setup == NULL)
        return;
    luaL_checkstack(L, 16, "too many nested calls");
    if (setup->task_count > 0)
        tide_tasks_register(L, setup->tasks, setup->task_count);
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_BROUGHT);
    int applied = !lua_isnil(L, -1); /* this is a copy of a state that has it */
    lua_pop(L, 1);
    if (setup->hook != NULL && !applied)
        apply_hook(L, setup);
}

void tide_setup_push_brought(lua_State *L, const char *what)
{
    lua_getfield(L, LUA_REGISTRYINDEX, KEY_BROUGHT);
    if (!lua_istable(L, -1))
        return;
    lua_getfield(L, -1, what);
    lua_remove(L, -2);
}

/* ---- restriction ---- */

static void remove_names(lua_State *L, int table, const char *const *names)
{
    for (; *names != NULL; names++) {
        lua_pushnil(L);
        lua_setfield(L, table, *names);
    }
}

static void remove_library(lua_State *L, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushnil(L);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_setglobal(L, name);
}

/* Another table of this name, with some of the functions. */
static void reduce_library(lua_State *L, const char *name,
                           const char *const *kept)
{
    int top = lua_gettop(L);
    lua_getglobal(L, name);
    lua_newtable(L);
    for (; lua_istable(L, top + 1) && *kept != NULL; kept++) {
        lua_getfield(L, top + 1, *kept);
        lua_setfield(L, top + 2, *kept);
    }
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushvalue(L, top + 2);
    lua_setfield(L, top + 3, name);
    lua_pushvalue(L, top + 2);
    lua_setglobal(L, name);
    lua_settop(L, top);
}

int tide_setup_allows_bytecode(lua_State *L)
{
    const struct tide_setup *setup = tide_setup_of(L);
    return setup == NULL ||
           (setup->without & (TIDE_WITHOUT_DEBUG | TIDE_WITHOUT_FFI)) == 0;
}

/* load() and loadstring() for text only. */
static int load_text(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TFUNCTION)
        luaL_checkstring(L, 1);
    lua_settop(L, lua_isnoneornil(L, 4) ? 3 : 4);
    lua_pushliteral(L, "t");
    lua_replace(L, 3);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* In a module: by that it travels. */
static void refuse_bytecode(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_createtable(L, 0, 1);
    lua_getglobal(L, "load");
    lua_pushcclosure(L, load_text, 1);
    lua_pushvalue(L, -1);
    lua_setglobal(L, "load");
    lua_pushvalue(L, -1);
    lua_setglobal(L, "loadstring");
    lua_setfield(L, -2, "load");
    lua_setfield(L, -2, "tidemill.restricted");
    lua_pop(L, 1);
}

static void remove_preloader(lua_State *L, const char *name)
{
    lua_getglobal(L, "package");
    if (lua_istable(L, -1)) {
        lua_getfield(L, -1, "preload");
        lua_pushnil(L);
        lua_setfield(L, -2, name);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void tide_setup_restrict(lua_State *L)
{
    static const char *const clock[] = { "clock", "date", "difftime", "time",
                                         NULL };
    static const char *const files[] = { "loadfile", "dofile", NULL };
    static const char *const loaders[] = { "require", "module", NULL };
    static const char *const environments[] = { "getfenv", "setfenv", NULL };
    const struct tide_setup *setup = tide_setup_of(L);
    unsigned without = setup != NULL ? setup->without : 0;
    if ((without & TIDE_WITHOUT_IO) != 0) {
        remove_library(L, "io");
        remove_names(L, LUA_GLOBALSINDEX, files);
    }
    if ((without & TIDE_WITHOUT_OS) != 0)
        reduce_library(L, "os", clock);
    if ((without & TIDE_WITHOUT_FFI) != 0) {
        remove_library(L, "ffi");
        remove_preloader(L, "ffi");
    }
    if ((without & TIDE_WITHOUT_JIT) != 0) {
        remove_library(L, "jit");
        remove_library(L, "jit.opt");
        remove_library(L, "jit.util");
        remove_preloader(L, "jit.profile");
    }
    if ((without & TIDE_WITHOUT_DEBUG) != 0) {
        remove_library(L, "debug");
        remove_names(L, LUA_GLOBALSINDEX, environments);
    }
    if (!tide_setup_allows_bytecode(L))
        refuse_bytecode(L);
    if ((without & TIDE_WITHOUT_PACKAGE) != 0) {
        remove_library(L, "package");
        remove_names(L, LUA_GLOBALSINDEX, loaders);
    }
}
