/* The keys with the largest inner products (Wu et al. 2022, section 3.2), as defined
 * in kernel.h: products by tiles, and the selection on each tile while it is in the
 * first cache, so that T x M scores never exist at once.
 *
 * Exact: a query has a limit, which a score has to exceed, and a buffer of candidates.
 * A full buffer is cut down to the k best, of which the last is the new limit: of M
 * scores in any order about k ln(M / k) pass. In buckets: a score is compared with the
 * best of its bucket so far; there are as many buckets as make whole tiles, slots
 * m mod lcm(k, columns of a tile), and those of one bucket of k meet at the end.
 *
 * Rough: where both sides are F32 and bf16 is multiplied twice as fast, scores are products of
 * values rounded to bf16, at most e = (2^-7 + 2^-16 + 2 D 2^-24) |q| |k| off (each factor is
 * rounded by 2^-8 of it at most, each addition by 2^-24; the sum of |q_i k_i| is at most |q| |k|,
 * Cauchy-Schwarz). The k-th largest rough score less e is a floor of the k-th largest exact one,
 * and what has a rough score below the floor less e is not among the k. What is left at the end, or
 * fills the buffer, is scored again in F32, with the operations and the order of the F32 tile:
 * results are those without this, bit for bit. Where much fills the buffer (keys that are nearly
 * equal), or norms are beyond bounds, the rest is done in F32.
 *
 * Work is shared out by row, head, block of queries and, for few of those, piece of the
 * memory; results do not depend on how. */
#include <math.h>
#include <omp.h>

#include "base/integer.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/denormal.h"
#include "kernel/cpu/panel.h"
#include "kernel/cpu/rank.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

enum {
    QUERIES = 512,          /* of a block, rounded up to the tiles' rows */
    KEYS_BYTES = 1 << 18,   /* of packed keys at a time: they stay in L2 */
    CHOICE_BYTES = 8 << 20, /* of a thread's candidates or buckets */
    PIECE = 4096,           /* slots that are worth a thread's while */
    ROUGH_QUERIES = 16,     /* for fewer, packing in bf16 costs more than it saves */
    COLUMNS = MN__TILE_COLUMNS,
    SURPLUS = 64 /* packing may write a vector past the end */
};

typedef struct search {
    const mn__nearest_call *call;
    const mn__product_kind *kind;
    bool rough;
    int64_t block, blocks; /* queries of a block; blocks of a row and head */
    int64_t pieces;        /* of the memory */
    int64_t room;          /* candidates of a query, or buckets in whole tiles */
    uint64_t *found;       /* [B, T, H, pieces, k] where pieces > 1; 0: nothing */
} search;

/* A thread, and its block of queries: number i is query t0 + i of row b and head h. */
typedef struct worker {
    const search *job;
    const mn__product_kind *kind;
    bool rough;
    int64_t b, h, t0, n;
    char *packed_queries, *packed_keys;
    mn__bf16 *narrow;         /* [MN__TILE_ROWS_MAX, D]: rows on their way */
    float *limit;             /* [block]: what a score has to exceed */
    float *floor;             /* [block]: the k-th largest score is at least this */
    float *norm;              /* [block]: rough: |q| */
    float longest;            /* rough: the largest |k| so far */
    float greatest;           /* and |q| */
    int64_t *count;           /* [block]: candidates */
    float *score;             /* [block, room]: those of candidates, or the best of buckets */
    int32_t *slot;            /* and where */
    uint64_t *ranks, *sorted; /* [room], [k]: a query's, on their way */
    int64_t again;            /* scored in F32 */
} worker;

static int64_t sliver_bytes(const mn__product_kind *kind, int64_t lines, int64_t D)
{
    return mn__round_up(lines * mn__round_up(D, 32) * mn__dtype_bytes(kind->dtype) + SURPLUS, 64);
}

/* Whole tiles of keys that are packed at a time. */
static int64_t keys_at_once(const mn__product_kind *kind, int64_t D)
{
    int64_t tiles = KEYS_BYTES / sliver_bytes(kind, COLUMNS, D);
    return (tiles > 1 ? tiles : 1) * COLUMNS;
}

/* ---- Where things lie ------------------------------------------------------------------ */

static const void *query_at(const worker *w, int64_t i)
{
    const mn__nearest_call *call = w->job->call;
    const int64_t *stride = call->query_stride;
    int64_t at = w->b * stride[0] + (w->t0 + i) * stride[1] + w->h * stride[2];
    return (const char *)call->queries + at * mn__dtype_bytes(call->query_dtype);
}

static const void *key_at(const worker *w, int64_t m)
{
    const mn__nearest_call *call = w->job->call;
    const int64_t *stride = call->key_stride;
    int64_t at = w->b * stride[0] + w->h * stride[1] + m * stride[2];
    return (const char *)call->keys + at * mn__dtype_bytes(call->key_dtype);
}

/* ---- Scores in F32 of candidates ----------------------------------------------------------- */

/* As the F32 tile adds them: one product after the other. */
static void score_again(const float *q, const float *const key[MN__LANES], int64_t D,
                        mn__lanes *out)
{
    mn__lanes sum = {0};
    int64_t d = 0;
    for (; d + MN__LANES <= D; d += MN__LANES) {
        mn__words v[MN__LANES];
        for (int i = 0; i < MN__LANES; i++)
            v[i] = *(const mn__words *)(key[i] + d);
        mn__words_transpose(v);
        for (int j = 0; j < MN__LANES; j++)
            sum = mn__lanes_multiply_add(mn__lanes_of(q[d + j]), (mn__lanes)v[j], sum);
    }
    for (; d < D; d++) {
        mn__lanes x = {0};
        for (int i = 0; i < MN__LANES; i++)
            x[i] = key[i][d];
        sum = mn__lanes_multiply_add(mn__lanes_of(q[d]), x, sum);
    }
    *out = sum;
}

static void scores_again(worker *w, int64_t i, int64_t n)
{
    const float *q = query_at(w, i), *key[MN__LANES];
    float *score = w->score + i * w->job->room;
    const int32_t *slot = w->slot + i * w->job->room;
    for (int64_t first = 0; first < n; first += MN__LANES) {
        int64_t used = mn__least(MN__LANES, n - first);
        for (int64_t c = 0; c < MN__LANES; c++)
            key[c] = key_at(w, slot[first + (c < used ? c : 0)]);
        mn__lanes again;
        score_again(q, key, w->job->call->D, &again);
        for (int64_t c = 0; c < used; c++)
            score[first + c] = again[c];
    }
    w->again += n;
}

/* A bit for each lane of a that is larger than b's. */
static inline uint32_t lanes_above(mn__lanes a, mn__lanes b)
{
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
#elif defined(__AVX__)
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ));
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps(_mm_cmpgt_ps((__m128)a, (__m128)b));
#else
    uint32_t mask = 0;
    for (int i = 0; i < MN__LANES; i++)
        mask |= (uint32_t)(a[i] > b[i]) << i;
    return mask;
#endif
}

/* ---- Candidates ------------------------------------------------------------------------ */

/* See above; rounded up, for norms that are up to 2 D 2^-24 too small, and for what
 * counts as zero (2^-126 in a product or a sum). */
static float rough_error(const worker *w, int64_t i)
{
    float D = (float)w->job->call->D;
    float relative = (0x1p-7F + 0x1p-16F + D * 0x1p-23F) * (1 + (D + 16) * 0x1p-22F);
    return relative * w->norm[i] * w->longest + D * 0x1p-124F;
}

/* After a new floor, or with longer keys. */
static void set_limit(worker *w, int64_t i)
{
    float floor = w->floor[i];
    w->limit[i] = w->rough ? floor - rough_error(w, i) - fabsf(floor) * 0x1p-22F : floor;
}

static void raise_floor(worker *w, int64_t i, float score)
{
    if (w->rough)
        score -= rough_error(w, i) + fabsf(score) * 0x1p-22F;
    if (score > w->floor[i])
        w->floor[i] = score;
    set_limit(w, i);
}

/* A number that k to `most` of n >= k scores reach, by bisection; NaN where none is found
 * soon: many are equal, or infinite. */
static float near_kth(const float *score, int64_t n, int64_t k, int64_t most)
{
    enum { STEPS = 20 };
    float low = score[0], high = score[0];
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t c = 0; c < n; c++) {
        low = score[c] < low ? score[c] : low;
        high = score[c] > high ? score[c] : high;
    }
    for (int step = 0; step < STEPS; step++) {
        const float middle = low + 0.5F * (high - low);
        int32_t reach = 0;
#pragma omp simd reduction(+ : reach)
        for (int64_t c = 0; c < n; c++)
            reach += score[c] >= middle;
        if (reach >= k && reach <= most)
            return middle;
        if (reach >= k)
            low = middle;
        else
            high = middle;
    }
    return NAN;
}

/* The k best of n >= k candidates come first, the last of them last; returns its score. */
static float select_best(worker *w, int64_t i, int64_t n)
{
    int64_t k = w->job->call->k;
    float *score = w->score + i * w->job->room;
    int32_t *slot = w->slot + i * w->job->room;
    for (int64_t c = 0; c < n; c++)
        w->ranks[c] = mn__rank_of(score[c], slot[c]);
    mn__ranks_select(w->ranks, n, k);
    for (int64_t c = 0; c < n; c++) {
        score[c] = mn__rank_value(w->ranks[c]);
        slot[c] = (int32_t)mn__rank_index(w->ranks[c]);
    }
    return score[k - 1];
}

/* Those of n candidates that reach a score move up; how many they are. */
static int64_t keep_above(float *score, int32_t *slot, int64_t n, float least_score)
{
    int64_t kept = 0;
#if defined(__AVX512F__) /* whole vectors: the room is a multiple of them */
    for (int64_t c = 0; c < n; c += MN__LANES) {
        __m512 x = _mm512_loadu_ps(score + c);
        __mmask16 mask = _mm512_cmp_ps_mask(x, _mm512_set1_ps(least_score), _CMP_GE_OQ);
        mask &= (__mmask16)(n - c < MN__LANES ? (1U << (n - c)) - 1 : UINT16_MAX);
        __m512i from = _mm512_loadu_si512(slot + c);
        _mm512_storeu_ps(score + kept, _mm512_maskz_compress_ps(mask, x));
        _mm512_storeu_si512(slot + kept, _mm512_maskz_compress_epi32(mask, from));
        kept += __builtin_popcount(mask);
    }
#else
    for (int64_t c = 0; c < n; c++) {
        const float x = score[c];
        score[kept] = x;
        slot[kept] = slot[c];
        kept += x >= least_score;
    }
#endif
    return kept;
}

/* Raises the floor by n >= k candidates and drops those that are hopeless; about k, at
 * least k, are left. */
static int64_t drop_hopeless(worker *w, int64_t i, int64_t n)
{
    int64_t k = w->job->call->k;
    float last = near_kth(w->score + i * w->job->room, n, k, k + k / 4);
    bool selected = last != last;
    if (selected)
        last = select_best(w, i, n);
    raise_floor(w, i, last);
    if (selected && !w->rough)
        return k;
    return keep_above(w->score + i * w->job->room, w->slot + i * w->job->room, n, w->limit[i]);
}

/* The k best of n >= k candidates, in F32. */
static int64_t settle(worker *w, int64_t i, int64_t n)
{
    scores_again(w, i, n);
    float last = select_best(w, i, n);
    w->floor[i] = last > w->floor[i] ? last : w->floor[i];
    set_limit(w, i);
    return w->job->call->k;
}

/* A full buffer. */
static int64_t make_room(worker *w, int64_t i, int64_t n)
{
    n = drop_hopeless(w, i, n);
    return w->rough && 4 * n > 3 * w->job->room ? settle(w, i, n) : n;
}

/* A vector of scores of the slots from m on, those of the mask, to the end of the
 * candidates, where there is room for a vector; how many. */
static int64_t append(float *score, int32_t *slot, const float *from, uint32_t mask, int64_t m)
{
#if defined(__AVX512F__)
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __mmask16 these = (__mmask16)mask;
    __m512i slots = _mm512_add_epi32(_mm512_set1_epi32((int32_t)m), lane);
    _mm512_storeu_ps(score, _mm512_maskz_compress_ps(these, _mm512_loadu_ps(from)));
    _mm512_storeu_si512(slot, _mm512_maskz_compress_epi32(these, slots));
    return __builtin_popcount(mask);
#else
    int64_t n = 0;
    for (; mask; mask &= mask - 1, n++) {
        int c = __builtin_ctz(mask);
        score[n] = from[c];
        slot[n] = (int32_t)(m + c);
    }
    return n;
#endif
}

/* A tile's scores of the slots from m on, those of the mask above the limit. */
static void take(worker *w, int64_t i, const float *from, uint32_t mask, int64_t m)
{
    const uint32_t half = UINT32_MAX >> (32 - MN__LANES);
    int64_t room = w->job->room, n = w->count[i];
    for (; mask; mask = mask >> (MN__LANES - 1) >> 1, from += MN__LANES, m += MN__LANES) {
        uint32_t above = mask & half;
        if (above && n + MN__LANES > room) {
            n = make_room(w, i, n);
            above &= lanes_above(*(const mn__lanes *)from, mn__lanes_of(w->limit[i]));
        }
        if (above)
            n += append(w->score + i * room + n, w->slot + i * room + n, from, above, m);
    }
    w->count[i] = n;
}

static void take_best(float *best, int32_t *slot, const float *score, uint32_t mask, int64_t m)
{
    for (; mask; mask &= mask - 1) {
        int c = __builtin_ctz(mask);
        best[c] = score[c];
        slot[c] = (int32_t)(m + c);
    }
}

/* ---- Tiles ------------------------------------------------------------------------------- */

/* A tile's sums: `used` queries from i on, the slots from m on that `there` names. */
static void choose(worker *w, const float *sums, int64_t i, int64_t used, int64_t m, uint32_t there)
{
    for (int64_t r = 0; r < used; r++, sums += COLUMNS) {
        const mn__lanes *score = (const mn__lanes *)sums;
        const mn__lanes limit = mn__lanes_of(w->limit[i + r]);
        uint32_t mask = lanes_above(score[0], limit) | lanes_above(score[1], limit) << MN__LANES;
        if (mask & there)
            take(w, i + r, sums, mask & there, m);
    }
}

static void choose_in_buckets(worker *w, const float *sums, int64_t i, int64_t used, int64_t m,
                              uint32_t there)
{
    int64_t at = i * w->job->room + m % w->job->room;
    for (int64_t r = 0; r < used; r++, sums += COLUMNS, at += w->job->room) {
        const mn__lanes *score = (const mn__lanes *)sums;
        const mn__lanes *best = (const mn__lanes *)(w->score + at);
        uint32_t mask = lanes_above(score[0], best[0]) | lanes_above(score[1], best[1])
                                                             << MN__LANES;
        if (mask & there)
            take_best(w->score + at, w->slot + at, sums, mask & there, m);
    }
}

/* One sliver of queries, from i on, with n packed keys, slots from m on. */
static void meet(worker *w, int64_t i, int64_t m, int64_t n)
{
    const mn__product_kind *kind = w->kind;
    _Alignas(64) float sums[MN__TILE_ROWS_MAX * COLUMNS];
    enum { ROW_BYTES = COLUMNS * sizeof *sums };
    const mn__tile_out to = {
        .out = sums, .out_bytes = ROW_BYTES, .c = (const char *)sums, .c_bytes = ROW_BYTES};
    int64_t D = w->job->call->D, steps = mn__cut(D, kind->step),
            used = mn__least(kind->rows, w->n - i);
    const char *queries = w->packed_queries + i / kind->rows * sliver_bytes(kind, kind->rows, D);
    const char *keys = w->packed_keys;
    for (int64_t j = 0; j < n; j += COLUMNS, keys += sliver_bytes(kind, COLUMNS, D)) {
        int64_t columns = mn__least(COLUMNS, n - j);
        uint32_t there = columns == 32 ? UINT32_MAX : (1U << columns) - 1;
        kind->tile(used, steps, queries, keys, &to);
        if (w->job->call->buckets)
            choose_in_buckets(w, sums, i, used, m + j, there);
        else
            choose(w, sums, i, used, m + j, there);
    }
}

/* ---- Packing ------------------------------------------------------------------------------ */

/* In double precision where squares leave the range of floats. */
static float norm_of(const float *x, int64_t D)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; d++)
        sum += x[d] * x[d];
    if (sum > 0x1p-80F && sum < 0x1p100F)
        return sqrtf(sum);
    double exact = 0;
    for (int64_t d = 0; d < D; d++)
        exact += (double)x[d] * (double)x[d];
    return (float)sqrt(exact) * (1 + 0x1p-22F);
}

/* NaN is not smaller either. */
static float larger(float a, float b)
{
    return a < b || b != b ? b : a;
}

static void pack_queries(worker *w)
{
    const mn__nearest_call *call = w->job->call;
    int64_t D = call->D, rows = w->kind->rows;
    char *to = w->packed_queries;
    for (int64_t i = 0; i < w->n; i += rows, to += sliver_bytes(w->kind, rows, D)) {
        int64_t used = mn__least(rows, w->n - i);
        mn__operand a = {query_at(w, i), call->query_dtype, call->query_stride[1], 1, {0, 0}};
        for (int64_t r = 0; r < used && w->rough; r++) {
            w->norm[i + r] = norm_of(query_at(w, i + r), D);
            w->greatest = larger(w->greatest, w->norm[i + r]);
            mn__floats_narrow(w->narrow + r * D, query_at(w, i + r), D);
        }
        if (w->rough)
            a = (mn__operand){w->narrow, MN__BF16, D, 1, {0, 0}};
        w->kind->pack_a(to, a, used, D);
    }
}

static void pack_keys(worker *w, int64_t m, int64_t n)
{
    const mn__nearest_call *call = w->job->call;
    int64_t D = call->D;
    char *to = w->packed_keys;
    for (int64_t j = 0; j < n; j += COLUMNS, to += sliver_bytes(w->kind, COLUMNS, D)) {
        int64_t used = mn__least(COLUMNS, n - j);
        mn__operand b = {key_at(w, m + j), call->key_dtype, 1, call->key_stride[2], {0, 0}};
        for (int64_t c = 0; c < used && w->rough; c++) {
            w->longest = larger(w->longest, norm_of(key_at(w, m + j + c), D));
            mn__floats_narrow(w->narrow + c * D, key_at(w, m + j + c), D);
        }
        if (w->rough)
            b = (mn__operand){w->narrow, MN__BF16, 1, D, {0, 0}};
        w->kind->pack_b(to, b, used, D);
    }
}

/* ---- A block of queries with a piece of the memory --------------------------------------------
 */

static void clear(worker *w)
{
    for (int64_t i = 0; i < w->n; i++) {
        w->limit[i] = w->floor[i] = -INFINITY;
        w->count[i] = 0;
    }
    for (int64_t i = 0; i < w->n * w->job->room && w->job->call->buckets; i++) {
        w->score[i] = -INFINITY;
        w->slot[i] = -1;
    }
}

/* From now on, all products are F32. */
static void leave_rough(worker *w)
{
    w->rough = false;
    w->kind = MN__KERNEL(product_kind)(MN__F32);
    pack_queries(w);
    for (int64_t i = 0; i < w->n; i++) {
        scores_again(w, i, w->count[i]);
        if (w->count[i] >= w->job->call->k)
            w->count[i] = drop_hopeless(w, i, w->count[i]);
        set_limit(w, i);
    }
}

/* Packs keys; where their norms leave the bounds within which rough_error is true, and
 * sums surely finite, again in F32. */
static void pack_and_limit(worker *w, int64_t m, int64_t n)
{
    float longest = w->longest;
    pack_keys(w, m, n);
    if (!w->rough)
        return;
    if (!(w->longest < 0x1p50F && w->greatest < 0x1p50F)) {
        leave_rough(w);
        return;
    }
    if (w->longest == longest)
        return;
    for (int64_t i = 0; i < w->n; i++)
        set_limit(w, i);
}

static void scan(worker *w, int64_t first, int64_t end)
{
    int64_t D = w->job->call->D;
    pack_queries(w);
    clear(w);
    for (int64_t m = first, n; m < end; m += n) {
        bool rough = w->rough;
        n = mn__least(keys_at_once(w->kind, D), end - m);
        pack_and_limit(w, m, n);
        if (rough != w->rough) {
            n = 0;
            continue;
        }
        w->again = 0;
        for (int64_t i = 0; i < w->n; i += w->kind->rows)
            meet(w, i, m, n);
        if (w->rough && 16 * w->again > w->n * n) /* it would have been cheaper in F32 */
            leave_rough(w);
    }
}

/* The best of a query into [k], 0 where there is none. */
static void finish_query(worker *w, int64_t i, uint64_t *to)
{
    int64_t k = w->job->call->k, n = w->count[i], room = w->job->room;
    if (n > k)
        n = drop_hopeless(w, i, n);
    if (w->rough)
        scores_again(w, i, n);
    for (int64_t c = 0; c < n; c++)
        w->ranks[c] = mn__rank_of(w->score[i * room + c], w->slot[i * room + c]);
    memset(to, 0, (size_t)k * sizeof *to);
    mn__ranks_order(to, k, w->ranks, n);
}

static void finish_buckets(const worker *w, int64_t i, uint64_t *to)
{
    int64_t k = w->job->call->k, room = w->job->room;
    memset(to, 0, (size_t)k * sizeof *to);
    for (int64_t j = 0; j < room; j++) {
        int64_t m = w->slot[i * room + j];
        uint64_t rank = m < 0 ? 0 : mn__rank_of(w->score[i * room + j], m);
        if (rank > to[j % k])
            to[j % k] = rank;
    }
}

/* Ranks to the call's outputs; n is the query's number in [B, T, H]. */
static void write_out(const mn__nearest_call *call, int64_t n, const uint64_t *ranks)
{
    for (int64_t j = 0; j < call->k; j++) {
        call->values[n * call->k + j] = ranks[j] ? mn__rank_value(ranks[j]) : -INFINITY;
        call->index[n * call->k + j] = ranks[j] ? (int32_t)mn__rank_index(ranks[j]) : -1;
    }
}

static void search_item(worker *w, int64_t item)
{
    const search *job = w->job;
    const mn__nearest_call *call = job->call;
    int64_t piece = item % job->pieces, block = item / job->pieces % job->blocks;
    int64_t head = item / job->pieces / job->blocks;
    w->b = head / call->H;
    w->h = head % call->H;
    w->t0 = block * job->block;
    w->n = mn__least(job->block, call->T - w->t0);
    w->kind = job->kind;
    w->rough = job->rough;
    w->longest = w->greatest = 0;
    int64_t filled = call->filled ? call->filled[w->b] : call->M, tiles = mn__cut(filled, COLUMNS);
    scan(w, tiles * piece / job->pieces * COLUMNS,
         mn__least(tiles * (piece + 1) / job->pieces * COLUMNS, filled));
    for (int64_t i = 0; i < w->n; i++) {
        int64_t n = (w->b * call->T + w->t0 + i) * call->H + w->h;
        uint64_t *to =
            job->pieces > 1 ? job->found + (n * job->pieces + piece) * call->k : w->sorted;
        if (call->buckets)
            finish_buckets(w, i, to);
        else
            finish_query(w, i, to);
        if (job->pieces == 1)
            write_out(call, n, to);
    }
}

/* What the pieces found for query n. */
static void join_pieces(const search *job, int64_t n)
{
    int64_t k = job->call->k;
    uint64_t *ranks = job->found + n * job->pieces * k;
    if (job->call->buckets) {
        for (int64_t j = k; j < job->pieces * k; j++)
            if (ranks[j] > ranks[j % k])
                ranks[j % k] = ranks[j];
    } else {
        mn__ranks_select(ranks, job->pieces * k, k);
        mn__ranks_sort(ranks, k);
    }
    write_out(job->call, n, ranks);
}

/* ---- Planning ----------------------------------------------------------------------------------
 */

/* Where heads and blocks do not keep all threads busy: whole rounds for all of them. */
static int64_t pieces_of(const mn__nearest_call *call, int64_t items, int64_t threads)
{
    enum { ROUNDS = 8 };
    int64_t most = call->M / PIECE;
    if (items >= ROUNDS * threads || most < 2)
        return 1;
    return mn__least(threads / mn__divisor(items, threads), most);
}

/* VDPBF16PS runs at twice the rate of float products on AMD's cores, at half of it on Intel's,
 * which have AMX instead. */
static bool is_bf16_faster(void)
{
#if defined(__AMX_BF16__)
    return true;
#elif defined(__AVX512BF16__)
    return __builtin_cpu_is("amd");
#else
    return false;
#endif
}

static search plan(const mn__nearest_call *call)
{
    search job = {.call = call};
    bool bf16 = call->query_dtype == MN__BF16 && call->key_dtype == MN__BF16;
    const mn__product_kind *narrow = MN__KERNEL(product_kind)(MN__BF16);
    job.rough = call->query_dtype == MN__F32 && call->key_dtype == MN__F32 && !call->buckets &&
                is_bf16_faster() && call->T >= ROUGH_QUERIES && call->D <= 1 << 12;
    job.kind = job.rough || bf16 ? narrow : MN__KERNEL(product_kind)(MN__F32);
    int64_t buckets = call->k / mn__divisor(call->k, COLUMNS) * COLUMNS;
    job.room =
        call->buckets ? buckets : mn__round_up(call->k * (job.rough ? 4 : 2) + 64, MN__LANES);
    int64_t most = mn__least(QUERIES, CHOICE_BYTES / 8 / job.room), rows = job.kind->rows;
    most = mn__round_up(most > 1 ? most : 1, rows);
    job.blocks = mn__cut(call->T, most);
    job.block = mn__round_up(mn__cut(call->T, job.blocks), rows);
    job.pieces = pieces_of(call, call->B * call->H * job.blocks, omp_get_max_threads());
    return job;
}

/* A thread's memory, cut from `memory`; returns its bytes, where that is NULL alone. */
static int64_t place_worker(const search *job, worker *w, char *memory)
{
    const mn__product_kind *f32 = MN__KERNEL(product_kind)(MN__F32);
    const mn__product_kind *const kinds[2] = {job->kind, f32};
    int64_t D = job->call->D, keys = 0, queries = 0, used = 0;
    for (int i = 0; i < 2; i++) {
        int64_t rows = kinds[i]->rows;
        int64_t slivers = keys_at_once(kinds[i], D) / COLUMNS;
        int64_t key_bytes = slivers * sliver_bytes(kinds[i], COLUMNS, D);
        int64_t query_bytes = mn__cut(job->block, rows) * sliver_bytes(kinds[i], rows, D);
        keys = key_bytes > keys ? key_bytes : keys;
        queries = query_bytes > queries ? query_bytes : queries;
    }
    const int64_t bytes[] = {queries,
                             keys,
                             job->rough ? MN__TILE_ROWS_MAX * D * 2 : 0,
                             job->block * 4,
                             job->block * 4,
                             job->block * 4,
                             job->block * 8,
                             job->block * job->room * 4,
                             job->block * job->room * 4,
                             job->room * 8,
                             job->call->k * 8};
    enum { PARTS = sizeof bytes / sizeof *bytes };
    void *part[PARTS];
    for (int i = 0; i < PARTS; i++) {
        part[i] = memory ? memory + used : NULL;
        used += mn__round_up(bytes[i], 64);
    }
    *w = (worker){.job = job,
                  .packed_queries = part[0],
                  .packed_keys = part[1],
                  .narrow = part[2],
                  .limit = part[3],
                  .floor = part[4],
                  .norm = part[5],
                  .count = part[6],
                  .score = part[7],
                  .slot = part[8],
                  .ranks = part[9],
                  .sorted = part[10]};
    return used;
}

static void nearest(mn__queue *queue, const mn__nearest_call *call)
{
    enum { TINY = 1 << 17 }; /* products that a second thread would not shorten */
    int64_t all = call->B * call->T * call->H;
    if (all == 0 || call->k == 0)
        return;
    search job = plan(call);
    worker none;
    int64_t threads = omp_get_max_threads(), bytes = place_worker(&job, &none, NULL);
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    char *scratch = mn__queue_scratch(queue, threads * bytes);
    job.found = mn__queue_scratch(queue, job.pieces > 1 ? all * job.pieces * call->k * 8 : 0);
    if (scratch && job.found) {
#pragma omp parallel if (all * call->M * call->D >= TINY)
        {
            worker w;
            place_worker(&job, &w, scratch + omp_get_thread_num() * bytes);
            unsigned before = mn__denormals_to_zero();
            if (job.kind->begin)
                job.kind->begin();
#pragma omp for schedule(dynamic, 1)
            for (int64_t item = 0; item < call->B * call->H * job.blocks * job.pieces; item++)
                search_item(&w, item);
            if (job.kind->end)
                job.kind->end();
            mn__denormals_restore(before);
            if (job.pieces > 1) {
#pragma omp for schedule(static)
                for (int64_t n = 0; n < all; n++)
                    join_pieces(&job, n);
            }
        }
    }
    mn__arena_release(&queue->scratch, mark);
}

void MN__KERNEL(fill_nearest)(mn__kernels *kernels)
{
    kernels->nearest = nearest;
}
