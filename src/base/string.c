/* A growing byte string. */
#include "base/string.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

enum { LEAST_CAPACITY = 64, WORD_LIMIT = 128 };

bool mn__string_reserve(mn__string *string, int64_t bytes)
{
    int64_t need;
    if (string->failed || bytes < 0 || __builtin_add_overflow(string->bytes + 1, bytes, &need)) {
        string->failed = true;
        return false;
    }
    if (need <= string->capacity)
        return true;
    int64_t doubled = string->capacity <= INT64_MAX / 2 ? 2 * string->capacity : need;
    int64_t capacity = need > doubled ? need : doubled;
    capacity = capacity > LEAST_CAPACITY ? capacity : LEAST_CAPACITY;
    char *text = mn__realloc(string->text, capacity);
    if (!text) {
        string->failed = true;
        return false;
    }
    string->text = text;
    string->capacity = capacity;
    return true;
}

void mn__string_add(mn__string *string, const void *data, int64_t bytes)
{
    if (!mn__string_reserve(string, bytes))
        return;
    if (bytes > 0)
        memcpy(string->text + string->bytes, data, (size_t)bytes);
    string->bytes += bytes;
    string->text[string->bytes] = '\0';
}

void mn__string_puts(mn__string *string, const char *text)
{
    mn__string_add(string, text, (int64_t)strlen(text));
}

void mn__string_vprintf(mn__string *string, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (mn__string_reserve(string, length)) {
        vsnprintf(string->text + string->bytes, (size_t)length + 1, format, again);
        string->bytes += length;
    }
    va_end(again);
}

void mn__string_printf(mn__string *string, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    mn__string_vprintf(string, format, arguments);
    va_end(arguments);
}

/* The well-formed sequences of the Unicode Standard, table 3-7. */
int mn__utf8_length(const void *text, int64_t bytes)
{
    const unsigned char *at = text;
    if (bytes < 1)
        return 0;
    int length = at[0] < 0x80 ? 1 : at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
    if (at[0] > 0xF4 || length > bytes)
        return 0;
    for (int i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xF0 && at[1] < 0x90);
    bool surrogate = at[0] == 0xED && at[1] > 0x9F;
    bool too_large = at[0] == 0xF4 && at[1] > 0x8F;
    return overlong || surrogate || too_large ? 0 : length;
}

/* One character as it is, or U+FFFD for a byte that starts none. */
static int64_t add_character(mn__string *string, const char *text, int64_t bytes)
{
    int length = mn__utf8_length(text, bytes);
    if (length == 0)
        mn__string_puts(string, "\xEF\xBF\xBD");
    else
        mn__string_add(string, text, length);
    return length == 0 ? 1 : length;
}

/* Of a well-formed sequence. */
static uint32_t code_point(const char *text, int length)
{
    uint32_t point = (unsigned char)text[0] & (length == 1 ? 0x7FU : 0xFFU >> (length + 1));
    for (int i = 1; i < length; i++)
        point = point << 6 | ((unsigned char)text[i] & 0x3FU);
    return point;
}

/* Characters that are no part of a line of text: controls, and those that
 * YAML or JavaScript take for a line's end or refuse. */
static bool needs_escape(uint32_t point)
{
    return point < 0x20 || (point >= 0x7F && point < 0xA0) || point == 0x2028 || point == 0x2029 ||
           point == 0xFEFF || point == 0xFFFE || point == 0xFFFF;
}

static const char *json_escape(char byte)
{
    switch (byte) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

static int64_t add_json_character(mn__string *string, const char *text, int64_t bytes)
{
    int length = mn__utf8_length(text, bytes);
    const char *escape = json_escape(*text);
    if (escape) {
        mn__string_puts(string, escape);
        return 1;
    }
    uint32_t point = length ? code_point(text, length) : 0xFFFD;
    if (!needs_escape(point))
        return add_character(string, text, bytes);
    mn__string_printf(string, "\\u%04x", point);
    return length;
}

void mn__string_json(mn__string *string, const char *text, int64_t bytes)
{
    mn__string_puts(string, "\"");
    for (int64_t i = 0; i < bytes && !string->failed;)
        i += add_json_character(string, text + i, bytes - i);
    mn__string_puts(string, "\"");
}

void mn__string_clear(mn__string *string)
{
    string->bytes = 0;
    string->failed = false;
    if (string->text)
        string->text[0] = '\0';
}

void mn__string_free(mn__string *string)
{
    mn__free(string->text);
    *string = (mn__string){0};
}

/* Damerau's distance in the optimal-string-alignment form: three rows. */
int mn__string_distance(const char *a, const char *b)
{
    int rows[3][WORD_LIMIT] = {0};
    size_t m = strlen(a), n = strlen(b);
    if (m >= WORD_LIMIT || n >= WORD_LIMIT)
        return -1;
    for (size_t j = 0; j <= n; j++)
        rows[0][j] = (int)j;
    for (size_t i = 1; i <= m; i++) {
        const int *before = rows[(i + 1) % 3], *above = rows[(i - 1) % 3];
        int *row = rows[i % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; j++) {
            int least = above[j - 1] + (a[i - 1] != b[j - 1]);
            least = above[j] + 1 < least ? above[j] + 1 : least;
            least = row[j - 1] + 1 < least ? row[j - 1] + 1 : least;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < least)
                least = before[j - 2] + 1;
            row[j] = least;
        }
    }
    return rows[m % 3][n];
}
