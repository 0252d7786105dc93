/* Folders of safetensors: one file, several by an index, and every way in which an index
 * and its files can disagree. */
#include "unit/faults.h"

#include <stdio.h>
#include <string.h>

#include "base/safetensors_folder.h"
#include "support/folder.h"

static const float values[4] = {1, 2, 3, 4};
static const char *folder;

static int setup(void **state)
{
    int status = folder_make(state);
    folder = *state;
    return status;
}

/* A file of tensors [2], named. */
static void write_file(const char *file, const char *first, const char *second)
{
    const mn__safetensor tensors[] = {{first, "F32", 1, {2}, values, 8},
                                      {second, "F32", 1, {2}, values + 2, 8}};
    folder_write(folder_path(folder, "%s", file), "", 0);
    assert_int_equal(
        mn__safetensors_write(folder_path(folder, "%s", file), tensors, second ? 2 : 1, NULL, NULL),
        MN_OK);
}

static void write_index(const char *map)
{
    char text[512];
    snprintf(text, sizeof text, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": %s}", map);
    folder_write(folder_path(folder, "model.safetensors.index.json"), text, -1);
}

static mn_status open_and_close(mn_error *error)
{
    mn__safetensors_folder *opened;
    mn_status status = mn__safetensors_folder_open(&opened, folder, error);
    mn__safetensors_folder_close(opened);
    return status;
}

static void check_refused(mn_status expected, const char *part)
{
    mn_error error = {0};
    mn_status status = open_and_close(&error);
    if (status != expected || !strstr(error.message, part) || !*error.hint)
        fail_msg("%s: '%s', not '%s'", mn_status_name(status), error.message, part);
}

static void check_tensor(const mn__safetensors_folder *opened, const char *name, float first)
{
    int64_t index = mn__safetensors_folder_find(opened, name);
    assert_true(index >= 0);
    const mn__safetensor *tensor = mn__safetensors_folder_at(opened, index);
    assert_string_equal(tensor->name, name);
    assert_true(*(const float *)tensor->data == first);
}

static const char right[] = "{\"d\": \"two\", \"a\": \"one\", \"b\": \"two\", \"c\": \"one\"}";

static void several(void **state)
{
    (void)state;
    mn__safetensors_folder *opened;
    check_refused(MN_ERROR_IO, "neither model.safetensors nor model.safetensors.index.json");
    write_file("one", "c", "a");
    write_file("two", "b", "d");
    write_index(right);
    assert_int_equal(mn__safetensors_folder_open(&opened, folder, NULL), MN_OK);
    assert_int_equal(mn__safetensors_folder_count(opened), 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(mn__safetensors_folder_at(opened, i)->name[0], 'a' + i);
    check_tensor(opened, "a", 3);
    check_tensor(opened, "b", 1);
    check_tensor(opened, "c", 1);
    check_tensor(opened, "d", 3);
    assert_int_equal(mn__safetensors_folder_find(opened, "e"), -1);
    mn__safetensors_folder_close(opened);
    write_index("{}");
    assert_int_equal(open_and_close(NULL), MN_OK); /* of no tensors, for which others ask */
    mn__safetensors_folder_close(NULL);
}

static void wrong_indices(void **state)
{
    (void)state;
    static const struct {
        const char *map;
        mn_status status;
        const char *part;
    } wrong[] = {
        {"[]", MN_ERROR_FORMAT, "'weight_map' should be an object"},
        {"null", MN_ERROR_FORMAT, "'weight_map' is missing"},
        {"{\"a\": 1}", MN_ERROR_FORMAT, "'a' is in no file"},
        {"{\"a\": \"\"}", MN_ERROR_FORMAT, "'a' is in no file"},
        {"{\"a\": \"../one\"}", MN_ERROR_FORMAT, "'a' is in no file"},
        {"{\"a\": \"/one\"}", MN_ERROR_FORMAT, "'a' is in no file"},
        {"{\"a\": \"..\"}", MN_ERROR_FORMAT, "'a' is in no file"},
        {"{\"a\": \"three\"}", MN_ERROR_IO, "three"},
        {"{\"a\": \"one\"}", MN_ERROR_FORMAT, "'c' is in one, and the index says nothing of it"},
        {"{\"a\": \"one\", \"c\": \"two\", \"b\": \"two\", \"d\": \"two\"}", MN_ERROR_FORMAT,
         "'c' is in one, and the index says two"},
        {"{\"a\": \"one\", \"c\": \"one\", \"e\": \"one\"}", MN_ERROR_FORMAT, "'e' is not in one"},
        {"{\"a\": \"one\", \"a\": \"one\"}", MN_ERROR_FORMAT, "duplicate"},
        {"{\"a\": \"model.safetensors.index.json\"}", MN_ERROR_FORMAT, "index.json"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_index(wrong[i].map);
        mn_error error = {0};
        mn_status status = open_and_close(&error);
        if (status != wrong[i].status || !strstr(error.message, wrong[i].part))
            fail_msg("%s: %s: '%s'", wrong[i].map, mn_status_name(status), error.message);
    }
}

/* The same tensor in two files is in one of them by the index. */
static void doubles(void **state)
{
    (void)state;
    write_file("two", "a", NULL);
    write_index("{\"a\": \"two\", \"c\": \"one\"}");
    check_refused(MN_ERROR_FORMAT, "'a' is in one, and the index says two");
    write_file("two", "b", "d");
    write_index(right);
}

static void allocations(void **state)
{
    (void)state;
    CHECK_EVERY_ALLOCATION(open_and_close(NULL));
}

/* It comes first, as in transformers. */
static void one(void **state)
{
    (void)state;
    mn__safetensors_folder *opened;
    write_file("model.safetensors", "x", NULL);
    assert_int_equal(mn__safetensors_folder_open(&opened, folder, NULL), MN_OK);
    assert_int_equal(mn__safetensors_folder_count(opened), 1);
    check_tensor(opened, "x", 1);
    mn__safetensors_folder_close(opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several),     cmocka_unit_test(wrong_indices), cmocka_unit_test(doubles),
        cmocka_unit_test(allocations), cmocka_unit_test(one),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
