/* What verbs that use a run share: options, opening, closing. */
#ifndef MN__CLI_OPEN_H
#define MN__CLI_OPEN_H

#include "cli/cli.h"
#include "model/run.h"

/* Put first into a verb's struct; mn__run_options is over it. */
typedef struct mn__run_use {
    mn__string_list set;
    int64_t threads;
    int precision;           /* run | f32 | bf16 */
    int weights;             /* auto | f32 | f16 | bf16 | int8 | int4 */
    int cache;               /* mn__kept */
    int64_t stretch, window; /* as of eval/overrides.h; `window` is not in the table */
} mn__run_use;
extern const mn__option mn__run_options[];

typedef struct mn__opened {
    mn__device device;
    mn__run run;
    mn__dtype compute;
} mn__opened;

/* Sets the threads and opens a run with its overrides. */
mn_status mn__opened_open(mn__opened *opened, const char *folder, const mn__run_use *use,
                          mn_error *error);
void mn__opened_close(mn__opened *opened);

#endif
