/* Small trainings for tests: a text, a recipe, runs, and their comparison. */
#ifndef TESTS_SUPPORT_TRAINING_H
#define TESTS_SUPPORT_TRAINING_H

#include "train/trainer.h"

/* Writes <folder>/text.txt and <folder>/recipe.yaml: a Transformer-XL of two
 * layers on bytes, 16 steps. */
void training_make(const char *folder);

/* How to train; all but the folder may be left 0. */
typedef struct training {
    const char *folder, *run;     /* the run is <folder>/<run> */
    const char *recipe;           /* NULL: <folder>/recipe.yaml */
    const char *const *overrides; /* NULL-ended */
    const char *from;
    bool resume;
    int64_t stop_after; /* > 0: progress says stop at this step */
    long pause;         /* microseconds between steps */
} training;

mn_status training_run(const training *how, mn__train_result *result, mn_error *error);
/* The same; fails the test where it does not end well. */
mn__train_result training_good(const training *how);
/* For single steps. The caller closes it. */
mn__trainer *training_open(const training *how);

/* Fails the test where two runs of <folder> differ in any weight, buffer, moment,
 * state, counter or metric, timings apart. */
void training_compare(const char *folder, const char *a, const char *b);
/* How many lines of a run's metrics are of a kind. */
int training_count(const char *folder, const char *run, const char *kind);
/* A number of the last line of a kind; fails the test where there is none. */
double training_last(const char *folder, const char *run, const char *kind, const char *name);

#endif
