/* Blocks: the recipe's lists of sublayers (decoder.h), and the parameters of each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/build.h"

/* The making of all blocks, one after the other. */
struct making {
    mn__decoder *decoder;
    const mn__yaml_node *model, *attention; /* the recipe's sections */
    struct mn__attending **end;             /* of the list of attentions */
    /* Of the block that is made now: */
    int64_t number;
    const mn__yaml_node *list;
    const mn__yaml_node *item; /* of model.layers, where it says what `attention` is */
    int attentions, feed_forwards;
};

/* ---- The lists ------------------------------------------------------------------------ */

static mn_status fail_list(const mn__yaml_node *node, mn_error *error)
{
    return mn__yaml_fail(node,
                         "for example [attention, feed_forward], or parallel: "
                         "[[attention, feed_forward]]",
                         error, "block: expects a list of sublayers%s%s",
                         node->kind == MN__YAML_SCALAR ? ", found " : " that is not empty",
                         node->kind == MN__YAML_SCALAR ? node->text : "");
}

static mn_status fail_sublayer(const mn__yaml_node *node, mn_error *error)
{
    if (node->kind == MN__YAML_SEQUENCE)
        return mn__yaml_fail(node, "a list in a block is parallel already", error,
                             "block: parallel sublayers in parallel sublayers");
    bool type = mn__attention_find(node->text);
    return mn__yaml_fail(node,
                         type ? "write {type: ...}, with the type's options"
                              : "sublayers are attention, feed_forward, an attention's {type: ...} "
                                "with options, and lists of these, which are parallel",
                         error, "block: no sublayer `%s`", node->text);
}

static bool is_named(const mn__yaml_node *node, const char *name)
{
    return node->kind == MN__YAML_SCALAR && !strcmp(node->text, name);
}

/* Whether an item of model.layers names this layer; false on failure too. */
static bool names_layer(const mn__yaml_node *item, int64_t layer, int64_t depth, mn_status *status,
                        mn_error *error)
{
    const mn__yaml_node *numbers = mn__yaml_get(item, "layers"),
                        *list = mn__yaml_get(item, "block");
    bool named = false, says = mn__yaml_get(item, "type") || (list && item->count == 2);
    if (!says || !numbers || numbers->kind != MN__YAML_SEQUENCE)
        *status = mn__yaml_fail(item,
                                "for example {layers: [0, 1], type: full}, or "
                                "{layers: [2], block: [feed_forward]}",
                                error,
                                "layers: an item needs a list `layers`, and a `block` or "
                                "an attention's `type` with its options");
    for (int64_t i = 0; *status == MN_OK && i < numbers->count; i++) {
        char *end = NULL;
        const char *text = numbers->items[i]->text ? numbers->items[i]->text : "";
        long long number = strtoll(text, &end, 10);
        if (!*text || *end || number < 0 || number >= depth)
            *status = mn__yaml_fail(numbers->items[i], "count layers from 0", error,
                                    "`%s` is none of the %lld layers", text, (long long)depth);
        named |= number == layer;
    }
    return *status == MN_OK && named;
}

/* [attention, feed_forward] */
static mn__yaml_node usual_attention = {.kind = MN__YAML_SCALAR, .text = "attention"};
static mn__yaml_node usual_feed_forward = {.kind = MN__YAML_SCALAR, .text = "feed_forward"};
static mn__yaml_node *usual_items[] = {&usual_attention, &usual_feed_forward};
static const mn__yaml_node usual = {.kind = MN__YAML_SEQUENCE, .count = 2, .items = usual_items};

/* The block's list, and what `attention` is in it. */
static mn_status find_list(struct making *making, mn_error *error)
{
    const mn__yaml_node *layers = mn__yaml_get(making->model, "layers");
    mn_status status = MN_OK;
    making->list = mn__yaml_get(making->model, "block");
    making->list = making->list ? making->list : &usual;
    making->item = NULL;
    if (layers && layers->kind != MN__YAML_SEQUENCE)
        return mn__yaml_fail(layers, "for example [{layers: [0, 1], type: full}]", error,
                             "layers: expects a list");
    for (int64_t i = 0; layers && i < layers->count && status == MN_OK; i++) {
        const mn__yaml_node *item = layers->items[i];
        if (!names_layer(item, making->number, making->decoder->options.depth, &status, error))
            continue;
        if (mn__yaml_get(item, "type"))
            making->item = item;
        else
            making->list = mn__yaml_get(item, "block");
    }
    return status;
}

/* ---- Sublayers -------------------------------------------------------------------------- */

mn_status mn__decoder_create_norm(mn__decoder *decoder, mn__norm *norm, const char *prefix,
                                  mn_error *error)
{
    const mn__decoder_options *options = &decoder->options;
    mn__norm_kind kind = options->norm == 0 ? MN__NORM_LAYER : MN__NORM_RMS;
    return mn__norm_create(norm, decoder->params, prefix, kind, options->width,
                           (float)options->norm_epsilon, error);
}

static mn_status create_feed_forward(const mn__decoder *decoder, mn__feed_forward *feed_forward,
                                     const char *name, mn_error *error)
{
    static const mn__activation activations[] = {MN__RELU, MN__RELU2, MN__GELU, MN__GELU_TANH,
                                                 MN__SILU};
    const mn__decoder_options *options = &decoder->options;
    feed_forward->dropout = (float)options->hidden_dropout;
    return mn__feed_forward_create(feed_forward, decoder->params, name, options->width,
                                   options->hidden, activations[options->activation],
                                   options->gated, options->bias, (float)options->initial_deviation,
                                   error);
}

/* also: keys of the mapping that are not the attention's. */
static mn_status read_attention(mn__decoder *decoder, mn__attention *attention,
                                const mn__yaml_node *mapping, const char *const *also,
                                mn_error *error)
{
    const mn__yaml_node *type = mn__yaml_get(mapping, "type");
    const char *name = type ? type->text : "full";
    attention->type = mn__attention_find(name ? name : "");
    if (!attention->type) {
        char names[256] = "";
        for (const mn__attention_type *const *each = mn__attention_types; *each; each++)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s",
                     names[0] ? ", " : "the types are ", (*each)->name);
        return mn__yaml_fail(type, names, error, "no attention type `%s`", name ? name : "");
    }
    attention->options = mn__arena_calloc(&decoder->arena, 1, attention->type->options_bytes);
    if (!attention->options)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for options");
    return mn__options_read(attention->type->options, mapping, also, attention->options,
                            &decoder->arena, error);
}

static const mn__attention *first_of_type(const mn__decoder *decoder,
                                          const mn__attention_type *type)
{
    const struct mn__attending *each = decoder->attending;
    while (each->attention.type != type)
        each = each->next;
    return &each->attention;
}

/* Appends an attention to the model's. */
static mn_status create_attention(struct making *making, struct mn__sublayer *sublayer,
                                  const mn__yaml_node *mapping, const char *name, mn_error *error)
{
    static const char *const also[] = {"layers", "type", NULL};
    mn__decoder *decoder = making->decoder;
    const mn__decoder_options *options = &decoder->options;
    struct mn__attending *attending = mn__arena_calloc(&decoder->arena, 1, sizeof *attending);
    if (!attending)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %s", name);
    attending->number = decoder->attentions++;
    *making->end = sublayer->attending = attending;
    making->end = &attending->next;
    mn__attention *attention = &attending->attention;
    *attention = (mn__attention){.C = options->width,
                                 .H = options->heads,
                                 .G = options->kv_heads,
                                 .D = options->head_width,
                                 .segment = decoder->segment,
                                 .bias = options->attention_bias != 0,
                                 .out_bias = options->attention_bias == 1,
                                 .head_norm = options->head_norm,
                                 .head_epsilon = (float)options->norm_epsilon,
                                 .pre_norm = decoder->pre_norm,
                                 .norm = sublayer->norm,
                                 .dropout = (float)options->dropout,
                                 .deviation = (float)options->initial_deviation,
                                 .rope = options->positions == 2 ? &decoder->rope : NULL};
    mn_status status = read_attention(decoder, attention, mapping,
                                      mapping == making->item ? also : also + 1, error);
    if (status != MN_OK)
        return status;
    attention->first = first_of_type(decoder, attention->type);
    if (attention->type->auxiliary && options->recompute)
        return mn__fail(error, MN_ERROR_OPTION, "set model.recompute: false",
                        "a block that adds the loss `%s` cannot be run again in backward",
                        attention->type->auxiliary);
    if (options->head_norm && !attention->type->head_norm)
        return mn__fail(error, MN_ERROR_OPTION, "set model.head_norm: false",
                        "attention.type %s has no norm over its heads", attention->type->name);
    status = attention->type->check(attention, error);
    return status == MN_OK ? attention->type->create(attention, decoder->params, name, error)
                           : status;
}

/* joins: it is parallel to the sublayer before it. */
static mn_status add_sublayer(struct making *making, const mn__yaml_node *node, bool joins,
                              mn_error *error)
{
    mn__decoder *decoder = making->decoder;
    struct mn__block *block = &decoder->block[making->number];
    struct mn__sublayer *sublayer = &block->sublayer[block->count];
    bool feed_forward = is_named(node, "feed_forward"), attention = is_named(node, "attention");
    if (!feed_forward && !attention && node->kind != MN__YAML_MAPPING)
        return fail_sublayer(node, error);
    int nth = feed_forward ? ++making->feed_forwards : ++making->attentions;
    char name[64], norm[80], digits[16] = "";
    if (nth > 1)
        snprintf(digits, sizeof digits, "%d", nth);
    snprintf(name, sizeof name, "layers.%lld.%s%s", (long long)making->number,
             feed_forward ? "feed_forward" : "attention", digits);
    snprintf(norm, sizeof norm, "%s.norm", name);
    block->count++;
    sublayer->joins = joins;
    if (joins)
        sublayer->norm = sublayer[-1].norm;
    mn_status status =
        joins ? MN_OK : mn__decoder_create_norm(decoder, &sublayer->norm, norm, error);
    snprintf(norm, sizeof norm, "%s.after", name);
    if (status == MN_OK && decoder->norms_after)
        status = mn__decoder_create_norm(decoder, &sublayer->after, norm, error);
    if (status != MN_OK)
        return status;
    if (feed_forward)
        return create_feed_forward(decoder, &sublayer->feed_forward, name, error);
    const mn__yaml_node *section = making->item ? making->item : making->attention;
    return create_attention(making, sublayer, attention ? section : node, name, error);
}

/* ---- Blocks ------------------------------------------------------------------------------ */

/* Sublayers of a list, those in lists of it included. */
static int64_t count_sublayers(const mn__yaml_node *list)
{
    int64_t count = 0;
    for (int64_t i = 0; i < list->count; i++)
        count += list->items[i]->kind == MN__YAML_SEQUENCE ? list->items[i]->count : 1;
    return count;
}

static mn_status create_block(struct making *making, mn_error *error)
{
    mn_status status = find_list(making, error);
    const mn__yaml_node *list = making->list;
    if (status == MN_OK && (list->kind != MN__YAML_SEQUENCE || list->count == 0))
        status = fail_list(list, error);
    if (status != MN_OK)
        return status;
    mn__decoder *decoder = making->decoder;
    struct mn__block *block = &decoder->block[making->number];
    making->attentions = making->feed_forwards = 0;
    block->sublayer =
        mn__arena_calloc(&decoder->arena, count_sublayers(list), sizeof *block->sublayer);
    if (!block->sublayer)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a block");
    for (int64_t i = 0; i < list->count && status == MN_OK; i++) {
        const mn__yaml_node *item = list->items[i];
        if (item->kind != MN__YAML_SEQUENCE)
            status = add_sublayer(making, item, false, error);
        else if (item->count == 0)
            status = fail_list(item, error);
        else
            for (int64_t k = 0; k < item->count && status == MN_OK; k++)
                status = add_sublayer(making, item->items[k], k > 0, error);
    }
    return status;
}

mn_status mn__blocks_create(mn__decoder *decoder, const mn__yaml_node *model,
                            const mn__yaml_node *attention, mn_error *error)
{
    struct making making = {.decoder = decoder, .model = model, .attention = attention};
    int64_t depth = decoder->options.depth;
    making.end = &decoder->attending;
    decoder->block = mn__arena_calloc(&decoder->arena, depth, sizeof *decoder->block);
    if (!decoder->block)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %lld layers",
                        (long long)depth);
    mn_status status = MN_OK;
    for (; making.number < depth && status == MN_OK; making.number++)
        status = create_block(&making, error);
    return status;
}
