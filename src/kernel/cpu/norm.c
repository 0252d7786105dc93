/* Layer and RMS norm, and the softmax of rows; see plain_norm.c for the
 * equations. A row passes through the caches as floats; means and squares are
 * taken in two passes, so that large means cost no digits. */
#include <math.h>
#include <omp.h>

#include "kernel/cpu/chunk.h"
#include "kernel/cpu/math.h"

/* Rows of floats for each thread; NULL, with the mark set, when memory is short. */
static float *take_rows(mn__queue *queue, int64_t rows, int64_t columns)
{
    int64_t stride = columns + 16;
    return mn__queue_scratch(queue, (int64_t)omp_get_max_threads() * rows * stride * 4);
}

static float *row_of(float *rows, int64_t count, int64_t index, int64_t columns)
{
    return rows + ((int64_t)omp_get_thread_num() * count + index) * (columns + 16);
}

static mn__chunk whole_row(mn__matrix matrix, int64_t r)
{
    return (mn__chunk){r, 0, matrix.columns};
}

static inline float sum_of(const float *x, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static inline float sum_of_squares(const float *x, float mean, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

/* ---- Norm ----------------------------------------------------------------------------- */

static void normalise(float *to, const float *x, int64_t n, float mean, float rstd,
                      const float *gain, const float *bias)
{
    if (gain && bias) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = (x[i] - mean) * rstd * gain[i] + bias[i];
    } else if (gain) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = (x[i] - mean) * rstd * gain[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = (x[i] - mean) * rstd + (bias ? bias[i] : 0.0F);
    }
}

static void norm(mn__queue *queue, bool rms, float epsilon, mn__matrix out, mn__matrix in,
                 const float *gain, const float *bias, float *means, float *rstds)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    int64_t n = out.columns;
    float *rows = take_rows(queue, 2, n);
#pragma omp parallel for schedule(static) if (mn__is_large(out))
    for (int64_t r = 0; r < (rows ? out.rows : 0); r++) {
        mn__chunk at = whole_row(out, r);
        const float *x = mn__chunk_read(in, at, row_of(rows, 2, 0, n));
        float *to = mn__chunk_target(out, at, row_of(rows, 2, 1, n));
        float mean = rms ? 0.0F : sum_of(x, n) / (float)n;
        float rstd = 1.0F / sqrtf(sum_of_squares(x, mean, n) / (float)n + epsilon);
        normalise(to, x, n, mean, rstd, gain, bias);
        mn__chunk_write(out, at, to);
        if (means && !rms)
            means[r] = mean;
        if (rstds)
            rstds[r] = rstd;
    }
    mn__arena_release(&queue->scratch, mark);
}

typedef struct norm_gradients {
    bool rms, accumulate;
    mn__matrix dx, dy, in;
    const float *gain, *means, *rstds;
} norm_gradients;

/* dx of one row; the row's share of dgain and dbias is added to the sums. */
static void norm_backward_row(const norm_gradients *call, int64_t r, float *buffers[3],
                              float *restrict gain_sum, float *restrict bias_sum)
{
    int64_t n = call->in.columns;
    mn__chunk at = whole_row(call->in, r);
    const float *x = mn__chunk_read(call->in, at, buffers[0]);
    const float *d = mn__chunk_read(call->dy, at, buffers[1]);
    const float *gain = call->gain;
    float mean = call->rms ? 0.0F : call->means[r], rstd = call->rstds[r];
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < n; i++) {
        float xhat = (x[i] - mean) * rstd, g = gain ? d[i] * gain[i] : d[i];
        sum += g;
        dot += g * xhat;
        gain_sum[i] += d[i] * xhat;
        bias_sum[i] += d[i];
    }
    if (!call->dx.data)
        return;
    float *to = mn__chunk_target(call->dx, at, buffers[2]);
    float shift = call->rms ? 0.0F : sum / (float)n, slope = dot / (float)n;
    if (call->accumulate)
        mn__chunk_read(call->dx, at, buffers[2]);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float xhat = (x[i] - mean) * rstd, g = gain ? d[i] * gain[i] : d[i];
        float value = rstd * (g - shift - xhat * slope);
        to[i] = call->accumulate ? to[i] + value : value;
    }
    mn__chunk_write(call->dx, at, to);
}

/* Rows go to PARTS contiguous parts, each with sums of its own that are added
 * in order: the result does not depend on the number of threads. */
static void norm_backward(mn__queue *queue, bool rms, mn__matrix dx, bool accumulate, float *dgain,
                          float *dbias, mn__matrix dy, mn__matrix in, const float *gain,
                          const float *means, const float *rstds)
{
    enum { PARTS = 64 };
    const norm_gradients call = {rms, accumulate, dx, dy, in, gain, means, rstds};
    int64_t n = in.columns;
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    float *rows = take_rows(queue, 3, n);
    float *sums = mn__queue_scratch(queue, PARTS * 2 * n * 4);
    if (!rows || !sums) {
        mn__arena_release(&queue->scratch, mark);
        return;
    }
#pragma omp parallel for schedule(static) if (mn__is_large(in))
    for (int64_t part = 0; part < PARTS; part++) {
        float *sum = sums + part * 2 * n;
        float *buffers[3] = {row_of(rows, 3, 0, n), row_of(rows, 3, 1, n), row_of(rows, 3, 2, n)};
        memset(sum, 0, (size_t)(2 * n) * sizeof *sum);
        for (int64_t r = in.rows * part / PARTS; r < in.rows * (part + 1) / PARTS; r++)
            norm_backward_row(&call, r, buffers, sum, sum + n);
    }
    for (int64_t part = 0; part < PARTS; part++) {
        const float *sum = sums + part * 2 * n;
        for (int64_t i = 0; i < n && dgain; i++)
            dgain[i] += sum[i];
        for (int64_t i = 0; i < n && dbias; i++)
            dbias[i] += sum[n + i];
    }
    mn__arena_release(&queue->scratch, mark);
}

/* ---- Softmax ------------------------------------------------------------------------------ */

static void softmax_row(float *to, const float *x, int64_t length, int64_t n)
{
    float largest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < length; i++)
        largest = x[i] > largest ? x[i] : largest;
    float shift = largest == -INFINITY ? 0.0F : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; i++) {
        to[i] = mn__exp(x[i] - shift);
        sum += to[i];
    }
    float scale = sum == 0 ? 0.0F : 1.0F / sum;
#pragma omp simd
    for (int64_t i = 0; i < length; i++)
        to[i] *= scale;
    for (int64_t i = length; i < n; i++)
        to[i] = 0;
}

static void softmax(mn__queue *queue, mn__matrix out, mn__matrix in, const int64_t *length)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    int64_t n = out.columns;
    float *rows = take_rows(queue, 2, n);
#pragma omp parallel for schedule(static) if (mn__is_large(out))
    for (int64_t r = 0; r < (rows ? out.rows : 0); r++) {
        mn__chunk at = whole_row(out, r);
        float *to = mn__chunk_target(out, at, row_of(rows, 2, 1, n));
        softmax_row(to, mn__chunk_read(in, at, row_of(rows, 2, 0, n)), length ? length[r] : n, n);
        mn__chunk_write(out, at, to);
    }
    mn__arena_release(&queue->scratch, mark);
}

static void softmax_backward(mn__queue *queue, mn__matrix dx, bool accumulate, mn__matrix p,
                             mn__matrix dy)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    int64_t n = dx.columns;
    float *rows = take_rows(queue, 3, n);
#pragma omp parallel for schedule(static) if (mn__is_large(dx))
    for (int64_t r = 0; r < (rows ? dx.rows : 0); r++) {
        mn__chunk at = whole_row(dx, r);
        const float *share = mn__chunk_read(p, at, row_of(rows, 3, 0, n));
        const float *d = mn__chunk_read(dy, at, row_of(rows, 3, 1, n));
        float *old = row_of(rows, 3, 2, n), *to = mn__chunk_target(dx, at, old), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += share[i] * d[i];
        if (accumulate)
            mn__chunk_read(dx, at, old);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float value = share[i] * (d[i] - sum);
            to[i] = accumulate ? to[i] + value : value;
        }
        mn__chunk_write(dx, at, to);
    }
    mn__arena_release(&queue->scratch, mark);
}

void MN__KERNEL(fill_norm)(mn__kernels *kernels)
{
    kernels->norm = norm;
    kernels->norm_backward = norm_backward;
    kernels->softmax = softmax;
    kernels->softmax_backward = softmax_backward;
}
