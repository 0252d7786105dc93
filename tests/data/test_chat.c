/* The chat templates of the supplied models, through their folders, against transformers:
 * tests/golden/template_supplied.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "text/chat.h"

static const char folder[] = MNEME_SOURCE_DIR "/../shared/data/tokenizers";

static void check_case(const json_t *found)
{
    const json_t *input = json_object_get(found, "input");
    const char *wanted = json_string_value(json_object_get(found, "output"));
    const char *model = json_string_value(json_object_get(found, "model"));
    mn__string path = {0}, out = {0};
    mn__chat *chat;
    mn_error error = {0};
    mn__string_printf(&path, "%s/%s", folder, model);
    if (mn__chat_open(&chat, path.text, &error))
        fail_msg("%s", error.message);
    const mn__chat_request request = {
        .messages = json_object_get(input, "messages"),
        .tools = json_object_get(input, "tools"),
        .answer = json_is_true(json_object_get(input, "add_generation_prompt")),
    };
    mn_status status = mn__chat_render(chat, &request, &out, &error);
    if (wanted && status)
        fail_msg("%s: %s", model, error.message);
    assert_int_equal(status == MN_OK, wanted != NULL);
    if (wanted)
        assert_string_equal(out.text, wanted);
    mn__chat_free(chat);
    mn__string_free(&path);
    mn__string_free(&out);
}

static void renders_as_transformers_does(void **state)
{
    (void)state;
    json_t *cases;
    mn_error error;
    if (mn__json_read(MNEME_SOURCE_DIR "/tests/golden/template_supplied.json", &cases, &error))
        fail_msg("%s", error.message);
    assert_true(json_array_size(cases) >= 8);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(json_array_get(cases, i));
    json_decref(cases);
}

/* Those without a template are refused, and say what to do. */
static void refuses_models_without_one(void **state)
{
    (void)state;
    static const char *const models[] = {"llama2", "phi2", "t5"};
    for (int i = 0; i < 3; i++) {
        mn__string path = {0};
        mn__chat *chat;
        mn_error error;
        mn__string_printf(&path, "%s/%s", folder, models[i]);
        assert_int_equal(mn__chat_open(&chat, path.text, &error), MN_ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.message, "no chat template"));
        assert_non_null(strstr(error.hint, "--raw"));
        mn__string_free(&path);
    }
}

int main(void)
{
    if (!mn__file_is_folder(folder)) {
        printf("skipped: no %s\n", folder);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_as_transformers_does),
        cmocka_unit_test(refuses_models_without_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
