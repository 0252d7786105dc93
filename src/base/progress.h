/* Progress of long work, reported to whoever waits for it. */
#ifndef MN__BASE_PROGRESS_H
#define MN__BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mn__progress {
    /* what: "reading books"; done of total (total <= 0: unknown); note: free
     * text such as "loss 1.23, 5.1k tokens/s" or NULL. Returns false to stop
     * the work, which then ends with MN_ERROR_INTERRUPTED. */
    bool (*report)(void *user, const char *what, int64_t done, int64_t total, const char *note);
    void *user;
} mn__progress;

/* Reports to `progress`, which may be NULL (then true). */
bool mn__progress_report(const mn__progress *progress, const char *what, int64_t done,
                         int64_t total, const char *note);
/* Seconds on a monotonic clock. */
double mn__clock(void);

#endif
