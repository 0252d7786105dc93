/* Run folders and pretrained models, opened for evaluation or generation. */
#include "model/run.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/gguf_model.h"
#include "model/llama2c_model.h"
#include "model/pretrained.h"
#include "model/rows.h"
#include "text/tokenizer_types.h"

/* ---- Parameters in files ---------------------------------------------------------- */

static mn__safetensor describe(const mn__param *param)
{
    const mn__tensor *value = &param->value;
    mn__safetensor tensor = {.name = param->name,
                             .dtype = mn__dtype_name(value->dtype),
                             .rank = value->rank,
                             .data = value->data,
                             .bytes = mn__tensor_bytes(value)};
    memcpy(tensor.size, value->size, (size_t)value->rank * sizeof *value->size);
    return tensor;
}

mn_status mn__params_list(const mn__params *params, mn__arena *arena, mn__safetensor **tensors,
                          int64_t *count, mn_error *error)
{
    assert(params->weights == MN__WEIGHTS_MASTERS);
    mn__safetensor *list = mn__arena_calloc(arena, params->count, sizeof *list);
    if (!list)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to list the weights");
    for (int64_t i = 0; i < params->count; i++)
        list[i] = describe(params->items[i]);
    *tensors = list;
    *count = params->count;
    return MN_OK;
}

static void hash_tensor(mn__hash *hash, const mn__safetensor *tensor)
{
    mn__hash_add(hash, tensor->name, (int64_t)strlen(tensor->name) + 1);
    mn__hash_add(hash, tensor->size, tensor->rank * (int64_t)sizeof *tensor->size);
    mn__hash_add(hash, tensor->data, tensor->bytes);
}

/* hash: of what is taken, or NULL. */
static mn_status load_param(mn__params *params, mn__param *param, const mn__safetensors *file,
                            mn__hash *hash, mn_error *error)
{
    mn__safetensor into = describe(param);
    const mn__safetensor *from = mn__safetensors_find(file, param->name);
    if (!from)
        return mn__fail(error, MN_ERROR_MISMATCH, "it holds the weights of another model",
                        "the file holds no %s", param->name);
    if (strcmp(from->dtype, into.dtype) || from->rank != into.rank ||
        memcmp(from->size, into.size, (size_t)into.rank * sizeof *into.size))
        return mn__fail(error, MN_ERROR_MISMATCH, "it holds the weights of another model",
                        "%s has another size or type in the file", param->name);
    if (hash)
        hash_tensor(hash, from);
    const mn__tensor *value = &param->value;
    mn__rows rows = {.data = from->data,
                     .type = MN__ROWS_F32,
                     .rows = value->rank ? value->size[0] : 1,
                     .width = value->rank > 1 ? mn__tensor_elements(value) / value->size[0] : 1};
    return mn__rows_fill(params, param, &rows, 1, 0, error);
}

mn_status mn__params_load(mn__params *params, const mn__safetensors *file, mn_error *error)
{
    bool held = params->weights != MN__WEIGHTS_MASTERS;
    mn__hash *hash = held ? mn__hash_new() : NULL;
    mn_status status = MN_OK;
    if (held && !hash)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a run");
    for (int64_t i = 0; status == MN_OK && i < params->count; i++)
        status = load_param(params, params->items[i], file, hash, error);
    if (hash)
        memcpy(params->digest, mn__hash_end(hash).hex, sizeof params->digest);
    return status;
}

mn__hash_text mn__params_fingerprint(const mn__params *params)
{
    mn__hash_text digest;
    memcpy(digest.hex, params->digest, sizeof digest.hex);
    if (params->source.owner)
        return params->source.digest(params->source.owner);
    if (params->weights != MN__WEIGHTS_MASTERS)
        return digest;
    mn__hash *hash = mn__hash_new();
    for (int64_t i = 0; hash && i < params->count; i++) {
        mn__safetensor tensor = describe(params->items[i]);
        hash_tensor(hash, &tensor);
    }
    return hash ? mn__hash_end(hash) : (mn__hash_text){""};
}

/* ---- Opening ------------------------------------------------------------------------ */

/* What may differ from training: how the model reads, not what it learned from. */
static mn_status check_override(const char *override, mn_error *error)
{
    static const char *const allowed[] = {"model.", "attention.", "data.segment="};
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (!strncmp(override, allowed[i], strlen(allowed[i])))
            return MN_OK;
    return mn__fail(error, MN_ERROR_OPTION,
                    "model.*, attention.* and data.segment may be set for a trained run",
                    "--set %s has no meaning for a run that is trained", override);
}

static mn_status read_recipe(mn__run *run, const char *path, mn_error *error)
{
    if (!mn__file_exists(path))
        return mn__fail(error, MN_ERROR_IO,
                        "name a folder that `mneme train` has made, or a pretrained model's",
                        "%s: no run, it holds no recipe.yaml", run->folder);
    return mn__yaml_read(&run->arena, path, &run->recipe, error);
}

static mn_status read_segment(mn__run *run, mn_error *error)
{
    struct reading {
        int64_t segment;
    } reading;
    static const mn__option table[] = {
        MN__INT(struct reading, segment, "0", 1, 1e9, "tokens of a segment"), MN__OPTIONS_END};
    const mn__yaml_node *segment = mn__yaml_get(mn__yaml_get(run->recipe, "data"), "segment");
    if (!segment || segment->kind != MN__YAML_SCALAR)
        return mn__yaml_fail(run->recipe, "give it: --set data.segment=N", error,
                             "the recipe has no data.segment");
    mn_status status =
        mn__options_set(table, "segment", segment->text, &reading, &run->arena, error);
    run->segment = status == MN_OK ? reading.segment : 0;
    return status;
}

const char *mn__run_fingerprint(mn__run *run, mn_error *error)
{
    if (!*run->fingerprint)
        memcpy(run->fingerprint, mn__params_fingerprint(&run->params).hex, sizeof run->fingerprint);
    if (*run->fingerprint)
        return run->fingerprint;
    mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the fingerprint of %s", run->folder);
    return NULL;
}

static mn_status read_weights(mn__run *run, mn_error *error)
{
    mn__safetensors *file;
    const char *path = NULL;
    static const char *const names[] = {"best.safetensors", "last.safetensors"};
    for (int i = 0; i < 2; i++) {
        snprintf(run->weights_file, sizeof run->weights_file, "%s", names[i]);
        path = mn__arena_printf(&run->arena, "%s/%s", run->folder, names[i]);
        if (!path)
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a run");
        if (mn__file_exists(path))
            break;
    }
    if (!mn__file_exists(path))
        return mn__fail(error, MN_ERROR_IO, "train it first: mneme train FOLDER --resume",
                        "%s: no weights yet, there is no checkpoint in it", run->folder);
    mn_status status = mn__safetensors_open(&file, path, error);
    if (status != MN_OK)
        return status;
    status = mn__params_load(&run->params, file, error);
    const char *step = mn__safetensors_metadata(file, "step");
    run->step = step ? strtoll(step, NULL, 10) : 0;
    mn__safetensors_close(file);
    if (status != MN_OK) {
        mn__error_prefix(error, "%s", path);
        return status;
    }
    return MN_OK;
}

static mn_status load_tokenizer(mn__run *run, const char *path, mn_error *error)
{
    run->tokenizer_path = path;
    if (!path)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a run");
    return mn__tokenizer_load(&run->tokenizer, path, error);
}

/* How weights are kept: as products in the type asked for, or in the recipe's, read them. */
static mn_status choose_weights(mn__run *run, const mn__run_how *how, mn__weights usual,
                                mn_error *error)
{
    const mn__yaml_node *train = mn__yaml_get(run->recipe, "train");
    const mn__yaml_node *precision = mn__yaml_get(train, "precision");
    bool bf16 = how->compute ? *how->compute == MN__BF16
                             : precision && precision->kind == MN__YAML_SCALAR &&
                                   !strcmp(precision->text, "bf16");
    mn__weights own = bf16 ? MN__WEIGHTS_BF16 : MN__WEIGHTS_F32, weights = how->weights;
    if (weights == MN__WEIGHTS_AUTO)
        weights = usual == MN__WEIGHTS_AUTO ? own : usual;
    run->params.as_filed = how->weights == MN__WEIGHTS_AUTO;
    if (weights != own && (weights == MN__WEIGHTS_F32 || weights == MN__WEIGHTS_BF16))
        return mn__fail(error, MN_ERROR_OPTION,
                        "set --precision to the weights' type too, or take f16, int8 or int4",
                        "%s: weights in %s are for products in it, not in %s", run->folder,
                        mn__weights_name(weights), mn__weights_name(own));
    run->params.weights = weights;
    return MN_OK;
}

static mn_status open_model(mn__run *run, const mn__run_how *how, mn_error *error)
{
    mn_status status = choose_weights(run, how, MN__WEIGHTS_MASTERS, error);
    if (status == MN_OK)
        status =
            load_tokenizer(run, mn__arena_printf(&run->arena, "%s/tokenizer", run->folder), error);
    if (status == MN_OK)
        mn__ids_add(&run->before, run->tokenizer->start);
    if (status == MN_OK)
        status = read_segment(run, error);
    if (status == MN_OK)
        status = mn__decoder_new(&run->decoder, &run->params, mn__yaml_get(run->recipe, "model"),
                                 mn__yaml_get(run->recipe, "attention"), run->tokenizer->vocab,
                                 run->segment, error);
    return status == MN_OK ? read_weights(run, error) : status;
}

/* ---- Pretrained models ------------------------------------------------------------------ */

static mn_status apply_overrides(mn__run *run, const char *const *overrides, int64_t count,
                                 mn_error *error)
{
    mn_status status = MN_OK;
    for (int64_t i = 0; i < count && status == MN_OK; i++) {
        status = check_override(overrides[i], error);
        if (status == MN_OK)
            status = mn__yaml_set(&run->arena, run->recipe, overrides[i], error);
    }
    return status;
}

/* The folder's tokenizer.json or tokenizer.model, the GGUF file, llama2.c's tokenizer.bin. */
static mn_status find_tokenizer(mn__run *run, const char **path, mn_error *error)
{
    const char *slash = strrchr(run->folder, '/');
    int beside = slash ? (int)(slash - run->folder + 1) : 0;
    const char *json = mn__arena_printf(&run->arena, "%s/tokenizer.json", run->folder);
    const char *model = mn__arena_printf(&run->arena, "%s/tokenizer.model", run->folder);
    const char *bin = mn__arena_printf(&run->arena, "%.*stokenizer.bin", beside, run->folder);
    if (!json || !model || !bin)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    bool is_bin = mn__llama2c_is_model(run->folder), within = mn__gguf_is_model(run->folder);
    *path = is_bin ? bin : within || mn__file_exists(json) ? run->folder : model;
    if (mn__file_exists(*path))
        return MN_OK;
    return mn__fail(error, MN_ERROR_IO,
                    is_bin ? "fetch it too; mneme convert takes one from elsewhere, by --tokenizer"
                           : "fetch it too",
                    is_bin ? "%s: there is no tokenizer.bin beside it"
                           : "%s: neither tokenizer.json nor tokenizer.model is in it",
                    run->folder);
}

static mn_status load_pretrained_tokenizer(mn__run *run, const mn__config *config,
                                           const char *given, mn_error *error)
{
    const char *path = given;
    mn_status status = given ? MN_OK : find_tokenizer(run, &path, error);
    if (status == MN_OK)
        status = load_tokenizer(run, path, error);
    if (status == MN_OK && run->tokenizer->vocab > config->vocabulary)
        return mn__fail(error, MN_ERROR_MISMATCH, "it is the tokenizer of another model",
                        "%s: the tokenizer has %lld ids, the model %lld", run->folder,
                        (long long)run->tokenizer->vocab, (long long)config->vocabulary);
    return status;
}

/* A tokenizer.json says what stands before a text, and transformers then reads no add_bos_token; of
 * a SentencePiece model it is that key of tokenizer_config.json, true where it is missing. */
static mn_status read_before(mn__run *run, mn_error *error)
{
    const mn__tokenizer *tokenizer = run->tokenizer;
    const char *path = mn__arena_printf(&run->arena, "%s/tokenizer_config.json", run->folder);
    json_t *root;
    bool adds = true;
    mn_status status = MN_OK;
    if (!path)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    if (tokenizer->type == &mn__tokenizer_type_sentencepiece && mn__file_exists(path)) {
        status = mn__json_read(path, &root, error);
        if (status == MN_OK)
            status = mn__json_bool((mn__json){path, root}, "add_bos_token", MN__JSON_OPTIONAL,
                                   &adds, error);
        json_decref(root);
    }
    for (int64_t i = 0; adds && i < tokenizer->before.count; i++)
        mn__ids_add(&run->before, tokenizer->before.id[i]);
    return status;
}

static mn_status open_pretrained(mn__run *run, const mn__run_how *how, mn_error *error)
{
    static const char *const usual[] = {"data.segment=512", "train.precision=f32"};
    mn__config config;
    mn_status status = mn__pretrained_read(&config, &run->arena, run->folder, 0, error);
    if (status != MN_OK)
        return status;
    run->recipe = config.recipe;
    run->family = config.family;
    run->ends = config.ends;
    run->context = config.context;
    run->end_count = config.end_count;
    run->plans = true;
    for (int64_t i = 0; i < how->override_count; i++)
        run->plans &= strncmp(how->overrides[i], "model.rope_length=", 18) != 0;
    for (int i = 0; i < 2 && status == MN_OK; i++)
        status = mn__yaml_set(&run->arena, run->recipe, usual[i], error);
    if (status == MN_OK)
        status = apply_overrides(run, how->overrides, how->override_count, error);
    if (status == MN_OK)
        status = choose_weights(run, how, MN__WEIGHTS_AUTO, error);
    if (status == MN_OK)
        status = read_segment(run, error);
    if (status == MN_OK) {
        if (!run->params.device->counting) /* which reads no weights */
            mn__ahead_start(&run->ahead, run->folder, ".safetensors");
        status = load_pretrained_tokenizer(run, &config, how->tokenizer, error);
    }
    if (status == MN_OK)
        status = read_before(run, error);
    if (status == MN_OK)
        status = mn__pretrained_load(&run->decoder, &run->params, &config, run->folder, error);
    snprintf(run->weights_file, sizeof run->weights_file, "%s",
             mn__gguf_is_model(run->folder)      ? "GGUF"
             : mn__llama2c_is_model(run->folder) ? "llama2.c"
                                                 : "model.safetensors");
    return status;
}

/* ---- Either ------------------------------------------------------------------------------ */

static mn_status open_folder(mn__run *run, const mn__run_how *how, mn_error *error)
{
    const char *recipe = mn__arena_printf(&run->arena, "%s/recipe.yaml", run->folder);
    if (!recipe)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a run");
    if (!mn__file_exists(run->folder))
        return mn__fail(error, MN_ERROR_IO, "is the name right?", "%s: there is no such model",
                        run->folder);
    if (!mn__file_exists(recipe) && mn__pretrained_is(run->folder))
        return open_pretrained(run, how, error);
    mn_status status = read_recipe(run, recipe, error);
    if (status == MN_OK)
        status = apply_overrides(run, how->overrides, how->override_count, error);
    return status == MN_OK ? open_model(run, how, error) : status;
}

mn_status mn__run_open(mn__run *run, mn__device *device, const char *folder,
                       const char *const *overrides, int64_t override_count, mn_error *error)
{
    const mn__run_how how = {.overrides = overrides, .override_count = override_count};
    return mn__run_open_as(run, device, folder, &how, error);
}

mn_status mn__run_open_as(mn__run *run, mn__device *device, const char *folder,
                          const mn__run_how *how, mn_error *error)
{
    *run = (mn__run){0};
    mn__arena_init(&run->arena, 1 << 14);
    mn__params_init(&run->params, device, 0);
    run->folder = mn__arena_strdup(&run->arena, folder);
    mn_status status = run->folder ? open_folder(run, how, error)
                                   : mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a run");
    if (status == MN_OK && run->before.failed)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a run");
    if (status != MN_OK)
        mn__run_close(run);
    return status;
}

mn_status mn__run_plan(mn__run *run, int64_t tokens, mn_error *error)
{
    return run->plans ? mn__decoder_plan(run->decoder, tokens, error) : MN_OK;
}

void mn__run_close(mn__run *run)
{
    mn__ahead_end(&run->ahead);
    mn__ids_free(&run->before);
    mn__decoder_free(run->decoder);
    mn__params_free(&run->params);
    mn__tokenizer_free(run->tokenizer);
    mn__arena_free(&run->arena);
    *run = (mn__run){0};
}
