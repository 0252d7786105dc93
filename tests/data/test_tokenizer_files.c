/* Published vocabularies: the vectors of llama.cpp, and what the reference tokenizers made of odd
 * texts (tests/golden/make_tokenizer_vectors.py), by every file that holds the vocabulary. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/file.h"
#include "support/folder.h"
#include "text/tokenizer.h"

static const char *folder; /* of the data, tokenizers/ */
static const char stored[] = MNEME_SOURCE_DIR "/tests/data/vectors";

static mn__tokenizer *load(const char *path)
{
    mn__string whole = {0};
    mn__tokenizer *tokenizer;
    mn_error error;
    mn__string_printf(&whole, "%s/%s", folder, path);
    if (mn__tokenizer_load(&tokenizer, whole.text, &error))
        fail_msg("%s", error.message);
    mn__string_free(&whole);
    return tokenizer;
}

static void expect_text(const mn__tokenizer *tokenizer, const char *text, int64_t bytes,
                        const mn__ids *ids)
{
    mn__string back = {0};
    for (int64_t i = 0; i < ids->count; i++)
        assert_in_range(ids->id[i], 0, tokenizer->vocab - 1);
    assert_int_equal(mn__tokenizer_decode(tokenizer, ids->id, ids->count, &back, NULL), MN_OK);
    if (tokenizer->lossless) {
        assert_int_equal(back.bytes, bytes);
        assert_memory_equal(back.text ? back.text : "", text, (size_t)bytes);
    }
    mn__string_free(&back);
}

/* ---- llama.cpp's: texts between lines __ggml_vocab_test__, a line of ids for each ---------------
 */

static int64_t check_ggml_text(const mn__tokenizer *tokenizer, const char *text, int64_t bytes,
                               char **expected)
{
    mn__ids ids = {0};
    assert_int_equal(mn__tokenizer_encode(tokenizer, text, bytes, &ids, NULL), MN_OK);
    char *line = *expected, *end = strchr(line, '\n');
    *end = '\0';
    *expected = end + 1;
    for (int64_t i = 0; i < ids.count; i++)
        if (strtol(line, &line, 10) != ids.id[i])
            fail_msg("\"%.*s\": id %d is %d", (int)bytes, text, (int)i, ids.id[i]);
    assert_int_equal(strspn(line, " "), strlen(line)); /* no more ids */
    expect_text(tokenizer, text, bytes, &ids);
    mn__ids_free(&ids);
    return 1;
}

static void check_ggml(const char *vectors, const char *path)
{
    static const char between[] = "\n__ggml_vocab_test__\n";
    mn__string in = {0}, out = {0};
    int64_t bytes, count = 0;
    mn__string_printf(&in, "%s/vectors/ggml-vocab-%s.gguf.inp", folder, vectors);
    mn__string_printf(&out, "%s/vectors/ggml-vocab-%s.gguf.out", folder, vectors);
    char *texts = folder_read(in.text, &bytes), *ids = folder_read(out.text, &bytes), *line = ids;
    mn__tokenizer *tokenizer = load(path);
    for (char *at = texts, *end; (end = strstr(at, between)); at = end + sizeof between - 1)
        count += check_ggml_text(tokenizer, at, end - at, &line);
    assert_int_equal(count, 46);
    mn__tokenizer_free(tokenizer);
    free(texts);
    free(ids);
    mn__string_free(&in);
    mn__string_free(&out);
}

static void llama_cpps_vectors(void **state)
{
    (void)state;
    check_ggml("gpt-2", "gpt2");
    check_ggml("gpt-2", "vectors/ggml-vocab-gpt-2.gguf");
    check_ggml("falcon", "falcon");
    check_ggml("falcon", "vectors/ggml-vocab-falcon.gguf");
    check_ggml("phi-3", "phi3/tokenizer.json");
    check_ggml("phi-3", "vectors/ggml-vocab-phi-3.gguf");
    check_ggml("llama-spm", "llama2/tokenizer.model");
    check_ggml("llama-spm", "vectors/ggml-vocab-llama-spm.gguf");
    check_ggml("llama-bpe", "llama3/tokenizer.model");
    check_ggml("qwen2", "qwen2");
}

/* ---- Ours
 * -------------------------------------------------------------------------------------------- */

static void check_stored(const char *name, const char *path)
{
    mn__string file = {0};
    mn__string_printf(&file, "%s/%s.json", stored, name);
    json_t *vectors = json_load_file(file.text, 0, NULL), *vector;
    mn__tokenizer *tokenizer = load(path);
    size_t i;
    assert_true(json_array_size(vectors) > 70);
    json_array_foreach(vectors, i, vector)
    {
        const char *text = json_string_value(json_array_get(vector, 0));
        const json_t *expected = json_array_get(vector, 1);
        mn__ids ids = {0};
        assert_int_equal(mn__tokenizer_encode(tokenizer, text, (int64_t)strlen(text), &ids, NULL),
                         MN_OK);
        for (int64_t k = 0; k < ids.count; k++)
            if (ids.id[k] != json_integer_value(json_array_get(expected, (size_t)k)))
                fail_msg("%s \"%s\": id %d is %d", path, text, (int)k, ids.id[k]);
        assert_int_equal(ids.count, json_array_size(expected));
        expect_text(tokenizer, text, (int64_t)strlen(text), &ids);
        mn__ids_free(&ids);
    }
    mn__tokenizer_free(tokenizer);
    json_decref(vectors);
    mn__string_free(&file);
}

static void the_references_vectors(void **state)
{
    (void)state;
    check_stored("phi2", "phi2");
    check_stored("phi3", "phi3");
    check_stored("falcon", "falcon");
    check_stored("t5", "t5");
    check_stored("gpt2", "gpt2/encoder.json");
    check_stored("llama3", "llama3");
    check_stored("qwen2", "qwen2/qwen.tiktoken");
    check_stored("llama2", "llama2/tokenizer.model");
}

/* Bytes that are no UTF-8 come back as they were, where the vocabulary has them all. */
static void any_bytes_come_back(void **state)
{
    (void)state;
    static const char bytes[] = "a\xFF\xFE b\xC3( \xED\xA0\x80 cut \xF0\x9F\x98";
    static const char *const paths[] = {"gpt2", "phi2", "llama3"};
    for (int i = 0; i < 3; i++) {
        mn__tokenizer *tokenizer = load(paths[i]);
        mn__ids ids = {0};
        assert_true(tokenizer->any_bytes);
        assert_int_equal(mn__tokenizer_encode(tokenizer, bytes, sizeof bytes - 1, &ids, NULL),
                         MN_OK);
        expect_text(tokenizer, bytes, sizeof bytes - 1, &ids);
        mn__ids_free(&ids);
        mn__tokenizer_free(tokenizer);
    }
}

int main(void)
{
    const char *root = getenv("MNEME_DATA");
    mn__string path = {0};
    mn__string_printf(&path, "%s/tokenizers", root ? root : MNEME_SOURCE_DIR "/../shared/data");
    folder = path.text;
    if (!mn__file_is_folder(folder)) {
        printf("skipped: no %s\n", folder);
        mn__string_free(&path);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_cpps_vectors),
        cmocka_unit_test(the_references_vectors),
        cmocka_unit_test(any_bytes_come_back),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mn__string_free(&path);
    return failed;
}
