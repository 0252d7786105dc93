/* Batches: both styles against a plain model of them, every target exactly once,
 * starts, the cursor at every step, ranks, shuffling, the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "data/batch.h"
#include "data/prepare.h"
#include "support/folder.h"

/* Document i has lengths[i] bytes; byte j of it is letter_of(i, j). */
static const int lengths[] = {10, 0, 23, 1, 8, 40, 17};
enum { DOCUMENTS = sizeof lengths / sizeof *lengths, LONGEST = 40 };

static char letter_of(int document, int at)
{
    return (char)('A' + (document * 13 + at * 5) % 60);
}

static mn__dataset *dataset;

static int make_dataset(void **state)
{
    folder_make(state);
    const char *name = folder_path(*state, "texts"), *out = folder_path(*state, "set");
    for (int i = 0; i < DOCUMENTS; i++) {
        char text[LONGEST];
        for (int j = 0; j < lengths[i]; j++)
            text[j] = letter_of(i, j);
        folder_write(folder_path(name, "%d.txt", i), text, lengths[i]);
    }
    mn__prepare_config config = {
        .data = {&name, 1}, .out = out, .tokenizer = "bytes", .shard_tokens = 30};
    mn_error error = {0};
    if (mn__prepare(&config, NULL, NULL, &error) || mn__dataset_open(&dataset, out, &error))
        fail_msg("%s", error.message);
    return 0;
}

static int remove_dataset(void **state)
{
    mn__dataset_close(dataset);
    return folder_remove(state);
}

static mn__batcher *new_batcher(mn__batcher_config config)
{
    mn__batcher *batcher = NULL;
    mn_error error = {0};
    if (mn__batcher_new(&batcher, dataset, &config, &error))
        fail_msg("%s", error.message);
    return batcher;
}

static bool next(mn__batcher *batcher, mn__batch *batch)
{
    bool more;
    mn_error error = {0};
    if (mn__batcher_next(batcher, batch, &more, &error))
        fail_msg("%s", error.message);
    return more;
}

static mn__batch new_batch(mn__arena *arena, int64_t rows, int64_t length)
{
    mn__batch batch;
    assert_int_equal(mn__batch_new(&batch, arena, rows, length, NULL), MN_OK);
    return batch;
}

static void expect_padding(const mn__batch *batch, int64_t row)
{
    for (int64_t t = 0; t < batch->length; t++) {
        int64_t at = row * batch->length + t;
        assert_true(batch->weights[at] == (t < batch->valid[row] ? 1.0f : 0.0f));
        if (t >= batch->valid[row])
            assert_true(batch->ids[at] == 0 && batch->targets[at] == 0);
    }
}

static int64_t count_scored(const mn__batch *batch)
{
    int64_t scored = 0;
    for (int64_t i = 0; i < batch->rows * batch->length; i++)
        scored += batch->weights[i] != 0;
    return scored;
}

/* Transformer-XL's iterator, written out: the stream reshaped to B rows. */
static void contiguous_rows(void **state)
{
    (void)state;
    int32_t stream[200];
    int64_t total = 0;
    for (int i = 0; i < DOCUMENTS; i++)
        for (int j = 0; j < lengths[i]; j++)
            stream[total++] = letter_of(i, j);
    for (int64_t rows = 1; rows <= 4; rows++)
        for (int64_t length = 1; length <= 30; length += 7) {
            mn__arena arena;
            mn__arena_init(&arena, 0);
            mn__batch batch = new_batch(&arena, rows, length);
            mn__batcher *batcher = new_batcher((mn__batcher_config){
                .style = MN__BATCH_CONTIGUOUS, .rows = rows, .length = length, .once = true});
            int64_t n = total / rows, scored = 0;
            for (int64_t at = 0; at < n - 1; at += length) {
                assert_true(next(batcher, &batch));
                int64_t valid = n - 1 - at < length ? n - 1 - at : length;
                for (int64_t row = 0; row < rows; row++) {
                    assert_int_equal(batch.valid[row], valid);
                    assert_int_equal(batch.start[row], at == 0);
                    assert_memory_equal(batch.ids + row * length, stream + row * n + at,
                                        (size_t)valid * 4);
                    assert_memory_equal(batch.targets + row * length, stream + row * n + at + 1,
                                        (size_t)valid * 4);
                    int first = letter_of((int)batch.document[row], (int)batch.position[row]);
                    assert_int_equal(first, batch.targets[row * length]);
                    expect_padding(&batch, row);
                }
                scored += count_scored(&batch);
            }
            assert_false(next(batcher, &batch));
            assert_int_equal(count_scored(&batch), 0);
            assert_int_equal(scored, mn__batcher_epoch_tokens(batcher));
            assert_int_equal(scored, mn__batcher_cursor(batcher)->tokens);
            mn__batcher_free(batcher);
            mn__arena_free(&arena);
        }
}

static void a_document_per_row_scores_each_token_once(void **state)
{
    (void)state;
    for (int64_t rows = 1; rows <= 9; rows++)
        for (int64_t length = 1; length <= 50; length += 7) {
            int seen[DOCUMENTS][LONGEST] = {0};
            int64_t place[9][2]; /* a row's document and how far it was read */
            mn__arena arena;
            mn__arena_init(&arena, 0);
            mn__batch batch = new_batch(&arena, rows, length);
            mn__batcher *batcher = new_batcher((mn__batcher_config){
                .style = MN__BATCH_DOCUMENTS, .rows = rows, .length = length, .once = true});
            while (next(batcher, &batch))
                for (int64_t row = 0; row < rows; row++) {
                    int64_t document = batch.document[row], first = batch.position[row];
                    expect_padding(&batch, row);
                    if (batch.valid[row] == 0) {
                        assert_true(document == -1 && !batch.start[row]);
                        continue;
                    }
                    assert_int_equal(batch.start[row], first == 0);
                    if (first > 0) /* the state goes on */
                        assert_true(place[row][0] == document && place[row][1] == first);
                    for (int64_t t = 0; t < batch.valid[row]; t++) {
                        int at = (int)(first + t);
                        seen[document][at]++;
                        assert_int_equal(batch.targets[row * length + t],
                                         letter_of((int)document, at));
                        assert_int_equal(batch.ids[row * length + t],
                                         at ? letter_of((int)document, at - 1) : '\n');
                    }
                    place[row][0] = document;
                    place[row][1] = first + batch.valid[row];
                }
            for (int i = 0; i < DOCUMENTS; i++)
                for (int j = 0; j < LONGEST; j++)
                    assert_int_equal(seen[i][j], j < lengths[i]);
            mn__batcher_free(batcher);
            mn__arena_free(&arena);
        }
}

static void a_given_list_is_read_in_its_order(void **state)
{
    (void)state;
    static const int64_t list[] = {5, 1, 3, 2};
    static const int64_t expected[] = {5, 5, 5, 5, 3, 2, 2, 2};
    mn__arena arena;
    mn__arena_init(&arena, 0);
    mn__batch batch = new_batch(&arena, 1, 10);
    mn__batcher *batcher = new_batcher((mn__batcher_config){.style = MN__BATCH_DOCUMENTS,
                                                            .documents = list,
                                                            .document_count = 4,
                                                            .rows = 1,
                                                            .length = 10,
                                                            .once = true});
    assert_int_equal(mn__batcher_epoch_tokens(batcher), 64);
    for (size_t i = 0; i < 8; i++) {
        assert_true(next(batcher, &batch));
        assert_int_equal(batch.document[0], expected[i]);
    }
    assert_false(next(batcher, &batch));
    mn__batcher_free(batcher);
    mn__arena_free(&arena);
}

static void expect_equal_rows(const mn__batch *a, const mn__batch *b, int64_t b_first)
{
    size_t cells = (size_t)(b->rows * b->length);
    int64_t from = b_first * a->length;
    assert_memory_equal(a->ids + from, b->ids, cells * sizeof *a->ids);
    assert_memory_equal(a->targets + from, b->targets, cells * sizeof *a->targets);
    assert_memory_equal(a->weights + from, b->weights, cells * sizeof *a->weights);
    assert_memory_equal(a->start + b_first, b->start, (size_t)b->rows * sizeof *a->start);
    assert_memory_equal(a->valid + b_first, b->valid, (size_t)b->rows * sizeof *a->valid);
    assert_memory_equal(a->document + b_first, b->document, (size_t)b->rows * sizeof *a->document);
    assert_memory_equal(a->position + b_first, b->position, (size_t)b->rows * sizeof *a->position);
}

static void a_restored_cursor_goes_on_alike(void **state)
{
    (void)state;
    for (int style = 0; style < 2; style++)
        for (int before = 0; before < 40; before++) {
            mn__arena arena;
            mn__arena_init(&arena, 0);
            mn__batcher_config config = {.style = (mn__batch_style)style,
                                         .rows = 3,
                                         .length = 6,
                                         .shuffle = true,
                                         .seed = 9};
            mn__batch a = new_batch(&arena, 3, 6), b = new_batch(&arena, 3, 6);
            mn__batcher *first = new_batcher(config), *second = new_batcher(config);
            mn__string json = {0};
            for (int i = 0; i < before; i++)
                next(first, &a);
            assert_int_equal(mn__batcher_save(first, &json, NULL), MN_OK);
            assert_int_equal(mn__batcher_load(second, json.text, json.bytes, NULL), MN_OK);
            for (int i = 0; i < 30; i++) {
                assert_true(next(first, &a) && next(second, &b));
                expect_equal_rows(&a, &b, 0);
            }
            assert_int_equal(mn__batcher_cursor(second)->batches, before + 30);
            mn__string_free(&json);
            mn__batcher_free(first);
            mn__batcher_free(second);
            mn__arena_free(&arena);
        }
}

static void a_restarted_batcher_is_a_new_one(void **state)
{
    (void)state;
    for (int style = 0; style < 2; style++)
        for (int before = 1; before < 40; before += 6) {
            mn__arena arena;
            mn__arena_init(&arena, 0);
            mn__batcher_config config = {
                .style = (mn__batch_style)style, .rows = 3, .length = 6, .shuffle = true};
            mn__batch a = new_batch(&arena, 3, 6), b = new_batch(&arena, 3, 6);
            mn__batcher *used = new_batcher(config), *fresh = new_batcher(config);
            for (int i = 0; i < before; i++)
                assert_true(next(used, &a));
            mn__batcher_restart(used);
            for (int i = 0; i < 30; i++) {
                assert_true(next(used, &a) && next(fresh, &b));
                expect_equal_rows(&a, &b, 0);
            }
            assert_int_equal(mn__batcher_cursor(used)->tokens, mn__batcher_cursor(fresh)->tokens);
            mn__batcher_free(used);
            mn__batcher_free(fresh);
            mn__arena_free(&arena);
        }
}

static void cursors_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    mn__batcher_config config = {.style = MN__BATCH_DOCUMENTS, .rows = 2, .length = 6};
    mn__batcher *batcher = new_batcher(config);
    mn__string json = {0};
    mn_error error = {0};
    assert_int_equal(mn__batcher_save(batcher, &json, NULL), MN_OK);
    mn__batcher_free(batcher);
    config.rows = 3;
    batcher = new_batcher(config);
    assert_int_equal(mn__batcher_load(batcher, json.text, json.bytes, &error), MN_ERROR_MISMATCH);
    mn__batcher_free(batcher);
    config.rows = 2;
    batcher = new_batcher(config);
    assert_int_equal(mn__batcher_load(batcher, json.text, json.bytes - 3, &error), MN_ERROR_FORMAT);
    char *row = strstr(json.text, "[-1, 0]");
    memcpy(row, "[1,  9]", 7); /* document 1 is empty */
    assert_int_equal(mn__batcher_load(batcher, json.text, json.bytes, &error), MN_ERROR_FORMAT);
    memcpy(row, "[0, 10]", 7); /* document 0 has 10 tokens */
    assert_int_equal(mn__batcher_load(batcher, json.text, json.bytes, &error), MN_ERROR_FORMAT);
    memcpy(row, "[0,  9]", 7);
    assert_int_equal(mn__batcher_load(batcher, json.text, json.bytes, &error), MN_OK);
    mn__string_free(&json);
    mn__batcher_free(batcher);
}

static void ranks_share_the_rows(void **state)
{
    (void)state;
    for (int style = 0; style < 2; style++) {
        mn__arena arena;
        mn__arena_init(&arena, 0);
        mn__batcher_config config = {
            .style = (mn__batch_style)style, .rows = 4, .length = 5, .shuffle = true, .seed = 3};
        mn__batcher *all = new_batcher(config);
        config.my_rows = 1;
        mn__batcher *first = new_batcher(config);
        config.my_rows = 3;
        config.first_row = 1;
        mn__batcher *rest = new_batcher(config);
        mn__batch whole = new_batch(&arena, 4, 5), one = new_batch(&arena, 1, 5),
                  three = new_batch(&arena, 3, 5);
        for (int i = 0; i < 40; i++) {
            assert_true(next(all, &whole) && next(first, &one) && next(rest, &three));
            expect_equal_rows(&whole, &one, 0);
            expect_equal_rows(&whole, &three, 1);
            assert_int_equal(mn__batcher_cursor(all)->tokens, mn__batcher_cursor(first)->tokens);
        }
        mn__batcher_free(all);
        mn__batcher_free(first);
        mn__batcher_free(rest);
        mn__arena_free(&arena);
    }
}

/* The documents of six epochs, one row, whole documents. */
static void read_order(uint64_t seed, bool shuffle, int64_t order[36])
{
    mn__arena arena;
    mn__arena_init(&arena, 0);
    mn__batch batch = new_batch(&arena, 1, LONGEST);
    mn__batcher *batcher = new_batcher((mn__batcher_config){.style = MN__BATCH_DOCUMENTS,
                                                            .rows = 1,
                                                            .length = LONGEST,
                                                            .shuffle = shuffle,
                                                            .seed = seed});
    for (int i = 0; i < 36; i++) {
        assert_true(next(batcher, &batch));
        order[i] = batch.document[0];
    }
    mn__batcher_free(batcher);
    mn__arena_free(&arena);
}

static void shuffling_is_seeded_and_new_each_epoch(void **state)
{
    (void)state;
    int64_t a[36], b[36], c[36], plain[36];
    read_order(1, true, a);
    read_order(1, true, b);
    read_order(2, true, c);
    read_order(1, false, plain);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    int equal_epochs = 0;
    for (int epoch = 0; epoch < 6; epoch++) {
        int64_t seen = 0;
        for (int i = 0; i < 6; i++)
            seen |= INT64_C(1) << a[epoch * 6 + i];
        assert_int_equal(seen, 0x7D); /* each but the empty one */
        equal_epochs += memcmp(a, a + epoch * 6, 6 * sizeof *a) == 0;
        assert_memory_equal(plain, plain + epoch * 6, 6 * sizeof *a);
    }
    assert_true(equal_epochs < 3);
}

static void too_little_text_is_refused(void **state)
{
    (void)state;
    mn__batcher *batcher;
    mn_error error = {0};
    mn__batcher_config config = {.style = MN__BATCH_CONTIGUOUS, .rows = 50, .length = 4};
    assert_int_equal(mn__batcher_new(&batcher, dataset, &config, &error), MN_ERROR_MISMATCH);
    config.style = MN__BATCH_DOCUMENTS;
    config.split = MN__SPLIT_TEST;
    assert_int_equal(mn__batcher_new(&batcher, dataset, &config, &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "test split"));
}

static mn_status one_epoch(mn_error *error)
{
    mn__batcher_config config = {.style = MN__BATCH_DOCUMENTS, .rows = 2, .length = 9};
    mn__batcher *batcher;
    mn__batch batch;
    mn__arena arena;
    mn__string json = {0};
    bool more;
    mn__arena_init(&arena, 0);
    mn_status status = mn__batch_new(&batch, &arena, 2, 9, error);
    if (!status)
        status = mn__batcher_new(&batcher, dataset, &config, error);
    if (!status) {
        int64_t allocations = mn__memory_now().allocations;
        for (int i = 0; i < 30 && !status; i++)
            status = mn__batcher_next(batcher, &batch, &more, error);
        assert_int_equal(mn__memory_now().allocations, allocations);
        if (!status)
            status = mn__batcher_save(batcher, &json, error);
        mn__batcher_free(batcher);
    }
    mn__string_free(&json);
    mn__arena_free(&arena);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    int64_t blocks = mn__memory_now().blocks, n = 1;
    for (;; n++) {
        mn_error error = {0};
        mn__memory_fail_nth(n);
        mn_status status = one_epoch(&error);
        mn__memory_fail_nth(0);
        assert_int_equal(mn__memory_now().blocks, blocks);
        if (status == MN_OK)
            break;
        assert_int_equal(status, MN_ERROR_MEMORY);
    }
    assert_true(n > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contiguous_rows),
        cmocka_unit_test(a_document_per_row_scores_each_token_once),
        cmocka_unit_test(a_given_list_is_read_in_its_order),
        cmocka_unit_test(a_restored_cursor_goes_on_alike),
        cmocka_unit_test(a_restarted_batcher_is_a_new_one),
        cmocka_unit_test(cursors_that_do_not_fit_are_refused),
        cmocka_unit_test(ranks_share_the_rows),
        cmocka_unit_test(shuffling_is_seeded_and_new_each_epoch),
        cmocka_unit_test(too_little_text_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_dataset, remove_dataset);
}
