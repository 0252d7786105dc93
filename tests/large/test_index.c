/* Gather, copy and embedding over more than 2^31 elements, forward and
 * backward. Needs about 9 GB of memory; skipped where there is less. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "support/op_check.h"

enum { C = 1024, SKIPPED = 77 };
static const int64_t V = ((int64_t)1 << 21) + 3; /* V * C = 2^31 + 3072 */
static const int64_t NEEDED = (int64_t)10 << 30;

typedef struct bench {
    mn__device device;
    mn__params params;
    mn__tape tape;
    void *table; /* [V, C], zeros that take no memory until written */
} bench;

static int64_t available_memory(void)
{
    FILE *file = fopen("/proc/meminfo", "r");
    char line[128];
    int64_t kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %" SCNd64 " kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * 1024;
}

static int open_bench(void **state)
{
    static bench b;
    int level = MN__LEVELS - 1;
    while (!mn__kernel_table((mn__level)level))
        level--;
    op_device_open(&b.device, (mn__level)level);
    mn__params_init(&b.params, &b.device, 1);
    mn__tape_init(&b.tape, &b.params, MN__F32);
    b.tape.recording = true;
    b.table = mmap(NULL, (size_t)(V * C) * sizeof(float), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *state = &b;
    return b.table == MAP_FAILED ? -1 : 0;
}

static int close_bench(void **state)
{
    bench *b = *state;
    munmap(b->table, (size_t)(V * C) * sizeof(float));
    mn__tape_free(&b->tape);
    mn__params_free(&b->params);
    mn__device_close(&b->device);
    return 0;
}

static mn__tensor table_of(const bench *b, mn__dtype dtype)
{
    return mn__tensor_of(b->table, dtype, 2, (int64_t[]){V, C});
}

static void embedding_and_its_gradient(void **state)
{
    bench *b = *state;
    const int32_t last = (int32_t)(V - 1), ids[4] = {last, 0, last, last - 1};
    float *rows = b->table;
    for (int64_t i = 0; i < C; i++)
        rows[(V - 1) * C + i] = (float)i;
    mn__var *table = mn__tape_input(&b->tape, table_of(b, MN__F32));
    mn__var *out = mn__op_embed(&b->tape, table, ids, 1, 4, 2);
    assert_non_null(out);
    for (int64_t i = 0; i < C; i++) {
        const float *got = out->value.data;
        assert_true(got[i] == 2 * (float)i && got[2 * C + i] == got[i]);
        assert_true(got[C + i] == 0 && got[3 * C + i] == 0);
    }
    assert_int_equal(mn__tape_backward(&b->tape, mn__op_sum(&b->tape, out), 1, NULL), MN_OK);
    const float *slope = table->gradient;
    double sum = 0;
    for (int64_t i = 0; i < V * C; i++)
        sum += (double)slope[i];
    assert_true(sum == 4.0 * 2 * C);
    for (int64_t i = 0; i < C; i++)
        assert_true(slope[i] == 2 && slope[(V - 2) * C + i] == 2 && slope[(V - 1) * C + i] == 4);
}

static void gather(void **state)
{
    bench *b = *state;
    const int32_t index[3] = {(int32_t)(V - 1), -1, (int32_t)(V / 2)};
    mn__bf16 *rows = b->table;
    for (int64_t i = 0; i < C; i++) {
        rows[(V - 1) * C + i] = mn__f32_to_bf16((float)(i % 100));
        rows[V / 2 * C + i] = mn__f32_to_bf16(-1);
    }
    mn__var *x = mn__tape_constant(&b->tape, table_of(b, MN__BF16));
    mn__var *out = mn__op_gather(&b->tape, x, index, 3);
    assert_non_null(out);
    const mn__bf16 *got = out->value.data;
    for (int64_t i = 0; i < C; i++) {
        assert_true(mn__bf16_to_f32(got[i]) == (float)(i % 100));
        assert_true(got[C + i] == 0 && mn__bf16_to_f32(got[2 * C + i]) == -1);
    }
}

/* Of the whole, and of a view that starts past 2^31. */
static void copy(void **state)
{
    bench *b = *state;
    mn__bf16 *rows = b->table;
    for (int64_t at = 0; at < V * C; at += 1000003)
        rows[at] = mn__f32_to_bf16((float)(at % 128));
    rows[V * C - 1] = mn__f32_to_bf16(77);
    mn__var *x = mn__tape_constant(&b->tape, table_of(b, MN__BF16));
    mn__var *out = mn__op_concat(&b->tape, 0, &x, 1);
    mn__var *end = mn__op_cast(&b->tape, mn__op_slice(&b->tape, x, 0, V - 1, 1), MN__F32);
    assert_true(out && end);
    const mn__bf16 *got = out->value.data;
    for (int64_t at = 0; at < V * C; at++)
        if (got[at] != rows[at])
            fail_msg("element %" PRId64 " differs", at);
    assert_true(((float *)end->value.data)[C - 1] == 77);
}

int main(void)
{
    if (available_memory() < NEEDED) {
        print_message("skipped: needs 10 GiB of free memory\n");
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(embedding_and_its_gradient, open_bench, close_bench),
        cmocka_unit_test_setup_teardown(gather, open_bench, close_bench),
        cmocka_unit_test_setup_teardown(copy, open_bench, close_bench),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
