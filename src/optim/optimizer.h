/* Optimisers: gradients in, weights changed, moments kept.
 *
 *   adam       Kingma and Ba 2015
 *   adamw      Loshchilov and Hutter 2019: decay apart from the gradient, times the rate
 *   adafactor  Shazeer and Stern 2018, as Tensor2Tensor has it (see adafactor.c)
 *
 * Not here: which rate at which step (schedule.h), clipping (clip.h). */
#ifndef MN__OPTIM_OPTIMIZER_H
#define MN__OPTIM_OPTIMIZER_H

#include "base/options.h"
#include "base/safetensors.h"
#include "tensor/param.h"

typedef enum mn__optimizer_type {
    MN__OPTIMIZER_ADAM,
    MN__OPTIMIZER_ADAMW,
    MN__OPTIMIZER_ADAFACTOR
} mn__optimizer_type;

/* The recipe's `optimizer:` section. */
typedef struct mn__optimizer_options {
    int type;                     /* mn__optimizer_type */
    double beta1, beta2, epsilon; /* adam, adamw */
    double decay;                 /* adamw */
    bool decay_vectors;           /* not matrices alone */
    int64_t factor_from;          /* adafactor: both sizes of a factored matrix */
    double momentum;              /* adafactor: 0 for none */
    double decay_power;           /* adafactor: beta2 = 1 - t^-power */
} mn__optimizer_options;
extern const mn__option mn__optimizer_option_table[];

/* Options that contradict each other are MN_ERROR_OPTION. */
mn_status mn__optimizer_check(const mn__optimizer_options *options, mn_error *error);

/* What is kept for one parameter; NULL where its optimiser has no such moment. */
typedef struct mn__moments {
    float *first;          /* of the value's size: Adam's m, Adafactor's momentum */
    float *second;         /* of the value's size: the squares' mean */
    float *rows, *columns; /* a factored matrix [n, m]: [n], [m] */
} mn__moments;

typedef struct mn__optimizer {
    mn__optimizer_options options;
    mn__params *params;
    mn__arena nodes;
    mn__store store;
    mn__moments *moments; /* [params->count]; nothing for buffers */
    double *scratch;      /* adafactor: sums per row */
    float *row_scale, *column_scale;
    int64_t updates; /* done so far: t */
} mn__optimizer;

/* Moments of zero for every parameter there is. MN_ERROR_MEMORY. */
mn_status mn__optimizer_open(mn__optimizer *optimizer, mn__params *params,
                             const mn__optimizer_options *options, mn_error *error);
void mn__optimizer_close(mn__optimizer *optimizer);

/* One update at a rate, with every gradient times `gradient_scale`. A parameter
 * whose gradient was not set counts as having one of zeros. */
void mn__optimizer_update(mn__optimizer *optimizer, double rate, double gradient_scale);

/* The moments as named tensors "optimizer.<parameter>.first", .second, .rows and
 * .columns that point into the optimiser; *tensors is an array in `arena`. */
mn_status mn__optimizer_list(const mn__optimizer *optimizer, mn__arena *arena,
                             mn__safetensor **tensors, int64_t *count, mn_error *error);
/* Reads them again: all must be there, of their size. `updates` is the caller's. */
mn_status mn__optimizer_load(mn__optimizer *optimizer, const mn__safetensors *file,
                             mn_error *error);

/* adafactor.c */
void mn__adafactor_update(mn__optimizer *optimizer, mn__param *param, mn__moments *moments,
                          double rate, double gradient_scale);

#endif
