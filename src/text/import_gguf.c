/* The vocabulary of a GGUF file, as a tokenizer.json. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/import.h"
#include "text/pattern.h"

/* tokenizer.ggml.token_type */
enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

typedef struct vocabulary {
    mn__gguf *file;
    const mn__gguf_text *tokens; /* [count] */
    int64_t count;
    const mn__gguf_value *types, *scores; /* or NULL */
} vocabulary;

static int64_t type_of(const vocabulary *v, int64_t id)
{
    int64_t type = NORMAL;
    if (v->types)
        mn__gguf_item_int(v->types, id, &type);
    return type;
}

static mn_status open(vocabulary *v, mn_error *error)
{
    const mn__gguf_value *tokens;
    mn_status status =
        mn__gguf_array(v->file, "tokenizer.ggml.tokens", MN__GGUF_STRING, &tokens, error);
    if (status)
        return status;
    v->tokens = tokens->as.array.texts;
    v->count = tokens->as.array.count;
    if (mn__gguf_find_value(v->file, "tokenizer.ggml.token_type"))
        status =
            mn__gguf_array(v->file, "tokenizer.ggml.token_type", MN__GGUF_I32, &v->types, error);
    if (!status && mn__gguf_find_value(v->file, "tokenizer.ggml.scores"))
        status = mn__gguf_array(v->file, "tokenizer.ggml.scores", MN__GGUF_F32, &v->scores, error);
    if (!status && ((v->types && v->types->as.array.count != v->count) ||
                    (v->scores && v->scores->as.array.count != v->count)))
        status = mn__fail(error, MN_ERROR_FORMAT, NULL,
                          "tokens, token types and scores are not of one number");
    return status;
}

static bool flag(const vocabulary *v, const char *key, bool otherwise)
{
    bool value = otherwise;
    if (mn__gguf_find_value(v->file, key))
        mn__gguf_bool(v->file, key, &value, NULL);
    return value;
}

static void add_added(const vocabulary *v, mn__string *json)
{
    mn__string_puts(json, "\"added_tokens\":[");
    for (int64_t id = 0; id < v->count; id++) {
        int64_t type = type_of(v, id);
        if ((type == CONTROL || type == USER_DEFINED) && v->tokens[id].bytes > 0)
            mn__import_added(json, id, v->tokens[id].text, v->tokens[id].bytes, type == CONTROL);
    }
    mn__string_puts(json, "]}\n");
}

static void add_begin(const vocabulary *v, bool otherwise, mn__string *json)
{
    int64_t begin;
    if (flag(v, "tokenizer.ggml.add_bos_token", otherwise) &&
        mn__gguf_int(v->file, "tokenizer.ggml.bos_token_id", &begin, NULL) == MN_OK)
        mn__import_before(json, &begin, 1);
}

/* ---- SentencePiece's BPE
 * ---------------------------------------------------------------------------- */

static mn_status import_llama(const vocabulary *v, mn__string *json, mn_error *error)
{
    int64_t unknown = -1;
    if (!v->scores)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "tokenizer.ggml.scores are missing");
    mn__scored_token *tokens = mn__calloc(v->count, sizeof *tokens);
    if (!tokens)
        return fail_memory(error);
    for (int64_t id = 0; id < v->count; id++) {
        tokens[id] = (mn__scored_token){.text = v->tokens[id].text,
                                        .bytes = v->tokens[id].bytes,
                                        .joins = type_of(v, id) == NORMAL};
        mn__gguf_item_float(v->scores, id, &tokens[id].score);
    }
    mn__gguf_int(v->file, "tokenizer.ggml.unknown_token_id", &unknown, NULL);
    mn_status status = mn__import_scored(
        tokens, v->count, unknown, flag(v, "tokenizer.ggml.add_space_prefix", true), json, error);
    mn__free(tokens);
    if (status)
        return status;
    add_begin(v, true, json);
    add_added(v, json);
    return json->failed ? fail_memory(error) : MN_OK;
}

/* ---- Byte-level BPE
 * ---------------------------------------------------------------------------------- */

/* What cuts a text, by tokenizer.ggml.pre. */
static const struct {
    const char *name;
    mn__pattern pattern; /* or none: */
    const char *stages;  /* before ByteLevel with GPT-2's expression, and behind it */
    bool nfc, whole_words, begins;
} kinds[] = {
    {"gpt-2", MN__PATTERN_GPT2, NULL, false, false, false},
    {"phi-2", MN__PATTERN_GPT2, NULL, false, false, false},
    {"llama-bpe", MN__PATTERN_LLAMA3, NULL, false, true, true},
    {"llama3", MN__PATTERN_LLAMA3, NULL, false, true, true},
    {"llama-v3", MN__PATTERN_LLAMA3, NULL, false, true, true},
    {"glm4", MN__PATTERN_LLAMA3, NULL, false, false, false},
    {"chatglm-bpe", MN__PATTERN_LLAMA3, NULL, false, false, false},
    {"qwen2", MN__PATTERN_QWEN2, NULL, true, false, false},
    {"falcon", MN__PATTERN_NONE,
     "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},{\"type\":\"ByteLevel\","
     "\"add_prefix_space\":false,\"use_regex\":true},{\"type\":\"Digits\",\"individual_digits\":"
     "false},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[0-9][0-9][0-9]\"},\"behavior\":"
     "\"Isolated\",\"invert\":false}",
     false, false, false},
    {"smollm", MN__PATTERN_NONE,
     "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\","
     "\"add_prefix_space\":false,\"use_regex\":true}",
     false, false, false},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static mn_status import_gpt2(const vocabulary *v, mn__string *json, mn_error *error)
{
    const char *pre = "gpt-2";
    const mn__gguf_value *merges;
    mn_status status = MN_OK;
    int kind = 0;
    if (mn__gguf_find_value(v->file, "tokenizer.ggml.pre"))
        status = mn__gguf_string(v->file, "tokenizer.ggml.pre", &pre, error);
    if (!status)
        status = mn__gguf_array(v->file, "tokenizer.ggml.merges", MN__GGUF_STRING, &merges, error);
    if (status)
        return status;
    while (kind < KINDS && strcmp(kinds[kind].name, pre))
        kind++;
    if (kind == KINDS)
        return mn__fail(error, MN_ERROR_UNSUPPORTED,
                        "use the model's tokenizer.json, which says how it cuts",
                        "tokenizer.ggml.pre \"%s\" is unknown", pre);
    mn__string_printf(json,
                      "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\","
                      "\"ignore_merges\":%s,\"vocab\":{",
                      kinds[kind].whole_words ? "true" : "false");
    for (int64_t id = 0; id < v->count; id++) {
        mn__string_puts(json, id ? "," : "");
        mn__string_json(json, v->tokens[id].text, v->tokens[id].bytes);
        mn__string_printf(json, ":%lld", (long long)id);
    }
    mn__string_puts(json, "},\"merges\":[");
    for (int64_t i = 0; i < merges->as.array.count; i++) {
        const mn__gguf_text *merge = &merges->as.array.texts[i];
        mn__string_puts(json, i ? "," : "");
        mn__string_json(json, merge->text, merge->bytes);
    }
    mn__string_puts(json, "]},");
    if (kinds[kind].stages)
        mn__string_printf(json,
                          "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[%s]},"
                          "\"decoder\":{\"type\":\"ByteLevel\"},",
                          kinds[kind].stages);
    else
        mn__import_byte_level(json, mn__pattern_text(kinds[kind].pattern));
    if (kinds[kind].nfc)
        mn__string_puts(json, "\"normalizer\":{\"type\":\"NFC\"},");
    add_begin(v, kinds[kind].begins, json);
    add_added(v, json);
    return json->failed ? fail_memory(error) : MN_OK;
}

mn_status mn__import_gguf(mn__gguf *file, mn__string *json, mn_error *error)
{
    vocabulary v = {.file = file};
    const char *model;
    mn_status status = mn__gguf_string(file, "tokenizer.ggml.model", &model, error);
    if (!status)
        status = open(&v, error);
    if (status)
        return status;
    if (strcmp(model, "llama") == 0)
        return import_llama(&v, json, error);
    if (strcmp(model, "gpt2") == 0)
        return import_gpt2(&v, json, error);
    return mn__fail(error, MN_ERROR_UNSUPPORTED, "known are llama and gpt2",
                    "tokenizer.ggml.model \"%s\" is unknown", model);
}
