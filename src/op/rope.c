/* Rotary positions (Su et al. 2021); backward turns the other way. */
#include "op/common.h"

typedef struct rope_record {
    mn__record record;
    mn__var *x;
    const int64_t *positions;
    mn__rope rope;
} rope_record;

/* [B, T, H, D] as [B * T, H * D], where the strides allow it. */
static bool as_rows(const mn__tensor *x, mn__matrix *rows)
{
    mn__tensor flat;
    int64_t size[2] = {x->size[0] * x->size[1], x->size[2] * x->size[3]};
    if (!mn__tensor_reshape(x, 2, size, &flat))
        return false;
    *rows = mn__tensor_matrix(&flat, 0);
    return true;
}

static void turn(mn__tape *tape, mn__matrix out, mn__matrix in, int64_t heads,
                 const int64_t *positions, const mn__rope *rope, float sign)
{
    mn__queue *queue = &tape->device->queue;
    queue->kernels->rope(queue, out, in, heads, rope->pairs, positions, rope->frequencies,
                         rope->interleaved, rope->magnitude, sign);
}

static void rope_backward(mn__tape *tape, mn__record *base)
{
    rope_record *record = (rope_record *)base;
    mn__tensor dy = mn__tape_gradient_of(tape, base->out);
    mn__op_target dx = mn__op_target_set(tape, record->x);
    mn__matrix in, out;
    if (!dx.gradient.data)
        return;
    as_rows(&dy, &in);
    if (!as_rows(&dx.gradient, &out)) { /* the gradient's place has gaps that x has not */
        if (!mn__op_target_apart(tape, &dx))
            return;
        as_rows(&dx.gradient, &out);
    }
    turn(tape, out, in, dy.size[2], record->positions, &record->rope, -1);
    mn__op_target_finish(tape, &dx);
}

mn__var *mn__op_rope(mn__tape *tape, mn__var *x, const int64_t *positions, const mn__rope *rope)
{
    if (!x)
        return NULL;
    if (x->value.rank != 4 || 2 * rope->pairs > x->value.size[3]) {
        char sizes[64];
        return mn__tape_fail(tape, MN_ERROR_MISMATCH,
                             "x is [rows, tokens, heads, width], and two elements make a pair",
                             "rope: %lld pairs in %s", (long long)rope->pairs,
                             mn__tensor_sizes(&x->value, sizes));
    }
    mn__matrix in;
    if (!as_rows(&x->value, &in)) {
        if (!(x = mn__op_concat(tape, 0, &x, 1)))
            return NULL;
        as_rows(&x->value, &in);
    }
    mn__var *out = mn__tape_new(tape, x->value.dtype, 4, x->value.size);
    if (!out)
        return NULL;
    turn(tape, mn__op_flat(out->value.data, in.dtype, in.rows, in.columns), in, x->value.size[2],
         positions, rope, 1);
    if (!mn__tape_wants(tape, &x, 1))
        return out;
    rope_record *record = mn__tape_record(tape, sizeof *record, out, rope_backward);
    if (!record)
        return NULL;
    record->x = x;
    record->positions = positions;
    record->rope = *rope;
    return out;
}
