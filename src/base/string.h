/* A growing byte string. A failed allocation is remembered in `failed`, later
 * calls do nothing, so that only the end needs a check. Always NUL-ended. */
#ifndef MN__BASE_STRING_H
#define MN__BASE_STRING_H

#include <stdbool.h>

#include "base/error.h"

typedef struct mn__string {
    char *text; /* NULL while empty */
    int64_t bytes, capacity;
    bool failed;
} mn__string;

void mn__string_add(mn__string *string, const void *data, int64_t bytes);
void mn__string_puts(mn__string *string, const char *text);
void mn__string_printf(mn__string *string, const char *format, ...) MN__PRINTF(2, 3);
/* `text` as a quoted JSON string; as HTML text. */
void mn__string_json(mn__string *string, const char *text, int64_t bytes);
void mn__string_html(mn__string *string, const char *text, int64_t bytes);
void mn__string_clear(mn__string *string); /* keeps the memory */
void mn__string_free(mn__string *string);

#endif
