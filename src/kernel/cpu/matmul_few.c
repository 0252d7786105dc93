/* Products of a few rows with packed weights. Generation, a token at a time, is made of
 * them: every weight is read once, and what counts is that its bytes arrive as fast as
 * memory gives them. So nothing else is packed: rows of a are kept as they are. */
#include "kernel/blocks.h"
#include "kernel/cpu/chunk.h"
#include "kernel/cpu/denormal.h"
#include "kernel/cpu/panel.h"

enum { ROWS = MN__FEW_ROWS, COLUMNS = MN__TILE_COLUMNS };

bool MN__KERNEL(is_few)(const mn__matmul *call)
{
    return call->m <= ROWS && call->packed && call->batch[0] * call->batch[1] == 1;
}

/* ---- A sliver -------------------------------------------------------------------------------- */

/* The lines of b that are asked for ahead of their use: those of the next page. */
enum { AHEAD = 4096 };

static inline __attribute__((always_inline)) void fetch_line(const void *b)
{
    __builtin_prefetch((const char *)b + AHEAD, 0, 3);
}

/* sums [rows][COLUMNS] += a [rows, stride] times b [depth, COLUMNS]. */
static inline __attribute__((always_inline)) void add_floats_of(const int rows, int64_t depth,
                                                                const float *a, int64_t stride,
                                                                const float *b, float *sums)
{
    mn__lanes sum[ROWS][2][2] = {0}; /* of even and of odd l: two chains */
#pragma GCC unroll 4
    for (int64_t l = 0; l < depth; l++, b += COLUMNS)
        for (int half = 0; half < 2; half++) {
            fetch_line(b + half * MN__LANES);
            mn__lanes x = *(const mn__lanes *)(b + half * MN__LANES);
            for (int r = 0; r < rows; r++)
                sum[r][half][l & 1] =
                    mn__lanes_multiply_add(mn__lanes_of(a[r * stride + l]), x, sum[r][half][l & 1]);
        }
    for (int r = 0; r < rows; r++)
        for (int half = 0; half < 2; half++)
            *(mn__lanes *)(sums + r * COLUMNS + half * MN__LANES) +=
                sum[r][half][0] + sum[r][half][1];
}

static void add_floats(int64_t rows, int64_t depth, const float *a, int64_t stride, const void *b,
                       float *sums)
{
    if (rows == 1)
        add_floats_of(1, depth, a, stride, b, sums);
    else if (rows == 2)
        add_floats_of(2, depth, a, stride, b, sums);
    else
        add_floats_of(ROWS, depth, a, stride, b, sums);
}

#if defined(__AVX512BF16__)
/* The same for pairs of k: a [rows, stride] bf16, b [depth / 2, COLUMNS] of pairs. */
static inline __attribute__((always_inline)) void add_pairs_of(const int rows, int64_t depth,
                                                               const mn__bf16 *a, int64_t stride,
                                                               const int32_t *b, float *sums)
{
    mn__lanes sum[ROWS][2][2] = {0};
#pragma GCC unroll 4
    for (int64_t l = 0; 2 * l < depth; l++, b += COLUMNS)
        for (int half = 0; half < 2; half++) {
            fetch_line(b + half * MN__LANES);
            __m512bh x = (__m512bh)_mm512_loadu_si512(b + half * MN__LANES);
            for (int r = 0; r < rows; r++) {
                int32_t pair;
                memcpy(&pair, a + r * stride + 2 * l, sizeof pair);
                sum[r][half][l & 1] = (mn__lanes)_mm512_dpbf16_ps(
                    (__m512)sum[r][half][l & 1], (__m512bh)_mm512_set1_epi32(pair), x);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int half = 0; half < 2; half++)
            *(mn__lanes *)(sums + r * COLUMNS + half * MN__LANES) +=
                sum[r][half][0] + sum[r][half][1];
}

static void add_pairs(int64_t rows, int64_t depth, const mn__bf16 *a, int64_t stride, const void *b,
                      float *sums)
{
    if (rows == 1)
        add_pairs_of(1, depth, a, stride, b, sums);
    else if (rows == 2)
        add_pairs_of(2, depth, a, stride, b, sums);
    else
        add_pairs_of(ROWS, depth, a, stride, b, sums);
}
#endif

/* All passes of k. */
static void multiply_sliver(const mn__product_kind *kind, const mn__packed *packed, int64_t rows,
                            const void *a, int64_t stride, int64_t sliver, float *sums)
{
    const mn__panel b = {(char *)(uintptr_t)packed->data, 0, mn__round_up(packed->n, COLUMNS)};
    int64_t pass = mn__pass_depth(kind, packed->k);
    memset(sums, 0, ROWS * COLUMNS * sizeof *sums);
    for (int64_t l = 0; l < packed->k; l += pass) {
        int64_t depth = mn__least(pass, packed->k - l);
        const char *from = mn__sliver_of(kind, &b, l, depth, sliver * COLUMNS);
#if defined(__AVX512BF16__) /* else bf16 is kept as floats */
        if (kind->dtype == MN__BF16) {
            add_pairs(rows, depth, (const mn__bf16 *)a + l, stride, from, sums);
            continue;
        }
#endif
        add_floats(rows, depth, (const float *)a + l, stride, from, sums);
    }
}

/* ---- A product ------------------------------------------------------------------------------- */

void MN__KERNEL(matmul_few)(mn__queue *queue, const mn__matmul *call)
{
    const mn__product_kind *kind = MN__KERNEL(product_kind)(call->a.dtype);
    bool quantised = mn__is_quantised(call->packed);
    mn__dtype dtype = quantised ? MN__F32 : kind->dtype;
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    int64_t bytes = mn__dtype_bytes(call->c_dtype), slivers = mn__cut(call->n, COLUMNS);
    int64_t stride = mn__round_up(call->k, MN__BLOCK);
    const void *a = MN__KERNEL(few_rows)(queue, call, dtype, stride);
#pragma omp parallel if (call->n * call->k >= MN__SMALL)
    {
        unsigned before = mn__denormals_to_zero();
#pragma omp for schedule(static)
        for (int64_t s = 0; s < (a ? slivers : 0); s++) {
            float sums[ROWS * COLUMNS];
            if (quantised)
                MN__KERNEL(multiply_quantised)
            (call->packed, call->m, a, stride, s, sums);
            else multiply_sliver(kind, call->packed, call->m, a, stride, s, sums);
            for (int64_t i = 0; i < call->m; i++)
                MN__KERNEL(finish_product)
            (call, sums + i * COLUMNS, (char *)call->c + (i * call->c_row + s * COLUMNS) * bytes,
             s * COLUMNS, mn__least(COLUMNS, call->n - s * COLUMNS));
        }
        mn__denormals_restore(before);
    }
    mn__arena_release(&queue->scratch, mark);
}
