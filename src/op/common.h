/* What the operations share: products of matrices, scratch, where gradients go,
 * and the wording of shape errors. */
#ifndef MN__OP_COMMON_H
#define MN__OP_COMMON_H

#include "op/op.h"

/* ---- Tensors as matrices ------------------------------------------------------- */

/* A contiguous matrix. */
mn__matrix mn__op_flat(void *data, mn__dtype dtype, int64_t rows, int64_t columns);

int64_t mn__op_width(const mn__tensor *tensor); /* the last size */
int64_t mn__op_rows(const mn__tensor *tensor);  /* the product of the others */

/* ---- Kernels over tensors of one size ---------------------------------------------- */

/* b: of one size with a, or one row [C]. */
void mn__op_binary(mn__tape *tape, mn__binary operation, const mn__tensor *out, const mn__tensor *a,
                   const mn__tensor *b);

/* c (+)= a b of matrices, either one transposed. The caller may set bias,
 * activation and accumulate in what mn__op_product returns. */
typedef struct mn__factor {
    mn__matrix matrix;
    bool transposed;
} mn__factor;
mn__matmul mn__op_product(mn__factor a, mn__factor b, mn__matrix c);
void mn__op_multiply_matrices(mn__tape *tape, const mn__matmul *call);

/* ---- Scratch --------------------------------------------------------------------------- */

/* A contiguous tensor of the size of `like`; data is NULL when memory is
 * short: in a backward function's scratch, or in the step's values. */
mn__tensor mn__op_scratch(mn__tape *tape, mn__dtype dtype, const mn__tensor *like);
mn__tensor mn__op_keep(mn__tape *tape, mn__dtype dtype, const mn__tensor *like);
/* In backward: `count` times factor * scalar[0], without reading it here. */
float *mn__op_repeat(mn__tape *tape, const float *scalar, float factor, int64_t count);

/* Where a kernel puts the gradient of a var: in its own memory where that suits
 * the kernel, else in scratch that mn__op_target_finish brings there. */
typedef struct mn__op_target {
    mn__tensor gradient; /* for the kernel; data is NULL when memory is short */
    mn__tensor place;    /* the var's own memory; data is NULL where none is wanted */
    bool accumulate;     /* place holds something already */
    bool scratch;
} mn__op_target;
/* For a kernel that sets, also what nobody wants. */
mn__op_target mn__op_target_set(mn__tape *tape, mn__var *var);
/* Moves a target to contiguous scratch of its own, to be set; false when memory
 * is short. */
bool mn__op_target_apart(mn__tape *tape, mn__op_target *target);
/* For a kernel that adds to contiguous F32; gradient.data is NULL where none is
 * wanted. */
mn__op_target mn__op_target_float(mn__tape *tape, mn__var *var);
void mn__op_target_finish(mn__tape *tape, const mn__op_target *target);

/* ---- Inputs and errors --------------------------------------------------------------------- */

/* A var's value in the compute type: as it is, a parameter's copy, or a new
 * one; unrecorded. data is NULL when memory is short. */
mn__tensor mn__op_in_compute(mn__tape *tape, const mn__var *var);
/* The same of a product's weight; of one that is packed *packed and the sizes, without data.
 * False, and the tape fails, where memory is short, or the form that it is held in does not suit
 * the compute type, or a gradient would have to pass a packed one (inputs: the operation's). */
typedef struct mn__op_weight {
    mn__tensor value;
    bool packs;
    const mn__packed *packed; /* NULL on a counting device, too */
} mn__op_weight;
bool mn__op_take_weight(mn__tape *tape, const mn__var *weight, mn__var *const *inputs, int count,
                        mn__op_weight *taken);
/* x as a contiguous tensor of a type, by recorded copies where it is not. */
mn__var *mn__op_contiguous(mn__tape *tape, mn__var *x, mn__dtype dtype);

/* Fails the tape: "linear: x is [2, 3], weight is [4, 5]". */
mn__var *mn__op_fail_sizes(mn__tape *tape, const char *operation, const char *hint,
                           const char *a_name, const mn__tensor *a, const char *b_name,
                           const mn__tensor *b);
/* Fails the tape if an index is not below `limit`; negative ones pass. */
bool mn__op_check_index(mn__tape *tape, const char *operation, const int32_t *index, int64_t count,
                        int64_t limit);
/* Keeps what was chosen, or puts in its place what was kept of another run: see
 * tape->choices. False, and the tape fails, where there is no room. */
bool mn__op_replay(mn__tape *tape, const char *operation, int32_t *indices, int64_t count);

#endif
