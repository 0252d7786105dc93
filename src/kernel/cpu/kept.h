/* Rows of keys and values as they are kept (mn__kept), into floats: a row at a time, on its way
 * into a product or into the panels of one (attention_pack.c). */
#ifndef MN__KERNEL_CPU_KEPT_H
#define MN__KERNEL_CPU_KEPT_H

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "kernel/blocks.h"
#include "kernel/cpu/bf16.h"
#include "kernel/kernel.h"

static inline float mn__block_scale(mn__f16 scale)
{
#if defined(__F16C__)
    return _cvtsh_ss(scale);
#else
    return mn__f16_to_f32(scale);
#endif
}

static inline void mn__blocks_widen(float *restrict to, const mn__block_int8 *restrict from,
                                    int64_t n)
{
    for (; n >= MN__BLOCK; n -= MN__BLOCK, to += MN__BLOCK, from++) {
        float scale = mn__block_scale(from->scale);
#pragma omp simd
        for (int i = 0; i < MN__BLOCK; i++)
            to[i] = scale * (float)from->q[i];
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = mn__block_scale(from->scale) * (float)from->q[i];
}

/* The first n elements of a row as floats. */
static inline void mn__kept_widen(float *to, const void *from, mn__dtype dtype, int64_t n)
{
    if (dtype == MN__U8)
        mn__blocks_widen(to, from, n);
    else if (dtype == MN__BF16)
        mn__floats_widen(to, from, n);
    else
        memcpy(to, from, (size_t)n * sizeof *to);
}

#endif
