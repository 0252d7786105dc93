/* Tokenizers for others. */
#include "text/export.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/byte_alphabet.h"
#include "text/import.h"
#include "text/tokenizer_types.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

/* ---- Bytes and characters ---------------------------------------------------------------- */

/* Every piece is a token, and none merges. */
static mn_status export_pieces(const mn__tokenizer *tokenizer, bool bytes, mn__string *json,
                               mn_error *error)
{
    mn__string_puts(json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
                          "\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":");
    mn__string_puts(json, bytes ? "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                                  "\"trim_offsets\":true,\"use_regex\":false}"
                                : "null");
    mn__string_puts(json, ",\"post_processor\":null,\"decoder\":");
    mn__string_puts(json, bytes ? "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                                  "\"trim_offsets\":true,\"use_regex\":true}"
                                : "{\"type\":\"Fuse\"}");
    mn__string_puts(json, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                          "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                          "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
                          "\"vocab\":{");
    mn__string text = {0};
    for (int32_t id = 0; id < tokenizer->vocab; id++) {
        int64_t length;
        const char *piece = mn__tokenizer_piece(tokenizer, id, &length);
        mn__string_clear(&text);
        if (bytes)
            mn__bytes_to_alphabet(piece, length, &text);
        else
            mn__string_add(&text, piece, length);
        json->failed |= text.failed;
        mn__string_puts(json, id ? "," : "");
        mn__string_json(json, text.text ? text.text : "", text.bytes);
        mn__string_printf(json, ":%d", id);
    }
    mn__string_free(&text);
    mn__string_puts(json, "},\"merges\":[]}}\n");
    return json->failed ? fail_memory(error) : MN_OK;
}

/* ---- Ranks as merges --------------------------------------------------------------------- */

typedef struct merge {
    int64_t rank;
    int32_t left, right; /* among the tokens that join */
} merge;

typedef struct merges {
    mn__vocabulary tokens; /* those that join; `count` is the rank */
    merge *items;          /* [count] */
    int64_t count, capacity;
} merges;

static int by_rank(const void *a, const void *b)
{
    const merge *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static bool add_merge(merges *m, merge item)
{
    if (m->count == m->capacity) {
        int64_t capacity = m->capacity ? 2 * m->capacity : 1024;
        merge *items = mn__realloc(m->items, mn__size_product(capacity, (int64_t)sizeof *items));
        if (!items)
            return false;
        m->items = items;
        m->capacity = capacity;
    }
    m->items[m->count++] = item;
    return true;
}

static const char *text_of(const merges *m, int32_t token)
{
    return m->tokens.text.text + m->tokens.words[token].begin;
}

/* Every pair of tokens that join to one merges at that one's rank, as mn__bpe_add_splits has
 * it. Pairs of one rank, which join to one text, are told apart by their tokens. */
static bool find_merges(merges *m)
{
    for (int32_t id = 0; id < m->tokens.count; id++) {
        const mn__vocabulary_word *word = &m->tokens.words[id];
        for (int32_t at = 1; at < word->bytes; at++) {
            int32_t left = mn__vocabulary_find(&m->tokens, text_of(m, id), at);
            int32_t right =
                left < 0 ? -1
                         : mn__vocabulary_find(&m->tokens, text_of(m, id) + at, word->bytes - at);
            if (right >= 0 && !add_merge(m, (merge){word->count, left, right}))
                return false;
        }
    }
    if (m->count)
        qsort(m->items, (size_t)m->count, sizeof *m->items, by_rank);
    return true;
}

/* NULL when memory is short. */
static json_t *merges_json(const merges *m)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < m->count && list; i++) {
        const merge *each = &m->items[i];
        json_t *pair =
            json_pack("[s%, s%]", text_of(m, each->left), (size_t)m->tokens.words[each->left].bytes,
                      text_of(m, each->right), (size_t)m->tokens.words[each->right].bytes);
        if (json_array_append_new(list, pair)) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

/* {"tokens": [[text, rank or null], ...]} as {"vocab": {text: id}, "merges": [[left, right]]}. */
static mn_status ranks_to_merges(json_t *model, mn_error *error)
{
    size_t i;
    const json_t *token;
    merges m = {0};
    bool whole = true;
    json_t *vocab = json_object();
    json_array_foreach(json_object_get(model, "tokens"), i, token)
    {
        const char *text = json_string_value(json_array_get(token, 0));
        const json_t *rank = json_array_get(token, 1);
        if (!(whole = !json_object_set_new(vocab, text, json_integer((json_int_t)i))))
            break;
        if (!json_is_integer(rank))
            continue;
        mn__vocabulary_word *word = mn__vocabulary_add(&m.tokens, text, (int64_t)strlen(text));
        if (!(whole = word))
            break;
        word->count = json_integer_value(rank);
    }
    size_t count = json_object_size(vocab);
    whole = whole && find_merges(&m);
    whole &= !json_object_set_new(model, "type", json_string("BPE"));
    whole &= !json_object_set_new(model, "vocab", vocab);
    whole = whole && !json_object_set_new(model, "merges", merges_json(&m));
    mn_status status = MN_OK;
    if (!whole)
        status = fail_memory(error);
    else if (count != json_array_size(json_object_get(model, "tokens")))
        status = mn__fail(error, MN_ERROR_UNSUPPORTED, "use the model's own tokenizer.json",
                          "the vocabulary has one text under two ids, and a tokenizer.json cannot");
    json_object_del(model, "tokens");
    mn__vocabulary_free(&m.tokens);
    mn__free(m.items);
    return status;
}

/* ---- tokenizer.json, with all that the package wants to find in it -------------------------- */

static void default_to(json_t *object, const char *key, json_t *value)
{
    if (!json_object_get(object, key))
        json_object_set(object, key, value);
    json_decref(value);
}

static void fill_byte_level(json_t *value)
{
    const char *key, *type = json_string_value(json_object_get(value, "type"));
    size_t i;
    json_t *inner;
    if (type && !strcmp(type, "ByteLevel")) {
        default_to(value, "add_prefix_space", json_true());
        default_to(value, "trim_offsets", json_true());
        default_to(value, "use_regex", json_true());
    }
    json_object_foreach(value, key, inner) fill_byte_level(inner);
    json_array_foreach(value, i, inner) fill_byte_level(inner);
}

static void fill_added(json_t *root)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    size_t i;
    json_t *token;
    json_array_foreach(json_object_get(root, "added_tokens"), i,
                       token) for (size_t f = 0; f < sizeof flags / sizeof *flags; f++)
        default_to(token, flags[f], json_false());
}

/* One text: the ids before it; a pair: each so. */
static void put_before(const mn__tokenizer *tokenizer, const mn__ids *before, json_t *root)
{
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    for (int part = 0; part < 2; part++) {
        for (int64_t i = 0; i < before->count; i++) {
            int64_t bytes;
            const char *text = mn__tokenizer_piece(tokenizer, before->id[i], &bytes);
            json_t *item = json_pack("{s:{s:s%, s:i}}", "SpecialToken", "id", text, (size_t)bytes,
                                     "type_id", part);
            if (!part)
                json_array_append(single, item);
            json_array_append_new(pair, item);
            json_t *special = json_pack("{s:s%, s:[i], s:[s%]}", "id", text, (size_t)bytes, "ids",
                                        (int)before->id[i], "tokens", text, (size_t)bytes);
            json_object_setn_new(specials, text, (size_t)bytes, special);
        }
        json_t *item =
            json_pack("{s:{s:s, s:i}}", "Sequence", "id", part ? "B" : "A", "type_id", part);
        if (!part)
            json_array_append(single, item);
        json_array_append_new(pair, item);
    }
    json_object_set_new(root, "post_processor",
                        json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single",
                                  single, "pair", pair, "special_tokens", specials));
}

/* Whether a post-processor is of the short form that our importers write. */
static bool is_short(const json_t *after)
{
    const char *type = json_string_value(json_object_get(after, "type"));
    return type && !strcmp(type, "TemplateProcessing") && !json_object_get(after, "pair");
}

/* All that the package wants to find, which is more than we do. */
static mn_status complete(const mn__tokenizer *tokenizer, json_t *root, mn_error *error)
{
    static const char *const absent[] = {"truncation",    "padding",        "normalizer",
                                         "pre_tokenizer", "post_processor", "decoder"};
    json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    mn_status status = type && !strcmp(type, "TokenRanks") ? ranks_to_merges(model, error) : MN_OK;
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        default_to(root, absent[i], json_null());
    fill_byte_level(root);
    fill_added(root);
    if (is_short(json_object_get(root, "post_processor")))
        put_before(tokenizer, &tokenizer->before, root);
    return status;
}

static mn_status export_huggingface(const mn__tokenizer *tokenizer, mn__string *json,
                                    mn_error *error)
{
    json_t *root;
    mn_status status = mn__json_parse("tokenizer.json", tokenizer->payload.text,
                                      tokenizer->payload.bytes, &root, error);
    if (status)
        return status;
    json_t *whole = json_deep_copy(root);
    status = complete(tokenizer, whole, error);
    if (!status && json_equal(root, whole)) {
        mn__string_add(json, tokenizer->payload.text, tokenizer->payload.bytes);
    } else if (!status) {
        char *text = json_dumps(whole, JSON_COMPACT);
        mn__string_puts(json, text ? text : "");
        json->failed |= !text;
        free(text);
    }
    json_decref(whole);
    json_decref(root);
    return !status && json->failed ? fail_memory(error) : status;
}

/* ---- SentencePiece -------------------------------------------------------------------------- */

/* All pieces in an order of their own, so that what stands beside each other never did. */
static void mix_pieces(const mn__tokenizer *tokenizer, mn__string *text)
{
    uint64_t place = 0;
    for (int64_t i = 0; i < 3 * tokenizer->vocab; i++) {
        int64_t bytes;
        place = place * 6364136223846793005u + 1442695040888963407u;
        int32_t id = (int32_t)((place >> 33) % (uint64_t)tokenizer->vocab);
        const char *piece = mn__tokenizer_piece(tokenizer, id, &bytes);
        if (bytes > 0 && mn__utf8_valid(piece, bytes) == bytes)
            mn__string_add(text, piece, bytes);
    }
}

static mn_status same_ids(const mn__tokenizer *a, const mn__tokenizer *b, bool *same,
                          mn_error *error)
{
    mn__string text = {0};
    mn__ids left = {0}, right = {0};
    mix_pieces(a, &text);
    mn_status status = text.failed ? fail_memory(error) : MN_OK;
    if (!status)
        status = mn__tokenizer_encode(a, text.text, text.bytes, &left, error);
    if (!status)
        status = mn__tokenizer_encode(b, text.text, text.bytes, &right, error);
    if (!status && (left.failed || right.failed))
        status = fail_memory(error);
    *same = !status && a->vocab == b->vocab && left.count == right.count && left.count &&
            !memcmp(left.id, right.id, (size_t)left.count * sizeof *left.id);
    mn__string_free(&text);
    mn__ids_free(&left);
    mn__ids_free(&right);
    return status;
}

/* As one kind of model: written, read again, and compared. */
static mn_status try_kind(const mn__tokenizer *tokenizer, bool unigram, bool *same,
                          mn__string *json, mn_error *error)
{
    mn__string payload = {0};
    mn__tokenizer *other = NULL;
    mn_status status = mn__import_sentencepiece(tokenizer->payload.text, tokenizer->payload.bytes,
                                                unigram, &payload, error);
    if (!status)
        status = mn__tokenizer_of_payload(&other, "huggingface", payload.text, payload.bytes, NULL,
                                          error);
    if (!status)
        status = same_ids(tokenizer, other, same, error);
    if (!status && *same)
        status = export_huggingface(other, json, error);
    mn__tokenizer_free(other);
    mn__string_free(&payload);
    return status;
}

static mn_status export_sentencepiece(const mn__tokenizer *tokenizer, mn__string *json,
                                      mn_error *error)
{
    bool same = false;
    mn_status status = MN_OK;
    for (int unigram = 0; tokenizer->lossless && unigram < 2 && !same && !status; unigram++)
        status = try_kind(tokenizer, unigram, &same, json, error);
    if (!status && !same)
        status = mn__fail(error, MN_ERROR_UNSUPPORTED,
                          "those that are trained here can; of a published model take the "
                          "tokenizer.json beside it",
                          "this SentencePiece model changes texts, or cuts them, as a "
                          "tokenizer.json of ours cannot");
    return status;
}

/* ---- Which it is --------------------------------------------------------------------------- */

mn_status mn__tokenizer_export(const mn__tokenizer *tokenizer, mn__string *json, mn_error *error)
{
    const char *kind = tokenizer->type->name;
    if (!strcmp(kind, "huggingface"))
        return export_huggingface(tokenizer, json, error);
    if (!strcmp(kind, "bytes") || !strcmp(kind, "characters"))
        return export_pieces(tokenizer, !strcmp(kind, "bytes"), json, error);
    if (!strcmp(kind, "sentencepiece"))
        return export_sentencepiece(tokenizer, json, error);
    return mn__fail(
        error, MN_ERROR_UNSUPPORTED,
        "bytes, characters, SentencePiece and vocabularies of Hugging Face have a counterpart",
        "a tokenizer.json cannot cut text as the tokenizer %s does", kind);
}

static mn_status replace_before(const mn__tokenizer *tokenizer, const mn__ids *before,
                                mn__string *json, mn_error *error)
{
    json_t *root;
    mn_status status = mn__json_parse("tokenizer.json", json->text, json->bytes, &root, error);
    if (status)
        return status;
    put_before(tokenizer, before, root);
    char *text = json_dumps(root, JSON_COMPACT);
    mn__string_clear(json);
    mn__string_puts(json, text ? text : "");
    json->failed |= !text || !json_is_object(json_object_get(root, "post_processor"));
    free(text);
    json_decref(root);
    return json->failed ? fail_memory(error) : MN_OK;
}

mn_status mn__tokenizer_export_with(const mn__tokenizer *tokenizer, const mn__ids *before,
                                    mn__string *json, mn_error *error)
{
    const mn__ids *own = &tokenizer->before;
    mn__string text = {0};
    mn_status status = mn__tokenizer_export(tokenizer, &text, error);
    bool same =
        before->count == own->count &&
        (own->count == 0 || !memcmp(before->id, own->id, (size_t)own->count * sizeof *own->id));
    if (!status && !same)
        status = replace_before(tokenizer, before, &text, error);
    mn__string_add(json, text.text ? text.text : "", text.bytes);
    mn__string_free(&text);
    return status || !json->failed ? status : fail_memory(error);
}
