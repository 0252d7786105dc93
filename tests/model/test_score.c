/* Scoring: every token once whatever the way, the same nats where the same past
 * is seen, whatever the rows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/prepare.h"
#include "eval/score.h"
#include "support/folder.h"

enum { DOCUMENTS = 5, MOST = 200 };
static const int64_t lengths[DOCUMENTS] = {1, 31, 64, 65, 150};

static mn__dataset *dataset;
static mn__device device;
static mn__params params;
static mn__decoder *decoder;
static mn__arena arena;

static void make_data(const char *folder)
{
    char text[MOST + 1] = "";
    for (int d = 0; d < DOCUMENTS; d++) {
        for (int i = 0; i < lengths[d]; i++)
            text[i] = (char)('a' + (i * (d + 3) + i * i / 7) % 23);
        folder_write(folder_path(folder, "texts/%d.txt", d), text, lengths[d]);
    }
    mn__prepare_config config;
    assert_int_equal(mn__options_default(mn__prepare_options, &config, &arena, NULL), MN_OK);
    const char *name = folder_path(folder, "texts");
    config.data = (mn__string_list){&name, 1};
    config.out = folder_path(folder, "data");
    mn_error error;
    if (mn__prepare(&config, NULL, NULL, &error) != MN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(mn__dataset_open(&dataset, config.out, NULL), MN_OK);
}

static int make(void **state)
{
    folder_make(state);
    mn__arena_init(&arena, 0);
    make_data(*state);
    static const char recipe[] = "model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5}\n"
                                 "attention: {type: xl, memory: 16}\n";
    mn__yaml_node *root;
    mn_error error;
    assert_int_equal(mn__yaml_parse(&arena, "r", recipe, sizeof recipe - 1, &root, NULL), MN_OK);
    assert_int_equal(mn__device_open(&device, NULL), MN_OK);
    mn__params_init(&params, &device, 3);
    if (mn__decoder_new(&decoder, &params, mn__yaml_get(root, "model"),
                        mn__yaml_get(root, "attention"), 256, 16, &error) != MN_OK)
        fail_msg("%s", error.message);
    return 0;
}

static int unmake(void **state)
{
    mn__decoder_free(decoder);
    mn__params_free(&params);
    mn__device_close(&device);
    mn__dataset_close(dataset);
    mn__arena_free(&arena);
    return folder_remove(state);
}

typedef struct seen {
    int64_t next[DOCUMENTS];
    bool ended[DOCUMENTS];
    float nats[DOCUMENTS][MOST];
} seen;

static mn_status take(void *user, int64_t document, int64_t position, int64_t count,
                      const int32_t *ids, const float *nats, mn_error *error)
{
    (void)error;
    seen *to = user;
    assert_int_equal(position, to->next[document]); /* in order, none twice */
    int32_t expected[MOST];
    assert_int_equal(mn__dataset_tokens(dataset, document, position, count, expected, NULL), MN_OK);
    assert_memory_equal(ids, expected, (size_t)count * sizeof *ids);
    memcpy(to->nats[document] + position, nats, (size_t)count * sizeof *nats);
    to->next[document] += count;
    return MN_OK;
}

static mn_status end(void *user, int64_t document, mn_error *error)
{
    (void)error;
    seen *to = user;
    assert_false(to->ended[document]);
    assert_int_equal(to->next[document], mn__dataset_at(dataset, document)->tokens);
    to->ended[document] = true;
    return MN_OK;
}

static seen score(mn__score_config config)
{
    static const int64_t every[DOCUMENTS] = {0, 1, 2, 3, 4};
    config.documents = every;
    config.count = DOCUMENTS;
    config.segment = 16;
    seen out = {0};
    mn_error error;
    const mn__score_sink sink = {take, end, &out};
    if (mn__score(decoder, &params, dataset, &config, &sink, NULL, &error) != MN_OK)
        fail_msg("%s", error.message);
    for (int d = 0; d < DOCUMENTS; d++)
        assert_true(out.ended[d]);
    return out;
}

/* Equal within float32 sums in another order. */
static bool same(const seen *a, const seen *b, int64_t document, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++)
        if (fabsf(a->nats[document][i] - b->nats[document][i]) > 1e-4f)
            return false;
    return true;
}

static void rows_do_not_matter(void **state)
{
    (void)state;
    seen one = score((mn__score_config){.way = MN__WAY_CARRIED, .rows = 1});
    for (int64_t rows = 2; rows <= 7; rows++) {
        seen many = score((mn__score_config){.way = MN__WAY_CARRIED, .rows = rows});
        for (int d = 0; d < DOCUMENTS; d++)
            assert_true(same(&one, &many, d, 0, mn__dataset_at(dataset, d)->tokens));
    }
}

static void memory_matters(void **state)
{
    (void)state;
    seen carried = score((mn__score_config){.way = MN__WAY_CARRIED, .rows = 3});
    seen cleared = score((mn__score_config){.way = MN__WAY_CLEARED, .rows = 3});
    assert_true(same(&carried, &cleared, 4, 0, 16)); /* the first segment has no past */
    assert_false(same(&carried, &cleared, 4, 16, 32));
}

/* Each token once under any window and stride; the first window is the
 * document's beginning as it is read with the state carried. */
static void windows(void **state)
{
    (void)state;
    seen carried = score((mn__score_config){.way = MN__WAY_CARRIED, .rows = 2});
    for (int64_t window = 1; window <= 80; window += 13)
        for (int64_t stride = 1; stride <= window; stride += 1 + window / 3) {
            seen slid = score((mn__score_config){
                .way = MN__WAY_WINDOW, .window = window, .stride = stride, .rows = 3});
            for (int d = 0; d < DOCUMENTS; d++) {
                int64_t tokens = mn__dataset_at(dataset, d)->tokens;
                assert_true(same(&carried, &slid, d, 0, window < tokens ? window : tokens));
            }
        }
}

static void contradictions(void **state)
{
    (void)state;
    mn_error error;
    const mn__score_sink sink = {take, end, NULL};
    mn__score_config config = {.way = MN__WAY_WINDOW, .window = 8, .stride = 9, .rows = 1};
    assert_int_equal(mn__score(decoder, &params, dataset, &config, &sink, NULL, &error),
                     MN_ERROR_USAGE);
    config.stride = 0;
    assert_int_equal(mn__score(decoder, &params, dataset, &config, &sink, NULL, &error),
                     MN_ERROR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_do_not_matter),
        cmocka_unit_test(memory_matters),
        cmocka_unit_test(windows),
        cmocka_unit_test(contradictions),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
