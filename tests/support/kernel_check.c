/* Checking kernels of every level against the plain ones. */
#include "support/kernel_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 64 };
static const unsigned char GUARD_BYTE = 0xA5;

void check_levels(void (*test)(mn__queue *plain, mn__queue *queue))
{
    mn__queue plain;
    assert_int_equal(mn__queue_open(&plain, mn__kernel_table(MN__LEVEL_PLAIN), NULL), MN_OK);
    for (int level = MN__LEVEL_BASELINE; level < MN__LEVELS; level++) {
        const mn__kernels *table = mn__kernel_table((mn__level)level);
        if (!table) {
            print_message("skipped: this machine lacks %s\n", mn__level_name((mn__level)level));
            continue;
        }
        mn__queue queue;
        assert_int_equal(mn__queue_open(&queue, table, NULL), MN_OK);
        test(&plain, &queue);
        assert_int_equal(mn__queue_check(&queue, NULL), MN_OK);
        mn__queue_close(&queue);
    }
    mn__queue_close(&plain);
}

static const mn__random_key sequence = {.seed = 20240517};
static uint64_t drawn;

int64_t check_below(int64_t n)
{
    return (int64_t)mn__random_below(sequence, drawn++, (uint64_t)n);
}

float check_normal(void)
{
    return mn__random_normal(sequence, drawn++);
}

static size_t whole_bytes(mn__matrix matrix)
{
    return (size_t)(matrix.rows * matrix.stride * mn__dtype_bytes(matrix.dtype)) + GUARD;
}

mn__matrix check_matrix(mn__dtype dtype, int64_t rows, int64_t columns, int64_t gap)
{
    mn__matrix matrix = {NULL, dtype, rows, columns, columns + gap};
    matrix.data = malloc(whole_bytes(matrix));
    assert_non_null(matrix.data);
    memset(matrix.data, GUARD_BYTE, whole_bytes(matrix));
    return matrix;
}

mn__matrix check_copy(mn__matrix matrix)
{
    mn__matrix copy = matrix;
    copy.data = malloc(whole_bytes(matrix));
    assert_non_null(copy.data);
    memcpy(copy.data, matrix.data, whole_bytes(matrix));
    return copy;
}

static void check_guard(const unsigned char *from, const unsigned char *end)
{
    for (; from < end; from++)
        assert_int_equal(*from, GUARD_BYTE);
}

void check_free(mn__matrix matrix)
{
    int64_t bytes = mn__dtype_bytes(matrix.dtype);
    const unsigned char *data = matrix.data, *end = data + whole_bytes(matrix);
    for (int64_t r = 0; r < matrix.rows; r++)
        check_guard(data + (r * matrix.stride + matrix.columns) * bytes,
                    data + (r + 1) * matrix.stride * bytes);
    check_guard(end - GUARD, end);
    free(matrix.data);
}

void check_denormals_kept(void)
{
    volatile float denormal = 0x1p-140f, twice = denormal + denormal;
    assert_true(twice == 0x1p-139f);
}

double check_get(mn__matrix matrix, int64_t row, int64_t column)
{
    int64_t at = row * matrix.stride + column;
    return matrix.dtype == MN__BF16 ? (double)mn__bf16_to_f32(((mn__bf16 *)matrix.data)[at])
                                    : (double)((float *)matrix.data)[at];
}

void check_set(mn__matrix matrix, int64_t row, int64_t column, double value)
{
    int64_t at = row * matrix.stride + column;
    if (matrix.dtype == MN__BF16)
        ((mn__bf16 *)matrix.data)[at] = mn__f32_to_bf16((float)value);
    else
        ((float *)matrix.data)[at] = (float)value;
}

void check_fill(mn__matrix matrix, double scale)
{
    for (int64_t r = 0; r < matrix.rows; r++) {
        int64_t kind = check_below(8);
        double factor = kind == 0 ? 1000 * scale : kind == 1 ? 0 : scale;
        double constant = (double)check_normal();
        for (int64_t c = 0; c < matrix.columns; c++)
            check_set(matrix, r, c, factor * (kind == 2 ? constant : (double)check_normal()));
    }
}

void check_close(const char *what, mn__queue *queue, mn__matrix expected, mn__matrix got,
                 double absolute, double relative)
{
    double rounding = got.dtype == MN__BF16 ? CHECK_EPSILON_BF16 : CHECK_EPSILON_F32;
    for (int64_t r = 0; r < got.rows; r++)
        for (int64_t c = 0; c < got.columns; c++) {
            double want = check_get(expected, r, c), have = check_get(got, r, c);
            if ((isnan(want) && isnan(have)) || want == have)
                continue;
            if (!(fabs(want - have) <= absolute + (relative + rounding) * fabs(want)))
                fail_msg("%s at level %s, %lld x %lld: [%lld, %lld] is %.9g, not %.9g", what,
                         mn__level_name(queue->kernels->level), (long long)got.rows,
                         (long long)got.columns, (long long)r, (long long)c, have, want);
        }
}
