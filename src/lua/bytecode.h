/**
 * @file bytecode.h
 * @brief Reads LuaJIT's dumped bytecode: which globals a function uses.
 *
 * The format is that of lj_bcdump.h, version 2. Nothing is executed or loaded;
 * any bytes are survived.
 */
#ifndef TIDE_LUA_BYTECODE_H
#define TIDE_LUA_BYTECODE_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

/** What this LuaJIT writes; found by looking at a function it has dumped. */
struct tide_bytecode_format {
    unsigned char header[4]; /* signature and version */
    unsigned char flags;     /* those that must agree, e.g. the frame layout */
    unsigned char get_op;    /* the opcode that reads a global */
    unsigned char set_op;    /* the opcode that writes one */
    unsigned char new_op;    /* those of a factory, see factory.h */
    unsigned char close_op;
    unsigned char return_op;
};

/** The bit of a dump's flags for "without names and lines". */
enum { TIDE_DUMP_STRIPPED = 0x02 };

/** A small dump, for learning from samples. */
struct tide_dump {
    unsigned char bytes[512];
    size_t size;
};

/** Dump the function on top and pop it. @return 0, -1 if it is too large */
int tide_dump_top(lua_State *L, struct tide_dump *out);

/**
 * Learn the format from the running LuaJIT.
 *
 * @return 0, or -1 if it is not the one this reader knows
 */
int tide_bytecode_learn(struct tide_bytecode_format *out, lua_State *L);

/** Called for every use of a global; `written` is 1 for an assignment. */
typedef void (*tide_global_fn)(void *context, const char *name, size_t length,
                               int written);

/**
 * Walk a dump, nested functions included.
 *
 * @return 0, or -1 if the bytes are not a dump in this format
 */
int tide_bytecode_globals(const struct tide_bytecode_format *format,
                          const unsigned char *dump, size_t size,
                          tide_global_fn visit, void *context);

/** Could this LuaJIT load the dump? Checks the header only. */
int tide_bytecode_fits(const struct tide_bytecode_format *format,
                       const unsigned char *dump, size_t size);

/** A 64-bit digest of bytes, to notice damage and to find equal contents. */
uint64_t tide_digest(const unsigned char *bytes, size_t size);

#endif
