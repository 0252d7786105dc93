/* Softmax of each row, and its slope: dx += p (d - sum p d). */
#include "op/common.h"

typedef struct softmax_record {
    mn__record record;
    mn__var *x;
} softmax_record;

static void softmax_backward(mn__tape *tape, mn__record *base)
{
    softmax_record *record = (softmax_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor d = mn__tape_gradient_of(tape, base->out), dx;
    bool accumulate;
    if (!mn__tape_gradient(tape, record->x, &dx, &accumulate))
        return;
    int64_t count = mn__tensor_matrices(&dx);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->softmax_backward(queue, mn__tensor_matrix(&dx, n), accumulate,
                                         mn__tensor_matrix_of(&base->out->value, count, n),
                                         mn__tensor_matrix_of(&d, count, n));
}

mn__var *mn__op_softmax(mn__tape *tape, mn__var *x)
{
    if (!x)
        return NULL;
    mn__var *out = mn__tape_new(tape, x->value.dtype, x->value.rank, x->value.size);
    if (!out)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    int64_t count = mn__tensor_matrices(&x->value);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->softmax(queue, mn__tensor_matrix_of(&out->value, count, n),
                                mn__tensor_matrix(&x->value, n), NULL);
    if (!mn__tape_wants(tape, &x, 1))
        return out;
    softmax_record *record = mn__tape_record(tape, sizeof *record, out, softmax_backward);
    if (!record)
        return NULL;
    record->x = x;
    return out;
}
