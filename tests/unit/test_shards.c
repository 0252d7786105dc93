/* prepare and the data set: counts, every id, restarts after a stop and after a
 * kill, damage, a full disk, failing allocations. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/prepare.h"
#include "support/folder.h"

enum { BOOKS = 12 };

/* Book i: its lines, of a length of its own; book 5 is empty. */
static void write_books(const char *folder)
{
    for (int i = 0; i < BOOKS; i++) {
        mn__string text = {0};
        for (int line = 0; line < 10 * i && i != 5; line++)
            mn__string_printf(&text, "Book %d has caf\xC3\xA9 line %d.\r\n", i, line);
        folder_write(folder_path(folder, "book%02d.txt", i), text.text ? text.text : "", -1);
        mn__string_free(&text);
    }
}

static mn__prepare_config config_of(const char **name, const char *out, const char *tokenizer)
{
    return (mn__prepare_config){.data = {name, 1},
                                .out = out,
                                .tokenizer = tokenizer,
                                .validation = 0.2,
                                .train_bytes = 1 << 20,
                                .shard_tokens = 1500};
}

static mn__dataset *open_dataset(const char *folder)
{
    mn__dataset *dataset = NULL;
    mn_error error = {0};
    if (mn__dataset_open(&dataset, folder, &error) || mn__dataset_verify(dataset, NULL, &error))
        fail_msg("%s", error.message);
    return dataset;
}

static void expect_prepared(const mn__prepare_config *config, mn__prepare_result *result)
{
    mn_error error = {0};
    if (mn__prepare(config, NULL, result, &error))
        fail_msg("%s", error.message);
}

/* A document's text again. */
static mn__string text_of(const mn__dataset *dataset, int64_t document)
{
    int64_t tokens = mn__dataset_at(dataset, document)->tokens;
    int32_t *ids = malloc((size_t)(tokens + 1) * sizeof *ids);
    mn__string text = {0};
    mn_error error = {0};
    assert_int_equal(mn__dataset_tokens(dataset, document, 0, tokens, ids, &error), MN_OK);
    assert_int_equal(
        mn__tokenizer_decode(mn__dataset_tokenizer(dataset), ids, tokens, &text, &error), MN_OK);
    free(ids);
    return text;
}

static void counts_and_ids(void **state)
{
    static const char *const kinds[] = {"bytes", "characters", "sentencepiece"};
    const char *name = folder_path(*state, "books");
    write_books(name);
    for (size_t i = 0; i < 3; i++) {
        const char *out = folder_path(*state, "set-%s", kinds[i]);
        mn__prepare_config config = config_of(&name, out, kinds[i]);
        mn__prepare_result result;
        config.train_vocab = i == 2 ? 300 : 0;
        expect_prepared(&config, &result);
        assert_int_equal(result.empty_documents, 2); /* books 0 and 5 */
        mn__dataset *dataset = open_dataset(out);
        assert_int_equal(mn__dataset_count(dataset), BOOKS);
        const mn__dataset_document *book = mn__dataset_at(dataset, 1);
        assert_string_equal(book->name, "book01");
        assert_int_equal(book->words, 60);
        assert_int_equal(book->characters, 10 * 24);
        assert_int_equal(book->bytes, 10 * 25);
        assert_int_equal(book->raw_bytes, 10 * 26);
        if (i == 0)
            assert_int_equal(book->tokens, book->bytes);
        mn__string text = text_of(dataset, 1);
        assert_int_equal(text.bytes, 250);
        assert_memory_equal(text.text, "Book 1 has caf\xC3\xA9 line 0.\nBook", 29);
        mn__string_free(&text);
        int64_t documents = 0;
        for (int split = 0; split < MN__SPLITS; split++)
            documents += mn__dataset_counts_of(dataset, (mn__split)split).documents;
        assert_int_equal(documents, BOOKS);
        assert_int_equal(mn__dataset_counts_of(dataset, MN__SPLIT_VALIDATION).documents, 2);
        mn__dataset_close(dataset);
        expect_prepared(&config, &result);
        assert_true(result.already_whole);
    }
}

static void wide_ids(void **state)
{
    assert_non_null(*state);
    mn__string text = {0};
    for (int i = 0; i < 700; i++)
        mn__string_printf(&text, "w%d w%d\n", i, i);
    const char *name = folder_path(*state, "wide.txt"), *out = folder_path(*state, "wide");
    folder_write(name, text.text, text.bytes);
    mn__string_free(&text);
    mn__prepare_config config = config_of(&name, out, "words");
    config.validation = 0;
    expect_prepared(&config, NULL);
    mn__dataset *dataset = open_dataset(out);
    int32_t ids[6];
    assert_int_equal(mn__dataset_tokenizer(dataset)->vocab, 702);
    assert_int_equal(mn__dataset_tokens(dataset, 0, 699 * 3 - 3, 6, ids, NULL), MN_OK);
    assert_memory_equal(ids, ((int32_t[]){699, 699, 0, 700, 700, 0}), sizeof ids);
    mn__dataset_close(dataset);
}

static void the_fingerprint_is_of_the_data(void **state)
{
    const char *name = folder_path(*state, "prints");
    mn__hash_text prints[3];
    for (int i = 0; i < 3; i++) {
        const char *out = folder_path(*state, "prints-%d", i);
        write_books(name);
        if (i == 2)
            folder_write(folder_path(name, "book03.txt"), "changed\n", -1);
        mn__prepare_config config = config_of(&name, out, "bytes");
        config.shard_tokens = i == 1 ? 100000 : 1500; /* how it is cut does not matter */
        expect_prepared(&config, NULL);
        mn__dataset *dataset = open_dataset(out);
        prints[i] = mn__dataset_fingerprint(dataset, MN__SPLIT_TRAIN);
        mn__dataset_close(dataset);
    }
    assert_string_equal(prints[0].hex, prints[1].hex);
    assert_string_not_equal(prints[0].hex, prints[2].hex);
}

/* ---- Restarts ----------------------------------------------------------------- */

static void expect_same_files(const char *a, const char *b)
{
    char **names;
    int64_t count, other_count;
    assert_int_equal(mn__file_list(a, &names, &count, NULL), MN_OK);
    for (int64_t i = 0; i < count; i++) {
        int64_t bytes, other_bytes;
        char *text = folder_read(folder_path(a, "%s", names[i]), &bytes);
        char *other = folder_read(folder_path(b, "%s", names[i]), &other_bytes);
        assert_int_equal(bytes, other_bytes);
        assert_memory_equal(text, other, (size_t)bytes);
        free(text);
        free(other);
    }
    mn__free(names);
    assert_int_equal(mn__file_list(b, &names, &other_count, NULL), MN_OK);
    assert_int_equal(count, other_count);
    mn__free(names);
}

typedef struct stopping {
    int after; /* reports */
    bool kill;
} stopping;

static bool stop(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    (void)what, (void)note;
    stopping *when = user;
    assert_true(total < 0 || done <= total);
    if (when->after-- > 0)
        return true;
    if (when->kill)
        raise(SIGKILL);
    return false;
}

static void a_stopped_run_goes_on(void **state)
{
    const char *name = folder_path(*state, "stopped-books");
    const char *whole = folder_path(*state, "unstopped");
    write_books(name);
    mn__prepare_config config = config_of(&name, whole, "sentencepiece");
    config.train_vocab = 300;
    expect_prepared(&config, NULL);
    bool kept = false;
    for (int after = 0; after < 36; after += 4) {
        mn_error error = {0};
        stopping when = {.after = after};
        mn__progress progress = {stop, &when};
        mn__prepare_result result;
        config.out = folder_path(*state, "stopped-%d", after);
        assert_int_equal(mn__prepare(&config, &progress, NULL, &error), MN_ERROR_INTERRUPTED);
        expect_prepared(&config, &result);
        kept = kept || result.kept_shards > 0;
        expect_same_files(whole, config.out);
    }
    assert_true(kept);
}

static void a_killed_run_goes_on(void **state)
{
    const char *name = folder_path(*state, "stopped-books");
    const char *whole = folder_path(*state, "unstopped");
    mn__prepare_config config = config_of(&name, NULL, "sentencepiece");
    config.train_vocab = 300;
    for (int after = 1; after < 36; after += 7) {
        config.out = folder_path(*state, "killed-%d", after);
        pid_t child = fork();
        if (child == 0) {
            stopping when = {.after = after, .kill = true};
            mn__progress progress = {stop, &when};
            mn__prepare(&config, &progress, NULL, NULL);
            _exit(1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        mn__dataset *dataset;
        mn_error error = {0};
        assert_int_equal(mn__dataset_open(&dataset, config.out, &error), MN_ERROR_FORMAT);
        assert_non_null(strstr(error.hint, "run it again"));
        expect_prepared(&config, NULL);
        expect_same_files(whole, config.out);
    }
}

static void what_a_kill_at_the_beginning_leaves_is_removed(void **state)
{
    const char *name = folder_path(*state, "stopped-books"), *out = folder_path(*state, "begun");
    folder_write(folder_path(out, "prepare.json.1-0.tmp"), "{", -1);
    mn__prepare_config config = config_of(&name, out, "sentencepiece");
    config.train_vocab = 300;
    expect_prepared(&config, NULL);
    expect_same_files(folder_path(*state, "unstopped"), out);
}

static void other_settings_are_refused(void **state)
{
    const char *name = folder_path(*state, "books"), *out = folder_path(*state, "settings");
    mn_error error = {0};
    mn__prepare_config config = config_of(&name, out, "bytes");
    expect_prepared(&config, NULL);
    config.newlines = MN__NEWLINES_KEEP;
    assert_int_equal(mn__prepare(&config, NULL, NULL, &error), MN_ERROR_MISMATCH);
    config.newlines = MN__NEWLINES_LF;
    folder_write(folder_path(name, "book03.txt"), "changed\n", -1);
    assert_int_equal(mn__prepare(&config, NULL, NULL, &error), MN_ERROR_MISMATCH);
    config.out = name; /* a folder of something else */
    assert_int_equal(mn__prepare(&config, NULL, NULL, &error), MN_ERROR_MISMATCH);
    config.out = folder_path(*state, "never");
    config.train_vocab = 300;
    assert_int_equal(mn__prepare(&config, NULL, NULL, &error), MN_ERROR_OPTION);
    config.tokenizer = "sentencepiece";
    config.train_vocab = 0;
    assert_int_equal(mn__prepare(&config, NULL, NULL, &error), MN_ERROR_OPTION);
    assert_false(mn__file_exists(config.out));
}

static void bad_utf8_is_named(void **state)
{
    const char *name = folder_path(*state, "bad");
    mn_error error = {0};
    folder_write(folder_path(name, "good.txt"), "good\n", -1);
    folder_write(folder_path(name, "latin.txt"), "caf\xE9\n", -1);
    mn__prepare_config config = config_of(&name, folder_path(*state, "bad-set"), "characters");
    config.validation = 0;
    assert_int_equal(mn__prepare(&config, NULL, NULL, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "latin"));
    assert_non_null(strstr(error.message, "byte 3"));
    config.out = folder_path(*state, "bad-bytes");
    config.tokenizer = "bytes";
    expect_prepared(&config, NULL);
    mn__dataset *dataset = open_dataset(config.out);
    assert_int_equal(mn__dataset_at(dataset, 1)->characters, 5);
    mn__dataset_close(dataset);
}

static void only_empty_files_are_refused(void **state)
{
    const char *name = folder_path(*state, "nothing");
    mn_error error = {0};
    folder_write(folder_path(name, "empty.txt"), "", -1);
    mn__prepare_config config = config_of(&name, folder_path(*state, "nothing-set"), "bytes");
    config.validation = 0;
    assert_int_equal(mn__prepare(&config, NULL, NULL, &error), MN_ERROR_FORMAT);
}

/* ---- Damage --------------------------------------------------------------------- */

/* Opens and reads all; any damage must be found by one of these. */
static mn_status open_and_verify(const char *folder, mn_error *error)
{
    mn__dataset *dataset;
    mn_status status = mn__dataset_open(&dataset, folder, error);
    if (status)
        return status;
    status = mn__dataset_verify(dataset, NULL, error);
    mn__dataset_close(dataset);
    return status;
}

static void damaged_files_are_refused(void **state)
{
    const char *name = folder_path(*state, "damaged-books"), *out = folder_path(*state, "damaged");
    char **files;
    int64_t count;
    write_books(name);
    mn__prepare_config config = config_of(&name, out, "characters");
    expect_prepared(&config, NULL);
    assert_int_equal(mn__file_list(out, &files, &count, NULL), MN_OK);
    assert_true(count >= 5);
    for (int64_t i = 0; i < count; i++) {
        const char *path = folder_path(out, "%s", files[i]);
        int64_t bytes;
        mn_error error = {0};
        char *text = folder_read(path, &bytes);
        for (int64_t at = 0; at < bytes; at += 1 + bytes / 13) {
            text[at] ^= 4;
            folder_write(path, text, bytes);
            bool found = open_and_verify(out, &error) != MN_OK;
            text[at] ^= 4;
            /* tokenizer.json's own vocab and lossless are for people. */
            if (strcmp(files[i], "tokenizer.json") != 0)
                assert_true(found);
            folder_write(path, text, at);
            assert_int_not_equal(open_and_verify(out, &error), MN_OK);
            assert_true(error.message[0] != '\0');
        }
        folder_write(path, text, bytes);
        free(text);
    }
    mn__free(files);
    assert_int_equal(open_and_verify(out, NULL), MN_OK);
}

static void an_id_outside_the_vocabulary_is_not_given_out(void **state)
{
    const char *path = folder_path(*state, "damaged/shard-00000.ids");
    int64_t bytes;
    char *text = folder_read(path, &bytes);
    text[10] = (char)0xFF;
    folder_write(path, text, bytes);
    free(text);
    mn__dataset *dataset;
    mn_error error = {0};
    int32_t ids[20];
    assert_int_equal(mn__dataset_open(&dataset, folder_path(*state, "damaged"), &error), MN_OK);
    assert_int_equal(mn__dataset_tokens(dataset, 1, 0, 20, ids, &error), MN_ERROR_FORMAT);
    mn__dataset_close(dataset);
}

static void a_full_disk_loses_nothing(void **state)
{
    const char *name = folder_path(*state, "damaged-books");
    for (int64_t room = 0; room < 20000; room += 1777) {
        mn_error error = {0};
        mn__prepare_config config =
            config_of(&name, folder_path(*state, "full-%lld", (long long)room), "bytes");
        mn__file_fail_write_after(room);
        mn_status status = mn__prepare(&config, NULL, NULL, &error);
        mn__file_fail_write_after(-1);
        if (status)
            assert_int_equal(status, MN_ERROR_IO);
        expect_prepared(&config, NULL);
        assert_int_equal(open_and_verify(config.out, &error), MN_OK);
    }
}

static void every_allocation_may_fail(void **state)
{
    static const char *const kinds[] = {"bytes", "words", "sentencepiece"};
    const char *name = folder_path(*state, "small");
    folder_write(folder_path(name, "a.txt"), "It was the best of times, it was the worst\n", -1);
    folder_write(folder_path(name, "b.txt"), "of times, it was the age of wisdom.\n", -1);
    for (size_t i = 0; i < 3; i++) {
        int64_t blocks = mn__memory_now().blocks, failed = 0;
        for (int64_t n = 1;; n++) {
            mn__prepare_config config = config_of(
                &name, folder_path(*state, "fail-%s-%lld", kinds[i], (long long)n), kinds[i]);
            config.validation = 0;
            config.shard_tokens = 10;
            config.train_vocab = i == 2 ? 280 : 0;
            mn_error error = {0};
            mn__memory_fail_nth(n);
            mn_status status = mn__prepare(&config, NULL, NULL, &error);
            if (!status)
                status = open_and_verify(config.out, &error);
            mn__memory_fail_nth(0);
            assert_int_equal(mn__memory_now().blocks, blocks);
            if (status == MN_OK)
                break;
            assert_int_equal(status, MN_ERROR_MEMORY);
            failed++;
        }
        assert_true(failed > 50);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_and_ids),
        cmocka_unit_test(wide_ids),
        cmocka_unit_test(the_fingerprint_is_of_the_data),
        cmocka_unit_test(a_stopped_run_goes_on),
        cmocka_unit_test(a_killed_run_goes_on),
        cmocka_unit_test(what_a_kill_at_the_beginning_leaves_is_removed),
        cmocka_unit_test(other_settings_are_refused),
        cmocka_unit_test(bad_utf8_is_named),
        cmocka_unit_test(only_empty_files_are_refused),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(an_id_outside_the_vocabulary_is_not_given_out),
        cmocka_unit_test(a_full_disk_loses_nothing),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
