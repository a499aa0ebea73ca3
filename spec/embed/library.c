/* What the command loads, to supervise for a host that names it as `library`. */
#include <lauxlib.h>
#include <lua.h>
#include <tidemill.h>

static int answer(lua_State *L)
{
    lua_pushnumber(L, 42);
    return 1;
}

static void bring(lua_State *L, void *unused)
{
    (void)unused;
    lua_register(L, "answer", answer);
}

static int upper(tide_output *out, const void *bytes, size_t size, void *data)
{
    (void)bytes;
    (void)data;
    return size == 4 ? tide_output_write(out, "TIDE", 4) : 1;
}

TIDE_API const struct tide_start_options *tide_start_library(void);

const struct tide_start_options *tide_start_library(void)
{
    static const struct tide_task tasks[] = { { "upper", upper, NULL } };
    static const struct tide_start_options options = {
        .size = sizeof options,
        .hook = bring,
        .tasks = tasks,
        .task_count = 1,
    };
    return &options;
}
