/* What the nats of tokens add up to.
 *
 *   bits per byte        nats / ln 2 / bytes        (of the text after the data
 *   bits per character   nats / ln 2 / characters    set's newline convention)
 *   token perplexity     exp(nats / tokens)
 *   word perplexity      exp(nats / words)
 *
 * The last is PG-19's published metric: all nats of the split over its words,
 * never an average over books. Each sum is over tokens that were all scored
 * exactly once. */
#ifndef MN__EVAL_PERPLEXITY_H
#define MN__EVAL_PERPLEXITY_H

#include <stdint.h>

/* Tokens and the sum of their nats. */
typedef struct mn__tally {
    int64_t tokens;
    double nats;
} mn__tally;

double mn__perplexity(double nats, int64_t units); /* exp(nats / units) */
double mn__bits_per(double nats, int64_t units);   /* nats / ln 2 / units */

/* Positions in a document, in ranges that grow with them: 0, 1, 2, 3, 4-5, 6-7,
 * 8-11, 12-15, 16-23, ...: two ranges for each doubling. */
enum { MN__POSITION_RANGES = 2 * 62 };
int mn__position_range(int64_t position);
int64_t mn__position_first(int range); /* its first position; the next one's ends it */

#endif
