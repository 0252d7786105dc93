/* The vocabularies of llama.cpp as GGUF: opened, and their tokens counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/gguf.h"
#include "base/string.h"

static const char folder[] = MNEME_SOURCE_DIR "/../shared/data/tokenizers/vectors";

static void check_file(const char *name, const char *model, int64_t tokens)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s", folder, name);
    mn__gguf *file;
    mn_error error;
    if (mn__gguf_open(&file, path.text, &error))
        fail_msg("%s", error.message);
    const char *found;
    const mn__gguf_value *texts, *types;
    assert_int_equal(mn__gguf_string(file, "tokenizer.ggml.model", &found, NULL), MN_OK);
    assert_string_equal(found, model);
    assert_int_equal(mn__gguf_array(file, "tokenizer.ggml.tokens", MN__GGUF_STRING, &texts, &error),
                     MN_OK);
    assert_int_equal(texts->as.array.count, tokens);
    assert_int_equal(
        mn__gguf_array(file, "tokenizer.ggml.token_type", MN__GGUF_I32, &types, &error), MN_OK);
    for (int64_t i = 0; i < tokens; i++) {
        int64_t type = 0;
        assert_true(mn__gguf_item_int(types, i, &type));
        assert_in_range(type, 1, 6);
    }
    assert_int_equal(mn__gguf_tensor_count(file), 0);
    mn__gguf_close(file);
    mn__string_free(&path);
}

static void opens_vocabularies(void **state)
{
    (void)state;
    check_file("ggml-vocab-llama-spm.gguf", "llama", 32000);
    check_file("ggml-vocab-phi-3.gguf", "llama", 32064);
    check_file("ggml-vocab-gpt-2.gguf", "gpt2", 50257);
    check_file("ggml-vocab-falcon.gguf", "gpt2", 65024);
}

int main(void)
{
    if (!mn__file_is_folder(folder)) {
        printf("skipped: no %s\n", folder);
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(opens_vocabularies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
