/* Recipes: one YAML file that says all of a run. Its sections, each read by one
 * option table:
 *
 *   model       model/decoder.h         optimizer   optim/optimizer.h
 *   attention   the type's own table    schedule    optim/schedule.h
 *   data        below, and prepare.h    train       below
 *
 * A recipe read is complete: every option stands in its tree with its value, so
 * that what is written into the run folder no longer depends on defaults. */
#ifndef MN__TRAIN_RECIPE_H
#define MN__TRAIN_RECIPE_H

#include "base/options.h"
#include "data/batch.h"
#include "data/prepare.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

typedef enum mn__reset { MN__RESET_DOCUMENT, MN__RESET_SEGMENT } mn__reset;

/* `data:`, beside prepare's options (but `data` and `out`). */
typedef struct mn__data_options {
    mn__string_list corpus; /* prepare's `data` */
    const char *prepared;   /* the prepared data set's folder; "": data/ in the run's */
    int style;              /* mn__batch_style */
    int reset;              /* mn__reset */
    bool shuffle;
    int64_t batch, segment; /* B, T */
} mn__data_options;
extern const mn__option mn__data_option_table[];

/* prepare's options that stand in `data:` too: all but `data` and `out`, which a
 * recipe says in its own words. */
enum { MN__PREPARE_OPTIONS_MAX = 64 };
void mn__recipe_prepare_table(mn__option table[MN__PREPARE_OPTIONS_MAX + 1]);

typedef enum mn__precision {
    MN__PRECISION_AUTO,
    MN__PRECISION_F32,
    MN__PRECISION_BF16
} mn__precision;
typedef enum mn__non_finite { MN__NON_FINITE_STOP, MN__NON_FINITE_SKIP } mn__non_finite;

/* `train:`. A step is forward and backward of `batch` rows of `unroll` segments. */
typedef struct mn__train_options {
    int64_t steps, seed, threads;
    int64_t accumulate; /* the rows are done in so many parts */
    int64_t update_every, update_every_from;
    int64_t unroll;
    double clip, z_loss;
    int precision;  /* mn__precision */
    int non_finite; /* mn__non_finite */
    int64_t log_every, validate_every, checkpoint_every;
    int64_t validation_batch, validation_tokens;
    bool allow_new;
} mn__train_options;
extern const mn__option mn__train_option_table[];

typedef struct mn__recipe {
    mn__arena arena;
    const char *path;
    mn__yaml_node *root;
    mn__data_options data;
    mn__prepare_config prepare; /* `data` set from data.corpus; `out` is the caller's */
    mn__optimizer_options optimizer;
    mn__schedule_options schedule; /* `steps` is never 0 here */
    mn__train_options train;
} mn__recipe;

/* Reads a recipe, applies overrides ("a.b=c"), checks it and completes it.
 * Unknown and ill-typed keys, and options that contradict each other, are
 * MN_ERROR_OPTION. To be freed in any case. */
mn_status mn__recipe_read(mn__recipe *recipe, const char *path, const char *const *overrides,
                          int64_t override_count, mn_error *error);
void mn__recipe_free(mn__recipe *recipe);

/* Settles what the recipe left to the machine (train.precision: auto). */
mn_status mn__recipe_set_precision(mn__recipe *recipe, mn__precision precision, mn_error *error);
/* The complete recipe as YAML. */
mn_status mn__recipe_text(const mn__recipe *recipe, mn__string *text, mn_error *error);

#endif
