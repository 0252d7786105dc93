/* Random numbers: the published answers of Philox4x32-10 (Random123,
 * tests/kat_vectors), moments, and independence of how the work is split. */
#include "unit/faults.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

static void known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint32_t *c = cases[i].counter, *k = cases[i].key;
        mn__random_key key = {.seed = (uint64_t)k[1] << 32 | k[0], .step = c[2], .operation = c[3]};
        uint32_t out[4];
        mn__random_block(key, (uint64_t)c[1] << 32 | c[0], out);
        assert_memory_equal(out, cases[i].answer, sizeof out);
    }
}

static void every_part_of_the_key_matters(void **state)
{
    (void)state;
    const mn__random_key keys[] = {
        {1, 2, 3},
        {2, 2, 3},
        {1, 3, 3},
        {1, 2, 4},
        {1 + (UINT64_C(1) << 40), 2, 3},
        {1, 2 + (UINT64_C(1) << 32), 3},
    };
    const size_t n = sizeof keys / sizeof *keys;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(mn__random_uniform(keys[i], 5) != mn__random_uniform(keys[j], 5));
}

enum { DRAWS = 100000 };

/* Bounds are five standard errors. */
static void uniform_moments(void **state)
{
    (void)state;
    mn__random_key key = {.seed = 7};
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = mn__random_uniform(key, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
    }
    assert_true(fabs(sum / DRAWS - 0.5) < 5 * sqrt(1. / 12 / DRAWS));
    assert_true(fabs(squares / DRAWS - 1. / 3) < 5 * sqrt(4. / 45 / DRAWS));
}

static void normal_moments(void **state)
{
    (void)state;
    static float out[DRAWS];
    mn__random_key key = {.seed = 7, .operation = 1};
    mn__random_fill_normal(key, 1, out, DRAWS);
    double powers[5] = {0};
    for (int i = 0; i < DRAWS; i++)
        for (int p = 1; p <= 4; p++)
            powers[p] += pow(out[i], p) / DRAWS;
    assert_true(fabs(powers[1]) < 5 * sqrt(1. / DRAWS));
    assert_true(fabs(powers[2] - 1) < 5 * sqrt(2. / DRAWS));
    assert_true(fabs(powers[3]) < 5 * sqrt(15. / DRAWS));
    assert_true(fabs(powers[4] - 3) < 5 * sqrt(96. / DRAWS));
    for (int64_t i = 0; i < 103; i++) /* one by one gives the same */
        assert_true(mn__random_normal(key, (uint64_t)i) == out[i]);
    float part[7];
    mn__random_fill_normal(key, 0.5F, part, 7);
    for (int i = 0; i < 7; i++)
        assert_true(part[i] == 0.5F * out[i]);
}

static void below_is_even(void **state)
{
    (void)state;
    int seen[10] = {0};
    mn__random_key key = {.seed = 3};
    for (uint64_t i = 0; i < DRAWS; i++)
        seen[mn__random_below(key, i, 10)]++;
    for (int i = 0; i < 10; i++)
        assert_true(abs(seen[i] - DRAWS / 10) < 5 * sqrt(DRAWS * 0.09));
    assert_int_equal(mn__random_below(key, 0, 1), 0);
    assert_true(mn__random_below(key, 1, UINT64_MAX) < UINT64_MAX);
}

static void permutes(void **state)
{
    (void)state;
    enum { N = 1000 };
    int64_t out[N], again[N];
    int seen[N] = {0}, fixed = 0;
    mn__random_permutation((mn__random_key){.seed = 1}, out, N);
    mn__random_permutation((mn__random_key){.seed = 1}, again, N);
    assert_memory_equal(out, again, sizeof out);
    for (int i = 0; i < N; i++) {
        assert_in_range(out[i], 0, N - 1);
        seen[out[i]]++;
        fixed += out[i] == i;
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(seen[i], 1);
    assert_true(fixed < 10); /* Poisson with mean 1 */
    mn__random_permutation((mn__random_key){.seed = 2}, again, N);
    assert_memory_not_equal(out, again, sizeof out);
    mn__random_permutation((mn__random_key){.seed = 1}, out, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),   cmocka_unit_test(every_part_of_the_key_matters),
        cmocka_unit_test(uniform_moments), cmocka_unit_test(normal_moments),
        cmocka_unit_test(below_is_even),   cmocka_unit_test(permutes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
