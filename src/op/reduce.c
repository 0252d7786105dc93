/* Sums over all elements, F32 [1].
 *
 *   sum x: dx += d;  mean x: dx += d / n;  mean x^2: dx += 2 x d / n
 * d stays on the device: it is spread by kernels, not read here. */
#include "op/common.h"

typedef struct reduce_record {
    mn__record record;
    mn__var *x;
    float factor; /* 1, 1 / n, 2 / n */
} reduce_record;

/* out[0] = factor * the sum of values[0 .. count); values[count] is scratch. */
static void sum_values(mn__tape *tape, float *out, float factor, float *values, int64_t count)
{
    mn__queue *queue = &tape->device->queue;
    mn__matrix total = mn__op_flat(values + count, MN__F32, 1, 1);
    queue->kernels->fill(queue, total, 0);
    queue->kernels->sum_rows(queue, total.data, mn__op_flat(values, MN__F32, count, 1));
    queue->kernels->axpby(queue, mn__op_flat(out, MN__F32, 1, 1), factor, total, 0);
}

static mn__var *recorded(mn__tape *tape, mn__var *out, mn__var *x, float factor,
                         void (*backward)(mn__tape *, mn__record *))
{
    if (!mn__tape_wants(tape, &x, 1))
        return out;
    reduce_record *record = mn__tape_record(tape, sizeof *record, out, backward);
    if (!record)
        return NULL;
    record->x = x;
    record->factor = factor;
    return out;
}

/* ---- Sum and mean ------------------------------------------------------------------ */

static void sum_backward(mn__tape *tape, mn__record *base)
{
    reduce_record *record = (reduce_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor d = mn__tape_gradient_of(tape, base->out), dx;
    bool accumulate;
    if (!mn__tape_gradient(tape, record->x, &dx, &accumulate))
        return;
    float *row = mn__op_repeat(tape, d.data, record->factor, mn__op_width(&dx));
    if (!row)
        return;
    int64_t count = mn__tensor_matrices(&dx);
    for (int64_t n = 0; n < count; n++) {
        mn__matrix out = mn__tensor_matrix(&dx, n);
        queue->kernels->axpby(queue, out, 1, (mn__matrix){row, MN__F32, out.rows, out.columns, 0},
                              accumulate ? 1 : 0);
    }
}

static mn__var *sum(mn__tape *tape, mn__var *x, float factor)
{
    mn__queue *queue = &tape->device->queue;
    mn__var *out = mn__tape_new(tape, MN__F32, 1, (int64_t[]){1});
    mn__arena_mark mark = mn__store_mark(&tape->values);
    int64_t C = mn__op_width(&x->value);
    float *columns = mn__tape_alloc(tape, (C + 1) * (int64_t)sizeof *columns);
    if (!out || !columns)
        return NULL;
    queue->kernels->fill(queue, mn__op_flat(columns, MN__F32, 1, C), 0);
    for (int64_t n = 0, count = mn__tensor_matrices(&x->value); n < count; n++)
        queue->kernels->sum_rows(queue, columns, mn__tensor_matrix(&x->value, n));
    sum_values(tape, out->value.data, factor, columns, C);
    mn__store_release(&tape->values, mark);
    return recorded(tape, out, x, factor, sum_backward);
}

mn__var *mn__op_sum(mn__tape *tape, mn__var *x)
{
    return x ? sum(tape, x, 1) : NULL;
}

mn__var *mn__op_mean(mn__tape *tape, mn__var *x)
{
    return x ? sum(tape, x, 1 / (float)mn__tensor_elements(&x->value)) : NULL;
}

/* ---- Mean of squares -------------------------------------------------------------------- */

static void mean_squares_backward(mn__tape *tape, mn__record *base)
{
    reduce_record *record = (reduce_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor d = mn__tape_gradient_of(tape, base->out), dx;
    const mn__tensor *x = &record->x->value;
    bool accumulate;
    if (!mn__tape_gradient(tape, record->x, &dx, &accumulate))
        return;
    int64_t count = mn__tensor_matrices_together((const mn__tensor *const[]){x, &dx}, 2);
    float *factors = mn__op_repeat(tape, d.data, record->factor, mn__op_rows(x));
    for (int64_t n = 0; n < count && factors; n++)
        queue->kernels->scale_rows(queue, mn__tensor_matrix_of(&dx, count, n), factors,
                                   mn__tensor_matrix_of(x, count, n), accumulate);
}

mn__var *mn__op_mean_squares(mn__tape *tape, mn__var *x)
{
    if (!x)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    mn__var *out = mn__tape_new(tape, MN__F32, 1, (int64_t[]){1});
    mn__arena_mark mark = mn__store_mark(&tape->values);
    int64_t rows = mn__op_rows(&x->value);
    float *squares = mn__tape_alloc(tape, (rows + 1) * (int64_t)sizeof *squares);
    if (!out || !squares)
        return NULL;
    int64_t count = mn__tensor_matrices(&x->value);
    for (int64_t n = 0; n < count; n++) {
        mn__matrix part = mn__tensor_matrix(&x->value, n);
        queue->kernels->dot_rows(queue, squares + n * part.rows, part, part);
    }
    float elements = (float)mn__tensor_elements(&x->value);
    sum_values(tape, out->value.data, 1 / elements, squares, rows);
    mn__store_release(&tape->values, mark);
    return recorded(tape, out, x, 2 / elements, mean_squares_backward);
}
