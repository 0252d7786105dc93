/* Ways for a pretrained model to read texts longer than its window (reader/limit.h), as the
 * settings that it is opened with. */
#ifndef MN__EVAL_OVERRIDES_H
#define MN__EVAL_OVERRIDES_H

#include "base/arena.h"
#include "base/error.h"
#include "base/options.h"

/* `set`, as of mn__run_open, and then: window: a token sees so many before it, 0: as the model
 * has it; stretch: positions are scaled to so many tokens, by YaRN or the model's own dynamic
 * way, 0: they are not. The list is the arena's, texts of `set` are borrowed.
 * MN_ERROR_UNSUPPORTED: positions that cannot be scaled, or no pretrained model. */
mn_status mn__overrides_make(mn__string_list *overrides, mn__arena *arena, const char *model,
                             const mn__string_list *set, int64_t window, int64_t stretch,
                             mn_error *error);

#endif
