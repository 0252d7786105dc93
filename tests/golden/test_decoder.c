/* GPT-like decoders against PyTorch: logits, losses, every gradient, ten steps
 * of training. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "optim/clip.h"
#include "optim/optimizer.h"
#include "support/golden.h"

enum { B = 2, T = 17, V = 48, STEPS = 10 };

/* Rounding of float32: the fixtures say what PyTorch's own is, about 5e-7. */
static const double bound = 4e-6, bound_trained = 4e-4;

static const char gpt[] = "model: {depth: 2, width: 32, heads: 4, hidden: 56, norm: layer,\n"
                          "  activation: gelu_tanh, bias: true, attention_bias: true,\n"
                          "  positions: learned, max_positions: 17, norm_epsilon: 1e-5}\n"
                          "attention: {type: full}\n";
static const char llama[] = "model: {depth: 2, width: 32, heads: 4, kv_heads: 2, hidden: 56,\n"
                            "  norm: rms, activation: silu, gated: true, positions: rope,\n"
                            "  tied: false, norm_epsilon: 1e-6}\n"
                            "attention: {type: full}\n";
static const char post[] = "model: {depth: 2, width: 32, heads: 4, hidden: 56, norm: layer,\n"
                           "  norm_place: post, activation: relu, bias: true,\n"
                           "  positions: learned, max_positions: 17, norm_epsilon: 1e-5,\n"
                           "  scale_embedding: true}\n"
                           "attention: {type: full}\n";

static const bool start[B] = {true, true};

static mn__var *forward(golden *test, mn__states *states, const int32_t *ids)
{
    mn__segment segment = {.B = B, .T = T, .start = start};
    mn__var *hidden = mn__decoder_forward(test->decoder, &test->tape, &segment, ids, states);
    assert_non_null(hidden);
    return hidden;
}

static void check_logits(golden *test, mn__states *states)
{
    int32_t every[B * T];
    for (int32_t i = 0; i < B * T; i++)
        every[i] = i;
    mn__var *hidden = forward(test, states, golden_ids(test, "ids"));
    mn__var *logits = mn__decoder_logits(test->decoder, &test->tape, hidden, every, B * T);
    assert_non_null(logits);
    golden_close_to("logits", logits->value.data, golden_tensor(test, "logits"), bound);
    mn__tape_reset(&test->tape);
}

/* Loss and gradients of sum(weights * nats) * scale. */
static float step(golden *test, mn__states *states, const int32_t *ids, const int32_t *targets,
                  const float *weights, float scale, float *losses)
{
    mn_error error;
    test->tape.recording = true;
    mn__params_clear_gradients(&test->params);
    mn__var *hidden = forward(test, states, ids);
    mn__var *loss =
        mn__decoder_loss(test->decoder, &test->tape, hidden, targets, weights, scale, 0.0f, losses);
    assert_non_null(loss);
    assert_int_equal(mn__tape_backward(&test->tape, loss, 1.0f, &error), MN_OK);
    float value = *(const float *)loss->value.data;
    mn__tape_reset(&test->tape);
    test->tape.recording = false;
    return value;
}

static void check_gradients(golden *test, mn__states *states)
{
    const float *weights = golden_floats(test, "loss_weights");
    float sum = 0, losses[B * T];
    for (int i = 0; i < B * T; i++)
        sum += weights[i];
    float loss = step(test, states, golden_ids(test, "ids"), golden_ids(test, "targets"), weights,
                      1.0f / sum, losses);
    golden_close_to("loss", &loss, golden_tensor(test, "loss_mean"), bound);
    const float *nll = golden_floats(test, "nll");
    for (int i = 0; i < B * T; i++)
        if (weights[i] != 0.0f)
            assert_float_equal(losses[i], nll[i], 1e-5);
    golden_check_params(test, "gradient.", true, bound);
}

static void check_training(golden *test, mn__states *states)
{
    mn_error error;
    mn__arena arena;
    mn__arena_init(&arena, 0);
    mn__optimizer_options options;
    assert_int_equal(mn__options_default(mn__optimizer_option_table, &options, &arena, &error),
                     MN_OK);
    options.type = MN__OPTIMIZER_ADAMW;
    options.beta1 = 0.9;
    options.beta2 = 0.95;
    options.epsilon = 1e-8;
    options.decay = 0.1;
    options.decay_vectors = true;
    mn__optimizer optimizer;
    assert_int_equal(mn__optimizer_open(&optimizer, &test->params, &options, &error), MN_OK);
    float ones[B * T], losses[STEPS], norms[STEPS];
    for (int i = 0; i < B * T; i++)
        ones[i] = 1.0f;
    for (int64_t n = 0; n < STEPS; n++) {
        const mn__param *culprit;
        losses[n] =
            step(test, states, golden_ids(test, "training.ids") + n * B * T,
                 golden_ids(test, "training.targets") + n * B * T, ones, 1.0f / (B * T), NULL);
        double norm = mn__gradients_norm(&test->params, &culprit);
        norms[n] = (float)norm;
        mn__optimizer_update(&optimizer, 1e-3, mn__clip_factor(norm, 1.0));
    }
    golden_close_to("training losses", losses, golden_tensor(test, "training.losses"), bound);
    golden_close_to("gradient norms", norms, golden_tensor(test, "training.norms"), 10 * bound);
    golden_check_params(test, "final.", false, bound_trained);
    mn__optimizer_close(&optimizer);
    mn__arena_free(&arena);
}

static void check(const char *file, const char *recipe)
{
    golden test;
    mn__states states;
    mn_error error;
    golden_open(&test, file, recipe, V, T);
    assert_int_equal(mn__decoder_states_open(test.decoder, &states, B, 0, MN__F32, &error), MN_OK);
    check_logits(&test, &states);
    check_gradients(&test, &states);
    check_training(&test, &states);
    mn__states_close(&states);
    golden_close(&test);
}

static void test_gpt(void **state)
{
    (void)state;
    check("decoder_gpt.safetensors", gpt);
}

static void test_llama(void **state)
{
    (void)state;
    check("decoder_llama.safetensors", llama);
}

static void test_post(void **state)
{
    (void)state;
    check("decoder_post.safetensors", post);
}

/* Blocks run again in backward give the same. */
static void test_recompute(void **state)
{
    (void)state;
    char recipe[1024];
    size_t brace = strcspn(llama, "{");
    memcpy(recipe, llama, brace + 1);
    strcpy(recipe + brace + 1, "recompute: true, ");
    strcat(recipe, llama + brace + 1);
    check("decoder_llama.safetensors", recipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt),
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_post),
        cmocka_unit_test(test_recompute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
