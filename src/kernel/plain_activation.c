/* Activations and gated forms, as defined.
 *
 *   gelu(x) = x Phi(x), Phi the normal distribution function
 *   gelu_tanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
 *   silu(x) = x sigmoid(x)
 *   gate: out = f(gate) up  (Shazeer 2020: GLU variants) */
#include "kernel/plain.h"

#include <math.h>

static const double GELU_CUBIC = 0.044715;

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double normal_density(double x)
{
    return exp(-0.5 * x * x) / sqrt(2 * acos(-1.0));
}

static double normal_distribution(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0));
}

/* The limits at -inf are 0, where the formulas would say -inf * 0. */
double mn__plain_activate(mn__activation activation, double x)
{
    switch (activation) {
    case MN__LINEAR:
        return x;
    case MN__RELU:
        return x < 0 ? 0 : x;
    case MN__RELU2:
        return x < 0 ? 0 : x * x;
    case MN__GELU:
        return x == -INFINITY ? 0 : x * normal_distribution(x);
    case MN__GELU_TANH: {
        double inner = sqrt(2 / acos(-1.0)) * (x + GELU_CUBIC * x * x * x);
        return x == -INFINITY ? 0 : x * sigmoid(2 * inner);
    }
    case MN__SILU:
        return x == -INFINITY ? 0 : x * sigmoid(x);
    case MN__TANH:
        return tanh(x);
    case MN__SIGMOID:
        return sigmoid(x);
    }
    return NAN;
}

double mn__plain_activate_slope(mn__activation activation, double x)
{
    switch (activation) {
    case MN__LINEAR:
        return 1;
    case MN__RELU:
        return x <= 0 ? 0 : isnan(x) ? x : 1;
    case MN__RELU2:
        return x <= 0 ? 0 : 2 * x;
    case MN__GELU:
        return isinf(x) ? x > 0 : normal_distribution(x) + x * normal_density(x);
    case MN__GELU_TANH: {
        double root = sqrt(2 / acos(-1.0));
        double s = sigmoid(2 * root * (x + GELU_CUBIC * x * x * x));
        double spread = s * (1 - s);
        return spread == 0 ? s : s + x * spread * 2 * root * (1 + 3 * GELU_CUBIC * x * x);
    }
    case MN__SILU: {
        double s = sigmoid(x);
        return isinf(x) ? s : s * (1 + x * (1 - s));
    }
    case MN__TANH:
        return 1 - tanh(x) * tanh(x);
    case MN__SIGMOID:
        return sigmoid(x) * (1 - sigmoid(x));
    }
    return NAN;
}

static void activate(mn__queue *queue, mn__activation activation, mn__matrix out, mn__matrix in)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++)
            mn__set(out, r, c, mn__plain_activate(activation, (double)mn__get(in, r, c)));
}

static void activate_backward(mn__queue *queue, mn__activation activation, mn__matrix dx,
                              bool accumulate, mn__matrix in, mn__matrix dy)
{
    (void)queue;
    for (int64_t r = 0; r < dx.rows; r++)
        for (int64_t c = 0; c < dx.columns; c++) {
            double slope = mn__plain_activate_slope(activation, (double)mn__get(in, r, c));
            double value = slope * (double)mn__get(dy, r, c);
            mn__set(dx, r, c, value + (accumulate ? (double)mn__get(dx, r, c) : 0.0));
        }
}

static void gate(mn__queue *queue, mn__activation activation, mn__matrix out, mn__matrix gates,
                 mn__matrix up)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++)
            mn__set(out, r, c,
                    mn__plain_activate(activation, (double)mn__get(gates, r, c)) *
                        (double)mn__get(up, r, c));
}

static void gate_backward(mn__queue *queue, mn__activation activation, mn__matrix dgate,
                          mn__matrix dup, mn__matrix gates, mn__matrix up, mn__matrix dy)
{
    (void)queue;
    for (int64_t r = 0; r < dy.rows; r++)
        for (int64_t c = 0; c < dy.columns; c++) {
            double x = (double)mn__get(gates, r, c), u = (double)mn__get(up, r, c);
            double d = (double)mn__get(dy, r, c);
            mn__set(dgate, r, c, d * u * mn__plain_activate_slope(activation, x));
            mn__set(dup, r, c, d * mn__plain_activate(activation, x));
        }
}

void mn__plain_fill_activation(mn__kernels *kernels)
{
    kernels->activate = activate;
    kernels->activate_backward = activate_backward;
    kernels->gate = gate;
    kernels->gate_backward = gate_backward;
}
