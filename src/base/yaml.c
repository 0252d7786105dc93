/* YAML by libyaml's events, made into a tree. What YAML has beyond trees of
 * text is refused by name: anchors, aliases, tags, several documents. */
#include "base/yaml.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"
#include "base/memory.h"

enum { DEPTH_LIMIT = 64, KEY_LIMIT = 128, FILE_LIMIT = 16 << 20 };

typedef struct reader {
    yaml_parser_t parser;
    mn__arena *arena;
    const char *file;
    bool has_lines; /* false for the text of an override */
    mn_error *error;
} reader;

mn_status mn__yaml_fail(const mn__yaml_node *node, const char *hint, mn_error *error,
                        const char *format, ...)
{
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (node->line > 0)
        return mn__fail(error, MN_ERROR_OPTION, hint, "%s:%d: %s", node->file, node->line, message);
    return mn__fail(error, MN_ERROR_OPTION, hint, "%s: %s", node->file, message);
}

static mn_status no_memory(const char *file, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", file);
}

/* ---- Reading -------------------------------------------------------------- */

static mn_status fail_at(reader *r, yaml_mark_t mark, const char *hint, const char *problem)
{
    mn__yaml_node at = {.file = r->file, .line = r->has_lines ? (int)mark.line + 1 : 0};
    return mn__yaml_fail(&at, hint, r->error, "%s", problem);
}

static mn_status parser_failure(reader *r)
{
    const yaml_parser_t *parser = &r->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return no_memory(r->file, r->error);
    if (parser->error == YAML_READER_ERROR)
        return mn__fail(r->error, MN_ERROR_OPTION, "recipes are text in UTF-8", "%s: byte %zu: %s",
                        r->file, parser->problem_offset, parser->problem);
    char problem[256];
    snprintf(problem, sizeof problem, "%s%s%s", parser->problem ? parser->problem : "not YAML",
             parser->context ? " " : "", parser->context ? parser->context : "");
    return fail_at(r, parser->problem_mark,
                   "look for a missing quote, bracket or space before that place", problem);
}

static mn_status next_event(reader *r, yaml_event_t *event)
{
    return yaml_parser_parse(&r->parser, event) ? MN_OK : parser_failure(r);
}

static mn__yaml_node *node_new(reader *r, mn__yaml_kind kind, yaml_mark_t mark)
{
    mn__yaml_node *node = mn__arena_alloc(r->arena, sizeof *node);
    if (node)
        *node = (mn__yaml_node){
            .kind = kind, .file = r->file, .line = r->has_lines ? (int)mark.line + 1 : 0};
    return node;
}

/* Adds an item, and a key where `key` is not NULL; arrays grow by doubling. */
static bool node_add(mn__arena *arena, mn__yaml_node *node, mn__yaml_node *key, mn__yaml_node *item)
{
    int64_t n = node->count;
    if ((n & (n - 1)) == 0) { /* 0 or a power of two: full */
        int64_t room = (n ? 2 * n : 1) * (int64_t)sizeof(mn__yaml_node *);
        mn__yaml_node **items = mn__arena_alloc(arena, room);
        mn__yaml_node **keys = key ? mn__arena_alloc(arena, room) : NULL;
        if (!items || (key && !keys))
            return false;
        if (n > 0)
            memcpy(items, node->items, (size_t)n * sizeof *items);
        if (n > 0 && key)
            memcpy(keys, node->keys, (size_t)n * sizeof *keys);
        node->items = items;
        node->keys = keys;
    }
    node->items[n] = item;
    if (key)
        node->keys[n] = key;
    node->count++;
    return true;
}

static mn_status read_node(reader *r, const yaml_event_t *event, int depth, mn__yaml_node **out);

static mn_status read_next(reader *r, int depth, mn__yaml_node **out)
{
    yaml_event_t event;
    mn_status status = next_event(r, &event);
    if (status)
        return status;
    status = read_node(r, &event, depth, out);
    yaml_event_delete(&event);
    return status;
}

static mn_status read_scalar(reader *r, const yaml_event_t *event, mn__yaml_node *node)
{
    const char *value = (const char *)event->data.scalar.value;
    int64_t length = (int64_t)event->data.scalar.length;
    if (memchr(value, '\0', (size_t)length))
        return fail_at(r, event->start_mark, NULL, "a value must not contain a NUL character");
    char *text = mn__arena_alloc(r->arena, length + 1);
    if (!text)
        return no_memory(r->file, r->error);
    memcpy(text, value, (size_t)length);
    text[length] = '\0';
    node->text = text;
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return MN_OK;
}

static mn_status read_sequence(reader *r, int depth, mn__yaml_node *node)
{
    for (;;) {
        mn__yaml_node *item = NULL;
        mn_status status = read_next(r, depth + 1, &item);
        if (status || !item)
            return status;
        if (!node_add(r->arena, node, NULL, item))
            return no_memory(r->file, r->error);
    }
}

static int compare_keys(const void *a, const void *b)
{
    const mn__yaml_node *x = *(mn__yaml_node *const *)a, *y = *(mn__yaml_node *const *)b;
    int order = strcmp(x->text, y->text);
    return order ? order : x->line - y->line;
}

static mn_status check_unique(reader *r, const mn__yaml_node *node)
{
    mn__arena_mark mark = mn__arena_mark_now(r->arena);
    int64_t bytes = node->count * (int64_t)sizeof *node->keys;
    mn__yaml_node **sorted = mn__arena_alloc(r->arena, bytes);
    if (!sorted)
        return no_memory(r->file, r->error);
    mn_status status = MN_OK;
    if (node->count > 0)
        memcpy(sorted, node->keys, (size_t)bytes);
    qsort(sorted, (size_t)node->count, sizeof *sorted, compare_keys);
    for (int64_t i = 1; i < node->count && !status; i++)
        if (strcmp(sorted[i - 1]->text, sorted[i]->text) == 0)
            status = mn__yaml_fail(sorted[i], "keep one of the two", r->error,
                                   "the key '%s' was given before, in line %d", sorted[i]->text,
                                   sorted[i - 1]->line);
    mn__arena_release(r->arena, mark);
    return status;
}

static mn_status read_mapping(reader *r, int depth, mn__yaml_node *node)
{
    for (;;) {
        mn__yaml_node *key = NULL, *item = NULL;
        mn_status status = read_next(r, depth + 1, &key);
        if (status)
            return status;
        if (!key)
            return check_unique(r, node);
        if (key->kind != MN__YAML_SCALAR)
            return mn__yaml_fail(key, NULL, r->error, "a key must be a plain word");
        if (strlen(key->text) > KEY_LIMIT)
            return mn__yaml_fail(key, NULL, r->error, "a key of more than %d bytes", KEY_LIMIT);
        status = read_next(r, depth + 1, &item);
        if (status)
            return status;
        if (!node_add(r->arena, node, key, item))
            return no_memory(r->file, r->error);
    }
}

static bool has_anchor_or_tag(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor || event->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor || event->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor || event->data.mapping_start.tag;
    default:
        return event->type == YAML_ALIAS_EVENT;
    }
}

/* The node that `event` starts; *out stays NULL at a collection's end. */
static mn_status read_node(reader *r, const yaml_event_t *event, int depth, mn__yaml_node **out)
{
    if (event->type == YAML_SEQUENCE_END_EVENT || event->type == YAML_MAPPING_END_EVENT)
        return MN_OK;
    if (depth > DEPTH_LIMIT)
        return fail_at(r, event->start_mark, NULL, "nested more than 64 levels deep");
    if (has_anchor_or_tag(event))
        return fail_at(r, event->start_mark,
                       "write the value out; a text that starts with *, & or ! needs quotes",
                       "anchors (&), aliases (*) and tags (!) are not supported");
    mn__yaml_kind kind = event->type == YAML_SCALAR_EVENT           ? MN__YAML_SCALAR
                         : event->type == YAML_SEQUENCE_START_EVENT ? MN__YAML_SEQUENCE
                                                                    : MN__YAML_MAPPING;
    mn__yaml_node *node = *out = node_new(r, kind, event->start_mark);
    if (!node)
        return no_memory(r->file, r->error);
    if (kind == MN__YAML_SCALAR)
        return read_scalar(r, event, node);
    return kind == MN__YAML_SEQUENCE ? read_sequence(r, depth, node) : read_mapping(r, depth, node);
}

/* Skips to the event after the one that starts a stream or document. */
static mn_status expect_document(reader *r, yaml_event_t *event)
{
    mn_status status;
    while (!(status = next_event(r, event)) && event->type == YAML_STREAM_START_EVENT)
        yaml_event_delete(event);
    return status;
}

static mn_status read_stream(reader *r, mn__yaml_node **root)
{
    yaml_event_t event;
    mn_status status = expect_document(r, &event);
    if (status)
        return status;
    bool empty = event.type == YAML_STREAM_END_EVENT;
    yaml_event_delete(&event);
    if (empty) {
        *root = node_new(r, MN__YAML_MAPPING, (yaml_mark_t){0});
        return *root ? MN_OK : no_memory(r->file, r->error);
    }
    status = read_next(r, 1, root);
    for (bool ended = false; !status && !ended;) {
        status = next_event(r, &event);
        if (status)
            break;
        ended = event.type == YAML_STREAM_END_EVENT;
        if (event.type == YAML_DOCUMENT_START_EVENT)
            status = fail_at(r, event.start_mark, NULL, "a second document ('---')");
        yaml_event_delete(&event);
    }
    return status;
}

static mn_status parse(reader *r, const char *text, int64_t bytes, mn__yaml_node **root)
{
    *root = NULL;
    if (!r->file || !yaml_parser_initialize(&r->parser))
        return no_memory(r->file ? r->file : "YAML", r->error);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, (size_t)bytes);
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    mn_status status = read_stream(r, root);
    yaml_parser_delete(&r->parser);
    return status;
}

mn_status mn__yaml_parse(mn__arena *arena, const char *name, const char *text, int64_t bytes,
                         mn__yaml_node **root, mn_error *error)
{
    reader r = {.arena = arena, .has_lines = true, .error = error};
    r.file = mn__arena_strdup(arena, name);
    return parse(&r, text, bytes, root);
}

mn_status mn__yaml_read(mn__arena *arena, const char *path, mn__yaml_node **root, mn_error *error)
{
    char *text;
    int64_t bytes;
    mn_status status = mn__file_read(path, FILE_LIMIT, &text, &bytes, error);
    if (status)
        return status;
    status = mn__yaml_parse(arena, path, text, bytes, root, error);
    mn__free(text);
    return status;
}

/* ---- Looking and changing ------------------------------------------------- */

mn__yaml_node *mn__yaml_get(const mn__yaml_node *mapping, const char *key)
{
    if (!mapping || mapping->kind != MN__YAML_MAPPING)
        return NULL;
    for (int64_t i = 0; i < mapping->count; i++)
        if (strcmp(mapping->keys[i]->text, key) == 0)
            return mapping->items[i];
    return NULL;
}

bool mn__yaml_is_null(const mn__yaml_node *node)
{
    if (!node)
        return true;
    return node->kind == MN__YAML_SCALAR && !node->quoted &&
           (strcmp(node->text, "") == 0 || strcmp(node->text, "~") == 0 ||
            strcmp(node->text, "null") == 0);
}

/* The slot of `step` in a mapping, made where it is missing. */
static mn_status mapping_slot(reader *r, mn__yaml_node *at, const char *step, mn__yaml_node ***slot)
{
    for (int64_t i = 0; i < at->count; i++)
        if (strcmp(at->keys[i]->text, step) == 0) {
            *slot = &at->items[i];
            return MN_OK;
        }
    mn__yaml_node *key = node_new(r, MN__YAML_SCALAR, (yaml_mark_t){0});
    mn__yaml_node *item = node_new(r, MN__YAML_MAPPING, (yaml_mark_t){0});
    if (!key || !item || !(key->text = mn__arena_strdup(r->arena, step)) ||
        !node_add(r->arena, at, key, item))
        return no_memory(r->file, r->error);
    *slot = &at->items[at->count - 1];
    return MN_OK;
}

static mn_status sequence_slot(reader *r, mn__yaml_node *at, const char *step,
                               mn__yaml_node ***slot)
{
    char *end;
    long long index = strtoll(step, &end, 10);
    if (!isdigit((unsigned char)*step) || *end || index >= at->count)
        return mn__fail(r->error, MN_ERROR_OPTION, NULL,
                        "%s: '%s' is no item of a list of %lld (they count from 0)", r->file, step,
                        (long long)at->count);
    *slot = &at->items[index];
    return MN_OK;
}

static mn_status step_into(reader *r, mn__yaml_node *at, const char *step, mn__yaml_node ***slot)
{
    if (*step == '\0' || strlen(step) > KEY_LIMIT)
        return mn__fail(r->error, MN_ERROR_OPTION, "write --set key.key=value",
                        "%s: a key is empty or longer than %d bytes", r->file, KEY_LIMIT);
    if (mn__yaml_is_null(at)) /* "key:" with nothing after it */
        *at = (mn__yaml_node){.kind = MN__YAML_MAPPING, .file = at->file, .line = at->line};
    if (at->kind == MN__YAML_SCALAR)
        return mn__fail(r->error, MN_ERROR_OPTION, NULL,
                        "%s: '%s' cannot be set inside the value '%s'", r->file, step, at->text);
    return at->kind == MN__YAML_MAPPING ? mapping_slot(r, at, step, slot)
                                        : sequence_slot(r, at, step, slot);
}

/* Puts `value` at the dotted path, which is cut up. */
static mn_status put_at(reader *r, mn__yaml_node *root, char *path, mn__yaml_node *value)
{
    mn__yaml_node **slot = &root;
    int depth = 0;
    for (char *step = path, *next; step; step = next) {
        next = strchr(step, '.');
        if (next)
            *next++ = '\0';
        if (++depth > DEPTH_LIMIT)
            return mn__fail(r->error, MN_ERROR_OPTION, NULL, "%s: more than %d levels deep",
                            r->file, DEPTH_LIMIT);
        mn_status status = step_into(r, *slot, step, &slot);
        if (status)
            return status;
    }
    *slot = value;
    return MN_OK;
}

mn_status mn__yaml_set(mn__arena *arena, mn__yaml_node *root, const char *assignment,
                       mn_error *error)
{
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return mn__fail(error, MN_ERROR_USAGE, "write --set key.key=value", "--set %s: no '='",
                        assignment);
    reader r = {.arena = arena, .file = "--set", .error = error};
    char *path = mn__arena_printf(arena, "%.*s", (int)(equals - assignment), assignment);
    if (!path)
        return no_memory(r.file, error);
    mn__yaml_node *value;
    const char *text = equals + 1;
    if (text[strspn(text, " \t")] == '#')
        return mn__fail(error, MN_ERROR_USAGE, "put the value in quotes",
                        "--set %s: YAML takes this value for a comment", assignment);
    mn_status status = parse(&r, text, (int64_t)strlen(text), &value);
    if (status)
        return status;
    if (*text == '\0') /* no document: an empty text, not an empty mapping */
        *value = (mn__yaml_node){.text = "", .quoted = true, .file = r.file};
    return put_at(&r, root, path, value);
}

/* ---- Writing -------------------------------------------------------------- */

static void write_node(const mn__yaml_node *node, int indent, mn__string *out);

/* Words, numbers and paths stay bare; anything that YAML might take for more
 * than text is quoted. */
static bool is_bare(const char *text)
{
    const char *marks = "_./+-";
    if (!isalnum((unsigned char)*text) && *text != '/' && *text != '_')
        return *text == '-' && isdigit((unsigned char)text[1]) && is_bare(text + 1);
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr(marks, *text))
            return false;
    return true;
}

static void write_text(const char *text, mn__string *out)
{
    if (is_bare(text) && strcmp(text, "null") != 0)
        mn__string_puts(out, text);
    else
        mn__string_json(out, text, (int64_t)strlen(text));
}

static void write_scalar(const mn__yaml_node *node, mn__string *out)
{
    if (mn__yaml_is_null(node))
        mn__string_puts(out, "null");
    else
        write_text(node->text, out);
}

static bool is_flat(const mn__yaml_node *node)
{
    for (int64_t i = 0; i < node->count; i++)
        if (node->items[i]->kind != MN__YAML_SCALAR)
            return false;
    return node->kind == MN__YAML_SEQUENCE || node->count == 0;
}

static void write_flat(const mn__yaml_node *node, mn__string *out)
{
    mn__string_puts(out, node->kind == MN__YAML_SEQUENCE ? "[" : "{");
    for (int64_t i = 0; i < node->count; i++) {
        mn__string_puts(out, i ? ", " : "");
        write_scalar(node->items[i], out);
    }
    mn__string_puts(out, node->kind == MN__YAML_SEQUENCE ? "]\n" : "}\n");
}

/* What stands after "key:" or "-": on the same line, or a block below. */
static void write_value(const mn__yaml_node *node, int indent, mn__string *out)
{
    bool below = node->kind != MN__YAML_SCALAR && !is_flat(node);
    mn__string_puts(out, below ? "\n" : " ");
    write_node(node, indent, out);
}

static void write_node(const mn__yaml_node *node, int indent, mn__string *out)
{
    if (node->kind == MN__YAML_SCALAR) {
        write_scalar(node, out);
        mn__string_puts(out, "\n");
        return;
    }
    if (is_flat(node)) {
        write_flat(node, out);
        return;
    }
    for (int64_t i = 0; i < node->count; i++) {
        mn__string_printf(out, "%*s", indent, "");
        if (node->kind == MN__YAML_MAPPING) {
            write_text(node->keys[i]->text, out);
            mn__string_puts(out, ":");
        } else {
            mn__string_puts(out, "-");
        }
        write_value(node->items[i], indent + 2, out);
    }
}

mn_status mn__yaml_write(const mn__yaml_node *root, mn__string *out, mn_error *error)
{
    write_node(root, 0, out);
    return out->failed ? no_memory("YAML", error) : MN_OK;
}
