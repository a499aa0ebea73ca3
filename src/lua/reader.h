/**
 * @file reader.h
 * @brief Reads bytes that may be anything: past the end is an error, remembered.
 */
#ifndef TIDE_LUA_READER_H
#define TIDE_LUA_READER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tide_reader {
    const unsigned char *at;
    const unsigned char *end;
    int bad; /* something was wrong; every later read gives nothing */
};

static inline size_t tide_read_left(const struct tide_reader *in)
{
    return (size_t)(in->end - in->at);
}

/** The next `size` bytes, or NULL. */
static inline const unsigned char *tide_read(struct tide_reader *in,
                                             uint64_t size)
{
    if (in->bad || size > tide_read_left(in)) {
        in->bad = 1;
        return NULL;
    }
    const unsigned char *bytes = in->at;
    in->at += size;
    return bytes;
}

static inline unsigned tide_read_byte(struct tide_reader *in)
{
    const unsigned char *byte = tide_read(in, 1);
    return byte != NULL ? *byte : 0;
}

/** A varint (uleb128) of up to 64 bits. */
static inline uint64_t tide_read_varint(struct tide_reader *in)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint64_t byte = tide_read_byte(in);
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    in->bad = 1;
    return 0;
}

/** A number of so many bytes: 1, 2 and 4 are signed and whole, 8 is a double. */
static inline double tide_read_number(const unsigned char *at, size_t width)
{
    int16_t half;
    int32_t whole;
    double number;
    switch (width) {
    case 1:
        return (signed char)*at;
    case 2:
        memcpy(&half, at, sizeof half);
        return half;
    case 4:
        memcpy(&whole, at, sizeof whole);
        return whole;
    default:
        memcpy(&number, at, sizeof number);
        return number;
    }
}

#endif
