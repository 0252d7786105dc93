/* Sums of the losses beside the task's, by name: "z_loss" and what attention
 * types add (mn__attention_type's `auxiliary`). */
#ifndef MN__TRAIN_NAMED_LOSSES_H
#define MN__TRAIN_NAMED_LOSSES_H

#include "attention/attention.h"
#include "base/json.h"
#include "base/string.h"

enum { MN__NAMED_LOSSES_MAX = MN__LOSSES_MAX + 1, MN__LOSS_NAME_MAX = 32 };

typedef struct mn__named_losses {
    int count;
    struct mn__named_loss {
        char name[MN__LOSS_NAME_MAX];
        double sum;
    } item[MN__NAMED_LOSSES_MAX];
} mn__named_losses;

/* What has no name there yet begins at 0. Names are shorter than MN__LOSS_NAME_MAX. */
void mn__named_losses_add(mn__named_losses *losses, const char *name, double value);
/* Each of `more`, times `factor`. */
void mn__named_losses_add_all(mn__named_losses *losses, const mn__named_losses *more,
                              double factor);

/* As a JSON object of sums that read back as the same bits; and back. */
void mn__named_losses_save(const mn__named_losses *losses, mn__string *json);
mn_status mn__named_losses_load(mn__named_losses *losses, mn__json object, mn_error *error);

#endif
