/* Regular expressions of tokenizers, by PCRE2: UTF-8, Unicode properties, compiled to machine
 * code where that can be had.
 *
 * The expressions are written for Oniguruma, fancy-regex or Python's `regex`. Where PCRE2 means
 * something else, the expression is rewritten: \s is the property White_Space alone, \w are
 * letters, marks, decimal digits and connectors. What cannot be rewritten is refused. */
#ifndef MN__TEXT_REGEX_H
#define MN__TEXT_REGEX_H

#include <stdbool.h>

#include "base/error.h"

typedef struct mn__regex mn__regex;
/* What a match needs to write to; one for each thread, for any expression. */
typedef struct mn__matcher mn__matcher;

/* MN_ERROR_FORMAT for an expression that is none; the message shows it. */
mn_status mn__regex_compile(mn__regex **regex, const char *pattern, mn_error *error);
void mn__regex_free(mn__regex *regex); /* NULL is fine */

mn__matcher *mn__matcher_new(void); /* NULL when memory is short */
void mn__matcher_free(mn__matcher *matcher);

/* The first match in text[from..bytes), which sees what stands before: *begin = -1 where there is
 * none. text is valid UTF-8. MN_ERROR_UNSUPPORTED where the expression takes too long. */
mn_status mn__regex_find(const mn__regex *regex, mn__matcher *matcher, const char *text,
                         int64_t bytes, int64_t from, int64_t *begin, int64_t *end,
                         mn_error *error);

#endif
