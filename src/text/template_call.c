/* What templates call: global functions, methods of strings and dictionaries, and how
 * arguments are bound to parameters. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <locale.h>

#include "text/template_own.h"
#include "text/utf8.h"

enum { MOST_PARAMETERS = 4, MOST_RANGE = 100000 };

typedef mn__jinja_value value;

/* ---- Binding -------------------------------------------------------------------------- */

const mn__jinja_builtin *mn__jinja_find(const mn__jinja_builtin *table, const char *name)
{
    for (; table->name; table++)
        if (strcmp(table->name, name) == 0)
            return table;
    return NULL;
}

/* The place of a name among "a b c", or -1; NULL counts them. */
static int parameter_at(const char *parameters, const char *name)
{
    int at = 0;
    for (const char *p = parameters; *p; at++) {
        size_t length = strcspn(p, " ");
        if (name && strlen(name) == length && memcmp(p, name, length) == 0)
            return at;
        p += length + (p[length] == ' ');
    }
    return name ? -1 : at;
}

static mn_status bind(mn__jinja_run *run, const char *what, const mn__jinja_builtin *builtin,
                      const mn__jinja_arguments *arguments, mn__jinja_arguments *bound)
{
    int parameters = parameter_at(builtin->parameters, NULL);
    *bound = (mn__jinja_arguments){.count = parameters};
    for (int i = 0; i < MOST_PARAMETERS; i++)
        bound->values[i].kind = MN__JINJA_ABSENT;
    for (int64_t i = 0; i < arguments->count; i++) {
        const char *name = arguments->names[i];
        int64_t at = name ? parameter_at(builtin->parameters, name) : i;
        if (at < 0)
            return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "the %s '%s' has no argument '%s'",
                                  what, builtin->name, name);
        if (at >= parameters || bound->values[at].kind != MN__JINJA_ABSENT)
            return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "too many arguments for the %s '%s'",
                                  what, builtin->name);
        bound->values[at] = arguments->values[i];
    }
    for (int i = 0; i < builtin->required; i++)
        if (bound->values[i].kind == MN__JINJA_ABSENT)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "too few arguments for the %s '%s'", what,
                                  builtin->name);
    return MN_OK;
}

mn_status mn__jinja_call(mn__jinja_run *run, const char *what, const mn__jinja_builtin *builtin,
                         value self, const mn__jinja_arguments *arguments, value *out)
{
    if (!builtin->parameters)
        return builtin->call(run, self, arguments, out);
    mn__jinja_arguments bound;
    mn_status status = bind(run, what, builtin, arguments, &bound);
    return status ? status : builtin->call(run, self, &bound, out);
}

/* ---- Functions --------------------------------------------------------------------------- */

static mn_status raise(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)self;
    value text;
    mn_status status = mn__jinja_text(run, a->values[0], &text);
    if (status)
        return status;
    *out = mn__jinja_none();
    return mn__fail(run->error, MN_ERROR_MISMATCH, mn__jinja_hint,
                    "%s, line %d: the template refuses this conversation: %.*s", run->name,
                    run->line, (int)(text.bytes < 500 ? text.bytes : 500), text.as.text);
}

/* strftime in English, whatever the program's language is. */
static mn_status strftime_now(mn__jinja_run *run, value self, const mn__jinja_arguments *a,
                              value *out)
{
    (void)self;
    char format[128], text[256];
    struct tm now;
    time_t seconds = (time_t)run->now;
    value asked = a->values[0];
    if (asked.kind != MN__JINJA_STRING || asked.bytes >= (int64_t)sizeof format - 1 ||
        !localtime_r(&seconds, &now))
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "strftime_now wants a short string");
    int length = snprintf(format, sizeof format, "%.*s.", (int)asked.bytes, asked.as.text);
    locale_t locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!locale)
        return mn__jinja_no_memory(run);
    (void)length;
    size_t written = strftime_l(text, sizeof text, format, &now, locale);
    freelocale(locale);
    if (written == 0)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "strftime_now was asked for over 254 bytes");
    char *kept;
    mn_status status = mn__jinja_alloc(run, (int64_t)written, &kept);
    if (status)
        return status;
    memcpy(kept, text, written);
    int64_t bytes =
        (int64_t)written - 1; /* without the dot, which is there so that 0 is a failure */
    *out = mn__jinja_borrow(kept, bytes);
    if (mn__utf8_valid(kept, bytes) != bytes)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "strftime_now cut a character");
    return MN_OK;
}

static mn_status range(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)self;
    int64_t bounds[3] = {0, 0, 1}, given = 0;
    for (int i = 0; i < 3 && a->values[i].kind != MN__JINJA_ABSENT; i++) {
        if (a->values[i].kind != MN__JINJA_INT && a->values[i].kind != MN__JINJA_BOOL)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "range wants whole numbers, not %s",
                                  mn__jinja_kind_name(a->values[i]));
        bounds[i] = mn__jinja_whole(a->values[i]);
        given++;
    }
    if (given == 1) {
        bounds[1] = bounds[0];
        bounds[0] = 0;
    }
    int64_t step = bounds[2];
    if (step == 0)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "range has a step of 0");
    mn_status status = mn__jinja_list_new(run, MN__JINJA_LIST, 0, out);
    for (int64_t at = bounds[0]; !status && (step > 0 ? at < bounds[1] : at > bounds[1]);) {
        status = mn__jinja_spend(run, 16);
        if (!status && out->as.list->count == MOST_RANGE)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "range has over %d items", MOST_RANGE);
        if (!status)
            status = mn__jinja_list_add(run, out->as.list, mn__jinja_int(at));
        if (__builtin_add_overflow(at, step, &at))
            break;
    }
    return status;
}

/* dict(mapping, a=1, b=2) and namespace(...). */
static mn_status make_dict(mn__jinja_run *run, mn__jinja_kind kind, const mn__jinja_arguments *a,
                           value *out)
{
    mn_status status = mn__jinja_dict_new(run, kind, 0, out);
    for (int64_t i = 0; !status && i < a->count; i++) {
        const char *name = a->names[i];
        if (name) {
            status = mn__jinja_dict_set(
                run, out->as.dict, mn__jinja_borrow(name, (int64_t)strlen(name)), a->values[i]);
        } else if (a->values[i].kind == MN__JINJA_DICT && i == 0) {
            const mn__jinja_dict *from = a->values[i].as.dict;
            for (int64_t j = 0; !status && j < from->count; j++)
                status = mn__jinja_dict_set(run, out->as.dict, from->keys[j], from->values[j]);
        } else {
            return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "%s cannot be made of %s",
                                  mn__jinja_kind_name(*out), mn__jinja_kind_name(a->values[i]));
        }
    }
    return status;
}

static mn_status dict(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)self;
    return make_dict(run, MN__JINJA_DICT, a, out);
}

static mn_status namespace(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)self;
    return make_dict(run, MN__JINJA_NAMESPACE, a, out);
}

static const mn__jinja_builtin functions[] = {
    {"raise_exception", "message", raise, 1}, {"strftime_now", "format", strftime_now, 1},
    {"range", "start stop step", range, 1},   {"dict", NULL, dict, 0},
    {"namespace", NULL, namespace, 0},        {NULL, NULL, NULL, 0},
};

const mn__jinja_builtin *mn__jinja_function(const char *name)
{
    return mn__jinja_find(functions, name);
}

/* ---- Methods of strings ------------------------------------------------------------------------
 */

/* Whether the character at the beginning (or end) is of the set; its length. */
static int stripped_character(value string, value chars, bool from_end)
{
    if (string.bytes == 0)
        return 0;
    int64_t at = from_end ? string.bytes - 1 : 0;
    while (from_end && at > 0 && (string.as.text[at] & 0xC0) == 0x80)
        at--;
    uint32_t code;
    int length = mn__utf8_decode(string.as.text + at, string.bytes - at, &code);
    bool is = chars.kind == MN__JINJA_STRING
                  ? chars.bytes > 0 && memmem(chars.as.text, (size_t)chars.bytes,
                                              string.as.text + at, (size_t)length) != NULL
                  : mn__utf8_is_space(code);
    return is ? length : 0;
}

mn_status mn__jinja_strip(mn__jinja_run *run, value string, value chars, int sides, value *out)
{
    if (chars.kind != MN__JINJA_ABSENT && chars.kind != MN__JINJA_NONE &&
        chars.kind != MN__JINJA_STRING)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot be stripped",
                              mn__jinja_kind_name(chars));
    mn_status status = MN_OK;
    for (int length = 1; !status && (sides & 1) && length > 0; string.bytes -= length) {
        length = stripped_character(string, chars, false);
        string.as.text += length;
        status = mn__jinja_spend(run, 1 + chars.bytes);
    }
    for (int length = 1; !status && (sides & 2) && length > 0; string.bytes -= length) {
        length = stripped_character(string, chars, true);
        status = mn__jinja_spend(run, 1 + chars.bytes);
    }
    *out = string;
    return status;
}

static mn_status strip(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    return mn__jinja_strip(run, self, a->values[0], 3, out);
}

static mn_status lstrip(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    return mn__jinja_strip(run, self, a->values[0], 1, out);
}

static mn_status rstrip(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    return mn__jinja_strip(run, self, a->values[0], 2, out);
}

static bool has_prefix(value string, value with, bool at_end)
{
    return with.bytes <= string.bytes &&
           memcmp(string.as.text + (at_end ? string.bytes - with.bytes : 0), with.as.text,
                  (size_t)with.bytes) == 0;
}

/* startswith and endswith: a string, or a tuple of them. */
static mn_status affix(mn__jinja_run *run, value self, value with, bool at_end, value *out)
{
    const value *any = &with;
    int64_t count = 1;
    bool found = false;
    if (with.kind == MN__JINJA_TUPLE) {
        any = with.as.list->items;
        count = with.as.list->count;
    }
    for (int64_t i = 0; i < count && !found; i++) {
        if (any[i].kind != MN__JINJA_STRING)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s is no beginning or end of a string",
                                  mn__jinja_kind_name(any[i]));
        found = has_prefix(self, any[i], at_end);
    }
    *out = mn__jinja_bool(found);
    return mn__jinja_spend(run, count);
}

static mn_status startswith(mn__jinja_run *run, value self, const mn__jinja_arguments *a,
                            value *out)
{
    return affix(run, self, a->values[0], false, out);
}

static mn_status endswith(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    return affix(run, self, a->values[0], true, out);
}

static mn_status remove_affix(mn__jinja_run *run, value self, value affix, bool at_end, value *out)
{
    if (affix.kind != MN__JINJA_STRING)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s is no beginning or end of a string",
                              mn__jinja_kind_name(affix));
    *out = self;
    if (has_prefix(self, affix, at_end)) {
        out->bytes -= affix.bytes;
        out->as.text += at_end ? 0 : affix.bytes;
    }
    return MN_OK;
}

static mn_status removeprefix(mn__jinja_run *run, value self, const mn__jinja_arguments *a,
                              value *out)
{
    return remove_affix(run, self, a->values[0], false, out);
}

static mn_status removesuffix(mn__jinja_run *run, value self, const mn__jinja_arguments *a,
                              value *out)
{
    return remove_affix(run, self, a->values[0], true, out);
}

/* Words between runs of white space; after `most` cuts the rest is one, white space at its
 * end with it. */
static mn_status split_words(mn__jinja_run *run, value rest, int64_t most, mn__jinja_list *list)
{
    const value space = {.kind = MN__JINJA_ABSENT};
    mn_status status = mn__jinja_strip(run, rest, space, 1, &rest);
    while (!status && rest.bytes > 0) {
        bool last = most >= 0 && list->count == most;
        int64_t end = last ? rest.bytes : 0;
        for (int length = 1; end < rest.bytes && length > 0; end += length) {
            uint32_t code;
            length = mn__utf8_decode(rest.as.text + end, rest.bytes - end, &code);
            length = mn__utf8_is_space(code) ? 0 : length;
        }
        status = mn__jinja_list_add(run, list, mn__jinja_borrow(rest.as.text, end));
        rest.as.text += end;
        rest.bytes -= end;
        if (!status)
            status = mn__jinja_strip(run, rest, space, 1, &rest);
    }
    return status;
}

static mn_status split_at(mn__jinja_run *run, value rest, value by, int64_t most,
                          mn__jinja_list *list)
{
    for (;;) {
        const char *found =
            most >= 0 && list->count == most
                ? NULL
                : memmem(rest.as.text, (size_t)rest.bytes, by.as.text, (size_t)by.bytes);
        int64_t bytes = found ? found - rest.as.text : rest.bytes;
        mn_status status = mn__jinja_list_add(run, list, mn__jinja_borrow(rest.as.text, bytes));
        if (status || !found)
            return status;
        rest.as.text += bytes + by.bytes;
        rest.bytes -= bytes + by.bytes;
    }
}

static mn_status split(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    value by = a->values[0], most = a->values[1];
    bool words = by.kind == MN__JINJA_ABSENT || by.kind == MN__JINJA_NONE;
    if (!words && (by.kind != MN__JINJA_STRING || by.bytes == 0))
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a string cannot be split at %s",
                              by.kind == MN__JINJA_STRING ? "nothing" : mn__jinja_kind_name(by));
    if (most.kind != MN__JINJA_ABSENT && most.kind != MN__JINJA_INT)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot bound a split",
                              mn__jinja_kind_name(most));
    int64_t cuts = most.kind == MN__JINJA_INT ? most.as.whole : -1;
    mn_status status = mn__jinja_spend(run, self.bytes);
    if (!status)
        status = mn__jinja_list_new(run, MN__JINJA_LIST, 0, out);
    if (status)
        return status;
    return words ? split_words(run, self, cuts, out->as.list)
                 : split_at(run, self, by, cuts, out->as.list);
}

static mn_status upper(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    return mn__jinja_change_case(run, self, MN__JINJA_UPPER, out);
}

static mn_status lower(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    return mn__jinja_change_case(run, self, MN__JINJA_LOWER, out);
}

static mn_status capitalize(mn__jinja_run *run, value self, const mn__jinja_arguments *a,
                            value *out)
{
    (void)a;
    return mn__jinja_change_case(run, self, MN__JINJA_CAPITALIZE, out);
}

static mn_status replace(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    value most = a->values[2];
    if (a->values[0].kind != MN__JINJA_STRING || a->values[1].kind != MN__JINJA_STRING ||
        (most.kind != MN__JINJA_INT && most.kind != MN__JINJA_ABSENT))
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "replace wants strings");
    return mn__jinja_replace(run, self, a->values[0], a->values[1],
                             most.kind == MN__JINJA_INT ? most.as.whole : -1, out);
}

static mn_status join(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    const mn__jinja_list *items;
    mn__string text = {0};
    mn_status status = mn__jinja_iterate(run, a->values[0], &items);
    for (int64_t i = 0; !status && i < items->count; i++) {
        if (items->items[i].kind != MN__JINJA_STRING) {
            status = mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot be joined to strings",
                                    mn__jinja_kind_name(items->items[i]));
            break;
        }
        if (i > 0)
            status = mn__jinja_print(run, self, &text);
        if (!status)
            status = mn__jinja_print(run, items->items[i], &text);
    }
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

static const mn__jinja_builtin string_methods[] = {
    {"strip", "chars", strip, 0},
    {"lstrip", "chars", lstrip, 0},
    {"rstrip", "chars", rstrip, 0},
    {"startswith", "prefix", startswith, 1},
    {"endswith", "suffix", endswith, 1},
    {"removeprefix", "prefix", removeprefix, 1},
    {"removesuffix", "suffix", removesuffix, 1},
    {"split", "sep maxsplit", split, 0},
    {"upper", "", upper, 0},
    {"lower", "", lower, 0},
    {"capitalize", "", capitalize, 0},
    {"replace", "old new count", replace, 2},
    {"join", "iterable", join, 1},
    {NULL, NULL, NULL, 0},
};

/* ---- Methods of dictionaries
 * ---------------------------------------------------------------------- */

/* Pairs, keys or values: what to take of each. */
static mn_status list_dict(mn__jinja_run *run, value self, bool keys, bool values, value *out)
{
    const mn__jinja_dict *dict = self.as.dict;
    mn_status status = mn__jinja_list_new(run, MN__JINJA_LIST, dict->count, out);
    for (int64_t i = 0; !status && i < dict->count; i++) {
        value item = keys ? dict->keys[i] : dict->values[i];
        if (keys && values) {
            status = mn__jinja_list_new(run, MN__JINJA_TUPLE, 2, &item);
            if (!status)
                status = mn__jinja_list_add(run, item.as.list, dict->keys[i]);
            if (!status)
                status = mn__jinja_list_add(run, item.as.list, dict->values[i]);
        }
        if (!status)
            status = mn__jinja_list_add(run, out->as.list, item);
    }
    return status;
}

static mn_status items(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    return list_dict(run, self, true, true, out);
}

static mn_status keys(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    return list_dict(run, self, true, false, out);
}

static mn_status values(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    return list_dict(run, self, false, true, out);
}

static mn_status get(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    bool found;
    mn_status status = mn__jinja_dict_find(run, self.as.dict, a->values[0], out, &found);
    if (!status && !found)
        *out = a->values[1].kind == MN__JINJA_ABSENT ? mn__jinja_none() : a->values[1];
    return status;
}

static const mn__jinja_builtin dict_methods[] = {
    {"items", "", items, 0},        {"keys", "", keys, 0}, {"values", "", values, 0},
    {"get", "key default", get, 1}, {NULL, NULL, NULL, 0},
};

/* ---- Methods, all
 * ------------------------------------------------------------------------------------ */

/* Those of Python's that are not here: known, so that a call names them. */
static const char *const string_others[] = {
    "casefold",  "center",     "count",        "encode",     "expandtabs", "find",
    "format",    "format_map", "index",        "isalnum",    "isalpha",    "isascii",
    "isdecimal", "isdigit",    "isidentifier", "islower",    "isnumeric",  "isprintable",
    "isspace",   "istitle",    "isupper",      "ljust",      "maketrans",  "partition",
    "rfind",     "rindex",     "rjust",        "rpartition", "rsplit",     "splitlines",
    "swapcase",  "title",      "translate",    "zfill",      NULL,
};
static const char *const dict_others[] = {"copy", "fromkeys", NULL};
static const char *const list_others[] = {"copy", "count", "index", NULL};

static bool is_one_of(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

bool mn__jinja_has_method(mn__jinja_kind kind, const char *name)
{
    if (kind == MN__JINJA_STRING)
        return mn__jinja_find(string_methods, name) || is_one_of(string_others, name);
    if (kind == MN__JINJA_DICT)
        return mn__jinja_find(dict_methods, name) || is_one_of(dict_others, name);
    return (kind == MN__JINJA_LIST || kind == MN__JINJA_TUPLE) && is_one_of(list_others, name);
}

mn_status mn__jinja_method_call(mn__jinja_run *run, const mn__jinja_method *method,
                                const mn__jinja_arguments *arguments, value *out)
{
    const mn__jinja_builtin *found = NULL;
    if (method->object.kind == MN__JINJA_STRING)
        found = mn__jinja_find(string_methods, method->name);
    if (method->object.kind == MN__JINJA_DICT)
        found = mn__jinja_find(dict_methods, method->name);
    if (!found)
        return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "the method '%s' of %s is not supported",
                              method->name, mn__jinja_kind_name(method->object));
    return mn__jinja_call(run, "method", found, method->object, arguments, out);
}
