/* Tensors: sizes, strides and views. */
#include "tensor/tensor.h"

#include <assert.h>
#include <stdio.h>

mn__tensor mn__tensor_of(void *data, mn__dtype dtype, int rank, const int64_t *size)
{
    assert(rank >= 1 && rank <= MN__RANK_MAX);
    mn__tensor tensor = {.data = data, .dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int axis = rank - 1; axis >= 0; axis--) {
        tensor.size[axis] = size[axis];
        tensor.stride[axis] = stride;
        stride *= size[axis];
    }
    return tensor;
}

int64_t mn__tensor_elements(const mn__tensor *tensor)
{
    int64_t elements = 1;
    for (int axis = 0; axis < tensor->rank; axis++)
        elements *= tensor->size[axis];
    return elements;
}

int64_t mn__tensor_bytes(const mn__tensor *tensor)
{
    return mn__tensor_elements(tensor) * mn__dtype_bytes(tensor->dtype);
}

bool mn__tensor_contiguous(const mn__tensor *tensor)
{
    int64_t stride = 1;
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
        if (tensor->size[axis] != 1 && tensor->stride[axis] != stride)
            return false;
        stride *= tensor->size[axis];
    }
    return true;
}

bool mn__tensor_same_size(const mn__tensor *a, const mn__tensor *b)
{
    if (a->rank != b->rank)
        return false;
    for (int axis = 0; axis < a->rank; axis++)
        if (a->size[axis] != b->size[axis])
            return false;
    return true;
}

/* As an integer: the address may be a counting device's, or an offset. */
static void *advance(void *data, int64_t bytes)
{
    return (void *)((uintptr_t)data + (uintptr_t)bytes);
}

mn__tensor mn__tensor_slice(const mn__tensor *tensor, int axis, int64_t start, int64_t count)
{
    assert(axis >= 0 && axis < tensor->rank);
    assert(start >= 0 && count >= 0 && start + count <= tensor->size[axis]);
    mn__tensor slice = *tensor;
    slice.data =
        advance(tensor->data, start * tensor->stride[axis] * mn__dtype_bytes(tensor->dtype));
    slice.size[axis] = count;
    return slice;
}

/* Walks both lists of sizes from the end: a group of old axes whose strides
 * nest is one run of elements, which the new axes divide. */
bool mn__tensor_reshape(const mn__tensor *tensor, int rank, const int64_t *size, mn__tensor *out)
{
    assert(rank >= 1 && rank <= MN__RANK_MAX);
    mn__tensor result = mn__tensor_of(tensor->data, tensor->dtype, rank, size);
    if (mn__tensor_elements(&result) != mn__tensor_elements(tensor))
        return false;
    int axis = tensor->rank - 1;
    int64_t run = 1, step = 1, used = 1; /* the current run, its stride, how much is divided */
    for (int to = rank - 1; to >= 0; to--) {
        while (used == run && axis >= 0 && size[to] != 1) { /* the run is spent: begin one */
            while (axis >= 0 && tensor->size[axis] == 1)
                axis--;
            if (axis < 0)
                break;
            step = tensor->stride[axis];
            run = tensor->size[axis--];
            used = 1;
            while (axis >= 0 && (tensor->size[axis] == 1 || tensor->stride[axis] == run * step))
                run *= tensor->size[axis--];
        }
        result.stride[to] = used * step;
        used *= size[to];
        if (used > run || run % used)
            return false;
    }
    if (result.size[rank - 1] == 1)
        result.stride[rank - 1] = 1;
    if (result.stride[rank - 1] != 1)
        return false;
    *out = result;
    return true;
}

/* The axes [0, split) that index matrices; the others fold into rows. */
static int matrix_split(const mn__tensor *tensor, int64_t *rows, int64_t *stride)
{
    int axis = tensor->rank - 2;
    *rows = 1;
    *stride = tensor->size[tensor->rank - 1];
    while (axis >= 0) {
        if (tensor->size[axis] != 1) {
            if (*rows == 1)
                *stride = tensor->stride[axis];
            else if (tensor->stride[axis] != *rows * *stride)
                break;
            *rows *= tensor->size[axis];
        }
        axis--;
    }
    return axis + 1;
}

int64_t mn__tensor_matrices(const mn__tensor *tensor)
{
    int64_t rows, stride, count = 1;
    int split = matrix_split(tensor, &rows, &stride);
    for (int axis = 0; axis < split; axis++)
        count *= tensor->size[axis];
    return count;
}

/* The address of entry n of the first `axes` dimensions in row-major order. */
static void *entry(const mn__tensor *tensor, int axes, int64_t n)
{
    int64_t offset = 0;
    for (int axis = axes - 1; axis >= 0; axis--) {
        offset += n % tensor->size[axis] * tensor->stride[axis];
        n /= tensor->size[axis];
    }
    return advance(tensor->data, offset * mn__dtype_bytes(tensor->dtype));
}

mn__matrix mn__tensor_matrix(const mn__tensor *tensor, int64_t n)
{
    int64_t rows, stride;
    int split = matrix_split(tensor, &rows, &stride);
    return (mn__matrix){.data = entry(tensor, split, n),
                        .dtype = tensor->dtype,
                        .rows = rows,
                        .columns = tensor->size[tensor->rank - 1],
                        .stride = stride};
}

/* Each tensor's count is a product of its leading sizes, so that with one size
 * the largest count is a multiple of every other. */
int64_t mn__tensor_matrices_together(const mn__tensor *const *tensors, int count)
{
    int64_t most = mn__tensor_elements(tensors[0]) > 0 ? 1 : 0;
    for (int i = 0; i < count && most > 0; i++) {
        assert(mn__tensor_same_size(tensors[0], tensors[i]));
        int64_t matrices = mn__tensor_matrices(tensors[i]);
        most = matrices > most ? matrices : most;
    }
    return most;
}

mn__matrix mn__tensor_matrix_of(const mn__tensor *tensor, int64_t count, int64_t n)
{
    int64_t parts = count / mn__tensor_matrices(tensor);
    mn__matrix matrix = mn__tensor_matrix(tensor, n / parts);
    matrix.rows /= parts;
    int64_t first = n % parts * matrix.rows * matrix.stride;
    matrix.data = advance(matrix.data, first * mn__dtype_bytes(matrix.dtype));
    return matrix;
}

static bool rows_touch(const mn__tensor *tensor)
{
    int last = tensor->rank - 1;
    return tensor->size[last - 1] == 1 || tensor->stride[last - 1] == tensor->size[last];
}

/* For what treats all elements alike: the last dimensions become one as far as each
 * tensor has their rows one after the other, so that fewer matrices cover, say, the
 * heads [.., H, D] of a wider product. */
static void join_rows(mn__tensor *const *tensors, int count)
{
    for (int last = tensors[0]->rank - 1; last > 0; last--) {
        for (int i = 0; i < count; i++)
            if (!rows_touch(tensors[i]))
                return;
        for (int i = 0; i < count; i++) {
            tensors[i]->size[last - 1] *= tensors[i]->size[last];
            tensors[i]->stride[last - 1] = 1;
            tensors[i]->rank = last;
        }
    }
}

void mn__tensor_fill(mn__queue *queue, const mn__tensor *out, float value)
{
    mn__tensor to = *out;
    join_rows((mn__tensor *const[]){&to}, 1);
    int64_t count = mn__tensor_matrices(&to);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->fill(queue, mn__tensor_matrix(&to, n), value);
}

void mn__tensor_convert(mn__queue *queue, const mn__tensor *out, const mn__tensor *in)
{
    mn__tensor to = *out, from = *in;
    join_rows((mn__tensor *const[]){&to, &from}, 2);
    int64_t count = mn__tensor_matrices_together((const mn__tensor *const[]){&to, &from}, 2);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->convert(queue, mn__tensor_matrix_of(&to, count, n),
                                mn__tensor_matrix_of(&from, count, n));
}

void mn__tensor_axpby(mn__queue *queue, const mn__tensor *out, float alpha, const mn__tensor *in,
                      float beta)
{
    mn__tensor to = *out, from = *in;
    join_rows((mn__tensor *const[]){&to, &from}, 2);
    int64_t count = mn__tensor_matrices_together((const mn__tensor *const[]){&to, &from}, 2);
    for (int64_t n = 0; n < count; n++)
        queue->kernels->axpby(queue, mn__tensor_matrix_of(&to, count, n), alpha,
                              mn__tensor_matrix_of(&from, count, n), beta);
}

const char *mn__tensor_sizes(const mn__tensor *tensor, char text[64])
{
    int length = 0;
    for (int axis = 0; axis < tensor->rank; axis++)
        length += snprintf(text + length, (size_t)(64 - length), "%s%lld", axis ? ", " : "[",
                           (long long)tensor->size[axis]);
    snprintf(text + length, (size_t)(64 - length), "]");
    return text;
}
