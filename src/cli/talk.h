/* What verbs that answer questions share: how answers are chosen, and printing them. */
#ifndef MN__CLI_TALK_H
#define MN__CLI_TALK_H

#include "cli/cli.h"
#include "eval/conversation.h"

/* Put first into a verb's struct; mn__talk_options is over it. */
typedef struct mn__talk {
    int64_t threads, tokens;
    double temperature;
    int64_t top_k;
    double top_p, min_p;
    mn__string_list stop;
    int64_t seed;
} mn__talk;
extern const mn__option mn__talk_options[];

/* An answer as it comes: to standard output, or into `text`. */
typedef struct mn__talk_out {
    mn__string *text; /* NULL: standard output */
    int64_t bytes;
} mn__talk_out;

/* Tokens that a question and its answer will hardly be more than: it is memory to begin with. */
int64_t mn__talk_room(const mn__talk *talk, const char *question);

/* Says on standard error where a text was not read to its end. */
void mn__talk_warn(const mn__conversation *conversation);

/* Asks, and prints the answer. */
mn_status mn__talk_ask(const mn__talk *talk, mn__conversation *conversation, const char *question,
                       mn__talk_out *out, mn__answer *answer, mn_error *error);
/* "reused 12,345 tokens, read 23, dropped 0; answered with 45 (12.3 tokens/s)" to standard
 * error. */
void mn__talk_report(const mn__answer *answer);

#endif
