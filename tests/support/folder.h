/* A temporary folder for a test: files are named relative to it. */
#ifndef TESTS_SUPPORT_FOLDER_H
#define TESTS_SUPPORT_FOLDER_H

#include <stdint.h>

/* cmocka group set-up and tear-down: *state is the folder's path (char *). */
int folder_make(void **state);         /* in memory, where that can be */
int folder_make_on_disk(void **state); /* under TMPDIR; for what is large */
int folder_remove(void **state);
/* "<folder>/<printf>"; valid until folder_remove. */
const char *folder_path(const char *folder, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Writes a file, and the folders above it. bytes < 0: strlen(text). */
void folder_write(const char *path, const char *text, int64_t bytes);
/* Removes a folder and all that is in it, if it is there. */
void folder_remove_all(const char *path);
/* The file's bytes, NUL-ended; the caller frees with free(). */
char *folder_read(const char *path, int64_t *bytes);

#endif
