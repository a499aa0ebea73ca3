/**
 * @file reader.h
 * @brief Reads bytes that may be anything: past the end is an error, remembered.
 *
 * They may also change while they are read: a worker that was taken over may write
 * to what it has handed over. So each is loaded once, by a volatile access: what
 * was checked is what is used. (The compiler is free to load plain memory again.)
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

/** Loads of so many bits from anywhere, once. */
static inline unsigned tide_load8(const unsigned char *at)
{
    return *(const volatile unsigned char *)at;
}

static inline uint16_t tide_load16(const unsigned char *at)
{
    struct __attribute__((packed, may_alias)) word {
        uint16_t value;
    };
    return ((const volatile struct word *)at)->value;
}

static inline uint32_t tide_load32(const unsigned char *at)
{
    struct __attribute__((packed, may_alias)) word {
        uint32_t value;
    };
    return ((const volatile struct word *)at)->value;
}

static inline uint64_t tide_load64(const unsigned char *at)
{
    struct __attribute__((packed, may_alias)) word {
        uint64_t value;
    };
    return ((const volatile struct word *)at)->value;
}

static inline double tide_load_double(const unsigned char *at)
{
    const uint64_t bits = tide_load64(at);
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

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
    return byte != NULL ? tide_load8(byte) : 0;
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
    switch (width) {
    case 1:
        return (signed char)tide_load8(at);
    case 2:
        return (int16_t)tide_load16(at);
    case 4:
        return (int32_t)tide_load32(at);
    default:
        return tide_load_double(at);
    }
}

#endif
