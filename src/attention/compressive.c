/* The Compressive Transformer (Rae et al. 2019, arXiv 1911.05507): Transformer-XL
 * whose oldest memories are not dropped but compressed, in the form of the
 * authors' code (Sonnet's CompressiveTransformer).
 *
 *   one softmax over [cm ; m ; h], with one W_q and W_kv, and in a window of N tokens
 *   slot j of cm:     [(q + u) . k_j + (q + v_c) . W_rc R_d] / sqrt(D),  d = n_cm + i - j
 *   slot j of [m;h]:  [(q + u) . k_j + (q + v)   . W_r  R_d] / sqrt(D),  d = n_m + i - j
 * i counting from the window's start: compressed slots are numbered as if they stood
 * right before the window. At its end (algorithm 1)
 *   old = the oldest N rows of [m ; h];  new = f_c(old), see attention/compression.h
 *   m' = the last n_m rows of [m ; h];   cm' = the last n_cm rows of [cm ; new]
 *   loss attention:     mean (A(q, old) - A(q, new))^2, A content attention of each head
 *   loss autoencoding:  mean (old - g(new))^2
 * the mean over all layers too. Of a loss only f_c and g are trained: old, q and every
 * projection are constants. `through` says how far the task's gradient goes from a
 * window to those before: nowhere, to f_c, or everywhere.
 *
 * What is remembered is the normed input of the attention, as the authors do, or the
 * input itself, then normed at each use (`remember`); a model that norms after its
 * sums has but one. Slots not filled yet are zeros that take part in the softmax, or
 * absent (`zero_memory`): then rows are compressed as they leave a memory that is
 * full, in groups from the oldest of each window on.
 *
 * State: the last n_m + N - 1 rows of [m ; h], cm, and for most_used the attention
 * that each of those rows has received: a sum over all queries and heads since it was
 * read, its own window's among them (the paper says average). The grid is the window. */
#include <math.h>
#include <stdio.h>

#include "attention/compressive.h"
#include "attention/types.h"
#include "nn/create.h"

static const mn__option option_table[] = {
    MN__INT(struct mn__compressive_options, window, "0", 0, 1e9,
            "the grid, N; 0: the training segment's"),
    MN__INT(struct mn__compressive_options, memory, "512", 0, 1e9, "tokens remembered, n_m"),
    MN__INT(struct mn__compressive_options, compressed, "512", 0, 1e9, "compressed memories, n_cm"),
    MN__INT(struct mn__compressive_options, rate, "3", 1, 1e6, "memories that become one, c"),
    MN__ENUM(struct mn__compressive_options, compression, "conv", "conv|max|mean|dilated|most_used",
             "how they become one"),
    MN__INT(struct mn__compressive_options, extra, "0", 0, 1e6,
            "what the kernel of a pool has beyond c"),
    MN__INT(struct mn__compressive_options, dilations, "3", 1, MN__DILATIONS_MAX,
            "of dilated: 1, 2, 4, .."),
    MN__ENUM(struct mn__compressive_options, loss, "attention", "attention|autoencoding|none",
             "what trains the compression"),
    MN__FLOAT(struct mn__compressive_options, weight, "1", 0, 1e6, "of that loss"),
    MN__ENUM(struct mn__compressive_options, through, "nothing", "nothing|compression|everything",
             "what the task's gradient reaches in earlier windows"),
    MN__ENUM(struct mn__compressive_options, remember, "normed", "normed|inputs",
             "the attention's normed input, or the input, normed at use"),
    MN__BOOL(struct mn__compressive_options, zero_memory, "true",
             "an empty memory is zeros, not absent"),
    MN__INT(struct mn__compressive_options, clamp, "0", 0, 1e9,
            "the largest distance told apart; 0: no limit"),
    MN__BOOL(struct mn__compressive_options, untie, "false", "biases u, v and v_c for each layer"),
    MN__FLOAT(struct mn__compressive_options, dropout, "0", 0, 0.99,
              "of attention weights, while training"),
    MN__OPTIONS_END,
};

int64_t mn__compressive_window(const mn__attention *layer)
{
    const struct mn__compressive_options *options = layer->options;
    return options->window ? options->window : layer->segment;
}

bool mn__compressive_norms_at_use(const mn__attention *layer)
{
    const struct mn__compressive_options *options = layer->options;
    return layer->pre_norm && options->remember == MN__REMEMBER_INPUTS;
}

static mn__compression compression_of(const struct mn__compressive_options *options)
{
    return (mn__compression){.kind = (mn__compression_kind)options->compression,
                             .rate = options->rate,
                             .extra = options->extra,
                             .dilations = options->dilations,
                             .decodes = options->loss == MN__LOSS_AUTOENCODING};
}

/* ---- Options -------------------------------------------------------------------------- */

static mn_status check_compression(const mn__attention *layer, mn_error *error)
{
    const struct mn__compressive_options *options = layer->options;
    mn__compression compression = compression_of(options);
    bool learns = mn__compression_learns(&compression);
    if (mn__compression_count(&compression, mn__compressive_window(layer)) == 0)
        return mn__fail(error, MN_ERROR_OPTION,
                        "choose a smaller attention.rate, fewer dilations, or a longer window",
                        "a window of %lld tokens gives no compressed memory",
                        (long long)mn__compressive_window(layer));
    if (options->loss == MN__LOSS_AUTOENCODING && compression.kind == MN__COMPRESS_DILATED)
        return mn__fail(error, MN_ERROR_OPTION, "set attention.loss: attention",
                        "attention.loss autoencoding is for compression: conv");
    if (learns && options->loss == MN__LOSS_NONE && options->through == MN__THROUGH_NOTHING)
        return mn__fail(error, MN_ERROR_OPTION,
                        "set attention.loss: attention, or attention.through: compression",
                        "with neither a loss nor the task's gradient the compression would "
                        "never be trained");
    return MN_OK;
}

static mn_status check(const mn__attention *layer, mn_error *error)
{
    if (layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.type compressive has relative positions of its own");
    if (layer->G != layer->H)
        return mn__fail(error, MN_ERROR_OPTION, "leave model.kv_heads out",
                        "attention.type compressive has a key for every head");
    if (layer->C % 2)
        return mn__fail(error, MN_ERROR_OPTION, "choose an even model.width",
                        "attention.type compressive needs an even width, not %lld",
                        (long long)layer->C);
    return check_compression(layer, error);
}

static int gradient_segments(const mn__attention *layer)
{
    const struct mn__compressive_options *options = layer->options;
    int64_t segments = mn__compressive_window(layer) / layer->segment;
    return options->through == MN__THROUGH_NOTHING ? 1 : (int)(segments > 1 ? segments : 1) + 1;
}

/* ---- Parameters and state ---------------------------------------------------------------- */

static mn_status create_bias(const mn__attention *layer, mn__param **bias, mn__params *params,
                             const char *prefix, const char *name, mn_error *error)
{
    mn__init normal = {MN__INIT_NORMAL, 0.0f, layer->deviation};
    int64_t size[] = {layer->H, layer->D};
    mn_status status = mn__create(bias, params, prefix, name, 2, size, normal, error);
    if (status == MN_OK)
        (*bias)->decays = false;
    return status;
}

/* Those of all layers are the first one's that has them, unless they are untied. */
static mn_status create_biases(const mn__attention *layer, struct mn__compressive *own,
                               mn__params *params, const char *prefix, mn_error *error)
{
    const struct mn__compressive_options *options = layer->options;
    struct mn__compressive *first = layer->first->own;
    const struct {
        mn__param **own, **first;
        const char *name;
        bool used;
    } biases[] = {
        {&own->content, &first->content, "content_bias", true},
        {&own->position, &first->position, "position_bias", true},
        {&own->compressed, &first->compressed, "position_bias_compressed", options->compressed > 0},
    };
    mn_status status = MN_OK;
    for (size_t i = 0; i < sizeof biases / sizeof *biases && status == MN_OK; i++) {
        if (biases[i].used && (options->untie || !*biases[i].first))
            status = create_bias(layer, biases[i].own, params, prefix, biases[i].name, error);
        else if (biases[i].used)
            *biases[i].own = *biases[i].first;
        if (status == MN_OK && !*biases[i].first)
            *biases[i].first = *biases[i].own;
    }
    return status;
}

static mn_status create_relative(mn__attention *layer, struct mn__compressive *own,
                                 mn__params *params, const char *prefix, mn_error *error)
{
    const struct mn__compressive_options *options = layer->options;
    struct mn__compressive *first = layer->first->own;
    int64_t longest = options->memory > options->compressed ? options->memory : options->compressed;
    int64_t distances = longest + mn__compressive_window(layer), inner = layer->H * layer->D;
    if (options->clamp && options->clamp < distances)
        distances = options->clamp + 1;
    char name[128];
    snprintf(name, sizeof name, "%s.relative", prefix);
    mn_status status = mn__linear_create(&own->relative, params, name, layer->C, inner, false,
                                         layer->deviation, error);
    snprintf(name, sizeof name, "%s.relative_compressed", prefix);
    if (status == MN_OK && options->compressed)
        status = mn__linear_create(&own->relative_compressed, params, name, layer->C, inner, false,
                                   layer->deviation, error);
    if (status == MN_OK)
        status = create_biases(layer, own, params, prefix, error);
    return status == MN_OK ? mn__sinusoids_create(&own->sinusoids, &first->sinusoids, params,
                                                  layer->C, distances, error)
                           : status;
}

static mn_status create(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error)
{
    const struct mn__compressive_options *options = layer->options;
    struct mn__compressive *own = mn__arena_calloc(&params->nodes, 1, sizeof *own);
    if (!own)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", prefix);
    layer->own = own;
    ((struct mn__compressive *)layer->first->own)->layers++;
    own->compression = compression_of(options);
    mn_status status = mn__attention_create(layer, params, prefix, error);
    if (status == MN_OK)
        status = create_relative(layer, own, params, prefix, error);
    if (status == MN_OK && options->compressed)
        status = mn__compression_create(&own->compression, params, prefix, layer->C,
                                        layer->deviation, error);
    return status;
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    (void)capacity;
    const struct mn__compressive_options *options = layer->options;
    mn__dtype dtype = mn__compressive_norms_at_use(layer) ? MN__F32 : states->compute;
    int64_t recent[] = {options->memory + mn__compressive_window(layer) - 1, layer->C};
    int64_t compressed[] = {options->compressed, layer->C};
    bool most_used = options->compression == MN__COMPRESS_MOST_USED;
    if (!mn__state_add(states, state, "recent", dtype, 2, recent, NULL) ||
        !mn__state_add(states, state, "compressed", dtype, 2, compressed, NULL) ||
        (most_used && !mn__state_add(states, state, "usage", MN__F32, 1, recent, NULL)) ||
        !mn__state_add_counter(states, state) || !mn__state_add_counter(states, state) ||
        !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY, "use shorter memories",
                        "no memory for %lld memories and %lld compressed ones",
                        (long long)recent[0], (long long)compressed[0]);
    mn__state_bound_counter(state, MN__FILLED, recent[0]);
    mn__state_bound_counter(state, MN__OPEN, mn__compressive_window(layer) - 1);
    mn__state_bound_counter(state, MN__COMPRESSED_FILLED, compressed[0]);
    return MN_OK;
}

/* ---- What a forward pass sees -------------------------------------------------------------- */

static bool find_visible(const struct mn__compressive_pass *pass, int64_t most,
                         const int64_t *filled, mn__visible *seen)
{
    const struct mn__compressive_options *options = pass->layer->options;
    seen->count = mn__entries_visible(pass->tape, pass->segment, most, NULL, filled,
                                      options->zero_memory, &seen->first);
    return seen->count >= 0;
}

/* The last `count` entries of a slot along time; NULL for none. */
static mn__var *newest(const struct mn__compressive_pass *pass, int slot, int64_t count)
{
    const mn__slot *from = &pass->state->slot[slot];
    if (count == 0)
        return NULL;
    return mn__slot_read(pass->tape, from, from->value.size[1] - count, count);
}

/* [a ; b ; ..] along time, of those that are there. */
static mn__var *join(mn__tape *tape, mn__var *const *parts, int count)
{
    mn__var *there[3];
    int n = 0;
    for (int i = 0; i < count; i++)
        if (parts[i])
            there[n++] = parts[i];
    return n == 1 ? there[0] : mn__op_concat(tape, 1, there, n);
}

/* Queries, and keys and values of [cm ; m ; h]. */
static bool project(struct mn__compressive_pass *pass, mn__var *x)
{
    const mn__attention *layer = pass->layer;
    mn__tape *tape = pass->tape;
    mn__var *h = mn__attention_input(layer, tape, x);
    mn__var *cm = newest(pass, MN__COMPRESSED, pass->compressed.count);
    mn__var *m = newest(pass, MN__RECENT, pass->recent.count), *all;
    if (!h || (!cm && pass->compressed.count) || (!m && pass->recent.count))
        return false;
    if (mn__compressive_norms_at_use(layer)) {
        mn__var *past = cm || m ? join(tape, (mn__var *[]){cm, m}, 2) : NULL;
        past = past ? mn__attention_input(layer, tape, past) : NULL;
        all = join(tape, (mn__var *[]){past, h}, 2);
        pass->both = join(tape, (mn__var *[]){m, x}, 2);
    } else {
        all = join(tape, (mn__var *[]){cm, m, h}, 3);
        pass->both = mn__op_slice(tape, all, 1, pass->compressed.count,
                                  pass->recent.count + pass->segment->T);
    }
    pass->q = mn__attention_queries(layer, tape, h);
    return pass->q && pass->both && mn__attention_keys_values(layer, tape, all, &pass->k, &pass->v);
}

/* ---- Attention ----------------------------------------------------------------------------- */

/* Keys and values of which `before` stand before the segment. */
static mn__keys group(const struct mn__compressive_pass *pass, mn__var *keys, mn__var *values,
                      int64_t before, const int64_t *first, const mn__linear *W, mn__param *bias)
{
    const struct mn__compressive *own = pass->layer->own;
    mn__tape *tape = pass->tape;
    int64_t limit = before + pass->segment->T - 1;
    if (limit > own->sinusoids.distances - 1)
        limit = own->sinusoids.distances - 1;
    return (mn__keys){.keys = keys,
                      .values = values,
                      .first = first,
                      .mask = MN__MASK_CAUSAL,
                      .offset = before,
                      .position = MN__POSITION_XL,
                      .relative = mn__relative_keys(pass->layer, tape, W, &own->sinusoids, limit),
                      .u = mn__tape_param(tape, own->content),
                      .v = mn__tape_param(tape, bias),
                      .limit = limit};
}

/* [B, H, count] where somebody asks for it; NULL: not, or memory is short. */
static float *new_mass(const struct mn__compressive_pass *pass, bool asked, int64_t count)
{
    int64_t heads = pass->segment->B * pass->layer->H;
    return asked ? mn__tape_alloc(pass->tape, heads * count * (int64_t)sizeof(float)) : NULL;
}

static void tell_masses(const struct mn__compressive_pass *pass, const float *compressed,
                        const float *recent)
{
    const struct mn__compressive_options *options = pass->layer->options;
    const mn__watch *watch = pass->segment->watch;
    int64_t S = pass->recent.count + pass->segment->T, before = pass->recent.count - pass->phase;
    const struct mn__compressive *own = pass->layer->own;
    int64_t N = mn__compressive_window(pass->layer);
    int64_t count = mn__compression_count(&own->compression, N);
    /* Windows until the first real row leaves whole, and then those that fill cm. */
    int64_t windows = (options->memory + N - 1) / N + (options->compressed + count - 1) / count;
    int64_t full = windows * N;
    const mn__mass_region regions[] = {
        {"compressed", pass->compressed.count, pass->compressed.count, compressed, full},
        {"memory", before, S, recent, full},
        {"window", S - before, S, recent + before, full},
    };
    for (int i = 0; i < 3; i++)
        if (regions[i].count > 0)
            watch->mass(watch->user, pass->layer, pass->segment, &regions[i]);
}

/* mass: receives what each row of [m ; h] was given, [B, H, S]; or NULL. */
static mn__var *attend(const struct mn__compressive_pass *pass, float *mass)
{
    const struct mn__compressive_options *options = pass->layer->options;
    const struct mn__compressive *own = pass->layer->own;
    int64_t compressed = pass->compressed.count, recent = pass->recent.count;
    mn__attention_args args = {.queries = pass->q,
                               .scale = 1.0f / sqrtf((float)pass->layer->D),
                               .valid = pass->segment->valid,
                               .dropout = (float)options->dropout};
    float *to_compressed =
        new_mass(pass, compressed && mn__segment_watches_mass(pass->segment), compressed);
    args.key_mass[0] = to_compressed;
    mn__var *k[] = {NULL, pass->k}, *v[] = {NULL, pass->v};
    if (compressed) {
        int64_t sizes[] = {compressed, recent + pass->segment->T};
        if (!mn__op_split(pass->tape, pass->k, 1, sizes, 2, k) ||
            !mn__op_split(pass->tape, pass->v, 1, sizes, 2, v))
            return NULL;
        args.group[args.groups++] =
            group(pass, k[0], v[0], compressed + pass->phase, pass->compressed.first,
                  &own->relative_compressed, own->compressed);
    }
    args.key_mass[args.groups] = mass;
    args.group[args.groups++] =
        group(pass, k[1], v[1], recent, pass->recent.first, &own->relative, own->position);
    mn__var *heads = mn__op_attention(pass->tape, &args);
    if (heads && mn__segment_watches_mass(pass->segment))
        tell_masses(pass, to_compressed, mass);
    return mn__attention_out(pass->layer, pass->tape, heads);
}

/* ---- The contract ---------------------------------------------------------------------------- */

/* The attention that each row of `both` has received of all queries and heads so far,
 * [B, S]; mass [B, H, S]: of this segment. */
static mn__var *add_usage(const struct mn__compressive_pass *pass, float *mass)
{
    mn__tape *tape = pass->tape;
    int64_t B = pass->segment->B, H = pass->layer->H, S = pass->recent.count + pass->segment->T;
    mn__var *all = mn__tape_constant(tape, mn__tensor_of(mass, MN__F32, 3, (int64_t[]){B, H, S}));
    mn__var *sum = mn__op_slice(tape, all, 1, 0, 1);
    for (int64_t h = 1; h < H; h++)
        sum = mn__op_add(tape, sum, mn__op_slice(tape, all, 1, h, 1));
    if (H == 1)
        sum = mn__op_concat(tape, 1, &sum, 1);
    sum = mn__op_reshape(tape, sum, 2, (int64_t[]){B, S});
    mn__var *before = newest(pass, MN__USAGE, pass->recent.count);
    if (!before)
        return sum;
    mn__var *part[2];
    if (!mn__op_split(tape, sum, 1, (int64_t[]){pass->recent.count, pass->segment->T}, 2, part))
        return NULL;
    part[0] = mn__op_add(tape, before, part[0]);
    return mn__op_concat(tape, 1, part, 2);
}

static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    const struct mn__compressive_options *options = layer->options;
    struct mn__compressive_pass pass = {
        .layer = layer, .tape = tape, .segment = segment, .state = state};
    pass.phase = mn__segment_phase(tape, segment, state->counter[MN__OPEN]);
    if (!x || pass.phase < 0 ||
        !find_visible(&pass, options->memory + pass.phase, state->counter[MN__FILLED],
                      &pass.recent) ||
        !find_visible(&pass, options->compressed, state->counter[MN__COMPRESSED_FILLED],
                      &pass.compressed) ||
        !project(&pass, x))
        return NULL;
    bool counts_usage = options->compression == MN__COMPRESS_MOST_USED;
    bool asked = counts_usage || mn__segment_watches_mass(segment);
    float *mass = new_mass(&pass, asked, pass.recent.count + segment->T);
    if (asked && !mass)
        return NULL;
    mn__var *y = attend(&pass, mass), *usage = counts_usage && y ? add_usage(&pass, mass) : NULL;
    mn__var *fresh = mn__op_slice(tape, pass.both, 1, pass.recent.count, segment->T);
    pending->var[MN__RECENT] = mn__tape_keep(
        tape, options->through == MN__THROUGH_EVERYTHING ? fresh : mn__op_detach(tape, fresh));
    pending->var[MN__USAGE] = mn__tape_keep(tape, usage);
    pending->var[MN__COMPRESSED] = NULL;
    if (pass.phase + segment->T == mn__compressive_window(layer) && options->compressed > 0)
        pending->var[MN__COMPRESSED] = mn__tape_keep(tape, mn__compressive_compress(&pass, usage));
    return y;
}

/* A row's usage of the rows before the segment has grown; those of the segment join. */
static void commit_usage(mn__tape *tape, const mn__segment *segment, mn__slot *slot, mn__var *usage)
{
    int64_t P = slot->value.size[1], S = usage->value.size[1], before = S - segment->T;
    int64_t *counts = mn__arena_calloc(&tape->nodes, segment->B, sizeof *counts);
    if (!counts) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
        return;
    }
    for (int64_t b = 0; b < segment->B; b++)
        counts[b] = mn__segment_valid(segment, b) > 0 ? P : 0;
    mn__var *parts[2] = {mn__slot_read(tape, slot, 0, P - before),
                         mn__op_slice(tape, usage, 1, 0, before)};
    mn__var *all = mn__op_concat(tape, 1, parts, 2);
    all = mn__entries_append(tape, all, mn__op_slice(tape, usage, 1, before, segment->T),
                             segment->valid);
    if (all)
        mn__slot_append(tape, slot, all, counts, false);
}

static void commit_compressed(const mn__attention *layer, mn__tape *tape,
                              const mn__segment *segment, mn__state *state, mn__var *new, bool live)
{
    const struct mn__compressive_options *options = layer->options;
    const struct mn__compressive *own = layer->own;
    if (!new)
        return;
    int64_t *counts = mn__arena_calloc(&tape->nodes, segment->B, sizeof *counts);
    if (!counts) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
        return;
    }
    for (int64_t b = 0; b < segment->B; b++) {
        counts[b] = mn__compression_count(&own->compression,
                                          mn__compressive_leaving(layer, segment, state, b));
        int64_t kept = state->counter[MN__COMPRESSED_FILLED][b] + counts[b];
        state->counter[MN__COMPRESSED_FILLED][b] =
            kept < options->compressed ? kept : options->compressed;
    }
    mn__slot_append(tape, &state->slot[MN__COMPRESSED], new, counts, live);
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    int64_t P = state->slot[MN__RECENT].value.size[1];
    mn__slot_append(tape, &state->slot[MN__RECENT], pending->var[MN__RECENT], segment->valid, live);
    if (pending->var[MN__USAGE])
        commit_usage(tape, segment, &state->slot[MN__USAGE], pending->var[MN__USAGE]);
    commit_compressed(layer, tape, segment, state, pending->var[MN__COMPRESSED], live);
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t filled = state->counter[MN__FILLED][b] + mn__segment_valid(segment, b);
        state->counter[MN__FILLED][b] = filled < P ? filled : P;
    }
    mn__segment_advance(segment, state->counter[MN__OPEN], mn__compressive_window(layer));
}

const mn__attention_type mn__attention_compressive = {
    .name = "compressive",
    .paper = "Rae et al. 2019, arXiv 1911.05507",
    .help = "Transformer-XL whose oldest memories are compressed",
    .options = option_table,
    .options_bytes = sizeof(struct mn__compressive_options),
    .auxiliary = "compression",
    .gradient_segments = gradient_segments,
    .check = check,
    .create = create,
    .create_state = create_state,
    .forward = forward,
    .commit = commit,
    .grid = mn__compressive_window,
};
