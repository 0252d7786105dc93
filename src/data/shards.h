/* A prepared data set: a folder of ids that is memory-mapped and read in place.
 *
 *   dataset.json      what it is; written last, so a folder with it is whole
 *   tokenizer.*       the tokenizer that made the ids
 *   shard-00000.ids   whole documents' ids, one after another: unsigned integers
 *                     of 1, 2 or 4 bytes (the least that holds V-1), little-endian
 *   shard-00000.json  the documents in it; written after the ids, so that a shard
 *                     with it is finished
 *
 * Not here: how segments are cut from it (batch.h). */
#ifndef MN__DATA_SHARDS_H
#define MN__DATA_SHARDS_H

#include "base/hash.h"
#include "base/progress.h"
#include "data/corpus.h"
#include "text/tokenizer.h"

typedef struct mn__dataset_document {
    const char *name, *title;
    mn__split split;
    int64_t raw_bytes;  /* as stored in the corpus */
    int64_t bytes;      /* after the newline convention: what bits per byte divide by */
    int64_t characters; /* code points */
    int64_t words;      /* split on Unicode white space */
    int64_t tokens;
    mn__hash_text hash; /* of the `bytes` bytes */
} mn__dataset_document;

typedef struct mn__dataset_counts {
    int64_t documents, raw_bytes, bytes, characters, words, tokens;
    int64_t published_words; /* the corpus's own number for this split, 0: none */
} mn__dataset_counts;

typedef struct mn__dataset mn__dataset;
/* MN_ERROR_FORMAT: not whole, truncated, or not of this version. */
mn_status mn__dataset_open(mn__dataset **dataset, const char *folder, mn_error *error);
void mn__dataset_close(mn__dataset *dataset); /* NULL is fine */
/* Reads everything once and compares with the hashes: MN_ERROR_FORMAT names the
 * shard that differs. `progress` may be NULL. */
mn_status mn__dataset_verify(const mn__dataset *dataset, const mn__progress *progress,
                             mn_error *error);

const char *mn__dataset_folder(const mn__dataset *dataset);
/* Owned by the data set. */
const mn__tokenizer *mn__dataset_tokenizer(const mn__dataset *dataset);
mn__newlines mn__dataset_newlines(const mn__dataset *dataset);
int64_t mn__dataset_count(const mn__dataset *dataset); /* documents */
const mn__dataset_document *mn__dataset_at(const mn__dataset *dataset, int64_t document);
/* By name (and split, where several have the name; MN__SPLITS: any); -1: none. */
int64_t mn__dataset_find(const mn__dataset *dataset, const char *name, mn__split split);
mn__dataset_counts mn__dataset_counts_of(const mn__dataset *dataset, mn__split split);
/* Of a split's documents, in order, and of the tokenizer and the newline
 * convention: equal where every token is. MN__SPLITS: of all. */
mn__hash_text mn__dataset_fingerprint(const mn__dataset *dataset, mn__split split);

/* out[0..count) = the ids of one document from `offset`, which must lie inside
 * it. A shard's first use compares its hash: MN_ERROR_FORMAT where it differs, and
 * where an id is not below V. For one thread. */
mn_status mn__dataset_tokens(const mn__dataset *dataset, int64_t document, int64_t offset,
                             int64_t count, int32_t *out, mn_error *error);

#endif
