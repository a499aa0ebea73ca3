/**
 * @file factory.h
 * @brief Closures of one prototype, as many as wanted, from dumped bytecode.
 *
 * Loading a dump makes a new prototype each time, and the compiler starts from
 * nothing. A factory is loaded once: a function of as many parameters as the
 * dumped one has upvalues, which returns a closure over them. All its closures
 * share the prototype, and so the compiled code, as closures made by a script's
 * own source do.
 */
#ifndef TIDE_LUA_FACTORY_H
#define TIDE_LUA_FACTORY_H

#include "lua/buffer.h"
#include "lua/bytecode.h"

#include <lua.h>

/**
 * Learn the opcodes from the running LuaJIT, and try them.
 *
 * @return 0, or -1 if factories cannot be made: dumps are then to be loaded
 */
int tide_factory_learn(struct tide_bytecode_format *format, lua_State *L);

/**
 * Append to `out` the dump of a factory for a dumped function.
 *
 * @return 0; -1 if the bytes are not a dump in this format, or without memory
 */
int tide_factory_compose(const struct tide_bytecode_format *format,
                         const unsigned char *dump, size_t size,
                         struct tide_buffer *out);

#endif
