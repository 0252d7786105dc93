/* GGUF files as models: what such a file says gives the logits of a folder that says the
 * same, in every type of tensor; its quantised blocks are taken over exactly; ggml's own
 * numbers for its blocks (golden/make_ggml_blocks.py); what is not supported is refused. */
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
#include "model/ggml_blocks.h"
#include "model/pretrained.h"
#include "model/run.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/model.h"
#include "support/small_model.h"
#include "text/chat.h"

/* Rows of whole super-blocks. */
enum { C = 256, H = 4, G = 2, D = C / H, F = 512, V = 48, TOKENS = 20, TENSORS = 16 };

static const char *temporary;

static int setup(void **state)
{
    int status = folder_make(state);
    temporary = *state;
    return status;
}

/* ---- Tensors ---------------------------------------------------------------------------- */

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q5_0 = 6, Q8_0 = 8, Q4_K = 12, Q6_K = 14, BF16 = 30 };

typedef struct tensor {
    const char *theirs, *name; /* of transformers, of ggml */
    int64_t rows, columns;     /* columns 0: a vector */
    bool turns;                /* rows of heads are in the order of neighbours */
    int type;
    float *values; /* as transformers has them, after rounding */
    char *bytes;   /* as the file has them */
    int64_t size;
} tensor;

static uint32_t drawn;

static uint32_t draw(void)
{
    drawn = drawn * 1664525u + 1013904223u;
    return drawn >> 8;
}

static float draw_float(void)
{
    return ((float)(draw() % 2001) - 1000) / 8000;
}

/* One row of n numbers in the type; x becomes what was kept of them. */
static int64_t encode(int type, float *x, int64_t n, char *to)
{
    char *start = to;
    for (int64_t i = 0; i < n; i += type == Q4_K || type == Q6_K   ? MN__SUPER_BLOCK
                                    : type == Q8_0 || type == Q4_0 ? MN__BLOCK
                                                                   : 1) {
        union {
            float f;
            uint16_t half;
            mn__block_int8 int8;
            mn__block_int4 int4;
            mn__block_q4_k q4_k;
            mn__block_q6_k q6_k;
        } one;
        int64_t bytes = 4;
        if (type == F32) {
            one.f = x[i];
        } else if (type == F16) {
            one.half = mn__f32_to_f16(x[i]);
            x[i] = mn__f16_to_f32(one.half);
            bytes = 2;
        } else if (type == BF16) {
            one.half = mn__f32_to_bf16(x[i]);
            x[i] = mn__bf16_to_f32(one.half);
            bytes = 2;
        } else if (type == Q8_0) {
            one.int8 = mn__block_int8_of(x + i);
            one.int8.q[3] = 100; /* not what rounding its numbers would give again */
            for (int k = 0; k < MN__BLOCK; k++)
                one.int8.q[k] = (int8_t)(one.int8.q[k] / 2);
            mn__block_int8_floats(&one.int8, x + i);
            bytes = sizeof one.int8;
        } else if (type == Q4_0) {
            one.int4 = mn__block_int4_of(x + i);
            for (int k = 0; k < MN__BLOCK / 2; k++)
                one.int4.q[k] = (uint8_t)(0x44 + (one.int4.q[k] & 0x77));
            mn__block_int4_floats(&one.int4, x + i);
            bytes = sizeof one.int4;
        } else if (type == Q4_K) {
            for (size_t k = 0; k < sizeof one.q4_k; k++)
                ((uint8_t *)&one)[k] = (uint8_t)draw();
            one.q4_k.d = mn__f32_to_f16(1e-4f);
            one.q4_k.dmin = mn__f32_to_f16(5e-4f);
            mn__block_q4_k_floats(&one.q4_k, x + i);
            bytes = sizeof one.q4_k;
        } else {
            for (size_t k = 0; k < sizeof one.q6_k; k++)
                ((uint8_t *)&one)[k] = (uint8_t)draw();
            one.q6_k.d = mn__f32_to_f16(3e-5f);
            mn__block_q6_k_floats(&one.q6_k, x + i);
            bytes = sizeof one.q6_k;
        }
        memcpy(to, &one, (size_t)bytes);
        to += bytes;
    }
    return to - start;
}

/* The row of a file's that is row r of transformers': pairs (i, i + D / 2) become (2 i, 2 i + 1).
 */
static int64_t place_of(const tensor *t, int64_t r)
{
    int64_t i = r % D;
    return t->turns ? r - i + (i < D / 2 ? 2 * i : 2 * (i - D / 2) + 1) : r;
}

static void make_tensor(tensor *t)
{
    int64_t width = t->columns ? t->columns : t->rows, rows = t->columns ? t->rows : 1;
    t->values = malloc((size_t)(rows * width) * sizeof *t->values);
    t->bytes = malloc((size_t)(rows * width) * 4);
    assert_non_null(t->values);
    assert_non_null(t->bytes);
    if (!t->columns)
        t->type = F32;
    for (int64_t r = 0; r < rows; r++) {
        float *row = t->values + r * width;
        char encoded[4 * F];
        for (int64_t c = 0; c < width; c++)
            row[c] = draw_float() + (t->columns || strstr(t->name, "bias") ? 0 : 1);
        int64_t bytes = encode(t->type, row, width, encoded);
        memcpy(t->bytes + place_of(t, r) * bytes, encoded, (size_t)bytes);
        t->size = rows * bytes;
    }
}

/* ---- Files ------------------------------------------------------------------------------- */

static void put(mn__string *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        char byte = (char)(value >> (8 * i));
        mn__string_add(out, &byte, 1);
    }
}

static void put_text(mn__string *out, const char *text)
{
    put(out, strlen(text), 8);
    mn__string_puts(out, text);
}

typedef struct value {
    const char *key;
    int64_t number; /* -1: `real` holds it */
    float real;
} value;

static void write_gguf(const char *path, const char *architecture, const value *values,
                       const tensor *tensors, int count)
{
    mn__string out = {0};
    int64_t offset = 0, numbers = 0;
    while (values[numbers].key)
        numbers++;
    mn__string_puts(&out, "GGUF");
    put(&out, 3, 4);
    put(&out, (uint64_t)count, 8);
    put(&out, (uint64_t)numbers + 1, 8);
    put_text(&out, "general.architecture");
    put(&out, 8, 4);
    put_text(&out, architecture);
    for (int64_t i = 0; i < numbers; i++) {
        char key[96];
        uint32_t bits;
        snprintf(key, sizeof key, "%s.%s", architecture, values[i].key);
        put_text(&out, key);
        memcpy(&bits, &values[i].real, 4);
        put(&out, values[i].number < 0 ? 6 : 4, 4);
        put(&out, values[i].number < 0 ? bits : (uint64_t)values[i].number, 4);
    }
    for (int i = 0; i < count; i++) {
        const tensor *t = &tensors[i];
        put_text(&out, t->name);
        put(&out, t->columns ? 2 : 1, 4);
        if (t->columns)
            put(&out, (uint64_t)t->columns, 8);
        put(&out, (uint64_t)t->rows, 8);
        put(&out, (uint64_t)t->type, 4);
        put(&out, (uint64_t)offset, 8);
        offset += (t->size + 31) / 32 * 32;
    }
    while (out.bytes % 32)
        put(&out, 0, 1);
    for (int i = 0; i < count; i++) {
        mn__string_add(&out, tensors[i].bytes, tensors[i].size);
        for (int64_t n = tensors[i].size; n % 32; n++)
            put(&out, 0, 1);
    }
    assert_false(out.failed);
    folder_write(path, out.text, out.bytes);
    mn__string_free(&out);
}

static void write_folder(const char *config, const tensor *tensors, int count)
{
    mn__safetensor list[TENSORS];
    mn_error error;
    int n = 0;
    for (int i = 0; i < count; i++)
        if (tensors[i].theirs)
            list[n++] = (mn__safetensor){
                .name = tensors[i].theirs,
                .dtype = "F32",
                .rank = tensors[i].columns ? 2 : 1,
                .size = {tensors[i].rows, tensors[i].columns},
                .data = tensors[i].values,
                .bytes = tensors[i].rows * (tensors[i].columns ? tensors[i].columns : 1) * 4};
    folder_write(folder_path(temporary, "model/config.json"), config, -1);
    succeed(mn__safetensors_write(folder_path(temporary, "model/model.safetensors"), list, n, NULL,
                                  &error),
            &error);
}

#define LAYER "model.layers.0."
/* theirs, ggml's; rows, columns; turns */
#define TENSOR(theirs, own, rows, columns, turns)             \
    {                                                         \
        theirs, own, rows, columns, turns, F32, NULL, NULL, 0 \
    }
static const tensor all_tensors[] = {
    TENSOR("model.embed_tokens.weight", "token_embd.weight", V, C, false),
    TENSOR("model.norm.weight", "output_norm.weight", C, 0, false),
    TENSOR(LAYER "input_layernorm.weight", "blk.0.attn_norm.weight", C, 0, false),
    TENSOR(LAYER "self_attn.q_proj.weight", "blk.0.attn_q.weight", H *D, C, true),
    TENSOR(LAYER "self_attn.k_proj.weight", "blk.0.attn_k.weight", G *D, C, true),
    TENSOR(LAYER "self_attn.v_proj.weight", "blk.0.attn_v.weight", G *D, C, false),
    TENSOR(LAYER "self_attn.o_proj.weight", "blk.0.attn_output.weight", C, H *D, false),
    TENSOR(LAYER "post_attention_layernorm.weight", "blk.0.ffn_norm.weight", C, 0, false),
    TENSOR(LAYER "mlp.gate_proj.weight", "blk.0.ffn_gate.weight", F, C, false),
    TENSOR(LAYER "mlp.up_proj.weight", "blk.0.ffn_up.weight", F, C, false),
    TENSOR(LAYER "mlp.down_proj.weight", "blk.0.ffn_down.weight", C, F, false),
    TENSOR(LAYER "self_attn.q_proj.bias", "blk.0.attn_q.bias", H *D, 0, false), /* qwen2's */
    TENSOR(LAYER "self_attn.k_proj.bias", "blk.0.attn_k.bias", G *D, 0, false),
    TENSOR(LAYER "self_attn.v_proj.bias", "blk.0.attn_v.bias", G *D, 0, false),
};
enum { ALL = sizeof all_tensors / sizeof *all_tensors, BIASES = 3 };

static const value usual[] = {{"embedding_length", C, 0},
                              {"feed_forward_length", F, 0},
                              {"block_count", 1, 0},
                              {"context_length", 64, 0},
                              {"attention.head_count", H, 0},
                              {"attention.head_count_kv", G, 0},
                              {"attention.layer_norm_rms_epsilon", -1, 1e-5f},
                              {"rope.freq_base", -1, 500.0f},
                              {"rope.dimension_count", D, 0},
                              {0}};

/* Both forms of one model, in "model" and "model.gguf": matrices of a type (`other` for the
 * values' and those after, if it is not the same), without `output` or with. */
static void make_both(const char *architecture, int type, int other, bool tied,
                      const char *rope_scaling, const float *factors)
{
    static char config[600];
    bool llama = !strcmp(architecture, "llama");
    tensor tensors[TENSORS];
    int count = llama ? ALL - BIASES : ALL;
    drawn = 7;
    memcpy(tensors, all_tensors, sizeof all_tensors);
    if (!tied)
        tensors[count++] = (tensor)TENSOR("lm_head.weight", "output.weight", V, C, false);
    for (int i = 0; i < count; i++) {
        tensors[i].type = i >= 5 ? other : type;
        tensors[i].turns = tensors[i].turns && llama;
        make_tensor(&tensors[i]);
    }
    snprintf(config, sizeof config,
             "{\"model_type\": \"%s\", \"hidden_size\": %d, \"intermediate_size\": %d,"
             " \"num_hidden_layers\": 1, \"num_attention_heads\": %d, \"vocab_size\": %d,"
             " \"num_key_value_heads\": %d, \"max_position_embeddings\": 64, \"rms_norm_eps\":"
             " %.17g, \"rope_theta\": 500.0, \"tie_word_embeddings\": %s%s}",
             architecture, C, F, H, V, G, (double)1e-5f, tied ? "true" : "false", rope_scaling);
    if (factors) {
        tensors[count] = (tensor)TENSOR(NULL, "rope_freqs.weight", D / 2, 0, false);
        tensors[count].bytes = (char *)(uintptr_t)factors;
        tensors[count++].size = 4 * (D / 2);
    }
    write_folder(config, tensors, count);
    write_gguf(folder_path(temporary, "model.gguf"), architecture, usual, tensors, count);
    for (int i = 0; i < count; i++) {
        free(tensors[i].values);
        if (tensors[i].theirs)
            free(tensors[i].bytes);
    }
}

/* ---- Logits -------------------------------------------------------------------------------- */

static void read_logits(const char *path, mn__weights weights, mn__form form, float *logits)
{
    mn_error error;
    mn__device device;
    mn__pretrained model;
    mn__states states;
    mn__tape tape;
    int32_t ids[TOKENS], every[TOKENS];
    bool start = true;
    for (int32_t i = 0; i < TOKENS; i++) {
        every[i] = i;
        ids[i] = (i * i + 5 * i) % V;
    }
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__pretrained_open_as(&model, &device, path, 0, weights, true, &error), &error);
    if (weights != MN__WEIGHTS_MASTERS) {
        const mn__param *query = mn__params_find(&model.params, "layers.0.attention.query.weight");
        const mn__param *both =
            mn__params_find(&model.params, "layers.0.attention.key_value.weight");
        if (form == MN__FORM_F32 || form == MN__FORM_BF16)
            assert_true(query->lies || (query->packs && query->form == form));
        else
            assert_true(query->packs && query->form == form);
        assert_true(both->packs || both->lies);
        assert_int_equal(strlen(mn__params_fingerprint(&model.params).hex), 32);
    }
    mn__tape_init(&tape, &model.params, MN__F32);
    succeed(mn__decoder_states_open(model.decoder, &states, 1, TOKENS, MN__F32, &error), &error);
    mn__segment segment = {.B = 1, .T = TOKENS, .start = &start};
    mn__var *hidden = mn__decoder_forward(model.decoder, &tape, &segment, ids, &states);
    mn__var *out = mn__decoder_logits(model.decoder, &tape, hidden, every, TOKENS);
    succeed(mn__tape_status(&tape, &error), &error);
    memcpy(logits, out->value.data, TOKENS * V * sizeof *logits);
    mn__states_close(&states);
    mn__tape_free(&tape);
    mn__pretrained_close(&model);
    mn__device_close(&device);
}

/* f32's rounding, of both. */
static void check_both(const char *what, mn__weights weights, mn__form form)
{
    static float expected[TOKENS * V], got[TOKENS * V];
    double most = 0, apart = 0;
    read_logits(folder_path(temporary, "model"), MN__WEIGHTS_MASTERS, form, expected);
    read_logits(folder_path(temporary, "model.gguf"), weights, form, got);
    for (int64_t i = 0; i < TOKENS * V; i++) {
        double one = fabs((double)got[i] - (double)expected[i]);
        most = fmax(most, fabs((double)expected[i]));
        apart = one > apart || isnan(one) ? one : apart;
    }
    if (!(most > 0.01 && apart <= 2e-5 * most))
        fail_msg("%s: %g apart, the largest logit being %g", what, apart, most);
}

static void every_type(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int type, other;
        mn__form form;
    } types[] = {
        {"F32", F32, F32, MN__FORM_F32},          {"F16", F16, F16, MN__FORM_F32},
        {"BF16", BF16, BF16, MN__FORM_F32},       {"Q8_0", Q8_0, Q8_0, MN__FORM_INT8},
        {"Q4_0", Q4_0, Q4_0, MN__FORM_INT4},      {"Q4_K", Q4_K, Q4_K, MN__FORM_F32},
        {"Q6_K", Q6_K, Q6_K, MN__FORM_F32},       {"Q4_K and Q6_K", Q4_K, Q6_K, MN__FORM_F32},
        {"Q4_0, Q8_0", Q4_0, Q8_0, MN__FORM_INT4}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int tied = 0; tied < 2; tied++)
            for (int qwen = 0; qwen < 2; qwen++) {
                make_both(qwen ? "qwen2" : "llama", types[i].type, types[i].other, tied, "", NULL);
                check_both(types[i].name, MN__WEIGHTS_F32, types[i].form);
                check_both(types[i].name, MN__WEIGHTS_MASTERS, types[i].form);
            }
}

/* Llama 3.1's frequencies lie in the file as factors. */
static void factors(void **state)
{
    (void)state;
    float factor[D / 2];
    const double original = 32, low = 1, high = 4, by = 8, pi = 3.14159265358979323846;
    for (int i = 0; i < D / 2; i++) {
        double frequency = pow(500, -2.0 * i / D), turns = original * frequency / (2 * pi);
        double smooth = fmin(fmax((turns - low) / (high - low), 0), 1);
        factor[i] = (float)(1 / ((1 - smooth) / by + smooth));
    }
    make_both(
        "llama", F32, F32, false,
        ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\":"
        " 1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 32}",
        factor);
    check_both("rope_freqs", MN__WEIGHTS_F32, MN__FORM_F32);
}

/* ---- Blocks -----------------------------------------------------------------------------------
 */

static void blocks(void **state)
{
    (void)state;
    char path[512];
    mn_error error;
    mn__safetensors *file;
    snprintf(path, sizeof path, "%s/tests/golden/ggml_blocks.safetensors", MNEME_SOURCE_DIR);
    succeed(mn__safetensors_open(&file, path, &error), &error);
    for (int kind = 0; kind < 4; kind++) {
        static const char *const names[] = {"q8_0", "q4_0", "q4_k", "q6_k"};
        char name[32];
        const mn__safetensor *raw = mn__safetensors_find(file, names[kind]);
        snprintf(name, sizeof name, "%s.floats", names[kind]);
        const mn__safetensor *floats = mn__safetensors_find(file, name);
        assert_true(raw && floats && raw->size[0] == floats->size[0]);
        int64_t n = floats->size[1];
        for (int64_t i = 0; i < raw->size[0]; i++) {
            const char *block = (const char *)raw->data + i * raw->size[1];
            const float *expected = (const float *)floats->data + i * n;
            float got[MN__SUPER_BLOCK], most = 0;
            if (kind == 0)
                mn__block_int8_floats((const mn__block_int8 *)block, got);
            else if (kind == 1)
                mn__block_int4_floats((const mn__block_int4 *)block, got);
            else if (kind == 2)
                mn__block_q4_k_floats((const mn__block_q4_k *)block, got);
            else
                mn__block_q6_k_floats((const mn__block_q6_k *)block, got);
            for (int64_t k = 0; k < n; k++)
                most = fmaxf(most, fabsf(expected[k]));
            for (int64_t k = 0; k < n; k++) /* some roundings of products and of a difference */
                if (!(fabsf(got[k] - expected[k]) <= 0x1p-21f * most))
                    fail_msg("%s [%lld, %lld] is %g, not %g", names[kind], (long long)i,
                             (long long)k, (double)got[k], (double)expected[k]);
        }
    }
    mn__safetensors_close(file);
}

/* ---- What is refused
 * ----------------------------------------------------------------------------- */

static void check_refused(const char *what, mn_status expected, const char *part)
{
    mn_error error;
    mn__device device;
    mn__pretrained model;
    succeed(mn__device_open(&device, &error), &error);
    int64_t before = mn__memory_now().bytes;
    mn_status status = mn__pretrained_open_as(&model, &device, folder_path(temporary, "bad.gguf"),
                                              0, MN__WEIGHTS_F32, true, &error);
    if (status != expected || !strstr(error.message, part))
        fail_msg("%s: %s, '%s'", what, mn_status_name(status), error.message);
    assert_int_equal(mn__memory_now().bytes, before);
    mn__device_close(&device);
}

static void refusals(void **state)
{
    (void)state;
    const char *bad = folder_path(temporary, "bad.gguf");
    tensor tensors[TENSORS];
    value values[16] = {{0}};
    int count = ALL - BIASES;
    memcpy(tensors, all_tensors, sizeof all_tensors);
    for (int i = 0; i < count; i++)
        make_tensor(&tensors[i]);
    write_gguf(bad, "mamba", usual, tensors, count);
    check_refused("an architecture", MN_ERROR_UNSUPPORTED, "mamba");
    write_gguf(bad, "llama", usual + 1, tensors, count);
    check_refused("a missing key", MN_ERROR_FORMAT, "llama.embedding_length");
    write_gguf(bad, "llama", usual, tensors + 1, count - 1);
    check_refused("no table", MN_ERROR_MISMATCH, "token_embd");
    write_gguf(bad, "llama", usual, tensors, count - 1);
    check_refused("a missing tensor", MN_ERROR_MISMATCH, "down_proj");
    tensors[6].rows -= 1;
    write_gguf(bad, "llama", usual, tensors, count);
    check_refused("a tensor's size", MN_ERROR_MISMATCH, "o_proj");
    tensors[6].rows += 1;
    tensors[6].type = Q5_0;
    write_gguf(bad, "llama", usual, tensors, count);
    check_refused("a tensor's type", MN_ERROR_UNSUPPORTED, "Q5_0");
    tensors[6].type = F32;
    memcpy(values, usual, sizeof usual);
    values[8].number = D / 2;
    write_gguf(bad, "llama", values, tensors, count);
    check_refused("half a head that turns", MN_ERROR_UNSUPPORTED, "rope.dimension_count");
    values[8] = (value){"expert_count", 8, 0};
    write_gguf(bad, "llama", values, tensors, count);
    check_refused("experts", MN_ERROR_UNSUPPORTED, "expert_count");
    values[8] = (value){"block_count", 1 << 30, 0};
    values[2] = values[8];
    values[8] = (value){0};
    write_gguf(bad, "llama", values, tensors, count);
    check_refused("more layers than there are", MN_ERROR_OPTION, "depth");
    for (int i = 0; i < count; i++) {
        free(tensors[i].values);
        free(tensors[i].bytes);
    }
}

static mn_status open_and_close(void *user, mn_error *error)
{
    mn__pretrained model;
    mn_status status = mn__pretrained_open_as(&model, user, folder_path(temporary, "model.gguf"), 0,
                                              MN__WEIGHTS_F32, true, error);
    if (status == MN_OK)
        mn__pretrained_close(&model);
    return status;
}

static void allocations(void **state)
{
    (void)state;
    mn_error error;
    mn__device device;
    succeed(mn__device_open(&device, &error), &error);
    make_both("llama", Q8_0, Q4_K, true, "", NULL);
    assert_true(failing_each("a GGUF file", open_and_close, &device, true, NULL) > 20);
    mn__device_close(&device);
}

/* ---- Conversations ------------------------------------------------------------------------- */

static mn_status open_chat(void *user, mn_error *error)
{
    mn__chat *chat;
    mn_status status = mn__chat_open(&chat, user, error);
    mn__chat_free(chat);
    return status;
}

/* The file's own template, with the texts of the ids that it names; an answer ends where a turn
 * does, too. */
static void chats(void **state)
{
    (void)state;
    const char *path = folder_path(temporary, "chat.gguf");
    mn_error error;
    mn__chat *chat;
    mn__device device;
    mn__run run;
    mn__string out = {0};
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "Why?");
    const mn__chat_request request = {.messages = messages};
    small_gguf_make(path, 1, "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", 258);
    succeed(mn__chat_open(&chat, path, &error), &error);
    succeed(mn__chat_render(chat, &request, &out, &error), &error);
    assert_string_equal(out.text, "<s>Why?<|end|>");
    mn__string_free(&out);
    mn__chat_free(chat);
    json_decref(messages);
    assert_true(
        failing_each("a file's chat template", open_chat, (char *)(uintptr_t)path, true, NULL) > 5);
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__run_open(&run, &device, path, NULL, 0, &error), &error);
    assert_int_equal(run.end_count, 2);
    assert_int_equal(run.ends[0], 259);
    assert_int_equal(run.ends[1], 258);
    mn__run_close(&run);
    mn__device_close(&device);
    small_gguf_make(path, 1, "{% unknown %}", -1);
    assert_int_equal(mn__chat_open(&chat, path, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "chat.gguf: tokenizer.chat_template"));
    small_gguf_make(path, 1, NULL, -1);
    assert_int_equal(mn__chat_open(&chat, path, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "no chat template"));
    folder_write(path, "GGUF", 4);
    assert_int_equal(mn__chat_open(&chat, path, &error), MN_ERROR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type), cmocka_unit_test(factors),     cmocka_unit_test(blocks),
        cmocka_unit_test(refusals),   cmocka_unit_test(allocations), cmocka_unit_test(chats),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
