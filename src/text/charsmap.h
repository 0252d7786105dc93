/* The "precompiled" character map of SentencePiece models: a double array (Darts) from character
 * sequences to offsets into a pool of replacements; applied by grapheme, as the tokenizers package
 * does (its part spm_precompiled). */
#ifndef MN__TEXT_CHARSMAP_H
#define MN__TEXT_CHARSMAP_H

#include <stdbool.h>

#include "base/string.h"

/* Start from {0}. */
typedef struct mn__charsmap {
    mn__string blob;
    int64_t units; /* of 4 bytes, after the first 4 */
} mn__charsmap;

/* From base64. MN_ERROR_FORMAT. */
mn_status mn__charsmap_parse(mn__charsmap *map, const char *base64, int64_t bytes, mn_error *error);
void mn__charsmap_apply(const mn__charsmap *map, const char *text, int64_t bytes, mn__string *out);
void mn__charsmap_free(mn__charsmap *map);

#endif
