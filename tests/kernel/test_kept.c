/* Keys and values as they are kept: blocks of 8 bits as the plain kernel makes them, to the bit,
 * and attention that reads f32, bf16 and blocks where they lie.
 *
 * A kernel makes floats of what is kept and goes on with those. So attention over what is kept
 * is, to the bit, attention over the same numbers kept as floats, at every level, of one query
 * and of many, in both types of products; and that one is near its definition. Bounds as in
 * test_attention.c: products of bf16 round keys and values, of which they are sums, by 2^-9. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/blocks.h"
#include "support/kernel_check.h"

enum { B = 2, H = 6, G = 2, SPARE = 3 };

/* ---- Blocks --------------------------------------------------------------------------- */

static void quantise(mn__level level, mn__matrix out, mn__matrix in)
{
    mn_error error;
    mn__queue queue;
    assert_int_equal(mn__queue_open(&queue, mn__kernel_table(level), &error), MN_OK);
    queue.kernels->quantise(&queue, out, in);
    assert_int_equal(mn__queue_check(&queue, &error), MN_OK);
    mn__queue_close(&queue);
}

/* Rows of all kinds: usual, zeros, tiny, huge, denormal, ties, infinite, NaN. */
static void fill_rows(mn__matrix in)
{
    static const double sizes[] = {1, 0, 1e-20, 1e30, 1e-41, 20};
    check_fill(in, 3);
    for (int64_t r = 0; r < in.rows; r++)
        for (int64_t c = 0; c < in.columns; c++) {
            double x = check_get(in, r, c) * sizes[r % 6];
            check_set(in, r, c, r % 6 == 5 ? (c ? floor(x) / 2 : 127) : x);
        }
    for (int64_t r = 6; r < in.rows; r += 7)
        check_set(in, r, in.columns / 2, r % 2 ? INFINITY : NAN);
}

static void test_blocks(void **state)
{
    (void)state;
    static const struct {
        int64_t rows, columns;
    } sizes[] = {{1, 1}, {7, 31}, {40, 32}, {50, 33}, {29, 64}, {60, 80}, {400, 128}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int dtype = MN__F32; dtype <= MN__BF16; dtype++) {
            int64_t rows = sizes[s].rows, columns = sizes[s].columns;
            int64_t bytes = mn__block_int8_bytes(columns);
            mn__matrix in = check_matrix((mn__dtype)dtype, rows, columns, 5);
            mn__matrix want = {calloc((size_t)rows, (size_t)bytes), MN__U8, rows, bytes, bytes};
            fill_rows(in);
            quantise(MN__LEVEL_PLAIN, want, in);
            for (int64_t r = 0; r < rows; r++) /* what the plain kernel says, by its definition */
                for (int64_t c = 0; c < columns; c++) {
                    const mn__block_int8 *block =
                        (const void *)((char *)want.data + r * bytes +
                                       mn__block_int8_bytes(c / MN__BLOCK * MN__BLOCK));
                    double x = check_get(in, r, c), step = (double)mn__f16_to_f32(block->scale);
                    double got = step * (double)block->q[c % MN__BLOCK];
                    if (isfinite(step) && step > 0x1p-14) /* half a step, and f16's rounding */
                        assert_true(fabs(got - x) <= step * (0.5 + 127 * 0x1p-11 + 1e-4));
                    if (!isfinite(x))
                        assert_true(!isfinite(got));
                }
            for (int level = MN__LEVEL_BASELINE; level < MN__LEVELS; level++) {
                if (!mn__kernel_table((mn__level)level))
                    continue;
                int64_t stride = bytes + 6;
                mn__matrix got = {malloc((size_t)(rows * stride)), MN__U8, rows, bytes, stride};
                memset(got.data, 0xa5, (size_t)(rows * stride));
                quantise((mn__level)level, got, in);
                for (int64_t r = 0; r < rows; r++) {
                    const char *row = (char *)got.data + r * stride;
                    assert_memory_equal(row, (char *)want.data + r * bytes, (size_t)bytes);
                    for (int64_t i = bytes; i < stride; i++)
                        assert_int_equal((unsigned char)row[i], 0xa5);
                }
                free(got.data);
            }
            free(want.data);
            check_free(in);
        }
}

/* Bytes are copied as they are, and begin as zeros. */
static void test_bytes(void **state)
{
    (void)state;
    enum { ROWS = 5, COLUMNS = 68, STRIDE = 71 };
    unsigned char from[ROWS * STRIDE], to[ROWS * COLUMNS], zeros[ROWS * COLUMNS] = {0};
    for (int i = 0; i < ROWS * STRIDE; i++)
        from[i] = (unsigned char)(i * 89 + 7);
    mn__matrix in = {from, MN__U8, ROWS, COLUMNS, STRIDE},
               out = {to, MN__U8, ROWS, COLUMNS, COLUMNS};
    for (int level = MN__LEVEL_PLAIN; level < MN__LEVELS; level++) {
        mn_error error;
        mn__queue queue;
        if (!mn__kernel_table((mn__level)level))
            continue;
        assert_int_equal(mn__queue_open(&queue, mn__kernel_table((mn__level)level), &error), MN_OK);
        queue.kernels->convert(&queue, out, in);
        for (int r = 0; r < ROWS; r++)
            assert_memory_equal(to + r * COLUMNS, from + r * STRIDE, COLUMNS);
        queue.kernels->fill(&queue, out, 0);
        assert_memory_equal(to, zeros, sizeof to);
        mn__queue_close(&queue);
    }
}

/* ---- Attention ------------------------------------------------------------------------ */

typedef struct shape {
    int64_t T, count, D;
    mn__mask mask;
    bool lengths;
} shape;

static const shape shapes[] = {
    {1, 1, 64, MN__MASK_CAUSAL, false},   {1, 700, 64, MN__MASK_NONE, true},
    {3, 300, 72, MN__MASK_CAUSAL, false}, {8, 40, 16, MN__MASK_BAND, true},
    {70, 131, 80, MN__MASK_CAUSAL, true}, {100, 100, 32, MN__MASK_BAND, false},
    {33, 64, 128, MN__MASK_NONE, true},   {5, 9, 6, MN__MASK_CAUSAL, false},
};

/* One call over keys and values of every kind. */
typedef struct fixture {
    const shape *shape;
    mn__dtype dtype;
    mn__attention_call call;
    void *queries, *out;
    float *lse, *floats[2]; /* [B, count, G, D]: what blocks, or bf16, stand for */
    void *kept[2];          /* the same, kept */
    int64_t first[B], length[B];
} fixture;

static int64_t row_bytes(mn__kept kept, int64_t D)
{
    return kept == MN__KEPT_INT8 ? mn__block_int8_bytes(D) : kept == MN__KEPT_BF16 ? 2 * D : 4 * D;
}

static bool is_hidden(const fixture *f, int64_t b, int64_t j)
{
    return f->shape->lengths && (j < f->first[b] || j >= f->length[b]);
}

/* Normal numbers as they are kept, and what they then stand for; garbage where keys are hidden. */
static void put_rows(fixture *f, int which, mn__kept kept)
{
    int64_t D = f->shape->D, rows = B * f->shape->count * G, bytes = row_bytes(kept, D);
    float *floats = calloc((size_t)(rows * D), sizeof *floats);
    char *to = calloc((size_t)rows, (size_t)bytes);
    mn__random_key key = {.seed = 4, .operation = (uint32_t)which};
    for (int64_t i = 0; i < rows * D; i++)
        floats[i] = mn__random_normal(key, (uint64_t)i);
    if (kept == MN__KEPT_INT8)
        quantise(MN__LEVEL_PLAIN, (mn__matrix){to, MN__U8, rows, bytes, bytes},
                 (mn__matrix){floats, MN__F32, rows, D, D});
    for (int64_t i = 0; i < rows * D; i++) {
        const mn__block_int8 *block =
            (const void *)(to + i / D * bytes +
                           mn__block_int8_bytes(i % D / MN__BLOCK * MN__BLOCK));
        if (kept == MN__KEPT_INT8)
            floats[i] = mn__f16_to_f32(block->scale) * (float)block->q[i % D % MN__BLOCK];
        else if (kept == MN__KEPT_BF16)
            floats[i] = mn__bf16_to_f32(((mn__bf16 *)(void *)to)[i] = mn__f32_to_bf16(floats[i]));
        else
            ((float *)(void *)to)[i] = floats[i];
    }
    for (int64_t r = 0; r < rows; r++)
        if (is_hidden(f, r / G / f->shape->count, r / G % f->shape->count)) {
            memset(to + r * bytes, 0xff, (size_t)bytes);
            for (int64_t d = 0; d < D; d++)
                floats[r * D + d] = NAN;
        }
    f->floats[which] = floats;
    f->kept[which] = to;
}

static void open_fixture(fixture *f, const shape *of, mn__dtype dtype, mn__kept kept)
{
    int64_t D = of->D, rows = B * of->T * H;
    *f = (fixture){.shape = of, .dtype = dtype};
    f->queries = calloc((size_t)(rows * D), 4);
    f->out = calloc((size_t)(rows * D), 4);
    f->lse = calloc((size_t)rows, sizeof *f->lse);
    mn__random_key key = {.seed = 5};
    for (int64_t i = 0; i < rows * D; i++)
        if (dtype == MN__BF16)
            ((mn__bf16 *)f->queries)[i] = mn__f32_to_bf16(mn__random_normal(key, (uint64_t)i));
        else
            ((float *)f->queries)[i] = mn__random_normal(key, (uint64_t)i);
    for (int64_t b = 0; b < B; b++) {
        f->first[b] = b * SPARE;
        f->length[b] = of->count - b * 2 * SPARE;
    }
    for (int which = 0; which < 2; which++)
        put_rows(f, which, kept);
    f->call = (mn__attention_call){.B = B,
                                   .T = of->T,
                                   .H = H,
                                   .G = G,
                                   .D = D,
                                   .dtype = dtype,
                                   .queries = f->queries,
                                   .query_stride = {of->T * H * D, H * D, D},
                                   .out = f->out,
                                   .out_stride = {of->T * H * D, H * D, D},
                                   .lse = f->lse,
                                   .scale = 1 / sqrtf((float)D),
                                   .groups = 1};
    f->call.group[0] = (mn__key_group){.count = of->count,
                                       .mask = of->mask,
                                       .offset = of->count - of->T,
                                       .window = 20,
                                       .first = of->lengths ? f->first : NULL,
                                       .length = of->lengths ? f->length : NULL};
}

static void close_fixture(fixture *f)
{
    free(f->queries);
    free(f->out);
    free(f->lse);
    for (int which = 0; which < 2; which++) {
        free(f->floats[which]);
        free(f->kept[which]);
    }
}

/* The call with keys and values in these rows; out and lse into `to` [bytes, then rows]. */
static void run(fixture *f, mn__level level, mn__kept kept, void *const rows[2])
{
    mn_error error;
    mn__queue queue;
    mn__key_group *group = &f->call.group[0];
    int64_t row = kept == MN__KEPT_INT8 ? row_bytes(kept, f->shape->D) : f->shape->D;
    group->kept = kept;
    group->keys = rows[0];
    group->values = rows[1];
    const int64_t stride[] = {f->shape->count * G * row, G * row, row};
    memcpy(group->key_stride, stride, sizeof stride);
    memcpy(group->value_stride, stride, sizeof stride);
    assert_int_equal(mn__queue_open(&queue, mn__kernel_table(level), &error), MN_OK);
    queue.kernels->attention(&queue, &f->call);
    assert_int_equal(mn__queue_check(&queue, &error), MN_OK);
    mn__queue_close(&queue);
}

static float out_at(const fixture *f, const void *out, int64_t i)
{
    return f->dtype == MN__BF16 ? mn__bf16_to_f32(((const mn__bf16 *)out)[i])
                                : ((const float *)out)[i];
}

static double tolerance(const fixture *f)
{
    double D = (double)f->shape->D, score = 0.64 * sqrt(D);
    double f32 = 0x1p-24 * ((D + 8) * score + (double)f->shape->count + (double)f->shape->T);
    return f->dtype == MN__BF16 ? f32 + 0x1p-8 * (2 + score) : f32;
}

static void check_kept(const shape *of, mn__dtype dtype, mn__kept kept)
{
    fixture f;
    open_fixture(&f, of, dtype, kept);
    int64_t n = B * of->T * H * of->D, rows = B * of->T * H;
    int64_t bytes = n * mn__dtype_bytes(dtype);
    float *want = calloc((size_t)n, sizeof *want), *lse = calloc((size_t)rows, sizeof *lse);
    char *floats = malloc((size_t)bytes);
    run(&f, MN__LEVEL_PLAIN, MN__KEPT_F32, (void *const *)f.floats);
    for (int64_t i = 0; i < n; i++)
        want[i] = out_at(&f, f.out, i);
    memcpy(lse, f.lse, (size_t)rows * sizeof *lse);
    for (int level = MN__LEVEL_PLAIN; level < MN__LEVELS; level++) {
        if (!mn__kernel_table((mn__level)level))
            continue;
        run(&f, (mn__level)level, MN__KEPT_F32, (void *const *)f.floats);
        memcpy(floats, f.out, (size_t)bytes);
        run(&f, (mn__level)level, kept, f.kept);
        assert_memory_equal(floats, f.out, (size_t)bytes);
        for (int64_t i = 0; i < n; i++)
            if (!(fabs((double)out_at(&f, f.out, i) - (double)want[i]) <= 4 * tolerance(&f)))
                fail_msg("%s, %s, D %d, T %d: out[%d] is %g, not %g",
                         mn__level_name((mn__level)level), mn__dtype_name(dtype), (int)of->D,
                         (int)of->T, (int)i, (double)out_at(&f, f.out, i), (double)want[i]);
        for (int64_t i = 0; i < rows; i++)
            assert_true(fabs((double)f.lse[i] - (double)lse[i]) <= 4 * tolerance(&f) ||
                        f.lse[i] == lse[i]);
        if (dtype == MN__F32) { /* as it is computed is as floats */
            run(&f, (mn__level)level, MN__KEPT_AS_COMPUTED, (void *const *)f.floats);
            assert_memory_equal(floats, f.out, (size_t)bytes);
        }
    }
    free(want);
    free(lse);
    free(floats);
    close_fixture(&f);
}

static void test_attention(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int kept = MN__KEPT_F32; kept <= MN__KEPT_INT8; kept++) {
            check_kept(&shapes[s], MN__F32, (mn__kept)kept);
            check_kept(&shapes[s], MN__BF16, (mn__kept)kept);
        }
}

/* A NaN that was kept is seen by those who see its token. */
static void test_nan_is_kept(void **state)
{
    (void)state;
    for (size_t s = 1; s < 5; s += 3) /* few queries, and many */
        for (int level = MN__LEVEL_PLAIN; level < MN__LEVELS; level++) {
            fixture f;
            if (!mn__kernel_table((mn__level)level))
                continue;
            open_fixture(&f, &shapes[s], MN__F32, MN__KEPT_INT8);
            int64_t bytes = row_bytes(MN__KEPT_INT8, shapes[s].D), D = shapes[s].D, j = 5;
            float x[MN__BLOCK] = {[3] = NAN};
            const mn__block_int8 block = mn__block_int8_of(x);
            memcpy((char *)f.kept[1] + j * G * bytes, &block, sizeof block); /* row 0, head 0 */
            run(&f, (mn__level)level, MN__KEPT_INT8, f.kept);
            const float *last = (float *)f.out + (shapes[s].T - 1) * H * D;
            for (int64_t h = 0; h < H; h++)
                assert_int_equal(isnan(last[h * D + 3]) != 0, h < H / G);
            close_fixture(&f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_nan_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
