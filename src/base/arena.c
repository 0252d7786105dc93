/* Arenas: a list of blocks, each handed out from its front. Under the address
 * sanitizer what is not handed out is poisoned, so that a use after a release
 * is caught as one after free() would be. */
#include "base/arena.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

#if defined(__has_feature) /* clang */
#if __has_feature(address_sanitizer)
#define HAVE_POISON
#endif
#elif defined(__SANITIZE_ADDRESS__) /* gcc */
#define HAVE_POISON
#endif
#ifdef HAVE_POISON
#include <sanitizer/asan_interface.h>
#define POISON(from, bytes)   __asan_poison_memory_region((from), (size_t)(bytes))
#define UNPOISON(from, bytes) __asan_unpoison_memory_region((from), (size_t)(bytes))
#else
#define POISON(from, bytes)   ((void)(from), (void)(bytes))
#define UNPOISON(from, bytes) ((void)(from), (void)(bytes))
#endif

enum { ALIGNMENT = 64, DEFAULT_BLOCK = 1 << 20 };

static bool single_blocks;

struct mn__arena_block {
    mn__arena_block *next;
    int64_t capacity, used;
    _Alignas(ALIGNMENT) char data[];
};

void mn__arena_single_blocks(bool single)
{
    single_blocks = single;
}

void mn__arena_init(mn__arena *arena, int64_t block_bytes)
{
    *arena = (mn__arena){.block_bytes = block_bytes > 0 ? block_bytes : DEFAULT_BLOCK};
}

static mn__arena_block *block_new(int64_t capacity)
{
    if (capacity > INT64_MAX - (int64_t)sizeof(mn__arena_block))
        return NULL;
    mn__arena_block *block = mn__malloc((int64_t)sizeof *block + capacity);
    if (!block)
        return NULL;
    *block = (mn__arena_block){.capacity = capacity};
    POISON(block->data, capacity);
    return block;
}

static void block_free(mn__arena_block *block)
{
    UNPOISON(block->data, block->capacity);
    mn__free(block);
}

static void block_cut(mn__arena_block *block, int64_t used)
{
    POISON(block->data + used, block->capacity - used);
    block->used = used;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Makes `current` a block with room for `bytes`: the next one kept from an
 * earlier round, or a new one in the place of those kept that are too small. The
 * new one leaves room: what grows a little in every round moves seldom. */
static mn__arena_block *next_block(mn__arena *arena, int64_t bytes)
{
    mn__arena_block **link = arena->current ? &arena->current->next : &arena->first;
    int64_t capacity = larger(bytes, single_blocks ? 0 : arena->block_bytes);
    while (*link && (*link)->capacity < bytes) {
        mn__arena_block *small = *link;
        capacity = larger(capacity, small->capacity + small->capacity / 4);
        *link = small->next;
        block_free(small);
    }
    if (!*link)
        *link = block_new(capacity);
    return *link ? arena->current = *link : NULL;
}

void *mn__arena_alloc(mn__arena *arena, int64_t bytes)
{
    if (bytes < 0 || bytes > INT64_MAX - ALIGNMENT)
        return NULL;
    int64_t whole = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (whole == 0)
        whole = ALIGNMENT; /* distinct pointers for empty things */
    mn__arena_block *block = arena->current;
    if (!block || block->capacity - block->used < whole)
        block = next_block(arena, whole);
    if (!block)
        return NULL;
    char *data = block->data + block->used;
    UNPOISON(data, bytes);
    block->used += whole;
    arena->used += whole;
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    return data;
}

void *mn__arena_calloc(mn__arena *arena, int64_t count, int64_t each)
{
    int64_t bytes = mn__size_product(count, each);
    void *data = mn__arena_alloc(arena, bytes);
    if (data)
        memset(data, 0, (size_t)bytes);
    return data;
}

char *mn__arena_strdup(mn__arena *arena, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = mn__arena_alloc(arena, (int64_t)bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

char *mn__arena_printf(mn__arena *arena, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *text = length < 0 ? NULL : mn__arena_alloc(arena, (int64_t)length + 1);
    if (text)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return text;
}

mn__arena_mark mn__arena_mark_now(const mn__arena *arena)
{
    return (mn__arena_mark){
        .block = arena->current,
        .block_used = arena->current ? arena->current->used : 0,
        .used = arena->used,
    };
}

void mn__arena_release(mn__arena *arena, mn__arena_mark mark)
{
    assert(mark.used <= arena->used);
    mn__arena_block *last = arena->current;
    if (!last || (last == mark.block && last->used == mark.block_used))
        return;
    mn__arena_block *after = mark.block ? mark.block->next : arena->first;
    if (mark.block)
        block_cut(mark.block, mark.block_used);
    if (last != mark.block) {
        for (; after != last; after = after->next)
            block_cut(after, 0);
        block_cut(last, 0);
    }
    arena->current = mark.block;
    arena->used = mark.used;
}

void *mn__arena_release_except(mn__arena *arena, mn__arena_mark mark, const void *kept,
                               int64_t bytes)
{
    mn__arena_release(arena, mark);
    void *moved = mn__arena_alloc(arena, bytes);
    UNPOISON(kept, bytes);
    return moved ? memmove(moved, kept, (size_t)bytes) : NULL;
}

static void free_blocks(mn__arena *arena)
{
    while (arena->first) {
        mn__arena_block *next = arena->first->next;
        block_free(arena->first);
        arena->first = next;
    }
    arena->current = NULL;
    arena->used = 0;
}

void mn__arena_reset(mn__arena *arena)
{
    if (!arena->first || !arena->first->next) {
        mn__arena_release(arena, (mn__arena_mark){0});
        return;
    }
    /* The old blocks go first, so that both are never held at once. Where the
     * merged one cannot be had, the next round grows block by block again. */
    free_blocks(arena);
    arena->first = block_new(arena->peak > arena->block_bytes ? arena->peak : arena->block_bytes);
}

void mn__arena_free(mn__arena *arena)
{
    free_blocks(arena);
}
