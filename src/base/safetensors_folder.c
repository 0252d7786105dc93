/* The tensors of a folder, of one file or of many. */
#include "base/safetensors_folder.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/memory.h"

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

struct mn__safetensors_folder {
    mn__safetensors **files; /* [file_count] */
    int64_t file_count;
    const mn__safetensor **by_name; /* [count] */
    int64_t count;
};

/* What is being read, for the functions below. */
struct reader {
    mn__safetensors_folder *folder;
    mn__arena arena;
    const char *path, *index_path;
    json_t *index;
    const json_t *map;
    mn_error *error;
};

static mn_status no_memory(const struct reader *r)
{
    return mn__fail(r->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", r->path);
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp((*(const mn__safetensor *const *)a)->name,
                  (*(const mn__safetensor *const *)b)->name);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Opens `count` files of the folder; their tensors, sorted. */
static mn_status open_files(struct reader *r, const char *const *names, int64_t count)
{
    mn__safetensors_folder *folder = r->folder;
    folder->files = mn__calloc(count, sizeof(mn__safetensors *));
    if (!folder->files)
        return no_memory(r);
    int64_t tensors = 0;
    for (int64_t i = 0; i < count; i++) {
        const char *path = mn__arena_printf(&r->arena, "%s/%s", r->path, names[i]);
        if (!path)
            return no_memory(r);
        mn_status status = mn__safetensors_open(&folder->files[i], path, r->error);
        if (status != MN_OK)
            return status;
        folder->file_count++;
        tensors += mn__safetensors_count(folder->files[i]);
    }
    folder->by_name = mn__calloc(tensors, sizeof *folder->by_name);
    if (!folder->by_name)
        return no_memory(r);
    for (int64_t i = 0; i < count; i++)
        for (int64_t n = 0; n < mn__safetensors_count(folder->files[i]); n++)
            folder->by_name[folder->count++] = mn__safetensors_at(folder->files[i], n);
    qsort(folder->by_name, (size_t)tensors, sizeof *folder->by_name, compare_tensors);
    return MN_OK;
}

/* ---- The index ----------------------------------------------------------------------- */

/* A file of the folder itself, not a way out of it. */
static bool is_plain(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, "..") && strcmp(name, ".");
}

/* The files that the map names, each once, sorted. */
static mn_status list_files(struct reader *r, const char ***names, int64_t *count)
{
    const char *tensor;
    const json_t *value;
    *count = 0;
    *names = mn__arena_calloc(&r->arena, (int64_t)json_object_size(r->map), sizeof **names);
    if (!*names)
        return no_memory(r);
    void *at = json_object_iter((json_t *)(uintptr_t)r->map);
    for (; at; at = json_object_iter_next((json_t *)(uintptr_t)r->map, at)) {
        tensor = json_object_iter_key(at);
        value = json_object_iter_value(at);
        if (!json_is_string(value) || !is_plain(json_string_value(value)))
            return mn__fail(r->error, MN_ERROR_FORMAT, "fetch the folder again",
                            "%s: weight_map: '%s' is in no file of this folder", r->index_path,
                            tensor);
        (*names)[(*count)++] = json_string_value(value);
    }
    qsort(*names, (size_t)*count, sizeof **names, compare_texts);
    int64_t kept = 0;
    for (int64_t i = 0; i < *count; i++)
        if (i == 0 || strcmp((*names)[i], (*names)[kept - 1]))
            (*names)[kept++] = (*names)[i];
    *count = kept;
    return MN_OK;
}

/* Every tensor of a file is in the map under that file's name; and as many as are there. */
static mn_status check_map(const struct reader *r, const char *const *names)
{
    const mn__safetensors_folder *folder = r->folder;
    for (int64_t i = 0; i < folder->file_count; i++)
        for (int64_t n = 0; n < mn__safetensors_count(folder->files[i]); n++) {
            const char *name = mn__safetensors_at(folder->files[i], n)->name;
            const char *file = json_string_value(json_object_get(r->map, name));
            if (!file || strcmp(file, names[i]))
                return mn__fail(r->error, MN_ERROR_FORMAT, "fetch the folder again",
                                "%s: '%s' is in %s, and the index says %s", r->index_path, name,
                                names[i], file ? file : "nothing of it");
        }
    for (void *at = json_object_iter((json_t *)(uintptr_t)r->map); at;
         at = json_object_iter_next((json_t *)(uintptr_t)r->map, at)) {
        const char *name = json_object_iter_key(at);
        if (mn__safetensors_folder_find(folder, name) < 0)
            return mn__fail(r->error, MN_ERROR_FORMAT, "fetch the folder again",
                            "%s: '%s' is not in %s", r->index_path, name,
                            json_string_value(json_object_iter_value(at)));
    }
    return MN_OK;
}

static mn_status open_index(struct reader *r)
{
    mn__json map;
    mn_status status = mn__json_read(r->index_path, &r->index, r->error);
    if (status == MN_OK)
        status = mn__json_object((mn__json){r->index_path, r->index}, "weight_map",
                                 MN__JSON_REQUIRED, &map, r->error);
    if (status != MN_OK)
        return status;
    r->map = map.value;
    const char **names;
    int64_t count;
    status = list_files(r, &names, &count);
    if (status == MN_OK)
        status = open_files(r, names, count);
    return status == MN_OK ? check_map(r, names) : status;
}

/* ---- Opening --------------------------------------------------------------------------- */

static mn_status open_folder(struct reader *r)
{
    const char *single = mn__arena_printf(&r->arena, "%s/%s", r->path, single_name);
    r->index_path = mn__arena_printf(&r->arena, "%s/%s", r->path, index_name);
    if (!single || !r->index_path)
        return no_memory(r);
    if (mn__file_exists(single))
        return open_files(r, (const char *const[]){single_name}, 1);
    if (mn__file_exists(r->index_path))
        return open_index(r);
    return mn__fail(r->error, MN_ERROR_IO,
                    "fetch the weights too; of other formats (pytorch_model.bin), the safetensors "
                    "of the same model",
                    "%s: neither %s nor %s is in it", r->path, single_name, index_name);
}

mn_status mn__safetensors_folder_open(mn__safetensors_folder **folder, const char *path,
                                      mn_error *error)
{
    struct reader r = {.path = path, .error = error};
    *folder = NULL;
    r.folder = mn__calloc(1, sizeof *r.folder);
    if (!r.folder)
        return no_memory(&r);
    mn__arena_init(&r.arena, 1 << 12);
    mn_status status = open_folder(&r);
    json_decref(r.index);
    mn__arena_free(&r.arena);
    if (status == MN_OK)
        *folder = r.folder;
    else
        mn__safetensors_folder_close(r.folder);
    return status;
}

void mn__safetensors_folder_close(mn__safetensors_folder *folder)
{
    if (!folder)
        return;
    for (int64_t i = 0; i < folder->file_count; i++)
        mn__safetensors_close(folder->files[i]);
    mn__free(folder->files);
    mn__free(folder->by_name);
    mn__free(folder);
}

int64_t mn__safetensors_folder_count(const mn__safetensors_folder *folder)
{
    return folder->count;
}

const mn__safetensor *mn__safetensors_folder_at(const mn__safetensors_folder *folder, int64_t index)
{
    assert(index >= 0 && index < folder->count);
    return folder->by_name[index];
}

int64_t mn__safetensors_folder_find(const mn__safetensors_folder *folder, const char *name)
{
    const mn__safetensor wanted = {.name = name}, *key = &wanted;
    const mn__safetensor **found =
        bsearch(&key, folder->by_name, (size_t)folder->count, sizeof key, compare_tensors);
    return found ? found - folder->by_name : -1;
}
