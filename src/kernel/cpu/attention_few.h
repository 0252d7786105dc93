/* Products of a few queries with a block of keys or values, rows of one head as they lie in
 * memory. Rows are turned in registers once for all queries that read them: what is then
 * multiplied are words of 32 bits, a float or, on levels with such products, a pair of bf16
 * with the sums in float.
 *
 * Widths are multiples of 32 elements. */
#ifndef MN__KERNEL_CPU_ATTENTION_FEW_H
#define MN__KERNEL_CPU_ATTENTION_FEW_H

#include <stdbool.h>

#include "kernel/cpu/attention.h"
#include "kernel/cpu/vector.h"

enum { QUERIES = MN__LANES == 16 ? 8 : 4 }; /* whose sums lie in registers */

/* sum + x * word, lane by lane; of pairs, both products. */
static inline __attribute__((always_inline)) mn__lanes
few_product(const bool pairs, const void *word, mn__words x, mn__lanes sum)
{
    uint32_t bits;
    memcpy(&bits, word, sizeof bits);
    mn__words all = bits - (mn__words){0};
#if defined(__AVX512BF16__)
    if (pairs)
        return (mn__lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)all, (__m512bh)x);
#endif
    (void)pairs;
    return mn__lanes_multiply_add((mn__lanes)all, (mn__lanes)x, sum);
}

/* Queries, keys, values or weights: row r starts at data + r * row bytes. */
typedef struct few_rows {
    const char *data;
    int64_t row;
} few_rows;

/* MN__LANES words of as many keys, from byte `at` on, turned. As many bytes are asked for
 * `ahead`. */
static inline __attribute__((always_inline)) void few_turned(few_rows keys, const char *ahead,
                                                             int64_t at, mn__words x[MN__LANES])
{
    enum { CHUNK = sizeof(mn__words) };
#pragma GCC unroll 4
    for (int k = 0; k < MN__LANES; k += 4) {
        const char *four = keys.data + k * keys.row + at;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            x[k + i] = *(const mn__words *)(four + i * keys.row);
            __builtin_prefetch(ahead + at * MN__LANES + (k + i) * CHUNK);
        }
    }
    mn__words_transpose(x);
}

static inline __attribute__((always_inline)) void few_scores_of(const bool pairs, const int queries,
                                                                few_rows query, few_rows keys,
                                                                const char *ahead, int64_t bytes,
                                                                float *scores, int64_t scores_row)
{
    enum { WORD = sizeof(uint32_t) };
    mn__lanes sum[QUERIES];
    for (int q = 0; q < queries; q++)
        sum[q] = *(const mn__lanes *)(scores + q * scores_row);
    for (int64_t at = 0; at < bytes; at += MN__LANES * WORD) {
        mn__words x[MN__LANES];
        few_turned(keys, ahead, at, x);
#pragma GCC unroll 16
        for (int w = 0; w < MN__LANES; w++)
#pragma GCC unroll 8
            for (int q = 0; q < queries; q++)
                sum[q] =
                    few_product(pairs, query.data + q * query.row + at + w * WORD, x[w], sum[q]);
    }
    for (int q = 0; q < queries; q++)
        *(mn__lanes *)(scores + q * scores_row) = sum[q];
}

/* f(pairs, least of queries and QUERIES, ...), both known when compiled. */
#define FEW_CALL(f, n, ...) \
    (HAVE_BF16_TILES && pairs ? f(true, n, __VA_ARGS__) : f(false, n, __VA_ARGS__))
#if defined(MN__CHECKED) /* one copy: each access of each is checked, which takes minutes to \
                            compile */
#define FEW_SWITCH(f, ...) FEW_CALL(f, queries < QUERIES ? (int)queries : QUERIES, __VA_ARGS__)
#else
#define FEW_CASE(f, n, ...)          \
    case n:                          \
        FEW_CALL(f, n, __VA_ARGS__); \
        break
#if MN__LANES == 16
#define FEW_CASES(f, ...)        \
    FEW_CASE(f, 4, __VA_ARGS__); \
    FEW_CASE(f, 5, __VA_ARGS__); \
    FEW_CASE(f, 6, __VA_ARGS__); \
    FEW_CASE(f, 7, __VA_ARGS__)
#else
#define FEW_CASES(f, ...)
#endif
#define FEW_SWITCH(f, ...)                 \
    switch (queries) {                     \
        FEW_CASE(f, 1, __VA_ARGS__);       \
        FEW_CASE(f, 2, __VA_ARGS__);       \
        FEW_CASE(f, 3, __VA_ARGS__);       \
        FEW_CASES(f, __VA_ARGS__);         \
    default:                               \
        FEW_CALL(f, QUERIES, __VA_ARGS__); \
    }
#endif

/* scores[q][k] += query q . key k, for MN__LANES keys and rows of `bytes`; as many bytes are
 * asked for ahead, in the order in which they lie: memory gives that twice as fast as rows that
 * are apart. */
static inline void few_scores(bool pairs, int64_t queries, few_rows query, few_rows keys,
                              const char *ahead, int64_t bytes, float *scores, int64_t scores_row)
{
    for (; queries > 0; queries -= QUERIES) {
        FEW_SWITCH(few_scores_of, query, keys, ahead, bytes, scores, scores_row);
        query.data += QUERIES * query.row;
        scores += QUERIES * scores_row;
    }
}

/* Elements d.. of value k as two vectors of words; of pairs, with those of value k + 1. */
static inline __attribute__((always_inline)) void few_values(const bool pairs, few_rows values,
                                                             int64_t k, int64_t d, mn__words x[2])
{
    const char *at = values.data + k * values.row + d * (pairs ? 2 : 4);
#if defined(__AVX512BW__)
    if (pairs) {
        const mn__words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const mn__words turns = lane + ((lane + 32) << 16);
        __m512i first = _mm512_loadu_si512(at), second = _mm512_loadu_si512(at + values.row);
        x[0] = (mn__words)_mm512_permutex2var_epi16(first, (__m512i)turns, second);
        x[1] = (mn__words)_mm512_permutex2var_epi16(first, (__m512i)(turns + 0x00100010), second);
        return;
    }
#endif
    (void)pairs;
    x[0] = *(const mn__words *)at;
    x[1] = *(const mn__words *)(at + MN__LANES * 4);
}

static inline __attribute__((always_inline)) void
few_sums_of(const bool pairs, const int queries, few_rows p, few_rows values, const char *ahead,
            int64_t count, int64_t width, float *out, int64_t out_row)
{
    for (int64_t d = 0; d < width; d += 2 * MN__LANES) {
        mn__lanes sum[QUERIES][2];
        for (int q = 0; q < queries; q++)
            for (int half = 0; half < 2; half++)
                sum[q][half] = *(const mn__lanes *)(out + q * out_row + d + half * MN__LANES);
        for (int64_t k = 0; k < count; k += pairs ? 2 : 1) {
            mn__words x[2];
            few_values(pairs, values, k, d, x);
            for (int half = 0; half < 2; half++, ahead += sizeof *x)
                __builtin_prefetch(ahead);
#pragma GCC unroll 8
            for (int q = 0; q < queries; q++)
                for (int half = 0; half < 2; half++)
                    sum[q][half] = few_product(pairs, p.data + q * p.row + k * (pairs ? 2 : 4),
                                               x[half], sum[q][half]);
        }
        for (int q = 0; q < queries; q++)
            for (int half = 0; half < 2; half++)
                *(mn__lanes *)(out + q * out_row + d + half * MN__LANES) = sum[q][half];
    }
}

/* out[q] += sum_k p[q][k] value k, for `count` values (pairs: an even number) of `width`; as
 * many bytes are asked for ahead. */
static inline void few_sums(bool pairs, int64_t queries, few_rows p, few_rows values,
                            const char *ahead, int64_t count, int64_t width, float *out,
                            int64_t out_row)
{
    for (; queries > 0; queries -= QUERIES) {
        FEW_SWITCH(few_sums_of, p, values, ahead, count, width, out, out_row);
        p.data += QUERIES * p.row;
        out += QUERIES * out_row;
    }
}

#endif
