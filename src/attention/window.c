/* Sliding-window attention: every token sees the last W tokens of its document.
 *
 * Query i sees key j iff 0 <= i - j < W; strictly (Memorizing and
 * Block-Recurrent Transformers): 1 <= i - j <= W, not itself.
 * State: the keys and values of the last W - 1 (strictly: W) tokens, as they
 * were computed: during training they are constants of older parameters.
 * Positions are rotary (from the model) or T5's bias in buckets of distance
 * (Raffel et al. 2020). Not here: a memory beyond the window. */
#include <math.h>

#include "attention/types.h"
#include "nn/create.h"

struct options {
    int64_t window;
    bool strict, t5;
    int64_t buckets, far;
    double dropout;
};

static const mn__option option_table[] = {
    MN__INT(struct options, window, "512", 1, 1e9, "tokens that a token sees"),
    MN__BOOL(struct options, strict, "false", "a token does not see itself"),
    MN__BOOL(struct options, t5, "false", "T5's relative bias instead of RoPE"),
    MN__INT(struct options, buckets, "32", 2, 4096, "buckets of distance of T5's bias"),
    MN__INT(struct options, far, "128", 2, 1e9, "the distance from which T5's last bucket holds"),
    MN__FLOAT(struct options, dropout, "0", 0, 0.99, "of attention weights, while training"),
    MN__OPTIONS_END,
};

enum { KEYS, VALUES };
enum { FILLED };

struct own {
    mn__param *table; /* [buckets, H] or NULL */
};

static int64_t cached(const struct options *options)
{
    return options->strict ? options->window : options->window - 1;
}

static mn_status check(const mn__attention *layer, mn_error *error)
{
    const struct options *options = layer->options;
    if (options->t5 && layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.t5 with rotary positions");
    if (options->t5 && options->far <= options->buckets / 2)
        return mn__fail(error, MN_ERROR_OPTION,
                        "half of the buckets hold one distance each: set a larger far, or "
                        "fewer buckets",
                        "attention.far is %lld, and %lld buckets tell apart distances up to %lld",
                        (long long)options->far, (long long)options->buckets,
                        (long long)options->buckets / 2);
    return MN_OK;
}

static mn_status create(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error)
{
    const struct options *options = layer->options;
    struct own *own = mn__arena_calloc(&params->nodes, 1, sizeof *own);
    if (!own)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", prefix);
    layer->own = own;
    mn_status status = mn__attention_create(layer, params, prefix, error);
    if (status != MN_OK || !options->t5)
        return status;
    return mn__create(&own->table, params, prefix, "distance", 2,
                      (int64_t[]){options->buckets, layer->H},
                      (mn__init){MN__INIT_NORMAL, 0.0f, layer->deviation}, error);
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    (void)capacity;
    int64_t size[] = {cached(layer->options), layer->G, layer->D};
    if (!mn__state_add(states, state, "keys", states->compute, 3, size, NULL) ||
        !mn__state_add(states, state, "values", states->compute, 3, size, NULL) ||
        !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY, "use a smaller window",
                        "no memory for a window of %lld tokens", (long long)size[0]);
    return MN_OK;
}

/* [past; fresh] along time, `past` being the newest `need` entries of a slot. */
static mn__var *extend(mn__tape *tape, const mn__slot *slot, int64_t need, mn__var *fresh)
{
    if (need == 0)
        return fresh;
    mn__var *parts[2] = {mn__slot_read(tape, slot, slot->value.size[1] - need, need), fresh};
    return mn__op_concat(tape, 1, parts, 2);
}

/* How many cached entries any row has, and per row where they begin. */
static int64_t cached_entries(mn__tape *tape, const mn__segment *segment, const mn__state *state,
                              int64_t **first)
{
    int64_t need = 0;
    for (int64_t b = 0; b < segment->B; b++)
        if (state->counter[FILLED][b] > need)
            need = state->counter[FILLED][b];
    *first = mn__arena_calloc(&tape->nodes, segment->B, sizeof **first);
    for (int64_t b = 0; *first && b < segment->B; b++)
        (*first)[b] = need - state->counter[FILLED][b];
    return need;
}

static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    const struct options *options = layer->options;
    const struct own *own = layer->own;
    mn__var *h = mn__attention_input(layer, tape, x), *k, *v;
    mn__var *q = mn__attention_queries(layer, tape, h);
    if (!q || !mn__attention_keys_values(layer, tape, h, &k, &v))
        return NULL;
    if (layer->rope) {
        q = mn__op_rope(tape, q, segment->positions, layer->rope);
        k = mn__op_rope(tape, k, segment->positions, layer->rope);
    }
    pending->var[KEYS] = mn__tape_keep(tape, k);
    pending->var[VALUES] = mn__tape_keep(tape, v);
    int64_t *first, need = cached_entries(tape, segment, state, &first);
    if (!first)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
    mn__attention_args args = {.queries = q,
                               .scale = 1.0f / sqrtf((float)layer->D),
                               .valid = segment->valid,
                               .dropout = (float)options->dropout,
                               .groups = 1};
    args.group[0] = (mn__keys){
        .keys = extend(tape, &state->slot[KEYS], need, k),
        .values = extend(tape, &state->slot[VALUES], need, v),
        .first = first,
        .mask = options->strict ? MN__MASK_BAND_STRICT : MN__MASK_BAND,
        .offset = need,
        .window = options->window,
        .position = own->table ? MN__POSITION_T5 : MN__POSITION_NONE,
        .table = mn__tape_param(tape, own->table),
        .far = options->far,
    };
    return mn__attention_out(layer, tape, mn__op_attention(tape, &args));
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    (void)live; /* no gradient passes into the cache */
    int64_t most = cached(layer->options);
    mn__slot_append(tape, &state->slot[KEYS], pending->var[KEYS], segment->valid, false);
    mn__slot_append(tape, &state->slot[VALUES], pending->var[VALUES], segment->valid, false);
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t filled = state->counter[FILLED][b] + mn__segment_valid(segment, b);
        state->counter[FILLED][b] = filled < most ? filled : most;
    }
}

static int64_t grid(const mn__attention *layer)
{
    (void)layer;
    return 1;
}

const mn__attention_type mn__attention_window = {
    .name = "window",
    .paper = "the sliding window of Hutchins et al. 2022, arXiv 2203.07852, section 3.1",
    .help = "every token sees the last W tokens",
    .options = option_table,
    .options_bytes = sizeof(struct options),
    .check = check,
    .create = create,
    .create_state = create_state,
    .forward = forward,
    .commit = commit,
    .grid = grid,
};
