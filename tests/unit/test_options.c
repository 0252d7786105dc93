/* Options: defaults, numbers with suffixes, ranges, and errors that help. */
#include "unit/faults.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/options.h"

typedef struct component {
    int64_t layers, vocabulary, floor;
    double rate;
    bool tied;
    const char *name;
    int schedule;
    mn__string_list files;
} component;

static const mn__option table[] = {
    MN__INT(component, layers, "12", 1, 128, "blocks"),
    MN__INT(component, vocabulary, "64Ki", 0, 0, "ids"),
    MN__INT(component, floor, "-3", -5, INFINITY, "least"),
    MN__FLOAT(component, rate, "1e-3", 0, 1, "learning rate"),
    MN__BOOL(component, tied, "true", "one table for input and output"),
    MN__STRING(component, name, "", "what it is called"),
    MN__ENUM(component, schedule, "cosine", "constant|cosine|rsqrt", "of the rate"),
    MN__LIST(component, files, "[a, b]", "inputs"),
    MN__OPTIONS_END,
};
static const char *const also[] = {"attention", NULL};

static mn__arena arena;

static mn_status read_text(const char *text, component *out, mn_error *error)
{
    mn__yaml_node *root;
    mn_status status = mn__yaml_parse(&arena, "r.yaml", text, (int64_t)strlen(text), &root, error);
    return status ? status : mn__options_read(table, root, also, out, &arena, error);
}

static component good(const char *text)
{
    component out;
    mn_error error;
    if (read_text(text, &out, &error))
        fail_msg("%s", error.message);
    return out;
}

static void expect_error(const char *text, const char *message, const char *hint)
{
    component out;
    mn_error error = {0};
    assert_int_equal(read_text(text, &out, &error), MN_ERROR_OPTION);
    if (!strstr(error.message, message))
        fail_msg("'%s' lacks '%s'", error.message, message);
    if (hint && !strstr(error.hint, hint))
        fail_msg("hint '%s' lacks '%s'", error.hint, hint);
}

static void defaults(void **state)
{
    (void)state;
    component out;
    assert_int_equal(mn__options_default(table, &out, &arena, NULL), MN_OK);
    assert_int_equal(out.layers, 12);
    assert_int_equal(out.vocabulary, 65536);
    assert_int_equal(out.floor, -3);
    assert_true(out.rate == 1e-3);
    assert_true(out.tied);
    assert_string_equal(out.name, "");
    assert_int_equal(out.schedule, 1);
    assert_int_equal(out.files.count, 2);
    assert_string_equal(out.files.items[1], "b");
    assert_int_equal(mn__options_read(table, NULL, NULL, &out, &arena, NULL), MN_OK);
    assert_int_equal(out.layers, 12);
    assert_int_equal(good("").layers, 12);
}

static void values(void **state)
{
    (void)state;
    component out = good("layers: 3\nrate: 0.25\ntied: false\nname: x y\nschedule: rsqrt\n"
                         "files: one\nattention: {type: xl}\n");
    assert_int_equal(out.layers, 3);
    assert_true(out.rate == 0.25);
    assert_false(out.tied);
    assert_string_equal(out.name, "x y");
    assert_int_equal(out.schedule, 2);
    assert_int_equal(out.files.count, 1);
    assert_string_equal(out.files.items[0], "one");
    assert_int_equal(good("files: []").files.count, 0);
    assert_int_equal(good("files: [p, q, r]").files.count, 3);
    assert_string_equal(good("name: ''").name, "");
    assert_string_equal(good("name: 'null'").name, "null");
}

static void whole_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"2k", 2000},
        {"2K", 2000},
        {"1M", 1000000},
        {"64Ki", 65536},
        {"1Mi", 1048576},
        {"3Gi", INT64_C(3) << 30},
        {"1T", INT64_C(1000000000000)},
        {"1e6", 1000000},
        {"1.5k", 1500},
        {"2.5e3", 2500},
        {"-7", -7},
        {"+7", 7},
        {"0", 0},
        {"9223372036854775807", INT64_MAX},
        {"'12'", 12},
        {".5k", 500},
        {"007", 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64] = "vocabulary: ";
        strcat(text, cases[i].text);
        assert_int_equal(good(text).vocabulary, cases[i].value);
    }
    const char *wrong[] = {
        "x",    "1.5",   "1e-3", "0x10", "1kk", "k",   "",          "inf",
        "1e30", "1 2",   "--1",  "nan",  "2m",  "1_0", "99999999T", "9223372036854775808",
        "true", "1.5ki", "1e"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[64] = "vocabulary: ";
        strcat(text, wrong[i]);
        expect_error(text, "r.yaml:1: vocabulary: expects a whole number", NULL);
    }
    expect_error("rate: inf", "rate: expects a number, found 'inf'", NULL);
    expect_error("rate: 1e999", "rate: expects a number", NULL);
    expect_error("rate: 0x1", "rate: expects a number", NULL);
}

static void errors_help(void **state)
{
    (void)state;
    expect_error("layers: 1\nlyaers: 3\n", "r.yaml:2: unknown key 'lyaers'", "'layers'?");
    expect_error("atention: 3\n", "unknown key 'atention'", "'attention'?");
    expect_error("qqqqqq: 3\n", "unknown key 'qqqqqq'", "valid keys: layers, vocabulary");
    expect_error("layers: 0\n", "r.yaml:1: layers: 0 is out of range (1 to 128)", "blocks");
    expect_error("floor: -6\n", "floor: -6 is out of range (at least -5)", NULL);
    expect_error("rate: 1.5\n", "rate: 1.5 is out of range (0 to 1)", NULL);
    expect_error("layers: [1]\n", "layers: expects a whole number", NULL);
    expect_error("layers: [1]\n", "found a list of 1", NULL);
    expect_error("layers: {a: 1}\n", "found a mapping of 1", NULL);
    expect_error("layers:\n", "found nothing", NULL);
    expect_error("name:\n", "name: expects text, found nothing", NULL);
    expect_error("tied: yes\n", "tied: expects true or false, found 'yes'", NULL);
    expect_error("schedule: cos\n", "expects one of constant|cosine|rsqrt, found 'cos'", NULL);
    expect_error("schedule: ''\n", "found ''", NULL);
    expect_error("files: [a, [b]]\n", "files: expects a list of texts", NULL);
    expect_error("files: {a: b}\n", "found a mapping of 1", NULL);
    expect_error("[a]\n", "r.yaml:1: expects keys with values, found a list", NULL);
    assert_string_equal(mn__options_nearest(table, "vocab"), "vocabulary");
    assert_null(mn__options_nearest(table, "zzzz"));
}

static void sets_from_text(void **state)
{
    (void)state;
    component out = good("");
    mn_error error;
    assert_int_equal(mn__options_set(table, "layers", "4", &out, &arena, NULL), MN_OK);
    assert_int_equal(out.layers, 4);
    assert_int_equal(mn__options_set(table, "name", "*: {", &out, &arena, NULL), MN_OK);
    assert_string_equal(out.name, "*: {");
    assert_int_equal(mn__options_set(table, "files", "*.txt", &out, &arena, NULL), MN_OK);
    assert_int_equal(out.files.count, 1);
    assert_string_equal(out.files.items[0], "*.txt");
    assert_int_equal(mn__options_set(table, "files", "[x, y]", &out, &arena, NULL), MN_OK);
    assert_int_equal(out.files.count, 2);
    assert_int_equal(mn__options_set(table, "files", "", &out, &arena, NULL), MN_OK);
    assert_int_equal(out.files.count, 0);
    assert_int_equal(mn__options_set(table, "layers", "x", &out, &arena, &error), MN_ERROR_OPTION);
    assert_non_null(strstr(error.message, "layers: expects a whole number"));
    assert_int_equal(mn__options_set(table, "layer", "1", &out, &arena, &error), MN_ERROR_OPTION);
    assert_non_null(strstr(error.hint, "'layers'?"));
}

static void overrides_name_their_source(void **state)
{
    (void)state;
    component out;
    mn_error error;
    mn__yaml_node *root;
    assert_int_equal(mn__yaml_parse(&arena, "r.yaml", "layers: 2\n", 10, &root, NULL), MN_OK);
    assert_int_equal(mn__yaml_set(&arena, root, "layers=many", NULL), MN_OK);
    assert_int_equal(mn__options_read(table, root, also, &out, &arena, &error), MN_ERROR_OPTION);
    assert_int_equal(strncmp(error.message, "--set: layers: expects", 22), 0);
}

static void writes_what_reads_back(void **state)
{
    (void)state;
    component out = good("rate: 0.1\nname: \"a\\\"b: #\"\nfiles: [\"x, y\", z]\nlayers: 7\n");
    mn__string text = {0}, again = {0}, help = {0}, docs = {0};
    mn__options_write(table, &out, 0, &text);
    component back = good(text.text);
    mn__options_write(table, &back, 0, &again);
    assert_string_equal(text.text, again.text);
    assert_true(back.rate == 0.1);
    assert_string_equal(back.name, "a\"b: #");
    assert_non_null(strstr(text.text, "rate: 0.1\n"));
    assert_non_null(strstr(text.text, "schedule: cosine\n"));
    mn__options_help(table, &help);
    assert_non_null(strstr(help.text, "(whole number, 1 to 128; default 12)"));
    assert_non_null(strstr(help.text, "at least -5"));
    mn__options_markdown(table, &docs);
    assert_non_null(strstr(docs.text, "constant\\|cosine\\|rsqrt"));
    mn__string_free(&text);
    mn__string_free(&again);
    mn__string_free(&help);
    mn__string_free(&docs);
}

static mn_status use_everything(void)
{
    mn__arena small;
    mn__arena_init(&small, 1);
    mn__yaml_node *root;
    component out;
    mn_error error;
    const char *text = "layers: 3\nname: x\nfiles: [a, b, c]\n";
    mn_status status = mn__yaml_parse(&small, "r", text, (int64_t)strlen(text), &root, &error);
    if (!status)
        status = mn__options_read(table, root, also, &out, &small, &error);
    if (!status)
        status = mn__options_set(table, "files", "[p, q]", &out, &small, &error);
    mn__arena_free(&small);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    CHECK_EVERY_ALLOCATION(use_everything());
}

static int start(void **state)
{
    (void)state;
    mn__arena_init(&arena, 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    mn__arena_free(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(values),
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(errors_help),
        cmocka_unit_test(sets_from_text),
        cmocka_unit_test(overrides_name_their_source),
        cmocka_unit_test(writes_what_reads_back),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, start, end);
}
