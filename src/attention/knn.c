/* The Memorizing Transformer's layer (Wu et al. 2022, arXiv 2203.08913, section 3): a
 * local attention, and beside it the k nearest of the keys that the layer computed
 * before, any number of segments ago.
 *
 *   V_c = softmax((n(q) . n(k) + T5 bias) |s_h|) v     local.c, window.c     (3.1)
 *   V_m = softmax(n(q) . k_m |s_h|) v_m, over the k memories (k_m, v_m) that are
 *         nearest to n(q), each query's and head's own                        (3.2)
 *   V   = g V_m + (1 - g) V_c,  g = sigmoid(b_h),  b_h = 0 at first           (3.3)
 *   out = W_o V
 *
 * Memories are constants, as they were computed: gradient passes to q, s_h and b_h,
 * none through the choice. Positions have no say in the memory. `combine` also offers
 * what the authors' code does without a gate: add, V_m + V_c; and stop_forward, whose
 * value is V_m and whose gradient is V_c's.
 *
 * Per row and head the memory is a ring of the last M pairs, of whole segments of N
 * tokens: a segment reads it and is then written, so that it never finds itself, and
 * finds the segment before in the window and in the memory. The grid is therefore N, or
 * 1 without a memory, when the type is `window`. M may be another one in evaluation.
 * Without a `cache` (the paper's models without Transformer-XL) the window ends where the
 * segment begins.
 *
 * search: exact finds the k nearest, fewer where there are fewer. buckets is what the
 * authors' code does on TPUs: slot m belongs to bucket m mod k, and the nearest of each
 * is taken; a bucket with nothing in it gives a zero key and value that take part.
 * Where a memory is empty V_m is 0, and V is (1 - g) V_c as published; with
 * `empty: local` it is V_c.
 *
 * State: the window's (of N tokens at least: the open segment is in it), keys and values
 * [rows, H, M, D], and how many tokens they have been written.
 *
 * Not here: one memory for all rows of a batch, an option of the authors' code that was
 * off in the paper: a row would depend on what other rows read. */
#include "attention/knn.h"

#include "attention/types.h"
#include "nn/create.h"

enum { EXACT, BUCKETS };
enum { GATE, ADD, STOP_FORWARD };
enum { EMPTY_ZEROS, EMPTY_LOCAL };
enum { KEEP_COMPUTE, KEEP_F32, KEEP_BF16 };

struct options {
    mn__local_options local; /* first */
    int64_t memory, neighbours, segment;
    int search, combine, empty, keep;
    bool cache;
};

static const mn__option option_table[] = {
    MN__LOCAL_OPTIONS("true"),
    MN__INT(struct options, memory, "8192", 0, 1e9, "tokens remembered, M; 0: none"),
    MN__INT(struct options, neighbours, "32", 1, 65536, "memories that a query retrieves, k"),
    MN__INT(struct options, segment, "0", 0, 1e9,
            "what is read and then remembered, N; 0: the training segment's"),
    MN__BOOL(struct options, cache, "true",
             "the window reaches into the segments before; or ends with its own"),
    MN__ENUM(struct options, search, "exact", "exact|buckets",
             "the k nearest, or the nearest of each of k buckets"),
    MN__ENUM(struct options, combine, "gate", "gate|add|stop_forward",
             "how memory joins the window: a learned gate for each head, a sum, or in its place"),
    MN__ENUM(struct options, empty, "zeros", "zeros|local",
             "an empty memory gives zeros to the gate, or the window's output alone"),
    MN__ENUM(struct options, keep, "compute", "compute|f32|bf16",
             "precision of the memory; compute: that of attention"),
    MN__OPTIONS_END,
};

struct own {
    mn__local local;
    mn__param *gate; /* b [H], or NULL */
};

static int64_t segment_length(const mn__attention *layer)
{
    const struct options *options = layer->options;
    return options->segment ? options->segment : layer->segment;
}

static bool has_segments(const mn__attention *layer)
{
    const struct options *options = layer->options;
    return options->memory || !options->cache;
}

static int64_t grid(const mn__attention *layer)
{
    return has_segments(layer) ? segment_length(layer) : 1;
}

static mn_status check(const mn__attention *layer, mn_error *error)
{
    const struct options *options = layer->options;
    if (options->memory && layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.type knn with a memory and rotary positions");
    if (options->memory && layer->G != layer->H)
        return mn__fail(error, MN_ERROR_OPTION, "leave model.kv_heads out",
                        "attention.type knn has a memory for every head");
    if (has_segments(layer) && segment_length(layer) % layer->segment)
        return mn__fail(error, MN_ERROR_OPTION, "make it a multiple of data.segment, or 0",
                        "attention.segment is %lld, and data.segment %lld",
                        (long long)options->segment, (long long)layer->segment);
    return mn__local_check(&options->local, layer, error);
}

/* ---- Parameters and state ----------------------------------------------------------- */

static mn_status create(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error)
{
    const struct options *options = layer->options;
    struct own *own = mn__arena_calloc(&params->nodes, 1, sizeof *own);
    if (!own)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", prefix);
    layer->own = own;
    mn_status status = mn__attention_create(layer, params, prefix, error);
    if (status == MN_OK)
        status = mn__local_create(&own->local, &options->local, layer, params, prefix, error);
    if (status != MN_OK || !options->memory || options->combine != GATE)
        return status;
    status = mn__create(&own->gate, params, prefix, "gate", 1, &layer->H,
                        (mn__init){MN__INIT_ZERO, 0.0f, 0.0f}, error);
    if (status == MN_OK) /* a model of before, without a memory, is tuned to one */
        own->gate->starts_anew = true;
    return status;
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    (void)capacity;
    const struct options *options = layer->options;
    int64_t most = mn__local_reach(&options->local), size[] = {layer->H, options->memory, layer->D};
    if (options->memory && most < segment_length(layer))
        most = segment_length(layer);
    mn_status status = mn__local_create_state(layer, states, state, most, error);
    if (status == MN_OK && has_segments(layer) && !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a state's counters");
    if (status == MN_OK && has_segments(layer))
        mn__state_bound_counter(state, MN__KNN_OPEN, segment_length(layer) - 1);
    if (status != MN_OK || !options->memory)
        return status;
    mn__dtype dtype = options->keep == KEEP_F32    ? MN__F32
                      : options->keep == KEEP_BF16 ? MN__BF16
                                                   : states->compute;
    if (!mn__state_add(states, state, "memory_keys", dtype, 3, size, NULL) ||
        !mn__state_add(states, state, "memory_values", dtype, 3, size, NULL) ||
        !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY, "use a smaller memory, or keep: bf16",
                        "no memory for %lld remembered tokens", (long long)options->memory);
    return MN_OK;
}

int64_t mn__knn_memory(const mn__attention *layer)
{
    return layer->type == &mn__attention_knn ? ((const struct options *)layer->options)->memory : 0;
}

/* The newest token n < written with n mod M = slot. */
int64_t mn__knn_position(int64_t M, int64_t written, int64_t slot)
{
    if (slot < 0 || slot >= M || slot >= written)
        return -1;
    return slot + (written - 1 - slot) / M * M;
}

/* ---- Forward ------------------------------------------------------------------------- */

/* Tokens in each row's memory, [B]; on the counting device it is full. NULL on failure. */
static int64_t *find_filled(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                            const mn__state *state, bool *any, bool *all)
{
    const struct options *options = layer->options;
    int64_t *filled = mn__arena_calloc(&tape->nodes, segment->B, sizeof *filled);
    if (!filled) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
        return NULL;
    }
    *any = false;
    *all = true;
    for (int64_t b = 0; b < segment->B; b++) {
        filled[b] = tape->device->counting ? options->memory
                                           : mn__ring_filled(&state->slot[MN__KNN_KEYS],
                                                             state->counter[MN__KNN_WRITTEN][b]);
        *any |= filled[b] > 0;
        *all &= filled[b] > 0;
    }
    return filled;
}

/* V_m [B, T, H, D]. */
static mn__var *remember(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                         const mn__state *state, mn__var *queries, const int64_t *filled,
                         mn__var *scales, float scale)
{
    const struct options *options = layer->options;
    bool buckets = options->search == BUCKETS;
    mn__retrieved found;
    mn__memory memory = {.keys = state->slot[MN__KNN_KEYS].value,
                         .values = state->slot[MN__KNN_VALUES].value,
                         .filled = filled,
                         .k = options->neighbours,
                         .buckets = buckets};
    memory.k = memory.k < options->memory ? memory.k : options->memory;
    if (!mn__op_retrieve(tape, queries, &memory, &found))
        return NULL;
    if (segment->watch && segment->watch->retrieved)
        segment->watch->retrieved(segment->watch->user, layer, segment, state, &found);
    return mn__op_gathered_attention(tape, queries, found.keys, found.values,
                                     buckets ? NULL : found.index, scale, scales, 0.0f);
}

/* x [B, T, H D] times a factor of each head. */
static mn__var *weigh(mn__tape *tape, mn__var *x, mn__var *factors, int64_t D)
{
    int64_t H = factors ? factors->value.size[0] : 0;
    int32_t *index = mn__arena_calloc(&tape->nodes, H * D, sizeof *index);
    if (!index)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a gate");
    for (int64_t i = 0; i < H * D; i++)
        index[i] = (int32_t)(i / D);
    factors = mn__op_reshape(tape, factors, 2, (int64_t[]){H, 1});
    factors = mn__op_gather(tape, factors, index, H * D);
    return mn__op_multiply(tape, x, mn__op_reshape(tape, factors, 1, (int64_t[]){H * D}));
}

/* g V_m + (1 - g) V_c; V_m NULL is 0. */
static mn__var *open_gate(const mn__attention *layer, mn__tape *tape, mn__var *memory,
                          mn__var *local)
{
    const struct own *own = layer->own;
    mn__var *b = mn__tape_param(tape, own->gate);
    local = weigh(tape, local, mn__op_activate(tape, MN__SIGMOID, mn__op_scale(tape, b, -1.0f)),
                  layer->D);
    if (!memory)
        return local;
    memory = weigh(tape, memory, mn__op_activate(tape, MN__SIGMOID, b), layer->D);
    return mn__op_add(tape, memory, local);
}

/* Rows whose memory is empty get the window's output. */
static mn__var *choose_rows(mn__tape *tape, mn__var *both, mn__var *local, const int64_t *filled)
{
    if (!both || !local)
        return NULL;
    const mn__tensor like = local->value;
    int64_t B = like.size[0], row = mn__tensor_elements(&like) / B;
    int32_t *index = mn__arena_calloc(&tape->nodes, B, sizeof *index);
    if (!index)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
    for (int64_t b = 0; b < B; b++)
        index[b] = (int32_t)(filled[b] > 0 ? b : B + b);
    both = mn__op_concat(tape, 0, (mn__var *[]){both, local}, 2);
    both = mn__op_reshape(tape, both, 2, (int64_t[]){2 * B, row});
    return mn__op_reshape(tape, mn__op_gather(tape, both, index, B), like.rank, like.size);
}

/* V of V_c: [B, T, H, D]. args: of the local attention. */
static mn__var *combine(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                        const mn__state *state, mn__var *local, const mn__attention_args *args)
{
    const struct options *options = layer->options;
    bool any, all;
    const int64_t *filled = find_filled(layer, tape, segment, state, &any, &all);
    mn__var *memory = NULL, *V = NULL;
    if (!filled || !local || (!any && options->empty == EMPTY_LOCAL))
        return filled ? local : NULL;
    if (any && !(memory = remember(layer, tape, segment, state, args->queries, filled, args->scales,
                                   args->scale)))
        return NULL;
    int64_t size[] = {segment->B, segment->T, layer->H * layer->D};
    memory = memory ? mn__op_reshape(tape, memory, 3, size) : NULL;
    local = mn__op_reshape(tape, local, 3, size);
    if (options->combine == GATE)
        V = open_gate(layer, tape, memory, local);
    else if (options->combine == ADD)
        V = memory ? mn__op_add(tape, memory, local) : local;
    else /* V_c - V_c: nothing forward, V_c's gradient backward */
        V = mn__op_subtract(tape, local, mn__op_detach(tape, local));
    if (options->combine == STOP_FORWARD && memory)
        V = mn__op_add(tape, V, mn__op_detach(tape, memory));
    if (!all && options->empty == EMPTY_LOCAL)
        V = choose_rows(tape, V, local, filled);
    return V;
}

/* Hides from the window what was before the open segment. */
static bool hide_cache(mn__tape *tape, const mn__segment *segment, const mn__state *state,
                       mn__keys *keys)
{
    int64_t *first = mn__arena_calloc(&tape->nodes, segment->B, sizeof *first);
    if (!first)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t begin = keys->offset - state->counter[MN__KNN_OPEN][b];
        first[b] = begin > keys->first[b] ? begin : keys->first[b];
    }
    keys->first = first;
    return true;
}

static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    const struct options *options = layer->options;
    const struct own *own = layer->own;
    mn__local_heads heads;
    mn__attention_args args;
    mn__var *h = mn__attention_input(layer, tape, x);
    if (!mn__local_project(&options->local, layer, tape, segment, state, h, &heads, pending) ||
        !mn__local_args(&own->local, &options->local, layer, tape, segment, state, 0, &heads,
                        &args) ||
        (!options->cache && !hide_cache(tape, segment, state, &args.group[0])))
        return NULL;
    mn__var *out = mn__op_attention(tape, &args);
    if (options->memory)
        out = combine(layer, tape, segment, state, out, &args);
    return mn__attention_out(layer, tape, out);
}

/* ---- Commit -------------------------------------------------------------------------- */

/* The window's newest N tokens, of the rows whose segment has ended. */
static void write_segments(const mn__attention *layer, mn__tape *tape, mn__state *state,
                           const int64_t *counts)
{
    int64_t N = segment_length(layer);
    for (int i = 0; i < 2; i++) {
        const mn__tensor *all = &state->slot[MN__LOCAL_KEYS + i].value;
        mn__var *newest = mn__tape_constant(tape, mn__tensor_slice(all, 1, all->size[1] - N, N));
        if (newest)
            mn__ring_append(tape, &state->slot[MN__KNN_KEYS + i], newest, counts,
                            state->counter[MN__KNN_WRITTEN]);
    }
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    (void)live; /* no gradient passes into the cache or the memory */
    const struct options *options = layer->options;
    mn__local_commit(tape, segment, state, pending, false);
    if (!has_segments(layer))
        return;
    int64_t *counts = mn__arena_calloc(&tape->nodes, state->slot[0].value.size[0], sizeof *counts);
    if (!counts) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
        return;
    }
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t *open = &state->counter[MN__KNN_OPEN][b];
        *open += mn__segment_valid(segment, b);
        counts[b] = *open < segment_length(layer) ? 0 : segment_length(layer);
        *open -= counts[b];
    }
    if (options->memory)
        write_segments(layer, tape, state, counts);
    for (int64_t b = 0; options->memory && b < segment->B; b++)
        state->counter[MN__KNN_WRITTEN][b] += counts[b];
}

const mn__attention_type mn__attention_knn = {
    .name = "knn",
    .paper = "Wu et al. 2022, arXiv 2203.08913",
    .help = "a window, and the nearest of all that was read before it",
    .options = option_table,
    .options_bytes = sizeof(struct options),
    .check = check,
    .create = create,
    .create_state = create_state,
    .forward = forward,
    .commit = commit,
    .grid = grid,
};
