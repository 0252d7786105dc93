/* Learning-rate schedules: the rate at step t = 1, 2, ..., with warm-up of w
 * steps to the peak p, over N steps, to the final rate f:
 *
 *   warm-up           start + (p - start) t / w for t <= w
 *   constant          p
 *   cosine            f + (p - f) (1 + cos(pi (t - w) / (N - w))) / 2, f from N on
 *   rsqrt             p / sqrt(max(t, w)) min(1, t / w): p is the rate at t = 1 without warm-up
 *   rsqrt_normalized  p sqrt(w / max(t, w)): flat up to w, no warm-up
 *                     (Memorizing and Block-Recurrent Transformers: p 0.01, w 10,000) */
#ifndef MN__OPTIM_SCHEDULE_H
#define MN__OPTIM_SCHEDULE_H

#include "base/options.h"

typedef enum mn__schedule_type {
    MN__SCHEDULE_CONSTANT,
    MN__SCHEDULE_COSINE,
    MN__SCHEDULE_RSQRT,
    MN__SCHEDULE_RSQRT_NORMALIZED
} mn__schedule_type;

/* The recipe's `schedule:` section. */
typedef struct mn__schedule_options {
    int type; /* mn__schedule_type */
    double rate, start, final;
    int64_t warmup, steps;
} mn__schedule_options;
extern const mn__option mn__schedule_option_table[];

/* Options that contradict each other are MN_ERROR_OPTION. */
mn_status mn__schedule_check(const mn__schedule_options *options, mn_error *error);
/* The rate at step t >= 1 (beyond `steps`: the last). */
double mn__schedule_rate(const mn__schedule_options *options, int64_t t);

#endif
