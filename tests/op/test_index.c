/* Index products past 2^31: rows that lie more than 2^31 elements apart give
 * the same bits as rows that lie side by side. The memory between them is
 * reserved but never touched. tests/large does it with memory that is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>

#include "support/op_check.h"

enum { ROWS = 3, COLUMNS = 24, HEADS = 2 };
static const int64_t APART = ((int64_t)1 << 31) + 64;
static const int64_t RESERVED = (((int64_t)1 << 31) + 64) * ROWS * (int64_t)sizeof(float);

static mn__var *do_cast(mn__tape *tape, mn__var *x)
{
    return mn__op_cast(tape, x, x->value.dtype == MN__F32 ? MN__BF16 : MN__F32);
}

static mn__var *do_concat(mn__tape *tape, mn__var *x)
{
    return mn__op_concat(tape, 1, (mn__var *[]){x, x}, 2);
}

static mn__var *do_add(mn__tape *tape, mn__var *x)
{
    return mn__op_add(tape, x, x);
}

static mn__var *do_scale(mn__tape *tape, mn__var *x)
{
    return mn__op_scale(tape, x, 3);
}

static mn__var *do_norm(mn__tape *tape, mn__var *x)
{
    return mn__op_norm(tape, MN__NORM_LAYER, x, NULL, NULL, 1e-5F, MN__F32);
}

static mn__var *do_softmax(mn__tape *tape, mn__var *x)
{
    return mn__op_softmax(tape, x);
}

static mn__var *do_gate(mn__tape *tape, mn__var *x)
{
    return mn__op_gate(tape, MN__SILU, x, x);
}

static mn__var *do_gather(mn__tape *tape, mn__var *x)
{
    static const int32_t index[] = {2, 0, 1, 2};
    return mn__op_gather(tape, x, index, 4);
}

static mn__var *do_embed(mn__tape *tape, mn__var *x)
{
    static const int32_t ids[] = {2, 0, 1, 2};
    return mn__op_embed(tape, x, ids, 2, 2, 0.5F);
}

static mn__var *do_sum(mn__tape *tape, mn__var *x)
{
    return mn__op_mean_squares(tape, x);
}

/* x stands for the input and, its first rows, for the weight. */
static mn__var *do_linear(mn__tape *tape, mn__var *x)
{
    return mn__op_linear(tape, x, mn__op_slice(tape, x, 0, 1, 2), NULL, MN__LINEAR);
}

static mn__var *do_matmul(mn__tape *tape, mn__var *x)
{
    return mn__op_matmul(tape, x, x, true);
}

static mn__var *do_rope(mn__tape *tape, mn__var *x)
{
    static const float frequencies[] = {1, 0.5F};
    static const int64_t positions[ROWS] = {0, 3, 9};
    mn__rope rope = {.pairs = 2, .frequencies = frequencies, .magnitude = 1};
    int64_t heads[4] = {1, ROWS, HEADS, COLUMNS / HEADS};
    return mn__op_rope(tape, mn__op_reshape(tape, x, 4, heads), positions, &rope);
}

/* Rows as tokens, then as rows of the batch. */
static mn__var *attend(mn__tape *tape, mn__var *x, int64_t B, int64_t T)
{
    int64_t heads[4] = {B, T, HEADS, COLUMNS / HEADS};
    mn__var *one = mn__op_reshape(tape, x, 4, heads);
    mn__attention_args args = {.queries = one, .scale = 0.25F, .groups = 1};
    args.group[0] = (mn__keys){.keys = one, .values = one, .mask = MN__MASK_CAUSAL};
    return mn__op_attention(tape, &args);
}

static mn__var *do_attention_over_tokens(mn__tape *tape, mn__var *x)
{
    return attend(tape, x, 1, ROWS);
}

static mn__var *do_attention_over_rows(mn__tape *tape, mn__var *x)
{
    return attend(tape, x, ROWS, 1);
}

static mn__var *(*const operations[])(mn__tape *, mn__var *) = {do_cast,
                                                                do_concat,
                                                                do_add,
                                                                do_scale,
                                                                do_norm,
                                                                do_softmax,
                                                                do_gate,
                                                                do_gather,
                                                                do_embed,
                                                                do_sum,
                                                                do_linear,
                                                                do_matmul,
                                                                do_rope,
                                                                do_attention_over_tokens,
                                                                do_attention_over_rows};

static void put_row(void *memory, int64_t at, mn__dtype dtype, int row)
{
    double values[COLUMNS];
    op_random(values, COLUMNS, 1, 40 + (uint64_t)row);
    for (int i = 0; i < COLUMNS; i++)
        if (dtype == MN__BF16)
            ((mn__bf16 *)memory)[at + i] = mn__f32_to_bf16((float)values[i]);
        else
            ((float *)memory)[at + i] = (float)values[i];
}

static void check(mn__tape *tape, void *reserved, mn__dtype dtype, size_t n)
{
    float side_by_side[ROWS * COLUMNS];
    mn__tensor near = mn__tensor_of(side_by_side, dtype, 2, (int64_t[]){ROWS, COLUMNS});
    mn__tensor far = near;
    far.data = reserved;
    far.stride[0] = APART;
    for (int row = 0; row < ROWS; row++) {
        put_row(side_by_side, row * COLUMNS, dtype, row);
        put_row(reserved, row * APART, dtype, row);
    }
    mn__var *want = operations[n](tape, mn__tape_constant(tape, near));
    mn__var *got = operations[n](tape, mn__tape_constant(tape, far));
    if (!want || !got)
        fail_msg("operation %d: %s", (int)n, tape->error.message);
    if (memcmp(want->value.data, got->value.data, (size_t)mn__tensor_bytes(&want->value)) != 0)
        fail_msg("operation %d, level %s, %s: rows far apart give another result", (int)n,
                 mn__level_name(tape->device->queue.kernels->level), mn__dtype_name(dtype));
    mn__tape_reset(tape);
}

static void rows_far_apart(void **state)
{
    (void)state;
    void *reserved = mmap(NULL, (size_t)RESERVED, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) {
        print_message("not enough address space\n");
        skip();
    }
    for (int level = 0; level < MN__LEVELS && mn__kernel_table((mn__level)level); level++)
        for (int i = 0; i < 2; i++) {
            mn__dtype dtype = i ? MN__BF16 : MN__F32;
            mn__device device;
            mn__params params;
            mn__tape tape;
            op_device_open(&device, (mn__level)level);
            mn__params_init(&params, &device, 1);
            mn__tape_init(&tape, &params, dtype);
            for (size_t n = 0; n < sizeof operations / sizeof *operations; n++)
                check(&tape, reserved, dtype, n);
            mn__tape_free(&tape);
            mn__params_free(&params);
            mn__device_close(&device);
        }
    munmap(reserved, (size_t)RESERVED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_far_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
