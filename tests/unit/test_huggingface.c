/* tokenizer.json: what is lost and what is not, texts in pieces, threads, what a file may ask for
 * and is refused, damage, failing allocations. What the ids are is in tests/golden. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/random.h"
#include "support/failing.h"
#include "support/folder.h"
#include "text/import.h"
#include "text/tokenizer_types.h"

/* ---- Files ------------------------------------------------------------------------------------
 */

/* The tokenizer of a golden fixture, as text; the caller frees. */
static char *fixture(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, MNEME_SOURCE_DIR "/tests/golden/tokenizers/%s.json", name);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    char *text = json_dumps(json_object_get(root, "tokenizer"), JSON_COMPACT);
    json_decref(root);
    return text;
}

static mn_status parse(mn__tokenizer **tokenizer, const char *text, mn_error *error)
{
    return mn__tokenizer_of_payload(tokenizer, "huggingface", text, (int64_t)strlen(text), NULL,
                                    error);
}

static mn__tokenizer *make(const char *name)
{
    mn__tokenizer *tokenizer;
    mn_error error;
    char *text = fixture(name);
    if (parse(&tokenizer, text, &error))
        fail_msg("%s: %s", name, error.message);
    free(text);
    return tokenizer;
}

/* ---- Texts -------------------------------------------------------------------------------------
 */

/* Pieces of text, of which a third are no UTF-8. */
static int64_t noise(char *text, int64_t bytes, uint64_t seed)
{
    static const char *const pool[] = {"a",
                                       "the ",
                                       " of",
                                       "\n",
                                       "\nAnd ",
                                       "\n\n",
                                       "  ",
                                       "\t",
                                       "12345",
                                       "'s",
                                       "'LL",
                                       "!?",
                                       "\xC3\xA9",
                                       "\xE4\xBD\xA0",
                                       "\xF0\x9F\x98\x80",
                                       "\xFF",
                                       "\xC3",
                                       "\xE4\xBD",
                                       "\xF0\x9F\x98",
                                       "\xED\xA0\x80",
                                       "\x80",
                                       "\xC2\xA0",
                                       "<|endoftext|>",
                                       "<|eot_id|>",
                                       "\r\n",
                                       ".\n\nB"};
    mn__random_key key = {.seed = seed};
    int64_t at = 0;
    for (uint64_t i = 0;; i++) {
        const char *piece = pool[mn__random_below(key, i, sizeof pool / sizeof *pool)];
        int64_t length = (int64_t)strlen(piece);
        if (at + length > bytes)
            return at;
        memcpy(text + at, piece, (size_t)length);
        at += length;
    }
}

static void expect_same(const mn__ids *a, const mn__ids *b)
{
    assert_int_equal(a->count, b->count);
    if (a->count)
        assert_memory_equal(a->id, b->id, (size_t)a->count * sizeof *a->id);
}

static void feed(const mn__tokenizer *tokenizer, const char *text, int64_t bytes, int64_t piece,
                 mn__ids *ids)
{
    mn__encoder encoder;
    mn__encoder_begin(&encoder, tokenizer);
    for (int64_t at = 0; at < bytes; at += piece)
        assert_int_equal(mn__encoder_feed(&encoder, text + at,
                                          bytes - at < piece ? bytes - at : piece, ids, NULL),
                         MN_OK);
    assert_int_equal(mn__encoder_end(&encoder, ids, NULL), MN_OK);
    mn__encoder_free(&encoder);
}

static void byte_level_is_lossless(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2", "llama3", "other_regex", "falcon",
                                        "split_contiguous"};
    char text[3000];
    for (int i = 0; i < 5; i++) {
        mn__tokenizer *tokenizer = make(names[i]);
        assert_true(tokenizer->lossless && tokenizer->any_bytes);
        for (uint64_t round = 0; round < 30; round++) {
            mn__ids ids = {0}, parts = {0};
            mn__string back = {0};
            int64_t bytes = noise(text, round < 20 ? 60 : (int64_t)sizeof text, round);
            assert_int_equal(mn__tokenizer_encode(tokenizer, text, bytes, &ids, NULL), MN_OK);
            for (int64_t k = 0; k < ids.count; k++)
                assert_in_range(ids.id[k], 0, tokenizer->vocab - 1);
            assert_int_equal(mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, NULL),
                             MN_OK);
            assert_int_equal(back.bytes, bytes);
            assert_memory_equal(back.text, text, (size_t)bytes);
            for (int64_t piece = 1; piece < 100; piece = 3 * piece + 1) {
                mn__ids_clear(&parts);
                feed(tokenizer, text, bytes, piece, &parts);
                expect_same(&ids, &parts);
            }
            mn__ids_free(&ids);
            mn__ids_free(&parts);
            mn__string_free(&back);
        }
        mn__tokenizer_free(tokenizer);
    }
}

static void others_are_not_and_say_so(void **state)
{
    (void)state;
    static const char *const names[] = {
        "qwen2", "gpt2_prefix_space", "split_removed", "whitespace", "llama2", "t5_after"};
    for (int i = 0; i < 6; i++) {
        mn__tokenizer *tokenizer = make(names[i]);
        assert_false(tokenizer->lossless || tokenizer->any_bytes);
        mn__ids ids = {0};
        assert_int_equal(mn__tokenizer_encode(tokenizer, "", 0, &ids, NULL), MN_OK);
        assert_int_equal(ids.count, 0);
        mn__ids_free(&ids);
        mn__tokenizer_free(tokenizer);
    }
}

/* Bytes that are no UTF-8 need their tokens. */
static void bad_bytes_are_their_tokens_or_an_error(void **state)
{
    (void)state;
    mn__ids ids = {0};
    mn__string back = {0};
    mn_error error;
    mn__tokenizer *tokenizer = make("llama2"); /* by <0xNN> */
    assert_int_equal(mn__tokenizer_encode(tokenizer, "a\xFF", 2, &ids, &error), MN_OK);
    assert_int_equal(mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, NULL), MN_OK);
    assert_string_equal(back.text, "a\xFF");
    mn__tokenizer_free(tokenizer);
    tokenizer = make("t5_after");
    assert_int_equal(mn__tokenizer_encode(tokenizer, "ab\xFF", 3, &ids, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "byte 2"));
    mn__tokenizer_free(tokenizer);
    mn__ids_free(&ids);
    mn__string_free(&back);
}

/* While it comes, a document is encoded up to its last line that begins with a letter. */
static void memory_stays_bounded(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer = make("llama3");
    mn__encoder encoder;
    mn__ids ids = {0};
    mn__encoder_begin(&encoder, tokenizer);
    for (int i = 0; i < 20000; i++) {
        static const char line[] = "It was the best of times,  \n\n  it was the worst\nof times.\n";
        assert_int_equal(mn__encoder_feed(&encoder, line, sizeof line - 1, &ids, NULL), MN_OK);
        assert_true(encoder.waiting.bytes < 200);
    }
    assert_int_equal(mn__encoder_end(&encoder, &ids, NULL), MN_OK);
    mn__encoder_free(&encoder);
    mn__ids_free(&ids);
    mn__tokenizer_free(tokenizer);
}

static void threads_share_one(void **state)
{
    (void)state;
    enum { BYTES = 20000 };
    mn__tokenizer *tokenizer = make("phi3");
    char text[BYTES];
    mn__ids expected = {0};
    int64_t bytes = noise(text, BYTES, 3);
    int differ = 0;
    assert_int_equal(mn__tokenizer_encode(tokenizer, text, bytes, &expected, NULL), MN_OK);
#pragma omp parallel for num_threads(4) reduction(+ : differ)
    for (int i = 0; i < 16; i++) {
        mn__ids ids = {0};
        mn_status status = mn__tokenizer_encode(tokenizer, text, bytes, &ids, NULL);
        differ += status || ids.count != expected.count ||
                  memcmp(ids.id, expected.id, (size_t)ids.count * sizeof *ids.id) != 0;
        mn__ids_free(&ids);
    }
    assert_int_equal(differ, 0);
    mn__ids_free(&expected);
    mn__tokenizer_free(tokenizer);
}

static void special_ids_and_the_start_are_known(void **state)
{
    (void)state;
    mn__tokenizer *tokenizer = make("llama3");
    assert_int_equal(tokenizer->before.count, 1);
    assert_int_equal(tokenizer->start, tokenizer->before.id[0]);
    assert_true(tokenizer->special[tokenizer->start]);
    assert_false(tokenizer->special[0]);
    mn__tokenizer_free(tokenizer);
    tokenizer = make("t5_after");
    assert_int_equal(tokenizer->before.count, 0);
    assert_int_equal(tokenizer->after.count, 1);
    mn__tokenizer_free(tokenizer);
}

/* ---- What is refused
 * ------------------------------------------------------------------------------ */

static const char tiny[] = "{\"added_tokens\":[{\"id\":3,\"content\":\"<e>\",\"special\":true}],"
                           "\"normalizer\":null,\"pre_tokenizer\":null,\"decoder\":null,"
                           "\"post_processor\":null,\"model\":{\"type\":\"BPE\",\"vocab\":"
                           "{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";

/* The tiny file with one member changed: path "model.merges", value as JSON. */
static mn_status parse_changed(const char *path, const char *value, mn_error *error)
{
    json_t *root = json_loads(tiny, 0, NULL), *object = root;
    const char *dot = strchr(path, '.');
    mn__tokenizer *tokenizer = NULL;
    assert_non_null(root);
    if (dot)
        object = json_object_get(root, "model");
    json_object_set_new(object, dot ? dot + 1 : path, json_loads(value, JSON_DECODE_ANY, NULL));
    char *text = json_dumps(root, JSON_COMPACT);
    mn_status status = parse(&tokenizer, text, error);
    if (status == MN_OK)
        mn__tokenizer_free(tokenizer);
    free(text);
    json_decref(root);
    return status;
}

#define WORD "{\"type\":\"Word\"}"
static const struct {
    const char *path, *value, *says;
    mn_status status;
} refused[] = {
    {"normalizer", "{\"type\":\"BertNormalizer\"}", "BertNormalizer", MN_ERROR_UNSUPPORTED},
    {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[" WORD "]}", "Word",
     MN_ERROR_UNSUPPORTED},
    {"normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}", "charsmap",
     MN_ERROR_FORMAT},
    {"normalizer", "{\"type\":\"Replace\",\"pattern\":{},\"content\":\"\"}", "String",
     MN_ERROR_FORMAT},
    {"normalizer", "{}", "type", MN_ERROR_FORMAT},
    {"pre_tokenizer", "{\"type\":\"BertPreTokenizer\"}", "BertPreTokenizer", MN_ERROR_UNSUPPORTED},
    {"pre_tokenizer",
     "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}", "(",
     MN_ERROR_FORMAT},
    {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Odd\"}",
     "Odd", MN_ERROR_UNSUPPORTED},
    {"pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"maybe\"}",
     "maybe", MN_ERROR_UNSUPPORTED},
    {"decoder", "{\"type\":\"WordPiece\"}", "WordPiece", MN_ERROR_UNSUPPORTED},
    {"decoder", "{\"type\":\"Strip\",\"content\":\" \",\"start\":2,\"stop\":0}", "Strip",
     MN_ERROR_UNSUPPORTED},
    {"post_processor", WORD, "Word", MN_ERROR_UNSUPPORTED},
    {"post_processor", "{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"x\",77]}", "77",
     MN_ERROR_FORMAT},
    {"model", "{\"type\":\"WordPiece\",\"vocab\":{}}", "WordPiece", MN_ERROR_UNSUPPORTED},
    {"model", "null", "model", MN_ERROR_FORMAT},
    {"model.dropout", "0.1", "dropout", MN_ERROR_UNSUPPORTED},
    {"model.continuing_subword_prefix", "\"##\"", "continuing_subword_prefix",
     MN_ERROR_UNSUPPORTED},
    {"model.end_of_word_suffix", "\"</w>\"", "end_of_word_suffix", MN_ERROR_UNSUPPORTED},
    {"model.unk_token", "\"<unk>\"", "<unk>", MN_ERROR_FORMAT},
    {"model.merges", "[\"a b\",\"b a\"]", "merge 1", MN_ERROR_FORMAT},
    {"model.merges", "[\"a b c\"]", "merge 0", MN_ERROR_FORMAT},
    {"model.merges", "[[\"a\"]]", "merge 0", MN_ERROR_FORMAT},
    {"model.vocab", "{\"a\":0,\"b\":2000000000}", "2000000000", MN_ERROR_FORMAT},
    {"model.vocab", "{\"a\":0,\"b\":-1}", "-1", MN_ERROR_FORMAT},
    {"model.vocab", "{\"a\":0,\"b\":0}", "id 0", MN_ERROR_FORMAT},
    {"model.vocab", "{\"a\":\"0\"}", "no integer", MN_ERROR_FORMAT},
    {"model.vocab", "[[\"a\",\"b\"]]", "vocab", MN_ERROR_FORMAT},
    {"added_tokens", "[{\"id\":9,\"content\":\"ab\"}]", "ab", MN_ERROR_FORMAT},
    {"added_tokens", "[{\"id\":2,\"content\":\"other\"}]", "other", MN_ERROR_FORMAT},
    {"added_tokens", "[{\"content\":\"other\"}]", "id", MN_ERROR_FORMAT},
};

static void what_is_unknown_or_broken_is_named(void **state)
{
    (void)state;
    mn_error error;
    assert_int_equal(parse_changed("version", "\"1.0\"", &error), MN_OK);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        mn_status status = parse_changed(refused[i].path, refused[i].value, &error);
        if (status != refused[i].status || !strstr(error.message, refused[i].says))
            fail_msg("%s = %s: %s, \"%s\"", refused[i].path, refused[i].value,
                     mn_status_name(status), error.message);
    }
}

/* Every prefix of a file, and every byte of a small one changed: an error, or another tokenizer. */
static void damage_is_no_crash(void **state)
{
    (void)state;
    char *text = fixture("phi3");
    size_t length = strlen(text);
    mn_error error;
    for (size_t cut = 0; cut < length; cut += 1 + length / 300) {
        mn__tokenizer *tokenizer = NULL;
        assert_int_equal(
            mn__tokenizer_of_payload(&tokenizer, "huggingface", text, (int64_t)cut, NULL, &error),
            MN_ERROR_FORMAT);
    }
    for (size_t at = 0; at < length; at += 1 + length / 500) {
        mn__tokenizer *tokenizer = NULL;
        text[at] ^= 4;
        if (parse(&tokenizer, text, &error) == MN_OK) {
            mn__ids ids = {0};
            mn__tokenizer_encode(tokenizer, "It was the best\n  of times", 26, &ids, &error);
            mn__ids_free(&ids);
            mn__tokenizer_free(tokenizer);
        } else {
            assert_true(strlen(error.message) > 0);
        }
        text[at] ^= 4;
    }
    free(text);
}

/* ---- Files on disk
 * ---------------------------------------------------------------------------------- */

static void a_run_keeps_the_file(void **state)
{
    char *text = fixture("llama3");
    const char *model = folder_path(*state, "model"), *run = folder_path(*state, "run");
    mn__tokenizer *loaded, *again;
    mn_error error;
    int64_t bytes;
    folder_write(folder_path(model, "tokenizer.json"), text, -1);
    assert_int_equal(mn__tokenizer_load(&loaded, model, &error), MN_OK);
    assert_int_equal(mn__tokenizer_save(loaded, run, &error), MN_OK);
    assert_int_equal(mn__tokenizer_load(&again, run, &error), MN_OK);
    assert_string_equal(loaded->fingerprint.hex, again->fingerprint.hex);
    mn__tokenizer_free(again);
    assert_int_equal(mn__tokenizer_load(&again, folder_path(model, "tokenizer.json"), &error),
                     MN_OK);
    assert_string_equal(loaded->fingerprint.hex, again->fingerprint.hex);
    mn__tokenizer_free(again);
    mn__tokenizer_free(loaded);

    const char *kept = folder_path(run, "tokenizer.huggingface.json");
    char *copy = folder_read(kept, &bytes);
    assert_string_equal(copy, text);
    copy[bytes / 2] ^= 1;
    folder_write(kept, copy, bytes);
    assert_int_equal(mn__tokenizer_load(&again, run, &error), MN_ERROR_FORMAT);
    free(copy);
    free(text);
}

static void a_folder_without_one_says_so(void **state)
{
    mn__tokenizer *tokenizer;
    mn_error error;
    const char *empty = folder_path(*state, "empty"), *half = folder_path(*state, "half");
    folder_write(folder_path(empty, "readme"), "", -1);
    assert_int_equal(mn__tokenizer_load(&tokenizer, empty, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "tokenizer.json"));
    folder_write(folder_path(half, "encoder.json"), "{\"a\": 0}", -1);
    assert_int_equal(mn__tokenizer_load(&tokenizer, half, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "vocab.bpe"));
}

/* ---- Memory
 * ------------------------------------------------------------------------------------------- */

typedef struct memory_case {
    const char *text, *folder;
} memory_case;

static mn_status parse_and_use(void *user, mn_error *error)
{
    const memory_case *c = user;
    static const char prose[] = "It was <|user|>  the best of times \xFF \xC3\xA9"
                                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
    mn__tokenizer *tokenizer = NULL;
    mn__ids ids = {0};
    mn__string back = {0};
    mn_status status = parse(&tokenizer, c->text, error);
    if (status)
        return status;
    status = mn__tokenizer_encode(tokenizer, prose, sizeof prose - 1, &ids, error);
    if (!status)
        status = mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, error);
    if (!status)
        status = mn__tokenizer_save(tokenizer, c->folder, error);
    mn__tokenizer_free(tokenizer);
    mn__ids_free(&ids);
    mn__string_free(&back);
    return status;
}

/* The fixture with its vocabulary cut short, so that there are fewer allocations to fail. */
static char *shortened(const char *name)
{
    char *text = fixture(name);
    json_t *root = json_loads(text, 0, NULL), *model = json_object_get(root, "model");
    json_t *merges = json_object_get(model, "merges"), *vocab = json_object_get(model, "vocab");
    free(text);
    while (json_array_size(merges) > 12)
        json_array_remove(merges, 12);
    while (json_is_array(vocab) && json_array_size(vocab) > 300)
        json_array_remove(vocab, 40);
    text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static void every_allocation_may_fail(void **state)
{
    static const char *const names[] = {"phi3", "falcon", "unigram_bytes_after"};
    for (int i = 0; i < 3; i++) {
        char *text = shortened(names[i]);
        memory_case c = {text, folder_path(*state, "failing-%d", i)};
        failing_each(names[i], parse_and_use, &c, false, NULL);
        free(text);
    }
}

static mn_status import_ranks(void *user, mn_error *error)
{
    static const char config[] = "{\"added_tokens_decoder\":{\"2\":{\"content\":\"<e>\"}}}";
    static const char text[] = "YQ== 0\nYg== 1\n";
    const char *family = user;
    mn__string json = {0};
    mn__tokenizer *tokenizer = NULL;
    mn_status status =
        mn__import_tiktoken(text, sizeof text - 1, family, config, sizeof config - 1, &json, error);
    if (!status)
        status = parse(&tokenizer, json.text, error);
    if (!status)
        mn__tokenizer_free(tokenizer);
    mn__string_free(&json);
    return status;
}

static mn_status load_gguf(void *user, mn_error *error)
{
    mn__tokenizer *tokenizer;
    mn_status status = mn__tokenizer_load(&tokenizer, user, error);
    if (!status)
        mn__tokenizer_free(tokenizer);
    return status;
}

static void every_allocation_of_an_import_may_fail(void **state)
{
    static char qwen[] = "qwen";
    static char gguf[] = MNEME_SOURCE_DIR "/tests/golden/vocabularies/qwen2.gguf";
    (void)state;
    failing_each("ranks", import_ranks, qwen, false, NULL);
    failing_each("gguf", load_gguf, gguf, false, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_is_lossless),
        cmocka_unit_test(others_are_not_and_say_so),
        cmocka_unit_test(bad_bytes_are_their_tokens_or_an_error),
        cmocka_unit_test(memory_stays_bounded),
        cmocka_unit_test(threads_share_one),
        cmocka_unit_test(special_ids_and_the_start_are_known),
        cmocka_unit_test(what_is_unknown_or_broken_is_named),
        cmocka_unit_test(damage_is_no_crash),
        cmocka_unit_test(a_run_keeps_the_file),
        cmocka_unit_test(a_folder_without_one_says_so),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(every_allocation_of_an_import_may_fail),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
