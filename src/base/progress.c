/* Progress of long work, and the clock it is measured by. */
#include "base/progress.h"

#include <stddef.h>
#include <time.h>

bool mn__progress_report(const mn__progress *progress, const char *what, int64_t done,
                         int64_t total, const char *note)
{
    return !progress || !progress->report ||
           progress->report(progress->user, what, done, total, note);
}

double mn__clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
