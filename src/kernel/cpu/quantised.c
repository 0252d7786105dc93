/* Weights of 8 and 4 bits, and of f16: kept as slivers of columns, and multiplied.
 *
 * A sliver holds MN__TILE_COLUMNS columns, 32 rows of k (a block of each column) after
 * the other: the columns' scales, and then of 8 bits [32][columns], of 4 bits
 * [16][columns], the rows 2 i and 2 i + 1 in the low and the high half of a byte. Of f16
 * there are no scales, and [32][columns].
 *
 * A few rows are multiplied straight from there, as floats: what counts is that the
 * bytes arrive as fast as memory gives them. For more rows, slivers of floats or of bf16
 * pairs are made, which the tiles of other products read (matmul.c). */
#include <string.h>

#include "base/memory.h"
#include "kernel/blocks.h"
#include "kernel/cpu/product.h"

enum { COLUMNS = MN__TILE_COLUMNS, ROWS = MN__FEW_ROWS, PAIRS = MN__BLOCK / 2 };

/* ---- Slivers ------------------------------------------------------------------------------ */

static int64_t blocks_of(int64_t k)
{
    return (k + MN__BLOCK - 1) / MN__BLOCK;
}

/* Bytes of the blocks of a sliver's columns that share their rows. */
static int64_t band_bytes(mn__form form)
{
    if (form == MN__FORM_F16)
        return COLUMNS * MN__BLOCK * (int64_t)sizeof(mn__f16);
    return COLUMNS * ((int64_t)sizeof(mn__f16) + (form == MN__FORM_INT8 ? MN__BLOCK : PAIRS));
}

int64_t MN__KERNEL(quantised_bytes)(int64_t k, int64_t n, mn__form form)
{
    int64_t slivers = (n + COLUMNS - 1) / COLUMNS;
    return mn__size_product(mn__size_product(slivers, blocks_of(k)), band_bytes(form));
}

static unsigned char *band_at(const mn__packed *packed, int64_t sliver, int64_t block)
{
    int64_t at = sliver * blocks_of(packed->k) + block;
    return (unsigned char *)(uintptr_t)packed->data + at * band_bytes(packed->form);
}

static void place_int8(unsigned char *band, int64_t column, const mn__block_int8 *block)
{
    memcpy(band + column * (int64_t)sizeof block->scale, &block->scale, sizeof block->scale);
    unsigned char *q = band + COLUMNS * sizeof block->scale + column;
    for (int64_t i = 0; i < MN__BLOCK; i++)
        q[i * COLUMNS] = (unsigned char)block->q[i];
}

static void place_int4(unsigned char *band, int64_t column, const mn__block_int4 *block)
{
    memcpy(band + column * (int64_t)sizeof block->scale, &block->scale, sizeof block->scale);
    unsigned char *q = band + COLUMNS * sizeof block->scale + column;
    for (int i = 0; i < PAIRS; i++) {
        int even = mn__block_int4_at(block, 2 * i) + 8,
            odd = mn__block_int4_at(block, 2 * i + 1) + 8;
        q[i * COLUMNS] = (unsigned char)(even | odd << 4);
    }
}

static void place_f16(unsigned char *band, int64_t column, const float x[MN__BLOCK])
{
    mn__f16 *to = (mn__f16 *)(void *)band + column;
    for (int64_t i = 0; i < MN__BLOCK; i++)
        to[i * COLUMNS] = mn__f32_to_f16(x[i]);
}

static int64_t columns_of(const mn__packed *packed, int64_t sliver)
{
    int64_t left = packed->n - sliver * COLUMNS;
    return left < COLUMNS ? left : COLUMNS;
}

/* Element (l, j) of b, F32 or BF16. */
static float element_of(const mn__operand *b, int64_t l, int64_t j)
{
    int64_t at = l * b->row + j * b->column;
    return b->dtype == MN__F32 ? ((const float *)b->data)[at]
                               : mn__bf16_to_f32(((const mn__bf16 *)b->data)[at]);
}

void MN__KERNEL(quantise_sliver)(mn__packed *packed, int64_t sliver, mn__operand b)
{
    for (int64_t block = 0; block < blocks_of(packed->k); block++) {
        unsigned char *band = band_at(packed, sliver, block);
        memset(band, 0, (size_t)band_bytes(packed->form));
        for (int64_t c = 0; c < columns_of(packed, sliver); c++) {
            float x[MN__BLOCK] = {0};
            for (int64_t i = 0, l = block * MN__BLOCK; i < MN__BLOCK && l + i < packed->k; i++)
                x[i] = element_of(&b, l + i, c);
            if (packed->form == MN__FORM_F16) {
                place_f16(band, c, x);
            } else if (packed->form == MN__FORM_INT8) {
                const mn__block_int8 made = mn__block_int8_of(x);
                place_int8(band, c, &made);
            } else {
                const mn__block_int4 made = mn__block_int4_of(x);
                place_int4(band, c, &made);
            }
        }
    }
}

void MN__KERNEL(place_sliver)(mn__packed *packed, int64_t sliver, const void *blocks)
{
    const mn__block_int8 *int8 = blocks;
    const mn__block_int4 *int4 = blocks;
    for (int64_t block = 0; block < blocks_of(packed->k); block++) {
        unsigned char *band = band_at(packed, sliver, block);
        memset(band, 0, (size_t)band_bytes(packed->form));
        for (int64_t c = 0; c < columns_of(packed, sliver); c++) {
            int64_t at = (sliver * COLUMNS + c) * blocks_of(packed->k) + block;
            if (packed->form == MN__FORM_INT8)
                place_int8(band, c, int8 + at);
            else
                place_int4(band, c, int4 + at);
        }
    }
}

/* ---- Into floats ---------------------------------------------------------------------------- */

typedef uint8_t bytes_of_lanes __attribute__((vector_size(MN__LANES), aligned(1), may_alias));
typedef int8_t signed_bytes __attribute__((vector_size(MN__LANES), aligned(1), may_alias));
typedef int32_t integers __attribute__((vector_size(4 * MN__LANES), may_alias));

/* Denormal ones too, which a shift of bits would leave to the mode of the processor. */
static inline mn__lanes of_f16(const unsigned char *at)
{
#if defined(__AVX512F__)
    return (mn__lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at));
#elif defined(__F16C__)
    return (mn__lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
#else
    mn__lanes out;
    for (int i = 0; i < MN__LANES; i++) {
        mn__f16 x;
        memcpy(&x, at + i * (int)sizeof x, sizeof x);
        out[i] = mn__f16_to_f32(x);
    }
    return out;
#endif
}

/* gcc takes conversions of vectors of bytes apart, byte by byte: these are said to it. */
static inline integers of_signed(const unsigned char *q)
{
#if defined(__AVX512F__)
    return (integers)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)q));
#elif defined(__AVX2__)
    return (integers)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)q));
#else
    return __builtin_convertvector(*(const signed_bytes *)q, integers);
#endif
}

static inline integers of_unsigned(const unsigned char *q)
{
#if defined(__AVX512F__)
    return (integers)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)q));
#elif defined(__AVX2__)
    return (integers)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)q));
#else
    return __builtin_convertvector(*(const bytes_of_lanes *)q, integers);
#endif
}

static inline mn__lanes scales_at(const unsigned char *band, int half)
{
    return of_f16(band + half * MN__LANES * (int)sizeof(mn__f16));
}

static inline mn__lanes of_int8(const unsigned char *q)
{
    return (mn__lanes) __builtin_convertvector(of_signed(q), mn__lanes);
}

/* The two rows of a row of bytes. */
static inline void of_int4(const unsigned char *q, mn__lanes *even, mn__lanes *odd)
{
    integers both = of_unsigned(q);
#if defined(__AVX512F__)
    const __m512 values = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    *even = (mn__lanes)_mm512_permutexvar_ps((__m512i)both, values); /* by the low four bits */
    *odd = (mn__lanes)_mm512_permutexvar_ps((__m512i)(both >> 4), values);
#else
    *even = (mn__lanes) __builtin_convertvector((both & 15) - 8, mn__lanes);
    *odd = (mn__lanes) __builtin_convertvector((both >> 4) - 8, mn__lanes);
#endif
}

/* Where a band's rows begin: after the scales. */
static inline __attribute__((always_inline)) const unsigned char *rows_in(const unsigned char *band,
                                                                          const mn__form form)
{
    return form == MN__FORM_F16 ? band : band + COLUMNS * (int)sizeof(mn__f16);
}

/* Rows 2 i and 2 i + 1 of a band, half of its columns, without the scales. */
static inline __attribute__((always_inline)) void two_rows(const unsigned char *q,
                                                           const mn__form form, int i, int half,
                                                           mn__lanes *even, mn__lanes *odd)
{
    if (form == MN__FORM_F16) {
        *even = of_f16(q + 2 * (2 * i * COLUMNS + half * MN__LANES));
        *odd = of_f16(q + 2 * ((2 * i + 1) * COLUMNS + half * MN__LANES));
    } else if (form == MN__FORM_INT8) {
        *even = of_int8(q + 2 * i * COLUMNS + half * MN__LANES);
        *odd = of_int8(q + (2 * i + 1) * COLUMNS + half * MN__LANES);
    } else {
        of_int4(q + i * COLUMNS + half * MN__LANES, even, odd);
    }
}

/* ---- Slivers of floats or pairs, for tiles ------------------------------------------------------
 */

/* To nearest even; weights are no NaN. */
static inline mn__words rounded(mn__lanes x)
{
    mn__words bits = (mn__words)x;
    return bits + 0x7fff + ((bits >> 16) & 1);
}

static inline __attribute__((always_inline)) void
unpack_band(void *to, const unsigned char *band, const mn__form form, int64_t rows, bool pairs)
{
    const unsigned char *q = rows_in(band, form);
    const bool scaled = form != MN__FORM_F16;
    for (int half = 0; half < 2; half++) {
        mn__lanes scale = scaled ? scales_at(band, half) : mn__lanes_of(1), even, odd;
        for (int i = 0; 2 * i < rows; i++) {
            two_rows(q, form, i, half, &even, &odd);
            if (scaled) {
                even *= scale;
                odd *= scale;
            }
            if (pairs) {
                *(mn__words *)((uint32_t *)to + i * COLUMNS + half * MN__LANES) =
                    rounded(even) >> 16 | (rounded(odd) & 0xffff0000U);
                continue;
            }
            float *at = (float *)to + 2 * i * COLUMNS + half * MN__LANES;
            *(mn__lanes *)at = even;
            if (2 * i + 1 < rows)
                *(mn__lanes *)(at + COLUMNS) = odd;
        }
    }
}

void MN__KERNEL(unpack_sliver)(void *to, const mn__packed *packed, int64_t sliver, int64_t l,
                               int64_t depth, bool pairs)
{
    for (int64_t d = 0; d < depth; d += MN__BLOCK) {
        const unsigned char *band = band_at(packed, sliver, (l + d) / MN__BLOCK);
        int64_t rows = pairs || depth - d > MN__BLOCK ? MN__BLOCK : depth - d;
        char *at = (char *)to + d * COLUMNS * (pairs ? 2 : 4);
        if (packed->form == MN__FORM_F16)
            unpack_band(at, band, MN__FORM_F16, rows, pairs);
        else if (packed->form == MN__FORM_INT8)
            unpack_band(at, band, MN__FORM_INT8, rows, pairs);
        else
            unpack_band(at, band, MN__FORM_INT4, rows, pairs);
    }
}

/* ---- A few rows ------------------------------------------------------------------------------ */

/* sums [rows][COLUMNS] of rows of a, each `stride` floats, with a sliver. */
static inline __attribute__((always_inline)) void multiply_rows(const int rows, const mn__form form,
                                                                const float *a, int64_t stride,
                                                                const unsigned char *band,
                                                                int64_t blocks, float *sums)
{
    mn__lanes total[ROWS][2] = {0};
    for (int64_t block = 0; block < blocks; block++, a += MN__BLOCK, band += band_bytes(form)) {
        const unsigned char *q = rows_in(band, form);
        mn__lanes of_even[ROWS][2] = {0}, of_odd[ROWS][2] = {0}; /* two chains of sums for a row */
#pragma GCC unroll 4
        for (int i = 0; i < PAIRS; i++)
            for (int half = 0; half < 2; half++) {
                mn__lanes even, odd;
                two_rows(q, form, i, half, &even, &odd);
                for (int r = 0; r < rows; r++) {
                    const float *x = a + r * stride + 2 * i;
                    of_even[r][half] =
                        mn__lanes_multiply_add(mn__lanes_of(x[0]), even, of_even[r][half]);
                    of_odd[r][half] =
                        mn__lanes_multiply_add(mn__lanes_of(x[1]), odd, of_odd[r][half]);
                }
            }
        for (int half = 0; half < 2; half++) {
            mn__lanes scale = form == MN__FORM_F16 ? mn__lanes_of(1) : scales_at(band, half);
            for (int r = 0; r < rows; r++)
                total[r][half] = mn__lanes_multiply_add(of_even[r][half] + of_odd[r][half], scale,
                                                        total[r][half]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int half = 0; half < 2; half++)
            *(mn__lanes *)(sums + r * COLUMNS + half * MN__LANES) = total[r][half];
}

static inline __attribute__((always_inline)) void multiply_form(const mn__form form, int64_t m,
                                                                const float *a, int64_t stride,
                                                                const unsigned char *band,
                                                                int64_t blocks, float *sums)
{
    if (m == 1)
        multiply_rows(1, form, a, stride, band, blocks, sums);
    else if (m == 2)
        multiply_rows(2, form, a, stride, band, blocks, sums);
    else
        multiply_rows(ROWS, form, a, stride, band, blocks, sums);
}

void MN__KERNEL(multiply_quantised)(const mn__packed *packed, int64_t m, const float *a,
                                    int64_t stride, int64_t sliver, float *sums)
{
    const unsigned char *band = band_at(packed, sliver, 0);
    int64_t blocks = blocks_of(packed->k);
    if (packed->form == MN__FORM_F16)
        multiply_form(MN__FORM_F16, m, a, stride, band, blocks, sums);
    else if (packed->form == MN__FORM_INT8)
        multiply_form(MN__FORM_INT8, m, a, stride, band, blocks, sums);
    else
        multiply_form(MN__FORM_INT4, m, a, stride, band, blocks, sums);
}
