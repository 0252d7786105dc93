/* A session: a model, a state for each of its rows (one document's stream each)
 * and a reader that feeds them segment by segment.
 *
 * All rows are read together and stand at the same place of the model's segment
 * grid; a row that begins a document stands at its start. Not here: scoring
 * books (eval/perplexity.h), choosing tokens (eval/sample.h). */
#ifndef MN__READER_SESSION_H
#define MN__READER_SESSION_H

#include "model/decoder.h"

typedef struct mn__session_options {
    int64_t rows;
    int64_t capacity; /* most tokens of a document, for caches without a bound */
    int64_t chunk;    /* most tokens of a forward pass; cut down to the grid; 0: 512 */
    mn__dtype compute;
    const mn__watch *watch; /* is shown what layers do (attention.h), and lives on; or NULL */
} mn__session_options;

typedef struct mn__session {
    mn__decoder *decoder;
    mn__params *params;
    mn__session_options options;
    mn__tape tape;
    mn__states states;
    int64_t grid;
    float *hidden; /* [rows, C]: after each row's last token; what logits are made of */
    float *logits; /* [rows, V] */
    bool torn;     /* a segment was remembered by some layers only: see mn__session_read */
    mn__arena arena;
} mn__session;

/* The decoder and its params outlive the session. */
mn_status mn__session_open(mn__session *session, mn__decoder *decoder, mn__params *params,
                           const mn__session_options *options, mn_error *error);
void mn__session_close(mn__session *session);

/* One stretch of every row's text: T tokens a row, of which valid[b] are real.
 * weights, targets and losses (all [rows, T]) go together; NULL: nothing is
 * scored. losses receives the nats of targets with a weight, 0 for the others. hidden
 * (NULL: nobody wants it) receives what logits are made of, where tokens are real. */
typedef struct mn__stretch {
    int64_t T;
    const int32_t *ids;   /* [rows, T] */
    const bool *start;    /* [rows]: begins a document; NULL: none does */
    const int64_t *valid; /* [rows]; NULL: T */
    const int32_t *targets;
    const float *weights;
    float *losses;
    float *hidden; /* [rows, T, C] */
} mn__stretch;

/* Reads on. After a failure the session stands where the last whole segment
 * ended (states.position says where; a row that was to begin a document stands
 * at its start), and the rest can be read again. Only where memory runs out
 * while a segment is being remembered is there no such place: then nothing but
 * a reset or a load goes on. MN_ERROR_MISMATCH: rows at different places of the
 * grid, a document longer than the capacity. MN_ERROR_MEMORY: of a kernel, too:
 * no loss that it may have spoilt is handed on. */
mn_status mn__session_read(mn__session *session, const mn__stretch *stretch, mn_error *error);
/* Logits [rows, V] for the token after the last one read, valid to the next
 * call; those of a row that has read nothing of its document mean nothing. NULL
 * where no row has (MN_ERROR_USAGE), or memory is short. */
const float *mn__session_logits(mn__session *session, mn_error *error);
/* Logits [count, V] of hidden [count, C], a stretch's. */
mn_status mn__session_head(mn__session *session, const float *hidden, int64_t count, float *logits,
                           mn_error *error);
/* MN_ERROR_MEMORY where it is torn. */
mn_status mn__session_check(const mn__session *session, mn_error *error);
/* Forgets everything: all rows begin a document. */
void mn__session_reset(mn__session *session);

/* The whole state in one safetensors file (reader/session_file.h), with the weights'
 * fingerprint and a hash of all options: a load in a new process goes on bit for bit.
 * MN_ERROR_MISMATCH: another model, other options, another precision. A load
 * that fails leaves the session reset. */
mn_status mn__session_save(const mn__session *session, const char *path, const char *fingerprint,
                           mn_error *error);
mn_status mn__session_load(mn__session *session, const char *path, const char *fingerprint,
                           mn_error *error);

#endif
