/* UTF-8: every code point and every pair of lead and second byte, white space
 * against utf8proc, and text in pieces against text at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "text/utf8.h"

static void every_code_point_round_trips(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        char text[4];
        uint32_t back;
        if (code >= 0xD800 && code < 0xE000)
            continue;
        int length = mn__utf8_encode(code, text);
        assert_int_equal(mn__utf8_decode(text, length, &back), length);
        assert_int_equal(back, code);
        for (int cut = 1; cut < length; cut++)
            assert_int_equal(mn__utf8_decode(text, cut, &back), MN__UTF8_PARTIAL);
    }
}

static void agrees_with_utf8proc_on_all_three_byte_strings(void **state)
{
    (void)state;
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b += a < 0x80 ? 37 : 1)
            for (int c = 0; c < 256; c += 17) {
                char text[4] = {(char)a, (char)b, (char)c, (char)0x80};
                uint32_t code;
                utf8proc_int32_t expected;
                utf8proc_ssize_t length =
                    utf8proc_iterate((const utf8proc_uint8_t *)text, 4, &expected);
                int ours = mn__utf8_decode(text, 4, &code);
                if (length > 0) {
                    assert_int_equal(ours, length);
                    assert_int_equal(code, expected);
                } else {
                    assert_int_equal(ours, MN__UTF8_INVALID);
                }
            }
}

static void invalid_sequences(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",         "\xC0\x80",         "\xC1\xBF",
                                      "\xE0\x80\x80", "\xED\xA0\x80",     "\xF0\x80\x80\x80",
                                      "\xF5\x80",     "\xF4\x90\x80\x80", "\xC3("};
    uint32_t code;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(mn__utf8_decode(bad[i], (int64_t)strlen(bad[i]), &code), MN__UTF8_INVALID);
        assert_int_equal(mn__utf8_valid(bad[i], (int64_t)strlen(bad[i])), 0);
    }
    /* A cut surrogate can never become valid. */
    assert_int_equal(mn__utf8_decode("\xED\xA0", 2, &code), MN__UTF8_INVALID);
    assert_int_equal(mn__utf8_valid("ab\xC3\xA9\xFFz", 6), 4);
}

static void partial_tails(void **state)
{
    (void)state;
    assert_int_equal(mn__utf8_partial("a\xF0\x9F\x98", 4), 3);
    assert_int_equal(mn__utf8_partial("a\xF0\x9F", 3), 2);
    assert_int_equal(mn__utf8_partial("a\xE2", 2), 1);
    assert_int_equal(mn__utf8_partial("a\xC3\xA9", 3), 0);
    assert_int_equal(mn__utf8_partial("a\xFF", 2), 0);
    assert_int_equal(mn__utf8_partial("", 0), 0);
}

static void white_space_is_unicodes(void **state)
{
    (void)state;
    for (int32_t code = 0; code < 0x110000; code++) {
        const utf8proc_property_t *property = utf8proc_get_property(code);
        bool separator = property->category == UTF8PROC_CATEGORY_ZS;
        bool expected = separator || property->bidi_class == UTF8PROC_BIDI_CLASS_B ||
                        property->bidi_class == UTF8PROC_BIDI_CLASS_S ||
                        property->bidi_class == UTF8PROC_BIDI_CLASS_WS;
        assert_int_equal(mn__utf8_is_space((uint32_t)code), expected);
    }
}

static const char odd_text[] = "two  words\r\n\xC2\xA0three\xE3\x80\x80"
                               "four \xF0\x9F\x98\x80 \xFF\xFE x\xE2\x82";

static void counts_do_not_depend_on_pieces(void **state)
{
    (void)state;
    int64_t bytes = (int64_t)sizeof odd_text - 1;
    for (int64_t piece = 1; piece <= bytes; piece++) {
        mn__utf8_counts counts = {0};
        for (int64_t at = 0; at < bytes; at += piece)
            mn__utf8_count(&counts, odd_text + at, at + piece < bytes ? piece : bytes - at);
        mn__utf8_count_end(&counts);
        assert_int_equal(counts.words, 7); /* two words three four emoji bad-bytes x-cut */
        assert_int_equal(counts.characters, 32);
    }
}

static void stream_lets_only_valid_text_out(void **state)
{
    (void)state;
    int64_t bytes = (int64_t)sizeof odd_text - 1;
    static const char expected[] =
        "two  words\r\n\xC2\xA0three\xE3\x80\x80"
        "four \xF0\x9F\x98\x80 \xEF\xBF\xBD\xEF\xBF\xBD x\xEF\xBF\xBD\xEF\xBF\xBD";
    for (int64_t piece = 1; piece <= bytes; piece++) {
        mn__utf8_stream stream = {0};
        mn__string out = {0};
        for (int64_t at = 0; at < bytes; at += piece) {
            int64_t before = out.bytes;
            mn__utf8_stream_feed(&stream, odd_text + at, at + piece < bytes ? piece : bytes - at,
                                 &out);
            int64_t came = out.bytes - before;
            assert_int_equal(came ? mn__utf8_valid(out.text + before, came) : 0, came);
        }
        mn__utf8_stream_end(&stream, &out);
        assert_string_equal(out.text, expected);
        mn__string_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_round_trips),
        cmocka_unit_test(agrees_with_utf8proc_on_all_three_byte_strings),
        cmocka_unit_test(invalid_sequences),
        cmocka_unit_test(partial_tails),
        cmocka_unit_test(white_space_is_unicodes),
        cmocka_unit_test(counts_do_not_depend_on_pieces),
        cmocka_unit_test(stream_lets_only_valid_text_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
