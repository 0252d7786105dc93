/* Models written as folders for transformers: every family's golden folder, written and read
 * again, is the same model to the bit; so are decoders in the manner of each family; rotary
 * pairs change their order; what has no counterpart is refused with what is different. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "model/export.h"
#include "model/pretrained.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/llama2c.h"
#include "support/logits.h"
#include "support/model.h"

enum { TOKENS = 30, VOCABULARY = 61 };

static const char *temporary;
static mn__tokenizer *characters; /* fewer than VOCABULARY */

static int setup(void **state)
{
    static const char text[] = "the river runs to the sea\n";
    mn__tokenizer_builder *builder;
    int status = folder_make(state);
    temporary = *state;
    if (status ||
        mn__tokenizer_builder_new(&builder, "characters", (mn__tokenizer_plan){0}, NULL) ||
        mn__tokenizer_builder_feed(builder, text, sizeof text - 1, NULL) ||
        mn__tokenizer_builder_end_document(builder, NULL))
        return -1;
    return mn__tokenizer_builder_end(builder, &characters, NULL) ? -1 : 0;
}

static int teardown(void **state)
{
    mn__tokenizer_free(characters);
    return folder_remove(state);
}

static const char *out(void)
{
    return folder_path(temporary, "out");
}

static const int32_t *some_ids(void)
{
    static int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 23 + 5) % VOCABULARY;
    return ids;
}

/* ---- There and back -------------------------------------------------------------------------- */

static mn_status write_out(mn__decoder *decoder, mn__params *params, const mn__config *config,
                           int64_t context, mn__dtype type, const mn__family **family,
                           mn_error *error)
{
    const mn__export what = {.decoder = decoder,
                             .params = params,
                             .tokenizer = characters,
                             .first = config ? config->family : NULL,
                             .context = context,
                             .ends = config ? config->ends : NULL,
                             .end_count = config ? config->end_count : 0,
                             .type = type,
                             .source = "SOURCE"};
    return mn__export_write(&what, out(), family, error);
}

/* Opens what was written, and compares what it says. */
static void check_out(const char *what, const float *right, const mn__config *config, double bound)
{
    static float logits[TOKENS * VOCABULARY];
    mn_error error;
    mn__device device;
    mn__pretrained model;
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__pretrained_open(&model, &device, out(), 0, &error), &error);
    if (config) {
        assert_int_equal(model.config.context, config->context);
        assert_int_equal(model.config.end_count, config->end_count);
        for (int64_t i = 0; i < config->end_count; i++)
            assert_int_equal(model.config.ends[i], config->ends[i]);
    }
    logits_read(model.decoder, &model.params, some_ids(), TOKENS, logits);
    logits_compare(what, logits, right, (int64_t)TOKENS * VOCABULARY, bound);
    mn__pretrained_close(&model);
    mn__device_close(&device);
}

static void check_folder(const char *folder, const char *family_type, mn__dtype type, double bound)
{
    static float right[TOKENS * VOCABULARY];
    mn_error error;
    mn__device device;
    mn__pretrained model;
    const mn__family *family;
    folder_remove_all(out());
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__pretrained_open(&model, &device, folder, 0, &error), &error);
    logits_read(model.decoder, &model.params, some_ids(), TOKENS, right);
    mn_status status = write_out(model.decoder, &model.params, &model.config, model.config.context,
                                 type, &family, &error);
    if (status)
        fail_msg("%s: %s", folder, error.message);
    assert_string_equal(family->type, family_type);
    check_out(folder, right, &model.config, bound);
    mn__pretrained_close(&model);
    mn__device_close(&device);
}

static const char *golden(char path[512], const char *family)
{
    snprintf(path, 512, "%s/tests/golden/pretrained/%s", MNEME_SOURCE_DIR, family);
    return path;
}

static void every_family(void **state)
{
    (void)state;
    static const char *const families[][2] = {
        {"llama", "llama"},     {"mistral", "mistral"}, {"qwen2", "qwen2"},  {"qwen3", "qwen3"},
        {"phi3", "phi3"},       {"glm", "glm"},         {"glm4", "glm4"},    {"gpt2", "gpt2"},
        {"smollm3", "smollm3"}, {"opt", "opt"},         {"opt_post", "opt"}, {"chatglm", "glm"}};
    char path[512];
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        check_folder(golden(path, families[i][0]), families[i][1], MN__F32, 0);
    /* Weights that were bf16 are so again. */
    check_folder(golden(path, "qwen3"), "qwen3", MN__BF16, 0);
    check_folder(golden(path, "llama"), "llama", MN__BF16, 0.1);
}

/* Each way to stretch rotary positions. */
static void every_stretch(void **state)
{
    (void)state;
    static const char *const variants[] = {"linear",   "dynamic",     "llama3",    "yarn",
                                           "longrope", "yarn_scaled", "parameters"};
    char path[512];
    const char *folder = folder_path(temporary, "llama");
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        char name[64];
        int64_t bytes;
        snprintf(name, sizeof name, "llama/config.%s.json", variants[i]);
        char *text = folder_read(golden(path, name), &bytes);
        folder_write(folder_path(temporary, "llama/config.json"), text, bytes);
        free(text);
        text = folder_read(golden(path, "llama/model.safetensors"), &bytes);
        folder_write(folder_path(temporary, "llama/model.safetensors"), text, bytes);
        free(text);
        check_folder(folder, "llama", MN__F32, 0);
    }
}

/* Neighbouring pairs of a checkpoint of llama2.c come half a head apart. */
static void other_pairs(void **state)
{
    (void)state;
    static float right[TOKENS * LLAMA2C_VOCABULARY], logits[TOKENS * LLAMA2C_VOCABULARY];
    mn_error error;
    mn__device device;
    mn__pretrained model;
    const mn__family *family;
    const char *path = folder_path(temporary, "model.bin");
    folder_write(path, "", 0);
    llama2c_write(path, 1, false, 3);
    llama2c_logits(1, false, 3, some_ids(), TOKENS, right);
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__pretrained_open(&model, &device, path, 0, &error), &error);
    folder_remove_all(out());
    succeed(write_out(model.decoder, &model.params, &model.config, model.config.context, MN__F32,
                      &family, &error),
            &error);
    mn__pretrained_close(&model);
    succeed(mn__pretrained_open(&model, &device, out(), 0, &error), &error);
    assert_false(mn__decoder_options_of(model.decoder)->rope_interleaved);
    logits_read(model.decoder, &model.params, some_ids(), TOKENS, logits);
    logits_compare("from llama2.c", logits, right, (int64_t)TOKENS * LLAMA2C_VOCABULARY, 1e-5);
    mn__pretrained_close(&model);
    mn__device_close(&device);
}

/* ---- Decoders of recipes ----------------------------------------------------------------------
 */

#define SIZES "depth: 2, width: 32, heads: 4"
#define LLAMA "norm: rms, gated: true, activation: silu, positions: rope"

static void every_manner(void **state)
{
    (void)state;
    static const struct {
        const char *recipe, *family;
        double bound; /* rows in another order are added up in another */
    } manners[] = {
        {"model: {" SIZES ", kv_heads: 2, " LLAMA "}\nattention: {type: full}", "llama", 0},
        {"model: {" SIZES ", " LLAMA ", bias: true, attention_bias: true, tied: false, "
         "rope_base: 5e5, dropout: 0.1, norm_epsilon: 1e-4, head_width: 12}\n"
         "attention: {type: full, dropout: 0.1}",
         "llama", 0},
        {"model: {" SIZES ", " LLAMA ", rope_interleaved: true}\nattention: {type: full}", "llama",
         1e-5},
        {"model: {" SIZES ", " LLAMA ", rope_width: 8}\nattention: {type: full}", "llama", 0},
        {"model: {" SIZES ", " LLAMA "}\nattention: {type: window, window: 9}", "mistral", 0},
        {"model: {" SIZES ", " LLAMA ", attention_bias: inputs}\nattention: {type: full}", "qwen2",
         0},
        {"model: {" SIZES ", " LLAMA ", attention_bias: inputs, layers: "
         "[{layers: [1], type: window, window: 7}]}\nattention: {type: full}",
         "qwen2", 0},
        {"model: {" SIZES ", " LLAMA ", head_norm: true}\nattention: {type: full}", "qwen3", 0},
        {"model: {" SIZES ", " LLAMA ", rope_interleaved: true, head_norm: true}\n"
         "attention: {type: full}",
         "qwen3", 1e-5},
        {"model: {" SIZES ", " LLAMA ", rope_width: 4}\nattention: {type: full}", "phi3", 0},
        {"model: {" SIZES ", " LLAMA ", rope_width: 4, attention_bias: inputs}\n"
         "attention: {type: full}",
         "glm", 1e-5},
        {"model: {" SIZES ", " LLAMA ", norm_place: both, rope_interleaved: true, rope_width: 4}\n"
         "attention: {type: full}",
         "glm4", 0},
        {"model: {" SIZES ", " LLAMA ", layers: [{layers: [1], type: full, rope: false}]}\n"
         "attention: {type: full}",
         "smollm3", 0},
        {"model: {" SIZES ", positions: learned, max_positions: 40, bias: true, "
         "attention_bias: true, activation: gelu_tanh, hidden: 48}\nattention: {type: full}",
         "gpt2", 0},
        {"model: {" SIZES ", positions: learned, max_positions: 40, activation: relu}\n"
         "attention: {type: full}",
         "opt", 0},
        {"model: {" SIZES ", positions: learned, max_positions: 40, activation: relu, "
         "norm_place: post, bias: true, attention_bias: true}\nattention: {type: full}",
         "opt", 0},
        {"model: {" SIZES ", " LLAMA ", rope_scaling: yarn, rope_factor: 4, rope_original: 16, "
         "rope_fast: 8}\nattention: {type: full}",
         "llama", 0},
    };
    for (size_t i = 0; i < sizeof manners / sizeof *manners; i++) {
        static float right[TOKENS * VOCABULARY];
        test_model model;
        mn_error error;
        const mn__family *family;
        folder_remove_all(out());
        test_model_open(&model, manners[i].recipe, VOCABULARY, 40, 5);
        logits_read(model.decoder, &model.params, some_ids(), TOKENS, right);
        mn_status status =
            write_out(model.decoder, &model.params, NULL, 40, MN__F32, &family, &error);
        if (status)
            fail_msg("%s: %s", manners[i].recipe, error.message);
        if (strcmp(family->type, manners[i].family))
            fail_msg("%s: is a %s", manners[i].recipe, family->type);
        test_model_close(&model);
        check_out(manners[i].recipe, right, NULL, manners[i].bound);
    }
}

static void no_counterpart(void **state)
{
    (void)state;
    static const struct {
        const char *recipe, *part;
    } others[] = {
        {"model: {" SIZES "}\nattention: {type: xl, memory: 8}", "[xl, feed_forward]"},
        {"model: {" SIZES "}\nattention: {type: compressive}", "[compressive, feed_forward]"},
        {"model: {" SIZES ", " LLAMA "}\nattention: {type: full, alibi: true, rope: false}",
         "alibi: true (there false)"},
        {"model: {" SIZES ", " LLAMA ", block: [[attention, feed_forward]]}\n"
         "attention: {type: full}",
         "[[full, feed_forward]]"},
        {"model: {" SIZES ", " LLAMA ", logit_scale: 0.5}\nattention: {type: full}",
         "logit_scale: 0.5"},
        {"model: {" SIZES ", " LLAMA ", cutoffs: [20, 40]}\nattention: {type: full}",
         "cutoffs: [\"20\", \"40\"]"},
        {"model: {" SIZES ", " LLAMA ", head_bias: true}\nattention: {type: full}", "head_bias"},
        {"model: {" SIZES ", " LLAMA ", scale_embedding: true}\nattention: {type: full}",
         "scale_embedding"},
        {"model: {" SIZES ", " LLAMA ", rope_scaling: ntk, rope_factor: 2}\n"
         "attention: {type: full}",
         "rope_scaling: ntk"},
        {"model: {" SIZES "}\nattention: {type: full}", "positions: none (there"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        test_model model;
        mn_error error = {0};
        const mn__family *family;
        folder_remove_all(out());
        test_model_open(&model, others[i].recipe, VOCABULARY, 40, 5);
        mn_status status =
            write_out(model.decoder, &model.params, NULL, 40, MN__F32, &family, &error);
        if (status != MN_ERROR_UNSUPPORTED || !strstr(error.message, others[i].part) ||
            strncmp(error.message, "SOURCE: ", 8) || !error.hint[0])
            fail_msg("%s: %s, '%s'", others[i].recipe, mn_status_name(status), error.message);
        assert_false(mn__file_exists(out()));
        test_model_close(&model);
    }
}

/* ---- Anomalies ----------------------------------------------------------------------------------
 */

static mn_status convert_phi3(void *user, mn_error *error)
{
    mn__device device;
    mn__pretrained model;
    const mn__family *family;
    (void)user;
    mn_status status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    char path[512];
    status = mn__pretrained_open(&model, &device, golden(path, "phi3"), 0, error);
    if (status == MN_OK) {
        status = write_out(model.decoder, &model.params, &model.config, model.config.context,
                           MN__F32, &family, error);
        mn__pretrained_close(&model);
    }
    mn__device_close(&device);
    return status;
}

static void remove_out(void *user)
{
    (void)user;
    folder_remove_all(out());
}

static void failing_allocations(void **state)
{
    (void)state;
    remove_out(NULL);
    assert_true(failing_each("converting a model", convert_phi3, NULL, false, remove_out) > 50);
}

/* What was there stays, and what is unfinished is no model. */
static void full_disk(void **state)
{
    (void)state;
    mn_error error;
    int64_t bytes, again;
    static const int64_t room[] = {0, 1000, 50000};
    remove_out(NULL);
    for (size_t i = 0; i < sizeof room / sizeof *room; i++) {
        mn__file_fail_write_after(room[i]);
        assert_int_equal(convert_phi3(NULL, &error), MN_ERROR_IO);
        mn__file_fail_write_after(-1);
        assert_non_null(strstr(error.message, "out/"));
        assert_false(mn__pretrained_is(out()));
    }
    succeed(convert_phi3(NULL, &error), &error);
    char *before = folder_read(folder_path(temporary, "out/config.json"), &bytes);
    mn__file_fail_write_after(100);
    assert_int_equal(convert_phi3(NULL, &error), MN_ERROR_IO);
    mn__file_fail_write_after(-1);
    char *after = folder_read(folder_path(temporary, "out/config.json"), &again);
    assert_int_equal(again, bytes);
    assert_memory_equal(after, before, (size_t)bytes);
    free(before);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family),   cmocka_unit_test(every_stretch),
        cmocka_unit_test(other_pairs),    cmocka_unit_test(every_manner),
        cmocka_unit_test(no_counterpart), cmocka_unit_test(failing_allocations),
        cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
