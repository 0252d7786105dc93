/* Sums, differences and products, element by element, of two tensors or of a
 * tensor and one row; and the product with a constant.
 *
 *   a + b: da += d, db += d;  a - b: db -= d;  a b: da += d b, db += d a
 * where db of a row is summed over all rows; and quotients of one size:
 *   y = a / b: da += d / b, db -= (d / b) y */
#include "op/common.h"

typedef struct arithmetic_record {
    mn__record record;
    mn__binary operation;
    mn__var *a, *b;
} arithmetic_record;

/* ---- Backward -------------------------------------------------------------------- */

/* var's gradient += d other */
static void contribute_product(mn__tape *tape, mn__var *var, const mn__tensor *d,
                               const mn__tensor *other)
{
    if (!var->wants_gradient)
        return;
    mn__op_target target = mn__op_target_set(tape, var);
    if (!target.gradient.data)
        return;
    mn__op_binary(tape, MN__MULTIPLY, &target.gradient, d, other);
    mn__op_target_finish(tape, &target);
}

/* db [C] += the sum of factor * d's rows, where d is d or d a. */
static void contribute_row(mn__tape *tape, const arithmetic_record *record, const mn__tensor *d)
{
    mn__queue *queue = &tape->device->queue;
    mn__op_target db = mn__op_target_float(tape, record->b);
    if (!db.gradient.data)
        return;
    mn__tensor terms = *d;
    if (record->operation != MN__ADD) {
        terms = mn__op_scratch(tape, MN__F32, d);
        if (!terms.data)
            return;
        if (record->operation == MN__MULTIPLY)
            mn__op_binary(tape, MN__MULTIPLY, &terms, d, &record->a->value);
        else
            mn__tensor_axpby(&tape->device->queue, &terms, -1, d, 0);
    }
    queue->kernels->sum_rows(queue, db.gradient.data, mn__tensor_matrix(&terms, 0));
    mn__op_target_finish(tape, &db);
}

static void arithmetic_backward(mn__tape *tape, mn__record *base)
{
    arithmetic_record *record = (arithmetic_record *)base;
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__var *a = record->a, *b = record->b;
    bool product = record->operation == MN__MULTIPLY;
    if (!mn__tensor_same_size(&a->value, &b->value))
        contribute_row(tape, record, &d);
    else if (product)
        contribute_product(tape, b, &d, &a->value);
    else
        mn__tape_contribute(tape, b, record->operation == MN__ADD ? 1 : -1, &d);
    if (product)
        contribute_product(tape, a, &d, &b->value);
    else if (!mn__tape_hand_over(base->out, a)) /* the residual stream: no copy */
        mn__tape_contribute(tape, a, 1, &d);
}

/* ---- Forward ----------------------------------------------------------------------- */

static mn__var *arithmetic(mn__tape *tape, const char *name, mn__binary operation, mn__var *a,
                           mn__var *b)
{
    if (!a || !b)
        return NULL;
    bool row = b->value.rank == 1 && b->value.size[0] == mn__op_width(&a->value);
    if (!row && !mn__tensor_same_size(&a->value, &b->value))
        return mn__op_fail_sizes(tape, name, "b has the size of a, or is one row of it", "a",
                                 &a->value, "b", &b->value);
    mn__var *out = mn__tape_new(tape, a->value.dtype, a->value.rank, a->value.size);
    if (!out)
        return NULL;
    mn__op_binary(tape, operation, &out->value, &a->value, &b->value);
    if (!mn__tape_wants(tape, (mn__var *const[]){a, b}, 2))
        return out;
    arithmetic_record *record = mn__tape_record(tape, sizeof *record, out, arithmetic_backward);
    if (!record)
        return NULL;
    record->operation = operation;
    record->a = a;
    record->b = b;
    return out;
}

mn__var *mn__op_add(mn__tape *tape, mn__var *a, mn__var *b)
{
    return arithmetic(tape, "add", MN__ADD, a, b);
}

mn__var *mn__op_subtract(mn__tape *tape, mn__var *a, mn__var *b)
{
    return arithmetic(tape, "subtract", MN__SUBTRACT, a, b);
}

mn__var *mn__op_multiply(mn__tape *tape, mn__var *a, mn__var *b)
{
    return arithmetic(tape, "multiply", MN__MULTIPLY, a, b);
}

/* ---- Divide --------------------------------------------------------------------------- */

static void divide_backward(mn__tape *tape, mn__record *base)
{
    arithmetic_record *record = (arithmetic_record *)base;
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__tensor slope = mn__op_scratch(tape, MN__F32, &d);
    if (!slope.data)
        return;
    mn__op_binary(tape, MN__DIVIDE, &slope, &d, &record->b->value);
    mn__tape_contribute(tape, record->a, 1, &slope);
    mn__op_binary(tape, MN__MULTIPLY, &slope, &slope, &base->out->value);
    mn__tape_contribute(tape, record->b, -1, &slope);
}

mn__var *mn__op_divide(mn__tape *tape, mn__var *a, mn__var *b)
{
    if (!a || !b)
        return NULL;
    if (!mn__tensor_same_size(&a->value, &b->value))
        return mn__op_fail_sizes(tape, "divide", "b has the size of a", "a", &a->value, "b",
                                 &b->value);
    mn__var *out = mn__tape_new(tape, a->value.dtype, a->value.rank, a->value.size);
    if (!out)
        return NULL;
    mn__op_binary(tape, MN__DIVIDE, &out->value, &a->value, &b->value);
    if (!mn__tape_wants(tape, (mn__var *const[]){a, b}, 2))
        return out;
    arithmetic_record *record = mn__tape_record(tape, sizeof *record, out, divide_backward);
    if (!record)
        return NULL;
    record->a = a;
    record->b = b;
    return out;
}

/* ---- Scale ---------------------------------------------------------------------------- */

typedef struct scale_record {
    mn__record record;
    mn__var *x;
    float factor;
} scale_record;

static void scale_backward(mn__tape *tape, mn__record *base)
{
    scale_record *record = (scale_record *)base;
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__tape_contribute(tape, record->x, record->factor, &d);
}

mn__var *mn__op_scale(mn__tape *tape, mn__var *x, float factor)
{
    if (!x)
        return NULL;
    mn__var *out = mn__tape_new(tape, x->value.dtype, x->value.rank, x->value.size);
    if (!out)
        return NULL;
    mn__tensor_axpby(&tape->device->queue, &out->value, factor, &x->value, 0);
    if (!mn__tape_wants(tape, &x, 1))
        return out;
    scale_record *record = mn__tape_record(tape, sizeof *record, out, scale_backward);
    if (!record)
        return NULL;
    record->x = x;
    record->factor = factor;
    return out;
}
