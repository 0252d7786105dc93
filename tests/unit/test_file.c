/* Files: whole reads, maps, folders, and writes that lose nothing when the disk
 * is full, calls come back short, or memory is out. */
#include "unit/faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/threads.h"

static char folder[] = "test-file-XXXXXX";

static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void expect_contents(const char *path, const char *expected, int64_t length)
{
    char *text;
    int64_t bytes;
    assert_int_equal(mn__file_read(path, 0, &text, &bytes, NULL), MN_OK);
    assert_int_equal(bytes, length);
    assert_memory_equal(text, expected, (size_t)length + 1);
    mn__free(text);
}

static int64_t count_files(const char *path)
{
    char **names;
    int64_t count;
    assert_int_equal(mn__file_list(path, &names, &count, NULL), MN_OK);
    mn__free(names);
    return count;
}

static void writes_and_reads(void **state)
{
    (void)state;
    const char *path = in_folder("a.txt");
    assert_false(mn__file_exists(path));
    assert_int_equal(mn__file_write(path, "hello", 5, NULL), MN_OK);
    assert_true(mn__file_exists(path));
    expect_contents(path, "hello", 5);
    int64_t bytes;
    assert_int_equal(mn__file_size(path, &bytes, NULL), MN_OK);
    assert_int_equal(bytes, 5);
    assert_int_equal(mn__file_write(path, "", 0, NULL), MN_OK);
    expect_contents(path, "", 0);
    assert_int_equal(mn__file_remove(path, NULL), MN_OK);
    mn_error error;
    assert_int_equal(mn__file_remove(path, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "a.txt"));
}

static void respects_the_limit(void **state)
{
    (void)state;
    const char *path = in_folder("limit");
    char *text;
    int64_t bytes;
    mn_error error;
    assert_int_equal(mn__file_write(path, "0123456789", 10, NULL), MN_OK);
    assert_int_equal(mn__file_read(path, 9, &text, &bytes, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "limit of 9 bytes"));
    assert_int_equal(mn__file_read(path, 10, &text, &bytes, &error), MN_OK);
    mn__free(text);
    assert_int_equal(mn__file_read("/dev/zero", 100000, &text, &bytes, &error), MN_ERROR_IO);
    assert_int_equal(mn__file_read(folder, 0, &text, &bytes, &error), MN_ERROR_IO);
    assert_int_equal(mn__file_read(in_folder("none"), 0, &text, &bytes, &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "No such file"));
    assert_int_equal(mn__file_remove(path, NULL), MN_OK);
}

/* Files of /proc say that they have no bytes. */
static void reads_without_a_size(void **state)
{
    (void)state;
    char *text;
    int64_t bytes;
    assert_int_equal(mn__file_read("/proc/self/status", 0, &text, &bytes, NULL), MN_OK);
    assert_true(bytes > 100);
    assert_non_null(strstr(text, "Name:"));
    mn__free(text);
}

static void maps(void **state)
{
    (void)state;
    const char *path = in_folder("map");
    mn__map map;
    assert_int_equal(mn__file_write(path, "mapped", 6, NULL), MN_OK);
    assert_int_equal(mn__map_open(&map, path, NULL), MN_OK);
    assert_int_equal(map.bytes, 6);
    assert_memory_equal(map.data, "mapped", 6);
    mn__map_close(&map);
    assert_null(map.data);
    assert_int_equal(mn__file_write(path, "", 0, NULL), MN_OK);
    assert_int_equal(mn__map_open(&map, path, NULL), MN_OK);
    assert_int_equal(map.bytes, 0);
    assert_null(map.data);
    mn__map_close(&map);
    assert_int_equal(mn__map_open(&map, folder, NULL), MN_ERROR_IO);
    assert_int_equal(mn__map_open(&map, "/dev/null", NULL), MN_ERROR_IO);
    assert_int_equal(mn__file_remove(path, NULL), MN_OK);
}

static void lists_folders(void **state)
{
    (void)state;
    mn_error error;
    char **names;
    int64_t count;
    assert_int_equal(mn__file_make_folder(in_folder("x/y/z"), NULL), MN_OK);
    assert_int_equal(mn__file_make_folder(in_folder("x/y/z/"), NULL), MN_OK);
    assert_true(mn__file_is_folder(in_folder("x/y/z")));
    assert_int_equal(mn__file_list(in_folder("x/y/z"), &names, &count, NULL), MN_OK);
    assert_int_equal(count, 0);
    mn__free(names);
    const char *made[] = {"b", "a", "B", "a.b"}, *sorted[] = {"B", "a", "a.b", "b"};
    for (int i = 0; i < 4; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", in_folder("x/y/z"), made[i]);
        assert_int_equal(mn__file_write(path, "", 0, NULL), MN_OK);
    }
    assert_int_equal(mn__file_list(in_folder("x/y/z"), &names, &count, NULL), MN_OK);
    assert_int_equal(count, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(names[i], sorted[i]);
    mn__free(names);
    assert_int_equal(mn__file_list(in_folder("none"), &names, &count, &error), MN_ERROR_IO);
    assert_int_equal(mn__file_make_folder(in_folder("x/y/z/a/c"), &error), MN_ERROR_IO);
    assert_non_null(strstr(error.message, "x/y/z/a"));
}

static void replaces_what_a_link_names(void **state)
{
    (void)state;
    const char *target = in_folder("target"), *link = in_folder("link");
    struct stat info;
    assert_int_equal(mn__file_write(target, "old", 3, NULL), MN_OK);
    assert_int_equal(chmod(target, 0640), 0);
    assert_int_equal(symlink("target", link), 0);
    assert_int_equal(mn__file_write(link, "new", 3, NULL), MN_OK);
    expect_contents(target, "new", 3);
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(target, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(mn__file_write("/dev/null", "x", 1, NULL), MN_ERROR_IO);
    assert_int_equal(mn__file_write(folder, "x", 1, NULL), MN_ERROR_IO);
    assert_int_equal(mn__file_write(in_folder("none/x"), "x", 1, NULL), MN_ERROR_IO);
}

/* 200,000 bytes in pieces of all sizes, some beyond the buffer. */
static mn_status write_long(const char *path, mn_error *error)
{
    static char data[200000];
    memset(data, 'n', sizeof data);
    mn__writer *writer;
    mn_status status = mn__writer_open(&writer, path, error);
    if (status)
        return status;
    int64_t at = 0;
    for (int64_t piece = 1; at + piece < 100000; at += piece, piece += 11)
        mn__writer_write(writer, data + at, piece);
    mn__writer_printf(writer, "%.*s", 1000, data);
    at += 1000;
    mn__writer_write(writer, data, (int64_t)sizeof data - at);
    return mn__writer_commit(writer, error);
}

static void a_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = in_folder("full");
    assert_int_equal(mn__file_write(path, "old", 3, NULL), MN_OK);
    int64_t files = count_files(folder);
    const int64_t room[] = {0, 1, 4096, 65535, 65536, 65537, 150000, 199999};
    for (size_t i = 0; i < sizeof room / sizeof *room; i++) {
        mn_error error;
        mn__file_fail_write_after(room[i]);
        assert_int_equal(write_long(path, &error), MN_ERROR_IO);
        mn__file_fail_write_after(-1);
        assert_non_null(strstr(error.message, "No space left"));
        assert_non_null(strstr(error.hint, "free some space"));
        expect_contents(path, "old", 3);
        assert_int_equal(count_files(folder), files); /* nothing is left beside it */
    }
    mn__file_fail_write_after(200000);
    assert_int_equal(write_long(path, NULL), MN_OK);
    mn__file_fail_write_after(-1);
}

static void short_calls_lose_nothing(void **state)
{
    (void)state;
    const char *path = in_folder("short");
    const int64_t pieces[] = {1, 7, 4096, 65536};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        int64_t bytes;
        char *text;
        mn__file_short_calls(pieces[i]);
        assert_int_equal(write_long(path, NULL), MN_OK);
        assert_int_equal(mn__file_read(path, 0, &text, &bytes, NULL), MN_OK);
        mn__file_short_calls(-1);
        assert_int_equal(bytes, 200000);
        for (int64_t j = 0; j < bytes; j++)
            assert_int_equal(text[j], 'n');
        assert_int_equal(text[bytes], '\0');
        mn__free(text);
    }
}

static void abort_leaves_nothing(void **state)
{
    (void)state;
    int64_t files = count_files(folder);
    mn__writer *writer;
    assert_int_equal(mn__writer_open(&writer, in_folder("aborted"), NULL), MN_OK);
    mn__writer_write(writer, "abc", 3);
    assert_int_equal(mn__writer_bytes(writer), 3);
    assert_int_equal(count_files(folder), files + 1);
    mn__writer_abort(writer);
    mn__writer_abort(NULL);
    assert_int_equal(count_files(folder), files);
}

static mn_status use_everything(void)
{
    char *text, **names;
    int64_t bytes, count;
    mn_status status = mn__file_make_folder(in_folder("m/n"), NULL);
    if (!status)
        status = write_long(in_folder("m/n/file"), NULL);
    if (!status && !(status = mn__file_read(in_folder("m/n/file"), 0, &text, &bytes, NULL)))
        mn__free(text);
    if (!status && !(status = mn__file_list(in_folder("m/n"), &names, &count, NULL)))
        mn__free(names);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    CHECK_EVERY_ALLOCATION(use_everything());
}

/* ---- Threads: the quota is read from files -------------------------------- */

static void put(const char *name, const char *text)
{
    assert_int_equal(mn__file_write(in_folder(name), text, (int64_t)strlen(text), NULL), MN_OK);
}

static void reads_cgroup_quotas(void **state)
{
    (void)state;
    char mount[256];
    snprintf(mount, sizeof mount, "%s", in_folder("cgroup"));
    assert_int_equal(mn__file_make_folder(in_folder("cgroup/a/b"), NULL), MN_OK);
    assert_int_equal(mn__file_make_folder(in_folder("cgroup/cpu/c"), NULL), MN_OK);
    put("member", "0::/a/b\n");
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 0);
    put("cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 0);
    put("cgroup/a/cpu.max", "350000 100000\n"); /* three and a half: four */
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 4);
    put("cgroup/a/b/cpu.max", "50000 100000\n");
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 1);
    put("cgroup/a/b/cpu.max", "rubbish");
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 4);
    put("member", "5:memory:/a\n4:cpu,cpuacct:/c\n1:cpuset:/a\n");
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 0);
    put("cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
    put("cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 0);
    put("cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    put("cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(mn__threads_quota(in_folder("member"), mount), 2);
    assert_int_equal(mn__threads_quota(in_folder("none"), mount), 0);
}

static void sets_the_team(void **state)
{
    (void)state;
    assert_true(mn__threads_default() >= 1);
    assert_int_equal(mn__threads_set(3), 3);
    assert_int_equal(mn__threads(), 3);
    assert_int_equal(mn__threads_set(0), mn__threads_default());
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_and_reads),
        cmocka_unit_test(respects_the_limit),
        cmocka_unit_test(reads_without_a_size),
        cmocka_unit_test(maps),
        cmocka_unit_test(lists_folders),
        cmocka_unit_test(replaces_what_a_link_names),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
        cmocka_unit_test(short_calls_lose_nothing),
        cmocka_unit_test(abort_leaves_nothing),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(reads_cgroup_quotas),
        cmocka_unit_test(sets_the_team),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
