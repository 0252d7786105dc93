/* UTF-8, after table 3-7 of the Unicode Standard (well-formed byte sequences). */
#include "text/utf8.h"

#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* How long a sequence a lead byte begins, and the range of its second byte;
 * 0 where no sequence begins so. */
static int lead_byte(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return lead < 0x80   ? 1
           : lead < 0xC2 ? 0
           : lead < 0xE0 ? 2
           : lead < 0xF0 ? 3
           : lead < 0xF5 ? 4
                         : 0;
}

int mn__utf8_decode(const char *text, int64_t bytes, uint32_t *code)
{
    const unsigned char *at = (const unsigned char *)text;
    unsigned char low, high;
    int length = lead_byte(at[0], &low, &high);
    if (length == 0)
        return MN__UTF8_INVALID;
    if (length == 1) {
        *code = at[0];
        return 1;
    }
    uint32_t value = at[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if (i >= bytes)
            return MN__UTF8_PARTIAL;
        if (at[i] < low || at[i] > high)
            return MN__UTF8_INVALID;
        value = value << 6 | (at[i] & 0x3Fu);
    }
    *code = value;
    return length;
}

int mn__utf8_encode(uint32_t code, char out[4])
{
    int length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(leads[length] | code);
    return length;
}

int64_t mn__utf8_valid(const char *text, int64_t bytes)
{
    uint32_t code;
    int64_t at = 0;
    while (at < bytes) {
        uint64_t eight;
        if (bytes - at >= 8 && (memcpy(&eight, text + at, 8), !(eight & 0x8080808080808080))) {
            at += 8; /* ASCII, the common case */
            continue;
        }
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        if (length <= 0)
            break;
        at += length;
    }
    return at;
}

int64_t mn__utf8_partial(const char *text, int64_t bytes)
{
    uint32_t code;
    for (int64_t tail = 1; tail <= 3 && tail <= bytes; tail++)
        if (mn__utf8_decode(text + bytes - tail, tail, &code) == MN__UTF8_PARTIAL)
            return tail;
    return 0;
}

bool mn__utf8_is_space(uint32_t code)
{
    if (code < 0x80)
        return code == ' ' || (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x1F);
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* ---- Text in pieces --------------------------------------------------------- */

/* The next character of waiting bytes followed by text: the shared walk of the
 * counts and the stream. Takes from `text`; returns the character's length in
 * `held` (its bytes), MN__UTF8_INVALID for one bad byte, or MN__UTF8_PARTIAL
 * where the text ran out and `held` waits for more. */
static int next_character(char held[4], int *held_bytes, const char **text, int64_t *bytes,
                          uint32_t *code)
{
    for (;;) {
        if (*held_bytes > 0) {
            int length = mn__utf8_decode(held, *held_bytes, code);
            if (length != MN__UTF8_PARTIAL)
                return length;
        }
        if (*bytes == 0)
            return MN__UTF8_PARTIAL;
        held[(*held_bytes)++] = *(*text)++;
        --*bytes;
    }
}

/* Drops what was dealt with: a whole character, or one bad byte. */
static void drop_character(char held[4], int *held_bytes, int length)
{
    int drop = length > 0 ? length : 1;
    *held_bytes -= drop;
    memmove(held, held + drop, (size_t)*held_bytes);
}

static void count_character(mn__utf8_counts *counts, bool space)
{
    counts->characters++;
    counts->words += !space && !counts->inside;
    counts->inside = !space;
}

void mn__utf8_count(mn__utf8_counts *counts, const char *text, int64_t bytes)
{
    while (bytes > 0 || counts->partial_bytes > 0) {
        uint32_t code = 0;
        if (counts->partial_bytes == 0 && (unsigned char)*text < 0x80) { /* the common case */
            count_character(counts, mn__utf8_is_space((unsigned char)*text));
            text++;
            bytes--;
            continue;
        }
        int length = next_character(counts->partial, &counts->partial_bytes, &text, &bytes, &code);
        if (length == MN__UTF8_PARTIAL)
            return;
        count_character(counts, length > 0 && mn__utf8_is_space(code));
        drop_character(counts->partial, &counts->partial_bytes, length);
    }
}

void mn__utf8_count_end(mn__utf8_counts *counts)
{
    for (; counts->partial_bytes > 0; counts->partial_bytes--)
        count_character(counts, false);
    counts->inside = false;
}

void mn__utf8_stream_feed(mn__utf8_stream *stream, const char *text, int64_t bytes, mn__string *out)
{
    while (bytes > 0 || stream->partial_bytes > 0) {
        uint32_t code;
        int length = next_character(stream->partial, &stream->partial_bytes, &text, &bytes, &code);
        if (length == MN__UTF8_PARTIAL)
            return;
        if (length > 0)
            mn__string_add(out, stream->partial, length);
        else
            mn__string_puts(out, replacement);
        drop_character(stream->partial, &stream->partial_bytes, length);
    }
}

void mn__utf8_stream_end(mn__utf8_stream *stream, mn__string *out)
{
    for (; stream->partial_bytes > 0; stream->partial_bytes--)
        mn__string_puts(out, replacement);
}
