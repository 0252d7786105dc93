/* What the operations share. */
#include "op/common.h"

#include <assert.h>
#include <string.h>

/* ---- Tensors as matrices ------------------------------------------------------- */

mn__matrix mn__op_flat(void *data, mn__dtype dtype, int64_t rows, int64_t columns)
{
    return (mn__matrix){data, dtype, rows, columns, columns};
}

int64_t mn__op_width(const mn__tensor *tensor)
{
    return tensor->size[tensor->rank - 1];
}

int64_t mn__op_rows(const mn__tensor *tensor)
{
    int64_t rows = 1;
    for (int axis = 0; axis < tensor->rank - 1; axis++)
        rows *= tensor->size[axis];
    return rows;
}

/* ---- Kernels over tensors of one size ---------------------------------------------- */

void mn__op_binary(mn__tape *tape, mn__binary operation, const mn__tensor *out, const mn__tensor *a,
                   const mn__tensor *b)
{
    mn__queue *queue = &tape->device->queue;
    bool one_row = !mn__tensor_same_size(a, b);
    int64_t count =
        mn__tensor_matrices_together((const mn__tensor *const[]){out, a, one_row ? a : b}, 3);
    for (int64_t n = 0; n < count; n++) {
        mn__matrix first = mn__tensor_matrix_of(a, count, n);
        mn__matrix second = one_row ? (mn__matrix){b->data, b->dtype, first.rows, first.columns, 0}
                                    : mn__tensor_matrix_of(b, count, n);
        queue->kernels->binary(queue, operation, mn__tensor_matrix_of(out, count, n), first,
                               second);
    }
}

static mn__operand operand(mn__factor factor)
{
    mn__matrix matrix = factor.matrix;
    return (mn__operand){.data = matrix.data,
                         .dtype = matrix.dtype,
                         .row = factor.transposed ? 1 : matrix.stride,
                         .column = factor.transposed ? matrix.stride : 1};
}

mn__matmul mn__op_product(mn__factor a, mn__factor b, mn__matrix c)
{
    int64_t k = a.transposed ? a.matrix.rows : a.matrix.columns;
    assert(k == (b.transposed ? b.matrix.columns : b.matrix.rows));
    return (mn__matmul){.batch = {1, 1},
                        .m = c.rows,
                        .n = c.columns,
                        .k = k,
                        .a = operand(a),
                        .b = operand(b),
                        .c = c.data,
                        .c_dtype = c.dtype,
                        .c_row = c.stride};
}

void mn__op_multiply_matrices(mn__tape *tape, const mn__matmul *call)
{
    mn__queue *queue = &tape->device->queue;
    queue->kernels->matmul(queue, call);
}

/* ---- Scratch --------------------------------------------------------------------------- */

mn__tensor mn__op_scratch(mn__tape *tape, mn__dtype dtype, const mn__tensor *like)
{
    mn__tensor tensor = mn__tensor_of(NULL, dtype, like->rank, like->size);
    tensor.data = mn__tape_scratch(tape, mn__tensor_bytes(&tensor));
    return tensor;
}

mn__tensor mn__op_keep(mn__tape *tape, mn__dtype dtype, const mn__tensor *like)
{
    mn__tensor tensor = mn__tensor_of(NULL, dtype, like->rank, like->size);
    tensor.data = mn__tape_alloc(tape, mn__tensor_bytes(&tensor));
    return tensor;
}

float *mn__op_repeat(mn__tape *tape, const float *scalar, float factor, int64_t count)
{
    mn__queue *queue = &tape->device->queue;
    float *out = mn__tape_scratch(tape, count * (int64_t)sizeof *out);
    if (out)
        queue->kernels->axpby(queue, mn__op_flat(out, MN__F32, count, 1), factor,
                              (mn__matrix){(void *)(uintptr_t)scalar, MN__F32, count, 1, 0}, 0);
    return out;
}

mn__op_target mn__op_target_set(mn__tape *tape, mn__var *var)
{
    mn__op_target target = {0};
    bool wanted = mn__tape_gradient(tape, var, &target.place, &target.accumulate);
    target.scratch = !wanted || target.accumulate;
    target.gradient =
        target.scratch ? mn__op_scratch(tape, var->value.dtype, &var->value) : target.place;
    return target;
}

bool mn__op_target_apart(mn__tape *tape, mn__op_target *target)
{
    target->scratch = true;
    target->gradient = mn__op_scratch(tape, target->place.dtype, &target->place);
    return target->gradient.data;
}

mn__op_target mn__op_target_float(mn__tape *tape, mn__var *var)
{
    mn__op_target target = {.accumulate = true};
    bool is_float = var && var->value.dtype == MN__F32;
    if (is_float ? !mn__tape_gradient_to_add(tape, var, &target.place)
                 : !mn__tape_gradient(tape, var, &target.place, &target.accumulate))
        return target;
    target.scratch = !is_float || !mn__tensor_contiguous(&target.place);
    if (!target.scratch) {
        target.gradient = target.place;
        return target;
    }
    target.gradient = mn__op_scratch(tape, MN__F32, &var->value);
    if (target.gradient.data)
        mn__tensor_fill(&tape->device->queue, &target.gradient, 0);
    return target;
}

void mn__op_target_finish(mn__tape *tape, const mn__op_target *target)
{
    if (target->scratch && target->place.data && target->gradient.data)
        mn__tensor_axpby(&tape->device->queue, &target->place, 1, &target->gradient,
                         target->accumulate ? 1 : 0);
}

/* ---- Inputs and errors --------------------------------------------------------------------- */

mn__tensor mn__op_in_compute(mn__tape *tape, const mn__var *var)
{
    if (var->value.dtype == tape->compute)
        return var->value;
    if (var->param) {
        mn__tensor copy = mn__param_in(tape->params, var->param, tape->compute);
        if (!copy.data)
            mn__tape_fail(tape, MN_ERROR_MEMORY, "use a smaller model or precision: f32",
                          "no memory for the %s copy of %s", mn__dtype_name(tape->compute),
                          var->param->name);
        return copy;
    }
    mn__tensor copy = mn__op_keep(tape, tape->compute, &var->value);
    if (copy.data)
        mn__tensor_convert(&tape->device->queue, &copy, &var->value);
    return copy;
}

bool mn__op_take_weight(mn__tape *tape, const mn__var *weight, mn__var *const *inputs, int count,
                        mn__op_weight *taken)
{
    const mn__param *param = weight->param;
    bool packs = param && param->packs, lies = param && param->lies;
    mn__form form = packs ? param->form : mn__form_of(weight->value.dtype);
    if ((packs || lies) && mn__form_is_floats(form) && form != mn__form_of(tape->compute)) {
        mn__tape_fail(tape, MN_ERROR_UNSUPPORTED,
                      "open it with --weights of the products' type, f16, int8 or int4",
                      "%s is kept in %s, for products in that type", param->name,
                      mn__form_name(form));
        return false;
    }
    if (!packs) {
        *taken = (mn__op_weight){.value = mn__op_in_compute(tape, weight)};
        return taken->value.data;
    }
    *taken = (mn__op_weight){.value = param->value, .packs = true, .packed = param->packed};
    taken->value.data = NULL;
    taken->value.dtype = tape->compute;
    if (!mn__tape_wants(tape, inputs, count))
        return true;
    mn__tape_fail(tape, MN_ERROR_UNSUPPORTED, "open the model to train it",
                  "%s is packed: no gradient passes it", param->name);
    return false;
}

mn__var *mn__op_contiguous(mn__tape *tape, mn__var *x, mn__dtype dtype)
{
    x = mn__op_cast(tape, x, dtype);
    return !x || mn__tensor_contiguous(&x->value) ? x : mn__op_concat(tape, 0, &x, 1);
}

mn__var *mn__op_fail_sizes(mn__tape *tape, const char *operation, const char *hint,
                           const char *a_name, const mn__tensor *a, const char *b_name,
                           const mn__tensor *b)
{
    char a_sizes[64], b_sizes[64];
    return mn__tape_fail(tape, MN_ERROR_MISMATCH, hint, "%s: %s is %s, %s is %s", operation, a_name,
                         mn__tensor_sizes(a, a_sizes), b_name, mn__tensor_sizes(b, b_sizes));
}

bool mn__op_check_index(mn__tape *tape, const char *operation, const int32_t *index, int64_t count,
                        int64_t limit)
{
    for (int64_t i = 0; i < count && !tape->device->counting; i++)
        if (index[i] >= limit) {
            mn__tape_fail(tape, MN_ERROR_MISMATCH, "indices count from 0 and stay below the rows",
                          "%s: index %d at place %lld of %lld, of a table of %lld rows", operation,
                          (int)index[i], (long long)i, (long long)count, (long long)limit);
            return false;
        }
    return true;
}

bool mn__op_replay(mn__tape *tape, const char *operation, int32_t *indices, int64_t count)
{
    mn__choices *choices = tape->choices;
    if (!choices)
        return true;
    if (choices->next + count > choices->capacity) {
        mn__tape_fail(tape, MN_ERROR_MISMATCH, "make room for all choices of the run",
                      "%s: more choices than the %lld to be kept", operation,
                      (long long)choices->capacity);
        return false;
    }
    int32_t *kept = choices->index + choices->next;
    memcpy(choices->replaying ? indices : kept, choices->replaying ? kept : indices,
           (size_t)count * sizeof *kept);
    choices->next += count;
    return true;
}
