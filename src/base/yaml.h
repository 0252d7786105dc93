/* YAML, as recipes use it: a tree whose nodes know their file and line. One
 * document; no anchors, aliases or tags; keys are scalars and unique. */
#ifndef MN__BASE_YAML_H
#define MN__BASE_YAML_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/string.h"

typedef struct mn__yaml_node mn__yaml_node;
typedef enum mn__yaml_kind { MN__YAML_SCALAR, MN__YAML_SEQUENCE, MN__YAML_MAPPING } mn__yaml_kind;
struct mn__yaml_node {
    mn__yaml_kind kind;
    bool quoted;           /* a scalar in quotes or a block: never null */
    const char *text;      /* a scalar's */
    const char *file;      /* where it was read; "--set" for an override */
    int line;              /* from 1; 0 for an override */
    int64_t count;         /* items of a sequence, pairs of a mapping */
    mn__yaml_node **items; /* [count] */
    mn__yaml_node **keys;  /* [count], of a mapping */
};

/* Parses text (or a file of at most 16 MiB). All nodes live in the arena. An
 * empty document is an empty mapping. */
mn_status mn__yaml_parse(mn__arena *arena, const char *name, const char *text, int64_t bytes,
                         mn__yaml_node **root, mn_error *error);
mn_status mn__yaml_read(mn__arena *arena, const char *path, mn__yaml_node **root, mn_error *error);
/* Applies "a.b=value" (value is YAML) to a tree, creating mappings on the way.
 * A number in the path indexes a sequence. */
mn_status mn__yaml_set(mn__arena *arena, mn__yaml_node *root, const char *assignment,
                       mn_error *error);
/* NULL where a mapping has no such key, or node is NULL or no mapping. */
mn__yaml_node *mn__yaml_get(const mn__yaml_node *mapping, const char *key);
/* Nothing was written: NULL, or a bare "", "~" or "null". */
bool mn__yaml_is_null(const mn__yaml_node *node);
/* The tree as YAML text again (canonical, keys in order). */
mn_status mn__yaml_write(const mn__yaml_node *root, mn__string *out, mn_error *error);
/* MN_ERROR_OPTION at a node: "recipe.yaml:12: <message>". */
mn_status mn__yaml_fail(const mn__yaml_node *node, const char *hint, mn_error *error,
                        const char *format, ...) MN__PRINTF(4, 5);

#endif
