/* The plan: what a run needs, before it starts. The same step that would train
 * runs on a counting device until its memory is as full as it gets; a memory that
 * takes more than 4096 steps to fill is not waited for, with a warning. */
#ifndef MN__TRAIN_PLAN_H
#define MN__TRAIN_PLAN_H

#include "tensor/device.h"
#include "train/recipe.h"

typedef struct mn__plan {
    int64_t parameters;         /* elements */
    int64_t attentions;         /* attention sublayers, of all layers */
    int64_t weights, gradients; /* bytes: master values, buffers, and what layers tabulate
                                 * (sinusoids of distances); gradients */
    int64_t copies;             /* of weights in bf16 */
    int64_t moments;            /* the optimiser's */
    int64_t states;             /* the attention's, of all rows, training and validation */
    int64_t activations;        /* the largest of any step, gradients on the tape with them */
    int64_t total;              /* of all these; kernels' scratch comes on top */
    int64_t available;          /* what the machine or container has; -1: not known */
    int64_t state_row;          /* bytes of state of one row of training */
    int64_t state_per_thousand; /* what a thousand tokens more add to a row that keeps all */
    int64_t tokens;             /* of a step */
    double products, attention; /* FLOPs of a step */
    double peak;                /* FLOP/s of a large product; 0: not measured */
    double seconds;             /* of a step at that peak: the least it can take; 0: not known */
} mn__plan;

/* The ids of the tokenizer that a recipe names: of its prepared data set, where
 * there is one, else of `bytes`, data.train_vocab or a tokenizer's files. One that
 * is only learned from the data is MN_ERROR_OPTION. */
mn_status mn__plan_vocabulary(const mn__recipe *recipe, int64_t *vocabulary, mn_error *error);

/* device: where the peak is measured (some tenths of a second); NULL: it is not. */
mn_status mn__plan_make(mn__plan *plan, const mn__recipe *recipe, int64_t vocabulary,
                        mn__device *device, mn_error *error);
/* MN_ERROR_MEMORY, with the numbers, where the run cannot fit. */
mn_status mn__plan_check(const mn__plan *plan, mn_error *error);

/* FLOP/s of a packed 2048^3 product, or of a smaller one where that is slow; 0
 * when memory is short. */
double mn__peak_measure(mn__device *device, mn__dtype dtype);
/* The precision that `auto` means on this machine. */
mn__precision mn__precision_best(const mn__device *device);

#endif
