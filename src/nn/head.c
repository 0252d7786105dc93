/* The head: full, or an adaptive softmax over clusters. */
#include "nn/head.h"

#include <stdio.h>

#include "nn/create.h"
#include "op/common.h"

/* ---- Parameters ---------------------------------------------------------------------- */

static mn_status create_cluster(mn__head *head, mn__params *params, int64_t c,
                                const mn__cluster *embedded, const mn__head_options *options,
                                mn_error *error)
{
    char prefix[32] = "head";
    if (head->clusters > 1)
        snprintf(prefix, sizeof prefix, "head.%lld", (long long)c);
    mn__init normal = {MN__INIT_NORMAL, 0.0f, options->deviation};
    mn__cluster *own = &head->cluster[c];
    *own = *embedded;
    mn_status status = MN_OK;
    int readers = head->clusters > 1 ? MN__READERS_ANY : MN__READERS_PRODUCTS;
    if (!options->tied)
        status = mn__create_read(&own->table, params, prefix, "weight", embedded->table->value.size,
                                 normal, readers, error);
    else
        own->table->readers |= readers;
    if (status == MN_OK && own->projection && !(c && options->tie_projections))
        status = mn__create(&own->projection, params, prefix, "projection", 2,
                            embedded->projection->value.size, normal, error);
    if (status != MN_OK || !options->bias)
        return status;
    int64_t classes = own->rows + (c ? 0 : head->clusters - 1);
    return mn__create(&head->bias[c], params, prefix, "bias", 1, &classes,
                      (mn__init){.kind = MN__INIT_ZERO}, error);
}

mn_status mn__head_create(mn__head *head, mn__params *params, mn__arena *arena,
                          const mn__embedding *embedding, const mn__head_options *options,
                          mn_error *error)
{
    int64_t clusters = embedding->clusters;
    *head = (mn__head){.vocabulary = embedding->vocabulary,
                       .clusters = clusters,
                       .logit_scale = options->logit_scale};
    head->cluster = mn__arena_calloc(arena, clusters, sizeof *head->cluster);
    head->bias = mn__arena_calloc(arena, clusters, sizeof(mn__param *));
    if (!head->cluster || !head->bias)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model");
    mn_status status = MN_OK;
    for (int64_t c = 0; c < clusters && status == MN_OK; c++)
        status = create_cluster(head, params, c, &embedding->cluster[c], options, error);
    if (status != MN_OK || clusters == 1)
        return status;
    return mn__create(&head->classes, params, "head", "cluster", 2,
                      (int64_t[]){clusters - 1, head->cluster->width},
                      (mn__init){MN__INIT_NORMAL, 0.0f, options->deviation}, error);
}

double mn__head_flops(const mn__head *head)
{
    double flops = 0;
    for (int64_t c = 0; c < head->clusters; c++) {
        const mn__cluster *cluster = &head->cluster[c];
        double weights = (double)mn__tensor_elements(&cluster->table->value);
        if (cluster->projection)
            weights += (double)mn__tensor_elements(&cluster->projection->value);
        flops += 2 * weights * (c ? mn__cluster_share(cluster, head->vocabulary) : 1);
    }
    return head->classes ? flops + 2 * (double)mn__tensor_elements(&head->classes->value) : flops;
}

/* ---- Loss ------------------------------------------------------------------------------ */

/* h P_c, or h. */
static mn__var *project(mn__tape *tape, const mn__cluster *cluster, mn__var *hidden)
{
    mn__param *projection = cluster->projection;
    return projection ? mn__op_linear_other_side(tape, hidden, mn__tape_param(tape, projection))
                      : hidden;
}

static mn__var *cluster_loss(const mn__head *head, mn__tape *tape, int64_t c, mn__var *hidden,
                             mn__head_loss args)
{
    args.hidden = project(tape, &head->cluster[c], hidden);
    args.weight = mn__tape_weight(tape, head->cluster[c].table);
    args.more = c ? NULL : mn__tape_param(tape, head->classes);
    args.bias = mn__tape_param(tape, head->bias[c]);
    args.logit_scale = head->logit_scale;
    return mn__op_head_loss(tape, &args);
}

/* Targets of the first softmax: an id of the first cluster, or the class of another one.
 * NULL where a target that counts is no id. */
static int32_t *first_targets(const mn__head *head, mn__tape *tape, const mn__head_loss *args,
                              int64_t N)
{
    int32_t *first = mn__arena_calloc(&tape->nodes, N, sizeof *first);
    if (!first)
        mn__tape_fail(tape, MN_ERROR_MEMORY, "use a smaller batch or a shorter segment",
                      "no memory for the head's targets");
    for (int64_t r = 0; first && r < N && !tape->device->counting; r++) {
        int64_t target = args->targets[r], c = head->clusters - 1;
        if (args->weights[r] == 0)
            continue;
        if (target < 0 || target >= head->vocabulary) {
            mn__tape_fail(tape, MN_ERROR_MISMATCH,
                          "give the row weight 0, or use the tokenizer of this model",
                          "head: target %lld of row %lld, of a vocabulary of %lld",
                          (long long)target, (long long)r, (long long)head->vocabulary);
            return NULL;
        }
        while (target < head->cluster[c].first)
            c--;
        first[r] = (int32_t)(c ? head->cluster->rows + c - 1 : target);
    }
    return first;
}

/* to[places] += from, floats of rows. */
static void scatter_rows(mn__tape *tape, float *to, int64_t N, float *from,
                         const mn__members *members)
{
    mn__queue *queue = &tape->device->queue;
    if (to)
        queue->kernels->scatter_add(queue, mn__op_flat(to, MN__F32, N, 1),
                                    mn__op_flat(from, MN__F32, members->count, 1), members->place,
                                    1);
}

/* What the rows with a target in cluster c pay beyond the class; NULL on failure. */
static mn__var *tail_loss(const mn__head *head, mn__tape *tape, int64_t c, mn__var *hidden,
                          const mn__members *members, const mn__head_loss *all)
{
    int64_t n = members->count, N = hidden->value.size[0];
    mn__head_loss args = {.targets = members->id, .scale = all->scale, .z = all->z};
    float *weights = mn__arena_calloc(&tape->nodes, n, sizeof *weights);
    if (!weights)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, "use a smaller batch or a shorter segment",
                             "no memory for a cluster's weights");
    for (int64_t i = 0; i < n; i++)
        weights[i] = all->weights[members->place[i]];
    args.weights = weights;
    if (all->losses && !(args.losses = mn__tape_alloc(tape, n * (int64_t)sizeof(float))))
        return NULL;
    if (all->penalties && !(args.penalties = mn__tape_alloc(tape, n * (int64_t)sizeof(float))))
        return NULL;
    mn__var *rows = mn__op_gather(tape, hidden, members->place, n);
    mn__var *loss = cluster_loss(head, tape, c, rows, args);
    if (!loss)
        return NULL;
    scatter_rows(tape, all->losses, N, args.losses, members);
    scatter_rows(tape, all->penalties, N, args.penalties, members);
    return loss;
}

/* A row of a later cluster: gathered, projected, their gradients, and what goes with it;
 * all rows may be in one, and its logits there meanwhile. */
static void reserve(const mn__head *head, mn__tape *tape, int64_t N, int64_t C)
{
    const mn__cluster *widest = &head->cluster[1];
    int64_t floats = 2 * C + (widest->projection ? 3 * widest->width : 0) + 5, most = 0;
    mn__cluster_reserve(tape, N * floats * (int64_t)sizeof(float));
    for (int64_t c = 1; c < head->clusters; c++) {
        const mn__cluster *cluster = &head->cluster[c];
        int64_t bytes = mn__op_head_loss_scratch(N, cluster->width, cluster->rows);
        most = bytes > most ? bytes : most;
    }
    mn__arena_mark mark = mn__store_mark(&tape->values);
    mn__cluster_reserve(tape, most);
    mn__store_release(&tape->values, mark);
}

mn__var *mn__head_loss_forward(const mn__head *head, mn__tape *tape, mn__var *hidden,
                               const mn__head_loss *args)
{
    hidden = mn__op_cast(tape, hidden, tape->compute);
    if (!hidden)
        return NULL;
    if (head->clusters == 1)
        return cluster_loss(head, tape, 0, hidden, *args);
    int64_t N = hidden->value.size[0];
    mn__head_loss first = *args;
    first.targets = first_targets(head, tape, args, N);
    mn__var *loss = first.targets ? cluster_loss(head, tape, 0, hidden, first) : NULL;
    for (int64_t c = 1; c < head->clusters && loss; c++) {
        mn__members members;
        if (!mn__cluster_members(tape, &head->cluster[c], head->vocabulary, args->targets,
                                 args->weights, N, &members))
            return NULL;
        if (members.count > 0)
            loss = mn__op_add(tape, loss, tail_loss(head, tape, c, hidden, &members, args));
    }
    reserve(head, tape, N, hidden->value.size[1]);
    return loss;
}

/* ---- Logits ------------------------------------------------------------------------------ */

/* s x [E; ...]^T + b, F32; bias [rows] or NULL. */
static mn__var *plain_logits(mn__tape *tape, mn__var *x, mn__param *table, mn__var *bias)
{
    mn__var *logits = mn__op_linear(tape, x, mn__tape_weight(tape, table), bias, MN__LINEAR);
    return mn__op_cast(tape, logits, MN__F32);
}

static mn__var *scaled(const mn__head *head, mn__tape *tape, int64_t c, mn__var *hidden)
{
    mn__var *x = project(tape, &head->cluster[c], hidden);
    return head->logit_scale == 1 ? x : mn__op_scale(tape, x, head->logit_scale);
}

/* log p(id | cluster c) + the class's logit. */
static mn__var *tail_logits(const mn__head *head, mn__tape *tape, int64_t c, mn__var *hidden,
                            mn__var *classes)
{
    mn__var *logits = plain_logits(tape, scaled(head, tape, c, hidden), head->cluster[c].table,
                                   mn__tape_param(tape, head->bias[c]));
    return mn__op_log_softmax(tape, logits, mn__op_slice(tape, classes, 1, c - 1, 1));
}

static mn__var *adaptive_logits(const mn__head *head, mn__tape *tape, mn__var *hidden)
{
    int64_t rows = head->cluster->rows, tails = head->clusters - 1;
    mn__var **part = mn__arena_calloc(&tape->nodes, head->clusters, sizeof *part);
    if (!part)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for logits");
    mn__var *x = scaled(head, tape, 0, hidden), *bias = mn__tape_param(tape, head->bias[0]);
    mn__var *of_ids = bias ? mn__op_slice(tape, bias, 0, 0, rows) : NULL;
    mn__var *of_classes = bias ? mn__op_slice(tape, bias, 0, rows, tails) : NULL;
    part[0] = plain_logits(tape, x, head->cluster->table, of_ids);
    mn__var *classes = plain_logits(tape, x, head->classes, of_classes);
    for (int64_t c = 1; c < head->clusters; c++)
        part[c] = tail_logits(head, tape, c, hidden, classes);
    return mn__op_concat(tape, 1, part, (int)head->clusters);
}

mn__var *mn__head_logits(const mn__head *head, mn__tape *tape, mn__var *hidden)
{
    if (head->clusters > 1)
        return adaptive_logits(head, tape, hidden);
    return plain_logits(tape, scaled(head, tape, 0, hidden), head->cluster->table,
                        mn__tape_param(tape, head->bias[0]));
}
