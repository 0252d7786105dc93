/* Tokens that are found in a text as they are, before it is cut: special ones, and others that
 * were added to a vocabulary. At each place the longest is taken. */
#ifndef MN__TEXT_ADDED_TOKENS_H
#define MN__TEXT_ADDED_TOKENS_H

#include "base/error.h"
#include "base/string.h"
#include "text/pairs.h"

typedef struct mn__added_token {
    int32_t id;
    bool single_word;    /* only where no letter or digit is beside it */
    bool lstrip, rstrip; /* takes the white space before, behind it */
} mn__added_token;

/* Start from {0}. */
typedef struct mn__added_tokens {
    mn__trie trie;         /* values are places in `list` */
    mn__added_token *list; /* [count] */
    int64_t count, capacity;
    bool first[256]; /* bytes with which some token begins */
    int first_byte;  /* if it is one alone; else -1 */
    bool plain;      /* none of them has a flag or a line's end in it */
} mn__added_tokens;

mn_status mn__added_tokens_add(mn__added_tokens *tokens, const char *text, int64_t bytes,
                               mn__added_token token, mn_error *error);
/* The next one in text[from..bytes), valid UTF-8: its place with the white space it takes, and
 * where to look on. NULL where there is none. `done`: what is before this place was given out. */
const mn__added_token *mn__added_tokens_next(const mn__added_tokens *tokens, const char *text,
                                             int64_t bytes, int64_t from, int64_t done,
                                             int64_t *begin, int64_t *end, int64_t *next);
void mn__added_tokens_free(mn__added_tokens *tokens);

#endif
