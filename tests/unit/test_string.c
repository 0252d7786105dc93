/* Strings: growing, escaping, UTF-8, distances; log and progress beside them. */
#include "unit/faults.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/string.h"

static void grows(void **state)
{
    (void)state;
    mn__string string = {0};
    for (int i = 0; i < 1000; i++)
        mn__string_printf(&string, "%d,", i);
    mn__string_add(&string, "\0x", 2);
    mn__string_puts(&string, "end");
    assert_false(string.failed);
    assert_int_equal(string.bytes, 10 * 2 + 90 * 3 + 900 * 4 + 2 + 3);
    assert_memory_equal(string.text + string.bytes - 5, "\0xend\0", 6);
    mn__string_clear(&string);
    assert_string_equal(string.text, "");
    mn__string_puts(&string, "again");
    assert_string_equal(string.text, "again");
    mn__string_add(&string, "", INT64_MAX);
    assert_true(string.failed);
    mn__string_free(&string);
    assert_null(string.text);
}

static mn_status build(void)
{
    mn__string string = {0};
    for (int i = 0; i < 50; i++)
        mn__string_printf(&string, "number %d ", i);
    mn__string_json(&string, "a\nb", 3);
    mn_status status = string.failed ? MN_ERROR_MEMORY : MN_OK;
    mn__string_free(&string);
    return status;
}

static void remembers_failure(void **state)
{
    (void)state;
    CHECK_EVERY_ALLOCATION(build());
}

static void escapes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"", "\"\""},
        {"a\"b\\c\n\t\r", "\"a\\\"b\\\\c\\n\\t\\r\""},
        {"<b>&'", "\"<b>&'\""},
        {"\x01\x7f", "\"\\u0001\\u007f\""},
        {"\xC3\xA9 \xE2\x82\xAC", "\"\xC3\xA9 \xE2\x82\xAC\""},
        {"\xE2\x80\xA8\xC2\x85", "\"\\u2028\\u0085\""},
        {"a\xFFz\xC3", "\"a\xEF\xBF\xBDz\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mn__string json = {0};
        mn__string_json(&json, cases[i].text, (int64_t)strlen(cases[i].text));
        assert_string_equal(json.text, cases[i].json);
        mn__string_free(&json);
    }
}

static void knows_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int length;
    } cases[] = {
        {"a", 1},
        {"\xC2\x80", 2},
        {"\xE0\xA0\x80", 3},
        {"\xED\x9F\xBF", 3},
        {"\xF0\x90\x80\x80", 4},
        {"\xF4\x8F\xBF\xBF", 4},
        {"\x80", 0},
        {"\xC1\xBF", 0},
        {"\xE0\x9F\xBF", 0},
        {"\xED\xA0\x80", 0},
        {"\xF0\x8F\xBF\xBF", 0},
        {"\xF4\x90\x80\x80", 0},
        {"\xF5\x80\x80\x80", 0},
        {"\xE2\x82", 0},
        {"\xC3", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(mn__utf8_length(cases[i].text, (int64_t)strlen(cases[i].text)),
                         cases[i].length);
}

static void measures_distance(void **state)
{
    (void)state;
    assert_int_equal(mn__string_distance("", ""), 0);
    assert_int_equal(mn__string_distance("layers", "layers"), 0);
    assert_int_equal(mn__string_distance("layers", "lyaers"), 1);
    assert_int_equal(mn__string_distance("kitten", "sitting"), 3);
    assert_int_equal(mn__string_distance("", "abc"), 3);
    assert_int_equal(mn__string_distance("abc", ""), 3);
    char word[200];
    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    assert_int_equal(mn__string_distance(word, "a"), -1);
}

static void keep_message(void *user, mn__log_level level, const char *message)
{
    snprintf(user, 64, "%d:%s", (int)level, message);
}

static void logs_to_the_sink(void **state)
{
    (void)state;
    char seen[64] = "";
    mn__log_info("dropped");
    mn__log_set(keep_message, seen);
    mn__log_info("step %d", 3);
    assert_string_equal(seen, "0:step 3");
    mn__log_warning("disk %s", "full");
    assert_string_equal(seen, "1:disk full");
    mn__memory_fail_nth(1);
    mn__log_info("step %d", 3);
    assert_string_equal(seen, "0:step %d");
    mn__log_set(NULL, NULL);
    mn__log_info("dropped");
    assert_string_equal(seen, "0:step %d");
}

static bool stop_at_two(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    assert_string_equal(what, "reading");
    assert_int_equal(total, 3);
    assert_null(note);
    *(int64_t *)user = done;
    return done < 2;
}

static void reports_progress(void **state)
{
    (void)state;
    int64_t seen = 0;
    mn__progress progress = {stop_at_two, &seen};
    assert_true(mn__progress_report(NULL, "reading", 1, 3, NULL));
    assert_true(mn__progress_report(&progress, "reading", 1, 3, NULL));
    assert_false(mn__progress_report(&progress, "reading", 2, 3, NULL));
    assert_int_equal(seen, 2);
    double now = mn__clock();
    assert_true(mn__clock() >= now);
}

/* The values that xxhsum -H2 prints. */
static void hashes(void **state)
{
    (void)state;
    assert_string_equal(mn__hash_of("", 0).hex, "99aa06d3014798d86001c324468d497f");
    char data[5000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 7);
    mn__hash *hash = mn__hash_new();
    for (int64_t i = 0; i < 5000; i += 50)
        mn__hash_add(hash, data + i, 50);
    assert_string_equal(mn__hash_end(hash).hex, mn__hash_of(data, 5000).hex);
    assert_string_not_equal(mn__hash_of(data, 4999).hex, mn__hash_of(data, 5000).hex);
    mn__memory_fail_nth(1);
    assert_null(mn__hash_new());
}

static void prefixes_errors(void **state)
{
    (void)state;
    mn_error error;
    assert_int_equal(mn__fail(&error, MN_ERROR_IO, "try again", "%s: %d", "file", 3), MN_ERROR_IO);
    mn__error_prefix(&error, "run %d", 7);
    assert_string_equal(error.message, "run 7: file: 3");
    assert_string_equal(error.hint, "try again");
    mn__error_clear(&error);
    assert_int_equal(error.code, MN_OK);
    assert_string_equal(mn_status_name(MN_ERROR_FORMAT), "MN_ERROR_FORMAT");
    assert_non_null(strstr(mn_build(), "-O"));
    assert_string_equal(mn_version(), MN_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows),
        cmocka_unit_test(remembers_failure),
        cmocka_unit_test(escapes),
        cmocka_unit_test(knows_utf8),
        cmocka_unit_test(measures_distance),
        cmocka_unit_test(logs_to_the_sink),
        cmocka_unit_test(reports_progress),
        cmocka_unit_test(hashes),
        cmocka_unit_test(prefixes_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
