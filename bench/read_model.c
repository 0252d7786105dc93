/* A model of Qwen2-0.5B's shape with random weights. */
#include "read_model.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/safetensors.h"
#include "pairs.h"
#include "peak.h"
#include "text/byte_alphabet.h"

enum { HEAD = READ_WIDTH / READ_HEADS, KEYS = READ_KEY_HEADS * HEAD, MOST = 13 * READ_LAYERS };

int64_t read_model_layer_weights(void)
{
    return (int64_t)READ_LAYERS * READ_WIDTH * (2 * READ_WIDTH + 2 * KEYS + 3 * READ_HIDDEN);
}

int64_t read_model_head_weights(void)
{
    return (int64_t)READ_VOCABULARY * READ_WIDTH;
}

/* ---- Weights ------------------------------------------------------------------------------- */

typedef struct weights {
    mn__safetensor tensor[MOST];
    char name[MOST][80];
    int64_t count;
} weights;

typedef enum kind { MATRIX, BIAS, GAINS } kind;

/* layer -1: of no layer. */
static void add(weights *w, kind what, int64_t rows, int64_t columns, const char *name, int layer)
{
    int64_t n = rows * columns;
    float *x = bench_numbers(MN__F32, n, 1000 + (uint32_t)w->count);
    mn__bf16 *values = bench_take(n * 2);
    for (int64_t i = 0; i < n; i++)
        values[i] = mn__f32_to_bf16(what == GAINS ? 1 + 0.1F * x[i] : 0.02F * x[i]);
    mn__free(x);
    if (layer >= 0)
        snprintf(w->name[w->count], sizeof w->name[0], "model.layers.%d.%s", layer, name);
    else
        snprintf(w->name[w->count], sizeof w->name[0], "model.%s", name);
    w->tensor[w->count] = (mn__safetensor){.name = w->name[w->count],
                                           .dtype = "BF16",
                                           .rank = what == MATRIX ? 2 : 1,
                                           .size = {rows, columns},
                                           .data = values,
                                           .bytes = n * 2};
    w->count++;
}

static void write_weights(const char *path)
{
    weights *w = bench_take(sizeof *w);
    mn_error error;
    *w = (weights){0};
    add(w, MATRIX, READ_VOCABULARY, READ_WIDTH, "embed_tokens.weight", -1);
    add(w, GAINS, READ_WIDTH, 1, "norm.weight", -1);
    for (int l = 0; l < READ_LAYERS; l++) {
        add(w, GAINS, READ_WIDTH, 1, "input_layernorm.weight", l);
        add(w, MATRIX, READ_WIDTH, READ_WIDTH, "self_attn.q_proj.weight", l);
        add(w, BIAS, READ_WIDTH, 1, "self_attn.q_proj.bias", l);
        add(w, MATRIX, KEYS, READ_WIDTH, "self_attn.k_proj.weight", l);
        add(w, BIAS, KEYS, 1, "self_attn.k_proj.bias", l);
        add(w, MATRIX, KEYS, READ_WIDTH, "self_attn.v_proj.weight", l);
        add(w, BIAS, KEYS, 1, "self_attn.v_proj.bias", l);
        add(w, MATRIX, READ_WIDTH, READ_WIDTH, "self_attn.o_proj.weight", l);
        add(w, GAINS, READ_WIDTH, 1, "post_attention_layernorm.weight", l);
        add(w, MATRIX, READ_HIDDEN, READ_WIDTH, "mlp.gate_proj.weight", l);
        add(w, MATRIX, READ_HIDDEN, READ_WIDTH, "mlp.up_proj.weight", l);
        add(w, MATRIX, READ_WIDTH, READ_HIDDEN, "mlp.down_proj.weight", l);
    }
    bench_check(mn__safetensors_write(path, w->tensor, w->count, NULL, &error), &error);
    for (int64_t i = 0; i < w->count; i++)
        mn__free((void *)(uintptr_t)w->tensor[i].data);
    mn__free(w);
}

/* ---- config.json and tokenizer.json -------------------------------------------------------- */

static void write_json(const char *folder, const char *name, json_t *value)
{
    char path[4096];
    mn_error error;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *text = json_dumps(value, JSON_COMPACT);
    if (!text) {
        fprintf(stderr, "bench read: no memory for %s\n", path);
        exit(1);
    }
    bench_check(mn__file_write(path, text, (int64_t)strlen(text), &error), &error);
    free(text);
    json_decref(value);
}

static void write_config(const char *folder)
{
    json_t *config = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:s, s:i, s:f, s:f, s:b, s:i}", "model_type", "qwen2",
        "hidden_size", READ_WIDTH, "intermediate_size", READ_HIDDEN, "num_hidden_layers",
        READ_LAYERS, "num_attention_heads", READ_HEADS, "num_key_value_heads", READ_KEY_HEADS,
        "hidden_act", "silu", "max_position_embeddings", READ_CONTEXT, "rms_norm_eps", 1e-6,
        "rope_theta", 1e6, "tie_word_embeddings", 1, "vocab_size", READ_VOCABULARY);
    json_object_set_new(config, "torch_dtype", json_string("bfloat16"));
    write_json(folder, "config.json", config);
}

/* Bytes, then pairs of letters, then a pair and a letter: 151,643 tokens as the shape's own
 * vocabulary has, each of them a merge of two earlier ones. */
static void write_tokenizer(const char *folder)
{
    enum { TOKENS = 151643, LETTERS = 64, PAIRS = LETTERS * LETTERS };
    json_t *vocabulary = json_object(), *merges = json_array();
    mn__string byte[256] = {{0}};
    for (int i = 0; i < 256; i++) {
        mn__bytes_to_alphabet(&(char){(char)i}, 1, &byte[i]);
        json_object_set_new(vocabulary, byte[i].text, json_integer(i));
    }
    for (int id = 256; id < TOKENS; id++) {
        int n = id - 256, pair = n < PAIRS ? n : (n - PAIRS) / LETTERS;
        char first[32], text[48], merge[64];
        const char *last = byte[' ' + n % LETTERS].text;
        snprintf(first, sizeof first, "%s%s", byte[' ' + pair / LETTERS].text,
                 n < PAIRS ? "" : byte[' ' + pair % LETTERS].text);
        snprintf(text, sizeof text, "%s%s", first, last);
        snprintf(merge, sizeof merge, "%s %s", first, last);
        json_object_set_new(vocabulary, text, json_integer(id));
        json_array_append_new(merges, json_string(merge));
    }
    for (int i = 0; i < 256; i++)
        mn__string_free(&byte[i]);
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 1, "use_regex", 1);
    write_json(folder, "tokenizer.json",
               json_pack("{s:s, s:[], s:n, s:O, s:n, s:o, s:{s:s, s:o, s:o}}", "version", "1.0",
                         "added_tokens", "normalizer", "pre_tokenizer", bytes, "post_processor",
                         "decoder", bytes, "model", "type", "BPE", "vocab", vocabulary, "merges",
                         merges));
}

void read_model_make(const char *folder)
{
    char path[4096];
    mn_error error;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (mn__file_exists(path)) /* the last to be written, at once */
        return;
    fprintf(stderr, "making a model of 988 MB in %s\n", folder);
    bench_check(mn__file_make_folder(folder, &error), &error);
    write_config(folder);
    write_tokenizer(folder);
    write_weights(path);
}
