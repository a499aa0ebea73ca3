/**
 * @file writer.h
 * @brief Writes the small parts of the format to where room was made for them.
 */
#ifndef TIDE_LUA_WRITER_H
#define TIDE_LUA_WRITER_H

#include "lua/codec.h"

#include <string.h>

enum { TIDE_VARINT_MAX = 10, TIDE_NUMBER_MAX = 9 /* bytes, tag included */ };

/** A varint (uleb128); returns behind it. */
static inline unsigned char *tide_write_varint(unsigned char *at,
                                               uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (unsigned char)(value | 0x80);
    *at++ = (unsigned char)value;
    return at;
}

/**
 * The number as an integer, if it is one of 32 bits; else any other. Beside this sum
 * there are no bits for a fraction: the integer is in its lower half.
 */
static inline int32_t tide_whole_of(double number)
{
    double sum = number + 0x1.8p52;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    return (int32_t)(uint32_t)bits;
}

/**
 * A number by the shortest tag; returns behind it. Eight bytes behind the tag are
 * written whatever the length, so that nothing here depends on the number but the
 * length: which numbers are whole is hard to predict.
 */
static inline unsigned char *tide_write_number(unsigned char *at, double number)
{
    int32_t whole = tide_whole_of(number);
    double same = whole;
    uint64_t bits, whole_bits;
    memcpy(&bits, &number, sizeof bits);
    memcpy(&whole_bits, &same, sizeof whole_bits);
    int is_whole = bits == whole_bits; /* -0 is not */
    int is_short = whole == (int16_t)whole;
    int is_small = (uint32_t)whole <= TIDE_SHORT_MAX;
    unsigned tag = is_short ? TIDE_TAG_INT16 : TIDE_TAG_INT32;
    size_t size = is_short ? 3 : 5;
    tag = is_small ? TIDE_TAG_SMALL_INT + (unsigned)whole : tag;
    size = is_small ? 1 : size;
    tag = is_whole ? tag : TIDE_TAG_DOUBLE;
    size = is_whole ? size : 9;
    bits = is_whole ? (uint64_t)whole : bits;
    *at = (unsigned char)tag;
    memcpy(at + 1, &bits, sizeof bits);
    return at + size;
}

/** The tag and length of a string; returns where its bytes go. */
static inline unsigned char *tide_write_string_head(unsigned char *at,
                                                    size_t length)
{
    if (length <= TIDE_SHORT_MAX) {
        *at++ = (unsigned char)(TIDE_TAG_SHORT_STRING + length);
        return at;
    }
    *at++ = TIDE_TAG_STRING;
    return tide_write_varint(at, length);
}

/**
 * The bytes of a string of Lua. Most are short: two words that may overlap take less
 * time than a call. Four bytes can be read, and there is room for as many, whatever
 * the length: LuaJIT's strings end with zeros up to a multiple of four.
 */
static inline void tide_write_text(unsigned char *at, const char *text,
                                   size_t length)
{
    uint64_t head, tail;
    uint32_t short_head, short_tail;
    if (length >= sizeof head && length <= 2 * sizeof head) {
        memcpy(&head, text, sizeof head);
        memcpy(&tail, text + length - sizeof tail, sizeof tail);
        memcpy(at, &head, sizeof head);
        memcpy(at + length - sizeof tail, &tail, sizeof tail);
    } else if (length >= sizeof short_head && length < sizeof head) {
        memcpy(&short_head, text, sizeof short_head);
        memcpy(&short_tail, text + length - sizeof short_tail,
               sizeof short_tail);
        memcpy(at, &short_head, sizeof short_head);
        memcpy(at + length - sizeof short_tail, &short_tail, sizeof short_tail);
    } else if (length > 2 * sizeof head) {
        memcpy(at, text, length);
    } else { /* up to 3: with what is behind it */
        memcpy(&short_head, text, sizeof short_head);
        memcpy(at, &short_head, sizeof short_head);
    }
}

#endif
