/* Chat templates against transformers: template.json (tests/golden/README.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/template.h"

enum { NOW = 1720098309 }; /* 2024-07-04 13:05:09 UTC */

static mn_status render(const json_t *template, const json_t *input, mn__string *out,
                        mn_error *error)
{
    mn__template *tmpl;
    mn_status status = mn__template_parse(&tmpl, "template", json_string_value(template),
                                          (int64_t)json_string_length(template), error);
    if (!status)
        status = mn__template_render(tmpl, input, NOW, out, error);
    mn__template_free(tmpl);
    return status;
}

/* Whether a case comes out as the reference has it; prints how it does not. */
static bool check(const json_t *found, const json_t *input)
{
    mn_error error = {0};
    mn__string out = {0};
    const char *name = json_string_value(json_object_get(found, "name"));
    const char *wanted = json_string_value(json_object_get(found, "output"));
    const char *refused = json_string_value(json_object_get(found, "error"));
    mn_status status = render(json_object_get(found, "template"), input, &out, &error);
    bool raised = status == MN_ERROR_MISMATCH, same;
    if (refused)
        same = status != MN_OK && raised == (strcmp(refused, "raise") == 0) && out.bytes == 0 &&
               error.hint[0] != '\0';
    else
        same = status == MN_OK && strcmp(out.text ? out.text : "", wanted) == 0;
    if (!same)
        print_error("%s: wanted %s '%s', got '%s' %s\n", name, refused ? "error" : "",
                    refused ? refused : wanted, out.text ? out.text : "", error.message);
    mn__string_free(&out);
    return same;
}

static void test_equal(void **state)
{
    (void)state;
    json_t *cases;
    mn_error error;
    if (mn__json_read(MNEME_SOURCE_DIR "/tests/golden/template.json", &cases, &error))
        fail_msg("%s", error.message);
    const json_t *values = json_object_get(json_array_get(cases, 0), "input");
    int64_t wrong = 0, count = (int64_t)json_array_size(cases);
    for (int64_t i = 1; i < count; i++) {
        const json_t *found = json_array_get(cases, (size_t)i);
        const json_t *input = json_object_get(found, "input");
        wrong += !check(found, input ? input : values);
    }
    json_decref(cases);
    assert_true(count > 400);
    assert_int_equal(wrong, 0);
    assert_int_equal(mn__memory_now().blocks, 0);
}

int main(void)
{
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
