/* Rows of tensors in files, as the rows of a parameter, however it is kept (tensor/param.h):
 * F32 masters, packed, or in the file's own type. What is packed is taken straight from the
 * mapped file, or in strips of some rows: it never exists as a whole in floats. */
#ifndef MN__MODEL_ROWS_H
#define MN__MODEL_ROWS_H

#include "tensor/param.h"

typedef enum mn__rows_type {
    MN__ROWS_F32,
    MN__ROWS_F16,
    MN__ROWS_BF16,
    MN__ROWS_Q8_0, /* ggml's blocks: model/ggml_blocks.h */
    MN__ROWS_Q4_0,
    MN__ROWS_Q4_K,
    MN__ROWS_Q6_K,
    MN__ROWS_TYPES
} mn__rows_type;
/* By the name that safetensors and GGUF have; MN__ROWS_TYPES: none of these. */
mn__rows_type mn__rows_type_of(const char *name);

/* [rows, width]; of vectors the width is 1. Blocks lie along rows of whole blocks. */
typedef struct mn__rows {
    const void *data;
    mn__rows_type type;
    int64_t rows, width;
    bool turned; /* it lies as [width, rows] */
} mn__rows;

/* Fills a parameter from the rows of all of `from` [count], one tensor's after the other's,
 * from row `first` on. One that waits points into the params' source where this has its rows,
 * side by side, in the type that is wanted; else it is held first: rows in the file's type if
 * that is F32 or BF16, else in F32, and packed in the form of params->weights or, with
 * params->as_filed, as the blocks of the file where all are of one kind. Rows that are no whole
 * blocks of 4 bits are kept in 8. Blocks of the form asked for are taken over as they are.
 * MN_ERROR_UNSUPPORTED: a number is too large for f16. On a counting device nothing is read. */
mn_status mn__rows_fill(mn__params *params, mn__param *param, const mn__rows *from, int count,
                        int64_t first, mn_error *error);

#endif
