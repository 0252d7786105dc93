/* Conversations: a reading that is stopped anywhere goes on to the same file, a disk that is full
 * leaves the old one, and every allocation fails in turn. The verbs over them are tested in
 * tests/cli/test_sessions.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/threads.h"
#include "eval/conversation.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/model.h"
#include "support/small_model.h"

enum { BYTES = 1500, TOKENS = BYTES + 4, CHUNK = 512 };

static const char *folder;
static char text[BYTES + 1];

static int setup(void **state)
{
    int status = folder_make(state);
    folder = *state;
    for (int i = 0; i < BYTES; i++)
        text[i] = "the river runs to the sea.\n"[(i + i / 50) % 27];
    small_model_make(folder_path(folder, "model"), "llama", 1, small_model_chat);
    small_model_make(folder_path(folder, "sliding"), "mistral", 1, small_model_chat);
    return status;
}

typedef struct fixture {
    mn__device device;
    mn__conversation conversation;
} fixture;

static void open_conversation(fixture *f, const char *model, const char *path)
{
    mn_error error;
    const mn__manner manner = {.model = folder_path(folder, "%s", model)};
    succeed(mn__device_open(&f->device, &error), &error);
    succeed(mn__conversation_open(&f->conversation, &f->device, &manner, path, &error), &error);
}

static void close_conversation(fixture *f)
{
    mn__conversation_close(&f->conversation);
    mn__device_close(&f->device);
}

static bool stop_later(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    (void)what, (void)total, (void)note;
    return done < *(int64_t *)user;
}

/* Reads until `most` tokens are there; anew each time, as a new process would. */
static mn_status read_until(const char *model, const char *path, int64_t most,
                            mn__read_report *report, mn_error *error)
{
    fixture f;
    const mn__progress progress = {.report = stop_later, .user = &most};
    open_conversation(&f, model, path);
    mn_status status =
        mn__conversation_read(&f.conversation, text, BYTES, false, 0, &progress, report, error);
    close_conversation(&f);
    return status;
}

static void check_same_file(const char *a, const char *b)
{
    int64_t bytes, others;
    char *one = folder_read(a, &bytes), *other = folder_read(b, &others);
    assert_int_equal(bytes, others);
    assert_memory_equal(one, other, (size_t)bytes);
    free(one);
    free(other);
}

static void goes_on(void **state)
{
    (void)state;
    static const char *const models[] = {"model", "sliding"};
    mn_error error;
    mn__read_report report;
    for (int i = 0; i < 2; i++) {
        const char *whole = folder_path(folder, "%s.whole", models[i]);
        const char *parts = folder_path(folder, "%s.parts", models[i]);
        succeed(read_until(models[i], whole, INT64_MAX, &report, &error), &error);
        assert_int_equal(report.sync.read, TOKENS);
        for (int64_t done = 0; done < TOKENS; done += CHUNK) {
            assert_int_equal(read_until(models[i], parts, done, &report, &error),
                             MN_ERROR_INTERRUPTED);
            assert_non_null(strstr(error.hint, parts));
            assert_non_null(strstr(error.message, "of 1504 tokens"));
        }
        succeed(read_until(models[i], parts, INT64_MAX, &report, &error), &error);
        assert_int_equal(report.sync.reused, TOKENS / CHUNK * CHUNK);
        assert_int_equal(report.sync.read, TOKENS % CHUNK);
        check_same_file(whole, parts);
    }
}

static bool count_only(void *user, const char *said, int64_t bytes)
{
    (void)said;
    *(int64_t *)user += bytes;
    return true;
}

static mn_status ask(mn__conversation *conversation, mn__answer *answer, mn_error *error)
{
    int64_t said = 0;
    const mn__generate_config config = {
        .tokens = 9, .sample = {.top_p = 1}, .emit = count_only, .user = &said};
    return mn__conversation_ask(conversation, "Why?", &config, answer, error);
}

static void full_disk(void **state)
{
    (void)state;
    fixture f;
    mn_error error;
    mn__answer answer;
    mn__read_report report;
    const char *path = folder_path(folder, "disk"), *before = folder_path(folder, "before");
    succeed(read_until("model", path, CHUNK, &report, &error) == MN_ERROR_INTERRUPTED
                ? MN_OK
                : MN_ERROR_USAGE,
            &error);
    int64_t bytes;
    char *old = folder_read(path, &bytes);
    folder_write(before, old, bytes);
    free(old);
    open_conversation(&f, "model", path);
    mn__file_fail_write_after(5000);
    mn_status status =
        mn__conversation_read(&f.conversation, text, BYTES, false, 0, NULL, &report, &error);
    mn__file_fail_write_after(-1);
    assert_int_equal(status, MN_ERROR_IO);
    check_same_file(path, before);
    close_conversation(&f);
    succeed(read_until("model", path, INT64_MAX, &report, &error), &error);
    assert_int_equal(report.sync.reused, CHUNK);
    succeed(mn__device_open(&f.device, &error), &error);
    succeed(mn__conversation_load(&f.conversation, &f.device, path, NULL, 0, &error), &error);
    succeed(ask(&f.conversation, &answer, &error), &error);
    assert_int_equal(answer.sync.reused, TOKENS);
    assert_int_equal(f.conversation.reading.ids.count,
                     TOKENS + answer.sync.read + answer.generated.tokens);
    close_conversation(&f);
}

/* ---- Allocations ---------------------------------------------------------------------------- */

static mn_status read_and_ask(void *user, mn_error *error)
{
    mn__device *device = user;
    mn__conversation conversation;
    mn__read_report report;
    mn__answer answer;
    const char *path = folder_path(folder, "failing");
    static char model[512];
    strcpy(model, folder_path(folder, "model"));
    const mn__manner manner = {.model = model};
    mn_status status = mn__conversation_open(&conversation, device, &manner, path, error);
    if (status != MN_OK)
        return status;
    status = mn__conversation_read(&conversation, text, 40, true, 0, NULL, &report, error);
    mn__conversation_close(&conversation);
    if (status == MN_OK)
        status = mn__conversation_load(&conversation, device, path, NULL, 0, error);
    if (status != MN_OK)
        return status;
    status = ask(&conversation, &answer, error);
    if (status == MN_OK)
        status = mn__conversation_save(&conversation, error);
    mn__conversation_close(&conversation);
    return status;
}

static void allocations(void **state)
{
    (void)state;
    mn_error error;
    mn__device device;
    succeed(mn__device_open(&device, &error), &error);
    succeed(read_and_ask(&device, &error), &error); /* what kernels keep, they have */
    assert_true(failing_each("a conversation", read_and_ask, &device, false, NULL) > 100);
    mn__device_close(&device);
}

int main(void)
{
    mn__threads_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(allocations),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
