/* What the types with a local attention share; see local.h. */
#include "attention/local.h"

#include <math.h>

#include "nn/create.h"

/* ---- Making --------------------------------------------------------------------- */

mn_status mn__local_check(const mn__local_options *options, const mn__attention *layer,
                          mn_error *error)
{
    if (options->t5 && layer->rope)
        return mn__fail(error, MN_ERROR_OPTION, "set model.positions: none",
                        "attention.t5 with rotary positions");
    if (options->normalise && layer->head_norm)
        return mn__fail(error, MN_ERROR_OPTION, "choose one of them",
                        "attention.normalise with model.head_norm");
    if (options->t5 && options->far <= options->buckets / 2)
        return mn__fail(error, MN_ERROR_OPTION,
                        "half of the buckets hold one distance each: set a larger far, or "
                        "fewer buckets",
                        "attention.far is %lld, and %lld buckets tell apart distances up to %lld",
                        (long long)options->far, (long long)options->buckets,
                        (long long)options->buckets / 2);
    return MN_OK;
}

mn_status mn__local_create(mn__local *local, const mn__local_options *options,
                           const mn__attention *layer, mn__params *params, const char *prefix,
                           mn_error *error)
{
    mn_status status = MN_OK;
    if (options->t5)
        status = mn__create(&local->distance, params, prefix, "distance", 2,
                            (int64_t[]){options->buckets, layer->H},
                            (mn__init){MN__INIT_NORMAL, 0.0f, (float)options->spread}, error);
    if (status == MN_OK && options->normalise)
        status =
            mn__heads_create_scale(&local->scale, options, layer, params, prefix, "scale", error);
    return status;
}

int64_t mn__local_reach(const mn__local_options *options)
{
    return options->strict ? options->window : options->window - 1;
}

mn_status mn__local_create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                                 int64_t most, mn_error *error)
{
    if (!mn__state_add_heads(states, state, "keys", most, layer->G, layer->D) ||
        !mn__state_add_heads(states, state, "values", most, layer->G, layer->D) ||
        !mn__state_add_counter(states, state))
        return mn__fail(error, MN_ERROR_MEMORY, "use a smaller window",
                        "no memory for a window of %lld tokens", (long long)most);
    mn__state_bound_counter(state, MN__LOCAL_FILLED, most);
    return MN_OK;
}

/* ---- A segment -------------------------------------------------------------------- */

bool mn__local_project(const mn__local_options *options, const mn__attention *layer, mn__tape *tape,
                       const mn__segment *segment, const mn__state *state, mn__var *h,
                       mn__local_heads *heads, mn__pending *pending)
{
    heads->queries = mn__attention_queries(layer, tape, h);
    bool good =
        options->normalise
            ? mn__heads_keys_values(layer, &layer->key_value, tape, h, &heads->keys, &heads->values)
            : mn__attention_keys_values(layer, tape, h, &heads->keys, &heads->values);
    if (options->normalise)
        heads->queries = mn__heads_normalise(tape, heads->queries);
    if (!heads->queries || !good)
        return false;
    if (layer->rope) {
        heads->queries = mn__op_rope(tape, heads->queries, segment->positions, layer->rope);
        heads->keys = mn__op_rope(tape, heads->keys, segment->positions, layer->rope);
    }
    heads->keys = mn__slot_keep(tape, &state->slot[MN__LOCAL_KEYS], heads->keys);
    heads->values = mn__slot_keep(tape, &state->slot[MN__LOCAL_VALUES], heads->values);
    pending->var[MN__LOCAL_KEYS] = mn__tape_keep(tape, heads->keys);
    pending->var[MN__LOCAL_VALUES] = mn__tape_keep(tape, heads->values);
    return heads->queries && heads->keys && heads->values;
}

/* [past; fresh] along time, `past` being the newest `need` entries of a slot. */
static mn__var *extend(mn__tape *tape, const mn__slot *slot, int64_t need, mn__var *fresh)
{
    if (need == 0)
        return fresh;
    mn__var *parts[2] = {mn__slot_read(tape, slot, slot->value.size[1] - need, need), fresh};
    return mn__op_concat(tape, 1, parts, 2);
}

bool mn__local_args(const mn__local *local, const mn__local_options *options,
                    const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                    const mn__state *state, int64_t least, const mn__local_heads *heads,
                    mn__attention_args *args)
{
    int64_t most = mn__local_reach(options), *first;
    int64_t need =
        mn__entries_visible(tape, segment, most > least ? most : least, NULL,
                            state->counter[MN__LOCAL_FILLED], options->zero_memory, &first);
    if (need < 0)
        return false;
    *args = (mn__attention_args){
        .queries = heads->queries,
        .scale = options->normalise ? 1.0f : 1.0f / sqrtf((float)layer->D),
        .scales = mn__heads_scale(tape, local->scale),
        .valid = segment->valid,
        .dropout = (float)options->dropout,
        .groups = 1,
    };
    args->group[0] = (mn__keys){
        .keys = extend(tape, &state->slot[MN__LOCAL_KEYS], need, heads->keys),
        .values = extend(tape, &state->slot[MN__LOCAL_VALUES], need, heads->values),
        .first = first,
        .mask = options->strict ? MN__MASK_BAND_STRICT : MN__MASK_BAND,
        .offset = need,
        .window = options->window,
        .position = local->distance ? MN__POSITION_T5 : MN__POSITION_NONE,
        .table = mn__tape_param(tape, local->distance),
        .far = options->far,
    };
    return args->group[0].keys && args->group[0].values;
}

void mn__local_commit(mn__tape *tape, const mn__segment *segment, mn__state *state,
                      const mn__pending *pending, bool live)
{
    int64_t *filled = state->counter[MN__LOCAL_FILLED];
    int64_t most = state->slot[MN__LOCAL_KEYS].value.size[1];
    for (int i = MN__LOCAL_KEYS; i < MN__LOCAL_SLOTS; i++)
        mn__slot_append(tape, &state->slot[i], pending->var[i], segment->valid, live);
    for (int64_t b = 0; b < segment->B; b++) {
        filled[b] += mn__segment_valid(segment, b);
        filled[b] = filled[b] < most ? filled[b] : most;
    }
}

/* ---- Normalised heads ------------------------------------------------------------ */

mn__var *mn__heads_normalise(mn__tape *tape, mn__var *heads)
{
    return mn__op_unit(tape, heads, 1e-6f, tape->compute);
}

/* The keys are copied out of the product, so that their norm runs over one matrix. */
bool mn__heads_keys_values(const mn__attention *layer, const mn__linear *key_value, mn__tape *tape,
                           mn__var *h, mn__var **keys, mn__var **values)
{
    mn__var *both = mn__linear_forward(key_value, tape, h, MN__LINEAR), *part[2];
    int64_t width = layer->G * layer->D;
    if (!both || !mn__op_split(tape, both, 2, (int64_t[]){width, width}, 2, part))
        return false;
    int64_t size[] = {h->value.size[0], h->value.size[1], layer->G, layer->D};
    mn__var *copy = mn__op_reshape(tape, mn__op_concat(tape, 2, &part[0], 1), 4, size);
    *keys = mn__heads_normalise(tape, copy);
    *values = mn__op_reshape(tape, part[1], 4, size);
    return *keys && *values;
}

mn_status mn__heads_create_scale(mn__param **scale, const mn__local_options *options,
                                 const mn__attention *layer, mn__params *params, const char *prefix,
                                 const char *name, mn_error *error)
{
    mn__init init = {MN__INIT_CONSTANT, (float)options->scale, 0.0f};
    return mn__create(scale, params, prefix, name, 1, &layer->H, init, error);
}

mn__var *mn__heads_scale(mn__tape *tape, mn__param *scale)
{
    mn__var *s = mn__tape_param(tape, scale);
    if (!s)
        return NULL;
    return mn__op_add(tape, mn__op_activate(tape, MN__RELU, s),
                      mn__op_activate(tape, MN__RELU, mn__op_scale(tape, s, -1.0f)));
}
