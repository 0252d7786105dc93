/* Full attention: every token sees its whole document so far.
 *
 *   out = softmax(q K^T / sqrt(D)) V,  K, V over [cache; segment]
 *
 * State: the keys and values of all tokens read, as the stream keeps them (a token meets
 * the same ones in its own segment), up to the capacity planned when it was opened. With capacity
 * 0, as in training on cuttings, a segment sees itself alone. Positions are rotary (from the
 * model), ALiBi's slopes (Press et al. 2022), or none. Not here: approximations of any kind. */
#include <math.h>
#include <string.h>

#include "attention/types.h"

struct options {
    bool alibi, rope;
    double dropout;
};

static const mn__option option_table[] = {
    MN__BOOL(struct options, alibi, "false", "a penalty proportional to distance instead of RoPE"),
    MN__BOOL(struct options, rope, "true", "the model's rotary positions, where it has them"),
    MN__FLOAT(struct options, dropout, "0", 0, 0.99, "of attention weights, while training"),
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
    if (options->alibi && options->rope && layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.alibi with rotary positions");
    return MN_OK;
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    if (!mn__state_add_heads(states, state, "keys", capacity, layer->G, layer->D) ||
        !mn__state_add_heads(states, state, "values", capacity, layer->G, layer->D) ||
        !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY,
                        "plan for fewer tokens, or use a window or a trained memory",
                        "no memory for the keys and values of %lld tokens", (long long)capacity);
    state->slot[KEYS].grows = state->slot[VALUES].grows = true;
    mn__state_bound_counter(state, FILLED, capacity);
    return MN_OK;
}

/* The most tokens that any row has read; fails where one's do not fit. */
static int64_t longest_read(mn__tape *tape, const mn__segment *segment, const mn__state *state)
{
    int64_t capacity = state->slot[KEYS].value.size[1], longest = 0;
    for (int64_t b = 0; capacity > 0 && b < segment->B; b++) {
        int64_t filled = state->counter[FILLED][b];
        longest = filled > longest ? filled : longest;
        if (filled + mn__segment_valid(segment, b) > capacity)
            mn__tape_fail(tape, MN_ERROR_MISMATCH,
                          "plan for more tokens, slide a window over the document, or use an "
                          "attention type with a memory",
                          "the document is longer than the %lld tokens planned for",
                          (long long)capacity);
    }
    return longest;
}

/* A row's entries from..from+count of a tensor [B, S, ...]. */
static mn__tensor entries(const mn__tensor *tensor, int64_t row, int64_t from, int64_t count)
{
    mn__tensor one = mn__tensor_slice(tensor, 0, row, 1);
    return mn__tensor_slice(&one, 1, from, count);
}

/* The cache with each row's entries ending at `longest`, so that one offset
 * measures ALiBi's distances in all of them; what is before is not to be seen. */
static mn__var *align_right(mn__tape *tape, const mn__slot *slot, const int64_t *filled,
                            int64_t longest)
{
    mn__tensor part = mn__tensor_slice(&slot->value, 1, 0, longest);
    mn__var *aligned = mn__tape_new(tape, part.dtype, part.rank, part.size);
    for (int64_t b = 0; aligned && b < part.size[0]; b++) {
        mn__tensor to = entries(&aligned->value, b, longest - filled[b], filled[b]);
        mn__tensor from = entries(&part, b, 0, filled[b]);
        mn__tensor_convert(&tape->device->queue, &to, &from);
    }
    return aligned;
}

/* Adds the cache as a group of keys, which every query sees. */
static bool add_cache(mn__tape *tape, const mn__segment *segment, const mn__state *state,
                      int64_t longest, const float *slopes, mn__attention_args *args)
{
    const int64_t *filled = state->counter[FILLED];
    mn__keys *group = &args->group[args->groups++];
    *group = (mn__keys){.mask = MN__MASK_NONE, .offset = longest};
    if (!slopes) {
        group->keys = mn__slot_read(tape, &state->slot[KEYS], 0, longest);
        group->values = mn__slot_read(tape, &state->slot[VALUES], 0, longest);
        int64_t *length = mn__arena_calloc(&tape->nodes, segment->B, sizeof *length);
        if (length) /* backward may come after the state has moved on */
            memcpy(length, filled, (size_t)segment->B * sizeof *length);
        group->length = length;
        return length;
    }
    int64_t *first = mn__arena_calloc(&tape->nodes, segment->B, sizeof *first);
    for (int64_t b = 0; first && b < segment->B; b++)
        first[b] = longest - filled[b];
    group->keys = align_right(tape, &state->slot[KEYS], filled, longest);
    group->values = align_right(tape, &state->slot[VALUES], filled, longest);
    group->first = first;
    group->position = MN__POSITION_ALIBI;
    group->slopes = slopes;
    return first;
}

static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    const struct options *options = layer->options;
    const struct own *own = layer->own;
    bool cached = state->slot[KEYS].value.size[1] > 0;
    int64_t longest = longest_read(tape, segment, state);
    mn__var *h = mn__attention_input(layer, tape, x), *k, *v;
    mn__var *q = mn__attention_queries(layer, tape, h);
    if (!q || !mn__attention_keys_values(layer, tape, h, &k, &v) || tape->status != MN_OK)
        return NULL;
    if (layer->rope && options->rope) {
        q = mn__op_rope(tape, q, segment->positions, layer->rope);
        k = mn__op_rope(tape, k, segment->positions, layer->rope);
    }
    k = mn__slot_keep(tape, &state->slot[KEYS], k);
    v = mn__slot_keep(tape, &state->slot[VALUES], v);
    mn__attention_args args = {.queries = q, .scale = 1.0f / sqrtf((float)layer->D)};
    args.valid = segment->valid;
    args.dropout = (float)options->dropout;
    if (longest > 0 && !add_cache(tape, segment, state, longest, own->slopes, &args))
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
    args.group[args.groups++] =
        (mn__keys){.keys = k,
                   .values = v,
                   .mask = MN__MASK_CAUSAL,
                   .position = own->slopes ? MN__POSITION_ALIBI : MN__POSITION_NONE,
                   .slopes = own->slopes};
    if (cached) {
        pending->var[KEYS] = mn__tape_keep(tape, k);
        pending->var[VALUES] = mn__tape_keep(tape, v);
    }
    return mn__attention_out(layer, tape, mn__op_attention(tape, &args));
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    (void)layer, (void)live;
    if (state->slot[KEYS].value.size[1] == 0)
        return;
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t valid = mn__segment_valid(segment, b), filled = state->counter[FILLED][b];
        for (int slot = KEYS; slot <= VALUES; slot++) {
            mn__tensor to = entries(&state->slot[slot].value, b, filled, valid);
            mn__tensor from = entries(&pending->var[slot]->value, b, 0, valid);
            mn__tensor_convert(&tape->device->queue, &to, &from);
        }
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
    .head_norm = true,
    .keeps = true,
    .check = check,
    .create = create,
    .create_state = create_state,
    .forward = forward,
    .commit = commit,
    .grid = grid,
};
