/* Batched products of two vars.
 *
 *   y = a b:    da = dy b^T, db = a^T dy
 *   y = a b^T:  da = dy b,   db = dy^T a */
#include "op/common.h"

typedef struct matmul_record {
    mn__record record;
    mn__var *a, *b;
    bool transposed;
} matmul_record;

static mn__operand operand(const mn__tensor *x, bool transposed)
{
    int64_t row = x->stride[x->rank - 2];
    mn__operand operand = {.data = x->data,
                           .dtype = x->dtype,
                           .row = transposed ? 1 : row,
                           .column = transposed ? row : 1};
    for (int axis = 0; axis < x->rank - 2; axis++)
        operand.outer[axis + 4 - x->rank] = x->stride[axis];
    return operand;
}

/* c = a b (+ c), each of a and b transposed or not. */
static void multiply(mn__tape *tape, const mn__tensor *c, const mn__tensor *a, bool a_transposed,
                     const mn__tensor *b, bool b_transposed, bool accumulate)
{
    mn__queue *queue = &tape->device->queue;
    int last = c->rank - 1;
    mn__matmul call = {.batch = {1, 1},
                       .m = c->size[last - 1],
                       .n = c->size[last],
                       .k = a->size[a_transposed ? last - 1 : last],
                       .a = operand(a, a_transposed),
                       .b = operand(b, b_transposed),
                       .c = c->data,
                       .c_dtype = c->dtype,
                       .c_row = c->stride[last - 1],
                       .accumulate = accumulate};
    for (int axis = 0; axis < last - 1; axis++) {
        call.batch[axis + 3 - last] = c->size[axis];
        call.c_outer[axis + 3 - last] = c->stride[axis];
    }
    queue->kernels->matmul(queue, &call);
}

static void matmul_backward(mn__tape *tape, mn__record *base)
{
    matmul_record *record = (matmul_record *)base;
    const mn__tensor *a = &record->a->value, *b = &record->b->value;
    mn__tensor dy = mn__tape_gradient_of(tape, base->out), target;
    bool accumulate;
    if (mn__tape_gradient(tape, record->a, &target, &accumulate))
        multiply(tape, &target, &dy, false, b, !record->transposed, accumulate);
    if (!mn__tape_gradient(tape, record->b, &target, &accumulate))
        return;
    if (record->transposed)
        multiply(tape, &target, &dy, true, a, false, accumulate);
    else
        multiply(tape, &target, a, true, &dy, false, accumulate);
}

static bool check(mn__tape *tape, const mn__tensor *a, const mn__tensor *b, bool transposed)
{
    int last = a->rank - 1;
    bool fits = a->rank >= 2 && a->rank == b->rank &&
                a->size[last] == b->size[transposed ? last : last - 1];
    for (int axis = 0; fits && axis < last - 1; axis++)
        fits = a->size[axis] == b->size[axis];
    if (!fits)
        mn__op_fail_sizes(tape, transposed ? "matmul (b transposed)" : "matmul",
                          "a [..., M, K] by b [..., K, N], or [..., N, K] transposed, with equal "
                          "leading sizes",
                          "a", a, "b", b);
    return fits;
}

mn__var *mn__op_matmul(mn__tape *tape, mn__var *a, mn__var *b, bool transposed)
{
    a = mn__op_cast(tape, a, tape->compute);
    b = mn__op_cast(tape, b, tape->compute);
    if (!a || !b || !check(tape, &a->value, &b->value, transposed))
        return NULL;
    int last = a->value.rank - 1;
    mn__tensor size = a->value;
    size.size[last] = b->value.size[transposed ? last - 1 : last];
    mn__var *out = mn__tape_new(tape, tape->compute, size.rank, size.size);
    if (!out)
        return NULL;
    multiply(tape, &out->value, &a->value, false, &b->value, transposed, false);
    if (!mn__tape_wants(tape, (mn__var *const[]){a, b}, 2))
        return out;
    matmul_record *record = mn__tape_record(tape, sizeof *record, out, matmul_backward);
    if (!record)
        return NULL;
    record->a = a;
    record->b = b;
    record->transposed = transposed;
    return out;
}
