/* The hand-written patterns against the regular expressions that they stand for, by PCRE2, on
 * random texts; and the regular expressions themselves where PCRE2's meaning is rewritten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/string.h"
#include "text/pattern.h"
#include "text/regex.h"
#include "text/utf8.h"

/* Characters of every class that a pattern knows, and those beside them; all of Unicode 12, so that
 * no version of a library has not heard of them. */
static const char *const pool[] = {
    "a",
    "b",
    "S",
    "t",
    "'",
    "'s",
    "'S",
    "'re",
    "'RE",
    "'lL",
    "'m",
    "'d",
    "1",
    "23",
    "4567",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\v",
    "!",
    "?",
    "_",
    "\xC2\xA0",
    "\xC2\x85",
    "\xE2\x80\x83",
    "\xE2\x80\xA8",
    "\xC3\xA9",
    "\xC3\xBC",
    "\xCC\x81",
    "\xC5\xBF",
    "'\xC5\xBF",
    "\xE4\xBD\xA0",
    "\xE1\xA0\x8E",
    "\xD9\xA3",
    "\xC2\xBD",
    "\xE2\x85\xA7",
    "\xF0\x9F\x98\x80",
    "\xE2\x80\x8D",
    "\xE0\xA4\x95",
    "\xE0\xA4\xBF",
    "\x01",
    "\xE2\x80\x99",
    "\xE2\x84\xAA",
    "\xEF\xBB\xBF",
    "x\n",
    " \n ",
    "\xE3\x80\x80",
};
enum { POOL = sizeof pool / sizeof *pool };

static void expect_equal(mn__pattern pattern, const mn__regex *regex, mn__matcher *matcher,
                         const mn__string *text)
{
    int64_t begin, end;
    mn_error error;
    for (int64_t at = 0; at < text->bytes; at = end) {
        assert_int_equal(
            mn__regex_find(regex, matcher, text->text, text->bytes, at, &begin, &end, &error),
            MN_OK);
        assert_int_equal(begin, at);
        int64_t ours = mn__pattern_next(pattern, text->text, text->bytes, at);
        if (ours != end)
            fail_msg("pattern %d, \"%s\" at %d: %d, expected %d", (int)pattern, text->text, (int)at,
                     (int)ours, (int)end);
    }
}

static void patterns_equal_their_expressions(void **state)
{
    (void)state;
    mn__matcher *matcher = mn__matcher_new();
    mn__string text = {0};
    for (mn__pattern p = MN__PATTERN_GPT2; p <= MN__PATTERN_QWEN2; p++) {
        mn__regex *regex;
        assert_int_equal(mn__pattern_of(mn__pattern_text(p)), p);
        assert_int_equal(mn__regex_compile(&regex, mn__pattern_text(p), NULL), MN_OK);
        for (uint64_t round = 0; round < 20000; round++) {
            mn__random_key key = {.seed = 11, .step = round};
            uint64_t length = 1 + mn__random_below(key, 0, 12);
            mn__string_clear(&text);
            for (uint64_t i = 1; i <= length; i++)
                mn__string_puts(&text, pool[mn__random_below(key, i, POOL)]);
            expect_equal(p, regex, matcher, &text);
        }
        mn__regex_free(regex);
    }
    assert_int_equal(mn__pattern_of("\\p{L}+"), MN__PATTERN_NONE);
    mn__matcher_free(matcher);
    mn__string_free(&text);
}

/* Every code point between letters, digits, spaces and commas. Libraries of different Unicode
 * versions differ in what one of them does not know yet: those are few. */
static void patterns_know_every_character(void **state)
{
    (void)state;
    mn__matcher *matcher = mn__matcher_new();
    mn__regex *regex;
    int64_t differ = 0, seen = 0;
    assert_int_equal(mn__regex_compile(&regex, mn__pattern_text(MN__PATTERN_LLAMA3), NULL), MN_OK);
    for (uint32_t code = 1; code < 0x110000; code++) {
        char text[16] = "a1, ";
        if (code >= 0xD800 && code < 0xE000)
            continue;
        int length = 4 + mn__utf8_encode(code, text + 4);
        memcpy(text + length, "a", 2);
        int64_t begin, end, at = 0;
        bool equal = true;
        for (; equal && at <= length; at = end) {
            mn__regex_find(regex, matcher, text, length + 1, at, &begin, &end, NULL);
            equal = end == mn__pattern_next(MN__PATTERN_LLAMA3, text, length + 1, at);
        }
        differ += !equal;
        seen++;
        if (!equal && code < 0x1000)
            fail_msg("U+%04X", code);
    }
    assert_true(seen > 1000000);
    assert_true(differ < 10000);
    mn__regex_free(regex);
    mn__matcher_free(matcher);
}

static int64_t match_length(const char *pattern, const char *text)
{
    mn__matcher *matcher = mn__matcher_new();
    mn__regex *regex;
    int64_t begin, end;
    mn_error error;
    if (mn__regex_compile(&regex, pattern, &error))
        fail_msg("%s", error.message);
    assert_int_equal(
        mn__regex_find(regex, matcher, text, (int64_t)strlen(text), 0, &begin, &end, &error),
        MN_OK);
    mn__regex_free(regex);
    mn__matcher_free(matcher);
    return begin == 0 ? end : -1;
}

static void expressions_mean_what_their_writers_meant(void **state)
{
    (void)state;
    assert_int_equal(match_length("\\s+", " \xC2\x85\xE3\x80\x80x"), 6);
    assert_int_equal(match_length("\\s", "\xE1\xA0\x8E"), -1); /* once a space, in PCRE2 still */
    assert_int_equal(match_length("[^\\s\\p{L}]+", "1\xE1\xA0\x8E x"), 4);
    assert_int_equal(match_length("\\S+", "a\xE1\xA0\x8E x"), 4);
    assert_int_equal(match_length("\\w+", "a_1\xCC\x81\xE2\x92\xB6-"), 8);
    assert_int_equal(match_length("[\\w]+", "e\xCC\x81\xE2\x85\xA7."), 6);
    assert_int_equal(match_length("\\W+", ".-a"), 2);
    assert_int_equal(match_length("[\\[\\]a]+", "[a]b"), 3);
    assert_int_equal(match_length("[]a]+", "]ab"), 2);
    assert_int_equal(match_length("[^]a]+", "xy]"), 2);
    assert_int_equal(match_length("\\[a\\]", "[a]"), 3);
}

static void bad_expressions_are_shown(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        mn_status status;
    } bad[] = {{"(a", MN_ERROR_FORMAT},         {"[a", MN_ERROR_FORMAT},
               {"\\h", MN_ERROR_UNSUPPORTED},   {"[a[b]]", MN_ERROR_UNSUPPORTED},
               {"[\\S]", MN_ERROR_UNSUPPORTED}, {"a**", MN_ERROR_FORMAT}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mn__regex *regex;
        mn_error error;
        mn_status status = mn__regex_compile(&regex, bad[i].pattern, &error);
        if (status == MN_OK) /* a**: some versions take it */
            mn__regex_free(regex);
        else
            assert_non_null(strstr(error.message, bad[i].pattern));
        if (i < 5)
            assert_int_equal(status, bad[i].status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_equal_their_expressions),
        cmocka_unit_test(patterns_know_every_character),
        cmocka_unit_test(expressions_mean_what_their_writers_meant),
        cmocka_unit_test(bad_expressions_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
