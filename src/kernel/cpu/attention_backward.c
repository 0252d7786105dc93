/* Gradients of attention (Dao et al. 2023, section 3.1.2), in float: for each tile
 * of queries, over the tiles of keys that they see,
 *     P  = 2^(score - lse)           dP = dO V^T
 *     dV += P^T dO                   dS = P (dP - rowsum(dO O))
 *     dK += dS^T (q + u) scale       dQ += dS K scale
 * and for the positions, with dS read at a skew as dZ[query, distance],
 *     dR += dZ^T (q + v) scale       dQ += dZ R scale.
 * Neighbouring tiles of keys share distances: their dZ is added up first, so that
 * each distance is multiplied once.
 *
 * The keys' gradients of a row and a key head belong to one thread; where there are
 * fewer of those than threads, the tiles of queries are dealt to several, each
 * with sums of its own. What several heads or rows share (tables, u, v, r) is
 * summed apart for each and added in a fixed order: repeats are bit-identical. */
#include "kernel/cpu/attention.h"
#include "kernel/cpu/attention_vector.h"
#include "kernel/plain.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { SPAN = ROWS + KEYS, VECTORS = KEYS / LANES };

/* ---- Where sums live ------------------------------------------------------------------ */

typedef struct backward_call {
    const mn__flash *flash;
    const mn__attention_gradients *to;
    int64_t width;  /* of a row of sums: panels * 32 */
    int64_t chunks; /* into which the tiles of queries of a (b, g) are dealt */
    int64_t threads;
    float *heads; /* [B, H, chunks] of head_floats: see head_sums */
    int64_t head_floats;
    float *keys; /* [threads, or B G chunks] of key_floats: dK and dV of the groups */
    int64_t key_floats;
    char *workers; /* [threads] of worker_bytes */
} backward_call;

/* Sums of one head, row and chunk. Those of unwanted gradients have no room. */
typedef struct head_sums {
    float *scale, *sink;
    struct {
        float *u, *v;       /* [width] */
        float *by_distance; /* [entries]: sum of dS */
        float *bias;        /* [padded] */
        float *relative;    /* [entries, width] */
        float *shaw_values; /* [entries, width] */
    } group[MN__GROUPS_MAX];
} head_sums;

static float *grow(float *base, int64_t *at, bool wanted, int64_t floats)
{
    float *here = wanted ? base + *at : NULL;
    *at += wanted ? floats : 0;
    return here;
}

/* Lays the sums out from `base` on; returns their number of floats. */
static int64_t lay_out(const backward_call *call, float *base, head_sums *sums)
{
    const mn__flash *flash = call->flash;
    int64_t at = 0;
    sums->scale = grow(base, &at, true, LANES);
    sums->sink = sums->scale + 1;
    for (int i = 0; i < flash->call->groups; i++) {
        const packed_group *packed = &flash->group[i];
        const struct mn__group_gradients *to = &call->to->group[i];
        int64_t rows = packed->entries * call->width;
        sums->group[i].u = grow(base, &at, to->u != NULL, call->width);
        sums->group[i].v = grow(base, &at, to->v != NULL, call->width);
        sums->group[i].by_distance = grow(
            base, &at, packed->by_distance && (to->table || call->to->scales), packed->entries);
        sums->group[i].bias = grow(base, &at, to->bias != NULL, packed->padded);
        sums->group[i].relative = grow(base, &at, to->relative || to->shaw_keys, rows);
        sums->group[i].shaw_values = grow(base, &at, to->shaw_values != NULL, rows);
    }
    return at;
}

static head_sums sums_of(const backward_call *call, int64_t b, int64_t h, int64_t chunk)
{
    head_sums sums;
    int64_t index = (b * call->flash->call->H + h) * call->chunks + chunk;
    lay_out(call, call->heads + index * call->head_floats, &sums);
    return sums;
}

/* dK of group i, or dV, [padded, width], in one of the sets of sums of keys. */
static float *key_sums(const backward_call *call, int64_t set, int i, bool values)
{
    float *at = call->keys + set * call->key_floats;
    for (int before = 0; before < i; before++)
        at += 2 * call->flash->group[before].padded * call->width;
    return at + (values ? call->flash->group[i].padded * call->width : 0);
}

/* ---- A thread's work ----------------------------------------------------------------------- */

typedef struct thread_work {
    const backward_call *call;
    query_tile tile;
    head_sums sums;
    int64_t set;                                           /* of sums of keys */
    float *dout;                                           /* [ROWS][flash width] */
    float *dout_panels, *content_panels, *position_panels; /* [panels][ROWS][32] */
    float *dscores;                                        /* [ROWS][KEYS]: dP, then dS */
    float *dskewed;                                        /* [ROWS][SPAN]: dZ */
    float *dcontent, *dposition; /* [ROWS][width]: dS K, dZ R of one group */
    float *dqueries;             /* [ROWS][width]: their sum over the groups */
    float lse[ROWS], mean[ROWS]; /* in units of log 2; rowsum(dO O) */
} thread_work;

static int64_t worker_bytes(const mn__flash *flash)
{
    int64_t width = flash->panels * PANEL;
    int64_t floats = ROWS * (flash->width + 6 * width + KEYS + SPAN);
    return MN__KERNEL(query_tile_bytes)(flash) + floats * (int64_t)sizeof(float);
}

static void worker_init(thread_work *worker, const backward_call *call, int64_t thread)
{
    int64_t bytes = worker_bytes(call->flash), rows = ROWS * call->width;
    char *scratch = call->workers + thread * bytes;
    memset(scratch, 0, (size_t)bytes);
    *worker = (thread_work){.call = call};
    MN__KERNEL(query_tile_init)(&worker->tile, call->flash, scratch);
    worker->dout = (float *)(scratch + MN__KERNEL(query_tile_bytes)(call->flash));
    worker->dout_panels = worker->dout + ROWS * call->flash->width;
    worker->content_panels = worker->dout_panels + rows;
    worker->position_panels = worker->content_panels + rows;
    worker->dcontent = worker->position_panels + rows;
    worker->dposition = worker->dcontent + rows;
    worker->dqueries = worker->dposition + rows;
    worker->dscores = worker->dqueries + rows;
    worker->dskewed = worker->dscores + ROWS * KEYS;
}

/* Rows [ROWS][flash width] into panels [panels][ROWS][32]. */
static void put_panels(const mn__flash *flash, float *panels, const float *rows)
{
    for (int64_t d = 0; d < flash->width; d += PANEL) {
        int64_t n = flash->width - d < PANEL ? flash->width - d : PANEL;
        for (int64_t i = 0; i < ROWS; i++)
            memcpy(panels + (d * ROWS + i * PANEL), rows + i * flash->width + d,
                   (size_t)n * sizeof(float));
    }
}

/* ---- The products of a tile --------------------------------------------------------------------
 */

/* c (+)= a b for c [m, flash width or KEYS]. */
typedef struct operands {
    float *c;
    int64_t c_row;
    const float *a;
    int64_t a_row, a_k;
    const float *b;
    int64_t b_panel;
    int64_t m, n, k;
    bool accumulate;
} operands;

static void multiply(const operands *o)
{
    MN__KERNEL(tile_f32)
    (&(tile_product){o->c, o->c_row, o->a, o->a_row, o->a_k, o->b, o->b_panel, o->m, o->n, o->k,
                     o->accumulate});
}

static int64_t bg_of(const query_tile *tile)
{
    return tile->b * tile->flash->call->G + tile->g;
}

/* dscores = dO V^T, and Shaw's values at a skew. tile.skewed is scratch then. */
static void dscores_of_values(thread_work *worker, int64_t j0)
{
    query_tile *tile = &worker->tile;
    int64_t keys = MN__KERNEL(query_tile_keys)(tile, j0);
    const mn__flash *flash = tile->flash;
    const packed_group *packed = &flash->group[tile->i];
    const distance_rows *shaw = &packed->shaw_values;
    if (shaw->entries) {
        multiply(&(operands){tile->skewed, SPAN, worker->dout, flash->width, 1,
                             MN__KERNEL(attention_panels)(flash, shaw->columns, shaw->entries, 0,
                                                          MN__KERNEL(entry_of)(tile, j0), true),
                             flash->width * PANEL, tile->m, SPAN, flash->width, false});
        tile->skewed_j0 = -1;
        for (int64_t i = 0; i < tile->m; i++)
            memcpy(worker->dscores + i * KEYS, tile->skewed + i * SPAN + ROWS - 1 - i,
                   KEYS * sizeof(float));
    }
    multiply(&(operands){worker->dscores, KEYS, worker->dout, flash->width, 1,
                         MN__KERNEL(attention_panels)(flash, packed->value_columns, packed->padded,
                                                      bg_of(tile), j0, true),
                         flash->width * PANEL, tile->m, keys, flash->width, shaw->entries != 0});
}

/* scores become P, dscores dS. */
static void differentiate(thread_work *worker)
{
    for (int64_t i = 0; i < worker->tile.m; i++) {
        float *p_row = worker->tile.scores + i * KEYS, *d_row = worker->dscores + i * KEYS;
        for (int j = 0; j < VECTORS; j++) {
            vec p = vec_exp2(vec_load(p_row + j * LANES) - worker->lse[i], false);
            vec d = p * (vec_load(d_row + j * LANES) - worker->mean[i]);
            vec_store(p_row + j * LANES, p);
            vec_store(d_row + j * LANES, d);
        }
    }
}

/* sums[j0.., width] += weights^T panels, for weights [ROWS][KEYS]. */
static void add_keys(const query_tile *tile, int64_t j0, float *sums, int64_t width,
                     const float *weights, const float *panels)
{
    multiply(&(operands){sums + j0 * width, width, weights, 1, KEYS, panels, ROWS * PANEL,
                         MN__KERNEL(query_tile_keys)(tile, j0), tile->flash->width, tile->m, true});
}

static void add_queries(thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    const packed_group *packed = &tile->flash->group[tile->i];
    multiply(&(operands){worker->dcontent, worker->call->width, worker->dscores, KEYS, 1,
                         MN__KERNEL(attention_panels)(tile->flash, packed->key_rows, packed->padded,
                                                      bg_of(tile), j0, false),
                         packed->padded * PANEL, tile->m, tile->flash->width,
                         MN__KERNEL(query_tile_keys)(tile, j0), true});
}

/* ---- Positions ----------------------------------------------------------- */

static void skew(const query_tile *tile, float *skewed, const float *tile_rows, bool add)
{
    for (int64_t i = 0; i < tile->m; i++) {
        float *row = skewed + i * SPAN + ROWS - 1 - i;
        for (int64_t j = 0; j < KEYS; j++)
            row[j] = tile_rows[i * KEYS + j] + (add ? row[j] : 0);
    }
}

/* The first n columns of dZ are complete: they stand for the entries from `entry` on. */
static void flush_positions(thread_work *worker, int64_t entry, int64_t n)
{
    const query_tile *tile = &worker->tile;
    const mn__flash *flash = tile->flash;
    const distance_rows *relative = &flash->group[tile->i].relative;
    int64_t width = worker->call->width, h = relative->heads == 1 ? 0 : tile->h;
    float *sums = worker->sums.group[tile->i].relative;
    if (sums)
        multiply(&(operands){sums + entry * width, width, worker->dskewed, 1, SPAN,
                             worker->position_panels, ROWS * PANEL, n, flash->width, tile->m,
                             true});
    multiply(&(operands){
        worker->dposition, width, worker->dskewed, SPAN, 1,
        MN__KERNEL(attention_panels)(flash, relative->rows, relative->entries, h, entry, false),
        relative->entries * PANEL, tile->m, flash->width, n, true});
}

static void add_positions(thread_work *worker, int64_t j0)
{
    skew(&worker->tile, worker->dskewed, worker->dscores, true);
    flush_positions(worker, MN__KERNEL(entry_of)(&worker->tile, j0), KEYS);
    for (int64_t i = 0; i < ROWS; i++) {
        float *row = worker->dskewed + i * SPAN;
        memmove(row, row + KEYS, ROWS * sizeof *row);
        memset(row + ROWS, 0, KEYS * sizeof *row);
    }
}

static void add_shaw_values(thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    int64_t width = worker->call->width;
    float *weights = worker->tile.skewed;
    float *sums = worker->sums.group[tile->i].shaw_values;
    memset(weights, 0, ROWS * SPAN * sizeof *weights);
    skew(tile, weights, tile->scores, false);
    multiply(&(operands){sums + MN__KERNEL(entry_of)(tile, j0) * width, width, weights, 1, SPAN,
                         worker->dout_panels, ROWS * PANEL, SPAN, tile->flash->width, tile->m,
                         true});
    worker->tile.skewed_j0 = -1;
}

static void add_biases(thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    float *bias = worker->sums.group[tile->i].bias;
    float *by_distance = worker->sums.group[tile->i].by_distance;
    for (int64_t i = 0; i < tile->n; i++) {
        const float *row = worker->dscores + i * KEYS;
        for (int64_t j = 0; bias && j < KEYS; j++)
            bias[j0 + j] += row[j];
        int64_t diagonal = MN__KERNEL(entry_of)(tile, j0) + ROWS - 1 - i;
        for (int64_t j = 0; by_distance && j < KEYS; j++)
            by_distance[diagonal + j] += row[j];
    }
}

/* ---- A tile of queries --------------------------------------------------- */

static const void *row_of(const void *data, mn__dtype dtype, const int64_t stride[3], int64_t b,
                          int64_t t, int64_t h)
{
    return (const char *)data +
           (b * stride[0] + t * stride[1] + h * stride[2]) * mn__dtype_bytes(dtype);
}

/* dO, lse and rowsum(dO O) of the tile's queries; rows that see nothing, and those
 * past n, get an lse that makes P zero. */
static void open_tile(thread_work *worker)
{
    const query_tile *tile = &worker->tile;
    const mn__flash *flash = tile->flash;
    const mn__attention_call *call = flash->call;
    const mn__attention_gradients *to = worker->call->to;
    MN__KERNEL(attention_rows)
    (flash, worker->dout, row_of(to->out, call->dtype, to->out_stride, tile->b, tile->t0, tile->h),
     to->out_stride[1], tile->n, ROWS, NULL, 1);
    put_panels(flash, worker->dout_panels, worker->dout);
    memset(worker->dqueries, 0, sizeof(float) * (size_t)(ROWS * worker->call->width));
    for (int64_t i = 0; i < ROWS; i++) {
        worker->lse[i] = INFINITY;
        worker->mean[i] = 0;
        if (i >= tile->n)
            continue;
        const void *out =
            row_of(call->out, call->dtype, call->out_stride, tile->b, tile->t0 + i, tile->h);
        float lse = call->lse[(tile->b * call->H + tile->h) * call->T + tile->t0 + i];
        for (int64_t d = 0; d < call->D; d++)
            worker->mean[i] +=
                worker->dout[i * flash->width + d] * mn__element(out, call->dtype, d);
        if (lse == -INFINITY)
            continue;
        worker->lse[i] = lse * (float)M_LOG2E;
        if (call->sink)
            *worker->sums.sink -= expf(call->sink[tile->h] - lse) * worker->mean[i];
    }
}

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* What the group's dS K and dZ R hand on: to the queries, u and v, scales[h]. */
static void close_group(thread_work *worker)
{
    query_tile *tile = &worker->tile;
    const mn__flash *flash = tile->flash;
    const mn__attention_call *call = flash->call;
    const mn__key_group *group = &call->group[tile->i];
    int64_t width = worker->call->width;
    float *u = worker->sums.group[tile->i].u, *v = worker->sums.group[tile->i].v;
    for (int64_t i = 0; i < tile->n; i++)
        for (int64_t d = 0; d < flash->width; d++) {
            float content = worker->dcontent[i * width + d];
            float position = worker->dposition[i * width + d];
            worker->dqueries[i * width + d] += content + position;
            if (u)
                u[d] += content;
            if (v)
                v[d] += position;
        }
    if (!worker->call->to->scales)
        return;
    const void *queries =
        row_of(call->queries, call->dtype, call->query_stride, tile->b, tile->t0, tile->h);
    bool xl = group->position == MN__POSITION_XL;
    const float *vectors[2] = {xl ? group->u : NULL, xl ? group->v : NULL};
    for (int part = 0; part < 2; part++) {
        MN__KERNEL(attention_rows)
        (flash, tile->content, queries, call->query_stride[1], tile->n, tile->m,
         vectors[part] ? vectors[part] + tile->h * call->D : NULL, call->scale);
        const float *rows = tile->content, *to = part ? worker->dposition : worker->dcontent;
        for (int64_t i = 0; i < tile->n; i++)
            *worker->sums.scale += dot(rows + i * flash->width, to + i * width, flash->width);
    }
}

static void walk_group(thread_work *worker, int i)
{
    query_tile *tile = &worker->tile;
    const mn__flash *flash = tile->flash;
    const packed_group *packed = &flash->group[i];
    bool keys = worker->call->to->group[i].keys != NULL, positions = packed->relative.entries != 0;
    int64_t width = worker->call->width, first, end;
    float *dkeys = key_sums(worker->call, worker->set, i, false);
    float *dvalues = key_sums(worker->call, worker->set, i, true);
    MN__KERNEL(query_tile_group)(tile, i, &first, &end);
    put_panels(flash, worker->content_panels, tile->content);
    put_panels(flash, worker->position_panels, tile->position);
    memset(worker->dskewed, 0, ROWS * SPAN * sizeof(float));
    memset(worker->dcontent, 0, sizeof(float) * (size_t)(2 * ROWS * width));
    int64_t j0 = first;
    for (; j0 < end; j0 += KEYS) {
        MN__KERNEL(query_tile_scores)(tile, j0);
        dscores_of_values(worker, j0);
        differentiate(worker);
        if (keys) {
            add_keys(tile, j0, dvalues, width, tile->scores, worker->dout_panels);
            add_keys(tile, j0, dkeys, width, worker->dscores, worker->content_panels);
        }
        add_queries(worker, j0);
        if (positions)
            add_positions(worker, j0);
        if (worker->sums.group[i].shaw_values)
            add_shaw_values(worker, j0);
        if (worker->sums.group[i].bias || worker->sums.group[i].by_distance)
            add_biases(worker, j0);
    }
    if (positions && j0 > first)
        flush_positions(worker, MN__KERNEL(entry_of)(tile, j0), ROWS);
    close_group(worker);
}

/* to[d] (+)= from[d] * factor */
static void write_row(void *to, mn__dtype dtype, bool accumulate, const float *from, float factor,
                      int64_t D)
{
    mn__bf16 *bf16 = to;
    float *f32 = to;
    if (dtype == MN__BF16)
        for (int64_t d = 0; d < D; d++)
            bf16[d] =
                mn__f32_to_bf16(from[d] * factor + (accumulate ? mn__bf16_to_f32(bf16[d]) : 0.0f));
    else
        for (int64_t d = 0; d < D; d++)
            f32[d] = from[d] * factor + (accumulate ? f32[d] : 0.0f);
}

static float score_scale(const mn__attention_call *call, int64_t h)
{
    return call->scale * (call->scales ? call->scales[h] : 1);
}

static void close_tile(const thread_work *worker, bool any)
{
    const query_tile *tile = &worker->tile;
    const mn__attention_call *call = tile->flash->call;
    const mn__attention_gradients *to = worker->call->to;
    static const float zeros[PANEL] = {0};
    int64_t rows = call->T - tile->t0 < ROWS ? call->T - tile->t0 : ROWS;
    for (int64_t i = 0; to->queries && i < rows; i++) {
        char *row = (char *)row_of(to->queries, call->dtype, to->query_stride, tile->b,
                                   tile->t0 + i, tile->h);
        if (any && i < tile->n)
            write_row(row, call->dtype, to->queries_accumulate,
                      worker->dqueries + i * worker->call->width, score_scale(call, tile->h),
                      call->D);
        else if (!to->queries_accumulate)
            for (int64_t d = 0; d < call->D; d += PANEL)
                write_row(row + d * mn__dtype_bytes(call->dtype), call->dtype, false, zeros, 1,
                          call->D - d < PANEL ? call->D - d : PANEL);
    }
}

/* ---- A unit: one row, one head of keys, one chunk of the tiles of queries ---------------------
 */

/* Writes dK and dV of (b, g): the sum over `sets` sets of sums from `set` on. */
static void write_keys(const backward_call *call, int64_t b, int64_t g, int64_t set, int64_t sets)
{
    const mn__attention_call *attention = call->flash->call;
    for (int i = 0; i < attention->groups; i++) {
        const struct mn__group_gradients *to = &call->to->group[i];
        for (int64_t j = 0; to->keys && j < attention->group[i].count; j++)
            for (int values = 0; values < 2; values++) {
                void *row = (void *)row_of(values ? to->values : to->keys, attention->dtype,
                                           values ? to->value_stride : to->key_stride, b, j, g);
                float *sum = key_sums(call, set, i, values) + j * call->width;
                for (int64_t other = 1; other < sets; other++) {
                    const float *more = key_sums(call, set + other, i, values) + j * call->width;
                    for (int64_t d = 0; d < attention->D; d++)
                        sum[d] += more[d];
                }
                write_row(row, attention->dtype, to->accumulate, sum, values ? 1.0f : (float)M_LN2,
                          attention->D);
            }
    }
}

static void run_unit(thread_work *worker, int64_t unit)
{
    const backward_call *call = worker->call;
    const mn__attention_call *attention = call->flash->call;
    int64_t bg = unit / call->chunks, chunk = unit % call->chunks;
    int64_t b = bg / attention->G, g = bg % attention->G, shared = attention->H / attention->G;
    worker->set = call->chunks == 1 ? omp_get_thread_num() : unit;
    memset(key_sums(call, worker->set, 0, false), 0, sizeof(float) * (size_t)call->key_floats);
    for (int64_t h = g * shared; h < (g + 1) * shared; h++) {
        worker->sums = sums_of(call, b, h, chunk);
        memset(worker->sums.scale, 0, sizeof(float) * (size_t)call->head_floats);
        for (int64_t tile = chunk; tile < call->flash->tiles; tile += call->chunks) {
            bool any = MN__KERNEL(query_tile_set)(&worker->tile, b, h, tile * ROWS);
            if (any)
                open_tile(worker);
            for (int i = 0; any && i < attention->groups; i++)
                walk_group(worker, i);
            close_tile(worker, any);
        }
    }
    if (call->chunks == 1)
        write_keys(call, b, g, worker->set, 1);
}

/* ---- What heads and rows share ------------------------------------------- */

static void add_row(float *to, const float *from, float factor, int64_t n)
{
    for (int64_t d = 0; to && d < n; d++)
        to[d] += from[d] * factor;
}

static int64_t distance_of(const mn__flash *flash, const mn__key_group *group, int64_t entry)
{
    return group->offset + flash->tiles * ROWS - 1 - entry;
}

/* Rows by distance into a table [high - low + 1, heads, D]. */
static void add_distances(const mn__flash *flash, const mn__key_group *group,
                          const distance_rows *rows, int64_t h, const float *sums, int64_t width,
                          float factor, float *to)
{
    int64_t D = flash->call->D;
    for (int64_t entry = 0; entry < rows->entries; entry++) {
        int64_t distance = distance_of(flash, group, entry);
        distance = distance < rows->low ? rows->low : distance;
        distance = distance > rows->high ? rows->high : distance;
        int64_t row = (distance - rows->low) * rows->heads + (rows->heads == 1 ? 0 : h);
        add_row(to + row * D, sums + entry * width, factor, D);
    }
}

/* ALiBi's and T5's part of d scales[h], and T5's table. */
static void add_by_distance(const backward_call *call, int i, int64_t h, const float *sums)
{
    const mn__attention_call *attention = call->flash->call;
    const mn__key_group *group = &attention->group[i];
    float *table = call->to->group[i].table;
    float scale = attention->scales ? attention->scales[h] : 1;
    for (int64_t entry = 0; entry < call->flash->group[i].entries; entry++) {
        int64_t distance = distance_of(call->flash, group, entry);
        bool t5 = group->position == MN__POSITION_T5;
        int64_t at =
            t5 ? mn__t5_bucket(distance, group->buckets, group->far) * attention->H + h : h;
        float y = t5 ? group->table[at] : -group->slopes[h] * (float)distance;
        if (t5 && table)
            table[at] += sums[entry] * scale;
        if (call->to->scales)
            call->to->scales[h] += sums[entry] * y;
    }
}

static void add_head(const backward_call *call, int64_t b, int64_t h, int64_t chunk)
{
    const mn__flash *flash = call->flash;
    const mn__attention_call *attention = flash->call;
    const mn__attention_gradients *to = call->to;
    head_sums sums = sums_of(call, b, h, chunk);
    int64_t D = attention->D, g = h * attention->G / attention->H;
    add_row(to->scales ? to->scales + h : NULL, sums.scale, 1, 1);
    add_row(to->sink ? to->sink + h : NULL, sums.sink, 1, 1);
    for (int i = 0; i < attention->groups; i++) {
        const mn__key_group *group = &attention->group[i];
        const struct mn__group_gradients *of = &to->group[i];
        add_row(of->u ? of->u + h * D : NULL, sums.group[i].u, score_scale(attention, h), D);
        add_row(of->v ? of->v + h * D : NULL, sums.group[i].v, score_scale(attention, h), D);
        if (of->bias)
            add_row(of->bias + (b * attention->G + g) * group->count, sums.group[i].bias, 1,
                    group->count);
        if (sums.group[i].by_distance)
            add_by_distance(call, i, h, sums.group[i].by_distance);
        if (sums.group[i].relative)
            add_distances(flash, group, &flash->group[i].relative, h, sums.group[i].relative,
                          call->width, (float)M_LN2, of->relative ? of->relative : of->shaw_keys);
        if (sums.group[i].shaw_values)
            add_distances(flash, group, &flash->group[i].shaw_values, h, sums.group[i].shaw_values,
                          call->width, 1, of->shaw_values);
    }
}

/* Heads whose sums go to places of their own may be added at the same time. */
static bool heads_share(const mn__attention_call *call, const mn__attention_gradients *to)
{
    for (int i = 0; i < call->groups; i++)
        if (to->group[i].shaw_keys || to->group[i].shaw_values ||
            (to->group[i].bias && call->G < call->H))
            return true;
    return false;
}

static void add_heads(const backward_call *call)
{
    const mn__attention_call *attention = call->flash->call;
#pragma omp parallel for schedule(static) if (!heads_share(attention, call->to))
    for (int64_t h = 0; h < attention->H; h++)
        for (int64_t b = 0; b < attention->B; b++)
            for (int64_t chunk = 0; chunk < call->chunks; chunk++)
                add_head(call, b, h, chunk);
}

/* ---- The kernel ---------------------------------------------------------- */

/* The fewest chunks that keep nine tenths of the threads busy. */
static int64_t count_chunks(const mn__flash *flash, int64_t threads)
{
    int64_t units = flash->call->B * flash->call->G, chunks = 1;
    for (; chunks < threads && chunks < flash->tiles; chunks++) {
        int64_t rounds = (units * chunks + threads - 1) / threads;
        if (10 * units * chunks >= 9 * rounds * threads)
            break;
    }
    return chunks;
}

static bool open_call(backward_call *call, mn__queue *queue)
{
    const mn__attention_call *attention = call->flash->call;
    int64_t units = attention->B * attention->G * call->chunks;
    int64_t sets = call->chunks == 1 ? call->threads : units;
    int64_t heads = attention->B * attention->H * call->chunks, each = (int64_t)sizeof(float);
    float nothing[1];
    head_sums sums;
    call->head_floats = lay_out(call, nothing, &sums);
    for (int i = 0; i < attention->groups; i++)
        call->key_floats += 2 * call->flash->group[i].padded * call->width;
    call->heads = mn__queue_scratch(queue, heads * call->head_floats * each);
    call->keys = mn__queue_scratch(queue, sets * call->key_floats * each);
    call->workers = mn__queue_scratch(queue, call->threads * worker_bytes(call->flash));
    return call->heads && call->keys && call->workers;
}

static void run_units(const backward_call *call)
{
    const mn__attention_call *attention = call->flash->call;
    int64_t bg = attention->B * attention->G;
#pragma omp parallel
    {
        thread_work worker;
        worker_init(&worker, call, omp_get_thread_num());
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < bg * call->chunks; unit++)
            run_unit(&worker, unit);
        if (call->chunks > 1)
#pragma omp for schedule(static)
            for (int64_t at = 0; at < bg; at++)
                write_keys(call, at / attention->G, at % attention->G, at * call->chunks,
                           call->chunks);
    }
    add_heads(call);
}

static void backward(mn__queue *queue, const mn__attention_call *attention,
                     const mn__attention_gradients *gradients)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    mn__flash flash;
    if (MN__KERNEL(attention_open)(&flash, queue, attention, true)) {
        backward_call call = {.flash = &flash,
                              .to = gradients,
                              .width = flash.panels * PANEL,
                              .threads = omp_get_max_threads()};
        call.chunks = count_chunks(&flash, call.threads);
        if (open_call(&call, queue))
            run_units(&call);
    }
    mn__arena_release(&queue->scratch, mark);
}

void MN__KERNEL(fill_attention_backward)(mn__kernels *kernels)
{
    kernels->attention_backward = backward;
}
