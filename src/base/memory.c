/* Heap memory: each block is preceded by a header that holds its size, so that
 * the live bytes can be counted. What this is not: an allocator; the C
 * library's is used. */
#include "base/memory.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };
#define BLOCK_MAGIC UINT64_C(0x6d6e656d65626c6b)

/* Sits in the 64 bytes before the caller's. */
typedef struct block_header {
    int64_t bytes;
    uint64_t magic;
} block_header;

static atomic_int_least64_t live_bytes, live_blocks, allocations, peak_bytes;
static atomic_int_least64_t fail_countdown;

int64_t mn__size_product(int64_t count, int64_t each)
{
    int64_t product;
    if (count < 0 || each < 0 || __builtin_mul_overflow(count, each, &product))
        return -1;
    return product;
}

static bool must_fail(void)
{
    return atomic_load(&fail_countdown) > 0 && atomic_fetch_sub(&fail_countdown, 1) == 1;
}

static block_header *header_of(void *block)
{
    block_header *header = (block_header *)((char *)block - ALIGNMENT);
    assert(header->magic == BLOCK_MAGIC);
    return header;
}

static void count_block(int64_t bytes)
{
    int64_t now = atomic_fetch_add(&live_bytes, bytes) + bytes;
    int64_t peak = atomic_load(&peak_bytes);
    while (now > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, now))
        ;
    atomic_fetch_add(&live_blocks, 1);
    atomic_fetch_add(&allocations, 1);
}

/* Large blocks in huge pages, where the system gives them: a step walks through
 * gigabytes, and 4 KB pages cost faults when it starts and TLB misses later. */
static void ask_for_huge_pages(void *block, size_t bytes)
{
    uintptr_t first = ((uintptr_t)block + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t end = ((uintptr_t)block + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (end > first)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE); /* a wish */
}

void *mn__malloc(int64_t bytes)
{
    if (bytes < 0 || bytes > INT64_MAX - 2 * ALIGNMENT || must_fail())
        return NULL;
    size_t whole = ((size_t)bytes + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block_header *header = aligned_alloc(ALIGNMENT, whole);
    if (!header)
        return NULL;
    if (bytes >= 2 * HUGE_PAGE)
        ask_for_huge_pages(header, whole);
    *header = (block_header){.bytes = bytes, .magic = BLOCK_MAGIC};
    count_block(bytes);
    return (char *)header + ALIGNMENT;
}

void *mn__calloc(int64_t count, int64_t bytes_each)
{
    int64_t bytes = mn__size_product(count, bytes_each);
    void *block = mn__malloc(bytes);
    if (block)
        memset(block, 0, (size_t)bytes);
    return block;
}

/* realloc() does not keep the alignment, so the bytes are copied. */
void *mn__realloc(void *block, int64_t bytes)
{
    void *moved = mn__malloc(bytes);
    if (!moved || !block)
        return moved;
    int64_t old = header_of(block)->bytes;
    memcpy(moved, block, (size_t)(old < bytes ? old : bytes));
    mn__free(block);
    return moved;
}

void mn__free(void *block)
{
    if (!block)
        return;
    block_header *header = header_of(block);
    atomic_fetch_sub(&live_bytes, header->bytes);
    atomic_fetch_sub(&live_blocks, 1);
    header->magic = 0;
    free(header);
}

char *mn__strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = mn__malloc((int64_t)bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

mn__memory_stats mn__memory_now(void)
{
    return (mn__memory_stats){
        .bytes = atomic_load(&live_bytes),
        .blocks = atomic_load(&live_blocks),
        .allocations = atomic_load(&allocations),
        .peak_bytes = atomic_load(&peak_bytes),
    };
}

int64_t mn__memory_fail_nth(int64_t n)
{
    return atomic_exchange(&fail_countdown, n);
}
