/* Comma-separated values. */
#include "data/csv.h"

void mn__csv_begin(mn__csv *csv, const char *text, int64_t bytes)
{
    *csv = (mn__csv){.at = text, .end = text + bytes, .next_line = 1};
}

void mn__csv_free(mn__csv *csv)
{
    mn__string_free(&csv->text);
}

static void take(mn__csv *csv, mn__string *text)
{
    if (*csv->at == '\n')
        csv->next_line++;
    mn__string_add(text, csv->at++, 1);
}

/* The opening quote was read. */
static mn_status quoted(mn__csv *csv, mn_error *error)
{
    for (; csv->at < csv->end; take(csv, &csv->text)) {
        if (*csv->at != '"')
            continue;
        csv->at++;
        if (csv->at == csv->end || *csv->at != '"')
            return MN_OK;
    }
    return mn__fail(error, MN_ERROR_FORMAT, NULL, "line %lld: a quote is not closed",
                    (long long)csv->line);
}

/* Appends one field and its NUL. */
static mn_status field(mn__csv *csv, mn_error *error)
{
    mn_status status = MN_OK;
    if (csv->at < csv->end && *csv->at == '"') {
        csv->at++;
        status = quoted(csv, error);
    }
    while (!status && csv->at < csv->end && *csv->at != ',' && *csv->at != '\n')
        take(csv, &csv->text);
    mn__string *text = &csv->text;
    bool at_end = csv->at == csv->end || *csv->at == '\n';
    if (at_end && text->bytes > 0 && text->text[text->bytes - 1] == '\r')
        text->bytes--;
    mn__string_add(text, "", 1);
    return status;
}

/* The fields lie in the text one after the other, each with its NUL. */
static void find_fields(mn__csv *csv, const int64_t *begins)
{
    for (int64_t i = 0; i < csv->fields; i++)
        csv->field[i] = csv->text.text + begins[i];
}

mn_status mn__csv_next(mn__csv *csv, bool *more, mn_error *error)
{
    int64_t begins[MN__CSV_FIELDS];
    mn__string_clear(&csv->text);
    csv->fields = 0;
    csv->line = csv->next_line;
    *more = csv->at < csv->end;
    for (bool row = *more; row;) {
        if (csv->fields == MN__CSV_FIELDS)
            return mn__fail(error, MN_ERROR_FORMAT, NULL, "line %lld: over %d fields",
                            (long long)csv->line, MN__CSV_FIELDS);
        begins[csv->fields++] = csv->text.bytes;
        mn_status status = field(csv, error);
        if (status)
            return status;
        row = csv->at < csv->end && *csv->at == ',';
        if (csv->at < csv->end && *csv->at++ == '\n')
            csv->next_line++;
    }
    if (csv->text.failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "line %lld: out of memory",
                        (long long)csv->line);
    find_fields(csv, begins);
    return MN_OK;
}
