/* Fuzzing tokenizer.json: any bytes as a file. What is accepted encodes texts of every class of
 * character, whole and in pieces, to the same ids, each in the vocabulary. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_types.h"

static const char text[] =
    "It's the   best\nof 12345 times,\r\n\n <|user|>  \t caf\xC3\xA9 e\xCC\x81 "
    "\xE2\x96\x81x \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80 aaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nEnd \xFF\xC3";

static void use(const mn__tokenizer *tokenizer)
{
    mn__ids whole = {0}, parts = {0};
    mn__string back = {0};
    mn__encoder encoder;
    mn_error error;
    int64_t bytes = sizeof text - 1;
    mn_status status = mn__tokenizer_encode(tokenizer, text, bytes, &whole, &error), other;
    for (int64_t i = 0; !status && i < whole.count; i++)
        if (whole.id[i] < 0 || whole.id[i] >= tokenizer->vocab)
            abort();
    if (!status && mn__tokenizer_decode(tokenizer, whole.id, whole.count, &back, &error))
        abort();
    if (!status && tokenizer->any_bytes &&
        (back.bytes != bytes || memcmp(back.text, text, (size_t)bytes)))
        abort();
    mn__encoder_begin(&encoder, tokenizer);
    other = mn__encoder_feed(&encoder, text, bytes / 2, &parts, &error);
    if (!other)
        other = mn__encoder_feed(&encoder, text + bytes / 2, bytes - bytes / 2, &parts, &error);
    if (!other)
        other = mn__encoder_end(&encoder, &parts, &error);
    if (!status && !other &&
        (whole.count != parts.count ||
         (whole.count && memcmp(whole.id, parts.id, (size_t)whole.count * sizeof *whole.id))))
        abort();
    mn__encoder_free(&encoder);
    mn__ids_free(&whole);
    mn__ids_free(&parts);
    mn__string_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mn__tokenizer *tokenizer;
    mn_error error = {0};
    if (mn__tokenizer_of_payload(&tokenizer, "huggingface", (const char *)data, (int64_t)size, NULL,
                                 &error) == MN_OK) {
        use(tokenizer);
        mn__tokenizer_free(tokenizer);
    } else if (error.message[0] == '\0') {
        abort();
    }
    return 0;
}
