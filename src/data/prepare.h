/* prepare: corpora and a tokenizer in, a data set (shards.h) out. Streaming:
 * memory does not grow with the text. Restartable: finished shards of an
 * interrupted run with the same settings are kept. */
#ifndef MN__DATA_PREPARE_H
#define MN__DATA_PREPARE_H

#include "base/options.h"
#include "base/progress.h"
#include "data/shards.h"

typedef struct mn__prepare_config {
    mn__string_list data;    /* [TYPE=]PATH[@SPLIT] (corpus.h) */
    const char *out;         /* the data set's folder */
    const char *tokenizer;   /* bytes, characters, words, sentencepiece (with
                              * train_vocab), or a path: a folder or a .model file */
    int64_t train_vocab;     /* > 0: train SentencePiece with so many ids */
    int train_model;         /* 0 bpe, 1 unigram */
    int64_t train_bytes;     /* from an even sample of lines of so many bytes */
    int train_on;            /* 0 train: learn from that split; 1 all */
    int newlines;            /* mn__newlines */
    double validation, test; /* shares for corpora without splits of their own */
    bool one;                /* a folder is one document */
    int64_t shard_tokens;    /* a shard ends with the document that reaches this */
} mn__prepare_config;

extern const mn__option mn__prepare_options[];

/* What was done. */
typedef struct mn__prepare_result {
    bool already_whole;  /* the folder held this data set; nothing was done */
    int64_t kept_shards; /* of an interrupted run */
    int64_t empty_documents;
} mn__prepare_result;

/* `progress` and `result` may be NULL. MN_ERROR_MISMATCH: the folder holds a data
 * set made with other settings or from files that have changed since;
 * MN_ERROR_INTERRUPTED: progress said stop (run again to go on). */
mn_status mn__prepare(const mn__prepare_config *config, const mn__progress *progress,
                      mn__prepare_result *result, mn_error *error);

#endif
