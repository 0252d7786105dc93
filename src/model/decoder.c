/* The decoder: x = embed(ids); x = block(x) for each block; hidden = norm(x).
 *
 *   pre-norm:   x = x + drop(f(norm(x)))
 *   post-norm:  x = norm(x + drop(f(x)))
 *
 * for f = attention, then feed-forward. The residual stream is F32. Building
 * one from a recipe is in build.c. */
#include "model/decoder.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/build.h"

/* ---- What it is -------------------------------------------------------------------- */

const mn__decoder_options *mn__decoder_options_of(const mn__decoder *decoder)
{
    return &decoder->options;
}

int64_t mn__decoder_vocabulary(const mn__decoder *decoder)
{
    return decoder->vocabulary;
}

int64_t mn__decoder_layers(const mn__decoder *decoder)
{
    return decoder->options.depth;
}

const mn__attention *mn__decoder_attention(const mn__decoder *decoder, int64_t layer)
{
    return &decoder->layer[layer].attention;
}

static int64_t divisor(int64_t a, int64_t b)
{
    return b ? divisor(b, a % b) : a;
}

int64_t mn__decoder_grid(const mn__decoder *decoder)
{
    int64_t grid = 1;
    for (int64_t i = 0; i < decoder->options.depth; i++) {
        const mn__attention *attention = &decoder->layer[i].attention;
        int64_t own = attention->type->grid(attention);
        grid = grid / divisor(grid, own) * own;
    }
    return grid;
}

int mn__decoder_gradient_segments(const mn__decoder *decoder)
{
    int most = 1;
    for (int64_t i = 0; i < decoder->options.depth; i++) {
        const mn__attention *attention = &decoder->layer[i].attention;
        if (!attention->type->gradient_segments)
            continue;
        int own = attention->type->gradient_segments(attention);
        most = own > most ? own : most;
    }
    return most;
}

bool mn__decoder_looks_ahead(const mn__decoder *decoder)
{
    for (int64_t i = 0; i < decoder->options.depth; i++) {
        const mn__attention *attention = &decoder->layer[i].attention;
        if (attention->type->looks_ahead && attention->type->looks_ahead(attention))
            return true;
    }
    return false;
}

double mn__decoder_flops_per_token(const mn__decoder *decoder)
{
    double weights = 0;
    for (int64_t i = 0; i < decoder->params->count; i++) {
        const mn__param *param = decoder->params->items[i];
        bool looked_up =
            param == decoder->positions || (param == decoder->embedding && !decoder->options.tied);
        if (!param->buffer && param->decays && !looked_up)
            weights += (double)mn__tensor_elements(&param->value);
    }
    return 2 * weights;
}

mn_status mn__decoder_states_open(const mn__decoder *decoder, mn__states *states, int64_t rows,
                                  int64_t capacity, mn__dtype compute, mn_error *error)
{
    mn_status status = mn__states_open(states, decoder->params->device, compute, rows,
                                       decoder->options.depth, error);
    for (int64_t i = 0; i < decoder->options.depth && status == MN_OK; i++) {
        const mn__attention *attention = &decoder->layer[i].attention;
        status =
            attention->type->create_state(attention, states, &states->layer[i], capacity, error);
    }
    if (status != MN_OK)
        mn__states_close(states);
    return status;
}

/* ---- Forward --------------------------------------------------------------------------- */

/* One block's run: what recompute hands back to it. */
struct block_run {
    mn__decoder *decoder;
    struct mn__layer *layer;
    mn__segment *segment;
    const mn__state *state;
    mn__pending *pending;
};

static mn__var *add_sublayer(const mn__decoder *decoder, mn__tape *tape, const mn__norm *norm,
                             mn__var *x, mn__var *y)
{
    y = mn__op_dropout(tape, y, (float)decoder->options.dropout);
    x = mn__op_add(tape, x, y);
    return decoder->pre_norm ? x : mn__norm_forward(norm, tape, x, MN__F32);
}

static mn__var *block(mn__tape *tape, void *user, mn__var *x)
{
    struct block_run *run = user;
    struct mn__layer *layer = run->layer;
    const mn__attention *attention = &layer->attention;
    mn__tape_mark mark = mn__tape_mark_now(tape);
    mn__var *y =
        attention->type->forward(attention, tape, run->segment, x, run->state, run->pending);
    x = add_sublayer(run->decoder, tape, &attention->norm, x, y);
    x = mn__tape_release_except(tape, mark, x);
    if (!x)
        return NULL;
    mark = mn__tape_mark_now(tape);
    mn__var *h = run->decoder->pre_norm ? mn__norm_forward(&layer->norm, tape, x, tape->compute)
                                        : mn__op_cast(tape, x, tape->compute);
    y = mn__feed_forward_forward(&layer->feed_forward, tape, h);
    x = add_sublayer(run->decoder, tape, &layer->norm, x, y);
    return mn__tape_release_except(tape, mark, x);
}

static mn__var *run_block(mn__decoder *decoder, mn__tape *tape, mn__segment *segment, mn__var *x,
                          const mn__states *states, int64_t i)
{
    struct block_run *run = mn__arena_calloc(&tape->nodes, 1, sizeof *run);
    if (!run)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a block");
    struct mn__layer *layer = &decoder->layer[i];
    *run = (struct block_run){decoder, layer, segment, &states->layer[i], &layer->pending};
    if (!decoder->options.recompute)
        return block(tape, run, x);
    x = mn__tape_recompute(tape, block, run, x);
    run->pending = &decoder->recomputed; /* in backward: remembered already */
    return x;
}

/* Positions of all tokens, and of each row's first, in the step's memory. */
static bool place_tokens(mn__tape *tape, mn__segment *segment, const mn__states *states)
{
    int64_t *positions = mn__arena_calloc(&tape->nodes, segment->B * segment->T, sizeof *positions);
    int64_t *first = mn__arena_calloc(&tape->nodes, segment->B, sizeof *first);
    if (!positions || !first) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for positions");
        return false;
    }
    for (int64_t b = 0; b < segment->B; b++) {
        first[b] = states->position[b];
        for (int64_t t = 0; t < segment->T; t++)
            positions[b * segment->T + t] = first[b] + t;
    }
    segment->position = first;
    segment->positions = positions;
    return true;
}

static mn__var *add_positions(const mn__decoder *decoder, mn__tape *tape,
                              const mn__segment *segment, mn__var *x)
{
    int64_t count = segment->B * segment->T, most = decoder->options.max_positions;
    int32_t *ids = mn__arena_calloc(&tape->nodes, count, sizeof *ids);
    if (!ids)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for positions");
    for (int64_t b = 0; b < segment->B; b++)
        for (int64_t t = 0; t < segment->T; t++) {
            int64_t position = segment->positions[b * segment->T + t];
            bool real = t < mn__segment_valid(segment, b);
            if (real && position >= most)
                return mn__tape_fail(tape, MN_ERROR_MISMATCH,
                                     "cut documents (data.reset: segment), or raise "
                                     "model.max_positions before training",
                                     "position %lld is beyond the model's %lld learned positions",
                                     (long long)position, (long long)most);
            ids[b * segment->T + t] = real ? (int32_t)position : -1;
        }
    mn__var *table = mn__tape_param(tape, decoder->positions);
    return mn__op_add(tape, x, mn__op_embed(tape, table, ids, segment->B, segment->T, 1.0f));
}

static void check_grid(const mn__decoder *decoder, const mn__segment *segment)
{
    int64_t grid = mn__decoder_grid(decoder);
    for (int64_t b = 0; b < segment->B; b++)
        assert(segment->position[b] % grid + mn__segment_valid(segment, b) <= grid || grid == 1);
    (void)grid;
}

/* Where several layers export, the last one's is seen, as in the code of
 * Hutchins et al. 2022. */
static void export_states(const mn__decoder *decoder, mn__tape *tape, mn__segment *segment,
                          const mn__states *states)
{
    for (int64_t i = 0; i < decoder->options.depth; i++) {
        const mn__attention *attention = &decoder->layer[i].attention;
        if (attention->type->exports)
            attention->type->exports(attention, tape, segment, &states->layer[i],
                                     segment->exported);
    }
}

static mn__var *run_stack(mn__decoder *decoder, mn__tape *tape, mn__segment *segment,
                          const int32_t *ids, mn__states *states)
{
    if (!place_tokens(tape, segment, states))
        return NULL;
    check_grid(decoder, segment);
    export_states(decoder, tape, segment, states);
    const mn__decoder_options *options = &decoder->options;
    float scale = options->scale_embedding ? sqrtf((float)options->width) : 1.0f;
    mn__var *x = mn__op_embed(tape, mn__tape_param(tape, decoder->embedding), ids, segment->B,
                              segment->T, scale);
    if (decoder->positions)
        x = add_positions(decoder, tape, segment, x);
    x = mn__op_dropout(tape, x, (float)options->embedding_dropout);
    for (int64_t i = 0; i < options->depth && x; i++)
        x = run_block(decoder, tape, segment, x, states, i);
    if (decoder->has_final_norm)
        return mn__norm_forward(&decoder->final_norm, tape, x, tape->compute);
    x = mn__op_dropout(tape, x, decoder->pre_norm ? 0.0f : (float)options->dropout);
    return mn__op_cast(tape, x, tape->compute);
}

mn__var *mn__decoder_forward(mn__decoder *decoder, mn__tape *tape, mn__segment *segment,
                             const int32_t *ids, mn__states *states)
{
    if (segment->start && tape->recording)
        mn__states_start_live(states, tape, segment->start);
    else if (segment->start)
        mn__states_start(states, segment->start);
    /* A copy that lives as long as the tape: backward may run blocks again. */
    mn__segment *own = mn__arena_calloc(&tape->nodes, 1, sizeof *own);
    if (!own)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a segment");
    *own = *segment;
    mn__var *hidden = run_stack(decoder, tape, own, ids, states);
    *segment = *own;
    return hidden;
}

void mn__decoder_commit(mn__decoder *decoder, mn__tape *tape, const mn__segment *segment,
                        mn__states *states, bool live)
{
    for (int64_t i = 0; i < decoder->options.depth; i++) {
        struct mn__layer *layer = &decoder->layer[i];
        const mn__attention *attention = &layer->attention;
        attention->type->commit(attention, tape, segment, &states->layer[i], &layer->pending, live);
        memset(&layer->pending, 0, sizeof layer->pending);
    }
    if (!live)
        mn__states_cut(states);
    for (int64_t b = 0; b < segment->B; b++)
        states->position[b] += mn__segment_valid(segment, b);
}

mn_status mn__decoder_update(mn__decoder *decoder, mn__tape *tape, mn_error *error)
{
    mn__tape_reset(tape);
    tape->recording = tape->training = false;
    for (int64_t i = 0; i < decoder->options.depth; i++) {
        const mn__attention *attention = &decoder->layer[i].attention;
        if (attention->type->update)
            attention->type->update(attention, tape);
    }
    return mn__tape_status(tape, error);
}

/* ---- Head ---------------------------------------------------------------------------- */

static mn__var *rows_of(mn__tape *tape, mn__var *hidden)
{
    if (!hidden)
        return NULL;
    int64_t C = hidden->value.size[hidden->value.rank - 1];
    return mn__op_reshape(tape, hidden, 2, (int64_t[]){mn__tensor_elements(&hidden->value) / C, C});
}

mn__head_loss mn__decoder_head(mn__decoder *decoder, mn__tape *tape, mn__var *hidden)
{
    return (mn__head_loss){.hidden = rows_of(tape, hidden),
                           .weight = mn__tape_param(tape, decoder->head.weight),
                           .bias = mn__tape_param(tape, decoder->head.bias),
                           .logit_scale = (float)decoder->options.logit_scale};
}

mn__var *mn__decoder_loss(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                          const int32_t *targets, const float *weights, float scale, float z,
                          float *losses)
{
    mn__head_loss args = mn__decoder_head(decoder, tape, hidden);
    args.targets = targets;
    args.weights = weights;
    args.scale = scale;
    args.z = z;
    args.losses = losses;
    return mn__op_head_loss(tape, &args);
}

mn__var *mn__decoder_logits(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                            const int32_t *index, int64_t rows)
{
    mn__var *asked = mn__op_gather(tape, rows_of(tape, hidden), index, rows);
    mn__var *logits = mn__linear_forward(&decoder->head, tape, asked, MN__LINEAR);
    return mn__op_scale(tape, mn__op_cast(tape, logits, MN__F32),
                        (float)decoder->options.logit_scale);
}
