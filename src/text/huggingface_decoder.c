/* The decoder and the post-processor of a tokenizer.json. */
#include <stdio.h>
#include <string.h>

#include "text/byte_alphabet.h"
#include "text/huggingface.h"

enum { DEPTH_MOST = 16 };
enum { BYTE_LEVEL, REPLACE, BYTE_FALLBACK, FUSE };

/* ---- Decoder ----------------------------------------------------------------------------------
 */

static mn_status add_step(mn__decoder_plan *plan, const char *file, int kind, const char *from,
                          const char *to, mn_error *error)
{
    if (plan->count == MN__DECODER_STEPS)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: over %d decoders", file,
                        MN__DECODER_STEPS);
    plan->steps[plan->count].kind = kind;
    plan->steps[plan->count].from = from;
    plan->steps[plan->count++].to = to;
    return MN_OK;
}

static mn_status parse_replace(mn__decoder_plan *plan, mn__json object, mn_error *error)
{
    mn__json pattern;
    const char *from, *to;
    mn_status status = mn__json_object(object, "pattern", MN__JSON_REQUIRED, &pattern, error);
    if (!status && json_object_get(pattern.value, "Regex"))
        status = mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                          "%s: a decoder Replace with a regular expression", object.file);
    if (!status)
        status = mn__json_string(pattern, "String", MN__JSON_REQUIRED, &from, error);
    if (!status)
        status = mn__json_string(object, "content", MN__JSON_REQUIRED, &to, error);
    return status || !*from ? status : add_step(plan, object.file, REPLACE, from, to, error);
}

static mn_status parse_metaspace(mn__decoder_plan *plan, mn__json object, mn_error *error)
{
    const char *mark, *scheme = NULL;
    bool adds = true;
    mn_status status = mn__json_string(object, "replacement", MN__JSON_REQUIRED, &mark, error);
    if (!status)
        status = mn__json_string(object, "prepend_scheme", MN__JSON_OPTIONAL, &scheme, error);
    if (!status)
        status = mn__json_bool(object, "add_prefix_space", MN__JSON_OPTIONAL, &adds, error);
    if (status)
        return status;
    plan->strip_first_space |= scheme ? strcmp(scheme, "never") != 0 : adds;
    return add_step(plan, object.file, REPLACE, mark, " ", error);
}

/* Of the joined text: one space at its start, or nothing. */
static mn_status parse_strip(mn__decoder_plan *plan, mn__json object, mn_error *error)
{
    const char *content;
    int64_t start = 0, stop = 0;
    bool fused = plan->count > 0 && plan->steps[plan->count - 1].kind == FUSE;
    mn_status status = mn__json_string(object, "content", MN__JSON_REQUIRED, &content, error);
    if (!status)
        status = mn__json_int(object, "start", MN__JSON_REQUIRED, &start, error);
    if (!status)
        status = mn__json_int(object, "stop", MN__JSON_REQUIRED, &stop, error);
    if (status || (start == 0 && stop == 0))
        return status;
    if (!fused || start != 1 || stop != 0 || strcmp(content, " "))
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                        "%s: a decoder Strip of other than one space at the start of all",
                        object.file);
    plan->strip_first_space = true;
    return MN_OK;
}

static mn_status parse_at(mn__decoder_plan *plan, mn__json object, int depth, mn_error *error)
{
    const char *type;
    mn_status status = mn__json_string(object, "type", MN__JSON_REQUIRED, &type, error);
    if (status)
        return status;
    if (strcmp(type, "ByteLevel") == 0)
        return add_step(plan, object.file, BYTE_LEVEL, NULL, NULL, error);
    if (strcmp(type, "ByteFallback") == 0)
        return add_step(plan, object.file, BYTE_FALLBACK, NULL, NULL, error);
    if (strcmp(type, "Fuse") == 0)
        return add_step(plan, object.file, FUSE, NULL, NULL, error);
    if (strcmp(type, "Replace") == 0)
        return parse_replace(plan, object, error);
    if (strcmp(type, "Metaspace") == 0)
        return parse_metaspace(plan, object, error);
    if (strcmp(type, "Strip") == 0)
        return parse_strip(plan, object, error);
    if (strcmp(type, "Sequence") || depth == DEPTH_MOST)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: the decoder \"%s\" is unknown",
                        object.file, type);
    mn__json list;
    status = mn__json_array(object, "decoders", MN__JSON_REQUIRED, &list, error);
    for (size_t i = 0; !status && i < json_array_size(list.value); i++)
        status = parse_at(plan, (mn__json){object.file, json_array_get(list.value, i)}, depth + 1,
                          error);
    return status;
}

mn_status mn__decoder_plan_parse(mn__decoder_plan *plan, const char *file, const json_t *value,
                                 mn_error *error)
{
    if (!value || json_is_null(value))
        return MN_OK;
    mn_status status = parse_at(plan, (mn__json){file, value}, 0, error);
    plan->byte_level = plan->count == 1 && plan->steps[0].kind == BYTE_LEVEL;
    return status;
}

static void replace(const char *from, const char *to, const mn__string *text, mn__string *out)
{
    const char *at = text->text ? text->text : "", *end = at + text->bytes;
    for (const char *found; at < end; at = found + strlen(from)) {
        found = memmem(at, (size_t)(end - at), from, strlen(from));
        mn__string_add(out, at, (found ? found : end) - at);
        if (!found)
            break;
        mn__string_puts(out, to);
    }
}

void mn__decoder_plan_apply(const mn__decoder_plan *plan, const char *token, mn__string *out,
                            mn__string *scratch)
{
    mn__string_clear(out);
    mn__string_puts(out, token);
    for (int i = 0; i < plan->count && !out->failed; i++) {
        mn__string held = *out;
        unsigned byte;
        mn__string_clear(scratch);
        if (plan->steps[i].kind == REPLACE)
            replace(plan->steps[i].from, plan->steps[i].to, out, scratch);
        else if (plan->steps[i].kind == BYTE_LEVEL &&
                 mn__alphabet_to_bytes(out->text, out->bytes, scratch))
            ;
        else if (plan->steps[i].kind == BYTE_FALLBACK && out->bytes == 6 &&
                 sscanf(out->text, "<0x%2X>", &byte) == 1 && out->text[5] == '>')
            mn__string_add(scratch, &(char){(char)byte}, 1);
        else
            continue; /* as it was */
        *out = *scratch;
        *scratch = held;
    }
}

/* ---- Post-processor ---------------------------------------------------------------------------
 */

static mn_status template_ids(mn__json special, mn__ids *ids, mn_error *error)
{
    mn__json list;
    mn_status status = mn__json_array(special, "ids", MN__JSON_REQUIRED, &list, error);
    for (size_t i = 0; !status && i < json_array_size(list.value); i++) {
        const json_t *id = json_array_get(list.value, i);
        if (json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX ||
            !json_is_integer(id))
            return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: a special token without an id",
                            special.file);
        mn__ids_add(ids, (int32_t)json_integer_value(id));
    }
    return status;
}

static mn_status parse_template(mn__ids *before, mn__ids *after, mn__json object, mn_error *error)
{
    mn__json single, specials = {0}, piece, special;
    mn__ids *ids = before;
    const char *name;
    mn_status status = mn__json_array(object, "single", MN__JSON_REQUIRED, &single, error);
    if (!status)
        status = mn__json_object(object, "special_tokens", MN__JSON_REQUIRED, &specials, error);
    for (size_t i = 0; !status && i < json_array_size(single.value); i++) {
        mn__json part = {object.file, json_array_get(single.value, i)};
        if (json_object_get(part.value, "Sequence")) {
            ids = after;
            continue;
        }
        status = mn__json_object(part, "SpecialToken", MN__JSON_REQUIRED, &piece, error);
        if (!status)
            status = mn__json_string(piece, "id", MN__JSON_REQUIRED, &name, error);
        if (!status)
            status = mn__json_object(specials, name, MN__JSON_REQUIRED, &special, error);
        if (!status)
            status = template_ids(special, ids, error);
    }
    return status;
}

/* ["[CLS]", 101] */
static mn_status parse_pair(mn__ids *ids, mn__json object, const char *key, mn_error *error)
{
    const json_t *id = json_array_get(json_object_get(object.value, key), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: '%s' is no token with its id",
                        object.file, key);
    mn__ids_add(ids, (int32_t)json_integer_value(id));
    return MN_OK;
}

static mn_status parse_post(mn__ids *before, mn__ids *after, mn__json object, int depth,
                            mn_error *error)
{
    const char *type;
    mn_status status = mn__json_string(object, "type", MN__JSON_REQUIRED, &type, error);
    if (status || strcmp(type, "ByteLevel") == 0) /* of offsets, which are not kept here */
        return status;
    if (strcmp(type, "TemplateProcessing") == 0)
        return parse_template(before, after, object, error);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) {
        status = parse_pair(before, object, "cls", error);
        return status ? status : parse_pair(after, object, "sep", error);
    }
    if (strcmp(type, "Sequence") || depth == DEPTH_MOST)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                        "%s: the post-processor \"%s\" is unknown", object.file, type);
    mn__json list;
    status = mn__json_array(object, "processors", MN__JSON_REQUIRED, &list, error);
    for (size_t i = 0; !status && i < json_array_size(list.value); i++)
        status = parse_post(before, after, (mn__json){object.file, json_array_get(list.value, i)},
                            depth + 1, error);
    return status;
}

mn_status mn__post_processor_parse(mn__ids *before, mn__ids *after, const char *file,
                                   const json_t *value, mn_error *error)
{
    if (!value || json_is_null(value))
        return MN_OK;
    mn_status status = parse_post(before, after, (mn__json){file, value}, 0, error);
    if (!status && (before->failed || after->failed))
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
    return status;
}
