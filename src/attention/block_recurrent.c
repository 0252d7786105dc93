/* The Block-Recurrent Transformer's layer (Hutchins et al. 2022, arXiv 2203.07852,
 * section 3): a sliding window over blocks of W tokens, and state vectors c that the
 * tokens of a block read as the block before left them, and that each whole block
 * moves.
 *
 *   tokens   self  = softmax((n(q) . n(k) + T5 bias) |scale|) v     local.c, window.c
 *            cross = softmax(n(q') . k_c |cross_scale|) v_c         of the states
 *            out   = W_o self + W_o' cross                          (figure 2, left)
 *   states   c' = move(c; the keys and values of this block and the one before)
 *                                                           (right) recurrent.c
 *
 * k, v serve both directions, and so do the states' k_c, v_c; the four kinds of
 * queries are apart. Self-attention needs no states: it is one call for the segment;
 * only what touches the states goes block by block. Rows may stand at different
 * places of their blocks. Gradient passes through the blocks of a segment, and into
 * the next one where the trainer unrolls it.
 *
 * With `feedback` every layer of the stack reads the states of the recurrent one,
 * which exports them; then the stack runs block by block: a segment is a block or a
 * part of one. `recurrent: false` is a layer that only reads.
 *
 * State: keys and values of the open block and the one before (zeros at a document's
 * start, which take part), c (at a document's start a parameter), and outside of
 * training k_c and v_c, which are otherwise made anew for every segment: of parameters
 * that change meanwhile they are as stale as the window's keys.
 *
 * Not here: states that are cleared with every segment, the authors' ablation. */
#include <math.h>
#include <stdio.h>

#include "attention/recurrent.h"
#include "attention/types.h"

static const mn__option option_table[] = {
    MN__LOCAL_OPTIONS("true"),
    MN__INT(mn__recurrent_options, states, "512", 1, 1e9, "state vectors"),
    MN__INT(mn__recurrent_options, hidden, "0", 0, 1e7,
            "width of the states' feed-forward; 0: 4 times the model's"),
    MN__ENUM(mn__recurrent_options, gate, "fixed", "fixed|lstm|full", "what moves the states"),
    MN__ENUM(mn__recurrent_options, form, "skip", "skip|dual|single",
             "the states' side: attention alone, with feed-forward, with one gate for both"),
    MN__BOOL(mn__recurrent_options, recurrent, "true", "the layer has states"),
    MN__BOOL(mn__recurrent_options, feedback, "false",
             "every layer reads the states; segments are blocks"),
    MN__OPTIONS_END,
};

enum { STATE = MN__LOCAL_SLOTS, STATE_KEYS, STATE_VALUES };
/* Tokens of the open block; whether STATE_KEYS and STATE_VALUES are those of STATE. */
enum { OPEN = MN__LOCAL_COUNTERS, KNOWN };
/* Of segment->exported; the queries are of use to the exporter alone. */
enum { EXPORTED_KEYS, EXPORTED_VALUES, EXPORTED_QUERIES, EXPORTED_CROSS_QUERIES };

struct own {
    mn__local local;
    mn__linear cross_query, cross_out; /* [H D, C], [C, H D] */
    mn__param *cross_scale;            /* [H] */
    mn__recurrent cell;
};

static mn_status check(const mn__attention *layer, mn_error *error)
{
    const mn__recurrent_options *options = layer->options;
    long long N = layer->segment, W = options->local.window;
    if (layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.type block_recurrent with rotary positions");
    if (options->feedback && (N > W || W % N))
        return mn__fail(error, MN_ERROR_OPTION,
                        "make data.segment a block, and train.unroll the blocks of a step",
                        "with attention.feedback the stack runs in blocks of %lld tokens, not %lld",
                        W, N);
    return mn__local_check(&options->local, layer, error);
}

static bool reads_states(const mn__attention *layer)
{
    const mn__recurrent_options *options = layer->options;
    return options->recurrent || options->feedback;
}

static int64_t grid(const mn__attention *layer)
{
    const mn__recurrent_options *options = layer->options;
    return options->feedback ? options->local.window : 1;
}

/* A block's loss reaches what moved the states in the block before. */
static int gradient_segments(const mn__attention *layer)
{
    const mn__recurrent_options *options = layer->options;
    int64_t two = 2 * options->local.window;
    return options->recurrent ? (int)((two + layer->segment - 1) / layer->segment) : 1;
}

/* ---- Parameters and state ----------------------------------------------------------- */

static mn_status create_cross(const mn__attention *layer, struct own *own, mn__params *params,
                              const char *prefix, mn_error *error)
{
    const mn__recurrent_options *options = layer->options;
    int64_t inner = layer->H * layer->D;
    char name[128];
    snprintf(name, sizeof name, "%s.cross_query", prefix);
    mn_status status = mn__linear_create(&own->cross_query, params, name, layer->C, inner,
                                         layer->bias, layer->deviation, error);
    snprintf(name, sizeof name, "%s.cross_out", prefix);
    if (status == MN_OK) /* its bias would be that of `out` once more */
        status = mn__linear_create(&own->cross_out, params, name, inner, layer->C, false,
                                   layer->deviation, error);
    if (status == MN_OK && options->local.normalise)
        status = mn__heads_create_scale(&own->cross_scale, &options->local, layer, params, prefix,
                                        "cross_scale", error);
    return status;
}

static mn_status create(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error)
{
    const mn__recurrent_options *options = layer->options;
    struct own *own = mn__arena_calloc(&params->nodes, 1, sizeof *own);
    if (!own)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", prefix);
    layer->own = own;
    mn_status status = mn__attention_create(layer, params, prefix, error);
    if (status == MN_OK)
        status = mn__local_create(&own->local, &options->local, layer, params, prefix, error);
    if (status == MN_OK && reads_states(layer))
        status = create_cross(layer, own, params, prefix, error);
    char name[128];
    snprintf(name, sizeof name, "%s.state", prefix);
    if (status == MN_OK && options->recurrent)
        status = mn__recurrent_create(&own->cell, layer, params, name, error);
    return status;
}

static mn_status create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error)
{
    (void)capacity;
    const mn__recurrent_options *options = layer->options;
    const struct own *own = layer->own;
    int64_t most = 2 * options->local.window - 1, reach = mn__local_reach(&options->local);
    mn_status status =
        mn__local_create_state(layer, states, state, options->recurrent ? most : reach, error);
    if (status != MN_OK || !options->recurrent)
        return status;
    int64_t vectors[] = {options->states, layer->C};
    int64_t heads[] = {options->states, layer->G, layer->D};
    if (!mn__state_add(states, state, "state", MN__F32, 2, vectors, own->cell.initial) ||
        !mn__state_add(states, state, "state_keys", states->compute, 3, heads, NULL) ||
        !mn__state_add(states, state, "state_values", states->compute, 3, heads, NULL) ||
        !mn__state_add_counter(states, state) || !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY, "use fewer states", "no memory for %lld states",
                        (long long)options->states);
    mn__state_bound_counter(state, OPEN, options->local.window - 1);
    mn__state_bound_counter(state, KNOWN, 1);
    return MN_OK;
}

/* ---- Parts of a segment ---------------------------------------------------------------- */

/* Tokens of a segment between two ends of blocks, of any row. */
struct part {
    int64_t from, count;
    int64_t *tokens; /* [B]: the row's real ones */
    int64_t *moved;  /* [B]: states that move after it: all, or 0 */
    bool any, all;   /* of the rows */
};

struct parts {
    int64_t count;
    struct part *part;
    int64_t *sizes;
    int64_t past; /* tokens before the segment that move states */
};

/* Where the row's open block ends that holds token `at` of the segment; beyond the
 * row's tokens: not in this segment. */
static int64_t block_end(const mn__attention *layer, const mn__state *state, int64_t row,
                         int64_t at)
{
    const mn__recurrent_options *options = layer->options;
    int64_t W = options->local.window;
    return at + W - (state->counter[OPEN][row] + at) % W;
}

static int64_t next_end(const mn__attention *layer, const mn__segment *segment,
                        const mn__state *state, int64_t from)
{
    const mn__recurrent_options *options = layer->options;
    int64_t end = segment->T;
    for (int64_t b = 0; options->recurrent && b < segment->B; b++) {
        int64_t own = block_end(layer, state, b, from);
        if (own <= mn__segment_valid(segment, b) && own < end)
            end = own;
    }
    return end;
}

static bool fill_part(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                      const mn__state *state, struct parts *parts, struct part *part)
{
    const mn__recurrent_options *options = layer->options;
    int64_t B = segment->B, W = options->local.window, end = part->from + part->count;
    part->tokens = mn__arena_calloc(&tape->nodes, B, sizeof *part->tokens);
    part->moved = mn__arena_calloc(&tape->nodes, B, sizeof *part->moved);
    if (!part->tokens || !part->moved)
        return false;
    part->all = true;
    for (int64_t b = 0; b < B; b++) {
        int64_t left = mn__segment_valid(segment, b) - part->from;
        part->tokens[b] = left < 0 ? 0 : left < part->count ? left : part->count;
        bool moves = options->recurrent && left >= part->count &&
                     block_end(layer, state, b, part->from) == end;
        part->moved[b] = moves ? options->states : 0;
        part->any |= moves;
        part->all &= moves;
        if (moves && 2 * W - end > parts->past)
            parts->past = 2 * W - end;
    }
    return true;
}

static bool divide(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   const mn__state *state, struct parts *parts)
{
    *parts = (struct parts){0};
    for (int64_t from = 0; from < segment->T; from = next_end(layer, segment, state, from))
        parts->count++;
    parts->part = mn__arena_calloc(&tape->nodes, parts->count, sizeof *parts->part);
    parts->sizes = mn__arena_calloc(&tape->nodes, parts->count, sizeof *parts->sizes);
    bool good = parts->part && parts->sizes;
    int64_t from = 0;
    for (int64_t i = 0; good && i < parts->count; i++) {
        struct part *part = &parts->part[i];
        part->from = from;
        from = next_end(layer, segment, state, from);
        parts->sizes[i] = part->count = from - part->from;
        good = fill_part(layer, tape, segment, state, parts, part);
    }
    if (!good)
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's blocks");
    return good;
}

/* ---- States ------------------------------------------------------------------------------ */

/* Nothing that the segment leaves is recorded, now or later: k_c, v_c may be kept. */
static bool keeps(const mn__tape *tape)
{
    return !tape->recording && !tape->rehearsing;
}

static bool known(const mn__tape *tape, const mn__segment *segment, const mn__state *state)
{
    bool all = keeps(tape);
    for (int64_t b = 0; b < segment->B; b++)
        all = all && (state->counter[KNOWN][b] || mn__segment_valid(segment, b) == 0);
    return all;
}

/* The states c, in part number `part` of the segment; the first one's may be at hand.
 * moves: their queries are wanted, too. */
static bool find_states(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                        const mn__state *state, mn__var *c, int64_t part, bool moves,
                        mn__recurrent_heads *heads)
{
    const mn__recurrent_options *options = layer->options;
    const struct own *own = layer->own;
    if (part == 0 && segment->exporter == layer &&
        (!moves || segment->exported[EXPORTED_QUERIES])) {
        *heads = (mn__recurrent_heads){.queries = segment->exported[EXPORTED_QUERIES],
                                       .cross_queries = segment->exported[EXPORTED_CROSS_QUERIES],
                                       .keys = segment->exported[EXPORTED_KEYS],
                                       .values = segment->exported[EXPORTED_VALUES]};
        return heads->keys;
    }
    if (part == 0 && !moves && known(tape, segment, state)) {
        *heads = (mn__recurrent_heads){
            .keys = mn__slot_read(tape, &state->slot[STATE_KEYS], 0, options->states),
            .values = mn__slot_read(tape, &state->slot[STATE_VALUES], 0, options->states)};
        return heads->keys && heads->values;
    }
    return mn__recurrent_project(&own->cell, layer, tape, c, heads);
}

static void export_states(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                          const mn__state *state)
{
    const mn__recurrent_options *options = layer->options;
    mn__recurrent_heads heads;
    bool moves = false;
    if (!options->recurrent || !options->feedback)
        return;
    for (int64_t b = 0; b < segment->B; b++)
        moves |= block_end(layer, state, b, 0) <= mn__segment_valid(segment, b);
    segment->exporter = NULL;
    mn__var *c = mn__slot_read(tape, &state->slot[STATE], 0, options->states);
    if (!find_states(layer, tape, segment, state, c, 0, moves, &heads))
        return;
    segment->exporter = layer;
    segment->exported[EXPORTED_KEYS] = heads.keys;
    segment->exported[EXPORTED_VALUES] = heads.values;
    segment->exported[EXPORTED_QUERIES] = heads.queries;
    segment->exported[EXPORTED_CROSS_QUERIES] = heads.cross_queries;
}

/* The states after a part. tokens: the group of all keys, cached and the segment's. */
static mn__var *move(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                     const struct part *part, const mn__keys *tokens, mn__var *c,
                     const mn__recurrent_heads *heads)
{
    const mn__recurrent_options *options = layer->options;
    const struct own *own = layer->own;
    int64_t end = tokens->offset + part->from + part->count;
    int64_t begin = end - 2 * options->local.window;
    begin = begin > 0 ? begin : 0;
    int64_t *first = mn__arena_calloc(&tape->nodes, segment->B, sizeof *first);
    if (!first)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
    for (int64_t b = 0; b < segment->B; b++)
        first[b] = tokens->first[b] > begin ? tokens->first[b] - begin : 0;
    const mn__keys seen = {.keys = mn__op_slice(tape, tokens->keys, 1, begin, end - begin),
                           .values = mn__op_slice(tape, tokens->values, 1, begin, end - begin),
                           .first = first};
    mn__var *moved = mn__recurrent_move(&own->cell, layer, tape, c, heads, &seen, part->moved);
    return part->all ? moved : mn__entries_append(tape, c, moved, part->moved);
}

/* ---- Forward ------------------------------------------------------------------------------- */

/* A part's tokens read the states: [B, count, H, D]. */
static mn__var *read_states(const mn__attention *layer, mn__tape *tape, const struct part *part,
                            mn__var *queries, mn__var *state_keys, mn__var *state_values)
{
    const mn__recurrent_options *options = layer->options;
    const struct own *own = layer->own;
    const mn__keys keys = {.keys = state_keys, .values = state_values};
    mn__attention_args args = mn__recurrent_args(layer, tape, queries, own->cross_scale, &keys);
    args.valid = part->tokens;
    args.dropout = (float)options->local.dropout;
    return mn__op_attention(tape, &args);
}

/* Every part in turn, its tokens and then what they move. */
static mn__var *run_parts(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                          const mn__state *state, const struct parts *parts, mn__var *queries,
                          const mn__keys *tokens, mn__pending *pending)
{
    const mn__recurrent_options *options = layer->options;
    mn__recurrent_heads heads = {.keys = segment->exported[EXPORTED_KEYS],
                                 .values = segment->exported[EXPORTED_VALUES]};
    int64_t count = parts->count;
    mn__var **part_queries = mn__arena_calloc(&tape->nodes, count, sizeof *part_queries);
    mn__var **outs = mn__arena_calloc(&tape->nodes, count, sizeof *outs), *c = NULL;
    if (!part_queries || !outs)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's blocks");
    if (!mn__op_split(tape, queries, 1, parts->sizes, (int)count, part_queries))
        return NULL;
    if (options->recurrent)
        c = mn__slot_read(tape, &state->slot[STATE], 0, options->states);
    for (int64_t i = 0; i < count; i++) {
        const struct part *part = &parts->part[i];
        if (options->recurrent &&
            !find_states(layer, tape, segment, state, c, i, part->any, &heads))
            return NULL;
        outs[i] = read_states(layer, tape, part, part_queries[i], heads.keys, heads.values);
        if (part->any)
            pending->var[STATE] = c = move(layer, tape, segment, part, tokens, c, &heads);
    }
    pending->var[STATE] = mn__tape_keep(tape, pending->var[STATE]);
    if (options->recurrent && keeps(tape) && (count > 1 || !known(tape, segment, state))) {
        pending->var[STATE_KEYS] = mn__tape_keep(tape, heads.keys);
        pending->var[STATE_VALUES] = mn__tape_keep(tape, heads.values);
    }
    return count == 1 ? outs[0] : mn__op_concat(tape, 1, outs, (int)count);
}

/* W_o' cross, [B, T, C]. */
static mn__var *cross(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                      const mn__state *state, const struct parts *parts, mn__var *h,
                      const mn__keys *tokens, mn__pending *pending)
{
    const mn__recurrent_options *options = layer->options;
    const struct own *own = layer->own;
    if (!options->recurrent && !segment->exporter)
        return mn__tape_fail(tape, MN_ERROR_OPTION,
                             "give one layer of model.layers attention.recurrent: true, with "
                             "feedback",
                             "attention.feedback without states to read");
    mn__var *queries = mn__linear_forward(&own->cross_query, tape, h, MN__LINEAR);
    int64_t B = segment->B, T = segment->T, inner = layer->H * layer->D;
    queries = mn__op_reshape(tape, queries, 4, (int64_t[]){B, T, layer->H, layer->D});
    if (options->local.normalise)
        queries = mn__heads_normalise(tape, queries);
    mn__var *heads = run_parts(layer, tape, segment, state, parts, queries, tokens, pending);
    heads = mn__op_reshape(tape, heads, 3, (int64_t[]){B, T, inner});
    return mn__linear_forward(&own->cross_out, tape, heads, MN__LINEAR);
}

/* The band of self-attention comes last: its backward, the first, sets the gradient of
 * all keys, to which the blocks then add. */
static mn__var *forward(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending)
{
    const mn__recurrent_options *options = layer->options;
    const struct own *own = layer->own;
    mn__local_heads heads;
    mn__attention_args args;
    struct parts parts;
    mn__var *h = mn__attention_input(layer, tape, x), *read = NULL;
    *pending = (mn__pending){0};
    if (!mn__local_project(&options->local, layer, tape, segment, state, h, &heads, pending) ||
        !divide(layer, tape, segment, state, &parts) ||
        !mn__local_args(&own->local, &options->local, layer, tape, segment, state, parts.past,
                        &heads, &args))
        return NULL;
    if (reads_states(layer)) {
        read = cross(layer, tape, segment, state, &parts, h, &args.group[0], pending);
        if (!read)
            return NULL;
    }
    mn__var *out = mn__attention_out(layer, tape, mn__op_attention(tape, &args));
    return read ? mn__op_add(tape, out, read) : out;
}

/* ---- Commit -------------------------------------------------------------------------------- */

/* k_c, v_c of rows whose states they are: of none that the last token moved. Kept
 * ones hold until their states move. */
static void keep_heads(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                       mn__state *state, const mn__pending *pending)
{
    const mn__recurrent_options *options = layer->options;
    int64_t *counts = mn__arena_calloc(&tape->nodes, segment->B, sizeof *counts);
    if (!counts) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment's rows");
        return;
    }
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t valid = mn__segment_valid(segment, b);
        int64_t read = state->counter[OPEN][b] + valid;
        bool fresh =
            pending->var[STATE_KEYS] && (read % options->local.window > 0 || valid < segment->T);
        bool stay = state->counter[KNOWN][b] && keeps(tape) && read < options->local.window;
        if (valid == 0)
            continue;
        counts[b] = fresh ? options->states : 0;
        state->counter[KNOWN][b] = fresh || stay;
    }
    for (int i = STATE_KEYS; i <= STATE_VALUES && pending->var[i]; i++)
        mn__slot_append(tape, &state->slot[i], pending->var[i], counts, false);
}

static void commit(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live)
{
    const mn__recurrent_options *options = layer->options;
    mn__local_commit(tape, segment, state, pending, live);
    if (!options->recurrent)
        return;
    if (pending->var[STATE])
        mn__slot_append(tape, &state->slot[STATE], pending->var[STATE], NULL, live);
    keep_heads(layer, tape, segment, state, pending);
    for (int64_t b = 0; b < segment->B; b++)
        state->counter[OPEN][b] =
            (state->counter[OPEN][b] + mn__segment_valid(segment, b)) % options->local.window;
}

const mn__attention_type mn__attention_block_recurrent = {
    .name = "block_recurrent",
    .paper = "Hutchins et al. 2022, arXiv 2203.07852",
    .help = "a sliding window, and state vectors that are read and moved block by block",
    .options = option_table,
    .options_bytes = sizeof(mn__recurrent_options),
    .gradient_segments = gradient_segments,
    .check = check,
    .create = create,
    .create_state = create_state,
    .exports = export_states,
    .forward = forward,
    .commit = commit,
    .grid = grid,
};
