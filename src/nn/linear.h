/* A linear layer: y = x W^T + b. */
#ifndef MN__NN_LINEAR_H
#define MN__NN_LINEAR_H

#include "op/op.h"

typedef struct mn__linear {
    mn__param *weight; /* [out, in] */
    mn__param *bias;   /* [out] or NULL */
} mn__linear;

/* Adds prefix + ".weight" ~ N(0, deviation^2) and, if asked for, ".bias" = 0. */
mn_status mn__linear_create(mn__linear *linear, mn__params *params, const char *prefix, int64_t in,
                            int64_t out, bool bias, float deviation, mn_error *error);
/* activation(x W^T + b), [..., out] in the compute type. */
mn__var *mn__linear_forward(const mn__linear *linear, mn__tape *tape, mn__var *x,
                            mn__activation activation);

#endif
