/* A trained checkpoint of llama2.c, converted: its greedy text is that of llama2.c's own runner,
 * 200 steps, as that project's test_all.py (MIT licence) expects it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "eval/generate.h"
#include "model/export.h"
#include "support/folder.h"
#include "support/model.h"

#define WEIGHTS MNEME_SOURCE_DIR "/../shared/data/weights/"

static const char expected[] =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She "
    "said, \"I want to play with your ball, but I can't find it.\"\n"
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to "
    "do.\"\n"
    "Lily didn't want to help her mom, so she";

static const char *temporary;

static int setup(void **state)
{
    int status = folder_make(state);
    temporary = *state;
    return status;
}

static bool emit(void *user, const char *text, int64_t bytes)
{
    mn__string_add(user, text, bytes);
    return true;
}

static void check_text(mn__run *run)
{
    mn_error error;
    mn__string text = {0};
    mn__generated generated;
    const mn__generate_config config = {.prompt = "", .tokens = 200, .emit = emit, .user = &text};
    succeed(mn__generate(run, &config, &generated, &error), &error);
    assert_string_equal(text.text, expected);
    assert_int_equal(generated.tokens, 200);
    mn__string_free(&text);
}

static void open_run(mn__run *run, mn__device *device, const char *path, mn__weights weights)
{
    mn_error error;
    const mn__run_how how = {.weights = weights};
    succeed(mn__device_open(device, &error), &error);
    succeed(mn__run_open_as(run, device, path, &how, &error), &error);
}

static void same_text(void **state)
{
    (void)state;
    static const char *const checkpoints[] = {"checkpoint_legacy.bin", "checkpoint_v1.bin"};
    for (int i = 0; i < 2; i++) {
        mn_error error;
        mn__device device;
        mn__run run;
        const mn__family *family;
        const char *folder = folder_path(temporary, "converted%d", i);
        char path[512];
        snprintf(path, sizeof path, "%sstories260K/%s", WEIGHTS, checkpoints[i]);
        open_run(&run, &device, path, MN__WEIGHTS_MASTERS);
        check_text(&run);
        const mn__export what = {.decoder = run.decoder,
                                 .params = &run.params,
                                 .tokenizer = run.tokenizer,
                                 .context = run.context,
                                 .ends = run.ends,
                                 .end_count = run.end_count,
                                 .source = path};
        succeed(mn__export_write(&what, folder, &family, &error), &error);
        mn__run_close(&run);
        mn__device_close(&device);
        for (int packed = 0; packed < 2; packed++) {
            open_run(&run, &device, folder, packed ? MN__WEIGHTS_AUTO : MN__WEIGHTS_MASTERS);
            check_text(&run);
            mn__run_close(&run);
            mn__device_close(&device);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_text)};
    if (!mn__file_exists(WEIGHTS "stories260K/checkpoint_legacy.bin")) {
        printf("skipped: no %s\n", WEIGHTS);
        return 77;
    }
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
