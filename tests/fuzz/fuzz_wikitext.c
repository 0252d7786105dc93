/* Fuzzing WikiText: any bytes as a vocabulary of words or characters (the first
 * byte says which and where the text begins), then as titles and as text. What
 * can be encoded gives ids of the vocabulary; words decode to what encodes alike. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus_types.h"
#include "text/tokenizer_types.h"

static void try_titles(const char *text, int64_t bytes)
{
    const char *title;
    int64_t title_bytes;
    if (mn__wikitext_title(text, bytes, &title, &title_bytes) &&
        (title < text || title_bytes < 1 || title + title_bytes > text + bytes))
        abort();
}

static void encode_twice(const mn__tokenizer *tokenizer, const char *text, int64_t bytes)
{
    mn__ids ids = {0}, again = {0};
    mn__string back = {0};
    if (mn__tokenizer_encode(tokenizer, text, bytes, &ids, NULL) == MN_OK) {
        if (mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, NULL) ||
            mn__tokenizer_encode(tokenizer, back.text, back.bytes, &again, NULL) ||
            ids.count != again.count ||
            (ids.count && memcmp(ids.id, again.id, (size_t)ids.count * sizeof *ids.id) != 0))
            abort();
    }
    mn__ids_free(&ids);
    mn__ids_free(&again);
    mn__string_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *payload = (const char *)data + 1, *kind = data[0] & 1 ? "words" : "characters";
    int64_t bytes = (int64_t)size - 1, cut = bytes * (data[0] >> 1) / 128;
    mn__tokenizer *tokenizer;
    try_titles(payload, bytes);
    if (mn__tokenizer_of_payload(&tokenizer, kind, payload, cut, NULL, NULL) == MN_OK) {
        encode_twice(tokenizer, payload + cut, bytes - cut);
        mn__tokenizer_free(tokenizer);
    }
    return 0;
}
