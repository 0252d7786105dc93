/* Reading ahead: what is asked for, that it stops, and that no file stays open. posix_fadvise is
 * this test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ahead.h"
#include "base/available.h"
#include "support/folder.h"

enum { STEP = 8 << 20, LARGE = 3 * STEP + 5 };

static atomic_int calls;
static _Atomic int64_t covered;  /* bytes of files that were asked for */
static const mn__ahead *awaited; /* calls return once it is to stop */

int posix_fadvise(int file, off_t offset, off_t length, int advice)
{
    struct stat info;
    assert_int_equal(advice, POSIX_FADV_WILLNEED);
    assert_int_equal(fstat(file, &info), 0);
    assert_true(offset < info.st_size);
    covered += length < info.st_size - offset ? length : info.st_size - offset;
    calls++;
    while (awaited && !awaited->stop)
        sched_yield();
    return 0;
}

static int open_files(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* A file without blocks on the disk. */
static void make(const char *path, int64_t bytes)
{
    folder_write(path, "", 0);
    assert_int_equal(truncate(path, bytes), 0);
}

static void begin(mn__ahead *ahead, const char *path)
{
    calls = 0;
    covered = 0;
    mn__ahead_start(ahead, path, ".part");
}

/* Waits for the thread, whose last deed is to close its files. */
static void wait_for(int open)
{
    for (int i = 0; i < 1000000 && open_files() != open; i++)
        sched_yield();
    assert_int_equal(open_files(), open);
}

static void check_covers(const char *path, int64_t bytes, int open)
{
    mn__ahead ahead;
    begin(&ahead, path);
    wait_for(open);
    mn__ahead_end(&ahead);
    assert_int_equal(covered, bytes);
    mn__ahead_end(&ahead); /* of one that has ended, nothing */
}

static void covers(void **state)
{
    const char *folder = folder_path(*state, "some");
    int open = open_files();
    make(folder_path(*state, "some/a.part"), LARGE);
    make(folder_path(*state, "some/b.part"), 1);
    make(folder_path(*state, "some/c.part"), 0);
    make(folder_path(*state, "some/part.other"), LARGE);
    assert_int_equal(mkdir(folder_path(*state, "some/d.part"), 0700), 0);
    assert_int_equal(mkfifo(folder_path(*state, "some/e.part"), 0600), 0);
    check_covers(folder, LARGE + 1, open);
    check_covers(folder_path(*state, "some/part.other"), LARGE, open); /* a file is what it is */
    check_covers(folder_path(*state, "some/e.part"), 0, open);
    check_covers(folder_path(*state, "none"), 0, open);
    for (int i = 0; i < MN__AHEAD_FILES + 6; i++)
        make(folder_path(*state, "many/%d.part", i), 10);
    check_covers(folder_path(*state, "many"), 10 * MN__AHEAD_FILES, open);
}

static void stops(void **state)
{
    mn__ahead ahead;
    int open = open_files();
    make(folder_path(*state, "stop/a.part"), LARGE);
    make(folder_path(*state, "stop/b.part"), LARGE);
    awaited = &ahead;
    begin(&ahead, folder_path(*state, "stop"));
    while (calls == 0)
        sched_yield();
    mn__ahead_end(&ahead);
    awaited = NULL;
    assert_int_equal(calls, 1);
    assert_int_equal(open_files(), open);
}

/* More than there is memory for is left to be read when it is wanted. */
static void spares_memory(void **state)
{
    mn__ahead ahead;
    int open = open_files();
    const char *path = folder_path(*state, "huge.part");
    make(path, mn__memory_available());
    begin(&ahead, path);
    assert_false(ahead.running);
    assert_int_equal(open_files(), open);
    mn__ahead_end(&ahead);
    assert_int_equal(calls, 0);
}

int main(void)
{
    if (mn__memory_available() < 4 * (int64_t)LARGE) {
        printf("skipped: the system does not say that it has memory\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(covers), cmocka_unit_test(stops),
                                       cmocka_unit_test(spares_memory)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
