/* What it costs to read keys and values that are kept in fewer bits: attention of Qwen2-0.5B's
 * shape (14 heads, 2 of keys, width 64), queries in bf16, over a cache in f32, bf16 and blocks of
 * 8 bits; of one query (generation) in all 24 layers and of a chunk of 512 (reading) in two.
 *
 * The three take turns; a figure is the median over the rounds of a form's time over bf16's.
 * Prints a table and, last, one JSON object. */
#include <math.h>
#include <stdio.h>

#include "base/memory.h"
#include "kernel/blocks.h"
#include "peak.h"

enum { HEADS = 14, GROUPS = 2, WIDTH = 64, LAYERS = 24, FORMS = 3, MOST = 21 };

static const mn__kept forms[FORMS] = {MN__KEPT_F32, MN__KEPT_BF16, MN__KEPT_INT8};
static const char *const names[FORMS] = {"f32", "bf16", "int8"};

static mn__queue queue;

/* The columns of a row of a head as it is kept. */
static int64_t columns_of(mn__kept kept)
{
    return kept == MN__KEPT_INT8 ? mn__block_int8_bytes(WIDTH) : WIDTH;
}

/* Keys or values of one layer, [S, GROUPS, columns]. */
static void *make(mn__kept kept, int64_t S, const float *numbers)
{
    int64_t rows = S * GROUPS, columns = columns_of(kept);
    mn__dtype dtype = mn__kept_dtype(kept, MN__F32);
    mn__matrix to = {bench_take(rows * columns * mn__dtype_bytes(dtype)), dtype, rows, columns,
                     columns};
    mn__matrix from = {(void *)(uintptr_t)numbers, MN__F32, rows, WIDTH, WIDTH};
    if (kept == MN__KEPT_INT8)
        queue.kernels->quantise(&queue, to, from);
    else
        queue.kernels->convert(&queue, to, from);
    return to.data;
}

/* Seconds of all layers. */
static double attend(mn__attention_call *call, mn__kept kept, void *const *keys, int layers)
{
    mn__key_group *group = &call->group[0];
    int64_t row = columns_of(kept), stride[] = {group->count * GROUPS * row, GROUPS * row, row};
    group->kept = kept;
    for (int axis = 0; axis < 3; axis++)
        group->key_stride[axis] = group->value_stride[axis] = stride[axis];
    double begin = bench_now();
    for (int layer = 0; layer < layers; layer++) {
        group->keys = keys[2 * layer];
        group->values = keys[2 * layer + 1];
        queue.kernels->attention(&queue, call);
    }
    return bench_now() - begin;
}

/* Of T queries on S keys; to ratios [FORMS], to bf16's time. */
static void measure(int64_t T, int64_t S, int layers, int rounds, double *ratios)
{
    static double seconds[FORMS][MOST], over[FORMS][MOST];
    void *keys[FORMS][2 * LAYERS];
    float *numbers = bench_numbers(MN__F32, S * GROUPS * WIDTH, 4);
    mn__attention_call call = {.B = 1,
                               .T = T,
                               .H = HEADS,
                               .G = GROUPS,
                               .D = WIDTH,
                               .dtype = MN__BF16,
                               .queries = bench_numbers(MN__BF16, T * HEADS * WIDTH, 1),
                               .query_stride = {T * HEADS * WIDTH, HEADS * WIDTH, WIDTH},
                               .out = bench_numbers(MN__BF16, T * HEADS * WIDTH, 2),
                               .out_stride = {T * HEADS * WIDTH, HEADS * WIDTH, WIDTH},
                               .lse = bench_numbers(MN__F32, T * HEADS, 3),
                               .scale = 1 / sqrtf(WIDTH),
                               .groups = 1};
    call.group[0] = (mn__key_group){.count = S, .mask = MN__MASK_CAUSAL, .offset = S - T};
    for (int f = 0; f < FORMS; f++)
        for (int i = 0; i < 2 * layers; i++)
            keys[f][i] = make(forms[f], S, numbers);
    for (int round = -1; round < rounds; round++) { /* the first touches memory */
        for (int f = 0; f < FORMS; f++)
            seconds[f][round < 0 ? 0 : round] = attend(&call, forms[f], keys[f], layers);
        for (int f = 0; f < FORMS && round >= 0; f++)
            over[f][round] = seconds[f][round] / seconds[1][round];
    }
    printf("%6d %6d", (int)T, (int)S);
    for (int f = 0; f < FORMS; f++) {
        ratios[f] = bench_median(over[f], rounds);
        printf(" %9.2f %6.2f", 1e3 * bench_median(seconds[f], rounds), ratios[f]);
        for (int i = 0; i < 2 * layers; i++)
            mn__free(keys[f][i]);
    }
    printf("\n");
    mn__free(numbers);
    mn__free((void *)(uintptr_t)call.queries);
    mn__free(call.out);
    mn__free(call.lse);
}

int main(void)
{
    static const int64_t lengths[] = {512, 2048, 8192};
    double ratios[FORMS], one = 0, chunk = 0;
    mn_error error;
    mn__level level;
    if (mn__kernel_level(&level, &error) != MN_OK ||
        mn__queue_open(&queue, mn__kernel_table(level), &error) != MN_OK) {
        fprintf(stderr, "bench cache: %s\n", error.message);
        return 1;
    }
    printf("level %s; ms, and over bf16's\n%6s %6s", mn__level_name(level), "T", "S");
    for (int f = 0; f < FORMS; f++)
        printf(" %9s %6s", names[f], "");
    printf("\n");
    for (int i = 0; i < 3; i++) {
        measure(1, lengths[i], LAYERS, MOST, ratios);
        one = ratios[2];
    }
    for (int i = 0; i < 3; i++) {
        measure(512, lengths[i], 2, 5, ratios);
        chunk = ratios[2];
    }
    mn__queue_close(&queue);
    printf("{\"int8_over_bf16_generate_8192\": %.3f, \"int8_over_bf16_read_8192\": %.3f}\n", one,
           chunk);
    return 0;
}
