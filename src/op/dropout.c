/* Dropout (Srivastava et al. 2014), scaled while training. What is kept is a
 * function of the random key and the element, so that backward draws it again. */
#include "op/common.h"

typedef struct dropout_record {
    mn__record record;
    mn__var *x;
    float p;
    mn__random_key key;
    int64_t count; /* matrices, each with a draw of its own */
} dropout_record;

static void drop(mn__tape *tape, const mn__tensor *out, const mn__tensor *in, int64_t count,
                 float p, mn__random_key key)
{
    mn__queue *queue = &tape->device->queue;
    for (int64_t n = 0; n < count; n++, key.operation++)
        queue->kernels->dropout(queue, mn__tensor_matrix_of(out, count, n),
                                mn__tensor_matrix_of(in, count, n), p, key);
}

static void dropout_backward(mn__tape *tape, mn__record *base)
{
    dropout_record *record = (dropout_record *)base;
    mn__tensor dy = mn__tape_gradient_of(tape, base->out);
    mn__op_target dx = mn__op_target_set(tape, record->x);
    if (!dx.gradient.data)
        return;
    bool fits = record->count % mn__tensor_matrices(&dx.gradient) == 0;
    if (!fits && !mn__op_target_apart(tape, &dx)) /* x's place has gaps that x has not */
        return;
    drop(tape, &dx.gradient, &dy, record->count, record->p, record->key);
    mn__op_target_finish(tape, &dx);
}

mn__var *mn__op_dropout(mn__tape *tape, mn__var *x, float p)
{
    if (!x || !tape->training || p == 0)
        return x;
    mn__var *out = mn__tape_new(tape, x->value.dtype, x->value.rank, x->value.size);
    if (!out)
        return NULL;
    mn__random_key key = tape->random;
    int64_t count = mn__tensor_matrices(&x->value);
    tape->random.operation += (uint32_t)count;
    drop(tape, &out->value, &x->value, count, p, key);
    if (!mn__tape_wants(tape, &x, 1))
        return out;
    dropout_record *record = mn__tape_record(tape, sizeof *record, out, dropout_backward);
    if (!record)
        return NULL;
    record->x = x;
    record->p = p;
    record->key = key;
    record->count = count;
    return out;
}
