/* Values as text: Python's str() and repr(), and json.dumps(). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/template_own.h"
#include "text/utf8.h"

/* The shortest digits that read back as the same number, written as Python does:
 * with an exponent below 1e-4 and from 1e16 on. */
static void print_float(double real, bool json, mn__string *out)
{
    if (!isfinite(real)) {
        const char *name = isnan(real) ? (json ? "NaN" : "nan") : (json ? "Infinity" : "inf");
        mn__string_printf(out, "%s%s", real < 0 ? "-" : "", name);
        return;
    }
    char digits[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, real);
        if (strtod(digits, NULL) == real)
            break;
    }
    char *mark = strchr(digits, 'e');
    int exponent = atoi(mark + 1), decimals = (int)(mark - digits) - 2 - (digits[0] == '-');
    decimals = decimals < 0 ? 0 : decimals;
    if (exponent >= -4 && exponent < 16)
        mn__string_printf(out, "%.*f", decimals > exponent ? decimals - exponent : 1, real);
    else
        mn__string_puts(out, digits); /* at least two digits of exponent, as Python has */
}

static bool is_printable(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return code == ' ';
    default:
        return true;
    }
}

static void repr_character(uint32_t code, char quote, const char *text, int length, mn__string *out)
{
    if (code == '\\' || code == (unsigned char)quote)
        mn__string_printf(out, "\\%c", (int)code);
    else if (code == '\n' || code == '\r' || code == '\t')
        mn__string_puts(out, code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t");
    else if (is_printable(code))
        mn__string_add(out, text, length);
    else if (code < 0x100)
        mn__string_printf(out, "\\x%02x", code);
    else
        mn__string_printf(out, code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
}

static mn_status repr_string(mn__jinja_run *run, mn__jinja_value value, mn__string *out)
{
    bool single = value.bytes > 0 && memchr(value.as.text, '\'', (size_t)value.bytes);
    bool both = single && memchr(value.as.text, '"', (size_t)value.bytes);
    char quote = single && !both ? '"' : '\'';
    mn__string_add(out, &quote, 1);
    for (int64_t i = 0; i < value.bytes && !out->failed;) {
        uint32_t code;
        int length = mn__utf8_decode(value.as.text + i, value.bytes - i, &code);
        repr_character(code, quote, value.as.text + i, length, out);
        i += length;
    }
    mn__string_add(out, &quote, 1);
    return mn__jinja_spend(run, 4 * value.bytes);
}

static mn_status repr(mn__jinja_run *run, mn__jinja_value value, mn__string *out);

static mn_status repr_list(mn__jinja_run *run, mn__jinja_value value, mn__string *out)
{
    const mn__jinja_list *list = value.as.list;
    bool tuple = value.kind == MN__JINJA_TUPLE;
    mn_status status = MN_OK;
    mn__string_puts(out, tuple ? "(" : "[");
    for (int64_t i = 0; !status && i < list->count; i++) {
        mn__string_puts(out, i ? ", " : "");
        status = repr(run, list->items[i], out);
    }
    mn__string_puts(out, !tuple ? "]" : list->count == 1 ? ",)" : ")");
    return status;
}

static mn_status repr_dict(mn__jinja_run *run, const mn__jinja_dict *dict, mn__string *out)
{
    mn_status status = MN_OK;
    mn__string_puts(out, "{");
    for (int64_t i = 0; !status && i < dict->count; i++) {
        mn__string_puts(out, i ? ", " : "");
        status = repr(run, dict->keys[i], out);
        mn__string_puts(out, ": ");
        if (!status)
            status = repr(run, dict->values[i], out);
    }
    mn__string_puts(out, "}");
    return status;
}

static mn_status repr_kind(mn__jinja_run *run, mn__jinja_value value, mn__string *out)
{
    switch (value.kind) {
    case MN__JINJA_UNDEFINED:
        mn__string_puts(out, "Undefined");
        return MN_OK;
    case MN__JINJA_NONE:
        mn__string_puts(out, "None");
        return MN_OK;
    case MN__JINJA_BOOL:
        mn__string_puts(out, value.as.yes ? "True" : "False");
        return MN_OK;
    case MN__JINJA_INT:
        mn__string_printf(out, "%lld", (long long)value.as.whole);
        return MN_OK;
    case MN__JINJA_FLOAT:
        print_float(value.as.real, false, out);
        return MN_OK;
    case MN__JINJA_STRING:
        return repr_string(run, value, out);
    case MN__JINJA_LIST:
    case MN__JINJA_TUPLE:
        return repr_list(run, value, out);
    case MN__JINJA_DICT:
        return repr_dict(run, value.as.dict, out);
    default:
        return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "%s cannot be printed",
                              mn__jinja_kind_name(value));
    }
}

static mn_status repr(mn__jinja_run *run, mn__jinja_value value, mn__string *out)
{
    mn_status status = mn__jinja_enter(run);
    if (!status)
        status = mn__jinja_spend(run, 16);
    if (!status)
        status = repr_kind(run, value, out);
    mn__jinja_leave(run);
    return status;
}

mn_status mn__jinja_print(mn__jinja_run *run, mn__jinja_value value, mn__string *out)
{
    if (value.kind == MN__JINJA_UNDEFINED)
        return MN_OK;
    mn_status status = MN_OK;
    if (value.kind == MN__JINJA_STRING) {
        status = mn__jinja_spend(run, value.bytes);
        if (!status)
            mn__string_add(out, value.as.text, value.bytes);
    } else {
        status = repr(run, value, out);
    }
    if (!status && out->failed)
        status = mn__jinja_no_memory(run);
    return status;
}

mn_status mn__jinja_text(mn__jinja_run *run, mn__jinja_value value, mn__jinja_value *out)
{
    mn__string text = {0};
    *out = value;
    if (value.kind == MN__JINJA_STRING)
        return MN_OK;
    mn_status status = mn__jinja_print(run, value, &text);
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

/* ---- JSON --------------------------------------------------------------------------- */

static void dump_character(uint32_t code, bool ascii, const char *text, int length, mn__string *out)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *simple = code < 0x80 && code ? strchr(from, (int)code) : NULL;
    if (simple)
        mn__string_printf(out, "\\%c", to[simple - from]);
    else if (code < 0x20 || (ascii && code > 0x7E && code < 0x10000))
        mn__string_printf(out, "\\u%04x", code);
    else if (ascii && code >= 0x10000)
        mn__string_printf(out, "\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10),
                          0xDC00 + ((code - 0x10000) & 0x3FF));
    else
        mn__string_add(out, text, length);
}

static mn_status dump_string(mn__jinja_run *run, mn__jinja_value value, bool ascii, mn__string *out)
{
    mn__string_puts(out, "\"");
    for (int64_t i = 0; i < value.bytes && !out->failed;) {
        uint32_t code;
        int length = mn__utf8_decode(value.as.text + i, value.bytes - i, &code);
        dump_character(code, ascii, value.as.text + i, length, out);
        i += length;
    }
    mn__string_puts(out, "\"");
    return mn__jinja_spend(run, 4 * value.bytes);
}

/* A line's end and its indentation, where the form has lines. */
static mn_status new_line(mn__jinja_run *run, const mn__jinja_json *form, int64_t level,
                          mn__string *out)
{
    if (!form->indent)
        return MN_OK;
    mn_status status = mn__jinja_spend(run, level * form->indent_bytes);
    mn__string_puts(out, "\n");
    for (int64_t i = 0; !status && i < level; i++)
        mn__string_add(out, form->indent, form->indent_bytes);
    return status;
}

static mn_status dump(mn__jinja_run *run, mn__jinja_value value, const mn__jinja_json *form,
                      int64_t level, mn__string *out);

static mn_status dump_list(mn__jinja_run *run, const mn__jinja_list *list,
                           const mn__jinja_json *form, int64_t level, mn__string *out)
{
    mn_status status = MN_OK;
    mn__string_puts(out, "[");
    for (int64_t i = 0; !status && i < list->count; i++) {
        if (i > 0)
            mn__string_add(out, form->item.as.text, form->item.bytes);
        status = new_line(run, form, level + 1, out);
        if (!status)
            status = dump(run, list->items[i], form, level + 1, out);
    }
    if (!status && list->count > 0)
        status = new_line(run, form, level, out);
    mn__string_puts(out, "]");
    return status;
}

static mn_status dump_key(mn__jinja_run *run, mn__jinja_value key, const mn__jinja_json *form,
                          mn__string *out)
{
    if (key.kind == MN__JINJA_STRING)
        return dump_string(run, key, form->ascii, out);
    if (!mn__jinja_is_number(key) && key.kind != MN__JINJA_NONE)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot be a key in JSON",
                              mn__jinja_kind_name(key));
    mn__string_puts(out, "\"");
    mn_status status = dump(run, key, form, 0, out);
    mn__string_puts(out, "\"");
    return status;
}

/* The places of a dictionary's keys, in their order: a list of whole numbers. */
static mn_status sorted_places(mn__jinja_run *run, const mn__jinja_dict *dict, bool sort,
                               mn__jinja_list **out)
{
    mn__jinja_value places;
    mn_status status = mn__jinja_list_new(run, MN__JINJA_LIST, dict->count, &places);
    for (int64_t i = 0; !status && i < dict->count; i++) {
        int64_t at = i;
        for (int order = 1; sort && !status && at > 0; at--) {
            mn__jinja_value before = dict->keys[places.as.list->items[at - 1].as.whole];
            status = mn__jinja_order(run, before, dict->keys[i], &order);
            if (!status)
                status = mn__jinja_spend(run, 4);
            if (order <= 0)
                break;
        }
        if (!status)
            status = mn__jinja_list_add(run, places.as.list, mn__jinja_int(i));
        for (int64_t j = i; !status && j > at; j--)
            places.as.list->items[j] = places.as.list->items[j - 1];
        if (!status)
            places.as.list->items[at] = mn__jinja_int(i);
    }
    *out = places.as.list;
    return status;
}

static mn_status dump_dict(mn__jinja_run *run, const mn__jinja_dict *dict,
                           const mn__jinja_json *form, int64_t level, mn__string *out)
{
    mn__jinja_list *places = NULL;
    mn_status status = sorted_places(run, dict, form->sort, &places);
    mn__string_puts(out, "{");
    for (int64_t i = 0; !status && i < dict->count; i++) {
        int64_t at = places->items[i].as.whole;
        if (i > 0)
            mn__string_add(out, form->item.as.text, form->item.bytes);
        status = new_line(run, form, level + 1, out);
        if (!status)
            status = dump_key(run, dict->keys[at], form, out);
        mn__string_add(out, form->key.as.text, form->key.bytes);
        if (!status)
            status = dump(run, dict->values[at], form, level + 1, out);
    }
    if (!status && dict->count > 0)
        status = new_line(run, form, level, out);
    mn__string_puts(out, "}");
    return status;
}

static mn_status dump_kind(mn__jinja_run *run, mn__jinja_value value, const mn__jinja_json *form,
                           int64_t level, mn__string *out)
{
    switch (value.kind) {
    case MN__JINJA_NONE:
        mn__string_puts(out, "null");
        return MN_OK;
    case MN__JINJA_BOOL:
        mn__string_puts(out, value.as.yes ? "true" : "false");
        return MN_OK;
    case MN__JINJA_INT:
        mn__string_printf(out, "%lld", (long long)value.as.whole);
        return MN_OK;
    case MN__JINJA_FLOAT:
        print_float(value.as.real, true, out);
        return MN_OK;
    case MN__JINJA_STRING:
        return dump_string(run, value, form->ascii, out);
    case MN__JINJA_LIST:
    case MN__JINJA_TUPLE:
        return dump_list(run, value.as.list, form, level, out);
    case MN__JINJA_DICT:
        return dump_dict(run, value.as.dict, form, level, out);
    default:
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot be written as JSON",
                              mn__jinja_kind_name(value));
    }
}

static mn_status dump(mn__jinja_run *run, mn__jinja_value value, const mn__jinja_json *form,
                      int64_t level, mn__string *out)
{
    mn_status status = mn__jinja_enter(run);
    if (!status)
        status = mn__jinja_spend(run, 16 + form->item.bytes + form->key.bytes);
    if (!status)
        status = dump_kind(run, value, form, level, out);
    mn__jinja_leave(run);
    return status;
}

mn_status mn__jinja_dump(mn__jinja_run *run, mn__jinja_value value, const mn__jinja_json *form,
                         mn__string *out)
{
    mn_status status = dump(run, value, form, 0, out);
    return !status && out->failed ? mn__jinja_no_memory(run) : status;
}
