/* Activations and gated forms, on rows of floats; see plain_activation.c for
 * the formulas. */
#include "kernel/cpu/activation.h"

#include "kernel/cpu/chunk.h"
#include "kernel/cpu/math.h"

static inline float relu(float x)
{
    return x < 0 ? 0 : x;
}

static inline float relu2(float x)
{
    return relu(x) * relu(x);
}

static inline float gelu(float x)
{
    float half = x < -5.7F ? 0.0F : 0.5F + 0.5F * mn__erf(x * 0.70710678F);
    return (x < -5.7F ? 0.0F : x) * half;
}

static inline float gelu_tanh(float x)
{
    float in = x < -20.0F ? -20.0F : x;
    return in * mn__sigmoid(in * (1.59576912F + 0.0713548163F * in * in));
}

static inline float silu(float x)
{
    float in = x < -100.0F ? -100.0F : x;
    return in * mn__sigmoid(in);
}

static inline float tangent(float x)
{
    return mn__tanh(x);
}

static inline float sigmoid(float x)
{
    return mn__sigmoid(x);
}

/* ---- Slopes -------------------------------------------------------------------------- */

static inline float relu_slope(float x)
{
    float slope = x > 0 ? 1.0F : 0.0F;
    return x != x ? x : slope;
}

static inline float relu2_slope(float x)
{
    return x <= 0 ? 0.0F : 2 * x;
}

static inline float gelu_slope(float x)
{
    float in = x < -13.0F ? -13.0F : x; /* where the slope is 0 in F32 */
    in = in > 13.0F ? 13.0F : in;
    float distribution = 0.5F + 0.5F * mn__erf(in * 0.70710678F);
    return distribution + in * 0.39894228F * mn__exp(-0.5F * in * in);
}

static inline float gelu_tanh_slope(float x)
{
    float in = x < -13.0F ? -13.0F : x;
    in = in > 13.0F ? 13.0F : in;
    float s = mn__sigmoid(in * (1.59576912F + 0.0713548163F * in * in));
    return s + in * s * (1 - s) * (1.59576912F + 0.214064449F * in * in);
}

static inline float silu_slope(float x)
{
    float in = x < -100.0F ? -100.0F : x;
    in = in > 100.0F ? 100.0F : in;
    float s = mn__sigmoid(in);
    return s + in * s * (1 - s);
}

static inline float tangent_slope(float x)
{
    float t = mn__tanh(x);
    return 1 - t * t;
}

static inline float sigmoid_slope(float x)
{
    float s = mn__sigmoid(x);
    return s * (1 - s);
}

/* ---- Rows ----------------------------------------------------------------------------- */

#define EACH(function)                                                         \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = function(x[i]); \
    return

static void values(mn__activation activation, float *y, const float *x, int64_t n)
{
    switch (activation) {
    case MN__LINEAR:
        EACH();
    case MN__RELU:
        EACH(relu);
    case MN__RELU2:
        EACH(relu2);
    case MN__GELU:
        EACH(gelu);
    case MN__GELU_TANH:
        EACH(gelu_tanh);
    case MN__SILU:
        EACH(silu);
    case MN__TANH:
        EACH(tangent);
    case MN__SIGMOID:
        EACH(sigmoid);
    }
}

static void slopes(mn__activation activation, float *y, const float *x, int64_t n)
{
    switch (activation) {
    case MN__LINEAR:
        for (int64_t i = 0; i < n; i++)
            y[i] = 1;
        return;
    case MN__RELU:
        EACH(relu_slope);
    case MN__RELU2:
        EACH(relu2_slope);
    case MN__GELU:
        EACH(gelu_slope);
    case MN__GELU_TANH:
        EACH(gelu_tanh_slope);
    case MN__SILU:
        EACH(silu_slope);
    case MN__TANH:
        EACH(tangent_slope);
    case MN__SIGMOID:
        EACH(sigmoid_slope);
    }
}

void MN__KERNEL(activate_row)(mn__activation activation, float *x, int64_t n)
{
    if (activation != MN__LINEAR)
        values(activation, x, x, n);
}

/* ---- Kernels ----------------------------------------------------------------------------- */

static void activate(mn__queue *queue, mn__activation activation, mn__matrix out, mn__matrix in)
{
    (void)queue;
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        float buffer[MN__CHUNK], new[MN__CHUNK], *to = mn__chunk_target(out, at, new);
        values(activation, to, mn__chunk_read(in, at, buffer), at.n);
        mn__chunk_write(out, at, to);
    }
}

static void activate_backward(mn__queue *queue, mn__activation activation, mn__matrix dx,
                              bool accumulate, mn__matrix in, mn__matrix dy)
{
    (void)queue;
    MN__EACH_CHUNK(dx)
    {
        mn__chunk at = mn__chunk_at(dx, index);
        float x[MN__CHUNK], y[MN__CHUNK], slope[MN__CHUNK], old[MN__CHUNK];
        float *to = mn__chunk_target(dx, at, old);
        slopes(activation, slope, mn__chunk_read(in, at, x), at.n);
        const float *d = mn__chunk_read(dy, at, y);
        if (accumulate) {
            mn__chunk_read(dx, at, old);
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++)
                to[i] += slope[i] * d[i];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++)
                to[i] = slope[i] * d[i];
        }
        mn__chunk_write(dx, at, to);
    }
}

static void gate(mn__queue *queue, mn__activation activation, mn__matrix out, mn__matrix gates,
                 mn__matrix up)
{
    (void)queue;
    MN__EACH_CHUNK(out)
    {
        mn__chunk at = mn__chunk_at(out, index);
        float x[MN__CHUNK], u[MN__CHUNK], f[MN__CHUNK], new[MN__CHUNK];
        float *to = mn__chunk_target(out, at, new);
        values(activation, f, mn__chunk_read(gates, at, x), at.n);
        const float *factor = mn__chunk_read(up, at, u);
#pragma omp simd
        for (int64_t i = 0; i < at.n; i++)
            to[i] = f[i] * factor[i];
        mn__chunk_write(out, at, to);
    }
}

static void gate_backward(mn__queue *queue, mn__activation activation, mn__matrix dgate,
                          mn__matrix dup, mn__matrix gates, mn__matrix up, mn__matrix dy)
{
    (void)queue;
    MN__EACH_CHUNK(dy)
    {
        mn__chunk at = mn__chunk_at(dy, index);
        float x[MN__CHUNK], u[MN__CHUNK], y[MN__CHUNK], f[MN__CHUNK], slope[MN__CHUNK];
        const float *in = mn__chunk_read(gates, at, x);
        values(activation, f, in, at.n);
        slopes(activation, slope, in, at.n);
        const float *factor = mn__chunk_read(up, at, u), *d = mn__chunk_read(dy, at, y);
#pragma omp simd
        for (int64_t i = 0; i < at.n; i++) {
            float value = d[i];
            slope[i] *= value * factor[i];
            f[i] *= value;
        }
        mn__chunk_store(dgate, at, slope);
        mn__chunk_store(dup, at, f);
    }
}

void MN__KERNEL(fill_activation)(mn__kernels *kernels)
{
    kernels->activate = activate;
    kernels->activate_backward = activate_backward;
    kernels->gate = gate;
    kernels->gate_backward = gate_backward;
}
