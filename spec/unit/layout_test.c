/*
 * The layout is learnt in any state, whatever the seed of its strings' hash; tables
 * stop being white when the collector has visited them; a set of tables tells them
 * apart.
 */
#include "check.h"
#include "lua/layout.h"
#include "lua/tableset.h"

#include <lauxlib.h>
#include <lualib.h>

enum { TABLES = 20000 };

static lua_State *new_state(void)
{
    lua_State *L = luaL_newstate();
    CHECK(L != NULL);
    luaL_openlibs(L);
    return L;
}

static void test_learn(void)
{
    check_begin("learn");
    for (unsigned i = 0; i < check_rounds; i++) {
        struct tide_bytecode_format format;
        lua_State *L = new_state();
        CHECK(tide_bytecode_learn(&format, L) == 0);
        CHECK(tide_layout_learn(&format, L) == 0);
        CHECK(lua_gettop(L) == 0);
        format.flags = 0; /* as a 32-bit build would have it */
        CHECK(tide_layout_learn(&format, L) != 0);
        lua_close(L);
    }
}

/* A table that the collector has visited in its present round is not white. */
static void test_white(void)
{
    check_begin("white");
    lua_State *L = new_state();
    lua_createtable(L, TABLES, 0);
    for (int i = 1; i <= TABLES; i++) {
        lua_newtable(L);
        CHECK(tide_layout_is_white(tide_gc_table_at(L, -1)));
        lua_rawseti(L, -2, i);
    }
    int visited = 0;
    for (int i = 0; i < 100000 && !visited; i++) {
        lua_gc(L, LUA_GCSTEP, 0);
        visited = !tide_layout_is_white(tide_gc_table_at(L, 1));
        lua_newtable(L);
        CHECK(tide_layout_is_white(tide_gc_table_at(L, -1)));
        lua_pop(L, 1);
    }
    CHECK(visited);
    lua_gc(L, LUA_GCCOLLECT, 0);
    CHECK(tide_layout_is_white(tide_gc_table_at(L, 1)));
    lua_close(L);
}

static void test_set(void)
{
    struct tide_tableset set = { 0 };
    check_begin("set");
    lua_State *L = new_state();
    lua_createtable(L, TABLES, 0);
    for (int i = 1; i <= TABLES; i++) {
        lua_createtable(L, (int)check_random(20), (int)check_random(9));
        lua_rawseti(L, 1, i);
    }
    for (int round = 0; round < 3; round++) {
        tide_tableset_clear(&set);
        for (int pass = 0; pass < 2; pass++)
            for (int i = 1; i <= TABLES; i++) {
                lua_rawgeti(L, 1, i);
                CHECK(tide_tableset_add(&set, lua_topointer(L, -1)) ==
                      (pass == 0));
                lua_pop(L, 1);
            }
    }
    tide_tableset_free(&set);
    lua_close(L);
}

int main(int argc, char **argv)
{
    check_start(argc, argv, 300);
    test_learn();
    test_white();
    test_set();
    return EXIT_SUCCESS;
}
