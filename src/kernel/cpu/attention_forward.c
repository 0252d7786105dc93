/* The online softmax (Milakov and Gimelshein 2018; Dao et al. 2022): for each
 * tile of queries, over the tiles of keys that they see,
 *     p = 2^(score - reference),  sum += p,  out += p V.
 * The reference of a row is a score that it has met; it moves, and `sum` and
 * `out` shrink with it, only when a score exceeds it by more than 2^SLACK: that
 * is rare, and a comparison without a horizontal maximum finds it.
 * Dropout's factors come to p after it has been added to `sum`. */
#include "kernel/cpu/attention.h"
#include "kernel/cpu/attention_vector.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/denormal.h"

#include <math.h>
#include <omp.h>

enum { SPAN = ROWS + KEYS };
static const float SLACK = 8;

/* What a thread works with. */
typedef struct thread_work {
    query_tile tile;
    float *out;     /* [ROWS][panels * 32] */
    float *sum;     /* [ROWS][LANES] */
    float *weights; /* [ROWS][SPAN]: p at a skew, for Shaw's values */
    mn__bf16 *p;    /* [ROWS][KEYS], [ROWS][SPAN]: for bf16 products */
    float reference[ROWS];
} thread_work;

static int64_t out_width(const mn__flash *flash)
{
    return flash->panels * PANEL;
}

static int64_t worker_bytes(const mn__flash *flash)
{
    int64_t floats = ROWS * (out_width(flash) + LANES + SPAN);
    return MN__KERNEL(query_tile_bytes)(flash) + floats * (int64_t)sizeof(float) +
           ROWS * (KEYS + SPAN) * (int64_t)sizeof(mn__bf16);
}

static void worker_init(thread_work *worker, const mn__flash *flash, char *scratch)
{
    memset(scratch, 0, (size_t)worker_bytes(flash));
    MN__KERNEL(query_tile_init)(&worker->tile, flash, scratch);
    worker->out = (float *)(scratch + MN__KERNEL(query_tile_bytes)(flash));
    worker->sum = worker->out + ROWS * out_width(flash);
    worker->weights = worker->sum + ROWS * LANES;
    worker->p = (mn__bf16 *)(worker->weights + ROWS * SPAN);
}

/* ---- The softmax of a tile ------------------------------------------------------------ */

/* Row i's reference becomes `largest`. */
static void move_reference(thread_work *worker, int64_t i, float largest)
{
    int64_t width = out_width(worker->tile.flash);
    float shrink = exp2f(worker->reference[i] - largest);
    for (int64_t d = 0; d < width; d++)
        worker->out[i * width + d] *= shrink;
    for (int64_t lane = 0; lane < LANES; lane++)
        worker->sum[i * LANES + lane] *= shrink;
    worker->reference[i] = largest;
}

/* to[0..2 LANES) = p, where products are bf16. */
static inline void narrow(mn__bf16 *to, const vec p[2])
{
#if defined(MN__BF16_TILES)
    mn__store_bf16(to, p[0], p[1]);
#else
    (void)to;
    (void)p;
#endif
}

static inline __attribute__((always_inline)) void
exponentiate_row(thread_work *worker, int64_t i, float factor, const bool bf16, const bool drop,
                 const float *factors, key_range keys)
{
    float *row = worker->tile.scores + i * KEYS;
    vec largest = vec_set(-INFINITY);
    for (int64_t j = keys.first; j < keys.end; j += LANES)
        largest = vec_max(vec_load(row + j), largest);
    if (vec_any_above(largest * factor, vec_set(worker->reference[i] + SLACK)))
        move_reference(worker, i, vec_largest(largest) * factor);
    float reference = worker->reference[i] == -INFINITY ? 0 : worker->reference[i];
    vec sum = vec_load(worker->sum + i * LANES);
    for (int64_t j = keys.first; j < keys.end; j += 2 * LANES) {
        vec p[2];
        p[0] = vec_exp2(vec_load(row + j) * factor - reference, bf16);
        p[1] = vec_exp2(vec_load(row + j + LANES) * factor - reference, bf16);
        sum += p[0] + p[1];
        if (drop) {
            p[0] *= vec_load(factors + j);
            p[1] *= vec_load(factors + j + LANES);
        }
        if (bf16) {
            narrow(worker->p + i * KEYS + j, p);
        } else {
            vec_store(row + j, p[0]);
            vec_store(row + j + LANES, p[1]);
        }
    }
    vec_store(worker->sum + i * LANES, sum);
}

/* scores (times factor) become p; sums grow. */
static void exponentiate(thread_work *worker, float factor, int64_t j0)
{
    const mn__flash *flash = worker->tile.flash;
    int64_t diagonal = MN__KERNEL(query_tile_diagonal)(&worker->tile, j0);
    int64_t band = MN__KERNEL(query_tile_band)(&worker->tile);
    bool all = flash->group[worker->tile.i].shaw_values.entries; /* read at a skew */
    for (int64_t i = 0; i < worker->tile.n; i++) {
        key_range keys = {0, KEYS};
        if (!all)
            keys = MN__KERNEL(query_tile_range)(diagonal, band, i, KEYS);
        if (flash->bf16)
            exponentiate_row(worker, i, factor, true, false, NULL, keys);
        else
            exponentiate_row(worker, i, factor, false, false, NULL, keys);
    }
}

/* The same, with dropout. */
static void exponentiate_and_drop(thread_work *worker, float factor, int64_t j0)
{
    float factors[KEYS];
    const key_range all = {0, KEYS};
    for (int64_t i = 0; i < worker->tile.n; i++) {
        MN__KERNEL(attention_factors)(&worker->tile, i, j0, factors);
        if (worker->tile.flash->bf16)
            exponentiate_row(worker, i, factor, true, true, factors, all);
        else
            exponentiate_row(worker, i, factor, false, true, factors, all);
    }
}

/* ---- Products with values ----------------------------------------------------------------- */

static void add_values(thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    const mn__flash *flash = tile->flash;
    const packed_group *packed = &flash->group[tile->i];
    tile_product product = {
        .c = worker->out,
        .c_row = out_width(flash),
        .a = flash->bf16 ? (const void *)worker->p : tile->scores,
        .a_row = KEYS,
        .a_k = 1,
        .b = MN__KERNEL(attention_panels)(flash, packed->values, packed->padded,
                                          tile->b * flash->call->G + tile->g, j0, false),
        .b_panel = packed->padded * PANEL,
        .m = tile->m,
        .n = flash->width,
        .k = MN__KERNEL(query_tile_keys)(tile, j0),
        .accumulate = true,
        .skip = SKIP_WEIGHTS,
        .diagonal = MN__KERNEL(query_tile_diagonal)(tile, j0),
        .band = MN__KERNEL(query_tile_band)(tile),
    };
    if (flash->bf16)
        MN__KERNEL(tile_bf16)(&product);
    else
        MN__KERNEL(tile_f32)(&product);
}

/* The same for Shaw's values: p at a skew times the rows by distance. */
static void add_shaw_values(thread_work *worker, int64_t j0)
{
    const query_tile *tile = &worker->tile;
    const mn__flash *flash = tile->flash;
    const distance_rows *rows = &flash->group[tile->i].shaw_values;
    mn__bf16 *skewed = worker->p + ROWS * KEYS;
    for (int64_t i = 0; i < tile->n; i++) {
        int64_t at = i * SPAN + ROWS - 1 - i;
        if (flash->bf16) {
            memset(skewed + i * SPAN, 0, SPAN * sizeof *skewed);
            memcpy(skewed + at, worker->p + i * KEYS, KEYS * sizeof *skewed);
        } else {
            memset(worker->weights + i * SPAN, 0, SPAN * sizeof(float));
            memcpy(worker->weights + at, tile->scores + i * KEYS, KEYS * sizeof(float));
        }
    }
    tile_product product = {
        .c = worker->out,
        .c_row = out_width(flash),
        .a = flash->bf16 ? (const void *)skewed : worker->weights,
        .a_row = SPAN,
        .a_k = 1,
        .b = MN__KERNEL(attention_panels)(flash, rows->rows, rows->entries, 0,
                                          MN__KERNEL(entry_of)(tile, j0), false),
        .b_panel = rows->entries * PANEL,
        .m = tile->m,
        .n = flash->width,
        .k = SPAN,
        .accumulate = true,
    };
    if (flash->bf16)
        MN__KERNEL(tile_bf16)(&product);
    else
        MN__KERNEL(tile_f32)(&product);
}

/* ---- A tile of queries ---------------------------------------------------------------------- */

static void start(thread_work *worker)
{
    const query_tile *tile = &worker->tile;
    const mn__attention_call *call = tile->flash->call;
    float sink = call->sink ? call->sink[tile->h] * (float)M_LOG2E : -INFINITY;
    memset(worker->out, 0, sizeof(float) * (size_t)(ROWS * out_width(tile->flash)));
    memset(worker->sum, 0, sizeof(float) * ROWS * LANES);
    for (int64_t i = 0; i < ROWS; i++) {
        worker->reference[i] = sink;
        worker->sum[i * LANES] = sink == -INFINITY ? 0.0f : 1.0f;
    }
}

void MN__KERNEL(attention_write)(const mn__attention_call *call, int64_t b, int64_t t, int64_t h,
                                 const float *from, float scale, float lse)
{
    int64_t at = b * call->out_stride[0] + t * call->out_stride[1] + h * call->out_stride[2];
    int64_t bytes = mn__dtype_bytes(call->dtype);
    char *to = (char *)call->out + at * bytes;
    call->lse[(b * call->H + h) * call->T + t] = lse;
    if (scale == 0)
        memset(to, 0, (size_t)(call->D * bytes));
    else
        MN__KERNEL(attention_write_row)(to, call->dtype, false, from, scale, call->D);
}

/* Rows that see nothing have a sum of 0; those past n were not computed. */
static void finish(const thread_work *worker)
{
    const query_tile *tile = &worker->tile;
    const mn__attention_call *call = tile->flash->call;
    int64_t rows = call->T - tile->t0 < ROWS ? call->T - tile->t0 : ROWS;
    for (int64_t i = 0; i < rows; i++) {
        float sum = i < tile->n ? vec_sum(vec_load(worker->sum + i * LANES)) : 0;
        float lse = (worker->reference[i] + log2f(sum)) * (float)M_LN2;
        MN__KERNEL(attention_write)
        (call, tile->b, tile->t0 + i, tile->h, worker->out + i * out_width(tile->flash),
         sum == 0 ? 0 : 1 / sum, sum == 0 ? -INFINITY : lse);
    }
}

static void attend(thread_work *worker, int64_t b, int64_t h, int64_t t0)
{
    query_tile *tile = &worker->tile;
    const mn__flash *flash = tile->flash;
    bool any = MN__KERNEL(query_tile_set)(tile, b, h, t0);
    start(worker);
    for (int i = 0; any && i < flash->call->groups; i++) {
        int64_t first, end;
        MN__KERNEL(query_tile_group)(tile, i, &first, &end);
        for (int64_t j0 = first; j0 < end; j0 += KEYS) {
            float factor = MN__KERNEL(query_tile_scores)(tile, j0);
            if (drops_weights(flash))
                exponentiate_and_drop(worker, factor, j0);
            else
                exponentiate(worker, factor, j0);
            add_values(worker, j0);
            if (flash->group[i].shaw_values.entries)
                add_shaw_values(worker, j0);
        }
    }
    finish(worker);
}

/* ---- Where the mass goes -----------------------------------------------------------------------
 */

/* The mass of row b, head h: the scores once more, now that lse is known. */
static void weigh(thread_work *worker, int64_t b, int64_t h, int i)
{
    query_tile *tile = &worker->tile;
    const mn__attention_call *call = tile->flash->call;
    int64_t count = call->group[i].count;
    float *key_mass = call->key_mass[i] ? call->key_mass[i] + (b * call->H + h) * count : NULL;
    const float *lse = call->lse + (b * call->H + h) * call->T;
    if (key_mass)
        memset(key_mass, 0, (size_t)count * sizeof *key_mass);
    for (int64_t t0 = 0; t0 < call->T; t0 += ROWS) {
        float mass[ROWS] = {0};
        int64_t first = 0, end = 0;
        if (MN__KERNEL(query_tile_set)(tile, b, h, t0))
            MN__KERNEL(query_tile_group)(tile, i, &first, &end);
        for (int64_t j0 = first; j0 < end; j0 += KEYS) {
            float factor = MN__KERNEL(query_tile_scores)(tile, j0);
            int64_t there = count - j0 < KEYS ? count - j0 : KEYS;
            for (int64_t r = 0; r < tile->n; r++)
                for (int64_t j = 0; lse[t0 + r] != -INFINITY && j < there; j++) {
                    float p =
                        exp2f(tile->scores[r * KEYS + j] * factor - lse[t0 + r] * (float)M_LOG2E);
                    mass[r] += p;
                    if (key_mass)
                        key_mass[j0 + j] += p;
                }
        }
        for (int64_t r = 0; call->group_mass && r < ROWS && t0 + r < call->T; r++)
            call->group_mass[((b * call->H + h) * call->T + t0 + r) * call->groups + i] = mass[r];
    }
}

/* ---- The kernel ---------------------------------------------------------- */

static bool wants_mass(const mn__attention_call *call)
{
    bool wanted = call->group_mass != NULL;
    for (int i = 0; i < call->groups; i++)
        wanted = wanted || call->key_mass[i];
    return wanted;
}

/* Late tiles of queries see most: they go first, so that the threads end together. */
static void attend_all(const mn__flash *flash, char *scratch)
{
    const mn__attention_call *call = flash->call;
    int64_t tiles = flash->tiles, heads = call->B * call->H;
#pragma omp parallel
    {
        thread_work worker;
        worker_init(&worker, flash, scratch + omp_get_thread_num() * worker_bytes(flash));
        unsigned before = mn__denormals_to_zero();
        MN__KERNEL(tile_begin)(flash->bf16);
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < heads * tiles; item++) {
            int64_t bh = item / tiles;
            attend(&worker, bh / call->H, bh % call->H, (tiles - 1 - item % tiles) * ROWS);
        }
        if (wants_mass(call))
#pragma omp for schedule(dynamic)
            for (int64_t item = 0; item < heads * call->groups; item++) {
                int64_t bh = item / call->groups;
                weigh(&worker, bh / call->H, bh % call->H, (int)(item % call->groups));
            }
        MN__KERNEL(tile_end)(flash->bf16);
        mn__denormals_restore(before);
    }
}

static void forward(mn__queue *queue, const mn__attention_call *call)
{
    if (MN__KERNEL(attention_is_few)(call)) {
        MN__KERNEL(attention_few)(queue, call);
        return;
    }
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    mn__flash flash;
    if (MN__KERNEL(attention_open)(&flash, queue, call, false)) {
        char *scratch = mn__queue_scratch(queue, omp_get_max_threads() * worker_bytes(&flash));
        if (scratch)
            attend_all(&flash, scratch);
    }
    mn__arena_release(&queue->scratch, mark);
}

void MN__KERNEL(fill_attention)(mn__kernels *kernels)
{
    kernels->attention = forward;
}
