/* Matrix products of every level against the plain one. A sum of k products in
 * F32, in any order, is off by at most about k 2^-24 times the sum of their
 * magnitudes (Higham 2002, section 3.1), which the plain kernel computes from
 * |a| and |b|. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "kernel/blocks.h"
#include "support/kernel_check.h"

typedef struct shape {
    int64_t m, n, k;
} shape;

static const shape shapes[] = {
    {1, 1, 1},      {1, 65, 127},  {2, 64, 33},    {3, 127, 64},   {7, 31, 1},
    {8, 63, 128},   {63, 64, 65},  {64, 64, 64},   {65, 63, 31},   {127, 65, 32},
    {15, 17, 1025}, {33, 129, 0},  {130, 70, 700}, {17, 1100, 60}, {300, 33, 40},
    {4, 70, 1025},  {1, 33, 1543}, {3, 40, 513},   {2, 17, 0}, /* few rows, several passes of k */
    {5, 66, 131},   {12, 65, 129}, {32, 130, 96},  {29, 70, 300}, /* groups of eight rows */
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static mn__operand operand_of(mn__matrix matrix, bool transposed)
{
    return (mn__operand){.data = matrix.data,
                         .dtype = matrix.dtype,
                         .row = transposed ? 1 : matrix.stride,
                         .column = transposed ? matrix.stride : 1};
}

static mn__matrix operand_matrix(mn__dtype dtype, int64_t rows, int64_t columns, bool transposed)
{
    mn__matrix matrix =
        transposed ? check_matrix(dtype, columns, rows, 3) : check_matrix(dtype, rows, columns, 5);
    check_fill(matrix, 1);
    return matrix;
}

static void make_positive(mn__matrix matrix)
{
    for (int64_t r = 0; r < matrix.rows; r++)
        for (int64_t c = 0; c < matrix.columns; c++)
            check_set(matrix, r, c, fabs(check_get(matrix, r, c)));
}

/* The sum of |a||b| for every element of c. */
static mn__matrix magnitudes(mn__queue *plain, const mn__matmul *call, mn__matrix a, mn__matrix b)
{
    mn__matrix sums = check_matrix(MN__F32, call->m, call->n, 0);
    mn__matrix left = check_copy(a), right = check_copy(b);
    make_positive(left);
    make_positive(right);
    mn__matmul all = {.batch = {1, 1},
                      .m = call->m,
                      .n = call->n,
                      .k = call->k,
                      .a = call->a,
                      .b = call->b,
                      .c = sums.data,
                      .c_row = sums.stride};
    all.a.data = left.data;
    all.b.data = right.data;
    plain->kernels->matmul(plain, &all);
    check_free(left);
    check_free(right);
    return sums;
}

static void compare(mn__queue *queue, const mn__matmul *call, mn__matrix expected, mn__matrix got,
                    mn__matrix sums)
{
    double rounding = got.dtype == MN__BF16 ? CHECK_EPSILON_BF16 : CHECK_EPSILON_F32;
    for (int64_t r = 0; r < got.rows; r++)
        for (int64_t c = 0; c < got.columns; c++) {
            double want = check_get(expected, r, c), have = check_get(got, r, c);
            double bias = call->bias ? fabs((double)call->bias[c]) : 0;
            double size = check_get(sums, r, c) + bias + fabs(want);
            double slope = call->activation == MN__RELU2 ? 2 * size : 1.2;
            double bound = slope * (double)(call->k + 8) * CHECK_EPSILON_F32 * size;
            if (!(fabs(want - have) <= bound + rounding * fabs(want)))
                fail_msg("%s: %lldx%lldx%lld a %s%s b %s [%lld, %lld] is %.9g, not %.9g",
                         mn__level_name(queue->kernels->level), (long long)call->m,
                         (long long)call->n, (long long)call->k, mn__dtype_name(call->a.dtype),
                         call->a.row == 1 ? " transposed" : "",
                         call->b.row == 1 ? "transposed" : "", (long long)r, (long long)c, have,
                         want);
        }
}

typedef struct variant {
    mn__dtype dtype, c_dtype;
    bool a_transposed, b_transposed, packed, bias, accumulate;
    mn__activation activation;
} variant;

static void check_product(mn__queue *plain, mn__queue *queue, shape size, variant how)
{
    mn__matrix a = operand_matrix(how.dtype, size.m, size.k, how.a_transposed);
    mn__matrix b = operand_matrix(how.dtype, size.k, size.n, how.b_transposed);
    mn__matrix bias = check_matrix(MN__F32, 1, size.n, 0);
    mn__matrix expected = check_matrix(how.c_dtype, size.m, size.n, 7);
    check_fill(bias, 1);
    check_fill(expected, 1);
    mn__matrix got = check_copy(expected);
    mn__matmul call = {.batch = {1, 1},
                       .m = size.m,
                       .n = size.n,
                       .k = size.k,
                       .a = operand_of(a, how.a_transposed),
                       .b = operand_of(b, how.b_transposed),
                       .c = expected.data,
                       .c_dtype = how.c_dtype,
                       .c_row = expected.stride,
                       .bias = how.bias ? bias.data : NULL,
                       .activation = how.activation,
                       .accumulate = how.accumulate};
    mn__matrix sums = magnitudes(plain, &call, a, b);
    plain->kernels->matmul(plain, &call);
    mn__packed *packed = NULL;
    if (how.packed) {
        packed = queue->kernels->pack_new(queue, size.k, size.n, mn__form_of(how.dtype));
        assert_non_null(packed);
        queue->kernels->pack(queue, packed, call.b);
        call.packed = packed;
        call.b.data = NULL;
    }
    call.c = got.data;
    queue->kernels->matmul(queue, &call);
    compare(queue, &call, expected, got, sums);
    if (packed)
        queue->kernels->pack_free(packed);
    check_free(a);
    check_free(b);
    check_free(bias);
    check_free(expected);
    check_free(got);
    check_free(sums);
}

/* Every operand layout at every shape; bias, activation, sum and packing by turns. */
static void check_shapes(mn__queue *plain, mn__queue *queue)
{
    for (int s = 0; s < SHAPES; s++)
        for (int turn = 0; turn < 16; turn++) {
            variant how = {.dtype = turn & 1 ? MN__BF16 : MN__F32,
                           .a_transposed = turn & 2,
                           .b_transposed = turn & 4,
                           .packed = turn & 8,
                           .accumulate = (turn + s) % 3 == 0};
            how.c_dtype = how.dtype == MN__BF16 && (turn / 2 + s) % 2 ? MN__BF16 : MN__F32;
            if (!how.accumulate) {
                how.bias = (turn + s) % 3 == 1;
                how.activation = (mn__activation)((turn + 3 * s) % (MN__SIGMOID + 1));
            }
            check_product(plain, queue, shapes[s], how);
        }
    /* Several passes of k into bf16, where partial sums, bias and c meet in a tile. */
    for (int turn = 0; turn < 4; turn++)
        check_product(
            plain, queue, (shape){130, 70, 1100},
            (variant){
                .dtype = MN__BF16, .c_dtype = MN__BF16, .bias = turn & 1, .accumulate = turn & 2});
}

static void test_shapes(void **state)
{
    (void)state;
    check_levels(check_shapes);
}

/* c = a b, of these matrices. */
static mn__matmul square_call(mn__matrix a, mn__matrix b, bool b_transposed, mn__matrix c)
{
    return (mn__matmul){.batch = {1, 1},
                        .m = c.rows,
                        .n = c.columns,
                        .k = a.columns,
                        .a = operand_of(a, false),
                        .b = operand_of(b, b_transposed),
                        .c = c.data,
                        .c_row = c.stride};
}

/* ---- Integer forms ------------------------------------------------------------------------- */

/* A product with a matrix of integers, as the plain table defines it; where many rows of
 * bf16 meet it, its elements are rounded to bf16. */
static void check_form(mn__queue *plain, mn__queue *queue, shape size, variant how, mn__form form)
{
    mn__matrix a = operand_matrix(how.dtype, size.m, size.k, false);
    mn__matrix b = operand_matrix(MN__F32, size.k, size.n, how.b_transposed);
    mn__matrix bias = check_matrix(MN__F32, 1, size.n, 0);
    mn__matrix expected = check_matrix(how.c_dtype, size.m, size.n, 7);
    check_fill(bias, 1);
    check_fill(expected, 1);
    mn__matrix got = check_copy(expected);
    mn__operand right = operand_of(b, how.b_transposed);
    mn__packed *defined = plain->kernels->pack_new(plain, size.k, size.n, form);
    mn__packed *packed = queue->kernels->pack_new(queue, size.k, size.n, form);
    assert_non_null(defined);
    assert_non_null(packed);
    plain->kernels->pack(plain, defined, right);
    queue->kernels->pack(queue, packed, right);
    mn__matmul call = {.batch = {1, 1},
                       .m = size.m,
                       .n = size.n,
                       .k = size.k,
                       .a = operand_of(a, false),
                       .b = right,
                       .c = expected.data,
                       .c_dtype = how.c_dtype,
                       .c_row = expected.stride,
                       .bias = how.bias ? bias.data : NULL,
                       .accumulate = how.accumulate};
    mn__matrix sums = magnitudes(plain, &call, a, b);
    call.packed = defined;
    plain->kernels->matmul(plain, &call);
    call.packed = packed;
    call.c = got.data;
    queue->kernels->matmul(queue, &call);
    double of_weights = how.dtype == MN__BF16 && size.m > 4 ? 2 * CHECK_EPSILON_BF16 : 0;
    double of_result = how.c_dtype == MN__BF16 ? CHECK_EPSILON_BF16 : CHECK_EPSILON_F32;
    for (int64_t r = 0; r < size.m; r++)
        for (int64_t c = 0; c < size.n; c++) {
            double want = check_get(expected, r, c), have = check_get(got, r, c);
            double bound = (2 * (double)(size.k + 8) * CHECK_EPSILON_F32 + of_weights) *
                           (check_get(sums, r, c) + 4);
            if (!(fabs(want - have) <= bound + of_result * fabs(want)))
                fail_msg("%s: %lldx%lldx%lld %s, form %d [%lld, %lld] is %.9g, not %.9g",
                         mn__level_name(queue->kernels->level), (long long)size.m,
                         (long long)size.n, (long long)size.k, mn__dtype_name(how.dtype), form,
                         (long long)r, (long long)c, have, want);
        }
    plain->kernels->pack_free(defined);
    queue->kernels->pack_free(packed);
    check_free(a);
    check_free(b);
    check_free(bias);
    check_free(expected);
    check_free(got);
    check_free(sums);
}

static void check_forms(mn__queue *plain, mn__queue *queue)
{
    static const shape sizes[] = {{1, 1, 1},    {1, 70, 100},  {2, 33, 64},   {3, 31, 600},
                                  {4, 130, 33}, {5, 70, 96},   {33, 130, 31}, {64, 33, 1100},
                                  {1, 300, 64}, {130, 65, 513}};
    static const mn__form forms[] = {MN__FORM_INT8, MN__FORM_INT4, MN__FORM_F16};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int turn = 0; turn < 12; turn++) {
            variant how = {.dtype = turn & 1 ? MN__BF16 : MN__F32,
                           .b_transposed = turn & 2,
                           .bias = (turn + (int)s) % 3 == 1,
                           .accumulate = (turn + (int)s) % 3 == 2};
            how.c_dtype = turn & 1 && s % 2 ? MN__BF16 : MN__F32;
            check_form(plain, queue, sizes[s], how, forms[turn / 4]);
        }
}

static void test_forms(void **state)
{
    (void)state;
    check_levels(check_forms);
}

/* Numbers of f16, the smallest and the largest too, come out of a product with the identity as
 * they went in, by few rows and by many. */
static void check_f16(mn__queue *plain, mn__queue *queue)
{
    enum { K = 75, N = 70 };
    static const mn__f16 kinds[] = {0, 1, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x3c00};
    static float a[K * K], b[K * N], c[K * N];
    (void)plain;
    for (int i = 0; i < K * N; i++)
        b[i] = mn__f16_to_f32(i % 3 ? (mn__f16)(i * 6151 % 0x7c00 | (i & 1) << 15) : kinds[i % 8]);
    for (int i = 0; i < K; i++)
        a[i * K + i] = 1;
    mn__packed *packed = queue->kernels->pack_new(queue, K, N, MN__FORM_F16);
    assert_non_null(packed);
    queue->kernels->pack(queue, packed, (mn__operand){b, MN__F32, N, 1, {0, 0}});
    for (int rows = 1; rows <= K; rows += rows < 4 ? 1 : 71) {
        memset(c, 0, sizeof c);
        for (int i = 0; i < K; i += rows) {
            mn__matmul call = {.batch = {1, 1},
                               .m = K - i < rows ? K - i : rows,
                               .n = N,
                               .k = K,
                               .a = {a + i * K, MN__F32, K, 1, {0, 0}},
                               .packed = packed,
                               .c = c + i * N,
                               .c_row = N};
            queue->kernels->matmul(queue, &call);
        }
        for (int i = 0; i < K * N; i++)
            assert_true(c[i] == b[i]);
    }
    queue->kernels->pack_free(packed);
}

static void test_f16(void **state)
{
    (void)state;
    check_levels(check_f16);
}

/* Packed in pieces is packed, to the bit, from the lines of b or from its columns. */
static void check_pieces(mn__queue *plain, mn__queue *queue)
{
    enum { M = 9, K = 70, N = 3 * MN__PACK_COLUMNS + 5 };
    (void)plain;
    for (int form = MN__FORM_F32; form <= MN__FORM_INT4; form++)
        for (int transposed = 0; transposed < 2; transposed++) {
            mn__dtype dtype = form == MN__FORM_BF16 ? MN__BF16 : MN__F32;
            mn__matrix a = check_matrix(dtype, M, K, 0), c = check_matrix(MN__F32, M, N, 0);
            mn__matrix b = operand_matrix(MN__F32, K, N, transposed), other = check_copy(c);
            mn__operand right = operand_of(b, transposed);
            mn__packed *whole = queue->kernels->pack_new(queue, K, N, (mn__form)form);
            mn__packed *pieces = queue->kernels->pack_new(queue, K, N, (mn__form)form);
            assert_non_null(whole);
            assert_non_null(pieces);
            check_fill(a, 1);
            queue->kernels->pack(queue, whole, right);
            for (int64_t j = 0, n; j < N; j += n) {
                mn__operand part = right;
                n = j ? N - j : 2 * MN__PACK_COLUMNS;
                part.data = (const float *)right.data + j * right.column;
                queue->kernels->pack_columns(queue, pieces, j, n, part);
            }
            mn__matmul call = {.batch = {1, 1},
                               .m = M,
                               .n = N,
                               .k = K,
                               .a = operand_of(a, false),
                               .packed = whole,
                               .c = c.data,
                               .c_row = c.stride};
            queue->kernels->matmul(queue, &call);
            call.packed = pieces;
            call.c = other.data;
            queue->kernels->matmul(queue, &call);
            double most = 0;
            for (int64_t i = 0; i < M * N; i++) {
                double got = check_get(other, i / N, i % N);
                assert_true(got == check_get(c, i / N, i % N));
                most = fmax(most, fabs(got));
            }
            assert_true(most > 0);
            queue->kernels->pack_free(whole);
            queue->kernels->pack_free(pieces);
            check_free(a);
            check_free(b);
            check_free(c);
            check_free(other);
        }
}

static void test_pieces(void **state)
{
    (void)state;
    check_levels(check_pieces);
}

/* A matrix from blocks is the matrix that those blocks were made of, with scales so small
 * that they are denormal, too. */
static void check_blocks(mn__queue *plain, mn__queue *queue)
{
    enum { N = 45, K = 96, BLOCKS = K / MN__BLOCK };
    (void)plain;
    for (int form = MN__FORM_INT8; form <= MN__FORM_INT4; form++)
        for (int small = 0; small < 2; small++) {
            mn__matrix a = check_matrix(MN__F32, 7, K, 0), b = check_matrix(MN__F32, K, N, 0);
            mn__matrix first = check_matrix(MN__F32, 7, N, 0), second = check_copy(first);
            static mn__block_int8 int8[N][BLOCKS];
            static mn__block_int4 int4[N][BLOCKS];
            for (int64_t i = 0; i < 7 * K; i++) /* no row of zeros */
                check_set(a, i / K, i % K, (double)(1 + i % 5));
            check_fill(b, small ? 0x1p-12 : 1);
            for (int64_t n = 0; n < N; n++)
                for (int64_t k = 0; k < BLOCKS; k++) {
                    float x[MN__BLOCK];
                    for (int64_t i = 0; i < MN__BLOCK; i++)
                        x[i] = (float)check_get(b, k * MN__BLOCK + i, n);
                    int8[n][k] = mn__block_int8_of(x);
                    int4[n][k] = mn__block_int4_of(x);
                }
            for (int64_t m = 1; m <= 7; m += 6) {
                mn__matmul call = square_call(a, b, false, first);
                call.m = m;
                mn__packed *packed = queue->kernels->pack_new(queue, K, N, (mn__form)form);
                assert_non_null(packed);
                call.packed = packed;
                queue->kernels->pack(queue, packed, call.b);
                queue->kernels->matmul(queue, &call);
                queue->kernels->pack_blocks(
                    queue, packed, form == MN__FORM_INT8 ? (const void *)int8 : (const void *)int4);
                call.c = second.data;
                queue->kernels->matmul(queue, &call);
                int64_t zeros = 0;
                for (int64_t r = 0; r < m; r++)
                    for (int64_t c = 0; c < N; c++) {
                        assert_true(check_get(first, r, c) == check_get(second, r, c));
                        zeros += check_get(first, r, c) == 0;
                    }
                assert_true(zeros < m * N / 10);
                queue->kernels->pack_free(packed);
            }
            check_free(a);
            check_free(b);
            check_free(first);
            check_free(second);
        }
}

static void test_blocks(void **state)
{
    (void)state;
    check_levels(check_blocks);
}

/* ---- Batches and teams ----------------------------------------------------------------------- */

/* Two batch dimensions, with heads side by side in memory as attention has them. */
static void check_batch(mn__queue *plain, mn__queue *queue)
{
    enum { B = 3, H = 5, T = 33, D = 24 };
    for (int turn = 0; turn < 2; turn++) {
        mn__dtype dtype = turn ? MN__BF16 : MN__F32;
        mn__matrix q = check_matrix(dtype, B * T, H * D, 0),
                   k = check_matrix(dtype, B * T, H * D, 0);
        check_fill(q, 0.5);
        check_fill(k, 0.5);
        mn__matrix expected = check_matrix(MN__F32, B * H * T, T, 0), got = check_copy(expected);
        mn__matmul call = {.batch = {B, H},
                           .m = T,
                           .n = T,
                           .k = D,
                           .a = {q.data, dtype, H * D, 1, {T * H * D, D}},
                           .b = {k.data, dtype, 1, H * D, {T * H * D, D}},
                           .c = expected.data,
                           .c_row = T,
                           .c_outer = {H * T * T, T * T}};
        plain->kernels->matmul(plain, &call);
        call.c = got.data;
        queue->kernels->matmul(queue, &call);
        check_close("batched product", queue, expected, got,
                    500.0 * 500 * D * D * CHECK_EPSILON_F32, D * CHECK_EPSILON_F32);
        check_free(q);
        check_free(k);
        check_free(expected);
        check_free(got);
    }
}

static void test_batch(void **state)
{
    (void)state;
    check_levels(check_batch);
}

/* A batch smaller than the team: each product is the whole team's, in turn, and
 * equals the same product alone. */
static void check_teams(mn__queue *plain, mn__queue *queue)
{
    enum { BATCH = 3, M = 130, N = 300, K = 700, TEAM = 4, TIMES = 10 };
    (void)plain;
    int before = mn__threads();
    mn__threads_set(TEAM);
    mn__matrix a = check_matrix(MN__F32, BATCH * M, K, 0),
               b = check_matrix(MN__F32, BATCH * K, N, 0);
    mn__matrix expected = check_matrix(MN__F32, BATCH * M, N, 0), got = check_copy(expected);
    check_fill(a, 1);
    check_fill(b, 1);
    mn__matmul call = {.batch = {1, 1},
                       .m = M,
                       .n = N,
                       .k = K,
                       .a = {a.data, MN__F32, K, 1, {0, M * K}},
                       .b = {b.data, MN__F32, N, 1, {0, K * N}},
                       .c = got.data,
                       .c_row = N,
                       .c_outer = {0, M * N}};
    mn__matmul alone = call;
    for (int64_t i = 0; i < BATCH; i++) {
        alone.a.data = (float *)a.data + i * M * K;
        alone.b.data = (float *)b.data + i * K * N;
        alone.c = (float *)expected.data + i * M * N;
        queue->kernels->matmul(queue, &alone);
    }
    call.batch[1] = BATCH;
    for (int turn = 0; turn < TIMES; turn++) {
        queue->kernels->matmul(queue, &call);
        assert_memory_equal(expected.data, got.data, BATCH * M * N * sizeof(float));
    }
    mn__threads_set(before);
    check_free(a);
    check_free(b);
    check_free(expected);
    check_free(got);
}

static void test_teams(void **state)
{
    (void)state;
    check_levels(check_teams);
}

/* A NaN and an infinity reach every element that they touch, and no other. */
static void check_nan(mn__queue *plain, mn__queue *queue)
{
    enum { N = 70 };
    (void)plain;
    mn__matrix a = check_matrix(MN__F32, N, N, 0), b = check_matrix(MN__F32, N, N, 0);
    mn__matrix c = check_matrix(MN__F32, N, N, 0);
    for (int64_t r = 0; r < N; r++)
        for (int64_t i = 0; i < N; i++) {
            check_set(a, r, i, r == 3 && i == 64 ? NAN : r == 5 && i == 69 ? INFINITY : 1);
            check_set(b, r, i, 1);
        }
    mn__matmul call = square_call(a, b, false, c);
    queue->kernels->matmul(queue, &call);
    for (int64_t r = 0; r < N; r++)
        for (int64_t i = 0; i < N; i++) {
            double value = check_get(c, r, i);
            assert_true(r == 3 ? isnan(value) : r == 5 ? isinf(value) : value == N);
        }
    check_free(a);
    check_free(b);
    check_free(c);
}

static void test_nan(void **state)
{
    (void)state;
    check_levels(check_nan);
}

/* Denormal operands, which would slow a product by a factor, count as zero in it; the calling
 * thread's own arithmetic keeps its denormals. */
static void check_denormals(mn__queue *plain, mn__queue *queue)
{
    enum { N = 70 };
    (void)plain;
    mn__matrix a = check_matrix(MN__F32, N, N, 0), b = check_matrix(MN__F32, N, N, 0);
    mn__matrix c = check_matrix(MN__F32, N, N, 0);
    for (int64_t r = 0; r < N; r++)
        for (int64_t i = 0; i < N; i++) {
            check_set(a, r, i, r == 3 ? 0x1p-140 : 1);
            check_set(b, r, i, 1);
        }
    mn__matmul call = square_call(a, b, false, c);
    queue->kernels->matmul(queue, &call);
    for (int64_t r = 0; r < N; r++)
        for (int64_t i = 0; i < N; i++)
#if defined(__SSE2__)
            assert_true(check_get(c, r, i) == (r == 3 ? 0 : N));
#else
            assert_true(r == 3 ? check_get(c, r, i) < 0x1p-126 : check_get(c, r, i) == N);
#endif
    check_denormals_kept();
    check_free(a);
    check_free(b);
    check_free(c);
}

static void test_denormals(void **state)
{
    (void)state;
    check_levels(check_denormals);
}

/* The same bits again; no memory taken after the first call; memory that cannot
 * be had is told. */
static void check_memory(mn__queue *plain, mn__queue *queue)
{
    enum { N = 200 };
    (void)plain;
    mn__matrix a = check_matrix(MN__F32, N, N, 0), first = check_matrix(MN__F32, N, N, 0);
    check_fill(a, 1);
    mn__matrix second = check_copy(first);
    mn__matmul call = square_call(a, a, true, first);
    mn__memory_fail_nth(1);
    queue->kernels->matmul(queue, &call);
    mn__memory_fail_nth(0);
    mn_error error;
    assert_int_equal(mn__queue_check(queue, &error), MN_ERROR_MEMORY);
    assert_int_equal(mn__queue_check(queue, &error), MN_OK);
    queue->kernels->matmul(queue, &call);
    int64_t before = mn__memory_now().allocations;
    call.c = second.data;
    queue->kernels->matmul(queue, &call);
    assert_int_equal(mn__memory_now().allocations, before);
    assert_memory_equal(first.data, second.data, N * N * sizeof(float));
    check_free(a);
    check_free(first);
    check_free(second);
}

static void test_memory(void **state)
{
    (void)state;
    check_levels(check_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),    cmocka_unit_test(test_forms),
        cmocka_unit_test(test_f16),       cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_blocks),    cmocka_unit_test(test_batch),
        cmocka_unit_test(test_teams),     cmocka_unit_test(test_nan),
        cmocka_unit_test(test_denormals), cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
