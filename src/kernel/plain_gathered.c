/* Attention in which every query has keys of its own, as defined in kernel.h.
 * See plain_attention.c for the equations. */
#include "kernel/plain.h"

#include <math.h>

/* The query number n of [B, T, H] and what it sees: rows n * K .. of the keys. */
static bool is_visible(const mn__gathered_call *call, int64_t n, int64_t k)
{
    return !call->index || call->index[n * call->K + k] >= 0;
}

static double dot(mn__dtype dtype, const void *a, int64_t at, const void *b, int64_t bt, int64_t D)
{
    double sum = 0;
    for (int64_t d = 0; d < D; d++)
        sum += (double)mn__element(a, dtype, at + d) * (double)mn__element(b, dtype, bt + d);
    return sum;
}

/* q . k * scale */
static double unscaled_score(const mn__gathered_call *call, int64_t n, int64_t k)
{
    return (double)call->scale * dot(call->dtype, call->queries, n * call->D, call->keys,
                                     (n * call->K + k) * call->D, call->D);
}

static double head_scale(const mn__gathered_call *call, int64_t n)
{
    return call->scales ? (double)call->scales[n % call->H] : 1.0;
}

/* p[0..K) = the softmax of the query's scores; returns the log-sum-exp. */
static double softmax_of(const mn__gathered_call *call, int64_t n, double *p)
{
    double largest = -INFINITY, sum = 0;
    bool sees = false; /* something, be it NaN */
    for (int64_t k = 0; k < call->K; k++) {
        p[k] =
            is_visible(call, n, k) ? unscaled_score(call, n, k) * head_scale(call, n) : -INFINITY;
        largest = p[k] > largest ? p[k] : largest;
        sees = sees || p[k] != -INFINITY;
    }
    for (int64_t k = 0; k < call->K; k++) {
        p[k] = sees ? exp(p[k] - largest) : 0.0;
        sum += p[k];
    }
    for (int64_t k = 0; k < call->K && sees; k++)
        p[k] /= sum;
    return sees ? largest + log(sum) : -INFINITY;
}

/* The number of query n in [B, H, T]. */
static int64_t row_of(const mn__gathered_call *call, int64_t n)
{
    int64_t b = n / (call->T * call->H), t = n / call->H % call->T, h = n % call->H;
    return (b * call->H + h) * call->T + t;
}

/* weights = p times dropout's factors; they may be p itself. */
static void drop(const mn__gathered_call *call, int64_t n, double *weights, const double *p)
{
    int64_t unit = row_of(call, n) * mn__dropout_units(call->K);
    for (int64_t k = 0; k < call->K; k++)
        weights[k] = p[k] * (double)mn__dropout_factor(&call->dropout, unit, k);
}

static double output_element(const mn__gathered_call *call, int64_t n, const double *weights,
                             int64_t d)
{
    double sum = 0;
    for (int64_t k = 0; k < call->K; k++)
        if (is_visible(call, n, k))
            sum += weights[k] *
                   (double)mn__element(call->values, call->dtype, (n * call->K + k) * call->D + d);
    return sum;
}

static void gathered(mn__queue *queue, const mn__gathered_call *call)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    double *p = mn__queue_scratch(queue, call->K * (int64_t)sizeof *p);
    if (!p)
        return;
    for (int64_t n = 0; n < call->B * call->T * call->H; n++) {
        call->lse[row_of(call, n)] = (float)softmax_of(call, n, p);
        drop(call, n, p, p);
        for (int64_t d = 0; d < call->D; d++)
            mn__element_set(call->out, call->dtype, n * call->D + d, output_element(call, n, p, d));
    }
    mn__arena_release(&queue->scratch, mark);
}

/* The gradients of one query and its keys; dscore overwrites p. */
static void query_backward(const mn__gathered_call *call, int64_t n, double *p, double *weights,
                           const void *dout, void *dq, bool accumulate, void *dkeys, void *dvalues,
                           float *dscales)
{
    softmax_of(call, n, p);
    drop(call, n, weights, p);
    double mean = 0;
    for (int64_t d = 0; d < call->D; d++)
        mean += (double)mn__element(dout, call->dtype, n * call->D + d) *
                output_element(call, n, weights, d);
    double factor = (double)call->scale * head_scale(call, n);
    for (int64_t k = 0; k < call->K; k++) {
        int64_t row = (n * call->K + k) * call->D;
        double dp = is_visible(call, n, k)
                        ? dot(call->dtype, dout, n * call->D, call->values, row, call->D)
                        : 0.0;
        double dscore = weights[k] * dp - p[k] * mean;
        if (dscales && is_visible(call, n, k))
            dscales[n % call->H] += (float)(dscore * unscaled_score(call, n, k));
        for (int64_t d = 0; d < call->D; d++) {
            double q = (double)mn__element(call->queries, call->dtype, n * call->D + d);
            double go = (double)mn__element(dout, call->dtype, n * call->D + d);
            if (dkeys)
                mn__element_set(dkeys, call->dtype, row + d, dscore * factor * q);
            if (dvalues)
                mn__element_set(dvalues, call->dtype, row + d, weights[k] * go);
        }
        p[k] = dscore * factor;
    }
    for (int64_t d = 0; dq && d < call->D; d++) {
        double sum = accumulate ? (double)mn__element(dq, call->dtype, n * call->D + d) : 0.0;
        for (int64_t k = 0; k < call->K; k++)
            if (is_visible(call, n, k))
                sum += p[k] * (double)mn__element(call->keys, call->dtype,
                                                  (n * call->K + k) * call->D + d);
        mn__element_set(dq, call->dtype, n * call->D + d, sum);
    }
}

static void gathered_backward(mn__queue *queue, const mn__gathered_call *call, const void *dout,
                              void *dq, bool accumulate, void *dkeys, void *dvalues, float *dscales)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    double *p = mn__queue_scratch(queue, 2 * call->K * (int64_t)sizeof *p);
    if (!p)
        return;
    for (int64_t n = 0; n < call->B * call->T * call->H; n++)
        query_backward(call, n, p, p + call->K, dout, dq, accumulate, dkeys, dvalues, dscales);
    mn__arena_release(&queue->scratch, mark);
}

void mn__plain_fill_gathered(mn__kernels *kernels)
{
    kernels->gathered = gathered;
    kernels->gathered_backward = gathered_backward;
}
