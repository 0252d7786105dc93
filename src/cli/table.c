/* Tables. */
#include "cli/table.h"

#include <stdio.h>
#include <string.h>

#include "text/utf8.h"

void mn__table_integer(mn__string *out, int64_t value)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)value);
    for (int i = 0; i < length; i++) {
        mn__string_add(out, digits + i, 1);
        if ((length - i) % 3 == 1 && i + 1 < length && digits[i] != '-')
            mn__string_puts(out, ",");
    }
}

static void put_cell(mn__string *out, const mn__column *column, const json_t *value)
{
    if (json_is_integer(value))
        mn__table_integer(out, json_integer_value(value));
    else if (json_is_real(value))
        mn__string_printf(out, "%.*f", column->decimals, json_real_value(value));
    else if (json_is_string(value))
        mn__string_puts(out, json_string_value(value));
    else if (json_is_boolean(value))
        mn__string_puts(out, json_is_true(value) ? "yes" : "no");
    else
        mn__string_puts(out, "-");
}

static int64_t width_of(const char *text, int64_t bytes)
{
    mn__utf8_counts counts = {0};
    mn__utf8_count(&counts, text, bytes);
    mn__utf8_count_end(&counts);
    return counts.characters;
}

static int64_t column_width(const mn__column *column, const json_t *rows)
{
    int64_t most = width_of(column->title, (int64_t)strlen(column->title));
    size_t i;
    const json_t *row;
    json_array_foreach((json_t *)rows, i, row)
    {
        mn__string cell = {0};
        put_cell(&cell, column, json_object_get(row, column->key));
        int64_t width = cell.bytes ? width_of(cell.text, cell.bytes) : 0;
        most = width > most ? width : most;
        mn__string_free(&cell);
    }
    return most;
}

static void pad(mn__string *out, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        mn__string_puts(out, " ");
}

static bool is_number(const mn__column *column, const json_t *rows)
{
    size_t i;
    const json_t *row;
    json_array_foreach((json_t *)rows, i, row)
    {
        const json_t *value = json_object_get(row, column->key);
        if (value && !json_is_null(value))
            return json_is_number(value);
    }
    return false;
}

/* row NULL: the titles. */
static void put_row(mn__string *out, const mn__column *columns, const json_t *rows,
                    const json_t *row)
{
    for (int c = 0; columns[c].key; c++) {
        mn__string cell = {0};
        if (row)
            put_cell(&cell, &columns[c], json_object_get(row, columns[c].key));
        else
            mn__string_puts(&cell, columns[c].title);
        int64_t space =
            column_width(&columns[c], rows) - (cell.bytes ? width_of(cell.text, cell.bytes) : 0);
        bool right = is_number(&columns[c], rows), last = !columns[c + 1].key;
        mn__string_puts(out, c ? "  " : "");
        pad(out, right ? space : 0);
        mn__string_add(out, cell.text, cell.bytes);
        pad(out, right || last ? 0 : space);
        out->failed |= cell.failed;
        mn__string_free(&cell);
    }
    mn__string_puts(out, "\n");
}

void mn__table_put(mn__string *out, const mn__column *columns, const json_t *rows)
{
    put_row(out, columns, rows, NULL);
    size_t i;
    const json_t *row;
    json_array_foreach((json_t *)rows, i, row) put_row(out, columns, rows, row);
}

void mn__table_csv(mn__string *out, const json_t *value)
{
    if (json_is_integer(value))
        mn__string_printf(out, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        mn__string_printf(out, "%.12g", json_real_value(value));
    const char *text = json_string_value(value);
    bool quote = text && strpbrk(text, ",\"\r\n");
    mn__string_puts(out, quote ? "\"" : "");
    for (; text && *text; text++) {
        mn__string_puts(out, *text == '"' ? "\"" : "");
        mn__string_add(out, text, 1);
    }
    mn__string_puts(out, quote ? "\"" : "");
}

mn_status mn__table_json(json_t *value, mn_error *error)
{
    if (!value)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the JSON");
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(value);
    return MN_OK;
}
