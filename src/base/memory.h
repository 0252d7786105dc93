/* Heap memory: all of the project's own allocations pass through here, so that
 * tests can count them and make each fail in turn. */
#ifndef MN__BASE_MEMORY_H
#define MN__BASE_MEMORY_H

#include "base/error.h"

/* 64-byte aligned, not cleared. NULL when memory is short or bytes < 0
 * (a product that overflowed is passed as such). bytes = 0 yields a valid
 * pointer. */
void *mn__malloc(int64_t bytes);
/* The same, cleared. */
void *mn__calloc(int64_t count, int64_t bytes_each);
/* Grows or shrinks; on failure returns NULL and keeps the old block. */
void *mn__realloc(void *block, int64_t bytes);
void mn__free(void *block);
char *mn__strdup(const char *text);

/* count * each, or -1 where that overflows int64_t or either is negative. */
int64_t mn__size_product(int64_t count, int64_t each);

/* What the heap holds of ours now, and how many allocations were ever made. */
typedef struct mn__memory_stats {
    int64_t bytes, blocks, allocations, peak_bytes;
} mn__memory_stats;
mn__memory_stats mn__memory_now(void);

/* Tests: the n-th allocation from now fails (1 = the next), once; 0 = none.
 * Returns what was left to count of the call before: 0 if that one has failed. */
int64_t mn__memory_fail_nth(int64_t n);

#endif
