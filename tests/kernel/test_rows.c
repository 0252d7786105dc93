/* Norms, softmax, RoPE, rows by id and top-k of every level against the plain ones. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/kernel_check.h"

static const int64_t sizes[] = {1, 63, 64, 65, 127, 1030};
enum { SIZES = sizeof sizes / sizeof *sizes };

static mn__dtype either(int bit)
{
    return bit ? MN__BF16 : MN__F32;
}

static mn__matrix filled(mn__dtype dtype, int64_t rows, int64_t columns, int64_t gap, double scale)
{
    mn__matrix matrix = check_matrix(dtype, rows, columns, gap);
    check_fill(matrix, scale);
    return matrix;
}

/* ---- Norm --------------------------------------------------------------------------------- */

/* A normalised value is at most sqrt(columns); statistics are sums of `columns`
 * terms. A constant row's mean leaves a rounding that rstd (at most 1/sqrt(epsilon)
 * = 10) enlarges. */
static void check_norm_of(mn__queue *plain, mn__queue *queue, int64_t rows, int64_t columns,
                          int turn)
{
    bool rms = turn & 1;
    double n = (double)columns, bound = 5000 * 10 * (n + 8) * CHECK_EPSILON_F32;
    mn__matrix in = filled(either(turn & 2), rows, columns, 3, 1);
    mn__matrix dy = filled(either(turn & 2), rows, columns, 2, 0.01);
    mn__matrix out = filled(either(turn & 4), rows, columns, 1, 1), got = check_copy(out);
    mn__matrix gain = filled(MN__F32, 1, columns, 0, 0.001),
               bias = filled(MN__F32, 1, columns, 0, 1);
    mn__matrix stats = filled(MN__F32, 2, rows, 0, 1), got_stats = check_copy(stats);
    float *mean = rms ? NULL : stats.data, *rstd = (float *)stats.data + rows;
    float *got_mean = rms ? NULL : got_stats.data, *got_rstd = (float *)got_stats.data + rows;
    const float *g = turn % 3 ? gain.data : NULL, *b = turn % 3 == 1 ? bias.data : NULL;
    plain->kernels->norm(plain, rms, 0.01F, out, in, g, b, mean, rstd);
    queue->kernels->norm(queue, rms, 0.01F, got, in, g, b, got_mean, got_rstd);
    check_close("norm", queue, out, got, bound / 10, (n + 8) * CHECK_EPSILON_F32);
    check_close("norm's statistics", queue, stats, got_stats, 5000 * n * CHECK_EPSILON_F32,
                (n + 8) * CHECK_EPSILON_F32);

    mn__matrix sums = filled(MN__F32, 2, columns, 0, 1), got_sums = check_copy(sums);
    float *dgain = sums.data, *got_dgain = got_sums.data;
    mn__matrix again = filled(out.dtype, rows, columns, 1, 1), got_again = check_copy(again);
    plain->kernels->norm_backward(plain, rms, again, turn & 1, dgain, dgain + columns, dy, in, g,
                                  mean, rstd);
    queue->kernels->norm_backward(queue, rms, got_again, turn & 1, got_dgain, got_dgain + columns,
                                  dy, in, g, mean, rstd);
    check_close("norm_backward", queue, again, got_again, bound, (n + 8) * CHECK_EPSILON_F32);
    check_close("norm_backward's sums", queue, sums, got_sums,
                50 * 50 * ((double)rows + n) * CHECK_EPSILON_F32, 0);
    check_free(in);
    check_free(dy);
    check_free(out);
    check_free(got);
    check_free(gain);
    check_free(bias);
    check_free(stats);
    check_free(got_stats);
    check_free(sums);
    check_free(got_sums);
    check_free(again);
    check_free(got_again);
}

static void check_norms(mn__queue *plain, mn__queue *queue)
{
    for (int i = 0; i < SIZES; i++)
        for (int turn = 0; turn < 8; turn++)
            check_norm_of(plain, queue, sizes[(i + turn) % SIZES], sizes[i], turn);
}

static void test_norm(void **state)
{
    (void)state;
    check_levels(check_norms);
}

/* ---- Softmax ----------------------------------------------------------------------------------
 */

static void check_softmax_of(mn__queue *plain, mn__queue *queue, int64_t rows, int64_t columns,
                             int turn)
{
    int64_t *length = malloc((size_t)rows * sizeof *length);
    assert_non_null(length);
    mn__matrix in = filled(either(turn & 1), rows, columns, 3, 1);
    mn__matrix dy = filled(either(turn & 1), rows, columns, 0, 0.01);
    mn__matrix p = filled(either(turn & 2), rows, columns, 1, 1), got = check_copy(p);
    for (int64_t r = 0; r < rows; r++)
        length[r] = check_below(columns + 1);
    for (int64_t c = 0; c < columns; c++)
        check_set(in, rows / 2, c, -INFINITY); /* a row that sees nothing */
    double n = (double)columns;
    plain->kernels->softmax(plain, p, in, turn & 4 ? length : NULL);
    queue->kernels->softmax(queue, got, in, turn & 4 ? length : NULL);
    check_close("softmax", queue, p, got, 1e-30, (n + 8) * CHECK_EPSILON_F32);
    mn__matrix dx = filled(either(turn & 2), rows, columns, 1, 1), got_dx = check_copy(dx);
    plain->kernels->softmax_backward(plain, dx, turn & 4, p, dy);
    queue->kernels->softmax_backward(queue, got_dx, turn & 4, p, dy);
    check_close("softmax_backward", queue, dx, got_dx, 50 * (n + 8) * CHECK_EPSILON_F32,
                (n + 8) * CHECK_EPSILON_F32);
    free(length);
    check_free(in);
    check_free(dy);
    check_free(p);
    check_free(got);
    check_free(dx);
    check_free(got_dx);
}

static void check_softmaxes(mn__queue *plain, mn__queue *queue)
{
    for (int i = 0; i < SIZES; i++)
        for (int turn = 0; turn < 8; turn++)
            check_softmax_of(plain, queue, sizes[(i + turn) % SIZES], sizes[i], turn);
}

static void test_softmax(void **state)
{
    (void)state;
    check_levels(check_softmaxes);
}

/* ---- RoPE --------------------------------------------------------------------------------------
 */

/* Angles up to 10^6 are reduced in double precision: off by 1e-9 at most. */
static void check_rope(mn__queue *plain, mn__queue *queue)
{
    enum { ROWS = 65, HEADS = 3 };
    static const int64_t widths[][2] = {{2, 1}, {64, 32}, {66, 31}, {128, 64}, {80, 16}};
    int64_t positions[ROWS];
    float frequencies[64];
    for (int turn = 0; turn < 40; turn++) {
        int64_t width = widths[turn / 8][0], pairs = widths[turn / 8][1];
        for (int64_t r = 0; r < ROWS; r++)
            positions[r] = turn & 1 ? r : check_below(1000000);
        for (int64_t i = 0; i < pairs; i++)
            frequencies[i] = powf(10000, -(float)i / (float)pairs);
        mn__matrix in = filled(either(turn & 2), ROWS, HEADS * width, 3, 0.01);
        mn__matrix out = filled(either(turn & 2), ROWS, HEADS * width, 0, 1), got = check_copy(out);
        float sign = turn & 1 ? 1 : -1;
        plain->kernels->rope(plain, out, in, HEADS, pairs, positions, frequencies, turn & 4, 1.1F,
                             sign);
        queue->kernels->rope(queue, got, in, HEADS, pairs, positions, frequencies, turn & 4, 1.1F,
                             sign);
        check_close("rope", queue, out, got, 50 * 8 * CHECK_EPSILON_F32, CHECK_EPSILON_F32);
        check_free(in);
        check_free(out);
        check_free(got);
    }
}

static void test_rope(void **state)
{
    (void)state;
    check_levels(check_rope);
}

/* ---- Rows by id
 * ------------------------------------------------------------------------------------ */

static void check_ids(mn__queue *plain, mn__queue *queue)
{
    enum { TABLE = 29, ROWS = 130 };
    int32_t ids[ROWS];
    for (int i = 0; i < SIZES; i++)
        for (int turn = 0; turn < 4; turn++) {
            for (int64_t r = 0; r < ROWS; r++)
                ids[r] = (int32_t)check_below(TABLE + 2) - 2;
            mn__matrix table = filled(either(turn & 1), TABLE, sizes[i], 1, 1);
            mn__matrix rows = filled(either(turn & 2), ROWS, sizes[i], 2, 1);
            mn__matrix got_rows = check_copy(rows);
            plain->kernels->gather(plain, rows, table, ids, 0.7F);
            queue->kernels->gather(queue, got_rows, table, ids, 0.7F);
            check_close("gather", queue, rows, got_rows, 0, CHECK_EPSILON_F32);
            mn__matrix sums = filled(MN__F32, TABLE, sizes[i], 1, 1), got_sums = check_copy(sums);
            plain->kernels->scatter_add(plain, sums, rows, ids, 0.7F);
            queue->kernels->scatter_add(queue, got_sums, rows, ids, 0.7F);
            check_close("scatter_add", queue, sums, got_sums, 5000 * ROWS * CHECK_EPSILON_F32, 0);
            check_free(table);
            check_free(rows);
            check_free(got_rows);
            check_free(sums);
            check_free(got_sums);
        }
}

static void test_ids(void **state)
{
    (void)state;
    check_levels(check_ids);
}

/* ---- The k largest
 * ------------------------------------------------------------------------------------ */

static void check_top_k_of(mn__queue *plain, mn__queue *queue, int64_t columns, int64_t k,
                           mn__dtype dtype)
{
    enum { ROWS = 9 };
    mn__matrix in = filled(dtype, ROWS, columns, 3, 1);
    for (int64_t c = 0; c < columns; c += 3) /* ties, both zeros, NaN, infinities */
        check_set(in, 2, c, c % 2 ? -0.0 : 0.0);
    check_set(in, 3, columns / 2, NAN);
    check_set(in, 4, columns - 1, INFINITY);
    check_set(in, 5, 0, -INFINITY);
    mn__matrix values = check_matrix(MN__F32, ROWS, k, 0), got = check_copy(values);
    int32_t *indices = malloc((size_t)(2 * ROWS * k) * sizeof *indices);
    assert_non_null(indices);
    plain->kernels->top_k(plain, k, values.data, indices, in);
    queue->kernels->top_k(queue, k, got.data, indices + ROWS * k, in);
    assert_memory_equal(indices, indices + ROWS * k, (size_t)(ROWS * k) * sizeof *indices);
    check_close("top_k", queue, values, got, 0, 0);
    free(indices);
    check_free(in);
    check_free(values);
    check_free(got);
}

static void check_top_k(mn__queue *plain, mn__queue *queue)
{
    for (int i = 0; i < SIZES; i++)
        for (int turn = 0; turn < 2; turn++) {
            check_top_k_of(plain, queue, sizes[i], 1, either(turn));
            check_top_k_of(plain, queue, sizes[i], (sizes[i] + 2) / 3, either(turn));
            check_top_k_of(plain, queue, sizes[i], sizes[i], either(turn));
        }
}

static void test_top_k(void **state)
{
    (void)state;
    check_levels(check_top_k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_norm), cmocka_unit_test(test_softmax),
                                       cmocka_unit_test(test_rope), cmocka_unit_test(test_ids),
                                       cmocka_unit_test(test_top_k)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
