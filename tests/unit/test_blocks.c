/* binary16 and quantised blocks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernel/blocks.h"

static void test_f16_and_back(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float x = mn__f16_to_f32((mn__f16)bits);
        if ((bits & 0x7fff) > 0x7c00)
            assert_true(isnan(x) && isnan(mn__f16_to_f32(mn__f32_to_f16(x))));
        else
            assert_int_equal(mn__f32_to_f16(x), bits);
    }
    assert_true(mn__f16_to_f32(0x3c00) == 1 && mn__f16_to_f32(0xc000) == -2);
    assert_true(mn__f16_to_f32(0x0001) == 0x1p-24f && mn__f16_to_f32(0x7bff) == 65504);
    assert_true(isinf(mn__f16_to_f32(0x7c00)));
}

/* Between two neighbours: to the nearer one; in the middle to the even one. */
static void test_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7bff; bits++) {
        float low = mn__f16_to_f32((mn__f16)bits), high = mn__f16_to_f32((mn__f16)(bits + 1));
        float middle = low + (high - low) / 2;
        assert_int_equal(mn__f32_to_f16(middle), bits + bits % 2);
        assert_int_equal(mn__f32_to_f16(nextafterf(middle, 0)), bits);
        assert_int_equal(mn__f32_to_f16(-nextafterf(middle, 1e9f)), 0x8000 | (bits + 1));
    }
    assert_int_equal(mn__f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(mn__f32_to_f16(65520), 0x7c00);
}

static void assert_bytes(const void *got, int64_t n, const char *expected)
{
    for (int64_t i = 0; i < n; i++) {
        char byte[3];
        snprintf(byte, sizeof byte, "%02x", ((const unsigned char *)got)[i]);
        assert_memory_equal(byte, expected + 2 * i, 2);
    }
}

/* What ggml's quantize_row_q8_0_ref and quantize_row_q4_0_ref make of a ramp. */
static void test_bytes_of_a_ramp(void **state)
{
    (void)state;
    float x[MN__BLOCK];
    for (int i = 0; i < MN__BLOCK; i++)
        x[i] = ((float)i - 15.5f) / 16;
    mn__block_int8 int8 = mn__block_int8_of(x);
    mn__block_int4 int4 = mn__block_int4_of(x);
    assert_bytes(&int8, sizeof int8,
                 "d01f8189919aa2aab2bac3cbd3dbe3ecf4fc040c141d252d353d464e565e666f777f");
    assert_bytes(&int4, sizeof int4, "c02f809191a2a2b3b3c4c4d5d5e6e6f7f7f8");
}

static void test_errors_are_half_a_step(void **state)
{
    (void)state;
    float x[MN__BLOCK];
    for (int turn = 0; turn < 200; turn++) {
        for (int i = 0; i < MN__BLOCK; i++)
            x[i] = sinf((float)(turn * 37 + i * i)) * exp2f((float)(turn % 30 - 20));
        mn__block_int8 int8 = mn__block_int8_of(x);
        mn__block_int4 int4 = mn__block_int4_of(x);
        float wide = mn__f16_to_f32(int8.scale), narrow = mn__f16_to_f32(int4.scale);
        for (int i = 0; i < MN__BLOCK; i++) {
            float tiny = 127 * 0x1p-25f; /* what a scale below 2^-14 lacks in precision */
            assert_true(fabsf(x[i] - wide * int8.q[i]) <= 0.57f * wide + tiny);
            /* On the side away from the furthest number there are seven steps, not eight. */
            assert_true(fabsf(x[i] - narrow * (float)mn__block_int4_at(&int4, i)) <=
                        1.01f * fabsf(narrow) + tiny);
        }
    }
}

static void test_zeros(void **state)
{
    (void)state;
    const float x[MN__BLOCK] = {0};
    mn__block_int8 int8 = mn__block_int8_of(x);
    mn__block_int4 int4 = mn__block_int4_of(x);
    assert_true(mn__f16_to_f32(int8.scale) == 0 && mn__f16_to_f32(int4.scale) == 0);
    for (int i = 0; i < MN__BLOCK; i++)
        assert_int_equal(int8.q[i], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_and_back),    cmocka_unit_test(test_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_bytes_of_a_ramp), cmocka_unit_test(test_errors_are_half_a_step),
        cmocka_unit_test(test_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
