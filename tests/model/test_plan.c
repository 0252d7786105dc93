/* The plan: what is counted, and when counting ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "support/folder.h"
#include "support/training.h"

#define OVERRIDES(...) ((const char *const[]){__VA_ARGS__, NULL})

static int setup(void **state)
{
    int status = folder_make(state);
    training_make(*state);
    return status;
}

static void read_recipe(mn__recipe *recipe, const char *path, const char *const *overrides)
{
    mn_error error;
    int64_t count = 0;
    while (overrides && overrides[count])
        count++;
    if (mn__recipe_read(recipe, path, overrides, count, &error) != MN_OK)
        fail_msg("%s", error.message);
}

static char warning[512];

static void keep_warning(void *user, mn__log_level level, const char *message)
{
    (void)user;
    if (level == MN__LOG_WARNING)
        strncpy(warning, message, sizeof warning - 1);
}

static mn__plan plan(const char *folder, const char *const *overrides)
{
    mn__recipe recipe;
    mn__plan made;
    mn_error error;
    read_recipe(&recipe, folder_path(folder, "recipe.yaml"), overrides);
    if (mn__plan_make(&made, &recipe, 256, NULL, &error) != MN_OK)
        fail_msg("%s", error.message);
    mn__recipe_free(&recipe);
    return made;
}

/* A clamped distance needs a short table of sinusoids; else it has a row of `width`
 * for each of memory + segment distances. */
static void test_tables_are_counted(void **state)
{
    mn__plan brief = plan(*state, OVERRIDES("attention.memory=3000", "attention.clamp=8"));
    mn__plan whole = plan(*state, OVERRIDES("attention.memory=3000"));
    int64_t rows = 3000 + 16 - 9;
    assert_true(whole.weights - brief.weights >= rows * 16 * 4);
    assert_true(whole.total - brief.total >= rows * 16 * 4);
}

/* A memory that is filled by one token a step. */
static void test_a_memory_that_is_not_filled(void **state)
{
    mn__log_set(keep_warning, NULL);
    plan(*state, OVERRIDES("attention={type: xl, memory: 4000}", "data.batch=1", "data.segment=1",
                           "model.depth=1"));
    assert_string_equal(warning, "");
    plan(*state, OVERRIDES("attention={type: xl, memory: 5000}", "data.batch=1", "data.segment=1",
                           "model.depth=1"));
    assert_non_null(strstr(warning, "step 4096"));
    mn__log_set(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_are_counted),
        cmocka_unit_test(test_a_memory_that_is_not_filled),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
