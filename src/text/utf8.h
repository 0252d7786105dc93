/* UTF-8: decoding with exact validity (no surrogates, no overlong forms,
 * nothing above U+10FFFF), white space, words, and a stream that only ever
 * lets valid UTF-8 out. */
#ifndef MN__TEXT_UTF8_H
#define MN__TEXT_UTF8_H

#include <stdbool.h>
#include <stdint.h>

#include "base/string.h"

enum { MN__UTF8_PARTIAL = 0, MN__UTF8_INVALID = -1 };
/* The code point at text[0] and its length 1..4; MN__UTF8_PARTIAL where the
 * bytes (at least one) are the beginning of a valid character that is cut off;
 * MN__UTF8_INVALID where no continuation could make them valid. */
int mn__utf8_decode(const char *text, int64_t bytes, uint32_t *code);
/* Writes a valid code point; its length 1..4. */
int mn__utf8_encode(uint32_t code, char out[4]);
/* Length of the longest prefix that is whole, valid characters. */
int64_t mn__utf8_valid(const char *text, int64_t bytes);
/* 0..3: how many bytes at the end begin a character that is cut off. */
int64_t mn__utf8_partial(const char *text, int64_t bytes);

/* The Unicode property White_Space, and the four separators U+001C..U+001F, as
 * Python's str.split() has it: the published word counts were made by that. */
bool mn__utf8_is_space(uint32_t code);

/* Counts words (runs of characters that are not white space) and characters
 * of a text that comes in pieces, which may cut characters. An invalid
 * byte counts as one character that is not white space. Start from {0}; a
 * character still cut off at the end is counted by mn__utf8_count_end. */
typedef struct mn__utf8_counts {
    int64_t words, characters;
    bool inside; /* a word */
    char partial[4];
    int partial_bytes;
} mn__utf8_counts;
void mn__utf8_count(mn__utf8_counts *counts, const char *text, int64_t bytes);
void mn__utf8_count_end(mn__utf8_counts *counts);

/* Bytes in, valid UTF-8 out: a character that is cut off waits for its rest,
 * an invalid byte becomes U+FFFD. Start from {0}. */
typedef struct mn__utf8_stream {
    char partial[4];
    int partial_bytes;
} mn__utf8_stream;
void mn__utf8_stream_feed(mn__utf8_stream *stream, const char *text, int64_t bytes,
                          mn__string *out);
void mn__utf8_stream_end(mn__utf8_stream *stream, mn__string *out);

#endif
