/* What stands before a text, and the length that rotary frequencies are made for, from a model's
 * folder to logits: a text begins as transformers' tokenizer(text) has it (5.24; the ids below are
 * its), scores are of what generation reads, and longrope and dynamic frequencies are those of the
 * length that is reached. Frequencies against transformers': tests/golden/test_pretrained.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/threads.h"
#include "eval/data.h"
#include "eval/evaluation.h"
#include "eval/generate.h"
#include "reader/limit.h"
#include "support/folder.h"
#include "support/model.h"
#include "support/small_model.h"
#include "text/import.h"
#include "text/tokenizer_types.h"

enum { V = SMALL_VOCABULARY };

static const char *folder;

static int setup(void **state)
{
    int status = folder_make(state);
    folder = *state;
    small_model_make(folder_path(folder, "model"), "llama", 1, NULL);
    return status;
}

static json_t *read_json(const char *path)
{
    int64_t bytes;
    char *text = folder_read(path, &bytes);
    json_t *root = json_loadb(text, (size_t)bytes, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

/* Sets a key (NULL: removes it); the value is taken. */
static void change(const char *file, const char *key, json_t *value)
{
    const char *path = folder_path(folder, "model/%s", file);
    json_t *root = read_json(path);
    if (value)
        json_object_set_new(root, key, value);
    else
        json_object_del(root, key);
    char *text = json_dumps(root, JSON_INDENT(1));
    folder_write(path, text, -1);
    free(text);
    json_decref(root);
}

typedef struct fixture {
    mn__device device;
    mn__run run;
} fixture;

static void open_run(fixture *f, const char *const *overrides, int64_t count)
{
    mn_error error;
    succeed(mn__device_open(&f->device, &error), &error);
    succeed(
        mn__run_open(&f->run, &f->device, folder_path(folder, "model"), overrides, count, &error),
        &error);
}

static void close_run(fixture *f)
{
    mn__run_close(&f->run);
    mn__device_close(&f->device);
}

/* ---- Before a text ------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *post_processor;
    int count;
    int32_t before[2];
} cases[] = {
    {"none", "null", 0, {0}},
    {"bytes",
     "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": false}",
     0,
     {0}},
    {"one",
     "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
     "{\"Sequence\": {\"id\": \"A\"}}], \"special_tokens\": {\"<s>\": {\"ids\": [256]}}}",
     1,
     {256}},
    {"two",
     "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<|user|>\"}}, "
     "{\"SpecialToken\": {\"id\": \"<|end|>\"}}, {\"Sequence\": {\"id\": \"A\"}}], "
     "\"special_tokens\": {\"<|user|>\": {\"ids\": [257]}, \"<|end|>\": {\"ids\": [259]}}}",
     2,
     {257, 259}},
};

static bool ignore(void *user, const char *text, int64_t bytes)
{
    (void)user, (void)text, (void)bytes;
    return true;
}

/* -ln p of a token after others, all read at once. */
static double nats_after(mn__run *run, const int32_t *ids, int64_t count, int32_t next)
{
    mn_error error;
    mn__reading reading;
    const mn__reading_options options = {.capacity = 64, .chunk = 64, .compute = MN__F32};
    succeed(mn__reading_open(&reading, run->decoder, &run->params, &options, &error), &error);
    succeed(mn__reading_add(&reading, ids, count, &error), &error);
    const float *logits = mn__reading_logits(&reading, &error);
    assert_non_null(logits);
    double sum = 0;
    for (int v = 0; v < V; v++)
        sum += exp((double)logits[v]);
    double nats = log(sum) - (double)logits[next];
    mn__reading_close(&reading);
    return nats;
}

struct scored {
    int64_t tokens;
    float nats[64];
};

static mn_status take(void *user, int64_t document, int64_t position, int64_t count,
                      const int32_t *ids, const float *nats, mn_error *error)
{
    struct scored *scored = user;
    (void)document, (void)ids, (void)error;
    assert_int_equal(position, scored->tokens);
    assert_true(position + count <= 64);
    memcpy(scored->nats + position, nats, (size_t)count * sizeof *nats);
    scored->tokens += count;
    return MN_OK;
}

/* Each token's nats are those of its text after what stands before it. */
static void check_scores(mn__run *run, const int32_t *before, int64_t count, mn__way way)
{
    static const char text[] = "the river runs to the sea.\n";
    enum { BYTES = sizeof text - 1, WINDOW = 8 };
    mn_error error;
    mn__dataset *dataset;
    mn__split split;
    mn__evaluation evaluation;
    struct scored scored = {0};
    int32_t ids[BYTES + 2];
    const char *path =
        folder_path(folder, "text.%s.%d.txt", run->tokenizer->fingerprint.hex, (int)way);
    folder_write(path, text, BYTES);
    mn__string name = {0};
    mn__string_printf(&name, "text=%s", path);
    succeed(mn__evaluation_data(run, name.text, "all", NULL, &dataset, &split, &error), &error);
    const mn__score_config config = {.way = way,
                                     .segment = 10,
                                     .window = way == MN__WAY_WINDOW ? WINDOW : 0,
                                     .stride = way == MN__WAY_WINDOW ? 3 : 0,
                                     .rows = 3,
                                     .compute = MN__F32};
    succeed(mn__evaluation_open(&evaluation, run, dataset, split, &config, NULL, 0, &error),
            &error);
    mn__evaluation_repeat(&evaluation);
    evaluation.watch = take;
    evaluation.watch_user = &scored;
    succeed(mn__evaluation_run(&evaluation, NULL, &error), &error);
    assert_int_equal(scored.tokens, BYTES);
    for (int64_t i = 0; i < count; i++)
        ids[i] = before[i];
    for (int64_t i = 0; i < BYTES; i++)
        ids[count + i] = (unsigned char)text[i];
    int64_t whole = way == MN__WAY_CARRIED ? BYTES : WINDOW; /* tokens whose past is all there */
    for (int64_t i = 0; i < whole; i++) {
        double expected = nats_after(run, ids, count + i, ids[count + i]);
        if (!(fabs(expected - (double)scored.nats[i]) < 1e-4 * (1 + expected)))
            fail_msg("token %lld: %g, not %g", (long long)i, (double)scored.nats[i], expected);
    }
    mn__evaluation_close(&evaluation);
    mn__dataset_close(dataset);
    mn__string_free(&name);
}

static void before_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        mn_error error;
        mn__generated generated;
        int64_t count = cases[i].count;
        change("tokenizer.json", "post_processor",
               json_loads(cases[i].post_processor, JSON_DECODE_ANY, NULL));
        change("tokenizer_config.json", "add_bos_token", i % 2 ? json_true() : json_false());
        open_run(&f, NULL, 0);
        assert_int_equal(f.run.before.count, count);
        for (int64_t k = 0; k < count; k++)
            assert_int_equal(f.run.before.id[k], cases[i].before[k]);
        /* generation goes on from the same text; an empty one needs something to follow */
        int32_t ids[8], start = f.run.tokenizer->start;
        memcpy(ids, cases[i].before, sizeof cases[i].before);
        ids[count] = 'a';
        ids[count + 1] = 'b';
        const mn__generate_config config = {.prompt = "ab",
                                            .prompt_bytes = 2,
                                            .tokens = 1,
                                            .sample = {.top_p = 1},
                                            .compute = MN__F32,
                                            .emit = ignore};
        succeed(mn__generate(&f.run, &config, &generated, &error), &error);
        assert_int_equal(generated.prompt_tokens, 2);
        double least = INFINITY;
        int32_t best = -1;
        for (int32_t v = 0; v < V; v++) {
            double nats = nats_after(&f.run, ids, count + 2, v);
            best = nats < least ? v : best;
            least = nats < least ? nats : least;
        }
        assert_true(generated.ended ? best == 259 : best == generated.unread);
        mn__generate_config empty = config;
        empty.prompt_bytes = 0;
        succeed(mn__generate(&f.run, &empty, &generated, &error), &error);
        assert_int_equal(generated.prompt_tokens, 0);
        const int32_t *first = count ? cases[i].before : &start;
        check_scores(&f.run, first, count ? count : 1, MN__WAY_CARRIED);
        check_scores(&f.run, first, count ? count : 1, MN__WAY_WINDOW);
        close_run(&f);
    }
    change("tokenizer.json", "post_processor", json_null());
}

/* A SentencePiece model of letters, with "<s>" for a beginning: its pieces, each with a score and
 * a type (1 normal, 2 unknown, 3 control), and that nothing is put before a text. */
static void write_sentencepiece(const char *path)
{
    static const char settings[] = {0x12, 2, 0x18, 2,                    /* trained as BPE */
                                    0x1A, 6, 0x18, 0, 0x20, 0, 0x28, 1}; /* normalised little */
    mn__string model = {0};
    for (int i = 0; i < 29; i++) {
        static const char *const first[] = {"<unk>", "<s>", "</s>"};
        char piece[8] = {(char)('a' + i - 3), '\0'};
        const char *name = i < 3 ? first[i] : piece;
        char n = (char)strlen(name);
        const char head[] = {0x0A, (char)(n + 9), 0x0A, n};
        const char tail[] = {0x15, 0, 0, 0, 0, 0x18, (char)(i == 0 ? 2 : i < 3 ? 3 : 1)};
        mn__string_add(&model, head, sizeof head);
        mn__string_add(&model, name, n);
        mn__string_add(&model, tail, sizeof tail);
    }
    mn__string_add(&model, settings, sizeof settings);
    folder_write(path, model.text, model.bytes);
    mn__string_free(&model);
}

static void check_count(int64_t count)
{
    fixture f;
    open_run(&f, NULL, 0);
    assert_string_equal(f.run.tokenizer->type->name, "sentencepiece");
    assert_int_equal(f.run.before.count, count);
    if (count)
        assert_int_equal(f.run.before.id[0], 1);
    close_run(&f);
}

/* Rewritten as a tokenizer.json, it puts the same before a text. */
static void check_rewritten(const char *path)
{
    int64_t bytes;
    char *model = folder_read(path, &bytes);
    for (int unigram = 0; unigram < 2; unigram++) {
        mn_error error;
        mn__string json = {0};
        mn__tokenizer *tokenizer;
        succeed(mn__import_sentencepiece(model, bytes, unigram, &json, &error), &error);
        succeed(mn__tokenizer_of_payload(&tokenizer, "huggingface", json.text, json.bytes, NULL,
                                         &error),
                &error);
        assert_int_equal(tokenizer->before.count, 1);
        assert_int_equal(tokenizer->before.id[0], 1);
        mn__tokenizer_free(tokenizer);
        mn__string_free(&json);
    }
    free(model);
}

static void before_sentencepiece(void **state)
{
    (void)state;
    int64_t bytes;
    const char *json = folder_path(folder, "model/tokenizer.json");
    char *kept = folder_read(json, &bytes);
    folder_remove_all(json);
    write_sentencepiece(folder_path(folder, "model/tokenizer.model"));
    check_rewritten(folder_path(folder, "model/tokenizer.model"));
    change("tokenizer_config.json", "add_bos_token", json_true());
    check_count(1);
    change("tokenizer_config.json", "add_bos_token", json_false());
    check_count(0);
    change("tokenizer_config.json", "add_bos_token", NULL);
    check_count(1);
    folder_remove_all(folder_path(folder, "model/tokenizer_config.json"));
    check_count(1);
    mn_error error;
    mn__run run;
    mn__device device;
    folder_write(folder_path(folder, "model/tokenizer_config.json"), "{\"add_bos_token\": 3}", -1);
    succeed(mn__device_open(&device, &error), &error);
    assert_int_equal(mn__run_open(&run, &device, folder_path(folder, "model"), NULL, 0, &error),
                     MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "add_bos_token"));
    mn__device_close(&device);
    folder_write(folder_path(folder, "model/tokenizer_config.json"), "{}", -1);
    folder_remove_all(folder_path(folder, "model/tokenizer.model"));
    folder_write(json, kept, bytes);
    free(kept);
}

/* ---- Planned lengths ----------------------------------------------------------------------------
 */

/* The most probable tokens after "aaaa...", and how many positions the frequencies are for. */
static int64_t planned_for(mn__run *run, int64_t prompt, int64_t tokens, mn_status expected)
{
    mn_error error;
    mn__generated generated;
    char *text = calloc(1, (size_t)prompt + 1);
    assert_non_null(text);
    memset(text, 'a', (size_t)prompt);
    const mn__generate_config config = {.prompt = text,
                                        .prompt_bytes = prompt,
                                        .tokens = tokens,
                                        .sample = {.top_p = 1},
                                        .compute = MN__F32,
                                        .emit = ignore};
    assert_int_equal(mn__generate(run, &config, &generated, &error), expected);
    free(text);
    return mn__decoder_options_of(run->decoder)->rope_length;
}

static double difference(fixture *a, fixture *b)
{
    static const int32_t ids[] = {5, 77, 30, 9, 12, 45, 200, 31, 64, 3};
    return fabs(nats_after(&a->run, ids, 10, 4) - nats_after(&b->run, ids, 10, 4));
}

static void longrope(void **state)
{
    (void)state;
    fixture f, longer, shorter;
    change("config.json", "rope_scaling",
           json_pack("{s:s, s:[f,f,f,f], s:[f,f,f,f], s:i}", "type", "longrope", "short_factor",
                     1.0, 1.1, 1.3, 1.7, "long_factor", 1.0, 2.0, 6.0, 9.0,
                     "original_max_position_embeddings", 256));
    static const char *const to_256[] = {"model.rope_length=256"};
    static const char *const to_257[] = {"model.rope_length=257"};
    open_run(&shorter, to_256, 1);
    open_run(&longer, to_257, 1);
    assert_true(difference(&shorter, &longer) > 1e-3);
    /* the length that is reached chooses the factors, again at each call */
    open_run(&f, NULL, 0);
    assert_true(difference(&f, &longer) == 0); /* the whole window */
    assert_int_equal(mn__limit_of(&f.run), SMALL_CONTEXT);
    assert_int_equal(planned_for(&f.run, 250, 6, MN_OK), 256);
    assert_true(difference(&f, &shorter) == 0);
    assert_int_equal(mn__limit_of(&f.run), 256);
    assert_int_equal(planned_for(&f.run, 250, 7, MN_OK), 257);
    assert_true(difference(&f, &longer) == 0);
    assert_int_equal(planned_for(&f.run, 2040, 9, MN_ERROR_MISMATCH), 2049);
    /* what a person has said stays, and is a bound */
    assert_int_equal(planned_for(&shorter.run, 250, 6, MN_OK), 256);
    assert_int_equal(planned_for(&shorter.run, 250, 7, MN_ERROR_MISMATCH), 256);
    close_run(&shorter);
    close_run(&longer);
    close_run(&f);
}

/* Up to the window nothing changes; beyond it the base is that of the length planned for. */
static void dynamic(void **state)
{
    (void)state;
    fixture f, plain, longer;
    change("config.json", "rope_scaling", NULL);
    open_run(&plain, NULL, 0);
    change("config.json", "rope_scaling",
           json_pack("{s:s, s:f}", "type", "dynamic", "factor", 2.0));
    static const char *const to_3000[] = {"model.rope_length=3000"};
    open_run(&longer, to_3000, 1);
    open_run(&f, NULL, 0);
    assert_true(difference(&f, &plain) == 0);
    assert_true(difference(&longer, &plain) > 1e-6);
    assert_int_equal(mn__limit_of(&f.run), SMALL_CONTEXT);
    assert_int_equal(mn__limit_of(&longer.run), 3000);
    assert_int_equal(planned_for(&f.run, 2990, 10, MN_OK), 3000);
    assert_true(difference(&f, &longer) == 0);
    assert_int_equal(planned_for(&f.run, 100, 10, MN_OK), 110);
    assert_true(difference(&f, &plain) == 0);
    close_run(&f);
    close_run(&longer);
    close_run(&plain);
    change("config.json", "rope_scaling", NULL);
}

int main(void)
{
    mn__threads_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_texts),
        cmocka_unit_test(before_sentencepiece),
        cmocka_unit_test(longrope),
        cmocka_unit_test(dynamic),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
