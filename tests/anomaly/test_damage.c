/* Every file of a run, and of the data it reads, with flipped bits and cut short:
 * an error that names the file and says what to do, and with the file restored
 * all goes on; never a wrong figure in silence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "eval/evaluation.h"
#include "eval/report.h"
#include "reader/session.h"
#include "support/folder.h"
#include "support/training.h"

static const char *folder;

static const char *const overrides[] = {"model.width=8",
                                        "model.depth=1",
                                        "data.batch=2",
                                        "data.segment=4",
                                        "attention.memory=4",
                                        "data.tokenizer=characters",
                                        "data.test=0.1",
                                        "schedule.warmup=2",
                                        "train.steps=6",
                                        "train.log_every=2",
                                        "train.checkpoint_every=3",
                                        "train.validate_every=3",
                                        "train.validation_tokens=16",
                                        NULL};

static const char *in_run(const char *name)
{
    return folder_path(folder, "run/%s", name);
}

static int setup(void **state)
{
    folder_make(state);
    folder = *state;
    training_make(folder);
    static const char text[] = "the river runs to the sea\nwhere some ships lie still, asleep.\n";
    for (int i = 0; i < 10; i++)
        folder_write(folder_path(folder, "texts/%d.txt", i), text, -1);
    return 0;
}

/* Trains, but for the last steps. */
static int train(void **state)
{
    setup(state);
    static const char *all[20];
    int count = 0;
    for (; overrides[count]; count++)
        all[count] = overrides[count];
    static char corpus[4200];
    snprintf(corpus, sizeof corpus, "data.corpus=['%s']", folder_path(folder, "texts"));
    all[count] = corpus;
    training how = {.folder = folder, .run = "run", .overrides = all};
    training_good(&how);
    return 0;
}

/* ---- Damaging --------------------------------------------------------------------------- */

/* Uses the file in some way. */
typedef mn_status (*file_use)(mn_error *error);

typedef struct damage {
    const char *path;
    file_use use;
    int64_t step;      /* every so many bytes one is damaged */
    int64_t least_cut; /* files cut to so many bytes and more are refused */
    const char *named; /* what every message contains; NULL: anything */
    int64_t spared;    /* bytes at the end that may be missing: a newline */
    bool spare_paths;  /* lines with the test's folder stay: others would be written */
} damage;

static bool is_path(const damage *how, const char *bytes, int64_t at)
{
    int64_t begin = at;
    while (begin > 0 && bytes[begin - 1] != '\n')
        begin--;
    size_t length = strcspn(bytes + begin, "\n");
    return how->spare_paths && memmem(bytes + begin, length, folder, strlen(folder));
}

static void check_refusal(const damage *how, mn_status status, const mn_error *error, int64_t at)
{
    if (error->code != status || !*error->message || !*error->hint ||
        (how->named && !strstr(error->message, how->named)))
        fail_msg("%s, byte %lld: %s: '%s' ('%s')", how->path, (long long)at, mn_status_name(status),
                 error->message, error->hint);
    if (status == MN_ERROR_MEMORY || status == MN_ERROR_INTERRUPTED || status == MN_ERROR_NUMBER)
        fail_msg("%s, byte %lld: %s", how->path, (long long)at, error->message);
}

/* How many flips were not refused. */
static int64_t flip(const damage *how, char *bytes, int64_t count)
{
    int64_t passed = 0;
    for (int64_t at = 0; at < count; at += how->step) {
        mn_error error = {.code = MN_OK};
        char bit = (char)(1 << at % 7);
        if (is_path(how, bytes, at))
            continue;
        bytes[at] = (char)(bytes[at] ^ bit);
        folder_write(how->path, bytes, count);
        mn_status status = how->use(&error);
        if (status == MN_OK)
            passed++;
        else
            check_refusal(how, status, &error, at);
        bytes[at] = (char)(bytes[at] ^ bit);
    }
    return passed;
}

static void cut(const damage *how, const char *bytes, int64_t count)
{
    for (int64_t length = how->least_cut; length < count - how->spared; length += how->step) {
        mn_error error = {.code = MN_OK};
        folder_write(how->path, bytes, length);
        mn_status status = how->use(&error);
        if (status == MN_OK)
            fail_msg("%s: cut to %lld bytes, but taken", how->path, (long long)length);
        check_refusal(how, status, &error, length);
    }
}

static int64_t do_damage(const damage *how)
{
    int64_t count;
    char *bytes = folder_read(how->path, &count);
    assert_true(count > 1);
    int64_t passed = flip(how, bytes, count);
    cut(how, bytes, count);
    folder_write(how->path, bytes, count);
    free(bytes);
    mn_error error;
    if (how->use(&error) != MN_OK)
        fail_msg("%s: restored, but %s", how->path, error.message);
    return passed;
}

/* ---- Ways to use a run ------------------------------------------------------------------- */

static mn_status resume(mn_error *error)
{
    mn__trainer *trainer;
    const mn__train_call call = {.recipe = folder_path(folder, "run"),
                                 .folder = folder_path(folder, "run"),
                                 .resume = true,
                                 .unmeasured = true};
    mn_status status = mn__trainer_open(&trainer, &call, NULL, error);
    if (status == MN_OK)
        mn__trainer_close(trainer);
    return status;
}

static mn_status with_run(mn_status (*use)(mn__run *run, mn_error *error), mn_error *error)
{
    mn__device device;
    mn__run run;
    mn_status status = mn__device_open(&device, error);
    if (status == MN_OK)
        status = mn__run_open(&run, &device, folder_path(folder, "run"), NULL, 0, error);
    if (status == MN_OK) {
        status = use ? use(&run, error) : MN_OK;
        mn__run_close(&run);
    }
    mn__device_close(&device);
    return status;
}

static mn_status open_run(mn_error *error)
{
    return with_run(NULL, error);
}

static mn_status evaluate_dataset(mn__run *run, const mn__dataset *dataset, mn__split split,
                                  mn_error *error)
{
    const mn__score_config config = {.segment = 4, .rows = 2, .compute = MN__F32};
    mn__evaluation evaluation;
    mn_status status =
        mn__evaluation_open(&evaluation, run, dataset, split, &config, NULL, 0, error);
    if (status != MN_OK)
        return status;
    status = mn__evaluation_run(&evaluation, NULL, error);
    mn__evaluation_close(&evaluation);
    return status;
}

static mn_status evaluate_run(mn__run *run, mn_error *error)
{
    mn__dataset *dataset;
    mn__split split;
    mn_status status = mn__evaluation_data(run, "", "all", NULL, &dataset, &split, error);
    if (status != MN_OK)
        return status;
    status = evaluate_dataset(run, dataset, split, error);
    mn__dataset_close(dataset);
    return status;
}

static mn_status evaluate(mn_error *error)
{
    return with_run(evaluate_run, error);
}

static mn_status evaluate_anew(mn_error *error)
{
    folder_remove_all(in_run("eval"));
    return evaluate(error);
}

static mn_status report_run(mn__run *run, mn_error *error)
{
    json_t *runs = json_array();
    const mn__report_options options = {.data = "", .split = "", .document = ""};
    mn_status status = mn__report_add(runs, run, &options, NULL, error);
    json_decref(runs);
    return status;
}

static mn_status report(mn_error *error)
{
    return with_run(report_run, error);
}

static mn_status session_run(mn__run *run, mn_error *error)
{
    mn__session session;
    const mn__session_options options = {.rows = 1, .capacity = 16, .compute = MN__F32};
    const char *path = folder_path(folder, "session");
    mn_status status = mn__session_open(&session, run->decoder, &run->params, &options, error);
    if (status != MN_OK)
        return status;
    if (mn__file_exists(path)) {
        status = mn__session_load(&session, path, mn__run_fingerprint(run, error), error);
    } else {
        const mn__stretch stretch = {.T = 5, .ids = (const int32_t[]){1, 2, 3, 4, 5}};
        status = mn__session_read(&session, &stretch, error);
        if (status == MN_OK)
            status = mn__session_save(&session, path, mn__run_fingerprint(run, error), error);
    }
    mn__session_close(&session);
    return status;
}

static mn_status use_session(mn_error *error)
{
    return with_run(session_run, error);
}

/* ---- The files ------------------------------------------------------------------------------- */

/* Of a safetensors file of ours, only the five letters of the word `check` can
 * change without being found, which changes nothing else. */
enum { LETTERS_OF_CHECK = 5 };

static void test_checkpoint(void **state)
{
    (void)state;
    damage how = {.path = in_run("last.safetensors"), .use = resume, .named = "last.safetensors"};
    how.step = 43;
    assert_true(do_damage(&how) <= LETTERS_OF_CHECK);
}

static void test_weights(void **state)
{
    (void)state;
    damage how = {.path = in_run("best.safetensors"), .use = open_run, .named = "best.safetensors"};
    how.step = 17;
    assert_true(do_damage(&how) <= LETTERS_OF_CHECK);
}

static void test_session(void **state)
{
    (void)state;
    mn_error error;
    assert_int_equal(use_session(&error), MN_OK);
    damage how = {.path = folder_path(folder, "session"), .use = use_session, .named = "session"};
    how.step = 1;
    assert_true(do_damage(&how) <= LETTERS_OF_CHECK);
}

/* tokenizer.json's vocab and lossless are for people: the payload has them. */
static void test_tokenizer(void **state)
{
    (void)state;
    char **names;
    int64_t count;
    assert_int_equal(mn__file_list(in_run("tokenizer"), &names, &count, NULL), MN_OK);
    assert_int_equal(count, 2);
    for (int64_t i = 0; i < count; i++) {
        damage how = {.path = folder_path(in_run("tokenizer"), "%s", names[i]),
                      .use = open_run,
                      .step = 1,
                      .spared = strcmp(names[i], "tokenizer.json") == 0,
                      .named = "tokenizer"};
        int64_t passed = do_damage(&how);
        assert_true(strcmp(names[i], "tokenizer.json") ? passed == 0 : passed < 60);
    }
    mn__free(names);
}

/* A data set damaged after it was prepared is not read for figures. */
static void test_data_set(void **state)
{
    (void)state;
    char **names;
    int64_t count;
    const char *data = folder_path(folder, "data");
    assert_int_equal(mn__file_list(data, &names, &count, NULL), MN_OK);
    assert_true(count >= 5);
    for (int64_t i = 0; i < count; i++) {
        damage how = {.path = folder_path(data, "%s", names[i]),
                      .use = evaluate_anew,
                      .step = 23,
                      .spared = strstr(names[i], ".json") != NULL,
                      .named = "data"};
        int64_t passed = do_damage(&how);
        assert_true(strcmp(names[i], "tokenizer.json") ? passed == 0 : passed < 20);
    }
    mn__free(names);
    folder_remove_all(in_run("eval"));
}

static void test_results(void **state)
{
    (void)state;
    char **names;
    int64_t count;
    mn_error error;
    if (evaluate_anew(&error) != MN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(mn__file_list(in_run("eval"), &names, &count, NULL), MN_OK);
    assert_int_equal(count, 1);
    damage how = {.path = folder_path(in_run("eval"), "%s", names[0]),
                  .use = evaluate,
                  .step = 3,
                  .spared = 1,
                  .named = "run/eval"};
    int64_t bytes;
    char *text = folder_read(how.path, &bytes);
    free(text);
    /* Spaces between values may change, and the word `check`. */
    assert_true(do_damage(&how) < bytes / 4);
    how.use = report;
    do_damage(&how);
    mn__free(names);
    folder_remove_all(in_run("eval"));
}

/* A recipe is made to be changed: what it then says is taken, or refused. */
static void test_recipe(void **state)
{
    (void)state;
    damage how = {.path = in_run("recipe.yaml"), .use = open_run, .step = 5};
    int64_t bytes;
    char *text = folder_read(how.path, &bytes);
    assert_true(flip(&how, text, bytes) < bytes);
    how.use = resume;
    how.step = 11;
    how.spare_paths = true;
    assert_true(flip(&how, text, bytes) < bytes);
    folder_write(how.path, text, bytes);
    free(text);
    mn_error error;
    assert_int_equal(resume(&error), MN_OK);
}

/* A kill leaves a line without an end: it counts for nothing. */
static void test_metrics(void **state)
{
    (void)state;
    mn_error error;
    int64_t bytes;
    const char *path = in_run("metrics.jsonl");
    char *text = folder_read(path, &bytes), *longer = malloc((size_t)bytes + 100);
    strcpy(longer, text);
    strcat(longer, "{\"kind\": \"train\", \"step\": 7, \"lo");
    folder_write(path, longer, -1);
    assert_int_equal(report(&error), MN_OK);
    assert_int_equal(resume(&error), MN_OK);
    int64_t now;
    char *after = folder_read(path, &now);
    assert_int_equal(now, bytes);
    assert_string_equal(after, text);
    damage how = {.path = path, .use = report, .step = 7, .named = "metrics.jsonl"};
    assert_true(flip(&how, text, bytes) < bytes);
    how.use = resume; /* shorter than the checkpoint knows of */
    how.step = 13;
    cut(&how, text, bytes);
    folder_write(path, text, bytes);
    assert_int_equal(resume(&error), MN_OK);
    free(after);
    free(longer);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_session),    cmocka_unit_test(test_tokenizer),
        cmocka_unit_test(test_data_set),   cmocka_unit_test(test_results),
        cmocka_unit_test(test_recipe),     cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, train, folder_remove);
}
