/* YAML: the tree, its lines, what is refused, overrides, and writing it back. */
#include "unit/faults.h"

#include <stdio.h>
#include <string.h>

#include "base/yaml.h"

static mn__arena arena;

static mn__yaml_node *parse(const char *text)
{
    mn__yaml_node *root = NULL;
    mn_error error = {0};
    if (mn__yaml_parse(&arena, "r.yaml", text, (int64_t)strlen(text), &root, &error))
        fail_msg("%s", error.message);
    return root;
}

static void expect_error(const char *text, const char *message)
{
    mn__yaml_node *root;
    mn_error error = {0};
    assert_int_equal(mn__yaml_parse(&arena, "r.yaml", text, (int64_t)strlen(text), &root, &error),
                     MN_ERROR_OPTION);
    if (!strstr(error.message, message))
        fail_msg("'%s' lacks '%s'", error.message, message);
}

static const char *written(const mn__yaml_node *root)
{
    mn__string out = {0};
    assert_int_equal(mn__yaml_write(root, &out, NULL), MN_OK);
    char *copy = mn__arena_strdup(&arena, out.text);
    mn__string_free(&out);
    return copy;
}

static void reads_a_tree(void **state)
{
    (void)state;
    mn__yaml_node *root = parse("model:\n"
                                "  layers: 12\n"
                                "  name: \"a: b\" # a comment\n"
                                "data: [x, 'y']\n"
                                "nothing:\n");
    assert_int_equal(root->kind, MN__YAML_MAPPING);
    assert_int_equal(root->count, 3);
    mn__yaml_node *layers = mn__yaml_get(mn__yaml_get(root, "model"), "layers");
    assert_string_equal(layers->text, "12");
    assert_int_equal(layers->line, 2);
    assert_string_equal(layers->file, "r.yaml");
    mn__yaml_node *name = mn__yaml_get(mn__yaml_get(root, "model"), "name");
    assert_string_equal(name->text, "a: b");
    assert_true(name->quoted);
    mn__yaml_node *data = mn__yaml_get(root, "data");
    assert_int_equal(data->kind, MN__YAML_SEQUENCE);
    assert_int_equal(data->count, 2);
    assert_string_equal(data->items[1]->text, "y");
    assert_true(mn__yaml_is_null(mn__yaml_get(root, "nothing")));
    assert_false(mn__yaml_is_null(data));
    assert_null(mn__yaml_get(root, "other"));
    assert_null(mn__yaml_get(data, "x"));
    assert_null(mn__yaml_get(NULL, "x"));
    assert_int_equal(parse("")->kind, MN__YAML_MAPPING);
    assert_int_equal(parse("# only a comment\n")->count, 0);
}

static void refuses_what_is_no_tree_of_text(void **state)
{
    (void)state;
    expect_error("a: 1\nb: 2\na: 3\n", "r.yaml:3: the key 'a' was given before, in line 1");
    expect_error("a: &x 1\n", "r.yaml:1: anchors");
    expect_error("a: 1\nb: *x\n", "r.yaml:2: anchors");
    expect_error("a: !!int 1\n", "r.yaml:1: anchors");
    expect_error("a: 1\n--- \nb: 1\n", "r.yaml:2: a second document");
    expect_error("a: 1\n b: 2\n", "r.yaml:2: ");
    expect_error("a: [1, 2\n", "r.yaml:");
    expect_error("? [a]\n: b\n", "r.yaml:1: a key must be");
    expect_error("a: \"x\\0y\"\n", "r.yaml:1: a value must not contain a NUL");
    expect_error("a: \xFF\n", "r.yaml: byte 3: ");
    char key[200];
    memset(key, 'k', sizeof key);
    memcpy(key + sizeof key - 4, ": 1", 4);
    expect_error(key, "r.yaml:1: a key of more than 128 bytes");
    char deep[200];
    memset(deep, '[', sizeof deep);
    deep[sizeof deep - 1] = '\0';
    expect_error(deep, "nested more than 64");
}

static void overrides(void **state)
{
    (void)state;
    mn__yaml_node *root = parse("a:\n  b: 1\nlist: [x, {c: 2}]\nnone:\n");
    const char *assignments[] = {"a.b=5",           "a.new.deep=true", "list.0=y",
                                 "list.1.c=[3, 4]", "none.k=v",        "text=a=b",
                                 "top={}",          "empty=",          "quoted='#'"};
    for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++)
        assert_int_equal(mn__yaml_set(&arena, root, assignments[i], NULL), MN_OK);
    assert_string_equal(written(root), "a:\n"
                                       "  b: 5\n"
                                       "  new:\n"
                                       "    deep: true\n"
                                       "list:\n"
                                       "  - y\n"
                                       "  -\n"
                                       "    c: [3, 4]\n"
                                       "none:\n"
                                       "  k: v\n"
                                       "text: \"a=b\"\n"
                                       "top: {}\n"
                                       "empty: \"\"\n"
                                       "quoted: \"#\"\n");
    assert_string_equal(mn__yaml_get(mn__yaml_get(root, "a"), "b")->file, "--set");
    static const struct {
        const char *assignment, *message;
    } wrong[] = {
        {"a.b", "no '='"},
        {"a..b=1", "a key is empty"},
        {"=1", "a key is empty"},
        {"list.2=1", "'2' is no item of a list of 2"},
        {"list.x=1", "'x' is no item"},
        {"list.-1=1", "'-1' is no item"},
        {"a.b.c=1", "'c' cannot be set inside the value '5'"},
        {"a=[1", "--set: "},
        {"a=#x", "for a comment"},
        {"a=*x", "--set: anchors"},
        {"list.99999999999999999999=1", "is no item"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mn_error error = {0};
        assert_int_not_equal(mn__yaml_set(&arena, root, wrong[i].assignment, &error), MN_OK);
        if (!strstr(error.message, wrong[i].message))
            fail_msg("'%s' lacks '%s'", error.message, wrong[i].message);
    }
}

static void writes_what_reads_back(void **state)
{
    (void)state;
    const char *texts[] = {
        "a: b\n",
        "- - 1\n  - 2\n- {}\n- []\n- {a: {b: [c, [d]]}}\n",
        "a: ''\nb: ~\nc: null\nd: 'null'\n'~': x\n\"\": y\n",
        "a: \"\\u2028\\x85\\e\\\\\"\nb: |\n  two\n  lines\nc: -x\n",
        "a: -1\nb: --\nc: '- x'\nd: 1e-5\ne: +3\nf: ...x\ng: '---'\n",
        "just text",
        "",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *once = written(parse(texts[i]));
        assert_string_equal(written(parse(once)), once);
    }
    mn__yaml_node *tree = parse("a: \"\\u2028\\x85\\e\\\\\"\nb: 'null'\nc: 'é'\n");
    tree = parse(written(tree));
    assert_string_equal(tree->items[0]->text, "\xE2\x80\xA8\xC2\x85\x1B\\");
    assert_false(mn__yaml_is_null(tree->items[1]));
    assert_string_equal(tree->items[2]->text, "\xC3\xA9");
}

static mn_status use_everything(void)
{
    mn__arena small;
    mn__arena_init(&small, 1);
    mn__yaml_node *root;
    mn__string out = {0};
    const char *text = "a: {b: [1, 2, 3], c: 4}\nd: text\n";
    mn_error error;
    mn_status status = mn__yaml_parse(&small, "r", text, (int64_t)strlen(text), &root, &error);
    if (!status)
        status = mn__yaml_set(&small, root, "a.x.y=[1, 2]", &error);
    if (!status)
        status = mn__yaml_write(root, &out, &error);
    mn__string_free(&out);
    mn__arena_free(&small);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    CHECK_EVERY_ALLOCATION(use_everything());
}

static void names_a_missing_file(void **state)
{
    (void)state;
    mn__yaml_node *root;
    mn_error error;
    assert_int_equal(mn__yaml_read(&arena, "no-such.yaml", &root, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "no-such.yaml"));
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
        cmocka_unit_test(reads_a_tree),
        cmocka_unit_test(refuses_what_is_no_tree_of_text),
        cmocka_unit_test(overrides),
        cmocka_unit_test(writes_what_reads_back),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(names_a_missing_file),
    };
    return cmocka_run_group_tests(tests, start, end);
}
