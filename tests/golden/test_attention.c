/* The attention operation against PyTorch in float64, at every CPU level: every
 * mask, position term and group, outputs, log-sum-exps, masses and gradients.
 * See README.md for the fixture's names. */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/safetensors.h"
#include "kernel/plain.h"
#include "support/op_check.h"

typedef struct golden {
    mn__safetensors *file;
    json_t *cases;
} golden;

typedef struct bench {
    const golden *all;
    const char *name; /* of the case */
    mn__device device;
    mn__params params;
    mn__tape tape;
    mn__var *input[64]; /* with the fixture's name of each */
    char input_name[64][32];
    int inputs;
} bench;

/* ---- Tensors of the fixture ------------------------------------------------------------ */

/* "CASE.NAME", or "CASE.NAME.GROUP" where group >= 0; NULL if there is none. */
static const mn__safetensor *find(const bench *b, const char *name, int group)
{
    char full[96];
    if (group < 0)
        snprintf(full, sizeof full, "%s.%s", b->name, name);
    else
        snprintf(full, sizeof full, "%s.%s.%d", b->name, name, group);
    return mn__safetensors_find(b->all->file, full);
}

static int64_t elements(const mn__safetensor *tensor)
{
    int64_t count = 1;
    for (int axis = 0; axis < tensor->rank; axis++)
        count *= tensor->size[axis];
    return count;
}

static mn__var *input(bench *b, const char *name, int group)
{
    const mn__safetensor *found = find(b, name, group);
    if (!found)
        return NULL;
    assert_string_equal(found->dtype, "F32");
    assert_in_range(found->rank, 1, MN__RANK_MAX);
    mn__tensor tensor =
        mn__tensor_of((void *)(uintptr_t)found->data, MN__F32, found->rank, found->size);
    int n = b->inputs++;
    assert_in_range(n, 0, 63);
    snprintf(b->input_name[n], sizeof b->input_name[n], group < 0 ? "%s" : "%s.%d", name, group);
    return b->input[n] = mn__tape_input(&b->tape, tensor);
}

static const float *floats(const bench *b, const char *name, int group)
{
    const mn__safetensor *found = find(b, name, group);
    return found ? found->data : NULL;
}

static const int32_t *ints(const bench *b, const char *name, int group)
{
    const mn__safetensor *found = find(b, name, group);
    if (found)
        assert_string_equal(found->dtype, "I32");
    return found ? found->data : NULL;
}

static const int64_t *longs(bench *b, const char *name, int group)
{
    const int32_t *from = ints(b, name, group);
    if (!from)
        return NULL;
    int64_t count = elements(find(b, name, group));
    int64_t *to = mn__tape_alloc(&b->tape, count * (int64_t)sizeof *to);
    assert_non_null(to);
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
    return to;
}

static const uint8_t *bytes(bench *b, const char *name, int group)
{
    const int32_t *from = ints(b, name, group);
    if (!from)
        return NULL;
    int64_t count = elements(find(b, name, group));
    uint8_t *to = mn__tape_alloc(&b->tape, count);
    assert_non_null(to);
    for (int64_t i = 0; i < count; i++)
        to[i] = (uint8_t)from[i];
    return to;
}

static float *zeros(bench *b, int64_t count)
{
    float *data = mn__tape_alloc(&b->tape, count * (int64_t)sizeof *data);
    assert_non_null(data);
    memset(data, 0, (size_t)count * sizeof *data);
    return data;
}

/* ---- Comparison -------------------------------------------------------------------------- */

static double largest(const float *x, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(x[i]))
            most = fmax(most, fabs((double)x[i]));
    return most;
}

/* Within `relative` of the largest value; infinities have to be the same. */
static void compare(const bench *b, const char *name, int group, const float *got, double relative)
{
    const mn__safetensor *tensor = find(b, name, group);
    assert_non_null(tensor);
    const float *want = tensor->data;
    int64_t count = elements(tensor);
    double bound = relative * largest(want, count);
    for (int64_t i = 0; i < count; i++)
        if (!(got[i] == want[i] || fabs((double)got[i] - (double)want[i]) <= bound))
            fail_msg("%s, %s, group %d, level %s, element %" PRId64 ": %.9g, should be %.9g "
                     "(bound %.3g)",
                     b->name, name, group, mn__level_name(b->device.queue.kernels->level), i,
                     (double)got[i], (double)want[i], bound);
}

/* Scores are rounded at their own size, which the exponential turns into a
 * relative error; log-sum-exps tell how large they are. */
static double tolerance(const bench *b)
{
    const mn__safetensor *lse = find(b, "lse", -1);
    return ldexp(8 * (8 + largest(lse->data, elements(lse))), -24);
}

/* ---- A case ---------------------------------------------------------------------------------- */

static mn__mask mask_of(const char *name)
{
    static const char *const names[] = {"none", "causal",      "strict",
                                        "band", "band_strict", "segmented"};
    for (int i = 0; i < 6; i++)
        if (!strcmp(name, names[i]))
            return (mn__mask)i;
    fail_msg("no mask is called %s", name);
    return MN__MASK_NONE;
}

static mn__position position_of(const char *name)
{
    static const char *const names[] = {"none", "alibi", "t5", "xl", "shaw"};
    for (int i = 0; i < 5; i++)
        if (!strcmp(name, names[i]))
            return (mn__position)i;
    fail_msg("no position term is called %s", name);
    return MN__POSITION_NONE;
}

static mn__keys keys_of(bench *b, const json_t *group, int n)
{
    return (mn__keys){.keys = input(b, "keys", n),
                      .values = input(b, "values", n),
                      .first = longs(b, "first", n),
                      .length = longs(b, "length", n),
                      .keep = bytes(b, "keep", n),
                      .query_segment = ints(b, "query_segment", n),
                      .key_segment = ints(b, "key_segment", n),
                      .mask = mask_of(json_string_value(json_object_get(group, "mask"))),
                      .offset = json_integer_value(json_object_get(group, "offset")),
                      .window = json_integer_value(json_object_get(group, "window")),
                      .position =
                          position_of(json_string_value(json_object_get(group, "position"))),
                      .slopes = floats(b, "slopes", n),
                      .table = input(b, "table", n),
                      .far = json_integer_value(json_object_get(group, "far")),
                      .relative = input(b, "relative", n),
                      .u = input(b, "u", n),
                      .v = input(b, "v", n),
                      .shaw_keys = input(b, "shaw_keys", n),
                      .shaw_values = input(b, "shaw_values", n),
                      .limit = json_integer_value(json_object_get(group, "limit")),
                      .bias = input(b, "bias", n)};
}

static mn__attention_args args_of(bench *b, const json_t *described)
{
    const json_t *groups = json_object_get(described, "groups");
    mn__attention_args args = {.queries = input(b, "queries", -1),
                               .scale =
                                   (float)json_number_value(json_object_get(described, "scale")),
                               .scales = input(b, "scales", -1),
                               .sink = input(b, "sink", -1),
                               .valid = longs(b, "valid", -1),
                               .groups = (int)json_array_size(groups),
                               .group_mass = zeros(b, elements(find(b, "group_mass", -1)))};
    for (int n = 0; n < args.groups; n++) {
        args.group[n] = keys_of(b, json_array_get(groups, (size_t)n), n);
        args.key_mass[n] = zeros(b, elements(find(b, "key_mass", n)));
    }
    return args;
}

/* loss = sum d_out * out */
static mn__var *loss_of(bench *b, mn__var *out)
{
    mn__tensor weights = out->value;
    weights.data = (void *)(uintptr_t)floats(b, "d_out", -1);
    mn__var *constant = mn__tape_constant(&b->tape, weights);
    return mn__op_sum(&b->tape, mn__op_multiply(&b->tape, out, constant));
}

static void check_gradients(bench *b, mn__var *out, double relative)
{
    mn_error error = {0};
    if (mn__tape_backward(&b->tape, loss_of(b, out), 1, &error) != MN_OK)
        fail_msg("%s: %s", b->name, error.message);
    for (int i = 0; i < b->inputs; i++) {
        char name[64];
        snprintf(name, sizeof name, "gradient.%s", b->input_name[i]);
        if (!b->input[i]->gradient)
            fail_msg("%s: %s has no gradient", b->name, b->input_name[i]);
        compare(b, name, -1, b->input[i]->gradient, relative);
    }
}

/* Queries beyond the valid ones have no log-sum-exp to compare. */
static void check_lse(const bench *b, const mn__attention_args *args, float *lse, double relative)
{
    const mn__tensor *q = &args->queries->value;
    const float *want = floats(b, "lse", -1);
    int64_t B = q->size[0], T = q->size[1], H = q->size[2];
    for (int64_t n = 0; n < B * H * T && args->valid; n++)
        if (n % T >= args->valid[n / (H * T)])
            lse[n] = want[n];
    compare(b, "lse", -1, lse, relative);
}

static void check_case(bench *b, const json_t *described)
{
    float *lse;
    mn__attention_args args = args_of(b, described);
    args.lse = &lse;
    mn__var *out = mn__op_attention(&b->tape, &args);
    if (!out)
        fail_msg("%s: %s", b->name, b->tape.error.message);
    double relative = tolerance(b);
    compare(b, "out", -1, out->value.data, relative);
    check_lse(b, &args, lse, relative);
    compare(b, "group_mass", -1, args.group_mass, relative);
    for (int n = 0; n < args.groups; n++)
        compare(b, "key_mass", n, args.key_mass[n], relative);
    check_gradients(b, out, 2 * relative);
}

static void check_gathered(bench *b, const json_t *described)
{
    (void)described;
    mn__var *queries = input(b, "queries", -1);
    mn__var *keys = input(b, "keys", -1), *values = input(b, "values", -1);
    float scale = 1 / sqrtf((float)queries->value.size[3]);
    mn__var *out = mn__op_gathered_attention(&b->tape, queries, keys, values, longs(b, "index", -1),
                                             scale, input(b, "scales", -1), 0);
    if (!out)
        fail_msg("%s: %s", b->name, b->tape.error.message);
    compare(b, "out", -1, out->value.data, tolerance(b));
    check_gradients(b, out, 2 * tolerance(b));
}

static void at_every_level(const golden *all, const char *name, const json_t *described,
                           void (*check)(bench *, const json_t *))
{
    for (int level = 0; level < MN__LEVELS && mn__kernel_table((mn__level)level); level++) {
        bench b = {.all = all, .name = name};
        op_device_open(&b.device, (mn__level)level);
        mn__params_init(&b.params, &b.device, 1);
        mn__tape_init(&b.tape, &b.params, MN__F32);
        b.tape.recording = true;
        check(&b, described);
        mn__tape_free(&b.tape);
        mn__params_free(&b.params);
        mn__device_close(&b.device);
    }
}

/* ---- Tests --------------------------------------------------------------- */

static void every_case(void **state)
{
    const golden *all = *state;
    const char *name;
    json_t *described;
    assert_true(json_object_size(all->cases) > 0);
    json_object_foreach(all->cases, name, described)
    {
        at_every_level(all, name, described, check_case);
    }
}

static void gathered_keys(void **state)
{
    at_every_level(*state, "gathered", NULL, check_gathered);
}

static void buckets_of_t5(void **state)
{
    const golden *all = *state;
    static const int64_t tables[2][2] = {{32, 128}, {8, 16}};
    for (int i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof name, "t5_buckets.%d.%d", (int)tables[i][0], (int)tables[i][1]);
        const mn__safetensor *want = mn__safetensors_find(all->file, name);
        assert_non_null(want);
        for (int64_t distance = 0; distance < elements(want); distance++)
            assert_int_equal(mn__t5_bucket(distance, tables[i][0], tables[i][1]),
                             ((const int32_t *)want->data)[distance]);
    }
}

static int open_golden(void **state)
{
    static golden all;
    mn_error error = {0};
    const char *path = MNEME_SOURCE_DIR "/tests/golden/attention.safetensors";
    if (mn__safetensors_open(&all.file, path, &error) != MN_OK) {
        print_error("%s\n", error.message);
        return -1;
    }
    const char *text = mn__safetensors_metadata(all.file, "cases");
    all.cases = text ? json_loads(text, 0, NULL) : NULL;
    *state = &all;
    return all.cases ? 0 : -1;
}

static int close_golden(void **state)
{
    golden *all = *state;
    json_decref(all->cases);
    mn__safetensors_close(all->file);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
        cmocka_unit_test(gathered_keys),
        cmocka_unit_test(buckets_of_t5),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
