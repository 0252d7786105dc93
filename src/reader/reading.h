/* A reading: a session of one text that knows its tokens. It can be told what the text is to
 * be (`sync`): it reads on, goes back, or begins anew by itself.
 *
 * What a text's state is depends, in the last bits, on how it was cut into segments. So a
 * reading keeps where its segments ended, and reads again, after going back, in the same
 * segments: going back to any token equals, bit for bit, never having read further.
 *
 * To go back, marks are kept: where segments ended, the last hidden state and what does not
 * grow of the attention state (attention/state.h). A mark of `full` attention is some numbers,
 * one of a window or a memory is a copy of it; within a budget of bytes, the older ones are
 * thinned out. From the last mark before a place the rest is read again. */
#ifndef MN__READER_READING_H
#define MN__READER_READING_H

#include "base/progress.h"
#include "reader/session.h"
#include "text/ids.h"

typedef struct mn__reading_options {
    int64_t capacity; /* most tokens, for caches without a bound */
    int64_t chunk;    /* most tokens of a forward pass; segments end at its multiples */
    int64_t budget;   /* bytes of marks; 0: 256 MiB */
    mn__dtype compute;
} mn__reading_options;

typedef struct mn__mark mn__mark;

typedef struct mn__reading {
    mn__session session;
    mn__reading_options options;
    mn__ids ids;   /* read so far */
    int64_t *ends; /* [end_count]: where segments ended, rising; the last is ids.count */
    int64_t end_count, end_capacity;
    mn__mark *newest; /* a list from the newest back to the oldest */
    int64_t marks, mark_bytes;
    int64_t stride; /* tokens between marks, where each is a copy; it doubles */
} mn__reading;

/* The decoder and its params outlive it. */
mn_status mn__reading_open(mn__reading *reading, mn__decoder *decoder, mn__params *params,
                           const mn__reading_options *options, mn_error *error);
void mn__reading_close(mn__reading *reading);

/* What a call did. */
typedef enum mn__synced {
    MN__EXTENDED, /* all of the old text was the new one's beginning */
    MN__REWOUND,  /* it went back to a mark */
    MN__REBUILT,  /* there was no mark to go back to: read from the start */
} mn__synced;
typedef struct mn__sync {
    mn__synced how;
    int64_t reused;  /* tokens whose state was there */
    int64_t read;    /* tokens that were read, some of them again */
    int64_t dropped; /* tokens of the old text that the new one has not */
} mn__sync;

/* Makes the text that was read ids[0..count). Reports `what` to progress (may be NULL) after
 * each chunk. MN_ERROR_INTERRUPTED: it said stop; what was read so far stays, and the same
 * call goes on. MN_ERROR_MISMATCH: longer than the capacity; then nothing was done. Other
 * errors leave what was read whole, or nothing. sync may be NULL. */
mn_status mn__reading_sync(mn__reading *reading, const int32_t *ids, int64_t count,
                           const char *what, const mn__progress *progress, mn__sync *sync,
                           mn_error *error);
/* More of the text. */
mn_status mn__reading_add(mn__reading *reading, const int32_t *ids, int64_t count, mn_error *error);
/* The same, with logits [row_count, V] of the tokens after ids[rows[i]]; rows rise. Where memory
 * for logits is short, the text may have been read. */
mn_status mn__reading_add_logits(mn__reading *reading, const int32_t *ids, int64_t count,
                                 const int64_t *rows, int64_t row_count, float *logits,
                                 mn_error *error);
/* Back to the first `count` tokens. */
mn_status mn__reading_rewind(mn__reading *reading, int64_t count, mn__sync *sync, mn_error *error);
/* Makes the capacity large enough for so many tokens more; what was read is there twice while it
 * does. */
mn_status mn__reading_reserve(mn__reading *reading, int64_t tokens, mn_error *error);
/* Logits [V] of the token after the last; NULL on failure. */
const float *mn__reading_logits(mn__reading *reading, mn_error *error);
/* Another reading (not open yet) of the same text, that goes its own way. */
mn_status mn__reading_fork(mn__reading *fork, const mn__reading *reading, mn_error *error);

/* ---- Files (reading_file.c) ------------------------------------------------------------- */

/* Saves it with more metadata: key, value, ..., NULL. See mn__session_save. */
mn_status mn__reading_save(const mn__reading *reading, const char *path, const char *fingerprint,
                           const char *const *metadata, mn_error *error);
/* Loads it, without reading anything again; an error leaves it empty. */
mn_status mn__reading_load(mn__reading *reading, const char *path, const char *fingerprint,
                           mn_error *error);
/* The same of an open file, whose format mn__session_file_open has checked. */
mn_status mn__reading_take(mn__reading *reading, const mn__safetensors *file, const char *path,
                           const char *fingerprint, mn_error *error);
/* Tokens that a file holds; -1: it holds no reading. */
int64_t mn__reading_file_tokens(const mn__safetensors *file);

/* For reading_file.c. */
void mn__reading_clear(mn__reading *reading);
mn_status mn__reading_ended(mn__reading *reading, int64_t end, mn_error *error);
/* Whether there is a mark at the present place now. */
bool mn__reading_mark(mn__reading *reading);

#endif
