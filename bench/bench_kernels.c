/* How fast the kernels are: matrix products in GFLOP/s beside oneDNN's, the
 * others in GB/s of what they must read and write.
 *
 *   bench_kernels [products] [others]
 *
 * Each figure is the median of REPEATS; ours, ours with packed b, and oneDNN's
 * are taken in turn. `share` is of the peak: the packed 2048 x 2048 x 2048
 * product of the precision, measured before and after each repetition. The level
 * is the best, or MNEME_CPU's. Prints a table and, last, one JSON object. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/progress.h"
#include "base/threads.h"
#include "kernel/kernel.h"
#include "onednn.h"

enum { REPEATS = 5, SIDE = 2048 };

static mn__queue queue;

static void *take(int64_t bytes)
{
    void *block = mn__malloc(bytes);
    if (!block) {
        fprintf(stderr, "bench kernels: no memory for %lld bytes\n", (long long)bytes);
        exit(1);
    }
    return block;
}

static void *numbers(mn__dtype dtype, int64_t n)
{
    float *f32 = take(n * 4);
    mn__random_fill_normal((mn__random_key){.seed = (uint64_t)n}, 1, f32, n);
    if (dtype == MN__F32)
        return f32;
    void *bf16 = take(n * 2);
    queue.kernels->convert(&queue, (mn__matrix){bf16, dtype, 1, n, n},
                           (mn__matrix){f32, MN__F32, 1, n, n});
    mn__free(f32);
    return bf16;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double values[REPEATS])
{
    qsort(values, REPEATS, sizeof *values, compare);
    return values[REPEATS / 2];
}

/* ---- Products ---------------------------------------------------------------------------- */

typedef struct shape {
    const char *name;
    int64_t m, n, k;
    bool a_transposed, b_transposed, weight_gradient;
} shape;

static const shape shapes[] = {
    {"square", SIDE, SIDE, SIDE, false, false, false},
    {"A qkv", 8192, 1152, 384, false, true, false},
    {"A out", 8192, 384, 384, false, true, false},
    {"A up", 8192, 1536, 384, false, true, false},
    {"A down", 8192, 384, 1536, false, true, false},
    {"A qkv, dx", 8192, 384, 1152, false, false, false},
    {"A qkv, dw", 1152, 384, 8192, true, false, true},
    {"A up, dw", 1536, 384, 8192, true, false, true},
    {"B qkv", 4096, 2304, 768, false, true, false},
    {"B down", 4096, 768, 3072, false, true, false},
    {"B up, dx", 4096, 768, 3072, false, false, false},
    {"B up, dw", 3072, 768, 4096, true, false, true},
    {"B head", 512, 50304, 768, false, true, false},
    {"8 rows", 8, 3072, 768, false, true, false},
    {"1 row", 1, 3072, 768, false, true, false},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static mn__matmul product_of(const shape *size, mn__dtype dtype)
{
    int64_t m = size->m, n = size->n, k = size->k;
    mn__operand a = {numbers(dtype, m * k), dtype, k, 1, {0, 0}};
    mn__operand b = {numbers(dtype, k * n), dtype, n, 1, {0, 0}};
    if (size->a_transposed)
        a = (mn__operand){a.data, dtype, 1, m, {0, 0}};
    if (size->b_transposed)
        b = (mn__operand){b.data, dtype, 1, k, {0, 0}};
    return (mn__matmul){.batch = {1, 1},
                        .m = m,
                        .n = n,
                        .k = k,
                        .a = a,
                        .b = b,
                        .c = take(m * n * 4),
                        .c_dtype = size->weight_gradient ? MN__F32 : dtype,
                        .c_row = n};
}

static void product_free(mn__matmul *call)
{
    mn__free((void *)(uintptr_t)call->a.data);
    mn__free((void *)(uintptr_t)call->b.data);
    mn__free(call->c);
}

static mn__packed *pack(const mn__matmul *call)
{
    mn__packed *packed =
        queue.kernels->pack_new(&queue, call->k, call->n, mn__form_of(call->a.dtype));
    if (!packed)
        exit(1);
    queue.kernels->pack(&queue, packed, call->b);
    return packed;
}

/* GFLOP/s; small products are repeated for at least 1/20 s. */
static double time_product(const mn__matmul *call, onednn_product *other)
{
    double begin = mn__clock(), seconds = 0;
    int64_t times = 0;
    for (; seconds < 0.05; times++) {
        if (other)
            onednn_run(other);
        else
            queue.kernels->matmul(&queue, call);
        seconds = mn__clock() - begin;
    }
    double flops = 2.0 * (double)call->m * (double)call->n * (double)call->k;
    return flops * (double)times / seconds * 1e-9;
}

static void bench_product(const shape *size, mn__dtype dtype, const mn__matmul *peak)
{
    double ours[REPEATS], packed[REPEATS], theirs[REPEATS], share[REPEATS];
    mn__matmul call = product_of(size, dtype), with_packed = call;
    with_packed.packed = pack(&call);
    onednn_product *other = onednn_open(&call);
    for (int i = -1; i < REPEATS; i++) { /* the first warms up */
        int at = i < 0 ? 0 : i;
        double before = time_product(peak, NULL);
        ours[at] = time_product(&call, NULL);
        packed[at] = time_product(&with_packed, NULL);
        theirs[at] = other ? time_product(&call, other) : 0;
        share[at] = 2 * ours[at] / (before + time_product(peak, NULL));
    }
    printf("%-5s %-10s %6lld %6lld %6lld %9.0f %9.0f %9.0f %7.2f\n", mn__dtype_name(dtype),
           size->name, (long long)size->m, (long long)size->n, (long long)size->k, median(ours),
           median(packed), median(theirs), median(share));
    onednn_close(other);
    queue.kernels->pack_free((mn__packed *)(uintptr_t)with_packed.packed);
    product_free(&call);
}

static double bench_products(mn__dtype dtype)
{
    mn__matmul peak = product_of(&shapes[0], dtype);
    peak.packed = pack(&peak);
    double peaks[REPEATS];
    for (int i = 0; i < REPEATS; i++)
        peaks[i] = time_product(&peak, NULL);
    for (int i = 0; i < SHAPES; i++)
        bench_product(&shapes[i], dtype, &peak);
    queue.kernels->pack_free((mn__packed *)(uintptr_t)peak.packed);
    product_free(&peak);
    return median(peaks);
}

/* ---- The others --------------------------------------------------------------------------- */

enum { ROWS = 4096, COLUMNS = 768, VOCABULARY = 50304, HEADS = 12 };

/* What a kernel works on. */
typedef struct work {
    mn__matrix x, y, out;
    float *gain, *stats, *floats[4];
    int64_t *positions;
    int32_t *ids;
    int64_t n; /* of floats */
} work;

static void run_convert(const work *w)
{
    queue.kernels->convert(&queue, w->out, w->x);
}

static void run_add(const work *w)
{
    queue.kernels->binary(&queue, MN__ADD, w->out, w->x, w->y);
}

static void run_gelu(const work *w)
{
    queue.kernels->activate(&queue, MN__GELU, w->out, w->x);
}

static void run_gelu_backward(const work *w)
{
    queue.kernels->activate_backward(&queue, MN__GELU, w->out, false, w->x, w->y);
}

static void run_norm(const work *w)
{
    queue.kernels->norm(&queue, false, 1e-5f, w->out, w->x, w->gain, w->gain, w->stats,
                        w->stats + ROWS);
}

static void run_norm_backward(const work *w)
{
    queue.kernels->norm_backward(&queue, false, w->out, false, w->floats[0], w->floats[1], w->y,
                                 w->x, w->gain, w->stats, w->stats + ROWS);
}

static void run_softmax(const work *w)
{
    queue.kernels->softmax(&queue, w->out, w->x, NULL);
}

static void run_rope(const work *w)
{
    queue.kernels->rope(&queue, w->out, w->x, HEADS, COLUMNS / HEADS / 2, w->positions, w->gain,
                        false, 1, 1);
}

static void run_dropout(const work *w)
{
    queue.kernels->dropout(&queue, w->out, w->x, 0.1f, (mn__random_key){.seed = 1});
}

static void run_sum_rows(const work *w)
{
    queue.kernels->sum_rows(&queue, w->floats[0], w->x);
}

static void run_top_k(const work *w)
{
    queue.kernels->top_k(&queue, 32, w->floats[0], w->ids, w->x);
}

static void run_adam(const work *w)
{
    const mn__adam call = {.n = w->n,
                           .value = w->floats[0],
                           .first = w->floats[1],
                           .second = w->floats[2],
                           .gradient = w->floats[3],
                           .gradient_scale = 1,
                           .rate = 1e-3f,
                           .beta1 = 0.9f,
                           .beta2 = 0.99f,
                           .epsilon = 1e-8f,
                           .correction1 = 1,
                           .correction2 = 1,
                           .decay = 0.1f};
    queue.kernels->adam(&queue, &call);
}

static void run_sum_squares(const work *w)
{
    queue.kernels->sum_squares(&queue, w->floats[0], w->n);
}

static void run_cross_entropy(const work *w)
{
    enum { LOGITS = 64 };
    const mn__cross_entropy call = {.rows = LOGITS,
                                    .vocabulary = VOCABULARY,
                                    .stride = VOCABULARY,
                                    .logits = w->floats[0],
                                    .targets = w->ids,
                                    .weights = w->gain,
                                    .gradient = true,
                                    .losses = w->stats};
    queue.kernels->cross_entropy(&queue, &call);
}

/* passes: how often the matrices' elements, or the floats, are read or written. */
static const struct entry {
    const char *name;
    void (*run)(const work *);
    int passes;
    bool floats; /* over `n` floats, not over matrices */
} entries[] = {
    {"convert", run_convert, 2, false}, {"add", run_add, 3, false},
    {"gelu", run_gelu, 2, false},       {"gelu backward", run_gelu_backward, 3, false},
    {"layer norm", run_norm, 2, false}, {"layer norm backward", run_norm_backward, 3, false},
    {"softmax", run_softmax, 2, false}, {"rope", run_rope, 2, false},
    {"dropout", run_dropout, 2, false}, {"sum of rows", run_sum_rows, 1, false},
    {"top 32", run_top_k, 1, false},    {"cross-entropy", run_cross_entropy, 2, true},
    {"adam", run_adam, 7, true},        {"sum of squares", run_sum_squares, 1, true},
};

static void bench_entry(const struct entry *entry, const work *w, mn__dtype dtype)
{
    double speed[REPEATS];
    double bytes =
        entry->floats ? (double)w->n * 4 : (double)ROWS * COLUMNS * (double)mn__dtype_bytes(dtype);
    for (int i = -1; i < REPEATS; i++) {
        double begin = mn__clock(), seconds = 0;
        int64_t times = 0;
        for (; seconds < 0.02; times++) {
            entry->run(w);
            seconds = mn__clock() - begin;
        }
        speed[i < 0 ? 0 : i] = bytes * entry->passes * (double)times / seconds * 1e-9;
    }
    printf("%-5s %-20s %9.1f\n", mn__dtype_name(dtype), entry->name, median(speed));
}

static void bench_others(mn__dtype dtype)
{
    int64_t n = (int64_t)ROWS * COLUMNS;
    work w = {.x = {numbers(dtype, n), dtype, ROWS, COLUMNS, COLUMNS},
              .y = {numbers(dtype, n + 1), dtype, ROWS, COLUMNS, COLUMNS},
              .out = {take(n * 4), dtype, ROWS, COLUMNS, COLUMNS},
              .gain = numbers(MN__F32, COLUMNS),
              .stats = take(2 * ROWS * 4),
              .positions = take(ROWS * 8),
              .ids = take((int64_t)ROWS * 32 * 4),
              .n = (int64_t)64 * VOCABULARY};
    for (int i = 0; i < 4; i++)
        w.floats[i] = numbers(MN__F32, w.n + i);
    queue.kernels->fill(&queue, (mn__matrix){w.floats[2], MN__F32, 1, w.n, w.n}, 1);
    for (int64_t r = 0; r < ROWS; r++) {
        w.positions[r] = r;
        w.ids[r] = (int32_t)r;
    }
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        if (!entries[i].floats || dtype == MN__F32)
            bench_entry(&entries[i], &w, dtype);
    mn__free(w.x.data);
    mn__free(w.y.data);
    mn__free(w.out.data);
    mn__free(w.gain);
    mn__free(w.stats);
    mn__free(w.positions);
    mn__free(w.ids);
    for (int i = 0; i < 4; i++)
        mn__free(w.floats[i]);
}

int main(int argc, char **argv)
{
    mn__level level;
    mn_error error;
    bool products = argc == 1, others = argc == 1;
    for (int i = 1; i < argc; i++) {
        products |= !strcmp(argv[i], "products");
        others |= !strcmp(argv[i], "others");
        if (strcmp(argv[i], "products") && strcmp(argv[i], "others")) {
            fprintf(stderr, "bench kernels: '%s' is not one of: products, others\n", argv[i]);
            return 2;
        }
    }
    if (mn__kernel_level(&level, &error) != MN_OK ||
        mn__queue_open(&queue, mn__kernel_table(level), &error) != MN_OK) {
        fprintf(stderr, "bench kernels: %s\n", error.message);
        return 1;
    }
    onednn_cap(level);
    int threads = mn__threads_set(0);
    printf("level %s, %d threads\n", mn__level_name(level), threads);
    double f32 = 0, bf16 = 0;
    if (products) {
        printf("\nproducts, GFLOP/s (b transposed in memory as weights are)\n"
               "%-5s %-10s %6s %6s %6s %9s %9s %9s %7s\n",
               "type", "what", "m", "n", "k", "ours", "packed", "oneDNN", "share");
        f32 = bench_products(MN__F32);
        bf16 = bench_products(MN__BF16);
    }
    if (others) {
        printf("\nothers, GB/s, %d x %d\n%-5s %-20s %9s\n", ROWS, COLUMNS, "type", "what", "GB/s");
        bench_others(MN__F32);
        bench_others(MN__BF16);
    }
    mn__queue_close(&queue);
    printf("{\"level\": \"%s\", \"threads\": %d", mn__level_name(level), threads);
    if (products)
        printf(", \"peak_f32_gflops\": %.1f, \"peak_bf16_gflops\": %.1f", f32, bf16);
    printf("}\n");
    return 0;
}
