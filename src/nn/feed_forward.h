/* The feed-forward sublayer: down(dropout(f(up(x)))), or gated,
 * down(dropout(f(gate(x)) * up(x))): SwiGLU with silu, GEGLU with gelu
 * (Shazeer 2020). */
#ifndef MN__NN_FEED_FORWARD_H
#define MN__NN_FEED_FORWARD_H

#include "nn/linear.h"

typedef struct mn__feed_forward {
    mn__activation activation;
    bool gated;
    float dropout;
    mn__linear up;   /* [F, C]; gated: [2 F, C], the gate's rows first */
    mn__linear down; /* [C, F] */
} mn__feed_forward;

mn_status mn__feed_forward_create(mn__feed_forward *layer, mn__params *params, const char *prefix,
                                  int64_t width, int64_t hidden, mn__activation activation,
                                  bool gated, bool bias, float deviation, mn_error *error);
/* h [..., C] in the compute type to the same. */
mn__var *mn__feed_forward_forward(const mn__feed_forward *layer, mn__tape *tape, mn__var *h);

#endif
