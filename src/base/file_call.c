/* read() and write(), with faults for the tests. */
#include "base/file_call.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"

static atomic_int_least64_t writes_left = -1; /* bytes; -1: no limit */
static atomic_int_least64_t piece = -1;
static atomic_uint calls;

void mn__file_fail_write_after(int64_t bytes)
{
    atomic_store(&writes_left, bytes);
}

void mn__file_short_calls(int64_t bytes)
{
    atomic_store(&piece, bytes);
}

/* The kernel's own limit is 2 GiB less a page. */
static int64_t shortened(int64_t bytes)
{
    const int64_t most = INT64_C(1) << 30;
    int64_t limit = atomic_load(&piece);
    limit = limit > 0 ? limit : most;
    return bytes < limit ? bytes : limit;
}

static bool interrupted(void)
{
    if (atomic_load(&piece) <= 0 || atomic_fetch_add(&calls, 1) % 2 == 1)
        return false;
    errno = EINTR;
    return true;
}

int64_t mn__file_call_read(int file, void *data, int64_t bytes)
{
    for (;;) {
        ssize_t got = interrupted() ? -1 : read(file, data, (size_t)shortened(bytes));
        if (got >= 0 || errno != EINTR)
            return got;
    }
}

/* Writes what still fits, as a disk that fills up does. */
static ssize_t write_faulty(int file, const void *data, int64_t bytes)
{
    int64_t left = atomic_load(&writes_left);
    if (left == 0 && bytes > 0) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t done = write(file, data, (size_t)(left > 0 && left < bytes ? left : bytes));
    if (done > 0 && left > 0)
        atomic_fetch_sub(&writes_left, done);
    return done;
}

int64_t mn__file_call_write(int file, const void *data, int64_t bytes)
{
    for (;;) {
        ssize_t done = interrupted() ? -1 : write_faulty(file, data, shortened(bytes));
        if (done >= 0 || errno != EINTR)
            return done;
    }
}
