/* The decoder: embedding, blocks of sublayers (each owning its norm), final
 * norm and head; the same code for training, reading and generation.
 *
 * A block is a list of sublayers, `block` in the recipe's `model:` section:
 *
 *   [attention, feed_forward]           one after the other: the default
 *   [[attention, feed_forward]]         a parallel form (GPT-J, PaLM): both read one
 *                                       norm of x, and x is added to their sum
 *   [attention, attention]              two attentions, each with its own state
 *   [{type: window, window: 64}, ...]   an attention of that type and these options
 *
 * `attention` is what the recipe's `attention:` section says. Single layers are
 * overridden by `layers`, a list in which the last item that names a layer wins:
 *
 *   {layers: [0, 3], type: full, ...}   what `attention` is there
 *   {layers: [1], block: [...]}         its sublayers */
#ifndef MN__MODEL_DECODER_H
#define MN__MODEL_DECODER_H

#include "attention/attention.h"

/* The recipe's `model:` section. */
typedef struct mn__decoder_options {
    int64_t depth, width, heads, kv_heads, head_width, hidden;
    int norm;       /* layer | rms */
    int norm_place; /* pre | post | both */
    bool final_norm;
    double norm_epsilon;
    int activation; /* relu | relu2 | gelu | gelu_tanh | silu */
    bool gated;     /* SwiGLU with silu, GEGLU with gelu */
    bool bias;
    int attention_bias; /* false | true | inputs: of queries, keys and values alone */
    bool head_norm;     /* an RMS norm over each head of queries and of keys */
    bool head_bias, tied;
    mn__string_list cutoffs; /* of clusters of the vocabulary; see nn/embedding.h, nn/head.h */
    int64_t div_val;
    bool project_first, tie_projections;
    bool scale_embedding; /* by sqrt(width), as Transformer-XL */
    double dropout, embedding_dropout, hidden_dropout;
    int positions; /* none | learned | rope */
    int64_t max_positions;
    double rope_base; /* see nn/rope.h for all of these */
    int64_t rope_width;
    bool rope_interleaved;
    int rope_scaling; /* none | linear | ntk | dynamic | llama3 | yarn | longrope */
    double rope_factor;
    int64_t rope_original, rope_length;
    double rope_magnitude, rope_fast, rope_slow;
    bool rope_truncate;
    double rope_low, rope_high;
    mn__string_list rope_short, rope_long;
    double initial_deviation;
    double logit_scale;
    bool recompute; /* blocks are run again in backward */
} mn__decoder_options;
extern const mn__option mn__decoder_option_table[];
/* The section's keys that hold lists instead: "block", "layers"; NULL-ended. */
extern const char *const mn__decoder_lists[];

typedef struct mn__decoder mn__decoder;

/* Builds a decoder from a recipe's mappings: `model` (the table and the lists
 * above; NULL: all defaults) and `attention` ({type: xl, ...the type's options}).
 * segment: tokens of a training segment. Parameters are drawn from params' seed, in
 * a fixed order, and named "layers.0.attention.query.weight"; the second attention
 * of a layer is its attention2. The norm of a parallel form is its first sublayer's. */
mn_status mn__decoder_new(mn__decoder **decoder, mn__params *params, const mn__yaml_node *model,
                          const mn__yaml_node *attention, int64_t vocabulary, int64_t segment,
                          mn_error *error);
void mn__decoder_free(mn__decoder *decoder);
/* Whether rotary frequencies depend on the length of a text: dynamic's and longrope's. They are
 * made for one of so many tokens; what was read before was turned by the old ones. */
bool mn__decoder_plans(const mn__decoder_options *options);
mn_status mn__decoder_plan(mn__decoder *decoder, int64_t tokens, mn_error *error);

const mn__decoder_options *mn__decoder_options_of(const mn__decoder *decoder);
int64_t mn__decoder_vocabulary(const mn__decoder *decoder);
/* Whether positions are a learned table of max_positions rows. */
bool mn__decoder_learns_positions(const mn__decoder *decoder);
/* A layer's sublayers as in a recipe: "[xl, feed_forward]". */
void mn__decoder_put_block(const mn__decoder *decoder, int64_t layer, mn__string *out);
/* Attention sublayers of all layers; each has a state. */
int64_t mn__decoder_attentions(const mn__decoder *decoder);
/* The n-th attention of a layer; NULL: it has not so many. */
const mn__attention *mn__decoder_attention(const mn__decoder *decoder, int64_t layer, int64_t n);
/* The least common multiple of the attentions' grids, where they meet; and the first
 * point of any of them after a position, up to which a segment may go (INT64_MAX: none). */
int64_t mn__decoder_grid(const mn__decoder *decoder);
int64_t mn__decoder_next_point(const mn__decoder *decoder, int64_t position);
/* The most segments over which a parameter gets its gradient. */
int mn__decoder_gradient_segments(const mn__decoder *decoder);
/* Whether some attention's outputs depend on later inputs; and the form that a figure
 * has to name: "strictly causal", or "as published, looking ahead". */
bool mn__decoder_looks_ahead(const mn__decoder *decoder);
const char *mn__decoder_form(const mn__decoder *decoder);
/* FLOPs of matrix products for one token, forward: 2 per matrix weight; with clusters of
 * the vocabulary, by the share of tokens expected in each. */
double mn__decoder_flops_per_token(const mn__decoder *decoder);

/* What the decoder is, with every option's resolved value, a line "name: value"
 * each: the training segment and the model's options; and of each layer its block,
 * and each attention's type and options ("- layers: 0 to 3" before layers that are
 * alike, where not all are). Equal text, equal computation of equal weights. */
void mn__decoder_write_model(const mn__decoder *decoder, mn__string *out);
void mn__decoder_write_attention(const mn__decoder *decoder, mn__string *out);

/* How states that are opened from now on keep keys and values: full and window attention's, as
 * other types keep what they need as it is computed. MN_ERROR_UNSUPPORTED where a layer has one
 * of those, and then all stays as it was. */
mn_status mn__decoder_keep(mn__decoder *decoder, mn__kept kept, mn_error *error);
mn__kept mn__decoder_kept(const mn__decoder *decoder);

/* State for `rows` streams of at most `capacity` tokens (0: segments see nothing
 * of earlier ones, for types without a bound of their own); compute: the tape's. */
mn_status mn__decoder_states_open(const mn__decoder *decoder, mn__states *states, int64_t rows,
                                  int64_t capacity, mn__dtype compute, mn_error *error);

/* One segment: ids [B, T] (ids < 0: padding) to hidden states [B, T, C], ready
 * for the head. Rows that start a document are reset first. What is to be
 * remembered is kept until mn__decoder_commit. segment->position may be NULL:
 * then it is taken from the states. A segment must not cross a grid point;
 * asserted. ids and the segment's arrays live to the tape's reset. NULL on
 * failure (see mn__tape_status). While the tape records, segment->auxiliary
 * receives what attentions add to the loss (mn__segment_losses), and slots may
 * be live until mn__states_cut. */
mn__var *mn__decoder_forward(mn__decoder *decoder, mn__tape *tape, mn__segment *segment,
                             const int32_t *ids, mn__states *states);
/* Remembers the last forward's segment, before the tape's reset. live: see
 * attention.h; the trainer sets it for all but the last of a step's unrolled
 * segments. With `recompute`, backward comes first: blocks run again must find
 * the state that they found before. */
void mn__decoder_commit(mn__decoder *decoder, mn__tape *tape, const mn__segment *segment,
                        mn__states *states, bool live);

/* Moves the attentions' buffers on by the statistics of the commits since the last
 * update: after the optimiser, before mn__params_clear_gradients. Resets the
 * tape. */
mn_status mn__decoder_update(mn__decoder *decoder, mn__tape *tape, mn_error *error);

/* The head's loss of hidden [B, T, C], F32 [1]: see mn__op_head_loss (op/op.h). The caller
 * fills in targets, weights, scale, z, losses and penalties. */
mn__var *mn__decoder_head_loss(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                               const mn__head_loss *args);
/* Sum of weights * nats * scale for hidden [B, T, C], F32 [1]; losses [B * T]
 * (may be NULL) receives each token's nats, unweighted. */
mn__var *mn__decoder_loss(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                          const int32_t *targets, const float *weights, float scale, float z,
                          float *losses);
/* Logits F32 [rows, V] for the rows asked for of hidden [B, T, C] seen as
 * [B * T, C]; index in caller's memory. With clusters, log-probabilities up to a constant
 * of the row (mn__head_logits). */
mn__var *mn__decoder_logits(mn__decoder *decoder, mn__tape *tape, mn__var *hidden,
                            const int32_t *index, int64_t rows);

#endif
