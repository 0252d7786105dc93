/* Matrix products of any strides, batched, with bias, activation and sum.
 *
 * One product: b (or a panel of its columns) is packed by all threads, then c is
 * cut among them as a grid. A thread packs a block of its rows of a, once for
 * all its columns; a sliver of it stays in L1 and meets every sliver of a block
 * of b, which stays in L2. The sum over k has the same order whatever the
 * threads. Many small products go to one thread each instead. */
#include <omp.h>

#include "base/memory.h"
#include "kernel/cpu/activation.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/denormal.h"
#include "kernel/cpu/panel.h"

enum {
    PANEL_BYTES = 64 << 20,   /* of packed b at a time */
    UNPACKED_BYTES = 4 << 20, /* of b made of integers: it stays in the outer cache */
    BLOCK_BYTES = 1 << 19,    /* of it that stays in L2 */
    BLOCK_ROWS = 256,
};

/* One product, and where a team of threads works on it. */
typedef struct product {
    const mn__matmul *call;
    const mn__product_kind *kind;
    mn__operand a, b;
    void *c;
    char *panel; /* packed b: `panel_columns` of it */
    int64_t panel_columns;
    char *block_a;  /* per thread: packed a of a block */
    float *partial; /* per thread: a block's sums between passes where c is not F32 */
    int64_t sliver_a_bytes, block_a_bytes, partial_columns, partial_floats;
    int64_t block_rows, block_columns, depth;
    int across; /* the columns of the grid of threads */
} product;

static mn__operand shift(mn__operand operand, int64_t rows, int64_t columns)
{
    int64_t offset = rows * operand.row + columns * operand.column;
    operand.data = (const char *)operand.data + offset * mn__dtype_bytes(operand.dtype);
    return operand;
}

/* ---- A tile into c -------------------------------------------------------------------- */

static inline void add_row(float *restrict sum, const void *row, mn__dtype dtype, int64_t n)
{
    const float *f32 = row;
    const mn__bf16 *bf16 = row;
    if (dtype == MN__F32)
        for (int64_t j = 0; j < n; j++)
            sum[j] += f32[j];
    else
        for (int64_t j = 0; j < n; j++)
            sum[j] += mn__bf16_to_f32(bf16[j]);
}

static inline void store_row(void *row, mn__dtype dtype, const float *restrict sum, int64_t n)
{
    if (dtype == MN__F32) {
        float *restrict out = row;
        for (int64_t j = 0; j < n; j++)
            out[j] = sum[j];
    } else {
        mn__floats_narrow(row, sum, n);
    }
}

/* The tile's place in c, its partial sums, and where in k they stand. */
typedef struct place {
    int64_t i, j, rows, columns;
    mn__panel b;
    float *partial;
    int64_t partial_stride;
    bool add_partial, add_c, last;
} place;

/* n is constant where these are inlined for whole tiles. */
static inline __attribute__((always_inline)) void
finish_sums(const mn__matmul *call, float *sum, void *c, int64_t j, int64_t n, bool add_c)
{
    if (call->bias)
        add_row(sum, call->bias + j, MN__F32, n);
    if (call->activation != MN__LINEAR)
        MN__KERNEL(activate_row)(call->activation, sum, n);
    if (add_c)
        add_row(sum, c, call->c_dtype, n);
    store_row(c, call->c_dtype, sum, n);
}

void MN__KERNEL(finish_product)(const mn__matmul *call, float *sum, void *c, int64_t j, int64_t n)
{
    finish_sums(call, sum, c, j, n, call->accumulate);
}

static inline __attribute__((always_inline)) void
finish_row(const mn__matmul *call, const place *at, float *sum, float *partial, void *c, int64_t n)
{
    if (at->add_partial)
        add_row(sum, partial, MN__F32, n);
    if (at->last)
        finish_sums(call, sum, c, at->j, n, at->add_c);
    else
        store_row(partial, MN__F32, sum, n);
}

static void finish_tile(const product *job, const place *at, float *acc, char *c, int64_t row_bytes)
{
    float *partial = at->partial;
    for (int64_t r = 0; r < at->rows; r++) {
        if (at->columns == MN__TILE_COLUMNS)
            finish_row(job->call, at, acc, partial, c, MN__TILE_COLUMNS);
        else
            finish_row(job->call, at, acc, partial, c, at->columns);
        acc += MN__TILE_COLUMNS;
        partial += at->partial_stride;
        c += row_bytes;
    }
}

/* A whole tile without an activation needs no finish_tile: its sums go from the registers
 * to where they belong. */
static bool is_whole(const product *job, const place *at)
{
    return !job->kind->sums_only && at->rows == job->kind->rows &&
           at->columns == MN__TILE_COLUMNS && (!at->last || job->call->activation == MN__LINEAR);
}

static mn__tile_out whole_out(const mn__matmul *call, const place *at, char *c, int64_t row_bytes)
{
    mn__tile_out to = {.out = c,
                       .dtype = call->c_dtype,
                       .out_bytes = row_bytes,
                       .partial = at->add_partial ? at->partial : NULL,
                       .partial_stride = at->partial_stride};
    if (at->last) {
        to.bias = call->bias ? call->bias + at->j : NULL;
        to.add = at->add_c;
    } else {
        to.out = at->partial;
        to.dtype = MN__F32;
        to.out_bytes = at->partial_stride * (int64_t)sizeof *at->partial;
    }
    to.c = to.out;
    to.c_bytes = to.out_bytes;
    return to;
}

/* ---- A block of c ------------------------------------------------------------------------ */

/* One sliver of a, at depth `l`, against the block's columns. Where c is F32 it
 * holds the partial sums itself. */
static void multiply_sliver(const product *job, place *at, const void *sliver_a, float *partial,
                            int64_t l, int64_t first, int64_t columns)
{
    const mn__product_kind *kind = job->kind;
    const mn__matmul *call = job->call;
    int64_t depth = mn__least(job->depth, call->k - l), steps = mn__cut(depth, kind->step);
    int64_t element = mn__dtype_bytes(call->c_dtype), row_bytes = call->c_row * element;
    bool in_c = call->c_dtype == MN__F32;
    enum { ACC_BYTES = MN__TILE_COLUMNS * sizeof(float) };
    _Alignas(64) float acc[MN__TILE_ROWS_MAX * MN__TILE_COLUMNS];
    at->last = l + depth >= call->k;
    at->add_partial = l > 0 || (in_c && call->accumulate && !at->last);
    at->add_c = call->accumulate && !(in_c && l > 0);
    at->partial_stride = in_c ? call->c_row : job->partial_columns;
    for (int64_t j = 0; j < columns; j += MN__TILE_COLUMNS) {
        at->j = first + j;
        at->columns = mn__least(MN__TILE_COLUMNS, columns - j);
        at->partial = in_c ? (float *)job->c + at->i * call->c_row + at->j : partial + j;
        char *c = (char *)job->c + at->i * row_bytes + at->j * element;
        bool whole = is_whole(job, at);
        mn__tile_out to = {
            .out = acc, .out_bytes = ACC_BYTES, .c = c, .c_bytes = row_bytes}; /* for finish_tile */
        if (whole)
            to = whole_out(call, at, c, row_bytes);
        kind->tile(at->rows, steps, sliver_a, mn__sliver_of(kind, &at->b, l, depth, at->j), &to);
        if (!whole)
            finish_tile(job, at, acc, c, row_bytes);
    }
}

/* Lines that lie side by side in memory are read a few k at a time, over the
 * block's whole width; lines along memory one sliver after the other. */
static int64_t pack_chunk(int64_t across, int64_t along, int64_t k)
{
    enum { CHUNK = 32 };
    return across == 1 && along != 1 ? CHUNK : k;
}

static void pack_block_a(const product *job, char *slivers, int64_t i, int64_t rows, int64_t l,
                         int64_t depth)
{
    const mn__product_kind *kind = job->kind;
    int64_t chunk = pack_chunk(job->a.row, job->a.column, depth);
    int64_t k_bytes = kind->rows * mn__dtype_bytes(kind->dtype);
    for (int64_t d = 0; d < depth; d += chunk)
        for (int64_t r = 0, at = 0; r < rows; r += kind->rows, at += job->sliver_a_bytes)
            kind->pack_a(slivers + at + d * k_bytes, shift(job->a, i + r, l + d),
                         mn__least(kind->rows, rows - r), mn__least(chunk, depth - d));
}

/* A part of c. */
typedef struct region {
    int64_t i, rows, j, columns;
} region;

/* At depth `l`, for a block's rows and all the columns of its thread. */
static void multiply_block(const product *job, int thread, const mn__panel *b, const region *block,
                           int64_t l)
{
    char *block_a = job->block_a + thread * job->block_a_bytes;
    float *partial = job->partial + thread * job->partial_floats;
    int64_t rows = job->kind->rows;
    pack_block_a(job, block_a, block->i, block->rows, l, mn__least(job->depth, job->call->k - l));
    for (int64_t j = 0; j < block->columns; j += job->block_columns) {
        int64_t columns = mn__least(job->block_columns, block->columns - j);
        char *sliver_a = block_a;
        for (int64_t r = 0; r < block->rows; r += rows, sliver_a += job->sliver_a_bytes) {
            place at = {.i = block->i + r, .rows = mn__least(rows, block->rows - r), .b = *b};
            multiply_sliver(job, &at, sliver_a, partial + r * job->partial_columns + j, l,
                            block->j + j, columns);
        }
    }
}

/* ---- One product by a team ------------------------------------------------------------------ */

/* The share of `count` things that falls to a thread: a contiguous range. */
static void share(int64_t count, int thread, int team, int64_t *first, int64_t *end)
{
    *first = count * thread / team;
    *end = count * (thread + 1) / team;
}

/* b [k, n] into a panel's columns from `from` on, which is where a sliver begins. */
static void pack_panel(const mn__product_kind *kind, mn__operand b, int64_t k, int64_t n,
                       const mn__panel *to, int64_t from, int thread, int team)
{
    int64_t first, end, depth = mn__pass_depth(kind, k), chunk = pack_chunk(b.column, b.row, depth);
    int64_t k_bytes = MN__TILE_COLUMNS * mn__dtype_bytes(kind->dtype);
    share(mn__cut(n, MN__TILE_COLUMNS), thread, team, &first, &end);
    for (int64_t l = 0; l < k; l += depth)
        for (int64_t d = 0; d < mn__least(depth, k - l); d += chunk)
            for (int64_t j = first * MN__TILE_COLUMNS; j < end * MN__TILE_COLUMNS;
                 j += MN__TILE_COLUMNS)
                kind->pack_b(mn__sliver_of(kind, to, l, mn__least(depth, k - l), from + j) +
                                 d * k_bytes,
                             shift(b, l + d, j), mn__least(MN__TILE_COLUMNS, n - j),
                             mn__least(chunk, mn__least(depth, k - l) - d));
}

/* The same from the integers of a packed matrix, from column j on. */
static void unpack_panel(const mn__product_kind *kind, const mn__packed *packed, int64_t j,
                         int64_t n, char *data, int thread, int team)
{
    const mn__panel to = {data, 0, mn__round_up(n, MN__TILE_COLUMNS)};
    int64_t first, end, depth = mn__pass_depth(kind, packed->k);
    share(to.width / MN__TILE_COLUMNS, thread, team, &first, &end);
    for (int64_t l = 0; l < packed->k; l += depth) {
        int64_t count = mn__least(depth, packed->k - l);
        for (int64_t s = first; s < end; s++)
            MN__KERNEL(unpack_sliver)
        (mn__sliver_of(kind, &to, l, count, s * MN__TILE_COLUMNS), packed, j / MN__TILE_COLUMNS + s,
         l, count, kind->dtype == MN__BF16);
    }
}

/* What falls to a thread of the columns of a panel: whole slivers both ways. */
static region region_of(const product *job, int64_t first, int64_t columns, int thread, int team)
{
    int64_t rows = job->kind->rows, i, end_i, j, end_j;
    share(mn__cut(job->call->m, rows), thread / job->across, team / job->across, &i, &end_i);
    share(mn__cut(columns, MN__TILE_COLUMNS), thread % job->across, job->across, &j, &end_j);
    return (region){.i = i * rows,
                    .rows = mn__least(end_i * rows, job->call->m) - i * rows,
                    .j = first + j * MN__TILE_COLUMNS,
                    .columns = mn__least(end_j * MN__TILE_COLUMNS, columns) - j * MN__TILE_COLUMNS};
}

/* Where c holds the partial sums, all of a thread's rows take one pass before
 * the next, and the packed b of the pass stays in the cache. */
static void multiply_panel(const product *job, int64_t first, int64_t columns, int thread, int team)
{
    const mn__panel b = {job->panel, first, mn__round_up(columns, MN__TILE_COLUMNS)};
    const region mine = region_of(job, first, columns, thread, team);
    int64_t k = job->call->k, span = job->call->c_dtype == MN__F32 ? job->depth : k, start = 0;
    do {
        for (int64_t i = 0; i < mine.rows; i += job->block_rows) {
            region block = {.i = mine.i + i,
                            .rows = mn__least(job->block_rows, mine.rows - i),
                            .j = mine.j,
                            .columns = mine.columns};
            int64_t l = start;
            do {
                multiply_block(job, thread, &b, &block, l);
                l += job->depth;
            } while (l < mn__least(k, start + span));
        }
        start += span;
    } while (start < k);
}

/* Whether b's panels are made during the product. */
static bool is_made(const mn__matmul *call)
{
    return !call->packed || mn__is_quantised(call->packed);
}

/* Every thread of the team calls this; a team of one meets no barrier. */
static void multiply(const product *job, int thread, int team)
{
    const mn__matmul *call = job->call;
    unsigned before = mn__denormals_to_zero();
    if (job->kind->begin)
        job->kind->begin();
    for (int64_t j = 0; j < call->n; j += job->panel_columns) {
        int64_t columns = mn__least(job->panel_columns, call->n - j);
        if (is_made(call)) {
            if (call->packed)
                unpack_panel(job->kind, call->packed, j, columns, job->panel, thread, team);
            else
                pack_panel(job->kind, shift(job->b, 0, j), call->k, columns,
                           &(mn__panel){job->panel, 0, mn__round_up(columns, MN__TILE_COLUMNS)}, 0,
                           thread, team);
            if (team > 1) {
#pragma omp barrier
            }
        }
        multiply_panel(job, j, columns, thread, team);
        if (team > 1 && j + columns < call->n) { /* the next panel takes this one's place */
#pragma omp barrier
        }
    }
    if (job->kind->end)
        job->kind->end();
    mn__denormals_restore(before);
}

/* ---- Planning ---------------------------------------------------------------------------- */

static int64_t panel_bytes(const mn__product_kind *kind, int64_t k, int64_t columns)
{
    int64_t wide = mn__round_up(columns, MN__TILE_COLUMNS) * mn__dtype_bytes(kind->dtype);
    return mn__size_product(wide, mn__padded(kind, k));
}

/* The grid that leaves the busiest thread least: tiles, and packing a sliver of
 * a, which costs about a quarter of one. */
static int threads_across(int64_t slivers_a, int64_t slivers_b, int team)
{
    int best = 1;
    int64_t least_work = INT64_MAX;
    for (int across = 1; across <= team; across++) {
        int64_t work = mn__cut(slivers_a, team / across) * (4 * mn__cut(slivers_b, across) + 1);
        if (team % across == 0 && work < least_work) {
            best = across;
            least_work = work;
        }
    }
    return best;
}

static void plan_blocks(product *job, int team)
{
    const mn__matmul *call = job->call;
    const mn__product_kind *kind = job->kind;
    job->depth = mn__pass_depth(kind, call->k);
    int64_t column_bytes = job->depth * mn__dtype_bytes(kind->dtype);
    int64_t wide = mn__round_up(call->n, MN__TILE_COLUMNS);
    int64_t bytes = call->packed ? UNPACKED_BYTES : PANEL_BYTES;
    int64_t slivers = bytes / (panel_bytes(kind, call->k, MN__TILE_COLUMNS) + 1);
    int64_t most = is_made(call) ? slivers * MN__TILE_COLUMNS : wide;
    job->panel_columns = mn__least(wide, most > MN__TILE_COLUMNS ? most : MN__TILE_COLUMNS);
    job->across = threads_across(mn__cut(call->m, kind->rows),
                                 mn__cut(job->panel_columns, MN__TILE_COLUMNS), team);
    int64_t mine = mn__cut(job->panel_columns / MN__TILE_COLUMNS, job->across) * MN__TILE_COLUMNS;
    int64_t blocks = mn__cut(mine * column_bytes, BLOCK_BYTES);
    job->block_columns = mn__round_up(mn__cut(mine, blocks), MN__TILE_COLUMNS);
    int64_t rows = mn__round_up(mn__cut(call->m, team / job->across), kind->rows);
    job->block_rows = mn__round_up(mn__cut(rows, mn__cut(rows, BLOCK_ROWS)), kind->rows);
    enum { SURPLUS = 64 }; /* packing may write a vector past the end */
    job->sliver_a_bytes = mn__round_up(
        kind->rows * mn__round_up(job->depth, 32) * mn__dtype_bytes(kind->dtype) + SURPLUS, 64);
    job->block_a_bytes = job->block_rows / kind->rows * job->sliver_a_bytes;
    bool sums = call->c_dtype != MN__F32 && call->k > job->depth;
    job->partial_columns = sums ? mine : 0;
    job->partial_floats = job->block_rows * job->partial_columns;
}

static bool take_scratch(mn__queue *queue, product *job, int teams, int team)
{
    int64_t columns = is_made(job->call) ? job->panel_columns : 0;
    char *panels = mn__queue_scratch(queue, panel_bytes(job->kind, job->call->k, columns) * teams);
    job->block_a = mn__queue_scratch(queue, job->block_a_bytes * teams * team);
    job->partial = mn__queue_scratch(queue, job->partial_floats * 4 * teams * team);
    job->panel = is_made(job->call) ? panels : (char *)(uintptr_t)job->call->packed->data;
    return panels && job->block_a && job->partial;
}

/* The job of one product of the batch; a lone thread has scratch of its own. */
static product job_of(const product *plan, int64_t index, int lone)
{
    const mn__matmul *call = plan->call;
    int64_t first = index / call->batch[1], second = index % call->batch[1];
    int64_t at = first * call->c_outer[0] + second * call->c_outer[1];
    product job = *plan;
    job.a = call->a;
    job.a.data =
        (const char *)call->a.data +
        (first * call->a.outer[0] + second * call->a.outer[1]) * mn__dtype_bytes(call->a.dtype);
    job.c = (char *)call->c + at * mn__dtype_bytes(call->c_dtype);
    if (!call->packed)
        job.b.data =
            (const char *)call->b.data +
            (first * call->b.outer[0] + second * call->b.outer[1]) * mn__dtype_bytes(call->b.dtype);
    if (is_made(call))
        job.panel += lone * panel_bytes(plan->kind, call->k, plan->panel_columns);
    job.block_a += lone * plan->block_a_bytes;
    job.partial += lone * plan->partial_floats;
    return job;
}

/* Every thread asked for has a part of c, so no more may be asked for than come. */
static int threads_to_be_had(void)
{
    if (omp_get_dynamic() || omp_get_active_level() >= omp_get_max_active_levels())
        return 1;
    return (int)mn__least(omp_get_max_threads(), omp_get_thread_limit());
}

static void matmul(mn__queue *queue, const mn__matmul *call)
{
    enum { TINY = 1 << 17 }; /* products that a second thread would not shorten */
    int64_t batch = call->batch[0] * call->batch[1];
    if (batch == 0 || call->m == 0 || call->n == 0)
        return;
    if (MN__KERNEL(is_thin)(call)) {
        MN__KERNEL(matmul_thin)(queue, call);
        return;
    }
    if (MN__KERNEL(is_few)(call)) {
        MN__KERNEL(matmul_few)(queue, call);
        return;
    }
    product plan = {.call = call, .kind = MN__KERNEL(product_kind)(call->a.dtype), .b = call->b};
    int threads = batch * call->m * call->n * call->k < TINY ? 1 : threads_to_be_had();
    bool apart = batch >= threads; /* each thread takes whole products */
    int teams = apart ? threads : 1, team = apart ? 1 : threads;
    plan_blocks(&plan, team);
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    if (take_scratch(queue, &plan, teams, team)) {
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
            int thread = omp_get_thread_num();
            int64_t first = 0, end = batch;
            if (apart)
                share(batch, thread, threads, &first, &end);
            for (int64_t index = first; index < end; index++) {
                if (team > 1 && index > first) { /* the next product takes this one's scratch */
#pragma omp barrier
                }
                product job = job_of(&plan, index, apart ? thread : 0);
                multiply(&job, apart ? 0 : thread, team);
            }
        }
    }
    mn__arena_release(&queue->scratch, mark);
}

/* ---- Packed weights ---------------------------------------------------------------------- */

static const mn__product_kind *kind_of(mn__form form)
{
    return MN__KERNEL(product_kind)(form == MN__FORM_BF16 ? MN__BF16 : MN__F32);
}

static int64_t pack_bytes(mn__queue *queue, int64_t k, int64_t n, mn__form form)
{
    (void)queue;
    int64_t bytes = mn__form_is_floats(form) ? panel_bytes(kind_of(form), k, n)
                                             : MN__KERNEL(quantised_bytes)(k, n, form);
    return bytes < 0 ? -1 : bytes + (int64_t)sizeof(mn__packed);
}

static mn__packed *pack_new(mn__queue *queue, int64_t k, int64_t n, mn__form form)
{
    mn__packed *packed = mn__malloc(pack_bytes(queue, k, n, form));
    if (packed) {
        packed->k = k;
        packed->n = n;
        packed->form = form;
    }
    return packed;
}

static void pack_columns(mn__queue *queue, mn__packed *packed, int64_t first, int64_t count,
                         mn__operand b)
{
    (void)queue;
    int64_t before = first / MN__TILE_COLUMNS, slivers = mn__cut(count, MN__TILE_COLUMNS);
    if (mn__is_quantised(packed)) {
#pragma omp parallel for schedule(static)
        for (int64_t s = 0; s < slivers; s++)
            MN__KERNEL(quantise_sliver)(packed, before + s, shift(b, 0, s * MN__TILE_COLUMNS));
        return;
    }
    const mn__panel whole = {(char *)packed->data, 0, mn__round_up(packed->n, MN__TILE_COLUMNS)};
#pragma omp parallel
    pack_panel(kind_of(packed->form), b, packed->k, count, &whole, first, omp_get_thread_num(),
               omp_get_num_threads());
}

static void pack(mn__queue *queue, mn__packed *packed, mn__operand b)
{
    pack_columns(queue, packed, 0, packed->n, b);
}

static void pack_blocks(mn__queue *queue, mn__packed *packed, const void *blocks)
{
    (void)queue;
    int64_t slivers = mn__cut(packed->n, MN__TILE_COLUMNS);
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < slivers; s++)
        MN__KERNEL(place_sliver)(packed, s, blocks);
}

static void pack_free(mn__packed *packed)
{
    mn__free(packed);
}

void MN__KERNEL(fill_matmul)(mn__kernels *kernels)
{
    kernels->matmul = matmul;
    kernels->pack_bytes = pack_bytes;
    kernels->pack_new = pack_new;
    kernels->pack = pack;
    kernels->pack_columns = pack_columns;
    kernels->pack_blocks = pack_blocks;
    kernels->pack_free = pack_free;
}
