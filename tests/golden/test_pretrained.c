/* Pretrained models of every family against transformers: logits of tiny folders with
 * random weights (pretrained/FAMILY, made by make_pretrained.py), read whole, in pieces and
 * token by token; choices in bf16; of every way to stretch rotary positions, beyond the length at
 * which it begins to. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/safetensors.h"
#include "model/pretrained.h"
#include "support/folder.h"
#include "support/model.h"

enum { TOKENS = 48 };

/* Of the largest logit; float32's rounding over two layers, of both programs, with room. */
static const double bound = 2e-5;

static const char *const families[] = {"llama", "mistral", "qwen2", "qwen3", "phi3",     "glm",
                                       "glm4",  "chatglm", "gpt2",  "opt",   "opt_post", "smollm3"};
enum { FAMILIES = sizeof families / sizeof *families };

static const char *temporary;

static int setup(void **state)
{
    int status = folder_make(state);
    temporary = *state;
    return status;
}

static const char *golden_path(char path[512], const char *family, const char *file)
{
    snprintf(path, 512, "%s/tests/golden/pretrained/%s%s%s", MNEME_SOURCE_DIR, family,
             *file ? "/" : "", file);
    return path;
}

/* ---- Logits -------------------------------------------------------------------------------- */

/* Of n tokens, in segments of at most `piece`: [n, V]. */
static void read_logits(mn__pretrained *model, mn__dtype compute, const int32_t *ids, int64_t n,
                        int64_t piece, float *logits)
{
    mn_error error;
    mn__states states;
    mn__tape tape;
    int32_t every[TOKENS];
    int64_t V = model->config.vocabulary;
    for (int32_t i = 0; i < TOKENS; i++)
        every[i] = i;
    mn__tape_init(&tape, &model->params, compute);
    succeed(mn__decoder_states_open(model->decoder, &states, 1, n, compute, &error), &error);
    for (int64_t t = 0, count; t < n; t += count) {
        bool start = t == 0;
        count = n - t < piece ? n - t : piece;
        mn__segment segment = {.B = 1, .T = count, .start = &start};
        mn__var *hidden = mn__decoder_forward(model->decoder, &tape, &segment, ids + t, &states);
        mn__var *out = mn__decoder_logits(model->decoder, &tape, hidden, every, count);
        succeed(mn__tape_status(&tape, &error), &error);
        memcpy(logits + t * V, out->value.data, (size_t)(count * V) * sizeof *logits);
        mn__decoder_commit(model->decoder, &tape, &segment, &states, false);
        mn__tape_reset(&tape);
    }
    mn__states_close(&states);
    mn__tape_free(&tape);
}

/* expected: logits of every `stride`-th of the first tokens, from stride - 1 on. */
static void check_logits(mn__pretrained *model, const char *what, const int32_t *ids,
                         const mn__safetensor *expected, int64_t stride)
{
    static const int64_t pieces[] = {TOKENS, 7, 1};
    int64_t V = model->config.vocabulary, rows = expected->size[0], n = rows * stride;
    const float *right = expected->data;
    float *logits = malloc((size_t)(n * V) * sizeof *logits), most = 0;
    assert_non_null(logits);
    assert_int_equal(expected->size[1], V);
    for (int64_t i = 0; i < rows * V; i++)
        most = fmaxf(most, fabsf(right[i]));
    for (int p = 0; p < 3; p++) {
        read_logits(model, MN__F32, ids, n, pieces[p], logits);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t v = 0; v < V; v++) {
                double got = (double)logits[((r + 1) * stride - 1) * V + v];
                if (!(fabs(got - (double)right[r * V + v]) <= bound * (double)most))
                    fail_msg("%s in pieces of %lld, token %lld, id %lld: %g, not %g", what,
                             (long long)pieces[p], (long long)((r + 1) * stride - 1), (long long)v,
                             got, (double)right[r * V + v]);
            }
    }
    free(logits);
}

static int64_t largest(const float *logits, int64_t V)
{
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++)
        best = logits[v] > logits[best] ? v : best;
    return best;
}

/* In bf16 the most probable id is the same wherever it leads by more than bf16's rounding,
 * of 2^-9 at each of some ten steps of each layer: 2^-5 of the largest logit. */
static void check_choices(mn__pretrained *model, const char *what, const int32_t *ids,
                          const mn__safetensor *expected)
{
    int64_t V = model->config.vocabulary, sure = 0, same = 0;
    const float *right = expected->data;
    float *logits = malloc((size_t)(TOKENS * V) * sizeof *logits), most = 0;
    assert_non_null(logits);
    for (int64_t i = 0; i < TOKENS * V; i++)
        most = fmaxf(most, fabsf(right[i]));
    read_logits(model, MN__BF16, ids, TOKENS, TOKENS, logits);
    for (int64_t t = 0; t < TOKENS; t++) {
        const float *row = right + t * V;
        int64_t best = largest(row, V);
        float second = -INFINITY;
        for (int64_t v = 0; v < V; v++)
            second = v != best && row[v] > second ? row[v] : second;
        if (row[best] - second <= 0x1p-5f * most)
            continue;
        sure++;
        same += largest(logits + t * V, V) == best;
    }
    if (2 * sure < TOKENS || 100 * same < 99 * sure)
        fail_msg("%s in bf16: %lld of %lld sure choices are the same", what, (long long)same,
                 (long long)sure);
    free(logits);
}

static void check_folder(const char *folder, const char *what, const char *family,
                         const char *tensor, int64_t stride, int64_t tokens)
{
    char path[512];
    mn_error error;
    mn__device device;
    mn__pretrained model;
    mn__safetensors *file;
    succeed(mn__safetensors_open(&file, golden_path(path, family, "expected.safetensors"), &error),
            &error);
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__pretrained_open(&model, &device, folder, tokens, &error), &error);
    const mn__safetensor *expected = mn__safetensors_find(file, tensor);
    assert_non_null(expected);
    check_logits(&model, what, mn__safetensors_find(file, "ids")->data, expected, stride);
    if (stride == 1)
        check_choices(&model, what, mn__safetensors_find(file, "ids")->data, expected);
    mn__pretrained_close(&model);
    mn__device_close(&device);
    mn__safetensors_close(file);
}

static void every_family(void **state)
{
    (void)state;
    char path[512];
    for (int i = 0; i < FAMILIES; i++)
        check_folder(golden_path(path, families[i], ""), families[i], families[i], "logits", 1, 0);
}

static void copy_file(const char *from, const char *to)
{
    int64_t bytes;
    char *text = folder_read(from, &bytes);
    folder_write(to, text, bytes);
    free(text);
}

static void every_scaling(void **state)
{
    (void)state;
    static const struct {
        const char *config, *logits;
        int64_t tokens;
    } variants[] = {
        {"linear", "linear", 0},
        {"dynamic", "dynamic", TOKENS},
        {"llama3", "llama3", 0},
        {"yarn", "yarn", 0},
        {"yarn_scaled", "yarn_scaled", 0},
        {"parameters", "parameters", 0},
        {"longrope", "longrope", 0},
        {"longrope", "longrope", TOKENS},
        {"longrope", "longrope_short", 16},
    };
    char path[512], name[64], logits[64];
    const char *folder = folder_path(temporary, "scaled");
    copy_file(golden_path(path, "llama", "model.safetensors"),
              folder_path(temporary, "scaled/model.safetensors"));
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        snprintf(name, sizeof name, "config.%s.json", variants[i].config);
        snprintf(logits, sizeof logits, "logits.%s", variants[i].logits);
        copy_file(golden_path(path, "llama", name), folder_path(temporary, "scaled/config.json"));
        check_folder(folder, variants[i].logits, "llama", logits, 4, variants[i].tokens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family),
        cmocka_unit_test(every_scaling),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
