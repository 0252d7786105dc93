/* What attention types share: projections, and slots that are appended to. */
#include <stdio.h>
#include <string.h>

#include "attention/attention.h"

mn_status mn__attention_create(mn__attention *layer, mn__params *params, const char *prefix,
                               mn_error *error)
{
    struct {
        mn__linear *linear;
        const char *name;
        int64_t in, out;
    } parts[] = {
        {&layer->query, "query", layer->C, layer->H * layer->D},
        {&layer->key_value, "key_value", layer->C, 2 * layer->G * layer->D},
        {&layer->out, "out", layer->H * layer->D, layer->C},
    };
    for (int i = 0; i < 3; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s.%s", prefix, parts[i].name);
        mn_status status = mn__linear_create(parts[i].linear, params, name, parts[i].in,
                                             parts[i].out, layer->bias, layer->deviation, error);
        if (status != MN_OK)
            return status;
    }
    return MN_OK;
}

mn__var *mn__attention_input(const mn__attention *layer, mn__tape *tape, mn__var *x)
{
    if (layer->pre_norm)
        return mn__norm_forward(&layer->norm, tape, x, tape->compute);
    return mn__op_cast(tape, x, tape->compute);
}

mn__var *mn__attention_queries(const mn__attention *layer, mn__tape *tape, mn__var *h)
{
    mn__var *q = mn__linear_forward(&layer->query, tape, h, MN__LINEAR);
    if (!q)
        return NULL;
    return mn__op_reshape(tape, q, 4,
                          (int64_t[]){h->value.size[0], h->value.size[1], layer->H, layer->D});
}

bool mn__attention_keys_values(const mn__attention *layer, mn__tape *tape, mn__var *h,
                               mn__var **keys, mn__var **values)
{
    mn__var *both = mn__linear_forward(&layer->key_value, tape, h, MN__LINEAR), *part[2];
    if (!both)
        return false;
    int64_t size[] = {h->value.size[0], h->value.size[1], 2 * layer->G, layer->D};
    both = mn__op_reshape(tape, both, 4, size);
    if (!both || !mn__op_split(tape, both, 2, (int64_t[]){layer->G, layer->G}, 2, part))
        return false;
    *keys = part[0];
    *values = part[1];
    return true;
}

mn__var *mn__attention_out(const mn__attention *layer, mn__tape *tape, mn__var *heads)
{
    if (!heads)
        return NULL;
    int64_t size[] = {heads->value.size[0], heads->value.size[1], layer->H * layer->D};
    return mn__linear_forward(&layer->out, tape, mn__op_reshape(tape, heads, 3, size), MN__LINEAR);
}

int64_t mn__segment_valid(const mn__segment *segment, int64_t row)
{
    return segment->valid ? segment->valid[row] : segment->T;
}

mn__var *mn__slot_read(mn__tape *tape, const mn__slot *slot, int64_t start, int64_t count)
{
    mn__tensor part = mn__tensor_slice(&slot->value, 1, start, count);
    if (!tape->recording)
        return mn__tape_constant(tape, part);
    mn__var *copy = mn__tape_new(tape, part.dtype, part.rank, part.size);
    if (copy)
        mn__tensor_convert(&tape->device->queue, &copy->value, &part);
    return copy;
}

/* Entries start <= t < start + count of one row. */
static mn__tensor entries(const mn__tensor *tensor, int64_t row, int64_t start, int64_t count)
{
    mn__tensor one = mn__tensor_slice(tensor, 0, row, 1);
    return mn__tensor_slice(&one, 1, start, count);
}

void mn__slot_append(mn__tape *tape, mn__slot *slot, const mn__tensor *source,
                     const mn__segment *segment)
{
    int64_t P = slot->value.size[1];
    if (P == 0 || tape->device->counting)
        return;
    int64_t row_bytes = mn__tensor_bytes(&slot->value) / slot->value.size[0];
    int64_t entry_bytes = row_bytes / P;
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t valid = mn__segment_valid(segment, b);
        int64_t taken = valid < P ? valid : P;
        if (taken == 0)
            continue;
        char *row = (char *)slot->value.data + b * row_bytes;
        memmove(row, row + taken * entry_bytes, (size_t)((P - taken) * entry_bytes));
        mn__tensor to = entries(&slot->value, b, P - taken, taken);
        mn__tensor from = entries(source, b, valid - taken, taken);
        mn__tensor_convert(&tape->device->queue, &to, &from);
    }
}
