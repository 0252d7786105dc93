/* The Routing Transformer, naive, against PyTorch: choices, outputs, the task's
 * and the commitment's gradients apart, statistics and the centroids' update;
 * that the published form looks ahead and the strict one does not; padding. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/naive.h"
#include "support/layer.h"

enum { B = 2, T = 24, C = 32, H = 4, D = 8, ROUTING = 2, CLUSTERS = 4, WINDOW = 6 };
enum { NEAREST = B * ROUTING * T, MEMBERS = B * ROUTING * CLUSTERS * WINDOW };

static const double bound = 4e-6;

static void open(layer_test *test, int window, bool strict)
{
    char options[160];
    snprintf(options, sizeof options,
             "{routing_heads: 2, clusters: 4, window: %d, block: 6, max_relative: 5, beta: 0.1,"
             " decay: 0.9, strict: %s}",
             window, strict ? "true" : "false");
    mn__attention layer = {.C = C, .H = H, .G = H, .D = D, .segment = T};
    layer_open(test, "routing.safetensors", &naive_routing, options, layer, B);
    layer_load(test);
}

static void check_indices(layer_test *test, const char *name, const int32_t *got)
{
    const mn__safetensor *expected = golden_tensor(&test->fixture, "%s", name);
    assert_memory_equal(got, expected->data, (size_t)expected->bytes);
}

static void check_statistic(layer_test *test, const mn__param *buffer, const char *name)
{
    const mn__safetensor *expected = golden_tensor(&test->fixture, "%s", name);
    assert_int_equal(mn__tensor_bytes(&buffer->value), expected->bytes);
    golden_close_to(name, buffer->statistic, expected, bound);
}

static void check_buffers(layer_test *test)
{
    static const char *const names[] = {"counts", "sums", "centroids"};
    char ours[64], theirs[64];
    for (int i = 0; i < 3; i++) {
        snprintf(ours, sizeof ours, "layer.%s", names[i]);
        snprintf(theirs, sizeof theirs, "after.%s", names[i]);
        layer_check(test, &mn__params_find(&test->fixture.params, ours)->value, theirs, bound);
    }
}

/* One forward pass of the fixture's x on a recording tape. */
static mn__var *run(layer_test *test, mn__segment *segment, mn__var **x)
{
    layer_begin(test);
    *x = layer_input(test, "x");
    *segment = (mn__segment){.B = B, .T = T};
    return layer_forward(test, segment, *x);
}

static void check_input(layer_test *test, const mn__var *x, const char *name)
{
    assert_non_null(x->gradient);
    golden_close_to(name, x->gradient, golden_tensor(&test->fixture, "%s", name), bound);
}

static void test_layer(void **state)
{
    (void)state;
    layer_test test;
    mn__segment segment;
    mn__var *x;
    int32_t kept[NEAREST + 2 * MEMBERS];
    open(&test, WINDOW, false);
    mn__tape *tape = &test.fixture.tape;
    mn__choices choices = {.index = kept, .capacity = NEAREST + 2 * MEMBERS};
    tape->choices = &choices;
    mn__var *out = run(&test, &segment, &x);
    assert_int_equal(choices.next, choices.capacity);
    check_indices(&test, "nearest", kept);
    check_indices(&test, "index", kept + NEAREST + MEMBERS);
    layer_check(&test, &out->value, "out", bound);
    layer_backward(&test, layer_dot(&test, out, layer_constant(&test, "d_out")));
    layer_check_gradients(&test, "gradient.", true, bound);
    check_input(&test, x, "gradient.x");

    /* Replayed, the choices are those of the first run. */
    choices.replaying = true;
    choices.next = 0;
    run(&test, &segment, &x);
    mn__var *auxiliary = mn__segment_losses(tape, &segment);
    assert_string_equal(segment.auxiliary.name[0], "commitment");
    layer_check(&test, &auxiliary->value, "auxiliary", bound);
    layer_backward(&test, auxiliary);
    layer_check_gradients(&test, "gradient_auxiliary.", true, bound);
    check_input(&test, x, "gradient_auxiliary.x");
    layer_close(&test);
}

static void test_update(void **state)
{
    (void)state;
    layer_test test;
    mn__segment segment;
    mn__var *x;
    mn_error error;
    open(&test, WINDOW, false);
    mn__params *params = &test.fixture.params;
    mn__tape *tape = &test.fixture.tape;
    run(&test, &segment, &x);
    layer_commit(&test, &segment, false);
    check_statistic(&test, mn__params_find(params, "layer.counts"), "statistics.count");
    check_statistic(&test, mn__params_find(params, "layer.sums"), "statistics.sum");
    mn__tape_reset(tape);
    tape->recording = tape->training = false;
    naive_routing.update(&test.attention, tape);
    assert_int_equal(mn__tape_status(tape, &error), MN_OK);
    check_buffers(&test);

    /* Outside training nothing is added. */
    mn__params_clear_gradients(params);
    mn__segment read = {.B = B, .T = T};
    layer_forward(&test, &read, layer_constant(&test, "x"));
    layer_commit(&test, &read, false);
    const mn__param *counts = mn__params_find(params, "layer.counts");
    for (int i = 0; i < ROUTING * CLUSTERS; i++)
        assert_true(counts->statistic[i] == 0.0f);
    layer_close(&test);
}

/* ---- In a model ------------------------------------------------------------------ */

enum { V = 11 };

static void open_model(golden *test)
{
    static const mn__attention_type *const types[] = {&naive_routing, NULL};
    static const char recipe[] =
        "model: {depth: 2, width: 32, heads: 4, initial_deviation: 0.2}\n"
        "attention: {type: naive_routing, clusters: 3, window: 8, block: 6, max_relative: 5}\n";
    mn_error error;
    mn__yaml_node *parsed;
    *test = (golden){0};
    mn__attention_add_types(types);
    mn__arena_init(&test->arena, 0);
    assert_int_equal(
        mn__yaml_parse(&test->arena, "recipe", recipe, sizeof recipe - 1, &parsed, &error), MN_OK);
    assert_int_equal(mn__device_open(&test->device, &error), MN_OK);
    mn__params_init(&test->params, &test->device, 1);
    assert_int_equal(mn__decoder_new(&test->decoder, &test->params, mn__yaml_get(parsed, "model"),
                                     mn__yaml_get(parsed, "attention"), V, T, &error),
                     MN_OK);
    assert_int_equal(mn__params_prepare_gradients(&test->params, &error), MN_OK);
    mn__tape_init(&test->tape, &test->params, MN__F32);
}

/* One micro-batch: statistics are added where `training`. */
static void micro_batch(golden *test, mn__states *states, bool training)
{
    int32_t ids[B * T];
    for (int32_t i = 0; i < B * T; i++)
        ids[i] = i * i % V;
    mn__segment segment = {.B = B, .T = T};
    test->tape.recording = test->tape.training = training;
    assert_non_null(mn__decoder_forward(test->decoder, &test->tape, &segment, ids, states));
    if (training)
        assert_non_null(mn__segment_losses(&test->tape, &segment));
    assert_int_equal(segment.auxiliary.count, training ? 1 : 0);
    mn__decoder_commit(test->decoder, &test->tape, &segment, states, false);
    mn__tape_reset(&test->tape);
}

static double sum_of(const float *values, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)values[i];
    return sum;
}

/* Micro-batches add up, reading adds nothing, an update moves the buffers of
 * every layer once. */
static void test_model(void **state)
{
    (void)state;
    golden test;
    mn__states states;
    mn_error error;
    open_model(&test);
    assert_true(mn__decoder_looks_ahead(test.decoder));
    assert_int_equal(mn__decoder_states_open(test.decoder, &states, B, 0, MN__F32, &error), MN_OK);
    const mn__param *counts = mn__params_find(&test.params, "layers.1.attention.counts");
    int64_t n = mn__tensor_elements(&counts->value);
    micro_batch(&test, &states, true);
    micro_batch(&test, &states, false);
    micro_batch(&test, &states, true);
    assert_true(sum_of(counts->statistic, n) == 2 * ROUTING * B * T);
    assert_true(sum_of(counts->value.data, n) == 0);
    assert_int_equal(mn__decoder_update(test.decoder, &test.tape, &error), MN_OK);
    mn__params_clear_gradients(&test.params);
    double once = sum_of(counts->value.data, n);
    assert_true(fabs(once - 0.001 * 2 * ROUTING * B * T) <= 1e-6 * once);
    assert_true(sum_of(counts->statistic, n) == 0);
    mn__states_close(&states);
    golden_close(&test);
    mn__attention_add_types(NULL);
}

/* ---- Causality ------------------------------------------------------------------- */

/* Outputs [B, T, C] for the fixture's x, whose token `at` is changed (-1: none),
 * read in pieces. */
static void read_pieces(layer_test *test, int64_t at, int64_t piece, float *out)
{
    mn__tape *tape = &test->fixture.tape;
    const float *x = golden_floats(&test->fixture, "x");
    static float part[B * T * C];
    mn__states_start(&test->states, NULL);
    for (int64_t from = 0, count; from < T; from += count) {
        count = T - from < piece ? T - from : piece;
        for (int64_t i = 0; i < B * count * C; i++) {
            int64_t b = i / (count * C), t = from + i / C % count, c = i % C;
            part[i] = x[(b * T + t) * C + c] * (t == at ? -1.0f : 1.0f);
        }
        mn__segment segment = {.B = B, .T = count};
        mn__tensor value = mn__tensor_of(part, MN__F32, 3, (int64_t[]){B, count, C});
        mn__var *y = layer_forward(test, &segment, mn__tape_constant(tape, value));
        for (int64_t i = 0; i < B * count * C; i++)
            out[(i / (count * C) * T + from) * C + i % (count * C)] =
                ((const float *)y->value.data)[i];
        layer_commit(test, &segment, false);
        mn__tape_reset(tape);
    }
}

/* The largest change of an output before token `at`. */
static double leak(layer_test *test, int64_t at)
{
    static float base[B * T * C], changed[B * T * C];
    double largest = 0;
    read_pieces(test, -1, T, base);
    read_pieces(test, at, T, changed);
    for (int64_t i = 0; i < B * T * C; i++)
        if (i / C % T < at)
            largest = fmax(largest, fabs((double)(base[i] - changed[i])));
    return largest;
}

/* The negative test: later tokens push earlier ones out of clusters. */
static void test_published_form_leaks(void **state)
{
    (void)state;
    layer_test test;
    open(&test, WINDOW, false);
    assert_true(naive_routing.looks_ahead(&test.attention));
    assert_true(leak(&test, T - 1) > 1e-2);
    layer_close(&test);
}

static void test_strict_form_is_causal(void **state)
{
    (void)state;
    layer_test test;
    static float whole[B * T * C], pieces[B * T * C];
    open(&test, WINDOW, true);
    assert_false(naive_routing.looks_ahead(&test.attention));
    for (int64_t at = 3; at < T; at += 4)
        assert_true(leak(&test, at) == 0);
    read_pieces(&test, -1, T, whole);
    for (int64_t piece = 1; piece <= 7; piece += 6) {
        read_pieces(&test, -1, piece, pieces);
        for (int64_t i = 0; i < B * T * C; i++)
            assert_true(fabs((double)(whole[i] - pieces[i])) <= 1e-5);
    }
    layer_close(&test);
}

/* A cluster that holds the whole sequence chooses nothing: both forms agree. */
static void test_forms_agree_without_choice(void **state)
{
    (void)state;
    layer_test test;
    static float out[2][B * T * C];
    for (int strict = 0; strict < 2; strict++) {
        open(&test, T, strict);
        read_pieces(&test, -1, T, out[strict]);
        if (!strict)
            assert_true(leak(&test, T / 2) <= 1e-5);
        layer_close(&test);
    }
    for (int64_t i = 0; i < B * T * C; i++)
        assert_true(fabs((double)(out[0][i] - out[1][i])) <= 1e-5);
}

/* ---- Padding --------------------------------------------------------------------- */

/* Rows of 17 and 24 tokens: what padding holds changes no real output, no loss
 * and no statistic. */
static void test_padding(void **state)
{
    (void)state;
    layer_test test;
    static float x[B * T * C];
    float out[2][B * T * C], loss[2], counts[2][ROUTING * CLUSTERS];
    const int64_t valid[B] = {17, T};
    open(&test, WINDOW, false);
    for (int filled = 0; filled < 2; filled++) {
        layer_begin(&test);
        memcpy(x, golden_floats(&test.fixture, "x"), sizeof x);
        for (int64_t i = valid[0] * C; i < T * C; i++)
            x[i] = filled ? 9.0f - (float)(i % 7) : 0.0f;
        mn__segment segment = {.B = B, .T = T, .valid = valid};
        mn__tensor value = mn__tensor_of(x, MN__F32, 3, (int64_t[]){B, T, C});
        mn__var *y = layer_forward(&test, &segment, mn__tape_input(&test.fixture.tape, value));
        memcpy(out[filled], y->value.data, sizeof *out);
        loss[filled] = *(float *)mn__segment_losses(&test.fixture.tape, &segment)->value.data;
        layer_commit(&test, &segment, false);
        memcpy(counts[filled], mn__params_find(&test.fixture.params, "layer.counts")->statistic,
               sizeof *counts);
    }
    assert_memory_equal(out[0], out[1], (size_t)(valid[0] * C) * sizeof(float));
    assert_memory_equal(out[0] + T * C, out[1] + T * C, T * C * sizeof(float));
    assert_true(loss[0] == loss[1]);
    float tokens = 0;
    for (int i = 0; i < ROUTING * CLUSTERS; i++) {
        assert_true(counts[0][i] == counts[1][i]);
        tokens += counts[0][i];
    }
    assert_true(tokens == (float)(ROUTING * (17 + T)));
    layer_close(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer),
        cmocka_unit_test(test_update),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_published_form_leaks),
        cmocka_unit_test(test_strict_form_is_causal),
        cmocka_unit_test(test_forms_agree_without_choice),
        cmocka_unit_test(test_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
