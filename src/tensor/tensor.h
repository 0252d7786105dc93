/* A tensor: data, type, up to four sizes. The innermost dimension is
 * contiguous, outer strides are free: a cache's prefix, or a slice of a fused
 * projection, is a tensor without a copy. Memory belongs to an arena. */
#ifndef MN__TENSOR_TENSOR_H
#define MN__TENSOR_TENSOR_H

#include <stdbool.h>

#include "kernel/kernel.h"

enum { MN__RANK_MAX = 4 };

typedef struct mn__tensor {
    void *data;
    mn__dtype dtype;
    int rank;
    int64_t size[MN__RANK_MAX];
    int64_t stride[MN__RANK_MAX]; /* in elements; stride[rank - 1] is 1 */
} mn__tensor;

/* A contiguous tensor over `data`. */
mn__tensor mn__tensor_of(void *data, mn__dtype dtype, int rank, const int64_t *size);
int64_t mn__tensor_elements(const mn__tensor *tensor);
int64_t mn__tensor_bytes(const mn__tensor *tensor); /* of the elements, without gaps */
bool mn__tensor_contiguous(const mn__tensor *tensor);
bool mn__tensor_same_size(const mn__tensor *a, const mn__tensor *b);
/* The tensor's part start <= index < start + count along an axis. */
mn__tensor mn__tensor_slice(const mn__tensor *tensor, int axis, int64_t start, int64_t count);
/* Other sizes over the same elements. False where the strides do not allow it
 * or the counts differ. */
bool mn__tensor_reshape(const mn__tensor *tensor, int rank, const int64_t *size, mn__tensor *out);
/* The fewest matrices (rows x last dimension, one row stride) that cover the
 * tensor, and the n-th of them. One for a contiguous tensor. */
int64_t mn__tensor_matrices(const mn__tensor *tensor);
mn__matrix mn__tensor_matrix(const mn__tensor *tensor, int64_t n);
/* The fewest that suit the strides of several tensors of one size, and the
 * n-th of so many of one of them. */
int64_t mn__tensor_matrices_together(const mn__tensor *const *tensors, int count);
mn__matrix mn__tensor_matrix_of(const mn__tensor *tensor, int64_t count, int64_t n);
/* Of all elements, whatever the strides and types: out = value; out = in, of equal
 * sizes; out = alpha * in + beta * out. */
void mn__tensor_fill(mn__queue *queue, const mn__tensor *out, float value);
void mn__tensor_convert(mn__queue *queue, const mn__tensor *out, const mn__tensor *in);
void mn__tensor_axpby(mn__queue *queue, const mn__tensor *out, float alpha, const mn__tensor *in,
                      float beta);
/* "[8, 1024, 384]" into text. */
const char *mn__tensor_sizes(const mn__tensor *tensor, char text[64]);

#endif
