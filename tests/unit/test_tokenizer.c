/* Tokenizers: decode(encode(x)) = x on odd text, pieces against the whole,
 * files and their damage, the published orders, failing allocations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "support/folder.h"
#include "text/tokenizer.h"

static const char prose[] =
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was\n"
    "the age of foolishness, it was the epoch of belief, it was the epoch of incredulity,\n"
    "it was the season of Light, it was the season of Darkness, it was the spring of hope,\n"
    "\n    it was the winter of despair, we had everything before us, we had nothing.\n";

static mn__tokenizer *build(const char *kind, mn__tokenizer_plan plan, const char *text)
{
    mn__tokenizer_builder *builder;
    mn__tokenizer *tokenizer = NULL;
    mn_error error = {0};
    assert_int_equal(mn__tokenizer_builder_new(&builder, kind, plan, &error), MN_OK);
    assert_int_equal(mn__tokenizer_builder_feed(builder, text, (int64_t)strlen(text), &error),
                     MN_OK);
    mn_status status = mn__tokenizer_builder_end(builder, &tokenizer, &error);
    if (status)
        print_error("%s\n", error.message);
    assert_int_equal(status, MN_OK);
    return tokenizer;
}

static mn__tokenizer *sentencepiece(void)
{
    return build("sentencepiece", (mn__tokenizer_plan){.vocab = 320}, prose);
}

static void expect_round_trip(const mn__tokenizer *tokenizer, const char *text, int64_t bytes)
{
    mn__ids ids = {0};
    mn__string back = {0};
    mn_error error = {0};
    assert_int_equal(mn__tokenizer_encode(tokenizer, text, bytes, &ids, &error), MN_OK);
    assert_int_equal(mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, &error), MN_OK);
    assert_int_equal(back.bytes, bytes);
    if (bytes)
        assert_memory_equal(back.text, text, (size_t)bytes);
    mn__ids_free(&ids);
    mn__string_free(&back);
}

/* The same ids, whatever pieces the text comes in. */
static void expect_pieces_equal(const mn__tokenizer *tokenizer, const char *text, int64_t bytes,
                                int64_t piece)
{
    mn__ids whole = {0}, parts = {0};
    mn_error error = {0};
    mn__encoder encoder;
    assert_int_equal(mn__tokenizer_encode(tokenizer, text, bytes, &whole, &error), MN_OK);
    mn__encoder_begin(&encoder, tokenizer);
    for (int64_t at = 0; at < bytes; at += piece)
        assert_int_equal(mn__encoder_feed(&encoder, text + at,
                                          at + piece < bytes ? piece : bytes - at, &parts, &error),
                         MN_OK);
    assert_int_equal(mn__encoder_end(&encoder, &parts, &error), MN_OK);
    assert_int_equal(parts.count, whole.count);
    if (whole.count)
        assert_memory_equal(parts.id, whole.id, (size_t)whole.count * sizeof *whole.id);
    mn__encoder_free(&encoder);
    mn__ids_free(&whole);
    mn__ids_free(&parts);
}

#define ODD(text)             \
    {                         \
        text, sizeof text - 1 \
    }
static const struct {
    const char *text;
    size_t bytes;
} odd_texts[] = {
    ODD(""),
    ODD("\n"),
    ODD("\n\n\n"),
    ODD(" "),
    ODD("     leading and trailing     "),
    ODD("\ttabs\t\tand\vmore\f"),
    ODD("\r\nCR\rLF\r\n"),
    ODD("no newline at the end"),
    ODD("NUL \0 and \0\0 again"),
    ODD("\xE2\x96\x81 the mark \xE2\x96\x81\xE2\x96\x81 itself, \xE2\x96\x85 too"),
    ODD("<s></s><unk><0x41><pad>"),
    ODD("\xEF\xBB\xBF mark, \xEF\xBC\xA1\xEF\xAC\x81 full width, e\xCC\x81 combined"),
    ODD("\xF0\x9F\x98\x80 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xE4\xB8\xAD\xE6\x96\x87"),
    ODD("bad \xFF\xFE \xC3( \xED\xA0\x80 cut \xF0\x9F\x98"),
    ODD("\xC2\xA0nbsp\xE2\x80\xA8line separator\xE2\x80\x8Bzero width"),
};

static void expect_lossless(const mn__tokenizer *tokenizer)
{
    assert_true(tokenizer->lossless && tokenizer->any_bytes);
    for (size_t i = 0; i < sizeof odd_texts / sizeof *odd_texts; i++)
        for (int64_t piece = 1; piece < 20; piece += 6) {
            expect_round_trip(tokenizer, odd_texts[i].text, (int64_t)odd_texts[i].bytes);
            expect_pieces_equal(tokenizer, odd_texts[i].text, (int64_t)odd_texts[i].bytes, piece);
        }
    char noise[4096];
    for (int round = 0; round < 8; round++) {
        mn__random_key key = {.seed = 7, .step = (uint64_t)round};
        for (uint64_t i = 0; i < sizeof noise; i++)
            noise[i] = (char)mn__random_below(key, i, 256);
        expect_round_trip(tokenizer, noise, sizeof noise);
        expect_pieces_equal(tokenizer, noise, sizeof noise, 100);
    }
}

static void bytes_are_lossless(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer;
    assert_int_equal(mn__tokenizer_bytes(&tokenizer, NULL), MN_OK);
    assert_int_equal(tokenizer->vocab, 256);
    expect_lossless(tokenizer);
    mn__tokenizer_free(tokenizer);
}

static void trained_sentencepiece_is_lossless(void **state)
{
    (void)state;
    for (int unigram = 0; unigram < 2; unigram++) {
        mn__tokenizer *tokenizer =
            build("sentencepiece", (mn__tokenizer_plan){.vocab = 305, .unigram = unigram}, prose);
        assert_int_equal(tokenizer->vocab, 305);
        expect_lossless(tokenizer);
        mn__ids ids = {0}; /* it has learned something */
        assert_int_equal(mn__tokenizer_encode(tokenizer, prose, sizeof prose - 1, &ids, NULL),
                         MN_OK);
        assert_true(ids.count < (int64_t)sizeof prose * 3 / 4);
        mn__ids_free(&ids);
        mn__tokenizer_free(tokenizer);
    }
}

static void lines_longer_than_the_limit_are_cut_alike(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer = sentencepiece();
    int64_t bytes = (1 << 20) * 2 + 12345;
    char *line = malloc((size_t)bytes);
    for (int64_t i = 0; i < bytes; i++) /* e-acute at odd places: the limit cuts one */
        line[i] = i % 3 == 0 ? 'a' : i % 3 == 1 ? (char)0xC3 : (char)0xA9;
    expect_round_trip(tokenizer, line, bytes);
    expect_pieces_equal(tokenizer, line, bytes, 1 << 18);
    free(line);
    mn__tokenizer_free(tokenizer);
}

static void training_takes_a_sample_of_the_lines(void **state)
{
    (void)state;
    mn__string text = {0};
    for (int i = 0; i < 4000; i++)
        mn__string_puts(&text, prose);
    mn__tokenizer *tokenizer =
        build("sentencepiece", (mn__tokenizer_plan){.vocab = 300, .train_bytes = 10000}, text.text);
    assert_int_equal(tokenizer->vocab, 300);
    mn__string_free(&text);
    mn__tokenizer_free(tokenizer);
}

static void too_large_a_vocabulary_is_refused(void **state)
{
    (void)state;
    mn__tokenizer_builder *builder;
    mn__tokenizer *tokenizer;
    mn_error error = {0};
    mn__tokenizer_plan plan = {.vocab = 50000};
    assert_int_equal(mn__tokenizer_builder_new(&builder, "sentencepiece", plan, &error), MN_OK);
    assert_int_equal(mn__tokenizer_builder_feed(builder, prose, sizeof prose - 1, &error), MN_OK);
    assert_int_equal(mn__tokenizer_builder_end(builder, &tokenizer, &error), MN_ERROR_OPTION);
    assert_non_null(strstr(error.message, "50000"));
}

static void characters(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer = build("characters", (mn__tokenizer_plan){0},
                                     "b\xC3\xA9"
                                     "a\nb");
    mn__ids ids = {0};
    mn_error error = {0};
    assert_int_equal(tokenizer->vocab, 4);
    assert_int_equal(tokenizer->start, 0); /* the newline */
    assert_int_equal(mn__tokenizer_encode(tokenizer, "ab\xC3\xA9\n", 5, &ids, &error), MN_OK);
    assert_int_equal(ids.count, 4);
    assert_memory_equal(ids.id, ((int32_t[]){1, 2, 3, 0}), 4 * sizeof(int32_t));
    expect_pieces_equal(tokenizer, "ab\xC3\xA9\n\xC3\xA9", 7, 1);
    assert_int_equal(mn__tokenizer_encode(tokenizer, "abc", 3, &ids, &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "U+0063 at byte 2"));
    assert_int_equal(mn__tokenizer_encode(tokenizer, "a\xC3", 2, &ids, &error), MN_ERROR_FORMAT);
    mn__ids_free(&ids);
    mn__tokenizer_free(tokenizer);
}

static void words_in_transformer_xls_order(void **state)
{
    (void)state;
    static const char text[] = " \n = Title = \n \n b a b <unk> a c b \n";
    mn__tokenizer *tokenizer = build("words", (mn__tokenizer_plan){0}, text);
    static const char *const expected[] = {" \n", " b", " =", " a", " Title", " <unk>", " c"};
    mn_error error = {0};
    assert_int_equal(tokenizer->vocab, 7);
    for (int32_t id = 0; id < 7; id++) {
        int64_t bytes;
        const char *piece = mn__tokenizer_piece(tokenizer, id, &bytes);
        assert_int_equal(bytes, strlen(expected[id]));
        assert_memory_equal(piece, expected[id], (size_t)bytes);
    }
    expect_round_trip(tokenizer, text, sizeof text - 1);
    expect_pieces_equal(tokenizer, text, sizeof text - 1, 3);
    mn__ids ids = {0};
    assert_int_equal(mn__tokenizer_encode(tokenizer, "b new\nc", 7, &ids, &error), MN_OK);
    assert_int_equal(ids.count, 5); /* b <unk> <eos> c <eos> */
    assert_memory_equal(ids.id, ((int32_t[]){1, 5, 0, 6, 0}), 5 * sizeof(int32_t));
    mn__ids_free(&ids);
    mn__tokenizer_free(tokenizer);
}

static void saves_and_loads(void **state)
{
    static const char *const kinds[] = {"bytes", "characters", "words", "sentencepiece"};
    for (size_t i = 0; i < 4; i++) {
        mn__tokenizer *made = build(kinds[i], (mn__tokenizer_plan){.vocab = 300}, prose), *loaded;
        const char *folder = folder_path(*state, "saved-%s", kinds[i]);
        mn_error error = {0};
        assert_int_equal(mn__tokenizer_save(made, folder, &error), MN_OK);
        assert_int_equal(mn__tokenizer_load(&loaded, folder, &error), MN_OK);
        assert_string_equal(loaded->fingerprint.hex, made->fingerprint.hex);
        assert_int_equal(loaded->vocab, made->vocab);
        expect_pieces_equal(loaded, prose, sizeof prose - 1, 10);
        mn__tokenizer_free(made);
        mn__tokenizer_free(loaded);
    }
}

static void damaged_files_are_refused(void **state)
{
    static const char *const kinds[] = {"characters", "words", "sentencepiece"};
    for (size_t i = 0; i < 3; i++) {
        mn__tokenizer *made = build(kinds[i], (mn__tokenizer_plan){.vocab = 300}, prose), *loaded;
        const char *folder = folder_path(*state, "damaged-%s", kinds[i]);
        mn_error error = {0};
        int64_t bytes;
        assert_int_equal(mn__tokenizer_save(made, folder, &error), MN_OK);
        const char *path = folder_path(folder, "%s", made->type->file);
        char *text = folder_read(path, &bytes);
        for (int64_t at = 0; at < bytes; at += 1 + bytes / 23) {
            text[at] ^= 1;
            folder_write(path, text, bytes);
            assert_int_equal(mn__tokenizer_load(&loaded, folder, &error), MN_ERROR_FORMAT);
            text[at] ^= 1;
            folder_write(path, text, at);
            assert_int_equal(mn__tokenizer_load(&loaded, folder, &error), MN_ERROR_FORMAT);
            assert_true(strlen(error.message) > 0);
        }
        free(text);
        folder_write(folder_path(folder, "tokenizer.json"), "{\"kind\": \"words\"", -1);
        assert_int_equal(mn__tokenizer_load(&loaded, folder, &error), MN_ERROR_FORMAT);
        folder_write(folder_path(folder, "tokenizer.json"),
                     "{\"mneme_tokenizer\":1,\"kind\":\"bpe\",\"fingerprint\":\"\"}", -1);
        assert_int_equal(mn__tokenizer_load(&loaded, folder, &error), MN_ERROR_FORMAT);
        mn__tokenizer_free(made);
    }
}

static void ids_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer;
    mn__string text = {0};
    mn_error error = {0};
    assert_int_equal(mn__tokenizer_bytes(&tokenizer, NULL), MN_OK);
    assert_int_equal(mn__tokenizer_decode(tokenizer, &(int32_t){256}, 1, &text, &error),
                     MN_ERROR_MISMATCH);
    assert_int_equal(mn__tokenizer_decode(tokenizer, &(int32_t){-1}, 1, &text, &error),
                     MN_ERROR_MISMATCH);
    mn__tokenizer_free(tokenizer);
}

static mn_status build_encode_save(const char *kind, const char *folder, mn_error *error)
{
    mn__tokenizer_builder *builder;
    mn__tokenizer *tokenizer = NULL;
    mn__ids ids = {0};
    mn__tokenizer_plan plan = {.vocab = 300};
    mn_status status = mn__tokenizer_builder_new(&builder, kind, plan, error);
    if (status)
        return status;
    status = mn__tokenizer_builder_feed(builder, prose, sizeof prose - 1, error);
    if (status) {
        mn__tokenizer_builder_free(builder);
        return status;
    }
    status = mn__tokenizer_builder_end(builder, &tokenizer, error);
    if (!status)
        status = mn__tokenizer_encode(tokenizer, prose, sizeof prose - 1, &ids, error);
    if (!status)
        status = mn__tokenizer_save(tokenizer, folder, error);
    mn__tokenizer_free(tokenizer);
    tokenizer = NULL;
    if (!status)
        status = mn__tokenizer_load(&tokenizer, folder, error);
    mn__tokenizer_free(tokenizer);
    mn__ids_free(&ids);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    static const char *const kinds[] = {"bytes", "characters", "words", "sentencepiece"};
    for (size_t i = 0; i < 4; i++) {
        const char *folder = folder_path(*state, "failing-%s", kinds[i]);
        int64_t blocks = mn__memory_now().blocks, failed = 0;
        for (int64_t n = 1;; n++) {
            mn_error error = {0};
            mn__memory_fail_nth(n);
            mn_status status = build_encode_save(kinds[i], folder, &error);
            mn__memory_fail_nth(0);
            assert_int_equal(mn__memory_now().blocks, blocks);
            if (status == MN_OK)
                break;
            assert_int_equal(status, MN_ERROR_MEMORY);
            failed++;
        }
        assert_true(failed > 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_lossless),
        cmocka_unit_test(trained_sentencepiece_is_lossless),
        cmocka_unit_test(lines_longer_than_the_limit_are_cut_alike),
        cmocka_unit_test(training_takes_a_sample_of_the_lines),
        cmocka_unit_test(too_large_a_vocabulary_is_refused),
        cmocka_unit_test(characters),
        cmocka_unit_test(words_in_transformer_xls_order),
        cmocka_unit_test(saves_and_loads),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(ids_outside_the_vocabulary_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
