/* Sessions beyond the four laws (tests/attention/test_laws.c): logits where there
 * are none, memory that runs out, files of a model with other options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/threads.h"
#include "reader/session.h"
#include "support/folder.h"

enum { V = 50, SEGMENT = 16, ROWS = 2, READ = 2 * SEGMENT };

/* A session with all below it; nothing is shared, so that each has to allocate
 * all that it needs. */
typedef struct fixture {
    mn__arena arena;
    mn__device device;
    mn__params params;
    mn__decoder *decoder;
    mn__session session;
} fixture;

static const char plain[] = "model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5}\n"
                            "attention: {type: xl, memory: 16}\n";

static void fixture_open(fixture *f, const char *recipe, mn__dtype compute)
{
    mn_error error;
    mn__yaml_node *root;
    *f = (fixture){0};
    mn__arena_init(&f->arena, 0);
    assert_int_equal(mn__yaml_parse(&f->arena, "r", recipe, (int64_t)strlen(recipe), &root, NULL),
                     MN_OK);
    assert_int_equal(mn__device_open(&f->device, NULL), MN_OK);
    mn__params_init(&f->params, &f->device, 3);
    const mn__session_options options = {.rows = ROWS, .capacity = 256, .compute = compute};
    if (mn__decoder_new(&f->decoder, &f->params, mn__yaml_get(root, "model"),
                        mn__yaml_get(root, "attention"), V, SEGMENT, &error) != MN_OK ||
        mn__session_open(&f->session, f->decoder, &f->params, &options, &error) != MN_OK)
        fail_msg("%s", error.message);
}

static void fixture_close(fixture *f)
{
    mn__session_close(&f->session);
    mn__decoder_free(f->decoder);
    mn__params_free(&f->params);
    mn__device_close(&f->device);
    mn__arena_free(&f->arena);
}

/* Reads READ tokens of every row from its position on, scoring each. */
static mn_status read_on(fixture *f, const bool *start, float *losses, mn_error *error)
{
    int32_t ids[ROWS * READ], targets[ROWS * READ];
    float weights[ROWS * READ];
    int64_t from = start ? 0 : f->session.states.position[0];
    for (int64_t i = 0; i < ROWS * READ; i++) {
        int64_t t = from + i % READ, row = i / READ;
        ids[i] = (int32_t)((t * t / 3 + t * (row + 5)) % V);
        targets[i] = (int32_t)(((t + 1) * (t + 1) / 3 + (t + 1) * (row + 5)) % V);
        weights[i] = 1.0f;
    }
    const mn__stretch stretch = {.T = READ,
                                 .ids = ids,
                                 .start = start,
                                 .targets = targets,
                                 .weights = weights,
                                 .losses = losses};
    return mn__session_read(&f->session, &stretch, error);
}

static void read_well(fixture *f, const bool *start, float *losses)
{
    mn_error error;
    if (read_on(f, start, losses, &error) != MN_OK)
        fail_msg("%s", error.message);
}

static void no_logits_without_text(void **state)
{
    (void)state;
    fixture f;
    mn_error error;
    float losses[ROWS * READ];
    fixture_open(&f, plain, MN__F32);
    assert_null(mn__session_logits(&f.session, &error));
    assert_int_equal(error.code, MN_ERROR_USAGE);
    read_well(&f, NULL, losses);
    assert_non_null(mn__session_logits(&f.session, &error));
    mn__session_reset(&f.session);
    assert_null(mn__session_logits(&f.session, &error));
    assert_int_equal(error.code, MN_ERROR_USAGE);
    fixture_close(&f);
}

/* Each allocation of the first reading and of the logits fails in turn: it is
 * said, whoever lacked the memory, and what is read again comes to the same. */
static void check_short_memory(mn__dtype compute)
{
    fixture f;
    mn_error error;
    float expected[ROWS * READ], got[ROWS * READ], logits[ROWS * V];
    fixture_open(&f, plain, compute);
    read_well(&f, NULL, expected);
    const float *whole = mn__session_logits(&f.session, &error);
    assert_non_null(whole);
    memcpy(logits, whole, sizeof logits);
    fixture_close(&f);
    int64_t nth = 0;
    mn_status status;
    do {
        fixture_open(&f, plain, compute);
        mn__memory_fail_nth(++nth);
        status = read_on(&f, NULL, got, &error);
        const float *now = status == MN_OK ? mn__session_logits(&f.session, &error) : NULL;
        mn__memory_fail_nth(0);
        if (!now) {
            assert_int_equal(error.code, MN_ERROR_MEMORY);
            assert_false(f.session.torn); /* this type remembers without memory */
            int64_t at = f.session.states.position[0];
            assert_true(at % SEGMENT == 0 && at == f.session.states.position[1]);
            assert_true(status == MN_OK ? at == READ : at < READ);
        }
        if (status != MN_OK) {
            mn__session_reset(&f.session);
            read_well(&f, NULL, got);
        }
        assert_memory_equal(got, expected, sizeof got);
        status = now ? MN_OK : MN_ERROR_MEMORY;
        if (!now)
            now = mn__session_logits(&f.session, &error);
        assert_non_null(now);
        assert_memory_equal(now, logits, sizeof logits);
        fixture_close(&f);
    } while (status != MN_OK && nth < 1000);
    assert_int_equal(status, MN_OK);
    /* to fail: the tape's four memories (vars, values, kept values and vars), and scratch */
    assert_true(nth > 5);
}

static void says_when_memory_is_short(void **state)
{
    (void)state;
    check_short_memory(MN__F32);
    check_short_memory(MN__BF16);
}

/* A segment in the middle fails; the rest is read again from there. */
static void stands_at_the_last_whole_segment(void **state)
{
    (void)state;
    fixture f;
    mn_error error;
    float expected[ROWS * READ], got[ROWS * READ];
    fixture_open(&f, plain, MN__F32);
    read_well(&f, NULL, expected);
    read_well(&f, NULL, expected);
    fixture_close(&f);
    fixture_open(&f, plain, MN__F32);
    read_well(&f, NULL, got);
    f.device.queue.failed = true; /* as a kernel says it */
    assert_int_equal(read_on(&f, NULL, got, &error), MN_ERROR_MEMORY);
    assert_int_equal(f.session.states.position[0], READ);
    read_well(&f, NULL, got);
    assert_memory_equal(got, expected, sizeof got);
    /* a row that was to begin a document stands at its start, without logits */
    static const bool start[ROWS] = {true, true};
    f.device.queue.failed = true;
    assert_int_equal(read_on(&f, start, got, &error), MN_ERROR_MEMORY);
    assert_int_equal(f.session.states.position[0], 0);
    assert_null(mn__session_logits(&f.session, &error));
    /* torn: only a reset helps */
    f.session.torn = true;
    assert_int_equal(read_on(&f, NULL, got, &error), MN_ERROR_MEMORY);
    mn__session_reset(&f.session);
    read_well(&f, NULL, got);
    fixture_close(&f);
}

static void files_of_other_options(void **state)
{
    static const struct {
        const char *recipe;
        mn__dtype compute;
        mn_status status;
    } others[] = {
        {plain, MN__F32, MN_OK},
        /* a default that is written out is no other option */
        {"model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5, bias: false}\n"
         "attention: {type: xl, memory: 16, clamp: 0}\n",
         MN__F32, MN_OK},
        {"model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5, logit_scale: 2}\n"
         "attention: {type: xl, memory: 16}\n",
         MN__F32, MN_ERROR_MISMATCH},
        {"model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5}\n"
         "attention: {type: xl, memory: 16, clamp: 8}\n",
         MN__F32, MN_ERROR_MISMATCH},
        {"model: {depth: 2, width: 16, heads: 2, initial_deviation: 0.5,\n"
         "  layers: [{layers: [1], type: xl, memory: 16, clamp: 8}]}\n"
         "attention: {type: xl, memory: 16}\n",
         MN__F32, MN_ERROR_MISMATCH},
        {plain, MN__BF16, MN_ERROR_MISMATCH},
    };
    fixture f;
    mn_error error = {0};
    float losses[ROWS * READ];
    const char *path = folder_path(*state, "session");
    fixture_open(&f, plain, MN__F32);
    read_well(&f, NULL, losses);
    assert_int_equal(mn__session_save(&f.session, path, "weights", &error), MN_OK);
    fixture_close(&f);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        fixture_open(&f, others[i].recipe, others[i].compute);
        read_well(&f, NULL, losses);
        mn_status status = mn__session_load(&f.session, path, "weights", &error);
        if (status != others[i].status)
            fail_msg("%s: %d, %s", others[i].recipe, (int)status, error.message);
        assert_int_equal(f.session.states.position[0], status == MN_OK ? READ : 0);
        fixture_close(&f);
    }
}

int main(void)
{
    mn__threads_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_logits_without_text),
        cmocka_unit_test(says_when_memory_is_short),
        cmocka_unit_test(stands_at_the_last_whole_segment),
        cmocka_unit_test(files_of_other_options),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
