/* Fuzzing the reader of comma-separated values: it ends, and its fields are
 * text of no more bytes than it was given. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mn__csv csv;
    bool more = true;
    size_t total = 0;
    mn__csv_begin(&csv, (const char *)data, (int64_t)size);
    while (mn__csv_next(&csv, &more, NULL) == MN_OK && more)
        for (int64_t i = 0; i < csv.fields; i++)
            total += strlen(csv.field[i]);
    if (total > size)
        abort();
    mn__csv_free(&csv);
    return 0;
}
