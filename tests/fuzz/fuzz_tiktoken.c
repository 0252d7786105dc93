/* Fuzzing rank files: any bytes as a file of each family, with what follows a zero byte as the
 * tokenizer_config.json beside it. What is accepted is a tokenizer, or an error that says why not.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/import.h"
#include "text/tokenizer_types.h"

static void try(const char *family, const char *text, int64_t bytes, const char *config,
                int64_t config_bytes)
{
    static const char prose[] = "It's the best\n of 12345 \xC3\xA9 times";
    mn__string json = {0};
    mn__tokenizer *tokenizer;
    mn__ids ids = {0};
    mn_error error = {0};
    mn_status status =
        mn__import_tiktoken(text, bytes, family, config, config_bytes, &json, &error);
    if (!status)
        status = mn__tokenizer_of_payload(&tokenizer, "huggingface", json.text, json.bytes, NULL,
                                          &error);
    if (!status) {
        mn__tokenizer_encode(tokenizer, prose, sizeof prose - 1, &ids, &error);
        for (int64_t i = 0; i < ids.count; i++)
            if (ids.id[i] < 0 || ids.id[i] >= tokenizer->vocab)
                abort();
        mn__tokenizer_free(tokenizer);
    } else if (error.message[0] == '\0') {
        abort();
    }
    mn__ids_free(&ids);
    mn__string_free(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const families[] = {"llama3", "qwen", "glm4", NULL};
    const char *text = (const char *)data;
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    int64_t bytes = zero ? zero - data : (int64_t)size;
    const char *config = zero ? text + bytes + 1 : NULL;
    if (mn__import_is_tiktoken(text, bytes))
        for (int i = 0; i < 4; i++)
            try(families[i], text, bytes, config, zero ? (int64_t)size - bytes - 1 : 0);
    return 0;
}
