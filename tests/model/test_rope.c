/* Frequencies of rotary positions against the published equations: numbers computed by
 * others (transformers' functions, checkpoints' own), what is left as it is and what is
 * scaled fully, the planned length, and options that make no sense. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/rope.h"
#include "support/model.h"

enum { WIDTH = 128, PAIRS = WIDTH / 2 };

/* float32's rounding of a frequency. */
static const double bound = 1e-7;

static const mn__rope_options usual = {.base = 10000,
                                       .width = WIDTH,
                                       .factor = 1,
                                       .fast = 32,
                                       .slow = 1,
                                       .truncate = true,
                                       .low = 1,
                                       .high = 4};

static mn__arena arena;

static int setup(void **state)
{
    (void)state;
    mn__arena_init(&arena, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mn__arena_free(&arena);
    return 0;
}

static mn__rope make(const mn__rope_options *options)
{
    mn_error error;
    mn__rope rope = {0};
    succeed(mn__rope_create(&rope, &arena, options, &error), &error);
    assert_int_equal(rope.pairs, options->width / 2);
    return rope;
}

static double plain(double base, int64_t i, int64_t width)
{
    return pow(base, -2.0 * (double)i / (double)width);
}

static void check_frequency(const mn__rope *rope, int64_t i, double expected)
{
    double got = (double)rope->frequencies[i];
    if (!(fabs(got - expected) <= bound * expected))
        fail_msg("pair %lld: %.9g, not %.9g", (long long)i, got, expected);
}

static void check_base(const mn__rope *rope, double base)
{
    for (int64_t i = 0; i < rope->pairs; i++)
        check_frequency(rope, i, plain(base, i, 2 * rope->pairs));
}

static void plain_and_linear(void **state)
{
    (void)state;
    mn__rope_options options = usual;
    mn__rope rope = make(&options);
    check_base(&rope, 10000);
    assert_true(rope.magnitude == 1.0f && !rope.interleaved);
    options.interleaved = true;
    assert_true(make(&options).interleaved);
    options.scaling = MN__ROPE_LINEAR;
    options.factor = 4;
    rope = make(&options);
    for (int64_t i = 0; i < PAIRS; i++)
        check_frequency(&rope, i, plain(10000, i, WIDTH) / 4);
    options.magnitude = 1.5;
    assert_true(make(&options).magnitude == 1.5f);
}

/* bloc97's fixed base; and transformers' growing one: 30527.7367 for 8192 tokens. */
static void scaled_bases(void **state)
{
    (void)state;
    mn__rope_options options = usual;
    options.factor = 2;
    options.scaling = MN__ROPE_NTK;
    mn__rope rope = make(&options);
    check_base(&rope, 10000 * pow(2, 128.0 / 126));
    options.scaling = MN__ROPE_DYNAMIC;
    options.original = 4096;
    options.length = 8192;
    rope = make(&options);
    assert_true(fabs(pow((double)rope.frequencies[32], -2) / 30527.7367 - 1) < 1e-6);
    check_base(&rope, 10000 * pow(3, 128.0 / 126));
    static const int64_t within[] = {0, 1, 4095, 4096};
    for (int i = 0; i < 4; i++) {
        options.length = within[i];
        rope = make(&options);
        check_base(&rope, 10000);
    }
    options.length = 4097;
    rope = make(&options);
    assert_true(rope.frequencies[63] < (float)plain(10000, 63, WIDTH));
}

/* Llama 3.1's: ratios of its frequencies to plain ones. */
static void llama3(void **state)
{
    (void)state;
    static const double middle[] = {.828168, .643743, .493507, .371122, .271425, .190211};
    mn__rope_options options = usual;
    options.base = 5e5;
    options.scaling = MN__ROPE_LLAMA3;
    options.factor = 8;
    options.original = 8192;
    mn__rope rope = make(&options);
    for (int64_t i = 0; i < PAIRS; i++) {
        double w = plain(5e5, i, WIDTH), ratio = (double)rope.frequencies[i] / w;
        if (i <= 28 || i >= 35)
            check_frequency(&rope, i, i <= 28 ? w : w / 8);
        else
            assert_true(fabs(ratio - middle[i - 29]) < 1e-6);
    }
    assert_true(rope.magnitude == 1.0f);
}

/* Pairs up to `from` are as they were, those from `to` on divided, in between a ramp. */
static void check_yarn(double base, int64_t original, double factor, int64_t from, int64_t to,
                       double magnitude)
{
    mn__rope_options options = usual;
    options.base = base;
    options.scaling = MN__ROPE_YARN;
    options.factor = factor;
    options.original = original;
    mn__rope rope = make(&options);
    for (int64_t i = 0; i < PAIRS; i++) {
        double w = plain(base, i, WIDTH);
        double r = i <= from ? 0 : i >= to ? 1 : (double)(i - from) / (double)(to - from);
        check_frequency(&rope, i, w * (1 - r) + w / factor * r);
    }
    assert_true(fabs((double)rope.magnitude - magnitude) < 1e-6);
}

static void yarn(void **state)
{
    (void)state;
    check_yarn(1e6, 32768, 4, 23, 40, 1.138629); /* Qwen's */
    check_yarn(1e4, 4096, 16, 20, 46, 1.277259); /* Llama 2's */
    mn__rope_options options = usual;
    options.scaling = MN__ROPE_YARN;
    options.factor = 16;
    options.original = 4096;
    options.truncate = false;
    mn__rope rope = make(&options);
    check_frequency(&rope, 20, plain(10000, 20, WIDTH)); /* the bounds are 20.94 and 45.03 */
    double r = (21 - 20.944482) / (45.026881 - 20.944482), w = plain(10000, 21, WIDTH);
    assert_true(fabs((double)rope.frequencies[21] / (w * (1 - r) + w / 16 * r) - 1) < 1e-6);
}

/* Phi-3's: 4096 tokens made to 131072. */
static void longrope(void **state)
{
    (void)state;
    double few[PAIRS], many[PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        few[i] = 1 + 0.01 * i;
        many[i] = 1 + i;
    }
    mn__rope_options options = usual;
    options.scaling = MN__ROPE_LONGROPE;
    options.factor = 131072 / 4096;
    options.original = 4096;
    options.short_factors = few;
    options.long_factors = many;
    static const int64_t lengths[] = {0, 4096, 4097};
    for (int n = 0; n < 3; n++) {
        options.length = lengths[n];
        mn__rope rope = make(&options);
        for (int64_t i = 0; i < PAIRS; i++)
            check_frequency(&rope, i, plain(10000, i, WIDTH) / (n < 2 ? few : many)[i]);
        assert_true(fabs((double)rope.magnitude - 1.190238) < 1e-6);
    }
    options.factor = 1;
    assert_true(make(&options).magnitude == 1.0f);
}

static void check_refused(const mn__rope_options *options, const char *part)
{
    mn_error error;
    mn__rope rope;
    assert_int_equal(mn__rope_create(&rope, &arena, options, &error), MN_ERROR_OPTION);
    assert_non_null(strstr(error.message, part));
    assert_true(*error.hint);
}

static void wrong_options(void **state)
{
    (void)state;
    mn__rope_options options = usual;
    options.width = 7;
    check_refused(&options, "rope_width 7");
    options = usual;
    options.scaling = MN__ROPE_LINEAR;
    options.factor = NAN;
    check_refused(&options, "rope_factor");
    options.factor = 2;
    options.scaling = MN__ROPE_YARN;
    check_refused(&options, "length of the first training");
    options.original = 4096;
    options.slow = 0;
    check_refused(&options, "rope_slow > 0");
    options.scaling = MN__ROPE_LLAMA3;
    options.low = 4;
    check_refused(&options, "no range");
    options.scaling = MN__ROPE_NTK;
    options.width = 2;
    check_refused(&options, "single pair");
    static const double factors[2] = {1, 0};
    options.scaling = MN__ROPE_LONGROPE;
    options.width = 4;
    options.short_factors = options.long_factors = factors;
    check_refused(&options, "not positive");
}

/* What recipes say comes to the frequencies; what makes no sense there is refused. */
static void recipes(void **state)
{
    (void)state;
    mn_error error;
    test_model model;
    test_model_open(&model,
                    "model: {depth: 1, width: 16, heads: 2, positions: rope, rope_width: 4,\n"
                    "  rope_scaling: longrope, rope_factor: 2, rope_original: 8, rope_length: 9,\n"
                    "  rope_short: [1, 2], rope_long: [2.5, 8], rope_interleaved: true}\n",
                    7, 8, 1);
    const mn__rope *rope = mn__decoder_attention(model.decoder, 0, 0)->rope;
    assert_int_equal(rope->pairs, 2);
    check_frequency(rope, 0, 1 / 2.5);
    check_frequency(rope, 1, 0.01 / 8);
    assert_true(rope->interleaved);
    test_model_close(&model);
    static const struct {
        const char *model, *part;
    } wrong[] = {
        {"positions: rope, rope_width: 10", "more than the head width 8"},
        {"positions: rope, rope_width: 3", "rope_width 3"},
        {"rope_scaling: yarn", "without rotary positions"},
        {"positions: rope, rope_scaling: longrope, rope_short: [1], rope_original: 4",
         "rope_short holds 1 factors for 4 pairs"},
        {"positions: rope, rope_scaling: longrope, rope_width: 2, rope_short: [1], "
         "rope_long: [x], rope_original: 4",
         "model.rope_long"},
        {"head_norm: true, layers: [{layers: [0], type: xl}]", "xl has no norm over its heads"},
        {"head_norm: true, layers: [{layers: [0], type: window, normalise: true}]",
         "normalise with model.head_norm"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char recipe[256];
        snprintf(recipe, sizeof recipe, "model: {depth: 1, width: 16, heads: 2, %s}\n",
                 wrong[i].model);
        mn_status status = test_model_try(&model, recipe, 7, 8, 1, &error);
        if (status != MN_ERROR_OPTION || !strstr(error.message, wrong[i].part))
            fail_msg("%s: %s, '%s'", wrong[i].model, mn_status_name(status), error.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(plain_and_linear, setup, teardown),
        cmocka_unit_test_setup_teardown(scaled_bases, setup, teardown),
        cmocka_unit_test_setup_teardown(llama3, setup, teardown),
        cmocka_unit_test_setup_teardown(yarn, setup, teardown),
        cmocka_unit_test_setup_teardown(longrope, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_options, setup, teardown),
        cmocka_unit_test(recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
