/* JSON: Jansson's parser and typed getters. */
#include "base/json.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/string.h"

enum { FILE_LIMIT = 1 << 30 };

/* Whether the digits that end at `end` are no int64_t. */
static bool is_too_wide(const char *end, int64_t digits, bool negative)
{
    uint64_t whole = 0;
    bool wide = false;
    for (const char *at = end - digits; at < end && !wide; at++)
        wide = __builtin_mul_overflow(whole, 10U, &whole) ||
               __builtin_add_overflow(whole, (uint64_t)(*at - '0'), &whole);
    return wide || whole > (uint64_t)INT64_MAX + negative;
}

/* A copy in which whole numbers that are no int64_t are written as floats: Hugging Face's
 * tokenizer_config.json says a model_max_length of 10^30. */
static void widen(const char *text, int64_t bytes, mn__string *out)
{
    bool quoted = false, fraction = false, negative = false;
    int64_t digits = 0;
    for (int64_t i = 0; i <= bytes && !out->failed; i++) {
        char c = i < bytes ? text[i] : ' ';
        if (!quoted && c >= '0' && c <= '9') {
            digits++;
        } else if (!quoted) {
            bool more = c == '.' || c == 'e' || c == 'E'; /* a float already */
            if (digits > 0 && !fraction && !more && is_too_wide(text + i, digits, negative))
                mn__string_puts(out, ".0");
            fraction = more || (fraction && (c == '+' || c == '-'));
            negative = c == '-';
            digits = 0;
        }
        bool escaped = quoted && c == '\\';
        quoted ^= c == '"';
        if (i < bytes)
            mn__string_add(out, text + i, escaped && i + 1 < bytes ? 2 : 1);
        i += escaped;
    }
}

static json_t *parse_widened(const char *text, int64_t bytes, json_error_t *why)
{
    mn__string wide = {0};
    widen(text, bytes, &wide);
    json_t *root = NULL;
    if (wide.failed)
        why->text[0] = '\0';
    else
        root = json_loadb(wide.text, (size_t)wide.bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY,
                          why);
    mn__string_free(&wide);
    return root;
}

mn_status mn__json_parse(const char *name, const char *text, int64_t bytes, json_t **root,
                         mn_error *error)
{
    json_error_t why;
    *root = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!*root && json_error_code(&why) == json_error_numeric_overflow)
        *root = parse_widened(text, bytes, &why);
    if (*root)
        return MN_OK;
    /* Where an allocation fails deep inside, Jansson gives no reason at all. */
    if (json_error_code(&why) == json_error_out_of_memory || why.text[0] == '\0')
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name);
    return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s:%d: not valid JSON: %s", name, why.line,
                    why.text);
}

mn_status mn__json_read(const char *path, json_t **root, mn_error *error)
{
    char *text;
    int64_t bytes;
    *root = NULL;
    mn_status status = mn__file_read(path, FILE_LIMIT, &text, &bytes, error);
    if (status)
        return status;
    status = mn__json_parse(path, text, bytes, root, error);
    mn__free(text);
    return status;
}

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array",     [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a real number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",        [JSON_NULL] = "null",
    };
    return value ? names[json_typeof(value)] : "nothing";
}

/* object[key], or NULL with MN_OK where it may be missing and is. */
static mn_status look_up(mn__json object, const char *key, mn__json_need need, const char *type,
                         const json_t **value, mn_error *error)
{
    *value = json_object_get(object.value, key);
    if (json_is_null(*value))
        *value = NULL;
    if (!*value && need == MN__JSON_REQUIRED)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: '%s' is missing (%s)", object.file, key,
                        type);
    return MN_OK;
}

static mn_status wrong_type(mn__json object, const char *key, const char *type, const json_t *value,
                            mn_error *error)
{
    return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: '%s' should be %s but is %s", object.file,
                    key, type, type_name(value));
}

mn_status mn__json_int(mn__json object, const char *key, mn__json_need need, int64_t *value,
                       mn_error *error)
{
    const json_t *found;
    mn_status status = look_up(object, key, need, "an integer", &found, error);
    if (status || !found)
        return status;
    if (!json_is_integer(found))
        return wrong_type(object, key, "an integer", found, error);
    *value = json_integer_value(found);
    return MN_OK;
}

mn_status mn__json_float(mn__json object, const char *key, mn__json_need need, double *value,
                         mn_error *error)
{
    const json_t *found;
    mn_status status = look_up(object, key, need, "a number", &found, error);
    if (status || !found)
        return status;
    if (!json_is_number(found))
        return wrong_type(object, key, "a number", found, error);
    *value = json_number_value(found);
    return MN_OK;
}

mn_status mn__json_bool(mn__json object, const char *key, mn__json_need need, bool *value,
                        mn_error *error)
{
    const json_t *found;
    mn_status status = look_up(object, key, need, "true or false", &found, error);
    if (status || !found)
        return status;
    if (!json_is_boolean(found))
        return wrong_type(object, key, "true or false", found, error);
    *value = json_is_true(found);
    return MN_OK;
}

mn_status mn__json_string(mn__json object, const char *key, mn__json_need need, const char **value,
                          mn_error *error)
{
    const json_t *found;
    mn_status status = look_up(object, key, need, "a string", &found, error);
    if (status || !found)
        return status;
    if (!json_is_string(found))
        return wrong_type(object, key, "a string", found, error);
    *value = json_string_value(found);
    return MN_OK;
}

mn_status mn__json_object(mn__json object, const char *key, mn__json_need need, mn__json *value,
                          mn_error *error)
{
    const json_t *found;
    mn_status status = look_up(object, key, need, "an object", &found, error);
    if (status || !found)
        return status;
    if (!json_is_object(found))
        return wrong_type(object, key, "an object", found, error);
    *value = (mn__json){object.file, found};
    return MN_OK;
}

mn_status mn__json_array(mn__json object, const char *key, mn__json_need need, mn__json *value,
                         mn_error *error)
{
    const json_t *found;
    mn_status status = look_up(object, key, need, "an array", &found, error);
    if (status || !found)
        return status;
    if (!json_is_array(found))
        return wrong_type(object, key, "an array", found, error);
    *value = (mn__json){object.file, found};
    return MN_OK;
}
