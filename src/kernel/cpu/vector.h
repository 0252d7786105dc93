/* A vector of floats, or of 32-bit words, as wide as the level's registers. */
#ifndef MN__KERNEL_CPU_VECTOR_H
#define MN__KERNEL_CPU_VECTOR_H

#include <string.h>

#if defined(__FMA__)
#include <immintrin.h>
#endif

#include "kernel/dtype.h"

#if defined(__AVX512F__)
#define MN__LANES 16
#elif defined(__AVX__)
#define MN__LANES 8
#else
#define MN__LANES 4
#endif

typedef float mn__lanes __attribute__((vector_size(4 * MN__LANES), aligned(4), may_alias));
typedef uint32_t mn__words __attribute__((vector_size(4 * MN__LANES), aligned(2), may_alias));
typedef uint16_t mn__halves __attribute__((vector_size(2 * MN__LANES), aligned(2), may_alias));

static inline mn__lanes mn__lanes_of(float x)
{
    return x - (mn__lanes){0};
}

/* a * b + c, rounded once where the level can: by name, since a compiler that may join the
 * two need not do so everywhere. */
static inline __attribute__((always_inline)) mn__lanes
mn__lanes_multiply_add(mn__lanes a, mn__lanes b, mn__lanes c)
{
#if defined(__AVX512F__)
    return (mn__lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (mn__lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

static inline mn__words mn__words_of_halves(const void *halves)
{
    return __builtin_convertvector(*(const mn__halves *)halves, mn__words);
}

#if defined(__AVX512F__)
/* v[i][j] becomes v[j][i]: in fours, pairs of words and of double words are joined, then lanes
 * of 128 bits, by instructions that leave what they read. */
static inline __attribute__((always_inline)) void mn__words_transpose(mn__words v[MN__LANES])
{
    __m512i x[MN__LANES], y[MN__LANES];
#pragma GCC unroll 8
    for (int i = 0; i < MN__LANES; i += 2) {
        y[i] = _mm512_unpacklo_epi32((__m512i)v[i], (__m512i)v[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32((__m512i)v[i], (__m512i)v[i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < MN__LANES; i += 4)
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
            x[i + 2 * k] = _mm512_unpacklo_epi64(y[i + k], y[i + k + 2]);
            x[i + 2 * k + 1] = _mm512_unpackhi_epi64(y[i + k], y[i + k + 2]);
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 2
        for (int half = 0; half < MN__LANES; half += 8) {
            y[half + i] = _mm512_shuffle_i32x4(x[half + i], x[half + i + 4], 0x88);
            y[half + i + 4] = _mm512_shuffle_i32x4(x[half + i], x[half + i + 4], 0xdd);
        }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        v[i] = (mn__words)_mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        v[i + 8] = (mn__words)_mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
    }
}
#else
/* Lane j of the result is lane index[j] of a and b, end to end. */
static inline __attribute__((always_inline)) mn__words mn__words_shuffle(mn__words a, mn__words b,
                                                                         mn__words index)
{
#if defined(__clang__) /* shuffles by constants alone, which it finds in this loop */
    mn__words out = a;
    for (int j = 0; j < MN__LANES; j++)
        out[j] = index[j] < MN__LANES ? a[index[j]] : b[index[j] - MN__LANES];
    return out;
#else
    return __builtin_shuffle(a, b, index);
#endif
}

/* One stage of a transpose: in every square of 2d x 2d, the quarters away from
 * the diagonal change places. */
static inline __attribute__((always_inline)) void mn__words_swap(mn__words v[MN__LANES],
                                                                 const uint32_t d)
{
#if MN__LANES == 8
    const mn__words lane = {0, 1, 2, 3, 4, 5, 6, 7};
#else
    const mn__words lane = {0, 1, 2, 3};
#endif
    const mn__words other = (mn__words)((lane & d) != 0) & (MN__LANES - d);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < MN__LANES; i++)
        if (!(i & d)) {
            mn__words a = v[i], b = v[i + d];
            v[i] = mn__words_shuffle(a, b, lane + other);
            v[i + d] = mn__words_shuffle(a, b, lane + d + other);
        }
}

/* v[i][j] becomes v[j][i]. */
static inline __attribute__((always_inline)) void mn__words_transpose(mn__words v[MN__LANES])
{
#if MN__LANES > 4
    mn__words_swap(v, 4);
#endif
    mn__words_swap(v, 2);
    mn__words_swap(v, 1);
}
#endif

#endif
