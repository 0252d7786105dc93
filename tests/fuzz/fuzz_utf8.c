/* Fuzzing UTF-8: text in pieces gives what the text at once gives, and only
 * valid UTF-8 comes out of the stream. The first byte chooses the pieces. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

static void require(bool holds)
{
    if (!holds)
        abort();
}

static mn__string stream_in_pieces(const char *text, int64_t bytes, int64_t piece)
{
    mn__utf8_stream stream = {0};
    mn__string out = {0};
    for (int64_t at = 0; at < bytes; at += piece)
        mn__utf8_stream_feed(&stream, text + at, at + piece < bytes ? piece : bytes - at, &out);
    mn__utf8_stream_end(&stream, &out);
    return out;
}

static mn__utf8_counts count_in_pieces(const char *text, int64_t bytes, int64_t piece)
{
    mn__utf8_counts counts = {0};
    for (int64_t at = 0; at < bytes; at += piece)
        mn__utf8_count(&counts, text + at, at + piece < bytes ? piece : bytes - at);
    mn__utf8_count_end(&counts);
    return counts;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *text = (const char *)data + 1;
    int64_t bytes = (int64_t)size - 1, piece = 1 + data[0] % 7;
    mn__string whole = stream_in_pieces(text, bytes, bytes);
    mn__string parts = stream_in_pieces(text, bytes, piece);
    mn__utf8_counts counts = count_in_pieces(text, bytes, bytes);
    mn__utf8_counts again = count_in_pieces(text, bytes, piece);
    require(whole.bytes == parts.bytes);
    require(memcmp(whole.text, parts.text, (size_t)whole.bytes) == 0);
    require(mn__utf8_valid(whole.text, whole.bytes) == whole.bytes);
    if (mn__utf8_valid(text, bytes) == bytes)
        require(whole.bytes == bytes && memcmp(whole.text, text, size - 1) == 0);
    require(counts.words == again.words && counts.characters == again.characters);
    require(mn__utf8_partial(text, bytes) <= 3);
    mn__string_free(&whole);
    mn__string_free(&parts);
    return 0;
}
