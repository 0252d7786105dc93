/* Attention of a few queries on many keys, as in generation: nothing is packed, since
 * packing would read and write more than the products do.
 *
 * The keys of each group are cut into parts of PART. A part gives, for each query that
 * reads these keys, the largest score m, sum p = sum 2^(score - m) and sum p v; the
 * parts are then weighed by 2^(m - largest m) (Dao et al. 2023, "Flash-Decoding").
 * Parts do not depend on the threads, nor then does the result. Everything is float.
 *
 * Not here: Shaw's positions, masses and dropout. attention_forward.c has them. */
#include "kernel/cpu/attention.h"
#include "kernel/cpu/attention_vector.h"
#include "kernel/cpu/denormal.h"

#include <math.h>
#include <omp.h>

enum { FEW = 8, PART = 256 };

typedef struct few_call {
    mn__flash flash; /* nothing packed, float */
    int64_t shared;  /* heads of queries that read a head of keys */
    int64_t rows;    /* T * shared: row r is query r / shared, its head r % shared of those */
    int64_t parts;   /* of all groups */
    float *partial;  /* [B, G, parts, rows] of partial_floats */
    char *workers;   /* [threads] of worker_bytes */
} few_call;

/* A thread and the part in its hands: the keys from..to of group i. */
typedef struct thread_work {
    const few_call *few;
    int64_t b, g, from, to;
    int i;
    float *content, *position; /* [rows][width]: the queries of q . k, and of q . r */
    float *block;              /* [LANES + FEW][width]: keys, values or position rows */
    float *scores;             /* [rows][PART], then p */
} thread_work;

/* sum p v, m, sum p */
static int64_t partial_floats(const few_call *few)
{
    return few->flash.width + 2;
}

static int64_t worker_floats(const few_call *few)
{
    return (2 * few->rows + LANES + FEW) * few->flash.width + few->rows * PART;
}

static void worker_init(thread_work *worker, const few_call *few)
{
    int64_t width = few->flash.width;
    float *at = (float *)few->workers + omp_get_thread_num() * worker_floats(few);
    *worker = (thread_work){.few = few, .content = at, .position = at + few->rows * width};
    worker->block = worker->position + few->rows * width;
    worker->scores = worker->block + (LANES + FEW) * width;
}

static int64_t head_of(const thread_work *worker, int64_t row)
{
    return worker->g * worker->few->shared + row % worker->few->shared;
}

/* ---- Rows ------------------------------------------------------------------------ */

static const char *element(const void *data, const mn__attention_call *call, int64_t at)
{
    return (const char *)data + at * mn__dtype_bytes(call->dtype);
}

static void read_queries(thread_work *worker)
{
    const few_call *few = worker->few;
    const mn__attention_call *call = few->flash.call;
    const mn__key_group *group = &call->group[worker->i];
    bool xl = group->position == MN__POSITION_XL;
    for (int64_t r = 0; r < few->rows; r++) {
        int64_t h = head_of(worker, r), at = r * few->flash.width;
        float factor = call->scale * (call->scales ? call->scales[h] : 1) * (float)M_LOG2E;
        const void *query =
            element(call->queries, call,
                    worker->b * call->query_stride[0] + r / few->shared * call->query_stride[1] +
                        h * call->query_stride[2]);
        MN__KERNEL(attention_rows)
        (&few->flash, worker->content + at, query, 0, 1, 1,
         xl && group->u ? group->u + h * call->D : NULL, factor);
        if (xl)
            MN__KERNEL(attention_rows)
        (&few->flash, worker->position + at, query, 0, 1, 1,
         group->v ? group->v + h * call->D : NULL, factor);
    }
}

/* The block's keys or values j.. as floats; zeros where hidden from every query. */
static void read_block(thread_work *worker, const void *data, const int64_t stride[3], int64_t j)
{
    const mn__flash *flash = &worker->few->flash;
    const mn__key_group *group = &flash->call->group[worker->i];
    int64_t n = worker->to - j < LANES ? worker->to - j : LANES;
    MN__KERNEL(attention_kept_rows)
    (flash, worker->i, worker->block, data, stride, worker->b, j, worker->g, n, LANES);
    for (int64_t k = 0; k < n; k++)
        if (!MN__KERNEL(attention_key_present)(group, worker->b, j + k))
            memset(worker->block + k * flash->width, 0, (size_t)flash->width * sizeof(float));
}

/* ---- Scores ---------------------------------------------------------------------- */

/* The products of a query with the rows of the block. */
static vec dots(const float *query, const float *block, int64_t width)
{
    vec sums[LANES] = {{0}};
    for (int64_t d = 0; d < width; d += LANES) {
        vec left = vec_load(query + d);
        _Pragma("GCC unroll 16") for (int k = 0; k < LANES; k++) sums[k] +=
            left * vec_load(block + k * width + d);
    }
    vec_turn(sums);
    vec sum = {0};
    _Pragma("GCC unroll 16") for (int k = 0; k < LANES; k++) sum += sums[k];
    return sum;
}

/* Transformer-XL's r for the keys j.. and all queries of the `s`th of the shared heads:
 * row T - 1 - t + k of the block is for query t and key j + k. */
static void read_distances(thread_work *worker, int64_t s, int64_t j)
{
    const mn__flash *flash = &worker->few->flash;
    const mn__attention_call *call = flash->call;
    const mn__key_group *group = &call->group[worker->i];
    for (int64_t row = 0; row < LANES + call->T - 1; row++) {
        int64_t distance = group->offset + call->T - 1 - j - row;
        distance = distance < 0 ? 0 : distance > group->limit ? group->limit : distance;
        const void *from =
            element(group->relative, call, (distance * call->H + head_of(worker, s)) * call->D);
        MN__KERNEL(attention_rows)
        (flash, worker->block + row * flash->width, from, 0, 1, 1, NULL, 1);
    }
}

/* scores += (q + v) . r, for the keys j.. */
static void add_positions(thread_work *worker, float *scores, int64_t j)
{
    const few_call *few = worker->few;
    int64_t width = few->flash.width, T = few->flash.call->T;
    for (int64_t s = 0; s < few->shared; s++) {
        read_distances(worker, s, j);
        for (int64_t t = 0; t < T; t++) {
            int64_t r = t * few->shared + s;
            vec x = dots(worker->position + r * width, worker->block + (T - 1 - t) * width, width);
            vec_store(scores + r * PART, vec_load(scores + r * PART) + x);
        }
    }
}

static void multiply_keys(thread_work *worker)
{
    const few_call *few = worker->few;
    const mn__key_group *group = &few->flash.call->group[worker->i];
    int64_t width = few->flash.width;
    for (int64_t j = worker->from; j < worker->to; j += LANES) {
        float *scores = worker->scores + j - worker->from;
        read_block(worker, group->keys, group->key_stride, j);
        for (int64_t r = 0; r < few->rows; r++)
            vec_store(scores + r * PART, dots(worker->content + r * width, worker->block, width));
        if (group->position == MN__POSITION_XL)
            add_positions(worker, scores, j);
    }
}

static void add_biases(const thread_work *worker, int64_t row, float *scores)
{
    const mn__attention_call *call = worker->few->flash.call;
    const mn__key_group *group = &call->group[worker->i];
    int64_t query = group->offset + row / worker->few->shared, h = head_of(worker, row);
    if (group->position == MN__POSITION_ALIBI || group->position == MN__POSITION_T5)
        for (int64_t j = worker->from; j < worker->to; j++)
            scores[j - worker->from] +=
                MN__KERNEL(attention_distance_bias)(call, worker->i, query - j, h);
    if (group->bias) {
        const float *bias =
            group->bias + worker->b * group->bias_stride[0] + worker->g * group->bias_stride[1];
        for (int64_t j = worker->from; j < worker->to; j++)
            scores[j - worker->from] += bias[j] * (float)M_LOG2E;
    }
}

/* ---- A part ---------------------------------------------------------------------- */

/* n scores, a multiple of LANES, become p; writes m and sum p. */
static void exponentiate(float *scores, int64_t n, float *m, float *sum)
{
    vec largest = vec_set(-INFINITY), sums = {0};
    for (int64_t j = 0; j < n; j += LANES)
        largest = vec_max(vec_load(scores + j), largest);
    *m = vec_largest(largest);
    float reference = *m == -INFINITY ? 0 : *m;
    for (int64_t j = 0; j < n; j += LANES) {
        vec p = vec_exp2(vec_load(scores + j) - reference, false);
        vec_store(scores + j, p);
        sums += p;
    }
    *sum = vec_sum(sums);
}

static void multiply_values(thread_work *worker, float *partial)
{
    const few_call *few = worker->few;
    const mn__key_group *group = &few->flash.call->group[worker->i];
    int64_t width = few->flash.width;
    for (int64_t j = worker->from; j < worker->to; j += LANES) {
        read_block(worker, group->values, group->value_stride, j);
        for (int64_t r = 0; r < few->rows; r++) {
            const float *p = worker->scores + r * PART + j - worker->from;
            float *out = partial + r * partial_floats(few);
            for (int64_t d = 0; d < width; d += LANES) {
                vec sum = vec_load(out + d);
                _Pragma("GCC unroll 16") for (int k = 0; k < LANES; k++) sum +=
                    p[k] * vec_load(worker->block + k * width + d);
                vec_store(out + d, sum);
            }
        }
    }
}

/* The keys of the part that some query may see; those past `to` in the last LANES are
 * hidden from all, or there are none: from stays a multiple of LANES. */
static void narrow_part(thread_work *worker)
{
    const mn__attention_call *call = worker->few->flash.call;
    int64_t first, end, low = worker->to, high = worker->from;
    for (int64_t t = 0; t < call->T; t++) {
        MN__KERNEL(query_range)(call, worker->i, worker->b, t, &first, &end);
        low = first < low ? first : low;
        high = end > high ? end : high;
    }
    low = low / LANES * LANES;
    worker->from = low > worker->from ? low : worker->from;
    worker->to = high < worker->to ? high : worker->to;
}

static void run_part(thread_work *worker, float *partial)
{
    const few_call *few = worker->few;
    const mn__attention_call *call = few->flash.call;
    memset(partial, 0, (size_t)(few->rows * partial_floats(few)) * sizeof *partial);
    narrow_part(worker);
    int64_t count = worker->to - worker->from, n = (count + LANES - 1) / LANES * LANES;
    if (count > 0) {
        read_queries(worker);
        multiply_keys(worker);
    }
    for (int64_t r = 0; r < few->rows; r++) {
        float *scores = worker->scores + r * PART, *m = partial + r * partial_floats(few);
        m += few->flash.width;
        *m = -INFINITY;
        if (count <= 0)
            continue;
        add_biases(worker, r, scores);
        MN__KERNEL(mask_scores)
        (call, worker->i, worker->b, r / few->shared, worker->from, n, scores);
        exponentiate(scores, n, m, m + 1);
    }
    if (count > 0)
        multiply_values(worker, partial);
}

/* ---- The parts together ---------------------------------------------------------- */

static int64_t count_parts(const mn__key_group *group)
{
    return (group->count + PART - 1) / PART;
}

static void set_part(thread_work *worker, int64_t item)
{
    const few_call *few = worker->few;
    const mn__attention_call *call = few->flash.call;
    int64_t bg = item / few->parts, part = item % few->parts;
    worker->b = bg / call->G;
    worker->g = bg % call->G;
    for (worker->i = 0; part >= count_parts(&call->group[worker->i]); worker->i++)
        part -= count_parts(&call->group[worker->i]);
    int64_t count = call->group[worker->i].count;
    worker->from = part * PART;
    worker->to = worker->from + PART < count ? worker->from + PART : count;
}

/* `out` [width] is scratch. */
static void join_parts(const few_call *few, int64_t b, int64_t t, int64_t h, float *out)
{
    const mn__attention_call *call = few->flash.call;
    int64_t width = few->flash.width, floats = partial_floats(few);
    int64_t row = t * few->shared + h % few->shared, apart = few->rows * floats;
    const float *first = few->partial + (b * call->G + h / few->shared) * few->parts * apart;
    first += row * floats;
    float sink = call->sink ? call->sink[h] * (float)M_LOG2E : -INFINITY, largest = sink, sum = 0;
    bool valid = !call->queries_valid || t < call->queries_valid[b];
    for (int64_t part = 0; part < few->parts; part++)
        largest = fmaxf(largest, first[part * apart + width]);
    memset(out, 0, (size_t)width * sizeof *out);
    for (int64_t part = 0; valid && part < few->parts; part++) {
        const float *from = first + part * apart;
        float m = from[width];
        float weight = m == -INFINITY ? 1 : exp2f(m - largest); /* 1: zeros, or NaN */
        sum += from[width + 1] * weight;
        for (int64_t d = 0; d < width; d++)
            out[d] += from[d] * weight;
    }
    if (valid && sink != -INFINITY)
        sum += exp2f(sink - largest);
    MN__KERNEL(attention_write)
    (call, b, t, h, out, sum == 0 ? 0 : 1 / sum,
     sum == 0 ? -INFINITY : (largest + log2f(sum)) * (float)M_LN2);
}

static void run_parts(const few_call *few)
{
    const mn__attention_call *call = few->flash.call;
    int64_t items = call->B * call->G * few->parts, outputs = call->B * call->T * call->H;
#pragma omp parallel if (items > 1)
    {
        thread_work worker;
        worker_init(&worker, few);
        unsigned before = mn__denormals_to_zero();
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++) {
            set_part(&worker, item);
            run_part(&worker, few->partial + item * few->rows * partial_floats(few));
        }
#pragma omp for schedule(static)
        for (int64_t at = 0; at < outputs; at++)
            join_parts(few, at / call->H / call->T, at / call->H % call->T, at % call->H,
                       worker.block);
        mn__denormals_restore(before);
    }
}

bool MN__KERNEL(attention_is_few)(const mn__attention_call *call)
{
    /* From about five queries on bf16 tiles make up for their packing. */
    bool tiles = call->dtype == MN__BF16 && HAVE_BF16_TILES;
    bool few = call->T <= (tiles ? FEW / 2 : FEW) && !call->group_mass && call->dropout.rate == 0;
    for (int i = 0; i < call->groups; i++)
        few = few && !call->key_mass[i] && call->group[i].position != MN__POSITION_SHAW;
    return few;
}

void MN__KERNEL(attention_few)(mn__queue *queue, const mn__attention_call *call)
{
    enum { UNIT = 16 }; /* a multiple of LANES */
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    few_call few = {.flash = {.call = call, .width = (call->D + UNIT - 1) / UNIT * UNIT, .size = 4},
                    .shared = call->H / call->G,
                    .rows = call->T * (call->H / call->G)};
    for (int i = 0; i < call->groups; i++)
        few.parts += count_parts(&call->group[i]);
    int64_t partials = call->B * call->G * few.parts * few.rows * partial_floats(&few);
    few.partial = mn__queue_scratch(queue, partials * (int64_t)sizeof(float));
    few.workers = mn__queue_scratch(queue, omp_get_max_threads() * worker_floats(&few) *
                                               (int64_t)sizeof(float));
    if (few.partial && few.workers)
        run_parts(&few);
    mn__arena_release(&queue->scratch, mark);
}
