/* Opening a run for a verb. */
#include "cli/open.h"

#include "base/threads.h"
#include "eval/evaluation.h"
#include "eval/overrides.h"

const mn__option mn__run_options[] = {
    MN__LIST(mn__run_use, set, "",
             "a.b=c: reads otherwise than it was trained, attention.memory=1k"),
    MN__INT(mn__run_use, threads, "0", 0, 4096, "how many compute; 0: what the container allows"),
    MN__ENUM(mn__run_use, precision, "run", "run|f32|bf16", "of products; run: as it was trained"),
    MN__ENUM(mn__run_use, weights, "auto", "auto|f32|f16|bf16|int8|int4",
             "kept so, packed for products; auto: of a pretrained model as products are"),
    MN__ENUM(mn__run_use, cache, "auto", "auto|f32|bf16|int8",
             "keys and values of full and window attention kept so; auto: as products are"),
    MN__INT(mn__run_use, stretch, "0", 0, 1e9,
            "scale a pretrained model's positions, to read texts of so many tokens"),
    MN__OPTIONS_END,
};

/* With the run open, or nothing. */
static mn_status open_run(mn__opened *opened, const char *folder, const mn__run_use *use,
                          mn_error *error)
{
    mn__arena arena;
    mn__string_list overrides;
    mn__dtype asked = use->precision == 2 ? MN__BF16 : MN__F32;
    mn__arena_init(&arena, 1 << 12);
    mn_status status =
        mn__overrides_make(&overrides, &arena, folder, &use->set, use->window, use->stretch, error);
    const mn__run_how how = {.overrides = overrides.items,
                             .override_count = overrides.count,
                             .weights = use->weights ? (mn__weights)use->weights : MN__WEIGHTS_AUTO,
                             .compute = use->precision ? &asked : NULL};
    if (status == MN_OK)
        status = mn__run_open_as(&opened->run, &opened->device, folder, &how, error);
    mn__arena_free(&arena);
    if (status != MN_OK)
        return status;
    status = mn__run_compute(&opened->run, &opened->compute, error);
    if (status == MN_OK)
        status = mn__decoder_keep(opened->run.decoder, (mn__kept)use->cache, error);
    if (use->precision)
        opened->compute = asked;
    if (status != MN_OK)
        mn__run_close(&opened->run);
    return status;
}

mn_status mn__opened_open(mn__opened *opened, const char *folder, const mn__run_use *use,
                          mn_error *error)
{
    mn__threads_set((int)use->threads);
    mn_status status = mn__device_open(&opened->device, error);
    if (status != MN_OK)
        return status;
    status = open_run(opened, folder, use, error);
    if (status != MN_OK)
        mn__device_close(&opened->device);
    return status;
}

void mn__opened_close(mn__opened *opened)
{
    mn__run_close(&opened->run);
    mn__device_close(&opened->device);
}
