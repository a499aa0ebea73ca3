/*
 * A mill's state is entered by one function, tide_mill_run_part(), in three steps:
 *
 *   lua_cpcall   catches everything, lack of memory for the next step included
 *   lua_pcall    catches what the part raises, while there is a state in which the
 *                error can be looked at, which may raise, too
 *   the part     raises as it likes, and holds nothing that would have to be freed
 */
#include "embed/embed.h"

#include "base/options.h"
#include "lua/codec.h"
#include "lua/runtime.h"
#include "lua/state.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* ---- in and out ---- */

static int status_of_kind(const char *kind)
{
    static const struct {
        const char *kind;
        int status;
    } kinds[] = {
        { "task", TIDE_ETASK },       { "worker", TIDE_EWORKER },
        { "timeout", TIDE_ETIMEOUT }, { "cancelled", TIDE_ECANCELLED },
        { "closed", TIDE_ECLOSED },   { "terminated", TIDE_ETERMINATED },
        { "encode", TIDE_EENCODE },   { "decode", TIDE_EDECODE },
        { "broken", TIDE_EBROKEN },   { "init", TIDE_EINIT },
    };
    for (size_t i = 0; kind != NULL && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].kind, kind) == 0)
            return kinds[i].status;
    return TIDE_ETASK;
}

/* The string in the field `name` of the table at `index`, pushed; or NULL. */
static const char *push_field(lua_State *L, int index, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, index);
    return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
}

int tide_mill_tell(lua_State *L, int index, struct tide_error *err)
{
    if (lua_type(L, index) == LUA_TSTRING)
        return tide_fail(err, TIDE_EINVAL, "%s", lua_tostring(L, index));
    if (!lua_istable(L, index))
        return tide_fail(err, TIDE_ETASK, "a %s value was raised",
                         luaL_typename(L, index));
    const char *kind = push_field(L, index, "kind");
    const char *message = push_field(L, index, "message");
    int status = tide_fail(err, status_of_kind(kind), "%s",
                           message != NULL ? message : "a table was raised");
    lua_pop(L, 2);
    return status;
}

struct frame {
    tide_part part;
    void *data;
    struct tide_error *err;
    int status;
};

static int run_inner(lua_State *L)
{
    struct frame *frame = lua_touserdata(L, 1);
    lua_settop(L, 0);
    frame->part(L, frame->data);
    return 0;
}

static int run_outer(lua_State *L)
{
    struct frame *frame = lua_touserdata(L, 1);
    lua_pushcfunction(L, run_inner);
    lua_pushvalue(L, 1);
    int failed = lua_pcall(L, 1, 0, 0);
    if (failed)
        frame->status = failed == LUA_ERRMEM
                            ? tide_fail(frame->err, TIDE_ENOMEM,
                                        "out of memory for Lua values")
                            : tide_mill_tell(L, lua_gettop(L), frame->err);
    return 0;
}

int tide_mill_run_part(tide_mill *mill, tide_part part, void *data,
                       struct tide_error *err)
{
    struct frame frame = { .part = part, .data = data, .err = err };
    if (mill == NULL)
        return tide_pass_on(err);
    if (atomic_flag_test_and_set(&mill->busy))
        return tide_fail(err, TIDE_EINVAL,
                         "the mill is in use: by another "
                         "thread, or around this call");
    int top = lua_gettop(mill->L);
    if (lua_cpcall(mill->L, run_outer, &frame) != 0)
        frame.status =
            tide_fail(err, TIDE_ENOMEM, "out of memory for Lua values");
    lua_settop(mill->L, top);
    atomic_flag_clear(&mill->busy);
    return frame.status;
}

static const char functions_key; /* its address is a key of the registry */

void tide_mill_push(lua_State *L, enum tide_mill_function function)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)&functions_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_rawgeti(L, -1, (int)function);
    lua_rawgeti(L, -2, TIDE_MILL_SELF);
    lua_remove(L, -3);
}

/* ---- opening ---- */

/* Keep the functions of the module at `module`, and the mill on top, which goes. */
static void keep_functions(lua_State *L, int module)
{
    static const char *const names[] = {
        [TIDE_MILL_START] = "start",
        [TIDE_MILL_WAIT] = "wait",
        [TIDE_MILL_NEXT] = "next",
        [TIDE_MILL_CANCEL] = "cancel",
        [TIDE_MILL_FORGET] = "forget",
        [TIDE_MILL_FD] = "fd",
        [TIDE_MILL_INTEGER] = "integer",
        [TIDE_MILL_TAKE_INTEGER] = "take_integer",
    };
    const int count = sizeof names / sizeof names[0];
    lua_pushlightuserdata(L, (void *)(uintptr_t)&functions_key);
    lua_createtable(L, count, 0);
    lua_pushvalue(L, -3);
    lua_rawseti(L, -2, TIDE_MILL_SELF);
    for (int i = TIDE_MILL_SELF + 1; i < count; i++) {
        lua_getfield(L, module, names[i]);
        lua_rawseti(L, -2, i);
    }
    lua_rawset(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
}

static void set_number(lua_State *L, const char *name, double value)
{
    if (value == 0)
        return;
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

/*
 * The compiler of LuaJIT 2.1 does not survive every lack of memory: now and then the
 * process is gone. What runs in a mill's own state is short; the workers compile.
 */
static void stop_compiler(lua_State *L)
{
    tide_state_require(L, "jit");
    lua_getfield(L, -1, "off");
    lua_call(L, 0, 0);
    lua_pop(L, 1);
}

static void open_pool(lua_State *L, void *data)
{
    const struct tide_mill_options *options = data;
    stop_compiler(L);
    tide_codec_of(L); /* knows the libraries as they are now */
    tide_state_require(L, "tidemill");
    tide_state_require(L, "tidemill.mill");
    int module = lua_gettop(L);
    tide_setup_restrict(L);
    lua_getfield(L, module, "open");
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_pushstring(L, options->path);
    lua_pushstring(L, options->cpath);
    lua_newtable(L);
    set_number(L, "processes", options->processes);
    set_number(L, "timeout", options->timeout_s);
    set_number(L, "retries", options->retries);
    set_number(L, "retry_errors", options->retry_errors);
    set_number(L, "maxtasksperchild", options->max_tasks);
    set_number(L, "memory_limit", (double)options->memory_limit_bytes);
    set_number(L, "max_rss", (double)options->max_rss_bytes);
    lua_call(L, 4, 1);
    keep_functions(L, module);
}

static void close_mill(tide_mill *mill)
{
    if (mill->L != NULL)
        lua_close(mill->L);
    free(mill);
}

/* Give a mill its state, and the state what the starter has. */
static int make_state(tide_mill *mill, tide_starter *starter,
                      struct tide_error *err)
{
    mill->L = tide_state_new();
    if (mill->L != NULL)
        return tide_starter_adopt(mill->L, starter, err);
    tide_stop(starter);
    return tide_fail(err, TIDE_ENOMEM, "cannot make a Lua state");
}

int tide_mill_open(tide_mill **out, const struct tide_mill_options *given,
                   struct tide_error *err)
{
    struct tide_mill_options options = { .size = sizeof options };
    *out = NULL;
    if (given != NULL &&
        tide_take_options(&options, sizeof options, given, given->size) != 0)
        return tide_fail(err, TIDE_EINVAL,
                         "the size of the mill's options is %zu", given->size);
    tide_starter *starter = options.starter;
    tide_mill *mill = calloc(1, sizeof *mill);
    if (mill == NULL) {
        tide_stop(starter);
        return tide_fail(err, TIDE_ENOMEM, "cannot allocate a mill");
    }
    atomic_flag_clear(&mill->busy);
    int status = TIDE_OK;
    if (starter == NULL)
        status = tide_start(&starter, options.start, err);
    if (status == TIDE_OK)
        status = make_state(mill, starter, err);
    if (status == TIDE_OK)
        status = tide_mill_run_part(mill, open_pool, &options, err);
    if (status == TIDE_OK)
        *out = mill;
    else
        close_mill(mill);
    return status;
}

void tide_mill_free(tide_mill *mill)
{
    if (mill == NULL)
        return;
    for (struct tide_call *call = mill->calls; call != NULL;) {
        struct tide_call *next = call->next;
        free(call);
        call = next;
    }
    close_mill(mill);
}

/* ---- scripts ---- */

struct script {
    const char *name; /* of the text, or the file's */
    const char *text; /* NULL: a file */
    size_t size;
    struct tide_error *err;
    int status;
};

static int load_chunk(lua_State *L, const struct script *script)
{
    const char *mode = tide_setup_allows_bytecode(L) ? NULL : "t";
    if (script->text == NULL)
        return luaL_loadfilex(L, script->name, mode);
    const char *name = lua_pushfstring(L, "@%s", script->name);
    return luaL_loadbufferx(L, script->text, script->size, name, mode);
}

static void run_script(lua_State *L, void *data)
{
    struct script *script = data;
    int failed = load_chunk(L, script);
    int os_errno = failed == LUA_ERRFILE ? errno : 0;
    int status = failed == LUA_ERRFILE ? TIDE_ESYS : TIDE_ETASK;
    if (!failed)
        failed = lua_pcall(L, 0, 0, 0);
    if (!failed)
        return;
    if (failed == LUA_ERRMEM)
        lua_error(L);
    const char *text = lua_tostring(L, -1);
    script->status = text != NULL
                         ? tide_fail(script->err, status, "%s", text)
                         : tide_mill_tell(L, lua_gettop(L), script->err);
    if (script->err != NULL)
        script->err->os_errno = os_errno;
}

static int load(tide_mill *mill, struct script script, struct tide_error *err)
{
    script.err = err;
    if (script.name == NULL)
        return tide_fail(err, TIDE_EINVAL, "a script has no name");
    int status = tide_mill_run_part(mill, run_script, &script, err);
    return status != TIDE_OK ? status : script.status;
}

int tide_mill_load(tide_mill *mill, const char *name, const char *text,
                   size_t size, struct tide_error *err)
{
    if (mill == NULL)
        return tide_pass_on(err);
    return load(mill,
                (struct script){ .name = name,
                                 .text = text != NULL ? text : "",
                                 .size = text != NULL ? size : 0 },
                err);
}

int tide_mill_load_file(tide_mill *mill, const char *path,
                        struct tide_error *err)
{
    if (mill == NULL)
        return tide_pass_on(err);
    return load(mill, (struct script){ .name = path }, err);
}

/* ---- events ---- */

static void get_fd(lua_State *L, void *data)
{
    int *fd = data;
    tide_mill_push(L, TIDE_MILL_FD);
    lua_call(L, 1, 1);
    *fd = (int)lua_tonumber(L, -1);
}

int tide_mill_fd(tide_mill *mill, struct tide_error *err)
{
    int fd = -1;
    return tide_mill_run_part(mill, get_fd, &fd, err) == TIDE_OK ? fd : -1;
}
