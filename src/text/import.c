/* tiktoken's rank files and GPT-2's pair of files, as a tokenizer.json. */
#include "text/import.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/base64.h"
#include "text/byte_alphabet.h"
#include "text/pattern.h"

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

/* ---- Shared ------------------------------------------------------------------------------------
 */

void mn__import_added(mn__string *json, int64_t id, const char *content, int64_t bytes,
                      bool special)
{
    bool first = json->bytes > 0 && json->text[json->bytes - 1] == '[';
    mn__string_printf(json, "%s{\"id\":%lld,\"content\":", first ? "" : ",", (long long)id);
    mn__string_json(json, content, bytes);
    mn__string_printf(json, ",\"normalized\":false,\"special\":%s}", special ? "true" : "false");
}

void mn__import_byte_level(mn__string *json, const char *regex)
{
    static const char gpt2[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                               "\"use_regex\":true}";
    mn__string_puts(json, "\"pre_tokenizer\":");
    if (mn__pattern_of(regex) == MN__PATTERN_GPT2) {
        mn__string_puts(json, gpt2);
    } else {
        mn__string_puts(json, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                              "\"pattern\":{\"Regex\":");
        mn__string_json(json, regex, (int64_t)strlen(regex));
        mn__string_puts(json, "},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":"
                              "\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}");
    }
    mn__string_puts(json, ",\"decoder\":{\"type\":\"ByteLevel\"},");
}

void mn__import_before(mn__string *json, const int64_t *ids, int count)
{
    if (count == 0)
        return;
    mn__string_puts(json, "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
    for (int i = 0; i < count; i++)
        mn__string_printf(json, "{\"SpecialToken\":{\"id\":\"%d\",\"type_id\":0}},", i);
    mn__string_puts(json, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{");
    for (int i = 0; i < count; i++)
        mn__string_printf(json, "%s\"%d\":{\"id\":\"%d\",\"ids\":[%lld]}", i ? "," : "", i, i,
                          (long long)ids[i]);
    mn__string_puts(json, "}},");
}

/* ---- tiktoken
 * ------------------------------------------------------------------------------------ */

/* Families by the number of their ranks; the first special id follows them. A name with %d stands
 * for a run of tokens, counted from `from`. */
typedef struct special {
    const char *name;
    int from, count;
} special;

static const special llama3_specials[] = {
    {"<|begin_of_text|>", 0, 0},
    {"<|end_of_text|>", 0, 0},
    {"<|reserved_special_token_%d|>", 0, 4},
    {"<|start_header_id|>", 0, 0},
    {"<|end_header_id|>", 0, 0},
    {"<|reserved_special_token_%d|>", 4, 1},
    {"<|eot_id|>", 0, 0},
    {"<|reserved_special_token_%d|>", 5, 246},
    {NULL, 0, 0},
};
static const special qwen_specials[] = {
    {"<|endoftext|>", 0, 0},  {"<|im_start|>", 0, 0}, {"<|im_end|>", 0, 0},
    {"<|extra_%d|>", 0, 205}, {NULL, 0, 0},
};
static const special glm4_specials[] = {
    {"<|endoftext|>", 0, 0}, {"[MASK]", 0, 0},          {"[gMASK]", 0, 0},    {"[sMASK]", 0, 0},
    {"<sop>", 0, 0},         {"<eop>", 0, 0},           {"<|system|>", 0, 0}, {"<|user|>", 0, 0},
    {"<|assistant|>", 0, 0}, {"<|observation|>", 0, 0}, {NULL, 0, 0},
};

typedef struct family {
    const char *name;
    int64_t ranks;
    mn__pattern pattern;
    bool nfc;
    const special *specials;
    int before[2]; /* places among the specials of what a prompt starts with; -1: none */
} family;

static const family families[] = {
    {"llama3", 128000, MN__PATTERN_LLAMA3, false, llama3_specials, {0, -1}},
    {"qwen", 151643, MN__PATTERN_QWEN2, true, qwen_specials, {-1, -1}},
    {"glm4", 151329, MN__PATTERN_LLAMA3, false, glm4_specials, {2, 4}},
};
enum { FAMILIES = sizeof families / sizeof *families };

/* One line: the length of its base64 and the rank; false where it is none. */
static bool read_line(const char *line, int64_t bytes, int64_t *base64, int64_t *rank)
{
    const char *space = memchr(line, ' ', (size_t)bytes);
    if (!space || space == line)
        return false;
    *base64 = space - line;
    *rank = 0;
    for (const char *at = space + 1; at < line + bytes; at++) {
        if (*at < '0' || *at > '9' || *rank > INT32_MAX)
            return false;
        *rank = 10 * *rank + (*at - '0');
    }
    return space + 1 < line + bytes && *rank <= INT32_MAX;
}

/* The length of the line at text[at], without its end. */
static int64_t line_length(const char *text, int64_t bytes, int64_t at)
{
    const char *end = memchr(text + at, '\n', (size_t)(bytes - at));
    int64_t length = end ? end - (text + at) : bytes - at;
    return length > 0 && text[at + length - 1] == '\r' ? length - 1 : length;
}

static int64_t next_line(const char *text, int64_t bytes, int64_t at)
{
    const char *end = memchr(text + at, '\n', (size_t)(bytes - at));
    return end ? end - text + 1 : bytes;
}

bool mn__import_is_tiktoken(const char *text, int64_t bytes)
{
    int64_t base64, rank;
    mn__string token = {0};
    bool line = read_line(text, line_length(text, bytes, 0), &base64, &rank) &&
                mn__base64_decode(text, base64, &token);
    mn__string_free(&token);
    return line;
}

/* Ranks count from 0, in order: the id is the rank. Appends the tokens. */
static mn_status add_ranks(const char *text, int64_t bytes, mn__string *json, int64_t *count,
                           mn_error *error)
{
    mn__string token = {0}, written = {0};
    mn_status status = MN_OK;
    *count = 0;
    for (int64_t at = 0, line = 1; !status && at < bytes; line++, at = next_line(text, bytes, at)) {
        int64_t base64, rank, length = line_length(text, bytes, at);
        mn__string_clear(&token);
        mn__string_clear(&written);
        if (length == 0)
            continue;
        if (!read_line(text + at, length, &base64, &rank) ||
            !mn__base64_decode(text + at, base64, &token))
            status = mn__fail(error, MN_ERROR_FORMAT, NULL,
                              "line %lld: not a token in base64 and its rank", (long long)line);
        else if (rank != *count)
            status = mn__fail(error, MN_ERROR_FORMAT, NULL,
                              "line %lld: the rank is %lld, the one before %lld", (long long)line,
                              (long long)rank, (long long)*count - 1);
        if (status)
            break;
        mn__bytes_to_alphabet(token.text, token.bytes, &written);
        mn__string_puts(json, *count ? ",[" : "[");
        mn__string_json(json, written.text ? written.text : "", written.bytes);
        mn__string_printf(json, ",%lld]", (long long)rank);
        if (token.failed || written.failed || json->failed)
            status = fail_memory(error);
        ++*count;
    }
    mn__string_free(&token);
    mn__string_free(&written);
    return status;
}

static void add_specials(const special *specials, int64_t id, mn__string *json)
{
    for (; specials->name; specials++)
        for (int i = 0; i < (specials->count ? specials->count : 1); i++, id++) {
            mn__string name = {0};
            const char *number = strstr(specials->name, "%d");
            mn__string_add(&name, specials->name,
                           number ? number - specials->name : (int64_t)strlen(specials->name));
            if (number)
                mn__string_printf(&name, "%d%s", specials->from + i, number + 2);
            mn__import_added(json, id, name.text, name.bytes, true);
            json->failed |= name.failed;
            mn__string_free(&name);
        }
}

static void add_configured(mn__string *json, long long id, const char *content, const json_t *token)
{
    static const char *const flags[] = {"special", "normalized", "lstrip", "rstrip", "single_word"};
    bool first = json->bytes > 0 && json->text[json->bytes - 1] == '[';
    mn__string_printf(json, "%s{\"id\":%lld,\"content\":", first ? "" : ",", id);
    mn__string_json(json, content, (int64_t)strlen(content));
    for (int i = 0; i < 5; i++)
        mn__string_printf(json, ",\"%s\":%s", flags[i],
                          json_is_true(json_object_get(token, flags[i])) ? "true" : "false");
    mn__string_puts(json, "}");
}

/* The added_tokens_decoder of a tokenizer_config.json: {"151643": {"content": ..., ...}, ...}. */
static mn_status add_config(const char *config, int64_t bytes, mn__string *json, bool *found,
                            mn_error *error)
{
    json_t *root;
    const char *id;
    json_t *token;
    mn_status status = mn__json_parse("tokenizer_config.json", config, bytes, &root, error);
    if (status)
        return status;
    json_t *tokens = json_object_get(root, "added_tokens_decoder");
    *found = json_object_size(tokens) > 0;
    json_object_foreach(tokens, id, token)
    {
        const char *content = json_string_value(json_object_get(token, "content"));
        char *end;
        long long value = strtoll(id, &end, 10);
        if (!content || *end || end == id) {
            status =
                mn__fail(error, MN_ERROR_FORMAT, NULL,
                         "tokenizer_config.json: the added token \"%s\" has no id and content", id);
            break;
        }
        add_configured(json, value, content, token);
    }
    json_decref(root);
    return status;
}

static const family *find_family(const char *name, int64_t ranks)
{
    for (int i = 0; i < FAMILIES; i++)
        if (name ? strcmp(name, families[i].name) == 0 : ranks == families[i].ranks)
            return &families[i];
    return NULL;
}

mn_status mn__import_tiktoken(const char *text, int64_t bytes, const char *name, const char *config,
                              int64_t config_bytes, mn__string *json, mn_error *error)
{
    int64_t ranks;
    bool found = false;
    mn__string_puts(json, "{\"version\":\"1.0\",\"model\":{\"type\":\"TokenRanks\","
                          "\"ignore_merges\":true,\"tokens\":[");
    mn_status status = add_ranks(text, bytes, json, &ranks, error);
    if (status)
        return status;
    const family *kind = find_family(name, ranks);
    if (!kind)
        return mn__fail(
            error, MN_ERROR_UNSUPPORTED,
            "such files are known of Llama 3 (128000), Qwen (151643) and GLM-4 (151329)",
            "a rank file of %lld tokens belongs to no known model", (long long)ranks);
    mn__string_puts(json, "]},");
    mn__import_byte_level(json, mn__pattern_text(kind->pattern));
    if (kind->nfc)
        mn__string_puts(json, "\"normalizer\":{\"type\":\"NFC\"},");
    int64_t before[2];
    int count = 0;
    for (; count < 2 && kind->before[count] >= 0; count++)
        before[count] = ranks + kind->before[count];
    mn__import_before(json, before, count);
    mn__string_puts(json, "\"added_tokens\":[");
    if (config)
        status = add_config(config, config_bytes, json, &found, error);
    if (!status && !found)
        add_specials(kind->specials, ranks, json);
    mn__string_puts(json, "]}\n");
    return status ? status : json->failed ? fail_memory(error) : MN_OK;
}

/* ---- GPT-2
 * ---------------------------------------------------------------------------------------- */

/* The encoder is an object from the start; only its end of text is no merge. */
static mn_status check_encoder(const char *encoder, int64_t bytes, int64_t *end, mn_error *error)
{
    json_t *root;
    mn_status status = mn__json_parse("the encoder", encoder, bytes, &root, error);
    if (status)
        return status;
    const json_t *id = json_object_get(root, "<|endoftext|>");
    *end = json_is_integer(id) ? json_integer_value(id) : -1;
    if (!json_is_object(root))
        status = mn__fail(error, MN_ERROR_FORMAT, NULL, "the encoder is no JSON object");
    json_decref(root);
    return status;
}

mn_status mn__import_gpt2(const char *encoder, int64_t encoder_bytes, const char *merges,
                          int64_t merges_bytes, mn__string *json, mn_error *error)
{
    int64_t end;
    mn_status status = check_encoder(encoder, encoder_bytes, &end, error);
    if (status)
        return status;
    mn__string_puts(json, "{\"version\":\"1.0\",");
    mn__import_byte_level(json, mn__pattern_text(MN__PATTERN_GPT2));
    mn__string_puts(json, "\"added_tokens\":[");
    if (end >= 0)
        mn__import_added(json, end, "<|endoftext|>", 13, true);
    mn__string_puts(json, "],\"model\":{\"type\":\"BPE\",\"merges\":[");
    bool first = true;
    for (int64_t at = 0; at < merges_bytes; at = next_line(merges, merges_bytes, at)) {
        int64_t length = line_length(merges, merges_bytes, at);
        if (length == 0 || (at == 0 && merges[0] == '#'))
            continue;
        if (!first)
            mn__string_puts(json, ",");
        mn__string_json(json, merges + at, length);
        first = false;
    }
    mn__string_puts(json, "],\"vocab\":");
    mn__string_add(json, encoder, encoder_bytes);
    mn__string_puts(json, "}}\n");
    return json->failed ? fail_memory(error) : MN_OK;
}
