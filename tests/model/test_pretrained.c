/* Folders of pretrained models: settings that are not supported are refused with what is
 * missing, tensors that are missing, ill-shaped or too many are named, nothing is allocated
 * for what the files cannot hold, half floats and bare names are read, and every allocation
 * may fail. The logits themselves are compared in tests/golden/test_pretrained.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/safetensors.h"
#include "eval/generate.h"
#include "model/pretrained.h"
#include "model/run.h"
#include "reader/session.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/model.h"

static const char *temporary;

static int setup(void **state)
{
    int status = folder_make(state);
    temporary = *state;
    return status;
}

static const char *golden(char path[512], const char *family, const char *file)
{
    snprintf(path, 512, "%s/tests/golden/pretrained/%s/%s", MNEME_SOURCE_DIR, family, file);
    return path;
}

/* ---- Making folders ---------------------------------------------------------------------- */

/* A golden config.json with other keys, into the temporary folder. */
static void write_config(const char *family, const char *changes)
{
    char path[512];
    json_t *config = json_load_file(golden(path, family, "config.json"), 0, NULL);
    json_t *other = json_loads(changes, 0, NULL);
    assert_non_null(config);
    assert_non_null(other);
    json_object_update(config, other);
    assert_int_equal(json_dump_file(config, folder_path(temporary, "model/config.json"), 0), 0);
    json_decref(config);
    json_decref(other);
}

/* What is done to each tensor of a golden file before it is written; false leaves it out. */
typedef bool (*change)(mn__safetensor *tensor);

static bool as_it_is(mn__safetensor *tensor)
{
    (void)tensor;
    return true;
}

static void write_weights(const char *family, change each, const mn__safetensor *extra)
{
    enum { MOST = 128 };
    char path[512];
    mn_error error;
    mn__safetensors *file;
    mn__safetensor tensors[MOST];
    int64_t count = 0;
    succeed(mn__safetensors_open(&file, golden(path, family, "model.safetensors"), &error), &error);
    assert_true(mn__safetensors_count(file) < MOST);
    for (int64_t i = 0; i < mn__safetensors_count(file); i++) {
        tensors[count] = *mn__safetensors_at(file, i);
        count += each(&tensors[count]);
    }
    if (extra)
        tensors[count++] = *extra;
    succeed(mn__safetensors_write(folder_path(temporary, "model/model.safetensors"), tensors, count,
                                  NULL, &error),
            &error);
    mn__safetensors_close(file);
}

static void make_folder(const char *family)
{
    folder_remove_all(folder_path(temporary, "model"));
    folder_write(folder_path(temporary, "model/config.json"), "", 0);
    write_config(family, "{}");
    write_weights(family, as_it_is, NULL);
}

static mn_status open_model(mn__pretrained *model, mn__device *device, int64_t tokens,
                            mn_error *error)
{
    succeed(mn__device_open(device, error), error);
    mn_status status =
        mn__pretrained_open(model, device, folder_path(temporary, "model"), tokens, error);
    if (status != MN_OK)
        mn__device_close(device);
    return status;
}

static void close_model(mn__pretrained *model, mn__device *device)
{
    mn__pretrained_close(model);
    mn__device_close(device);
}

static void check_opens(const char *what, int64_t tokens)
{
    mn_error error;
    mn__device device;
    mn__pretrained model;
    mn_status status = open_model(&model, &device, tokens, &error);
    if (status != MN_OK)
        fail_msg("%s: %s (%s)", what, error.message, error.hint);
    close_model(&model, &device);
}

static void check_refused(const char *what, int64_t tokens, mn_status expected, const char *part)
{
    mn_error error;
    mn__device device;
    mn__pretrained model;
    mn__memory_stats before = mn__memory_now();
    mn_status status = open_model(&model, &device, tokens, &error);
    if (status == MN_OK)
        fail_msg("%s was opened", what);
    if (status != expected || !strstr(error.message, part) || !strstr(error.message, temporary))
        fail_msg("%s: %s, '%s'", what, mn_status_name(status), error.message);
    assert_int_equal(mn__memory_now().bytes, before.bytes);
}

/* ---- config.json -------------------------------------------------------------------------- */

static void refused_settings(void **state)
{
    (void)state;
    static const struct {
        const char *family, *changes;
        mn_status status;
        const char *part;
    } wrong[] = {
        {"llama", "{\"model_type\": \"mamba\"}", MN_ERROR_UNSUPPORTED, "model_type is mamba"},
        {"llama", "{\"model_type\": null}", MN_ERROR_FORMAT, "'model_type' is missing"},
        {"llama", "{\"hidden_act\": \"selu\"}", MN_ERROR_UNSUPPORTED, "hidden_act is selu"},
        {"llama", "{\"quantization_config\": {\"bits\": 4}}", MN_ERROR_UNSUPPORTED,
         "quantization_config"},
        {"llama", "{\"rope_scaling\": {\"rope_type\": \"mrope\"}}", MN_ERROR_UNSUPPORTED,
         "rope_type is mrope"},
        {"llama", "{\"rope_scaling\": {\"rope_type\": \"linear\"}}", MN_ERROR_FORMAT,
         "'factor' is missing"},
        {"llama", "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 0.5}}",
         MN_ERROR_OPTION, "rope_factor"},
        {"llama", "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": \"2\"}}",
         MN_ERROR_FORMAT, "'factor' should be a number"},
        {"llama",
         "{\"rope_scaling\": {\"rope_type\": \"su\", \"short_factor\": [1, 1, 1], "
         "\"long_factor\": [1, 1, 1, 1]}}",
         MN_ERROR_OPTION, "rope_short holds 3 factors for 4 pairs"},
        {"llama",
         "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, \"x\"], "
         "\"long_factor\": []}}",
         MN_ERROR_FORMAT, "'short_factor' holds what is no number"},
        {"llama",
         "{\"rope_scaling\": {\"type\": \"yarn\", "
         "\"original_max_position_embeddings\": 0}}",
         MN_ERROR_FORMAT, "original_max_position_embeddings 0"},
        {"llama", "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}",
         MN_ERROR_UNSUPPORTED, "rope_parameters"},
        {"llama", "{\"partial_rotary_factor\": 1.5}", MN_ERROR_FORMAT, "partial_rotary_factor 1.5"},
        {"llama", "{\"rope_theta\": 0.5}", MN_ERROR_OPTION, "rope_base"},
        {"llama", "{\"num_hidden_layers\": null}", MN_ERROR_FORMAT,
         "'num_hidden_layers' is missing"},
        {"llama", "{\"num_hidden_layers\": 0}", MN_ERROR_OPTION, "depth"},
        {"llama", "{\"num_hidden_layers\": 99999999}", MN_ERROR_OPTION, "depth"},
        {"llama", "{\"hidden_size\": \"32\"}", MN_ERROR_FORMAT, "'hidden_size' should be"},
        {"llama", "{\"num_attention_heads\": 5}", MN_ERROR_OPTION, "5 heads"},
        {"llama", "{\"num_key_value_heads\": 3}", MN_ERROR_OPTION, "kv_heads 3"},
        {"llama", "{\"head_dim\": 7}", MN_ERROR_OPTION, "head width"},
        {"llama", "{\"vocab_size\": -1}", MN_ERROR_FORMAT, "vocab_size -1"},
        {"llama", "{\"max_position_embeddings\": 0}", MN_ERROR_FORMAT, "max_position_embeddings 0"},
        {"llama", "{\"dual_chunk_attention_config\": {\"chunk_size\": 0}}", MN_ERROR_UNSUPPORTED,
         "dual chunk attention"},
        {"mistral", "{\"sliding_window\": 0}", MN_ERROR_FORMAT, "sliding_window 0"},
        {"qwen3", "{\"layer_types\": [\"full_attention\"]}", MN_ERROR_FORMAT, "none for layer 1"},
        {"qwen3", "{\"layer_types\": [\"full_attention\", \"linear_attention\"]}",
         MN_ERROR_UNSUPPORTED, "linear_attention"},
        {"qwen3", "{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", MN_ERROR_FORMAT,
         "layer 1 has a window"},
        {"smollm3", "{\"no_rope_layers\": [1, 1]}", MN_ERROR_FORMAT, "none for layer 2"},
        {"smollm3", "{\"no_rope_layers\": null, \"no_rope_layer_interval\": 0}", MN_ERROR_FORMAT,
         "no_rope_layer_interval 0"},
        {"smollm3", "{\"use_sliding_window\": true}", MN_ERROR_UNSUPPORTED,
         "use_sliding_window is true"},
        {"chatglm", "{\"original_rope\": false}", MN_ERROR_UNSUPPORTED, "original_rope is false"},
        {"chatglm", "{\"padded_vocab_size\": 0}", MN_ERROR_FORMAT, "padded_vocab_size 0"},
        {"gpt2", "{\"scale_attn_by_inverse_layer_idx\": true}", MN_ERROR_UNSUPPORTED,
         "scale_attn_by_inverse_layer_idx is true"},
        {"gpt2", "{\"scale_attn_weights\": false}", MN_ERROR_UNSUPPORTED,
         "scale_attn_weights is false"},
        {"opt", "{\"word_embed_proj_dim\": 16}", MN_ERROR_UNSUPPORTED, "word_embed_proj_dim"},
        /* What the files have, and what they have not. */
        {"llama", "{\"num_hidden_layers\": 1}", MN_ERROR_MISMATCH,
         "tensor model.layers.1.input_layernorm.weight has no place"},
        {"llama", "{\"num_hidden_layers\": 3}", MN_ERROR_MISMATCH,
         "no tensor model.layers.2.input_layernorm.weight"},
        {"llama", "{\"hidden_size\": 64}", MN_ERROR_MISMATCH,
         "tensor model.embed_tokens.weight is [61, 32], and by config.json [61, 64]"},
        {"llama", "{\"num_key_value_heads\": 4}", MN_ERROR_MISMATCH, "k_proj.weight is [16, 32]"},
        {"llama", "{\"attention_bias\": true}", MN_ERROR_MISMATCH, "q_proj.bias"},
        {"llama", "{\"tie_word_embeddings\": true}", MN_ERROR_MISMATCH,
         "tensor lm_head.weight has no place"},
        {"qwen3", "{\"tie_word_embeddings\": false}", MN_ERROR_MISMATCH, "no tensor model.lm_head"},
        {"qwen3", "{\"model_type\": \"llama\"}", MN_ERROR_MISMATCH, "k_norm.weight has no place"},
        {"phi3", "{\"num_key_value_heads\": 4}", MN_ERROR_MISMATCH, "qkv_proj.weight is [64, 32]"},
        {"gpt2", "{\"n_inner\": 100}", MN_ERROR_MISMATCH,
         "c_fc.weight is [32, 128], and by config.json [32, 100]"},
        {"opt", "{\"max_position_embeddings\": 52}", MN_ERROR_MISMATCH,
         "embed_positions.weight is [52, 32], and by config.json [54, 32]"},
        {"opt", "{\"enable_bias\": false}", MN_ERROR_MISMATCH, "bias has no place"},
    };
    const char *family = "";
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (strcmp(wrong[i].family, family))
            make_folder(wrong[i].family);
        family = wrong[i].family;
        write_config(family, wrong[i].changes);
        check_refused(wrong[i].changes, 0, wrong[i].status, wrong[i].part);
        write_config(family, "{}");
        check_opens(family, 0);
    }
    static const char *const texts[] = {"", "[]", "{\"model_type\"", "3"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        folder_write(folder_path(temporary, "model/config.json"), texts[i], -1);
        check_refused(texts[i], 0, MN_ERROR_FORMAT, "config.json");
    }
}

/* A model of some 10^17 parameters, by its config.json: nothing of that is allocated. */
static void claims(void **state)
{
    (void)state;
    make_folder("llama");
    write_config("llama", "{\"num_hidden_layers\": 1024, \"hidden_size\": 1000000, "
                          "\"intermediate_size\": 10000000, \"vocab_size\": 2000000000}");
    int64_t before = mn__memory_now().peak_bytes;
    check_refused("a giant", 0, MN_ERROR_MISMATCH, "embed_tokens.weight is [61, 32]");
    assert_true(mn__memory_now().peak_bytes - before < 64 << 20);
}

/* Windows that see all that is planned for are none; positions that were not learned. */
static void planned_lengths(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        int64_t tokens;
        const char *block;
    } plans[] = {
        {"mistral", 0, "[window, feed_forward]"}, {"mistral", 10, "[window, feed_forward]"},
        {"mistral", 9, "[full, feed_forward]"},   {"phi3", 41, "[window, feed_forward]"},
        {"phi3", 40, "[full, feed_forward]"},     {"llama", 1000000, "[full, feed_forward]"},
    };
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        mn_error error;
        mn__device device;
        mn__pretrained model;
        mn__string block = {0};
        make_folder(plans[i].family);
        succeed(open_model(&model, &device, plans[i].tokens, &error), &error);
        mn__decoder_put_block(model.decoder, 0, &block);
        assert_string_equal(block.text, plans[i].block);
        assert_int_equal(model.config.tokens,
                         plans[i].tokens ? plans[i].tokens : model.config.context);
        mn__string_free(&block);
        close_model(&model, &device);
    }
    make_folder("mistral");
    write_config("mistral", "{\"sliding_window\": null}");
    check_opens("no window", 0);
    write_config("mistral", "{\"dual_chunk_attention_config\": {\"chunk_size\": 20}}");
    check_refused("chunks", 21, MN_ERROR_UNSUPPORTED, "beyond 20 tokens");
    check_opens("a chunk", 20);
    check_opens("a chunk at most", 0);
    make_folder("gpt2");
    check_refused("too long", 51, MN_ERROR_MISMATCH, "learned 50 positions");
    check_opens("as long as may be", 50);
}

/* ---- Tensors ------------------------------------------------------------------------------- */

static bool without_a_norm(mn__safetensor *tensor)
{
    return strcmp(tensor->name, "model.norm.weight") != 0;
}

static bool with_integers(mn__safetensor *tensor)
{
    if (!strcmp(tensor->name, "model.layers.1.mlp.down_proj.weight"))
        tensor->dtype = "I16";
    return true;
}

static bool with_a_flat_one(mn__safetensor *tensor)
{
    if (!strcmp(tensor->name, "model.layers.0.self_attn.o_proj.weight")) {
        tensor->rank = 1;
        tensor->size[0] *= tensor->size[1];
    }
    return true;
}

static bool without_prefix(mn__safetensor *tensor)
{
    tensor->name += strncmp(tensor->name, "model.", 6) ? 0 : 6;
    return true;
}

static void tensors(void **state)
{
    (void)state;
    static const float ones[16] = {1};
    mn__safetensor extra = {.dtype = "F32", .rank = 1, .size = {16}, .data = ones, .bytes = 64};
    make_folder("llama");
    write_weights("llama", without_a_norm, NULL);
    check_refused("a norm less", 0, MN_ERROR_MISMATCH, "no tensor model.norm.weight");
    write_weights("llama", with_integers, NULL);
    check_refused("integers", 0, MN_ERROR_UNSUPPORTED, "down_proj.weight is of type I16");
    write_weights("llama", with_a_flat_one, NULL);
    check_refused("a vector", 0, MN_ERROR_MISMATCH, "o_proj.weight is [1024]");
    extra.name = "score.weight";
    write_weights("llama", as_it_is, &extra);
    check_refused("a classifier", 0, MN_ERROR_MISMATCH, "score.weight has no place");
    extra.name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    write_weights("llama", as_it_is, &extra);
    check_opens("frequencies", 0);
    write_weights("llama", without_prefix, NULL);
    check_opens("bare names", 0);
    assert_int_equal(remove(folder_path(temporary, "model/model.safetensors")), 0);
    check_refused("no weights", 0, MN_ERROR_IO, "model.safetensors");
    assert_int_equal(remove(folder_path(temporary, "model/config.json")), 0);
    check_refused("no config", 0, MN_ERROR_IO, "config.json");
    assert_false(mn__pretrained_is(folder_path(temporary, "model")));
}

/* A head that is stored though it is tied: refused only where it is another. */
static void tied_heads(void **state)
{
    (void)state;
    char path[512];
    mn_error error;
    mn__safetensors *file;
    make_folder("qwen3");
    succeed(mn__safetensors_open(&file, golden(path, "qwen3", "model.safetensors"), &error),
            &error);
    mn__safetensor head = *mn__safetensors_find(file, "model.embed_tokens.weight");
    head.name = "lm_head.weight";
    write_weights("qwen3", as_it_is, &head);
    check_opens("the same head", 0);
    uint16_t *other = malloc((size_t)head.bytes);
    assert_non_null(other);
    memcpy(other, head.data, (size_t)head.bytes);
    other[77] ^= 1;
    head.data = other;
    write_weights("qwen3", as_it_is, &head);
    check_refused("another head", 0, MN_ERROR_MISMATCH, "lm_head.weight");
    free(other);
    mn__safetensors_close(file);
}

static const struct {
    uint16_t half;
    float value;
} halves[] = {
    {0x0000, 0.0f},      {0x8000, -0.0f},    {0x0001, 0x1p-24f},    {0x83ff, -0x3ffp-24f},
    {0x0400, 0x1p-14f},  {0x3c00, 1.0f},     {0xbc01, -0x401p-10f}, {0x7bff, 65504.0f},
    {0xfbff, -65504.0f}, {0x7c00, INFINITY}, {0xfc00, -INFINITY},   {0x3555, 0x555p-12f},
};
enum { HALVES = sizeof halves / sizeof *halves };

static uint16_t half_norm[32];

static bool with_halves(mn__safetensor *tensor)
{
    if (!strcmp(tensor->name, "model.norm.weight"))
        tensor->data = half_norm;
    return true;
}

static void half_floats(void **state)
{
    (void)state;
    mn_error error;
    mn__device device;
    mn__pretrained model;
    for (int i = 0; i < 32; i++)
        half_norm[i] = halves[i % HALVES].half;
    make_folder("llama");
    write_weights("llama", with_halves, NULL);
    succeed(open_model(&model, &device, 0, &error), &error);
    const float *gain = mn__params_find(&model.params, "final_norm.gain")->value.data;
    for (int i = 0; i < 32; i++) {
        assert_true(gain[i] == halves[i % HALVES].value);
        assert_true(signbit(gain[i]) == signbit(halves[i % HALVES].value));
    }
    close_model(&model, &device);
}

/* ---- As runs --------------------------------------------------------------------------------- */

/* A tokenizer of our own, of so many ids, into the folder. */
static void write_tokenizer(int letters)
{
    mn_error error;
    mn__tokenizer *tokenizer;
    mn__tokenizer_builder *builder;
    char text[128];
    for (int i = 0; i < letters; i++)
        text[i] = (char)('0' + i);
    succeed(mn__tokenizer_builder_new(&builder, "characters", (mn__tokenizer_plan){0}, &error),
            &error);
    succeed(mn__tokenizer_builder_feed(builder, text, letters, &error), &error);
    succeed(mn__tokenizer_builder_end_document(builder, &error), &error);
    succeed(mn__tokenizer_builder_end(builder, &tokenizer, &error), &error);
    succeed(mn__tokenizer_save(tokenizer, folder_path(temporary, "model"), &error), &error);
    mn__tokenizer_free(tokenizer);
}

/* Reads the golden text in a session: the last token's logits are those of `name`. */
static void check_run(mn__run *run, const char *name)
{
    char path[512];
    mn_error error;
    mn__safetensors *file;
    mn__session session;
    succeed(mn__safetensors_open(&file, golden(path, "llama", "expected.safetensors"), &error),
            &error);
    const mn__safetensor *ids = mn__safetensors_find(file, "ids");
    const mn__safetensor *expected = mn__safetensors_find(file, name);
    int64_t T = ids->size[0], V = expected->size[1];
    const float *last = (const float *)expected->data + (expected->size[0] - 1) * V;
    const mn__session_options options = {
        .rows = 1, .capacity = T, .chunk = run->segment, .compute = MN__F32};
    succeed(mn__session_open(&session, run->decoder, &run->params, &options, &error), &error);
    const mn__stretch text = {.T = T, .ids = ids->data};
    succeed(mn__session_read(&session, &text, &error), &error);
    const float *logits = mn__session_logits(&session, &error);
    assert_non_null(logits);
    for (int64_t v = 0; v < V; v++)
        assert_true(fabsf(logits[v] - last[v]) < 1e-3f);
    mn__session_close(&session);
    mn__safetensors_close(file);
}

static bool ignore(void *user, const char *text, int64_t bytes)
{
    (void)text;
    *(int64_t *)user += bytes;
    return true;
}

/* A text is cut where an id comes that ends texts, and only there. */
static void check_end(mn__run *run)
{
    enum { MOST = 12 };
    mn_error error;
    mn__generated generated;
    int64_t bytes = 0, whole;
    mn__generate_config config = {
        .prompt = "012", .prompt_bytes = 3, .tokens = MOST, .emit = ignore, .user = &bytes};
    run->end_count = 0;
    succeed(mn__generate(run, &config, &generated, &error), &error);
    assert_int_equal(generated.tokens, MOST);
    assert_false(generated.ended);
    whole = bytes;
    int32_t every[58];
    for (int32_t i = 0; i < 58; i++)
        every[i] = i;
    run->ends = every;
    run->end_count = 58;
    bytes = 0;
    succeed(mn__generate(run, &config, &generated, &error), &error);
    assert_true(generated.ended && generated.tokens == 0 && bytes == 0 && whole >= MOST);
}

/* generation_config.json's come before config.json's. */
static void ends(void **state)
{
    (void)state;
    mn_error error;
    mn__arena arena;
    mn__config config;
    make_folder("llama");
    const char *folder = folder_path(temporary, "model");
    const char *path = folder_path(temporary, "model/generation_config.json");
    mn__arena_init(&arena, 0);
    succeed(mn__pretrained_read(&config, &arena, folder, 0, &error), &error);
    assert_true(config.end_count == 1 && config.ends[0] == 2);
    folder_write(path, "{\"eos_token_id\": [7, 60]}", -1);
    succeed(mn__pretrained_read(&config, &arena, folder, 0, &error), &error);
    assert_true(config.end_count == 2 && config.ends[0] == 7 && config.ends[1] == 60);
    folder_write(path, "{\"eos_token_id\": null}", -1);
    succeed(mn__pretrained_read(&config, &arena, folder, 0, &error), &error);
    assert_true(config.end_count == 1 && config.ends[0] == 2);
    static const char *const wrong[] = {"61", "-1", "\"2\"", "[2, 1.5]"};
    for (int i = 0; i < 4; i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"eos_token_id\": %s}", wrong[i]);
        folder_write(path, text, -1);
        assert_int_equal(mn__pretrained_read(&config, &arena, folder, 0, &error), MN_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "generation_config.json: 'eos_token_id'"));
    }
    mn__arena_free(&arena);
}

static void runs(void **state)
{
    (void)state;
    static const char *const linear[] = {"model.rope_scaling=linear", "model.rope_factor=4",
                                         "data.segment=10"};
    static const char *const window[] = {"attention.type=window", "attention.window=9"};
    mn_error error;
    mn__device device;
    mn__run run;
    make_folder("llama");
    const char *folder = folder_path(temporary, "model");
    succeed(mn__device_open(&device, &error), &error);
    assert_int_equal(mn__run_open(&run, &device, folder, NULL, 0, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "tokenizer.json"));
    write_tokenizer(62);
    assert_int_equal(mn__run_open(&run, &device, folder, NULL, 0, &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "62 ids, the model 61"));
    write_tokenizer(58);
    succeed(mn__run_open(&run, &device, folder, NULL, 0, &error), &error);
    assert_int_equal(run.segment, 512);
    check_run(&run, "logits");
    check_end(&run);
    mn__run_close(&run);
    succeed(mn__run_open(&run, &device, folder, linear, 3, &error), &error);
    assert_int_equal(run.segment, 10);
    check_run(&run, "logits.linear");
    mn__run_close(&run);
    /* A window over a model that was trained without; and what has no weights there. */
    succeed(mn__run_open(&run, &device, folder, window, 2, &error), &error);
    assert_string_equal(mn__decoder_attention(run.decoder, 0, 0)->type->name, "window");
    mn__run_close(&run);
    static const struct {
        const char *sets[3], *part;
    } wrong[] = {
        {{"model.depth=3"}, "no tensor model.layers.2"},
        {{"model.positions=none", "attention.type=window", "attention.t5=true"},
         "layers.0.attention.distance"},
        {{"model.block=[attention, attention, feed_forward]"}, "layers.0.attention2"},
        {{"model.positions=learned"}, "positions.weight"},
        {{"model.norm=layer"}, "norm.bias"},
        {{"model.head_norm=true"}, "query_norm"},
        {{"model.cutoffs=[10]"}, "embedding.0"},
        {{"model.head_bias=true"}, "head.bias"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mn_status status =
            mn__run_open(&run, &device, folder, wrong[i].sets, wrong[i].sets[1] ? 3 : 1, &error);
        if (status != MN_ERROR_MISMATCH || !strstr(error.message, wrong[i].part))
            fail_msg("%s: %s, '%s'", wrong[i].sets[0], mn_status_name(status), error.message);
    }
    mn__device_close(&device);
}

/* ---- Allocations ----------------------------------------------------------------------------- */

struct opening {
    mn__device device;
    char path[512];
};

static mn_status open_and_close(void *user, mn_error *error)
{
    struct opening *opening = user;
    mn__pretrained model;
    mn_status status = mn__pretrained_open(&model, &opening->device, opening->path, 0, error);
    if (status == MN_OK)
        mn__pretrained_close(&model);
    return status;
}

static mn_status open_run(void *user, mn_error *error)
{
    struct opening *opening = user;
    mn__run run;
    mn_status status = mn__run_open(&run, &opening->device, opening->path, NULL, 0, error);
    if (status == MN_OK)
        mn__run_close(&run);
    return status;
}

/* One file and several; a window by layers, lists of factors, fused and turned matrices. */
static void every_allocation(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen2", "phi3", "gpt2"};
    mn_error error;
    struct opening opening;
    succeed(mn__device_open(&opening.device, &error), &error);
    for (int i = 0; i < 4; i++) {
        golden(opening.path, families[i], "");
        failing_each(families[i], open_and_close, &opening, true, NULL);
    }
    make_folder("opt");
    write_tokenizer(40);
    snprintf(opening.path, sizeof opening.path, "%s", folder_path(temporary, "model"));
    failing_each("a run", open_run, &opening, true, NULL);
    mn__device_close(&opening.device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_settings),
        cmocka_unit_test(claims),
        cmocka_unit_test(planned_lengths),
        cmocka_unit_test(tensors),
        cmocka_unit_test(tied_heads),
        cmocka_unit_test(half_floats),
        cmocka_unit_test(ends),
        cmocka_unit_test(runs),
        cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
