/* Settings of longer texts. */
#include "eval/overrides.h"

#include <string.h>

#include "model/pretrained.h"

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model's settings");
}

struct overrides {
    mn__arena *arena;
    const char **items; /* [MOST_MORE] more than `set` has */
    int64_t count;
    bool failed;
};
enum { MOST_MORE = 8 };

static void add(struct overrides *overrides, const char *text)
{
    overrides->items[overrides->count++] = text;
    overrides->failed |= !text;
}

static void add_int(struct overrides *overrides, const char *name, int64_t value)
{
    add(overrides, mn__arena_printf(overrides->arena, "%s=%lld", name, (long long)value));
}

/* The model's own window, of which positions are scaled up; YaRN (Peng et al. 2023) changes
 * near distances least. */
static mn_status add_stretch(struct overrides *overrides, const char *folder, int64_t stretch,
                             mn_error *error)
{
    mn__config config;
    if (!mn__pretrained_is(folder))
        return mn__fail(
            error, MN_ERROR_UNSUPPORTED, "set model.rope_scaling and what belongs to it",
            "%s is no pretrained model: the window that it is made for is not known", folder);
    mn_status status = mn__pretrained_read(&config, overrides->arena, folder, 0, error);
    if (status != MN_OK)
        return status;
    const mn__yaml_node *model = mn__yaml_get(config.recipe, "model");
    const mn__yaml_node *positions = mn__yaml_get(model, "positions");
    const mn__yaml_node *scaling = mn__yaml_get(model, "rope_scaling");
    bool rope = positions && positions->text && !strcmp(positions->text, "rope");
    bool scaled = scaling && scaling->text && strcmp(scaling->text, "none") != 0;
    bool dynamic = scaled && !strcmp(scaling->text, "dynamic"); /* the model's own way */
    if (!rope || (scaled && !dynamic))
        return mn__fail(error, MN_ERROR_UNSUPPORTED, "use --window, or a trained memory",
                        "%s: its positions %s", folder,
                        rope ? "are scaled already" : "are not rotary, and cannot be scaled");
    if (stretch <= config.context)
        return mn__fail(error, MN_ERROR_USAGE, "leave it out",
                        "the model reads %lld tokens without --stretch", (long long)config.context);
    if (dynamic) {
        add_int(overrides, "model.rope_length", stretch);
        return MN_OK;
    }
    add(overrides, "model.rope_scaling=yarn");
    add(overrides, mn__arena_printf(overrides->arena, "model.rope_factor=%.17g",
                                    (double)stretch / (double)config.context));
    add_int(overrides, "model.rope_original", config.context);
    return MN_OK;
}

mn_status mn__overrides_make(mn__string_list *out, mn__arena *arena, const char *model,
                             const mn__string_list *set, int64_t window, int64_t stretch,
                             mn_error *error)
{
    struct overrides overrides = {.arena = arena};
    *out = (mn__string_list){0};
    overrides.items = mn__arena_calloc(arena, set->count + MOST_MORE, sizeof(char *));
    if (!overrides.items)
        return no_memory(error);
    for (int64_t i = 0; i < set->count; i++)
        add(&overrides, set->items[i]);
    if (window) {
        add(&overrides, "attention.type=window");
        add_int(&overrides, "attention.window", window);
    }
    mn_status status = stretch ? add_stretch(&overrides, model, stretch, error) : MN_OK;
    *out = (mn__string_list){.items = overrides.items, .count = overrides.count};
    return status == MN_OK && overrides.failed ? no_memory(error) : status;
}
