/* Attention: one softmax over groups of keys (see kernel.h for its equation),
 * and its sibling with gathered keys. These functions bring vars into the form
 * that the kernels take, and the kernels' gradients to where they belong.
 *
 * Two vars of one call may share memory: keys that are also values, or slices
 * that overlap. The kernels set or add in any order, so that all but the first
 * of them get scratch. */
#include "op/common.h"

#include <assert.h>

#include "kernel/blocks.h"

typedef struct attention_record {
    mn__record record;
    mn__attention_args args;
    mn__weight_dropout dropout;
    float *lse;
} attention_record;

/* ---- The kernel's call --------------------------------------------------------------- */

/* One call's draw. */
static mn__weight_dropout draw(mn__tape *tape, float rate)
{
    mn__weight_dropout dropout = {.rate = tape->training ? rate : 0, .key = tape->random};
    tape->random.operation += dropout.rate > 0;
    return dropout;
}

static const float *floats(const mn__var *var)
{
    return var ? var->value.data : NULL;
}

static void copy_strides(int64_t strides[3], const mn__tensor *x)
{
    for (int axis = 0; axis < 3; axis++)
        strides[axis] = x->stride[axis];
}

static mn__kept kept_of(const mn__tensor *keys, mn__dtype computed)
{
    if (keys->dtype == MN__U8)
        return MN__KEPT_INT8;
    if (keys->dtype == computed)
        return MN__KEPT_AS_COMPUTED;
    return keys->dtype == MN__BF16 ? MN__KEPT_BF16 : MN__KEPT_F32;
}

static void fill_group(mn__key_group *group, const mn__keys *keys, mn__dtype computed)
{
    const mn__tensor *bias = keys->bias ? &keys->bias->value : NULL;
    *group =
        (mn__key_group){.keys = keys->keys->value.data,
                        .values = keys->values->value.data,
                        .kept = kept_of(&keys->keys->value, computed),
                        .count = keys->keys->value.size[1],
                        .first = keys->first,
                        .length = keys->length,
                        .keep = keys->keep,
                        .query_segment = keys->query_segment,
                        .key_segment = keys->key_segment,
                        .mask = keys->mask,
                        .offset = keys->offset,
                        .window = keys->window,
                        .position = keys->position,
                        .slopes = keys->slopes,
                        .table = floats(keys->table),
                        .buckets = keys->table ? keys->table->value.size[0] : 0,
                        .far = keys->far,
                        .relative = floats(keys->relative),
                        .u = floats(keys->u),
                        .v = floats(keys->v),
                        .shaw_keys = floats(keys->shaw_keys),
                        .shaw_values = floats(keys->shaw_values),
                        .limit = keys->limit,
                        .bias = floats(keys->bias),
                        .bias_stride = {bias ? bias->stride[0] : 0, bias ? bias->stride[1] : 0}};
    copy_strides(group->key_stride, &keys->keys->value);
    copy_strides(group->value_stride, &keys->values->value);
}

static mn__attention_call make_call(const mn__attention_args *args, const mn__tensor *out,
                                    float *lse, mn__weight_dropout dropout)
{
    const mn__tensor *queries = &args->queries->value;
    mn__attention_call call = {.B = queries->size[0],
                               .T = queries->size[1],
                               .H = queries->size[2],
                               .G = args->group[0].keys->value.size[2],
                               .D = queries->size[3],
                               .dtype = queries->dtype,
                               .queries = queries->data,
                               .out = out->data,
                               .lse = lse,
                               .scale = args->scale,
                               .scales = floats(args->scales),
                               .sink = floats(args->sink),
                               .dropout = dropout,
                               .queries_valid = args->valid,
                               .groups = args->groups,
                               .group_mass = args->group_mass};
    copy_strides(call.query_stride, queries);
    copy_strides(call.out_stride, out);
    for (int g = 0; g < args->groups; g++) {
        fill_group(&call.group[g], &args->group[g], queries->dtype);
        call.key_mass[g] = args->key_mass[g];
    }
    return call;
}

/* ---- Backward --------------------------------------------------------------------------- */

enum { TARGETS_MAX = 3 + 9 * MN__GROUPS_MAX };

/* The targets of one backward call, brought home together at its end. */
typedef struct targets {
    mn__tape *tape;
    const mn__var *vars[TARGETS_MAX];
    mn__op_target items[TARGETS_MAX];
    int count;
    bool failed;
} targets;

static const mn__var *root_of(const mn__var *var)
{
    while (var->whole)
        var = var->whole;
    return var;
}

static bool shares_root(const targets *all, const mn__var *var)
{
    for (int i = 0; i < all->count; i++)
        if (root_of(all->vars[i]) == root_of(var))
            return true;
    return false;
}

static mn__op_target *push(targets *all, const mn__var *var, mn__op_target target)
{
    assert(all->count < TARGETS_MAX);
    all->failed |= !target.gradient.data;
    all->vars[all->count] = var;
    all->items[all->count] = target;
    return &all->items[all->count++];
}

/* For a kernel that sets or adds: directly, unless another target may overlap.
 * A place that is to be set entirely overlaps with none. */
static mn__op_target *push_either(targets *all, mn__var *var)
{
    mn__op_target target = {0};
    bool wanted = mn__tape_gradient(all->tape, var, &target.place, &target.accumulate);
    target.scratch = !wanted || (target.accumulate && shares_root(all, var));
    target.gradient =
        target.scratch ? mn__op_scratch(all->tape, var->value.dtype, &var->value) : target.place;
    return push(all, var, target);
}

static float *push_float(targets *all, mn__var *var)
{
    if (!var || !var->wants_gradient)
        return NULL;
    mn__op_target target = mn__op_target_float(all->tape, var);
    return push(all, var, target)->gradient.data;
}

static bool adds(const mn__op_target *target)
{
    return target->accumulate && !target->scratch;
}

static void finish(const targets *all)
{
    for (int i = 0; i < all->count; i++)
        mn__op_target_finish(all->tape, &all->items[i]);
}

/* Keys and values have one flag between them. */
static void group_keys(targets *all, const mn__keys *keys, struct mn__group_gradients *out)
{
    if (!keys->keys->wants_gradient && !keys->values->wants_gradient)
        return;
    mn__op_target *dkeys = push_either(all, keys->keys);
    mn__op_target *dvalues = push_either(all, keys->values);
    if (adds(dkeys) != adds(dvalues))
        all->failed |= !mn__op_target_apart(all->tape, adds(dkeys) ? dkeys : dvalues);
    out->keys = dkeys->gradient.data;
    out->values = dvalues->gradient.data;
    out->accumulate = adds(dkeys);
    copy_strides(out->key_stride, &dkeys->gradient);
    copy_strides(out->value_stride, &dvalues->gradient);
}

static void group_gradients(targets *all, const mn__keys *keys, struct mn__group_gradients *out)
{
    group_keys(all, keys, out);
    out->table = push_float(all, keys->table);
    out->relative = push_float(all, keys->relative);
    out->u = push_float(all, keys->u);
    out->v = push_float(all, keys->v);
    out->shaw_keys = push_float(all, keys->shaw_keys);
    out->shaw_values = push_float(all, keys->shaw_values);
    out->bias = push_float(all, keys->bias);
}

static void attention_backward(mn__tape *tape, mn__record *base)
{
    attention_record *record = (attention_record *)base;
    const mn__attention_args *args = &record->args;
    mn__queue *queue = &tape->device->queue;
    mn__tensor dout = mn__tape_gradient_of(tape, base->out);
    mn__attention_call call = make_call(args, &base->out->value, record->lse, record->dropout);
    mn__attention_gradients gradients = {.out = dout.data};
    copy_strides(gradients.out_stride, &dout);
    targets all = {.tape = tape};
    if (args->queries->wants_gradient) {
        mn__op_target *dqueries = push_either(&all, args->queries);
        gradients.queries = dqueries->gradient.data;
        gradients.queries_accumulate = adds(dqueries);
        copy_strides(gradients.query_stride, &dqueries->gradient);
    }
    for (int g = 0; g < args->groups; g++)
        group_gradients(&all, &args->group[g], &gradients.group[g]);
    gradients.scales = push_float(&all, args->scales);
    gradients.sink = push_float(&all, args->sink);
    if (all.failed)
        return;
    queue->kernels->attention_backward(queue, &call, &gradients);
    finish(&all);
}

/* ---- Checks ---------------------------------------------------------------------------------- */

static const char *const attention_hint =
    "queries are [B, T, H, D], keys and values [B, S, G, D] (or its blocks of 8 bits) with H a "
    "multiple of G";

static bool check_keys(mn__tape *tape, const mn__attention_args *args, const mn__keys *keys)
{
    const mn__tensor *q = &args->queries->value, *k = &keys->keys->value;
    const mn__tensor *v = &keys->values->value, *first = &args->group[0].keys->value;
    int64_t columns = k->dtype == MN__U8 ? mn__block_int8_bytes(q->size[3]) : q->size[3];
    if (q->rank != 4 || k->rank != 4 || q->size[0] != k->size[0] || k->size[3] != columns ||
        k->size[2] < 1 || q->size[2] % k->size[2])
        mn__op_fail_sizes(tape, "attention", attention_hint, "queries", q, "keys", k);
    else if (!mn__tensor_same_size(k, v))
        mn__op_fail_sizes(tape, "attention", attention_hint, "keys", k, "values", v);
    else if (k->size[2] != first->size[2])
        mn__op_fail_sizes(tape, "attention", "all groups have as many key-value heads", "keys", k,
                          "the first group's", first);
    else
        return true;
    return false;
}

/* An optional var of the sizes given (-1: any). */
static bool check_sizes(mn__tape *tape, const char *name, const mn__var *var, int rank,
                        const int64_t *size)
{
    if (!var)
        return true;
    bool fits = var->value.rank == rank;
    for (int axis = 0; fits && axis < rank; axis++)
        fits = size[axis] < 0 || size[axis] == var->value.size[axis];
    if (!fits) {
        mn__tensor wanted = mn__tensor_of(NULL, MN__F32, rank, size);
        mn__op_fail_sizes(tape, "attention", "-1 stands for any size", name, &var->value,
                          "what fits", &wanted);
    }
    return fits;
}

static bool check_terms(mn__tape *tape, const mn__attention_args *args, const mn__keys *keys)
{
    const mn__tensor *q = &args->queries->value, *k = &keys->keys->value;
    int64_t H = q->size[2], D = q->size[3], reach = keys->limit + 1, both = 2 * keys->limit + 1;
    return check_sizes(tape, "table", keys->table, 2, (int64_t[]){-1, H}) &&
           check_sizes(tape, "relative", keys->relative, 3, (int64_t[]){reach, H, D}) &&
           check_sizes(tape, "u", keys->u, 2, (int64_t[]){H, D}) &&
           check_sizes(tape, "v", keys->v, 2, (int64_t[]){H, D}) &&
           check_sizes(tape, "shaw_keys", keys->shaw_keys, 2, (int64_t[]){both, D}) &&
           check_sizes(tape, "shaw_values", keys->shaw_values, 2, (int64_t[]){both, D}) &&
           check_sizes(tape, "bias", keys->bias, 3,
                       (int64_t[]){k->size[0], k->size[2], k->size[1]});
}

static bool check(mn__tape *tape, const mn__attention_args *args)
{
    assert(args->groups >= 1 && args->groups <= MN__GROUPS_MAX);
    for (int g = 0; g < args->groups; g++)
        if (!check_keys(tape, args, &args->group[g]) || !check_terms(tape, args, &args->group[g]))
            return false;
    int64_t H = args->queries->value.size[2];
    return check_sizes(tape, "scales", args->scales, 1, &H) &&
           check_sizes(tape, "sink", args->sink, 1, &H);
}

/* ---- Forward ------------------------------------------------------------------------------------
 */

/* Optional vars in the type that the kernels take; false on failure. */
static bool prepare(mn__tape *tape, mn__var **var, mn__dtype dtype)
{
    if (*var && !(*var = mn__op_contiguous(tape, *var, dtype)))
        return false;
    return true;
}

/* Keys and values stay as they are kept where no gradient can be wanted: they may be a long
 * cache. */
static bool prepare_kept(mn__tape *tape, mn__keys *keys)
{
    if (!keys->keys || !keys->values)
        return false;
    bool one = keys->keys == keys->values;
    bool alike = keys->keys->value.dtype == keys->values->value.dtype;
    if (!tape->recording && !tape->rehearsing && alike)
        return true;
    if (keys->keys->value.dtype == MN__U8 || keys->values->value.dtype == MN__U8) {
        mn__tape_fail(tape, MN_ERROR_UNSUPPORTED, "keep keys and values as they are computed",
                      "attention: no gradient passes keys and values in blocks of 8 bits, and "
                      "either both lie in them or none");
        return false;
    }
    keys->keys = mn__op_cast(tape, keys->keys, tape->compute);
    keys->values = one ? keys->keys : mn__op_cast(tape, keys->values, tape->compute);
    return keys->keys && keys->values;
}

static bool prepare_keys(mn__tape *tape, mn__keys *keys)
{
    return prepare_kept(tape, keys) && prepare(tape, &keys->table, MN__F32) &&
           prepare(tape, &keys->relative, tape->compute) && prepare(tape, &keys->u, MN__F32) &&
           prepare(tape, &keys->v, MN__F32) && prepare(tape, &keys->shaw_keys, MN__F32) &&
           prepare(tape, &keys->shaw_values, MN__F32) && prepare(tape, &keys->bias, MN__F32);
}

static bool prepare_args(mn__tape *tape, mn__attention_args *args)
{
    args->queries = mn__op_cast(tape, args->queries, tape->compute);
    bool good = args->queries && prepare(tape, &args->scales, MN__F32) &&
                prepare(tape, &args->sink, MN__F32);
    for (int g = 0; good && g < args->groups; g++)
        good = prepare_keys(tape, &args->group[g]);
    return good;
}

static bool wants(const mn__tape *tape, const mn__attention_args *args)
{
    bool any = mn__tape_wants(tape, (mn__var *const[]){args->queries, args->scales, args->sink}, 3);
    for (int g = 0; !any && g < args->groups; g++) {
        const mn__keys *keys = &args->group[g];
        any = mn__tape_wants(tape,
                             (mn__var *const[]){keys->keys, keys->values, keys->table,
                                                keys->relative, keys->u, keys->v, keys->shaw_keys,
                                                keys->shaw_values, keys->bias},
                             9);
    }
    return any;
}

mn__var *mn__op_attention(mn__tape *tape, const mn__attention_args *given)
{
    mn__attention_args args = *given;
    if (tape->status != MN_OK) /* an optional var may be missing for want of memory */
        return NULL;
    if (!prepare_args(tape, &args) || !check(tape, &args))
        return NULL;
    const mn__tensor *queries = &args.queries->value;
    mn__var *out = mn__tape_new(tape, tape->compute, 4, queries->size);
    int64_t rows = queries->size[0] * queries->size[1] * queries->size[2];
    float *lse = mn__tape_alloc(tape, rows * (int64_t)sizeof *lse);
    if (!out || !lse)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    mn__weight_dropout dropout = draw(tape, args.dropout);
    mn__attention_call call = make_call(&args, &out->value, lse, dropout);
    queue->kernels->attention(queue, &call);
    if (args.lse)
        *args.lse = lse;
    if (!wants(tape, &args))
        return out;
    attention_record *record = mn__tape_record(tape, sizeof *record, out, attention_backward);
    if (!record)
        return NULL;
    record->args = args;
    record->args.group_mass = NULL; /* made once, in forward */
    for (int g = 0; g < args.groups; g++)
        record->args.key_mass[g] = NULL;
    record->dropout = dropout;
    record->lse = lse;
    return out;
}

/* ---- Gathered keys ------------------------------------------------------- */

typedef struct gathered_record {
    mn__record record;
    mn__var *queries, *keys, *values, *scales;
    mn__gathered_call call;
} gathered_record;

static bool contiguous(mn__tape *tape, mn__op_target *target)
{
    return !target->gradient.data || mn__tensor_contiguous(&target->gradient) ||
           mn__op_target_apart(tape, target);
}

static void gathered_backward(mn__tape *tape, mn__record *base)
{
    gathered_record *record = (gathered_record *)base;
    mn__queue *queue = &tape->device->queue;
    mn__tensor dout = mn__tape_gradient_of(tape, base->out);
    mn__op_target dqueries = mn__op_target_set(tape, record->queries);
    mn__op_target dkeys = {0}, dvalues = {0};
    bool wanted = record->keys->wants_gradient || record->values->wants_gradient;
    if (wanted) {
        dkeys = mn__op_target_set(tape, record->keys);
        dvalues = mn__op_target_set(tape, record->values);
    }
    mn__op_target dscales = mn__op_target_float(tape, record->scales);
    if (tape->status != MN_OK || !contiguous(tape, &dqueries) || !contiguous(tape, &dkeys) ||
        !contiguous(tape, &dvalues))
        return;
    queue->kernels->gathered_backward(queue, &record->call, dout.data, dqueries.gradient.data,
                                      false, dkeys.gradient.data, dvalues.gradient.data,
                                      dscales.gradient.data);
    mn__op_target_finish(tape, &dqueries);
    mn__op_target_finish(tape, &dkeys);
    mn__op_target_finish(tape, &dvalues);
    mn__op_target_finish(tape, &dscales);
}

static bool check_gathered(mn__tape *tape, const mn__tensor *q, const mn__tensor *k,
                           const mn__tensor *v, const mn__var *scales)
{
    const char *hint = "queries are [B, T, H, D], keys and values [B * T, H, K, D]";
    if (q->rank != 4 || k->rank != 4 || k->size[0] != q->size[0] * q->size[1] ||
        k->size[1] != q->size[2] || k->size[3] != q->size[3])
        mn__op_fail_sizes(tape, "gathered attention", hint, "queries", q, "keys", k);
    else if (!mn__tensor_same_size(k, v))
        mn__op_fail_sizes(tape, "gathered attention", hint, "keys", k, "values", v);
    else
        return check_sizes(tape, "scales", scales, 1, &q->size[2]);
    return false;
}

mn__var *mn__op_gathered_attention(mn__tape *tape, mn__var *queries, mn__var *keys, mn__var *values,
                                   const int64_t *index, float scale, mn__var *scales,
                                   float dropout)
{
    if (!queries || !keys || !values || !prepare(tape, &queries, tape->compute) ||
        !prepare(tape, &keys, tape->compute) || !prepare(tape, &values, tape->compute) ||
        !prepare(tape, &scales, MN__F32) ||
        !check_gathered(tape, &queries->value, &keys->value, &values->value, scales))
        return NULL;
    const mn__tensor *q = &queries->value;
    mn__var *out = mn__tape_new(tape, tape->compute, 4, q->size);
    float *lse = mn__tape_alloc(tape, mn__op_rows(q) * (int64_t)sizeof *lse);
    if (!out || !lse)
        return NULL;
    mn__queue *queue = &tape->device->queue;
    mn__gathered_call call = {.B = q->size[0],
                              .T = q->size[1],
                              .H = q->size[2],
                              .K = keys->value.size[2],
                              .D = q->size[3],
                              .dtype = tape->compute,
                              .queries = q->data,
                              .keys = keys->value.data,
                              .values = values->value.data,
                              .index = index,
                              .out = out->value.data,
                              .lse = lse,
                              .scale = scale,
                              .scales = floats(scales),
                              .dropout = draw(tape, dropout)};
    queue->kernels->gathered(queue, &call);
    if (!mn__tape_wants(tape, (mn__var *const[]){queries, keys, values, scales}, 4))
        return out;
    gathered_record *record = mn__tape_record(tape, sizeof *record, out, gathered_backward);
    if (!record)
        return NULL;
    record->queries = queries;
    record->keys = keys;
    record->values = values;
    record->scales = scales;
    record->call = call;
    return out;
}
