/* Naive twins: each attention type against a second program that is plain, slow
 * and obviously right. It holds the whole document at once, works in double
 * precision, and knows nothing of states, segments in flight or tapes: for token
 * i it lists the keys j that the type's definition lets it see. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/attention.h"
#include "kernel/blocks.h"
#include "support/model.h"

enum { C = 12, H = 4, D = 3, TOKENS = 41, SEGMENT = 6, BEFORE = 24 };

/* What a type says of itself, in the twin's words. */
typedef struct definition {
    const char *type, *options;
    int64_t G;
    bool pre_norm;
    int64_t window; /* a token sees itself and window - 1 before it; 0: all */
    bool strict;    /* ... or `window` before it, not itself */
    bool alibi, xl;
    bool zeros;     /* what is not yet there is zeros: inputs (xl), or keys and values */
    bool normalise; /* queries and keys of length 1, and a scale for each head */
    bool head_norm; /* an RMS norm over each of them */
    int64_t memory, grid, clamp; /* xl: what stands before the segment of `grid` */
    int64_t buckets, far;        /* T5's bias; 0: none */
    const char *first_options;   /* of another layer of the type, made before; NULL: none */
    double dropout;              /* of weights; the type is trained then */
    mn__kept kept;               /* keys and values are rounded to it */
} definition;

static const definition twins[] = {
    {.type = "full", .options = "alibi: true", .G = 4, .pre_norm = true, .alibi = true},
    {.type = "full", .options = "alibi: false", .G = 2, .pre_norm = true},
    {.type = "full",
     .options = "alibi: true",
     .G = 2,
     .pre_norm = true,
     .alibi = true,
     .head_norm = true},
    {.type = "window", .options = "window: 7", .G = 1, .pre_norm = true, .window = 7},
    {.type = "window", .options = "window: 4", .G = 2, .window = 4, .head_norm = true},
    {.type = "window",
     .options = "window: 5, strict: true, t5: true, buckets: 8, far: 16",
     .G = 4,
     .window = 5,
     .strict = true,
     .buckets = 8,
     .far = 16},
    {.type = "window",
     .options = "window: 30, t5: true, buckets: 8, far: 16",
     .G = 4,
     .window = 30,
     .buckets = 8,
     .far = 16,
     .pre_norm = true},
    {.type = "window",
     .options = "window: 5, strict: true, t5: true, buckets: 8, far: 16, normalise: true",
     .G = 4,
     .window = 5,
     .strict = true,
     .buckets = 8,
     .far = 16,
     .normalise = true,
     .pre_norm = true},
    {.type = "window",
     .options = "window: 9, strict: true, t5: true, buckets: 8, far: 16, normalise: true, "
                "zero_memory: true",
     .G = 2,
     .window = 9,
     .strict = true,
     .buckets = 8,
     .far = 16,
     .normalise = true,
     .zeros = true},
    {.type = "window",
     .options = "window: 8, zero_memory: true",
     .G = 4,
     .window = 8,
     .zeros = true,
     .pre_norm = true},
    {.type = "window",
     .options = "window: 6, normalise: true, dropout: 0.25",
     .G = 4,
     .window = 6,
     .normalise = true,
     .dropout = 0.25},
    /* Without states; with them it has a twin in naive_block_recurrent.c. */
    {.type = "block_recurrent",
     .options = "window: 7, buckets: 8, far: 16, recurrent: false",
     .G = 4,
     .window = 7,
     .strict = true,
     .buckets = 8,
     .far = 16,
     .normalise = true,
     .zeros = true,
     .pre_norm = true},
    {.type = "xl", .options = "memory: 9", .G = 4, .xl = true, .memory = 9, .grid = SEGMENT},
    {.type = "xl",
     .options = "memory: 9, clamp: 4, zero_memory: true",
     .G = 4,
     .xl = true,
     .pre_norm = true,
     .memory = 9,
     .grid = SEGMENT,
     .clamp = 4,
     .zeros = true},
    {.type = "xl",
     .options = "memory: 8, same_length: true",
     .G = 4,
     .xl = true,
     .memory = 8,
     .grid = 1,
     .window = 8},
    {.type = "xl",
     .options = "memory: 20, untie: true",
     .first_options = "memory: 2, clamp: 3",
     .G = 4,
     .xl = true,
     .memory = 20,
     .grid = SEGMENT},
    {.type = "full", .options = "alibi: true, dropout: 0.3", .G = 4, .alibi = true, .dropout = 0.3},
    {.type = "full", .options = "dropout: 0.5", .G = 2, .pre_norm = true, .dropout = 0.5},
    {.type = "window", .options = "window: 7, dropout: 0.25", .G = 1, .window = 7, .dropout = 0.25},
    {.type = "xl",
     .options = "memory: 9, dropout: 0.2",
     .G = 4,
     .xl = true,
     .pre_norm = true,
     .memory = 9,
     .grid = SEGMENT,
     .dropout = 0.2},
    {.type = "full", .options = "", .G = 2, .pre_norm = true, .kept = MN__KEPT_F32},
    {.type = "full", .options = "", .G = 2, .pre_norm = true, .kept = MN__KEPT_BF16},
    {.type = "full", .options = "", .G = 2, .pre_norm = true, .kept = MN__KEPT_INT8},
    {.type = "full",
     .options = "alibi: true",
     .G = 4,
     .alibi = true,
     .head_norm = true,
     .kept = MN__KEPT_INT8},
    {.type = "window", .options = "window: 7", .G = 1, .window = 7, .kept = MN__KEPT_BF16},
    {.type = "window", .options = "window: 7", .G = 1, .window = 7, .kept = MN__KEPT_INT8},
    {.type = "window",
     .options = "window: 9, strict: true, t5: true, buckets: 8, far: 16, normalise: true, "
                "zero_memory: true",
     .G = 2,
     .window = 9,
     .strict = true,
     .buckets = 8,
     .far = 16,
     .normalise = true,
     .zeros = true,
     .kept = MN__KEPT_INT8},
};

/* ---- The twin -------------------------------------------------------------------------- */

typedef double vector[C];

static void project(const mn__linear *linear, int64_t first_row, int64_t rows, const double *x,
                    double *out)
{
    const float *W = linear->weight->value.data;
    for (int64_t r = 0; r < rows; r++) {
        out[r] =
            linear->bias ? (double)((const float *)linear->bias->value.data)[first_row + r] : 0;
        for (int64_t c = 0; c < C; c++)
            out[r] += (double)W[(first_row + r) * C + c] * x[c];
    }
}

static void normalise(const mn__norm *norm, const double *x, double *out)
{
    double mean = 0, squares = 0;
    for (int c = 0; c < C; c++)
        mean += x[c] / C;
    for (int c = 0; c < C; c++)
        squares += (x[c] - mean) * (x[c] - mean) / C;
    for (int c = 0; c < C; c++)
        out[c] = (x[c] - mean) / sqrt(squares + (double)norm->epsilon) *
                     (double)((const float *)norm->gain->value.data)[c] +
                 (double)((const float *)norm->bias->value.data)[c];
}

static bool sees(const definition *twin, int64_t i, int64_t j)
{
    if (j > i || (twin->strict && j == i))
        return false;
    if (twin->xl && !twin->window && j < i / twin->grid * twin->grid - twin->memory)
        return false;
    return !twin->window || i - j < twin->window + twin->strict;
}

/* Press et al. 2022, for a power of two. */
static double slope(int64_t head)
{
    return pow(2, -8.0 * (double)(head + 1) / H);
}

/* Raffel et al. 2020, causal. */
static int64_t bucket(const definition *twin, int64_t distance)
{
    int64_t exact = twin->buckets / 2;
    if (distance < exact)
        return distance;
    double share = log((double)distance / (double)exact) / log((double)twin->far / (double)exact);
    int64_t b = exact + (int64_t)(share * (double)(twin->buckets - exact));
    return b < twin->buckets ? b : twin->buckets - 1;
}

static const mn__param *find(const mn__params *params, const char *name)
{
    const mn__param *param = mn__params_find(params, name);
    assert_non_null(param);
    return param;
}

/* r_d of one head: W_r R_d. */
static void relative_key(const mn__params *params, int64_t distance, int64_t head, double *r)
{
    const float *W = find(params, "a.relative.weight")->value.data;
    for (int64_t n = 0; n < D; n++) {
        r[n] = 0;
        for (int64_t c = 0; c < C; c++) {
            double angle = (double)distance * pow(10000, -2.0 * (double)(c % (C / 2)) / C);
            r[n] += (double)W[(head * D + n) * C + c] * (c < C / 2 ? sin(angle) : cos(angle));
        }
    }
}

static double score(const definition *twin, const mn__params *params, int64_t head, const double *q,
                    const double *k, int64_t distance)
{
    double sum = 0, r[D] = {0}, scale = 1 / sqrt((double)D);
    const float *u = NULL, *v = NULL;
    if (twin->xl) {
        u = find(params, "a.content_bias")->value.data;
        v = find(params, "a.position_bias")->value.data;
        int64_t told = twin->clamp && distance > twin->clamp ? twin->clamp : distance;
        relative_key(params, told, head, r);
    }
    for (int64_t n = 0; n < D; n++) {
        sum += (q[n] + (u ? (double)u[head * D + n] : 0)) * k[n];
        sum += (q[n] + (v ? (double)v[head * D + n] : 0)) * r[n];
    }
    double bias = twin->alibi ? -slope(head) * (double)distance : 0;
    if (twin->buckets) {
        const float *table = find(params, "a.distance")->value.data;
        bias = (double)table[bucket(twin, distance) * H + head];
    }
    if (twin->normalise)
        return (sum + bias) *
               fabs((double)((const float *)find(params, "a.scale")->value.data)[head]);
    return sum * scale + bias;
}

/* Dropout's factor for tokens i and j: where the weight stands among those of its call,
 * one for each segment, says what is drawn; see kernel.h. Keys before the segment are a
 * group of their own (full), or stand before its own in one. None are more than a unit. */
static double factor(const definition *twin, int64_t i, int64_t j, int64_t head)
{
    if (twin->dropout == 0)
        return 1;
    int64_t start = i / SEGMENT * SEGMENT, before = start;
    int64_t T = TOKENS - start < SEGMENT ? TOKENS - start : SEGMENT;
    int64_t most = twin->xl ? twin->memory : twin->window - 1;
    if ((twin->xl || twin->window) && before > most)
        before = most;
    bool own_group = !twin->xl && !twin->window && before > 0;
    int64_t unit = (head * T + i - start) * (own_group ? 2 : 1) + (own_group && j >= start);
    int64_t key = j - start + (own_group && j >= start ? 0 : before), half = key / 16;
    uint32_t words[4];
    mn__random_block((mn__random_key){.seed = 21, .step = (uint64_t)start},
                     (uint64_t)(unit * 16 + key % 16), words);
    double bits = half < 4 ? words[half] & 0xFFFF : words[half - 4] >> 16;
    double below = round(65536 * twin->dropout);
    return bits < below ? 0 : 65536 / (65536 - below);
}

/* x / sqrt(sum x^2 + 1e-6). */
static void unit(double *x)
{
    double sum = 1e-6;
    for (int64_t n = 0; n < D; n++)
        sum += x[n] * x[n];
    for (int64_t n = 0; n < D; n++)
        x[n] /= sqrt(sum);
}

/* x gain / sqrt(mean x^2 + 1e-3) */
static void normalise_head(const mn__norm *norm, double *x)
{
    double squares = 1e-3;
    for (int64_t n = 0; n < D; n++)
        squares += x[n] * x[n] / D;
    for (int64_t n = 0; n < D; n++)
        x[n] *= (double)((const float *)norm->gain->value.data)[n] / sqrt(squares);
}

/* What a row of keys or values is once it has been kept. */
static void keep(const definition *twin, double *x)
{
    float row[MN__BLOCK] = {0};
    for (int64_t n = 0; n < D; n++)
        row[n] = (float)x[n];
    const mn__block_int8 block = mn__block_int8_of(row);
    for (int64_t n = 0; n < D; n++)
        if (twin->kept == MN__KEPT_INT8)
            x[n] = (double)mn__f16_to_f32(block.scale) * (double)block.q[n];
        else if (twin->kept == MN__KEPT_BF16)
            x[n] = (double)mn__bf16_to_f32(mn__f32_to_bf16(row[n]));
}

/* Rows of a token's keys or values; before the document a window has zeros of its own. */
static void cached(const definition *twin, const mn__attention *layer, const vector *h, int64_t row,
                   int64_t j, double *out)
{
    memset(out, 0, D * sizeof *out);
    if (j >= 0 || twin->xl)
        project(&layer->key_value, row, D, h[j], out);
}

/* One token's and head's output over every key that it sees. */
static void attend(const definition *twin, const mn__attention *layer, const mn__params *params,
                   const vector *h, int64_t i, int64_t head, double *out)
{
    double q[D], k[D], v[D], weight = 0, scores[BEFORE + TOKENS], most = -INFINITY;
    int64_t from = twin->zeros ? -BEFORE : 0, group = head * twin->G / H;
    project(&layer->query, head * D, D, h[i], q);
    if (twin->normalise)
        unit(q);
    if (twin->head_norm)
        normalise_head(&layer->query_norm, q);
    memset(out, 0, D * sizeof *out);
    for (int64_t j = from; j <= i; j++) {
        if (!sees(twin, i, j))
            continue;
        cached(twin, layer, h, group * D, j, k);
        if (twin->normalise)
            unit(k);
        if (twin->head_norm)
            normalise_head(&layer->key_norm, k);
        keep(twin, k);
        scores[BEFORE + j] = score(twin, params, head, q, k, i - j);
        most = fmax(most, scores[BEFORE + j]);
    }
    for (int64_t j = from; j <= i; j++) {
        if (!sees(twin, i, j))
            continue;
        double e = exp(scores[BEFORE + j] - most);
        cached(twin, layer, h, (twin->G + group) * D, j, v);
        keep(twin, v);
        for (int64_t n = 0; n < D; n++)
            out[n] += e * factor(twin, i, j, head) * v[n];
        weight += e;
    }
    for (int64_t n = 0; weight > 0 && n < D; n++)
        out[n] /= weight;
}

/* x [TOKENS] to y; before the document stand zeros, for zero_memory. */
static void run_twin(const definition *twin, const mn__attention *layer, const mn__params *params,
                     const vector *x, vector *y)
{
    static vector all[BEFORE + TOKENS];
    vector *h = all + BEFORE;
    for (int64_t t = -BEFORE; t < TOKENS; t++) {
        vector zero = {0};
        const double *in = t < 0 ? zero : x[t];
        if (twin->pre_norm)
            normalise(&layer->norm, in, h[t]);
        else
            memcpy(h[t], in, sizeof zero);
    }
    for (int64_t i = 0; i < TOKENS; i++) {
        double heads[H * D];
        for (int64_t head = 0; head < H; head++)
            attend(twin, layer, params, (const vector *)h, i, head, heads + head * D);
        project(&layer->out, 0, C, heads, y[i]);
    }
}

/* ---- The type -------------------------------------------------------------------------- */

typedef struct fixture {
    mn__arena arena;
    mn__device device;
    mn__params params;
    mn__attention layer, first;
    mn__states states;
    mn__tape tape;
} fixture;

/* A layer of the twin's type, of these options and parameters so named. */
static void create(fixture *f, mn__attention *layer, const char *options_text, const char *prefix)
{
    mn_error error;
    char text[128];
    mn__yaml_node *options;
    snprintf(text, sizeof text, "{%s}", options_text);
    succeed(mn__yaml_parse(&f->arena, "options", text, (int64_t)strlen(text), &options, &error),
            &error);
    layer->options = mn__arena_calloc(&f->arena, 1, layer->type->options_bytes);
    succeed(
        mn__options_read(layer->type->options, options, NULL, layer->options, &f->arena, &error),
        &error);
    snprintf(text, sizeof text, "%s.norm", prefix);
    succeed(mn__norm_create(&layer->norm, &f->params, text, MN__NORM_LAYER, C, 1e-5f, &error),
            &error);
    succeed(layer->type->check(layer, &error), &error);
    succeed(layer->type->create(layer, &f->params, prefix, &error), &error);
}

static void open(fixture *f, const definition *twin)
{
    mn_error error;
    mn__arena_init(&f->arena, 0);
    succeed(mn__device_open(&f->device, &error), &error);
    mn__params_init(&f->params, &f->device, 11);
    f->layer = (mn__attention){.type = mn__attention_find(twin->type),
                               .C = C,
                               .H = H,
                               .G = twin->G,
                               .D = D,
                               .segment = SEGMENT,
                               .bias = true,
                               .out_bias = true,
                               .head_norm = twin->head_norm,
                               .head_epsilon = 1e-3f,
                               .pre_norm = twin->pre_norm,
                               .deviation = 0.4f,
                               .first = &f->layer};
    f->first = f->layer;
    f->first.first = &f->first;
    if (twin->first_options) {
        create(f, &f->first, twin->first_options, "first");
        f->layer.first = &f->first;
    }
    create(f, &f->layer, twin->options, "a");
    for (int64_t i = 0; i < f->params.count; i++) { /* no bias is zero, no gain one */
        mn__param *param = f->params.items[i];
        mn__random_key key = {.seed = 2, .operation = (uint32_t)i};
        float *value = param->value.data;
        for (int64_t n = 0; param->value.rank == 1 && n < param->value.size[0]; n++)
            value[n] += 0.3f * mn__random_normal(key, (uint64_t)n);
    }
    succeed(mn__states_open(&f->states, &f->device, MN__F32, 1, 1, &error), &error);
    f->states.kept = twin->kept;
    succeed(f->layer.type->create_state(&f->layer, &f->states, &f->states.layer[0], TOKENS, &error),
            &error);
    mn__tape_init(&f->tape, &f->params, MN__F32);
    f->tape.training = twin->dropout > 0;
}

static void close(fixture *f)
{
    mn__tape_free(&f->tape);
    mn__states_close(&f->states);
    mn__params_free(&f->params);
    mn__device_close(&f->device);
    mn__arena_free(&f->arena);
}

/* The same document through the type, a segment at a time. */
static void run_type(fixture *f, const vector *x, float *y)
{
    const mn__attention_type *type = f->layer.type;
    for (int64_t from = 0, T; from < TOKENS; from += T) {
        T = TOKENS - from < SEGMENT ? TOKENS - from : SEGMENT;
        float in[SEGMENT * C];
        int64_t positions[SEGMENT];
        for (int64_t t = 0; t < T; t++) {
            positions[t] = from + t;
            for (int64_t c = 0; c < C; c++)
                in[t * C + c] = (float)x[from + t][c];
        }
        mn__segment segment = {.B = 1, .T = T, .position = &from, .positions = positions};
        mn__pending pending = {{0}};
        f->tape.random = (mn__random_key){.seed = 21, .step = (uint64_t)from};
        mn__var *out = type->forward(
            &f->layer, &f->tape, &segment,
            mn__tape_constant(&f->tape, mn__tensor_of(in, MN__F32, 3, (int64_t[]){1, T, C})),
            &f->states.layer[0], &pending);
        mn_error error;
        succeed(mn__tape_status(&f->tape, &error), &error);
        memcpy(y + from * C, out->value.data, (size_t)(T * C) * sizeof *y);
        type->commit(&f->layer, &f->tape, &segment, &f->states.layer[0], &pending, false);
        mn__tape_reset(&f->tape);
    }
}

static void test_twins(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof twins / sizeof *twins; n++) {
        fixture f;
        vector x[TOKENS], expected[TOKENS];
        float got[TOKENS * C];
        open(&f, &twins[n]);
        double bound = 2e-5 / (1 - twins[n].dropout);
        mn__random_key key = {.seed = 9};
        for (int64_t i = 0; i < TOKENS * C; i++)
            x[i / C][i % C] = (double)mn__random_normal(key, (uint64_t)i);
        run_twin(&twins[n], &f.layer, &f.params, (const vector *)x, expected);
        run_type(&f, (const vector *)x, got);
        for (int64_t i = 0; i < TOKENS * C; i++)
            if (!(fabs((double)got[i] - expected[i / C][i % C]) <= bound))
                fail_msg("%s {%s}: token %d is %g and should be %g", twins[n].type,
                         twins[n].options, (int)(i / C), (double)got[i], expected[i / C][i % C]);
        close(&f);
    }
}

/* Those whose twin is in a test of their own. */
static const char *const elsewhere[] = {"compressive", "knn"};

/* A type without a twin would go unnoticed. */
static void test_every_type_has_a_twin(void **state)
{
    (void)state;
    for (const mn__attention_type *const *type = mn__attention_types; *type; type++) {
        bool found = false;
        for (size_t n = 0; n < sizeof twins / sizeof *twins; n++)
            found = found || !strcmp(twins[n].type, (*type)->name);
        for (size_t n = 0; n < sizeof elsewhere / sizeof *elsewhere; n++)
            found = found || !strcmp(elsewhere[n], (*type)->name);
        if (!found)
            fail_msg("%s has no naive twin", (*type)->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_has_a_twin),
        cmocka_unit_test(test_twins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
