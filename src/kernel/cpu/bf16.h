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

#if defined(__AVX512BF16__)
/* Two vectors into 32 bf16. VCVTNE2PS2BF16 rounds as mn__f32_to_bf16 does, but takes denormal
 * numbers for zero. */
static inline void mn__store_bf16(void *to, __m512 low, __m512 high)
{
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
#endif

static inline void mn__floats_narrow(mn__bf16 *restrict out, const float *restrict in, int64_t n)
{
#if defined(__AVX512BF16__)
    for (; n >= 32; n -= 32, in += 32, out += 32)
        mn__store_bf16(out, _mm512_loadu_ps(in), _mm512_loadu_ps(in + 16));
    if (n > 0) {
        const uint32_t there = (1U << n) - 1;
        __m512 low = _mm512_maskz_loadu_ps((__mmask16)there, in);
        __m512 high = _mm512_maskz_loadu_ps((__mmask16)(there >> 16), in + 16);
        _mm512_mask_storeu_epi16(out, there, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
#else
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = mn__f32_to_bf16(in[i]);
#endif
}

#endif
