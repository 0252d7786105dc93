/* A growing byte string. */
#include "base/string.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

enum { LEAST_CAPACITY = 64 };

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

void mn__string_json(mn__string *string, const char *text, int64_t bytes)
{
    mn__string_puts(string, "\"");
    for (int64_t i = 0; i < bytes && !string->failed;) {
        const char *escape = json_escape(text[i]);
        unsigned char byte = (unsigned char)text[i];
        if (escape)
            mn__string_puts(string, escape);
        else if (byte < 0x20 || byte == 0x7F)
            mn__string_printf(string, "\\u%04x", byte);
        else {
            i += add_character(string, text + i, bytes - i);
            continue;
        }
        i++;
    }
    mn__string_puts(string, "\"");
}

static const char *html_escape(char byte)
{
    switch (byte) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void mn__string_html(mn__string *string, const char *text, int64_t bytes)
{
    for (int64_t i = 0; i < bytes && !string->failed;) {
        const char *escape = html_escape(text[i]);
        if (escape) {
            mn__string_puts(string, escape);
            i++;
        } else {
            i += add_character(string, text + i, bytes - i);
        }
    }
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
