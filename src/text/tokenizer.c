/* Tokenizers: what all kinds share. Encoding and learning a document that comes
 * in pieces, decoding, saving, loading. */
#include "text/tokenizer.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer_types.h"

const mn__tokenizer_type *const mn__tokenizer_types[] = {
    &mn__tokenizer_type_bytes,         &mn__tokenizer_type_characters,  &mn__tokenizer_type_words,
    &mn__tokenizer_type_sentencepiece, &mn__tokenizer_type_huggingface, NULL,
};

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

mn_status mn__tokenizer_type_find(const mn__tokenizer_type **type, const char *name,
                                  mn_error *error)
{
    for (int i = 0; (*type = mn__tokenizer_types[i]); i++)
        if (strcmp((*type)->name, name) == 0)
            return MN_OK;
    return mn__fail(error, MN_ERROR_OPTION,
                    "use bytes, characters, words, sentencepiece or huggingface",
                    "no kind of tokenizer is named \"%s\"", name);
}

/* ---- A document in pieces ------------------------------------------------- */

/* Drops the first `used` bytes, which were dealt with. */
static void drop_used(mn__string *waiting, int64_t used)
{
    if (used == 0)
        return;
    waiting->bytes -= used;
    memmove(waiting->text, waiting->text + used, (size_t)waiting->bytes + 1);
}

void mn__encoder_begin(mn__encoder *encoder, const mn__tokenizer *tokenizer)
{
    *encoder = (mn__encoder){.tokenizer = tokenizer};
}

/* Encodes what can be. A kind says where the fault is within what it was given. */
static mn_status encode_waiting(mn__encoder *encoder, bool last, mn__ids *ids, mn_error *error)
{
    const mn__tokenizer *tokenizer = encoder->tokenizer;
    int64_t used = 0;
    if (encoder->waiting.failed)
        return fail_memory(error);
    if (encoder->waiting.bytes == 0)
        return MN_OK;
    mn_status status = tokenizer->type->encode(tokenizer, encoder->waiting.text,
                                               encoder->waiting.bytes, last, &used, ids, error);
    if (status && encoder->consumed > 0)
        mn__error_prefix(error, "after the first %lld bytes", (long long)encoder->consumed);
    if (!status && ids->failed)
        status = fail_memory(error);
    drop_used(&encoder->waiting, used);
    encoder->consumed += used;
    return status;
}

mn_status mn__encoder_feed(mn__encoder *encoder, const char *text, int64_t bytes, mn__ids *ids,
                           mn_error *error)
{
    mn__string_add(&encoder->waiting, text, bytes);
    return encode_waiting(encoder, false, ids, error);
}

mn_status mn__encoder_end(mn__encoder *encoder, mn__ids *ids, mn_error *error)
{
    mn_status status = encode_waiting(encoder, true, ids, error);
    assert(status || encoder->waiting.bytes == 0);
    mn__string_clear(&encoder->waiting);
    encoder->consumed = 0;
    return status;
}

void mn__encoder_free(mn__encoder *encoder)
{
    mn__string_free(&encoder->waiting);
}

mn_status mn__tokenizer_encode(const mn__tokenizer *tokenizer, const char *text, int64_t bytes,
                               mn__ids *ids, mn_error *error)
{
    int64_t used = 0;
    if (bytes == 0)
        return MN_OK;
    mn_status status = tokenizer->type->encode(tokenizer, text, bytes, true, &used, ids, error);
    return !status && ids->failed ? fail_memory(error) : status;
}

/* ---- Pieces --------------------------------------------------------------- */

mn_status mn__tokenizer_add_piece(mn__tokenizer *tokenizer, const char *bytes, int64_t count,
                                  mn_error *error)
{
    if (tokenizer->vocab == INT32_MAX)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "a vocabulary of over 2^31 ids");
    if (tokenizer->vocab + 2 > tokenizer->piece_capacity) {
        int64_t capacity = 2 * tokenizer->piece_capacity + 512;
        int64_t *begins = mn__realloc(tokenizer->piece_begins, capacity * (int64_t)sizeof *begins);
        if (!begins)
            return fail_memory(error);
        tokenizer->piece_begins = begins;
        tokenizer->piece_capacity = capacity;
        begins[0] = 0;
    }
    mn__string_add(&tokenizer->pieces, bytes, count);
    tokenizer->piece_begins[++tokenizer->vocab] = tokenizer->pieces.bytes;
    return tokenizer->pieces.failed ? fail_memory(error) : MN_OK;
}

const char *mn__tokenizer_piece(const mn__tokenizer *tokenizer, int32_t id, int64_t *bytes)
{
    assert(id >= 0 && id < tokenizer->vocab);
    const int64_t *begin = tokenizer->piece_begins + id;
    *bytes = begin[1] - begin[0];
    return tokenizer->pieces.text + begin[0];
}

mn_status mn__tokenizer_decode(const mn__tokenizer *tokenizer, const int32_t *ids, int64_t count,
                               mn__string *text, mn_error *error)
{
    bool at_start = tokenizer->strip_first_space;
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer->vocab)
            return mn__fail(error, MN_ERROR_MISMATCH, "the ids were made by another tokenizer",
                            "id %d is outside the vocabulary of %lld", ids[i],
                            (long long)tokenizer->vocab);
        int64_t bytes;
        const char *piece = mn__tokenizer_piece(tokenizer, ids[i], &bytes);
        int64_t skip = at_start && bytes > 0 && piece[0] == ' ';
        mn__string_add(text, piece + skip, bytes - skip);
        at_start = at_start && bytes == 0;
    }
    return text->failed ? fail_memory(error) : MN_OK;
}

/* ---- Making and learning -------------------------------------------------- */

void mn__tokenizer_free(mn__tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    if (tokenizer->type->free)
        tokenizer->type->free(tokenizer->own);
    else
        mn__free(tokenizer->own);
    mn__string_free(&tokenizer->payload);
    mn__string_free(&tokenizer->pieces);
    mn__free(tokenizer->piece_begins);
    mn__ids_free(&tokenizer->before);
    mn__ids_free(&tokenizer->after);
    mn__free(tokenizer->special);
    mn__free(tokenizer);
}

static mn_status set_fingerprint(mn__tokenizer *tokenizer, mn_error *error)
{
    mn__hash *hash = mn__hash_new();
    if (!hash)
        return fail_memory(error);
    mn__hash_add(hash, tokenizer->type->name, (int64_t)strlen(tokenizer->type->name) + 1);
    mn__hash_add(hash, tokenizer->payload.text, tokenizer->payload.bytes);
    tokenizer->fingerprint = mn__hash_end(hash);
    return MN_OK;
}

static mn_status check_fingerprint(mn__tokenizer *tokenizer, const char *expected, mn_error *error)
{
    mn_status status = set_fingerprint(tokenizer, error);
    if (status || !expected || strcmp(expected, tokenizer->fingerprint.hex) == 0)
        return status;
    return mn__fail(error, MN_ERROR_FORMAT, "copy the folder again: a file of it was changed",
                    "the %s tokenizer's file does not have the fingerprint %s",
                    tokenizer->type->name, expected);
}

/* A tokenizer of a kind and its payload, which it takes over (also on failure). */
static mn_status make(mn__tokenizer **out, const mn__tokenizer_type *type, mn__string *payload,
                      const char *expected, mn_error *error)
{
    mn__tokenizer *tokenizer = payload->failed ? NULL : mn__calloc(1, sizeof *tokenizer);
    if (!tokenizer) {
        mn__string_free(payload);
        return fail_memory(error);
    }
    tokenizer->type = type;
    tokenizer->payload = *payload;
    *payload = (mn__string){0};
    mn_status status = check_fingerprint(tokenizer, expected, error);
    if (!status)
        status = type->parse(tokenizer, error);
    if (status) {
        mn__tokenizer_free(tokenizer);
        return status;
    }
    *out = tokenizer;
    return MN_OK;
}

mn_status mn__tokenizer_bytes(mn__tokenizer **tokenizer, mn_error *error)
{
    return make(tokenizer, &mn__tokenizer_type_bytes, &(mn__string){0}, NULL, error);
}

mn_status mn__tokenizer_of_payload(mn__tokenizer **tokenizer, const char *kind, const char *payload,
                                   int64_t bytes, const char *expected, mn_error *error)
{
    const mn__tokenizer_type *type;
    mn__string copy = {0};
    mn_status status = mn__tokenizer_type_find(&type, kind, error);
    if (status)
        return status;
    mn__string_add(&copy, payload, bytes);
    return make(tokenizer, type, &copy, expected, error);
}

struct mn__tokenizer_builder {
    const mn__tokenizer_type *type;
    void *learner;
    mn__string waiting;
};

mn_status mn__tokenizer_builder_new(mn__tokenizer_builder **out, const char *kind,
                                    mn__tokenizer_plan plan, mn_error *error)
{
    const mn__tokenizer_type *type;
    mn_status status = mn__tokenizer_type_find(&type, kind, error);
    if (status)
        return status;
    mn__tokenizer_builder *builder = mn__calloc(1, sizeof *builder);
    if (!builder)
        return fail_memory(error);
    builder->type = type;
    if (type->learner_new)
        status = type->learner_new(&builder->learner, plan, error);
    if (status)
        mn__tokenizer_builder_free(builder);
    else
        *out = builder;
    return status;
}

static mn_status learn_waiting(mn__tokenizer_builder *builder, bool last, mn_error *error)
{
    int64_t used = 0;
    if (builder->waiting.failed)
        return fail_memory(error);
    if (builder->waiting.bytes == 0)
        return MN_OK;
    mn_status status = builder->type->learn(builder->learner, builder->waiting.text,
                                            builder->waiting.bytes, last, &used, error);
    drop_used(&builder->waiting, used);
    return status;
}

mn_status mn__tokenizer_builder_feed(mn__tokenizer_builder *builder, const char *text,
                                     int64_t bytes, mn_error *error)
{
    if (!builder->type->learn)
        return MN_OK;
    mn__string_add(&builder->waiting, text, bytes);
    return learn_waiting(builder, false, error);
}

mn_status mn__tokenizer_builder_end_document(mn__tokenizer_builder *builder, mn_error *error)
{
    mn_status status = learn_waiting(builder, true, error);
    mn__string_clear(&builder->waiting);
    return status;
}

mn_status mn__tokenizer_builder_end(mn__tokenizer_builder *builder, mn__tokenizer **tokenizer,
                                    mn_error *error)
{
    mn__string payload = {0};
    mn_status status = mn__tokenizer_builder_end_document(builder, error);
    if (!status && builder->type->finish)
        status = builder->type->finish(builder->learner, &payload, error);
    if (!status)
        status = make(tokenizer, builder->type, &payload, NULL, error);
    mn__string_free(&payload);
    mn__tokenizer_builder_free(builder);
    return status;
}

void mn__tokenizer_builder_free(mn__tokenizer_builder *builder)
{
    if (!builder)
        return;
    if (builder->type->learner_free)
        builder->type->learner_free(builder->learner);
    else
        mn__free(builder->learner);
    mn__string_free(&builder->waiting);
    mn__free(builder);
}
