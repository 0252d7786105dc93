/* The plan of a reading against the reading itself: weights, state, activations and the
 * session's file to the byte, products by their formula; what does not fit is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/pretrained.h"
#include "reader/plan.h"
#include "reader/session.h"
#include "support/folder.h"
#include "support/model.h"

enum { TOKENS = 48, CHUNK = 20 };

static const char *golden(char path[512], const char *family)
{
    snprintf(path, 512, "%s/tests/golden/pretrained/%s", MNEME_SOURCE_DIR, family);
    return path;
}

static void make_plan(const char *family, mn__dtype compute, mn__kept kept, mn__read_plan *plan)
{
    char path[512];
    mn_error error;
    mn__device device;
    mn__pretrained model;
    succeed(mn__device_open_counting(&device, &error), &error);
    succeed(mn__pretrained_open(&model, &device, golden(path, family), TOKENS, &error), &error);
    succeed(mn__decoder_keep(model.decoder, kept, &error), &error);
    succeed(mn__read_plan_make(plan, model.decoder, &model.params, TOKENS, CHUNK, compute, &error),
            &error);
    mn__pretrained_close(&model);
    mn__device_close(&device);
}

/* Reads as was planned, and saves. */
static void check_reading(const char *folder, const char *family, mn__dtype compute, mn__kept kept)
{
    char path[512];
    mn_error error;
    mn__device device;
    mn__pretrained model;
    mn__session session;
    mn__read_plan plan;
    int32_t ids[TOKENS] = {0};
    int64_t bytes;
    make_plan(family, compute, kept, &plan);
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__pretrained_open(&model, &device, golden(path, family), TOKENS, &error), &error);
    succeed(mn__decoder_keep(model.decoder, kept, &error), &error);
    const mn__session_options options = {
        .rows = 1, .capacity = TOKENS, .chunk = CHUNK, .compute = compute};
    succeed(mn__session_open(&session, model.decoder, &model.params, &options, &error), &error);
    const mn__stretch text = {.T = TOKENS, .ids = ids};
    succeed(mn__session_read(&session, &text, &error), &error);
    assert_non_null(mn__session_logits(&session, &error));
    assert_int_equal(plan.parameters, mn__params_elements(&model.params));
    assert_int_equal(plan.weights + plan.copies,
                     model.params.store.arena.used + model.params.nodes.used);
    assert_true((plan.copies > 0) == (compute == MN__BF16));
    assert_int_equal(plan.state, mn__states_bytes(&session.states));
    int64_t tape = session.tape.values.arena.peak + session.tape.kept.arena.peak;
    assert_true(plan.activations >= tape && plan.activations <= tape + (1 << 16));
    const char *file = folder_path(folder, "%s.session", family);
    succeed(mn__session_save(&session, file, "fingerprint", &error), &error);
    succeed(mn__file_size(file, &bytes, &error), &error);
    assert_true(bytes >= plan.session && bytes <= plan.session + 4096);
    mn__session_close(&session);
    mn__pretrained_close(&model);
    mn__device_close(&device);
}

static void readings(void **state)
{
    static const char *const families[] = {"llama", "mistral", "qwen3", "glm4", "gpt2"};
    for (int i = 0; i < 5; i++)
        for (int kept = MN__KEPT_AS_COMPUTED; kept <= MN__KEPT_INT8; kept++) {
            check_reading(*state, families[i], MN__F32, (mn__kept)kept);
            check_reading(*state, families[i], MN__BF16, (mn__kept)kept);
        }
}

/* Matrices of each layer for every token, the head for the last; of a causal text every
 * pair of tokens in two products. */
static void work(void **state)
{
    (void)state;
    const double C = 32, H = 4, G = 2, D = 8, F = 44, V = 61, L = 2, T = TOKENS;
    mn__read_plan plan;
    make_plan("llama", MN__F32, MN__KEPT_AS_COMPUTED, &plan);
    double layer = C * H * D + C * 2 * G * D + H * D * C + C * 2 * F + F * C;
    assert_true(plan.products == 2 * (L * layer * T + C * V));
    assert_true(plan.attention == 4 * L * H * D * T * (T + 1) / 2);
    assert_int_equal(plan.state_per_thousand, 1000 * 2 * 2 * 16 * 4);
    make_plan("llama", MN__F32, MN__KEPT_INT8, &plan); /* a block for each head */
    assert_int_equal(plan.state_per_thousand, 1000 * 2 * 2 * 2 * 34);
}

static void refusals(void **state)
{
    (void)state;
    mn_error error;
    mn__read_plan plan = {.tokens = 9, .total = 2 << 20, .available = 1 << 20};
    assert_int_equal(mn__read_plan_check(&plan, &error), MN_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "9 tokens needs 2 MiB and there are 1"));
    plan.available = -1;
    assert_int_equal(mn__read_plan_check(&plan, &error), MN_OK);
    plan.available = plan.total;
    assert_int_equal(mn__read_plan_check(&plan, &error), MN_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readings),
        cmocka_unit_test(work),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
