/* Comma-separated values as RFC 4180 has them: a field may stand in quotes, and
 * then holds commas, newlines, and quotes written twice. */
#ifndef MN__DATA_CSV_H
#define MN__DATA_CSV_H

#include "base/string.h"

enum { MN__CSV_FIELDS = 16 };

typedef struct mn__csv {
    const char *at, *end; /* what is still to be read */
    int64_t line;         /* where the last row began, from 1 */
    int64_t next_line;
    int64_t fields;                    /* of the last row */
    const char *field[MN__CSV_FIELDS]; /* NUL-ended, until the next row */
    mn__string text;
} mn__csv;

/* `text` must outlive the reader. */
void mn__csv_begin(mn__csv *csv, const char *text, int64_t bytes);
/* *more = false at the end. MN_ERROR_FORMAT: a quote is not closed, or a row has
 * over MN__CSV_FIELDS fields. */
mn_status mn__csv_next(mn__csv *csv, bool *more, mn_error *error);
void mn__csv_free(mn__csv *csv);

#endif
