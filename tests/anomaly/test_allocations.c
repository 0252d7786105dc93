/* Each allocation fails in turn: in reading a recipe, building a model, training
 * steps, whole trainings and their resuming, evaluation, generation and the
 * report. A clear error each, no memory kept, nothing lost: a training that met
 * one goes on with --resume, and ends to the bit as one that did not. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/evaluation.h"
#include "eval/generate.h"
#include "eval/report.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/training.h"
#include "train/learner.h"

#define OVERRIDES(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *folder;

/* As small as a training can be that does all there is to do. */
#define SMALL                                                                                  \
    "model.width=8", "model.depth=1", "data.batch=2", "data.segment=4", "attention.memory=4",  \
        "schedule.warmup=2", "train.steps=6", "train.log_every=2", "train.checkpoint_every=3", \
        "train.validate_every=3", "train.validation_tokens=16", "train.update_every=1"

static int setup(void **state)
{
    folder_make(state);
    folder = *state;
    training_make(folder);
    return 0;
}

/* ---- Recipes and models --------------------------------------------------------------- */

static mn_status read_recipe(void *user, mn_error *error)
{
    mn__recipe recipe;
    mn__string text = {0};
    mn_status status = mn__recipe_read(&recipe, folder_path(folder, "recipe.yaml"), user, 3, error);
    if (status == MN_OK)
        status = mn__recipe_set_precision(&recipe, MN__PRECISION_F32, error);
    if (status == MN_OK)
        status = mn__recipe_text(&recipe, &text, error);
    mn__string_free(&text);
    mn__recipe_free(&recipe);
    return status;
}

static void test_recipe(void **state)
{
    (void)state;
    const char *set[] = {"model.width=8", "train.steps=7", "data.shuffle=true"};
    assert_true(failing_each("a recipe", read_recipe, set, true, NULL) > 500);
}

/* Forms that between them have all that a decoder can be made of. */
static const struct form {
    const char *name;
    const char *const set[12];
} forms[] = {
    {"full", {"model.positions=rope", "model.kv_heads=1", "attention={type: full}"}},
    {"full with ALiBi",
     {"model.norm=rms", "model.gated=true", "model.activation=silu",
      "attention={type: full, alibi: true}", "optimizer={type: adafactor, factor_from: 4}"}},
    {"full with norms of its heads and after it",
     {"model.positions=rope", "attention={type: full}", "model.head_norm=true",
      "model.norm_place=both", "model.attention_bias=inputs", "model.rope_scaling=longrope",
      "model.rope_original=8", "model.rope_width=2", "model.rope_short=[1]",
      "model.rope_long=[2]"}},
    {"full with learned positions",
     {"model.positions=learned", "attention={type: full}", "model.norm_place=post",
      "data.style=documents"}},
    {"window",
     {"model.positions=rope", "attention={type: window, window: 3}", "model.recompute=true"}},
    {"window with buckets",
     {"attention={type: window, window: 3, strict: true, t5: true, buckets: 8, far: 8}",
      "train.unroll=2"}},
    {"a kNN memory", {"attention={type: knn, window: 3, memory: 6, neighbours: 2}"}},
    {"a kNN memory in buckets",
     {"attention={type: knn, window: 2, memory: 5, neighbours: 2, search: buckets, empty: local,"
      " cache: false}",
      "model.recompute=true", "train.precision=bf16"}},
    {"xl", {"model.bias=true", "model.attention_bias=true", "model.head_bias=true"}},
    {"xl in parts of unrolled segments", {"train.accumulate=2", "train.unroll=2", "model.depth=2"}},
    {"xl in bf16", {"train.precision=bf16", "model.tied=false", "model.scale_embedding=true"}},
    {"layers of several types", {"model.depth=2", "model.layers=[{layers: [1], type: full}]"}},
    {"clusters",
     {"model.cutoffs=[3, 7]", "model.div_val=2", "model.project_first=true",
      "model.tie_projections=true", "model.head_bias=true", "train.z_loss=1e-2"}},
    {"clusters in bf16",
     {"model.cutoffs=[3, 7]", "model.div_val=2", "model.tied=false", "train.precision=bf16"}},
    {"recurrent blocks",
     {"attention={type: block_recurrent, window: 2, states: 3, gate: lstm, form: dual}"}},
    {"recurrent blocks with feedback",
     {"attention={type: block_recurrent, window: 4, states: 3, form: single, feedback: true}",
      "train.unroll=2"}},
    {"compressed memories", {"attention={type: compressive, memory: 3, compressed: 4, rate: 2}"}},
    {"compressed memories of what was used most",
     {"attention={type: compressive, memory: 2, compressed: 3, rate: 2, compression: most_used}"}},
    {"compressed memories through time",
     {"attention={type: compressive, memory: 2, compressed: 3, rate: 2, compression: dilated,"
      " dilations: 1, through: everything, remember: inputs, zero_memory: false}",
      "train.unroll=2"}},
    {"auto-encoded memories",
     {"attention={type: compressive, memory: 2, compressed: 3, rate: 2, loss: autoencoding}"}},
};
enum { FORMS = sizeof forms / sizeof *forms };

static int64_t overrides_of(const struct form *form, const char *all[40])
{
    static const char *const small[] = {SMALL};
    int64_t count = sizeof small / sizeof *small;
    memcpy(all, small, sizeof small);
    for (int i = 0; form && form->set[i]; i++)
        all[count++] = form->set[i];
    return count;
}

static void recipe_of(const struct form *form, mn__recipe *recipe)
{
    mn_error error;
    const char *all[40];
    if (mn__recipe_read(recipe, folder_path(folder, "recipe.yaml"), all, overrides_of(form, all),
                        &error) != MN_OK)
        fail_msg("%s: %s", form->name, error.message);
}

typedef struct learning {
    mn__recipe recipe;
    double nats; /* of a run in which nothing failed; 0: not known yet */
} learning;

static void fill(mn__learner *learner)
{
    for (int64_t u = 0; u < learner->recipe->train.unroll; u++) {
        mn__batch *batch = &learner->batch[u];
        for (int64_t b = 0; b < batch->rows; b++)
            batch->valid[b] = batch->length;
        for (int64_t i = 0; i < batch->rows * batch->length; i++) {
            batch->ids[i] = (int32_t)(7 * i + u) % 11;
            batch->targets[i] = (int32_t)(7 * i + 7 + u) % 11;
            batch->weights[i] = 1.0f;
        }
        batch->start[0] = true;
    }
}

static mn_status two_steps(mn__learner *learner, mn__step *done, mn_error *error)
{
    fill(learner);
    mn_status status = MN_OK;
    for (int64_t step = 1; step <= 2 && status == MN_OK; step++) {
        double norm;
        status = mn__learner_step(learner, step, done, error);
        if (status == MN_OK)
            status = mn__learner_update(learner, step, &norm, error);
    }
    return status;
}

/* A failure that is tolerated (a copy in a faster order) may change roundings. */
static bool close_to(double a, double b)
{
    return fabs(a - b) <= 1e-3 * fabs(b);
}

static mn_status learn(void *user, mn_error *error)
{
    learning *work = user;
    mn__device device;
    mn__learner learner;
    mn__step done = {0};
    mn_status status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    status = mn__learner_open(&learner, &work->recipe, &device, 11, error);
    if (status == MN_OK)
        status = two_steps(&learner, &done, error);
    assert_false(device.queue.failed); /* whatever failed, the next step is not to */
    if (status == MN_OK && work->nats != 0)
        assert_true(close_to(done.nats, work->nats));
    else if (status == MN_OK)
        work->nats = done.nats;
    mn__learner_close(&learner);
    mn__device_close(&device);
    return status;
}

static void test_steps(void **state)
{
    (void)state;
    for (int i = 0; i < FORMS; i++) {
        learning work = {.nats = 0};
        mn_error error;
        recipe_of(&forms[i], &work.recipe);
        if (learn(&work, &error) != MN_OK)
            fail_msg("%s: %s", forms[i].name, error.message);
        assert_true(work.nats > 0);
        assert_true(failing_each(forms[i].name, learn, &work, true, NULL) > 100);
        mn__recipe_free(&work.recipe);
    }
}

static mn_status plan(void *user, mn_error *error)
{
    const learning *work = user;
    mn__plan made;
    return mn__plan_make(&made, &work->recipe, 11, NULL, error);
}

static void test_plan(void **state)
{
    (void)state;
    learning work = {.nats = 0};
    recipe_of(&forms[6], &work.recipe);
    assert_true(failing_each("a plan", plan, &work, true, NULL) > 100);
    mn__recipe_free(&work.recipe);
}

/* ---- Trainings ------------------------------------------------------------------------- */

typedef struct whole {
    const char *all[40];
    int64_t count;
    int serial;
    int64_t begin; /* > 0: the step at which a training stands that is resumed */
} whole;

static mn__train_call call_of(const whole *work, bool resume)
{
    return (mn__train_call){.recipe = folder_path(folder, "recipe.yaml"),
                            .folder = folder_path(folder, "failing-%d", work->serial),
                            .overrides = work->all,
                            .override_count = work->count,
                            .resume = resume,
                            .unmeasured = true};
}

static bool until(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    (void)total, (void)note;
    const whole *work = user;
    return strcmp(what, "training") != 0 || done < work->begin;
}

static void begin(whole *work)
{
    mn_error error;
    mn__progress progress = {until, work};
    mn__train_call call = call_of(work, false);
    assert_int_equal(mn__train(&call, &progress, NULL, &error), MN_ERROR_INTERRUPTED);
}

static mn_status train(void *user, mn_error *error)
{
    mn__train_call call = call_of(user, true);
    return mn__train(&call, NULL, NULL, error);
}

/* What failed goes on, and nothing was lost; the next run is a new one. */
static void goes_on(void *user)
{
    whole *work = user;
    mn_error error;
    char run[32];
    snprintf(run, sizeof run, "failing-%d", work->serial);
    if (train(work, &error) != MN_OK)
        fail_msg("after a failure: %s", error.message);
    training_compare(folder, "whole", run);
    folder_remove_all(folder_path(folder, "%s", run));
    work->serial++;
    if (work->begin)
        begin(work);
}

static void make_whole(whole *work)
{
    static const struct form plain = {"plain", {"train.accumulate=2"}};
    work->count = overrides_of(&plain, work->all);
    training how = {.folder = folder, .run = "whole", .overrides = work->all};
    work->all[work->count] = NULL;
    if (!mn__file_exists(folder_path(folder, "whole")))
        training_good(&how);
}

static void test_training(void **state)
{
    (void)state;
    whole work = {.serial = 0};
    make_whole(&work);
    assert_true(failing_each("a training", train, &work, false, goes_on) > 100);
}

static void test_resuming(void **state)
{
    (void)state;
    whole work = {.serial = 10000, .begin = 4};
    make_whole(&work);
    begin(&work);
    assert_true(failing_each("a resumed training", train, &work, false, goes_on) > 100);
}

static mn_status start_from(void *user, mn_error *error)
{
    mn__train_call call = call_of(user, false);
    call.from = folder_path(folder, "whole");
    return mn__train(&call, NULL, NULL, error);
}

static void forget(void *user)
{
    whole *work = user;
    folder_remove_all(folder_path(folder, "failing-%d", work->serial++));
}

static void test_starting_from_weights(void **state)
{
    (void)state;
    whole work = {.serial = 20000};
    make_whole(&work);
    work.all[work.count++] = "train.steps=3";
    assert_true(failing_each("a training from weights", start_from, &work, false, forget) > 100);
}

/* ---- What is made of a run ---------------------------------------------------------------- */

typedef struct using
{
    mn_status (*use)(mn__run * run, struct using * work, mn_error * error);
    mn__way way;
    double nats; /* as in learning; or bytes of text */
}
using;

static mn_status with_run(void *user, mn_error *error)
{
    using *work = user;
    mn__device device;
    mn__run run;
    mn_status status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    status = mn__run_open(&run, &device, folder_path(folder, "whole"),
                          OVERRIDES("attention.memory=6"), 1, error);
    if (status == MN_OK) {
        status = work->use(&run, work, error);
        mn__run_close(&run);
    }
    mn__device_close(&device);
    return status;
}

static double total_nats(const mn__evaluation *evaluation)
{
    json_t *figures = mn__evaluation_json(evaluation);
    json_t *total = json_object_get(figures, "total");
    double nats = json_number_value(json_object_get(total, "nats"));
    json_decref(figures);
    return nats;
}

static mn_status evaluate_on(mn__run *run, const mn__dataset *dataset, mn__split split, using *work,
                             mn_error *error)
{
    const mn__score_config config = {
        .way = work->way, .segment = 4, .window = 6, .stride = 3, .rows = 2, .compute = MN__F32};
    mn__evaluation evaluation;
    mn_status status =
        mn__evaluation_open(&evaluation, run, dataset, split, &config, NULL, 0, error);
    if (status != MN_OK)
        return status;
    status = mn__evaluation_run(&evaluation, NULL, error);
    double nats = status == MN_OK ? total_nats(&evaluation) : 0;
    if (status == MN_OK && work->nats != 0)
        assert_true(close_to(nats, work->nats));
    else if (status == MN_OK)
        work->nats = nats;
    mn__evaluation_close(&evaluation);
    return status;
}

static mn_status evaluate(mn__run *run, using *work, mn_error *error)
{
    mn__dataset *dataset;
    mn__split split;
    mn_status status = mn__evaluation_data(run, folder_path(folder, "short.txt"), "", NULL,
                                           &dataset, &split, error);
    if (status != MN_OK)
        return status;
    status = evaluate_on(run, dataset, split, work, error);
    mn__dataset_close(dataset);
    return status;
}

/* The text is prepared anew then, and all of it scored. */
static void forget_results(void *user)
{
    (void)user;
    folder_remove_all(folder_path(folder, "whole/eval"));
}

static void make_run(void)
{
    whole work = {.serial = 0};
    make_whole(&work);
    static const char text[] = "the river runs to the sea where some ships lie still, asleep.";
    folder_write(folder_path(folder, "short.txt"), text, -1);
}

static void test_evaluation(void **state)
{
    (void)state;
    make_run();
    for (int way = MN__WAY_CARRIED; way <= MN__WAY_WINDOW; way++) {
        using work = {.use = evaluate, .way = (mn__way)way};
        mn_error error;
        if (with_run(&work, &error) != MN_OK)
            fail_msg("%s", error.message);
        assert_true(work.nats > 0);
        forget_results(NULL);
        failing_each("an evaluation", with_run, &work, way == MN__WAY_CARRIED, forget_results);
    }
}

static bool take_text(void *user, const char *text, int64_t bytes)
{
    mn__string *to = user;
    memcpy(to->text + to->bytes, text, (size_t)bytes);
    to->bytes += bytes;
    return to->bytes < 1000;
}

static mn_status generate(mn__run *run, using *work, mn_error *error)
{
    char text[2000];
    mn__string got = {.text = text};
    const char *stop = "zzz";
    const mn__generate_config config = {.prompt = "the sea",
                                        .prompt_bytes = 7,
                                        .tokens = 12,
                                        .sample = {.temperature = 1, .top_p = 0.9, .top_k = 50},
                                        .stop = {&stop, 1},
                                        .compute = MN__F32,
                                        .emit = take_text,
                                        .user = &got};
    mn__generated generated;
    mn_status status = mn__generate(run, &config, &generated, error);
    if (status != MN_OK)
        return status;
    assert_int_equal(generated.tokens, 12);
    if (work->nats == 0)
        work->nats = (double)got.bytes;
    assert_true((double)got.bytes == work->nats);
    return MN_OK;
}

static void test_generation(void **state)
{
    (void)state;
    make_run();
    using work = {.use = generate};
    assert_true(failing_each("a generation", with_run, &work, true, NULL) > 100);
}

static mn_status report(mn__run *run, using *work, mn_error *error)
{
    (void)work;
    json_t *runs = json_array();
    const mn__report_options options = {.data = folder_path(folder, "short.txt"),
                                        .split = "",
                                        .document = "",
                                        .passage = 20,
                                        .from = -1,
                                        .compute = MN__F32};
    mn_status status = mn__report_add(runs, run, &options, NULL, error);
    if (status == MN_OK) {
        const json_t *entry = json_array_get(runs, 0);
        assert_int_equal(json_array_size(json_object_get(entry, "evaluations")), 1);
        const json_t *passage = json_object_get(entry, "passage");
        assert_int_equal(json_array_size(json_object_get(passage, "tokens")), 20);
        status = mn__report_write(runs, folder_path(folder, "report.html"), error);
    }
    json_decref(runs);
    return status;
}

static void test_report(void **state)
{
    (void)state;
    make_run();
    mn_error error;
    using evaluation = {.use = evaluate}, work = {.use = report};
    if (with_run(&evaluation, &error) != MN_OK)
        fail_msg("%s", error.message);
    failing_each("a report", with_run, &work, false, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recipe),     cmocka_unit_test(test_steps),
        cmocka_unit_test(test_plan),       cmocka_unit_test(test_training),
        cmocka_unit_test(test_resuming),   cmocka_unit_test(test_starting_from_weights),
        cmocka_unit_test(test_evaluation), cmocka_unit_test(test_generation),
        cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
