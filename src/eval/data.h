/* What a run is evaluated on: its own data, a prepared data set, or a text, which
 * is then prepared with the run's tokenizer into RUN/eval/data-<hash> (of a model that is
 * one file: FILE.eval/data-<hash>). */
#ifndef MN__EVAL_DATA_H
#define MN__EVAL_DATA_H

#include "base/progress.h"
#include "data/shards.h"
#include "model/run.h"

/* name: "" for the run's own, DATASET[@SPLIT], or a corpus as in data/corpus.h.
 * split: "" for the test split, else the validation split, else all, whichever
 * has documents first; or a split's name; or "all". */
mn_status mn__evaluation_data(const mn__run *run, const char *name, const char *split,
                              const mn__progress *progress, mn__dataset **dataset,
                              mn__split *chosen, mn_error *error);

#endif
