/* Attention: every level's kernel against the plain definition, number by number.
 *
 * Bounds. A float score has an error of about (D + 8) 2^-24 sum |q k| scale, so
 * p has that relative error, and an output a weighted mean of values with it.
 * With bf16 products, p (and q + u, q + v) are rounded to 8 bits, and so is the
 * output; backward, p, dS and its sums by distance are. A gradient is a sum of such terms.
 * `tolerance` below spells it out, relative to the largest number of the array, or to 1: gradients
 * are differences of numbers of that size, and may cancel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernel/kernel.h"
#include "support/kernel_check.h"

/* ---- A call from a description ------------------------------------------------------ */

typedef struct group_case {
    int64_t count;
    mn__mask mask;
    mn__position position;
    int64_t offset, window, limit;
    bool lengths, keep, bias;
    bool bare; /* XL without u and v, Shaw without values */
} group_case;

typedef struct attention_case {
    const char *name;
    int64_t B, T, H, G, D;
    int groups;
    group_case group[3];
    bool scales, sink, valid, masses;
    float magnitude; /* of the queries; 0: 1 */
    bool garbage;    /* NaN where `lengths` and `keep` hide keys */
    bool accumulate; /* gradients are added to */
    float dropout;
    bool odd; /* rows of keys and values begin at odd elements */
} attention_case;

typedef struct fixture {
    const attention_case *c;
    mn__dtype dtype;
    mn__attention_call call;
    mn__attention_gradients gradients;
    mn__arena memory;
    uint32_t draws;
} fixture;

static void *take(fixture *f, int64_t bytes)
{
    void *block = mn__arena_calloc(&f->memory, bytes > 0 ? bytes : 1, 1);
    assert_non_null(block);
    return block;
}

static void put(void *data, mn__dtype dtype, int64_t at, float x)
{
    if (dtype == MN__BF16)
        ((mn__bf16 *)data)[at] = mn__f32_to_bf16(x);
    else
        ((float *)data)[at] = x;
}

static float get(const void *data, mn__dtype dtype, int64_t at)
{
    return dtype == MN__BF16 ? mn__bf16_to_f32(((const mn__bf16 *)data)[at])
                             : ((const float *)data)[at];
}

/* n numbers of about N(0, size^2), different at each call. */
static void *draw(fixture *f, mn__dtype dtype, int64_t n, float size)
{
    void *data = take(f, n * mn__dtype_bytes(dtype));
    mn__random_key key = {.seed = 7, .operation = f->draws++};
    for (int64_t i = 0; i < n; i++)
        put(data, dtype, i, size * mn__random_normal(key, (uint64_t)i));
    return data;
}

static void set3(int64_t stride[3], int64_t a, int64_t b, int64_t c)
{
    stride[0] = a;
    stride[1] = b;
    stride[2] = c;
}

/* Whether a key of row b is hidden whatever the query. */
static bool is_hidden(const mn__key_group *group, int64_t b, int64_t j)
{
    return (group->first && j < group->first[b]) || (group->length && j >= group->length[b]) ||
           (group->keep && !group->keep[b * group->count + j]);
}

static void hide_keys(fixture *f, const group_case *g, mn__key_group *group)
{
    int64_t B = f->c->B;
    if (g->lengths) {
        int64_t *first = take(f, B * 8), *length = take(f, B * 8);
        for (int64_t b = 0; b < B; b++) {
            first[b] = b * 3;
            length[b] = g->count - b * 5;
        }
        group->first = first;
        group->length = length;
    }
    if (g->keep) {
        uint8_t *keep = take(f, B * g->count);
        for (int64_t i = 0; i < B * g->count; i++)
            keep[i] = i % 7 != 3;
        group->keep = keep;
    }
    if (g->mask == MN__MASK_SEGMENTED) {
        int32_t *query = take(f, B * f->c->T * 4), *key = take(f, B * g->count * 4);
        for (int64_t i = 0; i < B * f->c->T; i++)
            query[i] = (int32_t)(i % f->c->T / 20);
        for (int64_t i = 0; i < B * g->count; i++)
            key[i] = (int32_t)(i % g->count / 20);
        group->query_segment = query;
        group->key_segment = key;
    }
}

static void put_positions(fixture *f, const group_case *g, mn__key_group *group)
{
    const attention_case *c = f->c;
    if (g->position == MN__POSITION_ALIBI)
        group->slopes = draw(f, MN__F32, c->H, 0.02f);
    if (g->position == MN__POSITION_T5) {
        group->buckets = 16;
        group->far = 50;
        group->table = draw(f, MN__F32, 16 * c->H, 1);
    }
    if (g->position == MN__POSITION_XL) {
        group->relative = draw(f, f->dtype, (g->limit + 1) * c->H * c->D, 1);
        group->u = g->bare ? NULL : draw(f, MN__F32, c->H * c->D, 0.5f);
        group->v = g->bare ? NULL : draw(f, MN__F32, c->H * c->D, 0.5f);
    }
    if (g->position == MN__POSITION_SHAW) {
        group->shaw_keys = draw(f, MN__F32, (2 * g->limit + 1) * c->D, 0.5f);
        group->shaw_values = g->bare ? NULL : draw(f, MN__F32, (2 * g->limit + 1) * c->D, 0.5f);
    }
}

/* Keys and values are two slices of one array, with a gap after every row. */
static void put_group(fixture *f, int i)
{
    const attention_case *c = f->c;
    const group_case *g = &c->group[i];
    mn__key_group *group = &f->call.group[i];
    int64_t row = 2 * c->G * c->D + (c->odd ? 17 : 16);
    char *both = draw(f, f->dtype, c->B * g->count * row, 1);
    *group = (mn__key_group){.keys = both,
                             .values = both + c->G * c->D * mn__dtype_bytes(f->dtype),
                             .count = g->count,
                             .mask = g->mask,
                             .offset = g->offset,
                             .window = g->window,
                             .position = g->position,
                             .limit = g->limit};
    set3(group->key_stride, g->count * row, row, c->D);
    set3(group->value_stride, g->count * row, row, c->D);
    hide_keys(f, g, group);
    put_positions(f, g, group);
    if (g->bias) {
        group->bias = draw(f, MN__F32, c->B * c->G * g->count, 1);
        group->bias_stride[0] = c->G * g->count;
        group->bias_stride[1] = g->count;
    }
    for (int64_t n = 0; c->garbage && n < c->B * g->count * row; n++)
        if (is_hidden(group, n / row / g->count, n / row % g->count))
            put(both, f->dtype, n, NAN);
    if (c->masses)
        f->call.key_mass[i] = draw(f, MN__F32, c->B * c->H * g->count, 1);
}

/* Gradients begin as something else than zero: what is set must not show it. */
static void put_gradients(fixture *f)
{
    const attention_case *c = f->c;
    mn__attention_gradients *to = &f->gradients;
    to->out = draw(f, f->dtype, c->B * c->T * c->H * c->D, 1);
    set3(to->out_stride, c->T * c->H * c->D, c->H * c->D, c->D);
    to->queries = draw(f, f->dtype, c->B * c->T * c->H * c->D, 1);
    set3(to->query_stride, c->T * c->H * c->D, c->H * c->D, c->D);
    to->queries_accumulate = c->accumulate;
    to->scales = c->scales ? draw(f, MN__F32, c->H, 1) : NULL;
    to->sink = c->sink ? draw(f, MN__F32, c->H, 1) : NULL;
    for (int i = 0; i < c->groups; i++) {
        const group_case *g = &c->group[i];
        struct mn__group_gradients *of = &to->group[i];
        const mn__key_group *group = &f->call.group[i];
        of->keys = draw(f, f->dtype, c->B * g->count * c->G * c->D, 1);
        of->values = draw(f, f->dtype, c->B * g->count * c->G * c->D, 1);
        set3(of->key_stride, g->count * c->G * c->D, c->G * c->D, c->D);
        set3(of->value_stride, g->count * c->G * c->D, c->G * c->D, c->D);
        of->accumulate = c->accumulate;
        of->table = group->table ? draw(f, MN__F32, 16 * c->H, 1) : NULL;
        of->relative = group->relative ? draw(f, MN__F32, (g->limit + 1) * c->H * c->D, 1) : NULL;
        of->u = group->u ? draw(f, MN__F32, c->H * c->D, 1) : NULL;
        of->v = group->v ? draw(f, MN__F32, c->H * c->D, 1) : NULL;
        of->shaw_keys = group->shaw_keys ? draw(f, MN__F32, (2 * g->limit + 1) * c->D, 1) : NULL;
        of->shaw_values =
            group->shaw_values ? draw(f, MN__F32, (2 * g->limit + 1) * c->D, 1) : NULL;
        of->bias = group->bias ? draw(f, MN__F32, c->B * c->G * g->count, 1) : NULL;
    }
}

/* Every part of the key counts. */
static const mn__random_key dropout_key = {
    .seed = 0x9876543210ABCDEF, .step = 0x123456789, .operation = 0x89ABCDEF};

static void open_fixture(fixture *f, const attention_case *c, mn__dtype dtype)
{
    *f = (fixture){.c = c, .dtype = dtype};
    mn__arena_init(&f->memory, 0);
    int64_t row = c->H * c->D + 16;
    float magnitude = c->magnitude == 0 ? 1 : c->magnitude;
    mn__attention_call *call = &f->call;
    *call = (mn__attention_call){.B = c->B,
                                 .T = c->T,
                                 .H = c->H,
                                 .G = c->G,
                                 .D = c->D,
                                 .dtype = dtype,
                                 .scale = 1 / sqrtf((float)c->D),
                                 .dropout = {c->dropout, dropout_key},
                                 .groups = c->groups};
    call->queries = draw(f, dtype, c->B * c->T * row, magnitude);
    set3(call->query_stride, c->T * row, row, c->D);
    call->out = draw(f, dtype, c->B * c->T * c->H * c->D, 1);
    set3(call->out_stride, c->T * c->H * c->D, c->H * c->D, c->D);
    call->lse = draw(f, MN__F32, c->B * c->H * c->T, 1);
    call->scales = c->scales ? draw(f, MN__F32, c->H, 1) : NULL;
    call->sink = c->sink ? draw(f, MN__F32, c->H, 2) : NULL;
    if (c->valid) {
        int64_t *valid = take(f, c->B * 8);
        for (int64_t b = 0; b < c->B; b++)
            valid[b] = c->T - 1 - 30 * b > 0 ? c->T - 1 - 30 * b : 0;
        call->queries_valid = valid;
    }
    call->group_mass = c->masses ? draw(f, MN__F32, c->B * c->H * c->T * c->groups, 1) : NULL;
    for (int i = 0; i < c->groups; i++)
        put_group(f, i);
    put_gradients(f);
}

static void close_fixture(fixture *f)
{
    mn__arena_free(&f->memory);
}

/* ---- Comparison ------------------------------------------------------------------------ */

typedef struct pair {
    const char *level;
    const fixture *want, *got;
    double tolerance; /* relative to the largest number of an array */
    bool exact;       /* to the bit */
} pair;

static void compare(const pair *p, const char *name, const void *want, const void *got,
                    mn__dtype dtype, int64_t n)
{
    if (!want)
        return;
    if (p->exact) {
        if (memcmp(want, got, (size_t)(n * mn__dtype_bytes(dtype))))
            fail_msg("%s, %s, %s: %s is not the same to the bit", p->want->c->name, p->level,
                     mn__dtype_name(p->want->dtype), name);
        return;
    }
    double largest = 1, rounding = dtype == MN__BF16 ? 0x1p-8 : 0x1p-23;
    for (int64_t i = 0; i < n; i++) {
        double x = fabs((double)get(want, dtype, i));
        largest = isfinite(x) && x > largest ? x : largest;
    }
    for (int64_t i = 0; i < n; i++) {
        double x = (double)get(want, dtype, i), y = (double)get(got, dtype, i);
        if (x == y) /* infinities too */
            continue;
        if (!(fabs(x - y) <= p->tolerance * largest + rounding * fabs(x)))
            fail_msg("%s, %s, %s: %s[%lld of %lld] is %.9g, not %.9g (largest %g, bound %g)",
                     p->want->c->name, p->level, mn__dtype_name(p->want->dtype), name, (long long)i,
                     (long long)n, y, x, largest, p->tolerance * largest + rounding * fabs(x));
    }
}

static void compare_outputs(const pair *p)
{
    const attention_case *c = p->want->c;
    const mn__attention_call *want = &p->want->call, *got = &p->got->call;
    compare(p, "out", want->out, got->out, want->dtype, c->B * c->T * c->H * c->D);
    compare(p, "lse", want->lse, got->lse, MN__F32, c->B * c->H * c->T);
    compare(p, "group_mass", want->group_mass, got->group_mass, MN__F32,
            c->B * c->H * c->T * c->groups);
    for (int i = 0; i < c->groups; i++)
        compare(p, "key_mass", want->key_mass[i], got->key_mass[i], MN__F32,
                c->B * c->H * c->group[i].count);
}

static void compare_gradients(const pair *p)
{
    const attention_case *c = p->want->c;
    const mn__attention_gradients *want = &p->want->gradients, *got = &p->got->gradients;
    compare(p, "dqueries", want->queries, got->queries, p->want->dtype, c->B * c->T * c->H * c->D);
    compare(p, "dscales", want->scales, got->scales, MN__F32, c->H);
    compare(p, "dsink", want->sink, got->sink, MN__F32, c->H);
    for (int i = 0; i < c->groups; i++) {
        const struct mn__group_gradients *w = &want->group[i], *g = &got->group[i];
        int64_t n = c->B * c->group[i].count * c->G * c->D, limit = c->group[i].limit;
        compare(p, "dkeys", w->keys, g->keys, p->want->dtype, n);
        compare(p, "dvalues", w->values, g->values, p->want->dtype, n);
        compare(p, "dtable", w->table, g->table, MN__F32, 16 * c->H);
        compare(p, "drelative", w->relative, g->relative, MN__F32, (limit + 1) * c->H * c->D);
        compare(p, "du", w->u, g->u, MN__F32, c->H * c->D);
        compare(p, "dv", w->v, g->v, MN__F32, c->H * c->D);
        compare(p, "dshaw_keys", w->shaw_keys, g->shaw_keys, MN__F32, (2 * limit + 1) * c->D);
        compare(p, "dshaw_values", w->shaw_values, g->shaw_values, MN__F32, (2 * limit + 1) * c->D);
        compare(p, "dbias", w->bias, g->bias, MN__F32, c->B * c->G * c->group[i].count);
    }
}

/* ---- Running --------------------------------------------------------------------------------- */

static void run(mn__level level, fixture *f, bool backward)
{
    mn_error error = {0};
    mn__queue queue;
    assert_int_equal(mn__queue_open(&queue, mn__kernel_table(level), &error), MN_OK);
    queue.kernels->attention(&queue, &f->call);
    if (backward)
        queue.kernels->attention_backward(&queue, &f->call, &f->gradients);
    check_denormals_kept();
    assert_int_equal(mn__queue_check(&queue, &error), MN_OK);
    assert_int_equal(queue.scratch.used, 0);
    mn__queue_close(&queue);
}

/* The relative error of p from its score's, and of a sum over `terms`. */
static double tolerance(const attention_case *c, mn__dtype dtype)
{
    double magnitude = c->magnitude == 0 ? 1 : (double)c->magnitude;
    double terms = 0;
    for (int i = 0; i < c->groups; i++)
        terms += (double)c->group[i].count;
    /* sum |q k| scale is about 0.64 sqrt D; XL adds as much; scales reach 3. */
    double score = 4 * 0.64 * sqrt((double)c->D) * magnitude;
    double f32 = 0x1p-24 * (((double)c->D + 8) * score / 4 + terms + (double)c->T);
    double bf16 = 0x1p-8 * (1 + score / 4);
    /* What is kept is as much larger. */
    return (dtype == MN__BF16 ? f32 + bf16 : f32) / (1 - (double)c->dropout);
}

static void check_case(const attention_case *c, mn__dtype dtype)
{
    fixture want, got;
    open_fixture(&want, c, dtype);
    run(MN__LEVEL_PLAIN, &want, true);
    for (int level = MN__LEVEL_BASELINE; level < MN__LEVELS; level++) {
        if (!mn__kernel_table((mn__level)level))
            continue;
        open_fixture(&got, c, dtype);
        run((mn__level)level, &got, true);
        pair p = {mn__level_name((mn__level)level), &want, &got, tolerance(c, dtype), false};
        compare_outputs(&p);
        compare_gradients(&p);
        close_fixture(&got);
    }
    close_fixture(&want);
}

#define CAUSAL(n)                           \
    {                                       \
        .count = n, .mask = MN__MASK_CAUSAL \
    }
#define ONE_GROUP(x) .groups = 1, .group = {x}

static const attention_case cases[] = {
    {"one query", 1, 1, 1, 1, 64, ONE_GROUP(CAUSAL(1))},
    {"63", 2, 63, 2, 2, 16, ONE_GROUP(CAUSAL(63))},
    {"64", 1, 64, 2, 2, 64, ONE_GROUP(CAUSAL(64))},
    {"65", 1, 65, 2, 2, 32, ONE_GROUP(CAUSAL(65))},
    {"127", 1, 127, 1, 1, 80, ONE_GROUP(CAUSAL(127))},
    {"130", 1, 130, 2, 2, 96, ONE_GROUP(CAUSAL(130))},
    {"narrow", 1, 40, 1, 1, 20, ONE_GROUP(CAUSAL(40))},
    {"odd rows", 1, 100, 2, 2, 32, ONE_GROUP(CAUSAL(100)), .odd = true},
    {"wide", 1, 70, 1, 1, 128, ONE_GROUP(CAUSAL(70))},
    {"grouped queries", 2, 66, 6, 2, 32, ONE_GROUP(CAUSAL(66)), .accumulate = true},
    {"decoding", 2, 1, 4, 2, 64,
     ONE_GROUP(((group_case){.count = 150, .mask = MN__MASK_CAUSAL, .offset = 149}))},
    {"few, long, grouped", 2, 3, 6, 2, 72,
     ONE_GROUP(((group_case){.count = 1000, .mask = MN__MASK_CAUSAL, .offset = 997}))},
    {"few, banded", 1, 8, 2, 2, 32,
     ONE_GROUP(((group_case){.count = 700, .mask = MN__MASK_BAND, .offset = 600, .window = 270}))},
    {"few, hidden keys", 3, 5, 2, 1, 32,
     ONE_GROUP(((group_case){
         .count = 300, .mask = MN__MASK_CAUSAL, .offset = 290, .lengths = true, .keep = true})),
     .garbage = true, .valid = true, .sink = true},
    {"few, XL", 2, 4, 2, 2, 64,
     ONE_GROUP(((group_case){.count = 530,
                             .mask = MN__MASK_CAUSAL,
                             .position = MN__POSITION_XL,
                             .offset = 526,
                             .limit = 500})),
     .scales = true},
    {"few, XL, grouped", 1, 3, 6, 2, 40,
     ONE_GROUP(((group_case){.count = 300,
                             .mask = MN__MASK_BAND,
                             .position = MN__POSITION_XL,
                             .offset = 297,
                             .window = 200,
                             .limit = 150}))},
    {"few, groups without a visible key", 2, 2, 4, 2, 32, .groups = 3,
     .group = {{.count = 0},
               {.count = 70, .mask = MN__MASK_BAND, .offset = 400, .window = 100},
               {.count = 64, .mask = MN__MASK_STRICT}}},
    {"few, no visible key", 2, 2, 4, 2, 32, .groups = 1,
     .group = {{.count = 70, .mask = MN__MASK_BAND, .offset = 400, .window = 100}}},
    {"few, three groups", 2, 6, 4, 2, 32, .groups = 3,
     .group = {{.count = 37, .bias = true, .position = MN__POSITION_ALIBI},
               {.count = 264, .mask = MN__MASK_STRICT, .offset = 264, .position = MN__POSITION_T5},
               {.count = 100, .mask = MN__MASK_SEGMENTED, .offset = 10}},
     .sink = true, .scales = true},
    {"no mask", 1, 33, 2, 1, 32, ONE_GROUP({.count = 100})},
    {"strict", 1, 70, 2, 2, 32, ONE_GROUP(((group_case){.count = 70, .mask = MN__MASK_STRICT}))},
    {"band", 1, 130, 2, 2, 32,
     ONE_GROUP(((group_case){.count = 180, .mask = MN__MASK_BAND, .offset = 50, .window = 45}))},
    {"strict band", 1, 260, 1, 1, 32,
     ONE_GROUP(((group_case){.count = 260, .mask = MN__MASK_BAND_STRICT, .window = 70}))},
    {"wide strict band, T5", 1, 290, 2, 2, 64,
     ONE_GROUP(((group_case){.count = 546,
                             .mask = MN__MASK_BAND_STRICT,
                             .position = MN__POSITION_T5,
                             .offset = 256,
                             .window = 256})),
     .scales = true},
    {"narrow band far away", 2, 200, 4, 2, 32,
     ONE_GROUP(((group_case){
         .count = 501, .mask = MN__MASK_BAND, .offset = 301, .window = 33, .bias = true}))},
    {"band, XL", 1, 210, 2, 2, 32,
     ONE_GROUP(((group_case){.count = 421,
                             .mask = MN__MASK_BAND,
                             .position = MN__POSITION_XL,
                             .offset = 211,
                             .window = 150,
                             .limit = 420}))},
    {"segmented", 2, 100, 2, 2, 32,
     ONE_GROUP(((group_case){.count = 100, .mask = MN__MASK_SEGMENTED}))},
    {"lengths and keep", 3, 70, 2, 2, 32,
     ONE_GROUP(((group_case){
         .count = 130, .mask = MN__MASK_CAUSAL, .offset = 60, .lengths = true, .keep = true})),
     .garbage = true, .valid = true},
    {"ALiBi", 2, 130, 3, 3, 32,
     ONE_GROUP(((group_case){
         .count = 140, .mask = MN__MASK_CAUSAL, .position = MN__POSITION_ALIBI, .offset = 10})),
     .scales = true},
    {"T5", 2, 100, 4, 2, 32,
     ONE_GROUP(((group_case){.count = 200,
                             .mask = MN__MASK_BAND_STRICT,
                             .position = MN__POSITION_T5,
                             .offset = 100,
                             .window = 100})),
     .scales = true, .accumulate = true},
    {"XL", 2, 130, 2, 2, 64,
     ONE_GROUP(((group_case){.count = 230,
                             .mask = MN__MASK_CAUSAL,
                             .position = MN__POSITION_XL,
                             .offset = 100,
                             .limit = 230}))},
    {"XL clamped, without vectors, grouped", 1, 100, 4, 2, 80,
     ONE_GROUP(((group_case){.count = 137,
                             .mask = MN__MASK_BAND,
                             .position = MN__POSITION_XL,
                             .offset = 37,
                             .window = 90,
                             .limit = 50,
                             .bare = true})),
     .scales = true},
    {"XL both ways", 1, 70, 1, 1, 32,
     ONE_GROUP(((group_case){.count = 90, .position = MN__POSITION_XL, .limit = 60}))},
    {"Shaw", 2, 130, 2, 2, 32,
     ONE_GROUP(((group_case){
         .count = 130, .mask = MN__MASK_CAUSAL, .position = MN__POSITION_SHAW, .limit = 40}))},
    {"Shaw, keys only", 1, 60, 2, 1, 48,
     ONE_GROUP(
         ((group_case){.count = 90, .position = MN__POSITION_SHAW, .limit = 9, .bare = true}))},
    {"key bias and sink", 2, 70, 4, 2, 32,
     ONE_GROUP(((group_case){.count = 70, .mask = MN__MASK_STRICT, .bias = true})), .scales = true,
     .sink = true, .valid = true, .masses = true},
    {"three groups", 2, 100, 4, 2, 32, .groups = 3,
     .group = {{.count = 37, .bias = true, .lengths = true},
               {.count = 64,
                .mask = MN__MASK_BAND,
                .offset = 64,
                .window = 100,
                .position = MN__POSITION_T5},
               {.count = 100, .mask = MN__MASK_CAUSAL, .position = MN__POSITION_XL, .limit = 100}},
     .sink = true, .masses = true, .accumulate = true},
    {"dropout, one query", 1, 1, 1, 1, 64, ONE_GROUP(CAUSAL(1)), .dropout = 0.5f},
    {"dropout, 63", 2, 63, 2, 2, 16, ONE_GROUP(CAUSAL(63)), .dropout = 0.1f},
    {"dropout, 131, grouped", 2, 131, 6, 2, 40, ONE_GROUP(CAUSAL(131)), .dropout = 0.3f,
     .accumulate = true},
    {"dropout, few, long, grouped", 2, 3, 6, 2, 72,
     ONE_GROUP(((group_case){.count = 1000, .mask = MN__MASK_CAUSAL, .offset = 997})),
     .dropout = 0.2f},
    {"dropout, hidden keys", 3, 70, 2, 2, 32,
     ONE_GROUP(((group_case){
         .count = 330, .mask = MN__MASK_CAUSAL, .offset = 260, .lengths = true, .keep = true})),
     .garbage = true, .valid = true, .sink = true, .dropout = 0.9f},
    {"dropout, strict band", 1, 260, 1, 1, 32,
     ONE_GROUP(((group_case){.count = 260, .mask = MN__MASK_BAND_STRICT, .window = 70})),
     .dropout = 0.5f},
    {"dropout, band far away", 2, 200, 4, 2, 32,
     ONE_GROUP(((group_case){.count = 501,
                             .mask = MN__MASK_BAND,
                             .offset = 301,
                             .window = 170,
                             .position = MN__POSITION_T5})),
     .dropout = 0.3f},
    {"dropout, XL", 2, 130, 2, 2, 64,
     ONE_GROUP(((group_case){.count = 230,
                             .mask = MN__MASK_CAUSAL,
                             .position = MN__POSITION_XL,
                             .offset = 100,
                             .limit = 230})),
     .dropout = 0.1f},
    {"dropout, Shaw", 2, 130, 2, 2, 32,
     ONE_GROUP(((group_case){
         .count = 130, .mask = MN__MASK_CAUSAL, .position = MN__POSITION_SHAW, .limit = 40})),
     .dropout = 0.25f},
    {"dropout, three groups", 2, 100, 4, 2, 32, .groups = 3,
     .group = {{.count = 137, .bias = true, .lengths = true, .position = MN__POSITION_ALIBI},
               {.count = 64,
                .mask = MN__MASK_BAND,
                .offset = 64,
                .window = 100,
                .position = MN__POSITION_T5},
               {.count = 100, .mask = MN__MASK_CAUSAL, .position = MN__POSITION_XL, .limit = 100}},
     .sink = true, .masses = true, .scales = true, .dropout = 0.15f},
};

static void test_against_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case(&cases[i], MN__F32);
        check_case(&cases[i], MN__BF16);
    }
}

/* However many queries share a head of keys: kernels have a loop for each small number. Some
 * keys are read where they lie, some around hidden ones are not. */
static void test_few_of_every_number(void **state)
{
    (void)state;
    for (int64_t T = 1; T <= 4; T += 3)
        for (int64_t shared = 1; shared <= 9; shared++) {
            attention_case c = {
                "few of every number",
                2,
                T,
                2 * shared,
                2,
                64,
                ONE_GROUP(((group_case){
                    .count = 400, .mask = MN__MASK_CAUSAL, .offset = 400 - T, .lengths = true})),
                .garbage = true};
            for (int keep = 0; keep < 2; keep++) {
                c.group[0].keep = keep;
                check_case(&c, MN__F32);
                check_case(&c, MN__BF16);
            }
        }
}

/* The call of one query. */
static mn__attention_call alone(const fixture *f, int64_t b, int64_t t)
{
    mn__attention_call call = f->call;
    mn__key_group *group = &call.group[0];
    int64_t bytes = mn__dtype_bytes(call.dtype);
    call.B = call.T = 1;
    call.queries =
        (const char *)call.queries + (b * call.query_stride[0] + t * call.query_stride[1]) * bytes;
    group->keys = (const char *)group->keys + b * group->key_stride[0] * bytes;
    group->values = (const char *)group->values + b * group->value_stride[0] * bytes;
    group->first += b;
    group->offset += t;
    return call;
}

static void check_alone(const attention_case *c, mn__level level, mn__dtype dtype)
{
    static const int64_t first[] = {0, 400, 513};
    fixture all, one;
    int64_t row = c->H * c->D * mn__dtype_bytes(dtype);
    open_fixture(&all, c, dtype);
    open_fixture(&one, c, dtype);
    all.call.group[0].first = first;
    run(level, &all, false);
    mn__attention_call whole = one.call;
    whole.group[0].first = first;
    for (int64_t b = 0; b < c->B; b++)
        for (int64_t t = 0; t < c->T; t++) {
            one.call = whole;
            one.call = alone(&one, b, t);
            run(level, &one, false);
            assert_memory_equal((char *)all.call.out + (b * c->T + t) * row, one.call.out,
                                (size_t)row);
            for (int64_t h = 0; h < c->H; h++)
                assert_memory_equal(&all.call.lse[(b * c->H + h) * c->T + t], &one.call.lse[h],
                                    sizeof(float));
        }
    close_fixture(&all);
    close_fixture(&one);
}

/* A few queries get the bits that each gets alone, whatever rows and queries are beside it. */
static void test_few_are_as_alone(void **state)
{
    (void)state;
    static const attention_case c = {
        "few as alone",
        3,
        4,
        6,
        2,
        64,
        ONE_GROUP(
            ((group_case){.count = 700, .mask = MN__MASK_BAND, .offset = 640, .window = 310}))};
    for (int level = MN__LEVEL_BASELINE; level < MN__LEVELS; level++)
        if (mn__kernel_table((mn__level)level)) {
            check_alone(&c, (mn__level)level, MN__F32);
            check_alone(&c, (mn__level)level, MN__BF16);
        }
}

/* Scores of +-10^4 and more: nothing overflows, nothing is NaN. */
static void test_large_logits(void **state)
{
    (void)state;
    static const attention_case c = {"large",          1, 70, 2, 2, 32, ONE_GROUP(CAUSAL(70)),
                                     .magnitude = 1e4f};
    for (int level = MN__LEVEL_PLAIN; level < MN__LEVELS; level++) {
        if (!mn__kernel_table((mn__level)level))
            continue;
        fixture f;
        open_fixture(&f, &c, MN__F32);
        run((mn__level)level, &f, false);
        for (int64_t i = 0; i < c.B * c.T * c.H * c.D; i++)
            assert_true(fabsf(((float *)f.call.out)[i]) < 6);
        for (int64_t i = 0; i < c.B * c.H * c.T; i++)
            assert_true(isfinite(f.call.lse[i]));
        close_fixture(&f);
    }
}

/* With one-hot values the output reads the weights out: they are positive
 * exactly where the mask lets see, and sum to 1. */
static void test_readout(void **state)
{
    (void)state;
    static const attention_case c = {
        "readout",
        1,
        64,
        1,
        1,
        128,
        ONE_GROUP(((group_case){.count = 128, .mask = MN__MASK_BAND, .offset = 64, .window = 40}))};
    for (int level = MN__LEVEL_PLAIN; level < MN__LEVELS; level++) {
        if (!mn__kernel_table((mn__level)level))
            continue;
        fixture f;
        open_fixture(&f, &c, MN__F32);
        float *values = take(&f, 128 * 128 * 4);
        for (int64_t j = 0; j < 128; j++)
            values[j * 128 + j] = 1;
        f.call.group[0].values = values;
        set3(f.call.group[0].value_stride, 0, 128, 128);
        run((mn__level)level, &f, false);
        for (int64_t t = 0; t < 64; t++) {
            float sum = 0;
            for (int64_t j = 0; j < 128; j++) {
                float p = ((float *)f.call.out)[t * 128 + j];
                assert_int_equal(p > 0, 64 + t - j >= 0 && 64 + t - j < 40);
                sum += p;
            }
            assert_true(fabsf(sum - 1) < 1e-5f);
        }
        close_fixture(&f);
    }
}

/* A NaN that a query sees is seen in its output. */
static void test_nan_is_kept(void **state)
{
    (void)state;
    static const attention_case c = {"NaN", 1, 40, 1, 1, 32, ONE_GROUP(CAUSAL(40))};
    for (int level = MN__LEVEL_PLAIN; level < MN__LEVELS; level++) {
        if (!mn__kernel_table((mn__level)level))
            continue;
        fixture f;
        open_fixture(&f, &c, MN__F32);
        ((float *)f.call.queries)[f.call.query_stride[1] * 5] = NAN;
        run((mn__level)level, &f, false);
        for (int64_t t = 0; t < c.T; t++)
            assert_int_equal(isnan(((float *)f.call.out)[t * c.D]) != 0, t == 5);
        close_fixture(&f);
    }
}

static void check_repeat(const attention_case *c, mn__level level, mn__dtype dtype)
{
    if (!mn__kernel_table(level))
        return;
    fixture once, again;
    open_fixture(&once, c, dtype);
    open_fixture(&again, c, dtype);
    run(level, &once, true);
    run(level, &again, true);
    pair p = {mn__level_name(level), &once, &again, .exact = true};
    compare_outputs(&p);
    compare_gradients(&p);
    close_fixture(&once);
    close_fixture(&again);
}

/* Two runs agree to the bit, gradients that heads and rows share included. */
static void test_repeats(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int level = MN__LEVEL_BASELINE; level < MN__LEVELS; level++) {
            check_repeat(&cases[i], (mn__level)level, MN__F32);
            check_repeat(&cases[i], (mn__level)level, MN__BF16);
        }
}

/* Every bucket is one of the table, whatever `far` says. */
static void test_buckets(void **state)
{
    (void)state;
    assert_int_equal(mn__t5_bucket(15, 32, 128), 15);
    assert_int_equal(mn__t5_bucket(16, 32, 128), 16);
    assert_int_equal(mn__t5_bucket(128, 32, 128), 31);
    for (int64_t buckets = 2; buckets <= 64; buckets *= 2)
        for (int64_t far = 2; far <= 128; far *= 2)
            for (int64_t distance = -3; distance < 300; distance++) {
                int64_t bucket = mn__t5_bucket(distance, buckets, far);
                assert_in_range(bucket, 0, buckets - 1);
                assert_true(distance < 1 || bucket >= mn__t5_bucket(distance - 1, buckets, far));
            }
}

/* ---- Dropout ------------------------------------------------------------------------ */

/* A rate that rounds to nothing dropped takes dropout's way and changes no bit: so
 * neither does that way. */
static void check_rate_of_nothing(const attention_case *c, mn__level level, mn__dtype dtype)
{
    fixture without, with;
    open_fixture(&without, c, dtype);
    open_fixture(&with, c, dtype);
    without.call.dropout = (mn__weight_dropout){.rate = 0};
    with.call.dropout.rate = 0x1p-20f;
    run(level, &without, true);
    run(level, &with, true);
    pair p = {mn__level_name(level), &without, &with, .exact = true};
    compare_outputs(&p);
    compare_gradients(&p);
    close_fixture(&without);
    close_fixture(&with);
}

static void test_a_rate_of_nothing_changes_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int level = MN__LEVEL_BASELINE; level < MN__LEVELS; level++) {
            if (!mn__kernel_table((mn__level)level) || cases[i].T <= 8) /* a few: another kernel */
                continue;
            check_rate_of_nothing(&cases[i], (mn__level)level, MN__F32);
            check_rate_of_nothing(&cases[i], (mn__level)level, MN__BF16);
        }
}

enum { DRAW_B = 2, DRAW_H = 3, DRAW_T = 301, DRAW_S = 144, DRAWS = DRAW_B * DRAW_H * DRAW_T };
static const float draw_rate = 0.3f;

/* Of equal scores and one-hot values, the output is the factors over the number of keys:
 * kept[query number][key]. */
static void read_factors(mn__level level, bool kept[DRAWS][DRAW_S])
{
    static const attention_case c = {
        "draws", DRAW_B, DRAW_T, DRAW_H, DRAW_H, DRAW_S, ONE_GROUP({.count = DRAW_S})};
    fixture f;
    open_fixture(&f, &c, MN__F32);
    f.call.dropout.rate = draw_rate;
    memset((void *)(uintptr_t)f.call.queries, 0,
           sizeof(float) * (size_t)(DRAW_B * f.call.query_stride[0]));
    float *values = take(&f, DRAW_S * DRAW_S * 4);
    for (int64_t j = 0; j < DRAW_S; j++)
        values[j * DRAW_S + j] = DRAW_S;
    f.call.group[0].values = values;
    set3(f.call.group[0].value_stride, 0, DRAW_S, 0);
    run(level, &f, false);
    for (int64_t n = 0; n < DRAWS; n++) {
        int64_t b = n / DRAW_T / DRAW_H, h = n / DRAW_T % DRAW_H, t = n % DRAW_T;
        const float *out = (float *)f.call.out + ((b * DRAW_T + t) * DRAW_H + h) * DRAW_S;
        for (int64_t j = 0; j < DRAW_S; j++) {
            kept[n][j] = out[j] != 0;
            if (kept[n][j] && !(fabsf(out[j] * (1 - draw_rate) - 1) <= 0x1p-15f))
                fail_msg("level %s: a factor of %.9g", mn__level_name(level), (double)out[j]);
        }
    }
    close_fixture(&f);
}

/* Whether a count of `draws` events of chance p each is within 5 deviations. */
static void check_count(const char *what, int64_t count, int64_t draws, double p)
{
    double deviation = sqrt((double)draws * p * (1 - p));
    if (!(fabs((double)count - (double)draws * p) <= 5 * deviation))
        fail_msg("%s: %lld of %lld, not %g +- %g", what, (long long)count, (long long)draws,
                 (double)draws * p, deviation);
}

/* Weights a step apart, in any direction, are dropped together with a chance of rate^2. */
static void check_pairs(bool kept[DRAWS][DRAW_S], const char *what, int64_t queries, int64_t keys)
{
    int64_t both = 0, draws = 0;
    for (int64_t n = 0; n + queries < DRAWS; n++)
        for (int64_t j = 0; j + keys < DRAW_S; j++, draws++)
            both += !kept[n][j] && !kept[n + queries][j + keys];
    double p = (double)draw_rate, deviation = sqrt((double)draws * p * p * (1 - p * p) * 3);
    if (!(fabs((double)both - (double)draws * p * p) <= 5 * deviation)) /* pairs overlap: 3 */
        fail_msg("%s: %lld pairs of %lld", what, (long long)both, (long long)draws);
}

static void test_how_many_are_dropped(void **state)
{
    (void)state;
    static bool kept[DRAWS][DRAW_S];
    int64_t dropped = 0;
    read_factors(MN__LEVEL_PLAIN, kept);
    for (int64_t j = 0; j < DRAW_S; j++) {
        int64_t of_key = 0;
        for (int64_t n = 0; n < DRAWS; n++)
            of_key += !kept[n][j];
        check_count("of one key", of_key, DRAWS, (double)draw_rate);
        dropped += of_key;
    }
    check_count("of all", dropped, (int64_t)DRAWS * DRAW_S, (double)draw_rate);
    check_pairs(kept, "neighbouring keys", 0, 1);
    check_pairs(kept, "keys of one block", 0, 16);
    check_pairs(kept, "neighbouring queries", 1, 0);
    check_pairs(kept, "neighbouring heads", DRAW_T, 0);
}

/* Each level drops the same weights, whatever its tiles, and however many threads it has. */
static void test_every_level_drops_the_same(void **state)
{
    (void)state;
    static bool kept[DRAWS][DRAW_S], other[DRAWS][DRAW_S];
    read_factors(MN__LEVEL_PLAIN, kept);
    int threads = mn__threads();
    for (int level = MN__LEVEL_BASELINE; level < MN__LEVELS; level++) {
        if (!mn__kernel_table((mn__level)level))
            continue;
        for (int with = 1; with <= 3; with += 2) {
            mn__threads_set(with);
            read_factors((mn__level)level, other);
            assert_memory_equal(kept, other, sizeof kept);
        }
    }
    mn__threads_set(threads);
}

/* A layout of the words that drifts would break what a checkpoint resumes: these factors
 * follow from Philox's words by hand. */
static void test_the_factors_are_those_defined(void **state)
{
    (void)state;
    mn__weight_dropout dropout = {0.5f, {.seed = 3, .step = 4, .operation = 5}};
    for (int64_t unit = 7; unit < 9; unit++)
        for (int64_t key = 0; key < 300; key++) {
            uint32_t words[4];
            mn__random_block(dropout.key, (uint64_t)((unit + key / 128) * 16 + key % 16), words);
            int64_t half = key % 128 / 16;
            uint32_t bits = half < 4 ? words[half] & 0xFFFF : words[half - 4] >> 16;
            float factor = mn__dropout_factor(&dropout, unit, key);
            assert_true(factor == (bits < 32768 ? 0.0f : 2.0f));
        }
    dropout.rate = 0;
    assert_true(mn__dropout_factor(&dropout, 7, 0) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_definition),
        cmocka_unit_test(test_few_of_every_number),
        cmocka_unit_test(test_few_are_as_alone),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_large_logits),
        cmocka_unit_test(test_readout),
        cmocka_unit_test(test_nan_is_kept),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_a_rate_of_nothing_changes_no_bit),
        cmocka_unit_test(test_how_many_are_dropped),
        cmocka_unit_test(test_every_level_drops_the_same),
        cmocka_unit_test(test_the_factors_are_those_defined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
