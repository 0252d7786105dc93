/* Frequencies of rotary positions (Su et al. 2021), and the ways in which models are
 * stretched beyond the length they were trained at. With d elements that turn, base b,
 * pair i = 0 .. d / 2 - 1, factor f and the length L0 of the first training:
 *
 *   w_i = b^(-2 i / d), and
 *   linear    w_i / f                                          (Chen et al. 2023)
 *   ntk       b' = b f^(d / (d - 2))                           (bloc97 2023)
 *   dynamic   b' = b (f L / L0 - (f - 1))^(d / (d - 2)), L = max(planned length, L0)
 *   llama3    w_i where 2 pi / w_i < L0 / high, w_i / f where it is > L0 / low, and in
 *             between (1 - s) w_i / f + s w_i, s = (L0 w_i / (2 pi) - low) / (high - low)
 *   yarn      w_i (1 - r_i) + (w_i / f) r_i, r_i = clip((i - from) / (to - from), 0, 1),
 *             where pair `from` turns `fast` times over L0 tokens and `to` turns `slow`
 *             times; cos and sin times 0.1 ln f + 1            (Peng et al. 2023)
 *   longrope  w_i / e_i, e the short factors for a planned length of up to L0, else the
 *             long ones; cos and sin times sqrt(1 + ln f / ln L0)  (Ding et al. 2024)
 *
 * The planned length is that of the document to be read: frequencies that depend on it are
 * fixed once, as keys in a cache are turned by them. Turning itself is op/rope.c. */
#ifndef MN__NN_ROPE_H
#define MN__NN_ROPE_H

#include "op/op.h"

typedef enum mn__rope_scaling {
    MN__ROPE_NONE,
    MN__ROPE_LINEAR,
    MN__ROPE_NTK,
    MN__ROPE_DYNAMIC,
    MN__ROPE_LLAMA3,
    MN__ROPE_YARN,
    MN__ROPE_LONGROPE
} mn__rope_scaling;

typedef struct mn__rope_options {
    double base;
    int64_t width;    /* d: elements of a head that turn, the first ones; even */
    bool interleaved; /* pairs are (2 i, 2 i + 1), not (i, i + d / 2) */
    mn__rope_scaling scaling;
    double factor;    /* f */
    int64_t original; /* L0 */
    int64_t length;   /* L: tokens planned for; 0: L0 */
    double magnitude; /* cos and sin times this; 0: as the scaling has it */
    double fast, slow;
    bool truncate; /* yarn's `from` is rounded down, `to` up */
    double low, high;
    const double *short_factors, *long_factors; /* [d / 2] */
} mn__rope_options;

/* Frequencies in the arena. Errors name the options as recipes do ("model.rope_factor"). */
mn_status mn__rope_create(mn__rope *rope, mn__arena *arena, const mn__rope_options *options,
                          mn_error *error);

#endif
