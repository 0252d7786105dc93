/* Scoring: documents are read by a model, and each of their tokens gets its nats,
 * -ln p(token | what was read before), exactly once, in one of three ways:
 *
 *   carried  documents are read segment by segment, a row each, and the state is
 *            carried from a document's start to its end
 *   cleared  the same segments, but each begins with an empty state: what the
 *            model knows without its memory
 *   window   a window of W tokens slides over the document by S: each begins
 *            anew, and its last S tokens are scored (the first one's: all)
 *
 * A document's first input is what stands before every text, or else the tokenizer's
 * start id, so that its first token is scored too. Not here: what is made of the nats
 * (perplexity.h). */
#ifndef MN__EVAL_SCORE_H
#define MN__EVAL_SCORE_H

#include "base/progress.h"
#include "data/batch.h"
#include "reader/session.h"

typedef enum mn__way { MN__WAY_CARRIED, MN__WAY_CLEARED, MN__WAY_WINDOW } mn__way;
const char *mn__way_name(mn__way way);

typedef struct mn__score_config {
    mn__way way;
    int64_t segment;          /* carried, cleared: see mn__score_length */
    int64_t window, stride;   /* window: W >= S >= 1 */
    int64_t rows;             /* read side by side, at most */
    const int64_t *documents; /* [count], of the data set */
    int64_t count;
    const mn__ids *before; /* what stands before every text (model/run.h); NULL or empty: the
                            * tokenizer's start */
    int64_t limit;         /* only the first tokens of each document; 0: all */
    mn__dtype compute;
    const mn__watch *watch; /* see attention/attention.h; NULL: nobody does */
} mn__score_config;

/* What scoring hands on. A failing call ends it. */
typedef struct mn__score_sink {
    /* The next tokens of a document, in order: their ids and nats. Documents
     * take turns. */
    mn_status (*tokens)(void *user, int64_t document, int64_t position, int64_t count,
                        const int32_t *ids, const float *nats, mn_error *error);
    /* All tokens of this document have been handed on. */
    mn_status (*end)(void *user, int64_t document, mn_error *error);
    void *user;
} mn__score_sink;

/* The tokens that a row is given at once: the window; or, so that rows always
 * meet on the model's grid, config->segment in whole steps of it, at least one. */
int64_t mn__score_length(const mn__score_config *config, const mn__decoder *decoder);

/* MN_ERROR_NUMBER: a loss is not finite; MN_ERROR_INTERRUPTED: progress said stop. */
mn_status mn__score(mn__decoder *decoder, mn__params *params, const mn__dataset *dataset,
                    const mn__score_config *config, const mn__score_sink *sink,
                    const mn__progress *progress, mn_error *error);

#endif
