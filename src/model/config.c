/* config.json in a recipe's words: by the family's table of keys, and by what several
 * families share: rotary positions (papers and equations in nn/rope.h) and windows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/string.h"
#include "model/family.h"

/* Of the decoder's depth, which refuses more. */
enum { LAYERS_MOST = 1024 };

/* What is being read. Options of `model` are collected as YAML on one line. */
struct reader {
    mn__config *config;
    mn__arena *arena;
    mn__json root;
    const mn__family *family;
    mn__string model;
    const char *attention; /* of the recipe */
    int64_t width, head_width, depth;
    mn_error *error;
};

static mn_status missing(const struct reader *r, const char *hint, const char *key,
                         const char *value)
{
    return mn__fail(r->error, MN_ERROR_UNSUPPORTED, hint, "%s: %s is %s, which is not supported",
                    r->root.file, key, value);
}

static void put(struct reader *r, const char *option, const char *value)
{
    mn__string_printf(&r->model, ", %s: %s", option, value);
}

static void put_int(struct reader *r, const char *option, int64_t value)
{
    mn__string_printf(&r->model, ", %s: %lld", option, (long long)value);
}

static void put_float(struct reader *r, const char *option, double value)
{
    mn__string_printf(&r->model, ", %s: %.17g", option, value);
}

/* ---- Keys ------------------------------------------------------------------------------ */

const char *const mn__config_activations[][2] = {
    {"silu", "silu"},          {"swish", "silu"},          {"gelu", "gelu"},
    {"gelu_new", "gelu_tanh"}, {"relu", "relu"},           {"gelu_pytorch_tanh", "gelu_tanh"},
    {"relu2", "relu2"},        {"gelu_fast", "gelu_tanh"}, {NULL, NULL},
};

static mn_status read_activation(struct reader *r, const mn__family_key *key, const char *name)
{
    for (const char *const(*each)[2] = mn__config_activations; (*each)[0]; each++)
        if (!strcmp(name, (*each)[0])) {
            put(r, key->option, (*each)[1]);
            return MN_OK;
        }
    return missing(r, "activations are silu, gelu (also its forms by tanh), relu and relu2",
                   key->key, name);
}

static mn_status read_int(struct reader *r, const mn__family_key *key)
{
    int64_t value = 0;
    mn_status status = mn__json_int(r->root, key->key, MN__JSON_REQUIRED, &value, r->error);
    if (status != MN_OK)
        return status;
    if (key->option)
        put_int(r, key->option, value);
    if (key->option && !strcmp(key->option, "width"))
        r->width = value;
    if (key->option && !strcmp(key->option, "depth"))
        r->depth = value;
    if (key->option && !strcmp(key->option, "head_width"))
        r->head_width = value;
    if (key->kind == MN__KEY_WIDTH && value != r->width)
        return missing(r, "embeddings have to be as wide as the model", key->key,
                       "another than hidden_size");
    return MN_OK;
}

static mn_status read_bool(struct reader *r, const mn__family_key *key)
{
    bool value = false;
    mn_status status = mn__json_bool(r->root, key->key, MN__JSON_REQUIRED, &value, r->error);
    if (status != MN_OK)
        return status;
    if (key->kind == MN__KEY_BOOL)
        put(r, key->option, value ? key->yes ? key->yes : "true" : key->no ? key->no : "false");
    else if (value != (key->kind == MN__KEY_TRUE))
        return missing(r, NULL, key->key, value ? "true" : "false");
    return MN_OK;
}

static mn_status read_key(struct reader *r, const mn__family_key *key)
{
    const json_t *found = json_object_get(r->root.value, key->key);
    const char *name = NULL;
    double number = 0;
    mn_status status = MN_OK;
    if (key->fallback && (!found || json_is_null(found))) {
        if (key->option)
            put(r, key->option, key->fallback);
        if (key->option && !strcmp(key->option, "head_width"))
            r->head_width = strtoll(key->fallback, NULL, 10);
        return MN_OK;
    }
    switch (key->kind) {
    case MN__KEY_INT:
    case MN__KEY_WIDTH:
        return read_int(r, key);
    case MN__KEY_FLOAT:
        status = mn__json_float(r->root, key->key, MN__JSON_REQUIRED, &number, r->error);
        if (status == MN_OK)
            put_float(r, key->option, number);
        return status;
    case MN__KEY_BOOL:
    case MN__KEY_TRUE:
    case MN__KEY_FALSE:
        return read_bool(r, key);
    case MN__KEY_ACTIVATION:
        status = mn__json_string(r->root, key->key, MN__JSON_REQUIRED, &name, r->error);
        return status == MN_OK ? read_activation(r, key, name) : status;
    case MN__KEY_END:
        break;
    }
    return status;
}

/* Of the whole model: what no table says. */
static mn_status read_sizes(struct reader *r)
{
    mn__config *config = r->config;
    const char *vocabulary = r->family->vocabulary ? r->family->vocabulary : "vocab_size";
    mn_status status =
        mn__json_int(r->root, vocabulary, MN__JSON_REQUIRED, &config->vocabulary, r->error);
    if (status == MN_OK)
        status = mn__json_int(r->root, r->family->context, MN__JSON_REQUIRED, &config->context,
                              r->error);
    if (status != MN_OK)
        return status;
    const json_t *quantized = json_object_get(r->root.value, "quantization_config");
    if (quantized && !json_is_null(quantized))
        return missing(r, "fetch the model in bf16, f16 or f32", "quantization_config", "there");
    if (config->vocabulary < 1 || config->vocabulary > INT32_MAX)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: %s %lld", r->root.file, vocabulary,
                        (long long)config->vocabulary);
    if (config->context < 1 || config->context > 1000000000)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: %s %lld", r->root.file,
                        r->family->context, (long long)config->context);
    config->tokens = config->tokens > 0 ? config->tokens : config->context;
    if (!r->family->rope && config->tokens > config->context)
        return mn__fail(r->error, MN_ERROR_MISMATCH,
                        "plan for fewer, or slide a window over the text",
                        "%s: %lld tokens are planned for, and the model has learned %lld positions",
                        r->root.file, (long long)config->tokens, (long long)config->context);
    return MN_OK;
}

/* ---- Rotary positions -------------------------------------------------------------------- */

static const char *const no_floats[][2] = {{NULL, NULL}};
static const char *const llama3_floats[][2] = {
    {"low_freq_factor", "rope_low"}, {"high_freq_factor", "rope_high"}, {NULL, NULL}};
static const char *const yarn_floats[][2] = {{"attention_factor", "rope_magnitude"},
                                             {"beta_fast", "rope_fast"},
                                             {"beta_slow", "rope_slow"},
                                             {NULL, NULL}};
static const char *const longrope_floats[][2] = {{"attention_factor", "rope_magnitude"},
                                                 {NULL, NULL}};

static const mn__rope_words stretches[] = {
    {"linear", no_floats, false, false, false, false},
    {"dynamic", no_floats, true, true, false, false},
    {"llama3", llama3_floats, true, false, false, false},
    {"yarn", yarn_floats, true, false, true, false},
    {"longrope", longrope_floats, true, true, false, true},
};

const mn__rope_words *mn__rope_words_find(const char *name)
{
    for (size_t i = 0; i < sizeof stretches / sizeof *stretches; i++)
        if (!strcmp(name, stretches[i].name))
            return &stretches[i];
    return NULL;
}

/* rope.key, or where it is missing the whole file's. */
static mn_status read_rope_float(const struct reader *r, mn__json rope, const char *key,
                                 double *value)
{
    const json_t *own = json_object_get(rope.value, key);
    return mn__json_float(own && !json_is_null(own) ? rope : r->root, key, MN__JSON_OPTIONAL, value,
                          r->error);
}

/* The length of the first training: the whole file's comes first, as in transformers. */
static mn_status put_original(struct reader *r, mn__json rope, int64_t *original)
{
    static const char key[] = "original_max_position_embeddings";
    *original = r->config->context;
    mn_status status = mn__json_int(rope, key, MN__JSON_OPTIONAL, original, r->error);
    if (status == MN_OK)
        status = mn__json_int(r->root, key, MN__JSON_OPTIONAL, original, r->error);
    if (status != MN_OK)
        return status;
    if (*original < 1)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: %s %lld", r->root.file, key,
                        (long long)*original);
    put_int(r, "rope_original", *original);
    return MN_OK;
}

static mn_status put_factor(struct reader *r, mn__json rope, double fallback, double *factor)
{
    *factor = fallback;
    mn_status status = mn__json_float(
        rope, "factor", fallback > 0 ? MN__JSON_OPTIONAL : MN__JSON_REQUIRED, factor, r->error);
    if (status == MN_OK)
        put_float(r, "rope_factor", *factor);
    return status;
}

/* Floats that are options by another name. */
static mn_status put_floats(struct reader *r, mn__json rope, const char *const (*names)[2])
{
    mn_status status = MN_OK;
    for (; (*names)[0] && status == MN_OK; names++) {
        double value = -1;
        status = mn__json_float(rope, (*names)[0], MN__JSON_OPTIONAL, &value, r->error);
        if (status == MN_OK && value != -1)
            put_float(r, (*names)[1], value);
    }
    return status;
}

static mn_status put_factors(struct reader *r, mn__json rope, const char *key, const char *option)
{
    mn__json list;
    mn_status status = mn__json_array(rope, key, MN__JSON_REQUIRED, &list, r->error);
    if (status != MN_OK)
        return status;
    mn__string_printf(&r->model, ", %s: [", option);
    for (size_t i = 0; i < json_array_size(list.value); i++) {
        const json_t *item = json_array_get(list.value, i);
        if (!json_is_number(item))
            return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: '%s' holds what is no number",
                            r->root.file, key);
        mn__string_printf(&r->model, "%s%.17g", i ? ", " : "", json_number_value(item));
    }
    mn__string_puts(&r->model, "]");
    return MN_OK;
}

/* 0.1 m ln f + 1 */
static double yarn_magnitude(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

static mn_status read_yarn(struct reader *r, mn__json rope)
{
    int64_t original = 0;
    double factor = 0, m = 0, m_all = 0, own = -1;
    bool truncate = true;
    mn_status status = put_original(r, rope, &original);
    if (status == MN_OK)
        status = put_factor(r, rope, (double)r->config->context / (double)original, &factor);
    if (status == MN_OK)
        status = put_floats(r, rope, yarn_floats);
    if (status == MN_OK)
        status = mn__json_float(rope, "attention_factor", MN__JSON_OPTIONAL, &own, r->error);
    if (status == MN_OK)
        status = mn__json_float(rope, "mscale", MN__JSON_OPTIONAL, &m, r->error);
    if (status == MN_OK)
        status = mn__json_float(rope, "mscale_all_dim", MN__JSON_OPTIONAL, &m_all, r->error);
    if (status == MN_OK)
        status = mn__json_bool(rope, "truncate", MN__JSON_OPTIONAL, &truncate, r->error);
    if (own < 0 && m != 0 && m_all != 0)
        put_float(r, "rope_magnitude", yarn_magnitude(factor, m) / yarn_magnitude(factor, m_all));
    put(r, "rope_truncate", truncate ? "true" : "false");
    return status;
}

static mn_status read_longrope(struct reader *r, mn__json rope)
{
    int64_t original = 0;
    double factor = 0;
    mn_status status = put_original(r, rope, &original);
    if (status == MN_OK)
        status = put_factor(r, rope, (double)r->config->context / (double)original, &factor);
    if (status == MN_OK)
        status = put_floats(r, rope, longrope_floats);
    if (status == MN_OK)
        status = put_factors(r, rope, "short_factor", "rope_short");
    return status == MN_OK ? put_factors(r, rope, "long_factor", "rope_long") : status;
}

static mn_status read_llama3(struct reader *r, mn__json rope)
{
    int64_t original = 0;
    double factor = 0;
    mn_status status = put_original(r, rope, &original);
    if (status == MN_OK)
        status = put_factor(r, rope, 0, &factor);
    return status == MN_OK ? put_floats(r, rope, llama3_floats) : status;
}

static mn_status read_scaling(struct reader *r, mn__json rope, const char *type)
{
    double factor = 0;
    if (!strcmp(type, "default"))
        return MN_OK;
    put_int(r, "rope_length", r->config->tokens);
    /* Its names at first; Phi-3 called it yarn, too. */
    bool longrope = !strcmp(type, "longrope") || !strcmp(type, "su") ||
                    (!strcmp(type, "yarn") && json_object_get(rope.value, "long_factor"));
    put(r, "rope_scaling", longrope ? "longrope" : type);
    if (longrope)
        return read_longrope(r, rope);
    if (!strcmp(type, "yarn"))
        return read_yarn(r, rope);
    if (!strcmp(type, "llama3"))
        return read_llama3(r, rope);
    if (!strcmp(type, "dynamic")) /* counts from the whole context, as in transformers */
        put_int(r, "rope_original", r->config->context);
    else if (strcmp(type, "linear"))
        return missing(r, "types are default, linear, dynamic, llama3, yarn and longrope",
                       "rope_type", type);
    return put_factor(r, rope, 0, &factor);
}

/* `rope_parameters`, or in older files `rope_scaling` and keys beside it. */
static mn_status read_rope(struct reader *r)
{
    mn__json rope = {r->root.file, NULL};
    double base = 10000, ratio = 1, partial = r->family->partial;
    const char *type = "default";
    mn_status status = mn__json_object(r->root, "rope_scaling", MN__JSON_OPTIONAL, &rope, r->error);
    if (status == MN_OK)
        status = mn__json_object(r->root, "rope_parameters", MN__JSON_OPTIONAL, &rope, r->error);
    if (status == MN_OK)
        status = read_rope_float(r, rope, "rope_theta", &base);
    if (status == MN_OK && r->family->ratio)
        status = mn__json_float(r->root, r->family->ratio, MN__JSON_OPTIONAL, &ratio, r->error);
    if (status == MN_OK)
        status = read_rope_float(r, rope, "partial_rotary_factor", &partial);
    if (status == MN_OK && rope.value)
        status = mn__json_string(rope, "type", MN__JSON_OPTIONAL, &type, r->error);
    if (status == MN_OK && rope.value)
        status = mn__json_string(rope, "rope_type", MN__JSON_OPTIONAL, &type, r->error);
    if (status != MN_OK)
        return status;
    for (void *at = json_object_iter((json_t *)(uintptr_t)rope.value); at;
         at = json_object_iter_next((json_t *)(uintptr_t)rope.value, at))
        if (json_is_object(json_object_iter_value(at)))
            return missing(r, NULL, "rope_parameters", "one for each type of layer");
    put_float(r, "rope_base", base * ratio);
    if (!(partial > 0 && partial <= 1))
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: partial_rotary_factor %g",
                        r->root.file, partial);
    if (partial < 1)
        put_int(r, "rope_width", (int64_t)((double)r->head_width * partial));
    return read_scaling(r, rope, type);
}

/* A list of the layers whose heads do not turn: those of 0 in no_rope_layers, or each
 * no_rope_layer_interval-th. */
static mn_status put_unturned(struct reader *r)
{
    mn__json turned = {r->root.file, NULL};
    int64_t interval = 4;
    bool some = false;
    mn_status status =
        mn__json_array(r->root, "no_rope_layers", MN__JSON_OPTIONAL, &turned, r->error);
    if (status == MN_OK)
        status =
            mn__json_int(r->root, "no_rope_layer_interval", MN__JSON_OPTIONAL, &interval, r->error);
    if (status == MN_OK && !turned.value && interval < 1)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: no_rope_layer_interval %lld",
                        r->root.file, (long long)interval);
    for (int64_t i = 0; i < r->depth && i < LAYERS_MOST && status == MN_OK; i++) {
        const json_t *own = json_array_get(turned.value, (size_t)i);
        if (turned.value && !json_is_integer(own))
            return mn__fail(r->error, MN_ERROR_FORMAT, NULL,
                            "%s: no_rope_layers has none for layer %lld", r->root.file,
                            (long long)i);
        if (turned.value ? json_integer_value(own) : (i + 1) % interval)
            continue;
        mn__string_printf(&r->model, some ? ", %lld" : ", layers: [{layers: [%lld", (long long)i);
        some = true;
    }
    if (some)
        mn__string_puts(&r->model, "], type: full, rope: false}]");
    return status;
}

/* ---- Windows ----------------------------------------------------------------------------- */

/* -1: none. */
static mn_status read_window(const struct reader *r, int64_t *window)
{
    const json_t *found = json_object_get(r->root.value, "sliding_window");
    *window = !found && r->family->window_fallback ? r->family->window_fallback : -1;
    mn_status status = mn__json_int(r->root, "sliding_window", MN__JSON_OPTIONAL, window, r->error);
    if (status == MN_OK && found && !json_is_null(found) && *window < 1)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: sliding_window %lld", r->root.file,
                        (long long)*window);
    return status;
}

/* Whether layer i sees a window alone. */
static mn_status is_windowed(const struct reader *r, mn__json types, int64_t layer, int64_t from,
                             bool *windowed)
{
    *windowed = layer >= from;
    if (!types.value)
        return MN_OK;
    const char *type = json_string_value(json_array_get(types.value, (size_t)layer));
    if (!type)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: layer_types has none for layer %lld",
                        r->root.file, (long long)layer);
    *windowed = !strcmp(type, "sliding_attention");
    if (!*windowed && strcmp(type, "full_attention"))
        return missing(r, "layers are full_attention or sliding_attention", "a layer type", type);
    return MN_OK;
}

/* A list of layers of which some have a window. */
static mn_status put_layers(struct reader *r, int64_t window)
{
    bool uses = false, some = false;
    int64_t from = r->depth;
    mn__json types = {r->root.file, NULL};
    mn_status status =
        mn__json_bool(r->root, "use_sliding_window", MN__JSON_OPTIONAL, &uses, r->error);
    from = uses ? 28 : from; /* transformers' own, where the key is missing */
    if (status == MN_OK && uses)
        status = mn__json_int(r->root, "max_window_layers", MN__JSON_OPTIONAL, &from, r->error);
    if (status == MN_OK)
        status = mn__json_array(r->root, "layer_types", MN__JSON_OPTIONAL, &types, r->error);
    for (int64_t i = 0; i < r->depth && i < LAYERS_MOST && status == MN_OK; i++) {
        bool windowed;
        status = is_windowed(r, types, i, from, &windowed);
        if (status != MN_OK || !windowed)
            continue;
        if (!uses || window < 1)
            return mn__fail(r->error, MN_ERROR_FORMAT, NULL,
                            "%s: layer %lld has a window, and there is no sliding_window in use",
                            r->root.file, (long long)i);
        if (window >= r->config->tokens) /* sees all that there will be */
            continue;
        mn__string_printf(&r->model, some ? ", %lld" : ", layers: [{layers: [%lld", (long long)i);
        some = true;
    }
    if (some)
        mn__string_printf(&r->model, "], type: window, window: %lld}]", (long long)window);
    return status;
}

static mn_status read_windows(struct reader *r)
{
    int64_t window = -1;
    mn_status status = read_window(r, &window);
    if (status == MN_OK && r->family->window == MN__WINDOW_LAYERS)
        return put_layers(r, window);
    if (status != MN_OK || window < 1 || window >= r->config->tokens)
        return status;
    r->attention = mn__arena_printf(r->arena, "type: window, window: %lld", (long long)window);
    return r->attention ? MN_OK
                        : mn__fail(r->error, MN_ERROR_MEMORY, NULL, "no memory for a model");
}

/* Qwen2.5-1M reads by chunks beyond this length; up to it that is plain attention, and more
 * is not planned for unless it is asked for. */
static mn_status check_chunks(const struct reader *r, bool asked)
{
    mn__json chunks = {r->root.file, NULL};
    int64_t most = INT64_MAX;
    mn_status status = mn__json_object(r->root, "dual_chunk_attention_config", MN__JSON_OPTIONAL,
                                       &chunks, r->error);
    if (status == MN_OK && chunks.value)
        status = mn__json_int(chunks, "chunk_size", MN__JSON_REQUIRED, &most, r->error);
    if (status == MN_OK && !asked && most > 0 && r->config->tokens > most)
        r->config->tokens = most;
    if (status == MN_OK && r->config->tokens > most)
        return mn__fail(r->error, MN_ERROR_UNSUPPORTED, "plan for fewer tokens",
                        "%s: beyond %lld tokens the model has dual chunk attention, which is not "
                        "supported, and %lld are planned for",
                        r->root.file, (long long)most, (long long)r->config->tokens);
    return status;
}

mn_status mn__config_read_ends(mn__config *config, mn__arena *arena, const char *path,
                               const json_t *root, mn_error *error)
{
    const json_t *found = json_object_get(root, "eos_token_id");
    if (!found || json_is_null(found))
        return MN_OK;
    int64_t count = json_is_array(found) ? (int64_t)json_array_size(found) : 1;
    int32_t *ends = mn__arena_calloc(arena, count, sizeof *ends);
    if (!ends)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model");
    for (int64_t i = 0; i < count; i++) {
        const json_t *id = json_is_array(found) ? json_array_get(found, (size_t)i) : found;
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= config->vocabulary)
            return mn__fail(error, MN_ERROR_FORMAT, "fetch the folder again",
                            "%s: 'eos_token_id' holds what is no id below %lld", path,
                            (long long)config->vocabulary);
        ends[i] = (int32_t)json_integer_value(id);
    }
    config->ends = ends;
    config->end_count = count;
    return MN_OK;
}

/* ---- The whole --------------------------------------------------------------------------- */

static mn_status find_family(struct reader *r)
{
    const char *type = NULL;
    mn_status status = mn__json_string(r->root, "model_type", MN__JSON_REQUIRED, &type, r->error);
    if (status != MN_OK)
        return status;
    r->family = mn__family_find(type);
    if (r->family)
        return MN_OK;
    mn__string names = {0};
    for (const mn__family *const *each = mn__families; *each; each++)
        mn__string_printf(&names, "%s%s", each == mn__families ? "known here are " : ", ",
                          (*each)->type);
    status = missing(r, names.text, "model_type", type);
    mn__string_free(&names);
    return status;
}

/* Errors of the decoder's own then name the file, without a line. */
static void name_file(mn__yaml_node *node, const char *path)
{
    node->file = path;
    node->line = 0;
    for (int64_t i = 0; i < node->count; i++) {
        name_file(node->items[i], path);
        if (node->keys)
            name_file(node->keys[i], path);
    }
}

static mn_status read_model(struct reader *r)
{
    mn_status status = find_family(r);
    if (status != MN_OK)
        return status;
    bool asked = r->config->tokens > 0;
    r->config->family = r->family;
    status = read_sizes(r);
    if (status == MN_OK)
        status = check_chunks(r, asked);
    for (const mn__family_key *key = r->family->keys; key->key && status == MN_OK; key++)
        status = read_key(r, key);
    if (status == MN_OK && !r->head_width) {
        int64_t heads = json_integer_value(json_object_get(r->root.value, "num_attention_heads"));
        r->head_width = heads > 0 ? r->width / heads : 0;
    }
    if (status == MN_OK && r->family->rope)
        status = read_rope(r);
    if (status == MN_OK && r->family->unturned)
        status = put_unturned(r);
    if (status == MN_OK && r->family->window)
        status = read_windows(r);
    return status == MN_OK
               ? mn__config_read_ends(r->config, r->arena, r->root.file, r->root.value, r->error)
               : status;
}

mn_status mn__config_read(mn__config *config, mn__arena *arena, const char *path,
                          const json_t *root, int64_t tokens, mn_error *error)
{
    *config = (mn__config){.tokens = tokens};
    struct reader r = {.config = config,
                       .arena = arena,
                       .root = {path, root},
                       .attention = "type: full",
                       .error = error};
    if (!json_is_object(root))
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: no JSON object", path);
    mn_status status = read_model(&r);
    mn__string recipe = {0};
    if (status == MN_OK)
        mn__string_printf(&recipe, "model: {%s%s}\nattention: {%s}\n", r.family->options,
                          r.model.text ? r.model.text : "", r.attention);
    if (status == MN_OK && (r.model.failed || recipe.failed))
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model");
    if (status == MN_OK)
        status = mn__yaml_parse(arena, path, recipe.text, recipe.bytes, &config->recipe, error);
    if (status == MN_OK)
        name_file(config->recipe, path);
    mn__string_free(&recipe);
    mn__string_free(&r.model);
    return status;
}
