/* Rows of bf16 and of floats into each other. */
#ifndef MN__KERNEL_CPU_BF16_H
#define MN__KERNEL_CPU_BF16_H

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "kernel/dtype.h"

static inline void mn__floats_widen(float *restrict out, const mn__bf16 *restrict in, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = mn__bf16_to_f32(in[i]);
}

/* VCVTNEPS2BF16 rounds as mn__f32_to_bf16 does, and takes denormal numbers for zero. */
static inline void mn__floats_narrow(mn__bf16 *restrict out, const float *restrict in, int64_t n)
{
    int64_t i = 0;
#if defined(__AVX512BF16__)
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(in + i + 16),
                                                                  _mm512_loadu_ps(in + i)));
#endif
#pragma omp simd
    for (int64_t j = i; j < n; j++)
        out[j] = mn__f32_to_bf16(in[j]);
}

#endif
