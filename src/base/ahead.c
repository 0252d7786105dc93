/* Reading ahead, by a thread that takes no memory from the heap and closes what it has asked
 * for: a model stays open for long. */
#include "base/ahead.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/available.h"

enum { STEP = 8 << 20 };

static int64_t bytes_of(int file)
{
    struct stat info;
    return fstat(file, &info) == 0 && S_ISREG(info.st_mode) ? info.st_size : 0;
}

static void close_files(const mn__ahead *ahead)
{
    for (int i = 0; i < ahead->count; i++)
        close(ahead->file[i]);
}

static void *run(void *argument)
{
    const mn__ahead *ahead = argument;
    for (int i = 0; i < ahead->count; i++) {
        int64_t bytes = bytes_of(ahead->file[i]);
        for (int64_t at = 0; at < bytes && !ahead->stop; at += STEP)
            posix_fadvise(ahead->file[i], at, STEP, POSIX_FADV_WILLNEED);
    }
    close_files(ahead);
    return NULL;
}

/* A name may be a pipe's, too, which must not be waited for. */
static void add(mn__ahead *ahead, int folder, const char *name)
{
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file >= 0)
        ahead->file[ahead->count++] = file;
}

static void add_folder(mn__ahead *ahead, const char *path, const char *ending)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    if (!folder)
        return;
    while (ahead->count < MN__AHEAD_FILES && (entry = readdir(folder))) {
        size_t length = strlen(entry->d_name), end = strlen(ending);
        if (length >= end && !strcmp(entry->d_name + length - end, ending))
            add(ahead, dirfd(folder), entry->d_name);
    }
    closedir(folder);
}

void mn__ahead_start(mn__ahead *ahead, const char *path, const char *ending)
{
    struct stat info;
    int64_t bytes = 0;
    *ahead = (mn__ahead){.count = 0};
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        add_folder(ahead, path, ending);
    else
        add(ahead, AT_FDCWD, path);
    for (int i = 0; i < ahead->count; i++)
        bytes += bytes_of(ahead->file[i]);
    if (mn__memory_available() > bytes + bytes / 4)
        ahead->running = pthread_create(&ahead->thread, NULL, run, ahead) == 0;
    if (!ahead->running)
        close_files(ahead);
}

void mn__ahead_end(mn__ahead *ahead)
{
    ahead->stop = true;
    if (ahead->running)
        pthread_join(ahead->thread, NULL);
    *ahead = (mn__ahead){.count = 0};
}
