/* Memory that is left: the machine's, or what cgroups leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/available.h"
#include "support/folder.h"

static int64_t left(const char *folder)
{
    return mn__memory_available_in(folder_path(folder, "meminfo"), folder_path(folder, "cgroup"),
                                   folder_path(folder, "fs"));
}

static void test_machine(void **state)
{
    folder_write(folder_path(*state, "cgroup"), "0::/\n", -1);
    assert_true(left(*state) < 0); /* nothing is known */
    folder_write(folder_path(*state, "meminfo"), "MemFree: 1 kB\nMemAvailable:   2048 kB\n", -1);
    assert_int_equal(left(*state), 2 << 20);
}

static void test_version_2(void **state)
{
    folder_write(folder_path(*state, "meminfo"), "MemAvailable: 1000000 kB\n", -1);
    folder_write(folder_path(*state, "cgroup"), "0::/a/b\n", -1);
    folder_write(folder_path(*state, "fs/a/b/memory.max"), "max\n", -1);
    folder_write(folder_path(*state, "fs/a/b/memory.current"), "5000\n", -1);
    assert_int_equal(left(*state), 1000000LL * 1024);
    folder_write(folder_path(*state, "fs/a/memory.max"), "9000\n", -1);
    folder_write(folder_path(*state, "fs/a/memory.current"), "5000\n", -1);
    assert_int_equal(left(*state), 4000);
    /* Pages of files are given back. */
    folder_write(folder_path(*state, "fs/a/memory.stat"),
                 "anon 1000\nfile 4000\ninactive_anon 7\ninactive_file 1000\nactive_file 2000\n",
                 -1);
    assert_int_equal(left(*state), 7000);
    folder_write(folder_path(*state, "fs/a/b/memory.max"), "6000\n", -1);
    assert_int_equal(left(*state), 1000);
    folder_write(folder_path(*state, "fs/a/b/memory.max"), "4000\n", -1);
    assert_int_equal(left(*state), 0);
}

static void test_version_1(void **state)
{
    folder_write(folder_path(*state, "meminfo"), "MemAvailable: 1000000 kB\n", -1);
    folder_write(folder_path(*state, "cgroup"), "5:cpu:/x\n4:memory:/job\n", -1);
    folder_write(folder_path(*state, "fs/memory/job/memory.limit_in_bytes"), "10000\n", -1);
    folder_write(folder_path(*state, "fs/memory/job/memory.usage_in_bytes"), "2500\n", -1);
    assert_int_equal(left(*state), 7500);
}

static void test_here(void **state)
{
    (void)state;
    assert_true(mn__memory_available() > 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_machine, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_version_2, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_version_1, folder_make, folder_remove),
        cmocka_unit_test(test_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
