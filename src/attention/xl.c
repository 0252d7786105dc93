/* Transformer-XL (Dai et al. 2019, arXiv 1901.02860): segments with a memory of
 * the layer's own earlier inputs, and positions relative to the query.
 *
 *   h~ = [SG(memory); h]                                        (section 3.2)
 *   q = W_q h,  [k; v] = W_kv h~,  r_d = W_r R_d                (section 3.3)
 *   score_ij = ((q_i + u) . k_j + (q_i + v) . r_d) / sqrt(D),   d = i - j
 *
 * R_d is a sinusoid of the distance d, its sines before its cosines; u and v are
 * one pair for all layers unless `untie` says otherwise. Distances beyond
 * `clamp` count as `clamp`. As in the authors' code, memory holds the layer's
 * input before its norm, and a norm that comes first sees memory and segment.
 *
 * State: the last M + N - 1 inputs, right-aligned. A token sees the M tokens
 * before its segment of N, and its segment so far: the grid is N. With
 * same_length a token sees itself and the M - 1 tokens before it, and the grid
 * is 1. A memory not yet filled is short, or with zero_memory a full one of
 * zeros that take part in the softmax, as in the authors' TPU code. */
#include <math.h>
#include <stdio.h>

#include "attention/relative.h"
#include "attention/types.h"
#include "nn/create.h"

struct options {
    int64_t memory, segment, clamp;
    bool same_length, zero_memory, untie;
    double dropout;
};

static const mn__option option_table[] = {
    MN__INT(struct options, memory, "512", 0, 1e9, "tokens remembered, M"),
    MN__INT(struct options, segment, "0", 0, 1e9, "the grid, N; 0: the training segment's"),
    MN__INT(struct options, clamp, "0", 0, 1e9, "the largest distance told apart; 0: no limit"),
    MN__BOOL(struct options, same_length, "false", "every token sees exactly M tokens"),
    MN__BOOL(struct options, zero_memory, "false", "an empty memory is zeros, not absent"),
    MN__BOOL(struct options, untie, "false", "biases u and v for each layer"),
    MN__FLOAT(struct options, dropout, "0", 0, 0.99, "of attention weights, while training"),
    MN__OPTIONS_END,
};

enum { INPUTS };
enum { FILLED, OPEN }; /* tokens remembered of the document; tokens of the open segment */

struct own {
    mn__linear relative; /* W_r [H D, C] */
    mn__param *u, *v;    /* [H, D] */
    mn__sinusoids sinusoids;
};

static int64_t segment_length(const mn__attention *layer)
{
    const struct options *options = layer->options;
    if (options->same_length)
        return 1;
    return options->segment ? options->segment : layer->segment;
}

static mn_status check(const mn__attention *layer, mn_error *error)
{
    const struct options *options = layer->options;
    if (layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.type xl has relative positions of its own");
    if (layer->G != layer->H)
        return mn__fail(error, MN_ERROR_OPTION, "leave model.kv_heads out",
                        "attention.type xl has a key for every head");
    if (layer->C % 2)
        return mn__fail(error, MN_ERROR_OPTION, "choose an even model.width",
                        "attention.type xl needs an even width, not %lld", (long long)layer->C);
    if (options->same_length && options->memory < 1)
        return mn__fail(error, MN_ERROR_OPTION, "set attention.memory to 1 or more",
                        "attention.same_length without a memory");
    return MN_OK;
}

/* The distances that a layer tells apart. */
static int64_t distances_of(const mn__attention *layer)
{
    const struct options *options = layer->options;
    int64_t longest =
        options->same_length ? options->memory : options->memory + segment_length(layer);
    return options->clamp && options->clamp < longest ? options->clamp + 1 : longest;
}

static mn_status create_biases(mn__attention *layer, struct own *own, mn__params *params,
                               const char *prefix, mn_error *error)
{
    mn__init normal = {MN__INIT_NORMAL, 0.0f, layer->deviation};
    int64_t size[] = {layer->H, layer->D};
    mn_status status = mn__create(&own->u, params, prefix, "content_bias", 2, size, normal, error);
    if (status == MN_OK)
        status = mn__create(&own->v, params, prefix, "position_bias", 2, size, normal, error);
    if (status == MN_OK)
        own->u->decays = own->v->decays = false;
    return status;
}

static mn_status create(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error)
{
    const struct options *options = layer->options;
    struct own *own = mn__arena_calloc(&params->nodes, 1, sizeof *own);
    if (!own)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", prefix);
    layer->own = own;
    bool first = layer->first == layer;
    struct own *first_own = layer->first->own;
    char name[128];
    snprintf(name, sizeof name, "%s.relative", prefix);
    mn_status status = mn__attention_create(layer, params, prefix, error);
    if (status == MN_OK)
        status = mn__linear_create(&own->relative, params, name, layer->C, layer->H * layer->D,
                                   false, layer->deviation, error);
    if (status == MN_OK && (first || options->untie))
        status = create_biases(layer, own, params, prefix, error);
    if (status == MN_OK)
        status = mn__sinusoids_create(&own->sinusoids, &first_own->sinusoids, params, layer->C,
                                      distances_of(layer), error);
    if (!options->untie) {
        own->u = first_own->u;
        own->v = first_own->v;
    }
    return status;
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    (void)capacity;
    const struct options *options = layer->options;
    int64_t size[] = {options->memory + segment_length(layer) - 1, layer->C};
    if (!mn__state_add(states, state, "inputs", MN__F32, 2, size, NULL) ||
        !mn__state_add_counter(states, state) || !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY, "use a shorter memory",
                        "no memory for %lld remembered inputs", (long long)size[0]);
    mn__state_bound_counter(state, FILLED, size[0]);
    mn__state_bound_counter(state, OPEN, segment_length(layer) - 1);
    return MN_OK;
}

static void tell_masses(const mn__attention *layer, const mn__segment *segment, const float *mass,
                        int64_t memory, int64_t S)
{
    const struct options *options = layer->options;
    const mn__mass_region regions[] = {
        {"memory", memory, S, mass, options->memory},
        {"window", S - memory, S, mass + memory, options->memory},
    };
    for (int i = memory > 0 ? 0 : 1; i < 2; i++)
        segment->watch->mass(segment->watch->user, layer, segment, &regions[i]);
}

static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    const struct options *options = layer->options;
    const struct own *own = layer->own;
    const mn__slot *inputs = &state->slot[INPUTS];
    int64_t *first,
        need = mn__entries_visible(tape, segment, options->memory, state->counter[OPEN],
                                   state->counter[FILLED], options->zero_memory, &first);
    if (need < 0)
        return NULL;
    mn__var *h = mn__attention_input(layer, tape, x), *all = h, *k, *v;
    mn__var *q = mn__attention_queries(layer, tape, h);
    if (need > 0) {
        mn__var *past = mn__slot_read(tape, inputs, inputs->value.size[1] - need, need);
        past = mn__attention_input(layer, tape, past);
        all = mn__op_concat(tape, 1, (mn__var *[]){past, h}, 2);
    }
    if (!q || !mn__attention_keys_values(layer, tape, all, &k, &v))
        return NULL;
    int64_t limit = need + segment->T - 1;
    if (limit > own->sinusoids.distances - 1)
        limit = own->sinusoids.distances - 1;
    mn__attention_args args = {.queries = q,
                               .scale = 1.0f / sqrtf((float)layer->D),
                               .valid = segment->valid,
                               .dropout = (float)options->dropout,
                               .groups = 1};
    args.group[0] = (mn__keys){
        .keys = k,
        .values = v,
        .first = first,
        .mask = options->same_length ? MN__MASK_BAND : MN__MASK_CAUSAL,
        .offset = need,
        .window = options->memory,
        .position = MN__POSITION_XL,
        .relative = mn__relative_keys(layer, tape, &own->relative, &own->sinusoids, limit),
        .u = mn__tape_param(tape, own->u),
        .v = mn__tape_param(tape, own->v),
        .limit = limit,
    };
    pending->var[INPUTS] = mn__tape_keep(tape, x);
    int64_t S = need + segment->T;
    if (mn__segment_watches_mass(segment) &&
        !(args.key_mass[0] = mn__tape_alloc(tape, segment->B * layer->H * S * 4)))
        return NULL;
    mn__var *heads = mn__op_attention(tape, &args);
    if (heads && mn__segment_watches_mass(segment))
        tell_masses(layer, segment, args.key_mass[0],
                    need < options->memory ? need : options->memory, S);
    return mn__attention_out(layer, tape, heads);
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    (void)live; /* no gradient passes into memory */
    int64_t N = segment_length(layer), most = state->slot[INPUTS].value.size[1];
    mn__slot_append(tape, &state->slot[INPUTS], pending->var[INPUTS], segment->valid, false);
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t valid = mn__segment_valid(segment, b);
        int64_t filled = state->counter[FILLED][b] + valid;
        state->counter[FILLED][b] = filled < most ? filled : most;
        state->counter[OPEN][b] = (state->counter[OPEN][b] + valid) % N;
    }
}

const mn__attention_type mn__attention_xl = {
    .name = "xl",
    .paper = "Dai et al. 2019, arXiv 1901.02860",
    .help = "Transformer-XL: a memory of earlier inputs, relative positions",
    .options = option_table,
    .options_bytes = sizeof(struct options),
    .check = check,
    .create = create,
    .create_state = create_state,
    .forward = forward,
    .commit = commit,
    .grid = segment_length,
};
