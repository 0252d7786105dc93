/* Attention of a few queries on many keys, as in generation: nothing is packed, since
 * packing would read and write more than the products do.
 *
 * The keys of each group are cut into parts of PART, which are read once, in the order in
 * which they lie, for all heads: memory gives neighbours twice as fast as every second row.
 * A part gives, for each query and head, the largest score m, sum p = sum 2^(score - m) and
 * sum p v; the parts are then weighed by 2^(m - largest m) (Dao et al. 2023,
 * "Flash-Decoding"). Parts do not depend on the threads, nor on the other rows and queries of
 * the call; nor then does the result. On levels with bf16 tiles, products of bf16 data are of
 * pairs, as the tiles' are; everything else is float.
 *
 * Not here: Shaw's positions, masses and dropout. attention_forward.c has them. */
#include "kernel/cpu/attention_few.h"
#include "kernel/cpu/attention.h"
#include "kernel/cpu/attention_vector.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/denormal.h"

#include <math.h>
#include <omp.h>

enum { FEW = 8, PART = 256, BLOCK = 64 /* keys that are read at a time */ };

typedef struct few_call {
    mn__flash flash;                /* nothing packed */
    int64_t shared;                 /* heads of queries that read a head of keys */
    int64_t beside;                 /* T * shared: the queries that read a head of keys */
    int64_t rows;                   /* G * beside: see row_of */
    int64_t parts;                  /* of all groups */
    key_range seen[MN__GROUPS_MAX]; /* by some query of some row */
    float *partial;                 /* [B, parts, rows] of partial_floats */
    char *workers;                  /* [threads] of worker_bytes; rows in the form of flash */
} few_call;

/* A thread and the part in its hands: the keys from..to of group i. */
typedef struct thread_work {
    const few_call *few;
    int64_t b, from, to;
    int i;
    char *content, *position; /* [rows][width]: the queries of q . k, and of q . r */
    char *block;              /* [BLOCK][width]: keys, values or position rows */
    char *p;                  /* [rows][PART] in the products' type: in scores, where float */
    float *scores;            /* [rows][PART] */
    float *out;               /* [width] */
} thread_work;

/* sum p v, m, sum p */
static int64_t partial_floats(const few_call *few)
{
    return few->flash.width + 2;
}

static int64_t row_bytes(const few_call *few)
{
    return few->flash.width * few->flash.size;
}

static int64_t worker_bytes(const few_call *few)
{
    int64_t scores = few->rows * PART;
    return (2 * few->rows + BLOCK) * row_bytes(few) + scores * (int64_t)sizeof(float) +
           few->flash.bf16 * scores * few->flash.size + few->flash.width * (int64_t)sizeof(float);
}

static void worker_init(thread_work *worker, const few_call *few)
{
    int64_t row = row_bytes(few), scores = few->rows * PART;
    char *at = few->workers + omp_get_thread_num() * worker_bytes(few);
    *worker = (thread_work){.few = few, .content = at, .position = at + few->rows * row};
    worker->block = worker->position + few->rows * row;
    worker->scores = (float *)(worker->block + BLOCK * row);
    worker->out = worker->scores + scores;
    worker->p = few->flash.bf16 ? (char *)(worker->out + few->flash.width) : (char *)worker->scores;
}

static int64_t row_of(const few_call *few, int64_t t, int64_t h)
{
    return h / few->shared * few->beside + t * few->shared + h % few->shared;
}

static int64_t head_of(const few_call *few, int64_t row)
{
    return row / few->beside * few->shared + row % few->shared;
}

static int64_t query_of(const few_call *few, int64_t row)
{
    return row % few->beside / few->shared;
}

/* ---- Rows ------------------------------------------------------------------------ */

static const char *element(const void *data, const mn__attention_call *call, int64_t at)
{
    return (const char *)data + at * mn__dtype_bytes(call->dtype);
}

static float factor_of(const few_call *few, int64_t row)
{
    const mn__attention_call *call = few->flash.call;
    return call->scale * (call->scales ? call->scales[head_of(few, row)] : 1) * (float)M_LOG2E;
}

static void read_queries(thread_work *worker)
{
    const few_call *few = worker->few;
    const mn__attention_call *call = few->flash.call;
    const mn__key_group *group = &call->group[worker->i];
    bool xl = group->position == MN__POSITION_XL;
    for (int64_t r = 0; r < few->rows; r++) {
        int64_t h = head_of(few, r), at = r * row_bytes(few);
        const void *query =
            element(call->queries, call,
                    worker->b * call->query_stride[0] + query_of(few, r) * call->query_stride[1] +
                        h * call->query_stride[2]);
        MN__KERNEL(attention_rows)
        (&few->flash, worker->content + at, query, 0, 1, 1,
         xl && group->u ? group->u + h * call->D : NULL, 1);
        if (xl)
            MN__KERNEL(attention_rows)
        (&few->flash, worker->position + at, query, 0, 1, 1,
         group->v ? group->v + h * call->D : NULL, 1);
    }
}

/* Keys or values, and how they lie. */
typedef struct key_array {
    const char *data;
    const int64_t *stride; /* as key_stride */
    int64_t size;          /* bytes of what the strides count */
} key_array;

static key_array array_of(const thread_work *worker, bool values)
{
    const mn__attention_call *call = worker->few->flash.call;
    const mn__key_group *group = &call->group[worker->i];
    return (key_array){values ? group->values : group->keys,
                       values ? group->value_stride : group->key_stride,
                       mn__dtype_bytes(mn__kept_dtype(group->kept, call->dtype))};
}

static const char *address_of(const thread_work *worker, key_array array, int64_t j, int64_t g)
{
    const int64_t *stride = array.stride;
    return array.data + (worker->b * stride[0] + j * stride[1] + g * stride[2]) * array.size;
}

/* The BLOCK keys or values j.. of head g: where they lie, or in the worker's block, zeros where
 * hidden from every query. */
static few_rows read_block(thread_work *worker, key_array array, int64_t j, int64_t g)
{
    const mn__flash *flash = &worker->few->flash;
    const mn__key_group *group = &flash->call->group[worker->i];
    int64_t n = smaller(worker->to - j, BLOCK), row = row_bytes(worker->few);
    few_rows rows = {address_of(worker, array, j, g), array.stride[1] * array.size};
    if (n == BLOCK &&
        MN__KERNEL(attention_in_form)(flash, worker->i, rows.data, rows.row, worker->b, j, n))
        return rows;
    MN__KERNEL(attention_kept_rows)
    (flash, worker->i, worker->block, array.data, array.stride, worker->b, j, g, n, BLOCK);
    bool all = MN__KERNEL(attention_keys_present)(group, worker->b, j, n);
    for (int64_t k = 0; !all && k < n; k++)
        if (!MN__KERNEL(attention_key_present)(group, worker->b, j + k))
            memset(worker->block + k * row, 0, (size_t)row);
    return (few_rows){worker->block, row};
}

/* What is read after block j of all heads: the next block; after a part's keys, its values, and
 * then the next part's keys. Head g asks for the gth part of it. */
static const char *after_block(const thread_work *worker, bool values, int64_t j, int64_t g)
{
    bool last = j + BLOCK >= worker->to;
    key_array array = array_of(worker, values != last);
    int64_t next = last && !values ? worker->from : j + BLOCK;
    int64_t bytes = BLOCK * array.stride[1] * array.size;
    return address_of(worker, array, next, 0) + g * bytes / worker->few->flash.call->G;
}

/* ---- Scores ---------------------------------------------------------------------- */

/* Transformer-XL's r of head h for LANES keys j..: row T - 1 - t + k of the block is for query t
 * and key j + k. */
static void read_distances(thread_work *worker, int64_t h, int64_t j)
{
    const mn__flash *flash = &worker->few->flash;
    const mn__attention_call *call = flash->call;
    const mn__key_group *group = &call->group[worker->i];
    for (int64_t row = 0; row < LANES + call->T - 1; row++) {
        int64_t distance = group->offset + call->T - 1 - j - row;
        distance = distance < 0 ? 0 : distance > group->limit ? group->limit : distance;
        const void *from = element(group->relative, call, (distance * call->H + h) * call->D);
        MN__KERNEL(attention_rows)
        (flash, worker->block + row * row_bytes(worker->few), from, 0, 1, 1, NULL, 1);
    }
}

/* scores += (q + v) . r, for LANES keys j.. */
static void add_positions(thread_work *worker, int64_t j)
{
    const few_call *few = worker->few;
    const mn__attention_call *call = few->flash.call;
    int64_t row = row_bytes(few);
    for (int64_t h = 0; h < call->H; h++) {
        read_distances(worker, h, j);
        for (int64_t t = 0; t < call->T; t++) {
            int64_t r = row_of(few, t, h);
            few_rows query = {worker->position + r * row, row};
            few_rows distances = {worker->block + (call->T - 1 - t) * row, row};
            few_scores(few->flash.bf16, 1, query, distances, distances.data, row,
                       worker->scores + r * PART + j - worker->from, PART);
        }
    }
}

static void multiply_block(thread_work *worker, int64_t j, int64_t g)
{
    const few_call *few = worker->few;
    int64_t row = row_bytes(few), first = g * few->beside;
    const few_rows queries = {worker->content + first * row, row};
    float *scores = worker->scores + first * PART + j - worker->from;
    few_rows keys = read_block(worker, array_of(worker, false), j, g);
    const char *ahead = after_block(worker, false, j, g);
    for (int64_t k = 0; k < BLOCK; k += LANES)
        few_scores(few->flash.bf16, few->beside, queries,
                   (few_rows){keys.data + k * keys.row, keys.row}, ahead + k * row, row, scores + k,
                   PART);
}

static void multiply_keys(thread_work *worker)
{
    const few_call *few = worker->few;
    const mn__attention_call *call = few->flash.call;
    memset(worker->scores, 0, (size_t)(few->rows * PART) * sizeof(float));
    for (int64_t j = worker->from; j < worker->to; j += BLOCK)
        for (int64_t g = 0; g < call->G; g++)
            multiply_block(worker, j, g);
    if (call->group[worker->i].position == MN__POSITION_XL)
        for (int64_t j = worker->from; j < worker->to; j += LANES)
            add_positions(worker, j);
}

static void add_biases(const thread_work *worker, int64_t row, float *scores)
{
    const mn__attention_call *call = worker->few->flash.call;
    const mn__key_group *group = &call->group[worker->i];
    int64_t query = group->offset + query_of(worker->few, row), h = head_of(worker->few, row);
    if (group->position == MN__POSITION_ALIBI || group->position == MN__POSITION_T5)
        for (int64_t j = worker->from; j < worker->to; j++)
            scores[j - worker->from] +=
                MN__KERNEL(attention_distance_bias)(call, worker->i, query - j, h);
    if (group->bias) {
        const float *bias = group->bias + worker->b * group->bias_stride[0] +
                            row / worker->few->beside * group->bias_stride[1];
        for (int64_t j = worker->from; j < worker->to; j++)
            scores[j - worker->from] += bias[j] * (float)M_LOG2E;
    }
}

/* ---- A part ---------------------------------------------------------------------- */

static void scale(float *scores, int64_t n, float factor)
{
    for (int64_t j = 0; j < n; j += LANES)
        vec_store(scores + j, vec_load(scores + j) * factor);
}

/* n scores, a multiple of BLOCK, become p; writes m and sum p. */
static void exponentiate(const few_call *few, float *scores, int64_t n, void *p_row, float *m,
                         float *sum)
{
    vec largest = vec_set(-INFINITY), sums = {0};
    for (int64_t j = 0; j < n; j += LANES)
        largest = vec_max(vec_load(scores + j), largest);
    *m = vec_largest(largest);
    float reference = *m == -INFINITY ? 0 : *m;
    for (int64_t j = 0; j < n; j += LANES) {
        vec p = vec_exp2(vec_load(scores + j) - reference, few->flash.bf16);
        vec_store(scores + j, p);
        sums += p;
    }
    *sum = vec_sum(sums);
    if (few->flash.bf16)
        mn__floats_narrow(p_row, scores, n);
}

static void multiply_values(thread_work *worker, float *partial)
{
    const few_call *few = worker->few;
    int64_t floats = partial_floats(few), size = few->flash.size;
    for (int64_t j = worker->from; j < worker->to; j += BLOCK)
        for (int64_t g = 0; g < few->flash.call->G; g++) {
            int64_t first = g * few->beside;
            few_rows p = {worker->p + (first * PART + j - worker->from) * size, PART * size};
            few_rows values = read_block(worker, array_of(worker, true), j, g);
            few_sums(few->flash.bf16, few->beside, p, values, after_block(worker, true, j, g),
                     BLOCK, few->flash.width, partial + first * floats, floats);
        }
}

static key_range joined(key_range a, key_range b)
{
    return (key_range){smaller(a.first, b.first), larger(a.end, b.end)};
}

/* The keys of group i that some query of row b may see; from a multiple of BLOCK on. */
static key_range visible(const mn__attention_call *call, int i, int64_t b)
{
    key_range all = {call->group[i].count, 0};
    for (int64_t t = 0; t < call->T; t++) {
        key_range keys;
        MN__KERNEL(query_range)(call, i, b, t, &keys.first, &keys.end);
        if (keys.first < keys.end)
            all = joined(all, keys);
    }
    all.first = all.first / BLOCK * BLOCK;
    return all;
}

/* Those of the part: `to` ends what is visible, or there are none. */
static void narrow_part(thread_work *worker)
{
    key_range keys = visible(worker->few->flash.call, worker->i, worker->b);
    worker->from = larger(worker->from, keys.first);
    worker->to = smaller(worker->to, keys.end);
}

static void run_part(thread_work *worker, float *partial)
{
    const few_call *few = worker->few;
    const mn__attention_call *call = few->flash.call;
    memset(partial, 0, (size_t)(few->rows * partial_floats(few)) * sizeof *partial);
    narrow_part(worker);
    int64_t count = worker->to - worker->from, n = (count + BLOCK - 1) / BLOCK * BLOCK;
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
        scale(scores, n, factor_of(few, r));
        add_biases(worker, r, scores);
        MN__KERNEL(mask_scores)
        (call, worker->i, worker->b, query_of(few, r), worker->from, n, scores);
        exponentiate(few, scores, n, worker->p + r * PART * few->flash.size, m, m + 1);
    }
    if (count > 0)
        multiply_values(worker, partial);
}

/* ---- The parts together ---------------------------------------------------------- */

static int64_t parts_of(key_range keys)
{
    return keys.first < keys.end ? (keys.end - keys.first + PART - 1) / PART : 0;
}

/* The parts of each group: of the keys that a query of some row may see. They begin at multiples
 * of PART, wherever the first of those keys is: a row's do not depend on the others. */
static void cut_parts(few_call *few)
{
    const mn__attention_call *call = few->flash.call;
    for (int i = 0; i < call->groups; i++) {
        key_range all = visible(call, i, 0);
        for (int64_t b = 1; b < call->B; b++)
            all = joined(all, visible(call, i, b));
        all.first = all.first / PART * PART;
        few->seen[i] = all;
        few->parts += parts_of(all);
    }
}

static void set_part(thread_work *worker, int64_t item)
{
    const few_call *few = worker->few;
    int64_t part = item % few->parts;
    worker->b = item / few->parts;
    for (worker->i = 0; part >= parts_of(few->seen[worker->i]); worker->i++)
        part -= parts_of(few->seen[worker->i]);
    key_range seen = few->seen[worker->i];
    worker->from = seen.first + part * PART;
    worker->to = smaller(worker->from + PART, seen.end);
}

/* `out` [width] is scratch. */
static void join_parts(const few_call *few, int64_t b, int64_t t, int64_t h, float *out)
{
    const mn__attention_call *call = few->flash.call;
    int64_t width = few->flash.width, floats = partial_floats(few);
    int64_t apart = few->rows * floats;
    const float *first = few->partial + b * few->parts * apart + row_of(few, t, h) * floats;
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
    int64_t items = call->B * few->parts, outputs = call->B * call->T * call->H;
#pragma omp parallel if (items > 1)
    {
        thread_work worker;
        worker_init(&worker, few);
        unsigned before = mn__denormals_to_zero();
#pragma omp for schedule(static) /* neighbours: the next part is asked for */
        for (int64_t item = 0; item < items; item++) {
            set_part(&worker, item);
            run_part(&worker, few->partial + item * few->rows * partial_floats(few));
        }
#pragma omp for schedule(static)
        for (int64_t at = 0; at < outputs; at++)
            join_parts(few, at / call->H / call->T, at / call->H % call->T, at % call->H,
                       worker.out);
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
    enum { UNIT = 32 }; /* whole words of every vector */
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    bool bf16 = call->dtype == MN__BF16 && HAVE_BF16_TILES;
    few_call few = {.flash = {.call = call,
                              .bf16 = bf16,
                              .width = (call->D + UNIT - 1) / UNIT * UNIT,
                              .size = bf16 ? 2 : 4},
                    .shared = call->H / call->G,
                    .beside = call->T * (call->H / call->G),
                    .rows = call->T * call->H};
    cut_parts(&few);
    int64_t partials = call->B * few.parts * few.rows * partial_floats(&few);
    few.partial = mn__queue_scratch(queue, partials * (int64_t)sizeof(float));
    few.workers = mn__queue_scratch(queue, omp_get_max_threads() * worker_bytes(&few));
    if (few.partial && few.workers)
        run_parts(&few);
    mn__arena_release(&queue->scratch, mark);
}
