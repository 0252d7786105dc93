/* The Compressive Transformer, naive, against PyTorch: three segments with their
 * memories, the task's and the reconstruction's gradients apart; and gradient
 * through time over two unrolled segments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "attention/naive.h"
#include "support/layer.h"

enum { B = 2, T = 9, C = 16, H = 2, D = 8, MEMORY = 12, COMPRESSED = 5 };

static const double bound = 4e-6;

static void open(layer_test *test, const char *through)
{
    char options[128];
    mn_error error;
    snprintf(options, sizeof options, "{memory: 12, compressed: 5, rate: 3, through: %s}", through);
    mn__attention layer = {.C = C, .H = H, .G = H, .D = D, .segment = T, .pre_norm = true};
    layer_open(test, "compressive.safetensors", &naive_compressive, options, layer, B);
    assert_int_equal(mn__norm_create(&test->attention.norm, &test->fixture.params, "layer.norm",
                                     MN__NORM_LAYER, C, 1e-5f, &error),
                     MN_OK);
    layer_load(test);
}

/* Segment n from the state: y = x + attention. */
static mn__var *run(layer_test *test, mn__segment *segment, int64_t n, mn__var **x)
{
    *x = layer_input_entry(test, "x", n);
    *segment = (mn__segment){.B = B, .T = T};
    return mn__op_add(&test->fixture.tape, *x, layer_forward(test, segment, *x));
}

static mn__var *task(layer_test *test, mn__var *y, int64_t n)
{
    return layer_dot(test, y, layer_constant_entry(test, "d_out", n));
}

static void check_input(layer_test *test, const mn__var *x, const char *name, int64_t part)
{
    const mn__safetensor *expected = golden_tensor(&test->fixture, "%s", name);
    mn__safetensor one = *expected;
    one.bytes = B * T * C * (int64_t)sizeof(float);
    one.data = (const float *)expected->data + part * B * T * C;
    assert_non_null(x->gradient);
    golden_close_to(name, x->gradient, &one, bound);
}

static void check_memories(layer_test *test, int n)
{
    char name[32];
    float recent[B * MEMORY * C];
    const mn__slot *slot = test->states.layer[0].slot;
    mn__tensor newest = mn__tensor_slice(&slot[0].value, 1, slot[0].value.size[1] - MEMORY, MEMORY);
    mn__tensor packed = mn__tensor_of(recent, MN__F32, 3, newest.size);
    mn__tensor_convert(&test->fixture.device.queue, &packed, &newest);
    snprintf(name, sizeof name, "memory.%d", n);
    layer_check(test, &packed, name, bound);
    snprintf(name, sizeof name, "compressed.%d", n);
    layer_check(test, &slot[1].value, name, bound);
}

static void test_segments(void **state)
{
    (void)state;
    layer_test test;
    mn__segment segment;
    mn__var *x;
    char name[64];
    open(&test, "nothing");
    for (int n = 0; n < 3; n++) {
        layer_begin(&test);
        run(&test, &segment, n, &x);
        assert_int_equal(segment.auxiliary.count, 1);
        assert_string_equal(segment.auxiliary.name[0], "reconstruction");
        mn__var *auxiliary = mn__segment_losses(&test.fixture.tape, &segment);
        layer_backward(&test, auxiliary);
        snprintf(name, sizeof name, "auxiliary.%d", n);
        layer_check(&test, &auxiliary->value, name, bound);
        assert_null(x->gradient);
        snprintf(name, sizeof name, "gradient_auxiliary.%d.", n);
        layer_check_gradients(&test, name, true, bound);

        layer_begin(&test);
        mn__var *y = run(&test, &segment, n, &x);
        snprintf(name, sizeof name, "out.%d", n);
        layer_check(&test, &y->value, name, bound);
        layer_backward(&test, task(&test, y, n));
        snprintf(name, sizeof name, "gradient.%d.", n);
        layer_check_gradients(&test, name, true, bound);
        snprintf(name, sizeof name, "gradient.%d.x", n);
        check_input(&test, x, name, 0);
        layer_commit(&test, &segment, false);
        check_memories(&test, n);
    }
    layer_close(&test);
}

static void check_through_time(const char *through)
{
    layer_test test;
    mn__segment segment;
    mn__var *x[3], *loss[3];
    char name[64];
    open(&test, through);
    for (int n = 0; n < 3; n++) {
        if (n < 2)
            layer_begin(&test);
        loss[n] = task(&test, run(&test, &segment, n, &x[n]), n);
        layer_commit(&test, &segment, n == 1);
        check_memories(&test, n);
    }
    layer_backward(&test, mn__op_add(&test.fixture.tape, loss[1], loss[2]));
    snprintf(name, sizeof name, "through_%s.", through);
    layer_check_gradients(&test, name, true, bound);
    snprintf(name, sizeof name, "through_%s.x", through);
    check_input(&test, x[1], name, 0);
    check_input(&test, x[2], name, 1);
    layer_close(&test);
}

static void test_through_compression(void **state)
{
    (void)state;
    check_through_time("compression");
}

static void test_through_everything(void **state)
{
    (void)state;
    check_through_time("everything");
}

/* A block that runs again in backward would add its loss twice. */
static void test_recompute_is_refused(void **state)
{
    (void)state;
    static const mn__attention_type *const types[] = {&naive_compressive, NULL};
    static const char recipe[] = "model: {depth: 1, width: 16, heads: 2, recompute: true}\n"
                                 "attention: {type: naive_compressive}\n";
    mn_error error;
    mn__arena arena;
    mn__yaml_node *root;
    mn__device device;
    mn__params params;
    mn__decoder *decoder;
    mn__arena_init(&arena, 0);
    mn__attention_add_types(types);
    assert_int_equal(mn__yaml_parse(&arena, "recipe", recipe, sizeof recipe - 1, &root, &error),
                     MN_OK);
    assert_int_equal(mn__device_open(&device, &error), MN_OK);
    mn__params_init(&params, &device, 1);
    assert_int_equal(mn__decoder_new(&decoder, &params, mn__yaml_get(root, "model"),
                                     mn__yaml_get(root, "attention"), 8, T, &error),
                     MN_ERROR_OPTION);
    assert_non_null(strstr(error.message, "reconstruction"));
    mn__params_free(&params);
    mn__device_close(&device);
    mn__arena_free(&arena);
    mn__attention_add_types(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_through_compression),
        cmocka_unit_test(test_through_everything),
        cmocka_unit_test(test_recompute_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
