/* A trained model, stories260K (llama2.c's legacy file), with its weights kept in every form:
 * the perplexity of what it has written itself, 20,000 tokens drawn from a fixed seed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "model/pretrained.h"
#include "reader/session.h"
#include "support/model.h"

static const char checkpoint[] =
    MNEME_SOURCE_DIR "/../shared/data/weights/stories260K/checkpoint_legacy.bin";

enum { ROWS = 40, LENGTH = 500, V = 512 };

/* ---- Texts and their perplexity -------------------------------------------------------- */

typedef struct opened {
    mn__device device;
    mn__pretrained model;
    mn__session session;
} opened;

static void open_model(opened *o, mn__weights weights, mn__dtype compute, mn__kept kept)
{
    mn_error error;
    const mn__session_options options = {
        .rows = ROWS, .capacity = LENGTH, .chunk = 128, .compute = compute};
    succeed(mn__device_open(&o->device, &error), &error);
    succeed(mn__pretrained_open_as(&o->model, &o->device, checkpoint, 0, weights, false, &error),
            &error);
    succeed(mn__decoder_keep(o->model.decoder, kept, &error), &error);
    succeed(mn__session_open(&o->session, o->model.decoder, &o->model.params, &options, &error),
            &error);
}

static void close_model(opened *o)
{
    mn__session_close(&o->session);
    mn__pretrained_close(&o->model);
    mn__device_close(&o->device);
}

/* A token with the model's own probability. */
static int32_t choose(const float *logits, float u)
{
    double most = (double)logits[0], sum = 0;
    for (int v = 1; v < V; v++)
        most = fmax(most, (double)logits[v]);
    for (int v = 0; v < V; v++)
        sum += exp((double)logits[v] - most);
    double left = (double)u * sum;
    for (int32_t v = 0; v < V; v++)
        if ((left -= exp((double)logits[v] - most)) < 0)
            return v;
    return V - 1;
}

/* ids [ROWS, LENGTH + 1], from the start id 1 on. */
static void draw_texts(int32_t *ids)
{
    opened o;
    mn_error error;
    int32_t last[ROWS];
    open_model(&o, MN__WEIGHTS_MASTERS, MN__F32, MN__KEPT_AS_COMPUTED);
    for (int64_t r = 0; r < ROWS; r++)
        ids[r * (LENGTH + 1)] = last[r] = 1;
    for (int64_t t = 0; t < LENGTH; t++) {
        float u[ROWS];
        const mn__stretch one = {.T = 1, .ids = last};
        succeed(mn__session_read(&o.session, &one, &error), &error);
        const float *logits = mn__session_logits(&o.session, &error);
        assert_non_null(logits);
        for (int64_t r = 0; r < ROWS; r++) {
            mn__random_key key = {.seed = 11, .operation = (uint32_t)t};
            u[r] = (float)mn__random_below(key, (uint64_t)r, 1 << 24) / (1 << 24);
            ids[r * (LENGTH + 1) + t + 1] = last[r] = choose(logits + r * V, u[r]);
        }
    }
    close_model(&o);
}

static double perplexity(const int32_t *texts, mn__weights weights, mn__dtype compute,
                         mn__kept kept)
{
    opened o;
    mn_error error;
    static int32_t ids[ROWS * LENGTH], targets[ROWS * LENGTH];
    static float ones[ROWS * LENGTH], losses[ROWS * LENGTH];
    double sum = 0;
    for (int64_t i = 0; i < ROWS * LENGTH; i++) {
        const int32_t *at = texts + i / LENGTH * (LENGTH + 1) + i % LENGTH;
        ids[i] = at[0];
        targets[i] = at[1];
        ones[i] = 1;
    }
    const mn__stretch all = {
        .T = LENGTH, .ids = ids, .targets = targets, .weights = ones, .losses = losses};
    open_model(&o, weights, compute, kept);
    succeed(mn__session_read(&o.session, &all, &error), &error);
    close_model(&o);
    for (int64_t i = 0; i < ROWS * LENGTH; i++)
        sum += (double)losses[i];
    return exp(sum / (ROWS * LENGTH));
}

/* int8 is within 0.5% of f32. bf16 rounds by 2^-9, as often as int8 by about as much. Of 4
 * bits the rise is told, and has to be one. Keys and values in fewer bits are rounded as little
 * as weights in as many. */
static void every_form(void **state)
{
    (void)state;
    static const struct {
        mn__weights weights;
        mn__dtype compute;
        double least, most; /* over f32's */
        mn__kept kept;
    } forms[] = {{MN__WEIGHTS_F32, MN__F32, 1 - 1e-5, 1 + 1e-5, MN__KEPT_AS_COMPUTED},
                 {MN__WEIGHTS_F16, MN__F32, 0.9995, 1.0005, MN__KEPT_AS_COMPUTED},
                 {MN__WEIGHTS_BF16, MN__BF16, 0.995, 1.005, MN__KEPT_AS_COMPUTED},
                 {MN__WEIGHTS_INT8, MN__F32, 0.995, 1.005, MN__KEPT_AS_COMPUTED},
                 {MN__WEIGHTS_INT8, MN__BF16, 0.995, 1.005, MN__KEPT_AS_COMPUTED},
                 {MN__WEIGHTS_INT4, MN__F32, 1, 1.5, MN__KEPT_AS_COMPUTED},
                 {MN__WEIGHTS_INT4, MN__BF16, 1, 1.5, MN__KEPT_AS_COMPUTED},
                 {MN__WEIGHTS_F32, MN__F32, 0.995, 1.005, MN__KEPT_BF16},
                 {MN__WEIGHTS_F32, MN__F32, 0.995, 1.005, MN__KEPT_INT8},
                 {MN__WEIGHTS_BF16, MN__BF16, 0.995, 1.005, MN__KEPT_INT8}};
    static int32_t texts[ROWS * (LENGTH + 1)];
    draw_texts(texts);
    double plain = perplexity(texts, MN__WEIGHTS_MASTERS, MN__F32, MN__KEPT_AS_COMPUTED);
    print_message("f32: %.4f\n", plain);
    assert_true(plain > 1.5 && plain < 10);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        double over = perplexity(texts, forms[i].weights, forms[i].compute, forms[i].kept) / plain;
        print_message("%s, products in %s, keys and values in %s: %+.3f%%\n",
                      mn__weights_name(forms[i].weights), mn__dtype_name(forms[i].compute),
                      mn__kept_name(forms[i].kept), 100 * (over - 1));
        assert_true(over > forms[i].least && over < forms[i].most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_form)};
    if (!mn__file_exists(checkpoint)) {
        printf("skipped: no %s\n", checkpoint);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
