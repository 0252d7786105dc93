/* The unigram language model: of all ways to cut a piece into tokens, the one whose scores add up
 * to the most (Kudo 2018, equation 1), by Viterbi. */
#ifndef MN__TEXT_UNIGRAM_H
#define MN__TEXT_UNIGRAM_H

#include "base/error.h"
#include "text/ids.h"
#include "text/pairs.h"

/* Start from {0}. */
typedef struct mn__unigram {
    mn__trie tokens; /* values are ids */
    double *scores;  /* [vocab] */
    int64_t vocab, capacity;
    double least;    /* of the scores */
    int32_t unknown; /* for a character that no token covers; or -1 */
    bool byte_fallback;
    int32_t byte_ids[256]; /* of <0xNN>, or -1 */
} mn__unigram;

/* Start from {0}. */
typedef struct mn__unigram_scratch {
    struct mn__unigram_node *nodes; /* [capacity] */
    int64_t capacity;
} mn__unigram_scratch;

/* The next id's token. */
mn_status mn__unigram_add(mn__unigram *unigram, const char *text, int64_t bytes, double score,
                          mn_error *error);
/* Appends the ids of one piece. MN_ERROR_MISMATCH for an unknown character without an unknown id.
 */
mn_status mn__unigram_encode(const mn__unigram *unigram, mn__unigram_scratch *scratch,
                             const char *text, int64_t bytes, mn__ids *ids, mn_error *error);
void mn__unigram_free(mn__unigram *unigram);
void mn__unigram_scratch_free(mn__unigram_scratch *scratch);

#endif
