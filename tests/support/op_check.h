/* Checks of differentiable operations. A case describes an operation once: its
 * inputs, how to put it on a tape, and its definition in double precision. From
 * that come, for every CPU level of the machine and both compute types,
 *   - the forward result against the definition;
 *   - every input's gradient against central differences of the definition
 *     (whose own error is about 1e-9, so that bounds come from the arithmetic
 *     under test);
 *   - every allocation made to fail in turn: an error, or the right result;
 *   - the same with inputs that are views with gaps, with the operation used
 *     twice on the same vars, and with the operation recomputed in backward,
 *     which has to be equal bit for bit. */
#ifndef TESTS_SUPPORT_OP_CHECK_H
#define TESTS_SUPPORT_OP_CHECK_H

#include "op/op.h"

enum { OP_INPUTS_MAX = 16 };

typedef enum op_kind {
    OP_COMPUTE, /* an input in the compute type */
    OP_FLOAT,   /* an F32 input */
    OP_PARAM    /* a parameter, F32 */
} op_kind;

typedef struct op_input {
    op_kind kind;
    int rank;
    int64_t size[MN__RANK_MAX];
    double spread; /* deviation of the values; 0 stands for 1 */
} op_input;

typedef struct op_case {
    const char *name;
    int inputs;
    op_input input[OP_INPUTS_MAX];
    mn__var *(*build)(mn__tape *tape, mn__var *const *in, const void *context);
    void (*define)(const double *const *in, double *out, const void *context);
    const void *context;
    int64_t outputs;  /* elements of the result */
    double terms;     /* additions on the longest way of a sum: bounds rounding in F32 */
    double roundings; /* roundings to bf16 on the longest way; 0: the case is F32 alone */
    bool draws;       /* random numbers, which gaps and a second use change: without those */
} op_case;

/* Runs everything above; fails the cmocka test with the case's name. */
void op_check(const op_case *test);

/* A device at a CPU level, for tests of their own. */
void op_device_open(mn__device *device, mn__level level);
/* count values N(0, spread^2) from a seed, rounded to bf16. */
void op_random(double *out, int64_t count, double spread, uint64_t seed);

#endif
