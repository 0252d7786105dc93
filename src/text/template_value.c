/* Values of templates: making them, comparing them, what they are made of. All live in
 * the run's arena, or are borrowed from the template or its input. */
#include <string.h>

#include "base/memory.h"
#include "text/template_own.h"
#include "text/utf8.h"

/* ---- Making ---------------------------------------------------------------------- */

mn__jinja_value mn__jinja_undefined(const char *name)
{
    return (mn__jinja_value){.kind = MN__JINJA_UNDEFINED, .as.text = name};
}

mn__jinja_value mn__jinja_none(void)
{
    return (mn__jinja_value){.kind = MN__JINJA_NONE};
}

mn__jinja_value mn__jinja_bool(bool yes)
{
    return (mn__jinja_value){.kind = MN__JINJA_BOOL, .as.yes = yes};
}

mn__jinja_value mn__jinja_int(int64_t whole)
{
    return (mn__jinja_value){.kind = MN__JINJA_INT, .as.whole = whole};
}

mn__jinja_value mn__jinja_float(double real)
{
    return (mn__jinja_value){.kind = MN__JINJA_FLOAT, .as.real = real};
}

mn__jinja_value mn__jinja_borrow(const char *text, int64_t bytes)
{
    return (mn__jinja_value){.kind = MN__JINJA_STRING, .bytes = bytes, .as.text = text};
}

mn_status mn__jinja_take(mn__jinja_run *run, mn__string *string, mn__jinja_value *out)
{
    char *text = NULL;
    mn_status status =
        string->failed ? mn__jinja_no_memory(run) : mn__jinja_alloc(run, string->bytes, &text);
    if (!status) {
        if (string->bytes > 0)
            memcpy(text, string->text, (size_t)string->bytes);
        *out = mn__jinja_borrow(text, string->bytes);
    }
    mn__string_free(string);
    return status;
}

/* Room for one more in an array of `each` bytes: doubled when it is full. */
static mn_status grow(mn__jinja_run *run, void *array, int64_t count, int64_t capacity,
                      int64_t each)
{
    void *larger, *old;
    mn_status status = mn__jinja_alloc(run, mn__size_product(capacity, each), &larger);
    if (status)
        return status;
    memcpy(&old, array, sizeof old);
    if (count > 0)
        memcpy(larger, old, (size_t)(count * each));
    memcpy(array, &larger, sizeof larger);
    return MN_OK;
}

mn_status mn__jinja_list_new(mn__jinja_run *run, mn__jinja_kind kind, int64_t capacity,
                             mn__jinja_value *out)
{
    mn__jinja_list *list;
    mn_status status = mn__jinja_alloc(run, (int64_t)sizeof *list, &list);
    if (status)
        return status;
    *list = (mn__jinja_list){.capacity = capacity};
    *out = (mn__jinja_value){.kind = kind, .as.list = list};
    return capacity > 0 ? grow(run, &list->items, 0, capacity, (int64_t)sizeof *list->items)
                        : MN_OK;
}

mn_status mn__jinja_list_add(mn__jinja_run *run, mn__jinja_list *list, mn__jinja_value item)
{
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 4;
        mn_status status =
            grow(run, &list->items, list->count, capacity, (int64_t)sizeof *list->items);
        if (status)
            return status;
        list->capacity = capacity;
    }
    list->items[list->count++] = item;
    return MN_OK;
}

mn_status mn__jinja_dict_new(mn__jinja_run *run, mn__jinja_kind kind, int64_t capacity,
                             mn__jinja_value *out)
{
    mn__jinja_dict *dict;
    mn_status status = mn__jinja_alloc(run, (int64_t)sizeof *dict, &dict);
    if (status)
        return status;
    *dict = (mn__jinja_dict){.capacity = capacity};
    *out = (mn__jinja_value){.kind = kind, .as.dict = dict};
    if (capacity == 0)
        return MN_OK;
    status = grow(run, &dict->keys, 0, capacity, (int64_t)sizeof *dict->keys);
    return status ? status : grow(run, &dict->values, 0, capacity, (int64_t)sizeof *dict->values);
}

/* -1 where the key is not there. */
static mn_status find_key(mn__jinja_run *run, const mn__jinja_dict *dict, mn__jinja_value key,
                          int64_t *at)
{
    bool equal = false;
    mn_status status = MN_OK;
    *at = -1;
    for (int64_t i = 0; !status && i < dict->count && *at < 0; i++) {
        status = mn__jinja_equal(run, dict->keys[i], key, &equal);
        *at = equal ? i : -1;
    }
    return status;
}

static mn_status dict_add(mn__jinja_run *run, mn__jinja_dict *dict, mn__jinja_value key,
                          mn__jinja_value value)
{
    if (dict->count == dict->capacity) {
        int64_t capacity = dict->capacity ? 2 * dict->capacity : 4;
        mn_status status =
            grow(run, &dict->keys, dict->count, capacity, (int64_t)sizeof *dict->keys);
        if (!status)
            status = grow(run, &dict->values, dict->count, capacity, (int64_t)sizeof *dict->values);
        if (status)
            return status;
        dict->capacity = capacity;
    }
    dict->keys[dict->count] = key;
    dict->values[dict->count++] = value;
    return MN_OK;
}

mn_status mn__jinja_dict_set(mn__jinja_run *run, mn__jinja_dict *dict, mn__jinja_value key,
                             mn__jinja_value value)
{
    if (key.kind == MN__JINJA_LIST || key.kind == MN__JINJA_DICT)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot be a key", mn__jinja_kind_name(key));
    int64_t at;
    mn_status status = find_key(run, dict, key, &at);
    if (status)
        return status;
    if (at < 0)
        return dict_add(run, dict, key, value);
    dict->values[at] = value;
    return MN_OK;
}

/* ---- From JSON ---------------------------------------------------------------------- */

static mn_status of_object(mn__jinja_run *run, const json_t *json, mn__jinja_value *out)
{
    mn_status status =
        mn__jinja_dict_new(run, MN__JINJA_DICT, (int64_t)json_object_size(json), out);
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)json, key, item)
    {
        mn__jinja_value value;
        if (!status)
            status = mn__jinja_of_json(run, item, &value);
        if (!status) /* keys are unique in JSON */
            status =
                dict_add(run, out->as.dict, mn__jinja_borrow(key, (int64_t)strlen(key)), value);
    }
    return status;
}

static mn_status of_array(mn__jinja_run *run, const json_t *json, mn__jinja_value *out)
{
    int64_t count = (int64_t)json_array_size(json);
    mn_status status = mn__jinja_list_new(run, MN__JINJA_LIST, count, out);
    for (int64_t i = 0; !status && i < count; i++) {
        mn__jinja_value item;
        status = mn__jinja_of_json(run, json_array_get(json, (size_t)i), &item);
        if (!status)
            status = mn__jinja_list_add(run, out->as.list, item);
    }
    return status;
}

mn_status mn__jinja_of_json(mn__jinja_run *run, const json_t *json, mn__jinja_value *out)
{
    mn_status status = mn__jinja_enter(run);
    mn__jinja_given(run, 64); /* what a value takes, at least */
    if (json_is_string(json))
        mn__jinja_given(run, (int64_t)json_string_length(json));
    if (!status && json_is_object(json))
        status = of_object(run, json, out);
    else if (!status && json_is_array(json))
        status = of_array(run, json, out);
    else if (json_is_string(json))
        *out = mn__jinja_borrow(json_string_value(json), (int64_t)json_string_length(json));
    else if (json_is_integer(json))
        *out = mn__jinja_int(json_integer_value(json));
    else if (json_is_real(json))
        *out = mn__jinja_float(json_real_value(json));
    else if (json_is_boolean(json))
        *out = mn__jinja_bool(json_is_true(json));
    else
        *out = mn__jinja_none();
    mn__jinja_leave(run);
    return status;
}

/* ---- Looking ---------------------------------------------------------------------------- */

const char *mn__jinja_kind_name(mn__jinja_value value)
{
    static const char *const names[] = {
        [MN__JINJA_UNDEFINED] = "an undefined value",
        [MN__JINJA_NONE] = "none",
        [MN__JINJA_BOOL] = "a boolean",
        [MN__JINJA_INT] = "a whole number",
        [MN__JINJA_FLOAT] = "a number",
        [MN__JINJA_STRING] = "a string",
        [MN__JINJA_LIST] = "a list",
        [MN__JINJA_TUPLE] = "a tuple",
        [MN__JINJA_DICT] = "a dictionary",
        [MN__JINJA_NAMESPACE] = "a namespace",
        [MN__JINJA_LOOP] = "'loop'",
        [MN__JINJA_MACRO] = "a macro",
        [MN__JINJA_METHOD] = "a method",
        [MN__JINJA_FUNCTION] = "a function",
        [MN__JINJA_ABSENT] = "nothing",
    };
    return names[value.kind];
}

bool mn__jinja_is_number(mn__jinja_value value)
{
    return value.kind == MN__JINJA_BOOL || value.kind == MN__JINJA_INT ||
           value.kind == MN__JINJA_FLOAT;
}

int64_t mn__jinja_whole(mn__jinja_value value)
{
    return value.kind == MN__JINJA_BOOL ? value.as.yes : value.as.whole;
}

double mn__jinja_real(mn__jinja_value value)
{
    return value.kind == MN__JINJA_FLOAT ? value.as.real : (double)mn__jinja_whole(value);
}

bool mn__jinja_truth(mn__jinja_value value)
{
    switch (value.kind) {
    case MN__JINJA_UNDEFINED:
    case MN__JINJA_NONE:
    case MN__JINJA_ABSENT:
        return false;
    case MN__JINJA_BOOL:
    case MN__JINJA_INT:
    case MN__JINJA_FLOAT:
        return mn__jinja_real(value) != 0;
    case MN__JINJA_STRING:
        return value.bytes > 0;
    case MN__JINJA_LIST:
    case MN__JINJA_TUPLE:
        return value.as.list->count > 0;
    case MN__JINJA_DICT:
        return value.as.dict->count > 0;
    default:
        return true;
    }
}

bool mn__jinja_is_text(mn__jinja_value value, const char *text)
{
    return value.kind == MN__JINJA_STRING && value.bytes == (int64_t)strlen(text) &&
           memcmp(value.as.text, text, (size_t)value.bytes) == 0;
}

int64_t mn__jinja_length(mn__jinja_value string)
{
    int64_t count = 0;
    for (int64_t i = 0; i < string.bytes; i++)
        count += (string.as.text[i] & 0xC0) != 0x80;
    return count;
}

/* ---- Comparing ----------------------------------------------------------------------------- */

static int compare_texts(mn__jinja_value a, mn__jinja_value b)
{
    int64_t both = a.bytes < b.bytes ? a.bytes : b.bytes;
    int order = both > 0 ? memcmp(a.as.text, b.as.text, (size_t)both) : 0;
    return order ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static int compare_numbers(mn__jinja_value a, mn__jinja_value b)
{
    if (a.kind != MN__JINJA_FLOAT && b.kind != MN__JINJA_FLOAT) {
        int64_t x = mn__jinja_whole(a), y = mn__jinja_whole(b);
        return (x > y) - (x < y);
    }
    double x = mn__jinja_real(a), y = mn__jinja_real(b);
    return (x > y) - (x < y);
}

static mn_status equal_lists(mn__jinja_run *run, const mn__jinja_list *a, const mn__jinja_list *b,
                             bool *equal)
{
    mn_status status = MN_OK;
    *equal = a->count == b->count;
    for (int64_t i = 0; !status && *equal && i < a->count; i++)
        status = mn__jinja_equal(run, a->items[i], b->items[i], equal);
    return status;
}

static mn_status equal_dicts(mn__jinja_run *run, const mn__jinja_dict *a, const mn__jinja_dict *b,
                             bool *equal)
{
    mn_status status = MN_OK;
    *equal = a->count == b->count;
    for (int64_t i = 0; !status && *equal && i < a->count; i++) {
        int64_t at;
        status = find_key(run, b, a->keys[i], &at);
        *equal = at >= 0;
        if (!status && *equal)
            status = mn__jinja_equal(run, a->values[i], b->values[at], equal);
    }
    return status;
}

static mn_status equal_same_kind(mn__jinja_run *run, mn__jinja_value a, mn__jinja_value b,
                                 bool *equal)
{
    switch (a.kind) {
    case MN__JINJA_UNDEFINED:
    case MN__JINJA_NONE:
        *equal = true;
        return MN_OK;
    case MN__JINJA_STRING:
        *equal = a.bytes == b.bytes && compare_texts(a, b) == 0;
        return mn__jinja_spend(run, *equal ? a.bytes : 0);
    case MN__JINJA_LIST:
    case MN__JINJA_TUPLE:
        return equal_lists(run, a.as.list, b.as.list, equal);
    case MN__JINJA_DICT:
        return equal_dicts(run, a.as.dict, b.as.dict, equal);
    default:
        *equal = a.as.text == b.as.text; /* the same object */
        return MN_OK;
    }
}

mn_status mn__jinja_equal(mn__jinja_run *run, mn__jinja_value a, mn__jinja_value b, bool *equal)
{
    *equal = false;
    mn_status status = mn__jinja_spend(run, 1);
    if (status)
        return status;
    if (mn__jinja_is_number(a) && mn__jinja_is_number(b)) {
        bool not_numbers =
            mn__jinja_real(a) != mn__jinja_real(a) || mn__jinja_real(b) != mn__jinja_real(b);
        *equal = !not_numbers && compare_numbers(a, b) == 0;
        return MN_OK;
    }
    if (a.kind != b.kind)
        return MN_OK;
    status = mn__jinja_enter(run);
    if (!status)
        status = equal_same_kind(run, a, b, equal);
    mn__jinja_leave(run);
    return status;
}

static mn_status order_lists(mn__jinja_run *run, const mn__jinja_list *a, const mn__jinja_list *b,
                             int *order)
{
    for (int64_t i = 0; i < a->count && i < b->count; i++) {
        bool equal;
        mn_status status = mn__jinja_equal(run, a->items[i], b->items[i], &equal);
        if (status)
            return status;
        if (!equal)
            return mn__jinja_order(run, a->items[i], b->items[i], order);
    }
    *order = (a->count > b->count) - (a->count < b->count);
    return MN_OK;
}

mn_status mn__jinja_order(mn__jinja_run *run, mn__jinja_value a, mn__jinja_value b, int *order)
{
    *order = 0;
    if (mn__jinja_is_number(a) && mn__jinja_is_number(b)) {
        *order = compare_numbers(a, b);
        return MN_OK;
    }
    bool lists = a.kind == MN__JINJA_LIST || a.kind == MN__JINJA_TUPLE;
    if (a.kind != b.kind || (a.kind != MN__JINJA_STRING && !lists))
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s and %s have no order",
                              mn__jinja_kind_name(a), mn__jinja_kind_name(b));
    mn_status status = mn__jinja_spend(run, a.bytes < b.bytes ? a.bytes : b.bytes);
    if (!status)
        status = mn__jinja_enter(run);
    if (!status && lists)
        status = order_lists(run, a.as.list, b.as.list, order);
    else if (!status)
        *order = compare_texts(a, b);
    mn__jinja_leave(run);
    return status;
}

mn_status mn__jinja_contains(mn__jinja_run *run, mn__jinja_value in, mn__jinja_value item,
                             bool *found)
{
    *found = false;
    if (in.kind == MN__JINJA_STRING) {
        if (item.kind != MN__JINJA_STRING)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s is looked for in a string",
                                  mn__jinja_kind_name(item));
        *found = memmem(in.as.text, (size_t)in.bytes, item.as.text, (size_t)item.bytes) != NULL;
        return mn__jinja_spend(run, in.bytes + item.bytes);
    }
    if (in.kind == MN__JINJA_DICT) {
        mn__jinja_value value;
        return mn__jinja_dict_find(run, in.as.dict, item, &value, found);
    }
    const mn__jinja_list *items;
    mn_status status = mn__jinja_iterate(run, in, &items);
    for (int64_t i = 0; !status && !*found && i < items->count; i++)
        status = mn__jinja_equal(run, items->items[i], item, found);
    return status;
}

mn_status mn__jinja_dict_find(mn__jinja_run *run, const mn__jinja_dict *dict, mn__jinja_value key,
                              mn__jinja_value *value, bool *found)
{
    int64_t at;
    mn_status status = find_key(run, dict, key, &at);
    *found = !status && at >= 0;
    *value = *found ? dict->values[at] : mn__jinja_undefined("a key");
    return status;
}

/* ---- Parts -------------------------------------------------------------------------------------
 */

static mn_status characters(mn__jinja_run *run, mn__jinja_value string, mn__jinja_value *out)
{
    mn_status status = mn__jinja_list_new(run, MN__JINJA_LIST, mn__jinja_length(string), out);
    for (int64_t i = 0; !status && i < string.bytes;) {
        int length = mn__utf8_length(string.as.text + i, string.bytes - i);
        status =
            mn__jinja_list_add(run, out->as.list, mn__jinja_borrow(string.as.text + i, length));
        i += length;
    }
    return status;
}

mn_status mn__jinja_iterate(mn__jinja_run *run, mn__jinja_value value, const mn__jinja_list **items)
{
    static const mn__jinja_list none;
    mn__jinja_value made = {.kind = MN__JINJA_UNDEFINED};
    mn_status status = MN_OK;
    *items = &none;
    if (value.kind == MN__JINJA_LIST || value.kind == MN__JINJA_TUPLE) {
        *items = value.as.list;
        return MN_OK;
    }
    if (value.kind == MN__JINJA_UNDEFINED)
        return MN_OK;
    if (value.kind == MN__JINJA_STRING) {
        status = characters(run, value, &made);
    } else if (value.kind == MN__JINJA_DICT) {
        const mn__jinja_dict *dict = value.as.dict;
        status = mn__jinja_list_new(run, MN__JINJA_LIST, dict->count, &made);
        for (int64_t i = 0; !status && i < dict->count; i++)
            status = mn__jinja_list_add(run, made.as.list, dict->keys[i]);
    } else {
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot be iterated over",
                              mn__jinja_kind_name(value));
    }
    if (!status)
        *items = made.as.list;
    return status;
}

static mn_status loop_attribute(const mn__jinja_loop *loop, const char *name, mn__jinja_value *out)
{
    int64_t index = loop->index, count = loop->items->count;
    const struct {
        const char *name;
        mn__jinja_value value;
    } attributes[] = {
        {"index", mn__jinja_int(index + 1)},
        {"index0", mn__jinja_int(index)},
        {"revindex", mn__jinja_int(count - index)},
        {"revindex0", mn__jinja_int(count - index - 1)},
        {"first", mn__jinja_bool(index == 0)},
        {"last", mn__jinja_bool(index == count - 1)},
        {"length", mn__jinja_int(count)},
        {"depth", mn__jinja_int(1)}, /* of recursion, which there is none of */
        {"depth0", mn__jinja_int(0)},
        {"previtem",
         index > 0 ? loop->items->items[index - 1] : mn__jinja_undefined("loop.previtem")},
        {"nextitem",
         index + 1 < count ? loop->items->items[index + 1] : mn__jinja_undefined("loop.nextitem")},
    };
    *out = mn__jinja_undefined(name);
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (strcmp(attributes[i].name, name) == 0)
            *out = attributes[i].value;
    return MN_OK;
}

static mn_status fail_undefined(mn__jinja_run *run, mn__jinja_value object)
{
    return mn__jinja_fail(run, MN_ERROR_FORMAT, "'%s' is undefined", object.as.text);
}

mn_status mn__jinja_attribute(mn__jinja_run *run, mn__jinja_value object, const char *name,
                              mn__jinja_value *out)
{
    if (object.kind == MN__JINJA_UNDEFINED)
        return fail_undefined(run, object);
    if (object.kind == MN__JINJA_LOOP)
        return loop_attribute(object.as.loop, name, out);
    if (mn__jinja_has_method(object.kind, name)) {
        mn__jinja_method *method;
        mn_status status = mn__jinja_alloc(run, (int64_t)sizeof *method, &method);
        if (status)
            return status;
        *method = (mn__jinja_method){object, name};
        *out = (mn__jinja_value){.kind = MN__JINJA_METHOD, .as.method = method};
        return MN_OK;
    }
    *out = mn__jinja_undefined(name);
    if (object.kind != MN__JINJA_DICT && object.kind != MN__JINJA_NAMESPACE)
        return MN_OK;
    bool found;
    mn__jinja_value value, key = mn__jinja_borrow(name, (int64_t)strlen(name));
    mn_status status = mn__jinja_dict_find(run, object.as.dict, key, &value, &found);
    if (found)
        *out = value;
    return status;
}

/* What is at a place of a string or list, which may count from the end. */
static mn_status item_at(mn__jinja_run *run, mn__jinja_value object, int64_t place,
                         mn__jinja_value *out)
{
    bool string = object.kind == MN__JINJA_STRING;
    int64_t count = string ? mn__jinja_length(object) : object.as.list->count;
    mn_status status = mn__jinja_spend(run, string ? object.bytes : 1);
    *out = mn__jinja_undefined("an item");
    place += place < 0 ? count : 0;
    if (status || place < 0 || place >= count)
        return status;
    if (!string) {
        *out = object.as.list->items[place];
        return MN_OK;
    }
    const char *at = object.as.text;
    for (int64_t i = 0; i < place; i++)
        at += mn__utf8_length(at, 4);
    *out = mn__jinja_borrow(at, mn__utf8_length(at, object.as.text + object.bytes - at));
    return MN_OK;
}

mn_status mn__jinja_item(mn__jinja_run *run, mn__jinja_value object, mn__jinja_value key,
                         mn__jinja_value *out)
{
    bool ordered = object.kind == MN__JINJA_STRING || object.kind == MN__JINJA_LIST ||
                   object.kind == MN__JINJA_TUPLE;
    if (object.kind == MN__JINJA_UNDEFINED)
        return fail_undefined(run, object);
    if (ordered && (key.kind == MN__JINJA_INT || key.kind == MN__JINJA_BOOL))
        return item_at(run, object, mn__jinja_whole(key), out);
    bool found = false;
    mn_status status = MN_OK;
    *out = mn__jinja_undefined("an item");
    if (object.kind == MN__JINJA_DICT)
        status = mn__jinja_dict_find(run, object.as.dict, key, out, &found);
    if (status || found || key.kind != MN__JINJA_STRING)
        return status;
    char *name; /* as an attribute, after Jinja */
    status = mn__jinja_alloc(run, key.bytes + 1, &name);
    if (status)
        return status;
    memcpy(name, key.as.text, (size_t)key.bytes);
    name[key.bytes] = '\0';
    return mn__jinja_attribute(run, object, name, out);
}

/* Python's slice.indices. */
static mn_status resolve(mn__jinja_run *run, const mn__jinja_value bounds[3], int64_t count,
                         int64_t *start, int64_t *stop, int64_t *step)
{
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != MN__JINJA_NONE && bounds[i].kind != MN__JINJA_INT &&
            bounds[i].kind != MN__JINJA_BOOL)
            return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot bound a slice",
                                  mn__jinja_kind_name(bounds[i]));
    *step = bounds[2].kind == MN__JINJA_NONE ? 1 : mn__jinja_whole(bounds[2]);
    if (*step == 0)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a slice has a step of 0");
    int64_t least = *step < 0 ? -1 : 0, most = *step < 0 ? count - 1 : count;
    int64_t places[2] = {*step < 0 ? most : least, *step < 0 ? least : most};
    for (int i = 0; i < 2; i++) {
        if (bounds[i].kind == MN__JINJA_NONE)
            continue;
        int64_t place = mn__jinja_whole(bounds[i]);
        place += place < 0 ? count : 0;
        places[i] = place < least ? least : place > most ? most : place;
    }
    *start = places[0];
    *stop = places[1];
    return MN_OK;
}

/* Where the character `place` of a string begins; its end for the one after the last. */
static int64_t byte_of(mn__jinja_value string, int64_t place)
{
    int64_t at = 0;
    for (int64_t i = 0; i < place; i++)
        at += mn__utf8_length(string.as.text + at, string.bytes - at);
    return at;
}

static mn_status slice_string(mn__jinja_run *run, mn__jinja_value string, int64_t start,
                              int64_t stop, int64_t step, mn__jinja_value *out)
{
    if (step == 1) { /* a piece of the same text */
        int64_t from = byte_of(string, start), to = stop > start ? byte_of(string, stop) : from;
        *out = mn__jinja_borrow(string.as.text + from, to - from);
        return MN_OK;
    }
    const mn__jinja_list *items;
    mn__string text = {0};
    mn_status status = mn__jinja_iterate(run, string, &items);
    for (int64_t i = start; !status && (step > 0 ? i < stop : i > stop);) {
        mn__string_add(&text, items->items[i].as.text, items->items[i].bytes);
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

mn_status mn__jinja_slice(mn__jinja_run *run, mn__jinja_value object,
                          const mn__jinja_value bounds[3], mn__jinja_value *out)
{
    bool string = object.kind == MN__JINJA_STRING;
    if (!string && object.kind != MN__JINJA_LIST && object.kind != MN__JINJA_TUPLE)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s cannot be sliced",
                              mn__jinja_kind_name(object));
    int64_t count = string ? mn__jinja_length(object) : object.as.list->count;
    int64_t start = 0, stop = 0, step = 1;
    mn_status status = mn__jinja_spend(run, string ? 3 * object.bytes : count);
    if (!status)
        status = resolve(run, bounds, count, &start, &stop, &step);
    if (!status && string)
        return slice_string(run, object, start, stop, step, out);
    if (!status)
        status = mn__jinja_list_new(run, object.kind, 0, out);
    for (int64_t i = start; !status && (step > 0 ? i < stop : i > stop);) {
        status = mn__jinja_list_add(run, out->as.list, object.as.list->items[i]);
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return status;
}
