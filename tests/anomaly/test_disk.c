/* A disk that is full at any byte of a training, and calls that read and write a
 * few bytes at a time: an error that names the file, the checkpoint before it
 * whole, and --resume ends to the bit where an undisturbed training does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "support/folder.h"
#include "support/training.h"

static const char *folder;

static const char *const overrides[] = {"model.width=8",
                                        "model.depth=1",
                                        "data.batch=2",
                                        "data.segment=4",
                                        "attention.memory=4",
                                        "schedule.warmup=2",
                                        "train.steps=6",
                                        "train.log_every=1",
                                        "train.checkpoint_every=2",
                                        "train.validate_every=3",
                                        "train.validation_tokens=16"};
enum { OVERRIDES = sizeof overrides / sizeof *overrides };

static mn_status train(const char *run, mn_error *error)
{
    const mn__train_call call = {.recipe = folder_path(folder, "recipe.yaml"),
                                 .folder = folder_path(folder, "%s", run),
                                 .overrides = overrides,
                                 .override_count = OVERRIDES,
                                 .resume = true,
                                 .unmeasured = true};
    return mn__train(&call, NULL, NULL, error);
}

static void train_well(const char *run)
{
    mn_error error;
    if (train(run, &error) != MN_OK)
        fail_msg("%s: %s", run, error.message);
}

static int setup(void **state)
{
    folder_make(state);
    folder = *state;
    training_make(folder);
    train_well("whole");
    return 0;
}

static void expect_no_leftovers(const char *run)
{
    char **names;
    int64_t count;
    if (mn__file_list(folder_path(folder, "%s", run), &names, &count, NULL) != MN_OK)
        return; /* there was not even room for its folder's first file */
    for (int64_t i = 0; i < count; i++)
        if (strstr(names[i], ".tmp"))
            fail_msg("%s: %s was left", run, names[i]);
    mn__free(names);
}

/* The step that the checkpoint stands at; -1: there is none. It must be whole. */
static long long saved_step(const char *run)
{
    const char *path = folder_path(folder, "%s/last.safetensors", run);
    mn__safetensors *file;
    mn_error error;
    if (!mn__file_exists(path))
        return -1;
    if (mn__safetensors_open(&file, path, &error) != MN_OK)
        fail_msg("after a full disk: %s", error.message);
    long long step = atoll(mn__safetensors_metadata(file, "step"));
    mn__safetensors_close(file);
    return step;
}

static void test_full_disk(void **state)
{
    (void)state;
    long long last = -1;
    int refused = 0;
    for (int64_t room = 0;; room += 701, refused++) {
        char run[32];
        mn_error error = {.code = MN_OK};
        snprintf(run, sizeof run, "full-%lld", (long long)room);
        mn__file_fail_write_after(room);
        mn_status status = train(run, &error);
        mn__file_fail_write_after(-1);
        if (status != MN_OK && (status != MN_ERROR_IO || !strstr(error.message, folder) ||
                                !strstr(error.message, "No space left") || !*error.hint))
            fail_msg("%lld bytes: '%s' ('%s')", (long long)room, error.message, error.hint);
        expect_no_leftovers(run);
        long long step = saved_step(run);
        assert_true(step >= last); /* never less for more room */
        last = step;
        train_well(run);
        training_compare(folder, "whole", run);
        folder_remove_all(folder_path(folder, "%s", run));
        if (status == MN_OK)
            break;
    }
    assert_int_equal(last, 6);
    assert_true(refused > 20);
}

static void test_short_calls(void **state)
{
    (void)state;
    static const int64_t pieces[] = {1, 7, 4096};
    for (int i = 0; i < 3; i++) {
        mn__file_short_calls(pieces[i]);
        train_well("short");
        train_well("short"); /* reads its own checkpoint */
        mn__file_short_calls(-1);
        training_compare(folder, "whole", "short");
        folder_remove_all(folder_path(folder, "short"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_short_calls),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
