/* Activations and gated forms (Shazeer 2020), element by element, in the
 * compute type. */
#include "op/common.h"

typedef struct activation_record {
    mn__record record;
    mn__activation activation;
    mn__var *x, *up; /* up: the gated form's other factor */
} activation_record;

/* ---- activation(x) ------------------------------------------------------------- */

static void activate_backward(mn__tape *tape, mn__record *base)
{
    activation_record *record = (activation_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor dy = mn__tape_gradient_of(tape, base->out), dx;
    const mn__tensor *x = &record->x->value;
    bool accumulate;
    if (!mn__tape_gradient(tape, record->x, &dx, &accumulate))
        return;
    int64_t count = mn__tensor_matrices_together((const mn__tensor *const[]){x, &dx}, 2);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->activate_backward(
            queue, record->activation, mn__tensor_matrix_of(&dx, count, n), accumulate,
            mn__tensor_matrix_of(x, count, n), mn__tensor_matrix_of(&dy, count, n));
}

static mn__var *recorded(mn__tape *tape, mn__var *out, mn__activation activation, mn__var *x,
                         mn__var *up, void (*backward)(mn__tape *, mn__record *))
{
    if (!mn__tape_wants(tape, (mn__var *const[]){x, up}, 2))
        return out;
    activation_record *record = mn__tape_record(tape, sizeof *record, out, backward);
    if (!record)
        return NULL;
    record->activation = activation;
    record->x = x;
    record->up = up;
    return out;
}

mn__var *mn__op_activate(mn__tape *tape, mn__activation activation, mn__var *x)
{
    if (!x)
        return NULL;
    mn__var *out = mn__tape_new(tape, tape->compute, x->value.rank, x->value.size);
    if (!out)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    int64_t count = mn__tensor_matrices(&x->value);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->activate(queue, activation, mn__tensor_matrix_of(&out->value, count, n),
                                 mn__tensor_matrix(&x->value, n));
    return recorded(tape, out, activation, x, NULL, activate_backward);
}

/* ---- activation(gate) * up ---------------------------------------------------------- */

static void gate_backward(mn__tape *tape, mn__record *base)
{
    activation_record *record = (activation_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor dy = mn__tape_gradient_of(tape, base->out);
    const mn__tensor *gate = &record->x->value, *up = &record->up->value;
    mn__op_target dgate = mn__op_target_set(tape, record->x);
    mn__op_target dup = mn__op_target_set(tape, record->up);
    if (!dgate.gradient.data || !dup.gradient.data)
        return;
    int64_t count = mn__tensor_matrices_together(
        (const mn__tensor *const[]){gate, up, &dgate.gradient, &dup.gradient}, 4);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->gate_backward(
            queue, record->activation, mn__tensor_matrix_of(&dgate.gradient, count, n),
            mn__tensor_matrix_of(&dup.gradient, count, n), mn__tensor_matrix_of(gate, count, n),
            mn__tensor_matrix_of(up, count, n), mn__tensor_matrix_of(&dy, count, n));
    mn__op_target_finish(tape, &dgate);
    mn__op_target_finish(tape, &dup);
}

mn__var *mn__op_gate(mn__tape *tape, mn__activation activation, mn__var *gate, mn__var *up)
{
    if (!gate || !up)
        return NULL;
    if (!mn__tensor_same_size(&gate->value, &up->value))
        return mn__op_fail_sizes(tape, "gate", "both factors have one size", "gate", &gate->value,
                                 "up", &up->value);
    mn__var *out = mn__tape_new(tape, tape->compute, gate->value.rank, gate->value.size);
    if (!out)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    int64_t count =
        mn__tensor_matrices_together((const mn__tensor *const[]){&gate->value, &up->value}, 2);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->gate(queue, activation, mn__tensor_matrix_of(&out->value, count, n),
                             mn__tensor_matrix_of(&gate->value, count, n),
                             mn__tensor_matrix_of(&up->value, count, n));
    return recorded(tape, out, activation, gate, up, gate_backward);
}
