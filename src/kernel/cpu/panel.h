/* Where the slivers of packed columns lie. */
#ifndef MN__KERNEL_CPU_PANEL_H
#define MN__KERNEL_CPU_PANEL_H

#include "kernel/cpu/product.h"

static inline int64_t mn__least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t mn__cut(int64_t n, int64_t piece)
{
    return (n + piece - 1) / piece;
}

static inline int64_t mn__round_up(int64_t n, int64_t unit)
{
    return mn__cut(n, unit) * unit;
}

/* k is packed in passes of this depth. */
static inline int64_t mn__pass_depth(const mn__product_kind *kind, int64_t k)
{
    int64_t passes = mn__cut(k, kind->depth);
    return passes ? mn__round_up(mn__cut(k, passes), 32) : kind->depth;
}

/* bf16 slivers are padded for the deepest step. */
static inline int64_t mn__padded(const mn__product_kind *kind, int64_t depth)
{
    return kind->dtype == MN__F32 ? depth : mn__round_up(depth, 32);
}

/* Packed columns of b, a pass of k after the other: each pass is one piece of
 * memory, sliver after sliver, so that a block of it fits the cache's sets. */
typedef struct mn__panel {
    char *data;
    int64_t first, width; /* the column at which it starts; its columns, padded */
} mn__panel;

static inline char *mn__sliver_of(const mn__product_kind *kind, const mn__panel *b, int64_t l,
                                  int64_t depth, int64_t j)
{
    int64_t elements = l * b->width + (j - b->first) * mn__padded(kind, depth);
    return b->data + elements * mn__dtype_bytes(kind->dtype);
}

#endif
