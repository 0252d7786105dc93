/* Small pretrained models. */
#include "support/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/safetensors.h"
#include "support/folder.h"
#include "support/model.h"
#include "text/byte_alphabet.h"

const char small_model_chat[] =
    "<s>{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

enum { WIDTH = 32, KEYS = 16, HIDDEN = 48, LAYERS = 2, MOST = 64 };

static void write_json(const char *folder, const char *name, json_t *value)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *text = json_dumps(value, JSON_INDENT(1));
    assert_non_null(text);
    folder_write(path, text, -1);
    free(text);
    json_decref(value);
}

static void write_config(const char *folder, const char *type)
{
    json_t *config =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:s, s:i, s:f, s:f, s:b, s:i, s:i, s:i}",
                  "model_type", type, "hidden_size", WIDTH, "intermediate_size", HIDDEN,
                  "num_hidden_layers", LAYERS, "num_attention_heads", 4, "num_key_value_heads", 2,
                  "hidden_act", "silu", "max_position_embeddings", SMALL_CONTEXT, "rms_norm_eps",
                  1e-5, "rope_theta", 10000.0, "tie_word_embeddings", 0, "vocab_size",
                  SMALL_VOCABULARY, "bos_token_id", 256, "eos_token_id", 259);
    assert_non_null(config);
    if (!strcmp(type, "mistral"))
        json_object_set_new(config, "sliding_window", json_integer(50));
    write_json(folder, "config.json", config);
}

static void write_tokenizer(const char *folder, const char *chat)
{
    static const char *const added[] = {"<s>", "<|user|>", "<|assistant|>", "<|end|>"};
    json_t *vocabulary = json_object(), *tokens = json_array();
    for (int i = 0; i < 256; i++) {
        mn__string text = {0};
        mn__bytes_to_alphabet(&(char){(char)i}, 1, &text);
        json_object_set_new(vocabulary, text.text, json_integer(i));
        mn__string_free(&text);
    }
    for (int i = 0; i < 4; i++)
        json_array_append_new(tokens,
                              json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", 256 + i,
                                        "content", added[i], "single_word", 0, "lstrip", 0,
                                        "rstrip", 0, "normalized", 0, "special", 1));
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 1, "use_regex", 1);
    json_t *begin = json_pack(
        "{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:{s:{s:s, s:[i], s:[s]}}}", "type",
        "TemplateProcessing", "single", "SpecialToken", "id", "<s>", "type_id", 0, "Sequence", "id",
        "A", "type_id", 0, "special_tokens", "<s>", "id", "<s>", "ids", 256, "tokens", "<s>");
    write_json(folder, "tokenizer.json",
               json_pack("{s:s, s:o, s:n, s:O, s:o, s:o, s:{s:s, s:o, s:[]}}", "version", "1.0",
                         "added_tokens", tokens, "normalizer", "pre_tokenizer", bytes,
                         "post_processor", begin, "decoder", bytes, "model", "type", "BPE", "vocab",
                         vocabulary, "merges"));
    json_t *settings = json_pack("{s:s, s:s}", "bos_token", "<s>", "eos_token", "<|end|>");
    if (chat)
        json_object_set_new(settings, "chat_template", json_string(chat));
    write_json(folder, "tokenizer_config.json", settings);
}

/* ---- Weights ------------------------------------------------------------------------------- */

struct weights {
    mn__safetensor tensor[MOST];
    char name[MOST][80];
    int64_t count;
    uint32_t random;
};

/* columns 0: a norm's gains. */
static void add(struct weights *w, int64_t rows, int64_t columns, const char *format, int layer)
{
    int64_t n = rows * (columns ? columns : 1);
    float *values = malloc((size_t)n * sizeof *values);
    assert_non_null(values);
    assert_true(w->count < MOST);
    for (int64_t i = 0; i < n; i++) {
        w->random = w->random * 1664525u + 1013904223u;
        float uniform = (float)(w->random >> 8) / (float)(1 << 24) - 0.5f;
        values[i] = columns ? uniform : 1.0f + 0.2f * uniform;
    }
    char *name = w->name[w->count];
    snprintf(name, sizeof w->name[0], "model.layers.%d.%s.weight", layer, format);
    if (layer < 0)
        snprintf(name, sizeof w->name[0], "%s.weight", format);
    w->tensor[w->count++] = (mn__safetensor){.name = name,
                                             .dtype = "F32",
                                             .rank = columns ? 2 : 1,
                                             .size = {rows, columns},
                                             .data = values,
                                             .bytes = n * (int64_t)sizeof(float)};
}

static void write_weights(const char *folder, uint32_t seed)
{
    struct weights w = {.random = seed};
    char path[512];
    mn_error error;
    add(&w, SMALL_VOCABULARY, WIDTH, "model.embed_tokens", -1);
    add(&w, SMALL_VOCABULARY, WIDTH, "lm_head", -1);
    add(&w, WIDTH, 0, "model.norm", -1);
    for (int layer = 0; layer < LAYERS; layer++) {
        add(&w, WIDTH, 0, "input_layernorm", layer);
        add(&w, WIDTH, 0, "post_attention_layernorm", layer);
        add(&w, WIDTH, WIDTH, "self_attn.q_proj", layer);
        add(&w, KEYS, WIDTH, "self_attn.k_proj", layer);
        add(&w, KEYS, WIDTH, "self_attn.v_proj", layer);
        add(&w, WIDTH, WIDTH, "self_attn.o_proj", layer);
        add(&w, HIDDEN, WIDTH, "mlp.gate_proj", layer);
        add(&w, HIDDEN, WIDTH, "mlp.up_proj", layer);
        add(&w, WIDTH, HIDDEN, "mlp.down_proj", layer);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    succeed(mn__safetensors_write(path, w.tensor, w.count, NULL, &error), &error);
    for (int64_t i = 0; i < w.count; i++)
        free((void *)(uintptr_t)w.tensor[i].data);
}

void small_model_make(const char *folder, const char *type, uint32_t seed, const char *chat)
{
    write_config(folder, type);
    write_tokenizer(folder, chat);
    write_weights(folder, seed);
}
