/* Optimisers and schedules against PyTorch's: optimizer.safetensors, see
 * tests/golden/README.md and make_optimizer.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "optim/clip.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "support/folder.h"

enum { STEPS = 10 };

static mn__safetensors *fixture;
static mn__device device;

static int setup(void **state)
{
    (void)state;
    mn_error error;
    if (mn__safetensors_open(&fixture, MNEME_SOURCE_DIR "/tests/golden/optimizer.safetensors",
                             &error) ||
        mn__device_open(&device, &error)) {
        print_error("%s\n", error.message);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mn__safetensors_close(fixture);
    mn__device_close(&device);
    return 0;
}

static const mn__safetensor *find(const char *format, const char *a, const char *b)
{
    char name[96];
    snprintf(name, sizeof name, format, a, b);
    return mn__safetensors_find(fixture, name);
}

static const float *values(const char *format, const char *a, const char *b)
{
    const mn__safetensor *tensor = find(format, a, b);
    if (!tensor)
        fail_msg("the fixture lacks %s", format);
    return tensor->data;
}

/* Differences are measured against the largest value, as rounding is. */
static void assert_near(const float *got, const float *want, int64_t n, double bound,
                        const char *what)
{
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)want[i]));
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    }
    if (!(worst <= bound * largest))
        fail_msg("%s: off by %.3g of %.3g", what, worst, largest);
}

/* ---- A trajectory of ten updates --------------------------------------------------- */

static const char *const names[] = {"matrix", "small", "vector", "zero"};

struct run {
    mn__params params;
    mn__optimizer optimizer;
};

static void begin(struct run *run, const mn__optimizer_options *options, const char *kind)
{
    mn__params_init(&run->params, &device, 1);
    for (int i = 0; i < 4; i++) {
        if (!find("%s.10.%s", kind, names[i]))
            continue;
        const mn__safetensor *start = find("start.%s%s", names[i], "");
        mn__param *param = mn__params_add(&run->params, names[i], start->rank, start->size,
                                          (mn__init){.kind = MN__INIT_ZERO});
        assert_non_null(param);
        memcpy(param->value.data, start->data, (size_t)start->bytes);
    }
    assert_true(run->params.count > 0);
    assert_int_equal(mn__params_prepare_gradients(&run->params, NULL), MN_OK);
    assert_int_equal(mn__optimizer_open(&run->optimizer, &run->params, options, NULL), MN_OK);
}

static void end(struct run *run)
{
    mn__optimizer_close(&run->optimizer);
    mn__params_free(&run->params);
}

/* The fixture's scale is given as the gradients' at odd steps, and as the
 * update's factor at even ones: both must do the same. */
static void update(struct run *run, int step, double rate)
{
    float scale = values("gradient_scale%s%s", "", "")[step];
    for (int64_t i = 0; i < run->params.count; i++) {
        mn__param *param = run->params.items[i];
        int64_t n = mn__tensor_elements(&param->value);
        const float *gradient = values("gradient.%s%s", param->name, "") + step % 2 * n;
        for (int64_t j = 0; j < n; j++)
            param->gradient[j] = gradient[j] * (step % 2 ? scale : 1.0f);
        param->gradient_set = true;
    }
    mn__optimizer_update(&run->optimizer, rate, step % 2 ? 1.0 : (double)scale);
}

static void compare(struct run *run, const char *kind, const char *step)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%s", kind, step);
    for (int64_t i = 0; i < run->params.count; i++) {
        mn__param *param = run->params.items[i];
        assert_near(param->value.data, values("%s.%s", prefix, param->name),
                    mn__tensor_elements(&param->value), 2e-6, param->name);
    }
}

static void follow(const char *kind, const mn__optimizer_options *options, double rate)
{
    struct run run;
    begin(&run, options, kind);
    for (int step = 0; step < STEPS; step++) {
        uint64_t before = run.params.items[0]->version;
        update(&run, step, rate);
        assert_true(run.params.items[0]->version > before);
        if (step == 0)
            compare(&run, kind, "1");
    }
    compare(&run, kind, "10");
    end(&run);
}

static void test_adam(void **state)
{
    (void)state;
    follow("adam",
           &(mn__optimizer_options){
               .type = MN__OPTIMIZER_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
           1e-3);
}

static void test_adamw(void **state)
{
    (void)state;
    follow("adamw",
           &(mn__optimizer_options){.type = MN__OPTIMIZER_ADAMW,
                                    .beta1 = 0.9,
                                    .beta2 = 0.95,
                                    .epsilon = 1e-8,
                                    .decay = 0.1,
                                    .decay_vectors = true},
           1e-3);
}

static mn__optimizer_options adafactor(int64_t factor_from)
{
    return (mn__optimizer_options){
        .type = MN__OPTIMIZER_ADAFACTOR, .factor_from = factor_from, .decay_power = 0.8};
}

static void test_adafactor(void **state)
{
    (void)state;
    mn__optimizer_options options = adafactor(128);
    follow("adafactor", &options, 0.01);
    options = adafactor(1);
    follow("adafactor_all", &options, 0.01);
}

static void test_adafactor_moments(void **state)
{
    (void)state;
    mn__optimizer_options options = adafactor(128);
    struct run run;
    begin(&run, &options, "adafactor");
    for (int step = 0; step < STEPS; step++)
        update(&run, step, 0.01);
    const mn__moments *matrix = &run.optimizer.moments[0], *small = &run.optimizer.moments[1];
    assert_null(matrix->second);
    assert_near(matrix->rows, values("adafactor.moments.rows.%s%s", "matrix", ""), 128, 2e-6,
                "rows");
    assert_near(matrix->columns, values("adafactor.moments.columns.%s%s", "matrix", ""), 130, 2e-6,
                "columns");
    assert_null(small->rows);
    assert_near(small->second, values("adafactor.moments.second.%s%s", "small", ""), 24 * 40, 2e-6,
                "second");
    end(&run);
}

/* With momentum mu, the first update is (1 - mu) times the one without. */
static void test_adafactor_momentum(void **state)
{
    (void)state;
    struct run plain, slow;
    mn__optimizer_options options = adafactor(128);
    begin(&plain, &options, "adafactor");
    options.momentum = 0.75;
    begin(&slow, &options, "adafactor");
    update(&plain, 0, 0.01);
    update(&slow, 0, 0.01);
    const float *start = values("start.%s%s", "matrix", "");
    const float *a = plain.params.items[0]->value.data, *b = slow.params.items[0]->value.data;
    double largest = 0;
    for (int64_t i = 0; i < 128 * 130; i++) {
        double want = 0.25 * ((double)a[i] - (double)start[i]);
        largest = fmax(largest, fabs(want));
        assert_true(fabs((double)b[i] - (double)start[i] - want) < 3e-8);
    }
    assert_true(largest > 1e-5);
    end(&plain);
    end(&slow);
}

/* ---- Saving ------------------------------------------------------------------------- */

static void save_and_load(const mn__optimizer_options *options, int64_t tensors)
{
    struct run whole, resumed;
    mn__arena arena;
    mn__arena_init(&arena, 0);
    begin(&whole, options, "adafactor");
    for (int step = 0; step < 4; step++)
        update(&whole, step, 0.01);
    mn__safetensor *list;
    int64_t count;
    assert_int_equal(mn__optimizer_list(&whole.optimizer, &arena, &list, &count, NULL), MN_OK);
    assert_int_equal(count, tensors);
    void *folder;
    assert_int_equal(folder_make(&folder), 0);
    const char *path = folder_path(folder, "moments.safetensors");
    assert_int_equal(mn__safetensors_write(path, list, count, NULL, NULL), MN_OK);

    begin(&resumed, options, "adafactor");
    for (int64_t i = 0; i < whole.params.count; i++)
        memcpy(resumed.params.items[i]->value.data, whole.params.items[i]->value.data,
               (size_t)mn__tensor_bytes(&whole.params.items[i]->value));
    mn__safetensors *file;
    assert_int_equal(mn__safetensors_open(&file, path, NULL), MN_OK);
    assert_int_equal(mn__optimizer_load(&resumed.optimizer, file, NULL), MN_OK);
    resumed.optimizer.updates = 4;
    mn__safetensors_close(file);
    for (int step = 4; step < 6; step++) {
        update(&whole, step, 0.01);
        update(&resumed, step, 0.01);
    }
    for (int64_t i = 0; i < whole.params.count; i++)
        assert_memory_equal(resumed.params.items[i]->value.data, whole.params.items[i]->value.data,
                            (size_t)mn__tensor_bytes(&whole.params.items[i]->value));
    assert_int_equal(folder_remove(&folder), 0);
    mn__arena_free(&arena);
    end(&whole);
    end(&resumed);
}

static void test_moments_go_on_after_loading(void **state)
{
    (void)state;
    mn__optimizer_options options = adafactor(128);
    save_and_load(&options, 2 + 3);
    options.momentum = 0.9;
    save_and_load(&options, 3 + 6);
    save_and_load(
        &(mn__optimizer_options){
            .type = MN__OPTIMIZER_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
        8);
}

static void test_moments_of_another_optimiser_are_refused(void **state)
{
    (void)state;
    struct run run;
    mn_error error;
    mn__optimizer_options options = adafactor(128);
    begin(&run, &options, "adafactor");
    assert_int_equal(mn__optimizer_load(&run.optimizer, fixture, &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "optimizer.matrix.rows"));
    end(&run);
}

/* ---- Clipping ------------------------------------------------------------------------- */

static void test_norm(void **state)
{
    (void)state;
    struct run run;
    mn__optimizer_options options = adafactor(128);
    begin(&run, &options, "adafactor");
    double squares = 0;
    const mn__param *culprit;
    for (int64_t i = 0; i < run.params.count; i++) {
        mn__param *param = run.params.items[i];
        for (int64_t j = 0; j < mn__tensor_elements(&param->value); j++)
            param->gradient[j] = (float)(j % 7) - 3;
        param->gradient_set = i != 1; /* one that nothing has reached */
        for (int64_t j = 0; i != 1 && j < mn__tensor_elements(&param->value); j++)
            squares += pow((double)(j % 7) - 3, 2);
    }
    double norm = mn__gradients_norm(&run.params, &culprit);
    assert_null(culprit);
    assert_true(fabs(norm - sqrt(squares)) < 1e-9 * norm);
    assert_true(mn__clip_factor(norm, 0) == 1 && mn__clip_factor(norm, 2 * norm) == 1);
    assert_true(fabs(mn__clip_factor(norm, 0.25) * norm - 0.25) < 1e-12);
    run.params.items[1]->gradient[3] = NAN; /* not set: does not count */
    mn__gradients_norm(&run.params, &culprit);
    assert_null(culprit);
    run.params.items[2]->gradient[32] = INFINITY;
    run.params.items[3]->gradient[0] = NAN;
    assert_true(isfinite(mn__gradients_norm(&run.params, &culprit)) == 0);
    assert_ptr_equal(culprit, run.params.items[2]);
    assert_null(mn__params_not_finite(&run.params));
    ((float *)run.params.items[3]->value.data)[15] = -INFINITY;
    assert_ptr_equal(mn__params_not_finite(&run.params), run.params.items[3]);
    end(&run);
}

/* ---- Schedules ------------------------------------------------------------------------ */

static void follow_schedule(const char *name, mn__schedule_options options)
{
    const mn__safetensor *steps = find("schedule.%s%s", "steps", "");
    const float *want = values("schedule.%s%s", name, "");
    assert_int_equal(mn__schedule_check(&options, NULL), MN_OK);
    for (int64_t i = 0; i < steps->size[0]; i++) {
        int32_t step;
        memcpy(&step, (const char *)steps->data + i * 4, 4);
        double got = mn__schedule_rate(&options, step);
        if (!(fabs(got - (double)want[i]) <= 1e-7 * fabs((double)want[i]) + 1e-20))
            fail_msg("%s at step %d: %.9g, not %.9g", name, (int)step, got, (double)want[i]);
    }
}

static void test_schedules(void **state)
{
    (void)state;
    follow_schedule("constant", (mn__schedule_options){
                                    .type = MN__SCHEDULE_CONSTANT, .rate = 1e-3, .warmup = 40});
    follow_schedule("cosine", (mn__schedule_options){.type = MN__SCHEDULE_COSINE,
                                                     .rate = 3e-4,
                                                     .start = 1e-6,
                                                     .final = 1e-6,
                                                     .warmup = 40,
                                                     .steps = 1000});
    follow_schedule(
        "cosine_plain",
        (mn__schedule_options){.type = MN__SCHEDULE_COSINE, .rate = 2.5e-4, .steps = 1000});
    follow_schedule("rsqrt",
                    (mn__schedule_options){.type = MN__SCHEDULE_RSQRT, .rate = 1, .warmup = 100});
    follow_schedule(
        "rsqrt_normalized",
        (mn__schedule_options){.type = MN__SCHEDULE_RSQRT_NORMALIZED, .rate = 0.01, .warmup = 100});
}

static void test_contradictions(void **state)
{
    (void)state;
    mn_error error;
    mn__schedule_options schedule = {.type = MN__SCHEDULE_COSINE, .warmup = 10, .steps = 10};
    assert_int_equal(mn__schedule_check(&schedule, &error), MN_ERROR_OPTION);
    schedule = (mn__schedule_options){.type = MN__SCHEDULE_RSQRT_NORMALIZED, .rate = 1};
    assert_int_equal(mn__schedule_check(&schedule, &error), MN_ERROR_OPTION);
    schedule = (mn__schedule_options){.type = MN__SCHEDULE_CONSTANT, .rate = 1, .final = 0.1};
    assert_int_equal(mn__schedule_check(&schedule, &error), MN_ERROR_OPTION);
    for (int type = MN__SCHEDULE_RSQRT; type <= MN__SCHEDULE_RSQRT_NORMALIZED; type++) {
        schedule = (mn__schedule_options){.type = type, .rate = 1, .start = 0.1, .warmup = 10};
        assert_int_equal(mn__schedule_check(&schedule, &error), MN_ERROR_OPTION);
        assert_non_null(strstr(error.message, "start"));
    }
    mn__optimizer_options optimizer = {.type = MN__OPTIMIZER_ADAM, .decay = 0.1};
    assert_int_equal(mn__optimizer_check(&optimizer, &error), MN_ERROR_OPTION);
    optimizer = (mn__optimizer_options){.type = MN__OPTIMIZER_ADAMW, .momentum = 0.1};
    assert_int_equal(mn__optimizer_check(&optimizer, &error), MN_ERROR_OPTION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_adafactor),
        cmocka_unit_test(test_adafactor_moments),
        cmocka_unit_test(test_adafactor_momentum),
        cmocka_unit_test(test_moments_go_on_after_loading),
        cmocka_unit_test(test_moments_of_another_optimiser_are_refused),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_contradictions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
