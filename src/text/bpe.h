/* Byte-pair encoding: a piece starts as its characters (or bytes), and the adjacent pair of lowest
 * rank is merged, the leftmost of equal ones, until no pair is left that merges. */
#ifndef MN__TEXT_BPE_H
#define MN__TEXT_BPE_H

#include "base/error.h"
#include "text/ids.h"
#include "text/pairs.h"
#include "text/vocabulary.h"

/* Start from mn__bpe_init. */
typedef struct mn__bpe {
    mn__vocabulary tokens; /* the tokens' bytes; `count` is the id */
    mn__pairs merges;      /* of ids: rank, and the id of both joined */
    int32_t byte_ids[256]; /* byte-level: of each byte; else of <0xNN>; or -1 */
    int32_t unknown;       /* or -1: characters that are no tokens vanish */
    bool byte_level;       /* starts from bytes instead of characters */
    bool byte_fallback;    /* a character that is no token is its bytes' <0xNN> */
    bool fuse_unknown;     /* neighbours that are unknown are one */
    bool whole_words;      /* a piece that is a token is that token, merges or not */
} mn__bpe;

/* What encoding writes to; one for each thread. Start from {0}. */
typedef struct mn__bpe_scratch {
    mn__ids symbols;
    struct mn__bpe_link *links; /* [capacity] */
    struct mn__bpe_entry *heap; /* [3 capacity] */
    int64_t capacity;
} mn__bpe_scratch;

void mn__bpe_init(mn__bpe *bpe);
void mn__bpe_free(mn__bpe *bpe);
/* One whose text is there already is MN_ERROR_FORMAT. */
mn_status mn__bpe_add_token(mn__bpe *bpe, const char *text, int64_t bytes, int32_t id,
                            mn_error *error);
/* The id of a token's text, or -1. */
int32_t mn__bpe_find(const mn__bpe *bpe, const char *text, int64_t bytes);
/* Joins two tokens to a third, the join of their texts, which must be a token too; of a pair given
 * twice, the last holds. MN_ERROR_FORMAT where one is missing. */
mn_status mn__bpe_add_merge(mn__bpe *bpe, const char *left, int64_t left_bytes, const char *right,
                            int64_t right_bytes, int32_t rank, mn_error *error);
/* Every pair of tokens that join to this one merges, at this rank. */
mn_status mn__bpe_add_splits(mn__bpe *bpe, const char *text, int64_t bytes, int32_t rank,
                             mn_error *error);

/* Appends the ids of one piece. */
mn_status mn__bpe_encode(const mn__bpe *bpe, mn__bpe_scratch *scratch, const char *text,
                         int64_t bytes, mn__ids *ids, mn_error *error);
/* Merges symbols[0..count) in place; how many are left, or -1 when memory is short. Two programs:
 * for few symbols by looking at all pairs, for many by a queue. The first is the definition. */
int64_t mn__bpe_merge_few(const mn__bpe *bpe, int32_t *symbols, int64_t count);
int64_t mn__bpe_merge_many(const mn__bpe *bpe, mn__bpe_scratch *scratch, int32_t *symbols,
                           int64_t count);
void mn__bpe_scratch_free(mn__bpe_scratch *scratch);

#endif
