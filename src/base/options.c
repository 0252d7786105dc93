/* Options: values read from YAML or text into the fields of a struct. */
#include "base/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HINT_BYTES = sizeof((mn_error *)0)->hint };

/* ---- Numbers -------------------------------------------------------------- */

/* k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024; 0: no such suffix. */
static int64_t suffix_factor(const char *suffix)
{
    static const struct {
        const char *text;
        int64_t factor;
    } suffixes[] = {
        {"", 1},
        {"k", 1000},
        {"K", 1000},
        {"M", 1000 * 1000},
        {"G", 1000 * 1000 * 1000},
        {"T", INT64_C(1000) * 1000 * 1000 * 1000},
        {"Ki", 1 << 10},
        {"Mi", 1 << 20},
        {"Gi", 1 << 30},
        {"Ti", INT64_C(1) << 40},
    };
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (strcmp(suffix, suffixes[i].text) == 0)
            return suffixes[i].factor;
    return 0;
}

/* Decimal only: strtod() would also take "inf", "nan" and hexadecimal. */
static bool starts_decimal(const char *text)
{
    text += *text == '-' || *text == '+';
    return (isdigit((unsigned char)text[0]) && text[1] != 'x' && text[1] != 'X') ||
           (text[0] == '.' && isdigit((unsigned char)text[1]));
}

/* A whole number; "1.5k" and "1e6" are whole too. */
static bool parse_int(const char *text, int64_t *value)
{
    char *end;
    if (!starts_decimal(text))
        return false;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    if (*end != '.' && *end != 'e' && *end != 'E') {
        int64_t factor = suffix_factor(end);
        return !errno && factor && !__builtin_mul_overflow((int64_t)whole, factor, value);
    }
    double number = strtod(text, &end) * (double)suffix_factor(end);
    if (suffix_factor(end) == 0 || number != nearbyint(number) || fabs(number) > 0x1p53)
        return false;
    *value = (int64_t)number;
    return true;
}

static bool parse_float(const char *text, double *value)
{
    char *end;
    if (!starts_decimal(text))
        return false;
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value);
}

/* ---- Choices and near names ----------------------------------------------- */

/* Cuts the next name off "a|b|c": its length, and `rest` at the next or NULL. */
static size_t next_choice(const char *choices, const char **rest)
{
    const char *bar = strchr(choices, '|');
    *rest = bar ? bar + 1 : NULL;
    return bar ? (size_t)(bar - choices) : strlen(choices);
}

static bool parse_choice(const char *choices, const char *text, int *value)
{
    const char *rest = choices;
    for (int i = 0; rest; i++) {
        const char *name = rest;
        size_t length = next_choice(name, &rest);
        if (strlen(text) == length && memcmp(text, name, length) == 0) {
            *value = i;
            return true;
        }
    }
    return false;
}

/* Keeps the candidate with the least distance, if it is near at all. A word cut
 * short ("vocab") is as near as one wrong letter. */
static void consider(const char *word, const char *candidate, int *least, const char **nearest)
{
    int distance = mn__string_distance(word, candidate);
    size_t length = strlen(word);
    if (length >= 3 && strncmp(word, candidate, length) == 0)
        distance = 1;
    if (distance >= 0 && distance < *least) {
        *least = distance;
        *nearest = candidate;
    }
}

static const char *nearest_key(const mn__option *table, const char *const *also, const char *word)
{
    const char *nearest = NULL;
    int least = 2 + (int)strlen(word) / 3; /* a third of the letters, and one more, may differ */
    for (; table->type != MN__OPTION_END; table++)
        consider(word, table->name, &least, &nearest);
    for (; also && *also; also++)
        consider(word, *also, &least, &nearest);
    return nearest;
}

const char *mn__options_nearest(const mn__option *table, const char *word)
{
    return nearest_key(table, NULL, word);
}

/* "did you mean 'layers'?", or all the keys there are. */
static void hint_for_unknown(const mn__option *table, const char *const *also, const char *word,
                             char hint[HINT_BYTES])
{
    const char *nearest = nearest_key(table, also, word);
    if (nearest) {
        snprintf(hint, HINT_BYTES, "did you mean '%s'?", nearest);
        return;
    }
    mn__string keys = {0};
    for (; table->type != MN__OPTION_END; table++)
        mn__string_printf(&keys, "%s%s", keys.bytes ? ", " : "", table->name);
    for (; also && *also; also++)
        mn__string_printf(&keys, "%s%s", keys.bytes ? ", " : "", *also);
    if (keys.bytes == 0 || keys.failed)
        snprintf(hint, HINT_BYTES, "no key is valid here");
    else
        snprintf(hint, HINT_BYTES, "valid keys: %.*s%s", HINT_BYTES - 32, keys.text,
                 keys.bytes > HINT_BYTES - 32 ? ", ..." : "");
    mn__string_free(&keys);
}

/* ---- One value ------------------------------------------------------------ */

static const char *expected(mn__option_type type)
{
    switch (type) {
    case MN__OPTION_BOOL:
        return "true or false";
    case MN__OPTION_INT:
        return "a whole number (2k, 1M, 64Ki and 1e6 are understood)";
    case MN__OPTION_FLOAT:
        return "a number";
    case MN__OPTION_STRING:
        return "text";
    case MN__OPTION_ENUM:
        return "one of its names";
    case MN__OPTION_LIST:
        return "a list of texts, or one text";
    case MN__OPTION_END:
        break;
    }
    return "nothing";
}

static mn_status fail_type(const mn__option *option, const mn__yaml_node *node, mn_error *error)
{
    const char *what = expected(option->type);
    if (node->kind == MN__YAML_MAPPING)
        return mn__yaml_fail(node, option->help, error, "%s: expects %s, found a mapping of %lld",
                             option->name, what, (long long)node->count);
    if (node->kind == MN__YAML_SEQUENCE)
        return mn__yaml_fail(node, option->help, error, "%s: expects %s, found a list of %lld",
                             option->name, what, (long long)node->count);
    if (mn__yaml_is_null(node))
        return mn__yaml_fail(node, option->help, error, "%s: expects %s, found nothing",
                             option->name, what);
    return mn__yaml_fail(node, option->help, error, "%s: expects %s, found '%s'", option->name,
                         what, node->text);
}

static mn_status fail_choice(const mn__option *option, const mn__yaml_node *node, mn_error *error)
{
    return mn__yaml_fail(node, option->help, error, "%s: expects one of %s, found '%s'",
                         option->name, option->choices, node->text);
}

static mn_status check_range(const mn__option *option, const mn__yaml_node *node, double value,
                             mn_error *error)
{
    bool any = option->least == 0 && option->most == 0;
    if (any || (value >= option->least && value <= option->most))
        return MN_OK;
    if (isinf(option->most))
        return mn__yaml_fail(node, option->help, error, "%s: %s is out of range (at least %.15g)",
                             option->name, node->text, option->least);
    if (isinf(option->least))
        return mn__yaml_fail(node, option->help, error, "%s: %s is out of range (at most %.15g)",
                             option->name, node->text, option->most);
    return mn__yaml_fail(node, option->help, error, "%s: %s is out of range (%.15g to %.15g)",
                         option->name, node->text, option->least, option->most);
}

static mn_status set_bool(const mn__option *option, const mn__yaml_node *node, bool *field,
                          mn_error *error)
{
    if (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0)
        return fail_type(option, node, error);
    *field = node->text[0] == 't';
    return MN_OK;
}

static mn_status set_int(const mn__option *option, const mn__yaml_node *node, int64_t *field,
                         mn_error *error)
{
    int64_t value;
    if (!parse_int(node->text, &value))
        return fail_type(option, node, error);
    mn_status status = check_range(option, node, (double)value, error);
    if (!status)
        *field = value;
    return status;
}

static mn_status set_float(const mn__option *option, const mn__yaml_node *node, double *field,
                           mn_error *error)
{
    double value;
    if (!parse_float(node->text, &value))
        return fail_type(option, node, error);
    mn_status status = check_range(option, node, value, error);
    if (!status)
        *field = value;
    return status;
}

static mn_status no_memory(const mn__option *option, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", option->name);
}

static mn_status set_string(const mn__option *option, const mn__yaml_node *node, const char **field,
                            mn__arena *arena, mn_error *error)
{
    const char *copy = mn__arena_strdup(arena, node->text);
    if (!copy)
        return no_memory(option, error);
    *field = copy;
    return MN_OK;
}

static mn_status set_list(const mn__option *option, const mn__yaml_node *node,
                          mn__string_list *field, mn__arena *arena, mn_error *error)
{
    bool one = node->kind == MN__YAML_SCALAR;
    mn__string_list list = {.count = one ? 1 : node->count};
    list.items = mn__arena_calloc(arena, list.count, sizeof *list.items);
    if (!list.items)
        return no_memory(option, error);
    for (int64_t i = 0; i < list.count; i++) {
        const mn__yaml_node *item = one ? node : node->items[i];
        if (item->kind != MN__YAML_SCALAR || mn__yaml_is_null(item))
            return fail_type(option, item, error);
        mn_status status = set_string(option, item, &list.items[i], arena, error);
        if (status)
            return status;
    }
    *field = list;
    return MN_OK;
}

static mn_status set_from_node(const mn__option *option, const mn__yaml_node *node, void *component,
                               mn__arena *arena, mn_error *error)
{
    void *field = (char *)component + option->offset;
    if (option->type == MN__OPTION_LIST && node->kind != MN__YAML_MAPPING)
        return set_list(option, node, field, arena, error);
    if (node->kind != MN__YAML_SCALAR || mn__yaml_is_null(node))
        return fail_type(option, node, error);
    switch (option->type) {
    case MN__OPTION_BOOL:
        return set_bool(option, node, field, error);
    case MN__OPTION_INT:
        return set_int(option, node, field, error);
    case MN__OPTION_FLOAT:
        return set_float(option, node, field, error);
    case MN__OPTION_STRING:
        return set_string(option, node, field, arena, error);
    case MN__OPTION_ENUM:
        return parse_choice(option->choices, node->text, field) ? MN_OK
                                                                : fail_choice(option, node, error);
    case MN__OPTION_LIST:
    case MN__OPTION_END:
        break;
    }
    return fail_type(option, node, error);
}

/* A list's text is "", one item, or YAML in brackets; `source` names it in
 * errors. */
static mn_status set_from_text(const mn__option *option, const char *source, const char *text,
                               void *component, mn__arena *arena, mn_error *error)
{
    mn__yaml_node scalar = {.kind = MN__YAML_SCALAR, .quoted = true, .text = text, .file = source};
    mn__yaml_node nothing = {.kind = MN__YAML_SEQUENCE, .file = source};
    mn__yaml_node *node = &scalar;
    if (option->type == MN__OPTION_LIST && *text == '\0')
        node = &nothing;
    if (option->type == MN__OPTION_LIST && *text == '[') {
        mn_status status = mn__yaml_parse(arena, source, text, (int64_t)strlen(text), &node, error);
        if (status)
            return status;
    }
    return set_from_node(option, node, component, arena, error);
}

/* ---- Tables --------------------------------------------------------------- */

static const mn__option *find_option(const mn__option *table, const char *name)
{
    for (; table->type != MN__OPTION_END; table++)
        if (strcmp(table->name, name) == 0)
            return table;
    return NULL;
}

mn_status mn__options_default(const mn__option *table, void *component, mn__arena *arena,
                              mn_error *error)
{
    mn_status status = MN_OK;
    for (; table->type != MN__OPTION_END && !status; table++) {
        status = set_from_text(table, "default", table->fallback, component, arena, error);
        assert(!status || status == MN_ERROR_MEMORY); /* a table's defaults are valid */
    }
    return status;
}

static bool is_among(const char *const *names, const char *name)
{
    for (; names && *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

mn_status mn__options_read(const mn__option *table, const mn__yaml_node *mapping,
                           const char *const *also, void *component, mn__arena *arena,
                           mn_error *error)
{
    mn_status status = mn__options_default(table, component, arena, error);
    if (status || mn__yaml_is_null(mapping))
        return status;
    if (mapping->kind != MN__YAML_MAPPING)
        return mn__yaml_fail(mapping, NULL, error, "expects keys with values, found %s",
                             mapping->kind == MN__YAML_SCALAR ? mapping->text : "a list");
    for (int64_t i = 0; i < mapping->count && !status; i++) {
        const mn__yaml_node *key = mapping->keys[i];
        const mn__option *option = find_option(table, key->text);
        if (option) {
            status = set_from_node(option, mapping->items[i], component, arena, error);
        } else if (!is_among(also, key->text)) {
            char hint[HINT_BYTES];
            hint_for_unknown(table, also, key->text, hint);
            status = mn__yaml_fail(key, hint, error, "unknown key '%s'", key->text);
        }
    }
    return status;
}

mn_status mn__options_set(const mn__option *table, const char *name, const char *value,
                          void *component, mn__arena *arena, mn_error *error)
{
    const mn__option *option = find_option(table, name);
    if (option)
        return set_from_text(option, "option", value, component, arena, error);
    char hint[HINT_BYTES];
    hint_for_unknown(table, NULL, name, hint);
    return mn__fail(error, MN_ERROR_OPTION, hint, "unknown option '%s'", name);
}
