/* The arithmetic of perplexities, and the ranges of positions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "eval/perplexity.h"

static void published(void **state)
{
    (void)state;
    const int64_t words = 6966499; /* PG-19's test split */
    assert_float_equal(mn__perplexity((double)words * log(33.6), words), 33.6, 1e-9);
    /* Block-Recurrent: 3.22 bits a token and 1.468 tokens a word are 26.5. */
    assert_float_equal(mn__perplexity(3.22 * log(2) * 1468, 1000), 26.5, 0.05);
    assert_float_equal(mn__bits_per(8 * log(2), 4), 2, 1e-12);
    assert_true(isinf(mn__perplexity(1e9, 1)));
}

/* Every position lies in exactly one range, ranges follow each other, and none
 * is longer than half of what came before. */
static void ranges(void **state)
{
    (void)state;
    int last = -1;
    for (int64_t p = 0; p < 100000; p++) {
        int range = mn__position_range(p);
        assert_true(range == last || range == last + 1);
        assert_int_equal(mn__position_first(range) == p, range != last);
        last = range;
    }
    for (int range = 2; range + 1 < MN__POSITION_RANGES; range++) {
        int64_t first = mn__position_first(range), next = mn__position_first(range + 1);
        assert_true(next > first && next - first <= (first + 1) / 2);
        assert_int_equal(mn__position_range(first), range);
        assert_int_equal(mn__position_range(next - 1), range);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published), cmocka_unit_test(ranges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
