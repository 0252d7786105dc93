/* The counting device: a kernel table without arithmetic. Each function adds
 * what its real twin would do to the device's figures: two FLOPs for each
 * multiply-add of a product, the visible part of attention, the bytes that
 * anything else moves. */
#include <stddef.h>

#include "kernel/blocks.h"
#include "tensor/device.h"

static mn__counted *counted(mn__queue *queue)
{
    return &((mn__device *)(void *)((char *)queue - offsetof(mn__device, queue)))->counted;
}

static void move(mn__queue *queue, int tensors, mn__matrix x)
{
    counted(queue)->bytes +=
        (double)tensors * (double)x.rows * (double)x.columns * (double)mn__dtype_bytes(x.dtype);
}

static void matmul(mn__queue *queue, const mn__matmul *call)
{
    counted(queue)->products += 2.0 * (double)(call->batch[0] * call->batch[1]) * (double)call->m *
                                (double)call->n * (double)call->k;
}

static int64_t pack_bytes(mn__queue *queue, int64_t k, int64_t n, mn__form form)
{
    (void)queue;
    int64_t blocks = n * ((k + MN__BLOCK - 1) / MN__BLOCK);
    switch (form) {
    case MN__FORM_F32:
        return 4 * k * n;
    case MN__FORM_BF16:
        return 2 * k * n;
    case MN__FORM_F16:
        return blocks * 2 * MN__BLOCK;
    case MN__FORM_INT8:
        return blocks * (int64_t)sizeof(mn__block_int8);
    case MN__FORM_INT4:
        return blocks * (int64_t)sizeof(mn__block_int4);
    }
    return 0;
}

static mn__packed *pack_new(mn__queue *queue, int64_t k, int64_t n, mn__form form)
{
    (void)queue, (void)k, (void)n, (void)form;
    return NULL;
}

static void pack_blocks(mn__queue *queue, mn__packed *packed, const void *blocks)
{
    (void)queue, (void)packed, (void)blocks;
}

static void pack(mn__queue *queue, mn__packed *packed, mn__operand b)
{
    (void)queue, (void)packed, (void)b;
}

static void pack_columns(mn__queue *queue, mn__packed *packed, int64_t first, int64_t count,
                         mn__operand b)
{
    (void)queue, (void)packed, (void)first, (void)count, (void)b;
}

static void pack_free(mn__packed *packed)
{
    (void)packed;
}

static void convert(mn__queue *queue, mn__matrix out, mn__matrix in)
{
    (void)in;
    move(queue, 2, out);
}

static void fill(mn__queue *queue, mn__matrix out, float value)
{
    (void)value;
    move(queue, 1, out);
}

static void quantise(mn__queue *queue, mn__matrix out, mn__matrix in)
{
    move(queue, 1, out);
    move(queue, 1, in);
}

static void axpby(mn__queue *queue, mn__matrix out, float alpha, mn__matrix x, float beta)
{
    (void)alpha, (void)x;
    move(queue, beta == 0.0f ? 2 : 3, out);
}

static void binary(mn__queue *queue, mn__binary kind, mn__matrix out, mn__matrix a, mn__matrix b)
{
    (void)kind, (void)a, (void)b;
    move(queue, 3, out);
}

static void scale_rows(mn__queue *queue, mn__matrix out, const float *scale, mn__matrix in,
                       bool accumulate)
{
    (void)scale, (void)in;
    move(queue, accumulate ? 3 : 2, out);
}

static void sum_rows(mn__queue *queue, float *out, mn__matrix in)
{
    (void)out;
    move(queue, 1, in);
}

static void dot_rows(mn__queue *queue, float *out, mn__matrix a, mn__matrix b)
{
    (void)out, (void)b;
    move(queue, 2, a);
}

static void activate(mn__queue *queue, mn__activation kind, mn__matrix out, mn__matrix in)
{
    (void)kind, (void)in;
    move(queue, 2, out);
}

static void activate_backward(mn__queue *queue, mn__activation kind, mn__matrix dx, bool accumulate,
                              mn__matrix in, mn__matrix dy)
{
    (void)kind, (void)accumulate, (void)in, (void)dy;
    move(queue, 3, dx);
}

static void gate(mn__queue *queue, mn__activation kind, mn__matrix out, mn__matrix gate_in,
                 mn__matrix up)
{
    (void)kind, (void)gate_in, (void)up;
    move(queue, 3, out);
}

static void gate_backward(mn__queue *queue, mn__activation kind, mn__matrix dgate, mn__matrix dup,
                          mn__matrix gate_in, mn__matrix up, mn__matrix dy)
{
    (void)kind, (void)dup, (void)gate_in, (void)up, (void)dy;
    move(queue, 5, dgate);
}

static void norm(mn__queue *queue, bool rms, float epsilon, mn__matrix out, mn__matrix in,
                 const float *gain, const float *bias, float *mean, float *rstd)
{
    (void)rms, (void)epsilon, (void)in, (void)gain, (void)bias, (void)mean, (void)rstd;
    move(queue, 2, out);
}

static void norm_backward(mn__queue *queue, bool rms, mn__matrix dx, bool accumulate, float *dgain,
                          float *dbias, mn__matrix dy, mn__matrix in, const float *gain,
                          const float *mean, const float *rstd)
{
    (void)rms, (void)accumulate, (void)dgain, (void)dbias, (void)dy, (void)in, (void)gain;
    (void)mean, (void)rstd;
    move(queue, 3, dx);
}

static void rope(mn__queue *queue, mn__matrix out, mn__matrix in, int64_t heads, int64_t pairs,
                 const int64_t *positions, const float *frequencies, bool interleaved,
                 float magnitude, float sign)
{
    (void)in, (void)heads, (void)pairs, (void)positions, (void)frequencies, (void)interleaved;
    (void)magnitude, (void)sign;
    move(queue, 2, out);
}

static void dropout(mn__queue *queue, mn__matrix out, mn__matrix in, float p, mn__random_key key)
{
    (void)in, (void)p, (void)key;
    move(queue, 2, out);
}

static void gather(mn__queue *queue, mn__matrix out, mn__matrix table, const int32_t *ids,
                   float scale)
{
    (void)table, (void)ids, (void)scale;
    move(queue, 2, out);
}

static void scatter_add(mn__queue *queue, mn__matrix table, mn__matrix in, const int32_t *ids,
                        float scale)
{
    (void)table, (void)ids, (void)scale;
    move(queue, 3, in);
}

static void softmax(mn__queue *queue, mn__matrix out, mn__matrix in, const int64_t *length)
{
    (void)in, (void)length;
    move(queue, 2, out);
}

static void softmax_backward(mn__queue *queue, mn__matrix dx, bool accumulate, mn__matrix p,
                             mn__matrix dy)
{
    (void)accumulate, (void)p, (void)dy;
    move(queue, 3, dx);
}

static void top_k(mn__queue *queue, int64_t k, float *values, int32_t *indices, mn__matrix in)
{
    (void)k, (void)values, (void)indices;
    move(queue, 1, in);
}

static void cross_entropy(mn__queue *queue, const mn__cross_entropy *call)
{
    counted(queue)->bytes += 8.0 * (double)call->rows * (double)call->vocabulary;
}

/* Pairs of a query and a visible key in one row and head, up to lengths and
 * keep-masks, which are data: those count as full. */
static double visible(const mn__attention_call *call, const mn__key_group *group)
{
    double pairs = 0;
    for (int64_t i = 0; i < call->T; i++) {
        int64_t position = group->offset + i, from = 0, to = group->count;
        if (group->mask != MN__MASK_NONE) {
            bool strict = group->mask == MN__MASK_STRICT || group->mask == MN__MASK_BAND_STRICT;
            to = strict ? position : position + 1;
            if (group->mask == MN__MASK_BAND || group->mask == MN__MASK_BAND_STRICT)
                from = to - group->window;
        }
        from = from < 0 ? 0 : from;
        to = to > group->count ? group->count : to;
        pairs += to > from ? (double)(to - from) : 0;
    }
    return pairs;
}

enum { DRAW = 16 }; /* operations that draw a weight's factor: ten rounds of 12, for 8 of them */

static void count_attention(mn__queue *queue, const mn__attention_call *call, double each,
                            double each_relative)
{
    for (int g = 0; g < call->groups; g++) {
        double per_pair = each;
        if (call->group[g].position == MN__POSITION_XL)
            per_pair += each_relative;
        per_pair *= (double)call->D;
        if (call->dropout.rate > 0)
            per_pair += DRAW;
        counted(queue)->attention +=
            per_pair * visible(call, &call->group[g]) * (double)(call->B * call->H);
    }
}

static void attention(mn__queue *queue, const mn__attention_call *call)
{
    count_attention(queue, call, 4, 2);
}

static void attention_backward(mn__queue *queue, const mn__attention_call *call,
                               const mn__attention_gradients *gradients)
{
    (void)gradients;
    count_attention(queue, call, 10, 6);
}

static void gathered(mn__queue *queue, const mn__gathered_call *call)
{
    counted(queue)->attention += 4.0 * (double)(call->B * call->T * call->H * call->K * call->D);
}

static void gathered_backward(mn__queue *queue, const mn__gathered_call *call, const void *dout,
                              void *dq, bool accumulate, void *dkeys, void *dvalues, float *dscales)
{
    (void)dout, (void)dq, (void)accumulate, (void)dkeys, (void)dvalues, (void)dscales;
    counted(queue)->attention += 10.0 * (double)(call->B * call->T * call->H * call->K * call->D);
}

/* Every slot of the memory, filled or not. */
static void nearest(mn__queue *queue, const mn__nearest_call *call)
{
    counted(queue)->attention +=
        2.0 * (double)(call->B * call->T * call->H) * (double)call->M * (double)call->D;
}

static double sum_squares(mn__queue *queue, const float *x, int64_t n)
{
    (void)x;
    counted(queue)->bytes += 4.0 * (double)n;
    return 0;
}

static void adam(mn__queue *queue, const mn__adam *call)
{
    counted(queue)->bytes += 28.0 * (double)call->n;
}

static const mn__kernels kernels = {
    .level = MN__LEVEL_PLAIN,
    .matmul = matmul,
    .pack_bytes = pack_bytes,
    .pack_new = pack_new,
    .pack_blocks = pack_blocks,
    .pack = pack,
    .pack_columns = pack_columns,
    .pack_free = pack_free,
    .convert = convert,
    .fill = fill,
    .quantise = quantise,
    .axpby = axpby,
    .binary = binary,
    .scale_rows = scale_rows,
    .sum_rows = sum_rows,
    .dot_rows = dot_rows,
    .activate = activate,
    .activate_backward = activate_backward,
    .gate = gate,
    .gate_backward = gate_backward,
    .norm = norm,
    .norm_backward = norm_backward,
    .rope = rope,
    .dropout = dropout,
    .gather = gather,
    .scatter_add = scatter_add,
    .softmax = softmax,
    .softmax_backward = softmax_backward,
    .top_k = top_k,
    .cross_entropy = cross_entropy,
    .attention = attention,
    .attention_backward = attention_backward,
    .gathered = gathered,
    .gathered_backward = gathered_backward,
    .nearest = nearest,
    .sum_squares = sum_squares,
    .adam = adam,
};

mn_status mn__device_open_counting(mn__device *device, mn_error *error)
{
    *device = (mn__device){.counting = true};
    return mn__queue_open(&device->queue, &kernels, error);
}
