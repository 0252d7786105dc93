/* Copies, sums and element-wise arithmetic, as defined. */
#include "kernel/plain.h"

#include <math.h>

#include "kernel/blocks.h"

static unsigned char *byte_at(mn__matrix matrix, int64_t row, int64_t column)
{
    return (unsigned char *)matrix.data + row * matrix.stride + column;
}

static void convert(mn__queue *queue, mn__matrix out, mn__matrix in)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++)
            if (out.dtype == MN__U8)
                *byte_at(out, r, c) = *byte_at(in, r, c);
            else
                mn__set(out, r, c, (double)mn__get(in, r, c));
}

static void quantise(mn__queue *queue, mn__matrix out, mn__matrix in)
{
    (void)queue;
    for (int64_t r = 0; r < in.rows; r++)
        for (int64_t c = 0; c < in.columns; c += MN__BLOCK) {
            float x[MN__BLOCK] = {0};
            for (int64_t i = 0; i < MN__BLOCK && c + i < in.columns; i++)
                x[i] = mn__get(in, r, c + i);
            const mn__block_int8 block = mn__block_int8_of(x);
            memcpy(byte_at(out, r, mn__block_int8_bytes(c)), &block, sizeof block);
        }
}

static void fill(mn__queue *queue, mn__matrix out, float value)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++)
            if (out.dtype == MN__U8)
                *byte_at(out, r, c) = 0;
            else
                mn__set(out, r, c, (double)value);
}

static void axpby(mn__queue *queue, mn__matrix out, float alpha, mn__matrix x, float beta)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++) {
            double value = (double)alpha * (double)mn__get(x, r, c);
            if (beta != 0)
                value += (double)beta * (double)mn__get(out, r, c);
            mn__set(out, r, c, value);
        }
}

static double combine(mn__binary operation, double a, double b)
{
    switch (operation) {
    case MN__ADD:
        return a + b;
    case MN__SUBTRACT:
        return a - b;
    case MN__MULTIPLY:
        return a * b;
    case MN__DIVIDE:
        return a / b;
    case MN__MAXIMUM:
        return a > b || isnan(a) ? a : b;
    case MN__IS_FIRST:
        return a > b || isnan(a);
    case MN__WHERE:
        return b != 0 ? a : 0;
    case MN__WHERE_NOT:
        return b != 0 ? 0 : a;
    }
    return 0;
}

static void binary(mn__queue *queue, mn__binary operation, mn__matrix out, mn__matrix a,
                   mn__matrix b)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++)
            mn__set(out, r, c,
                    combine(operation, (double)mn__get(a, r, c), (double)mn__get(b, r, c)));
}

static void scale_rows(mn__queue *queue, mn__matrix out, const float *scale, mn__matrix in,
                       bool accumulate)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++) {
            double value = (double)scale[r] * (double)mn__get(in, r, c);
            mn__set(out, r, c, value + (accumulate ? (double)mn__get(out, r, c) : 0.0));
        }
}

static void sum_rows(mn__queue *queue, float *out, mn__matrix in)
{
    (void)queue;
    for (int64_t c = 0; c < in.columns; c++) {
        double sum = (double)out[c];
        for (int64_t r = 0; r < in.rows; r++)
            sum += (double)mn__get(in, r, c);
        out[c] = (float)sum;
    }
}

static void dot_rows(mn__queue *queue, float *out, mn__matrix a, mn__matrix b)
{
    (void)queue;
    for (int64_t r = 0; r < a.rows; r++) {
        double sum = 0;
        for (int64_t c = 0; c < a.columns; c++)
            sum += (double)mn__get(a, r, c) * (double)mn__get(b, r, c);
        out[r] = (float)sum;
    }
}

static void dropout(mn__queue *queue, mn__matrix out, mn__matrix in, float p, mn__random_key key)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++) {
            bool keep = mn__random_uniform(key, (uint64_t)(r * out.columns + c)) >= p;
            mn__set(out, r, c, keep ? (double)mn__get(in, r, c) / (1 - (double)p) : 0.0);
        }
}

void mn__plain_fill_elementwise(mn__kernels *kernels)
{
    kernels->convert = convert;
    kernels->fill = fill;
    kernels->quantise = quantise;
    kernels->axpby = axpby;
    kernels->binary = binary;
    kernels->scale_rows = scale_rows;
    kernels->sum_rows = sum_rows;
    kernels->dot_rows = dot_rows;
    kernels->dropout = dropout;
}
