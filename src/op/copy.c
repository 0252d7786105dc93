/* Copies: another type, blocks of 8 bits, and parts end to end. */
#include "op/common.h"

#include <assert.h>

#include "kernel/blocks.h"

/* ---- Cast -------------------------------------------------------------------------- */

typedef struct cast_record {
    mn__record record;
    mn__var *x;
} cast_record;

static void cast_backward(mn__tape *tape, mn__record *base)
{
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    mn__tape_contribute(tape, ((cast_record *)base)->x, 1, &d);
}

mn__var *mn__op_cast(mn__tape *tape, mn__var *x, mn__dtype dtype)
{
    if (!x || x->value.dtype == dtype)
        return x;
    mn__var *out = mn__tape_new(tape, dtype, x->value.rank, x->value.size);
    if (!out)
        return NULL;
    mn__tensor_convert(&tape->device->queue, &out->value, &x->value);
    if (!mn__tape_wants(tape, &x, 1))
        return out;
    cast_record *record = mn__tape_record(tape, sizeof *record, out, cast_backward);
    if (!record)
        return NULL;
    record->x = x;
    return out;
}

/* ---- Quantise ---------------------------------------------------------------------- */

mn__var *mn__op_quantise(mn__tape *tape, mn__var *x)
{
    if (!x)
        return NULL;
    mn__tensor blocks = x->value;
    blocks.size[blocks.rank - 1] = mn__block_int8_bytes(mn__op_width(&x->value));
    mn__var *out = mn__tape_new(tape, MN__U8, blocks.rank, blocks.size);
    if (!out)
        return NULL;
    if (mn__tape_wants(tape, &x, 1))
        return mn__tape_fail(tape, MN_ERROR_UNSUPPORTED,
                             "keep keys and values as they are computed",
                             "no gradient passes blocks of 8 bits");
    mn__queue *queue = &tape->device->queue;
    int64_t count = mn__tensor_elements(&x->value) > 0 ? mn__tensor_matrices(&x->value) : 0;
    mn__matrix to = mn__tensor_matrix(&out->value, 0);
    for (int64_t n = 0; n < count; n++) { /* out is contiguous: its rows come in that order */
        mn__matrix from = mn__tensor_matrix(&x->value, n);
        to.rows = from.rows;
        queue->kernels->quantise(queue, to, from);
        to.data = (void *)((uintptr_t)to.data + (uintptr_t)(to.rows * to.stride));
    }
    return out;
}

/* ---- Concatenate ----------------------------------------------------------------------- */

typedef struct concat_record {
    mn__record record;
    int axis, count;
    mn__var **parts;
} concat_record;

static void concat_backward(mn__tape *tape, mn__record *base)
{
    concat_record *record = (concat_record *)base;
    mn__tensor d = mn__tape_gradient_of(tape, base->out);
    int64_t start = 0;
    for (int i = 0; i < record->count; i++) {
        int64_t size = record->parts[i]->value.size[record->axis];
        mn__tensor from = mn__tensor_slice(&d, record->axis, start, size);
        mn__tape_contribute(tape, record->parts[i], 1, &from);
        start += size;
    }
}

static bool check(mn__tape *tape, int axis, const mn__var *first, const mn__var *part)
{
    bool fits = first->value.rank == part->value.rank && axis >= 0 && axis < first->value.rank;
    for (int i = 0; fits && i < first->value.rank; i++)
        fits = i == axis || first->value.size[i] == part->value.size[i];
    if (!fits)
        mn__op_fail_sizes(tape, "concat", "parts differ in the size of the joined axis alone",
                          "the first part", &first->value, "another", &part->value);
    return fits;
}

static mn__var *record_concat(mn__tape *tape, mn__var *out, int axis, mn__var *const *parts,
                              int count)
{
    concat_record *record = mn__tape_record(tape, sizeof *record, out, concat_backward);
    if (!record)
        return NULL;
    record->axis = axis;
    record->count = count;
    record->parts = mn__arena_calloc(&tape->nodes, count, sizeof *record->parts);
    if (!record->parts)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, "use a smaller batch or a shorter segment",
                             "concat: no memory for a list of %d parts", count);
    for (int i = 0; i < count; i++)
        record->parts[i] = parts[i];
    return out;
}

mn__var *mn__op_concat(mn__tape *tape, int axis, mn__var *const *parts, int count)
{
    assert(count > 0);
    int64_t length = 0;
    for (int i = 0; i < count; i++) {
        if (!parts[i] || !check(tape, axis, parts[0], parts[i]))
            return NULL;
        length += parts[i]->value.size[axis];
    }
    mn__tensor whole = parts[0]->value;
    whole.size[axis] = length;
    mn__var *out = mn__tape_new(tape, whole.dtype, whole.rank, whole.size);
    if (!out)
        return NULL;
    int64_t start = 0;
    for (int i = 0; i < count; i++) {
        int64_t size = parts[i]->value.size[axis];
        mn__tensor to = mn__tensor_slice(&out->value, axis, start, size);
        mn__tensor_convert(&tape->device->queue, &to, &parts[i]->value);
        start += size;
    }
    return mn__tape_wants(tape, parts, count) ? record_concat(tape, out, axis, parts, count) : out;
}
