/* Temporary folders. In memory where that can be: files are synced when they are
 * written, and a disk takes its time over it. */
#include "support/folder.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void require(int good, const char *what, const char *path)
{
    if (good)
        return;
    perror(what);
    fprintf(stderr, "%s: %s failed\n", path, what);
    abort();
}

static int make_under(const char *parent, void **state)
{
    char *path = malloc(4096);
    snprintf(path, 4096, "%s/mneme-test-XXXXXX", parent);
    require(mkdtemp(path) != NULL, "mkdtemp", path);
    *state = path;
    return 0;
}

static const char *disk(void)
{
    const char *parent = getenv("TMPDIR");
    return parent ? parent : "/tmp";
}

int folder_make(void **state)
{
    return make_under(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : disk(), state);
}

int folder_make_on_disk(void **state)
{
    return make_under(disk(), state);
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

/* Every path ever named, until its folder is removed. */
typedef struct named_path {
    struct named_path *next;
    char text[4096];
} named_path;
static named_path *paths;

const char *folder_path(const char *folder, const char *format, ...)
{
    named_path *path = malloc(sizeof *path);
    path->next = paths;
    paths = path;
    int length = snprintf(path->text, sizeof path->text, "%s/", folder);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path->text + length, sizeof path->text - (size_t)length, format, arguments);
    va_end(arguments);
    return path->text;
}

static void forget_paths(void)
{
    while (paths) {
        named_path *next = paths->next;
        free(paths);
        paths = next;
    }
}

void folder_write(const char *path, const char *text, int64_t bytes)
{
    char *above = strdup(path);
    for (char *slash = strchr(above + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(above, 0777);
        *slash = '/';
    }
    free(above);
    FILE *file = fopen(path, "wb");
    require(file != NULL, "fopen", path);
    size_t count = bytes < 0 ? strlen(text) : (size_t)bytes;
    require(fwrite(text, 1, count, file) == count, "fwrite", path);
    require(fclose(file) == 0, "fclose", path);
}

char *folder_read(const char *path, int64_t *bytes)
{
    FILE *file = fopen(path, "rb");
    require(file != NULL, "fopen", path);
    fseek(file, 0, SEEK_END);
    *bytes = ftell(file);
    rewind(file);
    char *text = malloc((size_t)*bytes + 1);
    require(fread(text, 1, (size_t)*bytes, file) == (size_t)*bytes, "fread", path);
    text[*bytes] = '\0';
    fclose(file);
    return text;
}

void folder_remove_all(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int folder_remove(void **state)
{
    folder_remove_all(*state);
    free(*state);
    forget_paths();
    return 0;
}
