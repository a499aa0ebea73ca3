/**
 * @file options.h
 * @brief Structs of options from programs built against another version.
 */
#ifndef TIDE_BASE_OPTIONS_H
#define TIDE_BASE_OPTIONS_H

#include <stddef.h>

/**
 * Take `given`, of `given_size` bytes, which its first member says, as a struct of
 * `size` bytes: shorter it has zeros behind; longer it may have nothing but zeros
 * there, as what they ask for is not known here. The first member is ours then.
 *
 * @return 0, or -1: what was asked for cannot be had, or the size was not set
 */
int tide_take_options(void *out, size_t size, const void *given,
                      size_t given_size);

#endif
