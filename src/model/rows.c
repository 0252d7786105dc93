/* Rows of tensors in files, as a parameter's. */
#include "model/rows.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "model/ggml_blocks.h"

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

static const struct {
    const char *name;
    int elements, bytes; /* of a block */
} types[] = {{"F32", 1, 4},
             {"F16", 1, 2},
             {"BF16", 1, 2},
             {"Q8_0", MN__BLOCK, sizeof(mn__block_int8)},
             {"Q4_0", MN__BLOCK, sizeof(mn__block_int4)},
             {"Q4_K", MN__SUPER_BLOCK, sizeof(mn__block_q4_k)},
             {"Q6_K", MN__SUPER_BLOCK, sizeof(mn__block_q6_k)}};

mn__rows_type mn__rows_type_of(const char *name)
{
    int type = 0;
    while (type < MN__ROWS_TYPES && strcmp(name, types[type].name))
        type++;
    return (mn__rows_type)type;
}

static bool is_blocks(const mn__rows *from)
{
    return types[from->type].elements > 1;
}

/* Of blocks, the first of one. */
static const void *element_at(const mn__rows *from, int64_t index)
{
    return (const char *)from->data + index / types[from->type].elements * types[from->type].bytes;
}

/* ---- As floats ------------------------------------------------------------------------- */

/* n elements of whole blocks. */
static void read_blocks(const mn__rows *from, int64_t index, int64_t n, float *to)
{
    const char *at = element_at(from, index);
    int each = types[from->type].elements;
    for (int64_t i = 0; i < n; i += each, at += types[from->type].bytes)
        if (from->type == MN__ROWS_Q8_0)
            mn__block_int8_floats((const mn__block_int8 *)at, to + i);
        else if (from->type == MN__ROWS_Q4_0)
            mn__block_int4_floats((const mn__block_int4 *)at, to + i);
        else if (from->type == MN__ROWS_Q4_K)
            mn__block_q4_k_floats((const mn__block_q4_k *)at, to + i);
        else
            mn__block_q6_k_floats((const mn__block_q6_k *)at, to + i);
}

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
    if (is_blocks(from))
        read_blocks(from, row * width, n * width, to);
    else if (!from->turned)
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
    bool as_it_is =
        one->type == MN__ROWS_BF16 || (one->type == MN__ROWS_F32 && param->form != MN__FORM_BF16);
    if (!as_it_is || param->form == MN__FORM_F16) /* whose numbers are to be checked */
        return 0;
    if (count > 0)
        queue->kernels->pack_columns(queue, param->packed, row, count, operand_at(one, at));
    return count;
}

/* What f16 would make infinite is an error. */
static mn_status check_f16(const mn__param *param, const float *x, int64_t n, mn_error *error)
{
    const float beyond = 65520; /* rounds up */
    for (int64_t i = 0; i < n && param->form == MN__FORM_F16; i++)
        if (fabsf(x[i]) >= beyond && !isinf(x[i]))
            return mn__fail(error, MN_ERROR_UNSUPPORTED, "--weights f32 or bf16 keep it",
                            "%s holds %g, and the largest number of f16 is 65504", param->name,
                            (double)x[i]);
    return MN_OK;
}

/* Rows in floats; for bf16 they are rounded before, as that form may be kept in floats. */
static void pack_strip(mn__queue *queue, mn__param *param, int64_t row, int64_t count, float *strip,
                       mn__bf16 *rounded)
{
    int64_t k = param->value.size[1], n = count * k;
    mn__operand operand = {strip, MN__F32, 1, k, {0, 0}};
    if (param->form == MN__FORM_BF16) {
        queue->kernels->convert(queue, (mn__matrix){rounded, MN__BF16, 1, n, n},
                                (mn__matrix){strip, MN__F32, 1, n, n});
        operand.data = rounded;
        operand.dtype = MN__BF16;
    }
    queue->kernels->pack_columns(queue, param->packed, row, count, operand);
}

static mn_status pack(mn__queue *queue, mn__param *param, const mn__rows *from, int64_t first,
                      mn_error *error)
{
    int64_t n = param->value.size[0],
            most = mn__size_product(least(STRIP, n), param->value.size[1]);
    float *strip = NULL;
    for (int64_t row = 0, count; row < n; row += count) {
        count = pack_direct(queue, param, from, first, row);
        if (count > 0)
            continue;
        if (!strip)
            strip = mn__malloc(mn__size_product(most, sizeof(float) + sizeof(mn__bf16)));
        if (!strip)
            return mn__fail(error, MN_ERROR_MEMORY, "close other programs", "no memory to pack %s",
                            param->name);
        count = least(STRIP, n - row);
        gather(queue, from, first + row, count, strip);
        mn_status status = check_f16(param, strip, count * param->value.size[1], error);
        if (status != MN_OK) {
            mn__free(strip);
            return status;
        }
        pack_strip(queue, param, row, count, strip, (mn__bf16 *)(strip + most));
    }
    mn__free(strip);
    return MN_OK;
}

/* The form whose blocks these are, those of all rows from `first` on; -1: none. */
static int form_of(const mn__rows *from, int64_t first, int64_t n)
{
    mn__rows_type type = MN__ROWS_TYPES;
    for (int64_t row = 0, at; row < n; row += from->rows - at, first = from->rows) {
        from = find_row(from, first, &at);
        if (row && from->type != type)
            return -1;
        type = from->type;
    }
    return type == MN__ROWS_Q8_0 ? MN__FORM_INT8 : type == MN__ROWS_Q4_0 ? MN__FORM_INT4 : -1;
}

/* Blocks as they are: in place where one tensor holds them, else side by side. */
static mn_status take_blocks(mn__queue *queue, mn__param *param, const mn__rows *from,
                             int64_t first, mn_error *error)
{
    int64_t n = param->value.size[0], at;
    const mn__rows *one = find_row(from, first, &at);
    const void *blocks = element_at(one, at * one->width);
    char *all = NULL;
    if (one->rows - at < n) {
        int64_t row_bytes = one->width / MN__BLOCK * types[one->type].bytes;
        all = mn__malloc(mn__size_product(n, row_bytes));
        if (!all)
            return mn__fail(error, MN_ERROR_MEMORY, "close other programs", "no memory to pack %s",
                            param->name);
        for (int64_t row = 0, more; row < n; row += more) {
            one = find_row(from, first + row, &at);
            more = least(n - row, one->rows - at);
            memcpy(all + row * row_bytes, element_at(one, at * one->width),
                   (size_t)(more * row_bytes));
        }
        blocks = all;
    }
    queue->kernels->pack_blocks(queue, param->packed, blocks);
    mn__free(all);
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

/* Whether n rows from `at` on lie one after the other, those of the next tensors too: files
 * have gate and up side by side. */
static bool lie_together(const mn__rows *one, int64_t at, int64_t n)
{
    for (int64_t left = n - (one->rows - at); left > 0; left -= one->rows) {
        const mn__rows *next = one + 1;
        if (next->type != one->type || next->turned ||
            next->data != element_at(one, one->rows * one->width))
            return false;
        one = next;
    }
    return true;
}

/* The value where it lies in the file as rows of F32 or BF16; NULL: it does not. */
static const void *place_of(const mn__params *params, const mn__param *param, const mn__rows *from,
                            int64_t first)
{
    int64_t at;
    const mn__rows *one = find_row(from, first, &at);
    bool floats = one->type == MN__ROWS_BF16 || one->type == MN__ROWS_F32;
    if (!params->source.owner || !floats || one->turned ||
        !lie_together(one, at, param->value.size[0]))
        return NULL;
    return element_at(one, at * one->width);
}

/* One that waits gets its place: in the file, if its readers want it as it is there, or in
 * memory. own: the form of the file's blocks, or -1. */
static mn_status place(mn__params *params, mn__param *param, const mn__rows *from, int count,
                       int64_t first, int own, mn_error *error)
{
    const void *there = place_of(params, param, from, first);
    mn__form form = (mn__form)((int)params->weights - MN__WEIGHTS_F32);
    mn__dtype rows = count == 1 && !from->turned ? dtype_of(from) : MN__F32;
    bool whole = !(param->readers & MN__READERS_PRODUCTS) || form == mn__form_of(dtype_of(from));
    if (there && (whole || param->readers & MN__READERS_ROWS))
        mn__param_point(param, dtype_of(from), there, whole);
    if (there && whole)
        return MN_OK;
    if (params->as_filed && own >= 0)
        form = (mn__form)own;
    if (form == MN__FORM_INT4 && param->value.size[1] % MN__BLOCK)
        form = MN__FORM_INT8;
    return mn__param_hold(params, param, rows, form, error);
}

mn_status mn__rows_fill(mn__params *params, mn__param *param, const mn__rows *from, int count,
                        int64_t first, mn_error *error)
{
    mn__queue *queue = &params->device->queue;
    mn_status status = MN_OK;
    bool matrix = param->value.rank == 2;
    int own = matrix ? form_of(from, first, param->value.size[0]) : -1;
    if (mn__param_waits(params, param))
        status = place(params, param, from, count, first, own, error);
    if (status != MN_OK || params->device->counting)
        return status;
    if (param->value.data && !param->lies)
        copy_rows(queue, param, from, first);
    if (param->packs && own == (int)param->form)
        status = take_blocks(queue, param, from, first, error);
    else if (param->packs)
        status = pack(queue, param, from, first, error);
    mn__param_changed(param);
    return status;
}
