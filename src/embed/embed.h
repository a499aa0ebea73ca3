/**
 * @file embed.h
 * @brief What the files of this room share: the objects behind tidemill.h.
 */
#ifndef TIDE_EMBED_H
#define TIDE_EMBED_H

#include "base/status.h"
#include "lua/setup.h"
#include "pool/host.h"

#include <lua.h>

struct tide_starter {
    struct tide_host host;
    struct tide_setup *setup;
};

/**
 * Register Tidemill in a state, run the starter's hook there, and let it have what
 * the starter has, which is gone from then on, also on failure.
 */
int tide_starter_adopt(lua_State *L, struct tide_starter *starter,
                       struct tide_error *err);

/** The status that NULL in the place of an object stands for. */
int tide_pass_on(const struct tide_error *err);

#endif
