/* Evaluations: what a figure's identity holds, what is known stays known, what a
 * lossy tokenizer leaves out, forms that look ahead; and damaged metrics in a
 * report. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/naive.h"
#include "data/prepare.h"
#include "eval/evaluation.h"
#include "eval/generate.h"
#include "eval/report.h"
#include "support/folder.h"

enum { DOCUMENTS = 4, TOKENS = 60 };

static const char *folder;
static mn__arena arena;
static mn__dataset *dataset;
static mn__tokenizer tokenizer; /* the data set's */

static int make(void **state)
{
    folder_make(state);
    folder = *state;
    mn__arena_init(&arena, 0);
    char text[TOKENS + 1] = "";
    for (int d = 0; d < DOCUMENTS; d++) {
        for (int i = 0; i < TOKENS; i++)
            text[i] = (char)((i + d) % 9 ? 'a' + (i * (d + 3)) % 23 : ' ');
        folder_write(folder_path(folder, "texts/%d.txt", d), text, TOKENS);
    }
    mn__prepare_config config;
    mn_error error;
    assert_int_equal(mn__options_default(mn__prepare_options, &config, &arena, NULL), MN_OK);
    const char *name = folder_path(folder, "texts");
    config.data = (mn__string_list){&name, 1};
    config.out = folder_path(folder, "data");
    if (mn__prepare(&config, NULL, NULL, &error) != MN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(mn__dataset_open(&dataset, config.out, NULL), MN_OK);
    tokenizer = *mn__dataset_tokenizer(dataset);
    static const mn__attention_type *const naive[] = {&naive_routing, NULL};
    mn__attention_add_types(naive);
    return 0;
}

static int unmake(void **state)
{
    mn__attention_add_types(NULL);
    mn__dataset_close(dataset);
    mn__arena_free(&arena);
    return folder_remove(state);
}

/* A run that nobody has trained, on a device of its own. */
typedef struct fixture {
    mn__device device;
    mn__run run;
} fixture;

static void fixture_open(fixture *f, const char *recipe, int64_t segment)
{
    mn_error error;
    *f = (fixture){.run = {.segment = segment, .step = 3, .tokenizer = &tokenizer}};
    mn__run *run = &f->run;
    mn__arena_init(&run->arena, 0);
    run->folder = folder_path(folder, "run");
    snprintf(run->weights_file, sizeof run->weights_file, "last.safetensors");
    snprintf(run->fingerprint, sizeof run->fingerprint, "fingerprint");
    if (mn__device_open(&f->device, &error) != MN_OK)
        fail_msg("%s", error.message);
    mn__params_init(&run->params, &f->device, 3);
    mn_status status =
        mn__yaml_parse(&run->arena, "r", recipe, (int64_t)strlen(recipe), &run->recipe, &error);
    if (status == MN_OK)
        status = mn__decoder_new(&run->decoder, &run->params, mn__yaml_get(run->recipe, "model"),
                                 mn__yaml_get(run->recipe, "attention"), 256, segment, &error);
    if (status != MN_OK)
        fail_msg("%s", error.message);
}

static void fixture_close(fixture *f)
{
    mn__decoder_free(f->run.decoder);
    mn__params_free(&f->run.params);
    mn__arena_free(&f->run.arena);
    mn__device_close(&f->device);
}

static void evaluation_open(mn__evaluation *evaluation, fixture *f, mn__score_config config)
{
    mn_error error;
    config.rows = 1;
    config.segment = f->run.segment;
    if (mn__evaluation_open(evaluation, &f->run, dataset, MN__SPLITS, &config, NULL, 0, &error) !=
        MN_OK)
        fail_msg("%s", error.message);
}

static const char plain[] = "model: {depth: 2, width: 16, heads: 2}\n"
                            "attention: {type: xl, memory: 16}\n";

/* ---- Identity --------------------------------------------------------------------- */

/* Where an evaluation keeps its results; valid to the test's end. */
static const char *path_of(const char *recipe, int64_t segment, mn__score_config config)
{
    fixture f;
    mn__evaluation evaluation;
    fixture_open(&f, recipe, segment);
    evaluation_open(&evaluation, &f, config);
    const char *path = mn__arena_strdup(&arena, evaluation.path);
    mn__evaluation_close(&evaluation);
    fixture_close(&f);
    return path;
}

static void other_options_are_other_figures(void **state)
{
    (void)state;
    static const char *const others[] = {
        "model: {depth: 2, width: 16, heads: 2, logit_scale: 2}\n"
        "attention: {type: xl, memory: 16}\n",
        "model: {depth: 2, width: 16, heads: 2, norm_epsilon: 1e-3}\n"
        "attention: {type: xl, memory: 16}\n",
        "model: {depth: 2, width: 16, heads: 2, layers: [{layers: [1], type: xl, memory: 8}]}\n"
        "attention: {type: xl, memory: 16}\n",
        "model: {depth: 2, width: 16, heads: 2, layers: [{layers: [0], type: xl, memory: 8}]}\n"
        "attention: {type: xl, memory: 16}\n",
        "model: {depth: 2, width: 16, heads: 2}\nattention: {type: xl, memory: 8}\n",
    };
    enum { OTHERS = sizeof others / sizeof *others };
    const mn__score_config carried = {.way = MN__WAY_CARRIED};
    const char *paths[OTHERS + 1] = {path_of(plain, 16, carried)};
    for (int i = 0; i < OTHERS; i++) {
        paths[i + 1] = path_of(others[i], 16, carried);
        for (int k = 0; k <= i; k++)
            assert_string_not_equal(paths[k], paths[i + 1]);
    }
    /* what is written out and what is left to its default are the same */
    assert_string_equal(paths[0], path_of("model: {depth: 2, width: 16, heads: 2, logit_scale: 1}\n"
                                          "attention: {clamp: 0, memory: 16, type: xl}\n",
                                          16, carried));
}

static void other_lengths_are_other_figures(void **state)
{
    (void)state;
    const mn__score_config window = {.way = MN__WAY_WINDOW, .window = 20, .stride = 5};
    const mn__score_config stride = {.way = MN__WAY_WINDOW, .window = 20, .stride = 4};
    const char *path = path_of(plain, 16, window);
    assert_string_equal(path, path_of(plain, 16, window));
    assert_string_not_equal(path, path_of(plain, 16, stride));
    assert_string_not_equal(path, path_of(plain, 8, window)); /* the model's grid */
}

static void other_machines_are_other_figures(void **state)
{
    (void)state;
    const mn__score_config carried = {.way = MN__WAY_CARRIED};
    const char *before = getenv("MNEME_CPU");
    before = before ? mn__arena_strdup(&arena, before) : NULL;
    setenv("MNEME_CPU", "plain", 1);
    const char *defined = path_of(plain, 16, carried);
    setenv("MNEME_CPU", "baseline", 1);
    const char *baseline = path_of(plain, 16, carried);
    if (before)
        setenv("MNEME_CPU", before, 1);
    else
        unsetenv("MNEME_CPU");
    assert_string_not_equal(defined, baseline);
}

/* The length that is said is the one that is read: whole steps of the grid. */
static void says_the_length_that_is_read(void **state)
{
    (void)state;
    fixture f;
    mn__evaluation evaluation;
    fixture_open(&f,
                 "model: {depth: 1, width: 16, heads: 2}\n"
                 "attention: {type: xl, memory: 16, segment: 6}\n",
                 16);
    evaluation_open(&evaluation, &f, (mn__score_config){.way = MN__WAY_CLEARED});
    assert_int_equal(evaluation.config.segment, 12);
    assert_int_equal(json_integer_value(json_object_get(evaluation.identity, "segment")), 12);
    mn__evaluation_close(&evaluation);
    fixture_close(&f);
}

/* Nor are figures of other keys and values; and those of a model opened as before keep their
 * name. */
static void other_caches_are_other_figures(void **state)
{
    (void)state;
    const char *before = NULL;
    for (int kept = MN__KEPT_AS_COMPUTED; kept <= MN__KEPT_INT8; kept++) {
        mn_error error;
        fixture f;
        mn__evaluation evaluation;
        fixture_open(&f,
                     "model: {depth: 1, width: 16, heads: 2}\n"
                     "attention: {type: window, window: 7}\n",
                     16);
        assert_int_equal(mn__decoder_keep(f.run.decoder, (mn__kept)kept, &error), MN_OK);
        evaluation_open(&evaluation, &f, (mn__score_config){.way = MN__WAY_CARRIED});
        const char *said = json_string_value(json_object_get(evaluation.identity, "cache"));
        if (kept)
            assert_string_equal(said, mn__kept_name((mn__kept)kept));
        else
            assert_null(said);
        assert_true(!before || strcmp(before, evaluation.path));
        before = mn__arena_strdup(&arena, evaluation.path);
        mn__evaluation_close(&evaluation);
        fixture_close(&f);
    }
}

/* ---- Forms ------------------------------------------------------------------------- */

static bool ignore(void *user, const char *text, int64_t bytes)
{
    (void)user, (void)text, (void)bytes;
    return true;
}

static void names_the_form(void **state)
{
    (void)state;
    static const struct {
        const char *recipe, *form;
        mn_status generates;
    } cases[] = {
        {plain, "strictly causal", MN_OK},
        {"model: {depth: 1, width: 16, heads: 2}\n"
         "attention: {type: naive_routing, routing_heads: 1, clusters: 2, window: 8, block: 8}\n",
         "as published, looking ahead", MN_ERROR_UNSUPPORTED},
        {"model: {depth: 1, width: 16, heads: 2}\n"
         "attention: {type: naive_routing, routing_heads: 1, clusters: 2, window: 8, block: 8, "
         "strict: true}\n",
         "strictly causal", MN_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        mn__evaluation evaluation;
        mn_error error = {0};
        fixture_open(&f, cases[i].recipe, 16);
        evaluation_open(&evaluation, &f, (mn__score_config){.way = MN__WAY_CARRIED});
        assert_string_equal(json_string_value(json_object_get(evaluation.identity, "form")),
                            cases[i].form);
        mn__evaluation_close(&evaluation);
        const mn__generate_config config = {.prompt = "abc",
                                            .prompt_bytes = 3,
                                            .tokens = 2,
                                            .sample = {.top_p = 1},
                                            .emit = ignore};
        mn__generated generated;
        mn_status status = mn__generate(&f.run, &config, &generated, &error);
        if (status != cases[i].generates)
            fail_msg("%s: %d, %s", cases[i].recipe, (int)status, error.message);
        if (status != MN_OK)
            assert_non_null(strstr(error.message, "the model looks ahead"));
        fixture_close(&f);
    }
}

/* ---- What is known ------------------------------------------------------------------ */

static bool stop_soon(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    (void)what, (void)total, (void)note;
    return done < *(const int64_t *)user;
}

static mn_status count_tokens(void *user, int64_t document, int64_t position, int64_t count,
                              const int32_t *ids, const float *nats, mn_error *error)
{
    (void)document, (void)position, (void)ids, (void)nats, (void)error;
    *(int64_t *)user += count;
    return MN_OK;
}

static void repeating_forgets_nothing(void **state)
{
    (void)state;
    fixture f;
    mn__evaluation evaluation;
    mn_error error;
    double nats[DOCUMENTS];
    fixture_open(&f, plain, 16);
    evaluation_open(&evaluation, &f, (mn__score_config){.way = MN__WAY_CARRIED});
    assert_int_equal(evaluation.reused, 0);
    assert_int_equal(mn__evaluation_run(&evaluation, NULL, &error), MN_OK);
    for (int d = 0; d < DOCUMENTS; d++)
        nats[d] = evaluation.results[d].all.nats;
    mn__evaluation_close(&evaluation);
    /* all are read again, and stopped within the second one */
    int64_t most = TOKENS + 20, seen = 0;
    const mn__progress progress = {stop_soon, &most};
    evaluation_open(&evaluation, &f, (mn__score_config){.way = MN__WAY_CARRIED});
    assert_int_equal(evaluation.reused, DOCUMENTS);
    mn__evaluation_repeat(&evaluation);
    evaluation.watch = count_tokens;
    evaluation.watch_user = &seen;
    assert_int_equal(mn__evaluation_run(&evaluation, &progress, &error), MN_ERROR_INTERRUPTED);
    assert_true(seen >= most && seen < 2 * TOKENS);
    mn__evaluation_close(&evaluation);
    /* nothing that was known is lost; and all of it is read when it may be */
    evaluation_open(&evaluation, &f, (mn__score_config){.way = MN__WAY_CARRIED});
    assert_int_equal(evaluation.reused, DOCUMENTS);
    mn__evaluation_repeat(&evaluation);
    seen = 0;
    evaluation.watch = count_tokens;
    evaluation.watch_user = &seen;
    assert_int_equal(mn__evaluation_run(&evaluation, NULL, &error), MN_OK);
    assert_int_equal(seen, DOCUMENTS * TOKENS);
    for (int d = 0; d < DOCUMENTS; d++) {
        assert_int_equal(evaluation.results[d].all.tokens, TOKENS);
        assert_true(evaluation.results[d].all.nats == nats[d]);
    }
    mn__evaluation_close(&evaluation);
    fixture_close(&f);
}

/* ---- Units --------------------------------------------------------------------------- */

static void shares_no_nats_among_bytes_that_are_lost(void **state)
{
    (void)state;
    for (int lossless = 0; lossless < 2; lossless++) {
        fixture f;
        mn__evaluation evaluation;
        mn_error error;
        tokenizer.lossless = lossless;
        fixture_open(&f, plain, 16);
        evaluation_open(&evaluation, &f, (mn__score_config){.way = MN__WAY_CLEARED});
        assert_int_equal(mn__evaluation_run(&evaluation, NULL, &error), MN_OK);
        json_t *json = mn__evaluation_json(&evaluation);
        const json_t *total = json_object_get(json, "total");
        const json_t *document = json_array_get(json_object_get(json, "documents"), 0);
        assert_int_equal(json_is_true(json_object_get(json, "lossless")), lossless);
        assert_int_equal(json_object_get(total, "bits_per_byte") != NULL, lossless);
        assert_int_equal(json_object_get(total, "bits_per_character") != NULL, lossless);
        assert_int_equal(json_object_get(document, "bits_per_byte") != NULL, lossless);
        assert_int_equal(json_integer_value(json_object_get(total, "bytes")), DOCUMENTS * TOKENS);
        assert_non_null(json_object_get(total, "word_perplexity"));
        json_decref(json);
        mn__evaluation_close(&evaluation);
        fixture_close(&f);
    }
}

/* ---- The report ------------------------------------------------------------------------ */

static mn_status report(fixture *f, json_t *runs, mn_error *error)
{
    const mn__report_options options = {.data = "", .split = "", .document = ""};
    return mn__report_add(runs, &f->run, &options, NULL, error);
}

/* Jansson's blocks that were freed are kept, as one that is referred to once and
 * points nowhere: freeing it again crashes. */
enum { DEAD_MOST = 1000 };
static void *dead[DEAD_MOST];
static int poisoned;

static void poison(void *block)
{
    static const size_t once = 1;
    size_t bytes = block ? malloc_usable_size(block) : 0;
    for (size_t i = 0; i + sizeof once <= bytes; i += sizeof once)
        memcpy((char *)block + i, &once, sizeof once);
    assert_true(poisoned < DEAD_MOST);
    dead[poisoned++] = block;
}

static void reads_metrics_that_a_kill_has_cut(void **state)
{
    (void)state;
    static const char line[] = "{\"kind\": \"train\", \"step\": 1, \"loss\": 2.5}\n";
    fixture f;
    mn_error error;
    json_t *runs = json_array();
    fixture_open(&f, plain, 16);
    const char *path = folder_path(folder, "run/metrics.jsonl");
    char text[256];
    snprintf(text, sizeof text, "%s{\"kind\": \"train\", \"st\n%s", line, line);
    folder_write(path, text, -1);
    json_set_alloc_funcs(malloc, poison);
    mn_status status = report(&f, runs, &error);
    json_set_alloc_funcs(malloc, free);
    while (poisoned > 0)
        free(dead[--poisoned]);
    assert_int_equal(status, MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "line 2"));
    assert_int_equal(json_array_size(runs), 0);
    for (size_t cut = 0; cut < sizeof line - 1; cut++) {
        snprintf(text, sizeof text, "%s%.*s", line, (int)cut, line);
        folder_write(path, text, -1);
        if (report(&f, runs, &error) != MN_OK)
            fail_msg("cut after %zu: %s", cut, error.message);
        const json_t *metrics = json_object_get(json_array_get(runs, cut), "metrics");
        assert_int_equal(json_array_size(json_object_get(metrics, "train")), 1);
    }
    json_decref(runs);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_options_are_other_figures),
        cmocka_unit_test(other_lengths_are_other_figures),
        cmocka_unit_test(other_machines_are_other_figures),
        cmocka_unit_test(says_the_length_that_is_read),
        cmocka_unit_test(other_caches_are_other_figures),
        cmocka_unit_test(names_the_form),
        cmocka_unit_test(repeating_forgets_nothing),
        cmocka_unit_test(shares_no_nats_among_bytes_that_are_lost),
        cmocka_unit_test(reads_metrics_that_a_kill_has_cut),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
