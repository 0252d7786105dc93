/* Reading ahead: files that will soon be mapped are asked for while other work is done, so
 * that the disk is not waited for page by page. Nothing depends on it, and nothing fails. */
#ifndef MN__BASE_AHEAD_H
#define MN__BASE_AHEAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { MN__AHEAD_FILES = 64 };

/* Not to be moved while it runs. */
typedef struct mn__ahead {
    pthread_t thread;
    bool running;
    atomic_bool stop;
    int file[MN__AHEAD_FILES]; /* [count], the thread's, once there is one */
    int count;
} mn__ahead;

/* A file, or those of a folder whose names have that ending (64 at most); none where the
 * machine has no memory to spare for them all, or does not say. */
void mn__ahead_start(mn__ahead *ahead, const char *path, const char *ending);
/* Stops it; of one that was not started, which is all zeros, nothing. */
void mn__ahead_end(mn__ahead *ahead);

#endif
