/* Random numbers as a pure function of a key and a counter (Philox4x32-10,
 * Salmon et al. 2011): element n of operation k at step s is the same however
 * the work is split, so that a recomputed block draws the same numbers. */
#ifndef MN__BASE_RANDOM_H
#define MN__BASE_RANDOM_H

#include <stdint.h>

typedef struct mn__random_key {
    uint64_t seed;      /* the run's */
    uint64_t step;      /* the update's number */
    uint32_t operation; /* which draw within the step */
} mn__random_key;

/* Four 32-bit words for counter `index`. */
void mn__random_block(mn__random_key key, uint64_t index, uint32_t out[4]);
/* Uniform in [0, 1), 24 bits; normal with mean 0 and deviation 1; in 0..n-1. */
float mn__random_uniform(mn__random_key key, uint64_t index);
float mn__random_normal(mn__random_key key, uint64_t index);
uint64_t mn__random_below(mn__random_key key, uint64_t index, uint64_t n);
/* out[0..n) from N(0, deviation^2). */
void mn__random_fill_normal(mn__random_key key, float deviation, float *out, int64_t n);
/* A permutation of 0..n-1 (Fisher-Yates). */
void mn__random_permutation(mn__random_key key, int64_t *out, int64_t n);

#endif
