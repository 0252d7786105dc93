/* Weights kept for reading alone: packed in every form they give what floats give of the
 * same numbers, the four laws hold, what the file holds is never there as floats as a whole,
 * and what cannot be done with them says so. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernel/blocks.h"
#include "model/pretrained.h"
#include "model/run.h"
#include "reader/plan.h"
#include "reader/session.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/model.h"

enum { TOKENS = 48 };

static const mn__weights every_form[] = {MN__WEIGHTS_F32, MN__WEIGHTS_BF16, MN__WEIGHTS_INT8,
                                         MN__WEIGHTS_INT4, MN__WEIGHTS_F16};
enum { FORMS = sizeof every_form / sizeof *every_form };

static const char *temporary;

static int setup(void **state)
{
    int status = folder_make(state);
    temporary = *state;
    return status;
}

static const char *golden(char path[512], const char *family)
{
    snprintf(path, 512, "%s/tests/golden/pretrained/%s", MNEME_SOURCE_DIR, family);
    return path;
}

static mn__dtype compute_of(mn__weights weights)
{
    return weights == MN__WEIGHTS_BF16 ? MN__BF16 : MN__F32;
}

/* ---- Peak memory: first, for the peak is the process's ------------------------------------- */

enum { WIDTH = 256, HIDDEN = 1024, VOCABULARY = 4096, DEPTH = 2 };

typedef struct made_tensor {
    const char *name;
    int64_t rows, columns;
} made_tensor;

/* A Llama whose tensors hold small numbers of some kind. */
static void make_large(const char *dtype, bool tied)
{
    static const char config[] =
        "{\"model_type\": \"llama\", \"hidden_size\": 256, \"intermediate_size\": 1024,"
        " \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 4096,"
        " \"max_position_embeddings\": 64, \"tie_word_embeddings\": %s}";
    static const made_tensor of_layer[] = {
        {"input_layernorm", WIDTH, 0},      {"post_attention_layernorm", WIDTH, 0},
        {"self_attn.q_proj", WIDTH, WIDTH}, {"self_attn.k_proj", WIDTH, WIDTH},
        {"self_attn.v_proj", WIDTH, WIDTH}, {"self_attn.o_proj", WIDTH, WIDTH},
        {"mlp.gate_proj", HIDDEN, WIDTH},   {"mlp.up_proj", HIDDEN, WIDTH},
        {"mlp.down_proj", WIDTH, HIDDEN}};
    static char names[64][80], text[512];
    mn__safetensor tensors[64];
    mn_error error;
    int64_t count = 0, each = strcmp(dtype, "F32") ? 2 : 4;
    uint16_t *values = malloc((size_t)(VOCABULARY * WIDTH * each));
    assert_non_null(values);
    for (int64_t i = 0; i < VOCABULARY * WIDTH * each / 2; i++) /* of any dtype, below 1 */
        values[i] = (uint16_t)(0x2800 + i * 37 % 0x400);
    for (int64_t layer = 0; layer < DEPTH; layer++)
        for (size_t i = 0; i < sizeof of_layer / sizeof *of_layer; i++, count++) {
            snprintf(names[count], sizeof *names, "model.layers.%d.%s.weight", (int)layer,
                     of_layer[i].name);
            tensors[count] = (mn__safetensor){.rank = of_layer[i].columns ? 2 : 1,
                                              .size = {of_layer[i].rows, of_layer[i].columns}};
        }
    for (int i = 0; i < 3 - tied; i++, count++) {
        static const char *const ends[] = {"model.norm", "model.embed_tokens", "lm_head"};
        snprintf(names[count], sizeof *names, "%s.weight", ends[i]);
        tensors[count] =
            (mn__safetensor){.rank = i ? 2 : 1, .size = {i ? VOCABULARY : WIDTH, i ? WIDTH : 0}};
    }
    for (int64_t i = 0; i < count; i++) {
        mn__safetensor *tensor = &tensors[i];
        tensor->name = names[i];
        tensor->dtype = dtype;
        tensor->data = values;
        tensor->bytes = tensor->size[0] * (tensor->rank == 2 ? tensor->size[1] : 1) * each;
    }
    snprintf(text, sizeof text, config, tied ? "true" : "false");
    folder_write(folder_path(temporary, "large/config.json"), text, -1);
    succeed(mn__safetensors_write(folder_path(temporary, "large/model.safetensors"), tensors, count,
                                  NULL, &error),
            &error);
    free(values);
}

/* Opening adds what stays, a strip of rows, and what names and directories take. */
static void check_peak(const char *dtype, bool tied, mn__weights weights)
{
    enum { SMALL = 2 << 20 }; /* arenas' blocks */
    const int64_t products = DEPTH * (4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN) + VOCABULARY * WIDTH;
    const int64_t bits[] = {0, 32, 16, 16, 8, 4};
    mn_error error;
    mn__device device;
    mn__pretrained model;
    make_large(dtype, tied);
    succeed(mn__device_open(&device, &error), &error);
    int64_t before = mn__memory_now().bytes, peak_before = mn__memory_now().peak_bytes;
    succeed(mn__pretrained_open_as(&model, &device, folder_path(temporary, "large"), 0, weights,
                                   false, &error),
            &error);
    mn__memory_stats now = mn__memory_now();
    int64_t strip = 2 * MN__PACK_COLUMNS * HIDDEN * (4 + 2);
    int64_t rows = VOCABULARY * WIDTH * (strcmp(dtype, "BF16") ? 4 : 2);
    int64_t scales = weights >= MN__WEIGHTS_INT8 ? products / MN__BLOCK * 2 : 0;
    /* Below the instructions for it, bf16 is packed as floats. */
    int64_t most_bits =
        weights == MN__WEIGHTS_BF16 && device.queue.kernels->level < MN__LEVEL_V4BF16
            ? 32
            : bits[weights];
    int64_t most = products * most_bits / 8 + scales + rows + SMALL;
    if (device.queue.kernels->level == MN__LEVEL_PLAIN) /* whose forms are floats */
        most = products * 4 + rows + SMALL;
    int64_t held = now.bytes - before;
    bool lies = (weights == MN__WEIGHTS_F32 && !strcmp(dtype, "F32")) ||
                (weights == MN__WEIGHTS_BF16 && !strcmp(dtype, "BF16"));
    if (lies) /* in the mapped file */
        most = SMALL;
    else if (weights != MN__WEIGHTS_MASTERS && strcmp(dtype, "F16")) /* its table does */
        most -= rows;
    if (held > most)
        fail_msg("%s in %s takes %lld bytes, not %lld", dtype, mn__weights_name(weights),
                 (long long)held, (long long)most);
    if (now.peak_bytes > peak_before && now.peak_bytes > now.bytes + strip + SMALL)
        fail_msg("%s in %s: a peak of %lld bytes, of %lld that stay", dtype,
                 mn__weights_name(weights), (long long)now.peak_bytes, (long long)now.bytes);
    assert_true(lies || held > products * bits[weights] / 8);
    mn__pretrained_close(&model);
    mn__device_close(&device);
}

/* The smallest first, so that each can raise the peak. */
static void peaks(void **state)
{
    (void)state;
    check_peak("BF16", true, MN__WEIGHTS_INT4);
    check_peak("BF16", false, MN__WEIGHTS_INT8);
    check_peak("F16", true, MN__WEIGHTS_INT4);
    check_peak("F16", true, MN__WEIGHTS_INT8);
    check_peak("F32", false, MN__WEIGHTS_INT8);
    check_peak("F16", true, MN__WEIGHTS_F16);
    check_peak("BF16", false, MN__WEIGHTS_BF16);
    check_peak("F32", false, MN__WEIGHTS_BF16);
    check_peak("F32", true, MN__WEIGHTS_F32);
}

/* ---- Logits -----------------------------------------------------------------------------------
 */

static void read_logits(mn__decoder *decoder, mn__params *params, mn__dtype compute, int64_t piece,
                        float *logits)
{
    mn_error error;
    mn__states states;
    mn__tape tape;
    int32_t ids[TOKENS], every[TOKENS];
    int64_t V = mn__decoder_vocabulary(decoder);
    for (int32_t i = 0; i < TOKENS; i++) {
        every[i] = i;
        ids[i] = (int32_t)((i * i * 7 + i) % V);
    }
    mn__tape_init(&tape, params, compute);
    succeed(mn__decoder_states_open(decoder, &states, 1, TOKENS, compute, &error), &error);
    for (int64_t t = 0, count; t < TOKENS; t += count) {
        bool start = t == 0;
        count = TOKENS - t < piece ? TOKENS - t : piece;
        mn__segment segment = {.B = 1, .T = count, .start = &start};
        mn__var *hidden = mn__decoder_forward(decoder, &tape, &segment, ids + t, &states);
        mn__var *out = mn__decoder_logits(decoder, &tape, hidden, every, count);
        succeed(mn__tape_status(&tape, &error), &error);
        memcpy(logits + t * V, out->value.data, (size_t)(count * V) * sizeof *logits);
        mn__decoder_commit(decoder, &tape, &segment, &states, false);
        mn__tape_reset(&tape);
    }
    mn__states_close(&states);
    mn__tape_free(&tape);
}

static float *new_logits(const mn__decoder *decoder)
{
    float *logits = malloc((size_t)(TOKENS * mn__decoder_vocabulary(decoder)) * sizeof *logits);
    assert_non_null(logits);
    return logits;
}

/* bound: of the largest logit. */
static void compare(const char *what, const float *got, const float *expected, int64_t n,
                    double bound)
{
    double most = 0, furthest = 0;
    for (int64_t i = 0; i < n; i++) {
        double apart = fabs((double)got[i] - (double)expected[i]);
        most = fmax(most, fabs((double)expected[i]));
        furthest = apart > furthest || isnan(apart) ? apart : furthest;
    }
    assert_true(most > 0);
    if (!(furthest <= bound * most))
        fail_msg("%s: %g of the largest logit apart, not %g", what, furthest / most, bound);
}

static void open_family(mn__pretrained *model, mn__device *device, const char *folder,
                        mn__weights weights)
{
    mn_error error;
    succeed(mn__device_open(device, &error), &error);
    succeed(mn__pretrained_open_as(model, device, folder, 0, weights, false, &error), &error);
}

static void close_family(mn__pretrained *model, mn__device *device)
{
    mn__pretrained_close(model);
    mn__device_close(device);
}

/* The block's numbers in place of x. */
static void through_block(float x[MN__BLOCK], mn__weights weights)
{
    const mn__block_int8 int8 = mn__block_int8_of(x);
    const mn__block_int4 int4 = mn__block_int4_of(x);
    for (int i = 0; i < MN__BLOCK; i++)
        x[i] = weights == MN__WEIGHTS_INT8
                   ? mn__f16_to_f32(int8.scale) * (float)int8.q[i]
                   : mn__f16_to_f32(int4.scale) * (float)mn__block_int4_at(&int4, i);
}

/* What integers would make of a master that products read: rows that are no whole blocks of 4
 * bits stay in 8. */
static void round_param(mn__param *param, mn__weights weights)
{
    float *value = param->value.data;
    int64_t rows = param->value.size[0], width = param->value.size[1];
    if (width % MN__BLOCK)
        weights = MN__WEIGHTS_INT8;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c += MN__BLOCK) {
            float x[MN__BLOCK] = {0};
            size_t bytes = (size_t)(width - c < MN__BLOCK ? width - c : MN__BLOCK) * sizeof *x;
            memcpy(x, value + r * width + c, bytes);
            through_block(x, weights);
            memcpy(value + r * width + c, x, bytes);
        }
    mn__param_changed(param);
}

/* Integers are numbers: products with them are, to rounding, those of floats with the same
 * values, of few rows and of many; f32's rounding over two layers, of both. */
static void integers(void **state)
{
    (void)state;
    static const char *const untied[] = {"llama", "mistral", "qwen2",  "phi3",
                                         "glm",   "glm4",    "chatglm"};
    char path[512], what[64];
    for (size_t f = 0; f < sizeof untied / sizeof *untied; f++)
        for (int w = 2; w < 4; w++) {
            mn__device device, plain_device;
            mn__pretrained model, plain;
            open_family(&model, &device, golden(path, untied[f]), every_form[w]);
            open_family(&plain, &plain_device, path, MN__WEIGHTS_MASTERS);
            for (int64_t i = 0; i < plain.params.count; i++)
                if (plain.params.items[i]->readers & MN__READERS_PRODUCTS)
                    round_param(plain.params.items[i], every_form[w]);
            float *got = new_logits(model.decoder), *expected = new_logits(model.decoder);
            read_logits(plain.decoder, &plain.params, MN__F32, TOKENS, expected);
            for (int64_t piece = TOKENS; piece > 0; piece = piece == TOKENS ? 7 : piece - 3) {
                read_logits(model.decoder, &model.params, MN__F32, piece, got);
                snprintf(what, sizeof what, "%s in %s, %d at a time", untied[f],
                         mn__weights_name(every_form[w]), (int)piece);
                compare(what, got, expected, TOKENS * model.config.vocabulary, 2e-5);
            }
            free(got);
            free(expected);
            close_family(&model, &device);
            close_family(&plain, &plain_device);
        }
}

/* Of F32 checkpoints f16 keeps the nearest numbers; of an F16 checkpoint what is there, so that
 * it gives what floats of it give, of many rows to the bit. */
static void halves(void **state)
{
    (void)state;
    static const char *const untied[] = {"llama", "qwen2", "phi3", "chatglm"};
    char path[512];
    for (size_t f = 0; f <= sizeof untied / sizeof *untied; f++) {
        bool exact = f == sizeof untied / sizeof *untied;
        const char *name = exact ? "F16" : untied[f];
        mn__device device, plain_device;
        mn__pretrained model, plain;
        if (exact)
            make_large("F16", false);
        snprintf(path, sizeof path, "%s", folder_path(temporary, "large"));
        if (!exact)
            golden(path, name);
        open_family(&model, &device, path, MN__WEIGHTS_F16);
        open_family(&plain, &plain_device, path, exact ? MN__WEIGHTS_F32 : MN__WEIGHTS_MASTERS);
        for (int64_t i = 0; i < plain.params.count && !exact; i++) {
            mn__param *param = plain.params.items[i];
            float *value = param->value.data;
            for (int64_t n = 0;
                 param->readers & MN__READERS_PRODUCTS && n < mn__tensor_elements(&param->value);
                 n++)
                value[n] = mn__f16_to_f32(mn__f32_to_f16(value[n]));
            mn__param_changed(param);
        }
        float *got = new_logits(model.decoder), *expected = new_logits(model.decoder);
        int64_t n = TOKENS * model.config.vocabulary;
        read_logits(plain.decoder, &plain.params, MN__F32, TOKENS, expected);
        for (int64_t piece = TOKENS; piece > 0; piece = piece == TOKENS ? 7 : piece - 3) {
            read_logits(model.decoder, &model.params, MN__F32, piece, got);
            compare(name, got, expected, n, 2e-5);
            if (exact && piece == TOKENS)
                assert_memory_equal(got, expected, (size_t)n * sizeof *got);
        }
        free(got);
        free(expected);
        close_family(&model, &device);
        close_family(&plain, &plain_device);
    }
}

/* Of every family, tied ones too: floats packed once are floats packed for each product, of
 * many rows to the bit, of few rows but for the order of sums, which bf16 may round the other
 * way: some ten steps of each layer, by 2^-9. */
static void floats(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "mistral", "qwen2",    "qwen3",
                                           "phi3",  "glm",     "glm4",     "chatglm",
                                           "gpt2",  "opt",     "opt_post", "smollm3"};
    char path[512], what[64];
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (int w = 0; w < 2; w++) {
            mn__dtype compute = compute_of(every_form[w]);
            mn__device device, plain_device;
            mn__pretrained model, plain;
            open_family(&model, &device, golden(path, families[f]), every_form[w]);
            open_family(&plain, &plain_device, path, MN__WEIGHTS_MASTERS);
            float *got = new_logits(model.decoder), *expected = new_logits(model.decoder);
            size_t bytes = (size_t)(TOKENS * model.config.vocabulary) * sizeof *got;
            for (int64_t piece = TOKENS; piece > 0; piece = piece == TOKENS ? 7 : piece - 3) {
                read_logits(plain.decoder, &plain.params, compute, piece, expected);
                read_logits(model.decoder, &model.params, compute, piece, got);
                snprintf(what, sizeof what, "%s in %s, %d at a time", families[f],
                         mn__weights_name(every_form[w]), (int)piece);
                compare(what, got, expected, TOKENS * model.config.vocabulary,
                        compute == MN__BF16 ? 0x1p-5 : 2e-5);
                if (piece == TOKENS && memcmp(got, expected, bytes))
                    fail_msg("%s: packed before is not packed on the way", what);
            }
            free(got);
            free(expected);
            close_family(&model, &device);
            close_family(&plain, &plain_device);
        }
}

static double squares(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double apart = (double)x[i] - (y ? (double)y[i] : 0);
        sum += apart * apart;
    }
    return sum;
}

/* How far integers are from f32: a step is the block's largest number over 127, or 8. Of 32
 * normal numbers that is some 2.1 deviations, so that rounding, a step over sqrt(12), is
 * 0.5% or 8% of a number; some ten products in two layers add up as squares: 1.5% or 24%,
 * and with room three times as much. */
static void distances(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen3", "gpt2", "opt"};
    static const double bounds[] = {0.045, 0.75};
    char path[512];
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        double before = 0;
        for (int w = 2; w < 4; w++) {
            mn__device device, plain_device;
            mn__pretrained model, plain;
            open_family(&model, &device, golden(path, families[f]), every_form[w]);
            open_family(&plain, &plain_device, path, MN__WEIGHTS_MASTERS);
            float *got = new_logits(model.decoder), *expected = new_logits(model.decoder);
            int64_t n = TOKENS * model.config.vocabulary;
            read_logits(plain.decoder, &plain.params, MN__F32, TOKENS, expected);
            read_logits(model.decoder, &model.params, MN__F32, TOKENS, got);
            double apart = sqrt(squares(got, expected, n) / squares(expected, NULL, n));
            if (!(apart > before && apart <= bounds[w - 2]))
                fail_msg("%s in %s: %g of the logits apart, not %g", families[f],
                         mn__weights_name(every_form[w]), apart, bounds[w - 2]);
            before = apart;
            free(got);
            free(expected);
            close_family(&model, &device);
            close_family(&plain, &plain_device);
        }
    }
}

/* ---- The laws
 * ------------------------------------------------------------------------------------ */

enum { V = 31, SEGMENT = 8 };

/* A model of this recipe with weights drawn from a seed, kept as asked. */
static void open_held(test_model *model, const char *recipe, mn__weights weights)
{
    mn_error error;
    mn__arena arena;
    mn__safetensor *tensors;
    mn__safetensors *file;
    mn__yaml_node *root;
    int64_t count;
    const char *path = folder_path(temporary, "model.safetensors");
    test_model drawn;
    test_model_open(&drawn, recipe, V, SEGMENT, 7);
    mn__arena_init(&arena, 0);
    succeed(mn__params_list(&drawn.params, &arena, &tensors, &count, &error), &error);
    succeed(mn__safetensors_write(path, tensors, count, NULL, &error), &error);
    mn__hash_text fingerprint = mn__params_fingerprint(&drawn.params);
    mn__arena_free(&arena);
    test_model_close(&drawn);

    *model = (test_model){0};
    mn__arena_init(&model->arena, 0);
    succeed(mn__yaml_parse(&model->arena, "recipe", recipe, (int64_t)strlen(recipe), &root, &error),
            &error);
    succeed(mn__device_open(&model->device, &error), &error);
    mn__params_init(&model->params, &model->device, 1);
    model->params.weights = weights;
    succeed(mn__decoder_new(&model->decoder, &model->params, mn__yaml_get(root, "model"),
                            mn__yaml_get(root, "attention"), V, SEGMENT, &error),
            &error);
    succeed(mn__safetensors_open(&file, path, &error), &error);
    succeed(mn__params_load(&model->params, file, &error), &error);
    mn__safetensors_close(file);
    assert_string_equal(mn__params_fingerprint(&model->params).hex, fingerprint.hex);
}

static void open_session(test_model *model, mn__session *session, int64_t rows, mn__dtype compute)
{
    mn_error error;
    const mn__session_options options = {.rows = rows, .capacity = TOKENS + 1, .compute = compute};
    succeed(mn__session_open(session, model->decoder, &model->params, &options, &error), &error);
}

/* Tokens from..to of text `which` in every row, in pieces; the last row's nats. */
static void read_text(mn__session *session, int which, int64_t from, int64_t to, int64_t piece,
                      const bool *start, float *losses)
{
    enum { ROWS = 2 };
    mn_error error;
    int64_t rows = session->options.rows;
    int32_t ids[ROWS * TOKENS], targets[ROWS * TOKENS];
    float weights[ROWS * TOKENS], nats[ROWS * TOKENS];
    for (int64_t t = from, T; t < to; t += T) {
        T = to - t < piece ? to - t : piece;
        for (int64_t i = 0; i < rows * T; i++) {
            int64_t at = t + i % T, row = i / T;
            ids[i] = (int32_t)((at * (5 + which + row) + at * at) % V);
            targets[i] = (int32_t)(((at + 1) * 3 + at) % V);
            weights[i] = 1;
        }
        const mn__stretch stretch = {.T = T,
                                     .ids = ids,
                                     .start = t == from ? start : NULL,
                                     .targets = targets,
                                     .weights = weights,
                                     .losses = nats};
        succeed(mn__session_read(session, &stretch, &error), &error);
        memcpy(losses + t, nats + (rows - 1) * T, (size_t)T * sizeof *losses);
    }
}

static double apart(const float *a, const float *b, int64_t from, int64_t to)
{
    double largest = 0;
    for (int64_t t = from; t < to; t++) {
        double one = fabs((double)a[t] - (double)b[t]);
        largest = one > largest || isnan(one) ? one : largest;
    }
    return largest;
}

static void check_laws(test_model *model, mn__dtype compute, double rounding)
{
    enum { CUT = 24 };
    mn_error error;
    mn__session session, other;
    float whole[TOKENS], pieces[TOKENS], on[TOKENS], loaded[TOKENS];
    const char *path = folder_path(temporary, "session");
    open_session(model, &session, 1, compute);
    read_text(&session, 0, 0, TOKENS, TOKENS, NULL, whole);
    for (int64_t piece = 1; piece < TOKENS; piece += 6) { /* 1: chunking */
        mn__session_reset(&session);
        read_text(&session, 0, 0, TOKENS, piece, NULL, pieces);
        assert_true(apart(whole, pieces, 0, TOKENS) <= rounding);
    }
    mn__session_reset(&session); /* 2: saving */
    read_text(&session, 0, 0, CUT, TOKENS, NULL, on);
    succeed(mn__session_save(&session, path, "weights", &error), &error);
    read_text(&session, 0, CUT, TOKENS, TOKENS, NULL, on);
    open_session(model, &other, 1, compute);
    succeed(mn__session_load(&other, path, "weights", &error), &error);
    read_text(&other, 0, CUT, TOKENS, TOKENS, NULL, loaded);
    assert_memory_equal(on + CUT, loaded + CUT, (TOKENS - CUT) * sizeof *on);
    mn__session_reset(&other); /* 4: it matters */
    read_text(&other, 3, 0, CUT, TOKENS, NULL, loaded);
    read_text(&other, 0, CUT, TOKENS, TOKENS, NULL, loaded);
    assert_true(apart(on, loaded, CUT, TOKENS) > 0);
    mn__session_close(&other);
    mn__session_close(&session);
    const bool first[2] = {true, false}; /* 3: reset, of one row of two */
    open_session(model, &session, 2, compute);
    read_text(&session, 0, 0, CUT, TOKENS, NULL, whole);
    read_text(&session, 0, CUT, TOKENS, TOKENS, NULL, whole);
    mn__session_reset(&session);
    read_text(&session, 0, 0, CUT, TOKENS, NULL, pieces);
    read_text(&session, 0, CUT, TOKENS, TOKENS, first, pieces);
    assert_memory_equal(whole, pieces, sizeof whole);
    const bool last[2] = {false, true};
    mn__session_reset(&session);
    read_text(&session, 0, CUT, TOKENS, TOKENS, NULL, whole);
    read_text(&session, 0, CUT, TOKENS, TOKENS, last, pieces);
    assert_true(apart(whole, pieces, CUT, TOKENS) <= rounding); /* beside a longer row */
    mn__session_close(&session);
}

static const char *const recipes[] = {
    "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2, positions: rope, kv_heads: 2}\n"
    "attention: {type: full}\n",
    "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2, norm: rms, gated: true,"
    " tied: false, head_bias: true}\nattention: {type: window, window: 9}\n",
    "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2}\n"
    "attention: {type: xl, memory: 12}\n",
    "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2, norm: rms}\n"
    "attention: {type: compressive, memory: 12, compressed: 5}\n",
    "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2, norm: rms}\n"
    "attention: {type: block_recurrent, window: 4, states: 5, gate: lstm, form: dual}\n",
    "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2, norm: rms}\n"
    "attention: {type: knn, window: 8, memory: 24, neighbours: 24}\n",
    "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2, cutoffs: [10, 20],"
    " div_val: 2}\nattention: {type: full}\n",
};

static void laws(void **state)
{
    (void)state;
    for (size_t r = 0; r < sizeof recipes / sizeof *recipes; r++)
        for (int w = 0; w < FORMS; w++) {
            test_model model;
            open_held(&model, recipes[r], every_form[w]);
            /* bf16 rounds some 20 times on the way, by 2^-9, of logits of a few units. */
            if (every_form[w] != MN__WEIGHTS_BF16)
                check_laws(&model, MN__F32, 2e-4);
            if (every_form[w] != MN__WEIGHTS_F32)
                check_laws(&model, MN__BF16, 0.25);
            test_model_close(&model);
        }
}

/* ---- What cannot be
 * ------------------------------------------------------------------------------ */

static void check_error(mn_status status, const mn_error *error, const char *part)
{
    assert_int_equal(status, MN_ERROR_UNSUPPORTED);
    if (!strstr(error->message, part))
        fail_msg("'%s' does not say '%s'", error->message, part);
}

static void refusals(void **state)
{
    (void)state;
    mn_error error;
    mn__tape tape;
    mn__device device;
    mn__pretrained model;
    float x[4 * WIDTH] = {1};
    char path[512];
    open_family(&model, &device, golden(path, "llama"), MN__WEIGHTS_BF16);
    mn__param *query = mn__params_find(&model.params, "layers.0.attention.query.weight");
    assert_true(query && query->packs && !query->value.data);
    check_error(mn__params_prepare_gradients(&model.params, &error), &error, "for reading");
    mn__tensor rows = mn__tensor_of(x, MN__F32, 2, (int64_t[]){4, 32});

    mn__tape_init(&tape, &model.params, MN__F32); /* products in another type */
    assert_null(mn__op_linear(&tape, mn__tape_constant(&tape, rows), mn__tape_weight(&tape, query),
                              NULL, MN__LINEAR));
    check_error(mn__tape_status(&tape, &error), &error, "query.weight is kept in bf16");
    mn__tape_reset(&tape);
    assert_null(mn__tape_param(&tape, query)); /* the values themselves */
    check_error(mn__tape_status(&tape, &error), &error, "for products alone");
    mn__tape_free(&tape);

    mn__tape_init(&tape, &model.params, MN__BF16); /* a gradient */
    tape.recording = true;
    assert_null(mn__op_linear(&tape, mn__tape_input(&tape, rows), mn__tape_weight(&tape, query),
                              NULL, MN__LINEAR));
    check_error(mn__tape_status(&tape, &error), &error, "no gradient passes");
    mn__tape_free(&tape);
    close_family(&model, &device);

    make_large("F32", false); /* where they lie in the file */
    open_family(&model, &device, folder_path(temporary, "large"), MN__WEIGHTS_F32);
    query = mn__params_find(&model.params, "layers.0.attention.query.weight");
    assert_true(query && query->lies);
    rows = mn__tensor_of(x, MN__F32, 2, (int64_t[]){4, WIDTH});
    mn__tape_init(&tape, &model.params, MN__BF16);
    assert_null(mn__op_linear(&tape, mn__tape_constant(&tape, rows), mn__tape_weight(&tape, query),
                              NULL, MN__LINEAR));
    check_error(mn__tape_status(&tape, &error), &error, "query.weight is kept in f32");
    mn__tape_free(&tape);
    close_family(&model, &device);
}

/* A number that f16 does not have is no weight of it; what is infinite already stays so. */
static void too_large(void **state)
{
    (void)state;
    enum { MOST = 64 };
    static float values[61 * 32];
    static const float large[] = {65519, 65520, -1e20f, INFINITY};
    char path[512];
    mn_error error;
    mn__device device;
    mn__safetensors *file;
    mn__safetensor tensors[MOST];
    int64_t bytes;
    snprintf(path, sizeof path, "%s/tests/golden/pretrained/llama/config.json", MNEME_SOURCE_DIR);
    char *config = folder_read(path, &bytes);
    folder_write(folder_path(temporary, "beyond/config.json"), config, bytes);
    free(config);
    snprintf(path, sizeof path, "%s/tests/golden/pretrained/llama/model.safetensors",
             MNEME_SOURCE_DIR);
    succeed(mn__safetensors_open(&file, path, &error), &error);
    succeed(mn__device_open(&device, &error), &error);
    int64_t count = mn__safetensors_count(file);
    assert_true(count <= MOST);
    for (int i = 0; i < 4; i++) {
        for (int64_t t = 0; t < count; t++) {
            tensors[t] = *mn__safetensors_at(file, t);
            if (!strcmp(tensors[t].name, "lm_head.weight")) {
                assert_true(tensors[t].size[0] * tensors[t].size[1] == 61 * 32);
                values[61 * 32 - 5] = large[i];
                tensors[t].data = values;
                tensors[t].dtype = "F32";
                tensors[t].bytes = sizeof values;
            }
        }
        succeed(mn__safetensors_write(folder_path(temporary, "beyond/model.safetensors"), tensors,
                                      count, NULL, &error),
                &error);
        mn__pretrained model;
        mn_status status = mn__pretrained_open_as(&model, &device, folder_path(temporary, "beyond"),
                                                  0, MN__WEIGHTS_F16, false, &error);
        if (i % 3 == 0)
            succeed(status, &error);
        else
            check_error(status, &error, "head.weight holds");
        if (status == MN_OK)
            mn__pretrained_close(&model);
    }
    mn__safetensors_close(file);
    mn__device_close(&device);
}

/* Sessions go on with weights of the form that read them. */
static void sessions(void **state)
{
    (void)state;
    mn_error error;
    test_model model;
    mn__session session;
    float losses[TOKENS];
    const char *path = folder_path(temporary, "other");
    open_held(&model, recipes[0], MN__WEIGHTS_INT8);
    open_session(&model, &session, 1, MN__F32);
    read_text(&session, 0, 0, TOKENS, TOKENS, NULL, losses);
    succeed(mn__session_save(&session, path, "weights", &error), &error);
    mn__session_close(&session);
    test_model_close(&model);
    open_held(&model, recipes[0], MN__WEIGHTS_F32);
    open_session(&model, &session, 1, MN__F32);
    assert_int_equal(mn__session_load(&session, path, "weights", &error), MN_ERROR_MISMATCH);
    mn__session_close(&session);
    test_model_close(&model);
}

/* ---- Plans and memory ----------------------------------------------------------------------- */

/* Blocks of 32 with a scale of two bytes, for each row of each weight; of rows that are no whole
 * blocks those of 8 bits; the rest in F32. */
static void plans(void **state)
{
    (void)state;
    const int64_t C = 32, D = 8, F = 44, L = 2, U = 61, blocks = C / 32;
    int64_t layer = blocks * (4 * D + 2 * 2 * D + C + 2 * F), down = C * ((F + 31) / 32);
    int64_t others = 4 * (U * C + C * (2 * L + 1));
    char path[512];
    for (int w = 2; w < 4; w++) {
        mn_error error;
        mn__device device;
        mn__pretrained model;
        mn__read_plan plan;
        int64_t each = every_form[w] == MN__WEIGHTS_INT8 ? 34 : 18;
        succeed(mn__device_open_counting(&device, &error), &error);
        succeed(mn__pretrained_open_as(&model, &device, golden(path, "llama"), 0, every_form[w],
                                       false, &error),
                &error);
        succeed(
            mn__read_plan_make(&plan, model.decoder, &model.params, TOKENS, 20, MN__F32, &error),
            &error);
        assert_int_equal(plan.weights - model.params.nodes.used,
                         each * (L * layer + U * blocks) + 34 * L * down + others);
        assert_int_equal(plan.copies, 0);
        assert_int_equal(plan.parameters, mn__params_elements(&model.params));
        mn__pretrained_close(&model);
        mn__device_close(&device);
    }
}

struct opening {
    mn__device device;
    char path[512];
    mn__weights weights;
};

static mn_status open_and_close(void *user, mn_error *error)
{
    struct opening *opening = user;
    mn__pretrained model;
    mn_status status = mn__pretrained_open_as(&model, &opening->device, opening->path, 0,
                                              opening->weights, false, error);
    if (status == MN_OK)
        mn__pretrained_close(&model);
    return status;
}

/* Joined, fused, turned and tied matrices. */
static void allocations(void **state)
{
    (void)state;
    static const char *const families[FORMS] = {"llama", "phi3", "gpt2", "smollm3", "qwen2"};
    mn_error error;
    struct opening opening;
    succeed(mn__device_open(&opening.device, &error), &error);
    for (int i = 0; i < FORMS; i++) {
        golden(opening.path, families[i]);
        opening.weights = every_form[i];
        assert_true(failing_each(families[i], open_and_close, &opening, true, NULL) > 20);
    }
    mn__device_close(&opening.device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peaks),  cmocka_unit_test(integers),    cmocka_unit_test(floats),
        cmocka_unit_test(halves), cmocka_unit_test(too_large),   cmocka_unit_test(distances),
        cmocka_unit_test(laws),   cmocka_unit_test(refusals),    cmocka_unit_test(sessions),
        cmocka_unit_test(plans),  cmocka_unit_test(allocations),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
