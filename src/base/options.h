/* Options: one table per component makes the recipe reader, `--set a.b=c`,
 * `--help`, the man page and the docs.
 *
 * A table describes a plain struct: each row names a field by offset. Reading a
 * recipe walks a YAML mapping against a table; an unknown or ill-typed key is
 * an error that names the file, the line and the nearest valid key. */
#ifndef MN__BASE_OPTIONS_H
#define MN__BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/string.h"
#include "base/yaml.h"

typedef enum mn__option_type {
    MN__OPTION_END,    /* ends a table */
    MN__OPTION_BOOL,   /* bool: true or false */
    MN__OPTION_INT,    /* int64_t; 2k, 1M, 64Ki and 1e6 are understood */
    MN__OPTION_FLOAT,  /* double, finite */
    MN__OPTION_STRING, /* const char *, in the arena; never NULL */
    MN__OPTION_ENUM,   /* int: index into `choices` */
    MN__OPTION_LIST,   /* mn__string_list: a YAML sequence of scalars, or one */
} mn__option_type;

typedef struct mn__string_list {
    const char **items; /* [count], in the arena */
    int64_t count;
} mn__string_list;

typedef struct mn__option {
    const char *name;
    mn__option_type type;
    size_t offset;        /* of the field in the component's struct */
    const char *fallback; /* the default, as text */
    double least, most;   /* range of a number, may be infinite; both 0: any */
    const char *choices;  /* of an enum: "constant|cosine|rsqrt" */
    const char *help;     /* one line */
} mn__option;

/* The formatter would spread each of these over four lines. */
/* clang-format off */
#define MN__BOOL(type, field, fallback, help) \
    { #field, MN__OPTION_BOOL, offsetof(type, field), fallback, 0, 0, NULL, help }
#define MN__INT(type, field, fallback, least, most, help) \
    { #field, MN__OPTION_INT, offsetof(type, field), fallback, least, most, NULL, help }
#define MN__FLOAT(type, field, fallback, least, most, help) \
    { #field, MN__OPTION_FLOAT, offsetof(type, field), fallback, least, most, NULL, help }
#define MN__STRING(type, field, fallback, help) \
    { #field, MN__OPTION_STRING, offsetof(type, field), fallback, 0, 0, NULL, help }
#define MN__ENUM(type, field, fallback, choices, help) \
    { #field, MN__OPTION_ENUM, offsetof(type, field), fallback, 0, 0, choices, help }
#define MN__LIST(type, field, fallback, help) \
    { #field, MN__OPTION_LIST, offsetof(type, field), fallback, 0, 0, NULL, help }
#define MN__OPTIONS_END \
    { NULL, MN__OPTION_END, 0, NULL, 0, 0, NULL, NULL }
/* clang-format on */

/* Fills a struct with a table's defaults. */
mn_status mn__options_default(const mn__option *table, void *component, mn__arena *arena,
                              mn_error *error);
/* Fills a struct: defaults, then the mapping's values (NULL mapping: defaults).
 * Keys named in `also` (NULL-ended, may be NULL) are left for the caller. */
mn_status mn__options_read(const mn__option *table, const mn__yaml_node *mapping,
                           const char *const *also, void *component, mn__arena *arena,
                           mn_error *error);
/* Sets one option from text; that of a list is one item, or "[a, b]". */
mn_status mn__options_set(const mn__option *table, const char *name, const char *value,
                          void *component, mn__arena *arena, mn_error *error);
/* The nearest name to `word` among a table's (edit distance), or NULL. */
const char *mn__options_nearest(const mn__option *table, const char *word);

/* One option's value in a struct, as text that a recipe takes. */
void mn__options_value(const mn__option *option, const void *component, mn__string *out);
/* A struct as YAML lines "name: value", each after `indent` spaces. */
void mn__options_write(const mn__option *table, const void *component, int indent, mn__string *out);
/* What a table offers: lines for --help; rows of a Markdown table for the docs. */
void mn__options_help(const mn__option *table, mn__string *out);
void mn__options_markdown(const mn__option *table, mn__string *out);

#endif
