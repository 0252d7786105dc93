/* A norm over the model's width: layer norm, or RMS norm without a bias. */
#ifndef MN__NN_NORM_H
#define MN__NN_NORM_H

#include "op/op.h"

typedef struct mn__norm {
    mn__norm_kind kind;
    float epsilon;
    mn__param *gain, *bias; /* [C]; bias NULL for RMS */
} mn__norm;

/* Adds prefix + ".gain" = 1 and, for a layer norm, ".bias" = 0. */
mn_status mn__norm_create(mn__norm *norm, mn__params *params, const char *prefix,
                          mn__norm_kind kind, int64_t width, float epsilon, mn_error *error);
mn__var *mn__norm_forward(const mn__norm *norm, mn__tape *tape, mn__var *x, mn__dtype out);

#endif
