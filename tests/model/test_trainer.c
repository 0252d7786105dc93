/* The trainer: it learns, it resumes to the bit, it says what is wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "model/run.h"
#include "support/folder.h"
#include "support/training.h"
#include "train/trainer_own.h"

#define OVERRIDES(...) ((const char *const[]){__VA_ARGS__, NULL})

static int setup(void **state)
{
    int status = folder_make(state);
    training_make(*state);
    return status;
}

static void expect(const training *how, mn_status status, const char *message)
{
    mn_error error = {.code = MN_OK};
    assert_int_equal(training_run(how, NULL, &error), status);
    if (!strstr(error.message, message))
        fail_msg("`%s` says nothing of `%s`", error.message, message);
}

/* ---- Learning ----------------------------------------------------------------------- */

/* The text's words are drawn from twelve with equal chances: 0.45 nats a byte.
 * Half of what lies between that and knowing nothing is learned soon. */
static void test_it_learns(void **state)
{
    training how = {.folder = *state, .run = "learns"};
    how.overrides = OVERRIDES("train.steps=80", "schedule.rate=3e-2", "train.log_every=10",
                              "train.validate_every=20");
    mn__train_result result = training_good(&how);
    assert_int_equal(result.step, 80);
    assert_int_equal(result.tokens, 80 * 4 * 16);
    assert_true(result.loss < 3 && result.best < 3);             /* from ln 256 = 5.5 */
    assert_true(fabs(result.bits_per_nat * log(2) - 1) < 1e-12); /* bytes */
    assert_int_equal(training_count(*state, "learns", "train"), 8);
    assert_int_equal(training_count(*state, "learns", "validation"), 4);
}

/* The parts' gradients add up to the batch's, but for rounding. */
static void test_accumulation(void **state)
{
    training how = {.folder = *state, .run = "whole"};
    how.overrides = OVERRIDES("model.dropout=0", "train.steps=8");
    mn__train_result whole = training_good(&how);
    how.run = "parts";
    how.overrides = OVERRIDES("model.dropout=0", "train.steps=8", "train.accumulate=4");
    mn__train_result parts = training_good(&how);
    assert_true(fabs(whole.best - parts.best) < 1e-3 * whole.best);
}

static void test_update_every(void **state)
{
    training how = {.folder = *state, .run = "every"};
    how.overrides = OVERRIDES("train.update_every=3", "train.update_every_from=4");
    training_good(&how);
    mn__safetensors *file;
    assert_int_equal(
        mn__safetensors_open(&file, folder_path(*state, "every/last.safetensors"), NULL), MN_OK);
    const char *counters = mn__safetensors_metadata(file, "train");
    assert_non_null(strstr(counters, "\"updates\": 8")); /* 1 2 3 4 7 10 13 16 */
    mn__safetensors_close(file);
}

static void test_adafactor_and_bf16(void **state)
{
    training how = {.folder = *state, .run = "adafactor"};
    how.overrides = OVERRIDES("optimizer={type: adafactor, factor_from: 8}", "train.precision=bf16",
                              "schedule={type: rsqrt_normalized, rate: 0.05, warmup: 4}");
    assert_true(training_good(&how).loss < 5.3); /* from 5.5 */
}

/* ---- Resuming ------------------------------------------------------------------------- */

static void resume_after_stop(void *folder, const char *name, const char *const *overrides)
{
    char whole[64], halves[64];
    snprintf(whole, sizeof whole, "%s-whole", name);
    snprintf(halves, sizeof halves, "%s-halves", name);
    training how = {.folder = folder, .run = whole, .overrides = overrides};
    training_good(&how);
    how.run = halves;
    for (int64_t stop = 5; stop < 16; stop += 6) { /* between lines, checkpoints, validations */
        how.stop_after = stop;
        expect(&how, MN_ERROR_INTERRUPTED, "stopped at step");
        how.resume = true;
    }
    how.stop_after = 0;
    training_good(&how);
    training_compare(folder, whole, halves);
}

static void test_stop_and_resume(void **state)
{
    resume_after_stop(*state, "plain", NULL);
}

static void test_stop_and_resume_with_everything(void **state)
{
    resume_after_stop(*state, "documents",
                      OVERRIDES("data.style=documents", "data.shuffle=true", "train.accumulate=2",
                                "train.update_every=2", "train.update_every_from=3",
                                "train.unroll=2", "optimizer={type: adafactor, momentum: 0.9}",
                                "attention.dropout=0.2"));
}

/* Clusters of the vocabulary: letters fall into three, the last holds none. */
static void test_stop_and_resume_with_clusters(void **state)
{
    resume_after_stop(*state, "clusters",
                      OVERRIDES("model.cutoffs=[100, 112, 200]", "model.div_val=2",
                                "model.head_bias=true", "model.tie_projections=true",
                                "model.project_first=true", "train.z_loss=1e-3"));
    resume_after_stop(*state, "clusters-bf16",
                      OVERRIDES("model.cutoffs=[100, 112]", "model.div_val=4", "model.tied=false",
                                "train.precision=bf16", "train.accumulate=2"));
}

/* A memory that is neither full nor empty where the training stops, and holds what older
 * weights made. */
static void test_stop_and_resume_with_a_memory(void **state)
{
    resume_after_stop(*state, "memory",
                      OVERRIDES("attention={type: knn, window: 16, memory: 150, neighbours: 8}",
                                "data.style=documents", "train.accumulate=2"));
    resume_after_stop(*state, "memory-bf16",
                      OVERRIDES("attention={type: knn, window: 8, memory: 40, neighbours: 8,"
                                " search: buckets, keep: bf16}",
                                "train.precision=bf16", "train.unroll=2"));
}

/* A stop between two updates, where a validation is due. */
static void test_stop_and_resume_between_updates(void **state)
{
    resume_after_stop(*state, "between", OVERRIDES("train.update_every=2"));
    assert_int_equal(training_count(*state, "between-halves", "validation"), 3);
}

static bool exists(const char *folder, const char *name)
{
    return mn__file_exists(folder_path(folder, "%s", name));
}

/* A kill before the first checkpoint leaves the best weights alone. */
static void test_what_an_earlier_training_left_is_removed(void **state)
{
    training how = {.folder = *state, .run = "again"};
    training_good(&how);
    assert_true(exists(*state, "again/best.safetensors"));
    assert_int_equal(mn__file_remove(folder_path(*state, "again/last.safetensors"), NULL), MN_OK);
    how.resume = true;
    how.overrides = OVERRIDES("model.depth=1", "train.validate_every=0");
    training_good(&how);
    assert_false(exists(*state, "again/best.safetensors"));
    assert_int_equal(training_count(*state, "again", "validation"), 0);
    mn__device device;
    mn__run run;
    mn_error error;
    assert_int_equal(mn__device_open(&device, &error), MN_OK);
    if (mn__run_open(&run, &device, folder_path(*state, "again"), NULL, 0, &error) != MN_OK)
        fail_msg("%s", error.message);
    assert_string_equal(run.weights_file, "last.safetensors");
    mn__run_close(&run);
    mn__device_close(&device);
}

static void test_another_run_in_the_recipes_place(void **state)
{
    training how = {.folder = *state, .run = "one", .overrides = OVERRIDES("train.steps=6")};
    training_good(&how);
    how.run = "two";
    training_good(&how);
    how.recipe = folder_path(*state, "one");
    how.resume = true;
    how.overrides = NULL;
    expect(&how, MN_ERROR_USAGE, "is a run itself");
    how.run = "three";
    how.resume = false;
    expect(&how, MN_ERROR_USAGE, "is a run itself");
    assert_false(exists(*state, "three"));
    how.run = "one";
    how.resume = true;
    how.recipe = folder_path(*state, "two/../one/"); /* another way to it */
    training_good(&how);
}

static void test_folders_and_recipes_are_guarded(void **state)
{
    training how = {.folder = *state, .run = "guarded"};
    how.overrides = OVERRIDES("train.steps=6");
    training_good(&how);
    expect(&how, MN_ERROR_USAGE, "holds a training already");
    how.resume = true;
    training_good(&how); /* over both recipes: the same */
    how.overrides = OVERRIDES("train.steps=6", "optimizer.beta2=0.9");
    training_good(&how);
    how.recipe = folder_path(*state, "other.yaml");
    int64_t bytes;
    char *text = folder_read(folder_path(*state, "recipe.yaml"), &bytes);
    mn__string commented = {0};
    mn__string_printf(&commented, "%s# a comment says nothing\n", text);
    folder_write(how.recipe, commented.text, commented.bytes);
    training_good(&how);
    mn__string_free(&commented);
    free(text);
    how.recipe = NULL;
    how.overrides = OVERRIDES("train.steps=6");
    expect(&how, MN_ERROR_MISMATCH, "differs from the recipe");
    how.recipe = folder_path(*state, "guarded");
    how.overrides = OVERRIDES("train.steps=8");
    assert_int_equal(training_good(&how).step, 8);
    how.overrides = OVERRIDES("model.width=32");
    expect(&how, MN_ERROR_MISMATCH, "another size");
}

/* ---- Starting from weights ------------------------------------------------------------- */

static void test_from(void **state)
{
    training first = {.folder = *state, .run = "first"};
    mn__train_result taught = training_good(&first);
    training how = {.folder = *state, .run = "second", .from = folder_path(*state, "first")};
    how.overrides = OVERRIDES("train.steps=1", "schedule.warmup=0", "schedule.rate=0",
                              "train.validate_every=1");
    assert_true(training_good(&how).best == taught.best);
    how.run = "third";
    how.overrides = OVERRIDES("train.steps=1", "schedule.warmup=0", "model.tied=false");
    expect(&how, MN_ERROR_MISMATCH, "lacks 1 weights: head.weight");
    how.overrides =
        OVERRIDES("train.steps=1", "schedule.warmup=0", "model.tied=false", "train.allow_new=true");
    training_good(&how);
    how.run = "characters"; /* tokens of another meaning */
    how.overrides = OVERRIDES("train.steps=1", "schedule.warmup=0", "data.tokenizer=characters",
                              "data.prepared=");
    expect(&how, MN_ERROR_MISMATCH, "is not this run's tokenizer");
    how.run = "fourth";
    how.overrides = OVERRIDES("train.steps=1", "schedule.warmup=0", "model.width=32");
    expect(&how, MN_ERROR_MISMATCH, "another size");
}

/* Log lines that name a gate. */
static void count_gates(void *user, mn__log_level level, const char *message)
{
    int *gates = user;
    (void)level;
    for (const char *at = message; (at = strstr(at, "attention.gate")); at++)
        ++*gates;
}

/* A window's weights are those of a kNN layer but for the gate, which is 0 at first; that
 * is so of a training from them alone, and of no other weight. */
static void test_a_memory_is_added(void **state)
{
    static const char window[] = "attention={type: window, window: 16, strict: true, t5: true,"
                                 " buckets: 8, far: 16, normalise: true, zero_memory: true}";
    static const char knn[] = "attention={type: knn, window: 16, buckets: 8, far: 16,"
                              " memory: 40, neighbours: 4}";
    training first = {.folder = *state, .run = "window", .overrides = OVERRIDES(window)};
    training_good(&first);
    int gates = 0;
    training how = {.folder = *state, .run = "tuned", .from = folder_path(*state, "window")};
    how.overrides = OVERRIDES(knn, "train.steps=8");
    mn__log_set(count_gates, &gates);
    mn__trainer *trainer = training_open(&how);
    mn__log_set(NULL, NULL);
    assert_int_equal(gates, 2);
    mn__safetensors *file;
    const char *best = folder_path(*state, "window/best.safetensors");
    assert_int_equal(mn__safetensors_open(&file, best, NULL), MN_OK);
    const mn__params *params = &trainer->learner.params;
    for (int64_t i = 0; i < params->count; i++) {
        const mn__param *param = params->items[i];
        const mn__safetensor *from = mn__safetensors_find(file, param->name);
        const float *value = param->value.data;
        assert_true(!from == (strstr(param->name, "attention.gate") != NULL));
        if (from)
            assert_memory_equal(value, from->data, (size_t)from->bytes);
        for (int64_t n = 0; !from && n < param->value.size[0]; n++)
            assert_true(value[n] == 0);
    }
    mn__safetensors_close(file);
    mn__trainer_close(trainer);
    training_good(&how);
    how.run = "untied";
    how.overrides = OVERRIDES(knn, "train.steps=8", "model.tied=false");
    expect(&how, MN_ERROR_MISMATCH, "lacks 1 weights: head.weight");
    mn__device device;
    mn__run run;
    mn_error error;
    assert_int_equal(mn__device_open(&device, &error), MN_OK);
    assert_int_equal(
        mn__run_open(&run, &device, how.from, OVERRIDES("attention.type=knn"), 1, &error),
        MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "attention.gate"));
    mn__device_close(&device);
}

static void test_a_run_is_opened(void **state)
{
    training how = {.folder = *state, .run = "opened"};
    mn__train_result result = training_good(&how);
    mn__device device;
    mn__run run;
    mn_error error;
    assert_int_equal(mn__device_open(&device, &error), MN_OK);
    const char *folder = folder_path(*state, "opened");
    if (mn__run_open(&run, &device, folder, OVERRIDES("attention.memory=32"), 1, &error) != MN_OK)
        fail_msg("%s", error.message);
    assert_string_equal(run.weights_file, "best.safetensors");
    assert_int_equal(run.step, result.best_step);
    assert_int_equal(run.segment, 16);
    assert_int_equal(run.tokenizer->vocab, 256);
    assert_int_equal(strlen(mn__run_fingerprint(&run, NULL)), 32);
    mn__safetensors *file;
    const char *best = folder_path(*state, "opened/best.safetensors");
    assert_int_equal(mn__safetensors_open(&file, best, NULL), MN_OK);
    for (int64_t i = 0; i < run.params.count; i++) {
        const mn__param *param = run.params.items[i];
        const mn__safetensor *tensor = mn__safetensors_find(file, param->name);
        assert_memory_equal(param->value.data, tensor->data, (size_t)tensor->bytes);
    }
    mn__safetensors_close(file);
    mn__run_close(&run);
    assert_int_equal(mn__run_open(&run, &device, folder, OVERRIDES("train.steps=3"), 1, &error),
                     MN_ERROR_OPTION);
    assert_int_equal(mn__run_open(&run, &device, folder, OVERRIDES("model.width=32"), 1, &error),
                     MN_ERROR_MISMATCH);
    assert_int_equal(mn__run_open(&run, &device, folder_path(*state, "data"), NULL, 0, &error),
                     MN_ERROR_IO);
    mn__device_close(&device);
}

/* ---- What goes wrong --------------------------------------------------------------------- */

static void test_numbers_that_are_not_finite(void **state)
{
    training how = {.folder = *state, .run = "infinite"};
    how.overrides = OVERRIDES("schedule={type: constant, rate: 1000}", "optimizer.epsilon=0",
                              "train.clip=0", "optimizer.decay=1");
    mn_error error;
    assert_int_equal(training_run(&how, NULL, &error), MN_ERROR_NUMBER);
    assert_non_null(strstr(error.message, "not finite"));
    how.run = "skipping";
    how.overrides =
        OVERRIDES("schedule={type: constant, rate: 1000}", "optimizer.epsilon=0", "train.clip=0",
                  "optimizer.decay=1", "train.non_finite=skip", "train.validate_every=0");
    assert_int_equal(training_good(&how).step, 16);
    assert_true(training_count(*state, "skipping", "skipped") > 0);
}

static void run_to(mn__trainer *trainer, int64_t step)
{
    mn_error error;
    if (mn__trainer_run(trainer, step, NULL, &error) != MN_OK)
        fail_msg("%s", error.message);
}

/* Skipped, saved in the same step, and gone on from. */
static void test_a_gradient_that_is_not_finite(void **state)
{
    training how = {.folder = *state, .run = "poisoned"};
    how.overrides = OVERRIDES("train.update_every=2", "train.checkpoint_every=2",
                              "train.non_finite=skip", "train.steps=6");
    mn__trainer *trainer = training_open(&how);
    run_to(trainer, 3);
    double norm = trainer->counters.norm; /* of step 2 */
    assert_true(norm > 0);
    trainer->learner.params.items[0]->gradient[0] = NAN;
    run_to(trainer, 4);
    assert_true(trainer->counters.norm == norm);
    assert_int_equal(trainer->saved_step, 4);
    mn__trainer_close(trainer);
    assert_int_equal(training_count(*state, "poisoned", "skipped"), 1);
    how.resume = true;
    trainer = training_open(&how);
    assert_true(trainer->counters.step == 4 && trainer->counters.norm == norm);
    /* files of before may lack it */
    const char *path = folder_path(*state, "without-norm.safetensors");
    mn__counters counters = trainer->counters;
    counters.norm = NAN;
    mn_error error;
    assert_int_equal(
        mn__checkpoint_save(path, &trainer->learner, trainer->batcher, &counters, &error), MN_OK);
    if (mn__checkpoint_load(path, &trainer->learner, trainer->batcher, &counters, &error) != MN_OK)
        fail_msg("%s", error.message);
    assert_true(counters.norm == 0 && counters.step == 4);
    run_to(trainer, 6);
    mn__trainer_close(trainer);
}

static void test_too_little_text_for_validation(void **state)
{
    training how = {.folder = *state, .run = "short"};
    how.overrides = OVERRIDES("train.validation_batch=2000");
    expect(&how, MN_ERROR_MISMATCH, "train.validation_batch 2000");
    assert_false(exists(*state, "short/metrics.jsonl")); /* nothing was begun */
}

/* Two bytes a token to validate on, one to train on. */
static void test_bits_per_byte_of_each_split(void **state)
{
    char ascii[4001] = "", accents[4001] = "";
    for (int i = 0; i < 4000; i++)
        ascii[i] = (char)('a' + i % 7);
    for (int i = 0; i < 4000; i += 2)
        memcpy(accents + i, i % 3 ? "\xc3\xa9" : "\xc3\xa0", 2);
    folder_write(folder_path(*state, "ascii.txt"), ascii, -1);
    folder_write(folder_path(*state, "accents.txt"), accents, -1);
    mn__string corpus = {0};
    mn__string_printf(&corpus, "data.corpus=['%s@train', '%s@validation']",
                      folder_path(*state, "ascii.txt"), folder_path(*state, "accents.txt"));
    training how = {.folder = *state, .run = "bits"};
    how.overrides = OVERRIDES(corpus.text, "data.prepared=", "data.tokenizer=characters",
                              "data.validation=0", "train.steps=70");
    assert_true(fabs(training_good(&how).bits_per_nat * log(2) - 0.5) < 1e-12);
    assert_true(fabs(training_last(*state, "bits", "train", "bits_per_byte") * log(2) -
                     training_last(*state, "bits", "train", "loss")) < 1e-6);
    assert_true(fabs(training_last(*state, "bits", "validation", "bits_per_byte") * 2 * log(2) -
                     training_last(*state, "bits", "validation", "loss")) < 1e-6);
    /* 4 rows of 999 targets are read once in 63 steps of 16 tokens each */
    assert_true(training_last(*state, "bits", "train", "epoch") == 1);
    mn__string_free(&corpus);
}

static void test_too_large_a_run_is_refused(void **state)
{
    training how = {.folder = *state, .run = "huge"};
    how.overrides = OVERRIDES("model.width=131072", "model.heads=64", "model.depth=96");
    expect(&how, MN_ERROR_MEMORY, "moments");
}

static void test_contradictions(void **state)
{
    training how = {.folder = *state, .run = "wrong"};
    how.overrides = OVERRIDES("train.stepz=3");
    expect(&how, MN_ERROR_OPTION, "stepz");
    how.overrides = OVERRIDES("training.steps=3");
    expect(&how, MN_ERROR_OPTION, "training");
    how.overrides = OVERRIDES("train.accumulate=3");
    expect(&how, MN_ERROR_OPTION, "do not divide");
    how.overrides = OVERRIDES("data.validation=0", "data.prepared=");
    expect(&how, MN_ERROR_OPTION, "no text for validation");
    how.overrides = OVERRIDES("data.data=[x]");
    expect(&how, MN_ERROR_OPTION, "data");
    how.overrides = OVERRIDES("train.unroll=2", "data.reset=segment");
    expect(&how, MN_ERROR_OPTION, "begin anew");
    how.overrides = OVERRIDES("schedule.warmup=16");
    expect(&how, MN_ERROR_OPTION, "leaves none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_learns),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_update_every),
        cmocka_unit_test(test_adafactor_and_bf16),
        cmocka_unit_test(test_stop_and_resume),
        cmocka_unit_test(test_stop_and_resume_with_everything),
        cmocka_unit_test(test_stop_and_resume_with_clusters),
        cmocka_unit_test(test_stop_and_resume_with_a_memory),
        cmocka_unit_test(test_stop_and_resume_between_updates),
        cmocka_unit_test(test_what_an_earlier_training_left_is_removed),
        cmocka_unit_test(test_another_run_in_the_recipes_place),
        cmocka_unit_test(test_folders_and_recipes_are_guarded),
        cmocka_unit_test(test_from),
        cmocka_unit_test(test_a_memory_is_added),
        cmocka_unit_test(test_a_run_is_opened),
        cmocka_unit_test(test_numbers_that_are_not_finite),
        cmocka_unit_test(test_a_gradient_that_is_not_finite),
        cmocka_unit_test(test_too_little_text_for_validation),
        cmocka_unit_test(test_bits_per_byte_of_each_split),
        cmocka_unit_test(test_too_large_a_run_is_refused),
        cmocka_unit_test(test_contradictions),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
