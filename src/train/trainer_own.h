/* The trainer's own struct, shared by its two files. */
#ifndef MN__TRAIN_TRAINER_OWN_H
#define MN__TRAIN_TRAINER_OWN_H

#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/plan.h"
#include "train/trainer.h"
#include "train/validate.h"

struct mn__trainer {
    mn__recipe recipe;
    mn__arena arena;
    const char *folder, *recipe_path, *last_path, *best_path;
    mn__device device;
    mn__dataset *dataset;
    mn__plan plan;
    mn__learner learner;
    mn__validator validator;
    mn__batcher *batcher;
    mn__metrics metrics;
    mn__counters counters;
    int64_t saved_step;
    bool checkpoint_due;
    /* Since the last line of metrics; since this process began. */
    double interval_seconds;
    int64_t interval_steps, interval_tokens;
    int64_t first_step, first_tokens;
    double first_seconds;
    double loss, tokens_per_second, share_of_peak;
    double bits_per_nat[MN__SPLITS]; /* of a token to bits of a byte; 0: not known */
};

#endif
