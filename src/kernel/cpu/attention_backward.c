/* Gradients of attention (Dao et al. 2023, section 3.1.2): for each tile of queries,
 * over the tiles of keys that they see,
 *     P  = 2^(score - lse)           dP = dO V^T
 *     dV += P^T dO                   dS = P (dP - rowsum(dO O))
 *     dK += dS^T (q + u) scale       dQ += dS K scale
 * and for the positions, with dS read at a skew as dZ[query, distance],
 *     dR += dZ^T (q + v) scale       dQ += dZ R scale.
 * With dropout's factors F, which are drawn again, and O made with them,
 *     dV += (P F)^T dO               dS = P (dP F - rowsum(dO O)).
 * Neighbouring tiles of keys share distances: their dZ is added up first, so that
 * each distance is multiplied once.
 *
 * bf16 products: P, dS and dZ are rounded for them, sums are float. Left operands
 * have contiguous rows there, and a tile of dS is as easily written in pairs of
 * rows as in rows: the sums over queries are made turned, dK^T += (q + u)^T dS, in
 * panels [keys / 32][width][32], and turned back when complete. Heads that share a
 * key may have scales of their own, so that these pairs are times the head's scale.
 *
 * The keys' gradients of a row and a key head belong to one thread; where there are
 * fewer of those than threads, the tiles of queries are dealt to several, each
 * with sums of its own. What several heads or rows share (tables, u, v, r) is
 * summed apart for each and added in a fixed order: repeats are bit-identical. */
#include "kernel/cpu/attention.h"
#include "kernel/cpu/attention_vector.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/denormal.h"
#include "kernel/plain.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { SPAN = ROWS + KEYS, ROWS_AHEAD = 16 /* asked for before they are written */ };

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
    int64_t set; /* of sums of keys */
    void *dout;  /* [ROWS][flash width] */
    void *dout_side, *content_side,
        *position_side;                   /* of products that sum over queries: put_side */
    float *dscores;                       /* [ROWS][KEYS]: dP, then dS */
    float *dskewed;                       /* [ROWS][SPAN]: dZ */
    float *dcontent, *dposition;          /* [ROWS][width]: dS K, dZ R of one group */
    float *dqueries;                      /* [ROWS][width]: their sum over the groups */
    mn__bf16 *p_pairs, *d_pairs, *d_rows; /* for bf16 products: P; dS or dZ, see pairs */
    float lse[ROWS], mean[ROWS];          /* in units of log 2; rowsum(dO O) */
} thread_work;

static int64_t worker_bytes(const mn__flash *flash)
{
    int64_t width = flash->panels * PANEL;
    int64_t floats = ROWS * (flash->width + 6 * width + KEYS + SPAN);
    int64_t pairs = flash->bf16 ? 3 * ROWS * KEYS : 0;
    return MN__KERNEL(query_tile_bytes)(flash) + floats * (int64_t)sizeof(float) +
           pairs * (int64_t)sizeof(mn__bf16);
}

static void worker_init(thread_work *worker, const backward_call *call, int64_t thread)
{
    int64_t bytes = worker_bytes(call->flash), rows = ROWS * call->width;
    char *scratch = call->workers + thread * bytes;
    memset(scratch, 0, (size_t)bytes);
    *worker = (thread_work){.call = call};
    MN__KERNEL(query_tile_init)(&worker->tile, call->flash, scratch);
    float *at = (float *)(scratch + MN__KERNEL(query_tile_bytes)(call->flash));
    worker->dout = at;
    worker->dout_side = at += ROWS * call->flash->width;
    worker->content_side = at += rows;
    worker->position_side = at += rows;
    worker->dcontent = at + rows;
    worker->dposition = worker->dcontent + rows;
    worker->dqueries = worker->dposition + rows;
    worker->dscores = worker->dqueries + rows;
    worker->dskewed = worker->dscores + ROWS * KEYS;
    worker->p_pairs = (mn__bf16 *)(worker->dskewed + ROWS * SPAN);
    worker->d_pairs = worker->p_pairs + ROWS * KEYS;
    worker->d_rows = worker->d_pairs + ROWS * KEYS;
}

/* Of the keys j0.., those of which a product may take the weights of query i: the same for
 * two queries that become pairs. all: of the whole tile, for what is read at a skew. */
static key_range tile_range(const query_tile *tile, int64_t j0, int64_t i, bool all)
{
    if (all)
        return (key_range){0, KEYS};
    return MN__KERNEL(query_tile_range)(MN__KERNEL(query_tile_diagonal)(tile, j0),
                                        MN__KERNEL(query_tile_band)(tile), i / 2 * 2,
                                        MN__KERNEL(query_tile_keys)(tile, j0));
}

/* ---- Operands of products that sum over queries --------------------------------------- */

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

/* Rows [m][width] into [width][ROWS], m a multiple of 32; `scratch` holds the rows, too. */
static void put_turned(mn__bf16 *turned, const mn__bf16 *rows, int64_t m, int64_t width,
                       uint32_t *scratch)
{
    for (int64_t i = 0; i < m; i += 2) {
        const mn__bf16 *even = rows + i * width, *odd = even + width;
        for (int64_t d = 0; d < width; d++)
            scratch[i / 2 * width + d] = (uint32_t)even[d] | (uint32_t)odd[d] << 16;
    }
    MN__KERNEL(attention_turn)(turned, ROWS / 2, scratch, width, m / 2, width);
}

/* The right side, in panels, of float products; the left one, turned, of bf16 products.
 * dcontent is scratch then. */
static void put_side(thread_work *worker, void *side, const void *rows)
{
    const mn__flash *flash = worker->call->flash;
    if (flash->bf16)
        put_turned(side, rows, worker->tile.m, flash->width, (uint32_t *)worker->dcontent);
    else
        put_panels(flash, side, rows);
}

#if defined(MN__BF16_TILES)

/* Two rows of dS or P become pairs in a panel [ROWS / 2][32][2]. */
static inline void pair(mn__bf16 *to, vec even, vec odd)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    both = _mm512_permutexvar_epi16(order, both);
    memcpy(to, &both, sizeof both);
}

static inline void narrow(mn__bf16 *to, const float *from)
{
    mn__store_bf16(to, vec_load(from), vec_load(from + LANES));
}

/* scales[h] */
static float head_scale(const query_tile *tile)
{
    const mn__attention_call *call = tile->flash->call;
    return call->scales ? call->scales[tile->h] : 1;
}

/* d_pairs, times the head's scale, and d_rows of two float rows, i and i + 1. */
static void put_pair(thread_work *worker, int64_t i, const float *rows, int64_t stride,
                     key_range keys)
{
    float scale = head_scale(&worker->tile);
    for (int64_t j = keys.first; j < keys.end; j += PANEL) {
        mn__bf16 *pairs = worker->d_pairs + j * ROWS + i * PANEL;
        const float *even = rows + j, *odd = even + stride;
        pair(pairs, scale * vec_load(even), scale * vec_load(odd));
        pair(pairs + PANEL, scale * vec_load(even + LANES), scale * vec_load(odd + LANES));
        narrow(worker->d_rows + i * KEYS + j, even);
        narrow(worker->d_rows + (i + 1) * KEYS + j, odd);
    }
}

/* The first n columns of all rows. */
static void put_pairs(thread_work *worker, const float *rows, int64_t stride, int64_t n)
{
    for (int64_t i = 0; i < worker->tile.m; i += 2)
        put_pair(worker, i, rows + i * stride, stride, (key_range){0, n});
}

static inline __attribute__((always_inline)) void differentiate_pair(thread_work *worker, int64_t i,
                                                                     float factor, key_range keys,
                                                                     const bool drop,
                                                                     float (*factors)[KEYS])
{
    for (int64_t j = keys.first; j < keys.end; j += LANES) {
        vec p[2];
        for (int64_t k = 0; k < 2; k++) {
            float *d_row = worker->dscores + (i + k) * KEYS + j;
            vec score = vec_load(worker->tile.scores + (i + k) * KEYS + j), d = vec_load(d_row);
            p[k] = vec_exp2(score * factor - worker->lse[i + k], true);
            if (drop)
                d *= vec_load(factors[k] + j);
            vec_store(d_row, p[k] * (d - worker->mean[i + k]));
            if (drop)
                p[k] *= vec_load(factors[k] + j);
        }
        int64_t panel = j / PANEL * PANEL;
        pair(worker->p_pairs + panel * ROWS + i * PANEL + 2 * (j - panel), p[0], p[1]);
    }
    put_pair(worker, i, worker->dscores + i * KEYS, KEYS, keys);
}

/* Scores become P in p_pairs, their dP dS in place and in d_pairs and d_rows. */
static void differentiate_bf16(thread_work *worker, float factor, int64_t j0, bool all)
{
    float factors[2][KEYS];
    bool drop = drops_weights(worker->call->flash);
    for (int64_t i = 0; i < worker->tile.m; i += 2) {
        key_range keys = tile_range(&worker->tile, j0, i, all);
        if (!drop) {
            differentiate_pair(worker, i, factor, keys, false, NULL);
            continue;
        }
        MN__KERNEL(attention_factors)(&worker->tile, i, j0, factors[0]);
        MN__KERNEL(attention_factors)(&worker->tile, i + 1, j0, factors[1]);
        differentiate_pair(worker, i, factor, keys, true, factors);
    }
}

#else

/* Never called: without bf16 products flash->bf16 is false. */
static void put_pairs(thread_work *worker, const float *rows, int64_t stride, int64_t n)
{
    (void)worker, (void)rows, (void)stride, (void)n;
    __builtin_unreachable();
}

static void differentiate_bf16(thread_work *worker, float factor, int64_t j0, bool all)
{
    (void)worker, (void)factor, (void)j0, (void)all;
    __builtin_unreachable();
}

#endif

/* ---- The products of a tile --------------------------------------------------------------------
 */

static void multiply(const mn__flash *flash, const tile_product *product)
{
    if (flash->bf16)
        MN__KERNEL(tile_bf16)(product);
    else
        MN__KERNEL(tile_f32)(product);
}

/* sums[n keys or distances, width] += what the queries give, see put_side: `weights` [m][stride]
 * or, for bf16 products, `pairs`; the sums are turned there. */
static void add_over_queries(const thread_work *worker, float *sums, int64_t n,
                             const float *weights, int64_t stride, const mn__bf16 *pairs,
                             const void *side, skipping skip, int64_t diagonal)
{
    const mn__flash *flash = worker->call->flash;
    int64_t width = worker->call->width, m = worker->tile.m;
    int64_t band = skip == SKIP_NOTHING ? 0 : MN__KERNEL(query_tile_band)(&worker->tile);
    if (!flash->bf16)
        MN__KERNEL(tile_f32)
    (&(tile_product){sums, width, weights, 1, stride, side, ROWS * PANEL, n, flash->width, m, true,
                     skip, diagonal, band});
    for (int64_t j = 0; flash->bf16 && j < n; j += PANEL) {
        /* The queries before, and from `end` on, see none of the panel's keys. */
        int64_t first = skip == SKIP_NOTHING ? 0 : clip((j - diagonal) / 32 * 32, 0, m);
        int64_t end = band ? clip((j + PANEL - 1 + band - diagonal + 31) / 32 * 32, first, m) : m;
        MN__KERNEL(tile_bf16)
        (&(tile_product){.c = sums + j * width,
                         .c_row = PANEL,
                         .a = (const mn__bf16 *)side + first,
                         .a_row = ROWS,
                         .a_k = 1,
                         .b = pairs + j * ROWS + first * PANEL,
                         .m = width,
                         .n = PANEL,
                         .k = end - first,
                         .accumulate = true});
    }
}

/* Complete sums in panels become rows. */
static void turn_sums(const thread_work *worker, float *sums, int64_t rows)
{
    int64_t width = worker->call->width;
    float *scratch = worker->dcontent;
    for (int64_t i = 0; worker->call->flash->bf16 && sums && i < rows; i += PANEL) {
        float *panel = sums + i * width;
        MN__KERNEL(attention_turn)(scratch, width, panel, PANEL, width, PANEL);
        memcpy(panel, scratch, (size_t)(PANEL * width) * sizeof *panel);
    }
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
        multiply(flash,
                 &(tile_product){
                     tile->skewed, SPAN, worker->dout, flash->width, 1,
                     MN__KERNEL(attention_panels)(flash, shaw->columns, shaw->entries, 0,
                                                  MN__KERNEL(entry_of)(tile, j0), true),
                     flash->width * PANEL, tile->m, SPAN, flash->width, false, SKIP_NOTHING, 0, 0});
        tile->skewed_j0 = -1;
        for (int64_t i = 0; i < tile->m; i++)
            memcpy(worker->dscores + i * KEYS, tile->skewed + i * SPAN + ROWS - 1 - i,
                   KEYS * sizeof(float));
    }
    multiply(flash,
             &(tile_product){worker->dscores, KEYS, worker->dout, flash->width, 1,
                             MN__KERNEL(attention_panels)(flash, packed->value_columns,
                                                          packed->padded, bg_of(tile), j0, true),
                             flash->width * PANEL, tile->m, keys, flash->width, shaw->entries != 0,
                             SKIP_SCORES, MN__KERNEL(query_tile_diagonal)(tile, j0),
                             MN__KERNEL(query_tile_band)(tile)});
}

static inline __attribute__((always_inline)) void differentiate_row(thread_work *worker, int64_t i,
                                                                    key_range keys, const bool drop,
                                                                    const float *factors)
{
    float *p_row = worker->tile.scores + i * KEYS, *d_row = worker->dscores + i * KEYS;
    for (int64_t j = keys.first; j < keys.end; j += LANES) {
        vec p = vec_exp2(vec_load(p_row + j) - worker->lse[i], false);
        vec d = vec_load(d_row + j);
        if (drop)
            d *= vec_load(factors + j);
        d = p * (d - worker->mean[i]);
        if (drop)
            p *= vec_load(factors + j);
        vec_store(p_row + j, p);
        vec_store(d_row + j, d);
    }
}

/* scores become P, dscores dS. */
static void differentiate_f32(thread_work *worker, int64_t j0, bool all)
{
    float factors[KEYS];
    bool drop = drops_weights(worker->call->flash);
    for (int64_t i = 0; i < worker->tile.m; i++) {
        key_range keys = tile_range(&worker->tile, j0, i, all);
        if (drop)
            MN__KERNEL(attention_factors)(&worker->tile, i, j0, factors);
        if (drop)
            differentiate_row(worker, i, keys, true, factors);
        else
            differentiate_row(worker, i, keys, false, NULL);
    }
}

static bool has_positions(const thread_work *worker)
{
    return worker->tile.flash->group[worker->tile.i].relative.entries != 0;
}

static bool has_biases(const thread_work *worker)
{
    return worker->sums.group[worker->tile.i].bias ||
           worker->sums.group[worker->tile.i].by_distance;
}

static void differentiate(thread_work *worker, float factor, int64_t j0)
{
    const packed_group *packed = &worker->call->flash->group[worker->tile.i];
    bool all = has_positions(worker) || packed->shaw_values.entries;
    if (worker->call->flash->bf16)
        differentiate_bf16(worker, factor, j0, all);
    else
        differentiate_f32(worker, j0, all);
}

static void add_keys(const thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    int64_t n = MN__KERNEL(query_tile_keys)(tile, j0), at = j0 * worker->call->width;
    float *dkeys = key_sums(worker->call, worker->set, tile->i, false) + at;
    float *dvalues = key_sums(worker->call, worker->set, tile->i, true) + at;
    int64_t diagonal = MN__KERNEL(query_tile_diagonal)(tile, j0);
    add_over_queries(worker, dvalues, n, tile->scores, KEYS, worker->p_pairs, worker->dout_side,
                     SKIP_TURNED_WEIGHTS, diagonal);
    add_over_queries(worker, dkeys, n, worker->dscores, KEYS, worker->d_pairs, worker->content_side,
                     SKIP_TURNED_WEIGHTS, diagonal);
}

static void add_queries(thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    const packed_group *packed = &tile->flash->group[tile->i];
    const void *weights = tile->flash->bf16 ? (const void *)worker->d_rows : worker->dscores;
    multiply(tile->flash,
             &(tile_product){worker->dcontent, worker->call->width, weights, KEYS, 1,
                             MN__KERNEL(attention_panels)(tile->flash, packed->key_rows,
                                                          packed->padded, bg_of(tile), j0, false),
                             packed->padded * PANEL, tile->m, tile->flash->width,
                             MN__KERNEL(query_tile_keys)(tile, j0), true, SKIP_WEIGHTS,
                             MN__KERNEL(query_tile_diagonal)(tile, j0),
                             MN__KERNEL(query_tile_band)(tile)});
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
    if (flash->bf16)
        put_pairs(worker, worker->dskewed, SPAN, n);
    if (sums)
        add_over_queries(worker, sums + entry * width, n, worker->dskewed, SPAN, worker->d_pairs,
                         worker->position_side, SKIP_NOTHING, 0);
    multiply(
        flash,
        &(tile_product){
            worker->dposition, width, flash->bf16 ? (const void *)worker->d_rows : worker->dskewed,
            flash->bf16 ? KEYS : SPAN, 1,
            MN__KERNEL(attention_panels)(flash, relative->rows, relative->entries, h, entry, false),
            relative->entries * PANEL, tile->m, flash->width, n, true, SKIP_NOTHING, 0, 0});
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
    float *weights = worker->tile.skewed;
    float *sums = worker->sums.group[tile->i].shaw_values;
    memset(weights, 0, ROWS * SPAN * sizeof *weights);
    skew(tile, weights, tile->scores, false);
    add_over_queries(worker, sums + MN__KERNEL(entry_of)(tile, j0) * worker->call->width, SPAN,
                     weights, SPAN, NULL, worker->dout_side, SKIP_NOTHING, 0);
    worker->tile.skewed_j0 = -1;
}

static void add_biases(thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    float *bias = worker->sums.group[tile->i].bias;
    float *by_distance = worker->sums.group[tile->i].by_distance;
    for (int64_t i = 0; i < tile->n; i++) {
        const float *row = worker->dscores + i * KEYS;
        key_range keys = tile_range(tile, j0, i, false);
        for (int64_t j = keys.first; bias && j < keys.end; j++)
            bias[j0 + j] += row[j];
        int64_t diagonal = MN__KERNEL(entry_of)(tile, j0) + ROWS - 1 - i;
        for (int64_t j = keys.first; by_distance && j < keys.end; j++)
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

static float dot(const float *a, const float *b, int64_t n)
{
    vec sums = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sums += vec_load(a + i) * vec_load(b + i);
    float sum = vec_sum(sums);
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* The row itself, or its floats in `buffer`. */
static const float *widen(float *buffer, const void *row, mn__dtype dtype, int64_t n)
{
    if (dtype == MN__F32)
        return row;
    mn__floats_widen(buffer, row, n);
    return buffer;
}

static void add_row(float *to, const float *from, float factor, int64_t n)
{
    for (int64_t d = 0; to && d < n; d++)
        to[d] += from[d] * factor;
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
    put_side(worker, worker->dout_side, worker->dout);
    memset(worker->dqueries, 0, sizeof(float) * (size_t)(ROWS * worker->call->width));
    for (int64_t i = 0; i < ROWS; i++) {
        worker->lse[i] = INFINITY;
        worker->mean[i] = 0;
        if (i >= tile->n)
            continue;
        const void *dout =
            row_of(to->out, call->dtype, to->out_stride, tile->b, tile->t0 + i, tile->h);
        const void *out =
            row_of(call->out, call->dtype, call->out_stride, tile->b, tile->t0 + i, tile->h);
        float lse = call->lse[(tile->b * call->H + tile->h) * call->T + tile->t0 + i];
        worker->mean[i] = dot(widen(worker->dcontent, dout, call->dtype, call->D),
                              widen(worker->dposition, out, call->dtype, call->D), call->D);
        if (lse == -INFINITY)
            continue;
        worker->lse[i] = lse * (float)M_LOG2E;
        if (call->sink)
            *worker->sums.sink -= expf(call->sink[tile->h] - lse) * worker->mean[i];
    }
}

/* Of scales[h]: the sum of dS times the scores as they are without it. The tile's content
 * is scratch then. */
static float scale_gradient(thread_work *worker)
{
    const query_tile *tile = &worker->tile;
    const mn__attention_call *call = tile->flash->call;
    const mn__key_group *group = &call->group[tile->i];
    int64_t D = call->D, width = worker->call->width;
    bool xl = group->position == MN__POSITION_XL;
    const float *u = xl && group->u ? group->u + tile->h * D : NULL;
    const float *v = xl && group->v ? group->v + tile->h * D : NULL;
    float sum = 0;
    for (int64_t i = 0; i < tile->n; i++) {
        const float *content = worker->dcontent + i * width;
        const float *position = worker->dposition + i * width;
        const void *row =
            row_of(call->queries, call->dtype, call->query_stride, tile->b, tile->t0 + i, tile->h);
        const float *q = widen((float *)tile->content, row, call->dtype, D);
        sum += dot(q, content, D) + (u ? dot(u, content, D) : 0);
        if (has_positions(worker))
            sum += dot(q, position, D) + (v ? dot(v, position, D) : 0);
    }
    return sum * call->scale;
}

/* What the group's dS K and dZ R hand on: to the queries, u and v, scales[h]. */
static void close_group(thread_work *worker)
{
    const query_tile *tile = &worker->tile;
    int64_t width = worker->call->width;
    float *u = worker->sums.group[tile->i].u, *v = worker->sums.group[tile->i].v;
    for (int64_t i = 0; i < tile->n; i++) {
        const float *content = worker->dcontent + i * width;
        const float *position = worker->dposition + i * width;
        add_row(worker->dqueries + i * width, content, 1, width);
        if (has_positions(worker))
            add_row(worker->dqueries + i * width, position, 1, width);
        add_row(u, content, 1, width);
        add_row(v, position, 1, width);
    }
    if (worker->call->to->scales)
        *worker->sums.scale += scale_gradient(worker);
}

static void walk_group(thread_work *worker, int i)
{
    query_tile *tile = &worker->tile;
    int64_t width = worker->call->width, first, end;
    MN__KERNEL(query_tile_group)(tile, i, &first, &end);
    bool positions = has_positions(worker);
    put_side(worker, worker->content_side, tile->content);
    if (positions)
        put_side(worker, worker->position_side, tile->position);
    memset(worker->dskewed, 0, ROWS * SPAN * sizeof(float));
    memset(worker->dcontent, 0, sizeof(float) * (size_t)(2 * ROWS * width));
    int64_t j0 = first;
    for (; j0 < end; j0 += KEYS) {
        float factor = MN__KERNEL(query_tile_scores)(tile, j0);
        dscores_of_values(worker, j0);
        differentiate(worker, factor, j0);
        if (worker->call->to->group[i].keys)
            add_keys(worker, j0);
        add_queries(worker, j0);
        if (positions)
            add_positions(worker, j0);
        if (worker->sums.group[i].shaw_values)
            add_shaw_values(worker, j0);
        if (has_biases(worker))
            add_biases(worker, j0);
    }
    if (positions && j0 > first)
        flush_positions(worker, MN__KERNEL(entry_of)(tile, j0), ROWS);
    close_group(worker);
}

/* What dS^T (q + u) still lacks: float queries have scale * scales[h] * log2 e in them,
 * pairs of bf16 scales[h]. */
static float left_factor(const mn__flash *flash)
{
    return flash->bf16 ? flash->call->scale : (float)M_LN2;
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
    int64_t rows = call->T - tile->t0 < ROWS ? call->T - tile->t0 : ROWS;
    int64_t bytes = mn__dtype_bytes(call->dtype);
    for (int64_t i = 0; to->queries && i < rows; i++) {
        char *row = (char *)row_of(to->queries, call->dtype, to->query_stride, tile->b,
                                   tile->t0 + i, tile->h);
        fetch_row(row + ROWS_AHEAD * to->query_stride[1] * bytes, call->D * bytes);
        if (any && i < tile->n) {
            const float *sum = worker->dqueries + i * worker->call->width;
            MN__KERNEL(attention_write_row)
            (row, call->dtype, to->queries_accumulate, sum, score_scale(call, tile->h), call->D);
        } else if (!to->queries_accumulate) {
            memset(row, 0, (size_t)(call->D * bytes));
        }
    }
}

/* ---- A unit: one row, one head of keys, one chunk of the tiles of queries ---------------------
 */

/* Writes dK and dV of (b, g): the sum over `sets` sets of sums from `set` on. */
static void write_keys(const backward_call *call, int64_t b, int64_t g, int64_t set, int64_t sets)
{
    const mn__attention_call *attention = call->flash->call;
    float unfold = left_factor(call->flash);
    int64_t bytes = mn__dtype_bytes(attention->dtype);
    for (int i = 0; i < attention->groups; i++) {
        const struct mn__group_gradients *to = &call->to->group[i];
        for (int64_t j = 0; to->keys && j < attention->group[i].count; j++)
            for (int values = 0; values < 2; values++) {
                const int64_t *stride = values ? to->value_stride : to->key_stride;
                char *row = (char *)row_of(values ? to->values : to->keys, attention->dtype, stride,
                                           b, j, g);
                fetch_row(row + ROWS_AHEAD * stride[1] * bytes, attention->D * bytes);
                float *sum = key_sums(call, set, i, values) + j * call->width;
                for (int64_t other = 1; other < sets; other++) {
                    const float *more = key_sums(call, set + other, i, values) + j * call->width;
                    for (int64_t d = 0; d < attention->D; d++)
                        sum[d] += more[d];
                }
                MN__KERNEL(attention_write_row)
                (row, attention->dtype, to->accumulate, sum, values ? 1.0f : unfold, attention->D);
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
            if (any && call->flash->bf16) /* sums over queries take whole steps of k */
                worker->tile.m = (worker->tile.n + PANEL - 1) / PANEL * PANEL;
            if (any)
                open_tile(worker);
            for (int i = 0; any && i < attention->groups; i++)
                walk_group(worker, i);
            close_tile(worker, any);
        }
        for (int i = 0; i < attention->groups; i++)
            turn_sums(worker, worker->sums.group[i].relative,
                      call->flash->group[i].relative.entries);
    }
    for (int i = 0; i < attention->groups; i++)
        for (int values = 0; values < 2; values++)
            turn_sums(worker, key_sums(call, worker->set, i, values), call->flash->group[i].padded);
    if (call->chunks == 1)
        write_keys(call, b, g, worker->set, 1);
}

/* ---- What heads and rows share ------------------------------------------- */

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
        int64_t distance = clip(distance_of(flash, group, entry), rows->low, rows->high);
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
                          call->width, left_factor(flash),
                          of->relative ? of->relative : of->shaw_keys);
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
        unsigned before = mn__denormals_to_zero();
        MN__KERNEL(tile_begin)(call->flash->bf16);
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < bg * call->chunks; unit++)
            run_unit(&worker, unit);
        if (call->chunks > 1)
#pragma omp for schedule(static)
            for (int64_t at = 0; at < bg; at++)
                write_keys(call, at / attention->G, at % attention->G, at * call->chunks,
                           call->chunks);
        MN__KERNEL(tile_end)(call->flash->bf16);
        mn__denormals_restore(before);
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
