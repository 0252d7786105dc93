/* Rows of a matrix in chunks of floats: F32 is read and written in place, BF16
 * passes through a buffer of the caller's. Work is shared out by chunks. */
#ifndef MN__KERNEL_CPU_CHUNK_H
#define MN__KERNEL_CPU_CHUNK_H

#include <string.h>

#include "kernel/cpu/bf16.h"
#include "kernel/cpu/level.h"

enum { MN__CHUNK = 1024, MN__SMALL = 1 << 14 /* elements that one thread does sooner */ };

typedef struct mn__chunk {
    int64_t row, column, n;
} mn__chunk;

static inline int64_t mn__chunks_per_row(mn__matrix matrix)
{
    return (matrix.columns + MN__CHUNK - 1) / MN__CHUNK;
}

static inline int64_t mn__chunk_count(mn__matrix matrix)
{
    return matrix.rows * mn__chunks_per_row(matrix);
}

static inline bool mn__is_large(mn__matrix matrix)
{
    return matrix.rows * matrix.columns >= MN__SMALL;
}

static inline mn__chunk mn__chunk_at(mn__matrix matrix, int64_t index)
{
    int64_t per_row = mn__chunks_per_row(matrix), column = index % per_row * MN__CHUNK;
    int64_t left = matrix.columns - column;
    return (mn__chunk){index / per_row, column, left < MN__CHUNK ? left : MN__CHUNK};
}

/* The chunk's values: where they lie, or in the buffer. */
static inline const float *mn__chunk_read(mn__matrix matrix, mn__chunk at, float *buffer)
{
    int64_t offset = at.row * matrix.stride + at.column;
    if (matrix.dtype == MN__F32)
        return (const float *)matrix.data + offset;
    mn__floats_widen(buffer, (const mn__bf16 *)matrix.data + offset, at.n);
    return buffer;
}

/* Where the chunk's new values go; mn__chunk_write then brings them home. */
static inline float *mn__chunk_target(mn__matrix matrix, mn__chunk at, float *buffer)
{
    return matrix.dtype == MN__F32 ? (float *)matrix.data + at.row * matrix.stride + at.column
                                   : buffer;
}

static inline void mn__chunk_write(mn__matrix matrix, mn__chunk at, const float *values)
{
    if (matrix.dtype != MN__F32)
        mn__floats_narrow((mn__bf16 *)matrix.data + at.row * matrix.stride + at.column, values,
                          at.n);
}

/* The same for values that are not at the target. */
static inline void mn__chunk_store(mn__matrix matrix, mn__chunk at, const float *values)
{
    if (matrix.dtype == MN__F32)
        memcpy((float *)matrix.data + at.row * matrix.stride + at.column, values,
               (size_t)at.n * sizeof *values);
    else
        mn__chunk_write(matrix, at, values);
}

/* A parallel loop over a matrix's chunks, by `index`. */
#define MN__PRAGMA(text) _Pragma(#text)
#define MN__EACH_CHUNK(matrix)                                              \
    MN__PRAGMA(omp parallel for schedule(static) if (mn__is_large(matrix))) \
    for (int64_t index = 0; index < mn__chunk_count(matrix); index++)

#endif
