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

#include "base/arena.h"

typedef enum mn__option_type {
    MN__OPTION_END,    /* ends a table */
    MN__OPTION_BOOL,   /* bool: true or false */
    MN__OPTION_INT,    /* int64_t; 2k, 1M and 64Ki are understood */
    MN__OPTION_FLOAT,  /* double */
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
    double least, most;   /* range of a number; both 0: any */
    const char *choices;  /* of an enum: "constant|cosine|rsqrt" */
    const char *help;     /* one line */
} mn__option;

#define MN__BOOL(type, field, fallback, help)                                  \
    { #field, MN__OPTION_BOOL, offsetof(type, field), fallback, 0, 0, NULL, help }
#define MN__INT(type, field, fallback, least, most, help)                      \
    { #field, MN__OPTION_INT, offsetof(type, field), fallback, least, most, NULL, help }
#define MN__FLOAT(type, field, fallback, least, most, help)                    \
    { #field, MN__OPTION_FLOAT, offsetof(type, field), fallback, least, most, NULL, help }
#define MN__STRING(type, field, fallback, help)                                \
    { #field, MN__OPTION_STRING, offsetof(type, field), fallback, 0, 0, NULL, help }
#define MN__ENUM(type, field, fallback, choices, help)                         \
    { #field, MN__OPTION_ENUM, offsetof(type, field), fallback, 0, 0, choices, help }
#define MN__LIST(type, field, fallback, help)                                  \
    { #field, MN__OPTION_LIST, offsetof(type, field), fallback, 0, 0, NULL, help }
#define MN__OPTIONS_END                                                        \
    { NULL, MN__OPTION_END, 0, NULL, 0, 0, NULL, NULL }

/* A parsed YAML document whose nodes know their file and line. */
typedef struct mn__yaml_node mn__yaml_node;
typedef enum mn__yaml_kind { MN__YAML_SCALAR, MN__YAML_SEQUENCE, MN__YAML_MAPPING } mn__yaml_kind;
struct mn__yaml_node {
    mn__yaml_kind kind;
    const char *text;      /* a scalar's */
    const char *file;      /* where it was read; "--set" for an override */
    int line;              /* from 1 */
    int64_t count;         /* items of a sequence, pairs of a mapping */
    mn__yaml_node **items; /* [count] */
    mn__yaml_node **keys;  /* [count], of a mapping */
};

/* Parses text (or a file). All nodes live in the arena. */
mn_status mn__yaml_parse(mn__arena *arena, const char *name, const char *text, int64_t bytes,
                         mn__yaml_node **root, mn_error *error);
mn_status mn__yaml_read(mn__arena *arena, const char *path, mn__yaml_node **root, mn_error *error);
/* Applies "a.b=value" (value is YAML) to a tree, creating mappings on the way.
 * A number in the path indexes a sequence. */
mn_status mn__yaml_set(mn__arena *arena, mn__yaml_node *root, const char *assignment,
                       mn_error *error);
/* NULL where a mapping has no such key, or node is NULL. */
mn__yaml_node *mn__yaml_get(const mn__yaml_node *mapping, const char *key);
/* The tree as YAML text again (canonical, keys in order). */
struct mn__string;
mn_status mn__yaml_write(const mn__yaml_node *root, struct mn__string *out, mn_error *error);

/* Fills a struct with a table's defaults. */
mn_status mn__options_default(const mn__option *table, void *component, mn__arena *arena,
                              mn_error *error);
/* Fills a struct: defaults, then the mapping's values (NULL mapping: defaults).
 * Keys named in `also` (NULL-ended, may be NULL) are left for the caller. */
mn_status mn__options_read(const mn__option *table, const mn__yaml_node *mapping,
                           const char *const *also, void *component, mn__arena *arena,
                           mn_error *error);
/* Sets one option from text. */
mn_status mn__options_set(const mn__option *table, const char *name, const char *value,
                          void *component, mn__arena *arena, mn_error *error);
/* An error at a node: "recipe.yaml:12: <message>". */
mn_status mn__options_fail(const mn__yaml_node *node, const char *hint, mn_error *error,
                           const char *format, ...) MN__PRINTF(4, 5);
/* The nearest name to `word` among a table's (edit distance), or NULL. */
const char *mn__options_nearest(const mn__option *table, const char *word);

#endif
