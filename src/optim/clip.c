/* Clipping by the global norm (Pascanu et al. 2013). */
#include "optim/clip.h"

#include <math.h>

static double sum_squares(mn__params *params, const float *x, const mn__tensor *like)
{
    mn__queue *queue = &params->device->queue;
    return queue->kernels->sum_squares(queue, x, mn__tensor_elements(like));
}

double mn__gradients_norm(mn__params *params, const mn__param **culprit)
{
    double total = 0;
    *culprit = NULL;
    for (int64_t i = 0; i < params->count; i++) {
        mn__param *param = params->items[i];
        if (param->buffer || !param->gradient_set)
            continue;
        double squares = sum_squares(params, param->gradient, &param->value);
        if (!isfinite(squares) && !*culprit)
            *culprit = param;
        total += squares;
    }
    return sqrt(total);
}

double mn__clip_factor(double norm, double limit)
{
    return limit > 0 && norm > limit ? limit / norm : 1;
}

const mn__param *mn__params_not_finite(mn__params *params)
{
    for (int64_t i = 0; i < params->count; i++) {
        mn__param *param = params->items[i];
        if (!isfinite(sum_squares(params, param->value.data, &param->value)))
            return param;
    }
    return NULL;
}
