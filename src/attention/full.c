/* Full attention: every token sees its whole document so far.
 *
 *   out = softmax(q K^T / sqrt(D)) V,  K, V over [cache; segment]
 *
 * State: the keys and values of all tokens read, up to the capacity planned when
 * the stream was opened. With capacity 0, as in training on cuttings, a segment
 * sees itself alone. Positions are rotary (from the model) or ALiBi's slopes
 * (Press et al. 2022). Not here: approximations of any kind. */
#include <math.h>

#include "attention/types.h"

struct options {
    bool alibi;
};

static const mn__option option_table[] = {
    MN__BOOL(struct options, alibi, "false", "a penalty proportional to distance instead of RoPE"),
    MN__OPTIONS_END,
};

enum { KEYS, VALUES };
enum { FILLED };

struct own {
    float *slopes; /* [H] or NULL */
};

/* Press et al. 2022: a geometric sequence from 2^(-8/n) for n heads; for a
 * number that is no power of two, every other slope of the next power fills up. */
static float slope(int64_t head, int64_t heads)
{
    int64_t power = 1;
    while (2 * power <= heads)
        power *= 2;
    if (head < power)
        return exp2f(-8.0f * (float)(head + 1) / (float)power);
    return exp2f(-4.0f * (float)(2 * (head - power) + 1) / (float)power);
}

static mn_status create(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error)
{
    const struct options *options = layer->options;
    struct own *own = mn__arena_calloc(&params->nodes, 1, sizeof *own);
    layer->own = own;
    if (own && options->alibi)
        own->slopes = mn__arena_calloc(&params->nodes, layer->H, sizeof *own->slopes);
    if (!own || (options->alibi && !own->slopes))
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", prefix);
    for (int64_t h = 0; options->alibi && h < layer->H; h++)
        own->slopes[h] = slope(h, layer->H);
    return mn__attention_create(layer, params, prefix, error);
}

static mn_status check(const mn__attention *layer, mn_error *error)
{
    const struct options *options = layer->options;
    if (options->alibi && layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.alibi with rotary positions");
    return MN_OK;
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    int64_t size[] = {capacity, layer->G, layer->D};
    if (!mn__state_add(states, state, "keys", states->compute, 3, size, NULL) ||
        !mn__state_add(states, state, "values", states->compute, 3, size, NULL) ||
        !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY,
                        "plan for fewer tokens, or use a window or a trained memory",
                        "no memory for the keys and values of %lld tokens", (long long)capacity);
    return MN_OK;
}

/* ALiBi measures from the cache's end, which is one for all rows of a batch. */
static bool cache_fits(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                       const mn__state *state)
{
    const struct own *own = layer->own;
    int64_t capacity = state->slot[KEYS].value.size[1];
    const int64_t *filled = state->counter[FILLED];
    for (int64_t b = 0; b < segment->B; b++) {
        if (filled[b] + mn__segment_valid(segment, b) > capacity)
            return mn__tape_fail(tape, MN_ERROR_MISMATCH,
                                 "plan for more tokens, slide a window over the document, or use "
                                 "an attention type with a memory",
                                 "the document is longer than the %lld tokens planned for",
                                 (long long)capacity);
        if (own->slopes && filled[b] != filled[0])
            return mn__tape_fail(tape, MN_ERROR_UNSUPPORTED, "read them in batches of their own",
                                 "ALiBi over rows that have read different lengths");
    }
    return true;
}

static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    const struct own *own = layer->own;
    bool cached = state->slot[KEYS].value.size[1] > 0;
    int64_t longest = 0; /* what any row has read */
    for (int64_t b = 0; b < segment->B; b++)
        if (state->counter[FILLED][b] > longest)
            longest = state->counter[FILLED][b];
    mn__var *h = mn__attention_input(layer, tape, x), *k, *v;
    mn__var *q = mn__attention_queries(layer, tape, h);
    if (!q || !mn__attention_keys_values(layer, tape, h, &k, &v) ||
        (cached && !cache_fits(layer, tape, segment, state)))
        return NULL;
    if (layer->rope) {
        q = mn__op_rope(tape, q, segment->positions, layer->rope);
        k = mn__op_rope(tape, k, segment->positions, layer->rope);
    }
    mn__attention_args args = {.queries = q, .scale = 1.0f / sqrtf((float)layer->D)};
    args.valid = segment->valid;
    mn__position position = own->slopes ? MN__POSITION_ALIBI : MN__POSITION_NONE;
    if (longest > 0)
        args.group[args.groups++] =
            (mn__keys){.keys = mn__slot_read(tape, &state->slot[KEYS], 0, longest),
                       .values = mn__slot_read(tape, &state->slot[VALUES], 0, longest),
                       .length = state->counter[FILLED],
                       .mask = MN__MASK_NONE,
                       .offset = longest,
                       .position = position,
                       .slopes = own->slopes};
    args.group[args.groups++] = (mn__keys){.keys = k,
                                           .values = v,
                                           .mask = MN__MASK_CAUSAL,
                                           .position = position,
                                           .slopes = own->slopes};
    if (cached) {
        pending->var[KEYS] = mn__tape_keep(tape, k);
        pending->var[VALUES] = mn__tape_keep(tape, v);
    }
    return mn__attention_out(layer, tape, mn__op_attention(tape, &args));
}

static void append(mn__tape *tape, mn__slot *slot, const mn__var *source, int64_t row,
                   int64_t filled, int64_t valid)
{
    mn__tensor to = mn__tensor_slice(&slot->value, 0, row, 1);
    mn__tensor from = mn__tensor_slice(&source->value, 0, row, 1);
    to = mn__tensor_slice(&to, 1, filled, valid);
    from = mn__tensor_slice(&from, 1, 0, valid);
    mn__tensor_convert(&tape->device->queue, &to, &from);
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    (void)layer, (void)live;
    if (state->slot[KEYS].value.size[1] == 0)
        return;
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t valid = mn__segment_valid(segment, b), filled = state->counter[FILLED][b];
        for (int slot = KEYS; slot <= VALUES; slot++)
            append(tape, &state->slot[slot], pending->var[slot], b, filled, valid);
        state->counter[FILLED][b] += valid;
    }
}

static int64_t grid(const mn__attention *layer)
{
    (void)layer;
    return 1;
}

const mn__attention_type mn__attention_full = {
    .name = "full",
    .paper = "Vaswani et al. 2017, arXiv 1706.03762",
    .help = "every token sees its whole document so far",
    .options = option_table,
    .options_bytes = sizeof(struct options),
    .strictly_causal = true,
    .gradient_segments = 1,
    .check = check,
    .create = create,
    .create_state = create_state,
    .forward = forward,
    .commit = commit,
    .grid = grid,
};
