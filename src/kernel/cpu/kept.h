/* Rows of keys and values as they are kept (mn__kept), into floats or bf16: a row at a time, on
 * its way into a product or into the panels of one (attention_pack.c). */
#ifndef MN__KERNEL_CPU_KEPT_H
#define MN__KERNEL_CPU_KEPT_H

#if defined(__F16C__) || defined(__AVX512F__)
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

#if defined(__AVX512F__)
/* scale * q[i] for i < 16. By name: gcc 12 makes vectors of half the width of a loop, which wait
 * for each other. */
static inline __m512 mn__block_part(float scale, const int8_t *q)
{
    __m512i x = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)q));
    return _mm512_set1_ps(scale) * _mm512_cvtepi32_ps(x);
}
#endif

/* scale * q[i], of a block. */
static inline void mn__block_widen(float *restrict to, float scale, const int8_t *restrict q)
{
#if defined(__AVX512F__)
    _mm512_storeu_ps(to, mn__block_part(scale, q));
    _mm512_storeu_ps(to + 16, mn__block_part(scale, q + 16));
#else
#pragma omp simd
    for (int i = 0; i < MN__BLOCK; i++)
        to[i] = scale * (float)q[i];
#endif
}

static inline void mn__blocks_widen(float *restrict to, const mn__block_int8 *restrict from,
                                    int64_t n)
{
    for (; n >= MN__BLOCK; n -= MN__BLOCK, to += MN__BLOCK, from++)
        mn__block_widen(to, mn__block_scale(from->scale), from->q);
    for (int64_t i = 0; i < n; i++)
        to[i] = mn__block_scale(from->scale) * (float)from->q[i];
}

/* The same into bf16. */
static inline void mn__blocks_narrow(mn__bf16 *restrict to, const mn__block_int8 *restrict from,
                                     int64_t n)
{
    for (; n > 0; n -= MN__BLOCK, to += MN__BLOCK, from++) {
        float scale = mn__block_scale(from->scale);
#if defined(__AVX512BF16__)
        if (n >= MN__BLOCK) {
            mn__store_bf16(to, mn__block_part(scale, from->q), mn__block_part(scale, from->q + 16));
            continue;
        }
#endif
        float x[MN__BLOCK];
        mn__block_widen(x, scale, from->q);
        mn__floats_narrow(to, x, n < MN__BLOCK ? n : MN__BLOCK);
    }
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

/* The same as bf16. */
static inline void mn__kept_narrow(mn__bf16 *to, const void *from, mn__dtype dtype, int64_t n)
{
    if (dtype == MN__U8)
        mn__blocks_narrow(to, from, n);
    else if (dtype == MN__BF16)
        memcpy(to, from, (size_t)n * sizeof *to);
    else
        mn__floats_narrow(to, from, n);
}

#endif
