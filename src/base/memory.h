/**
 * @file memory.h
 * @brief How much memory this process has for itself.
 */
#ifndef TIDE_BASE_MEMORY_H
#define TIDE_BASE_MEMORY_H

#include <stdint.h>

/**
 * Resident bytes that are not of files or shared mappings. Pages that a fork has
 * left in common count as well. 0 if it cannot be told.
 */
uint64_t tide_private_bytes(void);

#endif
