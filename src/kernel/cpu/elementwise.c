/* Copies, sums and element-wise arithmetic; see plain_elementwise.c. */
#include <omp.h>
#include <string.h>

#include "base/philox.h"
#include "kernel/cpu/chunk.h"

static void convert(mn__queue *queue, mn__matrix out, mn__matrix in)
{
    (void)queue;
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        int64_t to = at.row * out.stride + at.column, from = at.row * in.stride + at.column;
        float buffer[MN__CHUNK];
        if (out.dtype == in.dtype) {
            int64_t bytes = mn__dtype_bytes(out.dtype);
            memmove((char *)out.data + to * bytes, (const char *)in.data + from * bytes,
                    (size_t)(at.n * bytes));
        } else if (out.dtype == MN__F32) {
            mn__floats_widen((float *)out.data + to, (const mn__bf16 *)in.data + from, at.n);
        } else {
            mn__chunk_write(out, at, mn__chunk_read(in, at, buffer));
        }
    }
}

static void fill(mn__queue *queue, mn__matrix out, float value)
{
    (void)queue;
    for (int64_t r = 0; out.dtype == MN__U8 && r < out.rows; r++)
        memset((char *)out.data + r * out.stride, 0, (size_t)out.columns);
    if (out.dtype == MN__U8)
        return;
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        float buffer[MN__CHUNK], *to = mn__chunk_target(out, at, buffer);
#pragma omp simd
        for (int64_t i = 0; i < at.n; i++)
            to[i] = value;
        mn__chunk_write(out, at, to);
    }
}

static void axpby(mn__queue *queue, mn__matrix out, float alpha, mn__matrix x, float beta)
{
    (void)queue;
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        float buffer[MN__CHUNK], old[MN__CHUNK], *to = mn__chunk_target(out, at, old);
        const float *from = mn__chunk_read(x, at, buffer);
        if (beta == 0) {
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++)
                to[i] = alpha * from[i];
        } else {
            mn__chunk_read(out, at, old);
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++)
                to[i] = alpha * from[i] + beta * to[i];
        }
        mn__chunk_write(out, at, to);
    }
}

static inline void combine(mn__binary operation, float *to, const float *a, const float *b,
                           int64_t n)
{
    switch (operation) {
    case MN__ADD:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] + b[i];
        break;
    case MN__SUBTRACT:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] - b[i];
        break;
    case MN__MULTIPLY:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] * b[i];
        break;
    case MN__DIVIDE:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] / b[i];
        break;
    case MN__MAXIMUM:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] > b[i] || a[i] != a[i] ? a[i] : b[i];
        break;
    case MN__IS_FIRST:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] > b[i] || a[i] != a[i] ? 1.0F : 0.0F;
        break;
    case MN__WHERE:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = b[i] != 0 ? a[i] : 0.0F;
        break;
    case MN__WHERE_NOT:
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = b[i] != 0 ? 0.0F : a[i];
        break;
    }
}

static void binary(mn__queue *queue, mn__binary operation, mn__matrix out, mn__matrix a,
                   mn__matrix b)
{
    (void)queue;
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        float left[MN__CHUNK], right[MN__CHUNK], new[MN__CHUNK];
        float *to = mn__chunk_target(out, at, new);
        combine(operation, to, mn__chunk_read(a, at, left), mn__chunk_read(b, at, right), at.n);
        mn__chunk_write(out, at, to);
    }
}

static void scale_rows(mn__queue *queue, mn__matrix out, const float *scale, mn__matrix in,
                       bool accumulate)
{
    (void)queue;
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        float buffer[MN__CHUNK], old[MN__CHUNK], *to = mn__chunk_target(out, at, old);
        const float *from = mn__chunk_read(in, at, buffer);
        float factor = scale[at.row];
        if (accumulate) {
            mn__chunk_read(out, at, old);
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++)
                to[i] += factor * from[i];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++)
                to[i] = factor * from[i];
        }
        mn__chunk_write(out, at, to);
    }
}

/* sum[i] += the sum over `rows` rows, from r on, of column + i. */
static inline __attribute__((always_inline)) void
add_rows(float *restrict sum, mn__matrix in, int64_t r, int64_t column, int64_t n, const int rows)
{
    const float *f32 = (const float *)in.data + r * in.stride + column;
    const mn__bf16 *bf16 = (const mn__bf16 *)in.data + r * in.stride + column;
    if (in.dtype == MN__F32)
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float total = sum[i];
            for (int k = 0; k < rows; k++)
                total += f32[k * in.stride + i];
            sum[i] = total;
        }
    else
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float total = sum[i];
            for (int k = 0; k < rows; k++)
                total += mn__bf16_to_f32(bf16[k * in.stride + i]);
            sum[i] = total;
        }
}

/* Columns are shared out, so that the order of a sum is that of the rows; it
 * goes over RUN rows at a time, which keeps its error small. */
static void sum_columns(float *out, mn__matrix in, int64_t column, int64_t n)
{
    enum { RUN = 64, FEW = 4 };
    float sum[MN__CHUNK];
    for (int64_t start = 0; start < in.rows; start += RUN) {
        int64_t end = start + RUN < in.rows ? start + RUN : in.rows, r = start;
        for (int64_t i = 0; i < n; i++)
            sum[i] = 0;
        for (; r + FEW <= end; r += FEW)
            add_rows(sum, in, r, column, n, FEW);
        for (; r < end; r++)
            add_rows(sum, in, r, column, n, 1);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            out[column + i] += sum[i];
    }
}

static void sum_rows(mn__queue *queue, float *out, mn__matrix in)
{
    enum { WIDTH = 64 }; /* columns to a piece: whole cache lines */
    (void)queue;
#pragma omp parallel if (mn__is_large(in))
    {
        int64_t pieces = (in.columns + WIDTH - 1) / WIDTH;
        int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
        int64_t first = pieces * thread / team * WIDTH, end = pieces * (thread + 1) / team * WIDTH;
        if (end > in.columns)
            end = in.columns;
        for (int64_t column = first; column < end; column += MN__CHUNK)
            sum_columns(out, in, column, end - column < MN__CHUNK ? end - column : MN__CHUNK);
    }
}

static void dot_rows(mn__queue *queue, float *out, mn__matrix a, mn__matrix b)
{
    (void)queue;
    int64_t per_row = mn__chunks_per_row(a);
#pragma omp parallel for schedule(static) if (mn__is_large(a))
    for (int64_t r = 0; r < a.rows; r++) {
        float left[MN__CHUNK], right[MN__CHUNK], total = 0;
        for (int64_t chunk = 0; chunk < per_row; chunk++) {
            mn__chunk at = mn__chunk_at(a, r * per_row + chunk);
            const float *x = mn__chunk_read(a, at, left), *y = mn__chunk_read(b, at, right);
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < at.n; i++)
                sum += x[i] * y[i];
            total += sum;
        }
        out[r] = total;
    }
}

/* ---- Dropout ------------------------------------------------------------------------ */

/* mn__random_block for consecutive counters. */
static void random_words(mn__random_key key, uint64_t first, int64_t blocks, uint32_t *words)
{
#pragma omp simd
    for (int64_t b = 0; b < blocks; b++)
        mn__philox(key, first + (uint64_t)b, words + 4 * b, 1);
}

static void dropout(mn__queue *queue, mn__matrix out, mn__matrix in, float p, mn__random_key key)
{
    (void)queue;
    const float scale = 1.0F / (1.0F - p);
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        float buffer[MN__CHUNK], new[MN__CHUNK], *to = mn__chunk_target(out, at, new);
        const float *from = mn__chunk_read(in, at, buffer);
        uint32_t words[MN__CHUNK + 8];
        int64_t element = at.row * out.columns + at.column, skip = element % 4;
        random_words(key, (uint64_t)element / 4, (skip + at.n + 3) / 4, words);
#pragma omp simd
        for (int64_t i = 0; i < at.n; i++) {
            float uniform = (float)(int32_t)(words[skip + i] >> 8) * 0x1p-24F;
            to[i] = uniform >= p ? from[i] * scale : 0.0F;
        }
        mn__chunk_write(out, at, to);
    }
}

void MN__KERNEL(fill_elementwise)(mn__kernels *kernels)
{
    kernels->convert = convert;
    kernels->fill = fill;
    kernels->axpby = axpby;
    kernels->binary = binary;
    kernels->scale_rows = scale_rows;
    kernels->sum_rows = sum_rows;
    kernels->dot_rows = dot_rows;
    kernels->dropout = dropout;
}
