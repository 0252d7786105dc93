/* Attention as an operation: where its inputs may lie, how its gradients meet,
 * several groups, and keys of each query's own. Every mask and position term is
 * compared with PyTorch in tests/golden. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/op_check.h"

/* ---- The definition -------------------------------------------------------------------- */

typedef struct group {
    const double *keys, *values; /* [B, S, G, D] with a row stride */
    int64_t S, stride;           /* elements from key to key */
    bool causal;
    int64_t offset, window; /* window 0: none */
    const int64_t *length;
    const double *bias;             /* [B, G, S] */
    const double *relative, *u, *v; /* [limit + 1, H, D], [H, D] */
    int64_t limit;
} group;

typedef struct shape {
    int64_t B, T, H, G, D;
    double rate; /* of dropout */
} shape;

/* Dropout's factor, from the first draw of op_check's tape; see kernel.h. */
static double factor(double rate, int64_t unit, int64_t j)
{
    uint32_t words[4];
    int64_t half = j % 128 / 16;
    if (rate == 0)
        return 1;
    mn__random_block((mn__random_key){.seed = 9}, (uint64_t)((unit + j / 128) * 16 + j % 16),
                     words);
    double bits = half < 4 ? words[half] & 0xFFFF : words[half - 4] >> 16;
    double below = round(65536 * rate);
    return bits < below ? 0 : 65536 / (65536 - below);
}

static int64_t units(int64_t keys)
{
    return (keys + 127) / 128;
}

static bool visible(const group *g, int64_t b, int64_t t, int64_t j)
{
    int64_t distance = g->offset + t - j;
    if ((g->length && j >= g->length[b]) || (g->causal && distance < 0))
        return false;
    return !g->window || distance < g->window;
}

static double score(const shape *s, const group *g, const double *q, int64_t b, int64_t t,
                    int64_t h, int64_t j)
{
    int64_t kv = h * s->G / s->H, distance = g->offset + t - j;
    const double *k = g->keys + (b * g->S + j) * g->stride + kv * s->D;
    int64_t row = distance > g->limit ? g->limit : distance < 0 ? 0 : distance;
    double sum = 0;
    for (int64_t d = 0; d < s->D; d++) {
        sum += (q[d] + (g->u ? g->u[h * s->D + d] : 0)) * k[d];
        if (g->relative)
            sum += (q[d] + g->v[h * s->D + d]) * g->relative[(row * s->H + h) * s->D + d];
    }
    return sum / sqrt((double)s->D);
}

/* out [D] for one query and head. */
static void attend(const shape *s, const group *groups, int count, const double *q, int64_t b,
                   int64_t t, int64_t h, const double *scales, const double *sink, double *out)
{
    double total = sink ? exp(sink[h]) : 0;
    int64_t of_query = 0;
    for (int n = 0; n < count; n++)
        of_query += units(groups[n].S);
    int64_t unit = ((b * s->H + h) * s->T + t) * of_query;
    memset(out, 0, (size_t)s->D * sizeof *out);
    for (int n = 0; n < count; unit += units(groups[n].S), n++) {
        const group *g = &groups[n];
        int64_t kv = h * s->G / s->H;
        for (int64_t j = 0; j < g->S; j++) {
            if (!visible(g, b, t, j))
                continue;
            double x = score(s, g, q, b, t, h, j) * (scales ? scales[h] : 1);
            double p = exp(x + (g->bias ? g->bias[(b * s->G + kv) * g->S + j] : 0));
            total += p;
            p *= factor(s->rate, unit, j);
            for (int64_t d = 0; d < s->D; d++)
                out[d] += p * g->values[(b * g->S + j) * g->stride + kv * s->D + d];
        }
    }
    for (int64_t d = 0; d < s->D && total > 0; d++)
        out[d] /= total;
}

static float scale_of(const shape *s)
{
    return 1 / sqrtf((float)s->D);
}

/* ---- A fused projection, cut by views ------------------------------------------------------ */

static mn__var *build_fused(mn__tape *tape, mn__var *const *in, const void *context)
{
    const shape *s = context;
    int64_t wide = s->H * s->D, narrow = s->G * s->D;
    mn__var *part[3];
    if (!mn__op_split(tape, in[0], 2, (int64_t[]){wide, narrow, narrow}, 3, part))
        return NULL;
    int64_t q[4] = {s->B, s->T, s->H, s->D}, k[4] = {s->B, s->T, s->G, s->D};
    mn__attention_args args = {.queries = mn__op_reshape(tape, part[0], 4, q),
                               .scale = scale_of(s),
                               .dropout = (float)s->rate,
                               .groups = 1};
    args.group[0] = (mn__keys){.keys = mn__op_reshape(tape, part[1], 4, k),
                               .values = mn__op_reshape(tape, part[2], 4, k),
                               .mask = MN__MASK_CAUSAL};
    return mn__op_attention(tape, &args);
}

static void define_fused(const double *const *in, double *out, const void *context)
{
    const shape *s = context;
    int64_t wide = s->H * s->D, narrow = s->G * s->D, row = wide + 2 * narrow;
    group g = {.keys = in[0] + wide,
               .values = in[0] + wide + narrow,
               .S = s->T,
               .stride = row,
               .causal = true};
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t t = 0; t < s->T; t++)
            for (int64_t h = 0; h < s->H; h++, out += s->D)
                attend(s, &g, 1, in[0] + (b * s->T + t) * row + h * s->D, b, t, h, NULL, NULL, out);
}

static void check_fused(shape s, double spread)
{
    op_check(&(op_case){.name = "attention over a fused projection",
                        .inputs = 1,
                        .input = {{OP_COMPUTE, 3, {s.B, s.T, (s.H + 2 * s.G) * s.D}, spread}},
                        .build = build_fused,
                        .define = define_fused,
                        .context = &s,
                        .outputs = s.B * s.T * s.H * s.D,
                        .terms = (double)(s.T * s.H / s.G + s.D) * spread * spread,
                        .roundings = 8,
                        .draws = s.rate > 0});
}

static void attention_over_a_fused_projection(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 63, 64, 65, 127};
    check_fused((shape){2, 3, 2, 2, 4, 0}, 1);
    check_fused((shape){2, 5, 4, 2, 3, 0}, 1);
    for (int i = 0; i < 5; i++)
        check_fused((shape){1, lengths[i], 2, 1, 16, 0}, 1);
    check_fused((shape){1, 33, 1, 1, 65, 0}, 1);
    check_fused((shape){1, 17, 2, 2, 8, 0}, 4); /* sharp */
}

static void attention_with_dropout(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 63, 64, 65, 131};
    check_fused((shape){2, 3, 2, 2, 4, 0.4}, 1);
    check_fused((shape){2, 5, 4, 2, 3, 0.1}, 1);
    for (int i = 0; i < 5; i++)
        check_fused((shape){2, lengths[i], 2, 1, 16, 0.25}, 1);
}

/* ---- Memory and window, in two groups ----------------------------------------------------------
 */

enum { M = 4, WINDOW = 3 };
static const shape grouped = {2, 6, 4, 2, 5, 0}, grouped_drops = {2, 6, 4, 2, 5, 0.3};
static const int64_t memory_length[] = {0, 3}; /* row 0 has none */

static mn__var *build_groups(mn__tape *tape, mn__var *const *in, const void *context)
{
    const shape *s = context;
    mn__attention_args args = {.queries = in[0],
                               .scale = scale_of(s),
                               .scales = in[6],
                               .sink = in[7],
                               .dropout = (float)s->rate,
                               .groups = 2};
    args.group[0] =
        (mn__keys){.keys = in[1], .values = in[2], .bias = in[3], .length = memory_length};
    args.group[1] =
        (mn__keys){.keys = in[4], .values = in[5], .mask = MN__MASK_BAND, .window = WINDOW};
    return mn__op_attention(tape, &args);
}

static void define_groups(const double *const *in, double *out, const void *context)
{
    const shape *s = context;
    group groups[2] = {{.keys = in[1],
                        .values = in[2],
                        .S = M,
                        .stride = s->G * s->D,
                        .length = memory_length,
                        .bias = in[3]},
                       {.keys = in[4],
                        .values = in[5],
                        .S = s->T,
                        .stride = s->G * s->D,
                        .causal = true,
                        .window = WINDOW}};
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t t = 0; t < s->T; t++)
            for (int64_t h = 0; h < s->H; h++, out += s->D)
                attend(s, groups, 2, in[0] + ((b * s->T + t) * s->H + h) * s->D, b, t, h, in[6],
                       in[7], out);
}

static void check_groups(const shape *s)
{
    op_check(&(op_case){.name = "attention over memory and window",
                        .inputs = 8,
                        .input = {{OP_COMPUTE, 4, {s->B, s->T, s->H, s->D}, 0},
                                  {OP_COMPUTE, 4, {s->B, M, s->G, s->D}, 0},
                                  {OP_FLOAT, 4, {s->B, M, s->G, s->D}, 0},
                                  {OP_FLOAT, 3, {s->B, s->G, M}, 0},
                                  {OP_COMPUTE, 4, {s->B, s->T, s->G, s->D}, 0},
                                  {OP_COMPUTE, 4, {s->B, s->T, s->G, s->D}, 0},
                                  {OP_PARAM, 1, {s->H}, 0},
                                  {OP_PARAM, 1, {s->H}, 0}},
                        .build = build_groups,
                        .define = define_groups,
                        .context = s,
                        .outputs = s->B * s->T * s->H * s->D,
                        .terms = 32,
                        .roundings = 8,
                        .draws = s->rate > 0});
}

static void attention_over_two_groups(void **state)
{
    (void)state;
    check_groups(&grouped);
    check_groups(&grouped_drops);
}

/* ---- Transformer-XL ------------------------------------------------------ */

static const shape relative = {2, 5, 2, 2, 4, 0}, relative_drops = {2, 5, 2, 2, 4, 0.2};
enum { PAST = 3, LIMIT = 5 }; /* the largest distance is 7 */

static mn__var *build_xl(mn__tape *tape, mn__var *const *in, const void *context)
{
    const shape *s = context;
    mn__attention_args args = {
        .queries = in[0], .scale = scale_of(s), .dropout = (float)s->rate, .groups = 1};
    args.group[0] = (mn__keys){.keys = in[1],
                               .values = in[2],
                               .mask = MN__MASK_CAUSAL,
                               .offset = PAST,
                               .position = MN__POSITION_XL,
                               .relative = in[3],
                               .u = in[4],
                               .v = in[5],
                               .limit = LIMIT};
    return mn__op_attention(tape, &args);
}

static void define_xl(const double *const *in, double *out, const void *context)
{
    const shape *s = context;
    group g = {.keys = in[1],
               .values = in[2],
               .S = PAST + s->T,
               .stride = s->G * s->D,
               .causal = true,
               .offset = PAST,
               .relative = in[3],
               .u = in[4],
               .v = in[5],
               .limit = LIMIT};
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t t = 0; t < s->T; t++)
            for (int64_t h = 0; h < s->H; h++, out += s->D)
                attend(s, &g, 1, in[0] + ((b * s->T + t) * s->H + h) * s->D, b, t, h, NULL, NULL,
                       out);
}

static void check_xl(const shape *s)
{
    op_check(&(op_case){.name = "Transformer-XL's attention",
                        .inputs = 6,
                        .input = {{OP_COMPUTE, 4, {s->B, s->T, s->H, s->D}, 0},
                                  {OP_COMPUTE, 4, {s->B, PAST + s->T, s->G, s->D}, 0},
                                  {OP_COMPUTE, 4, {s->B, PAST + s->T, s->G, s->D}, 0},
                                  {OP_COMPUTE, 3, {LIMIT + 1, s->H, s->D}, 0},
                                  {OP_PARAM, 2, {s->H, s->D}, 0},
                                  {OP_PARAM, 2, {s->H, s->D}, 0}},
                        .build = build_xl,
                        .define = define_xl,
                        .context = s,
                        .outputs = s->B * s->T * s->H * s->D,
                        .terms = 64,
                        .roundings = 8,
                        .draws = s->rate > 0});
}

static void attention_of_transformer_xl(void **state)
{
    (void)state;
    check_xl(&relative);
    check_xl(&relative_drops);
}

/* ---- Vars that share memory ---------------------------------------------- */

/* x [B, T + 2, H, D]: the queries are its end, the first group's keys and
 * values both its beginning, the second group's keys all of it. */
static const shape shared = {2, 4, 2, 2, 3, 0};

static mn__var *build_shared(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    mn__var *end = mn__op_slice(tape, in[0], 1, 2, shared.T);
    mn__var *begin = mn__op_slice(tape, in[0], 1, 0, shared.T);
    mn__attention_args args = {.queries = end, .scale = scale_of(&shared), .groups = 2};
    args.group[0] = (mn__keys){.keys = begin, .values = begin, .mask = MN__MASK_CAUSAL};
    args.group[1] = (mn__keys){.keys = in[0], .values = in[0]};
    return mn__op_attention(tape, &args);
}

static void define_shared(const double *const *in, double *out, const void *context)
{
    (void)context;
    const shape *s = &shared;
    int64_t wide = s->H * s->D, all = s->T + 2;
    for (int64_t b = 0; b < s->B; b++) {
        const double *x = in[0] + b * all * wide;
        group groups[2] = {{.keys = x, .values = x, .S = s->T, .stride = wide, .causal = true},
                           {.keys = x, .values = x, .S = all, .stride = wide}};
        for (int64_t t = 0; t < s->T; t++)
            for (int64_t h = 0; h < s->H; h++, out += s->D)
                attend(s, groups, 2, x + (t + 2) * wide + h * s->D, 0, t, h, NULL, NULL, out);
    }
}

static void attention_of_vars_that_share_memory(void **state)
{
    (void)state;
    const shape *s = &shared;
    op_check(&(op_case){.name = "attention of one var with itself",
                        .inputs = 1,
                        .input = {{OP_COMPUTE, 4, {s->B, s->T + 2, s->H, s->D}, 0}},
                        .build = build_shared,
                        .define = define_shared,
                        .outputs = s->B * s->T * s->H * s->D,
                        .terms = 64,
                        .roundings = 10});
}

/* ---- Gathered keys ------------------------------------------------------- */

enum { GB = 2, GT = 3, GH = 2, GK = 5, GD = 4 };
static int64_t gathered_index[GB * GT * GH * GK]; /* one query sees nothing */

static mn__var *build_gathered(mn__tape *tape, mn__var *const *in, const void *context)
{
    const double *rate = context;
    return mn__op_gathered_attention(tape, in[0], in[1], in[2], gathered_index, 0.5F, in[3],
                                     (float)*rate);
}

static void define_gathered(const double *const *in, double *out, const void *context)
{
    const double *rate = context;
    for (int n = 0; n < GB * GT * GH; n++, out += GD) {
        double total = 0;
        memset(out, 0, GD * sizeof *out);
        for (int k = 0; k < GK; k++) {
            double x = 0;
            for (int d = 0; d < GD; d++)
                x += in[0][n * GD + d] * in[1][(n * GK + k) * GD + d];
            double p = gathered_index[n * GK + k] < 0 ? 0 : exp(x * 0.5 * in[3][n % GH]);
            total += p;
            p *= factor(*rate, (n / GT / GH * GH + n % GH) * GT + n / GH % GT, k);
            for (int d = 0; d < GD; d++)
                out[d] += p * in[2][(n * GK + k) * GD + d];
        }
        for (int d = 0; d < GD && total > 0; d++)
            out[d] /= total;
    }
}

static void attention_of_gathered_keys(void **state)
{
    (void)state;
    for (int i = 0; i < GB * GT * GH * GK; i++)
        gathered_index[i] = i % 4 == 1 || i / GK == 7 ? -1 : i;
    static const double rates[] = {0, 0.35};
    for (int i = 0; i < 2; i++)
        op_check(&(op_case){.name = "gathered attention",
                            .inputs = 4,
                            .input = {{OP_COMPUTE, 4, {GB, GT, GH, GD}, 0},
                                      {OP_COMPUTE, 4, {GB * GT, GH, GK, GD}, 0},
                                      {OP_FLOAT, 4, {GB * GT, GH, GK, GD}, 0},
                                      {OP_PARAM, 1, {GH}, 0}},
                            .build = build_gathered,
                            .define = define_gathered,
                            .context = &rates[i],
                            .outputs = GB * GT * GH * GD,
                            .terms = 32,
                            .roundings = 8,
                            .draws = rates[i] > 0});
}

/* ---- When weights are dropped -------------------------------------------- */

typedef struct drawing {
    mn__device device;
    mn__params params;
    mn__tape tape;
    float x[1 * 9 * 2 * 4];
} drawing;

static mn__var *attend_itself(drawing *d, float dropout)
{
    mn__var *x = mn__tape_input(&d->tape, mn__tensor_of(d->x, MN__F32, 4, (int64_t[]){1, 9, 2, 4}));
    mn__attention_args args = {.queries = x, .scale = 1, .dropout = dropout, .groups = 1};
    args.group[0] = (mn__keys){.keys = x, .values = x, .mask = MN__MASK_CAUSAL};
    mn__var *out = mn__op_attention(&d->tape, &args);
    assert_non_null(out);
    return out;
}

static bool equal(const mn__var *a, const mn__var *b)
{
    return !memcmp(a->value.data, b->value.data, sizeof((drawing *)NULL)->x);
}

/* Only training drops, each call anew, and a call that drops nothing draws nothing: what
 * comes after it stays as it was. */
static void weights_are_dropped_in_training_alone(void **state)
{
    (void)state;
    drawing d;
    op_device_open(&d.device, MN__LEVEL_PLAIN);
    mn__params_init(&d.params, &d.device, 1);
    mn__tape_init(&d.tape, &d.params, MN__F32);
    d.tape.random = (mn__random_key){.seed = 9, .step = 2};
    mn__random_fill_normal((mn__random_key){.seed = 1}, 1, d.x, sizeof d.x / sizeof *d.x);
    d.tape.training = true;
    mn__var *all = attend_itself(&d, 0);
    assert_int_equal(d.tape.random.operation, 0);
    mn__var *first = attend_itself(&d, 0.5F), *second = attend_itself(&d, 0.5F);
    assert_int_equal(d.tape.random.operation, 2);
    assert_false(equal(first, all) || equal(second, all) || equal(first, second));
    d.tape.random.operation = 0;
    assert_true(equal(attend_itself(&d, 0.5F), first));
    d.tape.training = false;
    assert_true(equal(attend_itself(&d, 0.5F), all));
    assert_int_equal(d.tape.random.operation, 1);
    mn__tape_free(&d.tape);
    mn__params_free(&d.params);
    mn__device_close(&d.device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_over_a_fused_projection),
        cmocka_unit_test(attention_with_dropout),
        cmocka_unit_test(attention_over_two_groups),
        cmocka_unit_test(attention_of_transformer_xl),
        cmocka_unit_test(attention_of_vars_that_share_memory),
        cmocka_unit_test(attention_of_gathered_keys),
        cmocka_unit_test(weights_are_dropped_in_training_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
