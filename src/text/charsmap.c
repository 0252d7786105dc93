/* SentencePiece's precompiled character maps. */
#include "text/charsmap.h"

#include <string.h>
#include <utf8proc.h>

#include "text/base64.h"
#include "text/utf8.h"

enum { SHORT_GRAPHEME = 6 }; /* bytes; longer ones are mapped character by character */

mn_status mn__charsmap_parse(mn__charsmap *map, const char *base64, int64_t bytes, mn_error *error)
{
    uint32_t size = 0;
    bool valid = mn__base64_decode(base64, bytes, &map->blob);
    if (map->blob.failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
    if (map->blob.bytes >= 4)
        memcpy(&size, map->blob.text, 4); /* little-endian, as all machines here */
    if (!valid || map->blob.bytes < 8 || size % 4 != 0 || size < 4 || size > map->blob.bytes - 4)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "precompiled_charsmap is damaged");
    map->units = size / 4;
    return MN_OK;
}

void mn__charsmap_free(mn__charsmap *map)
{
    mn__string_free(&map->blob);
}

/* ---- The double array -------------------------------------------------------------------------
 */

static uint32_t unit_at(const mn__charsmap *map, uint64_t at)
{
    uint32_t unit = 0;
    if (at < (uint64_t)map->units)
        memcpy(&unit, map->blob.text + 4 + 4 * at, 4);
    return unit;
}

static uint64_t offset_of(uint32_t unit)
{
    return (uint64_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The replacement of the shortest entry that text begins with, NULL where there is none. */
static const char *find(const mn__charsmap *map, const char *text, int64_t bytes, int64_t *length)
{
    uint64_t node = offset_of(unit_at(map, 0));
    for (int64_t i = 0; i < bytes && text[i]; i++) {
        unsigned char byte = (unsigned char)text[i];
        node ^= byte;
        uint32_t unit = unit_at(map, node);
        if ((unit & (1u << 31 | 0xFF)) != byte)
            return NULL;
        node ^= offset_of(unit);
        if (unit >> 8 & 1) {
            int64_t pool = 4 + 4 * map->units;
            int64_t place = pool + (int64_t)(unit_at(map, node) & 0x7FFFFFFF);
            if (place >= map->blob.bytes)
                return NULL;
            *length = (int64_t)strnlen(map->blob.text + place, (size_t)(map->blob.bytes - place));
            /* A damaged map may point into a character: later stages rely on valid UTF-8. */
            bool valid = mn__utf8_valid(map->blob.text + place, *length) == *length;
            return valid ? map->blob.text + place : NULL;
        }
    }
    return NULL;
}

/* ---- Text -------------------------------------------------------------------------------------
 */

static int64_t grapheme_end(const char *text, int64_t bytes, int64_t at)
{
    uint32_t code = 0, next = 0;
    utf8proc_int32_t state = 0;
    at += mn__utf8_decode(text + at, bytes - at, &code);
    while (at < bytes) {
        int length = mn__utf8_decode(text + at, bytes - at, &next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)code, (utf8proc_int32_t)next,
                                             &state))
            break;
        at += length;
        code = next;
    }
    return at;
}

void mn__charsmap_apply(const mn__charsmap *map, const char *text, int64_t bytes, mn__string *out)
{
    for (int64_t at = 0, end; at < bytes; at = end) {
        int64_t length;
        end = grapheme_end(text, bytes, at);
        const char *whole =
            end - at < SHORT_GRAPHEME ? find(map, text + at, end - at, &length) : NULL;
        if (whole) {
            mn__string_add(out, whole, length);
            continue;
        }
        while (at < end) {
            uint32_t code;
            int step = mn__utf8_decode(text + at, end - at, &code);
            const char *one = find(map, text + at, step, &length);
            mn__string_add(out, one ? one : text + at, one ? length : step);
            at += step;
        }
    }
}
