/* Products of a few rows with a matrix that is not packed: every element of b is read where it
 * lies, once from memory. Generation, a token at a time, is made of them. */
#include <string.h>

#include "kernel/cpu/chunk.h"
#include "kernel/cpu/product.h"

enum {
    ROWS = 8, /* whose sums stay in registers */
    MOST = 4 * ROWS,
    COLUMNS = 64,
    UNIT = 64
};

bool MN__KERNEL(is_thin)(const mn__matmul *call)
{
    bool dots = call->b.row == 1 && call->b.column != 1, along = dots || call->b.column == 1;
    return call->m <= (dots ? MOST : MN__FEW_ROWS) && !call->packed && along &&
           call->batch[0] * call->batch[1] == 1;
}

/* n elements of any float dtype: where they lie, or in the buffer. */
static const float *floats_of(const void *data, mn__dtype dtype, int64_t offset, int64_t n,
                              float *buffer)
{
    mn__matrix line = {(void *)(uintptr_t)data, dtype, 1, offset + n, 0};
    return mn__chunk_read(line, (mn__chunk){0, offset, n}, buffer);
}

/* ---- b's columns lie along k: dot products ------------------------------------------------ */

/* n < 2 * MN__LANES floats, then zeros. */
static inline void load_rest(const void *from, mn__dtype dtype, int64_t n, float *to)
{
    memset(to, 0, 2 * MN__LANES * sizeof *to);
    if (dtype == MN__F32)
        memcpy(to, from, (size_t)n * sizeof *to);
    else
        mn__floats_widen(to, from, n);
}

static inline mn__lanes load_lanes(const void *from, mn__dtype dtype)
{
    return dtype == MN__F32 ? *(const mn__lanes *)from
                            : (mn__lanes)(mn__words_of_halves(from) << 16);
}

static inline float sum_lanes(mn__lanes x)
{
    float sum = 0;
#if defined(__AVX512F__)
    sum = _mm512_reduce_add_ps((__m512)x);
#else
    for (int i = 0; i < MN__LANES; i++)
        sum += x[i];
#endif
    return sum;
}

/* sums[r * COLUMNS] of `rows` rows of a, floats padded with zeros, with k elements of b. */
static inline __attribute__((always_inline)) void dot_floats(const int rows, const float *a,
                                                             int64_t stride, const void *b,
                                                             const mn__dtype dtype, int64_t k,
                                                             float *sums)
{
    const int bytes = dtype == MN__F32 ? 4 : 2;
    mn__lanes sum[ROWS][2] = {0};
    int64_t l = 0;
    for (; l + 2 * MN__LANES <= k; l += 2 * MN__LANES)
        for (int half = 0; half < 2; half++) {
            const int64_t at = l + half * MN__LANES;
            mn__lanes x = load_lanes((const char *)b + at * bytes, dtype);
            for (int r = 0; r < rows; r++)
                sum[r][half] = mn__lanes_multiply_add(*(const mn__lanes *)(a + r * stride + at), x,
                                                      sum[r][half]);
        }
    if (l < k) {
        float rest[2 * MN__LANES];
        load_rest((const char *)b + l * bytes, dtype, k - l, rest);
        for (int half = 0; half < 2; half++)
            for (int r = 0; r < rows; r++)
                sum[r][half] = mn__lanes_multiply_add(
                    *(const mn__lanes *)(a + r * stride + l + half * MN__LANES),
                    *(const mn__lanes *)(rest + half * MN__LANES), sum[r][half]);
    }
    for (int r = 0; r < rows; r++)
        sums[r * COLUMNS] = sum_lanes(sum[r][0] + sum[r][1]);
}

#if defined(__AVX512BF16__)
/* The same of bf16 with bf16, in pairs. */
static inline __attribute__((always_inline)) void dot_pairs(const int rows, const mn__bf16 *a,
                                                            int64_t stride, const mn__bf16 *b,
                                                            int64_t k, float *sums)
{
    enum { PAIRS = 2 * MN__LANES };
    __m512 sum[ROWS][2] = {0};
    int64_t l = 0;
    for (; l + 2 * PAIRS <= k; l += 2 * PAIRS)
        for (int half = 0; half < 2; half++) {
            __m512bh x = (__m512bh)_mm512_loadu_si512(b + l + half * PAIRS);
            for (int r = 0; r < rows; r++)
                sum[r][half] = _mm512_dpbf16_ps(
                    sum[r][half], (__m512bh)_mm512_loadu_si512(a + r * stride + l + half * PAIRS),
                    x);
        }
    for (; l < k; l += PAIRS) {
        const __mmask32 there = k - l < PAIRS ? (1U << (k - l)) - 1 : UINT32_MAX;
        __m512bh x = (__m512bh)_mm512_maskz_loadu_epi16(there, b + l);
        for (int r = 0; r < rows; r++)
            sum[r][0] =
                _mm512_dpbf16_ps(sum[r][0], (__m512bh)_mm512_loadu_si512(a + r * stride + l), x);
    }
    for (int r = 0; r < rows; r++)
        sums[r * COLUMNS] = _mm512_reduce_add_ps(sum[r][0] + sum[r][1]);
}
#endif

/* Which rows of a dot products take: bf16, or floats. */
static mn__dtype row_dtype(const mn__matmul *call)
{
#if defined(__AVX512BF16__)
    if (call->a.dtype == MN__BF16 && call->b.dtype == MN__BF16 && call->b.column != 1)
        return MN__BF16;
#else
    (void)call;
#endif
    return MN__F32;
}

static inline __attribute__((always_inline)) void dot_column(const int rows, const mn__matmul *call,
                                                             const void *a, int64_t stride,
                                                             const void *b, float *sums)
{
#if defined(__AVX512BF16__)
    if (row_dtype(call) == MN__BF16) {
        dot_pairs(rows, a, stride, b, call->k, sums);
        return;
    }
#endif
    if (call->b.dtype == MN__F32)
        dot_floats(rows, a, stride, b, MN__F32, call->k, sums);
    else
        dot_floats(rows, a, stride, b, MN__BF16, call->k, sums);
}

/* sums [rows, n] of `rows` rows, at most ROWS, with the columns from j on. */
static void dot_columns(const mn__matmul *call, int64_t rows, const void *a, int64_t stride,
                        float *sums, int64_t j, int64_t n)
{
    int64_t bytes = mn__dtype_bytes(call->b.dtype);
    const char *b = (const char *)call->b.data + j * call->b.column * bytes;
    for (int64_t column = 0; column < n; column++, b += call->b.column * bytes)
        if (rows == 1)
            dot_column(1, call, a, stride, b, sums + column);
        else if (rows == 2)
            dot_column(2, call, a, stride, b, sums + column);
        else if (rows <= 4)
            dot_column(4, call, a, stride, b, sums + column);
        else
            dot_column(ROWS, call, a, stride, b, sums + column);
}

/* sums [m, n]: the columns, read once from memory, come from the cache for all rows but the
 * first. */
static void dot_all(const mn__matmul *call, const void *a, mn__dtype dtype, int64_t stride,
                    float *sums, int64_t j, int64_t n)
{
    for (int64_t i = 0; i < call->m; i += ROWS) {
        int64_t rows = call->m - i < ROWS ? call->m - i : ROWS;
        dot_columns(call, rows, (const char *)a + i * stride * mn__dtype_bytes(dtype), stride,
                    sums + i * COLUMNS, j, n);
    }
}

/* ---- b's rows lie along n ------------------------------------------------------------------ */

/* sums [m, n] of b's rows. */
static void add_rows(const mn__matmul *call, const float *a, int64_t stride, float *sums, int64_t j,
                     int64_t n)
{
    float buffer[COLUMNS];
    memset(sums, 0, (size_t)(call->m * COLUMNS) * sizeof *sums);
    for (int64_t l = 0; l < call->k; l++) {
        const float *b = floats_of(call->b.data, call->b.dtype, l * call->b.row + j, n, buffer);
        for (int64_t i = 0; i < call->m; i++) {
            float x = a[i * stride + l], *sum = sums + i * COLUMNS;
#pragma omp simd
            for (int64_t c = 0; c < n; c++)
                sum[c] += x * b[c];
        }
    }
}

/* ---- A product ------------------------------------------------------------------------------ */

void *MN__KERNEL(few_rows)(mn__queue *queue, const mn__matmul *call, mn__dtype dtype,
                           int64_t stride)
{
    int64_t bytes = mn__dtype_bytes(dtype);
    int64_t count = call->m > 4 ? (call->m + ROWS - 1) / ROWS * ROWS : call->m > 2 ? 4 : call->m;
    char *rows = mn__queue_scratch(queue, count * stride * bytes);
    if (!rows)
        return NULL;
    for (int64_t i = call->m; i < count; i++)
        memset(rows + i * stride * bytes, 0, (size_t)(stride * bytes));
    for (int64_t i = 0; i < call->m; i++) {
        const char *from =
            (const char *)call->a.data + i * call->a.row * mn__dtype_bytes(call->a.dtype);
        char *to = rows + i * stride * bytes;
        memset(to + call->k * bytes, 0, (size_t)((stride - call->k) * bytes));
        if (call->a.column == 1 && call->a.dtype == dtype)
            memcpy(to, from, (size_t)(call->k * bytes));
        else if (call->a.column == 1) /* bf16, to be floats */
            mn__floats_widen((float *)(void *)to, (const mn__bf16 *)from, call->k);
        else
            for (int64_t l = 0; l < call->k; l++) {
                int64_t at = l * call->a.column;
                if (call->a.dtype == dtype)
                    memcpy(to + l * bytes, from + at * bytes, (size_t)bytes);
                else
                    ((float *)(void *)to)[l] = mn__bf16_to_f32(((const mn__bf16 *)from)[at]);
            }
    }
    return rows;
}

void MN__KERNEL(matmul_thin)(mn__queue *queue, const mn__matmul *call)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    int64_t stride = (call->k + 2 * UNIT - 1) / UNIT * UNIT; /* what a last vector may read */
    const void *a = MN__KERNEL(few_rows)(queue, call, row_dtype(call), stride);
    int64_t bytes = mn__dtype_bytes(call->c_dtype);
#pragma omp parallel for schedule(dynamic) if (call->n * call->k >= MN__SMALL)
    for (int64_t j = 0; j < (a ? call->n : 0); j += COLUMNS) {
        int64_t n = call->n - j < COLUMNS ? call->n - j : COLUMNS;
        float sums[MOST * COLUMNS];
        if (call->b.column == 1)
            add_rows(call, a, stride, sums, j, n);
        else
            dot_all(call, a, row_dtype(call), stride, sums, j, n);
        for (int64_t i = 0; i < call->m; i++)
            MN__KERNEL(finish_product)
        (call, sums + i * COLUMNS, (char *)call->c + (i * call->c_row + j) * bytes, j, n);
    }
    mn__arena_release(&queue->scratch, mark);
}
