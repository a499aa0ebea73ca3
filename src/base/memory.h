/**
 * @file memory.h
 * @brief How much memory this process has for itself.
 */
#ifndef TIDE_BASE_MEMORY_H
#define TIDE_BASE_MEMORY_H

#include <stdint.h>

/**
 * Resident bytes that are not shared with other processes through mappings or
 * files: what ending this process would give back, about. 0 if it cannot be told.
 */
uint64_t tide_private_bytes(void);

#endif
