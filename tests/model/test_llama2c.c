/* Checkpoints of llama2.c, in all its versions, against its runner's arithmetic and its
 * runner's tokens; headers that claim what is not there; every allocation failing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/llama2c_model.h"
#include "model/run.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/llama2c.h"
#include "support/logits.h"
#include "support/model.h"

enum { TOKENS = 24, V = LLAMA2C_VOCABULARY, HEADER = 256, SEED = 7 };

/* Of the largest logit: float32 over two layers, against double precision. */
static const double bound = 1e-5;

static const char *temporary;

static int setup(void **state)
{
    int status = folder_make(state);
    temporary = *state;
    folder_write(folder_path(temporary, "model/tokenizer.bin"), "", 0);
    llama2c_write_tokenizer(folder_path(temporary, "model/tokenizer.bin"));
    return status;
}

static const char *checkpoint(void)
{
    return folder_path(temporary, "model/model.bin");
}

static mn_status open_run(mn__run *run, mn__device *device, const char *tokenizer,
                          mn__weights weights, mn_error *error)
{
    const mn__run_how how = {.weights = weights, .tokenizer = tokenizer};
    mn_status status = mn__device_open(device, error);
    if (status == MN_OK)
        status = mn__run_open_as(run, device, checkpoint(), &how, error);
    if (status != MN_OK)
        mn__device_close(device);
    return status;
}

static void close_run(mn__run *run, mn__device *device)
{
    mn__run_close(run);
    mn__device_close(device);
}

/* ---- Logits and tokens --------------------------------------------------------------------- */

static void every_version(void **state)
{
    (void)state;
    static float logits[TOKENS * V], right[TOKENS * V];
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 61 + 1) % V;
    for (int version = 0; version < 3; version++)
        for (int tied = 0; tied < 2; tied++)
            for (int packed = 0; packed < 2; packed++) {
                char what[64];
                mn_error error;
                mn__device device;
                mn__run run;
                snprintf(what, sizeof what, "version %d, %s, %s", version, tied ? "tied" : "free",
                         packed ? "packed" : "masters");
                llama2c_write(checkpoint(), version, tied, SEED);
                succeed(open_run(&run, &device, NULL,
                                 packed ? MN__WEIGHTS_F32 : MN__WEIGHTS_MASTERS, &error),
                        &error);
                assert_int_equal(run.context, LLAMA2C_CONTEXT);
                assert_int_equal(run.end_count, 2);
                assert_int_equal(mn__decoder_options_of(run.decoder)->tied, tied);
                logits_read(run.decoder, &run.params, ids, TOKENS, logits);
                llama2c_logits(version, tied, SEED, ids, TOKENS, right);
                logits_compare(what, logits, right, TOKENS * V, bound);
                close_run(&run, &device);
            }
}

static const char *const texts[] = {
    "", "a", "ab", "aba bab abba", " a b", "  bbab", "caf\xC3\xA9 \xE2\x82\xAC\n", "\n\nabab"};

static void runners_tokens(void **state)
{
    (void)state;
    mn_error error;
    mn__tokenizer *tokenizer;
    succeed(mn__tokenizer_load(&tokenizer, folder_path(temporary, "model/tokenizer.bin"), &error),
            &error);
    assert_int_equal(tokenizer->vocab, V);
    assert_int_equal(tokenizer->start, 1);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t right[128];
        mn__ids ids = {0};
        mn__string back = {0};
        int64_t count = llama2c_encode(texts[i], right);
        succeed(mn__tokenizer_encode(tokenizer, texts[i], (int64_t)strlen(texts[i]), &ids, &error),
                &error);
        assert_int_equal(ids.count, count - 1); /* <s> apart */
        for (int64_t t = 0; t < ids.count; t++)
            assert_int_equal(ids.id[t], right[t + 1]);
        succeed(mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, &error), &error);
        assert_string_equal(back.text ? back.text : "", texts[i]);
        mn__string_free(&back);
        mn__ids_free(&ids);
    }
    mn__tokenizer_free(tokenizer);
}

/* ---- Files that are not what they say -------------------------------------------------------- */

static void check_refused(const char *what, mn_status expected, const char *part)
{
    mn_error error = {0};
    mn__llama2c *file;
    mn__memory_stats before = mn__memory_now();
    mn_status status = mn__llama2c_open(&file, checkpoint(), &error);
    if (status != expected || !strstr(error.message, part) || !strstr(error.message, temporary) ||
        !error.hint[0])
        fail_msg("%s: %s, '%s' (%s)", what, mn_status_name(status), error.message, error.hint);
    assert_null(file);
    assert_int_equal(mn__memory_now().bytes, before.bytes);
    /* Nothing is taken for what is claimed. */
    assert_true(mn__memory_now().allocations - before.allocations < 8);
}

/* The checkpoint with an int32 of its own at an offset. */
static void write_changed(int version, int64_t at, int32_t value)
{
    int64_t bytes;
    llama2c_write(checkpoint(), version, true, SEED);
    char *text = folder_read(checkpoint(), &bytes);
    memcpy(text + at, &value, sizeof value);
    folder_write(checkpoint(), text, bytes);
    free(text);
}

static void hostile_headers(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        int version;
        int64_t at;
        int32_t value;
        mn_status status;
        const char *part;
    } wrong[] = {
        {"another version", 1, 4, 3, MN_ERROR_UNSUPPORTED, "version 3"},
        {"no width", 1, 8, 0, MN_ERROR_FORMAT, "its width would be 0"},
        {"a vast width", 1, 8, INT32_MAX, MN_ERROR_FORMAT, "its width would be 2147483647"},
        {"a wide one", 1, 8, 1000000 / 4 * 4, MN_ERROR_FORMAT, "by its header it has"},
        {"many layers", 1, 16, 1024, MN_ERROR_FORMAT, "by its header it has"},
        {"too many layers", 1, 16, 1025, MN_ERROR_FORMAT, "its layers would be 1025"},
        {"heads", 1, 20, 3, MN_ERROR_FORMAT, "do not divide"},
        {"no heads", 1, 20, -4, MN_ERROR_FORMAT, "its heads would be -4"},
        {"key-value heads", 1, 24, 3, MN_ERROR_FORMAT, "do not divide"},
        {"a vast vocabulary", 1, 28, INT32_MAX, MN_ERROR_FORMAT, "by its header it has"},
        {"a negative one", 1, 28, -V, MN_ERROR_FORMAT, "its vocabulary would be -270"},
        {"the longest text", 0, 24, INT32_MAX, MN_ERROR_FORMAT, "its longest text"},
        {"a long text", 0, 24, 999999999, MN_ERROR_FORMAT, "by its header it has"},
        {"the least of vocabularies", 0, 20, INT32_MIN, MN_ERROR_FORMAT, "its vocabulary"},
        {"a head that is not there", 0, 20, -V, MN_ERROR_FORMAT, "by its header it has"},
        {"no groups", 2, 37, 0, MN_ERROR_FORMAT, "its groups are empty"},
        {"negative groups", 2, 37, -8, MN_ERROR_FORMAT, "its groups are empty"},
        {"other groups", 2, 37, 7, MN_ERROR_FORMAT, "do not divide into its groups"},
        {"coarser groups", 2, 37, 16, MN_ERROR_FORMAT, "by its header it has"},
        {"no magic", 1, 0, 0x46554747, MN_ERROR_FORMAT, "its width would be"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_changed(wrong[i].version, wrong[i].at, wrong[i].value);
        check_refused(wrong[i].what, wrong[i].status, wrong[i].part);
    }
}

static void cut_off(void **state)
{
    (void)state;
    for (int version = 0; version < 3; version++) {
        int64_t bytes;
        llama2c_write(checkpoint(), version, false, SEED);
        char *text = folder_read(checkpoint(), &bytes);
        const int64_t ends[] = {0, 3, 27, 28, 255, 256, 1000, bytes - 1, bytes};
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            folder_write(checkpoint(), text, ends[i]);
            if (ends[i] == bytes) { /* one byte too many */
                FILE *file = fopen(checkpoint(), "ab");
                assert_true(file && fputc(0, file) == 0 && fclose(file) == 0);
            }
            check_refused("a file that is cut off, or too long", MN_ERROR_FORMAT,
                          "no checkpoint of llama2.c");
        }
        free(text);
    }
}

static void wrong_tokenizers(void **state)
{
    (void)state;
    int64_t bytes;
    mn_error error;
    mn__tokenizer *tokenizer;
    const char *path = folder_path(temporary, "other/tokenizer.bin");
    char *text = folder_read(folder_path(temporary, "model/tokenizer.bin"), &bytes);
    const struct {
        int64_t at, bytes; /* a byte that is another; the file's length */
        const char *part;
    } wrong[] = {{-1, 0, "is missing"},    {-1, 2, "is missing"},
                 {-1, 3000, "is cut off"}, {-1, bytes - 1, "longer than the file"},
                 {-1, 44, "is missing"},   {11, bytes, "longer than the file"},
                 {8, bytes, "is"},         {13, bytes, "Llama 2's <unk>"},
                 {54, bytes, "Llama 2's"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *copy = malloc((size_t)bytes + 1);
        assert_non_null(copy);
        memcpy(copy, text, (size_t)bytes);
        if (wrong[i].at >= 0)
            copy[wrong[i].at] = 'z';
        folder_write(path, copy, wrong[i].bytes);
        mn__memory_stats before = mn__memory_now();
        mn_status status = mn__tokenizer_load(&tokenizer, path, &error);
        if (status != MN_ERROR_FORMAT || !strstr(error.message, wrong[i].part) || !error.hint[0])
            fail_msg("%zu: %s, '%s'", i, mn_status_name(status), error.message);
        assert_int_equal(mn__memory_now().bytes, before.bytes);
        free(copy);
    }
    free(text);
}

static void missing_tokenizer(void **state)
{
    (void)state;
    mn_error error;
    mn__device device;
    mn__run run;
    const char *moved = folder_path(temporary, "model/tok270.bin");
    llama2c_write(checkpoint(), 0, true, SEED);
    assert_int_equal(rename(folder_path(temporary, "model/tokenizer.bin"), moved), 0);
    assert_int_equal(open_run(&run, &device, NULL, MN__WEIGHTS_AUTO, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "no tokenizer.bin beside it"));
    succeed(open_run(&run, &device, moved, MN__WEIGHTS_AUTO, &error), &error);
    assert_int_equal(run.tokenizer->vocab, V);
    close_run(&run, &device);
    assert_int_equal(rename(moved, folder_path(temporary, "model/tokenizer.bin")), 0);
}

/* ---- Memory -----------------------------------------------------------------------------------
 */

static mn_status open_and_close(void *user, mn_error *error)
{
    (void)user;
    mn__device device;
    mn__run run;
    mn_status status = open_run(&run, &device, NULL, MN__WEIGHTS_AUTO, error);
    if (status == MN_OK)
        close_run(&run, &device);
    return status;
}

static void failing_allocations(void **state)
{
    (void)state;
    llama2c_write(checkpoint(), 2, false, SEED);
    assert_true(
        failing_each("opening a checkpoint of llama2.c", open_and_close, NULL, false, NULL) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version),       cmocka_unit_test(runners_tokens),
        cmocka_unit_test(hostile_headers),     cmocka_unit_test(cut_off),
        cmocka_unit_test(wrong_tokenizers),    cmocka_unit_test(missing_tokenizer),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
