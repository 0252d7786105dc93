/* What reading one text takes, before it is read: the same forward passes on a counting
 * device, chunk after chunk, with the state they leave. Training has its own
 * (train/plan.h). */
#ifndef MN__READER_PLAN_H
#define MN__READER_PLAN_H

#include "model/decoder.h"

typedef struct mn__read_plan {
    int64_t tokens, chunk;
    int64_t parameters;         /* elements */
    int64_t weights, copies;    /* bytes: as they are kept; copies of masters in bf16 */
    int64_t state;              /* of the whole text */
    int64_t state_per_thousand; /* what a thousand tokens more add */
    int64_t session;            /* of a file that the state is saved to */
    int64_t activations;        /* the most at any time */
    int64_t total;              /* of weights, copies, state and activations; kernels' scratch
                                 * comes on top */
    int64_t available;          /* what the machine or container has; -1: not known */
    double products, attention; /* FLOPs of the whole text, and the last token's logits */
} mn__read_plan;

/* decoder: on a counting device, read `chunk` tokens at a time; in its grid's parts. */
mn_status mn__read_plan_make(mn__read_plan *plan, mn__decoder *decoder, mn__params *params,
                             int64_t tokens, int64_t chunk, mn__dtype compute, mn_error *error);
/* MN_ERROR_MEMORY, with the numbers, where the reading cannot fit. */
mn_status mn__read_plan_check(const mn__read_plan *plan, mn_error *error);

#endif
