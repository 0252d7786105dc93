/* Choosing the next token. With logits l and temperature t > 0:
 *
 *   p = softmax(l / t)
 *   top-k   keeps the k most probable (of equals, those of lower id)
 *   top-p   of these, renormalised, the fewest most probable whose sum is >= top_p
 *           (Holtzman et al. 2020)
 *   min-p   of these, those with p >= min_p * max p (Nguyen et al. 2024)
 *
 * and draws from what is kept. Temperature 0 takes the most probable. The n-th
 * draw is a function of the seed and n. */
#ifndef MN__EVAL_SAMPLE_H
#define MN__EVAL_SAMPLE_H

#include "base/error.h"

typedef struct mn__sample_options {
    double temperature;
    int64_t top_k; /* 0: all */
    double top_p;  /* 1: all */
    double min_p;  /* 0: all */
    int64_t seed;
} mn__sample_options;

typedef struct mn__candidate {
    int32_t id;
    double p; /* sums to 1 over what is kept */
} mn__candidate;

typedef struct mn__sampler {
    mn__sample_options options;
    int64_t vocabulary, drawn;
    mn__candidate *candidate; /* [vocabulary] */
} mn__sampler;

mn_status mn__sampler_open(mn__sampler *sampler, const mn__sample_options *options,
                           int64_t vocabulary, mn_error *error);
void mn__sampler_close(mn__sampler *sampler);
/* What is kept, in sampler->candidate; how many. By top-k or top-p, the most probable
 * first; else by ids: a vocabulary is not sorted for a draw. 0 where the logits hold NaN
 * or +infinity, or nothing but -infinity. */
int64_t mn__sampler_keep(mn__sampler *sampler, const float *logits);
/* The next token, or -1 where nothing is kept. */
int32_t mn__sampler_next(mn__sampler *sampler, const float *logits);

#endif
