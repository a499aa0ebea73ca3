/**
 * @file codec.h
 * @brief Lua values to bytes and back.
 *
 * What `tidemill.encode` returns is a byte, the version of the format, and one
 * message with MULTI. The version changes with the format, and `tidemill.decode`
 * reads no other than its own. Messages between the processes of a pool, all of
 * them one build, are without it.
 *
 * The unit is a message: one value, or a list of values that share an identity
 * scope (a table that occurs twice in a message is one table on the other side,
 * cycles included). Nothing is kept from one message to the next.
 *
 *   message   head [count] value...            count only with MULTI
 *             [later table..., NIL]            only with LATER; neither NUMBERS
 *                                              nor of a shape
 *   count     varint
 *
 *   value     NIL | FALSE | TRUE
 *             INT16 2 bytes | INT32 4 bytes    whole numbers, signed, not -0
 *             DOUBLE 8 bytes                   bit for bit
 *             SMALL_INT + n                    0 .. 63, the tag is the value
 *             STRING varint bytes | SHORT_STRING + length, bytes
 *             SMALL_TABLE u8 u8 | TABLE u32 u32
 *                                              array and pair counts, then the
 *                                              array's values, the pairs, and
 *                                              with | WITH_META a metatable
 *             NUMBERS u8 varint bytes          a table that is an array of
 *                                              numbers: the bytes of each (1, 2,
 *                                              4: signed whole, 8: a double),
 *                                              how many, and so many bytes
 *             SHAPE u8 key... value...         a table of pairs, all keys strings:
 *                                              how many, the keys, the values;
 *                                              shapes are numbered from 0
 *             SHAPED u8 value...               a table with the keys of a shape
 *             REF varint                       an object seen before
 *             LATER_TABLE                      a table whose body follows at the
 *                                              end: so depth costs no recursion
 *             NAME module field                what `require` finds there; the
 *                                              module itself for an empty field;
 *                                              for an empty module a class that
 *                                              was registered by the field's name
 *             FUNCTION u32 u32 bytecode        length and digest
 *                      environment upvalues
 *             CDATA type bytes
 *             HOOKED metatable value           what its encode hook made of it
 *             SHARED varint bytes              a shared object: handle, u32 kind,
 *                                              what the Lua half adds to it
 *
 *   environment   GLOBALS varint (name value)... NIL
 *                                              which one, and what was captured
 *                                              from it, or
 *                 TABLE value                  the function's own, as it is
 *   upvalues      varint, then each: NEW value | JOIN varint (a cell seen before)
 *
 * Objects (tables, functions, what is hooked) are numbered from 0 in the order in which their
 * tags occur, cells of upvalues likewise. Integers are little-endian.
 */
#ifndef TIDE_LUA_CODEC_H
#define TIDE_LUA_CODEC_H

#include "base/status.h"
#include "lua/buffer.h"
#include "lua/bytecode.h"
#include "lua/handles.h"
#include "lua/names.h"
#include "lua/ptrmap.h"
#include "lua/shapes.h"
#include "lua/tableset.h"

#include <lua.h>
#include <stdint.h>

enum { TIDE_FORMAT_VERSION = 1 };

enum tide_head {
    TIDE_HEAD_REFS = 0x01,   /* objects are referred to: number them */
    TIDE_HEAD_LATER = 0x02,  /* bodies follow the values */
    TIDE_HEAD_MULTI = 0x04,  /* a count and as many values */
    TIDE_HEAD_ERROR = 0x08,  /* what a job raised, see errors.h */
    TIDE_HEAD_SHAPES = 0x10, /* shapes are defined */
    TIDE_HEAD_ALL = 0x1f,
    TIDE_HEAD_FOREIGN =
        0x100 /* for tide_encode(): not for a process of the tree */
};

enum tide_tag {
    TIDE_TAG_NIL = 0,
    TIDE_TAG_FALSE,
    TIDE_TAG_TRUE,
    TIDE_TAG_INT16,
    TIDE_TAG_INT32,
    TIDE_TAG_DOUBLE,
    TIDE_TAG_STRING,
    TIDE_TAG_SMALL_TABLE,
    TIDE_TAG_SMALL_TABLE_META,
    TIDE_TAG_TABLE,
    TIDE_TAG_TABLE_META,
    TIDE_TAG_REF,
    TIDE_TAG_LATER_TABLE,
    TIDE_TAG_NAME,
    TIDE_TAG_FUNCTION,
    TIDE_TAG_CDATA,
    TIDE_TAG_HOOKED,
    TIDE_TAG_NUMBERS,
    TIDE_TAG_SHAPE,
    TIDE_TAG_SHAPED,
    TIDE_TAG_SHARED,
    TIDE_TAG_SHORT_STRING = 0x80,
    TIDE_TAG_SMALL_INT = 0xc0
};

enum tide_environment { TIDE_ENV_GLOBALS = 0, TIDE_ENV_TABLE };
enum tide_cell { TIDE_CELL_NEW = 0, TIDE_CELL_JOIN };

enum {
    TIDE_SHORT_MAX = 63, /* longest SHORT_STRING, largest SMALL_INT */
    TIDE_SMALL_TABLE_MAX = 255,
    TIDE_TABLE_DEPTH = 150, /* deeper tables come LATER */
    TIDE_VALUE_DEPTH = 700  /* deeper functions are refused */
};

struct tide_cell_owner {
    uint32_t function; /* object number */
    uint32_t upvalue;  /* 1-based */
};

/** What a state needs to encode and decode; lives as long as the state. */
struct tide_codec {
    struct tide_names names;
    struct tide_bytecode_format format;
    int captures_globals;          /* the bytecode format is known */
    struct tide_ptrmap seen;       /* of the message being encoded */
    struct tide_cell_owner *cells; /* of the messages being decoded */
    uint32_t cell_count;
    size_t cell_capacity;
    int reads_layout;          /* tables are read where they are */
    int ferry;                 /* registry reference, see encode_direct.c */
    struct tide_tableset met;  /* of a message without numbers */
    struct tide_shapes shapes; /* of the message being encoded */
    struct tide_model *models; /* of the messages being decoded */
    uint32_t model_count;
    size_t model_capacity;
    int cdata_encode; /* registry references of the helpers in Lua, or 0 */
    int cdata_decode;
    int shared_open;          /* the same for shared objects */
    struct tide_handles sent; /* by messages, and not yet taken from here */
    uint64_t opened; /* values of shared objects, made or received so far */
    uint64_t light_bytes; /* see tide_handles_weigh() */
    int makes_factories;  /* see factory.h */
    int factories; /* registry reference: bytecode -> number -> factory */
    uint32_t factory_count;
    uint32_t last_prototype;
    uint32_t
        root_prototype; /* of the function decoded last as a message's first
                                object; the same number for the same bytecode */
    uintptr_t
        outermost_hook; /* where the C stack was when it was called, or 0 */
    int plain_classes;  /* registered classes go by value, not by name */
    int hidden_globals; /* registry reference: a set of names never captured */
    struct { /* registry references: so that to push one of them takes
                           no memory, and never runs the collector */
        int run_passes; /* a C function, see encode.c */
        int tidemill;   /* the texts "__tidemill", "encode", ... */
        int encode;
        int decode;
        int index;
        int name; /* an empty table, see encode_function.c */
    } keys;
};

/** Call the hook below its arguments as lua_pcall() does, for one result. */
int tide_call_hook(struct tide_codec *codec, lua_State *L, int arguments);

/** The codec of a state, made when it is first asked for. May raise. */
struct tide_codec *tide_codec_of(lua_State *L);

/** The modules in Lua were loaded again: use the new ones. */
void tide_codec_reload(lua_State *L);

/**
 * Append one message with the `count` values from stack index `first` on.
 *
 * Of shared objects in it the codec's list `sent` has holds afterwards, for the caller
 * to take; unless with FOREIGN, when they cannot travel.
 *
 * @param head  TIDE_HEAD_MULTI, TIDE_HEAD_ERROR and TIDE_HEAD_FOREIGN as wanted;
 *              without MULTI `count` is 1
 * @param err   what cannot travel, by its path, without a subject: e.g.
 *              "field a.b: a coroutine"
 * @return TIDE_OK; TIDE_EINVAL if a value cannot travel, or a hook has changed
 *         it meanwhile; TIDE_ENOMEM if there is no memory. On failure `used` is
 *         as before. Raises nothing.
 */
int tide_encode(struct tide_codec *codec, lua_State *L,
                struct tide_buffer *buffer, int first, int count, unsigned head,
                struct tide_error *err);

/**
 * Decode one message and push its values.
 *
 * Bytecode in it is loaded: it must come from a process of the same pool. All
 * else is survived, whatever the bytes. Modules that it names are required.
 *
 * @param at     advanced behind the message, also if only a hook refused it
 * @param count  the number of values pushed
 * @param head   the head as it was written; may be NULL
 * @return TIDE_OK; TIDE_EINVAL with nothing pushed. Raises only for memory.
 */
int tide_decode(struct tide_codec *codec, lua_State *L,
                const unsigned char **at, const unsigned char *end, int *count,
                unsigned *head, struct tide_error *err);

#endif
