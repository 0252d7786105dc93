/* Files: whole reads, memory maps, and writes that are atomic: beside the
 * target, synced, then renamed, so that a kill leaves the old file or the new. */
#ifndef MN__BASE_FILE_H
#define MN__BASE_FILE_H

#include <stdbool.h>

#include "base/error.h"

bool mn__file_exists(const char *path);
bool mn__file_is_folder(const char *path);
/* Whether both paths lead to one file or folder that is there. */
bool mn__file_is_same(const char *a, const char *b);
mn_status mn__file_size(const char *path, int64_t *bytes, mn_error *error);
/* mkdir -p. */
mn_status mn__file_make_folder(const char *path, mn_error *error);
/* Names (not paths) in a folder, sorted bytewise, without . and ..; the list
 * and its strings are one block: free it with mn__free. */
mn_status mn__file_list(const char *folder, char ***names, int64_t *count, mn_error *error);
/* A file or an empty folder. */
mn_status mn__file_remove(const char *path, mn_error *error);

/* The whole file, a NUL after its last byte; *text is freed by mn__free.
 * MN_ERROR_IO beyond `limit` bytes (limit <= 0: none). */
mn_status mn__file_read(const char *path, int64_t limit, char **text, int64_t *bytes,
                        mn_error *error);

/* A read-only map of a whole file. data is NULL for an empty one. */
typedef struct mn__map {
    const unsigned char *data;
    int64_t bytes;
} mn__map;
mn_status mn__map_open(mn__map *map, const char *path, mn_error *error);
void mn__map_close(mn__map *map);

/* An atomic writer. After open, calls remember the first failure; commit
 * reports it and then leaves the old target as it was. Where the target is a
 * link, the file it names is replaced; a target that is no regular file (a
 * device, a folder) is an error. A kill may leave PATH.<process>-<n>.tmp. */
typedef struct mn__writer mn__writer;
mn_status mn__writer_open(mn__writer **writer, const char *path, mn_error *error);
void mn__writer_write(mn__writer *writer, const void *data, int64_t bytes);
void mn__writer_printf(mn__writer *writer, const char *format, ...) MN__PRINTF(2, 3);
int64_t mn__writer_bytes(const mn__writer *writer); /* written so far */
/* Syncs and renames; frees the writer in any case. */
mn_status mn__writer_commit(mn__writer *writer, mn_error *error);
void mn__writer_abort(mn__writer *writer); /* NULL is fine */

/* Writes one whole file atomically. */
mn_status mn__file_write(const char *path, const void *data, int64_t bytes, mn_error *error);

/* Tests: writes fail with ENOSPC after this many more bytes; reads and writes
 * come back short, in pieces of that size, every other call interrupted by a
 * signal. -1 = off. */
void mn__file_fail_write_after(int64_t bytes);
void mn__file_short_calls(int64_t bytes);

#endif
