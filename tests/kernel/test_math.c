/* The vectorised functions keep the error bounds that their header states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "kernel/cpu/math.h"

static double exact_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Every 997th float of a range; bounds are |error| <= ulps * ulp + absolute. */
static void check(float (*function)(float), double (*exact)(double), float range, double ulps,
                  double absolute)
{
    for (uint32_t bits = 0; bits < UINT32_MAX - 997; bits += 997) {
        float x = mn__float_of_bits(bits);
        if (!(fabsf(x) <= range))
            continue;
        double want = exact((double)x), have = (double)function(x);
        float size = fabsf((float)want);
        double ulp = (double)(nextafterf(size, INFINITY) - size);
        if (!(fabs(want - have) <= ulps * ulp + absolute))
            fail_msg("f(%a) is %a, not %a", (double)x, have, want);
    }
}

static float call_exp(float x)
{
    return mn__exp(x);
}

static float call_sigmoid(float x)
{
    return mn__sigmoid(x);
}

static float call_tanh(float x)
{
    return mn__tanh(x);
}

static float call_erf(float x)
{
    return mn__erf(x);
}

static void test_bounds(void **state)
{
    (void)state;
    check(call_exp, exp, 87.3F, 2, 0);
    check(call_sigmoid, exact_sigmoid, 80, 4, 0);
    check(call_tanh, tanh, 20, 0, 4e-7);
    check(call_erf, erf, 10, 0, 5e-7);
}

static void test_edges(void **state)
{
    (void)state;
    assert_true(mn__exp(-100) == 0 && mn__exp(-INFINITY) == 0);
    assert_true(isinf(mn__exp(100)) && isinf(mn__exp(INFINITY)));
    assert_true(isnan(mn__exp(NAN)) && isnan(mn__sigmoid(NAN)));
    assert_true(isnan(mn__tanh(NAN)) && isnan(mn__erf(NAN)));
    assert_true(mn__exp(0) == 1 && mn__tanh(0) == 0 && mn__erf(0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bounds), cmocka_unit_test(test_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
