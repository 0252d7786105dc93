/* Readable tables and JSON of the same data: rows are an array of JSON objects. */
#ifndef MN__CLI_TABLE_H
#define MN__CLI_TABLE_H

#include <jansson.h>

#include "base/string.h"

typedef struct mn__column {
    const char *key, *title; /* NULL key ends the columns */
    int decimals;            /* of numbers that are not whole */
} mn__column;

/* Numbers to the right, texts to the left; whole numbers in groups of three. */
void mn__table_put(mn__string *out, const mn__column *columns, const json_t *rows);
/* "1,234,567". */
void mn__table_integer(mn__string *out, int64_t value);
/* A value as a CSV cell; nothing for NULL. */
void mn__table_csv(mn__string *out, const json_t *value);
/* Prints a value as JSON and frees it; NULL is MN_ERROR_MEMORY. */
mn_status mn__table_json(json_t *value, mn_error *error);

#endif
