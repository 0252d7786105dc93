/* Layer and RMS norm, and the softmax of rows, as defined.
 *
 *   xhat = (x - mean) rstd, rstd = 1 / sqrt(variance + epsilon), y = xhat gain + bias
 *   g = dy gain;  dx = rstd (g - mean(g) - xhat mean(g xhat))   (Ba et al. 2016)
 * RMS norm (Zhang and Sennrich 2019) has no mean, in x and in g. */
#include "kernel/plain.h"

#include <math.h>

static double row_mean(mn__matrix in, int64_t r)
{
    double sum = 0;
    for (int64_t c = 0; c < in.columns; c++)
        sum += (double)mn__get(in, r, c);
    return sum / (double)in.columns;
}

static double row_variance(mn__matrix in, int64_t r, double mean)
{
    double sum = 0;
    for (int64_t c = 0; c < in.columns; c++) {
        double x = (double)mn__get(in, r, c) - mean;
        sum += x * x;
    }
    return sum / (double)in.columns;
}

static void norm(mn__queue *queue, bool rms, float epsilon, mn__matrix out, mn__matrix in,
                 const float *gain, const float *bias, float *means, float *rstds)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++) {
        double mean = rms ? 0 : row_mean(in, r);
        double rstd = 1 / sqrt(row_variance(in, r, mean) + (double)epsilon);
        for (int64_t c = 0; c < out.columns; c++) {
            double value = ((double)mn__get(in, r, c) - mean) * rstd;
            value *= gain ? (double)gain[c] : 1.0;
            mn__set(out, r, c, value + (bias ? (double)bias[c] : 0.0));
        }
        if (means && !rms)
            means[r] = (float)mean;
        if (rstds)
            rstds[r] = (float)rstd;
    }
}

static void norm_backward_row(bool rms, mn__matrix dx, bool accumulate, mn__matrix dy,
                              mn__matrix in, const float *gain, double mean, double rstd, int64_t r)
{
    double sum = 0, dot = 0;
    for (int64_t c = 0; c < in.columns; c++) {
        double g = (double)mn__get(dy, r, c) * (gain ? (double)gain[c] : 1.0);
        sum += g;
        dot += g * ((double)mn__get(in, r, c) - mean) * rstd;
    }
    sum = rms ? 0 : sum / (double)in.columns;
    dot /= (double)in.columns;
    for (int64_t c = 0; c < in.columns; c++) {
        double g = (double)mn__get(dy, r, c) * (gain ? (double)gain[c] : 1.0);
        double value = rstd * (g - sum - ((double)mn__get(in, r, c) - mean) * rstd * dot);
        mn__set(dx, r, c, value + (accumulate ? (double)mn__get(dx, r, c) : 0.0));
    }
}

static void norm_backward(mn__queue *queue, bool rms, mn__matrix dx, bool accumulate, float *dgain,
                          float *dbias, mn__matrix dy, mn__matrix in, const float *gain,
                          const float *means, const float *rstds)
{
    (void)queue;
    for (int64_t c = 0; c < in.columns && (dgain || dbias); c++) {
        double gain_sum = 0, bias_sum = 0;
        for (int64_t r = 0; r < in.rows; r++) {
            double mean = rms ? 0 : (double)means[r], d = (double)mn__get(dy, r, c);
            gain_sum += d * ((double)mn__get(in, r, c) - mean) * (double)rstds[r];
            bias_sum += d;
        }
        if (dgain)
            dgain[c] = (float)((double)dgain[c] + gain_sum);
        if (dbias)
            dbias[c] = (float)((double)dbias[c] + bias_sum);
    }
    for (int64_t r = 0; r < in.rows && dx.data; r++)
        norm_backward_row(rms, dx, accumulate, dy, in, gain, rms ? 0 : (double)means[r],
                          (double)rstds[r], r);
}

static void softmax(mn__queue *queue, mn__matrix out, mn__matrix in, const int64_t *length)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++) {
        int64_t n = length ? length[r] : out.columns;
        double largest = -INFINITY, sum = 0;
        for (int64_t c = 0; c < n; c++)
            largest = fmax(largest, (double)mn__get(in, r, c));
        for (int64_t c = 0; c < n; c++)
            sum += exp((double)mn__get(in, r, c) - largest);
        bool empty = largest == -INFINITY; /* every column is hidden */
        for (int64_t c = 0; c < out.columns; c++)
            mn__set(out, r, c,
                    c < n && !empty ? exp((double)mn__get(in, r, c) - largest) / sum : 0.0);
    }
}

static void softmax_backward(mn__queue *queue, mn__matrix dx, bool accumulate, mn__matrix p,
                             mn__matrix dy)
{
    (void)queue;
    for (int64_t r = 0; r < dx.rows; r++) {
        double sum = 0;
        for (int64_t c = 0; c < dx.columns; c++)
            sum += (double)mn__get(p, r, c) * (double)mn__get(dy, r, c);
        for (int64_t c = 0; c < dx.columns; c++) {
            double value = (double)mn__get(p, r, c) * ((double)mn__get(dy, r, c) - sum);
            mn__set(dx, r, c, value + (accumulate ? (double)mn__get(dx, r, c) : 0.0));
        }
    }
}

void mn__plain_fill_norm(mn__kernels *kernels)
{
    kernels->norm = norm;
    kernels->norm_backward = norm_backward;
    kernels->softmax = softmax;
    kernels->softmax_backward = softmax_backward;
}
