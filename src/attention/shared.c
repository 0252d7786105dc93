/* What attention types share: projections, losses, slots that are appended to,
 * and buffers' statistics. */
#include <assert.h>
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
        bool bias;
    } parts[] = {
        {&layer->query, "query", layer->C, layer->H * layer->D, layer->bias},
        {&layer->key_value, "key_value", layer->C, 2 * layer->G * layer->D, layer->bias},
        {&layer->out, "out", layer->H * layer->D, layer->C, layer->out_bias},
    };
    char name[128];
    mn_status status = MN_OK;
    for (int i = 0; i < 3 && status == MN_OK; i++) {
        snprintf(name, sizeof name, "%s.%s", prefix, parts[i].name);
        status = mn__linear_create(parts[i].linear, params, name, parts[i].in, parts[i].out,
                                   parts[i].bias, layer->deviation, error);
    }
    for (int i = 0; i < 2 && status == MN_OK && layer->head_norm; i++) {
        snprintf(name, sizeof name, "%s.%s_norm", prefix, i ? "key" : "query");
        status = mn__norm_create(i ? &layer->key_norm : &layer->query_norm, params, name,
                                 MN__NORM_RMS, layer->D, layer->head_epsilon, error);
    }
    return status;
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
    q = mn__op_reshape(tape, q, 4,
                       (int64_t[]){h->value.size[0], h->value.size[1], layer->H, layer->D});
    return layer->head_norm ? mn__norm_forward(&layer->query_norm, tape, q, tape->compute) : q;
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
    if (layer->head_norm) /* of a copy: their norm runs over one matrix */
        *keys = mn__norm_forward(&layer->key_norm, tape, mn__op_concat(tape, 2, part, 1),
                                 tape->compute);
    return *keys;
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

bool mn__segment_watches_mass(const mn__segment *segment)
{
    return segment->watch && segment->watch->mass;
}

int64_t mn__segment_phase(mn__tape *tape, const mn__segment *segment, const int64_t *counter)
{
    int64_t phase = -1;
    for (int64_t b = 0; b < segment->B; b++) {
        if (mn__segment_valid(segment, b) == 0)
            continue;
        if (phase >= 0 && phase != counter[b]) {
            mn__tape_fail(tape, MN_ERROR_UNSUPPORTED,
                          "read them in batches of their own; in training let windows be "
                          "data.segment long, or "
                          "data.style be contiguous",
                          "rows at different places of their windows");
            return -1;
        }
        phase = counter[b];
    }
    return phase < 0 ? 0 : phase;
}

void mn__segment_advance(const mn__segment *segment, int64_t *counter, int64_t grid)
{
    for (int64_t b = 0; b < segment->B; b++)
        counter[b] = (counter[b] + mn__segment_valid(segment, b)) % grid;
}

/* ---- Losses ------------------------------------------------------------------------ */

void mn__segment_add_loss(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                          mn__var *loss)
{
    mn__losses *losses = &segment->auxiliary;
    const char *name = layer->type->auxiliary;
    int i = 0;
    while (i < losses->count && strcmp(losses->name[i], name))
        i++;
    assert(i < MN__LOSSES_MAX);
    if (i == losses->count)
        losses->name[losses->count++] = name;
    losses->sum[i] = losses->sum[i] ? mn__op_add(tape, losses->sum[i], loss) : loss;
}

mn__var *mn__segment_losses(mn__tape *tape, const mn__segment *segment)
{
    const mn__losses *losses = &segment->auxiliary;
    mn__var *sum = losses->count ? losses->sum[0] : NULL;
    for (int i = 1; i < losses->count; i++)
        sum = mn__op_add(tape, sum, losses->sum[i]);
    return sum;
}

/* ---- Slots ------------------------------------------------------------------------- */

mn__var *mn__slot_read(mn__tape *tape, const mn__slot *slot, int64_t start, int64_t count)
{
    if (slot->live)
        return mn__op_slice(tape, slot->live, 1, start, count);
    mn__tensor part = mn__tensor_slice(&slot->value, 1, start, count);
    if (!tape->recording)
        return mn__tape_constant(tape, part);
    mn__var *copy = mn__tape_new(tape, part.dtype, part.rank, part.size);
    if (copy)
        mn__tensor_convert(&tape->device->queue, &copy->value, &part);
    return copy;
}

mn__var *mn__slot_keep(mn__tape *tape, const mn__slot *slot, mn__var *heads)
{
    return slot->value.dtype == MN__U8 ? mn__op_quantise(tape, heads)
                                       : mn__op_cast(tape, heads, slot->value.dtype);
}

int64_t mn__entries_visible(mn__tape *tape, const mn__segment *segment, int64_t most,
                            const int64_t *more, const int64_t *filled, bool zeros, int64_t **first)
{
    int64_t need = 0;
    *first = mn__arena_calloc(&tape->nodes, segment->B, sizeof **first);
    if (!*first) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
        return -1;
    }
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t own = most + (more ? more[b] : 0);
        (*first)[b] = zeros || filled[b] > own ? own : filled[b];
        need = (*first)[b] > need ? (*first)[b] : need;
    }
    for (int64_t b = 0; b < segment->B; b++)
        (*first)[b] = need - (*first)[b];
    return need;
}

/* index[b, p] = b * (P + T) + p + counts[b]: rows of [old; source]. */
static int32_t *newest(mn__tape *tape, int64_t B, int64_t P, int64_t T, const int64_t *counts)
{
    if (B * (P + T) > INT32_MAX) {
        mn__tape_fail(tape, MN_ERROR_UNSUPPORTED, "use fewer rows or a shorter memory",
                      "%lld rows of %lld entries are more than an index counts", (long long)B,
                      (long long)(P + T));
        return NULL;
    }
    int32_t *index = mn__arena_calloc(&tape->nodes, B * P, sizeof *index);
    if (!index)
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a state's rows");
    for (int64_t b = 0; index && b < B; b++)
        for (int64_t p = 0; p < P; p++)
            index[b * P + p] = (int32_t)(b * (P + T) + p + (counts ? counts[b] : T));
    return index;
}

mn__var *mn__entries_append(mn__tape *tape, mn__var *old, mn__var *source, const int64_t *counts)
{
    if (!old || !source)
        return NULL;
    const mn__tensor like = old->value;
    int64_t B = like.size[0], P = like.size[1], T = source->value.size[1];
    mn__var *both = mn__op_concat(tape, 1, (mn__var *[]){old, source}, 2);
    int32_t *index = newest(tape, B, P, T, counts);
    if (!both || !index)
        return NULL;
    int64_t width = mn__tensor_elements(&both->value) / (B * (P + T));
    both = mn__op_reshape(tape, both, 2, (int64_t[]){B * (P + T), width});
    both = mn__op_gather(tape, both, index, B * P);
    return mn__op_reshape(tape, both, like.rank, like.size);
}

/* Entries start <= t < start + count of one row. */
static mn__tensor entries(const mn__tensor *tensor, int64_t row, int64_t start, int64_t count)
{
    mn__tensor one = mn__tensor_slice(tensor, 0, row, 1);
    return mn__tensor_slice(&one, 1, start, count);
}

/* Without the tape: the slot's entries move up in place. */
static void append_in_place(mn__tape *tape, mn__slot *slot, const mn__tensor *source,
                            const int64_t *counts)
{
    int64_t P = slot->value.size[1];
    int64_t row_bytes = mn__tensor_bytes(&slot->value) / slot->value.size[0];
    int64_t entry_bytes = row_bytes / P;
    for (int64_t b = 0; b < source->size[0]; b++) {
        int64_t count = counts ? counts[b] : source->size[1];
        int64_t taken = count < P ? count : P;
        if (taken == 0)
            continue;
        char *row = (char *)slot->value.data + b * row_bytes;
        memmove(row, row + taken * entry_bytes, (size_t)((P - taken) * entry_bytes));
        mn__tensor to = entries(&slot->value, b, P - taken, taken);
        mn__tensor from = entries(source, b, count - taken, taken);
        mn__tensor_convert(&tape->device->queue, &to, &from);
    }
}

void mn__slot_append(mn__tape *tape, mn__slot *slot, mn__var *source, const int64_t *counts,
                     bool live)
{
    int64_t P = slot->value.size[1];
    if (P == 0)
        return;
    mn__var *live_value = NULL;
    bool replaces = !counts && mn__tensor_same_size(&source->value, &slot->value);
    if (live && replaces && mn__tensor_contiguous(&source->value))
        live_value = mn__op_cast(tape, source, slot->value.dtype);
    else if (live)
        live_value = mn__entries_append(tape, mn__slot_read(tape, slot, 0, P),
                                        mn__op_cast(tape, source, slot->value.dtype), counts);
    slot->live = live_value;
    if (!tape->device->counting)
        append_in_place(tape, slot, &source->value, counts);
}

/* ---- Rings ------------------------------------------------------------------------- */

/* n entries of row b, from entry t of source on, to the slots from m on. */
static void write_ring(mn__tape *tape, const mn__tensor *ring, int64_t b, int64_t m,
                       const mn__tensor *source, int64_t t, int64_t n)
{
    mn__tensor to = mn__tensor_slice(ring, 0, b, 1), from = entries(source, b, t, n);
    int64_t size[] = {ring->size[1], n, ring->size[3]}; /* [H, n, D] */
    to = mn__tensor_slice(&to, 2, m, n);
    mn__tensor into = mn__tensor_of(to.data, to.dtype, 3, size);
    mn__tensor heads = mn__tensor_of(from.data, from.dtype, 3, size);
    into.stride[0] = to.stride[1];
    into.stride[1] = to.stride[2];
    heads.stride[0] = from.stride[2];
    heads.stride[1] = from.stride[1];
    mn__tensor_convert(&tape->device->queue, &into, &heads);
}

void mn__ring_append(mn__tape *tape, mn__slot *ring, const mn__var *source, const int64_t *counts,
                     const int64_t *written)
{
    const mn__tensor *from = &source->value;
    int64_t M = ring->value.size[2];
    assert(ring->value.rank == 4 && from->rank == 4 && from->size[2] == ring->value.size[1]);
    ring->live = NULL;
    for (int64_t b = 0; b < from->size[0] && M > 0 && !tape->device->counting; b++) {
        int64_t end = counts ? counts[b] : from->size[1], t = end > M ? end - M : 0;
        while (t < end) { /* twice, where the ring's end lies between */
            int64_t m = (written[b] + t) % M, n = end - t < M - m ? end - t : M - m;
            write_ring(tape, &ring->value, b, m, from, t, n);
            t += n;
        }
    }
}

int64_t mn__ring_filled(const mn__slot *ring, int64_t written)
{
    int64_t M = ring->value.size[2];
    return written < M ? written : M;
}

/* ---- Buffers ----------------------------------------------------------------------- */

void mn__buffer_add_statistic(mn__tape *tape, mn__param *buffer, const mn__var *value)
{
    if (!tape->training || !buffer->statistic)
        return;
    int64_t n = mn__tensor_elements(&buffer->value);
    assert(mn__tensor_elements(&value->value) == n && mn__tensor_contiguous(&value->value));
    mn__queue *queue = &tape->device->queue;
    queue->kernels->axpby(queue, (mn__matrix){buffer->statistic, MN__F32, 1, n, n}, 1.0f,
                          (mn__matrix){value->value.data, value->value.dtype, 1, n, n}, 1.0f);
}

mn__var *mn__buffer_statistic(mn__tape *tape, const mn__param *buffer)
{
    assert(buffer->statistic);
    mn__tensor sum = buffer->value;
    sum.data = buffer->statistic;
    return mn__tape_constant(tape, sum);
}

void mn__buffer_set(mn__tape *tape, mn__param *buffer, const mn__var *value)
{
    if (!value)
        return;
    assert(buffer->buffer && mn__tensor_same_size(&buffer->value, &value->value));
    mn__tensor_convert(&tape->device->queue, &buffer->value, &value->value);
    mn__param_changed(buffer);
}
