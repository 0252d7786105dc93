/* tokenizer.json files of every layout against what the `tokenizers` package made of odd texts
 * (make_tokenizers.py): ids, decoded text, the ids around a text, and the same from a text in
 * pieces. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "text/tokenizer_types.h"

static const char folder[] = MNEME_SOURCE_DIR "/tests/golden/tokenizers";

static mn__tokenizer *make(const json_t *file, const char *name)
{
    mn__tokenizer *tokenizer;
    mn_error error;
    char *text = json_dumps(file, JSON_COMPACT);
    assert_non_null(text);
    if (mn__tokenizer_of_payload(&tokenizer, "huggingface", text, (int64_t)strlen(text), NULL,
                                 &error))
        fail_msg("%s: %s", name, error.message);
    free(text);
    return tokenizer;
}

static void expect_ids(const char *what, const char *text, const mn__ids *ids,
                       const json_t *expected)
{
    bool equal = ids->count == (int64_t)json_array_size(expected);
    for (int64_t i = 0; equal && i < ids->count; i++)
        equal = ids->id[i] == json_integer_value(json_array_get(expected, (size_t)i));
    if (equal)
        return;
    mn__string got = {0};
    for (int64_t i = 0; i < ids->count; i++)
        mn__string_printf(&got, " %d", ids->id[i]);
    print_error("%s \"%s\": got%s, expected ", what, text, got.text ? got.text : "");
    char *wanted = json_dumps(expected, JSON_COMPACT);
    fail_msg("%s", wanted);
}

static void check_vector(const char *name, const mn__tokenizer *tokenizer, const json_t *vector)
{
    const char *text = json_string_value(json_array_get(vector, 0));
    int64_t bytes = (int64_t)strlen(text);
    const json_t *decoded = json_array_get(vector, 2);
    mn__ids ids = {0};
    mn__string back = {0};
    mn__encoder encoder;
    mn_error error;
    if (mn__tokenizer_encode(tokenizer, text, bytes, &ids, &error))
        fail_msg("%s \"%s\": %s", name, text, error.message);
    expect_ids(name, text, &ids, json_array_get(vector, 1));
    assert_int_equal(mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, &error), MN_OK);
    if (json_is_string(decoded))
        assert_string_equal(back.text ? back.text : "", json_string_value(decoded));
    if (tokenizer->lossless)
        assert_string_equal(back.text ? back.text : "", text);

    mn__ids_clear(&ids);
    mn__encoder_begin(&encoder, tokenizer);
    for (int64_t at = 0, step; at < bytes; at += step) {
        step = bytes - at < 3 ? bytes - at : 3;
        assert_int_equal(mn__encoder_feed(&encoder, text + at, step, &ids, &error), MN_OK);
    }
    assert_int_equal(mn__encoder_end(&encoder, &ids, &error), MN_OK);
    expect_ids("in pieces", text, &ids, json_array_get(vector, 1));
    mn__encoder_free(&encoder);
    mn__ids_free(&ids);
    mn__string_free(&back);
}

static void check_file(const char *name)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s", folder, name);
    json_t *root = json_load_file(path.text, 0, NULL);
    assert_non_null(root);
    mn__tokenizer *tokenizer = make(json_object_get(root, "tokenizer"), name);
    const json_t *around = json_object_get(root, "around"), *vectors, *vector;
    expect_ids(name, "before", &tokenizer->before, json_array_get(around, 0));
    expect_ids(name, "after", &tokenizer->after, json_array_get(around, 1));
    vectors = json_object_get(root, "vectors");
    size_t i;
    assert_true(json_array_size(vectors) > 20);
    json_array_foreach((json_t *)vectors, i, vector) check_vector(name, tokenizer, vector);
    mn__tokenizer_free(tokenizer);
    json_decref(root);
    mn__string_free(&path);
}

static void every_layout_equals_the_reference(void **state)
{
    (void)state;
    char **names;
    int64_t count;
    int64_t blocks = mn__memory_now().blocks;
    assert_int_equal(mn__file_list(folder, &names, &count, NULL), MN_OK);
    assert_true(count >= 20);
    for (int64_t i = 0; i < count; i++)
        check_file(names[i]);
    mn__free(names);
    assert_int_equal(mn__memory_now().blocks, blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_layout_equals_the_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
