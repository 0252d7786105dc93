/* Differentiable operations. Each lives in a file of its own, forward beside
 * backward. Shapes are checked: a wrong one fails the tape. Every var may be
 * NULL where its comment says so, and is otherwise an earlier failure.
 *
 * Types: products, attention and activations run in tape->compute; the
 * residual stream, norms' statistics, losses and parameters' gradients are F32.
 *
 * Letters: B rows, T queries, S keys, H heads, G key-value heads, D head width,
 * C model width, F feed-forward width, V vocabulary. [..., C] is any rank. */
#ifndef MN__OP_OP_H
#define MN__OP_OP_H

#include "tensor/tape.h"

/* y [..., out] = activation(x [..., in] weight^T + bias); weight [out, in],
 * bias [out] or NULL. x is cast to the compute type if need be; y has it. */
mn__var *mn__op_linear(mn__tape *tape, mn__var *x, mn__var *weight, mn__var *bias,
                       mn__activation activation);
/* y [..., out] = x [..., in] weight; weight [in, out]: that of a linear layer, from its
 * other side. */
mn__var *mn__op_linear_other_side(mn__tape *tape, mn__var *x, mn__var *weight);
/* Batched product: a [..., M, K] b -> [..., M, N]; b [..., K, N], or [..., N, K]
 * where transposed. The leading sizes are equal (a rank of 2 to 4). */
mn__var *mn__op_matmul(mn__tape *tape, mn__var *a, mn__var *b, bool transposed);

/* Rows of table [V, C] for ids [B, T]: F32 [B, T, C] times scale. ids in
 * caller's memory, which lives to the reset; an id < 0 gives zeros. */
mn__var *mn__op_embed(mn__tape *tape, mn__var *table, const int32_t *ids, int64_t B, int64_t T,
                      float scale);

/* RMS norm or layer norm over the last dimension; gain, bias [C] or NULL. */
typedef enum mn__norm_kind { MN__NORM_LAYER, MN__NORM_RMS } mn__norm_kind;
mn__var *mn__op_norm(mn__tape *tape, mn__norm_kind kind, mn__var *x, mn__var *gain, mn__var *bias,
                     float epsilon, mn__dtype out);
/* x / sqrt(sum x^2 + epsilon) over the last dimension: of length 1. */
mn__var *mn__op_unit(mn__tape *tape, mn__var *x, float epsilon, mn__dtype out);

/* Rotary positions on x [B, T, H, D]; positions [B * T] and frequencies [pairs]
 * in caller's memory. See kernel.h. */
typedef struct mn__rope {
    int64_t pairs;
    const float *frequencies;
    bool interleaved;
    float magnitude;
} mn__rope;
mn__var *mn__op_rope(mn__tape *tape, mn__var *x, const int64_t *positions, const mn__rope *rope);

mn__var *mn__op_activate(mn__tape *tape, mn__activation activation, mn__var *x);
/* activation(gate) * up, element by element. */
mn__var *mn__op_gate(mn__tape *tape, mn__activation activation, mn__var *gate, mn__var *up);
/* Identity unless tape->training. */
mn__var *mn__op_dropout(mn__tape *tape, mn__var *x, float p);
/* a op b of one size, or b one row [C] repeated. The type is a's. */
mn__var *mn__op_add(mn__tape *tape, mn__var *a, mn__var *b);
mn__var *mn__op_subtract(mn__tape *tape, mn__var *a, mn__var *b);
mn__var *mn__op_multiply(mn__tape *tape, mn__var *a, mn__var *b);
/* a / b of one size. */
mn__var *mn__op_divide(mn__tape *tape, mn__var *a, mn__var *b);
/* The larger of a and b of one size, NaN where one is; where they are equal the gradient is
 * b's, where a is NaN it is a's. */
mn__var *mn__op_maximum(mn__tape *tape, mn__var *a, mn__var *b);
mn__var *mn__op_scale(mn__tape *tape, mn__var *x, float factor);
/* F32 [1]: the sum of all elements, their mean, the mean of their squares. */
mn__var *mn__op_sum(mn__tape *tape, mn__var *x);
mn__var *mn__op_mean(mn__tape *tape, mn__var *x);
mn__var *mn__op_mean_squares(mn__tape *tape, mn__var *x);
mn__var *mn__op_softmax(mn__tape *tape, mn__var *x);
/* log softmax(x) + shift, row by row: x F32 [N, V], shift F32 [N, 1] or NULL. */
mn__var *mn__op_log_softmax(mn__tape *tape, mn__var *x, mn__var *shift);

/* Copies: another type (x itself if it has it already); parts end to end. */
mn__var *mn__op_cast(mn__tape *tape, mn__var *x, mn__dtype dtype);
/* x [.., D] in blocks of 8 bits (kernel/blocks.h), U8 [.., mn__block_int8_bytes(D)], in which
 * keys and values may be kept. No gradient passes. */
mn__var *mn__op_quantise(mn__tape *tape, mn__var *x);
mn__var *mn__op_concat(mn__tape *tape, int axis, mn__var *const *parts, int count);
/* Views, without a copy. mn__op_split cuts an axis into `count` parts of the
 * sizes given, which must add up; false on failure. */
mn__var *mn__op_slice(mn__tape *tape, mn__var *x, int axis, int64_t start, int64_t count);
bool mn__op_split(mn__tape *tape, mn__var *x, int axis, const int64_t *sizes, int count,
                  mn__var **parts);
mn__var *mn__op_reshape(mn__tape *tape, mn__var *x, int rank, const int64_t *size);
/* F32 [count], each the value. */
mn__var *mn__op_constant(mn__tape *tape, int64_t count, float value);
/* The same value without a way for gradients. */
mn__var *mn__op_detach(mn__tape *tape, mn__var *x);

/* Rows by index: x [N, C], index [count] in caller's memory: [count, C];
 * index < 0: zeros. In groups: x [groups, N, C], index [groups, count] within
 * each: [groups, count, C]. */
mn__var *mn__op_gather(mn__tape *tape, mn__var *x, const int32_t *index, int64_t count);
/* out [rows, C] = 0; out[index[i]] += x[i] (index < 0: not). F32. In groups: x
 * [groups, count, C] to [groups, rows, C]. */
mn__var *mn__op_scatter(mn__tape *tape, mn__var *x, const int32_t *index, int64_t rows);
/* The k largest per row of x [..., N]: indices [rows, k] in the step's memory,
 * and values if not NULL; no gradient passes. NULL on failure. See tape->choices. */
int32_t *mn__op_top_k(mn__tape *tape, mn__var *x, int64_t k, float **values);
/* The places of the counts[r] <= k largest of each row r of x [rows, N], ascending and
 * then -1: [rows, k] in the step's memory. NULL on failure. */
int32_t *mn__op_top_places(mn__tape *tape, mn__var *x, int64_t k, const int64_t *counts);

/* ---- Attention ------------------------------------------------------------------ */

/* One list of keys. As mn__key_group, with vars for what can have a gradient. */
typedef struct mn__keys {
    mn__var *keys, *values;        /* [B, S, G, D], or both of mn__op_quantise */
    const int64_t *first, *length; /* [B] or NULL */
    const uint8_t *keep;           /* [B, S] or NULL */
    const int32_t *query_segment, *key_segment;
    mn__mask mask;
    int64_t offset, window;
    mn__position position;
    const float *slopes; /* ALIBI */
    mn__var *table;      /* T5 [buckets, H] */
    int64_t far;
    mn__var *relative, *u, *v; /* XL: [limit + 1, H, D], [H, D], [H, D] */
    mn__var *shaw_keys, *shaw_values;
    int64_t limit;
    mn__var *bias; /* [B, G, S] or NULL */
} mn__keys;

typedef struct mn__attention_args {
    mn__var *queries; /* [B, T, H, D] */
    float scale;
    mn__var *scales, *sink; /* [H] or NULL */
    const int64_t *valid;   /* [B]: real queries of each row; NULL: all */
    float dropout;          /* of weights, where the tape trains: see mn__weight_dropout */
    int groups;
    mn__keys group[MN__GROUPS_MAX];
    float *group_mass; /* see mn__attention_call; or NULL */
    float *key_mass[MN__GROUPS_MAX];
    float **lse; /* receives [B, H, T] in the step's memory; or NULL */
} mn__attention_args;

/* [B, T, H, D] in the compute type. */
mn__var *mn__op_attention(mn__tape *tape, const mn__attention_args *args);
/* Keys of each query's own: queries [B, T, H, D], keys and values
 * [B * T, H, K, D], index [B, T, H, K] (< 0 hides one; NULL: all there). dropout
 * as above. */
mn__var *mn__op_gathered_attention(mn__tape *tape, mn__var *queries, mn__var *keys, mn__var *values,
                                   const int64_t *index, float scale, mn__var *scales,
                                   float dropout);

/* ---- Memory ---------------------------------------------------------------------- */

/* A memory that is searched: slots of keys and values, F32 or BF16, constants to the
 * tape. What is found of it is copied, so that it may be written to before backward. */
typedef struct mn__memory {
    mn__tensor keys, values; /* [B, H, M, D] */
    const int64_t *filled;   /* [B]: row b has slots 0 <= m < filled[b]; NULL: M */
    int64_t k;               /* to be found for each query */
    bool buckets;            /* the largest of each of k buckets: see mn__nearest_call */
} mn__memory;

/* For mn__op_gathered_attention. Where fewer than k were found, keys and values are zeros
 * and the index is -1: given the index, those are hidden, without it seen as zeros. */
typedef struct mn__retrieved {
    mn__var *keys, *values; /* [B * T, H, k, D] in the compute type; no gradient passes */
    int64_t *index;         /* [B, T, H, k]: slots, in the step's memory */
    const float *scores;    /* of those: inner products, -infinity where the index is -1 */
} mn__retrieved;

/* The k keys with the largest inner products with each of queries [B, T, H, D], in the
 * compute type, and their values. No gradient passes to the queries by the choice. False
 * on failure. See tape->choices. */
bool mn__op_retrieve(mn__tape *tape, mn__var *queries, const mn__memory *memory,
                     mn__retrieved *found);

/* ---- Head -------------------------------------------------------------------------- */

/* Cross-entropy of hidden [N, C] against weight [V, C] (tied: the embedding
 * table) in chunks of rows, so that N x V logits never exist at once; the
 * gradients of hidden and weight are made in the forward pass of each chunk.
 * more [K, C]: further classes, numbered from V on, whose rows lie apart from
 * weight's (an adaptive softmax's clusters); bias is then [V + K].
 * Returns sum_r weights[r] (loss[r] + z (log Z[r])^2) * scale, F32 [1]; losses and
 * penalties [N] (may be NULL) receive each row's nats and, apart from them, its
 * z (log Z)^2, 0 where the weight is 0. targets, weights: caller's memory. */
typedef struct mn__head_loss {
    mn__var *hidden, *weight, *more, *bias; /* more, bias: NULL for none */
    const int32_t *targets;
    const float *weights;
    float logit_scale, z, scale;
    float *losses, *penalties;
} mn__head_loss;
mn__var *mn__op_head_loss(mn__tape *tape, const mn__head_loss *args);
/* Bytes that one for N rows of C and V classes takes at most while it runs, for bounds. */
int64_t mn__op_head_loss_scratch(int64_t N, int64_t C, int64_t V);

#endif
