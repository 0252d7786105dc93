/* Checking kernels of every level against the plain ones, in the way of dav1d's
 * checkasm: random structured input, odd sizes, strides, guards around outputs. */
#ifndef MN__TESTS_SUPPORT_KERNEL_CHECK_H
#define MN__TESTS_SUPPORT_KERNEL_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/kernel.h"

#define CHECK_EPSILON_F32  0x1p-23 /* one unit in the last place of 1 */
#define CHECK_EPSILON_BF16 0x1p-7

/* Runs a test with a queue of the plain level and one of each other level that
 * the machine has; says which it lacks. */
void check_levels(void (*test)(mn__queue *plain, mn__queue *queue));

/* Uniform in [0, n); a float from N(0, 1). One fixed sequence for a program. */
int64_t check_below(int64_t n);
float check_normal(void);

/* A matrix with room between its rows and a guard after it. */
mn__matrix check_matrix(mn__dtype dtype, int64_t rows, int64_t columns, int64_t gap);
mn__matrix check_copy(mn__matrix matrix);
/* Fails if anything but the matrix's own elements was written; frees it. */
void check_free(mn__matrix matrix);
/* Normals times `scale`; some rows constant, some zero, some a thousand times as large. */
void check_fill(mn__matrix matrix, double scale);
/* Fails if the calling thread's own arithmetic has lost its denormal numbers. */
void check_denormals_kept(void);
double check_get(mn__matrix matrix, int64_t row, int64_t column);
void check_set(mn__matrix matrix, int64_t row, int64_t column, double value);

/* |got - expected| <= absolute + relative |expected|, and for BF16 two roundings
 * more; NaN where NaN, infinity where infinity. */
void check_close(const char *what, mn__queue *queue, mn__matrix expected, mn__matrix got,
                 double absolute, double relative);

#endif
