/* Rows of tensors in files, as a parameter's. */
#include "model/rows.h"

#include <string.h>

#include "base/memory.h"

/* Rows that are gathered as floats before they are packed. */
enum { STRIP = 2 * MN__PACK_COLUMNS };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static mn__dtype dtype_of(const mn__rows *from)
{
    return from->type == MN__ROWS_BF16 ? MN__BF16 : MN__F32;
}

static const void *element_at(const mn__rows *from, int64_t index)
{
    return (const char *)from->data + index * (from->type == MN__ROWS_F32 ? 4 : 2);
}

/* ---- As floats ------------------------------------------------------------------------- */

/* n elements that lie side by side, `stride` apart in `to`. */
static void read_elements(mn__queue *queue, const mn__rows *from, int64_t index, int64_t n,
                          float *to, int64_t stride)
{
    const void *at = element_at(from, index);
    const float *f32 = at;
    const uint16_t *halves = at;
    if (from->type == MN__ROWS_F32 && stride == 1)
        memcpy(to, f32, (size_t)n * sizeof *to);
    else if (from->type == MN__ROWS_F32)
        for (int64_t i = 0; i < n; i++)
            to[i * stride] = f32[i];
    else if (from->type == MN__ROWS_F16)
        for (int64_t i = 0; i < n; i++)
            to[i * stride] = mn__f16_to_f32(halves[i]);
    else if (stride == 1)
        queue->kernels->convert(queue, (mn__matrix){to, MN__F32, 1, n, n},
                                (mn__matrix){(void *)(uintptr_t)at, MN__BF16, 1, n, n});
    else
        for (int64_t i = 0; i < n; i++)
            to[i * stride] = mn__bf16_to_f32(halves[i]);
}

static void read_rows(mn__queue *queue, const mn__rows *from, int64_t row, int64_t n, float *to)
{
    int64_t width = from->width;
    if (!from->turned)
        read_elements(queue, from, row * width, n * width, to, 1);
    else
        for (int64_t c = 0; c < width; c++)
            read_elements(queue, from, c * from->rows + row, n, to + c, width);
}

/* The tensor of `from` that holds the row, and its place there. */
static const mn__rows *find_row(const mn__rows *from, int64_t row, int64_t *at)
{
    for (; row >= from->rows; from++)
        row -= from->rows;
    *at = row;
    return from;
}

static void gather(mn__queue *queue, const mn__rows *from, int64_t row, int64_t n, float *to)
{
    for (int64_t done = 0, more, at; done < n; done += more) {
        const mn__rows *one = find_row(from, row + done, &at);
        more = least(n - done, one->rows - at);
        read_rows(queue, one, at, more, to + done * one->width);
    }
}

/* ---- Packed ------------------------------------------------------------------------------ */

/* Weights are packed with their rows as columns. */
static mn__operand operand_at(const mn__rows *from, int64_t row)
{
    return (mn__operand){.data = element_at(from, from->turned ? row : row * from->width),
                         .dtype = dtype_of(from),
                         .row = from->turned ? from->rows : 1,
                         .column = from->turned ? 1 : from->width};
}

/* Straight from the tensor that holds the row: how many, 0 where that cannot be. */
static int64_t pack_direct(mn__queue *queue, mn__param *param, const mn__rows *from, int64_t first,
                           int64_t row)
{
    int64_t n = param->value.size[0], at;
    const mn__rows *one = find_row(from, first + row, &at);
    int64_t count = least(n - row, one->rows - at);
    if (row + count < n)
        count -= count % MN__PACK_COLUMNS;
    if (one->type != MN__ROWS_F16 && count > 0)
        queue->kernels->pack_columns(queue, param->packed, row, count, operand_at(one, at));
    return one->type == MN__ROWS_F16 ? 0 : count;
}

static mn_status pack(mn__queue *queue, mn__param *param, const mn__rows *from, int64_t first,
                      mn_error *error)
{
    int64_t n = param->value.size[0], k = param->value.size[1];
    float *strip = NULL;
    for (int64_t row = 0, count; row < n; row += count) {
        count = pack_direct(queue, param, from, first, row);
        if (count > 0)
            continue;
        if (!strip)
            strip = mn__malloc(mn__size_product(least(STRIP, n) * 4, k));
        if (!strip)
            return mn__fail(error, MN_ERROR_MEMORY, "close other programs", "no memory to pack %s",
                            param->name);
        count = least(STRIP, n - row);
        gather(queue, from, first + row, count, strip);
        queue->kernels->pack_columns(queue, param->packed, row, count,
                                     (mn__operand){strip, MN__F32, 1, k, {0, 0}});
    }
    mn__free(strip);
    return MN_OK;
}

/* ---- Any ----------------------------------------------------------------------------------- */

/* As rows of floats, or of the bf16 that they are. */
static void copy_rows(mn__queue *queue, mn__param *param, const mn__rows *from, int64_t first)
{
    int64_t n = param->value.size[0], at;
    if (param->value.dtype == MN__F32) {
        gather(queue, from, first, n, param->value.data);
    } else {
        const mn__rows *one = find_row(from, first, &at);
        memcpy(param->value.data, element_at(one, at * one->width),
               (size_t)mn__tensor_bytes(&param->value));
    }
}

mn_status mn__rows_fill(mn__params *params, mn__param *param, const mn__rows *from, int count,
                        int64_t first, mn_error *error)
{
    mn__queue *queue = &params->device->queue;
    mn_status status = MN_OK;
    if (mn__param_waits(params, param)) {
        mn__dtype rows = count == 1 && !from->turned ? dtype_of(from) : MN__F32;
        mn__form form = (mn__form)((int)params->weights - MN__WEIGHTS_F32);
        status = mn__param_hold(params, param, rows, form, error);
    }
    if (status != MN_OK || params->device->counting)
        return status;
    if (param->value.data)
        copy_rows(queue, param, from, first);
    if (param->packs)
        status = pack(queue, param, from, first, error);
    mn__param_changed(param);
    return status;
}
