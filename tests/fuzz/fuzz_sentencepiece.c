/* Fuzzing tokenizer.model: any bytes as a SentencePiece model. What is accepted names its pieces,
 * finds them again by their names and encodes to ids that it has; the rest is an error that says
 * why not. */
#include <stdint.h>
#include <stdlib.h>

#include "text/sentencepiece.h"
#include "text/tokenizer_types.h"

static void check_ids(const mn__ids *ids, int64_t vocabulary)
{
    for (int64_t i = 0; i < ids->count; i++)
        if (ids->id[i] < 0 || ids->id[i] >= vocabulary)
            abort();
}

static void use_model(const mn__sentencepiece *model)
{
    static const char prose[] = "It's the best\n of 12345 \xC3\xA9 times \xE2\x96\x81";
    int32_t vocabulary = mn__sentencepiece_vocab(model);
    mn__ids ids = {0};
    mn_error error = {0};
    for (int32_t id = 0; id < vocabulary; id++) {
        mn__piece_kind kind;
        const char *piece = mn__sentencepiece_piece(model, id, &kind);
        (void)mn__sentencepiece_score(model, id);
        if (mn__sentencepiece_find(model, piece) >= vocabulary)
            abort();
    }
    if (mn__sentencepiece_begin(model) >= vocabulary)
        abort();
    if (mn__sentencepiece_encode(model, prose, sizeof prose - 1, &ids, &error) == MN_OK)
        check_ids(&ids, vocabulary);
    mn__ids_free(&ids);
}

static void use_tokenizer(const char *bytes, int64_t count)
{
    mn__tokenizer *tokenizer;
    mn__ids ids = {0};
    mn_error error = {0};
    if (mn__tokenizer_of_payload(&tokenizer, "sentencepiece", bytes, count, NULL, &error) !=
        MN_OK) {
        if (error.message[0] == '\0')
            abort();
        return;
    }
    if (mn__tokenizer_encode(tokenizer, "a b\xC3\xA9", 5, &ids, &error) == MN_OK)
        check_ids(&ids, tokenizer->vocab);
    mn__tokenizer_free(tokenizer);
    mn__ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mn__sentencepiece *model;
    mn_error error = {0};
    if (mn__sentencepiece_parse(&model, (const char *)data, (int64_t)size, &error) == MN_OK) {
        use_model(model);
        mn__sentencepiece_free(model);
    } else if (error.message[0] == '\0') {
        abort();
    }
    use_tokenizer((const char *)data, (int64_t)size);
    return 0;
}
