/* Opening pretrained models: config.json makes a recipe, the recipe a decoder, and the
 * family's names say which tensors are its parameters. It is made twice: on a counting
 * device, to compare all sizes with the files, and then with memory. */
#include "model/pretrained.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/safetensors_folder.h"
#include "model/gguf_model.h"
#include "model/llama2c_model.h"
#include "model/naming.h"
#include "model/rows.h"

/* What a decoder that was not made for a training calls its segment. */
enum { SEGMENT = 512 };

/* A folder's tensors, or those of one file of another kind. */
struct files {
    mn__safetensors_folder *folder;
    mn__gguf *gguf;
    mn__llama2c *llama2c;
    mn__arena arena;             /* of a GGUF file's names */
    const mn__safetensor *items; /* [count]: of a file */
    int64_t count;
    const mn__safetensor **taken; /* [taken_count], in the order of loading */
    int64_t taken_count;
};

/* Loading: files into the parameters of one decoder. */
struct loading {
    const char *folder;
    const mn__family *family;
    struct files *files;
    bool *used; /* [tensors] */
    mn__params *params;
    int64_t given; /* parameters that have their values */
    mn_error *error;
};

/* ---- Files ----------------------------------------------------------------------------- */

static void close_files(void *owner)
{
    struct files *files = owner;
    mn__safetensors_folder_close(files->folder);
    mn__gguf_close(files->gguf);
    mn__llama2c_close(files->llama2c);
    mn__arena_free(&files->arena);
    mn__free(files);
}

static int64_t tensors_in(const struct files *files)
{
    return files->folder ? mn__safetensors_folder_count(files->folder) : files->count;
}

static mn_status open_gguf(struct files *files, const char *path, mn_error *error)
{
    mn__safetensor *items = NULL;
    mn_status status = mn__gguf_open(&files->gguf, path, error);
    if (status == MN_OK)
        status = mn__gguf_tensors(files->gguf, &files->arena, &items, &files->count, error);
    files->items = items;
    return status;
}

static mn_status open_llama2c(struct files *files, const char *path, mn_error *error)
{
    mn_status status = mn__llama2c_open(&files->llama2c, path, error);
    if (status == MN_OK)
        files->items = mn__llama2c_tensors(files->llama2c, &files->count);
    return status;
}

static mn_status open_files(struct files *files, const char *path, mn_error *error)
{
    mn__arena_init(&files->arena, 1 << 14);
    mn_status status = mn__gguf_is_model(path) ? open_gguf(files, path, error)
                       : mn__llama2c_is_model(path)
                           ? open_llama2c(files, path, error)
                           : mn__safetensors_folder_open(&files->folder, path, error);
    if (status != MN_OK)
        return status;
    files->taken =
        mn__arena_calloc(&files->arena, tensors_in(files), sizeof(const mn__safetensor *));
    return files->taken ? MN_OK
                        : mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
}

/* Of names, types and bytes of what was taken. */
static mn__hash_text hash_files(void *owner)
{
    const struct files *files = owner;
    mn__hash *hash = mn__hash_new();
    for (int64_t i = 0; hash && i < files->taken_count; i++) {
        const mn__safetensor *tensor = files->taken[i];
        mn__hash_add(hash, tensor->name, (int64_t)strlen(tensor->name) + 1);
        mn__hash_add(hash, tensor->dtype, (int64_t)strlen(tensor->dtype) + 1);
        mn__hash_add(hash, tensor->data, tensor->bytes);
    }
    return hash ? mn__hash_end(hash) : (mn__hash_text){""};
}

static const mn__safetensor *tensor_at(const struct files *files, int64_t index)
{
    return files->folder ? mn__safetensors_folder_at(files->folder, index) : &files->items[index];
}

/* -1: there is none. */
static int64_t index_of(const struct files *files, const char *name)
{
    for (int64_t i = 0; i < files->count; i++)
        if (!strcmp(files->items[i].name, name))
            return i;
    return files->folder ? mn__safetensors_folder_find(files->folder, name) : -1;
}

/* ---- One tensor ------------------------------------------------------------------------ */

/* A tensor by name, with the family's prefix or without; -1 with an error. */
static int64_t find_tensor(const struct loading *l, const char *name)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", l->family->prefix, name);
    int64_t index = index_of(l->files, full);
    if (index < 0)
        index = index_of(l->files, name);
    if (index < 0)
        mn__fail(l->error, MN_ERROR_MISMATCH,
                 "its files are of another model than config.json, or not all there",
                 "%s: there is no tensor %s", l->folder, full);
    return index;
}

/* rows x columns (columns 0: rows alone) after `skip` rows, of floats of some kind. */
static mn_status check_tensor(const struct loading *l, const mn__safetensor *tensor, int64_t rows,
                              int64_t columns)
{
    if (mn__rows_type_of(tensor->dtype) == MN__ROWS_TYPES)
        return mn__fail(l->error, MN_ERROR_UNSUPPORTED,
                        l->files->gguf ? "types are F32, F16, BF16, Q8_0, Q4_0, Q4_K and Q6_K"
                                       : "fetch the model in bf16, f16 or f32",
                        "%s: tensor %s is of type %s", l->folder, tensor->name, tensor->dtype);
    if (tensor->rank == (columns ? 2 : 1) && tensor->size[0] == rows &&
        (!columns || tensor->size[1] == columns))
        return MN_OK;
    char is[80] = "", wanted[80];
    for (int i = 0; i < tensor->rank && i < 3; i++)
        snprintf(is + strlen(is), sizeof is - strlen(is), "%s%lld", i ? ", " : "",
                 (long long)tensor->size[i]);
    snprintf(wanted, sizeof wanted, columns ? "%lld, %lld" : "%lld", (long long)rows,
             (long long)columns);
    return mn__fail(l->error, MN_ERROR_MISMATCH, "its files are of another model than config.json",
                    "%s: tensor %s is [%s], and by config.json [%s]", l->folder, tensor->name, is,
                    wanted);
}

/* ---- One naming ------------------------------------------------------------------------- */

/* Their rows, one after the other, are ours. */
static mn_status take_rows(struct loading *l, const mn__match *match,
                           const mn__safetensor *const tensors[2])
{
    int64_t width = match->columns ? match->columns : 1, first = 0;
    mn__rows from[2];
    mn_status status = MN_OK;
    for (int i = 0; i < match->theirs; i++) {
        const mn__safetensor *tensor = tensors[i];
        mn__rows_type type = mn__rows_type_of(tensor->dtype);
        int64_t skip = match->naming->skip * width * (type == MN__ROWS_F32 ? 4 : 2);
        from[i] = (mn__rows){.data = (const char *)tensor->data + skip,
                             .type = type,
                             .rows = match->rows / match->theirs,
                             .width = width,
                             .turned = mn__match_is_turned(match)};
    }
    for (int i = 0; i < match->ours && status == MN_OK; i++) {
        status = mn__rows_fill(l->params, match->param[i], from, match->theirs, first, l->error);
        first += match->param[i]->value.size[0];
    }
    return status;
}

static mn_status load_match(struct loading *l, const mn__match *match)
{
    const mn__naming *naming = match->naming;
    const mn__safetensor *tensors[2];
    int64_t each = match->rows / match->theirs;
    for (int i = 0; i < match->theirs; i++) {
        int64_t index = find_tensor(l, match->their_name[i]);
        if (index < 0)
            return MN_ERROR_MISMATCH;
        tensors[i] = tensor_at(l->files, index);
        mn_status status = mn__match_is_turned(match)
                               ? check_tensor(l, tensors[i], match->columns, each)
                               : check_tensor(l, tensors[i], each + naming->skip, match->columns);
        if (status != MN_OK)
            return status;
        if (!l->used[index])
            l->files->taken[l->files->taken_count++] = tensors[i];
        l->used[index] = true;
    }
    l->given += match->ours;
    return take_rows(l, match, tensors);
}

/* ---- All of them ------------------------------------------------------------------------- */

static bool ends_in(const char *text, const char *end)
{
    size_t long_ = strlen(text), short_ = strlen(end);
    return long_ >= short_ && !strcmp(text + long_ - short_, end);
}

/* A head that the file holds once more though it is the embedding's: the same bytes. */
static bool is_tied_head(const struct loading *l, const mn__safetensor *tensor)
{
    char name[128] = "";
    if (strcmp(tensor->name, "lm_head.weight"))
        return false;
    for (const mn__naming *naming = l->family->names; naming->kind; naming++)
        if (!strcmp(naming->ours[0], "embedding"))
            snprintf(name, sizeof name, "%s.weight", naming->theirs[0]);
    int64_t index = find_tensor(l, name);
    const mn__safetensor *embedding = index < 0 ? NULL : tensor_at(l->files, index);
    return embedding && !strcmp(embedding->dtype, tensor->dtype) &&
           embedding->bytes == tensor->bytes &&
           !memcmp(embedding->data, tensor->data, (size_t)tensor->bytes);
}

static mn_status check_spare(const struct loading *l)
{
    for (int64_t i = 0; i < tensors_in(l->files); i++) {
        const mn__safetensor *tensor = tensor_at(l->files, i);
        const char *const *spare = l->family->spare;
        bool known = l->used[i];
        while (!known && *spare)
            known = ends_in(tensor->name, *spare++);
        if (!known && !is_tied_head(l, tensor))
            return mn__fail(l->error, MN_ERROR_MISMATCH,
                            "its files are of another model than config.json",
                            "%s: tensor %s has no place in a model of the family %s", l->folder,
                            tensor->name, l->family->type);
    }
    return MN_OK;
}

/* A recipe that was changed may make what no pretrained model has: another attention type's
 * parameters, a second attention. */
static mn_status check_given(const struct loading *l, int64_t depth)
{
    for (int64_t i = 0; i < l->params->count && l->given < l->params->count; i++)
        if (!mn__family_names(l->family, depth, l->params->items[i]->name))
            return mn__fail(l->error, MN_ERROR_MISMATCH,
                            "change only what has no weights: a window, positions that are "
                            "stretched",
                            "%s: as the model is set it has %s, which the folder does not hold",
                            l->folder, l->params->items[i]->name);
    assert(l->given == l->params->count);
    return MN_OK;
}

static mn_status load(struct loading *l, int64_t depth)
{
    mn_status status = MN_OK;
    mn__matches matches = {.family = l->family, .params = l->params, .depth = depth};
    memset(l->used, 0, (size_t)tensors_in(l->files) * sizeof *l->used);
    l->files->taken_count = 0;
    while (status == MN_OK && mn__matches_next(&matches))
        status = load_match(l, &matches.match);
    if (status == MN_OK)
        status = check_given(l, depth);
    return status == MN_OK ? check_spare(l) : status;
}

/* ---- Opening ------------------------------------------------------------------------------ */

bool mn__pretrained_is(const char *folder)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/config.json", folder);
    if (mn__gguf_is_model(folder) || mn__llama2c_is_model(folder))
        return mn__file_exists(folder);
    return n > 0 && (size_t)n < sizeof path && mn__file_exists(path);
}

/* generation_config.json, where there is one, knows better where texts end. */
static mn_status read_ends(mn__config *config, mn__arena *arena, const char *folder,
                           mn_error *error)
{
    const char *path = mn__arena_printf(arena, "%s/generation_config.json", folder);
    json_t *root;
    if (!path)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    if (!mn__file_exists(path))
        return MN_OK;
    mn_status status = mn__json_read(path, &root, error);
    if (status == MN_OK)
        status = mn__config_read_ends(config, arena, path, root, error);
    json_decref(root);
    return status;
}

static mn_status read_gguf(mn__config *config, mn__arena *arena, const char *path, int64_t tokens,
                           mn_error *error)
{
    mn__gguf *file;
    json_t *root;
    bool interleaved;
    mn_status status = mn__gguf_open(&file, path, error);
    if (status != MN_OK)
        return status;
    status = mn__gguf_config(file, path, &root, &interleaved, error);
    if (status == MN_OK)
        status = mn__config_read(config, arena, path, root, tokens, error);
    if (status == MN_OK && interleaved)
        status = mn__yaml_set(arena, config->recipe, "model.rope_interleaved=true", error);
    json_decref(root);
    mn__gguf_close(file);
    return status;
}

static mn_status read_llama2c(mn__config *config, mn__arena *arena, const char *path,
                              int64_t tokens, mn_error *error)
{
    mn__llama2c *file;
    json_t *root = NULL;
    mn_status status = mn__llama2c_open(&file, path, error);
    if (status != MN_OK)
        return status;
    status = mn__llama2c_config(file, &root, error);
    if (status == MN_OK)
        status = mn__config_read(config, arena, path, root, tokens, error);
    if (status == MN_OK)
        status = mn__yaml_set(arena, config->recipe, "model.rope_interleaved=true", error);
    json_decref(root);
    mn__llama2c_close(file);
    return status;
}

mn_status mn__pretrained_read(mn__config *config, mn__arena *arena, const char *folder,
                              int64_t tokens, mn_error *error)
{
    if (mn__gguf_is_model(folder))
        return read_gguf(config, arena, folder, tokens, error);
    if (mn__llama2c_is_model(folder))
        return read_llama2c(config, arena, folder, tokens, error);
    const char *path = mn__arena_printf(arena, "%s/config.json", folder);
    json_t *root;
    if (!path)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    if (!mn__file_exists(path))
        return mn__fail(error, MN_ERROR_IO, "name a folder as Hugging Face keeps it",
                        "%s: no model, it holds no config.json", folder);
    mn_status status = mn__json_read(path, &root, error);
    if (status == MN_OK)
        status = mn__config_read(config, arena, path, root, tokens, error);
    json_decref(root);
    return status == MN_OK ? read_ends(config, arena, folder, error) : status;
}

/* Makes the decoder that config.json describes, and loads it. */
static mn_status make(mn__decoder **decoder, const mn__config *config, struct loading *l)
{
    mn_status status = mn__decoder_new(decoder, l->params, mn__yaml_get(config->recipe, "model"),
                                       mn__yaml_get(config->recipe, "attention"),
                                       config->vocabulary, SEGMENT, l->error);
    if (status == MN_ERROR_OPTION && l->error && !strstr(l->error->message, l->folder))
        mn__error_prefix(l->error, l->files->folder ? "%s/config.json" : "%s", l->folder);
    l->given = 0;
    return status == MN_OK ? load(l, mn__decoder_options_of(*decoder)->depth) : status;
}

/* All sizes against the files, before memory is taken. */
static mn_status rehearse(const mn__config *config, struct loading l)
{
    mn__device device;
    mn__params params;
    mn__decoder *decoder = NULL;
    mn_status status = mn__device_open_counting(&device, l.error);
    if (status != MN_OK)
        return status;
    mn__params_init(&params, &device, 0);
    params.weights = l.params->weights;
    params.as_filed = l.params->as_filed;
    l.params = &params;
    status = make(&decoder, config, &l);
    mn__decoder_free(decoder);
    mn__params_free(&params);
    mn__device_close(&device);
    return status;
}

mn_status mn__pretrained_load(mn__decoder **decoder, mn__params *params, const mn__config *config,
                              const char *folder, mn_error *error)
{
    *decoder = NULL;
    struct files *files = mn__calloc(1, sizeof *files);
    if (!files)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    mn_status status = open_files(files, folder, error);
    if (status != MN_OK) {
        close_files(files);
        return status;
    }
    bool kept = params->weights != MN__WEIGHTS_MASTERS && !params->device->counting;
    struct loading l = {.folder = folder,
                        .family = config->family,
                        .files = files,
                        .params = params,
                        .error = error};
    l.used = mn__calloc(tensors_in(files), sizeof *l.used);
    if (!l.used)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    if (status == MN_OK)
        status = rehearse(config, l);
    if (kept)
        params->source = (mn__params_source){files, close_files, hash_files};
    params->bare = true;
    if (status == MN_OK)
        status = make(decoder, config, &l);
    params->bare = false;
    mn__free(l.used);
    if (!kept)
        close_files(files);
    return status;
}

mn_status mn__pretrained_open(mn__pretrained *model, mn__device *device, const char *folder,
                              int64_t tokens, mn_error *error)
{
    return mn__pretrained_open_as(model, device, folder, tokens, MN__WEIGHTS_MASTERS, false, error);
}

mn_status mn__pretrained_open_as(mn__pretrained *model, mn__device *device, const char *folder,
                                 int64_t tokens, mn__weights weights, bool as_filed,
                                 mn_error *error)
{
    *model = (mn__pretrained){0};
    mn__arena_init(&model->arena, 1 << 14);
    mn__params_init(&model->params, device, 0);
    model->params.weights = weights;
    model->params.as_filed = as_filed;
    model->folder = mn__arena_strdup(&model->arena, folder);
    mn_status status = MN_OK;
    if (!model->folder)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    if (status == MN_OK)
        status = mn__pretrained_read(&model->config, &model->arena, folder, tokens, error);
    if (status == MN_OK)
        status =
            mn__pretrained_load(&model->decoder, &model->params, &model->config, folder, error);
    if (status != MN_OK)
        mn__pretrained_close(model);
    return status;
}

void mn__pretrained_close(mn__pretrained *model)
{
    mn__decoder_free(model->decoder);
    mn__params_free(&model->params);
    mn__arena_free(&model->arena);
    *model = (mn__pretrained){0};
}
