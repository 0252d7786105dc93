/* Readings: going back to any token equals, bit for bit, never having read further; what sync
 * does and says; files that are gone on from, damaged ones, ones of something else, ones that
 * lie; forks, more room, an interrupted reading, and every allocation failing in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/threads.h"
#include "reader/reading.h"
#include "reader/session_file.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/model.h"

enum { V = 31, SEGMENT = 8, CHUNK = 16, TOKENS = 60, MORE = 9, CAPACITY = TOKENS + MORE };

/* How the text comes: the calls' lengths. */
static const int64_t calls[] = {7, 30, 1, 1, 5, 16};
enum { CALLS = sizeof calls / sizeof *calls };

static const char *const recipes[] = {
    "model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5}\n"
    "attention: {type: full}\n",
    "model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5}\n"
    "attention: {type: window, window: 9}\n",
    "model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5,\n"
    "  layers: [{layers: [1], type: window, window: 5}]}\n"
    "attention: {type: full}\n",
    "model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5}\n"
    "attention: {type: xl, memory: 11}\n",
    "model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5}\n"
    "attention: {type: compressive, memory: 8, compressed: 6, rate: 2}\n",
};
enum { RECIPES = sizeof recipes / sizeof *recipes, KEEPING = 3 /* full and window, the first */ };

static int32_t ids[CAPACITY];
static const char *folder;

static int setup(void **state)
{
    int status = folder_make(state);
    folder = *state;
    for (int32_t i = 0; i < CAPACITY; i++)
        ids[i] = (i * i / 3 + 5 * i + 2) % V;
    return status;
}

static void open_reading(mn__reading *reading, test_model *model, mn__dtype compute, int64_t budget)
{
    mn_error error;
    const mn__reading_options options = {
        .capacity = CAPACITY, .chunk = CHUNK, .budget = budget, .compute = compute};
    succeed(mn__reading_open(reading, model->decoder, &model->params, &options, &error), &error);
}

/* The text as far as `count`, call by call. */
static void read_calls(mn__reading *reading, int64_t count)
{
    mn_error error;
    int64_t end = 0;
    for (int i = 0; i < CALLS && end < count; i++) {
        end += calls[i];
        end = end < count ? end : count;
        succeed(mn__reading_sync(reading, ids, end, "reading", NULL, NULL, &error), &error);
    }
    assert_int_equal(reading->ids.count, count);
}

/* That two readings stand at one place, and that going on leads to one. */
static void check_same(mn__reading *a, mn__reading *b)
{
    mn_error error;
    for (int step = 0; step < 2; step++) {
        assert_int_equal(a->ids.count, b->ids.count);
        assert_int_equal(a->end_count, b->end_count);
        assert_memory_equal(a->ends, b->ends, (size_t)a->end_count * sizeof *a->ends);
        if (a->ids.count) {
            const float *one = mn__reading_logits(a, &error),
                        *other = mn__reading_logits(b, &error);
            assert_non_null(one);
            assert_non_null(other);
            assert_memory_equal(one, other, V * sizeof *one);
        }
        succeed(mn__reading_add(a, ids + a->ids.count, MORE, &error), &error);
        succeed(mn__reading_add(b, ids + b->ids.count, MORE, &error), &error);
    }
}

/* ---- Going back ---------------------------------------------------------------------------- */

static void check_every_place(const char *recipe, mn__dtype compute, mn__kept kept, int64_t budget)
{
    mn_error error;
    test_model model;
    mn__reading far, near;
    test_model_open(&model, recipe, V, SEGMENT, 3);
    succeed(mn__decoder_keep(model.decoder, kept, &error), &error);
    for (int64_t n = 0; n <= TOKENS - MORE; n++) {
        mn__sync sync;
        open_reading(&far, &model, compute, budget);
        open_reading(&near, &model, compute, budget);
        read_calls(&far, TOKENS);
        read_calls(&near, n);
        succeed(mn__reading_rewind(&far, n, &sync, &error), &error);
        assert_int_equal(sync.reused + sync.read, n);
        assert_int_equal(sync.dropped, TOKENS - n);
        assert_true(budget != 1 ? sync.read < 2 * CHUNK : sync.reused == 0);
        check_same(&far, &near);
        mn__reading_close(&far);
        mn__reading_close(&near);
    }
    test_model_close(&model);
}

static void goes_back(void **state)
{
    (void)state;
    for (int i = 0; i < RECIPES; i++) {
        check_every_place(recipes[i], MN__F32, MN__KEPT_AS_COMPUTED, 0);
        check_every_place(recipes[i], MN__BF16, MN__KEPT_AS_COMPUTED, 0);
        /* no room for a mark: all is read again */
        check_every_place(recipes[i], MN__F32, MN__KEPT_AS_COMPUTED, 1);
    }
}

/* The same of full and window attention, however keys and values are kept. */
static void goes_back_in_every_precision(void **state)
{
    (void)state;
    for (int i = 0; i < KEEPING; i++)
        for (int kept = MN__KEPT_F32; kept <= MN__KEPT_INT8; kept++) {
            check_every_place(recipes[i], MN__F32, (mn__kept)kept, 0);
            check_every_place(recipes[i], MN__BF16, (mn__kept)kept, 0);
        }
}

/* Marks keep to their budget, and the newest stays. */
static void thins_out(void **state)
{
    (void)state;
    mn_error error;
    mn__sync sync;
    test_model model;
    mn__reading reading, near;
    enum { BUDGET = 20000 }; /* some marks of the window's 9 tokens in 2 layers */
    test_model_open(&model, recipes[1], V, SEGMENT, 3);
    open_reading(&reading, &model, MN__F32, BUDGET);
    open_reading(&near, &model, MN__F32, BUDGET);
    for (int64_t n = 1; n <= TOKENS; n++) {
        succeed(mn__reading_sync(&reading, ids, n, "", NULL, &sync, &error), &error);
        assert_int_equal(sync.how, MN__EXTENDED);
        assert_true(reading.mark_bytes <= BUDGET && reading.marks > 0);
        if (n <= 20)
            succeed(mn__reading_sync(&near, ids, n, "", NULL, NULL, &error), &error);
    }
    assert_true(reading.marks < TOKENS);
    succeed(mn__reading_rewind(&reading, 20, &sync, &error), &error);
    check_same(&reading, &near);
    mn__reading_close(&reading);
    mn__reading_close(&near);
    test_model_close(&model);
}

static void says_what_it_did(void **state)
{
    (void)state;
    mn_error error;
    mn__sync sync;
    test_model model;
    mn__reading reading;
    int32_t other[TOKENS];
    memcpy(other, ids, sizeof other);
    other[40] = (other[40] + 1) % V;
    test_model_open(&model, recipes[0], V, SEGMENT, 3);
    open_reading(&reading, &model, MN__F32, 0);
    succeed(mn__reading_sync(&reading, ids, 50, "", NULL, &sync, &error), &error);
    assert_true(sync.how == MN__EXTENDED && sync.reused == 0 && sync.read == 50);
    succeed(mn__reading_sync(&reading, ids, TOKENS, "", NULL, &sync, &error), &error);
    assert_true(sync.how == MN__EXTENDED && sync.reused == 50 && sync.read == 10);
    succeed(mn__reading_sync(&reading, ids, TOKENS, "", NULL, &sync, &error), &error);
    assert_true(sync.how == MN__EXTENDED && sync.reused == TOKENS && sync.read == 0);
    succeed(mn__reading_sync(&reading, other, TOKENS, "", NULL, &sync, &error), &error);
    assert_true(sync.how == MN__REWOUND && sync.reused == 32 && sync.read == 28);
    assert_int_equal(sync.dropped, 20);
    other[3] = (other[3] + 1) % V;
    succeed(mn__reading_sync(&reading, other, TOKENS, "", NULL, &sync, &error), &error);
    assert_true(sync.how == MN__REBUILT && sync.reused == 0 && sync.read == TOKENS);
    assert_int_equal(sync.dropped, TOKENS - 3);
    /* nothing is done where there is no room */
    int32_t many[CAPACITY + 1] = {0};
    assert_int_equal(mn__reading_sync(&reading, many, CAPACITY + 1, "", NULL, &sync, &error),
                     MN_ERROR_MISMATCH);
    assert_int_equal(reading.ids.count, TOKENS);
    mn__reading_close(&reading);
    test_model_close(&model);
}

/* ---- Files --------------------------------------------------------------------------------- */

static void check_saving(const char *recipe, mn__dtype compute, mn__kept kept)
{
    mn_error error;
    test_model model, again;
    mn__reading on, loaded;
    char *first, *second;
    int64_t bytes, same;
    const char *path = folder_path(folder, "saved"), *twice = folder_path(folder, "twice");
    test_model_open(&model, recipe, V, SEGMENT, 3);
    test_model_open(&again, recipe, V, SEGMENT, 3);
    succeed(mn__decoder_keep(model.decoder, kept, &error), &error);
    succeed(mn__decoder_keep(again.decoder, kept, &error), &error);
    open_reading(&on, &model, compute, 0);
    read_calls(&on, 37);
    succeed(mn__reading_save(&on, path, "weights", NULL, &error), &error);
    const mn__reading_options roomy = {
        .capacity = 2 * CAPACITY, .chunk = CHUNK, .compute = compute};
    succeed(mn__reading_open(&loaded, again.decoder, &again.params, &roomy, &error), &error);
    succeed(mn__reading_add(&loaded, ids + 3, 11, &error), &error); /* not to shine through */
    succeed(mn__reading_load(&loaded, path, "weights", &error), &error);
    succeed(mn__reading_save(&loaded, twice, "weights", NULL, &error), &error);
    first = folder_read(path, &bytes);
    second = folder_read(twice, &same);
    assert_int_equal(bytes, same);
    assert_memory_equal(first, second, (size_t)bytes);
    free(first);
    free(second);
    check_same(&on, &loaded);
    /* back behind the place where it was saved: in the same segments */
    succeed(mn__reading_rewind(&on, 20, NULL, &error), &error);
    succeed(mn__reading_rewind(&loaded, 20, NULL, &error), &error);
    check_same(&on, &loaded);
    mn__reading_close(&loaded);
    /* too little room is said */
    const mn__reading_options small = {.capacity = 36, .chunk = CHUNK, .compute = compute};
    succeed(mn__reading_open(&loaded, again.decoder, &again.params, &small, &error), &error);
    assert_int_equal(mn__reading_load(&loaded, path, "weights", &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "37 tokens"));
    assert_int_equal(loaded.ids.count, 0);
    mn__reading_close(&loaded);
    mn__reading_close(&on);
    test_model_close(&model);
    test_model_close(&again);
}

static void saves(void **state)
{
    (void)state;
    for (int i = 0; i < RECIPES; i++) {
        check_saving(recipes[i], MN__F32, MN__KEPT_AS_COMPUTED);
        check_saving(recipes[i], MN__BF16, MN__KEPT_AS_COMPUTED);
        for (int kept = MN__KEPT_F32; kept <= MN__KEPT_INT8 && i < KEEPING; kept++) {
            check_saving(recipes[i], MN__F32, (mn__kept)kept);
            check_saving(recipes[i], MN__BF16, (mn__kept)kept);
        }
    }
}

static void of_something_else(void **state)
{
    (void)state;
    mn_error error;
    test_model model, other;
    mn__reading reading, loaded;
    const char *path = folder_path(folder, "saved");
    test_model_open(&model, recipes[0], V, SEGMENT, 3);
    open_reading(&reading, &model, MN__F32, 0);
    read_calls(&reading, 12);
    succeed(mn__reading_save(&reading, path, "weights", NULL, &error), &error);
    assert_int_equal(mn__reading_load(&reading, path, "others", &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "other weights"));
    assert_int_equal(reading.ids.count, 0);
    assert_null(mn__reading_logits(&reading, &error));
    test_model_open(&other, recipes[2], V, SEGMENT, 3);
    open_reading(&loaded, &other, MN__F32, 0);
    assert_int_equal(mn__reading_load(&loaded, path, "weights", &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "other options"));
    mn__reading_close(&loaded);
    open_reading(&loaded, &model, MN__BF16, 0);
    assert_int_equal(mn__reading_load(&loaded, path, "weights", &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "precision F32"));
    mn__reading_close(&loaded);
    /* a session without its text */
    succeed(mn__session_save(&reading.session, path, "weights", &error), &error);
    assert_int_equal(mn__reading_load(&reading, path, "weights", &error), MN_ERROR_FORMAT);
    mn__reading_close(&reading);
    test_model_close(&model);
    test_model_close(&other);
}

/* Every file that is cut short, and every byte that is changed, is found. */
static void damaged(void **state)
{
    (void)state;
    mn_error error;
    test_model model;
    mn__reading reading;
    int64_t bytes;
    const char *path = folder_path(folder, "saved");
    test_model_open(&model, recipes[2], V, SEGMENT, 3);
    open_reading(&reading, &model, MN__F32, 0);
    read_calls(&reading, 12);
    succeed(mn__reading_save(&reading, path, "weights", NULL, &error), &error);
    char *file = folder_read(path, &bytes);
    for (int64_t at = 0; at < bytes; at += at < 2000 ? 1 : 37) {
        file[at] ^= 1 << (at % 7);
        folder_write(path, file, bytes);
        file[at] ^= 1 << (at % 7);
        assert_int_not_equal(mn__reading_load(&reading, path, "weights", &error), MN_OK);
        assert_true(error.message[0] && reading.ids.count == 0);
        folder_write(path, file, at);
        assert_int_not_equal(mn__reading_load(&reading, path, "weights", &error), MN_OK);
    }
    folder_write(path, file, bytes);
    succeed(mn__reading_load(&reading, path, "weights", &error), &error);
    free(file);
    mn__reading_close(&reading);
    test_model_close(&model);
}

/* A file whose checksum is right and whose numbers are not. */
static void lying(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t value;
    } lies[] = {
        {"state.0.counter0", 11},
        {"state.0.counter0", 13},
        {"state.0.counter0", -1},
        {"state.1.counter0", 5},
        {"state.position", 11},
        {"state.position", INT64_MAX},
        {"state.position", -12},
        {"ends", 0},
        {"ends", 13},
        {"ends", INT64_MAX},
    };
    mn_error error;
    test_model model;
    mn__reading reading;
    const char *path = folder_path(folder, "saved"), *lie = folder_path(folder, "lie");
    test_model_open(&model, recipes[2], V, SEGMENT, 3);
    open_reading(&reading, &model, MN__F32, 0);
    succeed(mn__reading_add(&reading, ids, 12, &error), &error);
    succeed(mn__reading_save(&reading, path, "weights", NULL, &error), &error);
    for (size_t i = 0; i <= sizeof lies / sizeof *lies; i++) {
        enum { MOST = 32 };
        mn__safetensors *file;
        mn__safetensor tensors[MOST];
        int32_t strange[12] = {0, 0, 0, V};
        bool last = i == sizeof lies / sizeof *lies;
        succeed(mn__safetensors_open(&file, path, &error), &error);
        int64_t count = mn__safetensors_count(file);
        assert_true(count <= MOST);
        for (int64_t t = 0; t < count; t++) {
            tensors[t] = *mn__safetensors_at(file, t);
            if (last && !strcmp(tensors[t].name, "ids"))
                tensors[t].data = strange;
            else if (!last && !strcmp(tensors[t].name, lies[i].name))
                tensors[t].data = &lies[i].value;
        }
        static const char *const keys[] = {"format", "version", "weights", "precision",
                                           "kept",   "cache",   "options"};
        enum { KEYS = sizeof keys / sizeof *keys };
        const char *metadata[2 * KEYS + 1] = {0};
        for (int k = 0; k < KEYS; k++) {
            metadata[2 * k] = keys[k];
            metadata[2 * k + 1] = mn__safetensors_metadata(file, keys[k]);
        }
        succeed(mn__safetensors_write(lie, tensors, count, metadata, &error), &error);
        mn__safetensors_close(file);
        assert_int_equal(mn__reading_load(&reading, lie, "weights", &error), MN_ERROR_FORMAT);
        assert_non_null(strstr(error.message, "lie"));
    }
    mn__reading_close(&reading);
    test_model_close(&model);
}

static void of_another_version(void **state)
{
    (void)state;
    mn_error error;
    mn__safetensors *file;
    const char *path = folder_path(folder, "version");
    const float value = 1;
    const mn__safetensor one = {
        .name = "hidden", .dtype = "F32", .rank = 1, .size = {1}, .data = &value, .bytes = 4};
    const char *const later[] = {"format", "mneme session", "version", "99", NULL};
    succeed(mn__safetensors_write(path, &one, 1, later, &error), &error);
    assert_int_equal(mn__session_file_open(&file, path, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "version 99"));
    succeed(mn__safetensors_write(path, &one, 1, NULL, &error), &error);
    assert_int_equal(mn__session_file_open(&file, path, &error), MN_ERROR_FORMAT);
}

/* ---- Forks, room, interruptions ------------------------------------------------------------- */

static void forks(void **state)
{
    (void)state;
    mn_error error;
    for (int i = 0; i < RECIPES + KEEPING; i++) {
        test_model model;
        mn__reading reading, fork, other;
        mn__kept kept = i < RECIPES ? MN__KEPT_AS_COMPUTED : MN__KEPT_INT8;
        test_model_open(&model, recipes[i % RECIPES], V, SEGMENT, 3);
        succeed(mn__decoder_keep(model.decoder, kept, &error), &error);
        open_reading(&reading, &model, MN__F32, 0);
        succeed(mn__reading_fork(&fork, &reading, &error), &error); /* of nothing */
        assert_int_equal(fork.ids.count, 0);
        mn__reading_close(&fork);
        read_calls(&reading, 37);
        succeed(mn__reading_fork(&fork, &reading, &error), &error);
        succeed(mn__reading_fork(&other, &reading, &error), &error);
        succeed(mn__reading_add(&other, ids, 20, &error), &error);
        mn__reading_close(&other);
        succeed(mn__reading_reserve(&fork, 3 * CAPACITY, &error), &error);
        assert_true(fork.options.capacity >= 37 + 3 * CAPACITY);
        check_same(&reading, &fork);
        succeed(mn__reading_rewind(&fork, 20, NULL, &error), &error);
        succeed(mn__reading_rewind(&reading, 20, NULL, &error), &error);
        check_same(&reading, &fork);
        mn__reading_close(&fork);
        mn__reading_close(&reading);
        test_model_close(&model);
    }
}

static bool stop_later(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    (void)what, (void)total, (void)note;
    return done < *(int64_t *)user;
}

static void goes_on(void **state)
{
    (void)state;
    mn_error error;
    for (int i = 0; i < RECIPES; i++) {
        test_model model;
        mn__reading whole, stopped;
        test_model_open(&model, recipes[i], V, SEGMENT, 3);
        open_reading(&whole, &model, MN__F32, 0);
        open_reading(&stopped, &model, MN__F32, 0);
        succeed(mn__reading_sync(&whole, ids, 50, "", NULL, NULL, &error), &error);
        for (int64_t most = 1; most < 50; most += CHUNK) {
            const mn__progress progress = {.report = stop_later, .user = &most};
            mn_status status = mn__reading_sync(&stopped, ids, 50, "", &progress, NULL, &error);
            assert_int_equal(status, most < 49 ? MN_ERROR_INTERRUPTED : MN_OK);
            assert_int_equal(stopped.ids.count, most < 49 ? most - 1 + CHUNK : 50);
        }
        check_same(&whole, &stopped);
        mn__reading_close(&whole);
        mn__reading_close(&stopped);
        test_model_close(&model);
    }
}

/* ---- Allocations ------------------------------------------------------------------------------
 */

static mn_status all_of_it(void *user, mn_error *error)
{
    test_model *model = user;
    mn__reading reading, fork;
    const char *path = folder_path(folder, "saved");
    const mn__reading_options options = {.capacity = 20, .chunk = CHUNK, .compute = MN__F32};
    mn_status status = mn__reading_open(&reading, model->decoder, &model->params, &options, error);
    if (status != MN_OK)
        return status;
    status = mn__reading_sync(&reading, ids, 20, "", NULL, NULL, error);
    if (status == MN_OK)
        status = mn__reading_reserve(&reading, 20, error);
    if (status == MN_OK)
        status = mn__reading_sync(&reading, ids, 37, "", NULL, NULL, error);
    if (status == MN_OK)
        status = mn__reading_save(&reading, path, "weights", NULL, error);
    if (status == MN_OK)
        status = mn__reading_rewind(&reading, 18, NULL, error);
    if (status == MN_OK)
        status = mn__reading_load(&reading, path, "weights", error);
    if (status == MN_OK && !mn__reading_logits(&reading, error))
        status = error->code;
    if (status == MN_OK && (status = mn__reading_fork(&fork, &reading, error)) == MN_OK)
        mn__reading_close(&fork);
    mn__reading_close(&reading);
    return status;
}

static void allocations(void **state)
{
    (void)state;
    for (int i = 0; i < RECIPES + KEEPING; i++) {
        mn_error error;
        test_model model;
        mn__kept kept = i < RECIPES ? MN__KEPT_AS_COMPUTED : MN__KEPT_INT8;
        test_model_open(&model, recipes[i % RECIPES], V, SEGMENT, 3);
        succeed(mn__decoder_keep(model.decoder, kept, &error), &error);
        succeed(all_of_it(&model, &error), &error); /* what kernels keep, they have */
        assert_true(failing_each("a reading", all_of_it, &model, true, NULL) > 30);
        test_model_close(&model);
    }
}

int main(void)
{
    mn__threads_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_back),
        cmocka_unit_test(goes_back_in_every_precision),
        cmocka_unit_test(thins_out),
        cmocka_unit_test(says_what_it_did),
        cmocka_unit_test(saves),
        cmocka_unit_test(of_something_else),
        cmocka_unit_test(damaged),
        cmocka_unit_test(lying),
        cmocka_unit_test(of_another_version),
        cmocka_unit_test(forks),
        cmocka_unit_test(goes_on),
        cmocka_unit_test(allocations),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
