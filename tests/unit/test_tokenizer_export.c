/* Tokenizers written for others: a tokenizer.json that is read again gives the same ids and the
 * same texts; every kind, TokenRanks among them, which others do not know; what cannot be said is
 * refused; every allocation failing. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/llama2c.h"
#include "text/export.h"
#include "text/import.h"
#include "text/tokenizer_types.h"

static const char *temporary;

static int setup(void **state)
{
    int status = folder_make(state);
    temporary = *state;
    return status;
}

static void check(mn_status status, const mn_error *error)
{
    if (status)
        fail_msg("%s: %s", mn_status_name(status), error->message);
}

static mn__tokenizer *load(const char *path)
{
    mn_error error;
    mn__tokenizer *tokenizer;
    check(mn__tokenizer_load(&tokenizer, path, &error), &error);
    return tokenizer;
}

static mn__tokenizer *learn(const char *kind, bool unigram, const char *text)
{
    mn_error error;
    mn__tokenizer *tokenizer;
    mn__tokenizer_builder *builder;
    check(mn__tokenizer_builder_new(&builder, kind,
                                    (mn__tokenizer_plan){.vocab = 300, .unigram = unigram}, &error),
          &error);
    check(mn__tokenizer_builder_feed(builder, text, (int64_t)strlen(text), &error), &error);
    check(mn__tokenizer_builder_end_document(builder, &error), &error);
    check(mn__tokenizer_builder_end(builder, &tokenizer, &error), &error);
    return tokenizer;
}

/* Written into a folder, and read from it as one of Hugging Face. */
static mn__tokenizer *there_and_back(const mn__tokenizer *tokenizer, mn__string *json)
{
    mn_error error;
    const char *path = folder_path(temporary, "tokenizer.json");
    check(mn__tokenizer_export(tokenizer, json, &error), &error);
    folder_write(path, json->text, json->bytes);
    return load(path);
}

static void compare(const mn__tokenizer *a, const mn__tokenizer *b, const char *text, int64_t bytes)
{
    mn_error error;
    mn__ids left = {0}, right = {0};
    mn__string back = {0}, other = {0};
    check(mn__tokenizer_encode(a, text, bytes, &left, &error), &error);
    check(mn__tokenizer_encode(b, text, bytes, &right, &error), &error);
    assert_int_equal(left.count, right.count);
    if (left.count)
        assert_memory_equal(left.id, right.id, (size_t)left.count * sizeof *left.id);
    check(mn__tokenizer_decode(a, left.id, left.count, &back, &error), &error);
    check(mn__tokenizer_decode(b, left.id, left.count, &other, &error), &error);
    assert_int_equal(back.bytes, other.bytes);
    if (back.bytes)
        assert_memory_equal(back.text, other.text, (size_t)back.bytes);
    mn__ids_free(&left);
    mn__ids_free(&right);
    mn__string_free(&back);
    mn__string_free(&other);
}

/* What the package reads, and nothing that only we do. */
static void check_json(const mn__string *json)
{
    static const char *const needed[] = {"single_word", "lstrip", "rstrip", "normalized",
                                         "special",     "id",     "content"};
    json_t *root = json_loadb(json->text, (size_t)json->bytes, JSON_REJECT_DUPLICATES, NULL);
    const json_t *model = json_object_get(root, "model"), *token;
    const json_t *after = json_object_get(root, "post_processor");
    size_t i;
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(model, "type")), "BPE");
    assert_null(json_object_get(model, "tokens"));
    assert_true(json_is_object(json_object_get(model, "vocab")));
    assert_true(json_is_array(json_object_get(model, "merges")));
    json_array_foreach(json_object_get(root, "added_tokens"), i,
                       token) for (size_t k = 0; k < sizeof needed / sizeof *needed; k++)
        assert_non_null(json_object_get(token, needed[k]));
    if (json_is_object(after))
        assert_true(json_is_array(json_object_get(after, "pair")));
    json_decref(root);
}

static void bytes(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer = load("bytes");
    mn__string json = {0};
    mn__tokenizer *back = there_and_back(tokenizer, &json);
    char all[512];
    for (int i = 0; i < 512; i++)
        all[i] = (char)(i * 89);
    check_json(&json);
    assert_int_equal(back->vocab, 256);
    assert_int_equal(back->start, tokenizer->start);
    assert_true(back->lossless);
    compare(tokenizer, back, all, sizeof all);
    compare(tokenizer, back, "  caf\xC3\xA9\n\n", 9);
    compare(tokenizer, back, "", 0);
    mn__string_free(&json);
    mn__tokenizer_free(back);
    mn__tokenizer_free(tokenizer);
}

static void characters(void **state)
{
    (void)state;
    static const char text[] =
        "the river\n\t1 runs \xE2\x82\xAC  to \"caf\xC3\xA9\" \\ \xE2\x96\x81";
    mn__tokenizer *tokenizer = learn("characters", false, text);
    mn__string json = {0};
    mn__tokenizer *back = there_and_back(tokenizer, &json);
    check_json(&json);
    assert_int_equal(back->vocab, tokenizer->vocab);
    assert_int_equal(back->start, tokenizer->start);
    compare(tokenizer, back, text, sizeof text - 1);
    compare(tokenizer, back, "  the  ", 7);
    mn__string_free(&json);
    mn__tokenizer_free(back);
    mn__tokenizer_free(tokenizer);
}

static void check_alike(mn__tokenizer *tokenizer)
{
    static const char *const texts[] = {"",
                                        "ab abba aba",
                                        "  it's 1234 caf\xC3\xA9\n\n x",
                                        "The quick brown fox, \xF0\x9F\x99\x82 \xE2\x82\xAC",
                                        "bbab  bab\tab",
                                        "<s> a </s>"};
    mn__string json = {0};
    mn__tokenizer *back = there_and_back(tokenizer, &json);
    check_json(&json);
    assert_int_equal(back->vocab, tokenizer->vocab);
    assert_int_equal(back->start, tokenizer->start);
    assert_int_equal(back->before.count, tokenizer->before.count);
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++)
        compare(tokenizer, back, texts[t], (int64_t)strlen(texts[t]));
    mn__string_free(&json);
    mn__tokenizer_free(back);
    mn__tokenizer_free(tokenizer);
}

static const char *golden(char path[512], const char *name)
{
    snprintf(path, 512, "%s/tests/golden/%s", MNEME_SOURCE_DIR, name);
    return path;
}

/* What is imported, as ranks most of it: llama2.c's, GGUF's, tiktoken's. */
static void imported(void **state)
{
    (void)state;
    char path[512];
    int64_t count;
    mn_error error;
    mn__string json = {0};
    mn__tokenizer *tokenizer;
    const char *bin = folder_path(temporary, "tokenizer.bin");
    folder_write(bin, "", 0);
    llama2c_write_tokenizer(bin);
    check_alike(load(bin));
    check_alike(load(golden(path, "vocabularies/llama.gguf")));
    check_alike(load(golden(path, "vocabularies/qwen2.gguf")));
    char *text = folder_read(golden(path, "vocabularies/bytes.ranks"), &count);
    check(mn__import_tiktoken(text, count, "llama3", NULL, 0, &json, &error), &error);
    check(mn__tokenizer_of_payload(&tokenizer, "huggingface", json.text, json.bytes, NULL, &error),
          &error);
    check_alike(tokenizer);
    mn__string_free(&json);
    free(text);
}

/* A whole file of Hugging Face stays what it is, to the byte. */
static void as_it_is(void **state)
{
    (void)state;
    char path[512];
    mn_error error;
    mn__string json = {0};
    json_t *root = json_load_file(golden(path, "tokenizers/t5_after.json"), 0, NULL);
    char *text = json_dumps(json_object_get(root, "tokenizer"), JSON_INDENT(1));
    assert_non_null(text);
    folder_write(folder_path(temporary, "t5/tokenizer.json"), text, -1);
    mn__tokenizer *tokenizer = load(folder_path(temporary, "t5"));
    check(mn__tokenizer_export(tokenizer, &json, &error), &error);
    assert_string_equal(json.text, text);
    mn__string_free(&json);
    mn__tokenizer_free(tokenizer);
    json_decref(root);
    free(text);
}

static const char story[] =
    "the river runs to the sea where some ships lie still, asleep\n\n"
    "  and the other rivers run there, too; \t seas: the sea is wide: no ship has seen the end of "
    "it\n"
    "some rivers are rivers of sand, some are there in spring alone, and the ships wait\n";

/* What is trained here is lossless, and can be said. */
static void sentencepiece(void **state)
{
    (void)state;
    static const char *const texts[] = {story,
                                        "",
                                        " ",
                                        "\n\n  the",
                                        "rivers of caf\xC3\xA9s \xE2\x82\xAC",
                                        "\tasleepasleep  seasea\n \n"};
    for (int unigram = 0; unigram < 2; unigram++) {
        mn__tokenizer *tokenizer = learn("sentencepiece", unigram, story);
        mn__string json = {0};
        mn__tokenizer *back = there_and_back(tokenizer, &json);
        assert_non_null(strstr(json.text, unigram ? "\"Unigram\"" : "\"BPE\""));
        assert_int_equal(back->vocab, tokenizer->vocab);
        assert_int_equal(back->start, tokenizer->start);
        for (size_t t = 0; t < sizeof texts / sizeof *texts; t++)
            compare(tokenizer, back, texts[t], (int64_t)strlen(texts[t]));
        mn__string_free(&json);
        mn__tokenizer_free(back);
        mn__tokenizer_free(tokenizer);
    }
}

static void refused(void **state)
{
    (void)state;
    mn_error error = {0};
    mn__string json = {0};
    mn__tokenizer *tokenizer = learn("words", false, story);
    assert_int_equal(mn__tokenizer_export(tokenizer, &json, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "words"));
    assert_true(error.hint[0]);
    mn__string_free(&json);
    mn__tokenizer_free(tokenizer);
}

static mn_status export_ranks(void *user, mn_error *error)
{
    mn__string json = {0};
    mn_status status = mn__tokenizer_export(user, &json, error);
    mn__string_free(&json);
    return status;
}

static void failing_allocations(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer = load(folder_path(temporary, "tokenizer.bin"));
    mn__tokenizer *plain = load("bytes");
    assert_true(failing_each("a vocabulary of ranks", export_ranks, tokenizer, false, NULL) > 3);
    assert_true(failing_each("bytes", export_ranks, plain, false, NULL) > 3);
    mn__tokenizer_free(plain);
    mn__tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes),
        cmocka_unit_test(characters),
        cmocka_unit_test(imported),
        cmocka_unit_test(as_it_is),
        cmocka_unit_test(sentencepiece),
        cmocka_unit_test(refused),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
