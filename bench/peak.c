/* The clock, random numbers and the peak of benchmarks: see peak.h. */
#include "peak.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/memory.h"

enum { SIDE = 2048 };

void *bench_take(int64_t bytes)
{
    void *block = mn__malloc(bytes);
    if (!block) {
        fprintf(stderr, "no memory for %lld bytes\n", (long long)bytes);
        exit(1);
    }
    return block;
}

double bench_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void *bench_numbers(mn__dtype dtype, int64_t n, uint32_t operation)
{
    float *f32 = bench_take(n * 4);
    mn__random_fill_normal((mn__random_key){.seed = 1, .operation = operation}, 1, f32, n);
    if (dtype == MN__F32)
        return f32;
    mn__bf16 *bf16 = bench_take(n * 2);
    for (int64_t i = 0; i < n; i++)
        bf16[i] = mn__f32_to_bf16(f32[i]);
    mn__free(f32);
    return bf16;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

bench_peak bench_peak_open(mn__queue *queue, mn__dtype dtype)
{
    int64_t n = (int64_t)SIDE * SIDE;
    void *a = bench_numbers(dtype, n, 101), *b = bench_numbers(dtype, n, 102);
    mn__operand right = {b, dtype, SIDE, 1, {0, 0}};
    bench_peak peak = {.queue = queue,
                       .packed = queue->kernels->pack_new(queue, SIDE, SIDE, mn__form_of(dtype))};
    if (!peak.packed)
        exit(1);
    queue->kernels->pack(queue, peak.packed, right);
    mn__free(b);
    peak.product = (mn__matmul){.batch = {1, 1},
                                .m = SIDE,
                                .n = SIDE,
                                .k = SIDE,
                                .a = {a, dtype, SIDE, 1, {0, 0}},
                                .packed = peak.packed,
                                .c = bench_take(n * 4),
                                .c_dtype = MN__F32,
                                .c_row = SIDE};
    return peak;
}

double bench_peak_measure(const bench_peak *peak)
{
    double start = bench_now(), products = 0;
    do {
        peak->queue->kernels->matmul(peak->queue, &peak->product);
        products++;
    } while (bench_now() - start < 0.1);
    return products * 2 * pow(SIDE, 3) / (bench_now() - start);
}
