/* Validation: a split read from its start with a state of its own. */
#ifndef MN__TRAIN_VALIDATE_H
#define MN__TRAIN_VALIDATE_H

#include "base/progress.h"
#include "train/learner.h"

typedef struct mn__validator {
    const mn__recipe *recipe;
    mn__arena arena;
    mn__batcher *batcher;
    mn__batch batch;
    mn__states states;
    bool *start;   /* [B] */
    float *losses; /* [B][T] */
} mn__validator;

/* A split too short for one batch's rows is MN_ERROR_MISMATCH. */
mn_status mn__validator_open(mn__validator *validator, const mn__recipe *recipe,
                             const mn__dataset *dataset, const mn__learner *learner,
                             mn_error *error);
void mn__validator_close(mn__validator *validator);

/* Reads the validation split, or train.validation_tokens of it, through the
 * learner's model and tape. MN_ERROR_INTERRUPTED: progress said stop. */
mn_status mn__validate(mn__validator *validator, mn__learner *learner, const mn__progress *progress,
                       mn__step *done, mn_error *error);

#endif
