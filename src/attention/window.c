/* Sliding-window attention: every token sees the last W tokens of its document.
 *
 * Query i sees key j iff 0 <= i - j < W; strictly (Memorizing and
 * Block-Recurrent Transformers): 1 <= i - j <= W, not itself.
 *
 *   score_ij = q_i . k_j / sqrt(D) + bias(i - j)
 *   normalise: score_ij = (n(q_i) . n(k_j) + bias(i - j)) |s_h|,
 *              n(x) = x / sqrt(sum x^2 + 1e-6)    (Wu et al. 2022, section 3)
 *
 * with T5's bias in buckets of distance (Raffel et al. 2020), or without and rotary
 * positions (from the model); s_h is learned, one for each head, 1 at first. A query
 * that sees nothing gives 0.
 *
 * State: the keys (normalised, rotated) and values of the last W - 1 (strictly: W)
 * tokens, as they were computed: during training they are constants of older
 * parameters. Not yet filled, it is short, or with zero_memory (as in the authors'
 * code of both papers) full of zero keys and values that take part in the softmax.
 * Most of it is in local.c. Not here: a memory beyond the window. */
#include "attention/local.h"
#include "attention/types.h"

static const mn__option option_table[] = {
    MN__LOCAL_OPTIONS("false"),
    MN__OPTIONS_END,
};

static mn_status check(const mn__attention *layer, mn_error *error)
{
    return mn__local_check(layer->options, layer, error);
}

static mn_status create(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error)
{
    mn__local *local = mn__arena_calloc(&params->nodes, 1, sizeof *local);
    if (!local)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", prefix);
    layer->own = local;
    mn_status status = mn__attention_create(layer, params, prefix, error);
    if (status == MN_OK)
        status = mn__local_create(local, layer->options, layer, params, prefix, error);
    return status;
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    (void)capacity;
    return mn__local_create_state(layer, states, state, mn__local_reach(layer->options), error);
}

static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    mn__local_heads heads;
    mn__attention_args args;
    mn__var *h = mn__attention_input(layer, tape, x);
    if (!mn__local_project(layer->options, layer, tape, segment, state, h, &heads, pending) ||
        !mn__local_args(layer->own, layer->options, layer, tape, segment, state, 0, &heads, &args))
        return NULL;
    return mn__attention_out(layer, tape, mn__op_attention(tape, &args));
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    (void)layer;
    (void)live; /* no gradient passes into the cache */
    mn__local_commit(tape, segment, state, pending, false);
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
    .options_bytes = sizeof(mn__local_options),
    .head_norm = true,
    .keeps = true,
    .check = check,
    .create = create,
    .create_state = create_state,
    .forward = forward,
    .commit = commit,
    .grid = grid,
};
