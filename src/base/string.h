/* A growing byte string. A failed allocation is remembered in `failed`, later
 * calls do nothing, so that only the end needs a check. Always NUL-ended. */
#ifndef MN__BASE_STRING_H
#define MN__BASE_STRING_H

#include <stdarg.h>
#include <stdbool.h>

#include "base/error.h"

typedef struct mn__string {
    char *text; /* NULL while empty */
    int64_t bytes, capacity;
    bool failed;
} mn__string;

/* Room for `bytes` more and the NUL; false when it has failed. */
bool mn__string_reserve(mn__string *string, int64_t bytes);
void mn__string_add(mn__string *string, const void *data, int64_t bytes);
void mn__string_puts(mn__string *string, const char *text);
void mn__string_printf(mn__string *string, const char *format, ...) MN__PRINTF(2, 3);
void mn__string_vprintf(mn__string *string, const char *format, va_list arguments) MN__PRINTF(2, 0);
/* `text` as a quoted JSON string. Bytes that are no UTF-8 become U+FFFD. */
void mn__string_json(mn__string *string, const char *text, int64_t bytes);
/* Empties it, keeps the memory and forgets a failure. */
void mn__string_clear(mn__string *string);
void mn__string_free(mn__string *string);

/* Bytes of the UTF-8 character at `text`; 0 where there is no well-formed one. */
int mn__utf8_length(const void *text, int64_t bytes);

/* The least number of letters to insert, drop, change or swap with a neighbour
 * that makes one word of the other; -1 for words over 127 bytes. */
int mn__string_distance(const char *a, const char *b);

#endif
