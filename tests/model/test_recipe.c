/* Recipes as they are written into a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/folder.h"
#include "train/recipe.h"

static void expect_text(const char *path, const char *words)
{
    mn__recipe recipe;
    mn__string text = {0};
    mn_error error;
    if (mn__recipe_read(&recipe, path, NULL, 0, &error) != MN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(mn__recipe_text(&recipe, &text, NULL), MN_OK);
    if (!strstr(text.text, words))
        fail_msg("no '%s' in\n%s", words, text.text);
    mn__string_free(&text);
    mn__recipe_free(&recipe);
}

/* The type that is meant where none is named, with its options. */
static void test_attention_is_written_out(void **state)
{
    static const char *const sections[] = {"", "attention:\n", "attention: {}\n"};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        const char *path = folder_path(*state, "plain.yaml");
        char text[128] = "data: {corpus: [x]}\n";
        strcat(text, sections[i]);
        folder_write(path, text, -1);
        expect_text(path, "type: full");
        expect_text(path, "alibi: false");
    }
    const char *path = folder_path(*state, "alibi.yaml");
    folder_write(path, "data: {corpus: [x]}\nattention: {alibi: true}\n", -1);
    expect_text(path, "type: full");
    expect_text(path, "alibi: true");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention_is_written_out)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
