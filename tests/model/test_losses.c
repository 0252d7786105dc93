/* What is trained beside the task's loss is told apart from it, and logged by name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/naive.h"
#include "support/folder.h"
#include "support/training.h"

#define OVERRIDES(...) ((const char *const[]){__VA_ARGS__, NULL})

static const mn__attention_type *const naive_types[] = {&naive_compressive, NULL};

static int setup(void **state)
{
    int status = folder_make(state);
    training_make(*state);
    mn__attention_add_types(naive_types);
    return status;
}

/* Weights that stay as they were drawn: the nats cannot depend on the factor. Logits
 * of variance at most 0.02^2 width: log Z is ln 256 but for 0.004. */
static void test_z_loss(void **state)
{
    training how = {.folder = *state, .run = "without"};
    how.overrides = OVERRIDES("schedule.rate=0");
    training_good(&how);
    how.run = "with";
    how.overrides = OVERRIDES("schedule.rate=0", "train.z_loss=0.1");
    training_good(&how);
    double without = training_last(*state, "without", "train", "loss");
    assert_true(training_last(*state, "with", "train", "loss") == without);
    assert_true(fabs(training_last(*state, "with", "train", "z_loss") - 0.1 * pow(log(256), 2)) <
                0.1 * 2 * log(256) * 0.02);
}

/* It acts: biases that move by some 0.03 a step make log Z smaller by about 1. */
static void test_z_loss_is_trained(void **state)
{
    training how = {.folder = *state, .run = "drawn"};
    how.overrides =
        OVERRIDES("train.z_loss=1", "model.head_bias=true", "train.steps=40", "schedule.rate=3e-2");
    training_good(&how);
    assert_true(training_last(*state, "drawn", "train", "z_loss") < 0.9 * pow(log(256), 2));
}

#define COMPRESSIVE                                                                             \
    "attention={type: naive_compressive, memory: 6, compressed: 4, rate: 2}", "train.unroll=2", \
        "model.dropout=0"

static bool contains(const char *path, const char *text)
{
    int64_t bytes;
    char *data = folder_read(path, &bytes);
    bool found = memmem(data, (size_t)bytes, text, strlen(text)) != NULL;
    free(data);
    return found;
}

/* The mean over the parts is the whole's; each reconstructs rows of equal size. */
static void test_auxiliary_losses(void **state)
{
    training how = {.folder = *state, .run = "whole"};
    how.overrides = OVERRIDES(COMPRESSIVE, "schedule.rate=0");
    training_good(&how);
    double whole = training_last(*state, "whole", "train", "reconstruction");
    assert_true(whole > 0);
    assert_true(
        contains(folder_path(*state, "whole/events.out.tfevents.mneme"), "train/reconstruction"));
    how.run = "parts";
    how.overrides = OVERRIDES(COMPRESSIVE, "schedule.rate=0", "train.accumulate=2");
    training_good(&how);
    double parts = training_last(*state, "parts", "train", "reconstruction");
    assert_true(fabs(whole - parts) < 1e-4 * whole);
}

/* Sums since the last line go on after a resume. */
static void test_sums_are_resumed(void **state)
{
    training how = {.folder = *state, .run = "once"};
    how.overrides = OVERRIDES(COMPRESSIVE, "train.z_loss=1e-3", "train.log_every=8");
    training_good(&how);
    how.run = "twice";
    how.stop_after = 5;
    mn_error error;
    assert_int_equal(training_run(&how, NULL, &error), MN_ERROR_INTERRUPTED);
    how.stop_after = 0;
    how.resume = true;
    training_good(&how);
    training_compare(*state, "once", "twice");
    assert_true(training_last(*state, "twice", "train", "z_loss") > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_z_loss),
        cmocka_unit_test(test_z_loss_is_trained),
        cmocka_unit_test(test_auxiliary_losses),
        cmocka_unit_test(test_sums_are_resumed),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
