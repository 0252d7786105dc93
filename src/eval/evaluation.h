/* An evaluation: a run reads documents of a data set in one way, and what came
 * of each document is kept in RUN/eval/<way>-<hash>.json, so that it can be
 * interrupted, gone on with, and read by the report. Of a model that is one file,
 * as GGUF is, that folder is FILE.eval, beside it.
 *
 * The hash is of all that a figure depends on: the weights, the text and the
 * tokenizer, the options of the model and its attention as they were resolved,
 * the way and its lengths, the precision, the version, the build and the CPU
 * level. It also says the model's form, causal or looking ahead. */
#ifndef MN__EVAL_EVALUATION_H
#define MN__EVAL_EVALUATION_H

#include <jansson.h>

#include "eval/perplexity.h"
#include "eval/score.h"
#include "model/run.h"

typedef struct mn__document_result {
    bool wanted, done;
    mn__tally all, range[MN__POSITION_RANGES];
} mn__document_result;

typedef struct mn__evaluation {
    mn__run *run;
    const mn__dataset *dataset;
    mn__split split; /* MN__SPLITS: all */
    mn__score_config config;
    mn__arena arena;
    json_t *identity;             /* what the figures depend on */
    const char *folder;           /* of files of results */
    char *path;                   /* of this one's */
    mn__document_result *results; /* [documents of the data set] */
    mn__document_result *scoring; /* the same of those that are being read */
    bool again;                   /* what is known is scored, too */
    int64_t wanted, reused;       /* documents; of these known from the file */
    bool all;                     /* every document of the split is wanted */
    double saved;                 /* when, on the clock */
    /* Tokens as they are scored, in a document's order; or NULL. */
    mn_status (*watch)(void *user, int64_t document, int64_t position, int64_t count,
                       const int32_t *ids, const float *nats, mn_error *error);
    void *watch_user;
} mn__evaluation;

/* Prepares it: config's documents and count are chosen here: the split's, or
 * those of `names` (count 0: all). MN_ERROR_MISMATCH: the data set's tokenizer is
 * not the run's, or what is read with one state, a document, a segment or a window, is
 * longer than the model's window (reader/limit.h); MN_ERROR_USAGE: no such document. A file of
 * results of another form is MN_ERROR_FORMAT. */
mn_status mn__evaluation_open(mn__evaluation *evaluation, mn__run *run, const mn__dataset *dataset,
                              mn__split split, const mn__score_config *config,
                              const char *const *names, int64_t name_count, mn_error *error);
/* Scores what is not known yet. Finished documents are saved at most every few
 * seconds, when it ends and when it is interrupted. */
mn_status mn__evaluation_run(mn__evaluation *evaluation, const mn__progress *progress,
                             mn_error *error);
/* All documents wanted will be scored, known or not; what is known of one stays
 * until its new result is whole. */
void mn__evaluation_repeat(mn__evaluation *evaluation);
void mn__evaluation_close(mn__evaluation *evaluation);

/* All figures: identity, "lossless" (of the tokenizer; where false, the tokens do
 * not hold every byte and there are no bits per byte or character), totals,
 * "positions" and "documents", arrays of objects. NULL when memory is short. */
json_t *mn__evaluation_json(const mn__evaluation *evaluation);
/* Reads a file of results, of this run or another: MN_ERROR_FORMAT where it is not
 * what was written. */
mn_status mn__results_read(const char *path, json_t **file, mn_error *error);
/* The folder that a run's evaluations are kept in, which may not be there yet; NULL when memory
 * is short. */
const char *mn__results_folder(const mn__run *run, mn__arena *arena);
/* What its `check` says: the hash of all the rest; "" when memory is short. */
mn__hash_text mn__results_check(const json_t *file);
/* The precision of a run's recipe. */
mn_status mn__run_compute(const mn__run *run, mn__dtype *compute, mn_error *error);

#endif
