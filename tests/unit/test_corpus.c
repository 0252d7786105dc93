/* Corpora: every layout in small, newlines, compression, splits, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/corpus.h"
#include "data/csv.h"
#include "data/source.h"
#include "support/folder.h"

static mn__corpus *open_with(const char *name, mn__corpus_options options)
{
    mn__corpus *corpus = NULL;
    mn_error error = {0};
    if (mn__corpus_open(&corpus, &name, 1, options, &error))
        fail_msg("%s", error.message);
    return corpus;
}

static mn__corpus *open_corpus(const char *name)
{
    return open_with(name, (mn__corpus_options){0});
}

static mn_status try_open(const char *name, mn_error *error)
{
    mn__corpus *corpus;
    return mn__corpus_open(&corpus, &name, 1, (mn__corpus_options){0}, error);
}

/* A document's text, read in pieces of `room`. */
static mn_status read_text(const mn__corpus *corpus, int64_t document, mn__newlines newlines,
                           int64_t room, mn__string *text, mn_error *error)
{
    mn__document_reader *reader;
    char *buffer = malloc((size_t)room);
    int64_t got = 1;
    mn_status status = mn__document_reader_open(&reader, corpus, document, newlines, error);
    if (!status) {
        while (!status && got > 0) {
            status = mn__document_reader_read(reader, buffer, room, &got, error);
            mn__string_add(text, buffer, got);
        }
        mn__document_reader_close(reader);
    }
    free(buffer);
    return status;
}

static void expect_text(const mn__corpus *corpus, int64_t document, mn__newlines newlines,
                        const char *expected)
{
    for (int64_t room = 4; room < 12; room++) {
        mn__string text = {0};
        mn_error error = {0};
        assert_int_equal(read_text(corpus, document, newlines, room, &text, &error), MN_OK);
        assert_string_equal(text.text ? text.text : "", expected);
        mn__string_free(&text);
    }
}

static void newlines(void **state)
{
    static const char text[] = "\xEF\xBB\xBFone\r\ntwo\rthree\n\r\r\n\nfour\r";
    folder_write(folder_path(*state, "newlines.txt"), text, -1);
    mn__corpus *corpus = open_corpus(folder_path(*state, "newlines.txt"));
    assert_int_equal(corpus->count, 1);
    assert_string_equal(corpus->documents[0].name, "newlines.txt");
    assert_int_equal(corpus->documents[0].bytes, sizeof text - 1);
    expect_text(corpus, 0, MN__NEWLINES_KEEP, text);
    expect_text(corpus, 0, MN__NEWLINES_LF, "one\ntwo\nthree\n\n\n\nfour\n");
    mn__file_short_calls(1);
    expect_text(corpus, 0, MN__NEWLINES_LF, "one\ntwo\nthree\n\n\n\nfour\n");
    mn__file_short_calls(-1);
    mn__corpus_close(corpus);
}

static void short_and_empty_files(void **state)
{
    static const char *const texts[] = {"", "\xEF", "\xEF\xBB", "a", "\r", "ab\n"};
    static const char *const folded[] = {"", "\xEF", "\xEF\xBB", "a", "\n", "ab\n"};
    for (size_t i = 0; i < 6; i++) {
        folder_write(folder_path(*state, "short.txt"), texts[i], -1);
        mn__corpus *corpus = open_corpus(folder_path(*state, "short.txt"));
        expect_text(corpus, 0, MN__NEWLINES_LF, folded[i]);
        mn__corpus_close(corpus);
    }
}

static void a_folder_and_the_folder_as_one(void **state)
{
    const char *folder = folder_path(*state, "texts");
    folder_write(folder_path(folder, "b.txt"), "second\n", -1);
    folder_write(folder_path(folder, "a.txt"),
                 "\xEF\xBB\xBF"
                 "first\r",
                 -1);
    folder_write(folder_path(folder, "deep/c.txt"), "\nthird\n", -1);
    folder_write(folder_path(folder, "notes.doc"), "not text", -1);
    folder_write(folder_path(folder, "README.md"), "about the folder", -1);
    folder_write(folder_path(folder, ".hidden.txt"), "hidden", -1);
    mn__corpus *corpus = open_corpus(folder);
    assert_int_equal(corpus->count, 3);
    assert_string_equal(corpus->documents[0].name, "a");
    assert_string_equal(corpus->documents[2].name, "deep/c");
    expect_text(corpus, 1, MN__NEWLINES_LF, "second\n");
    mn__corpus_close(corpus);
    corpus = open_with(folder, (mn__corpus_options){.one = true});
    assert_int_equal(corpus->count, 1);
    /* The CR that ends one file and the LF that begins another are two ends. */
    expect_text(corpus, 0, MN__NEWLINES_LF, "first\nsecond\n\nthird\n");
    mn__corpus_close(corpus);
}

static void pg19s_layout(void **state)
{
    const char *folder = folder_path(*state, "pg19");
    folder_write(
        folder_path(folder, "metadata.csv"),
        "12,\"A, B and \"\"C\"\" by D\",1900,http://x/12\r\n7,Plain by E,1910,http://x/7\n", -1);
    folder_write(folder_path(folder, "train/12.txt"), "train", -1);
    folder_write(folder_path(folder, "test/7.txt"), "test", -1);
    folder_write(folder_path(folder, "test/8.txt"), "no row", -1);
    mn__corpus *corpus = open_corpus(folder_path(folder, ".@test"));
    assert_int_equal(corpus->count, 2);
    assert_string_equal(corpus->documents[0].name, "7");
    assert_int_equal(corpus->documents[0].split, MN__SPLIT_TEST);
    expect_text(corpus, 0, MN__NEWLINES_KEEP, "test");
    mn__corpus_close(corpus);
    mn_error none;
    assert_int_equal(try_open(folder_path(folder, ".@validation"), &none), MN_ERROR_OPTION);
    assert_non_null(strstr(none.message, "no documents in its validation split"));
    corpus = open_corpus(folder);
    assert_int_equal(corpus->count, 3);
    assert_string_equal(corpus->documents[0].name, "12");
    assert_string_equal(corpus->documents[0].title, "A, B and \"C\" by D");
    assert_int_equal(corpus->documents[0].split, MN__SPLIT_TRAIN);
    assert_int_equal(corpus->documents[1].split, MN__SPLIT_TEST);
    assert_string_equal(corpus->documents[2].title, "");
    assert_int_equal(corpus->published_words[MN__SPLIT_TEST], 0);
    mn__corpus_close(corpus);

    for (int i = 0; i < 100; i++)
        folder_write(folder_path(folder, "test/%d.txt", i), "book", -1);
    corpus = open_corpus(folder);
    assert_int_equal(corpus->published_words[MN__SPLIT_TEST], 6966499);
    mn__corpus_close(corpus);

    mn_error error = {0};
    folder_write(folder_path(folder, "metadata.csv"), "1,a,b\n", -1);
    assert_int_equal(try_open(folder, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "line 1"));
    folder_write(folder_path(folder, "metadata.csv"), "1,a,b,c\n2,\"a,b,c\n", -1);
    assert_int_equal(try_open(folder, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "line 2"));
}

/* One entry "text" of an archive, .gz (raw) or .zip with `entries` files. */
static void write_archive(const char *path, bool zip, int entries, const char *text, size_t bytes)
{
    struct archive *archive = archive_write_new();
    if (zip) {
        archive_write_set_format_zip(archive);
    } else {
        archive_write_add_filter_gzip(archive);
        archive_write_set_format_raw(archive);
    }
    assert_int_equal(archive_write_open_filename(archive, path), ARCHIVE_OK);
    for (int i = 0; i < entries; i++) {
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, i ? "other" : "enwik8");
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_size(entry, (la_int64_t)bytes);
        assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
        assert_int_equal(archive_write_data(archive, text, bytes), bytes);
        archive_entry_free(entry);
    }
    archive_write_close(archive);
    archive_write_free(archive);
}

static void enwik8_plain_and_compressed(void **state)
{
    char text[201];
    for (int i = 0; i < 200; i++)
        text[i] = (char)('a' + i % 26);
    text[200] = '\0';
    folder_write(folder_path(*state, "enwik8"), text, -1);
    write_archive(folder_path(*state, "enwik8.gz"), false, 1, text, 200);
    write_archive(folder_path(*state, "enwik8.zip"), true, 1, text, 200);
    static const char *const names[] = {"enwik8", "enwik8.gz", "enwik8.zip"};
    for (size_t i = 0; i < 3; i++) {
        mn__corpus *corpus = open_corpus(folder_path(*state, "%s", names[i]));
        char expected[201];
        assert_int_equal(corpus->count, 3);
        assert_int_equal(mn__corpus_bytes(corpus), 200);
        snprintf(expected, sizeof expected, "%.180s", text);
        expect_text(corpus, 0, MN__NEWLINES_KEEP, expected);
        snprintf(expected, sizeof expected, "%.10s", text + 180);
        expect_text(corpus, 1, MN__NEWLINES_KEEP, expected);
        expect_text(corpus, 2, MN__NEWLINES_KEEP, text + 190);
        assert_int_equal(corpus->documents[1].split, MN__SPLIT_VALIDATION);
        mn__corpus_close(corpus);
    }
}

static void damaged_archives_are_refused(void **state)
{
    char text[5000];
    int64_t bytes;
    mn_error error = {0};
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * i % 251);
    const char *gz = folder_path(*state, "text8.gz"), *zip = folder_path(*state, "text8.zip");
    write_archive(gz, false, 1, text, sizeof text);
    char *whole = folder_read(gz, &bytes);
    folder_write(gz, whole, bytes / 2);
    free(whole);
    assert_int_equal(try_open(gz, &error), MN_ERROR_FORMAT);
    write_archive(zip, true, 2, text, sizeof text);
    assert_int_equal(try_open(zip, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "more than one file"));
}

static const char wiki[] = " \n = First = \n \n Text of it . \n \n = = Section = = \n \n More . \n"
                           " = Not a title = \n x \n \n = Second title = \n \n End . \n";

static void wikitexts_articles(void **state)
{
    folder_write(folder_path(*state, "wiki/wiki.valid.tokens"), wiki, -1);
    mn__corpus *corpus = open_corpus(folder_path(*state, "wiki"));
    assert_int_equal(corpus->count, 2);
    assert_string_equal(corpus->documents[0].title, "First");
    assert_string_equal(corpus->documents[1].title, "Second title");
    assert_string_equal(corpus->documents[1].name, "validation-00001");
    assert_int_equal(corpus->documents[0].split, MN__SPLIT_VALIDATION);
    int64_t second = strstr(wiki, " = Second") - wiki;
    expect_text(corpus, 1, MN__NEWLINES_KEEP, wiki + second);
    assert_int_equal(mn__corpus_bytes(corpus), sizeof wiki - 1); /* nothing is dropped */
    mn__corpus_close(corpus);
    corpus = open_corpus(folder_path(*state, "wiki/wiki.valid.tokens"));
    assert_int_equal(corpus->documents[0].split, MN__SPLIT_VALIDATION);
    mn__corpus_close(corpus);
}

static void a_source_tree(void **state)
{
    const char *folder = folder_path(*state, "tree");
    folder_write(folder_path(folder, "src/main.c"), "int main(void)\n", -1);
    folder_write(folder_path(folder, "README"),
                 "r\xC3\xA9"
                 "adme\n",
                 -1);
    folder_write(folder_path(folder, ".git/config"), "hidden", -1);
    folder_write(folder_path(folder, "build/x.c"), "built", -1);
    folder_write(folder_path(folder, "build-asan/x.c"), "built", -1);
    folder_write(folder_path(folder, "picture.png"), "\x89PNG\0\0", 6);
    folder_write(folder_path(folder, "latin1.txt"), "caf\xE9\n", -1);
    folder_write(folder_path(folder, "cut.txt"), "caf\xC3", -1);
    folder_write(folder_path(folder, "empty.c"), "", -1);
    assert_int_equal(symlink("..", folder_path(folder, "loop")), 0);
    assert_int_equal(symlink("nowhere", folder_path(folder, "dangling")), 0);
    char name[4200];
    snprintf(name, sizeof name, "tree=%s", folder);
    mn__corpus *corpus = open_corpus(name);
    assert_int_equal(corpus->count, 2);
    assert_string_equal(corpus->documents[0].name, "README");
    assert_string_equal(corpus->documents[1].name, "src/main.c");
    mn__corpus_close(corpus);
}

static void characters_across_chunks_are_text(void **state)
{
    const char *folder = folder_path(*state, "wide");
    mn__string text = {0};
    mn__string_puts(&text, "a");
    while (text.bytes < 200000) /* three bytes each: 64 KiB cuts one */
        mn__string_puts(&text, "\xE2\x82\xAC");
    folder_write(folder_path(folder, "wide.c"), text.text, text.bytes);
    mn__corpus *corpus = open_corpus(folder);
    assert_int_equal(corpus->count, 1);
    mn__corpus_close(corpus);
    text.text[text.bytes - 1] = 'x';
    folder_write(folder_path(folder, "wide.c"), text.text, text.bytes);
    mn_error error = {0};
    assert_int_equal(try_open(folder, &error), MN_ERROR_FORMAT);
    mn__string_free(&text);
}

static void shares_of_one_file_and_of_many(void **state)
{
    mn__string text = {0};
    for (int i = 0; i < 100; i++)
        mn__string_printf(&text, "line %02d\n", i);
    folder_write(folder_path(*state, "one.txt"), text.text, text.bytes);
    mn__corpus_options options = {.validation = 0.1, .test = 0.2};
    mn__corpus *corpus = open_with(folder_path(*state, "one.txt"), options);
    assert_int_equal(corpus->count, 3);
    assert_int_equal(mn__corpus_bytes(corpus), text.bytes);
    mn__string read = {0};
    assert_int_equal(read_text(corpus, 1, MN__NEWLINES_LF, 64, &read, NULL), MN_OK);
    assert_int_equal(memcmp(read.text, "line 7", 6), 0); /* at a line's beginning */
    assert_int_equal(read.text[read.bytes - 1], '\n');
    mn__string_free(&read);
    mn__string_free(&text);
    mn__corpus_close(corpus);

    for (int i = 0; i < 20; i++)
        folder_write(folder_path(*state, "many/%02d.txt", i), "x", -1);
    corpus = open_with(folder_path(*state, "many"), options);
    int splits[MN__SPLITS] = {0};
    for (int64_t i = 0; i < corpus->count; i++)
        splits[corpus->documents[i].split]++;
    assert_int_equal(splits[MN__SPLIT_VALIDATION], 2);
    assert_int_equal(splits[MN__SPLIT_TEST], 4);
    mn__corpus_close(corpus);
}

static void names_with_types_and_splits(void **state)
{
    char first[4200], second[4200];
    mn_error error = {0};
    folder_write(folder_path(*state, "named/x.txt"), "x", -1);
    snprintf(first, sizeof first, "folder=%s/@test", folder_path(*state, "named"));
    snprintf(second, sizeof second, "text=%s", folder_path(*state, "named/x.txt"));
    const char *names[] = {first, second};
    mn__corpus *corpus;
    assert_int_equal(mn__corpus_open(&corpus, names, 2, (mn__corpus_options){0}, &error), MN_OK);
    assert_int_equal(corpus->count, 2);
    assert_int_equal(corpus->documents[0].split, MN__SPLIT_TEST);
    assert_int_equal(corpus->documents[1].split, MN__SPLIT_TRAIN);
    mn__corpus_close(corpus);
    assert_int_equal(try_open(folder_path(*state, "nowhere"), &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "nowhere"));
    assert_int_equal(
        mn__corpus_open(&corpus, names, 1, (mn__corpus_options){0.5, 0.5, false}, &error),
        MN_ERROR_OPTION);
}

/* A sparse file of 3 GiB: its end is read, not its 2^31st byte wrapped. */
static void files_over_two_gibibytes(void **state)
{
    const char *path = folder_path(*state, "huge.txt");
    const int64_t end = INT64_C(3) << 30;
    int file = open(path, O_WRONLY | O_CREAT, 0666);
    assert_int_equal(ftruncate(file, end), 0);
    assert_int_equal(pwrite(file, "the end\n", 8, end), 8);
    close(file);
    mn__corpus *corpus = open_corpus(path);
    assert_int_equal(corpus->documents[0].bytes, end + 8);
    corpus->parts[0].offset = end - 2;
    corpus->parts[0].bytes = 10;
    mn__string text = {0};
    assert_int_equal(read_text(corpus, 0, MN__NEWLINES_LF, 64, &text, NULL), MN_OK);
    assert_int_equal(text.bytes, 10);
    assert_memory_equal(text.text, "\0\0the end\n", 10);
    mn__string_free(&text);
    mn__corpus_close(corpus);
}

static void a_file_that_shrinks_is_refused(void **state)
{
    const char *path = folder_path(*state, "shrinks.txt");
    mn_error error = {0};
    mn__string text = {0};
    folder_write(path, "as long as this", -1);
    mn__corpus *corpus = open_corpus(path);
    folder_write(path, "short", -1);
    assert_int_equal(read_text(corpus, 0, MN__NEWLINES_LF, 64, &text, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "10 bytes before"));
    mn__string_free(&text);
    mn__corpus_close(corpus);
}

static mn_status list_and_read(const char *name, mn_error *error)
{
    mn__corpus *corpus;
    mn__corpus_options options = {.validation = 0.3};
    mn_status status = mn__corpus_open(&corpus, &name, 1, options, error);
    if (status)
        return status;
    for (int64_t i = 0; i < corpus->count && !status; i++) {
        mn__string text = {0};
        status = read_text(corpus, i, MN__NEWLINES_LF, 64, &text, error);
        if (!status && text.failed)
            status = MN_ERROR_MEMORY;
        mn__string_free(&text);
    }
    mn__corpus_close(corpus);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    static const char *const names[] = {"texts", "pg19", "enwik8.gz", "wiki", "tree", "one.txt"};
    folder_write(folder_path(*state, "pg19/metadata.csv"), "7,a by b,1900,http://x\n", -1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *name = folder_path(*state, "%s", names[i]);
        int64_t blocks = mn__memory_now().blocks, failed = 0;
        for (int64_t n = 1;; n++) {
            mn_error error = {0};
            mn__memory_fail_nth(n);
            mn_status status = list_and_read(name, &error);
            mn__memory_fail_nth(0);
            assert_int_equal(mn__memory_now().blocks, blocks);
            if (status == MN_OK)
                break;
            assert_int_equal(status, MN_ERROR_MEMORY);
            failed++;
        }
        assert_true(failed > 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newlines),
        cmocka_unit_test(short_and_empty_files),
        cmocka_unit_test(a_folder_and_the_folder_as_one),
        cmocka_unit_test(pg19s_layout),
        cmocka_unit_test(enwik8_plain_and_compressed),
        cmocka_unit_test(damaged_archives_are_refused),
        cmocka_unit_test(wikitexts_articles),
        cmocka_unit_test(a_source_tree),
        cmocka_unit_test(characters_across_chunks_are_text),
        cmocka_unit_test(shares_of_one_file_and_of_many),
        cmocka_unit_test(names_with_types_and_splits),
        cmocka_unit_test(files_over_two_gibibytes),
        cmocka_unit_test(a_file_that_shrinks_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
