/* JSON files by Jansson, with errors that name the file and the key. A value
 * here is Jansson's, together with the file that it came from; use Jansson for
 * all that has no need of errors. Jansson's own allocations are not counted and
 * must not be made to fail: in 2.14 its parser asserts then. */
#ifndef MN__BASE_JSON_H
#define MN__BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/* Parses text whole: one value, no duplicate keys; a whole number that does not
 * fit int64_t is a real number. `name` is what errors call it. *root is freed by
 * json_decref. */
mn_status mn__json_parse(const char *name, const char *text, int64_t bytes, json_t **root,
                         mn_error *error);
/* The same for a file of at most 1 GiB. */
mn_status mn__json_read(const char *path, json_t **root, mn_error *error);

/* A value inside a file. Borrowed: both outlive it. */
typedef struct mn__json {
    const char *file;
    const json_t *value;
} mn__json;

typedef enum mn__json_need { MN__JSON_REQUIRED, MN__JSON_OPTIONAL } mn__json_need;

/* object[key] as a type. MN_ERROR_FORMAT where it has another type, or is
 * required and missing or null; *value stays as it was where it is optional
 * and missing or null. A whole number is also taken for a float. */
mn_status mn__json_int(mn__json object, const char *key, mn__json_need need, int64_t *value,
                       mn_error *error);
mn_status mn__json_float(mn__json object, const char *key, mn__json_need need, double *value,
                         mn_error *error);
mn_status mn__json_bool(mn__json object, const char *key, mn__json_need need, bool *value,
                        mn_error *error);
mn_status mn__json_string(mn__json object, const char *key, mn__json_need need, const char **value,
                          mn_error *error);
mn_status mn__json_object(mn__json object, const char *key, mn__json_need need, mn__json *value,
                          mn_error *error);
mn_status mn__json_array(mn__json object, const char *key, mn__json_need need, mn__json *value,
                         mn_error *error);

#endif
