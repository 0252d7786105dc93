/* Rows by index: gather and scatter, each the other's gradient, and the
 * largest of each row. */
#include "op/common.h"

typedef struct index_record {
    mn__record record;
    mn__var *x;
    const int32_t *index;
} index_record;

static bool check_rank(mn__tape *tape, const char *operation, const mn__var *x)
{
    char sizes[64];
    if (x->value.rank == 2)
        return true;
    mn__tape_fail(tape, MN_ERROR_MISMATCH, "reshape it to [rows, width]", "%s: x is %s", operation,
                  mn__tensor_sizes(&x->value, sizes));
    return false;
}

static mn__var *recorded(mn__tape *tape, mn__var *out, mn__var *x, const int32_t *index,
                         void (*backward)(mn__tape *, mn__record *))
{
    if (!mn__tape_wants(tape, &x, 1))
        return out;
    index_record *record = mn__tape_record(tape, sizeof *record, out, backward);
    if (!record)
        return NULL;
    record->x = x;
    record->index = index;
    return out;
}

/* ---- Gather --------------------------------------------------------------------------- */

static void gather_backward(mn__tape *tape, mn__record *base)
{
    index_record *record = (index_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__op_target dx = mn__op_target_float(tape, record->x);
    if (!dx.gradient.data)
        return;
    queue->kernels->scatter_add(queue, mn__tensor_matrix(&dx.gradient, 0), mn__tensor_matrix(&d, 0),
                                record->index, 1);
    mn__op_target_finish(tape, &dx);
}

mn__var *mn__op_gather(mn__tape *tape, mn__var *x, const int32_t *index, int64_t count)
{
    if (!x || !check_rank(tape, "gather", x) ||
        !mn__op_check_index(tape, "gather", index, count, x->value.size[0]))
        return NULL;
    int64_t size[2] = {count, x->value.size[1]};
    mn__var *out = mn__tape_new(tape, x->value.dtype, 2, size);
    if (!out)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    queue->kernels->gather(queue, mn__tensor_matrix(&out->value, 0),
                           mn__tensor_matrix(&x->value, 0), index, 1);
    return recorded(tape, out, x, index, gather_backward);
}

/* ---- Scatter ---------------------------------------------------------------------------- */

static void scatter_backward(mn__tape *tape, mn__record *base)
{
    index_record *record = (index_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__op_target dx = mn__op_target_set(tape, record->x);
    if (!dx.gradient.data)
        return;
    queue->kernels->gather(queue, mn__tensor_matrix(&dx.gradient, 0), mn__tensor_matrix(&d, 0),
                           record->index, 1);
    mn__op_target_finish(tape, &dx);
}

mn__var *mn__op_scatter(mn__tape *tape, mn__var *x, const int32_t *index, int64_t rows)
{
    if (!x || !check_rank(tape, "scatter", x) ||
        !mn__op_check_index(tape, "scatter", index, x->value.size[0], rows))
        return NULL;
    int64_t size[2] = {rows, x->value.size[1]};
    mn__var *out = mn__tape_new(tape, MN__F32, 2, size);
    if (!out)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    mn__op_fill(tape, &out->value, 0);
    queue->kernels->scatter_add(queue, mn__tensor_matrix(&out->value, 0),
                                mn__tensor_matrix(&x->value, 0), index, 1);
    return recorded(tape, out, x, index, scatter_backward);
}

/* ---- The largest of each row ---------------------------------------------------------------- */

int32_t *mn__op_top_k(mn__tape *tape, mn__var *x, int64_t k, float **values)
{
    if (!x)
        return NULL;
    if (k < 1 || k > mn__op_width(&x->value)) {
        char sizes[64];
        mn__tape_fail(tape, MN_ERROR_MISMATCH, "k is at least 1 and at most the last dimension",
                      "top_k: the %lld largest of each row of %s", (long long)k,
                      mn__tensor_sizes(&x->value, sizes));
        return NULL;
    }
    mn__queue *queue = &tape->device->queue;
    int64_t rows = mn__op_rows(&x->value);
    int32_t *indices = mn__tape_alloc(tape, rows * k * (int64_t)sizeof *indices);
    float *largest = mn__tape_alloc(tape, rows * k * (int64_t)sizeof *largest);
    if (!indices || !largest)
        return NULL;
    for (int64_t n = 0, count = mn__tensor_matrices(&x->value); n < count; n++) {
        mn__matrix part = mn__tensor_matrix(&x->value, n);
        int64_t at = n * part.rows * k;
        queue->kernels->top_k(queue, k, largest + at, indices + at, part);
    }
    if (values)
        *values = largest;
    return indices;
}
