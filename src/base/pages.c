#include "base/pages.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; older ones refuse it */
#endif

enum { PAGE_BYTES = 4096, HUGE_MIN_BYTES = 4 << 20 };

int tide_pages_are_missing(const void *at, size_t size)
{
    unsigned char state = 0;
    uintptr_t middle = (uintptr_t)at + size / 2;
    return mincore((void *)(middle - middle % PAGE_BYTES), PAGE_BYTES,
                   &state) == 0 &&
           (state & 1) == 0;
}

void tide_pages_make(void *at, size_t size)
{
    unsigned char *bytes = at;
    size_t before = (PAGE_BYTES - (uintptr_t)at % PAGE_BYTES) % PAGE_BYTES;
    if (size < before + PAGE_BYTES)
        return;
    size_t pages = (size - before) / PAGE_BYTES;
    bytes += before;
    /* Going through pages that are there costs about as much as writing to them. */
    if (!tide_pages_are_missing(bytes, pages * PAGE_BYTES))
        return;
    /* Zeroing is then most of what it costs. A small part of a mapping is left as it
     * is: advice of its own would make it a mapping of its own. */
    if (pages * PAGE_BYTES >= HUGE_MIN_BYTES)
        madvise(bytes, pages * PAGE_BYTES, MADV_HUGEPAGE);
    madvise(bytes, pages * PAGE_BYTES, MADV_POPULATE_WRITE);
}

int tide_pages_are_huge_on_request(void)
{
    static int known; /* 1: no, 2: yes */
    char text[128] = "";
    if (known != 0)
        return known - 1;
    FILE *file =
        fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
    if (file != NULL) {
        if (fgets(text, sizeof text, file) == NULL)
            text[0] = '\0';
        fclose(file);
    }
    known = strstr(text, "[advise]") != NULL ? 2 : 1;
    return known - 1;
}
