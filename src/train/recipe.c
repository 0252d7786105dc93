/* Recipes: sections, their tables, and completing what was left to defaults. */
#include "train/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/decoder.h"

const mn__option mn__data_option_table[] = {
    MN__LIST(mn__data_options, corpus, "[]", "texts to learn from: [TYPE=]PATH[@SPLIT], a list"),
    MN__STRING(mn__data_options, prepared, "",
               "folder of the prepared data set; empty: data/ in the run's folder"),
    MN__ENUM(mn__data_options, style, "contiguous", "contiguous|documents",
             "rows of one stream, or a document per row"),
    MN__ENUM(mn__data_options, reset, "document", "document|segment",
             "where a row's state is cleared: where a document (or the stream) starts, or always"),
    MN__BOOL(mn__data_options, shuffle, "false", "another order of documents each epoch"),
    MN__INT(mn__data_options, batch, "8", 1, 1e6, "rows of a batch, B"),
    MN__INT(mn__data_options, segment, "256", 1, 1e9, "tokens of a segment, T"),
    MN__OPTIONS_END};

#define OPTIONS mn__train_options
const mn__option mn__train_option_table[] = {
    MN__INT(OPTIONS, steps, "1000", 1, 1e15, "how long to train"),
    MN__INT(OPTIONS, seed, "1", 0, 1e18, "of weights, dropout and the order of documents"),
    MN__INT(OPTIONS, threads, "0", 0, 4096, "0: what the container allows"),
    MN__INT(OPTIONS, accumulate, "1", 1, 1e6, "do a batch in so many parts, to save memory"),
    MN__INT(OPTIONS, update_every, "1", 1, 1e6, "update the weights every n-th step"),
    MN__INT(OPTIONS, update_every_from, "0", 0, 1e15, "after this step; before it, at every one"),
    MN__INT(OPTIONS, unroll, "1", 1, 1000, "segments that the gradient passes through"),
    MN__FLOAT(OPTIONS, clip, "0", 0, 1e9, "largest global norm of the gradient; 0: any"),
    MN__FLOAT(OPTIONS, z_loss, "0", 0, 1, "factor of (log Z)^2 in the loss"),
    MN__ENUM(OPTIONS, precision, "auto", "auto|f32|bf16",
             "of products and attention; auto: what this CPU is fastest in"),
    MN__ENUM(OPTIONS, non_finite, "stop", "stop|skip",
             "what to do when a loss or a gradient is not finite"),
    MN__INT(OPTIONS, log_every, "10", 1, 1e9, "steps between lines of metrics"),
    MN__INT(OPTIONS, validate_every, "500", 0, 1e15,
            "steps between validations (after an update); 0: none"),
    MN__INT(OPTIONS, checkpoint_every, "500", 0, 1e15, "steps between checkpoints; 0: at the end"),
    MN__INT(OPTIONS, validation_batch, "0", 0, 1e6, "rows of a validation batch; 0: data.batch"),
    MN__INT(OPTIONS, validation_tokens, "0", 0, 1e15, "validate on so many; 0: on the whole split"),
    MN__BOOL(OPTIONS, allow_new, "false",
             "with --from: weights that the file lacks begin at random"),
    MN__OPTIONS_END};
#undef OPTIONS

/* ---- Completing ------------------------------------------------------------------- */

/* Puts every option of a table that the section does not name into the tree. */
static mn_status complete(mn__recipe *recipe, const char *section, const mn__option *table,
                          const void *component, mn_error *error)
{
    mn_status status = MN_OK;
    mn__string text = {0};
    for (const mn__option *option = table; status == MN_OK && option->name; option++) {
        if (mn__yaml_get(mn__yaml_get(recipe->root, section), option->name))
            continue;
        mn__string_clear(&text);
        mn__string_printf(&text, "%s.%s=", section, option->name);
        mn__options_value(option, component, &text);
        status = text.failed ? mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the recipe")
                             : mn__yaml_set(&recipe->arena, recipe->root, text.text, error);
    }
    mn__string_free(&text);
    return status;
}

static mn_status read_section(mn__recipe *recipe, const char *name, const mn__option *table,
                              const char *const *also, void *component, mn_error *error)
{
    const mn__yaml_node *section = mn__yaml_get(recipe->root, name);
    mn_status status = mn__options_read(table, section, also, component, &recipe->arena, error);
    return status ? status : complete(recipe, name, table, component, error);
}

/* ---- The sections ------------------------------------------------------------------- */

static void names_of(const mn__option *table, const char *names[MN__PREPARE_OPTIONS_MAX + 1])
{
    int count = 0;
    for (; table->name && count < MN__PREPARE_OPTIONS_MAX; table++)
        names[count++] = table->name;
    names[count] = NULL;
}

void mn__recipe_prepare_table(mn__option table[MN__PREPARE_OPTIONS_MAX + 1])
{
    int count = 0;
    for (const mn__option *option = mn__prepare_options; option->name; option++)
        if (strcmp(option->name, "data") && strcmp(option->name, "out") &&
            count < MN__PREPARE_OPTIONS_MAX)
            table[count++] = *option;
    table[count] = (mn__option){0};
}

static mn_status read_data(mn__recipe *recipe, mn_error *error)
{
    mn__option prepare[MN__PREPARE_OPTIONS_MAX + 1];
    const char *also[MN__PREPARE_OPTIONS_MAX + 1];
    mn__recipe_prepare_table(prepare);
    names_of(prepare, also);
    mn_status status =
        mn__options_default(mn__prepare_options, &recipe->prepare, &recipe->arena, error);
    if (status == MN_OK)
        status = read_section(recipe, "data", mn__data_option_table, also, &recipe->data, error);
    names_of(mn__data_option_table, also);
    if (status == MN_OK)
        status = read_section(recipe, "data", prepare, also, &recipe->prepare, error);
    recipe->prepare.data = recipe->data.corpus;
    return status;
}

static mn_status read_model(mn__recipe *recipe, mn_error *error)
{
    mn__decoder_options options;
    return read_section(recipe, "model", mn__decoder_option_table, mn__decoder_lists, &options,
                        error);
}

/* The decoder's default is written out. An unknown type is left for the decoder to
 * refuse: it knows them all. */
static mn_status read_attention(mn__recipe *recipe, mn_error *error)
{
    static const char *const also[] = {"type", NULL};
    const mn__yaml_node *section = mn__yaml_get(recipe->root, "attention");
    mn_status status = MN_OK;
    if ((mn__yaml_is_null(section) || section->kind == MN__YAML_MAPPING) &&
        !mn__yaml_get(section, "type"))
        status = mn__yaml_set(&recipe->arena, recipe->root, "attention.type=full", error);
    if (status != MN_OK)
        return status;
    const mn__yaml_node *node = mn__yaml_get(mn__yaml_get(recipe->root, "attention"), "type");
    const mn__attention_type *type = node && node->text ? mn__attention_find(node->text) : NULL;
    if (!type)
        return MN_OK;
    void *options = mn__arena_calloc(&recipe->arena, 1, type->options_bytes);
    if (!options)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the recipe");
    return read_section(recipe, "attention", type->options, also, options, error);
}

static mn_status refuse_unknown_sections(const mn__recipe *recipe, mn_error *error)
{
#define SECTION(section)                           \
    {                                              \
        .name = section, .type = MN__OPTION_STRING \
    }
    static const mn__option sections[] = {
        SECTION("model"),    SECTION("attention"), SECTION("data"), SECTION("optimizer"),
        SECTION("schedule"), SECTION("train"),     MN__OPTIONS_END};
#undef SECTION
    const mn__yaml_node *root = recipe->root;
    if (root->kind != MN__YAML_MAPPING)
        return mn__yaml_fail(root, "begin with `model:`", error, "a recipe is a mapping");
    for (int64_t i = 0; i < root->count; i++) {
        const char *name = root->keys[i]->text;
        bool known = false;
        for (const mn__option *section = sections; section->name; section++)
            known |= !strcmp(name, section->name);
        if (!known) {
            const char *nearest = mn__options_nearest(sections, name);
            char hint[128] = "the sections are model, attention, data, optimizer, schedule, train";
            if (nearest)
                snprintf(hint, sizeof hint, "did you mean '%s'?", nearest);
            return mn__yaml_fail(root->keys[i], hint, error, "a recipe has no section `%s`", name);
        }
    }
    return MN_OK;
}

/* ---- Checks ---------------------------------------------------------------------------- */

static mn_status check(const mn__recipe *recipe, mn_error *error)
{
    const mn__data_options *data = &recipe->data;
    const mn__train_options *train = &recipe->train;
    if (!data->corpus.count && !*data->prepared)
        return mn__fail(error, MN_ERROR_OPTION, "name texts in `data.corpus`",
                        "%s: neither data.corpus nor data.prepared is given", recipe->path);
    if (data->batch % train->accumulate)
        return mn__fail(error, MN_ERROR_OPTION, "choose a divisor of data.batch",
                        "%s: train.accumulate: %lld rows do not divide into %lld parts",
                        recipe->path, (long long)data->batch, (long long)train->accumulate);
    if (data->reset == MN__RESET_SEGMENT && train->unroll > 1)
        return mn__fail(error, MN_ERROR_OPTION, "use data.reset: document, or train.unroll: 1",
                        "%s: no gradient can pass through segments that each begin anew",
                        recipe->path);
    mn_status status = mn__optimizer_check(&recipe->optimizer, error);
    if (status == MN_OK)
        status = mn__schedule_check(&recipe->schedule, error);
    if (status != MN_OK)
        mn__error_prefix(error, "%s", recipe->path);
    return status;
}

mn_status mn__recipe_read(mn__recipe *recipe, const char *path, const char *const *overrides,
                          int64_t override_count, mn_error *error)
{
    *recipe = (mn__recipe){0};
    mn__arena_init(&recipe->arena, 1 << 14);
    recipe->path = mn__arena_strdup(&recipe->arena, path);
    if (!recipe->path)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the recipe");
    mn_status status = mn__yaml_read(&recipe->arena, path, &recipe->root, error);
    for (int64_t i = 0; status == MN_OK && i < override_count; i++)
        status = mn__yaml_set(&recipe->arena, recipe->root, overrides[i], error);
    if (status == MN_OK)
        status = refuse_unknown_sections(recipe, error);
    if (status == MN_OK)
        status = read_model(recipe, error);
    if (status == MN_OK)
        status = read_attention(recipe, error);
    if (status == MN_OK)
        status = read_data(recipe, error);
    if (status == MN_OK)
        status = read_section(recipe, "optimizer", mn__optimizer_option_table, NULL,
                              &recipe->optimizer, error);
    if (status == MN_OK)
        status = read_section(recipe, "schedule", mn__schedule_option_table, NULL,
                              &recipe->schedule, error);
    if (status == MN_OK)
        status = read_section(recipe, "train", mn__train_option_table, NULL, &recipe->train, error);
    if (status != MN_OK)
        return status;
    if (!recipe->schedule.steps)
        recipe->schedule.steps = recipe->train.steps;
    if (!recipe->train.validation_batch)
        recipe->train.validation_batch = recipe->data.batch;
    return check(recipe, error);
}

void mn__recipe_free(mn__recipe *recipe)
{
    mn__arena_free(&recipe->arena);
    *recipe = (mn__recipe){0};
}

mn_status mn__recipe_set_precision(mn__recipe *recipe, mn__precision precision, mn_error *error)
{
    recipe->train.precision = (int)precision;
    const char *assignment =
        precision == MN__PRECISION_BF16 ? "train.precision=bf16" : "train.precision=f32";
    return mn__yaml_set(&recipe->arena, recipe->root, assignment, error);
}

mn_status mn__recipe_text(const mn__recipe *recipe, mn__string *text, mn_error *error)
{
    return mn__yaml_write(recipe->root, text, error);
}
