/**
 * @file embedded.h
 * @brief The Lua half of Tidemill, as text inside the library.
 */
#ifndef TIDE_LUA_EMBEDDED_H
#define TIDE_LUA_EMBEDDED_H

#include <stddef.h>

struct tide_embedded_module {
    const char *name; /* as for `require`; NULL ends the list */
    const char *text;
    size_t length;
};

/** Generated from lua/ by the build. */
extern const struct tide_embedded_module tide_embedded_modules[];

#endif
