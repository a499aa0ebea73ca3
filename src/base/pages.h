/**
 * @file pages.h
 * @brief Pages of memory, made many at once.
 */
#ifndef TIDE_BASE_PAGES_H
#define TIDE_BASE_PAGES_H

#include <stddef.h>

enum { TIDE_PAGES_FROM = 1 << 20 /* bytes, from which it pays */ };

/** Has the middle of [at, at + size) no page? Then the rest hardly has any. */
int tide_pages_are_missing(const void *at, size_t size);

/**
 * Have the pages of [at, at + size) made, all of which is about to be written. A
 * fault for each would take longer than the system takes to make them in a row.
 * Does nothing where the system cannot, or where the page in the middle is there.
 */
void tide_pages_make(void *at, size_t size);

/** Does the system make huge pages for shared memory if MADV_HUGEPAGE asks for it? */
int tide_pages_are_huge_on_request(void);

#endif
