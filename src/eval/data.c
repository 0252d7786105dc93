/* What a run is evaluated on. */
#include "eval/data.h"

#include <string.h>

#include "data/prepare.h"
#include "eval/evaluation.h"

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the data");
}

static const char *recipe_text(const mn__run *run, const char *key)
{
    const mn__yaml_node *node = mn__yaml_get(mn__yaml_get(run->recipe, "data"), key);
    return node && node->kind == MN__YAML_SCALAR ? node->text : "";
}

static mn_status look_for_dataset(mn__arena *arena, const char *folder, bool *there,
                                  mn_error *error)
{
    const char *path = mn__arena_printf(arena, "%s/dataset.json", folder);
    *there = path && mn__file_exists(path);
    return path ? MN_OK : no_memory(error);
}

/* The text itself: prepared once, found again by its name. */
static mn_status prepare(const mn__run *run, const char *name, mn__arena *arena,
                         const mn__progress *progress, const char **folder, mn_error *error)
{
    mn__prepare_config config;
    mn_status status = mn__options_default(mn__prepare_options, &config, arena, error);
    if (status != MN_OK)
        return status;
    const char *newlines = recipe_text(run, "newlines");
    mn__hash_text hash = mn__hash_of(name, (int64_t)strlen(name));
    const char *results = mn__results_folder(run, arena);
    *folder = results ? mn__arena_printf(arena, "%s/data-%.8s", results, hash.hex) : NULL;
    config.tokenizer = run->tokenizer_path;
    config.out = *folder;
    config.data = (mn__string_list){.items = &name, .count = 1};
    if (!config.out)
        return no_memory(error);
    config.newlines = strcmp(newlines, "keep") ? MN__NEWLINES_LF : MN__NEWLINES_KEEP;
    return mn__prepare(&config, progress, NULL, error);
}

/* "folder" or "folder@test": a data set, or a split of one. */
static mn_status find_dataset(mn__arena *arena, const char *name, const char **folder,
                              mn__split *split, bool *there, mn_error *error)
{
    *folder = name;
    mn_status status = look_for_dataset(arena, name, there, error);
    const char *at = strrchr(name, '@');
    if (status != MN_OK || *there || !at || !mn__split_named(at + 1, split))
        return status;
    *folder = mn__arena_printf(arena, "%.*s", (int)(at - name), name);
    return *folder ? look_for_dataset(arena, *folder, there, error) : no_memory(error);
}

static mn_status find_folder(const mn__run *run, const char *name, mn__arena *arena,
                             const mn__progress *progress, const char **folder, mn__split *split,
                             mn_error *error)
{
    bool there;
    if (*name) {
        mn_status status = find_dataset(arena, name, folder, split, &there, error);
        if (status != MN_OK || there)
            return status;
        return prepare(run, name, arena, progress, folder, error);
    }
    const char *prepared = recipe_text(run, "prepared");
    *folder = *prepared ? prepared : mn__arena_printf(arena, "%s/data", run->folder);
    if (!*folder)
        return no_memory(error);
    mn_status status = look_for_dataset(arena, *folder, &there, error);
    if (status == MN_OK && !there)
        return mn__fail(error, MN_ERROR_IO, "say on what to evaluate: --data TEXT",
                        "%s: the run's own data set is not there", *folder);
    return status;
}

static mn_status choose_split(const mn__dataset *dataset, const char *name, mn__split *split,
                              mn_error *error)
{
    static const mn__split order[] = {MN__SPLIT_TEST, MN__SPLIT_VALIDATION, MN__SPLITS};
    if (*name) {
        *split = MN__SPLITS;
        if (strcmp(name, "all") && !mn__split_named(name, split))
            return mn__fail(error, MN_ERROR_USAGE, "the splits are train, validation, test, all",
                            "there is no split '%s'", name);
        return MN_OK;
    }
    for (int i = 0; i < 3; i++) {
        *split = order[i];
        if (mn__dataset_counts_of(dataset, order[i]).documents)
            break;
    }
    return MN_OK;
}

mn_status mn__evaluation_data(const mn__run *run, const char *name, const char *split,
                              const mn__progress *progress, mn__dataset **dataset,
                              mn__split *chosen, mn_error *error)
{
    mn__arena arena;
    mn__arena_init(&arena, 1 << 12);
    const char *folder = NULL;
    *chosen = MN__SPLITS;
    mn_status status = find_folder(run, name, &arena, progress, &folder, chosen, error);
    if (status == MN_OK)
        status = mn__dataset_open(dataset, folder, error);
    mn__arena_free(&arena);
    if (status != MN_OK || (*chosen != MN__SPLITS && !*split))
        return status;
    status = choose_split(*dataset, split, chosen, error);
    if (status != MN_OK)
        mn__dataset_close(*dataset);
    return status;
}
