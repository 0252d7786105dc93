/* The decoder: x = embed(ids); x = block(x) for each block; hidden = norm(x). A
 * block is a list of sublayers, of which several in a row may be parallel:
 *
 *   pre-norm:   x = x + drop(f(norm(x))) + drop(g(norm(x))) + ...
 *   post-norm:  x = norm(x + drop(f(x)) + drop(g(x)) + ...)
 *   both:       x = x + drop(after_f(f(norm(x)))) + drop(after_g(g(norm(x)))) + ...
 *
 * with one norm before (or after the sum) for all of them; a sublayer for itself is f alone. The
 * residual stream is F32. Building one from a recipe is in build.c and blocks.c. */
#include "model/decoder.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/integer.h"
#include "model/build.h"

/* ---- What it is -------------------------------------------------------------------- */

const mn__decoder_options *mn__decoder_options_of(const mn__decoder *decoder)
{
    return &decoder->options;
}

bool mn__decoder_learns_positions(const mn__decoder *decoder)
{
    return decoder->positions;
}

int64_t mn__decoder_vocabulary(const mn__decoder *decoder)
{
    return decoder->vocabulary;
}

int64_t mn__decoder_attentions(const mn__decoder *decoder)
{
    return decoder->attentions;
}

const mn__attention *mn__decoder_attention(const mn__decoder *decoder, int64_t layer, int64_t n)
{
    const struct mn__block *block = &decoder->block[layer];
    for (int64_t i = 0; i < block->count; i++)
        if (block->sublayer[i].attending && n-- == 0)
            return &block->sublayer[i].attending->attention;
    return NULL;
}

void mn__decoder_put_block(const mn__decoder *decoder, int64_t layer, mn__string *out)
{
    const struct mn__block *block = &decoder->block[layer];
    mn__string_puts(out, "[");
    for (int64_t i = 0; i < block->count; i++) {
        const struct mn__sublayer *own = &block->sublayer[i];
        bool more = i + 1 < block->count && own[1].joins;
        mn__string_puts(out, i ? ", " : "");
        mn__string_puts(out, more && !own->joins ? "[" : "");
        mn__string_puts(out,
                        own->attending ? own->attending->attention.type->name : "feed_forward");
        mn__string_puts(out, own->joins && !more ? "]" : "");
    }
    mn__string_puts(out, "]");
}

int64_t mn__decoder_grid(const mn__decoder *decoder)
{
    int64_t grid = 1;
    for (struct mn__attending *each = decoder->attending; each; each = each->next) {
        int64_t own = each->attention.type->grid(&each->attention);
        grid = grid / mn__divisor(grid, own) * own;
    }
    return grid;
}

int64_t mn__decoder_next_point(const mn__decoder *decoder, int64_t position)
{
    int64_t next = INT64_MAX;
    for (struct mn__attending *each = decoder->attending; each; each = each->next) {
        int64_t own = each->attention.type->grid(&each->attention);
        int64_t point = position - position % own + own;
        next = own > 1 && point < next ? point : next;
    }
    return next;
}

int mn__decoder_gradient_segments(const mn__decoder *decoder)
{
    int most = 1;
    for (struct mn__attending *each = decoder->attending; each; each = each->next) {
        const mn__attention_type *type = each->attention.type;
        int own = type->gradient_segments ? type->gradient_segments(&each->attention) : 1;
        most = own > most ? own : most;
    }
    return most;
}

bool mn__decoder_looks_ahead(const mn__decoder *decoder)
{
    for (struct mn__attending *each = decoder->attending; each; each = each->next) {
        const mn__attention_type *type = each->attention.type;
        if (type->looks_ahead && type->looks_ahead(&each->attention))
            return true;
    }
    return false;
}

const char *mn__decoder_form(const mn__decoder *decoder)
{
    return mn__decoder_looks_ahead(decoder) ? "as published, looking ahead" : "strictly causal";
}

void mn__decoder_write_model(const mn__decoder *decoder, mn__string *out)
{
    mn__string_printf(out, "segment: %lld\n", (long long)decoder->segment);
    mn__options_write(mn__decoder_option_table, &decoder->options, 0, out);
}

static void write_layer(const mn__decoder *decoder, int64_t layer, int indent, mn__string *out)
{
    const struct mn__block *block = &decoder->block[layer];
    mn__string_printf(out, "%*sblock: ", indent, "");
    mn__decoder_put_block(decoder, layer, out);
    mn__string_puts(out, "\n");
    for (int64_t i = 0; i < block->count; i++) {
        if (!block->sublayer[i].attending)
            continue;
        const mn__attention *attention = &block->sublayer[i].attending->attention;
        mn__string_printf(out, "%*stype: %s\n", indent, "", attention->type->name);
        mn__options_write(attention->type->options, attention->options, indent, out);
    }
}

static bool same_layers(const mn__decoder *decoder, int64_t a, int64_t b, bool *failed)
{
    mn__string left = {0}, right = {0};
    write_layer(decoder, a, 0, &left);
    write_layer(decoder, b, 0, &right);
    *failed |= left.failed || right.failed;
    bool same = !*failed && !strcmp(left.text, right.text);
    mn__string_free(&left);
    mn__string_free(&right);
    return same;
}

void mn__decoder_write_attention(const mn__decoder *decoder, mn__string *out)
{
    int64_t depth = decoder->options.depth;
    for (int64_t first = 0, next; first < depth; first = next) {
        for (next = first + 1; next < depth; next++)
            if (!same_layers(decoder, first, next, &out->failed))
                break;
        bool all = first == 0 && next == depth;
        if (!all)
            mn__string_printf(out, "- layers: %lld to %lld\n", (long long)first,
                              (long long)next - 1);
        write_layer(decoder, first, all ? 0 : 2, out);
    }
}

double mn__decoder_flops_per_token(const mn__decoder *decoder)
{
    double flops = mn__embedding_flops(&decoder->embedding) + mn__head_flops(&decoder->head);
    for (int64_t i = 0; i < decoder->params->count; i++) {
        const mn__param *param = decoder->params->items[i];
        bool counted = param == decoder->positions || !strncmp(param->name, "embedding.", 10) ||
                       !strncmp(param->name, "head.", 5);
        if (!param->buffer && param->decays && !counted)
            flops += 2 * (double)mn__tensor_elements(&param->value);
    }
    return flops;
}

mn_status mn__decoder_keep(mn__decoder *decoder, mn__kept kept, mn_error *error)
{
    for (const struct mn__attending *each = decoder->attending; each; each = each->next)
        if (kept != MN__KEPT_AS_COMPUTED && !each->attention.type->keeps)
            return mn__fail(error, MN_ERROR_UNSUPPORTED, "leave the precision of its cache alone",
                            "attention %s keeps its state as it is computed, not in %s",
                            each->attention.type->name, mn__kept_name(kept));
    decoder->kept = kept;
    return MN_OK;
}

mn__kept mn__decoder_kept(const mn__decoder *decoder)
{
    return decoder->kept;
}

mn_status mn__decoder_states_open(const mn__decoder *decoder, mn__states *states, int64_t rows,
                                  int64_t capacity, mn__dtype compute, mn_error *error)
{
    mn_status status =
        mn__states_open(states, decoder->params->device, compute, rows, decoder->attentions, error);
    states->kept = decoder->kept;
    for (struct mn__attending *each = decoder->attending; each; each = each->next)
        if (status == MN_OK)
            status = each->attention.type->create_state(
                &each->attention, states, &states->layer[each->number], capacity, error);
    if (status != MN_OK)
        mn__states_close(states);
    return status;
}

/* ---- Forward --------------------------------------------------------------------------- */

/* One block's run: what recompute hands back to it. */
struct block_run {
    mn__decoder *decoder;
    const struct mn__block *block;
    mn__segment *segment;
    const mn__states *states;
    bool again; /* in backward: what is to be remembered is so already */
};

/* y = f(norm(x)), or f(x) where the norm comes after the sum. */
static mn__var *sublayer(const struct block_run *run, mn__tape *tape,
                         const struct mn__sublayer *own, mn__var *x)
{
    struct mn__attending *attending = own->attending;
    if (attending)
        return attending->attention.type->forward(
            &attending->attention, tape, run->segment, x, &run->states->layer[attending->number],
            run->again ? &run->decoder->recomputed : &attending->pending);
    mn__var *h = run->decoder->pre_norm ? mn__norm_forward(&own->norm, tape, x, tape->compute)
                                        : mn__op_cast(tape, x, tape->compute);
    return mn__feed_forward_forward(&own->feed_forward, tape, h);
}

static mn__var *block(mn__tape *tape, void *user, mn__var *x)
{
    const struct block_run *run = user;
    const struct mn__sublayer *own = run->block->sublayer, *end = own + run->block->count;
    while (own < end && x) {
        const mn__norm *norm = &own->norm;
        mn__var *sum = x;
        mn__tape_mark mark = mn__tape_mark_now(tape);
        do {
            mn__var *y = sublayer(run, tape, own, x);
            if (run->decoder->norms_after)
                y = mn__norm_forward(&own->after, tape, y, MN__F32);
            y = mn__op_dropout(tape, y, (float)run->decoder->options.dropout);
            sum = mn__op_add(tape, sum, y);
        } while (++own < end && own->joins);
        if (!run->decoder->pre_norm)
            sum = mn__norm_forward(norm, tape, sum, MN__F32);
        x = mn__tape_release_except(tape, mark, sum);
    }
    return x;
}

static mn__var *run_block(mn__decoder *decoder, mn__tape *tape, mn__segment *segment, mn__var *x,
                          const mn__states *states, int64_t i)
{
    struct block_run *run = mn__arena_calloc(&tape->nodes, 1, sizeof *run);
    if (!run)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a block");
    *run = (struct block_run){decoder, &decoder->block[i], segment, states, false};
    if (!decoder->options.recompute)
        return block(tape, run, x);
    x = mn__tape_recompute(tape, block, run, x);
    run->again = true;
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
    for (int64_t b = 0; b < segment->B; b++)
        assert(mn__segment_valid(segment, b) <=
               mn__decoder_next_point(decoder, segment->position[b]) - segment->position[b]);
    (void)decoder, (void)segment;
}

/* Where several attentions export, the last one's is seen, as in the code of
 * Hutchins et al. 2022. */
static void export_states(const mn__decoder *decoder, mn__tape *tape, mn__segment *segment,
                          const mn__states *states)
{
    for (struct mn__attending *each = decoder->attending; each; each = each->next)
        if (each->attention.type->exports)
            each->attention.type->exports(&each->attention, tape, segment,
                                          &states->layer[each->number]);
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
    mn__tape_mark mark = mn__tape_mark_now(tape);
    mn__var *x =
        mn__embedding_forward(&decoder->embedding, tape, ids, segment->B, segment->T, scale);
    x = mn__tape_release_except(tape, mark, x);
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
    for (struct mn__attending *each = decoder->attending; each; each = each->next) {
        each->attention.type->commit(&each->attention, tape, segment, &states->layer[each->number],
                                     &each->pending, live);
        each->pending = (mn__pending){0};
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
    for (struct mn__attending *each = decoder->attending; each; each = each->next)
        if (each->attention.type->update)
            each->attention.type->update(&each->attention, tape);
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

mn__var *mn__decoder_head_loss(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                               const mn__head_loss *args)
{
    return mn__head_loss_forward(&decoder->head, tape, rows_of(tape, hidden), args);
}

mn__var *mn__decoder_loss(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                          const int32_t *targets, const float *weights, float scale, float z,
                          float *losses)
{
    mn__head_loss args = {
        .targets = targets, .weights = weights, .scale = scale, .z = z, .losses = losses};
    return mn__decoder_head_loss(decoder, tape, hidden, &args);
}

mn__var *mn__decoder_logits(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                            const int32_t *index, int64_t rows)
{
    return mn__head_logits(&decoder->head, tape,
                           mn__op_gather(tape, rows_of(tape, hidden), index, rows));
}
