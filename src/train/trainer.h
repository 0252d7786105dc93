/* The trainer: a recipe in, a run folder (model/run.h) out.
 *
 * Same recipe, build, libraries, CPU level and thread count: same bits; a run
 * that was killed and resumed ends as one that was not, timings apart. */
#ifndef MN__TRAIN_TRAINER_H
#define MN__TRAIN_TRAINER_H

#include "base/progress.h"
#include "base/string.h"
#include "train/plan.h"

typedef struct mn__train_call {
    const char *recipe;           /* a file; with resume also the run's folder */
    const char *folder;           /* the run's */
    const char *const *overrides; /* "a.b=c" each */
    int64_t override_count;
    const char *from; /* weights to start from: a run's folder or a file; or NULL */
    bool resume;      /* go on from the last checkpoint, if there is one */
    int threads;      /* 0: as the recipe says */
    bool unmeasured;  /* the machine's peak is not measured, nor shares of it given */
} mn__train_call;

typedef struct mn__train_result {
    int64_t step, tokens;
    double loss; /* of the last steps logged, nats a token */
    double best; /* validation, nats a token; infinite: none was made */
    int64_t best_step;
    double bits_per_nat; /* bits per byte for a nat per token, to validate on; 0: not known */
    double seconds;      /* of training, over all resumes */
    mn__plan plan;
} mn__train_result;

/* Progress is reported at every step; its stop ends the training with a
 * checkpoint and MN_ERROR_INTERRUPTED. `progress` and `result` may be NULL.
 *
 * A folder with a checkpoint is only written to with `resume`: else it is
 * MN_ERROR_USAGE. A recipe file that differs from the run's own is
 * MN_ERROR_MISMATCH: give the folder instead, and changes as overrides. What
 * will not fit is MN_ERROR_MEMORY before the first step; a loss or gradient that
 * is not finite MN_ERROR_NUMBER, where the recipe does not skip it. */
mn_status mn__train(const mn__train_call *call, const mn__progress *progress,
                    mn__train_result *result, mn_error *error);

/* ---- Its parts, for who looks at single steps ------------------------------------- */

typedef struct mn__trainer mn__trainer;
mn_status mn__trainer_open(mn__trainer **trainer, const mn__train_call *call,
                           const mn__progress *progress, mn_error *error);
/* Steps until `step` or the recipe's end; what is due on the way is done. */
mn_status mn__trainer_run(mn__trainer *trainer, int64_t step, const mn__progress *progress,
                          mn_error *error);
void mn__trainer_result(const mn__trainer *trainer, mn__train_result *result);
void mn__trainer_close(mn__trainer *trainer); /* NULL is fine */

#endif
