/* The atomic writer: a temporary file beside the target, buffered, synced,
 * renamed over the target, and the folder synced, so that after a kill or a
 * power cut there is the old file or the new one, whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/file_call.h"
#include "base/memory.h"
#include "base/string.h"

enum { BUFFER_BYTES = 1 << 16, TRIES = 1000 };

struct mn__writer {
    char *target, *temporary;
    int file;
    int64_t bytes;    /* given to the writer so far */
    int64_t buffered; /* of these, not yet in the file */
    mn_error error;   /* the first failure */
    char buffer[BUFFER_BYTES];
};

static void writer_free(mn__writer *writer)
{
    mn__free(writer->target);
    mn__free(writer->temporary);
    mn__free(writer);
}

/* The path that is to be replaced: what a link names, else the path itself. */
static mn_status resolve_target(mn__writer *writer, const char *path, struct stat *info,
                                mn_error *error)
{
    char *real = NULL;
    *info = (struct stat){0};
    if (stat(path, info) == 0) {
        if (!S_ISREG(info->st_mode))
            return mn__fail(error, MN_ERROR_IO, "name a file that may be replaced",
                            "%s: exists and is not a regular file", path);
        real = realpath(path, NULL);
    }
    writer->target = mn__strdup(real ? real : path);
    free(real);
    if (!writer->target)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    return MN_OK;
}

static mn_status open_temporary(mn__writer *writer, mn_error *error)
{
    static atomic_uint serial;
    for (int i = 0; i < TRIES; i++) {
        mn__string name = {0};
        mn__string_printf(&name, "%s.%ld-%u.tmp", writer->target, (long)getpid(),
                          atomic_fetch_add(&serial, 1));
        mn__free(writer->temporary);
        writer->temporary = name.text;
        if (name.failed)
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", writer->target);
        writer->file = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->file >= 0)
            return MN_OK;
        if (errno != EEXIST)
            break;
    }
    return mn__fail_errno(error, NULL, "%s: cannot write", writer->target);
}

mn_status mn__writer_open(mn__writer **writer, const char *path, mn_error *error)
{
    mn__writer *new = mn__malloc(sizeof *new);
    if (!new)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    memset(new, 0, offsetof(mn__writer, buffer));
    struct stat old;
    mn_status status = resolve_target(new, path, &old, error);
    if (!status)
        status = open_temporary(new, error);
    if (status) {
        writer_free(new);
        return status;
    }
    /* Keeps the old file's permissions where that is allowed. */
    if (old.st_mode && fchmod(new->file, old.st_mode & 07777) != 0)
        errno = 0;
    *writer = new;
    return MN_OK;
}

static void write_through(mn__writer *writer, const char *data, int64_t bytes)
{
    while (bytes > 0 && !writer->error.code) {
        int64_t done = mn__file_call_write(writer->file, data, bytes);
        if (done < 0)
            mn__fail_errno(&writer->error, NULL, "%s: cannot write", writer->target);
        data += done;
        bytes -= done;
    }
}

static void flush_buffer(mn__writer *writer)
{
    write_through(writer, writer->buffer, writer->buffered);
    writer->buffered = 0;
}

void mn__writer_write(mn__writer *writer, const void *data, int64_t bytes)
{
    if (writer->error.code || bytes <= 0)
        return;
    if (bytes > BUFFER_BYTES - writer->buffered)
        flush_buffer(writer);
    if (bytes >= BUFFER_BYTES) {
        write_through(writer, data, bytes);
    } else {
        memcpy(writer->buffer + writer->buffered, data, (size_t)bytes);
        writer->buffered += bytes;
    }
    writer->bytes += bytes;
}

void mn__writer_printf(mn__writer *writer, const char *format, ...)
{
    mn__string text = {0};
    va_list arguments;
    va_start(arguments, format);
    mn__string_vprintf(&text, format, arguments);
    va_end(arguments);
    if (!text.failed)
        mn__writer_write(writer, text.text, text.bytes);
    else if (!writer->error.code)
        mn__fail(&writer->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", writer->target);
    mn__string_free(&text);
}

int64_t mn__writer_bytes(const mn__writer *writer)
{
    return writer->bytes;
}

/* Makes the rename last. Some file systems cannot sync a folder (EINVAL). */
static mn_status sync_folder(const char *target, mn_error *error)
{
    const char *slash = strrchr(target, '/');
    mn__string folder = {0};
    mn__string_add(&folder, target, slash ? slash - target + 1 : 0);
    mn__string_puts(&folder, slash ? "" : ".");
    if (folder.failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", target);
    mn_status status = MN_OK;
    int file = open(folder.text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0 || (fsync(file) != 0 && errno != EINVAL))
        status = mn__fail_errno(error, NULL, "%s: cannot sync its folder", target);
    if (file >= 0)
        close(file);
    mn__string_free(&folder);
    return status;
}

mn_status mn__writer_commit(mn__writer *writer, mn_error *error)
{
    flush_buffer(writer);
    mn_error *first = &writer->error;
    if (!first->code && fsync(writer->file) != 0)
        mn__fail_errno(first, NULL, "%s: cannot sync", writer->target);
    if (close(writer->file) != 0 && !first->code)
        mn__fail_errno(first, NULL, "%s: cannot close", writer->target);
    if (!first->code && rename(writer->temporary, writer->target) != 0)
        mn__fail_errno(first, NULL, "%s: cannot rename to it", writer->target);
    if (first->code)
        unlink(writer->temporary);
    else
        sync_folder(writer->target, first);
    mn_status status = first->code;
    if (error && status)
        *error = *first;
    writer_free(writer);
    return status;
}

void mn__writer_abort(mn__writer *writer)
{
    if (!writer)
        return;
    close(writer->file);
    unlink(writer->temporary);
    writer_free(writer);
}

mn_status mn__file_write(const char *path, const void *data, int64_t bytes, mn_error *error)
{
    mn__writer *writer;
    mn_status status = mn__writer_open(&writer, path, error);
    if (status)
        return status;
    mn__writer_write(writer, data, bytes);
    return mn__writer_commit(writer, error);
}
