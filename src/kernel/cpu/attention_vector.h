/* Vectors of the level's natural width, on the compilers' vector extension:
 * what loops need that a compiler does not find by itself. */
#ifndef MN__KERNEL_CPU_ATTENTION_VECTOR_H
#define MN__KERNEL_CPU_ATTENTION_VECTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(LANES * sizeof(int32_t))));

static inline vec vec_load(const float *from)
{
    vec x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void vec_store(float *to, vec x)
{
    memcpy(to, &x, sizeof x);
}

static inline vec vec_set(float x)
{
    return x - (vec){0};
}

static inline vec vec_select(ivec mask, vec yes, vec no)
{
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

/* Where a > b the one, else the other; b where one is NaN. */
static inline vec vec_max(vec a, vec b)
{
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX__)
    return _mm256_max_ps(a, b);
#elif defined(__SSE2__)
    return _mm_max_ps(a, b);
#else
    return vec_select(a > b, a, b);
#endif
}

/* Whether a lane of a is larger than b's. */
static inline bool vec_any_above(vec a, vec b)
{
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
#elif defined(__AVX__)
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
#elif defined(__SSE2__)
    return _mm_movemask_ps(_mm_cmpgt_ps(a, b)) != 0;
#else
    ivec above = a > b;
    int32_t any = 0;
    for (int i = 0; i < LANES; i++)
        any |= above[i];
    return any != 0;
#endif
}

static inline float vec_sum(vec x)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}

/* The vectors of a and b in turn: a[0], b[0], a[1], ...; low: of their lower halves. */
static inline vec vec_zip(vec a, vec b, const bool low)
{
#if defined(__AVX512F__)
    return low ? __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                         23)
               : __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                         15, 31);
#elif defined(__AVX__)
    return low ? __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
               : __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return low ? __builtin_shufflevector(a, b, 0, 4, 1, 5)
               : __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

/* Rows and lanes change places: zipping row i with row i + LANES / 2, for all i, rotates
 * the bits of (row, lane) by one; log2 LANES times do it. */
static inline void vec_turn(vec x[LANES])
{
    _Pragma("GCC unroll 4") for (int step = 1; step < LANES; step *= 2)
    {
        vec y[LANES];
        _Pragma("GCC unroll 8") for (int i = 0; i < LANES / 2; i++)
        {
            y[2 * i] = vec_zip(x[i], x[i + LANES / 2], true);
            y[2 * i + 1] = vec_zip(x[i], x[i + LANES / 2], false);
        }
        _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++) x[i] = y[i];
    }
}

static inline float vec_largest(vec x)
{
    float largest = x[0];
    for (int i = 1; i < LANES; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/* 2^f for f in [0, 1) (AVX-512), else in [-1/2, 1/2]: minimax polynomials (Remez) of
 * degree 5, relative error 7.5e-8, and, `coarse`, 3: 7.5e-5, a thirtieth of bf16's
 * rounding. */
static inline vec vec_exp2_fraction(vec f, const bool coarse)
{
#if defined(__AVX512F__)
    if (coarse) {
        vec y = f * 7.802452264e-02f + 2.260671554e-01f;
        y = y * f + 6.958335405e-01f;
        return y * f + 9.999252186e-01f;
    }
    vec y = f * 1.877576676e-03f + 8.989340089e-03f;
    y = y * f + 5.582631806e-02f;
    y = y * f + 2.401536170e-01f;
    y = y * f + 6.931530732e-01f;
    return y * f + 9.999999251e-01f;
#else
    if (coarse) {
        vec y = f * 5.517166906e-02f + 2.426111222e-01f;
        y = y * f + 6.932609855e-01f;
        return y * f + 9.999280735e-01f;
    }
    vec y = f * 1.327647200e-03f + 9.675541334e-03f;
    y = y * f + 5.550713273e-02f;
    y = y * f + 2.402211972e-01f;
    y = y * f + 6.931469671e-01f;
    return y * f + 1.000000072e+00f;
#endif
}

/* 2^x for x < 127, 0 below -126 (AVX-512: denormals, then 0), NaN for NaN. */
static inline vec vec_exp2(vec x, const bool coarse)
{
#if defined(__AVX512F__)
    /* vreduceps gives f = x - floor(x), vscalefps multiplies by 2^floor(x). */
    vec f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    return _mm512_scalef_ps(vec_exp2_fraction(f, coarse), x);
#else
    /* Adding 1.5 * 2^23 rounds to an integer, in the low bits; + 127 makes it an exponent. */
    const float magic = 12582912.0f + 127.0f;
    vec shifted = x + magic;
    vec y = vec_exp2_fraction(x - (shifted - magic), coarse);
    y *= (vec)((ivec)shifted << 23);
    return vec_select(x < vec_set(-126.0f), vec_set(0.0f), y);
#endif
}

#endif
