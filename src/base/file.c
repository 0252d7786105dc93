/* Files: reading whole ones, mapping, folders. Writing is in writer.c. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_call.h"
#include "base/memory.h"
#include "base/string.h"

bool mn__file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool mn__file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool mn__file_is_same(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

mn_status mn__file_size(const char *path, int64_t *bytes, mn_error *error)
{
    struct stat info;
    if (stat(path, &info))
        return mn__fail_errno(error, NULL, "%s", path);
    if (!S_ISREG(info.st_mode))
        return mn__fail(error, MN_ERROR_IO, NULL, "%s: not a regular file", path);
    *bytes = info.st_size;
    return MN_OK;
}

/* ---- Folders -------------------------------------------------------------- */

static mn_status make_one(const char *path, mn_error *error)
{
    if (mkdir(path, 0777) == 0)
        return MN_OK;
    if (mn__file_is_folder(path))
        return MN_OK;
    return mn__fail_errno(error, NULL, "%s: cannot make this folder", path);
}

mn_status mn__file_make_folder(const char *path, mn_error *error)
{
    char *partial = mn__strdup(path);
    if (!partial)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    mn_status status = MN_OK;
    for (char *slash = strchr(partial + 1, '/'); slash && !status; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        status = make_one(partial, error);
        *slash = '/';
    }
    if (!status)
        status = make_one(partial, error);
    mn__free(partial);
    return status;
}

/* The names, each with its NUL, one after the other. */
static mn_status gather_names(DIR *stream, const char *folder, mn__string *names, int64_t *count,
                              mn_error *error)
{
    struct dirent *entry;
    for (*count = 0; errno = 0, (entry = readdir(stream)); ++*count) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            --*count;
            continue;
        }
        mn__string_add(names, entry->d_name, (int64_t)strlen(entry->d_name) + 1);
    }
    if (errno)
        return mn__fail_errno(error, NULL, "%s", folder);
    if (names->failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", folder);
    return MN_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One block: `count` pointers, then the names. */
static char **names_block(const mn__string *names, int64_t count)
{
    int64_t pointers = count * (int64_t)sizeof(char *);
    char **list = mn__malloc(pointers + names->bytes);
    if (!list)
        return NULL;
    char *at = (char *)list + pointers;
    if (names->bytes > 0)
        memcpy(at, names->text, (size_t)names->bytes);
    for (int64_t i = 0; i < count; i++, at += strlen(at) + 1)
        list[i] = at;
    qsort(list, (size_t)count, sizeof *list, compare_names);
    return list;
}

mn_status mn__file_list(const char *folder, char ***names, int64_t *count, mn_error *error)
{
    DIR *stream = opendir(folder);
    if (!stream)
        return mn__fail_errno(error, NULL, "%s", folder);
    mn__string found = {0};
    mn_status status = gather_names(stream, folder, &found, count, error);
    closedir(stream);
    if (!status && !(*names = names_block(&found, *count)))
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", folder);
    mn__string_free(&found);
    return status;
}

mn_status mn__file_remove(const char *path, mn_error *error)
{
    if (remove(path))
        return mn__fail_errno(error, NULL, "%s: cannot remove", path);
    return MN_OK;
}

/* ---- Whole files ---------------------------------------------------------- */

/* Reads to the end of the file: its size is only a first guess (a pipe has
 * none, and files of /proc say 0). */
static mn_status read_all(int file, const char *path, int64_t guess, int64_t limit,
                          mn__string *text, mn_error *error)
{
    int64_t room = guess + 1;
    for (;;) {
        if (!mn__string_reserve(text, room))
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: no memory for its %lld bytes", path,
                            (long long)(text->bytes + room));
        int64_t got = mn__file_call_read(file, text->text + text->bytes, room);
        if (got < 0)
            return mn__fail_errno(error, NULL, "%s: cannot read", path);
        text->bytes += got;
        text->text[text->bytes] = '\0';
        if (limit > 0 && text->bytes > limit)
            return mn__fail(error, MN_ERROR_IO, NULL, "%s: larger than the limit of %lld bytes",
                            path, (long long)limit);
        if (got == 0)
            return MN_OK;
        room = text->bytes <= guess ? guess + 1 - text->bytes : text->bytes;
    }
}

mn_status mn__file_read(const char *path, int64_t limit, char **text, int64_t *bytes,
                        mn_error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (file < 0)
        return mn__fail_errno(error, NULL, "%s", path);
    mn__string contents = {0};
    mn_status status;
    if (fstat(file, &info))
        status = mn__fail_errno(error, NULL, "%s", path);
    else if (limit > 0 && info.st_size > limit)
        status =
            mn__fail(error, MN_ERROR_IO, NULL, "%s: %lld bytes, more than the limit of %lld bytes",
                     path, (long long)info.st_size, (long long)limit);
    else
        status = read_all(file, path, info.st_size, limit, &contents, error);
    close(file);
    if (status) {
        mn__string_free(&contents);
        return status;
    }
    *text = contents.text;
    *bytes = contents.bytes;
    return MN_OK;
}

/* ---- Maps ----------------------------------------------------------------- */

static mn_status map_file(mn__map *map, int file, const char *path, mn_error *error)
{
    struct stat info;
    if (fstat(file, &info))
        return mn__fail_errno(error, NULL, "%s", path);
    if (!S_ISREG(info.st_mode))
        return mn__fail(error, MN_ERROR_IO, NULL, "%s: not a regular file", path);
    if (info.st_size == 0)
        return MN_OK;
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (data == MAP_FAILED)
        return mn__fail_errno(error, NULL, "%s: cannot map", path);
    *map = (mn__map){.data = data, .bytes = info.st_size};
    return MN_OK;
}

mn_status mn__map_open(mn__map *map, const char *path, mn_error *error)
{
    *map = (mn__map){0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return mn__fail_errno(error, NULL, "%s", path);
    mn_status status = map_file(map, file, path, error);
    close(file);
    return status;
}

void mn__map_close(mn__map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, (size_t)map->bytes);
    *map = (mn__map){0};
}
