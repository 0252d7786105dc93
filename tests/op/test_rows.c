/* Operations on rows: norms, softmax, RoPE, embeddings, gather, scatter. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "support/op_check.h"

static const int64_t widths[] = {1, 63, 64, 65, 127};
enum { WIDTHS = 5 };

/* ---- Norms --------------------------------------------------------------------------- */

typedef struct norm_context {
    int64_t rows, columns;
    mn__norm_kind kind;
    bool gain, bias, in_compute; /* the result is in the compute type */
} norm_context;

static const double norm_epsilon = 1e-5;

static mn__var *build_norm(mn__tape *tape, mn__var *const *in, const void *context)
{
    const norm_context *c = context;
    return mn__op_norm(tape, c->kind, in[0], c->gain ? in[1] : NULL, c->bias ? in[2] : NULL,
                       (float)norm_epsilon, c->in_compute ? tape->compute : MN__F32);
}

static void define_norm(const double *const *in, double *out, const void *context)
{
    const norm_context *c = context;
    for (int64_t r = 0; r < c->rows; r++) {
        const double *x = in[0] + r * c->columns;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < c->columns && c->kind == MN__NORM_LAYER; i++)
            mean += x[i] / (double)c->columns;
        for (int64_t i = 0; i < c->columns; i++)
            variance += (x[i] - mean) * (x[i] - mean) / (double)c->columns;
        for (int64_t i = 0; i < c->columns; i++) {
            double unit = (x[i] - mean) / sqrt(variance + (double)(float)norm_epsilon);
            out[r * c->columns + i] = unit * (c->gain ? in[1][i] : 1) + (c->bias ? in[2][i] : 0);
        }
    }
}

static void check_norm(norm_context c, op_kind x, double spread)
{
    op_check(&(op_case){.name = c.kind == MN__NORM_LAYER ? "layer norm" : "RMS norm",
                        .inputs = c.bias   ? 3
                                  : c.gain ? 2
                                           : 1,
                        .input = {{x, 2, {c.rows, c.columns}, spread},
                                  {OP_PARAM, 1, {c.columns}, 0},
                                  {OP_PARAM, 1, {c.columns}, 0}},
                        .build = build_norm,
                        .define = define_norm,
                        .context = &c,
                        .outputs = c.rows * c.columns,
                        .terms = (double)(c.rows + 2 * c.columns),
                        .roundings = 3});
}

static void norms(void **state)
{
    (void)state;
    for (int kind = MN__NORM_LAYER; kind <= MN__NORM_RMS; kind++) {
        /* One column: epsilon decides, unless the slope is all cancellation. */
        for (int i = 0; i < WIDTHS; i++)
            check_norm((norm_context){4, widths[i], (mn__norm_kind)kind, true, true, true},
                       OP_FLOAT, widths[i] == 1 ? 1e-3 : 1);
        check_norm((norm_context){3, 12, (mn__norm_kind)kind, true, false, false}, OP_COMPUTE, 1);
        check_norm((norm_context){3, 12, (mn__norm_kind)kind, false, false, true}, OP_COMPUTE, 1);
        check_norm((norm_context){3, 33, (mn__norm_kind)kind, true, true, true}, OP_FLOAT, 1e4);
    }
}

static mn__var *build_unit(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    return mn__op_unit(tape, in[0], (float)norm_epsilon, tape->compute);
}

static void define_unit(const double *const *in, double *out, const void *context)
{
    const norm_context *c = context;
    for (int64_t r = 0; r < c->rows; r++) {
        double sum = (double)(float)norm_epsilon;
        for (int64_t i = 0; i < c->columns; i++)
            sum += in[0][r * c->columns + i] * in[0][r * c->columns + i];
        for (int64_t i = 0; i < c->columns; i++)
            out[r * c->columns + i] = in[0][r * c->columns + i] / sqrt(sum);
    }
}

static void check_unit(norm_context c, double spread)
{
    op_check(&(op_case){.name = "length 1",
                        .inputs = 1,
                        .input = {{OP_COMPUTE, 2, {c.rows, c.columns}, spread}},
                        .build = build_unit,
                        .define = define_unit,
                        .context = &c,
                        .outputs = c.rows * c.columns,
                        .terms = (double)(2 * c.columns),
                        .roundings = 3});
}

static void lengths(void **state)
{
    (void)state;
    for (int i = 1; i < WIDTHS; i++)
        check_unit((norm_context){.rows = 4, .columns = widths[i]}, 1);
    check_unit((norm_context){.rows = 5, .columns = 8}, 1e3);
    check_unit((norm_context){.rows = 3, .columns = 1}, 1e-3); /* epsilon decides */
}

/* ---- Softmax --------------------------------------------------------------------------------- */

enum { SPREAD = 300 }; /* of large values */

typedef struct sizes {
    int64_t rows, columns;
} sizes;

static mn__var *build_softmax(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    return mn__op_softmax(tape, in[0]);
}

static double log_sum_exp(const double *x, int64_t n)
{
    double most = x[0], sum = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, x[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(x[i] - most);
    return most + log(sum);
}

static void define_softmax(const double *const *in, double *out, const void *context)
{
    const sizes *c = context;
    for (int64_t r = 0; r < c->rows; r++) {
        const double *x = in[0] + r * c->columns;
        double all = log_sum_exp(x, c->columns);
        for (int64_t i = 0; i < c->columns; i++)
            out[r * c->columns + i] = exp(x[i] - all);
    }
}

static void softmax(void **state)
{
    (void)state;
    for (int i = 0; i < WIDTHS; i++)
        for (int large = 0; large < 2; large++) {
            sizes c = {4, widths[i]};
            /* exp(x - max x) is off by |x - max x| 2^-24 of it: u exp -u is at most 1 / e. */
            op_check(&(op_case){.name = large ? "softmax of large values" : "softmax",
                                .inputs = 1,
                                .input = {{OP_COMPUTE, 3, {2, 2, widths[i]}, large ? SPREAD : 1}},
                                .build = build_softmax,
                                .define = define_softmax,
                                .context = &c,
                                .outputs = 4 * widths[i],
                                .terms = (double)(2 * widths[i]) + 8,
                                .roundings = 3});
        }
}

/* The second input is a shift of each row. */
static mn__var *build_log_softmax(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    return mn__op_log_softmax(tape, in[0], in[1]);
}

static void define_log_softmax(const double *const *in, double *out, const void *context)
{
    const sizes *c = context;
    for (int64_t r = 0; r < c->rows; r++) {
        const double *x = in[0] + r * c->columns;
        double all = log_sum_exp(x, c->columns);
        for (int64_t i = 0; i < c->columns; i++)
            out[r * c->columns + i] = x[i] - all + in[1][r];
    }
}

static void log_softmax(void **state)
{
    (void)state;
    for (int i = 0; i < WIDTHS; i++)
        for (int large = 0; large < 2; large++) {
            sizes c = {4, widths[i]};
            /* Of one column the result is the shift, about 1: log Z, the shift less it and the
             * sum are each rounded by 2^-24 of x, at most 4 SPREAD, a term counts for four such.
             * Of more, one result at least is as large as x. */
            double cancels = large && widths[i] == 1 ? 3 * SPREAD : 8;
            op_check(&(op_case){.name = large ? "log-softmax of large values" : "log-softmax",
                                .inputs = 2,
                                .input = {{OP_FLOAT, 2, {4, widths[i]}, large ? SPREAD : 1},
                                          {OP_FLOAT, 2, {4, 1}, 0}},
                                .build = build_log_softmax,
                                .define = define_log_softmax,
                                .context = &c,
                                .outputs = 4 * widths[i],
                                .terms = (double)(2 * widths[i]) + cancels});
        }
}

static void open_tape(mn__device *device, mn__params *params, mn__tape *tape, int level)
{
    op_device_open(device, (mn__level)level);
    mn__params_init(params, device, 1);
    mn__tape_init(tape, params, MN__F32);
}

static void close_tape(mn__device *device, mn__params *params, mn__tape *tape)
{
    mn__tape_free(tape);
    mn__params_free(params);
    mn__device_close(device);
}

/* Whatever the first logit is: two of 0 have log 1/2, to a rounding. */
static void log_softmax_of_a_hopeless_one(void **state)
{
    (void)state;
    float data[] = {-INFINITY, 0, 0, -1e4F, 0, 0, -3e38F, 0, 0};
    for (int level = 0; level < MN__LEVELS && mn__kernel_table((mn__level)level); level++) {
        mn__device device;
        mn__params params;
        mn__tape tape;
        open_tape(&device, &params, &tape, level);
        mn__var *x = mn__tape_constant(&tape, mn__tensor_of(data, MN__F32, 2, (int64_t[]){3, 3}));
        mn__var *out = mn__op_log_softmax(&tape, x, NULL);
        assert_non_null(out);
        for (int i = 0; i < 9; i++) {
            float y = ((float *)out->value.data)[i];
            if (i % 3 == 0)
                assert_true(y == data[i] - logf(2));
            else
                assert_true(fabs((double)y + log(2)) <= 0x1p-23);
        }
        mn__var *shift =
            mn__tape_constant(&tape, mn__tensor_of(data, MN__F32, 2, (int64_t[]){1, 3}));
        assert_null(mn__op_log_softmax(&tape, x, shift));
        assert_int_equal(mn__tape_status(&tape, NULL), MN_ERROR_MISMATCH);
        close_tape(&device, &params, &tape);
    }
}

/* ---- RoPE --------------------------------------------------------------------------------------
 */

enum { ROPE_B = 2, ROPE_T = 3, ROPE_H = 2, ROPE_D = 10, ROPE_PAIRS = 4 };
static const int64_t rope_positions[] = {0, 1, 2, 7, 1000, 100000};
static const float rope_frequencies[] = {1, 0.1F, 0.01F, 0.001F};

static mn__rope rope_of(const bool *interleaved)
{
    return (mn__rope){ROPE_PAIRS, rope_frequencies, *interleaved, 1.25F};
}

static mn__var *build_rope(mn__tape *tape, mn__var *const *in, const void *context)
{
    mn__rope rope = rope_of(context);
    return mn__op_rope(tape, in[0], rope_positions, &rope);
}

static void define_rope(const double *const *in, double *out, const void *context)
{
    bool interleaved = *(const bool *)context;
    memcpy(out, in[0], sizeof *out * ROPE_B * ROPE_T * ROPE_H * ROPE_D);
    for (int n = 0; n < ROPE_B * ROPE_T * ROPE_H; n++)
        for (int pair = 0; pair < ROPE_PAIRS; pair++) {
            int a = n * ROPE_D + (interleaved ? 2 * pair : pair);
            int b = interleaved ? a + 1 : a + ROPE_PAIRS;
            double angle = (double)rope_positions[n / ROPE_H] * (double)rope_frequencies[pair];
            out[a] = 1.25 * (in[0][a] * cos(angle) - in[0][b] * sin(angle));
            out[b] = 1.25 * (in[0][a] * sin(angle) + in[0][b] * cos(angle));
        }
}

static void rope(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        bool interleaved = i;
        op_check(&(op_case){.name = interleaved ? "RoPE of neighbours" : "RoPE of halves",
                            .inputs = 1,
                            .input = {{OP_COMPUTE, 4, {ROPE_B, ROPE_T, ROPE_H, ROPE_D}, 0}},
                            .build = build_rope,
                            .define = define_rope,
                            .context = &interleaved,
                            .outputs = ROPE_B * ROPE_T * ROPE_H * ROPE_D,
                            .terms = 8,
                            .roundings = 2});
    }
}

/* ---- By index ------------------------------------------------------------ */

static const int32_t ids[] = {3, 0, -1, 3, 1, 3};
enum { IDS = 6, TABLE = 5 };

/* Two groups, each with indices of its own. */
static const int32_t grouped_ids[] = {3, 0, -1, 3, 1, 3, 2, 2, 4, -1, 0, 1};
enum { GROUPS = 2 };

typedef struct index_context {
    int64_t columns, rows; /* rows of the result */
    double scale;
    bool scatter;
} index_context;

static void define_rows(const double *const *in, double *out, const void *context)
{
    const index_context *c = context;
    memset(out, 0, sizeof *out * (size_t)(c->rows * c->columns));
    for (int64_t i = 0; i < IDS; i++)
        for (int64_t k = 0; k < c->columns && ids[i] >= 0; k++) {
            int64_t from = c->scatter ? i : ids[i], to = c->scatter ? ids[i] : i;
            out[to * c->columns + k] += c->scale * in[0][from * c->columns + k];
        }
}

static void define_grouped_rows(const double *const *in, double *out, const void *context)
{
    const index_context *c = context;
    int64_t C = c->columns, in_rows = c->scatter ? IDS : TABLE;
    memset(out, 0, sizeof *out * (size_t)(GROUPS * c->rows * C));
    for (int64_t i = 0; i < GROUPS * IDS; i++)
        for (int64_t k = 0; k < C && grouped_ids[i] >= 0; k++) {
            int64_t g = i / IDS, from = c->scatter ? i % IDS : grouped_ids[i];
            int64_t to = c->scatter ? grouped_ids[i] : i % IDS;
            out[(g * c->rows + to) * C + k] += in[0][(g * in_rows + from) * C + k];
        }
}

static mn__var *build_embed(mn__tape *tape, mn__var *const *in, const void *context)
{
    const index_context *c = context;
    return mn__op_embed(tape, in[0], ids, 2, 3, (float)c->scale);
}

static mn__var *build_gather(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    return mn__op_gather(tape, in[0], ids, IDS);
}

static mn__var *build_scatter(mn__tape *tape, mn__var *const *in, const void *context)
{
    (void)context;
    return mn__op_scatter(tape, in[0], ids, TABLE);
}

static mn__var *build_grouped(mn__tape *tape, mn__var *const *in, const void *context)
{
    const index_context *c = context;
    return c->scatter ? mn__op_scatter(tape, in[0], grouped_ids, TABLE)
                      : mn__op_gather(tape, in[0], grouped_ids, IDS);
}

static void check_grouped(int64_t columns, bool scatter)
{
    int64_t rows = scatter ? TABLE : IDS;
    index_context c = {columns, rows, 1, scatter};
    op_check(&(op_case){.name = scatter ? "scatter in groups" : "gather in groups",
                        .inputs = 1,
                        .input = {{OP_COMPUTE, 3, {GROUPS, scatter ? IDS : TABLE, columns}, 0}},
                        .build = build_grouped,
                        .define = define_grouped_rows,
                        .context = &c,
                        .outputs = GROUPS * rows * columns,
                        .terms = IDS,
                        .roundings = 3});
}

static void check_rows(const char *name, op_kind kind, int64_t rows, index_context c,
                       mn__var *(*build)(mn__tape *, mn__var *const *, const void *))
{
    op_check(&(op_case){.name = name,
                        .inputs = 1,
                        .input = {{kind, 2, {rows, c.columns}, 0}},
                        .build = build,
                        .define = define_rows,
                        .context = &c,
                        .outputs = c.rows * c.columns,
                        .terms = IDS,
                        .roundings = 3});
}

static void rows_by_index(void **state)
{
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int64_t C = widths[i];
        check_rows("embed", OP_PARAM, TABLE, (index_context){C, IDS, 1.5, false}, build_embed);
        check_rows("gather", OP_COMPUTE, TABLE, (index_context){C, IDS, 1, false}, build_gather);
        check_rows("scatter", OP_COMPUTE, IDS, (index_context){C, TABLE, 1, true}, build_scatter);
        check_grouped(C, false);
        check_grouped(C, true);
    }
}

/* ---- The largest of each row --------------------------------------------- */

static void largest_of_each_row(void **state)
{
    (void)state;
    float data[] = {1, 5, 2, 5, -1, 9, NAN, 0, INFINITY, 0, -2, 9, -1, -1, -1, -1, -1, 9};
    for (int level = 0; level < MN__LEVELS && mn__kernel_table((mn__level)level); level++) {
        mn__device device;
        mn__params params;
        mn__tape tape;
        open_tape(&device, &params, &tape, level);
        mn__var *all = mn__tape_constant(&tape, mn__tensor_of(data, MN__F32, 2, (int64_t[]){3, 6}));
        float *values;
        int32_t *index = mn__op_top_k(&tape, mn__op_slice(&tape, all, 1, 0, 5), 3, &values);
        assert_non_null(index);
        const int32_t want[] = {1, 3, 2, 0, 2, 1, 0, 1, 2};
        const float want_values[] = {5, 5, 2, NAN, INFINITY, 0, -1, -1, -1};
        for (int i = 0; i < 9; i++) {
            assert_int_equal(index[i], want[i]);
            assert_true(values[i] == want_values[i] || (isnan(values[i]) && i == 3));
        }
        close_tape(&device, &params, &tape);
    }
}

/* By size these are 1 3 2, 4 0 1 and 0 1 2: what a row does not count is dropped first. */
static void places_of_the_largest(void **state)
{
    (void)state;
    float data[] = {1, 5, 2, 5, -1, 8, 7, -2, 0, 9, 3, 3, 3, 3, 3};
    const int64_t counts[] = {3, 2, 0};
    const int32_t want[] = {1, 2, 3, 0, 4, -1, -1, -1, -1};
    for (int level = 0; level < MN__LEVELS && mn__kernel_table((mn__level)level); level++) {
        mn__device device;
        mn__params params;
        mn__tape tape;
        open_tape(&device, &params, &tape, level);
        mn__var *x = mn__tape_constant(&tape, mn__tensor_of(data, MN__F32, 2, (int64_t[]){3, 5}));
        const int32_t *places = mn__op_top_places(&tape, x, 3, counts);
        assert_non_null(places);
        assert_memory_equal(places, want, sizeof want);
        assert_null(mn__op_top_places(&tape, x, 6, counts));
        assert_int_equal(mn__tape_status(&tape, NULL), MN_ERROR_MISMATCH);
        close_tape(&device, &params, &tape);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms),
        cmocka_unit_test(lengths),
        cmocka_unit_test(softmax),
        cmocka_unit_test(log_softmax),
        cmocka_unit_test(log_softmax_of_a_hopeless_one),
        cmocka_unit_test(rope),
        cmocka_unit_test(rows_by_index),
        cmocka_unit_test(largest_of_each_row),
        cmocka_unit_test(places_of_the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
