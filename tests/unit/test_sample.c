/* Samplers: what each rule keeps, ties, edges, and the distribution drawn. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "eval/sample.h"

static const mn__sample_options plain = {.temperature = 1, .top_p = 1, .seed = 7};

/* The ids kept, as text: "2,0,1". */
static void check_kept(mn__sample_options options, const float *logits, int64_t n,
                       const char *expected)
{
    mn__sampler sampler;
    char text[128] = "";
    double sum = 0;
    assert_int_equal(mn__sampler_open(&sampler, &options, n, NULL), MN_OK);
    int64_t kept = mn__sampler_keep(&sampler, logits);
    for (int64_t i = 0; i < kept; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d", i ? "," : "",
                 (int)sampler.candidate[i].id);
        sum += sampler.candidate[i].p;
    }
    assert_string_equal(text, expected);
    if (kept)
        assert_float_equal(sum, 1.0, 1e-12);
    mn__sampler_close(&sampler);
}

/* Logits of the probabilities .1 .4 .2 .3 */
static float logits[4];

static int make(void **state)
{
    (void)state;
    const double p[] = {0.1, 0.4, 0.2, 0.3};
    for (int i = 0; i < 4; i++)
        logits[i] = (float)log(p[i]);
    return 0;
}

static void keeps(void **state)
{
    (void)state;
    mn__sample_options o = plain;
    check_kept(o, logits, 4, "0,1,2,3");
    o.top_k = 2;
    check_kept(o, logits, 4, "1,3");
    o.top_k = 100;
    check_kept(o, logits, 4, "0,1,2,3");
    o.top_p = 0.999; /* all, sorted */
    check_kept(o, logits, 4, "1,3,2,0");
    o = plain;
    o.top_p = 0.69; /* .4 is not enough, .4 + .3 is */
    check_kept(o, logits, 4, "1,3");
    o.top_p = 0; /* never nothing */
    check_kept(o, logits, 4, "1");
    o.top_p = 0.71;
    check_kept(o, logits, 4, "1,3,2");
    o = plain;
    o.min_p = 0.6; /* of .4: .24 */
    check_kept(o, logits, 4, "1,3");
    o.min_p = 1;
    check_kept(o, logits, 4, "1");
    o = plain;
    o.temperature = 0;
    check_kept(o, logits, 4, "1");
    o = plain;
    o.top_k = 3;
    o.top_p = 0.75; /* of the three kept, renormalised: 4/9 + 3/9 = .78 */
    check_kept(o, logits, 4, "1,3");
}

static void ties(void **state)
{
    (void)state;
    const float equal[] = {2, 5, 5, 5, 1};
    mn__sample_options o = plain;
    o.top_k = 2;
    check_kept(o, equal, 5, "1,2");
    o = plain;
    o.temperature = 0;
    check_kept(o, equal, 5, "1");
    o = plain;
    o.min_p = 1;
    check_kept(o, equal, 5, "1,2,3");
}

static void edges(void **state)
{
    (void)state;
    const float one[] = {-3}, huge[] = {-3e38f, 3e38f, 0}, masked[] = {-INFINITY, 1, -INFINITY},
                none[] = {-INFINITY, -INFINITY}, nan[] = {0, NAN}, infinite[] = {0, INFINITY};
    check_kept(plain, one, 1, "0");
    check_kept(plain, huge, 3, "1");
    check_kept(plain, masked, 3, "1");
    check_kept(plain, none, 2, "");
    check_kept(plain, nan, 2, "");
    check_kept(plain, infinite, 2, "");
    mn__sample_options cold = plain;
    cold.temperature = 1e-30;
    check_kept(cold, logits, 4, "1");
    mn__sampler sampler;
    assert_int_equal(mn__sampler_open(&sampler, &plain, 2, NULL), MN_OK);
    assert_int_equal(mn__sampler_next(&sampler, nan), -1);
    mn__sampler_close(&sampler);
}

/* Of a large vocabulary: in order, nothing more probable left out, no id twice. */
static void check_order(mn__sample_options options, const float *from, int64_t n, int64_t least,
                        int64_t most)
{
    mn__sampler sampler;
    bool seen[1000] = {false};
    assert_int_equal(mn__sampler_open(&sampler, &options, n, NULL), MN_OK);
    int64_t kept = mn__sampler_keep(&sampler, from);
    assert_in_range(kept, least, most);
    for (int64_t i = 0; i < kept; i++) {
        int32_t id = sampler.candidate[i].id, last = i ? sampler.candidate[i - 1].id : id;
        assert_false(seen[id]);
        seen[id] = true;
        assert_true(from[id] < from[last] || (from[id] == from[last] && id >= last));
    }
    int32_t last = sampler.candidate[kept - 1].id;
    for (int64_t i = 0; i < n; i++)
        assert_true(seen[i] || from[i] < from[last] || (from[i] == from[last] && i > last));
    mn__sampler_close(&sampler);
}

static void orders(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    float many[MANY];
    uint32_t random = 1;
    for (int i = 0; i < MANY; i++) {
        random = random * 1664525u + 1013904223u;
        many[i] = (float)(random >> 24) / 64; /* with ties */
    }
    mn__sample_options o = plain;
    for (o.top_k = 1; o.top_k < MANY; o.top_k += 37)
        check_order(o, many, MANY, o.top_k, o.top_k);
    check_order((mn__sample_options){.temperature = 1, .top_p = 0.5}, many, MANY, 2, MANY / 2);
    check_order((mn__sample_options){.temperature = 1, .top_p = 0.9999}, many, MANY, MANY / 2,
                MANY);
}

/* Chi squared with 3 degrees of freedom is below 16.27 with probability .999;
 * the seed is fixed, so this either always holds or never. */
static void distribution(void **state)
{
    (void)state;
    enum { DRAWS = 20000 };
    const double p[] = {0.1, 0.4, 0.2, 0.3};
    int64_t count[4] = {0};
    mn__sampler sampler;
    assert_int_equal(mn__sampler_open(&sampler, &plain, 4, NULL), MN_OK);
    for (int i = 0; i < DRAWS; i++)
        count[mn__sampler_next(&sampler, logits)]++;
    mn__sampler_close(&sampler);
    double chi = 0;
    for (int i = 0; i < 4; i++)
        chi += pow((double)count[i] - DRAWS * p[i], 2) / (DRAWS * p[i]);
    assert_true(chi < 16.27);
}

static void seeds(void **state)
{
    (void)state;
    int32_t drawn[3][64];
    for (int run = 0; run < 3; run++) {
        mn__sample_options options = plain;
        options.seed = run == 2 ? 8 : 7;
        mn__sampler sampler;
        assert_int_equal(mn__sampler_open(&sampler, &options, 4, NULL), MN_OK);
        for (int i = 0; i < 64; i++)
            drawn[run][i] = mn__sampler_next(&sampler, logits);
        mn__sampler_close(&sampler);
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    assert_memory_not_equal(drawn[0], drawn[2], sizeof drawn[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps),  cmocka_unit_test(ties),  cmocka_unit_test(edges),
        cmocka_unit_test(orders), cmocka_unit_test(seeds), cmocka_unit_test(distribution),
    };
    return cmocka_run_group_tests(tests, make, NULL);
}
