/* tokenizer.json files of every layout against what the `tokenizers` package made of odd texts
 * (make_tokenizers.py): ids, decoded text, the ids around a text, and the same from a text in
 * pieces. Vocabularies of other files against tiktoken and SentencePiece. */
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
#include "support/folder.h"
#include "text/import.h"
#include "text/tokenizer_types.h"

static const char folder[] = MNEME_SOURCE_DIR "/tests/golden/tokenizers";
static const char vocabularies[] = MNEME_SOURCE_DIR "/tests/golden/vocabularies";
static const char ranks[] = MNEME_SOURCE_DIR "/tests/golden/vocabularies/bytes.ranks";

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

/* ---- Other files ------------------------------------------------------------------------------
 */

static json_t *read_vectors(const char *name)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s.json", vocabularies, name);
    json_t *vectors = json_load_file(path.text, 0, NULL);
    assert_true(json_array_size(vectors) > 20);
    mn__string_free(&path);
    return vectors;
}

static void check_vectors(const char *name, const mn__tokenizer *tokenizer)
{
    json_t *vectors = read_vectors(name), *vector;
    size_t i;
    json_array_foreach(vectors, i, vector) check_vector(name, tokenizer, vector);
    json_decref(vectors);
}

static mn__tokenizer *make_of_ranks(const char *family, const char *config)
{
    char *text;
    int64_t bytes;
    mn__string json = {0};
    mn__tokenizer *tokenizer = NULL;
    mn_error error;
    assert_int_equal(mn__file_read(ranks, 0, &text, &bytes, &error), MN_OK);
    if (mn__import_tiktoken(text, bytes, family, config, config ? (int64_t)strlen(config) : 0,
                            &json, &error) ||
        mn__tokenizer_of_payload(&tokenizer, "huggingface", json.text, json.bytes, NULL, &error))
        fail_msg("%s: %s", family, error.message);
    mn__string_free(&json);
    mn__free(text);
    return tokenizer;
}

static void expect_one(const mn__tokenizer *tokenizer, const char *text, int32_t id)
{
    mn__ids ids = {0};
    assert_int_equal(mn__tokenizer_encode(tokenizer, text, (int64_t)strlen(text), &ids, NULL),
                     MN_OK);
    assert_int_equal(ids.count, 1);
    assert_int_equal(ids.id[0], id);
    assert_true(tokenizer->special[id]);
    mn__ids_free(&ids);
}

static void rank_files_equal_tiktoken(void **state)
{
    (void)state;
    static const struct {
        const char *family, *last;
        int64_t vocab, before[2];
    } families[] = {{"llama3", "<|reserved_special_token_250|>", 360 + 256, {360, -1}},
                    {"qwen", "<|extra_204|>", 360 + 208, {-1, -1}},
                    {"glm4", "<|observation|>", 360 + 10, {362, 364}}};
    for (int i = 0; i < 3; i++) {
        mn__tokenizer *tokenizer = make_of_ranks(families[i].family, NULL);
        assert_int_equal(tokenizer->vocab, families[i].vocab);
        for (int64_t k = 0; k < tokenizer->before.count; k++)
            assert_int_equal(tokenizer->before.id[k], families[i].before[k]);
        assert_int_equal(tokenizer->before.count,
                         (families[i].before[0] >= 0) + (families[i].before[1] >= 0));
        expect_one(tokenizer, families[i].last, (int32_t)families[i].vocab - 1);
        check_vectors(families[i].family, tokenizer);
        mn__tokenizer_free(tokenizer);
    }
    mn__tokenizer *tokenizer = make_of_ranks(
        "qwen", "{\"added_tokens_decoder\": {\"361\": {\"content\": \"<b>\", \"special\": true}}}");
    assert_int_equal(tokenizer->vocab, 362);
    expect_one(tokenizer, "<b>", 361);
    mn__tokenizer_free(tokenizer);
}

static void rank_files_of_no_known_size_are_refused(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer;
    mn_error error;
    assert_int_equal(mn__tokenizer_load(&tokenizer, ranks, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "360 tokens"));
    static const char *const bad[] = {"IQ== 0\nIg= 1\n", "IQ== 0\nIg== 2\n", "IQ== 0\nIg==\n",
                                      "IQ== 0\nIg== 99999999999\n"};
    for (int i = 0; i < 4; i++) {
        mn__string json = {0};
        assert_true(mn__import_is_tiktoken(bad[i], (int64_t)strlen(bad[i])));
        assert_int_equal(
            mn__import_tiktoken(bad[i], (int64_t)strlen(bad[i]), "qwen", NULL, 0, &json, &error),
            MN_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "line 2"));
        mn__string_free(&json);
    }
}

static void gguf_equals_sentencepiece_and_the_tokenizer_it_was_made_of(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen2"};
    for (int i = 0; i < 2; i++) {
        mn__string path = {0};
        mn__tokenizer *tokenizer;
        mn_error error;
        mn__string_printf(&path, "%s/%s.gguf", vocabularies, names[i]);
        if (mn__tokenizer_load(&tokenizer, path.text, &error))
            fail_msg("%s", error.message);
        check_vectors(names[i], tokenizer);
        assert_int_equal(tokenizer->before.count, i == 0); /* as llama.cpp has it by default */
        mn__tokenizer_free(tokenizer);
        mn__string_free(&path);
    }
}

static mn_status load_changed(const char *path, char *bytes, int64_t count, mn_error *error)
{
    mn__tokenizer *tokenizer;
    folder_write(path, bytes, count);
    mn_status status = mn__tokenizer_load(&tokenizer, path, error);
    if (status == MN_OK) {
        mn__ids ids = {0};
        mn_error why;
        mn__tokenizer_encode(tokenizer, "It was <|im_end|>", 17, &ids, &why);
        for (int64_t i = 0; i < ids.count; i++)
            assert_in_range(ids.id[i], 0, tokenizer->vocab - 1);
        mn__ids_free(&ids);
        mn__tokenizer_free(tokenizer);
    }
    return status;
}

static void expect_named(const char *path, char *bytes, int64_t count, const char *known,
                         const char *unknown)
{
    mn_error error;
    char *at = memmem(bytes, (size_t)count, known, strlen(known));
    assert_non_null(at);
    memcpy(at, unknown, strlen(unknown));
    assert_int_equal(load_changed(path, bytes, count, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, unknown));
    memcpy(at, known, strlen(known));
}

/* An unknown kind is named; any byte changed gives an error that says something, or a tokenizer. */
static void a_gguf_that_is_unknown_or_damaged_is_refused(void **state)
{
    static const char *const names[] = {"llama", "qwen2"};
    for (int i = 0; i < 2; i++) {
        mn__string whole = {0};
        const char *path = folder_path(*state, "%s.gguf", names[i]);
        int64_t count;
        mn_error error;
        mn__string_printf(&whole, "%s/%s.gguf", vocabularies, names[i]);
        char *bytes = folder_read(whole.text, &count);
        if (i == 1) {
            expect_named(path, bytes, count, "qwen2", "qwen9");
            expect_named(path, bytes, count, "gpt2", "gpt9");
        }
        for (int64_t at = 0; at < count; at += 1 + count / 700) {
            bytes[at] ^= 1;
            if (load_changed(path, bytes, count, &error))
                assert_true(strlen(error.message) > 0);
            bytes[at] ^= 1;
        }
        free(bytes);
        mn__string_free(&whole);
    }
}

/* The fixture's vocabulary as GPT-2 published its own. */
static void write_pair(const char *to, const json_t *tokenizer)
{
    json_t *model = json_object_get(tokenizer, "model"), *merge;
    mn__string merges = {0};
    size_t i;
    mn__string_puts(&merges, "#version: 0.2\n");
    json_array_foreach(json_object_get(model, "merges"), i, merge)
        mn__string_printf(&merges, "%s %s\n", json_string_value(json_array_get(merge, 0)),
                          json_string_value(json_array_get(merge, 1)));
    char *encoder = json_dumps(json_object_get(model, "vocab"), JSON_COMPACT);
    folder_write(folder_path(to, "encoder.json"), encoder, -1);
    folder_write(folder_path(to, "vocab.bpe"), merges.text, merges.bytes);
    free(encoder);
    mn__string_free(&merges);
}

static void gpt2s_pair_of_files_is_the_same(void **state)
{
    json_t *root = json_load_file(MNEME_SOURCE_DIR "/tests/golden/tokenizers/gpt2.json", 0, NULL);
    json_t *file = json_object_get(root, "tokenizer"), *vector;
    mn__tokenizer *pair, *whole;
    mn_error error;
    size_t i;
    json_array_clear(json_object_get(file, "added_tokens"));
    write_pair(*state, file);
    if (mn__tokenizer_load(&pair, *state, &error))
        fail_msg("%s", error.message);
    whole = make(file, "gpt2");
    assert_int_equal(pair->vocab, whole->vocab);
    json_array_foreach(json_object_get(root, "vectors"), i, vector)
    {
        const char *text = json_string_value(json_array_get(vector, 0));
        mn__ids a = {0}, b = {0};
        assert_int_equal(mn__tokenizer_encode(pair, text, (int64_t)strlen(text), &a, NULL), MN_OK);
        assert_int_equal(mn__tokenizer_encode(whole, text, (int64_t)strlen(text), &b, NULL), MN_OK);
        assert_int_equal(a.count, b.count);
        if (a.count)
            assert_memory_equal(a.id, b.id, (size_t)a.count * sizeof *a.id);
        mn__ids_free(&a);
        mn__ids_free(&b);
    }
    mn__tokenizer_free(pair);
    mn__tokenizer_free(whole);
    json_decref(root);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_equals_the_reference),
        cmocka_unit_test(rank_files_equal_tiktoken),
        cmocka_unit_test(rank_files_of_no_known_size_are_refused),
        cmocka_unit_test(gguf_equals_sentencepiece_and_the_tokenizer_it_was_made_of),
        cmocka_unit_test(a_gguf_that_is_unknown_or_damaged_is_refused),
        cmocka_unit_test(gpt2s_pair_of_files_is_the_same),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
