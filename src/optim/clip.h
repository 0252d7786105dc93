/* The gradients' global norm, and what clipping makes of it. */
#ifndef MN__OPTIM_CLIP_H
#define MN__OPTIM_CLIP_H

#include "tensor/param.h"

/* sqrt of the sum over all parameters of |gradient|^2 (those not set count as
 * zero), summed in a fixed order. Where it is not finite, *culprit is the first
 * parameter whose gradient is not; else NULL. */
double mn__gradients_norm(mn__params *params, const mn__param **culprit);

/* The factor that brings a norm down to at most `limit`; 1 for limit 0 (none). */
double mn__clip_factor(double norm, double limit);

/* The first parameter or buffer that holds a value that is not finite, or NULL. */
const mn__param *mn__params_not_finite(mn__params *params);

#endif
