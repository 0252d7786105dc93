/* Rows of tensors in files, as the rows of a parameter, however it is kept (tensor/param.h):
 * F32 masters, packed, or in the file's own type. What is packed is taken straight from the
 * mapped file, or in strips of some rows: it never exists as a whole in floats. */
#ifndef MN__MODEL_ROWS_H
#define MN__MODEL_ROWS_H

#include "tensor/param.h"

typedef enum mn__rows_type { MN__ROWS_F32, MN__ROWS_F16, MN__ROWS_BF16 } mn__rows_type;

/* [rows, width]; of vectors the width is 1. */
typedef struct mn__rows {
    const void *data;
    mn__rows_type type;
    int64_t rows, width;
    bool turned; /* it lies as [width, rows] */
} mn__rows;

/* Fills a parameter from the rows of all of `from` [count], one tensor's after the other's,
 * from row `first` on; one that waits is held first: rows in the file's type if that is F32
 * or BF16, else in F32, and packed in the form of params->weights. On a counting device
 * nothing is read. */
mn_status mn__rows_fill(mn__params *params, mn__param *param, const mn__rows *from, int count,
                        int64_t first, mn_error *error);

#endif
