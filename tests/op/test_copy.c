/* Copies and views, and how gradients meet in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "support/op_check.h"

enum { A = 2, B = 3, C = 5 };

/* ---- Casts and ends ----------------------------------------------------------------- */

static mn__var *build_cast(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    return mn__op_cast(tape, mn__op_cast(tape, in[0], tape->compute), MN__F32);
}

static void define_copy(const double *const *in, double *out, const void *context)
{
    memcpy(out, in[0], (size_t) * (const int64_t *)context * sizeof *out);
}

static void cast(void **state)
{
    (void)state;
    int64_t n = A * B * C;
    op_check(&(op_case){.name = "cast",
                        .inputs = 1,
                        .input = {{OP_FLOAT, 3, {A, B, C}, 0}},
                        .build = build_cast,
                        .define = define_copy,
                        .context = &n,
                        .outputs = n,
                        .terms = 1,
                        .roundings = 2});
}

static mn__var *build_concat(mn__tape *tape, mn__var *const *in, const void *context)
{
    mn__var *parts[] = {in[0], in[1], in[0]};
    return mn__op_concat(tape, *(const int *)context, parts, 3);
}

/* Parts [A, B, C] but 2 long on the axis for the second. */
static void define_concat(const double *const *in, double *out, const void *context)
{
    int axis = *(const int *)context;
    int64_t size[3] = {A, B, C}, outer = 1, inner = 1, n = 0;
    for (int i = 0; i < 3; i++) {
        outer *= i < axis ? size[i] : 1;
        inner *= i > axis ? size[i] : 1;
    }
    for (int64_t o = 0; o < outer; o++)
        for (int part = 0; part < 3; part++) {
            int64_t run = (part == 1 ? 2 : size[axis]) * inner;
            for (int64_t i = 0; i < run; i++)
                out[n++] = in[part == 1][o * run + i];
        }
}

static void concat_on_every_axis(void **state)
{
    (void)state;
    for (int axis = 0; axis < 3; axis++) {
        op_case test = {.name = "concat",
                        .inputs = 2,
                        .input = {{OP_COMPUTE, 3, {A, B, C}, 0}, {OP_FLOAT, 3, {A, B, C}, 0}},
                        .build = build_concat,
                        .define = define_concat,
                        .context = &axis,
                        .terms = 3,
                        .roundings = 3};
        test.input[1].size[axis] = 2;
        test.outputs = 2 * A * B * C + 2 * A * B * C / test.input[0].size[axis];
        op_check(&test);
    }
}

/* ---- Views ------------------------------------------------------------------------------- */

/* A fused projection [A, B, 2 * 2 + 2 * 1 + 1]: heads cut out of it, one part
 * used twice, a slice across two parts. */
enum { FUSED = 7 };

static mn__var *build_views(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    mn__var *part[3];
    mn__var *whole = mn__op_scale(tape, in[0], 2);
    if (!mn__op_split(tape, whole, 2, (int64_t[]){4, 2, 1}, 3, part))
        return NULL;
    mn__var *heads = mn__op_reshape(tape, part[0], 4, (int64_t[]){A, B, 2, 2});
    mn__var *second = mn__op_slice(tape, heads, 2, 1, 1);
    mn__var *pair = mn__op_reshape(tape, second, 3, (int64_t[]){A, B, 2});
    mn__var *across = mn__op_slice(tape, whole, 2, 3, 2);
    mn__var *sum = mn__op_add(tape, mn__op_multiply(tape, pair, part[1]), across);
    mn__var *constant = mn__op_detach(tape, across);
    mn__var *parts[] = {mn__op_multiply(tape, sum, constant), part[1], part[2]};
    return mn__op_concat(tape, 2, parts, 3);
}

/* The definition cannot know of detach: its factor comes as a second input. */
static void define_views(const double *const *in, double *out, const void *context)
{
    (void)context;
    for (int r = 0; r < A * B; r++, out += 5) {
        const double *x = in[0] + r * FUSED, *fixed = in[1] + r * FUSED;
        for (int i = 0; i < 2; i++) {
            out[i] = (4 * x[2 + i] * x[4 + i] + 2 * x[3 + i]) * 2 * fixed[3 + i];
            out[2 + i] = 2 * x[4 + i];
        }
        out[4] = 2 * x[6];
    }
}

typedef struct bench {
    mn__device device;
    mn__params params;
    mn__tape tape;
} bench;

static void open_bench(bench *b, mn__level level)
{
    op_device_open(&b->device, level);
    mn__params_init(&b->params, &b->device, 1);
    mn__tape_init(&b->tape, &b->params, MN__F32);
    b->tape.recording = true;
}

static void close_bench(bench *b)
{
    mn__tape_free(&b->tape);
    mn__params_free(&b->params);
    mn__device_close(&b->device);
}

static void views_of_a_fused_projection(void **state)
{
    (void)state;
    enum { N = A * B * FUSED, OUT = A * B * 5 };
    double in[N], moved[N], out[OUT], side[OUT];
    float data[N];
    op_random(in, N, 1, 3);
    for (int i = 0; i < N; i++)
        data[i] = (float)in[i];
    bench b;
    open_bench(&b, MN__LEVEL_PLAIN);
    mn__var *x = mn__tape_input(&b.tape, mn__tensor_of(data, MN__F32, 3, (int64_t[]){A, B, FUSED}));
    mn__var *y = build_views(&b.tape, &x, NULL);
    assert_non_null(y);
    define_views((const double *const[]){in, in}, out, NULL);
    for (int i = 0; i < OUT; i++)
        assert_float_equal(((float *)y->value.data)[i], out[i], 1e-5);
    assert_int_equal(mn__tape_backward(&b.tape, mn__op_sum(&b.tape, y), 1, NULL), MN_OK);
    for (int i = 0; i < N; i++) { /* quadratic in one element: forward differences are exact */
        double slope = 0;
        memcpy(moved, in, sizeof moved);
        moved[i] = in[i] + 1;
        define_views((const double *const[]){moved, in}, side, NULL);
        for (int n = 0; n < OUT; n++)
            slope += side[n] - out[n];
        assert_float_equal(((float *)x->gradient)[i], slope, 1e-4);
    }
    close_bench(&b);
}

static mn__var *build_slices(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    mn__var *low = mn__op_slice(tape, in[0], 0, 0, 2), *high = mn__op_slice(tape, in[0], 0, 1, 2);
    return mn__op_multiply(tape, low, high); /* they overlap in row 1 */
}

static void define_slices(const double *const *in, double *out, const void *context)
{
    (void)context;
    for (int i = 0; i < 2 * C; i++)
        out[i] = in[0][i] * in[0][i + C];
}

static void slices_that_overlap(void **state)
{
    (void)state;
    op_check(&(op_case){.name = "overlapping slices",
                        .inputs = 1,
                        .input = {{OP_COMPUTE, 2, {3, C}, 0}},
                        .build = build_slices,
                        .define = define_slices,
                        .outputs = 2 * C,
                        .terms = 3,
                        .roundings = 4});
}

/* ---- Errors --------------------------------------------------------------------------------- */

static void expect_failure(bench *b, const mn__var *out, const char *message)
{
    mn_error error = {0};
    assert_null(out);
    assert_int_equal(mn__tape_status(&b->tape, &error), MN_ERROR_MISMATCH);
    assert_string_equal(error.message, message);
    assert_true(strlen(error.hint) > 0);
    mn__tape_reset(&b->tape);
}

static mn__var *var_of(bench *b, int rank, const int64_t *size)
{
    mn__var *var = mn__tape_new(&b->tape, MN__F32, rank, size);
    assert_non_null(var);
    mn__queue *queue = &b->device.queue;
    queue->kernels->fill(queue, mn__tensor_matrix(&var->value, 0), 1);
    return var;
}

#define VAR(...) \
    var_of(&b, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static void wrong_sizes_are_named(void **state)
{
    (void)state;
    bench b;
    open_bench(&b, MN__LEVEL_PLAIN);
    mn__tape *tape = &b.tape;
    expect_failure(&b, mn__op_linear(tape, VAR(2, 3), VAR(5, 4), NULL, MN__LINEAR),
                   "linear: x is [2, 3], weight is [5, 4]");
    expect_failure(&b, mn__op_linear(tape, VAR(2, 4), VAR(5, 4), VAR(4), MN__LINEAR),
                   "linear: bias is [4], weight is [5, 4]");
    expect_failure(&b, mn__op_matmul(tape, VAR(2, 3, 4), VAR(2, 3, 4), false),
                   "matmul: a is [2, 3, 4], b is [2, 3, 4]");
    expect_failure(&b, mn__op_matmul(tape, VAR(2, 3, 4), VAR(3, 3, 4), true),
                   "matmul (b transposed): a is [2, 3, 4], b is [3, 3, 4]");
    expect_failure(&b, mn__op_add(tape, VAR(2, 3), VAR(2)), "add: a is [2, 3], b is [2]");
    expect_failure(&b, mn__op_gate(tape, MN__SILU, VAR(2, 3), VAR(3, 2)),
                   "gate: gate is [2, 3], up is [3, 2]");
    expect_failure(&b, mn__op_norm(tape, MN__NORM_RMS, VAR(2, 3), VAR(2), NULL, 1, MN__F32),
                   "norm: x is [2, 3], gain is [2]");
    expect_failure(&b, mn__op_slice(tape, VAR(2, 3), 1, 2, 2),
                   "slice: 2 from 2 on along axis 1 of [2, 3]");
    expect_failure(&b, mn__op_slice(tape, VAR(2, 3), 2, 0, 1), "slice: axis 2 of [2, 3]");
    expect_failure(&b, mn__op_reshape(tape, VAR(2, 3), 1, (int64_t[]){5}),
                   "reshape: x is [2, 3], the result is [5]");
    expect_failure(&b, mn__op_concat(tape, 0, (mn__var *[]){VAR(2, 3), VAR(2, 4)}, 2),
                   "concat: the first part is [2, 3], another is [2, 4]");
    expect_failure(&b, mn__op_embed(tape, VAR(4, 3), (int32_t[]){0, 4}, 1, 2, 1),
                   "embed: index 4 at place 1 of 2, of a table of 4 rows");
    expect_failure(&b, mn__op_gather(tape, VAR(4, 3, 2, 2), (int32_t[]){0}, 1),
                   "gather: x is [4, 3, 2, 2]");
    expect_failure(&b, mn__op_scatter(tape, VAR(1, 3), (int32_t[]){7}, 7),
                   "scatter: index 7 at place 0 of 1, of a table of 7 rows");
    assert_null(mn__op_top_k(tape, VAR(2, 3), 4, NULL));
    expect_failure(&b, NULL, "top_k: the 4 largest of each row of [2, 3]");
    mn__var *parts[2];
    assert_false(mn__op_split(tape, VAR(2, 3), 1, (int64_t[]){1, 1}, 2, parts));
    expect_failure(&b, NULL, "split: parts of 2 together along axis 1 of [2, 3]");
    mn__rope rope = {.pairs = 2};
    expect_failure(&b, mn__op_rope(tape, VAR(1, 1, 1, 3), NULL, &rope),
                   "rope: 2 pairs in [1, 1, 1, 3]");
    close_bench(&b);
}

/* A parameter's gradient counts as set where only its parts were used. */
static void parts_of_a_parameter(void **state)
{
    (void)state;
    bench b;
    open_bench(&b, MN__LEVEL_BASELINE);
    mn_error error;
    mn__param *param = mn__params_add(&b.params, "w", 1, (int64_t[]){3}, (mn__init){0});
    assert_non_null(param);
    assert_int_equal(mn__params_prepare_gradients(&b.params, &error), MN_OK);
    mn__params_clear_gradients(&b.params);
    mn__var *part[2], *whole = mn__tape_param(&b.tape, param);
    assert_true(mn__op_split(&b.tape, whole, 0, (int64_t[]){2, 1}, 2, part));
    mn__var *loss = mn__op_sum(&b.tape, mn__op_scale(&b.tape, part[0], 2));
    assert_int_equal(mn__tape_backward(&b.tape, loss, 1.0f, &error), MN_OK);
    assert_true(param->gradient_set);
    const float *gradient = param->gradient;
    assert_true(gradient[0] == 2 && gradient[1] == 2 && gradient[2] == 0);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cast),
        cmocka_unit_test(concat_on_every_axis),
        cmocka_unit_test(views_of_a_fused_projection),
        cmocka_unit_test(slices_that_overlap),
        cmocka_unit_test(parts_of_a_parameter),
        cmocka_unit_test(wrong_sizes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
