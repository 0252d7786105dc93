/* Matrix products, as defined: c = activation(a b + bias), summed in double
 * precision and rounded once. A packed matrix is a plain copy, of integer forms and f16
 * what they stand for. */
#include "kernel/plain.h"

#include "base/memory.h"
#include "kernel/blocks.h"

struct mn__packed {
    int64_t k, n;
    mn__form form;
    mn__dtype dtype;
    _Alignas(64) unsigned char data[]; /* [k, n] */
};

static double product(const mn__matmul *call, const void *a, const void *b, int64_t i, int64_t j)
{
    mn__dtype b_dtype = call->packed ? call->packed->dtype : call->b.dtype;
    int64_t row = call->packed ? call->n : call->b.row;
    int64_t column = call->packed ? 1 : call->b.column;
    double sum = 0;
    for (int64_t l = 0; l < call->k; l++)
        sum += (double)mn__element(a, call->a.dtype, i * call->a.row + l * call->a.column) *
               (double)mn__element(b, b_dtype, l * row + j * column);
    return sum;
}

static void multiply(const mn__matmul *call, const void *a, const void *b, void *c)
{
    for (int64_t i = 0; i < call->m; i++)
        for (int64_t j = 0; j < call->n; j++) {
            double sum = product(call, a, b, i, j) + (call->bias ? (double)call->bias[j] : 0.0);
            int64_t at = i * call->c_row + j;
            sum = mn__plain_activate(call->activation, sum);
            if (call->accumulate)
                sum += (double)mn__element(c, call->c_dtype, at);
            mn__element_set(c, call->c_dtype, at, sum);
        }
}

static const void *operand_at(const mn__operand *operand, int64_t first, int64_t second)
{
    int64_t offset = first * operand->outer[0] + second * operand->outer[1];
    return (const char *)operand->data + offset * mn__dtype_bytes(operand->dtype);
}

static void matmul(mn__queue *queue, const mn__matmul *call)
{
    (void)queue;
    for (int64_t first = 0; first < call->batch[0]; first++)
        for (int64_t second = 0; second < call->batch[1]; second++) {
            int64_t c = first * call->c_outer[0] + second * call->c_outer[1];
            multiply(call, operand_at(&call->a, first, second),
                     call->packed ? call->packed->data : operand_at(&call->b, first, second),
                     (char *)call->c + c * mn__dtype_bytes(call->c_dtype));
        }
}

static int64_t pack_bytes(mn__queue *queue, int64_t k, int64_t n, mn__form form)
{
    (void)queue;
    int64_t each = form == MN__FORM_BF16 ? 2 : 4;
    int64_t bytes = mn__size_product(mn__size_product(k, n), each);
    return bytes < 0 ? -1 : bytes + (int64_t)sizeof(mn__packed);
}

static mn__packed *pack_new(mn__queue *queue, int64_t k, int64_t n, mn__form form)
{
    mn__packed *packed = mn__malloc(pack_bytes(queue, k, n, form));
    if (packed) {
        packed->k = k;
        packed->n = n;
        packed->form = form;
        packed->dtype = form == MN__FORM_BF16 ? MN__BF16 : MN__F32;
    }
    return packed;
}

/* Element i of a block of the form. */
static float block_element(mn__form form, const void *block, int i)
{
    const mn__block_int8 *int8 = block;
    const mn__block_int4 *int4 = block;
    return form == MN__FORM_INT8 ? mn__f16_to_f32(int8->scale) * (float)int8->q[i]
                                 : mn__f16_to_f32(int4->scale) * (float)mn__block_int4_at(int4, i);
}

/* The block of column j from row l on, of which `depth` elements are there. */
static void put_block(mn__packed *packed, const void *block, int64_t l, int64_t j, int64_t depth)
{
    for (int i = 0; i < depth; i++)
        mn__element_set(packed->data, MN__F32, (l + i) * packed->n + j,
                        (double)block_element(packed->form, block, i));
}

/* The block of column first + j from row l on, from b's column j. */
static void quantise(mn__packed *packed, int64_t first, mn__operand b, int64_t l, int64_t j)
{
    float x[MN__BLOCK] = {0};
    int64_t depth = packed->k - l < MN__BLOCK ? packed->k - l : MN__BLOCK;
    for (int64_t i = 0; i < depth; i++)
        x[i] = mn__element(b.data, b.dtype, (l + i) * b.row + j * b.column);
    const mn__block_int8 int8 = mn__block_int8_of(x);
    const mn__block_int4 int4 = mn__block_int4_of(x);
    put_block(packed, packed->form == MN__FORM_INT8 ? (const void *)&int8 : &int4, l, first + j,
              depth);
}

static void pack_columns(mn__queue *queue, mn__packed *packed, int64_t first, int64_t count,
                         mn__operand b)
{
    (void)queue;
    bool f16 = packed->form == MN__FORM_F16;
    bool whole = packed->form == MN__FORM_INT8 || packed->form == MN__FORM_INT4;
    for (int64_t l = 0; whole && l < packed->k; l += MN__BLOCK)
        for (int64_t j = 0; j < count; j++)
            quantise(packed, first, b, l, j);
    for (int64_t l = 0; !whole && l < packed->k; l++)
        for (int64_t j = 0; j < count; j++) {
            float x = mn__element(b.data, b.dtype, l * b.row + j * b.column);
            mn__element_set(packed->data, packed->dtype, l * packed->n + first + j,
                            (double)(f16 ? mn__f16_to_f32(mn__f32_to_f16(x)) : x));
        }
}

static void pack(mn__queue *queue, mn__packed *packed, mn__operand b)
{
    pack_columns(queue, packed, 0, packed->n, b);
}

static void pack_blocks(mn__queue *queue, mn__packed *packed, const void *blocks)
{
    (void)queue;
    const char *at = blocks;
    int64_t bytes = packed->form == MN__FORM_INT8 ? sizeof(mn__block_int8) : sizeof(mn__block_int4);
    for (int64_t j = 0; j < packed->n; j++)
        for (int64_t l = 0; l < packed->k; l += MN__BLOCK, at += bytes)
            put_block(packed, at, l, j, MN__BLOCK);
}

static void pack_free(mn__packed *packed)
{
    mn__free(packed);
}

void mn__plain_fill_matmul(mn__kernels *kernels)
{
    kernels->matmul = matmul;
    kernels->pack_bytes = pack_bytes;
    kernels->pack_new = pack_new;
    kernels->pack = pack;
    kernels->pack_columns = pack_columns;
    kernels->pack_blocks = pack_blocks;
    kernels->pack_free = pack_free;
}
