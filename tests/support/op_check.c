/* Checks of differentiable operations: see op_check.h. */
#include "support/op_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

enum { EACH_MAX = 48, DIRECTIONS = 2 };

typedef enum use { DIRECT, VIEWS, TWICE, RECOMPUTED, USES } use;
static const char *const use_names[USES] = {"direct", "views", "twice", "recomputed"};

/* One case's values in double precision. */
typedef struct values {
    int64_t count[OP_INPUTS_MAX];
    double *in[OP_INPUTS_MAX];
    double *out, *weights; /* the loss is sum out * weights */
} values;

/* What one run of the tape gave. */
typedef struct result {
    double *out;
    double *gradient[OP_INPUTS_MAX];
} result;

static void *allocate(int64_t count)
{
    void *block = calloc((size_t)(count > 0 ? count : 1), sizeof(double));
    assert_non_null(block);
    return block;
}

void op_random(double *out, int64_t count, double spread, uint64_t seed)
{
    mn__random_key key = {.seed = seed};
    for (int64_t i = 0; i < count; i++) {
        double x = spread * (double)mn__random_normal(key, (uint64_t)i);
        out[i] = (double)mn__bf16_to_f32(mn__f32_to_bf16((float)x));
    }
}

void op_device_open(mn__device *device, mn__level level)
{
    mn_error error = {0};
    assert_int_equal(mn__device_open(device, &error), MN_OK);
    mn__queue_close(&device->queue);
    assert_int_equal(mn__queue_open(&device->queue, mn__kernel_table(level), &error), MN_OK);
}

static int64_t elements(const op_input *input)
{
    int64_t count = 1;
    for (int axis = 0; axis < input->rank; axis++)
        count *= input->size[axis];
    return count;
}

static values values_new(const op_case *test)
{
    values v = {.out = allocate(test->outputs), .weights = allocate(test->outputs)};
    for (int i = 0; i < test->inputs; i++) {
        v.count[i] = elements(&test->input[i]);
        v.in[i] = allocate(v.count[i]);
        double spread = test->input[i].spread;
        op_random(v.in[i], v.count[i], spread != 0 ? spread : 1, 77 + (uint64_t)i);
    }
    op_random(v.weights, test->outputs, 1, 5);
    test->define((const double *const *)v.in, v.out, test->context);
    return v;
}

static void values_free(values *v)
{
    for (int i = 0; i < OP_INPUTS_MAX; i++)
        free(v->in[i]);
    free(v->out);
    free(v->weights);
}

/* ---- A run on the tape ------------------------------------------------------------ */

static void element_put(void *data, mn__dtype dtype, int64_t i, double value)
{
    if (dtype == MN__BF16)
        ((mn__bf16 *)data)[i] = mn__f32_to_bf16((float)value);
    else
        ((float *)data)[i] = (float)value;
}

static double element_get(const void *data, mn__dtype dtype, int64_t i)
{
    return dtype == MN__BF16 ? (double)mn__bf16_to_f32(((const mn__bf16 *)data)[i])
                             : (double)((const float *)data)[i];
}

/* Element n in row-major order. */
static int64_t offset_of(const mn__tensor *tensor, int64_t n)
{
    int64_t offset = 0;
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
        offset += n % tensor->size[axis] * tensor->stride[axis];
        n /= tensor->size[axis];
    }
    return offset;
}

static void put(const mn__tensor *tensor, const double *from)
{
    for (int64_t n = 0, count = mn__tensor_elements(tensor); n < count; n++)
        element_put(tensor->data, tensor->dtype, offset_of(tensor, n), from[n]);
}

static void get(const mn__tensor *tensor, double *to)
{
    for (int64_t n = 0, count = mn__tensor_elements(tensor); n < count; n++)
        to[n] = element_get(tensor->data, tensor->dtype, offset_of(tensor, n));
}

typedef struct run {
    const op_case *test;
    const values *v;
    mn__device device;
    mn__params params;
    mn__tape tape;
    mn__param *param[OP_INPUTS_MAX];
    mn__var *whole[OP_INPUTS_MAX], *in[OP_INPUTS_MAX];
    use how;
} run;

/* An input; as a view, it has a column before and two after it, and a slice
 * more on its first axis. */
static void make_input(run *r, int i)
{
    const op_input *input = &r->test->input[i];
    if (input->kind == OP_PARAM) {
        r->in[i] = r->whole[i] = mn__tape_param(&r->tape, r->param[i]);
        put(&r->param[i]->value, r->v->in[i]);
        mn__param_changed(r->param[i]);
        return;
    }
    mn__dtype dtype = input->kind == OP_FLOAT ? MN__F32 : r->tape.compute;
    mn__tensor size = mn__tensor_of(NULL, dtype, input->rank, input->size);
    int last = input->rank - 1;
    if (r->how == VIEWS) {
        size.size[last] += 3;
        size.size[0] += last > 0;
    }
    size = mn__tensor_of(NULL, dtype, input->rank, size.size);
    size.data = mn__tape_alloc(&r->tape, mn__tensor_bytes(&size));
    assert_non_null(size.data);
    memset(size.data, 0x7f, (size_t)mn__tensor_bytes(&size)); /* gaps hold large values */
    r->in[i] = r->whole[i] = mn__tape_input(&r->tape, size);
    if (r->how == VIEWS) {
        r->in[i] = mn__op_slice(&r->tape, r->in[i], last, 1, input->size[last]);
        if (last > 0)
            r->in[i] = mn__op_slice(&r->tape, r->in[i], 0, 1, input->size[0]);
    }
    assert_non_null(r->in[i]);
    put(&r->in[i]->value, r->v->in[i]);
}

static mn__var *loss_of(run *r, mn__var *out)
{
    assert_int_equal(mn__tensor_elements(&out->value), r->test->outputs);
    mn__tensor weights = mn__tensor_of(NULL, MN__F32, out->value.rank, out->value.size);
    weights.data = mn__tape_alloc(&r->tape, mn__tensor_bytes(&weights));
    put(&weights, r->v->weights);
    mn__var *exact = mn__op_cast(&r->tape, out, MN__F32);
    mn__var *product = mn__op_multiply(&r->tape, exact, mn__tape_constant(&r->tape, weights));
    return mn__op_sum(&r->tape, product);
}

static mn__var *block(mn__tape *tape, void *user, mn__var *x)
{
    run *r = user;
    mn__var *in[OP_INPUTS_MAX];
    memcpy(in, r->in, sizeof in);
    in[0] = x;
    return r->test->build(tape, in, r->test->context);
}

static void check_status(const run *r, const char *when)
{
    mn_error error = {0};
    if (mn__tape_status(&r->tape, &error) != MN_OK)
        fail_msg("%s, %s, %s: %s", r->test->name, use_names[r->how], when, error.message);
}

static void read_gradient(const run *r, int i, double *to)
{
    mn__var *whole = r->whole[i], *var = r->in[i];
    if (r->param[i]) {
        mn__tensor at = r->param[i]->value;
        at.data = r->param[i]->gradient;
        get(&at, to);
        return;
    }
    assert_non_null(whole->gradient);
    mn__tensor at = mn__tape_place(var);
    at.data = (char *)whole->gradient + (uintptr_t)at.data;
    get(&at, to);
}

static void open_run(run *r, mn__level level, mn__dtype compute)
{
    mn_error error = {0};
    op_device_open(&r->device, level);
    mn__params_init(&r->params, &r->device, 1);
    for (int i = 0; i < r->test->inputs; i++) {
        const op_input *input = &r->test->input[i];
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        if (input->kind == OP_PARAM)
            r->param[i] = mn__params_add(&r->params, name, input->rank, input->size,
                                         (mn__init){.kind = MN__INIT_ZERO});
    }
    assert_int_equal(mn__params_prepare_gradients(&r->params, &error), MN_OK);
    mn__params_clear_gradients(&r->params);
    mn__tape_init(&r->tape, &r->params, compute);
    r->tape.random = (mn__random_key){.seed = 9};
    r->tape.recording = r->tape.training = true;
}

static result run_tape(const op_case *test, const values *v, mn__level level, mn__dtype compute,
                       use how)
{
    run r = {.test = test, .v = v, .how = how};
    mn_error error = {0};
    open_run(&r, level, compute);
    for (int i = 0; i < test->inputs; i++)
        make_input(&r, i);
    mn__var *out = how == RECOMPUTED ? mn__tape_recompute(&r.tape, block, &r, r.in[0])
                                     : test->build(&r.tape, r.in, test->context);
    check_status(&r, "forward");
    result got = {.out = allocate(test->outputs)};
    get(&out->value, got.out);
    mn__var *loss = loss_of(&r, out);
    if (how == TWICE)
        loss = mn__op_add(&r.tape, loss, loss_of(&r, test->build(&r.tape, r.in, test->context)));
    mn__tape_backward(&r.tape, loss, 1, &error);
    check_status(&r, "backward");
    for (int i = 0; i < test->inputs; i++) {
        got.gradient[i] = allocate(v->count[i]);
        read_gradient(&r, i, got.gradient[i]);
    }
    assert_int_equal(mn__queue_check(&r.device.queue, &error), MN_OK);
    mn__tape_free(&r.tape);
    mn__params_free(&r.params);
    mn__device_close(&r.device);
    return got;
}

static void result_free(result *got)
{
    free(got->out);
    for (int i = 0; i < OP_INPUTS_MAX; i++)
        free(got->gradient[i]);
}

/* ---- Comparisons ------------------------------------------------------------------------- */

static double largest(const double *x, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = fmax(most, fabs(x[i]));
    return most;
}

/* Relative to the largest value: unit roundoff of F32 for each addition and a
 * few for the functions, and of bf16 for each rounding to it. */
static double tolerance(const op_case *test, mn__dtype compute)
{
    double bound = ldexp(4 * (test->terms + 8), -24);
    return compute == MN__BF16 ? bound + ldexp(test->roundings, -8) : bound;
}

static void compare(const op_case *test, const char *what, const char *where, double got,
                    double want, double scale, double relative)
{
    double bound = relative * scale + 1e-30;
    if (!(fabs(got - want) <= bound))
        fail_msg("%s, %s: %s is %.9g, should be %.9g (off by %.3g, bound %.3g)", test->name, where,
                 what, got, want, fabs(got - want), bound);
}

static double loss_at(const op_case *test, const values *v, double *out)
{
    double sum = 0;
    test->define((const double *const *)v->in, out, test->context);
    for (int64_t n = 0; n < test->outputs; n++)
        sum += out[n] * v->weights[n];
    return sum;
}

/* The slope of the loss where input i moves along a direction. */
static double slope(const op_case *test, values *v, int i, const double *direction)
{
    double spread = test->input[i].spread != 0 ? test->input[i].spread : 1;
    double epsilon = 1e-5 * spread;
    double *out = allocate(test->outputs), *kept = v->in[i], *moved = allocate(v->count[i]);
    double side[2];
    v->in[i] = moved;
    for (int s = 0; s < 2; s++) {
        for (int64_t n = 0; n < v->count[i]; n++)
            moved[n] = kept[n] + (s ? -epsilon : epsilon) * direction[n];
        side[s] = loss_at(test, v, out);
    }
    v->in[i] = kept;
    free(moved);
    free(out);
    return (side[0] - side[1]) / (2 * epsilon);
}

/* What the definition says of input i: one slope per element where they are
 * few, else along some directions. */
typedef struct slopes {
    int64_t count;
    double *direction; /* [count, elements] */
    double *value;     /* [count] */
} slopes;

static slopes slopes_new(const op_case *test, values *v, int i)
{
    int64_t elements = v->count[i];
    bool each = elements <= EACH_MAX;
    slopes s = {.count = each ? elements : DIRECTIONS};
    s.direction = allocate(s.count * elements);
    s.value = allocate(s.count);
    for (int64_t n = 0; n < s.count; n++) {
        double *direction = s.direction + n * elements;
        if (each)
            direction[n] = 1;
        else
            op_random(direction, elements, 1, 1000 + (uint64_t)n);
        s.value[n] = slope(test, v, i, direction);
    }
    return s;
}

static void check_gradient(const op_case *test, const char *where, int i, const slopes *want,
                           const double *gradient, int64_t elements, double relative, double uses)
{
    char what[32];
    snprintf(what, sizeof what, "a slope of input %d", i);
    double most = fmax(largest(gradient, elements), largest(want->value, want->count));
    for (int64_t n = 0; n < want->count; n++) {
        const double *direction = want->direction + n * elements;
        double got = 0, length = 0;
        for (int64_t e = 0; e < elements; e++) {
            got += gradient[e] * direction[e];
            length += direction[e] * direction[e];
        }
        double scale = want->count == elements ? most : largest(gradient, elements) * length;
        compare(test, what, where, got / uses, want->value[n], fmax(scale, 1e-3), relative);
    }
}

static void check_same_bits(const op_case *test, const char *where, const values *v,
                            const result *a, const result *b)
{
    bool same = !memcmp(a->out, b->out, (size_t)test->outputs * sizeof(double));
    for (int i = 0; i < test->inputs; i++)
        same =
            same && !memcmp(a->gradient[i], b->gradient[i], (size_t)v->count[i] * sizeof(double));
    if (!same)
        fail_msg("%s, %s: recomputing changes bits", test->name, where);
}

static void check_run(const op_case *test, values *v, const slopes *want, mn__level level,
                      mn__dtype compute)
{
    result direct = run_tape(test, v, level, compute, DIRECT);
    for (int how = DIRECT; how < USES; how++) {
        if (test->draws && (how == VIEWS || how == TWICE))
            continue;
        char where[64];
        snprintf(where, sizeof where, "level %s, %s, %s", mn__level_name(level),
                 mn__dtype_name(compute), use_names[how]);
        result got = how == DIRECT ? direct : run_tape(test, v, level, compute, (use)how);
        double relative = tolerance(test, compute), most = largest(v->out, test->outputs);
        for (int64_t n = 0; n < test->outputs; n++)
            compare(test, "an output", where, got.out[n], v->out[n], most, relative);
        for (int i = 0; i < test->inputs; i++)
            check_gradient(test, where, i, &want[i], got.gradient[i], v->count[i], 2 * relative,
                           how == TWICE ? 2 : 1);
        if (how == RECOMPUTED)
            check_same_bits(test, where, v, &got, &direct);
        if (how != DIRECT)
            result_free(&got);
    }
    result_free(&direct);
}

/* ---- Allocations that fail ---------------------------------------------------------------- */

/* One run whose n-th allocation from the operation on fails; false where there
 * were not so many. */
static bool run_failing(const op_case *test, const values *v, mn__level level, use how, int64_t n)
{
    run r = {.test = test, .v = v, .how = how};
    mn_error error = {0};
    open_run(&r, level, MN__F32);
    for (int i = 0; i < test->inputs; i++)
        make_input(&r, i);
    mn__memory_fail_nth(n);
    mn__var *out = how == RECOMPUTED ? mn__tape_recompute(&r.tape, block, &r, r.in[0])
                                     : test->build(&r.tape, r.in, test->context);
    mn__tape_backward(&r.tape, mn__op_sum(&r.tape, mn__op_cast(&r.tape, out, MN__F32)), 1, &error);
    bool failed = mn__memory_fail_nth(0) == 0;
    mn_status status = mn__tape_status(&r.tape, &error);
    if (status == MN_OK)
        status = mn__queue_check(&r.device.queue, &error);
    if (status != MN_OK && (!failed || status != MN_ERROR_MEMORY || !*error.message))
        fail_msg("%s, %s, allocation %lld: %s", test->name, use_names[how], (long long)n,
                 error.message);
    if (status == MN_OK) {
        double *got = allocate(test->outputs), most = largest(v->out, test->outputs);
        get(&out->value, got);
        for (int64_t i = 0; i < test->outputs; i++)
            compare(test, "an output", "an allocation failed", got[i], v->out[i], most,
                    tolerance(test, MN__F32));
        free(got);
    }
    mn__tape_free(&r.tape);
    mn__params_free(&r.params);
    mn__device_close(&r.device);
    return failed;
}

/* Each allocation of forward and backward fails in turn: an error that says so,
 * or the right result; and all memory comes back. */
static void check_allocations(const op_case *test, const values *v, mn__level level)
{
    mn__arena_single_blocks(true);
    for (int how = DIRECT; how <= RECOMPUTED; how += RECOMPUTED - DIRECT)
        for (int64_t n = 1, more = true; more; n++) {
            mn__memory_stats before = mn__memory_now();
            more = run_failing(test, v, level, (use)how, n);
            mn__memory_stats after = mn__memory_now();
            if (after.blocks != before.blocks || after.bytes != before.bytes)
                fail_msg("%s, %s, allocation %lld: a leak", test->name, use_names[how],
                         (long long)n);
        }
    mn__arena_single_blocks(false);
}

void op_check(const op_case *test)
{
    values v = values_new(test);
    slopes want[OP_INPUTS_MAX] = {0};
    for (int i = 0; i < test->inputs; i++)
        want[i] = slopes_new(test, &v, i);
    for (int level = MN__LEVEL_PLAIN; level < MN__LEVELS; level++) {
        if (!mn__kernel_table((mn__level)level))
            continue;
        check_run(test, &v, want, (mn__level)level, MN__F32);
        check_allocations(test, &v, (mn__level)level);
        if (test->roundings > 0)
            check_run(test, &v, want, (mn__level)level, MN__BF16);
    }
    for (int i = 0; i < test->inputs; i++) {
        free(want[i].direction);
        free(want[i].value);
    }
    values_free(&v);
}
