/* Models of SentencePiece as a tokenizer.json. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "text/import.h"
#include "text/sentencepiece.h"

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

static mn__scored_token token_at(const mn__sentencepiece *model, int32_t id, mn__piece_kind *kind)
{
    const char *piece = mn__sentencepiece_piece(model, id, kind);
    return (mn__scored_token){.text = piece,
                              .bytes = (int64_t)strlen(piece),
                              .score = (double)mn__sentencepiece_score(model, id),
                              .joins = *kind == MN__PIECE_NORMAL};
}

/* What stands for no text, and the newline, which is a symbol before anything is cut. */
static void add_added(const mn__sentencepiece *model, mn__string *json)
{
    mn__string_puts(json, "\"added_tokens\":[");
    for (int32_t id = 0; id < mn__sentencepiece_vocab(model); id++) {
        mn__piece_kind kind;
        mn__scored_token token = token_at(model, id, &kind);
        bool special = kind == MN__PIECE_CONTROL || kind == MN__PIECE_UNKNOWN;
        if (special || !strcmp(token.text, "\n"))
            mn__import_added(json, id, token.text, token.bytes, special);
    }
    mn__string_puts(json, "]}\n");
}

static mn_status add_bpe(const mn__sentencepiece *model, mn__string *json, mn_error *error)
{
    int32_t count = mn__sentencepiece_vocab(model), unknown = -1;
    mn__scored_token *tokens = mn__calloc(count, sizeof *tokens);
    if (!tokens)
        return fail_memory(error);
    for (int32_t id = 0; id < count; id++) {
        mn__piece_kind kind;
        tokens[id] = token_at(model, id, &kind);
        tokens[id].joins &= strcmp(tokens[id].text, "\n") != 0;
        unknown = kind == MN__PIECE_UNKNOWN ? id : unknown;
    }
    mn_status status = mn__import_scored(tokens, count, unknown, false, json, error);
    mn__free(tokens);
    return status;
}

static void add_unigram(const mn__sentencepiece *model, mn__string *json)
{
    int32_t unknown = -1;
    mn__string_puts(json, "{\"version\":\"1.0\",\"model\":{\"type\":\"Unigram\",\"vocab\":[");
    for (int32_t id = 0; id < mn__sentencepiece_vocab(model); id++) {
        mn__piece_kind kind;
        mn__scored_token token = token_at(model, id, &kind);
        unknown = kind == MN__PIECE_UNKNOWN ? id : unknown;
        mn__string_puts(json, id ? ",[" : "[");
        mn__string_json(json, token.text, token.bytes);
        mn__string_printf(json, ",%.9g]", token.score);
    }
    mn__string_printf(json, "],\"unk_id\":%d,\"byte_fallback\":true},", unknown);
    mn__import_spaces(false, json);
}

mn_status mn__import_sentencepiece(const char *data, int64_t bytes, bool unigram, mn__string *json,
                                   mn_error *error)
{
    mn__sentencepiece *model;
    mn_status status = mn__sentencepiece_parse(&model, data, bytes, error);
    if (status)
        return status;
    if (unigram)
        add_unigram(model, json);
    else
        status = add_bpe(model, json, error);
    const int64_t begin = mn__sentencepiece_begin(model);
    mn__import_before(json, &begin, begin >= 0);
    if (!status)
        add_added(model, json);
    mn__sentencepiece_free(model);
    return !status && json->failed ? fail_memory(error) : status;
}
