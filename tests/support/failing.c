/* Every allocation of some work made to fail in turn. */
#include "support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/arena.h"

/* False where there was no n-th allocation. */
static bool fail_one(const char *what, failing_work work, void *user, int64_t n)
{
    mn_error error = {.code = MN_OK};
    mn__memory_stats before = mn__memory_now();
    mn__memory_fail_nth(n);
    mn_status status = work(user, &error);
    bool failed = mn__memory_fail_nth(0) == 0;
    mn__memory_stats after = mn__memory_now();
    if (status != MN_OK && (!failed || status != MN_ERROR_MEMORY || error.code != status))
        fail_msg("%s, allocation %lld: %s, '%s'", what, (long long)n, mn_status_name(status),
                 error.message);
    if (status != MN_OK && !*error.message)
        fail_msg("%s, allocation %lld: no message", what, (long long)n);
    if (after.blocks != before.blocks || after.bytes != before.bytes)
        fail_msg("%s, allocation %lld: %lld blocks, %lld bytes are not given back", what,
                 (long long)n, (long long)(after.blocks - before.blocks),
                 (long long)(after.bytes - before.bytes));
    return failed;
}

int64_t failing_each(const char *what, failing_work work, void *user, bool single,
                     void (*after)(void *user))
{
    int64_t n = 1;
    for (bool more = true; more; n++) {
        mn__arena_single_blocks(single);
        more = fail_one(what, work, user, n);
        mn__arena_single_blocks(false);
        if (after)
            after(user);
    }
    if (n == 2)
        fail_msg("%s: there was nothing to fail", what);
    return n - 2;
}
