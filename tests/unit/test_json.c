/* JSON: parsing and the typed getters' errors. */
#include "unit/faults.h"

#include <string.h>

#include "base/file.h"
#include "base/json.h"

static const char text[] =
    "{\"n\": 3, \"x\": 1.5, \"yes\": true, \"name\": \"abc\", \"none\": null,"
    " \"sub\": {\"k\": 1}, \"list\": [1, 2]}";

static void gets_typed_values(void **state)
{
    (void)state;
    json_t *root;
    assert_int_equal(mn__json_parse("c.json", text, sizeof text - 1, &root, NULL), MN_OK);
    mn__json object = {"c.json", root}, sub, list;
    int64_t n = 0;
    double x = 0, whole = 0;
    bool yes = false;
    const char *name;
    assert_int_equal(mn__json_int(object, "n", MN__JSON_REQUIRED, &n, NULL), MN_OK);
    assert_int_equal(mn__json_float(object, "x", MN__JSON_REQUIRED, &x, NULL), MN_OK);
    assert_int_equal(mn__json_float(object, "n", MN__JSON_REQUIRED, &whole, NULL), MN_OK);
    assert_int_equal(mn__json_bool(object, "yes", MN__JSON_REQUIRED, &yes, NULL), MN_OK);
    assert_int_equal(mn__json_string(object, "name", MN__JSON_REQUIRED, &name, NULL), MN_OK);
    assert_int_equal(mn__json_object(object, "sub", MN__JSON_REQUIRED, &sub, NULL), MN_OK);
    assert_int_equal(mn__json_array(object, "list", MN__JSON_REQUIRED, &list, NULL), MN_OK);
    assert_int_equal(n, 3);
    assert_true(x == 1.5 && whole == 3 && yes);
    assert_string_equal(name, "abc");
    assert_int_equal(json_array_size(list.value), 2);
    assert_int_equal(mn__json_int(sub, "k", MN__JSON_REQUIRED, &n, NULL), MN_OK);
    assert_int_equal(n, 1);
    assert_int_equal(mn__json_int(object, "other", MN__JSON_OPTIONAL, &n, NULL), MN_OK);
    assert_int_equal(mn__json_int(object, "none", MN__JSON_OPTIONAL, &n, NULL), MN_OK);
    assert_int_equal(n, 1);
    json_decref(root);
}

static void errors_name_file_and_key(void **state)
{
    (void)state;
    json_t *root;
    mn_error error;
    int64_t n;
    bool yes;
    mn__json out;
    const char *name;
    assert_int_equal(mn__json_parse("c.json", text, sizeof text - 1, &root, NULL), MN_OK);
    mn__json object = {"c.json", root};
    assert_int_equal(mn__json_int(object, "other", MN__JSON_REQUIRED, &n, &error), MN_ERROR_FORMAT);
    assert_string_equal(error.message, "c.json: 'other' is missing (an integer)");
    assert_int_equal(mn__json_int(object, "none", MN__JSON_REQUIRED, &n, &error), MN_ERROR_FORMAT);
    assert_int_equal(mn__json_int(object, "x", MN__JSON_OPTIONAL, &n, &error), MN_ERROR_FORMAT);
    assert_string_equal(error.message, "c.json: 'x' should be an integer but is a real number");
    assert_int_equal(mn__json_bool(object, "n", MN__JSON_REQUIRED, &yes, NULL), MN_ERROR_FORMAT);
    assert_int_equal(mn__json_string(object, "n", MN__JSON_REQUIRED, &name, NULL), MN_ERROR_FORMAT);
    assert_int_equal(mn__json_object(object, "list", MN__JSON_REQUIRED, &out, NULL),
                     MN_ERROR_FORMAT);
    assert_int_equal(mn__json_array(object, "sub", MN__JSON_REQUIRED, &out, NULL), MN_ERROR_FORMAT);
    json_decref(root);
}

static void refuses_bad_text(void **state)
{
    (void)state;
    const char *wrong[] = {"",     "{",        "{\"a\":1,\"a\":2}",   "[1,]",
                           "{} x", "\"\xFF\"", "{\"a\":\"\\u0000\"}", "nul",
                           "1e999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *root;
        mn_error error;
        assert_int_equal(
            mn__json_parse("c.json", wrong[i], (int64_t)strlen(wrong[i]), &root, &error),
            MN_ERROR_FORMAT);
        assert_null(root);
        assert_int_equal(strncmp(error.message, "c.json:", 7), 0);
    }
}

/* As Hugging Face writes "no limit". What fits stays whole, and strings are left alone. */
static void reads_wide_numbers(void **state)
{
    (void)state;
    static const char wide[] =
        "{\"a\": 1000000000000000019884624838656, \"b\": 9223372036854775807,"
        " \"c\": -9223372036854775808, \"d\": [-9223372036854775809,1],"
        " \"e\": \"\\\"99999999999999999999\", \"f\": 0.99999999999999999999,"
        " \"g\": 1e+00000000000000000000002}";
    json_t *root;
    mn_error error;
    if (mn__json_parse("c.json", wide, sizeof wide - 1, &root, &error))
        fail_msg("%s", error.message);
    mn__json object = {"c.json", root};
    int64_t n = 0;
    double x = 0;
    assert_int_equal(mn__json_float(object, "a", MN__JSON_REQUIRED, &x, NULL), MN_OK);
    assert_true(x == 1e30);
    assert_int_equal(mn__json_int(object, "a", MN__JSON_REQUIRED, &n, NULL), MN_ERROR_FORMAT);
    assert_int_equal(mn__json_int(object, "b", MN__JSON_REQUIRED, &n, NULL), MN_OK);
    assert_true(n == INT64_MAX);
    assert_int_equal(mn__json_int(object, "c", MN__JSON_REQUIRED, &n, NULL), MN_OK);
    assert_true(n == INT64_MIN);
    const json_t *list = json_object_get(root, "d");
    assert_true(json_real_value(json_array_get(list, 0)) == -0x1p63);
    assert_int_equal(json_integer_value(json_array_get(list, 1)), 1);
    assert_string_equal(json_string_value(json_object_get(root, "e")), "\"99999999999999999999");
    assert_true(json_real_value(json_object_get(root, "f")) == 1);
    assert_true(json_real_value(json_object_get(root, "g")) == 100);
    json_decref(root);
    assert_int_equal(mn__json_parse("c.json", "99999999999999999999", 20, &root, NULL), MN_OK);
    assert_true(json_real_value(root) == 1e20);
    json_decref(root);
    mn__memory_fail_nth(1);
    assert_int_equal(mn__json_parse("c.json", wide, sizeof wide - 1, &root, NULL), MN_ERROR_MEMORY);
    mn__memory_fail_nth(0);
}

static void reads_files(void **state)
{
    (void)state;
    const char *path = "test-json.json";
    json_t *root;
    assert_int_equal(mn__file_write(path, "{\"a\": 1}", 8, NULL), MN_OK);
    assert_int_equal(mn__json_read(path, &root, NULL), MN_OK);
    assert_int_equal(json_integer_value(json_object_get(root, "a")), 1);
    json_decref(root);
    assert_int_equal(mn__file_remove(path, NULL), MN_OK);
    assert_int_equal(mn__json_read(path, &root, NULL), MN_ERROR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gets_typed_values), cmocka_unit_test(errors_name_file_and_key),
        cmocka_unit_test(refuses_bad_text),  cmocka_unit_test(reads_wide_numbers),
        cmocka_unit_test(reads_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
