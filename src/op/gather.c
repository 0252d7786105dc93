/* Rows by index: gather and scatter, each the other's gradient, and the
 * largest of each row. */
#include "op/common.h"

typedef struct index_record {
    mn__record record;
    mn__var *x;
    const int32_t *index;
} index_record;

/* x [N, C] is one group, x [groups, N, C] several, each with indices of its own. */
static bool check_rank(mn__tape *tape, const char *operation, const mn__var *x)
{
    char sizes[64];
    if (x->value.rank == 2 || x->value.rank == 3)
        return true;
    mn__tape_fail(tape, MN_ERROR_MISMATCH, "reshape it to [rows, width] or [groups, rows, width]",
                  "%s: x is %s", operation, mn__tensor_sizes(&x->value, sizes));
    return false;
}

static int64_t groups_of(const mn__tensor *x)
{
    return x->rank == 3 ? x->size[0] : 1;
}

/* Group g of x [N, C] or [groups, N, C]. */
static mn__matrix group(const mn__tensor *x, int64_t g)
{
    mn__tensor one = x->rank == 3 ? mn__tensor_slice(x, 0, g, 1) : *x;
    return mn__tensor_matrix(&one, 0);
}

/* A var like x with other rows. */
static mn__var *with_rows(mn__tape *tape, mn__dtype dtype, const mn__tensor *x, int64_t rows)
{
    mn__tensor like = *x;
    like.size[x->rank - 2] = rows;
    return mn__tape_new(tape, dtype, like.rank, like.size);
}

/* to = from[index], group by group. */
static void gather(mn__tape *tape, const mn__tensor *to, const mn__tensor *from,
                   const int32_t *index)
{
    mn__queue *queue = &tape->device->queue;
    int64_t count = to->size[to->rank - 2];
    for (int64_t g = 0, groups = groups_of(to); g < groups; g++)
        queue->kernels->gather(queue, group(to, g), group(from, g), index + g * count, 1);
}

/* to[index] += from. */
static void scatter_add(mn__tape *tape, const mn__tensor *to, const mn__tensor *from,
                        const int32_t *index)
{
    mn__queue *queue = &tape->device->queue;
    int64_t count = from->size[from->rank - 2];
    for (int64_t g = 0, groups = groups_of(to); g < groups; g++)
        queue->kernels->scatter_add(queue, group(to, g), group(from, g), index + g * count, 1);
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
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__op_target dx = mn__op_target_float(tape, record->x);
    if (!dx.gradient.data)
        return;
    scatter_add(tape, &dx.gradient, &d, record->index);
    mn__op_target_finish(tape, &dx);
}

mn__var *mn__op_gather(mn__tape *tape, mn__var *x, const int32_t *index, int64_t count)
{
    if (!x || !check_rank(tape, "gather", x) ||
        !mn__op_check_index(tape, "gather", index, groups_of(&x->value) * count,
                            x->value.size[x->value.rank - 2]))
        return NULL;
    mn__var *out = with_rows(tape, x->value.dtype, &x->value, count);
    if (!out)
        return NULL;
    gather(tape, &out->value, &x->value, index);
    return recorded(tape, out, x, index, gather_backward);
}

/* ---- Scatter ---------------------------------------------------------------------------- */

static void scatter_backward(mn__tape *tape, mn__record *base)
{
    index_record *record = (index_record *)base;
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__op_target dx = mn__op_target_set(tape, record->x);
    if (!dx.gradient.data)
        return;
    gather(tape, &dx.gradient, &d, record->index);
    mn__op_target_finish(tape, &dx);
}

mn__var *mn__op_scatter(mn__tape *tape, mn__var *x, const int32_t *index, int64_t rows)
{
    if (!x || !check_rank(tape, "scatter", x) ||
        !mn__op_check_index(tape, "scatter", index,
                            groups_of(&x->value) * x->value.size[x->value.rank - 2], rows))
        return NULL;
    mn__var *out = with_rows(tape, MN__F32, &x->value, rows);
    if (!out)
        return NULL;
    mn__tensor_fill(&tape->device->queue, &out->value, 0);
    scatter_add(tape, &out->value, &x->value, index);
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
    if (queue->failed) { /* the indices may be anything */
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "top_k: no memory for its scratch");
        return NULL;
    }
    if (values)
        *values = largest;
    return mn__op_replay(tape, "top_k", indices, rows * k) ? indices : NULL;
}
