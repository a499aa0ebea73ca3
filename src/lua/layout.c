/*
 * Each step reads only memory that the steps before have shown to be there: first
 * that this is a 64-bit build, by its bytecode; then where the bytes of a string
 * are; the top of a stack; then a table whose array follows it directly; then
 * arrays and nodes on their own; and at last tables that are written to and looked
 * at from outside.
 */
#include "lua/layout.h"

#include <stddef.h>

enum {
    DUMP_64_BIT = 0x08, /* of a dump's flags: frames of the 64-bit layout */
    SAMPLES = 8,
    LARGE_COUNT = 1000
};

/* A value of each kind. The strings are such as classes have. */
static void push_sample(lua_State *L, int i)
{
    static const double numbers[] = { -1.5e300, 1, 65536.5 };
    static const char *const texts[] = { "__index", "name", "__gc" };
    if (i < 3)
        lua_pushnumber(L, numbers[i]);
    else if (i < 6)
        lua_pushstring(L, texts[i - 3]);
    else if (i == 6)
        lua_pushboolean(L, 1);
    else
        lua_newtable(L);
}

/* The bits that the value at `index` has, by the public functions. */
static uint64_t bits_at(lua_State *L, int index)
{
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        return TIDE_BITS_NIL;
    case LUA_TBOOLEAN:
        return lua_toboolean(L, index) ? TIDE_BITS_TRUE : TIDE_BITS_FALSE;
    case LUA_TNUMBER:
        return tide_bits_of_number(lua_tonumber(L, index));
    case LUA_TSTRING:
        return tide_bits_of(TIDE_KIND_STRING, lua_topointer(L, index));
    default:
        return tide_bits_of(TIDE_KIND_TABLE, lua_topointer(L, index));
    }
}

/* ---- reading ---- */

static int string_fits(lua_State *L, size_t length)
{
    static const char text[300] = "of known length";
    lua_pushlstring(L, text, length);
    const struct tide_gc_string *string = lua_topointer(L, -1);
    int fits = tide_gc_string_text(string) == lua_tostring(L, -1) &&
               string->length == length;
    lua_pop(L, 1);
    return fits;
}

/* Does the table on top have these values in its array? */
static int array_fits(lua_State *L, int count)
{
    const struct tide_gc_table *table = tide_gc_table_at(L, -1);
    for (int i = 0; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        int fits = bits_at(L, -1) == table->array[i];
        lua_pop(L, 1);
        if (!fits)
            return 0;
    }
    return 1;
}

static int small_array_fits(lua_State *L)
{
    lua_createtable(L, SAMPLES + 2, 0);
    const struct tide_gc_table *table = tide_gc_table_at(L, -1);
    if (table->array_size != SAMPLES + 3 || table->node_mask != 0 ||
        table->array != (const uint64_t *)(table + 1) ||
        table->metatable != NULL || !tide_layout_is_white(table))
        return 0;
    for (int i = 0; i < SAMPLES; i++) {
        push_sample(L, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushboolean(L, 0);
    lua_rawseti(L, -2, SAMPLES + 1);
    lua_pushnumber(L, -0.0);
    lua_rawseti(L, -2, SAMPLES + 2);
    lua_newtable(L);
    const void *metatable = lua_topointer(L, -1);
    lua_setmetatable(L, -2);
    return table->metatable == metatable && array_fits(L, SAMPLES + 2);
}

static int large_array_fits(lua_State *L)
{
    lua_createtable(L, LARGE_COUNT, 0);
    for (int i = 1; i <= LARGE_COUNT; i++) {
        lua_pushnumber(L, i * 0.75);
        lua_rawseti(L, -2, i);
    }
    return tide_gc_table_at(L, -1)->array_size == LARGE_COUNT + 1 &&
           array_fits(L, LARGE_COUNT);
}

/* Is this pair, both on the stack, in a node whose chain stays in the table? */
static int pair_fits(lua_State *L, const struct tide_gc_table *table)
{
    for (uint32_t i = 0; i <= table->node_mask; i++) {
        const struct tide_gc_node *node = &table->nodes[i];
        if (node->key == bits_at(L, -2))
            return node->value == bits_at(L, -1) &&
                   (node->next == NULL ||
                    (node->next >= table->nodes &&
                     node->next <= table->nodes + table->node_mask));
    }
    return 0;
}

static int is_address(const void *pointer)
{
    uintptr_t bits = (uintptr_t)pointer;
    return bits != 0 && bits % sizeof(uint64_t) == 0 && bits >> 47 == 0;
}

/* Pairs whose keys are the samples; also that the table starts out empty. */
static int nodes_fit(lua_State *L)
{
    lua_createtable(L, 0, SAMPLES);
    const struct tide_gc_table *table = tide_gc_table_at(L, -1);
    if (table->node_mask != SAMPLES - 1 || table->array_size != 0 ||
        table->metatable != NULL || !is_address(table->nodes))
        return 0;
    for (uint32_t i = 0; i <= table->node_mask; i++)
        if (table->nodes[i].value != TIDE_BITS_NIL ||
            table->nodes[i].key != TIDE_BITS_NIL ||
            table->nodes[i].next != NULL)
            return 0;
    for (int i = 0; i < SAMPLES; i++) {
        push_sample(L, i);
        push_sample(L, SAMPLES - 1 - i);
        lua_rawset(L, -3);
    }
    int pairs = 0, fits = 1;
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
        pairs++;
        fits = fits && pair_fits(L, table);
    }
    return fits && pairs == SAMPLES && table->node_mask == SAMPLES - 1;
}

static int empty_fits(lua_State *L)
{
    lua_newtable(L);
    const struct tide_gc_table *table = tide_gc_table_at(L, -1);
    return table->array_size == 0 && table->node_mask == 0 &&
           is_address(table->nodes) && table->nodes->value == TIDE_BITS_NIL;
}

/* Is the stack's top where it is thought to be, and its room? */
static int stack_fits(lua_State *L)
{
    const struct tide_gc_state *state = tide_gc_state_of(L);
    const uint64_t *top = state->top;
    if (!is_address(top) || !is_address(state->base) ||
        top - state->base != lua_gettop(L))
        return 0;
    for (int i = 0; i < SAMPLES; i++) {
        push_sample(L, i);
        if (state->top - top != i + 1 || tide_stack_bits(L) != bits_at(L, -1))
            return 0;
    }
    if (!lua_checkstack(L, LARGE_COUNT) ||
        !tide_stack_has_room(L, LARGE_COUNT - 1) ||
        tide_stack_has_room(L, 1000 * LARGE_COUNT))
        return 0;
    int count = lua_gettop(L);
    tide_stack_drop(L, 3);
    return lua_gettop(L) == count - 3;
}

/* ---- writing ---- */

static int array_takes(lua_State *L)
{
    lua_createtable(L, SAMPLES, 0);
    for (int i = 0; i < SAMPLES; i++) {
        push_sample(L, i);
        tide_gc_table_at(L, -2)->array[i + 1] = bits_at(L, -1);
        lua_rawgeti(L, -2, i + 1);
        int same = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        if (!same)
            return 0;
    }
    return lua_objlen(L, -1) == SAMPLES;
}

/* Does the table on top have the value `i` for the text sample `i`? */
static int has_field(lua_State *L, int i)
{
    push_sample(L, i);
    lua_rawget(L, -2);
    int has = lua_tonumber(L, -1) == i;
    lua_pop(L, 1);
    return has;
}

/*
 * A model and a table that takes its keys: every key is found, more keys can be
 * added, and the table is good as a metatable.
 */
static int keys_take(lua_State *L)
{
    int top = lua_gettop(L);
    lua_createtable(L, 0, 3);
    lua_createtable(L, 0, 3);
    for (int i = 3; i < 6; i++) {
        push_sample(L, i);
        lua_pushboolean(L, 1);
        lua_rawset(L, top + 1);
    }
    struct tide_gc_table *table = tide_gc_table_at(L, top + 2);
    if (tide_layout_take_keys(table, tide_gc_table_at(L, top + 1)) != 0)
        return 0;
    for (uint32_t i = 0; i <= table->node_mask; i++)
        for (int sample = 3; sample < 6; sample++) {
            push_sample(L, sample);
            if (table->nodes[i].key == bits_at(L, -1))
                table->nodes[i].value = tide_bits_of_number(sample);
            lua_pop(L, 1);
        }
    for (int i = 1; i <= SAMPLES; i++) { /* it has to grow on the way */
        lua_pushboolean(L, 1);
        lua_rawseti(L, -2, -i);
        for (int sample = 3; sample < 6; sample++)
            if (!has_field(L, sample))
                return 0;
    }
    return 1;
}

/* Is a pair found, and counted, that was put where its key alone says? */
static int field_takes(lua_State *L)
{
    int top = lua_gettop(L);
    for (int i = 3; i < 6; i++) {
        lua_settop(L, top);
        lua_createtable(L, 0, SAMPLES);
        struct tide_gc_table *table = tide_gc_table_at(L, -1);
        push_sample(L, i);
        uint64_t key = tide_stack_bits(L);
        if (tide_layout_put_field(table, key, tide_bits_of_number(i)) != 0 ||
            tide_layout_put_field(table, key, TIDE_BITS_TRUE) == 0)
            return 0;
        lua_pop(L, 1);
        if (!has_field(L, i))
            return 0;
        for (int more = 1; more <= SAMPLES; more++) { /* it has to grow */
            lua_pushboolean(L, 1);
            lua_rawseti(L, -2, -more);
        }
        if (!has_field(L, i))
            return 0;
    }
    return 1;
}

static int metatable_takes(lua_State *L)
{
    int top = lua_gettop(L);
    lua_createtable(L, 0, 1);
    push_sample(L, 3);
    lua_pushboolean(L, 1);
    lua_rawset(L, top + 1);
    lua_createtable(L, 0, 1);
    struct tide_gc_table *table = tide_gc_table_at(L, top + 2);
    if (tide_layout_take_keys(table, tide_gc_table_at(L, top + 1)) != 0)
        return 0;
    lua_createtable(L, 0, 1); /* what __index leads to */
    push_sample(L, 4);
    lua_pushboolean(L, 1);
    lua_rawset(L, top + 3);
    for (uint32_t i = 0; i <= table->node_mask; i++)
        if (table->nodes[i].key != TIDE_BITS_NIL)
            table->nodes[i].value = bits_at(L, top + 3);
    lua_newtable(L);
    lua_pushvalue(L, top + 2);
    lua_setmetatable(L, -2);
    push_sample(L, 4);
    lua_gettable(L, -2);
    return lua_toboolean(L, -1);
}

int tide_layout_learn(const struct tide_bytecode_format *format, lua_State *L)
{
    static int (*const steps[])(lua_State *) = {
        stack_fits, small_array_fits, large_array_fits,
        nodes_fit,  empty_fits,       array_takes,
        keys_take,  field_takes,      metatable_takes,
    };
    const uint16_t one = 1;
    int top = lua_gettop(L);
    int fits = (format->flags & DUMP_64_BIT) != 0 &&
               sizeof(void *) == sizeof(uint64_t) &&
               *(const unsigned char *)&one == 1 && string_fits(L, 15) &&
               string_fits(L, 299);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && fits; i++) {
        fits = steps[i](L);
        lua_settop(L, top);
    }
    return fits ? 0 : -1;
}
