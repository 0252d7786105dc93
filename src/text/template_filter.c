/* The filters of templates: `value | name(arguments)`. What Jinja makes a generator of is
 * a list here. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/template_own.h"
#include "text/utf8.h"

typedef mn__jinja_value value;

static bool given(value argument)
{
    return argument.kind != MN__JINJA_ABSENT;
}

/* ---- Texts ------------------------------------------------------------------------------ */

/* Letters whose upper or lower case is several letters, or depends on their place: Unicode's
 * SpecialCasing.txt. */
static bool has_special_case(uint32_t code, bool lower)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x00DF, 0x00DF}, {0x0149, 0x0149}, {0x01F0, 0x01F0}, {0x0390, 0x0390}, {0x03B0, 0x03B0},
        {0x0587, 0x0587}, {0x1E96, 0x1E9A}, {0x1F50, 0x1F56}, {0x1F80, 0x1FAF}, {0x1FB2, 0x1FB7},
        {0x1FBC, 0x1FBC}, {0x1FC2, 0x1FC7}, {0x1FCC, 0x1FCC}, {0x1FD2, 0x1FD7}, {0x1FE2, 0x1FE7},
        {0x1FF2, 0x1FF7}, {0x1FFC, 0x1FFC}, {0xFB00, 0xFB06}, {0xFB13, 0xFB17},
    };
    if (lower)
        return code == 0x0130 || code == 0x03A3;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

mn_status mn__jinja_change_case(mn__jinja_run *run, value string, mn__jinja_case change, value *out)
{
    mn__string text = {0};
    bool first = true;
    mn_status status = mn__jinja_spend(run, 8 * string.bytes);
    for (int64_t i = 0; !status && i < string.bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(string.as.text + i, string.bytes - i, &code);
        bool upper = change == MN__JINJA_UPPER || (change != MN__JINJA_LOWER && first);
        if (has_special_case(code, !upper))
            status = mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "the %s case of U+%04X is not known",
                                    upper ? "upper" : "lower", (unsigned)code);
        utf8proc_int32_t point = (utf8proc_int32_t)code;
        point = upper ? change == MN__JINJA_CAPITALIZE ? utf8proc_totitle(point)
                                                       : utf8proc_toupper(point)
                      : utf8proc_tolower(point);
        char encoded[4];
        mn__string_add(&text, encoded, mn__utf8_encode((uint32_t)point, encoded));
        first = change == MN__JINJA_TITLE &&
                (mn__utf8_is_space(code) || (code < 0x80 && code && strchr("-({[<", (int)code)));
        i += length;
    }
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

static mn_status change_text(mn__jinja_run *run, value self, mn__jinja_case change, value *out)
{
    mn_status status = mn__jinja_text(run, self, &self);
    return status ? status : mn__jinja_change_case(run, self, change, out);
}

#define CASE_FILTER(name, change)                                                       \
    static mn_status name(mn__jinja_run *run, value self, const mn__jinja_arguments *a, \
                          value *out)                                                   \
    {                                                                                   \
        (void)a;                                                                        \
        return change_text(run, self, change, out);                                     \
    }
CASE_FILTER(upper, MN__JINJA_UPPER)
CASE_FILTER(lower, MN__JINJA_LOWER)
CASE_FILTER(capitalize, MN__JINJA_CAPITALIZE)
CASE_FILTER(title, MN__JINJA_TITLE)

static mn_status trim(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    mn_status status = mn__jinja_text(run, self, &self);
    return status ? status : mn__jinja_strip(run, self, a->values[0], 3, out);
}

mn_status mn__jinja_replace(mn__jinja_run *run, value string, value old, value with, int64_t most,
                            value *out)
{
    mn__string text = {0};
    mn_status status = mn__jinja_spend(run, string.bytes);
    for (int64_t n = 0; !status && (most < 0 || n < most); n++) {
        const char *found =
            memmem(string.as.text, (size_t)string.bytes, old.as.text, (size_t)old.bytes);
        if (!found || (old.bytes == 0 && n > 0 && string.bytes == 0))
            break;
        int64_t before = found - string.as.text, after = old.bytes;
        if (old.bytes == 0 && n > 0) { /* between characters */
            before = mn__utf8_length(string.as.text, string.bytes);
        }
        status = mn__jinja_spend(run, 1 + before + with.bytes);
        if (status)
            break;
        mn__string_add(&text, string.as.text, before);
        mn__string_add(&text, with.as.text, with.bytes);
        string.as.text += before + after;
        string.bytes -= before + after;
    }
    mn__string_add(&text, string.as.text, string.bytes);
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

static mn_status replace(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    value old, with, most = a->values[2];
    mn_status status = mn__jinja_text(run, self, &self);
    if (!status)
        status = mn__jinja_text(run, a->values[0], &old);
    if (!status)
        status = mn__jinja_text(run, a->values[1], &with);
    if (status)
        return status;
    return mn__jinja_replace(run, self, old, with, most.kind == MN__JINJA_INT ? most.as.whole : -1,
                             out);
}

static mn_status string(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    return mn__jinja_text(run, self, out);
}

static mn_status safe(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    return mn__jinja_text(run, self, out);
}

/* After each line's end, and at the start where `first`: white space, unless the line is
 * empty and `blank` is not asked for. */
static mn_status indent(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    value width = a->values[0], with = mn__jinja_borrow("", 0);
    bool first = mn__jinja_truth(a->values[1]), blank = mn__jinja_truth(a->values[2]);
    int64_t spaces = !given(width) ? 4 : width.kind == MN__JINJA_INT ? width.as.whole : 0;
    mn_status status = mn__jinja_text(run, self, &self);
    if (!status)
        status = mn__jinja_spend(run, self.bytes + (spaces > 0 ? spaces : 0));
    char *text = NULL;
    if (!status)
        status = mn__jinja_alloc(run, spaces > 0 ? spaces : 0, &text);
    if (status)
        return status;
    memset(text, ' ', (size_t)(spaces > 0 ? spaces : 0));
    with = width.kind == MN__JINJA_STRING ? width : mn__jinja_borrow(text, spaces > 0 ? spaces : 0);
    mn__string built = {0};
    for (int64_t i = 0; !status && i <= self.bytes; i++) {
        bool begins = i == 0 || self.as.text[i - 1] == '\n';
        bool empty = i == self.bytes || self.as.text[i] == '\n';
        if (begins && (i == 0 ? first : (blank || !empty))) {
            status = mn__jinja_spend(run, with.bytes);
            if (!status)
                mn__string_add(&built, with.as.text, with.bytes);
        }
        if (i < self.bytes)
            mn__string_add(&built, self.as.text + i, 1);
    }
    if (!status)
        return mn__jinja_take(run, &built, out);
    mn__string_free(&built);
    return status;
}

static mn_status tojson(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    value width = a->values[1], separators = a->values[2];
    mn__jinja_json form = {
        .ascii = mn__jinja_truth(a->values[0]),
        .sort = mn__jinja_truth(a->values[3]),
        .item = mn__jinja_borrow(", ", 2),
        .key = mn__jinja_borrow(": ", 2),
    };
    mn_status status = MN_OK;
    if (width.kind == MN__JINJA_STRING) {
        form.indent = width.as.text;
        form.indent_bytes = width.bytes;
    } else if (width.kind == MN__JINJA_INT) {
        char *text;
        form.indent_bytes = width.as.whole > 0 ? width.as.whole : 0;
        status = mn__jinja_alloc(run, form.indent_bytes, &text);
        if (status)
            return status;
        memset(text, ' ', (size_t)form.indent_bytes);
        form.indent = text;
    }
    if (form.indent)
        form.item.bytes = 1;
    if (separators.kind == MN__JINJA_TUPLE || separators.kind == MN__JINJA_LIST) {
        const mn__jinja_list *both = separators.as.list;
        if (both->count != 2 || both->items[0].kind != MN__JINJA_STRING ||
            both->items[1].kind != MN__JINJA_STRING)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "tojson wants two separators");
        form.item = both->items[0];
        form.key = both->items[1];
    }
    mn__string text = {0};
    status = mn__jinja_dump(run, self, &form, &text);
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

/* ---- Numbers ----------------------------------------------------------------------------- */

/* Python's float() of a text; false where it is none. */
static bool read_float(value text, double *real)
{
    char digits[64], *end;
    if (text.bytes == 0 || text.bytes >= (int64_t)sizeof digits)
        return false;
    memcpy(digits, text.as.text, (size_t)text.bytes);
    digits[text.bytes] = '\0';
    if (strspn(digits, "0123456789+-.eE") != (size_t)text.bytes)
        return false; /* hexadecimal, inf and nan */
    *real = strtod(digits, &end);
    return *end == '\0';
}

static mn_status to_int(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    *out = given(a->values[0]) ? a->values[0] : mn__jinja_int(0);
    double real = 0;
    if (self.kind == MN__JINJA_INT || self.kind == MN__JINJA_BOOL) {
        *out = mn__jinja_int(mn__jinja_whole(self));
        return MN_OK;
    }
    bool is = self.kind == MN__JINJA_FLOAT;
    if (is)
        real = self.as.real;
    if (self.kind == MN__JINJA_STRING) {
        mn_status status = mn__jinja_strip(run, self, (value){.kind = MN__JINJA_ABSENT}, 3, &self);
        if (status)
            return status;
        char digits[32] = "", *end = digits;
        if (self.bytes > 0 && self.bytes < 19)
            memcpy(digits, self.as.text, (size_t)self.bytes);
        long long whole = strtoll(digits, &end, 10);
        if (end > digits && *end == '\0') {
            *out = mn__jinja_int(whole);
            return MN_OK;
        }
        is = read_float(self, &real);
    }
    if (is && fabs(real) < 9e18)
        *out = mn__jinja_int((int64_t)real);
    else if (is)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a number is too large");
    return MN_OK;
}

static mn_status to_float(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    *out = given(a->values[0]) ? a->values[0] : mn__jinja_float(0);
    double real;
    if (mn__jinja_is_number(self))
        *out = mn__jinja_float(mn__jinja_real(self));
    if (self.kind != MN__JINJA_STRING)
        return MN_OK;
    mn_status status = mn__jinja_strip(run, self, (value){.kind = MN__JINJA_ABSENT}, 3, &self);
    if (!status && read_float(self, &real))
        *out = mn__jinja_float(real);
    return status;
}

static mn_status absolute(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    if (!mn__jinja_is_number(self))
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s has no absolute value",
                              mn__jinja_kind_name(self));
    if (self.kind == MN__JINJA_FLOAT) {
        *out = mn__jinja_float(fabs(self.as.real));
        return MN_OK;
    }
    int64_t whole = mn__jinja_whole(self);
    if (whole == INT64_MIN)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a number is too large");
    *out = mn__jinja_int(whole < 0 ? -whole : whole);
    return MN_OK;
}

/* ---- Any value ------------------------------------------------------------------------------ */

static mn_status length(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    const mn__jinja_list *items;
    if (self.kind == MN__JINJA_STRING) {
        *out = mn__jinja_int(mn__jinja_length(self));
        return mn__jinja_spend(run, self.bytes);
    }
    if (self.kind == MN__JINJA_LOOP)
        return mn__jinja_attribute(run, self, "length", out);
    mn_status status = mn__jinja_iterate(run, self, &items);
    if (!status)
        *out = mn__jinja_int(items->count);
    return status;
}

static mn_status otherwise(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)run;
    bool missing = self.kind == MN__JINJA_UNDEFINED ||
                   (mn__jinja_truth(a->values[1]) && !mn__jinja_truth(self));
    *out = !missing ? self : given(a->values[0]) ? a->values[0] : mn__jinja_borrow("", 0);
    return MN_OK;
}

/* ---- Lists -------------------------------------------------------------------------------------
 */

static mn_status first(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    const mn__jinja_list *items;
    mn_status status = mn__jinja_iterate(run, self, &items);
    if (!status)
        *out = items->count ? items->items[0] : mn__jinja_undefined("the first item");
    return status;
}

static mn_status last(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    const mn__jinja_list *items;
    mn_status status = mn__jinja_iterate(run, self, &items);
    if (!status)
        *out = items->count ? items->items[items->count - 1] : mn__jinja_undefined("the last item");
    return status;
}

static mn_status to_list(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    const mn__jinja_list *items;
    mn_status status = mn__jinja_iterate(run, self, &items);
    if (!status)
        status = mn__jinja_list_new(run, MN__JINJA_LIST, 0, out);
    for (int64_t i = 0; !status && i < items->count; i++)
        status = mn__jinja_list_add(run, out->as.list, items->items[i]);
    return status;
}

static mn_status reverse(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    const value bounds[3] = {mn__jinja_none(), mn__jinja_none(), mn__jinja_int(-1)};
    if (self.kind == MN__JINJA_DICT) {
        mn_status status = to_list(run, self, a, &self);
        if (status)
            return status;
    }
    return mn__jinja_slice(run, self, bounds, out);
}

static mn_status items(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    if (self.kind == MN__JINJA_UNDEFINED)
        return mn__jinja_list_new(run, MN__JINJA_LIST, 0, out);
    if (self.kind != MN__JINJA_DICT)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s has no pairs of items",
                              mn__jinja_kind_name(self));
    const mn__jinja_method method = {self, "items"};
    return mn__jinja_method_call(run, &method, &(mn__jinja_arguments){.count = 0}, out);
}

/* An item's attribute "a.b.0", or the item where there is none. */
static mn_status part_of(mn__jinja_run *run, value item, value path, value *out)
{
    mn_status status = MN_OK;
    *out = item;
    if (path.kind == MN__JINJA_INT)
        return mn__jinja_item(run, item, path, out);
    if (path.kind != MN__JINJA_STRING)
        return MN_OK;
    const char *at = path.as.text, *end = at + path.bytes;
    while (!status && at <= end) {
        const char *dot = memchr(at, '.', (size_t)(end - at));
        int64_t bytes = (dot ? dot : end) - at;
        value key = mn__jinja_borrow(at, bytes), number;
        bool digits = bytes > 0;
        for (int64_t i = 0; i < bytes; i++)
            digits &= at[i] >= '0' && at[i] <= '9';
        if (digits) {
            status =
                to_int(run, key, &(mn__jinja_arguments){.values[0] = mn__jinja_int(0)}, &number);
            key = number;
        }
        if (!status)
            status = mn__jinja_item(run, *out, key, out);
        at += bytes + 1;
    }
    return status;
}

static mn_status join(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    const mn__jinja_list *list;
    value between = mn__jinja_borrow("", 0);
    mn__string text = {0};
    mn_status status = mn__jinja_iterate(run, self, &list);
    if (!status && given(a->values[0]))
        status = mn__jinja_text(run, a->values[0], &between);
    for (int64_t i = 0; !status && i < list->count; i++) {
        value part;
        if (i > 0)
            status = mn__jinja_print(run, between, &text);
        if (!status)
            status = part_of(run, list->items[i], a->values[1], &part);
        if (!status)
            status = mn__jinja_print(run, part, &text);
    }
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

/* select, reject, selectattr, rejectattr: items that a test holds of, or does not. */
static mn_status choose(mn__jinja_run *run, value self, const mn__jinja_arguments *a,
                        bool attribute, bool keep, value *out)
{
    const mn__jinja_list *list;
    int64_t skip = attribute ? 1 : 0;
    if (a->count < skip)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "an attribute's name is missing");
    mn__jinja_arguments rest = {.count = a->count > skip ? a->count - skip - 1 : 0};
    for (int64_t i = 0; i < rest.count; i++) {
        rest.values[i] = a->values[skip + 1 + i];
        rest.names[i] = a->names[skip + 1 + i];
    }
    char name[32] = "";
    if (a->count > skip) {
        value test = a->values[skip];
        if (test.kind != MN__JINJA_STRING || test.bytes >= (int64_t)sizeof name)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s does not name a test",
                                  mn__jinja_kind_name(test));
        memcpy(name, test.as.text, (size_t)test.bytes);
    }
    mn_status status = mn__jinja_iterate(run, self, &list);
    if (!status)
        status = mn__jinja_list_new(run, MN__JINJA_LIST, 0, out);
    for (int64_t i = 0; !status && i < list->count; i++) {
        value part = list->items[i];
        if (attribute)
            status = part_of(run, list->items[i], a->values[0], &part);
        bool holds = mn__jinja_truth(part);
        if (!status && a->count > skip)
            status = mn__jinja_test(run, name, part, &rest, &holds);
        if (!status)
            status = mn__jinja_spend(run, 16);
        if (!status && holds == keep)
            status = mn__jinja_list_add(run, out->as.list, list->items[i]);
    }
    return status;
}

#define CHOICE(name, attribute, keep)                                                   \
    static mn_status name(mn__jinja_run *run, value self, const mn__jinja_arguments *a, \
                          value *out)                                                   \
    {                                                                                   \
        return choose(run, self, a, attribute, keep, out);                              \
    }
CHOICE(select_items, false, true)
CHOICE(reject_items, false, false)
CHOICE(select_attribute, true, true)
CHOICE(reject_attribute, true, false)

/* map(attribute=..., default=...) or map("filter", arguments). */
static mn_status map(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    const mn__jinja_list *list;
    value path = {.kind = MN__JINJA_ABSENT}, missing = {.kind = MN__JINJA_ABSENT};
    mn__jinja_arguments rest = {.count = 0};
    char name[32] = "";
    for (int64_t i = 0; i < a->count; i++) {
        if (!name[0] && a->names[i] && strcmp(a->names[i], "attribute") == 0) {
            path = a->values[i];
        } else if (!name[0] && a->names[i] && strcmp(a->names[i], "default") == 0) {
            missing = a->values[i];
        } else if (i == 0 && a->values[0].kind == MN__JINJA_STRING && a->values[0].bytes > 0 &&
                   a->values[0].bytes < (int64_t)sizeof name) {
            memcpy(name, a->values[0].as.text, (size_t)a->values[0].bytes);
        } else if (name[0]) {
            rest.values[rest.count] = a->values[i];
            rest.names[rest.count++] = a->names[i];
        } else {
            return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "map has no such argument");
        }
    }
    mn_status status = mn__jinja_iterate(run, self, &list);
    if (!status)
        status = mn__jinja_list_new(run, MN__JINJA_LIST, 0, out);
    for (int64_t i = 0; !status && i < list->count; i++) {
        value mapped = list->items[i];
        if (name[0])
            status = mn__jinja_filter(run, name, list->items[i], &rest, &mapped);
        else
            status = part_of(run, list->items[i], path, &mapped);
        if (mapped.kind == MN__JINJA_UNDEFINED && given(missing))
            mapped = missing;
        if (!status)
            status = mn__jinja_spend(run, 16);
        if (!status)
            status = mn__jinja_list_add(run, out->as.list, mapped);
    }
    return status;
}

/* ---- Sorting
 * --------------------------------------------------------------------------------------- */

/* How two items are ordered. */
typedef struct order_rule {
    value path;
    bool exact, descending; /* exact: upper and lower case differ */
} order_rule;

static mn_status key_of(mn__jinja_run *run, value item, const order_rule *rule, value *key)
{
    mn_status status = part_of(run, item, rule->path, key);
    if (!status && !rule->exact && key->kind == MN__JINJA_STRING)
        status = mn__jinja_change_case(run, *key, MN__JINJA_LOWER, key);
    return status;
}

/* A stable insertion sort: lists are short, and the work is counted. */
static mn_status sort_list(mn__jinja_run *run, mn__jinja_list *list, const order_rule *rule)
{
    value keys;
    mn_status status = mn__jinja_list_new(run, MN__JINJA_LIST, list->count, &keys);
    for (int64_t i = 0; !status && i < list->count; i++) {
        value key, item = list->items[i];
        status = key_of(run, item, rule, &key);
        if (!status)
            status = mn__jinja_list_add(run, keys.as.list, key);
        int64_t at = i;
        for (; !status && at > 0; at--) {
            int order;
            status = mn__jinja_order(run, keys.as.list->items[at - 1], key, &order);
            if (!status)
                status = mn__jinja_spend(run, 8);
            if (status || (rule->descending ? order >= 0 : order <= 0))
                break;
            keys.as.list->items[at] = keys.as.list->items[at - 1];
            list->items[at] = list->items[at - 1];
        }
        if (!status) {
            keys.as.list->items[at] = key;
            list->items[at] = item;
        }
    }
    return status;
}

static mn_status sort(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    order_rule rule = {.descending = mn__jinja_truth(a->values[0]),
                       .exact = mn__jinja_truth(a->values[1]),
                       .path = a->values[2]};
    mn_status status = to_list(run, self, a, out);
    return status ? status : sort_list(run, out->as.list, &rule);
}

static mn_status dictsort(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    bool by_value = mn__jinja_is_text(a->values[1], "value");
    if (given(a->values[1]) && !by_value && !mn__jinja_is_text(a->values[1], "key"))
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "dictsort goes by 'key' or by 'value'");
    order_rule rule = {.exact = mn__jinja_truth(a->values[0]),
                       .path = mn__jinja_int(by_value ? 1 : 0),
                       .descending = mn__jinja_truth(a->values[2])};
    mn_status status = items(run, self, a, out);
    return status ? status : sort_list(run, out->as.list, &rule);
}

static const mn__jinja_builtin filters[] = {
    {"trim", "chars", trim, 0},
    {"length", "", length, 0},
    {"count", "", length, 0},
    {"tojson", "ensure_ascii indent separators sort_keys", tojson, 0},
    {"upper", "", upper, 0},
    {"lower", "", lower, 0},
    {"capitalize", "", capitalize, 0},
    {"title", "", title, 0},
    {"default", "default_value boolean", otherwise, 0},
    {"d", "default_value boolean", otherwise, 0},
    {"join", "d attribute", join, 0},
    {"replace", "old new count", replace, 2},
    {"first", "", first, 0},
    {"last", "", last, 0},
    {"string", "", string, 0},
    {"safe", "", safe, 0},
    {"int", "default", to_int, 0},
    {"float", "default", to_float, 0},
    {"abs", "", absolute, 0},
    {"list", "", to_list, 0},
    {"items", "", items, 0},
    {"reverse", "", reverse, 0},
    {"indent", "width first blank", indent, 0},
    {"select", NULL, select_items, 0},
    {"reject", NULL, reject_items, 0},
    {"selectattr", NULL, select_attribute, 0},
    {"rejectattr", NULL, reject_attribute, 0},
    {"map", NULL, map, 0},
    {"sort", "reverse case_sensitive attribute", sort, 0},
    {"dictsort", "case_sensitive by reverse", dictsort, 0},
    {NULL, NULL, NULL, 0},
};

mn_status mn__jinja_filter(mn__jinja_run *run, const char *name, value self,
                           const mn__jinja_arguments *arguments, value *out)
{
    const mn__jinja_builtin *found = mn__jinja_find(filters, name);
    if (!found)
        return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "the filter '%s' is not supported", name);
    return mn__jinja_call(run, "filter", found, self, arguments, out);
}
