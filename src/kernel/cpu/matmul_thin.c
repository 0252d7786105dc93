/* Products of a few rows with a matrix that is not packed: every element of b
 * is read once, where it lies. Generation, a token at a time, is made of them. */
#include <string.h>

#include "kernel/cpu/chunk.h"
#include "kernel/cpu/product.h"

enum { ROWS = 4, COLUMNS = 64, DEPTH = 1024 };

bool MN__KERNEL(is_thin)(const mn__matmul *call)
{
    bool along = call->b.row == 1 || call->b.column == 1;
    return call->m <= ROWS && !call->packed && along && call->batch[0] * call->batch[1] == 1;
}

/* n elements of any float dtype: where they lie, or in the buffer. */
static const float *floats_of(const void *data, mn__dtype dtype, int64_t offset, int64_t n,
                              float *buffer)
{
    mn__matrix line = {(void *)(uintptr_t)data, dtype, 1, offset + n, 0};
    return mn__chunk_read(line, (mn__chunk){0, offset, n}, buffer);
}

/* b's columns lie along k: sums [m, n] by dot products. */
static void dot_columns(const mn__matmul *call, const float *a, float *sums, int64_t j, int64_t n)
{
    float buffer[DEPTH];
    for (int64_t column = 0; column < n; column++)
        for (int64_t l = 0; l < call->k; l += DEPTH) {
            int64_t depth = call->k - l < DEPTH ? call->k - l : DEPTH;
            const float *b = floats_of(call->b.data, call->b.dtype,
                                       (j + column) * call->b.column + l, depth, buffer);
            for (int64_t i = 0; i < call->m; i++) {
                const float *x = a + i * call->k + l;
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t d = 0; d < depth; d++)
                    sum += x[d] * b[d];
                sums[i * COLUMNS + column] += sum;
            }
        }
}

/* b's rows lie along n: sums [m, n] of b's rows. */
static void add_rows(const mn__matmul *call, const float *a, float *sums, int64_t j, int64_t n)
{
    float buffer[COLUMNS];
    for (int64_t l = 0; l < call->k; l++) {
        const float *b = floats_of(call->b.data, call->b.dtype, l * call->b.row + j, n, buffer);
        for (int64_t i = 0; i < call->m; i++) {
            float x = a[i * call->k + l], *sum = sums + i * COLUMNS;
#pragma omp simd
            for (int64_t c = 0; c < n; c++)
                sum[c] += x * b[c];
        }
    }
}

void MN__KERNEL(matmul_thin)(mn__queue *queue, const mn__matmul *call)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    float *a = mn__queue_scratch(queue, call->m * call->k * 4);
    for (int64_t i = 0; a && i < call->m; i++)
        for (int64_t l = 0; l < call->k; l++) {
            float one;
            a[i * call->k + l] = *floats_of(call->a.data, call->a.dtype,
                                            i * call->a.row + l * call->a.column, 1, &one);
        }
    int64_t bytes = mn__dtype_bytes(call->c_dtype);
#pragma omp parallel for schedule(static) if (call->n * call->k >= MN__SMALL)
    for (int64_t j = 0; j < (a ? call->n : 0); j += COLUMNS) {
        int64_t n = call->n - j < COLUMNS ? call->n - j : COLUMNS;
        float sums[ROWS * COLUMNS] = {0};
        if (call->b.column == 1)
            add_rows(call, a, sums, j, n);
        else
            dot_columns(call, a, sums, j, n);
        for (int64_t i = 0; i < call->m; i++)
            MN__KERNEL(finish_product)
        (call, sums + i * COLUMNS, (char *)call->c + (i * call->c_row + j) * bytes, j, n);
    }
    mn__arena_release(&queue->scratch, mark);
}
