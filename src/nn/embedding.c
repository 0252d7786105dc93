/* Embeddings of ids. */
#include "nn/embedding.h"

#include <math.h>
#include <stdio.h>

#include "nn/create.h"
#include "op/common.h"

/* ---- Cutting a vocabulary ------------------------------------------------------------- */

mn_status mn__cut_check(const mn__cut *cut, mn_error *error)
{
    int64_t last = 0;
    for (int64_t c = 0; c < cut->count; c++) {
        if (cut->cutoffs[c] <= last)
            return mn__fail(error, MN_ERROR_OPTION,
                            "cut-offs are ids, each above the one before it, from 1 on: "
                            "[20000, 40000, 200000]",
                            "model.cutoffs: %lld after %lld", (long long)cut->cutoffs[c],
                            (long long)last);
        last = cut->cutoffs[c];
    }
    if (last >= cut->vocabulary)
        return mn__fail(error, MN_ERROR_OPTION, "leave that cut-off out, or lower it",
                        "model.cutoffs: %lld is beyond the vocabulary of %lld", (long long)last,
                        (long long)cut->vocabulary);
    for (int64_t c = 0; c <= cut->count; c++)
        if (mn__cut_cluster(cut, c).width < 1)
            return mn__fail(error, MN_ERROR_OPTION, "choose a smaller div_val, or fewer cut-offs",
                            "model.div_val: the width %lld divided %lld times by %lld leaves "
                            "nothing",
                            (long long)cut->width, (long long)c, (long long)cut->divisor);
    return MN_OK;
}

mn__cluster mn__cut_cluster(const mn__cut *cut, int64_t c)
{
    int64_t first = c ? cut->cutoffs[c - 1] : 0, width = cut->width;
    int64_t end = c < cut->count ? cut->cutoffs[c] : cut->vocabulary;
    for (int64_t i = 0; i < c; i++)
        width /= cut->divisor;
    return (mn__cluster){.first = first, .rows = end - first, .width = width};
}

/* The sum of 1 / rank for ranks first + 1 to end, to a percent. */
static double harmonic(int64_t first, int64_t end)
{
    return log(((double)end + 0.5) / ((double)first + 0.5)) + (first ? 0 : -0.116);
}

double mn__cluster_share(const mn__cluster *cluster, int64_t vocabulary)
{
    if (cluster->rows == vocabulary)
        return 1;
    return harmonic(cluster->first, cluster->first + cluster->rows) / harmonic(0, vocabulary);
}

/* Rows of another width than the model's have to be brought to it. */
static bool projects(const mn__cut *cut, int64_t c)
{
    return c ? cut->divisor > 1 : cut->count && cut->project_first;
}

/* ---- Members ---------------------------------------------------------------------------- */

static bool is_member(const mn__cluster *cluster, int32_t id)
{
    return id >= cluster->first && id - cluster->first < cluster->rows;
}

bool mn__cluster_members(mn__tape *tape, const mn__cluster *cluster, int64_t vocabulary,
                         const int32_t *ids, const float *weights, int64_t n, mn__members *members)
{
    bool counting = tape->device->counting;
    int64_t count =
        counting ? (int64_t)ceil(mn__cluster_share(cluster, vocabulary) * (double)n) : 0;
    for (int64_t i = 0; i < n && !counting; i++)
        count += is_member(cluster, ids[i]) && (!weights || weights[i] != 0);
    members->count = 0;
    members->place = mn__arena_calloc(&tape->nodes, count, sizeof *members->place);
    members->id = mn__arena_calloc(&tape->nodes, count, sizeof *members->id);
    if (!members->place || !members->id) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, "use a smaller batch or a shorter segment",
                      "no memory for the places of a cluster's ids");
        return false;
    }
    for (int64_t i = 0; i < n && !counting; i++)
        if (is_member(cluster, ids[i]) && (!weights || weights[i] != 0)) {
            members->place[members->count] = (int32_t)i;
            members->id[members->count++] = (int32_t)(ids[i] - cluster->first);
        }
    members->count = count;
    return true;
}

void mn__cluster_reserve(mn__tape *tape, int64_t bytes)
{
    if (tape->device->counting)
        mn__tape_alloc(tape, bytes);
}

/* ---- Parameters -------------------------------------------------------------------------- */

static mn_status create_cluster(mn__cluster *cluster, mn__params *params, const mn__cut *cut,
                                int64_t c, mn__init init, mn_error *error)
{
    char prefix[48] = "embedding";
    if (cut->count)
        snprintf(prefix, sizeof prefix, "embedding.%lld", (long long)c);
    *cluster = mn__cut_cluster(cut, c);
    mn_status status = mn__create_read(&cluster->table, params, prefix, "weight",
                                       (int64_t[]){cluster->rows, cluster->width}, init,
                                       cut->count ? MN__READERS_ANY : MN__READERS_ROWS, error);
    if (status != MN_OK || !projects(cut, c))
        return status;
    return mn__create(&cluster->projection, params, prefix, "projection", 2,
                      (int64_t[]){cut->width, cluster->width}, init, error);
}

mn_status mn__embedding_create(mn__embedding *embedding, mn__params *params, mn__arena *arena,
                               const mn__cut *cut, float deviation, mn_error *error)
{
    *embedding = (mn__embedding){
        .vocabulary = cut->vocabulary, .width = cut->width, .clusters = cut->count + 1};
    embedding->cluster = mn__arena_calloc(arena, embedding->clusters, sizeof *embedding->cluster);
    if (!embedding->cluster)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model");
    mn_status status = MN_OK;
    for (int64_t c = 0; c < embedding->clusters && status == MN_OK; c++)
        status = create_cluster(&embedding->cluster[c], params, cut, c,
                                (mn__init){MN__INIT_NORMAL, 0.0f, deviation}, error);
    return status;
}

double mn__embedding_flops(const mn__embedding *embedding)
{
    double flops = 0;
    for (int64_t c = 0; c < embedding->clusters; c++)
        if (embedding->cluster[c].projection)
            flops += 2 * mn__cluster_share(&embedding->cluster[c], embedding->vocabulary) *
                     (double)mn__tensor_elements(&embedding->cluster[c].projection->value);
    return flops;
}

/* ---- Forward ------------------------------------------------------------------------------- */

/* The embeddings of a cluster's members: F32 [count, C]. */
static mn__var *cluster_rows(mn__tape *tape, const mn__cluster *cluster, const mn__members *members,
                             float scale)
{
    mn__var *rows = mn__op_embed(tape, mn__tape_param(tape, cluster->table), members->id, 1,
                                 members->count, scale);
    rows = mn__op_reshape(tape, rows, 2, (int64_t[]){members->count, cluster->width});
    if (!cluster->projection)
        return rows;
    rows = mn__op_linear(tape, rows, mn__tape_param(tape, cluster->projection), NULL, MN__LINEAR);
    return mn__op_cast(tape, rows, MN__F32);
}

/* The clusters' rows, one cluster after the other, and where each place finds its own. */
typedef struct gathering {
    mn__var **part; /* [clusters] */
    int count;      /* of parts */
    int64_t rows;
    int32_t *index; /* [places], < 0: of no cluster */
} gathering;

static bool add_cluster(const mn__embedding *embedding, mn__tape *tape, const mn__cluster *cluster,
                        const int32_t *ids, int64_t places, float scale, gathering *all)
{
    mn__members members;
    if (!mn__cluster_members(tape, cluster, embedding->vocabulary, ids, NULL, places, &members))
        return false;
    if (members.count == 0)
        return true;
    for (int64_t i = 0; i < members.count && !tape->device->counting; i++)
        all->index[members.place[i]] = (int32_t)(all->rows + i);
    all->rows += members.count;
    all->part[all->count] = cluster_rows(tape, cluster, &members, scale);
    return all->part[all->count++];
}

/* Beyond the vocabulary there is no cluster. */
static bool check_ids(mn__tape *tape, const mn__embedding *embedding, const int32_t *ids,
                      int64_t places)
{
    for (int64_t i = 0; i < places && !tape->device->counting; i++)
        if (ids[i] >= embedding->vocabulary) {
            mn__tape_fail(tape, MN_ERROR_MISMATCH, "use the tokenizer of this model",
                          "embedding: id %d at place %lld, of a vocabulary of %lld", (int)ids[i],
                          (long long)i, (long long)embedding->vocabulary);
            return false;
        }
    return true;
}

/* Projected rows need more memory than others: they are there before, rounded, and after,
 * and so are their gradients: 14 bytes or less for each of C. All places may hold some. */
static void reserve(mn__tape *tape, const mn__embedding *embedding, int64_t places)
{
    for (int64_t c = 0; c < embedding->clusters; c++)
        if (embedding->cluster[c].projection) {
            mn__cluster_reserve(tape, places * embedding->width * 14);
            return;
        }
}

static mn__var *zeros(mn__tape *tape, int64_t B, int64_t T, int64_t C)
{
    mn__var *x = mn__tape_new(tape, MN__F32, 3, (int64_t[]){B, T, C});
    if (x)
        mn__tensor_fill(&tape->device->queue, &x->value, 0);
    return x;
}

mn__var *mn__embedding_forward(const mn__embedding *embedding, mn__tape *tape, const int32_t *ids,
                               int64_t B, int64_t T, float scale)
{
    int64_t places = B * T, clusters = embedding->clusters;
    if (clusters == 1 && !embedding->cluster->projection)
        return mn__op_embed(tape, mn__tape_param(tape, embedding->cluster->table), ids, B, T,
                            scale);
    if (!check_ids(tape, embedding, ids, places))
        return NULL;
    gathering all = {.part = mn__arena_calloc(&tape->nodes, clusters, sizeof *all.part),
                     .index = mn__arena_calloc(&tape->nodes, places, sizeof *all.index)};
    if (!all.part || !all.index)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for embeddings");
    for (int64_t i = 0; i < places; i++)
        all.index[i] = -1;
    for (int64_t c = 0; c < clusters; c++)
        if (!add_cluster(embedding, tape, &embedding->cluster[c], ids, places, scale, &all))
            return NULL;
    if (all.count == 0) /* padding alone */
        return zeros(tape, B, T, embedding->width);
    reserve(tape, embedding, places);
    mn__var *x = all.count == 1 ? all.part[0] : mn__op_concat(tape, 0, all.part, all.count);
    x = mn__op_gather(tape, x, all.index, places);
    return mn__op_reshape(tape, x, 3, (int64_t[]){B, T, embedding->width});
}
