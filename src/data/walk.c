/* Walking a folder. */
#include "data/walk.h"

#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/string.h"

enum { DEEPEST = 64 };

static mn_status walk_folder(const mn__walk *walk, const char *folder, int64_t root_bytes,
                             int depth, mn_error *error);

static mn_status visit(const mn__walk *walk, const char *path, const char *name, int64_t root_bytes,
                       int depth, mn_error *error)
{
    struct stat link = {0}, info;
    if (lstat(path, &link) || stat(path, &info))
        return S_ISLNK(link.st_mode) ? MN_OK /* a link to nothing */
                                     : mn__fail_errno(error, NULL, "%s", path);
    if (S_ISREG(info.st_mode))
        return walk->found(walk->user, path, path + root_bytes + 1, error);
    if (S_ISDIR(link.st_mode) && (!walk->enters || walk->enters(name)))
        return walk_folder(walk, path, root_bytes, depth + 1, error);
    return MN_OK;
}

static mn_status walk_folder(const mn__walk *walk, const char *folder, int64_t root_bytes,
                             int depth, mn_error *error)
{
    char **names;
    int64_t count;
    if (depth > DEEPEST)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: folders over %d deep", folder, DEEPEST);
    mn_status status = mn__file_list(folder, &names, &count, error);
    if (status)
        return status;
    for (int64_t i = 0; i < count && !status; i++) {
        if (names[i][0] == '.')
            continue;
        mn__string path = {0};
        mn__string_printf(&path, "%s/%s", folder, names[i]);
        status = path.failed ? mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", folder)
                             : visit(walk, path.text, names[i], root_bytes, depth, error);
        mn__string_free(&path);
    }
    mn__free(names);
    return status;
}

mn_status mn__walk_files(const mn__walk *walk, const char *folder, mn_error *error)
{
    int64_t bytes = (int64_t)strlen(folder);
    return walk_folder(walk, folder, bytes, 0, error);
}
