/*
 * A function is its bytecode, its environment and its upvalues. Globals that it
 * reads are found in the bytecode and captured like upvalues, once a message: all
 * functions of a message share the environment they are captured into.
 */
#include "lua/encoder.h"

#include "lua/runtime.h"

#include <string.h>

static int dump_part(lua_State *L, const void *part, size_t size, void *context)
{
    (void)L;
    return tide_encoder_put(context, part, size);
}

/* Length, digest and bytecode; `code` is where the bytecode begins. */
static int encode_bytecode(struct tide_encoder *e, int index, size_t *code)
{
    uint32_t head[2] = { 0 };
    size_t at = e->out->used;
    if (tide_encoder_put(e, head, sizeof head) != 0)
        return -1;
    *code = e->out->used;
    lua_pushvalue(e->L, index);
    int failed = lua_dump(e->L, dump_part, e);
    lua_pop(e->L, 1);
    if (failed)
        return e->out->used == *code
                   ? tide_encoder_fail(e, "a function without bytecode")
                   : tide_encoder_fail_memory(e);
    size_t size = e->out->used - *code;
    head[0] = (uint32_t)size;
    head[1] = (uint32_t)tide_digest(e->out->data + *code, size);
    memcpy(e->out->data + at, head, sizeof head);
    return 0;
}

/* ---- environments ---- */

/*
 * What a message has captured so far, at base + 1: environment -> a table with its
 * number at 0, the names as a list and as a set. The table on top becomes that of
 * the environment on top. Returns the number.
 */
static uint32_t push_captured(struct tide_encoder *e)
{
    lua_State *L = e->L;
    if (lua_isnil(L, e->base + 1)) {
        tide_encoder_stop_collector(e);
        lua_newtable(L);
        lua_replace(L, e->base + 1);
    }
    lua_pushvalue(L, -1);
    lua_rawget(L, e->base + 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        tide_encoder_stop_collector(e);
        lua_newtable(L);
        lua_pushnumber(L, e->environment_count++);
        lua_rawseti(L, -2, 0);
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, e->base + 1);
    }
    lua_rawgeti(L, -1, 0);
    uint32_t number = (uint32_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return number;
}

struct notes {
    struct tide_encoder *e;
    int captured; /* stack index */
};

/*
 * Push a text as lua_pushlstring() does, which however may run the collector. To
 * set a field by the text does not, and the field's key is what is wanted.
 */
static void push_name(struct tide_encoder *e, const char *name, size_t length)
{
    lua_State *L = e->L;
    char text[64];
    if (!tide_encoder_minds_collector(e) || length >= sizeof text ||
        memchr(name, '\0', length) != NULL) {
        tide_encoder_stop_collector(e);
        lua_pushlstring(L, name, length);
        return;
    }
    memcpy(text, name, length);
    text[length] = '\0';
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->codec->keys.name);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, text);
    lua_pushnil(L);
    lua_next(L, -2); /* it is the only one */
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_setfield(L, -3, text);
    lua_replace(L, -2);
}

/* Note a global that is read, once an environment. */
static void note_global(void *context, const char *name, size_t length,
                        int written)
{
    const struct notes *notes = context;
    lua_State *L = notes->e->L;
    if (written)
        return;
    push_name(notes->e, name, length);
    lua_pushvalue(L, -1);
    lua_rawget(L, notes->captured);
    if (lua_isnil(L, -1)) {
        lua_pushvalue(L, -2);
        lua_pushboolean(L, 1);
        lua_rawset(L, notes->captured);
        lua_pushvalue(L, -2);
        lua_rawseti(L, notes->captured,
                    (int)lua_objlen(L, notes->captured) + 1);
    }
    lua_pop(L, 2);
}

static int is_hidden(struct tide_encoder *e, int name)
{
    lua_State *L = e->L;
    if (e->codec->hidden_globals == 0)
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, e->codec->hidden_globals);
    lua_pushvalue(L, name);
    lua_rawget(L, -2);
    int hidden = lua_toboolean(L, -1);
    lua_pop(L, 2);
    return hidden;
}

/* ---- globals ---- */

/* environment[name], for lua_pcall(): a metamethod may raise. */
static int get_global(lua_State *L)
{
    lua_gettable(L, 1);
    return 1;
}

/* Push environment[name] without metamethods; 0 and nothing if it takes one. */
static int get_raw(struct tide_encoder *e, int environment, int name)
{
    enum { PARENTS_MAX = 100 };
    lua_State *L = e->L;
    int top = lua_gettop(L);
    lua_pushvalue(L, environment);
    for (int i = 0; i < PARENTS_MAX && lua_istable(L, -1); i++) {
        lua_pushvalue(L, name);
        lua_rawget(L, -2);
        if (lua_isnil(L, -1) && lua_getmetatable(L, -2)) {
            lua_rawgeti(L, LUA_REGISTRYINDEX, e->codec->keys.index);
            lua_rawget(L, -2);
            lua_replace(L, top + 1); /* the next to ask, unless it is nil */
            lua_settop(L, top + 1);
            if (!lua_isnil(L, -1))
                continue;
        } else {
            lua_replace(L, top + 1);
        }
        return 1;
    }
    lua_settop(L, top);
    return 0;
}

/* Push the numbers of the results for the globals of the environment. */
static void push_results(struct tide_encoder *e, int environment)
{
    lua_State *L = e->L;
    lua_rawgeti(L, e->results, 0);
    lua_pushvalue(L, environment);
    lua_rawget(L, -2);
    if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        tide_encoder_stop_collector(e);
        lua_newtable(L);
        lua_pushvalue(L, environment);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
    }
    lua_replace(L, -2);
}

/* Push environment[name], for which a metamethod has to be called: as a hook. */
static int get_by_metamethod(struct tide_encoder *e, int environment, int name)
{
    lua_State *L = e->L;
    int results = lua_gettop(L) + 1;
    if (e->results == 0) {
        e->wants_hooks = 1;
        return tide_encoder_fail(e, "a metamethod");
    }
    push_results(e, environment);
    lua_pushvalue(L, name);
    lua_rawget(L, results);
    if (!tide_encoder_result(e)) {
        if (!e->runs_hooks)
            return tide_encoder_fail_changed(e);
        lua_pushcfunction(L, get_global);
        lua_pushvalue(L, environment);
        lua_pushvalue(L, name);
        if (tide_call_hook(e->codec, L, 2) != 0) {
            lua_pushnil(L);
            lua_replace(L, results + 1);
            lua_settop(L, results + 1);
        }
        double number = tide_encoder_add_result(e);
        lua_pushvalue(L, name);
        lua_pushnumber(L, number);
        lua_rawset(L, results);
    }
    lua_replace(L, results);
    return 0;
}

/* Does a fresh state have this very value under this name? */
static int is_standard(struct tide_encoder *e, int name, int value)
{
    const char *text = lua_tostring(e->L, name);
    const struct tide_name *known =
        tide_names_find(&e->codec->names, lua_topointer(e->L, value));
    if (known != NULL && known->kind == TIDE_NAME_STANDARD)
        return strcmp(known->field[0] ? known->field : known->module, text) ==
               0;
    return strcmp(text, "_VERSION") == 0;
}

/* Push the global whose name is on top. @return 1; 0 if it need not travel; -1 */
static int push_global(struct tide_encoder *e, int environment)
{
    lua_State *L = e->L;
    int name = lua_gettop(L);
    if (is_hidden(e, name))
        return 0;
    if (!get_raw(e, environment, name) &&
        get_by_metamethod(e, environment, name) != 0)
        return -1;
    if (!lua_isnil(L, -1) && !is_standard(e, name, name + 1))
        return 1;
    lua_settop(L, name);
    return 0;
}

/* The globals that the function reads, captured like upvalues. */
static int encode_globals(struct tide_encoder *e, int index, int environment,
                          size_t code)
{
    lua_State *L = e->L;
    uint32_t number = push_captured(e);
    struct notes notes = { e, lua_gettop(L) };
    int from = (int)lua_objlen(L, notes.captured) + 1;
    if (e->codec->captures_globals &&
        tide_bytecode_globals(&e->codec->format, e->out->data + code,
                              e->out->used - code, note_global, &notes) != 0)
        return tide_encoder_fail(
            e, "a function in a bytecode format unknown here");
    if (tide_encoder_put_byte(e, TIDE_ENV_GLOBALS) != 0 ||
        tide_encoder_put_varint(e, number) != 0)
        return -1;
    /* Names noted by functions met on the way are theirs to write. */
    int to = (int)lua_objlen(L, notes.captured);
    for (int i = from; i <= to; i++) {
        lua_rawgeti(L, notes.captured, i);
        int pushed = push_global(e, environment);
        if (pushed < 0)
            return -1;
        if (pushed) {
            int value = lua_gettop(L);
            if (tide_encode_string(e, value - 1) != 0)
                return -1;
            if (tide_encode_value(e, value) != 0)
                return tide_encoder_at_variable(e, index, "global",
                                                lua_tostring(L, value - 1));
        }
        lua_settop(L, notes.captured);
    }
    return tide_encoder_put_byte(e, TIDE_TAG_NIL);
}

/*
 * The script's globals, and an environment that inherits (a sandbox of a test
 * runner, a module's), are not the function's to carry: it takes what it reads. A
 * bare table that somebody has made its environment goes as it is.
 */
static int encode_environment(struct tide_encoder *e, int index, size_t code)
{
    lua_State *L = e->L;
    lua_getfenv(L, index);
    int environment = lua_gettop(L);
    int inherits = lua_getmetatable(L, environment);
    lua_settop(L, environment);
    if (inherits || lua_rawequal(L, environment, LUA_GLOBALSINDEX)) {
        if (encode_globals(e, index, environment, code) != 0)
            return -1;
    } else if (tide_encoder_put_byte(e, TIDE_ENV_TABLE) != 0 ||
               tide_encode_value(e, environment) != 0) {
        return tide_encoder_at_variable(e, index, "environment", "");
    }
    lua_settop(L, environment - 1);
    return 0;
}

/* ---- upvalues ---- */

static int encode_upvalue(struct tide_encoder *e, int index, int number)
{
    lua_State *L = e->L;
    const void *cell = lua_upvalueid(L, index, number);
    uint32_t known = tide_ptrmap_get(e->seen, cell, UINT32_MAX);
    if (known != UINT32_MAX)
        return tide_encoder_put_tagged(e, TIDE_CELL_JOIN, known);
    if (tide_ptrmap_add(e->seen, cell, e->cell_count++) != 0)
        return tide_encoder_fail_memory(e);
    const char *name = lua_getupvalue(L, index, number);
    if (tide_encoder_put_byte(e, TIDE_CELL_NEW) != 0)
        return -1;
    if (tide_encode_value(e, lua_gettop(L)) != 0)
        return tide_encoder_at_variable(e, index, "upvalue", name);
    lua_pop(L, 1);
    return 0;
}

static int encode_upvalues(struct tide_encoder *e, int index)
{
    lua_Debug info;
    lua_pushvalue(e->L, index);
    lua_getinfo(e->L, ">u", &info);
    if (tide_encoder_put_varint(e, (uint64_t)info.nups) != 0)
        return -1;
    for (int i = 1; i <= info.nups; i++)
        if (encode_upvalue(e, index, i) != 0)
            return -1;
    return 0;
}

/* The name of a function, which its module may have been loaded for just now. */
static const struct tide_name *name_function(struct tide_encoder *e, int index)
{
    const void *object = lua_topointer(e->L, index);
    struct tide_names *names = &e->codec->names;
    const struct tide_name *name = tide_names_find(names, object);
    if (name != NULL)
        return name;
    if (lua_iscfunction(e->L, index)) { /* it has to have one */
        tide_encoder_stop_collector(e);
        tide_names_rescan(names, e->L);
    } else {
        tide_encoder_refresh_names(e);
    }
    return tide_names_find(names, object);
}

int tide_encode_function(struct tide_encoder *e, int index)
{
    lua_State *L = e->L;
    const void *object = lua_topointer(L, index);
    const struct tide_name *name = name_function(e, index);
    if (name != NULL)
        return tide_encode_name(e, name);
    if (lua_iscfunction(L, index))
        return tide_encoder_fail(e, "a C function of no loaded module");
    int referred = tide_encoder_refer(e, object);
    if (referred != 0)
        return referred < 0 ? -1 : 0;
    if (e->depth >= TIDE_VALUE_DEPTH)
        return tide_encoder_fail(e, "functions nested too deeply");
    if (!lua_checkstack(L, TIDE_LEVEL_SLOTS))
        return tide_encoder_fail_memory(e);

    size_t code;
    e->head |= TIDE_HEAD_REFS; /* cells are joined through its number */
    e->depth++;
    int failed = tide_encoder_put_byte(e, TIDE_TAG_FUNCTION) ||
                 encode_bytecode(e, index, &code) ||
                 encode_environment(e, index, code) ||
                 encode_upvalues(e, index);
    e->depth--;
    return failed ? -1 : 0;
}
