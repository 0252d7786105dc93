/* Embeddings: rows of a table by id.
 *
 *   out[i] = scale table[ids[i]];  dtable[ids[i]] += scale dout[i] */
#include "op/common.h"

typedef struct embed_record {
    mn__record record;
    mn__var *table;
    const int32_t *ids;
    float scale;
} embed_record;

static void embed_backward(mn__tape *tape, mn__record *base)
{
    embed_record *record = (embed_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor dout = mn__tape_gradient_of(tape, base->out);
    mn__op_target table = mn__op_target_float(tape, record->table);
    if (!table.gradient.data)
        return;
    queue->kernels->scatter_add(queue, mn__tensor_matrix(&table.gradient, 0),
                                mn__tensor_matrix(&dout, 0), record->ids, record->scale);
    mn__op_target_finish(tape, &table);
}

mn__var *mn__op_embed(mn__tape *tape, mn__var *table, const int32_t *ids, int64_t B, int64_t T,
                      float scale)
{
    if (!table)
        return NULL;
    if (table->value.rank != 2) {
        char sizes[64];
        return mn__tape_fail(tape, MN_ERROR_MISMATCH, "a table is [vocabulary, width]",
                             "embed: the table is %s", mn__tensor_sizes(&table->value, sizes));
    }
    if (!mn__op_check_index(tape, "embed", ids, B * T, table->value.size[0]))
        return NULL;
    int64_t C = table->value.size[1];
    mn__var *out = mn__tape_new(tape, MN__F32, 3, (int64_t[]){B, T, C});
    if (!out)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    queue->kernels->gather(queue, mn__tensor_matrix(&out->value, 0),
                           mn__tensor_matrix(&table->value, 0), ids, scale);
    if (!mn__tape_wants(tape, &table, 1))
        return out;
    embed_record *record = mn__tape_record(tape, sizeof *record, out, embed_backward);
    if (!record)
        return NULL;
    record->table = table;
    record->ids = ids;
    record->scale = scale;
    return out;
}
