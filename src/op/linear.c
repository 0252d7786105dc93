/* Linear layers: y = f(x W^T + b), one product of all rows.
 *
 *   p = x W^T + b,  y = f(p)
 *   dp = f'(p) dy;  dx = dp W;  dW += dp^T x;  db += sum of dp's rows
 *
 * The same weight from its other side is y = x W: dx = dy W^T, dW += x^T dy.
 *
 * Without recording, bias and activation are part of the product. With it, p is
 * kept where f' needs it, rounded to the compute type; ReLU's slope can be read
 * from y. */
#include "op/common.h"

typedef struct linear_record {
    mn__record record;
    mn__var *x, *weight, *bias;
    mn__tensor input;   /* x in the compute type, [..., in] */
    mn__tensor weights; /* W in it, [out, in] */
    mn__tensor before;  /* p [..., out], or y for ReLU */
    mn__activation activation;
    bool other_side; /* W is [in, out] */
} linear_record;

/* ---- Backward -------------------------------------------------------------------- */

/* dx [..., in] (+)= dp [..., out] W, or dp W^T */
static void input_gradient(mn__tape *tape, const linear_record *record, const mn__tensor *dp)
{
    mn__tensor dx;
    bool accumulate;
    if (!mn__tape_gradient(tape, record->x, &dx, &accumulate))
        return;
    int64_t count = mn__tensor_matrices(&dx);
    for (int64_t n = 0; n < count; n++) {
        mn__factor rows = {mn__tensor_matrix_of(dp, count, n), false};
        mn__factor weight = {mn__tensor_matrix(&record->weights, 0), record->other_side};
        mn__matmul product = mn__op_product(rows, weight, mn__tensor_matrix(&dx, n));
        product.accumulate = accumulate;
        mn__op_multiply_matrices(tape, &product);
    }
}

/* dW (+)= dp^T x, or x^T dp */
static void weight_gradient(mn__tape *tape, const linear_record *record, const mn__tensor *dp)
{
    mn__tensor dw;
    bool accumulate;
    if (!mn__tape_gradient(tape, record->weight, &dw, &accumulate))
        return;
    int64_t count = mn__tensor_matrices(&record->input);
    for (int64_t n = 0; n < count; n++) {
        mn__matrix slope = mn__tensor_matrix_of(dp, count, n);
        mn__matrix input = mn__tensor_matrix(&record->input, n);
        mn__factor left = {record->other_side ? input : slope, true};
        mn__factor right = {record->other_side ? slope : input, false};
        mn__matmul product = mn__op_product(left, right, mn__tensor_matrix(&dw, 0));
        product.accumulate = accumulate || n > 0;
        mn__op_multiply_matrices(tape, &product);
    }
}

static void bias_gradient(mn__tape *tape, const linear_record *record, const mn__tensor *dp)
{
    mn__queue *queue = &tape->device->queue;
    mn__op_target db = mn__op_target_float(tape, record->bias);
    if (!db.gradient.data)
        return;
    queue->kernels->sum_rows(queue, db.gradient.data, mn__tensor_matrix(dp, 0));
    mn__op_target_finish(tape, &db);
}

static void linear_backward(mn__tape *tape, mn__record *base)
{
    linear_record *record = (linear_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor dp = mn__tape_gradient_of(tape, base->out);
    if (record->activation != MN__LINEAR) {
        mn__tensor dy = dp;
        dp = mn__op_scratch(tape, dy.dtype, &dy);
        if (!dp.data)
            return;
        queue->kernels->activate_backward(queue, record->activation, mn__tensor_matrix(&dp, 0),
                                          false, mn__tensor_matrix(&record->before, 0),
                                          mn__tensor_matrix(&dy, 0));
    }
    input_gradient(tape, record, &dp);
    weight_gradient(tape, record, &dp);
    bias_gradient(tape, record, &dp);
}

/* ---- Forward ----------------------------------------------------------------------- */

static bool check(mn__tape *tape, const mn__var *x, const mn__var *weight, const mn__var *bias)
{
    const char *hint = "weight is [out, in], x is [..., in], bias is [out]";
    if (weight->value.rank != 2 || mn__op_width(&x->value) != weight->value.size[1])
        mn__op_fail_sizes(tape, "linear", hint, "x", &x->value, "weight", &weight->value);
    else if (bias && (bias->value.rank != 1 || bias->value.size[0] != weight->value.size[0]))
        mn__op_fail_sizes(tape, "linear", hint, "bias", &bias->value, "weight", &weight->value);
    else
        return true;
    return false;
}

/* out [..., n] = activation(x [..., k] weights^T + bias), or x weights */
static void forward(mn__tape *tape, const mn__tensor *out, const mn__tensor *input,
                    const mn__op_weight *weights, bool other_side, const mn__var *bias,
                    mn__activation activation)
{
    int64_t count = mn__tensor_matrices(input);
    for (int64_t n = 0; n < count; n++) {
        mn__factor rows = {mn__tensor_matrix(input, n), false};
        mn__factor weight = {mn__tensor_matrix(&weights->value, 0), !other_side};
        mn__matmul product = mn__op_product(rows, weight, mn__tensor_matrix_of(out, count, n));
        product.packed = weights->packed;
        product.bias = bias ? bias->value.data : NULL;
        product.activation = activation;
        mn__op_multiply_matrices(tape, &product);
    }
}

/* A copy of `what` as the operation's record; returns out, or NULL. */
static mn__var *remember(mn__tape *tape, mn__var *out, const linear_record *what)
{
    linear_record *record = mn__tape_record(tape, sizeof *record, out, linear_backward);
    if (!record)
        return NULL;
    mn__record base = record->record;
    *record = *what;
    record->record = base;
    return out;
}

mn__var *mn__op_linear(mn__tape *tape, mn__var *x, mn__var *weight, mn__var *bias,
                       mn__activation activation)
{
    if (bias && bias->value.dtype != MN__F32)
        bias = mn__op_cast(tape, bias, MN__F32);
    if (!x || !weight || !check(tape, x, weight, bias))
        return NULL;
    int64_t size[MN__RANK_MAX];
    for (int axis = 0; axis < x->value.rank; axis++)
        size[axis] = x->value.size[axis];
    size[x->value.rank - 1] = weight->value.size[0];
    mn__var *out = mn__tape_new(tape, tape->compute, x->value.rank, size);
    mn__tensor input = mn__op_in_compute(tape, x);
    mn__op_weight weights;
    if (!out || !input.data ||
        !mn__op_take_weight(tape, weight, (mn__var *const[]){x, bias}, 2, &weights))
        return NULL;

    bool wants = mn__tape_wants(tape, (mn__var *const[]){x, weight, bias}, 3);
    bool from_output = activation == MN__LINEAR || activation == MN__RELU;
    mn__tensor before = out->value;
    if ((wants || tape->rehearsing) && !from_output) {
        before = mn__op_keep(tape, tape->compute, &out->value);
        if (!before.data)
            return NULL;
        mn__queue *queue = &tape->device->queue;
        forward(tape, &before, &input, &weights, false, bias, MN__LINEAR);
        queue->kernels->activate(queue, activation, mn__tensor_matrix(&out->value, 0),
                                 mn__tensor_matrix(&before, 0));
    } else {
        forward(tape, &out->value, &input, &weights, false, bias, activation);
    }
    if (!wants)
        return out;
    return remember(tape, out,
                    &(linear_record){.x = x,
                                     .weight = weight,
                                     .bias = bias,
                                     .input = input,
                                     .weights = weights.value,
                                     .before = before,
                                     .activation = activation});
}

mn__var *mn__op_linear_other_side(mn__tape *tape, mn__var *x, mn__var *weight)
{
    if (!x || !weight)
        return NULL;
    if (weight->value.rank != 2 || mn__op_width(&x->value) != weight->value.size[0])
        return mn__op_fail_sizes(tape, "linear (other side)", "weight is [in, out], x is [..., in]",
                                 "x", &x->value, "weight", &weight->value);
    mn__tensor size = x->value;
    size.size[size.rank - 1] = weight->value.size[1];
    mn__var *out = mn__tape_new(tape, tape->compute, size.rank, size.size);
    mn__tensor input = mn__op_in_compute(tape, x);
    mn__op_weight weights = {.value = mn__op_in_compute(tape, weight)};
    if (!out || !input.data || !weights.value.data)
        return NULL;
    forward(tape, &out->value, &input, &weights, true, NULL, MN__LINEAR);
    if (!mn__tape_wants(tape, (mn__var *const[]){x, weight}, 2))
        return out;
    return remember(tape, out,
                    &(linear_record){.x = x,
                                     .weight = weight,
                                     .input = input,
                                     .weights = weights.value,
                                     .activation = MN__LINEAR,
                                     .other_side = true});
}
