/* Batches: B rows of T tokens, cut from a data set in one of two published ways.
 *
 * contiguous (Transformer-XL's LMOrderedIterator): the split's documents form one
 *   stream of N tokens; it is cut into B rows of n = N/B, the remainder trimmed.
 *   A row's segments follow each other; documents' ends are not seen. The input
 *   at n-1 is nobody's: each row yields n-1 targets an epoch, the last segment
 *   may be short. `start` is set only in an epoch's first segment.
 * documents (Memorizing Transformers, Block-Recurrent): each row reads one
 *   document; when it ends, the row takes the next, with `start` set. A
 *   document's first input is the tokenizer's start id, so that each of its
 *   tokens is a target exactly once. The last segment of a document is padded.
 *
 * Crops, overlaps and others fit the same struct: weights say what is scored. */
#ifndef MN__DATA_BATCH_H
#define MN__DATA_BATCH_H

#include "base/arena.h"
#include "data/shards.h"

typedef struct mn__batch {
    int64_t rows, length; /* B, T */
    int32_t *ids;         /* [B][T] inputs; 0 where padded */
    int32_t *targets;     /* [B][T] the next tokens; 0 where padded */
    float *weights;       /* [B][T] 1 where the target is scored, else 0 */
    bool *start;          /* [B] the row begins a document (or the stream): reset state */
    int64_t *valid;       /* [B] positions 0..valid-1 are real; 0: the row is idle */
    int64_t *document;    /* [B] that the first target is in; -1: the row is idle */
    int64_t *position;    /* [B] the first target's index in its document */
} mn__batch;

/* Room for a batch, in an arena, all idle. NULL fields never; MN_ERROR_MEMORY. */
mn_status mn__batch_new(mn__batch *batch, mn__arena *arena, int64_t rows, int64_t length,
                        mn_error *error);

typedef enum mn__batch_style { MN__BATCH_CONTIGUOUS, MN__BATCH_DOCUMENTS } mn__batch_style;

typedef struct mn__batcher_config {
    mn__batch_style style;
    mn__split split;
    const int64_t *documents; /* [document_count] instead of a split, in this order;
                               * copied; NULL: the split's, in the data set's order */
    int64_t document_count;
    int64_t rows, length; /* B of all ranks together, T */
    bool shuffle;         /* another order of documents each epoch */
    uint64_t seed;
    bool once;                  /* one epoch, then the end (evaluation); else for ever */
    int64_t first_row, my_rows; /* this rank's rows; my_rows 0: all */
} mn__batcher_config;

/* Where the batcher stands: part of a checkpoint. `rows` entries. */
typedef struct mn__cursor_row {
    int64_t document; /* contiguous: -1. documents: -1 where it needs the next one */
    int64_t offset;   /* contiguous: into the row; documents: into the document */
} mn__cursor_row;
typedef struct mn__cursor {
    int64_t epoch;   /* from 0 */
    int64_t next;    /* documents: place in the epoch's order that the next row takes */
    int64_t batches; /* yielded so far */
    int64_t tokens;  /* scored so far, all ranks */
    int64_t rows;
    mn__cursor_row *row; /* [rows] */
} mn__cursor;

typedef struct mn__batcher mn__batcher;
/* The data set must outlive it. MN_ERROR_MISMATCH: the split is empty, or a
 * contiguous stream is shorter than 2 tokens a row. */
mn_status mn__batcher_new(mn__batcher **batcher, const mn__dataset *dataset,
                          const mn__batcher_config *config, mn_error *error);
void mn__batcher_free(mn__batcher *batcher); /* NULL is fine */
/* Fills a batch of my_rows x length. *more = false at the end (`once`), with the
 * batch idle. No allocation of ours after the first call of an epoch. */
mn_status mn__batcher_next(mn__batcher *batcher, mn__batch *batch, bool *more, mn_error *error);
/* Back to where a new one stands. */
void mn__batcher_restart(mn__batcher *batcher);
int64_t mn__batcher_epoch_tokens(const mn__batcher *batcher); /* targets of an epoch */

const mn__cursor *mn__batcher_cursor(const mn__batcher *batcher);
/* The cursor as a JSON object, and back: what follows is the same, bit for bit.
 * MN_ERROR_MISMATCH: it was made with other data, rows or style. */
mn_status mn__batcher_save(const mn__batcher *batcher, mn__string *json, mn_error *error);
mn_status mn__batcher_load(mn__batcher *batcher, const char *json, int64_t bytes, mn_error *error);

#endif
