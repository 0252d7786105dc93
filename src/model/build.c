/* Making a decoder from a recipe: options, embedding and head. Its blocks are made
 * in blocks.c. */
#include "model/build.h"

#include "base/memory.h"
#include "nn/create.h"
#include "nn/rope.h"

#define TABLE mn__decoder_options
const mn__option mn__decoder_option_table[] = {
    MN__INT(TABLE, depth, "6", 1, 1024, "layers"),
    MN__INT(TABLE, width, "256", 1, 1e6, "model width, C"),
    MN__INT(TABLE, heads, "4", 1, 1024, "attention heads, H"),
    MN__INT(TABLE, kv_heads, "0", 0, 1024, "key-value heads, G; 0: as many as heads"),
    MN__INT(TABLE, head_width, "0", 0, 65536, "width of a head, D; 0: width / heads"),
    MN__INT(TABLE, hidden, "0", 0, 1e7, "feed-forward width, F; 0: 4 width"),
    MN__ENUM(TABLE, norm, "layer", "layer|rms", "kind of norm"),
    MN__ENUM(TABLE, norm_place, "pre", "pre|post|both",
             "before a sublayer, or after its sum; both: before it and after it"),
    MN__BOOL(TABLE, final_norm, "true", "a norm before the head (not for post)"),
    MN__FLOAT(TABLE, norm_epsilon, "1e-5", 0, 1, "added to the variance"),
    MN__ENUM(TABLE, activation, "gelu", "relu|relu2|gelu|gelu_tanh|silu", "of the feed-forward"),
    MN__BOOL(TABLE, gated, "false", "gated feed-forward (SwiGLU: silu, GEGLU: gelu)"),
    MN__BOOL(TABLE, bias, "false", "linear layers have a bias"),
    MN__ENUM(TABLE, attention_bias, "false", "false|true|inputs",
             "so do attention's projections; inputs: those of queries, keys and values"),
    MN__BOOL(TABLE, head_norm, "false", "an RMS norm over each head of queries and of keys"),
    MN__BOOL(TABLE, head_bias, "false", "so does the head"),
    MN__BOOL(TABLE, tied, "true", "the head's weight is the embedding's"),
    MN__LIST(TABLE, cutoffs, "[]",
             "adaptive embeddings and softmax: ids at which to cut, ascending"),
    MN__INT(TABLE, div_val, "1", 1, 1e6, "from cut to cut, embeddings narrow by this factor"),
    MN__BOOL(TABLE, project_first, "false", "the first cluster is projected, as the others"),
    MN__BOOL(TABLE, tie_projections, "false", "the head's are the embedding's, but the first"),
    MN__BOOL(TABLE, scale_embedding, "false", "embeddings times sqrt(width)"),
    MN__FLOAT(TABLE, dropout, "0", 0, 0.99, "of each sublayer's output"),
    MN__FLOAT(TABLE, embedding_dropout, "0", 0, 0.99, "of the embeddings"),
    MN__FLOAT(TABLE, hidden_dropout, "0", 0, 0.99, "inside the feed-forward"),
    MN__ENUM(TABLE, positions, "none", "none|learned|rope", "of tokens, where attention has none"),
    MN__INT(TABLE, max_positions, "1024", 1, 1e9, "learned positions"),
    MN__FLOAT(TABLE, rope_base, "10000", 1, 1e12, "of rotary frequencies"),
    MN__INT(TABLE, rope_width, "0", 0, 65536, "elements of a head that turn; 0: all"),
    MN__BOOL(TABLE, rope_interleaved, "false", "neighbours turn together, not halves of a head"),
    MN__ENUM(TABLE, rope_scaling, "none", "none|linear|ntk|dynamic|llama3|yarn|longrope",
             "stretches rotary positions over more tokens"),
    MN__FLOAT(TABLE, rope_factor, "1", 1, 1e6, "by which they are stretched"),
    MN__INT(TABLE, rope_original, "0", 0, 1e9, "tokens of the training before that"),
    MN__INT(TABLE, rope_length, "0", 0, 1e9,
            "tokens that are planned for (dynamic, longrope); 0: rope_original"),
    MN__FLOAT(TABLE, rope_magnitude, "0", 0, 1e3,
              "cos and sin are multiplied by it; 0: as the scaling has it"),
    MN__FLOAT(TABLE, rope_fast, "32", 0, 1e9, "yarn: turns from which pairs stay as they are"),
    MN__FLOAT(TABLE, rope_slow, "1", 0, 1e9, "yarn: turns up to which pairs are stretched fully"),
    MN__BOOL(TABLE, rope_truncate, "true", "yarn: these bounds are whole pairs"),
    MN__FLOAT(TABLE, rope_low, "1", 0, 1e9, "llama3: turns up to which pairs are stretched fully"),
    MN__FLOAT(TABLE, rope_high, "4", 0, 1e9, "llama3: turns from which pairs stay as they are"),
    MN__LIST(TABLE, rope_short, "[]", "longrope: a factor for each pair, up to rope_original"),
    MN__LIST(TABLE, rope_long, "[]", "longrope: the same beyond it"),
    MN__FLOAT(TABLE, initial_deviation, "0.02", 0, 10, "of initial weights"),
    MN__FLOAT(TABLE, logit_scale, "1", 0, 1e6, "logits are multiplied by it"),
    MN__BOOL(TABLE, recompute, "false", "run blocks again in backward, to save memory"),
    MN__OPTIONS_END,
};
#undef TABLE

const char *const mn__decoder_lists[] = {"block", "layers", NULL};

/* ---- Options ------------------------------------------------------------------------ */

/* The list's numbers, in the decoder's arena. */
static mn_status read_cutoffs(mn__decoder *decoder, mn__cut *cut, mn_error *error)
{
    struct one {
        int64_t cutoff;
    } one;
    static const mn__option table[] = {MN__INT(struct one, cutoff, "1", 1, 1e9, "an id"),
                                       MN__OPTIONS_END};
    const mn__string_list *texts = &decoder->options.cutoffs;
    int64_t *cutoffs = mn__arena_calloc(&decoder->arena, texts->count, sizeof *cutoffs);
    if (!cutoffs)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model");
    for (int64_t i = 0; i < texts->count; i++) {
        mn_status status =
            mn__options_set(table, "cutoff", texts->items[i], &one, &decoder->arena, error);
        if (status != MN_OK) {
            mn__error_prefix(error, "model.cutoffs");
            return status;
        }
        cutoffs[i] = one.cutoff;
    }
    cut->cutoffs = cutoffs;
    cut->count = texts->count;
    return MN_OK;
}

static mn_status read_cut(mn__decoder *decoder, mn__cut *cut, mn_error *error)
{
    const mn__decoder_options *options = &decoder->options;
    *cut = (mn__cut){.vocabulary = decoder->vocabulary,
                     .width = options->width,
                     .divisor = options->div_val,
                     .project_first = options->project_first};
    mn_status status = read_cutoffs(decoder, cut, error);
    if (status != MN_OK)
        return status;
    bool projects = options->project_first || options->tie_projections || options->div_val > 1;
    if (!cut->count && projects)
        return mn__fail(error, MN_ERROR_OPTION, "give it: model.cutoffs: [20000, 40000, 200000]",
                        "model.%s is of clusters, and there is no model.cutoffs",
                        options->div_val > 1     ? "div_val"
                        : options->project_first ? "project_first"
                                                 : "tie_projections");
    return mn__cut_check(cut, error);
}

static mn_status read_options(mn__decoder *decoder, const mn__yaml_node *model, mn_error *error)
{
    mn__decoder_options *options = &decoder->options;
    mn_status status = mn__options_read(mn__decoder_option_table, model, mn__decoder_lists, options,
                                        &decoder->arena, error);
    if (status != MN_OK)
        return status;
    if (!options->head_width && options->width % options->heads)
        return mn__fail(error, MN_ERROR_OPTION, "make width a multiple of heads, or set head_width",
                        "model.width %lld does not divide into %lld heads",
                        (long long)options->width, (long long)options->heads);
    if (!options->head_width)
        options->head_width = options->width / options->heads;
    if (!options->kv_heads)
        options->kv_heads = options->heads;
    if (options->heads % options->kv_heads)
        return mn__fail(error, MN_ERROR_OPTION, "make heads a multiple of kv_heads",
                        "model.heads %lld is no multiple of model.kv_heads %lld",
                        (long long)options->heads, (long long)options->kv_heads);
    if (options->positions == 2 && !options->rope_width && options->head_width % 2)
        return mn__fail(error, MN_ERROR_OPTION, "choose an even head_width",
                        "rotary positions need an even head width, not %lld",
                        (long long)options->head_width);
    if (options->rope_width > options->head_width)
        return mn__fail(error, MN_ERROR_OPTION, "leave it out, to turn all of a head",
                        "model.rope_width %lld is more than the head width %lld",
                        (long long)options->rope_width, (long long)options->head_width);
    if (options->positions != 2 && options->rope_scaling)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: rope",
                        "model.rope_scaling without rotary positions");
    if (!options->hidden)
        options->hidden = 4 * options->width;
    decoder->pre_norm = options->norm_place != 1;
    decoder->norms_after = options->norm_place == 2;
    decoder->has_final_norm = decoder->pre_norm && options->final_norm;
    return MN_OK;
}

/* ---- Parameters ---------------------------------------------------------------------- */

/* A factor for each pair, in the decoder's arena. */
static mn_status read_factors(mn__decoder *decoder, const mn__string_list *texts, int64_t pairs,
                              const char *name, const double **factors, mn_error *error)
{
    struct one {
        double factor;
    } one;
    static const mn__option table[] = {MN__FLOAT(struct one, factor, "1", 0, 1e9, "a factor"),
                                       MN__OPTIONS_END};
    if (texts->count != pairs)
        return mn__fail(error, MN_ERROR_OPTION, "give one for each pair of elements that turn",
                        "model.%s holds %lld factors for %lld pairs", name, (long long)texts->count,
                        (long long)pairs);
    double *numbers = mn__arena_calloc(&decoder->arena, pairs, sizeof *numbers);
    if (!numbers)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for rotary frequencies");
    for (int64_t i = 0; i < pairs; i++) {
        mn_status status =
            mn__options_set(table, "factor", texts->items[i], &one, &decoder->arena, error);
        if (status != MN_OK) {
            mn__error_prefix(error, "model.%s", name);
            return status;
        }
        numbers[i] = one.factor;
    }
    *factors = numbers;
    return MN_OK;
}

bool mn__decoder_plans(const mn__decoder_options *options)
{
    return options->positions == 2 && (options->rope_scaling == MN__ROPE_DYNAMIC ||
                                       options->rope_scaling == MN__ROPE_LONGROPE);
}

static mn_status create_rope(mn__decoder *decoder, mn_error *error)
{
    const mn__decoder_options *options = &decoder->options;
    mn__rope_options rope = {
        .base = options->rope_base,
        .width = options->rope_width ? options->rope_width : options->head_width,
        .interleaved = options->rope_interleaved,
        .scaling = (mn__rope_scaling)options->rope_scaling,
        .factor = options->rope_factor,
        .original = options->rope_original,
        .length = options->rope_length,
        .magnitude = options->rope_magnitude,
        .fast = options->rope_fast,
        .slow = options->rope_slow,
        .truncate = options->rope_truncate,
        .low = options->rope_low,
        .high = options->rope_high,
    };
    mn_status status = MN_OK;
    if (rope.scaling == MN__ROPE_LONGROPE) {
        status = read_factors(decoder, &options->rope_short, rope.width / 2, "rope_short",
                              &rope.short_factors, error);
        if (status == MN_OK)
            status = read_factors(decoder, &options->rope_long, rope.width / 2, "rope_long",
                                  &rope.long_factors, error);
    }
    return status == MN_OK ? mn__rope_create(&decoder->rope, &decoder->arena, &rope, error)
                           : status;
}

mn_status mn__decoder_plan(mn__decoder *decoder, int64_t tokens, mn_error *error)
{
    mn__decoder_options *options = &decoder->options;
    if (!mn__decoder_plans(options) || options->rope_length == tokens)
        return MN_OK;
    options->rope_length = tokens;
    return create_rope(decoder, error);
}

static mn_status create_embedding(mn__decoder *decoder, mn_error *error)
{
    const mn__decoder_options *options = &decoder->options;
    mn__init normal = {MN__INIT_NORMAL, 0.0f, (float)options->initial_deviation};
    mn__cut cut;
    mn_status status = read_cut(decoder, &cut, error);
    if (status == MN_OK)
        status = mn__embedding_create(&decoder->embedding, decoder->params, &decoder->arena, &cut,
                                      normal.deviation, error);
    if (status == MN_OK && options->positions == 1)
        status = mn__create(&decoder->positions, decoder->params, "positions", "weight", 2,
                            (int64_t[]){options->max_positions, options->width}, normal, error);
    if (status == MN_OK && options->positions == 2)
        status = create_rope(decoder, error);
    return status;
}

static mn_status create_head(mn__decoder *decoder, mn_error *error)
{
    const mn__decoder_options *options = &decoder->options;
    mn__head_options head = {.tied = options->tied,
                             .tie_projections = options->tie_projections,
                             .bias = options->head_bias,
                             .deviation = (float)options->initial_deviation,
                             .logit_scale = (float)options->logit_scale};
    return mn__head_create(&decoder->head, decoder->params, &decoder->arena, &decoder->embedding,
                           &head, error);
}

static mn_status build(mn__decoder *decoder, const mn__yaml_node *model,
                       const mn__yaml_node *attention, mn_error *error)
{
    mn_status status = read_options(decoder, model, error);
    if (status == MN_OK)
        status = create_embedding(decoder, error);
    if (status == MN_OK)
        status = mn__blocks_create(decoder, model, attention, error);
    if (status == MN_OK && decoder->has_final_norm)
        status = mn__decoder_create_norm(decoder, &decoder->final_norm, "final_norm", error);
    return status == MN_OK ? create_head(decoder, error) : status;
}

mn_status mn__decoder_new(mn__decoder **out, mn__params *params, const mn__yaml_node *model,
                          const mn__yaml_node *attention, int64_t vocabulary, int64_t segment,
                          mn_error *error)
{
    *out = NULL;
    mn__decoder *decoder = mn__calloc(1, sizeof *decoder);
    if (!decoder)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model");
    mn__arena_init(&decoder->arena, 1 << 14);
    decoder->params = params;
    decoder->vocabulary = vocabulary;
    decoder->segment = segment;
    mn_status status = build(decoder, model, attention, error);
    if (status == MN_OK)
        *out = decoder;
    else
        mn__decoder_free(decoder);
    return status;
}

void mn__decoder_free(mn__decoder *decoder)
{
    if (!decoder)
        return;
    mn__arena_free(&decoder->arena);
    mn__free(decoder);
}
