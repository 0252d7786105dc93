/* The kernel table: what a device can compute, on raw pointers and sizes.
 *
 * The plain-C version of each kernel (src/kernel/plain_*.c) is its definition:
 * slow, double-precision sums, obviously right. The files in cpu/ are compiled
 * once per CPU level and checked against it. A kernel allocates nothing but
 * scratch from its queue, never fails, and is bit-identical over repeats with
 * the same thread count: reductions run in a fixed order. Denormal numbers may
 * count as zero in products, in attention, and where floats become bf16.
 *
 * Letters: B rows of a batch, T queries, S keys, H heads, G key-value heads,
 * D head width, C width, V vocabulary. Strides count elements. */
#ifndef MN__KERNEL_KERNEL_H
#define MN__KERNEL_KERNEL_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/random.h"
#include "kernel/dtype.h"

/* ---- Levels and queues ------------------------------------------------------- */

typedef enum mn__level {
    MN__LEVEL_PLAIN,    /* the definitions */
    MN__LEVEL_BASELINE, /* any CPU */
    MN__LEVEL_V3,       /* x86-64-v3: AVX2 and FMA */
    MN__LEVEL_V4,       /* x86-64-v4: AVX-512 */
    MN__LEVEL_V4BF16,   /* with VNNI and BF16 */
    MN__LEVEL_AMX,      /* with AMX tiles */
    MN__LEVELS
} mn__level;

typedef struct mn__kernels mn__kernels;

/* Where work is put: the table, and scratch that a kernel takes and gives back
 * before it returns. One thread of ours drives a queue. */
typedef struct mn__queue {
    const mn__kernels *kernels;
    mn__arena scratch;
    bool failed; /* a kernel lacked scratch: see mn__queue_check */
} mn__queue;

/* The best level of this machine that MNEME_CPU (plain, baseline, v3, v4,
 * v4bf16, amx) allows. An unknown name is MN_ERROR_OPTION; a level above the
 * machine's is MN_ERROR_UNSUPPORTED. */
mn_status mn__kernel_level(mn__level *level, mn_error *error);
const char *mn__level_name(mn__level level);
/* The table of a level that this machine has, or NULL. Static. */
const mn__kernels *mn__kernel_table(mn__level level);
mn_status mn__queue_open(mn__queue *queue, const mn__kernels *kernels, mn_error *error);
void mn__queue_close(mn__queue *queue);
/* A kernel that gets no memory for its scratch leaves its output undefined and
 * says so here: ask after a step, before its results are used. Clears the mark. */
mn_status mn__queue_check(mn__queue *queue, mn_error *error);
/* For kernels: scratch until the caller releases its mark; NULL, with the mark
 * set, when memory is short. */
void *mn__queue_scratch(mn__queue *queue, int64_t bytes);

/* ---- Arguments ---------------------------------------------------------------- */

/* A matrix whose columns are contiguous. stride 0 repeats one row. */
typedef struct mn__matrix {
    void *data;
    mn__dtype dtype; /* F32 or BF16 */
    int64_t rows, columns, stride;
} mn__matrix;

typedef enum mn__activation {
    MN__LINEAR,
    MN__RELU,
    MN__RELU2,     /* max(x, 0)^2 */
    MN__GELU,      /* x Phi(x) */
    MN__GELU_TANH, /* its tanh approximation */
    MN__SILU,
    MN__TANH,
    MN__SIGMOID
} mn__activation;

typedef enum mn__binary {
    MN__ADD,
    MN__SUBTRACT,
    MN__MULTIPLY,
    MN__DIVIDE,
    MN__MAXIMUM,  /* NaN where one of both is */
    MN__IS_FIRST, /* 1 where MN__MAXIMUM is a, 0 where it is b */
    MN__WHERE,    /* a where b is not 0, else 0 */
    MN__WHERE_NOT /* a where b is 0, else 0 */
} mn__binary;

/* A weight matrix b [k, n] in a form that products read fastest; opaque. The integer
 * forms have a scale for each 32 elements of a column: see blocks.h. They and f16 are
 * multiplied as floats, or rounded to bf16 where many bf16 rows meet them. */
typedef struct mn__packed mn__packed;
enum { MN__PACK_COLUMNS = 64 };
typedef enum mn__form {
    MN__FORM_F32,
    MN__FORM_F16, /* numbers beyond its largest, 65504, become infinite */
    MN__FORM_BF16,
    MN__FORM_INT8,
    MN__FORM_INT4
} mn__form;

/* Whether a form is for products in one type alone, its own. */
static inline bool mn__form_is_floats(mn__form form)
{
    return form == MN__FORM_F32 || form == MN__FORM_BF16;
}

/* For products of this type, F32 or BF16. */
static inline mn__form mn__form_of(mn__dtype dtype)
{
    return dtype == MN__BF16 ? MN__FORM_BF16 : MN__FORM_F32;
}

typedef struct mn__operand {
    const void *data;
    mn__dtype dtype;
    int64_t row, column; /* strides; one of the two is 1 */
    int64_t outer[2];    /* strides of the batch */
} mn__operand;

/* c[i,j] = activation(sum_k a[i,k] b[k,j] + bias[j]) (+ c[i,j] if accumulate),
 * for each of batch[0] x batch[1] products. a and b have one dtype; c is F32 or
 * that dtype. Sums are in F32. The columns of c are contiguous. */
typedef struct mn__matmul {
    int64_t batch[2], m, n, k;
    mn__operand a, b;
    const mn__packed *packed; /* instead of b, or NULL */
    void *c;
    mn__dtype c_dtype;
    int64_t c_row, c_outer[2];
    const float *bias; /* [n] or NULL */
    mn__activation activation;
    bool accumulate; /* then activation is MN__LINEAR and bias NULL */
} mn__matmul;

/* ---- Attention ------------------------------------------------------------------ */

/* T5's one-sided bucket of a distance (below 0: as 0): the first half of the
 * buckets is exact, the rest logarithmic up to `far`, the last takes all beyond
 * (Raffel et al. 2020, as in the authors' code; float logarithms). */
int64_t mn__t5_bucket(int64_t distance, int64_t buckets, int64_t far);

typedef enum mn__mask {
    MN__MASK_NONE,
    MN__MASK_CAUSAL,      /* key position <= query position */
    MN__MASK_STRICT,      /* key position <  query position */
    MN__MASK_BAND,        /* causal, and query position - key position < window */
    MN__MASK_BAND_STRICT, /* 1 <= query position - key position <= window */
    MN__MASK_SEGMENTED    /* causal, and equal segment ids */
} mn__mask;

typedef enum mn__position {
    MN__POSITION_NONE,
    MN__POSITION_ALIBI, /* - slope[h] * distance */
    MN__POSITION_T5,    /* table[mn__t5_bucket(distance), h] */
    MN__POSITION_XL,    /* Transformer-XL: (q + v) . r[clip(distance)], and (q + u) . k */
    MN__POSITION_SHAW   /* q . a_key[clip(distance)], and a_value[clip(distance)] on the output */
} mn__position;

/* What keys and values are kept as. Blocks of 8 bits (blocks.h) lie along a row's D elements,
 * the last of them filled up with zeros. */
typedef enum mn__kept {
    MN__KEPT_AS_COMPUTED, /* the dtype of the queries */
    MN__KEPT_F32,
    MN__KEPT_BF16,
    MN__KEPT_INT8 /* U8: mn__block_int8_bytes(D) of them stand for a row */
} mn__kept;

/* The type in which their rows lie. */
static inline mn__dtype mn__kept_dtype(mn__kept kept, mn__dtype computed)
{
    switch (kept) {
    case MN__KEPT_AS_COMPUTED:
        break;
    case MN__KEPT_F32:
        return MN__F32;
    case MN__KEPT_BF16:
        return MN__BF16;
    case MN__KEPT_INT8:
        return MN__U8;
    }
    return computed;
}

/* One list of keys. The query i of a row stands at position offset + i in the
 * coordinates in which key j stands at j; distance = offset + i - j. */
typedef struct mn__key_group {
    const void *keys, *values; /* [B, count, G, D] */
    mn__kept kept;             /* what these are; AS_COMPUTED where backward follows */
    int64_t count;             /* S */
    int64_t key_stride[3];     /* of b, s, g: in elements, of blocks in bytes */
    int64_t value_stride[3];
    const int64_t *first, *length; /* [B]: keys first <= j < length are present; NULL: 0, count */
    const uint8_t *keep;           /* [B, count], 0 hides a key; NULL: all */
    const int32_t *query_segment, *key_segment; /* [B, T], [B, count]; MASK_SEGMENTED */
    mn__mask mask;
    int64_t offset, window;
    mn__position position;
    const float *slopes;  /* ALIBI: [H] */
    const float *table;   /* T5: [buckets, H] */
    int64_t buckets, far; /* T5: and its max distance */
    const void *relative; /* XL: r, [limit + 1, H, D], the dtype of the queries */
    const float *u, *v;   /* XL: [H, D] or NULL (zero) */
    /* SHAW: [2 limit + 1, D] or NULL; row limit + clip(distance). */
    const float *shaw_keys, *shaw_values;
    int64_t limit;          /* distances are clipped to 0..limit (XL), +-limit (SHAW) */
    const float *bias;      /* [B, G, count] added to the scaled score, or NULL: log counts */
    int64_t bias_stride[2]; /* of b, g */
} mn__key_group;

enum { MN__GROUPS_MAX = 6 };

/* Dropout of weights, in units of keys that the fast kernels draw at once. */
enum { MN__DROPOUT_UNIT = 128 };

/* After the softmax, whose sum stays as it is, the weight of each query and key
 * is multiplied with a factor: 0 with probability `rate`, else 1 / (1 - rate)
 * (Dai et al. 2019, `dropatt` in the authors' code). A weight is drawn from 16
 * bits, so that the rate is one of 0, 1/65536, .., the nearest. */
typedef struct mn__weight_dropout {
    float rate; /* at most 65535/65536; 0: none, and the key is not read */
    mn__random_key key;
} mn__weight_dropout;

/* The factor of one weight. Every query has units of its own: query number n of
 * [B, H, T] those from n U on, U being those of all its groups, each of which
 * begins with a new unit. `key` counts from the beginning of `unit`. A unit is 16
 * blocks of random words, block c for the keys c, c + 16, .., c + 112: four in
 * the lower halves of its words, four in the upper ones. */
float mn__dropout_factor(const mn__weight_dropout *dropout, int64_t unit, int64_t key);
/* Of the 65536 values of 16 bits, those below are dropped; 1 / (1 - rate). */
int32_t mn__dropout_below(float rate);
float mn__dropout_scale(float rate);
/* The units of so many keys. */
int64_t mn__dropout_units(int64_t keys);

/* score = ((q . k + x) * scale + y) * scales[h] + key bias, over all groups: x
 * is the XL or Shaw term, y the ALiBi or T5 term (Memorizing Transformers,
 * section 3: the scale per head multiplies the sum of content and bias).
 * p = softmax over every visible key and, if given, the sink: a logit without
 * value. The output is the sum of p * factor * value, the factor dropout's; masses
 * are those of p. A query that sees nothing gets output 0, masses 0 and, without a
 * sink, lse -inf. Query heads h share the keys of head h * G / H. Every output
 * is set. Backward reads the `out` and `lse` that forward wrote. */
typedef struct mn__attention_call {
    int64_t B, T, H, G, D;
    mn__dtype dtype;         /* of queries and out, and of keys and values: F32 or BF16 */
    const void *queries;     /* [B, T, H, D] */
    int64_t query_stride[3]; /* of b, t, h */
    void *out;               /* [B, T, H, D] */
    int64_t out_stride[3];
    float *lse; /* [B, H, T]: log sum exp of the scores, sink included */
    float scale;
    const float *scales; /* [H] or NULL */
    const float *sink;   /* [H] or NULL */
    mn__weight_dropout dropout;
    const int64_t *queries_valid; /* [B]: queries beyond are skipped: output and masses 0,
                                     lse -inf; NULL: T */
    int groups;
    mn__key_group group[MN__GROUPS_MAX];
    float *group_mass;               /* [B, H, T, groups] or NULL */
    float *key_mass[MN__GROUPS_MAX]; /* [B, H, count], summed over queries, or NULL */
} mn__attention_call;

/* Gradients; NULL where not wanted. Those with the dtype of the queries are
 * added to when `accumulate` says so, else set; the float ones are added to. */
typedef struct mn__attention_gradients {
    const void *out; /* the output's gradient, in `out`'s layout */
    int64_t out_stride[3];
    void *queries;
    int64_t query_stride[3];
    bool queries_accumulate;
    struct mn__group_gradients {
        void *keys, *values; /* set together */
        int64_t key_stride[3], value_stride[3];
        bool accumulate;
        float *table;                   /* T5 */
        float *relative;                /* XL: [limit + 1, H, D] */
        float *u, *v;                   /* XL: [H, D] */
        float *shaw_keys, *shaw_values; /* SHAW */
        float *bias;                    /* [B, G, count] */
    } group[MN__GROUPS_MAX];
    float *scales, *sink; /* [H] */
} mn__attention_gradients;

/* Attention in which every query has keys of its own: [B, T, H, K, D],
 * contiguous, with score = q . k * scale * scales[h], and dropout as above, its K
 * keys being one group. index < 0 in `index` [B, T, H, K] (NULL: none) hides one. A query that sees
 * nothing gets output 0 and lse -inf. Backward reads the `out` and `lse` that forward wrote. */
typedef struct mn__gathered_call {
    int64_t B, T, H, K, D;
    mn__dtype dtype;
    const void *queries; /* [B, T, H, D], contiguous */
    const void *keys, *values;
    const int64_t *index;
    void *out;
    float *lse; /* [B, H, T] */
    float scale;
    const float *scales; /* [H] or NULL */
    mn__weight_dropout dropout;
} mn__gathered_call;

/* ---- Memory -------------------------------------------------------------------------- */

/* Of the keys in a memory's slots, those with the largest inner products with each
 * query (Wu et al. 2022, section 3.2). A query of row b sees the slots 0 <= m <
 * filled[b] of its row and head. Products that are NaN or -infinity are not found.
 *
 * Exact: the k largest, by value descending, ties by slot ascending; where fewer are
 * found, the rest has index -1 and value -infinity. In buckets (the paper's form on
 * TPUs): entry j is the largest of the slots j, j + k, j + 2 k, .., the first of those
 * that are equal; -1 and -infinity where nothing is found. */
typedef struct mn__nearest_call {
    int64_t B, T, H, M, D, k;         /* M < 2^31 */
    mn__dtype query_dtype, key_dtype; /* F32 or BF16; values are sums in F32 */
    const void *queries;              /* [B, T, H, D] */
    int64_t query_stride[3];          /* of b, t, h */
    const void *keys;                 /* [B, H, M, D]: scanned fastest where it is contiguous */
    int64_t key_stride[3];            /* of b, h, m */
    const int64_t *filled;            /* [B], at most M; NULL: M */
    bool buckets;
    float *values;  /* [B, T, H, k] */
    int32_t *index; /* the same */
} mn__nearest_call;

/* ---- Cross-entropy ----------------------------------------------------------------- */

/* For each row r: loss[r] = -log softmax(logits[r])[target[r]], penalty[r] =
 * z * (log Z)^2, and, where gradient is true, logits[r] becomes
 * weight[r] * d (loss[r] + penalty[r]) / d logits. Rows of weight 0 are skipped:
 * loss 0, penalty 0, log Z 0, gradient 0. */
typedef struct mn__cross_entropy {
    int64_t rows, vocabulary, stride;
    float *logits;
    const int32_t *targets; /* [rows] */
    const float *weights;   /* [rows] */
    float z;
    bool gradient;
    float *losses;    /* [rows], unweighted nats */
    float *penalties; /* [rows], unweighted; NULL: not asked for */
    float *log_sums;  /* [rows], log Z; NULL: not asked for */
} mn__cross_entropy;

/* ---- Optimisers ---------------------------------------------------------------------- */

typedef struct mn__adam {
    int64_t n;
    float *value, *first, *second;
    const float *gradient;
    float gradient_scale; /* clipping */
    float rate, beta1, beta2, epsilon;
    float correction1, correction2; /* 1 - beta^t */
    float decay;                    /* decoupled (AdamW); 0 for Adam */
} mn__adam;

/* ---- The table ------------------------------------------------------------------------- */

struct mn__kernels {
    mn__level level;

    void (*matmul)(mn__queue *, const mn__matmul *);
    /* W [k, n] with the strides of `b` (any float dtype); bytes of the packed form;
     * pack again after an update. F32 and BF16 are for products in that type
     * (mn__form_is_floats), the others for any. */
    int64_t (*pack_bytes)(mn__queue *, int64_t k, int64_t n, mn__form form);
    mn__packed *(*pack_new)(mn__queue *, int64_t k, int64_t n, mn__form form);
    void (*pack)(mn__queue *, mn__packed *, mn__operand b);
    /* Of W's columns first to first + count alone, b [k, count], so that a large W need not
     * lie in one piece. first is a multiple of MN__PACK_COLUMNS, and so is count, but for
     * the last of W. */
    void (*pack_columns)(mn__queue *, mn__packed *, int64_t first, int64_t count, mn__operand b);
    /* The same from the form's own blocks, [n, k / 32]; k is a multiple of 32. */
    void (*pack_blocks)(mn__queue *, mn__packed *, const void *blocks); /* INT8, INT4 */
    void (*pack_free)(mn__packed *);

    /* out = in, with conversion (U8: from U8 alone); sizes are out's. */
    void (*convert)(mn__queue *, mn__matrix out, mn__matrix in);
    void (*fill)(mn__queue *, mn__matrix out, float value); /* U8: zeros, whatever the value */
    /* Rows of any float dtype into blocks of 8 bits: out U8, its columns
     * mn__block_int8_bytes of in's. */
    void (*quantise)(mn__queue *, mn__matrix out, mn__matrix in);
    /* out = alpha * x + beta * out (beta 0: out is not read). */
    void (*axpby)(mn__queue *, mn__matrix out, float alpha, mn__matrix x, float beta);
    void (*binary)(mn__queue *, mn__binary, mn__matrix out, mn__matrix a, mn__matrix b);
    /* out[r, :] = scale[r] * in[r, :] (+ out). */
    void (*scale_rows)(mn__queue *, mn__matrix out, const float *scale, mn__matrix in,
                       bool accumulate);
    /* out[c] += sum_r in[r, c]; out[r] = sum_c a[r, c] * b[r, c]. */
    void (*sum_rows)(mn__queue *, float *out, mn__matrix in);
    void (*dot_rows)(mn__queue *, float *out, mn__matrix a, mn__matrix b);

    /* out = f(in); dx (+)= f'(in) dy. */
    void (*activate)(mn__queue *, mn__activation, mn__matrix out, mn__matrix in);
    void (*activate_backward)(mn__queue *, mn__activation, mn__matrix dx, bool accumulate,
                              mn__matrix in, mn__matrix dy);
    /* out = f(gate) * up; dgate and dup are set. */
    void (*gate)(mn__queue *, mn__activation, mn__matrix out, mn__matrix gate, mn__matrix up);
    void (*gate_backward)(mn__queue *, mn__activation, mn__matrix dgate, mn__matrix dup,
                          mn__matrix gate, mn__matrix up, mn__matrix dy);

    /* out = (in - mean) * rstd * gain + bias. rms: mean = 0. mean and rstd
     * [rows] are kept for backward (NULL: not kept; rms has no mean). gain and
     * bias [columns] may be NULL. In backward dgain, dbias are added to (NULL: not
     * wanted; so is dx.data NULL). */
    void (*norm)(mn__queue *, bool rms, float epsilon, mn__matrix out, mn__matrix in,
                 const float *gain, const float *bias, float *mean, float *rstd);
    void (*norm_backward)(mn__queue *, bool rms, mn__matrix dx, bool accumulate, float *dgain,
                          float *dbias, mn__matrix dy, mn__matrix in, const float *gain,
                          const float *mean, const float *rstd);

    /* Rotates the first 2 * pairs elements of each of `heads` heads of width
     * columns / heads by angle = positions[row] * frequencies[pair]
     * (times `sign`, -1 for backward). interleaved: pairs are (2i, 2i + 1),
     * else (i, i + pairs). magnitude scales the rotated part (yarn). */
    void (*rope)(mn__queue *, mn__matrix out, mn__matrix in, int64_t heads, int64_t pairs,
                 const int64_t *positions, const float *frequencies, bool interleaved,
                 float magnitude, float sign);

    /* out = in * keep / (1 - p), keep drawn for element row * columns + column
     * of `key` (24 bits; MN__random_uniform >= p). */
    void (*dropout)(mn__queue *, mn__matrix out, mn__matrix in, float p, mn__random_key key);

    /* out[r] = scale * table[ids[r]] (ids < 0: zeros);
     * table[ids[r]] += scale * in[r] in the order of r (ids < 0: not); that table is F32. */
    void (*gather)(mn__queue *, mn__matrix out, mn__matrix table, const int32_t *ids, float scale);
    void (*scatter_add)(mn__queue *, mn__matrix table, mn__matrix in, const int32_t *ids,
                        float scale);

    /* Rows of softmax over the first length[r] columns (NULL: all), the rest 0;
     * a row whose values there are all -infinity is 0.
     * dx (+)= p (dy - sum p dy). */
    void (*softmax)(mn__queue *, mn__matrix out, mn__matrix in, const int64_t *length);
    void (*softmax_backward)(mn__queue *, mn__matrix dx, bool accumulate, mn__matrix p,
                             mn__matrix dy);
    /* The k <= columns largest of each row, by value descending, ties by index
     * ascending; NaN counts as larger than every number. values, indices [rows, k]. */
    void (*top_k)(mn__queue *, int64_t k, float *values, int32_t *indices, mn__matrix in);

    void (*cross_entropy)(mn__queue *, const mn__cross_entropy *);

    void (*attention)(mn__queue *, const mn__attention_call *);
    void (*attention_backward)(mn__queue *, const mn__attention_call *,
                               const mn__attention_gradients *);
    void (*gathered)(mn__queue *, const mn__gathered_call *);
    /* dq is set or added to; dkeys, dvalues are set, or NULL. */
    void (*gathered_backward)(mn__queue *, const mn__gathered_call *, const void *dout, void *dq,
                              bool accumulate, void *dkeys, void *dvalues, float *dscales);

    void (*nearest)(mn__queue *, const mn__nearest_call *);

    /* Sum of squares in a fixed order (double), NaN or infinity kept. */
    double (*sum_squares)(mn__queue *, const float *x, int64_t n);
    void (*adam)(mn__queue *, const mn__adam *);
};

#endif
