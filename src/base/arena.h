/* Arenas: memory that dies together. A block list that grows on demand and is
 * kept over a release, so that a step loop reaches a fixed size and then
 * allocates nothing (after nginx's pools); one that has become too small makes
 * room for a larger. Not thread-safe. */
#ifndef MN__BASE_ARENA_H
#define MN__BASE_ARENA_H

#include <stdbool.h>

#include "base/error.h"

typedef struct mn__arena_block mn__arena_block;
typedef struct mn__arena {
    mn__arena_block *first, *current;
    int64_t block_bytes; /* least size of a new block */
    int64_t used;        /* bytes handed out since the last reset */
    int64_t peak;        /* largest `used` so far */
} mn__arena;

typedef struct mn__arena_mark {
    mn__arena_block *block;
    int64_t block_used, used;
} mn__arena_mark;

/* No memory is taken yet. block_bytes <= 0 chooses 1 MiB. */
void mn__arena_init(mn__arena *arena, int64_t block_bytes);
/* 64-byte aligned, not cleared; NULL when memory is short or bytes < 0. */
void *mn__arena_alloc(mn__arena *arena, int64_t bytes);
void *mn__arena_calloc(mn__arena *arena, int64_t count, int64_t each);
char *mn__arena_strdup(mn__arena *arena, const char *text);
char *mn__arena_printf(mn__arena *arena, const char *format, ...) MN__PRINTF(2, 3);
/* Everything allocated after the mark is given back to the arena. */
mn__arena_mark mn__arena_mark_now(const mn__arena *arena);
void mn__arena_release(mn__arena *arena, mn__arena_mark mark);
/* The same, but `bytes` at `kept` are moved down to the mark: their new place,
 * or NULL when memory is short. */
void *mn__arena_release_except(mn__arena *arena, mn__arena_mark mark, const void *kept,
                               int64_t bytes);
/* Everything; blocks are kept. After a reset that follows growth, the blocks
 * are merged into one of the peak size, so that the next round fits in it. */
void mn__arena_reset(mn__arena *arena);
/* Gives the blocks back to the heap. */
void mn__arena_free(mn__arena *arena);

/* Tests: every arena takes a block of its own for each allocation, so that each
 * can be made to fail. */
void mn__arena_single_blocks(bool single);

#endif
