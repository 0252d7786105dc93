/* config.json, written. */
#include "model/config_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/string.h"

enum { ROTARY = 2, DIFFERENCES_TOLD = 4 }; /* positions: rope */

/* ---- Options of a decoder ----------------------------------------------------------------- */

static const mn__option *option_of(const char *name)
{
    const mn__option *option = mn__decoder_option_table;
    while (option->name && strcmp(option->name, name))
        option++;
    return option;
}

/* Its value as text, which the caller frees. */
static mn__string value_of(const mn__decoder *decoder, const char *name)
{
    mn__string text = {0};
    mn__options_value(option_of(name), mn__decoder_options_of(decoder), &text);
    return text;
}

/* That of an attention; "" where its type has no such option. */
static mn__string attention_value(const mn__attention *attention, const char *name)
{
    mn__string text = {0};
    for (const mn__option *option = attention->type->options; option && option->name; option++)
        if (!strcmp(option->name, name))
            mn__options_value(option, attention->options, &text);
    return text;
}

static bool is(const mn__string *text, const char *other)
{
    return !strcmp(text->text ? text->text : "", other);
}

/* ---- Keys --------------------------------------------------------------------------------- */

static json_t *activation_json(const char *ours)
{
    for (const char *const(*each)[2] = mn__config_activations; (*each)[0]; each++)
        if (!strcmp(ours, (*each)[1]))
            return json_string((*each)[0]);
    return json_string(ours);
}

static json_t *key_json(const mn__family_key *key, const mn__decoder *decoder)
{
    const mn__decoder_options *options = mn__decoder_options_of(decoder);
    json_t *value = NULL;
    mn__string text = {0};
    if (key->option)
        text = value_of(decoder, key->option);
    const char *word = text.text ? text.text : "";
    switch (key->kind) {
    case MN__KEY_INT:
        value = json_integer(strtoll(word, NULL, 10));
        break;
    case MN__KEY_FLOAT:
        value = json_real(strtod(word, NULL));
        break;
    case MN__KEY_BOOL: /* a third value is found when this is read again */
        value = json_boolean(!strcmp(word, key->yes ? key->yes : "true"));
        break;
    case MN__KEY_ACTIVATION:
        value = activation_json(word);
        break;
    case MN__KEY_TRUE:
    case MN__KEY_FALSE:
        value = json_boolean(key->kind == MN__KEY_TRUE);
        break;
    case MN__KEY_WIDTH:
        value = json_integer((json_int_t)options->width);
        break;
    case MN__KEY_END:
        break;
    }
    mn__string_free(&text);
    return value;
}

/* ---- Positions and windows ---------------------------------------------------------------- */

static json_t *factors_json(const mn__string_list *list)
{
    json_t *factors = json_array();
    for (int64_t i = 0; i < list->count; i++)
        json_array_append_new(factors, json_real(strtod(list->items[i], NULL)));
    return factors;
}

static json_t *stretch_json(const mn__decoder *decoder, const mn__rope_words *stretch)
{
    const mn__decoder_options *options = mn__decoder_options_of(decoder);
    json_t *rope =
        json_pack("{s:s, s:f}", "rope_type", stretch->name, "factor", options->rope_factor);
    if (stretch->original)
        json_object_set_new(rope, "original_max_position_embeddings",
                            json_integer((json_int_t)options->rope_original));
    for (const char *const(*each)[2] = stretch->floats; (*each)[0]; each++) {
        mn__string text = value_of(decoder, (*each)[1]);
        double value = text.text ? strtod(text.text, NULL) : 0;
        if (value != 0 || strcmp((*each)[1], "rope_magnitude")) /* 0: as the way has it */
            json_object_set_new(rope, (*each)[0], json_real(value));
        mn__string_free(&text);
    }
    if (stretch->truncates)
        json_object_set_new(rope, "truncate", json_boolean(options->rope_truncate));
    if (stretch->lists) {
        json_object_set_new(rope, "short_factor", factors_json(&options->rope_short));
        json_object_set_new(rope, "long_factor", factors_json(&options->rope_long));
    }
    return rope;
}

static void put_rope(json_t *root, const mn__family *family, const mn__decoder *decoder)
{
    const mn__decoder_options *options = mn__decoder_options_of(decoder);
    mn__string scaling = value_of(decoder, "rope_scaling");
    const mn__rope_words *stretch = mn__rope_words_find(scaling.text ? scaling.text : "");
    double width = (double)(options->rope_width ? options->rope_width : options->head_width);
    json_object_set_new(root, "rope_theta", json_real(options->rope_base));
    if (family->partial_key)
        json_object_set_new(root, "partial_rotary_factor",
                            json_real(width / (double)options->head_width));
    if (stretch) {
        json_t *rope = stretch_json(decoder, stretch);
        json_t *original = json_object_get(rope, "original_max_position_embeddings");
        if (original) /* where Phi-3 has it */
            json_object_set(root, "original_max_position_embeddings", original);
        json_object_set_new(root, "rope_scaling", rope);
    }
    mn__string_free(&scaling);
}

static void put_unturned(json_t *root, const mn__decoder *decoder)
{
    json_t *turned = json_array();
    for (int64_t i = 0; i < mn__decoder_options_of(decoder)->depth; i++) {
        const mn__attention *attention = mn__decoder_attention(decoder, i, 0);
        mn__string rope = {0};
        if (attention)
            rope = attention_value(attention, "rope");
        json_array_append_new(turned, json_integer(!is(&rope, "false")));
        mn__string_free(&rope);
    }
    json_object_set_new(root, "no_rope_layers", turned);
}

/* The window of a layer; 0: it has none. */
static int64_t window_of(const mn__decoder *decoder, int64_t layer)
{
    const mn__attention *attention = mn__decoder_attention(decoder, layer, 0);
    mn__string text = {0};
    if (attention)
        text = attention_value(attention, "window");
    int64_t window = text.text ? strtoll(text.text, NULL, 10) : 0;
    mn__string_free(&text);
    return window;
}

static void put_windows(json_t *root, const mn__family *family, const mn__decoder *decoder)
{
    int64_t window = 0, depth = mn__decoder_options_of(decoder)->depth;
    json_t *types = json_array();
    for (int64_t i = 0; i < depth; i++) {
        int64_t own = window_of(decoder, i);
        window = own ? own : window;
        json_array_append_new(types, json_string(own ? "sliding_attention" : "full_attention"));
    }
    json_object_set_new(root, "sliding_window",
                        window ? json_integer((json_int_t)window) : json_null());
    if (family->window == MN__WINDOW_LAYERS) {
        json_object_set_new(root, "use_sliding_window", json_boolean(window != 0));
        json_object_set_new(root, "max_window_layers", json_integer((json_int_t)depth));
        json_object_set(root, "layer_types", types);
    }
    json_decref(types);
}

/* ---- One family ----------------------------------------------------------------------------- */

static json_t *write_config(const mn__family *family, const mn__decoder *decoder, int64_t context)
{
    json_t *root = json_pack("{s:s, s:[s]}", "model_type", family->type, "architectures",
                             family->architecture);
    for (const mn__family_key *key = family->keys; key->key; key++)
        json_object_set_new(root, key->key, key_json(key, decoder));
    json_object_set_new(root, family->vocabulary ? family->vocabulary : "vocab_size",
                        json_integer((json_int_t)mn__decoder_vocabulary(decoder)));
    json_object_set_new(root, family->context, json_integer((json_int_t)context));
    if (family->rope)
        put_rope(root, family, decoder);
    if (family->unturned)
        put_unturned(root, decoder);
    if (family->window)
        put_windows(root, family, decoder);
    return root;
}

/* Whether an option of `model` says what a decoder computes, in a family's words. */
static bool counts(const char *name, const mn__decoder_options *options,
                   const mn__rope_words *stretch)
{
    static const char *const training[] = {"dropout", "embedding_dropout", "hidden_dropout",
                                           "initial_deviation", "recompute"};
    for (size_t i = 0; i < sizeof training / sizeof *training; i++)
        if (!strcmp(name, training[i]))
            return false;
    if (!strcmp(name, "max_positions"))
        return options->positions == 1;
    if (strncmp(name, "rope_", 5))
        return true;
    if (options->positions != ROTARY || !strcmp(name, "rope_interleaved"))
        return false;
    if (!strcmp(name, "rope_base") || !strcmp(name, "rope_width") || !strcmp(name, "rope_scaling"))
        return true;
    if (!stretch)
        return false;
    for (const char *const(*each)[2] = stretch->floats; (*each)[0]; each++)
        if (!strcmp(name, (*each)[1]))
            return true;
    if (!strcmp(name, "rope_original"))
        return stretch->original;
    if (!strcmp(name, "rope_length"))
        return stretch->length;
    if (!strcmp(name, "rope_truncate"))
        return stretch->truncates;
    if (!strcmp(name, "rope_short") || !strcmp(name, "rope_long"))
        return stretch->lists;
    return !strcmp(name, "rope_factor");
}

/* What a decoder and another one differ in: "positions: none (there rope)", .. */
struct comparison {
    mn__string text;
    int64_t count;
};

static void tell(struct comparison *c, const char *name, const char *ours, const char *theirs)
{
    if (c->count++ < DIFFERENCES_TOLD)
        mn__string_printf(&c->text, "%s%s: %s (there %s)", c->count > 1 ? ", " : "", name, ours,
                          theirs);
}

static void compare_values(struct comparison *c, const char *name, mn__string *ours,
                           mn__string *theirs)
{
    c->text.failed |= ours->failed || theirs->failed;
    if (!is(ours, theirs->text ? theirs->text : ""))
        tell(c, name, ours->text ? ours->text : "", theirs->text ? theirs->text : "");
    mn__string_free(ours);
    mn__string_free(theirs);
}

/* With the sizes that 0 stands for. */
static mn__decoder_options resolved(const mn__decoder *decoder)
{
    mn__decoder_options options = *mn__decoder_options_of(decoder);
    options.rope_width = options.rope_width ? options.rope_width : options.head_width;
    options.rope_length = options.rope_length ? options.rope_length : options.rope_original;
    return options;
}

static void compare_models(struct comparison *c, const mn__decoder *ours, const mn__decoder *theirs)
{
    mn__decoder_options own = resolved(ours), other = resolved(theirs);
    mn__string scaling = value_of(ours, "rope_scaling");
    const mn__rope_words *stretch = mn__rope_words_find(scaling.text ? scaling.text : "");
    for (const mn__option *option = mn__decoder_option_table; option->name; option++) {
        mn__string left = {0}, right = {0};
        if (!counts(option->name, &own, stretch))
            continue;
        mn__options_value(option, &own, &left);
        mn__options_value(option, &other, &right);
        compare_values(c, option->name, &left, &right);
    }
    mn__string_free(&scaling);
}

static void compare_attention(struct comparison *c, const mn__attention *ours,
                              const mn__attention *theirs)
{
    for (const mn__option *option = ours->type->options; option && option->name; option++) {
        mn__string left = {0}, right = {0};
        if (strstr(option->name, "dropout"))
            continue;
        mn__options_value(option, ours->options, &left);
        mn__options_value(option, theirs->options, &right);
        compare_values(c, option->name, &left, &right);
    }
}

/* The first layer that differs speaks for all. */
static void compare_layers(struct comparison *c, const mn__decoder *ours, const mn__decoder *theirs)
{
    int64_t depth = mn__decoder_options_of(ours)->depth, before = c->count;
    if (depth != mn__decoder_options_of(theirs)->depth)
        return;
    for (int64_t i = 0; i < depth && c->count == before; i++) {
        mn__string left = {0}, right = {0};
        mn__decoder_put_block(ours, i, &left);
        mn__decoder_put_block(theirs, i, &right);
        compare_values(c, "a layer", &left, &right);
        const mn__attention *own, *other;
        for (int64_t n = 0; c->count == before; n++) {
            own = mn__decoder_attention(ours, i, n);
            other = mn__decoder_attention(theirs, i, n);
            if (!own || !other)
                break;
            compare_attention(c, own, other);
        }
    }
}

/* Reads a configuration, makes its decoder, without memory for it, and compares. */
static mn_status compare(struct comparison *c, json_t *root, const mn__decoder *decoder,
                         mn_error *error)
{
    mn__arena arena;
    mn__config config = {0};
    mn__device device;
    mn__params params;
    mn__decoder *other = NULL;
    mn_error why = {0};
    mn__arena_init(&arena, 1 << 14);
    mn_status status = mn__device_open_counting(&device, error);
    if (status != MN_OK)
        return status;
    mn__params_init(&params, &device, 0);
    status = mn__config_read(&config, &arena, "config.json", root, 0, &why);
    if (status == MN_OK)
        status =
            mn__decoder_new(&other, &params, mn__yaml_get(config.recipe, "model"),
                            mn__yaml_get(config.recipe, "attention"), config.vocabulary, 1, &why);
    if (status == MN_OK) {
        compare_layers(c, decoder, other);
        compare_models(c, decoder, other);
    } else if (status == MN_ERROR_MEMORY) {
        mn__fail(error, status, why.hint, "%s", why.message);
    } else {
        c->count = INT32_MAX;
        mn__string_puts(&c->text, why.message);
        status = MN_OK;
    }
    mn__decoder_free(other);
    mn__params_free(&params);
    mn__device_close(&device);
    mn__arena_free(&arena);
    return status;
}

/* ---- All of them ------------------------------------------------------------------------------
 */

struct nearest {
    const mn__family *family;
    struct comparison comparison;
    json_t *root;
};

/* Keeps a family that differs in less than the one before. */
static mn_status try_family(struct nearest *nearest, const mn__family *family,
                            const mn__decoder *decoder, int64_t context, mn_error *error)
{
    if (!family || !family->architecture || (nearest->family && !nearest->comparison.count))
        return MN_OK;
    struct nearest own = {.family = family, .root = write_config(family, decoder, context)};
    mn_status status = compare(&own.comparison, own.root, decoder, error);
    if (status == MN_OK && own.comparison.text.failed)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model's configuration");
    if (status == MN_OK && (!nearest->family || own.comparison.count < nearest->comparison.count)) {
        struct nearest other = *nearest;
        *nearest = own;
        own = other;
    }
    json_decref(own.root);
    mn__string_free(&own.comparison.text);
    return status;
}

mn_status mn__config_write(json_t **root, const mn__family **family, const mn__decoder *decoder,
                           int64_t context, const mn__family *first, mn_error *error)
{
    struct nearest nearest = {0};
    *root = NULL;
    mn_status status = try_family(&nearest, first, decoder, context, error);
    for (const mn__family *const *each = mn__families; *each && status == MN_OK; each++)
        status = try_family(&nearest, *each, decoder, context, error);
    if (status == MN_OK && nearest.comparison.count)
        status = mn__fail(error, MN_ERROR_UNSUPPORTED,
                          "models of full attention in the manner of Llama, Qwen, GLM, GPT-2 or "
                          "OPT have one",
                          "the model has no counterpart in transformers; the nearest family is "
                          "%s, and differs in %s%s",
                          nearest.family->type, nearest.comparison.text.text,
                          nearest.comparison.count > DIFFERENCES_TOLD ? ", and more" : "");
    if (status == MN_OK) {
        *root = json_incref(nearest.root);
        *family = nearest.family;
    }
    json_decref(nearest.root);
    mn__string_free(&nearest.comparison.text);
    return status;
}
