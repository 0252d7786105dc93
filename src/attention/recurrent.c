/* The states' side of the Block-Recurrent Transformer (Hutchins et al. 2022, arXiv
 * 2203.07852, section 3; what it leaves open, as in the authors' code).
 * With N a norm of mean squares and n(x) of length 1, as in window.c:
 *
 *   z = N(c) + ids,  [q, q', k, v] = W z          queries for states and for tokens
 *   y = [softmax(n(q) . n(k) |scale|) v, softmax(n(q') . k_x |cross_scale|) v_x]
 *   skip     c' = gate(c, W_o y; y)
 *   dual     a = gate(c, W_o y; y);  c' = gate'(a, W_2 r; r),  r = relu(W_1 N'(a))
 *   single   c' = gate(c, tanh(W_2 r); r),                     r = relu(W_1 y)
 *   gate(c, u; e): fixed  g c + (1 - g) u,  g = sigmoid(b)
 *                  lstm   f c + i u,  f = sigmoid(W_f e + b_f + 1),
 *                         i = sigmoid(W_i e + b_i - 1)
 *                  full   f c + (1 - f) u
 *
 * k_x, v_x are the tokens' of two blocks, all of them seen by all states: no mask and
 * no positions. The ids tell apart states that would otherwise stay alike, and come
 * after the norm, which would rescale them. No dropout here. */
#include "attention/recurrent.h"

#include <math.h>
#include <stdio.h>

#include "nn/create.h"

/* ---- Parameters ------------------------------------------------------------------ */

/* A gate that reads `in` features, with the authors' starting values. Zeros would hardly
 * move under an optimiser that steps in proportion to a parameter's size. */
static mn_status create_gated(mn__linear *linear, mn__params *params, const char *prefix,
                              const char *name, int64_t in, int64_t out, mn_error *error)
{
    char full[160];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    mn__init weight = {MN__INIT_NORMAL, 0.0f, sqrtf(0.1f / (float)in)};
    mn__init bias = {MN__INIT_NORMAL, 0.0f, 0.1f};
    mn_status status =
        mn__create(&linear->weight, params, full, "weight", 2, (int64_t[]){out, in}, weight, error);
    if (status == MN_OK)
        status = mn__create(&linear->bias, params, full, "bias", 1, &out, bias, error);
    return status;
}

static mn_status create_gate(mn__recurrent_gate *gate, const mn__attention *layer, int64_t in,
                             mn__params *params, const char *prefix, const char *name,
                             mn_error *error)
{
    const mn__recurrent_options *options = layer->options;
    char full[128];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    if (options->gate == MN__RECURRENT_FIXED)
        return mn__create(&gate->bias, params, full, "bias", 1, &layer->C,
                          (mn__init){MN__INIT_NORMAL, 0.0f, 0.1f}, error);
    mn_status status = create_gated(&gate->forget, params, full, "forget", in, layer->C, error);
    if (status == MN_OK && options->gate == MN__RECURRENT_LSTM)
        status = create_gated(&gate->input, params, full, "input", in, layer->C, error);
    return status;
}

static mn_status create_linear(mn__linear *linear, const mn__attention *layer, mn__params *params,
                               const char *prefix, const char *name, int64_t in, int64_t out,
                               mn_error *error)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return mn__linear_create(linear, params, full, in, out, layer->bias, layer->deviation, error);
}

static mn_status create_norm(mn__norm *norm, const mn__attention *layer, mn__params *params,
                             const char *prefix, const char *name, mn_error *error)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return mn__norm_create(norm, params, full, MN__NORM_RMS, layer->C, 1e-6f, error);
}

/* What moves the states: the forms' own. */
static mn_status create_form(mn__recurrent *cell, const mn__attention *layer, mn__params *params,
                             const char *prefix, mn_error *error)
{
    const mn__recurrent_options *options = layer->options;
    int64_t C = layer->C, both = 2 * layer->H * layer->D;
    int64_t hidden = options->hidden ? options->hidden : 4 * C;
    bool single = options->form == MN__RECURRENT_SINGLE, dual = options->form == MN__RECURRENT_DUAL;
    mn_status status = MN_OK;
    if (!single)
        status = create_linear(&cell->out, layer, params, prefix, "out", both, C, error);
    if (status == MN_OK && !single)
        status = create_gate(&cell->attention_gate, layer, both, params, prefix, "attention_gate",
                             error);
    if (status == MN_OK && dual)
        status = create_norm(&cell->feed_forward_norm, layer, params, prefix, "feed_forward_norm",
                             error);
    if (status != MN_OK || options->form == MN__RECURRENT_SKIP)
        return status;
    status = create_linear(&cell->up, layer, params, prefix, "feed_forward.up", single ? both : C,
                           hidden, error);
    if (status == MN_OK)
        status = create_linear(&cell->down, layer, params, prefix, "feed_forward.down", hidden, C,
                               error);
    if (status == MN_OK)
        status = create_gate(&cell->feed_forward_gate, layer, hidden, params, prefix,
                             "feed_forward_gate", error);
    return status;
}

mn_status mn__recurrent_create(mn__recurrent *cell, const mn__attention *layer, mn__params *params,
                               const char *prefix, mn_error *error)
{
    const mn__recurrent_options *options = layer->options;
    int64_t size[] = {options->states, layer->C};
    mn__init ids = {MN__INIT_NORMAL, 0.0f, 1.0f}, initial = {MN__INIT_NORMAL, 0.0f, 0.1f};
    mn_status status = create_norm(&cell->norm, layer, params, prefix, "norm", error);
    if (status == MN_OK)
        status = mn__create(&cell->ids, params, prefix, "ids", 2, size, ids, error);
    if (status == MN_OK)
        status = mn__create(&cell->initial, params, prefix, "initial", 2, size, initial, error);
    if (status == MN_OK)
        cell->ids->decays = cell->initial->decays = false;
    if (status == MN_OK)
        status = create_linear(&cell->project, layer, params, prefix, "project", layer->C,
                               2 * (layer->H + layer->G) * layer->D, error);
    if (status == MN_OK && options->local.normalise)
        status = mn__heads_create_scale(&cell->scale, &options->local, layer, params, prefix,
                                        "scale", error);
    if (status == MN_OK && options->local.normalise)
        status = mn__heads_create_scale(&cell->cross_scale, &options->local, layer, params, prefix,
                                        "cross_scale", error);
    return status == MN_OK ? create_form(cell, layer, params, prefix, error) : status;
}

/* ---- The states as heads ------------------------------------------------------------ */

/* z [B, states, C]: every row of the batch gets the same ids. */
static mn__var *identify(const mn__recurrent *cell, mn__tape *tape, mn__var *c)
{
    mn__var *z = mn__norm_forward(&cell->norm, tape, c, tape->compute);
    if (!z)
        return NULL;
    const mn__tensor like = z->value;
    int64_t B = like.size[0], all = like.size[1] * like.size[2];
    mn__var *ids = mn__op_reshape(tape, mn__tape_param(tape, cell->ids), 1, &all);
    z = mn__op_add(tape, mn__op_reshape(tape, z, 2, (int64_t[]){B, all}), ids);
    return mn__op_reshape(tape, z, 3, like.size);
}

/* Queries, cross queries and keys are made of length 1 together. */
bool mn__recurrent_project(const mn__recurrent *cell, const mn__attention *layer, mn__tape *tape,
                           mn__var *c, mn__recurrent_heads *heads)
{
    const mn__recurrent_options *options = layer->options;
    mn__var *all = mn__linear_forward(&cell->project, tape, identify(cell, tape, c), MN__LINEAR);
    mn__var *part[2], *met[3];
    int64_t H = layer->H, G = layer->G, D = layer->D, most = 2 * H + G;
    if (!all || !mn__op_split(tape, all, 2, (int64_t[]){most * D, G * D}, 2, part))
        return false;
    int64_t size[] = {all->value.size[0], all->value.size[1], most, D};
    if (options->local.normalise)
        part[0] = mn__op_concat(tape, 2, &part[0], 1);
    part[0] = mn__op_reshape(tape, part[0], 4, size);
    if (options->local.normalise)
        part[0] = mn__heads_normalise(tape, part[0]);
    size[2] = G;
    part[1] = mn__op_reshape(tape, part[1], 4, size);
    if (!part[1] || !mn__op_split(tape, part[0], 2, (int64_t[]){H, H, G}, 3, met))
        return false;
    *heads = (mn__recurrent_heads){met[0], met[1], met[2], part[1]};
    return true;
}

mn__attention_args mn__recurrent_args(const mn__attention *layer, mn__tape *tape, mn__var *queries,
                                      mn__param *scale, const mn__keys *keys)
{
    mn__attention_args args = {.queries = queries,
                               .scale = scale ? 1.0f : 1.0f / sqrtf((float)layer->D),
                               .scales = mn__heads_scale(tape, scale),
                               .groups = 1};
    args.group[0] = *keys;
    return args;
}

/* ---- Moving ------------------------------------------------------------------------- */

/* sigmoid(W e + b + shift) */
static mn__var *opening(mn__tape *tape, const mn__linear *linear, mn__var *e, float shift)
{
    int64_t C = linear->bias->value.size[0];
    mn__var *bias =
        mn__op_add(tape, mn__tape_param(tape, linear->bias), mn__op_constant(tape, C, shift));
    return mn__op_linear(tape, e, mn__tape_weight(tape, linear->weight), bias, MN__SIGMOID);
}

static mn__var *pass(mn__tape *tape, const mn__recurrent_gate *gate, mn__var *c, mn__var *u,
                     mn__var *e)
{
    u = mn__op_cast(tape, u, MN__F32);
    if (gate->input.weight) {
        mn__var *kept = mn__op_multiply(tape, c, opening(tape, &gate->forget, e, 1.0f));
        mn__var *entered = mn__op_multiply(tape, u, opening(tape, &gate->input, e, -1.0f));
        return mn__op_add(tape, kept, entered);
    }
    mn__var *g = gate->bias ? mn__op_activate(tape, MN__SIGMOID, mn__tape_param(tape, gate->bias))
                            : opening(tape, &gate->forget, e, 1.0f);
    return mn__op_add(tape, mn__op_multiply(tape, mn__op_subtract(tape, c, u), g), u);
}

/* y [B, states, 2 H D]: what the states read of each other and of the tokens. */
static mn__var *read_both(const mn__recurrent *cell, const mn__attention *layer, mn__tape *tape,
                          const mn__recurrent_heads *heads, const mn__keys *tokens,
                          const int64_t *valid)
{
    const mn__keys states = {.keys = heads->keys, .values = heads->values};
    mn__attention_args args[2] = {
        mn__recurrent_args(layer, tape, heads->queries, cell->scale, &states),
        mn__recurrent_args(layer, tape, heads->cross_queries, cell->cross_scale, tokens),
    };
    mn__var *read[2];
    for (int i = 0; i < 2; i++) {
        args[i].valid = valid;
        read[i] = mn__op_attention(tape, &args[i]);
        if (!read[i])
            return NULL;
        const int64_t *size = read[i]->value.size;
        read[i] =
            mn__op_reshape(tape, read[i], 3, (int64_t[]){size[0], size[1], size[2] * size[3]});
    }
    return mn__op_concat(tape, 2, read, 2);
}

mn__var *mn__recurrent_move(const mn__recurrent *cell, const mn__attention *layer, mn__tape *tape,
                            mn__var *c, const mn__recurrent_heads *heads, const mn__keys *tokens,
                            const int64_t *valid)
{
    const mn__recurrent_options *options = layer->options;
    mn__var *y = read_both(cell, layer, tape, heads, tokens, valid);
    if (options->form == MN__RECURRENT_SINGLE) {
        mn__var *r = mn__linear_forward(&cell->up, tape, y, MN__RELU);
        mn__var *u = mn__linear_forward(&cell->down, tape, r, MN__TANH);
        return pass(tape, &cell->feed_forward_gate, c, u, r);
    }
    mn__var *u = mn__linear_forward(&cell->out, tape, y, MN__LINEAR);
    mn__var *a = pass(tape, &cell->attention_gate, c, u, y);
    if (options->form == MN__RECURRENT_SKIP)
        return a;
    mn__var *h = mn__norm_forward(&cell->feed_forward_norm, tape, a, tape->compute);
    mn__var *r = mn__linear_forward(&cell->up, tape, h, MN__RELU);
    u = mn__linear_forward(&cell->down, tape, r, MN__LINEAR);
    return pass(tape, &cell->feed_forward_gate, a, u, r);
}
