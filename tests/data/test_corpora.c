/* The readers on real corpora, in ../shared/data beside the source tree or where
 * MNEME_DATA says: the published counts come out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "data/prepare.h"
#include "support/folder.h"

static const char *root;

static mn__dataset *prepare(const char *folder, const char *name, const char *tokenizer, int on_all)
{
    mn__prepare_config config = {.data = {&name, 1},
                                 .out = folder,
                                 .tokenizer = tokenizer,
                                 .train_on = on_all,
                                 .shard_tokens = 1 << 20};
    mn__dataset *dataset = NULL;
    mn_error error = {0};
    if (mn__prepare(&config, NULL, NULL, &error) || mn__dataset_open(&dataset, folder, &error))
        fail_msg("%s", error.message);
    assert_int_equal(mn__dataset_verify(dataset, NULL, &error), MN_OK);
    return dataset;
}

static void words_of_the_40_test_books(void **state)
{
    const char *name = folder_path(root, "books/pg19");
    mn__dataset *dataset = prepare(folder_path(*state, "pg19"), name, "bytes", 0);
    mn__dataset_counts test = mn__dataset_counts_of(dataset, MN__SPLIT_TEST);
    assert_int_equal(test.documents, 40);
    assert_int_equal(test.words, 2264071);
    assert_int_equal(test.published_words, 0); /* 40 are not the 100 published */
    assert_true(test.bytes < test.raw_bytes);  /* CR LF became LF */
    assert_int_equal(mn__dataset_counts_of(dataset, MN__SPLIT_TRAIN).documents, 34);
    assert_int_equal(mn__dataset_counts_of(dataset, MN__SPLIT_VALIDATION).documents, 6);
    int64_t book = mn__dataset_find(dataset, "10146", MN__SPLIT_TEST);
    assert_true(book >= 0 && strstr(mn__dataset_at(dataset, book)->title, " by "));
    mn__dataset_close(dataset);
}

static void wikitext_2s_published_counts(void **state)
{
    const char *name = folder_path(root, "text/wikitext2");
    mn__string spec = {0};
    mn__string_printf(&spec, "wikitext=%s", name);
    mn__dataset *dataset = prepare(folder_path(*state, "wikitext"), spec.text, "words", 1);
    mn__dataset_counts valid = mn__dataset_counts_of(dataset, MN__SPLIT_VALIDATION);
    mn__dataset_counts test = mn__dataset_counts_of(dataset, MN__SPLIT_TEST);
    assert_int_equal(valid.tokens, 217646);
    assert_int_equal(test.tokens, 245569);
    assert_int_equal(valid.documents, 60); /* articles */
    assert_int_equal(test.documents, 60);
    assert_string_equal(mn__dataset_at(dataset, 0)->title, "Homarus gammarus");
    mn__string_free(&spec);
    mn__dataset_close(dataset);
}

static void pg19s_sentencepiece_models(void **state)
{
    (void)state;
    static const int sizes[] = {512, 4000, 32000};
    static const char text[] = "It was the best of times, it was the worst of times.";
    for (size_t i = 0; i < 3; i++) {
        mn__tokenizer *tokenizer;
        mn_error error = {0};
        mn__ids ids = {0};
        mn__string back = {0};
        const char *path = folder_path(root, "tokenizers/pg19/pg19train_bpe_%d.model", sizes[i]);
        if (mn__tokenizer_load(&tokenizer, path, &error))
            fail_msg("%s", error.message);
        assert_int_equal(tokenizer->vocab, sizes[i]);
        assert_false(tokenizer->lossless); /* newlines become spaces */
        assert_int_equal(mn__tokenizer_encode(tokenizer, text, sizeof text - 1, &ids, &error),
                         MN_OK);
        assert_int_equal(mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, &error), MN_OK);
        assert_string_equal(back.text, text);
        mn__ids_free(&ids);
        mn__string_free(&back);
        mn__tokenizer_free(tokenizer);
    }
}

static void a_trained_vocabulary_keeps_a_whole_book(void **state)
{
    const char *name = folder_path(root, "text/tinyshakespeare.txt");
    const char *folder = folder_path(*state, "shakespeare");
    mn__prepare_config config = {.data = {&name, 1},
                                 .out = folder,
                                 .tokenizer = "sentencepiece",
                                 .train_vocab = 2000,
                                 .shard_tokens = 1 << 20};
    mn__dataset *dataset = NULL;
    mn_error error = {0};
    if (mn__prepare(&config, NULL, NULL, &error) || mn__dataset_open(&dataset, folder, &error))
        fail_msg("%s", error.message);
    int64_t tokens = mn__dataset_at(dataset, 0)->tokens, bytes;
    int32_t *ids = malloc((size_t)tokens * sizeof *ids);
    mn__string back = {0};
    assert_int_equal(mn__dataset_tokens(dataset, 0, 0, tokens, ids, &error), MN_OK);
    assert_int_equal(
        mn__tokenizer_decode(mn__dataset_tokenizer(dataset), ids, tokens, &back, &error), MN_OK);
    char *text = folder_read(name, &bytes);
    assert_int_equal(back.bytes, bytes);
    assert_memory_equal(back.text, text, (size_t)bytes);
    assert_true(tokens < bytes / 2);
    free(text);
    free(ids);
    mn__string_free(&back);
    mn__dataset_close(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_the_40_test_books),
        cmocka_unit_test(wikitext_2s_published_counts),
        cmocka_unit_test(pg19s_sentencepiece_models),
        cmocka_unit_test(a_trained_vocabulary_keeps_a_whole_book),
    };
    root = getenv("MNEME_DATA") ? getenv("MNEME_DATA") : MNEME_SOURCE_DIR "/../shared/data";
    if (!mn__file_is_folder(root)) {
        printf("skipped: there is no folder %s\n", root);
        return 77;
    }
    return cmocka_run_group_tests(tests, folder_make_on_disk, folder_remove);
}
