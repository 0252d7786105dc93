/* The three regular expressions that most byte-level vocabularies cut text with, by hand: tens of
 * times faster than a regular expression, and equal to it (tests/unit/test_pattern.c). */
#ifndef MN__TEXT_PATTERN_H
#define MN__TEXT_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

typedef enum mn__pattern {
    MN__PATTERN_NONE,
    MN__PATTERN_GPT2,
    MN__PATTERN_LLAMA3, /* GLM-4's too: digits by up to three */
    MN__PATTERN_QWEN2,  /* each digit alone */
} mn__pattern;

/* The expression itself; NULL for none. */
const char *mn__pattern_text(mn__pattern pattern);
/* Which of them an expression is, letter by letter. */
mn__pattern mn__pattern_of(const char *regex);
/* Where the match that begins at text[at] ends; at < bytes. The text is valid UTF-8, of which
 * each character is in some match. */
int64_t mn__pattern_next(mn__pattern pattern, const char *text, int64_t bytes, int64_t at);

#endif
