/* Byte-pair encoding and the unigram model on random vocabularies: the fast merges against the
 * plain ones, the best cut against all cuts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "text/bpe.h"
#include "text/unigram.h"

/* Letters a..d and random merges of what is there. */
static void make_bpe(mn__bpe *bpe, uint64_t seed, int merges)
{
    char tokens[128][64] = {"a", "b", "c", "d"};
    int count = 4;
    mn__random_key key = {.seed = seed};
    mn__bpe_init(bpe);
    bpe->byte_level = true;
    for (int i = 0; i < 4; i++)
        assert_int_equal(mn__bpe_add_token(bpe, tokens[i], 1, i, NULL), MN_OK);
    for (uint64_t i = 0, rank = 0; i < (uint64_t)merges; i++) {
        const char *left = tokens[mn__random_below(key, 2 * i, (uint64_t)count)];
        const char *right = tokens[mn__random_below(key, 2 * i + 1, (uint64_t)count)];
        if (strlen(left) + strlen(right) > 12)
            continue;
        char joined[64];
        snprintf(joined, sizeof joined, "%s%s", left, right);
        if (mn__bpe_find(bpe, joined, (int64_t)strlen(joined)) < 0) {
            memcpy(tokens[count], joined, sizeof joined);
            assert_int_equal(mn__bpe_add_token(bpe, joined, (int64_t)strlen(joined), count, NULL),
                             MN_OK);
            count++;
        }
        assert_int_equal(mn__bpe_add_merge(bpe, left, (int64_t)strlen(left), right,
                                           (int64_t)strlen(right), (int32_t)rank++, NULL),
                         MN_OK);
    }
}

static void fast_merges_equal_plain_ones(void **state)
{
    (void)state;
    mn__bpe_scratch scratch = {0};
    mn__ids ids = {0};
    for (uint64_t round = 0; round < 400; round++) {
        mn__bpe bpe;
        make_bpe(&bpe, round, 40);
        mn__random_key key = {.seed = 1000 + round};
        for (uint64_t trial = 0; trial < 6; trial++) {
            char text[400];
            int32_t plain[400], many[400];
            int64_t count = 1 + (int64_t)mn__random_below(key, 1000 * trial, trial < 4 ? 40 : 400);
            for (int64_t i = 0; i < count; i++) {
                plain[i] = many[i] =
                    (int32_t)mn__random_below(key, 1000 * trial + 1 + (uint64_t)i, 4);
                text[i] = (char)('a' + plain[i]);
            }
            int64_t a = mn__bpe_merge_few(&bpe, plain, count);
            assert_int_equal(mn__bpe_merge_many(&bpe, &scratch, many, count), a);
            assert_memory_equal(plain, many, (size_t)a * sizeof *plain);
            mn__ids_clear(&ids); /* and the third, which encoding takes for short ones */
            assert_int_equal(mn__bpe_encode(&bpe, &scratch, text, count, &ids, NULL), MN_OK);
            assert_int_equal(ids.count, a);
            assert_memory_equal(plain, ids.id, (size_t)a * sizeof *plain);
        }
        mn__bpe_free(&bpe);
    }
    mn__ids_free(&ids);
    mn__bpe_scratch_free(&scratch);
}

static void a_merge_of_what_is_not_there_is_refused(void **state)
{
    (void)state;
    mn__bpe bpe;
    mn_error error;
    make_bpe(&bpe, 1, 0);
    assert_int_equal(mn__bpe_add_merge(&bpe, "a", 1, "x", 1, 7, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "merge 7"));
    assert_int_equal(mn__bpe_add_merge(&bpe, "a", 1, "b", 1, 8, &error), MN_ERROR_FORMAT);
    assert_int_equal(mn__bpe_add_token(&bpe, "a", 1, 9, &error), MN_ERROR_FORMAT);
    mn__bpe_free(&bpe);
}

/* The best score of all cuts of text[at..bytes). */
static double best_cut(const char *const *tokens, const double *scores, int count, double unknown,
                       const char *text)
{
    if (!*text)
        return 0;
    double best = -INFINITY;
    bool single = false;
    for (int i = 0; i < count; i++) {
        size_t length = strlen(tokens[i]);
        if (strncmp(tokens[i], text, length))
            continue;
        best = fmax(best, scores[i] + best_cut(tokens, scores, count, unknown, text + length));
        single |= length == 1;
    }
    return single ? best : fmax(best, unknown + best_cut(tokens, scores, count, unknown, text + 1));
}

static void unigram_finds_the_best_cut(void **state)
{
    (void)state;
    static const char *const tokens[] = {"<unk>", "a", "b", "ab", "ba", "abc", "aab", "bb", "cab"};
    enum { COUNT = sizeof tokens / sizeof *tokens };
    mn__unigram_scratch scratch = {0};
    mn__ids ids = {0};
    for (uint64_t round = 0; round < 300; round++) {
        mn__unigram unigram = {.unknown = 0};
        mn__random_key key = {.seed = round};
        double scores[COUNT], least = 0;
        char text[12];
        for (uint64_t i = 0; i < COUNT; i++) {
            scores[i] = -0.01 * (double)mn__random_below(key, i, 1000);
            least = fmin(least, scores[i]);
            assert_int_equal(
                mn__unigram_add(&unigram, tokens[i], (int64_t)strlen(tokens[i]), scores[i], NULL),
                MN_OK);
        }
        int64_t bytes = 1 + (int64_t)mn__random_below(key, 100, 10);
        for (int64_t i = 0; i < bytes; i++)
            text[i] = (char)('a' + mn__random_below(key, 200 + (uint64_t)i, 3));
        text[bytes] = '\0';
        mn__ids_clear(&ids);
        assert_int_equal(mn__unigram_encode(&unigram, &scratch, text, bytes, &ids, NULL), MN_OK);
        /* No token is a lone c: each unknown in the result is at least one. */
        double expected = best_cut(tokens, scores, COUNT, least - 10, text), got = 0;
        int64_t at = 0;
        for (int64_t i = 0; i < ids.count; i++) {
            if (ids.id[i] == 0) {
                for (; text[at] == 'c' &&
                       (i + 1 == ids.count ||
                        strncmp(text + at, tokens[ids.id[i + 1]], strlen(tokens[ids.id[i + 1]])));
                     at++)
                    got += least - 10;
                continue;
            }
            size_t length = strlen(tokens[ids.id[i]]);
            assert_int_equal(strncmp(text + at, tokens[ids.id[i]], length), 0);
            got += scores[ids.id[i]];
            at += (int64_t)length;
        }
        assert_int_equal(at, bytes);
        assert_true(fabs(got - expected) < 1e-9);
        mn__unigram_free(&unigram);
    }
    mn__ids_free(&ids);
    mn__unigram_scratch_free(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_merges_equal_plain_ones),
        cmocka_unit_test(a_merge_of_what_is_not_there_is_refused),
        cmocka_unit_test(unigram_finds_the_best_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
