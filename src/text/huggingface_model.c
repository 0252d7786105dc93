/* The model of a tokenizer.json. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "text/byte_alphabet.h"
#include "text/huggingface.h"

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

void mn__cutter_init(mn__cutter *cutter)
{
    *cutter = (mn__cutter){0};
    mn__bpe_init(&cutter->bpe);
    memset(cutter->unigram.byte_ids, -1, sizeof cutter->unigram.byte_ids);
    cutter->unigram.unknown = -1;
}

void mn__cutter_free(mn__cutter *cutter)
{
    mn__bpe_free(&cutter->bpe);
    mn__unigram_free(&cutter->unigram);
    mn__free(cutter->tokens);
    mn__vocabulary_free(&cutter->texts);
}

int32_t mn__cutter_find(const mn__cutter *cutter, const char *text)
{
    int32_t word = mn__vocabulary_find(&cutter->texts, text, (int64_t)strlen(text));
    return word < 0 ? -1 : (int32_t)cutter->texts.words[word].count;
}

mn_status mn__cutter_set(mn__cutter *cutter, const char *file, int64_t id, const char *text,
                         mn_error *error)
{
    /* A file may leave ids out, but not most of them. */
    if (id < 0 || id > INT_MAX - 1 || id >= 16 * cutter->texts.count + (1 << 16))
        return mn__fail(error, MN_ERROR_FORMAT, NULL,
                        "%s: the token \"%s\" has id %lld, far outside of the vocabulary", file,
                        text, (long long)id);
    if (id >= cutter->capacity) {
        int64_t capacity = id + 1 > 2 * cutter->capacity ? id + 1 : 2 * cutter->capacity;
        const char **tokens =
            mn__realloc(cutter->tokens, mn__size_product(capacity, (int64_t)sizeof *tokens));
        if (!tokens)
            return fail_memory(error);
        for (int64_t i = cutter->capacity; i < capacity; i++)
            tokens[i] = NULL;
        cutter->tokens = tokens;
        cutter->capacity = capacity;
    }
    cutter->vocab = id >= cutter->vocab ? id + 1 : cutter->vocab;
    if (cutter->tokens[id] && strcmp(cutter->tokens[id], text))
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: the id %lld is \"%s\" and \"%s\"", file,
                        (long long)id, cutter->tokens[id], text);
    cutter->tokens[id] = text;
    int64_t before = cutter->texts.count;
    mn__vocabulary_word *word = mn__vocabulary_add(&cutter->texts, text, (int64_t)strlen(text));
    if (!word)
        return fail_memory(error);
    if (cutter->texts.count > before)
        word->count = id;
    return MN_OK;
}

/* ---- Tokens
 * --------------------------------------------------------------------------------------- */

/* The text as the BPE sees it: bytes where it works on bytes. False for a token that no text
 * becomes. */
static bool seen_text(const mn__bpe *bpe, const char *text, mn__string *out)
{
    mn__string_clear(out);
    if (bpe->byte_level)
        return mn__alphabet_to_bytes(text, (int64_t)strlen(text), out);
    mn__string_puts(out, text);
    return true;
}

static mn_status add_token(mn__cutter *cutter, const char *file, const char *text, int64_t id,
                           mn__string *seen, mn_error *error)
{
    mn_status status = mn__cutter_set(cutter, file, id, text, error);
    if (status)
        return status;
    bool known = seen_text(&cutter->bpe, text, seen);
    if (seen->failed)
        return fail_memory(error);
    if (!known || seen->bytes == 0)
        return MN_OK;
    status = mn__bpe_add_token(&cutter->bpe, seen->text, seen->bytes, (int32_t)id, error);
    if (status)
        mn__error_prefix(error, "%s", file);
    return status;
}

static void find_byte_ids(const mn__cutter *cutter, int32_t byte_ids[256])
{
    for (int64_t id = 0; id < cutter->vocab; id++) {
        unsigned byte;
        const char *token = cutter->tokens[id];
        if (token && strlen(token) == 6 && sscanf(token, "<0x%2X>", &byte) == 1 && token[5] == '>')
            byte_ids[byte] = (int32_t)id;
    }
}

/* ---- BPE
 * -------------------------------------------------------------------------------------------- */

static mn_status refuse_text(mn__json model, const char *key, mn_error *error)
{
    const char *text = "";
    mn_status status = mn__json_string(model, key, MN__JSON_OPTIONAL, &text, error);
    if (!status && *text)
        status =
            mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: a model with a %s", model.file, key);
    return status;
}

static mn_status parse_flags(mn__cutter *cutter, mn__json model, mn_error *error)
{
    mn__bpe *bpe = &cutter->bpe;
    double dropout = 0;
    mn_status status = refuse_text(model, "continuing_subword_prefix", error);
    if (!status)
        status = refuse_text(model, "end_of_word_suffix", error);
    if (!status)
        status = mn__json_float(model, "dropout", MN__JSON_OPTIONAL, &dropout, error);
    if (!status && dropout > 0)
        status =
            mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: a model with dropout", model.file);
    if (!status)
        status = mn__json_bool(model, "fuse_unk", MN__JSON_OPTIONAL, &bpe->fuse_unknown, error);
    if (!status)
        status =
            mn__json_bool(model, "byte_fallback", MN__JSON_OPTIONAL, &bpe->byte_fallback, error);
    if (!status)
        status = mn__json_bool(model, "ignore_merges", MN__JSON_OPTIONAL, &bpe->whole_words, error);
    return status;
}

/* After all tokens are there. */
static mn_status parse_unknown(mn__cutter *cutter, mn__json model, mn_error *error)
{
    const char *text = NULL;
    mn_status status = mn__json_string(model, "unk_token", MN__JSON_OPTIONAL, &text, error);
    if (!status && text)
        cutter->bpe.unknown = mn__cutter_find(cutter, text);
    if (!status && text && cutter->bpe.unknown < 0)
        status = mn__fail(error, MN_ERROR_FORMAT, NULL,
                          "%s: the unk_token \"%s\" is not in the vocabulary", model.file, text);
    if (!status && !cutter->bpe.byte_level)
        find_byte_ids(cutter, cutter->bpe.byte_ids);
    return status;
}

static mn_status parse_vocabulary(mn__cutter *cutter, mn__json model, mn_error *error)
{
    mn__json vocab;
    mn__string seen = {0};
    mn_status status = mn__json_object(model, "vocab", MN__JSON_REQUIRED, &vocab, error);
    if (status)
        return status;
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)vocab.value, text, id)
    {
        if (!status && !json_is_integer(id))
            status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: the id of \"%s\" is no integer",
                              model.file, text);
        if (!status)
            status = add_token(cutter, model.file, text, json_integer_value(id), &seen, error);
    }
    mn__string_free(&seen);
    return status;
}

/* One merge: "left right", or ["left", "right"]. */
static mn_status parse_merge(mn__cutter *cutter, const char *file, const json_t *merge,
                             int32_t rank, mn__string seen[2], mn_error *error)
{
    const char *left = json_string_value(merge), *right = left ? strchr(left, ' ') : NULL;
    mn__string_clear(&seen[0]);
    if (right && !strchr(right + 1, ' ')) {
        mn__string_add(&seen[0], left, right - left);
        left = seen[0].text;
        right++;
    } else {
        left = json_string_value(json_array_get(merge, 0));
        right = json_string_value(json_array_get(merge, 1));
    }
    if (seen[0].failed)
        return fail_memory(error);
    if (!left || !right)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: merge %d is no pair of tokens", file,
                        rank);
    mn__string a = {0};
    bool known = seen_text(&cutter->bpe, left, &a) && seen_text(&cutter->bpe, right, &seen[1]);
    mn_status status = MN_OK;
    if (a.failed || seen[1].failed)
        status = fail_memory(error);
    else if (known)
        status = mn__bpe_add_merge(&cutter->bpe, a.text ? a.text : "", a.bytes,
                                   seen[1].text ? seen[1].text : "", seen[1].bytes, rank, error);
    if (status == MN_ERROR_FORMAT)
        mn__error_prefix(error, "%s", file);
    mn__string_free(&a);
    return status;
}

static mn_status parse_bpe(mn__cutter *cutter, mn__json model, mn_error *error)
{
    mn__json merges;
    mn__string seen[2] = {{0}};
    mn_status status = parse_flags(cutter, model, error);
    if (!status)
        status = parse_vocabulary(cutter, model, error);
    if (!status)
        status = parse_unknown(cutter, model, error);
    if (!status)
        status = mn__json_array(model, "merges", MN__JSON_REQUIRED, &merges, error);
    if (status)
        return status;
    size_t count = json_array_size(merges.value);
    if (count >= INT_MAX)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: over 2^31 merges", model.file);
    for (size_t i = 0; !status && i < count; i++)
        status = parse_merge(cutter, model.file, json_array_get(merges.value, i), (int32_t)i, seen,
                             error);
    mn__string_free(&seen[0]);
    mn__string_free(&seen[1]);
    return status;
}

/* ---- TokenRanks
 * -------------------------------------------------------------------------------------- */

static mn_status parse_ranks(mn__cutter *cutter, mn__json model, mn_error *error)
{
    mn__json tokens;
    mn__string seen = {0};
    mn_status status = parse_flags(cutter, model, error);
    if (!status)
        status = mn__json_array(model, "tokens", MN__JSON_REQUIRED, &tokens, error);
    if (status)
        return status;
    size_t count = json_array_size(tokens.value);
    for (size_t i = 0; !status && i < count; i++) {
        const json_t *token = json_array_get(tokens.value, i), *rank = json_array_get(token, 1);
        const char *text = json_string_value(json_array_get(token, 0));
        json_int_t value = json_integer_value(rank);
        if (!text || (!json_is_null(rank) && !json_is_integer(rank)) || value < 0 ||
            value >= INT_MAX)
            status = mn__fail(error, MN_ERROR_FORMAT, NULL,
                              "%s: token %zu is no pair of a text and a rank", model.file, i);
        else if (json_is_null(rank))
            status = mn__cutter_set(cutter, model.file, (int64_t)i, text, error);
        else
            status = add_token(cutter, model.file, text, (int64_t)i, &seen, error);
    }
    if (!status)
        status = parse_unknown(cutter, model, error);
    for (size_t i = 0; !status && i < count; i++) {
        const json_t *token = json_array_get(tokens.value, i), *rank = json_array_get(token, 1);
        if (json_is_null(rank) ||
            !seen_text(&cutter->bpe, json_string_value(json_array_get(token, 0)), &seen))
            continue;
        status = seen.failed ? fail_memory(error)
                             : mn__bpe_add_splits(&cutter->bpe, seen.text, seen.bytes,
                                                  (int32_t)json_integer_value(rank), error);
    }
    mn__string_free(&seen);
    return status;
}

/* ---- Unigram
 * -------------------------------------------------------------------------------------------- */

static mn_status parse_unigram(mn__cutter *cutter, mn__json model, mn_error *error)
{
    mn__unigram *unigram = &cutter->unigram;
    mn__json vocab;
    int64_t unknown = -1;
    cutter->is_unigram = true;
    mn_status status = mn__json_int(model, "unk_id", MN__JSON_OPTIONAL, &unknown, error);
    if (!status)
        status = mn__json_bool(model, "byte_fallback", MN__JSON_OPTIONAL, &unigram->byte_fallback,
                               error);
    if (!status)
        status = mn__json_array(model, "vocab", MN__JSON_REQUIRED, &vocab, error);
    if (status)
        return status;
    size_t count = json_array_size(vocab.value);
    for (size_t i = 0; !status && i < count; i++) {
        const json_t *token = json_array_get(vocab.value, i);
        const json_t *score = json_array_get(token, 1);
        const char *text = json_string_value(json_array_get(token, 0));
        if (!text || !json_is_number(score))
            status = mn__fail(error, MN_ERROR_FORMAT, NULL,
                              "%s: token %zu is no pair of a text and a score", model.file, i);
        else
            status = mn__cutter_set(cutter, model.file, (int64_t)i, text, error);
        if (!status)
            status = mn__unigram_add(unigram, text, (int64_t)strlen(text), json_number_value(score),
                                     error);
    }
    if (!status && (unknown < -1 || unknown >= unigram->vocab))
        status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: unk_id %lld is no token", model.file,
                          (long long)unknown);
    unigram->unknown = (int32_t)unknown;
    find_byte_ids(cutter, unigram->byte_ids);
    return status;
}

mn_status mn__cutter_parse(mn__cutter *cutter, const char *file, const json_t *value,
                           bool byte_level, mn_error *error)
{
    mn__json model = {file, value};
    /* Old files do not name the type. */
    const char *type = json_is_array(json_object_get(value, "vocab")) ? "Unigram" : "BPE";
    mn_status status = mn__json_string(model, "type", MN__JSON_OPTIONAL, &type, error);
    if (status)
        return status;
    cutter->bpe.byte_level = byte_level;
    if (strcmp(type, "BPE") == 0)
        return parse_bpe(cutter, model, error);
    if (strcmp(type, "TokenRanks") == 0)
        return parse_ranks(cutter, model, error);
    if (strcmp(type, "Unigram") || byte_level)
        return mn__fail(error, MN_ERROR_UNSUPPORTED,
                        "models are BPE and Unigram, the second not on bytes",
                        "%s: the model type \"%s\"%s", file, type, byte_level ? " on bytes" : "");
    return parse_unigram(cutter, model, error);
}
