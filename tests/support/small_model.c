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

static const char *const added[] = {"<s>", "<|user|>", "<|assistant|>", "<|end|>"};

static void write_tokenizer(const char *folder, const char *chat)
{
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

static void make_weights(struct weights *w, uint32_t seed)
{
    *w = (struct weights){.random = seed};
    add(w, SMALL_VOCABULARY, WIDTH, "model.embed_tokens", -1);
    add(w, SMALL_VOCABULARY, WIDTH, "lm_head", -1);
    add(w, WIDTH, 0, "model.norm", -1);
    for (int layer = 0; layer < LAYERS; layer++) {
        add(w, WIDTH, 0, "input_layernorm", layer);
        add(w, WIDTH, 0, "post_attention_layernorm", layer);
        add(w, WIDTH, WIDTH, "self_attn.q_proj", layer);
        add(w, KEYS, WIDTH, "self_attn.k_proj", layer);
        add(w, KEYS, WIDTH, "self_attn.v_proj", layer);
        add(w, WIDTH, WIDTH, "self_attn.o_proj", layer);
        add(w, HIDDEN, WIDTH, "mlp.gate_proj", layer);
        add(w, HIDDEN, WIDTH, "mlp.up_proj", layer);
        add(w, WIDTH, HIDDEN, "mlp.down_proj", layer);
    }
}

static void free_weights(const struct weights *w)
{
    for (int64_t i = 0; i < w->count; i++)
        free((void *)(uintptr_t)w->tensor[i].data);
}

static void write_weights(const char *folder, uint32_t seed)
{
    struct weights w;
    char path[512];
    mn_error error;
    make_weights(&w, seed);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    succeed(mn__safetensors_write(path, w.tensor, w.count, NULL, &error), &error);
    free_weights(&w);
}

void small_model_make(const char *folder, const char *type, uint32_t seed, const char *chat)
{
    write_config(folder, type);
    write_tokenizer(folder, chat);
    write_weights(folder, seed);
}

/* ---- GGUF ---------------------------------------------------------------------------------- */

enum { U32 = 4, I32 = 5, FLOAT = 6, BOOLEAN = 7, TEXT = 8, ARRAY = 9, ALIGNMENT = 32 };

static void put(mn__string *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        mn__string_add(out, &(char){(char)(value >> (8 * i))}, 1);
}

static void put_text(mn__string *out, const char *text)
{
    put(out, strlen(text), 8);
    mn__string_puts(out, text);
}

static void put_key(mn__string *out, const char *key, int type, int64_t *count)
{
    put_text(out, key);
    put(out, (uint64_t)type, 4);
    ++*count;
}

static void put_sizes(mn__string *out, int64_t *count)
{
    static const struct {
        const char *key;
        uint64_t value;
    } sizes[] = {{"llama.embedding_length", WIDTH},    {"llama.feed_forward_length", HIDDEN},
                 {"llama.block_count", LAYERS},        {"llama.context_length", SMALL_CONTEXT},
                 {"llama.attention.head_count", 4},    {"llama.attention.head_count_kv", 2},
                 {"tokenizer.ggml.bos_token_id", 256}, {"tokenizer.ggml.eos_token_id", 259}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        put_key(out, sizes[i].key, U32, count);
        put(out, sizes[i].value, 4);
    }
    const float epsilon = 1e-5f;
    uint32_t bits;
    memcpy(&bits, &epsilon, sizeof bits);
    put_key(out, "llama.attention.layer_norm_rms_epsilon", FLOAT, count);
    put(out, bits, 4);
}

static void put_vocabulary(mn__string *out, int64_t *count)
{
    put_key(out, "tokenizer.ggml.model", TEXT, count);
    put_text(out, "gpt2");
    put_key(out, "tokenizer.ggml.add_bos_token", BOOLEAN, count);
    put(out, 1, 1);
    put_key(out, "tokenizer.ggml.tokens", ARRAY, count);
    put(out, TEXT, 4);
    put(out, SMALL_VOCABULARY, 8);
    for (int i = 0; i < SMALL_VOCABULARY; i++) {
        mn__string text = {0};
        if (i < 256)
            mn__bytes_to_alphabet(&(char){(char)i}, 1, &text);
        put_text(out, i < 256 ? text.text : added[i - 256]);
        mn__string_free(&text);
    }
    put_key(out, "tokenizer.ggml.token_type", ARRAY, count);
    put(out, I32, 4);
    put(out, SMALL_VOCABULARY, 8);
    for (int i = 0; i < SMALL_VOCABULARY; i++)
        put(out, i < 256 ? 1 : 3, 4); /* normal, control */
    put_key(out, "tokenizer.ggml.merges", ARRAY, count);
    put(out, TEXT, 4);
    put(out, 0, 8);
}

static void gguf_name(const char *name, char out[80])
{
    static const char *const names[][2] = {{"model.embed_tokens", "token_embd"},
                                           {"lm_head", "output"},
                                           {"model.norm", "output_norm"},
                                           {"input_layernorm", "attn_norm"},
                                           {"post_attention_layernorm", "ffn_norm"},
                                           {"q_proj", "attn_q"},
                                           {"k_proj", "attn_k"},
                                           {"v_proj", "attn_v"},
                                           {"o_proj", "attn_output"},
                                           {"gate_proj", "ffn_gate"},
                                           {"up_proj", "ffn_up"},
                                           {"down_proj", "ffn_down"}};
    int layer;
    bool within = sscanf(name, "model.layers.%d.", &layer) == 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(name, names[i][0]) && within)
            snprintf(out, 80, "blk.%d.%s.weight", layer, names[i][1]);
        else if (strstr(name, names[i][0]))
            snprintf(out, 80, "%s.weight", names[i][1]);
}

/* Rows of heads that turn: pairs (i, i + D / 2) become (2 i, 2 i + 1). */
static void put_rows(mn__string *out, const mn__safetensor *tensor)
{
    enum { D = WIDTH / 4 };
    bool turns = strstr(tensor->name, "q_proj") || strstr(tensor->name, "k_proj");
    int64_t row = tensor->rank == 2 ? tensor->size[1] : 1;
    for (int64_t r = 0; r < tensor->size[0]; r++) {
        int64_t i = r % D, from = turns ? r - i + i / 2 + (i % 2 ? D / 2 : 0) : r;
        mn__string_add(out, (const char *)((const float *)tensor->data + from * row), 4 * row);
    }
    while (out->bytes % ALIGNMENT)
        put(out, 0, 1);
}

static void put_tensors(mn__string *out, const struct weights *w)
{
    mn__string data = {0};
    for (int64_t i = 0; i < w->count; i++) {
        const mn__safetensor *tensor = &w->tensor[i];
        char name[80] = "";
        gguf_name(tensor->name, name);
        put_text(out, name);
        put(out, (uint64_t)tensor->rank, 4);
        for (int k = tensor->rank - 1; k >= 0; k--)
            put(out, (uint64_t)tensor->size[k], 8);
        put(out, 0, 4); /* F32 */
        put(out, (uint64_t)data.bytes, 8);
        put_rows(&data, tensor);
    }
    while (out->bytes % ALIGNMENT)
        put(out, 0, 1);
    mn__string_add(out, data.text, data.bytes);
    assert_false(data.failed);
    mn__string_free(&data);
}

void small_gguf_make(const char *path, uint32_t seed, const char *chat, int eot)
{
    mn__string values = {0}, out = {0};
    struct weights w;
    int64_t count = 0;
    make_weights(&w, seed);
    put_key(&values, "general.architecture", TEXT, &count);
    put_text(&values, "llama");
    put_sizes(&values, &count);
    put_vocabulary(&values, &count);
    if (chat) {
        put_key(&values, "tokenizer.chat_template", TEXT, &count);
        put_text(&values, chat);
    }
    if (eot >= 0) {
        put_key(&values, "tokenizer.ggml.eot_token_id", U32, &count);
        put(&values, (uint64_t)eot, 4);
    }
    mn__string_puts(&out, "GGUF");
    put(&out, 3, 4);
    put(&out, (uint64_t)w.count, 8);
    put(&out, (uint64_t)count, 8);
    mn__string_add(&out, values.text, values.bytes);
    put_tensors(&out, &w);
    assert_false(values.failed || out.failed);
    folder_write(path, out.text, out.bytes);
    free_weights(&w);
    mn__string_free(&values);
    mn__string_free(&out);
}
