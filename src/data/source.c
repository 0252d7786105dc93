/* Files as streams. A compressed file cannot be entered in the middle: what
 * comes before `offset` is read and dropped. */
#include "data/source.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/file_call.h"
#include "base/memory.h"
#include "data/document.h"

enum { BUFFER_BYTES = 1 << 16 };

struct mn__source {
    char *path;
    int file;                /* plain; -1 */
    struct archive *archive; /* compressed; NULL */
    mn__string text;         /* of a document */
    int64_t text_read;
    bool ended;
    int64_t left; /* may still be given out; -1: all */
    char *buffer; /* [BUFFER_BYTES] read but not given out: [begin, end) */
    int64_t begin, end;
};

bool mn__source_is_compressed(const char *path)
{
    static const char *const endings[] = {".gz", ".xz", ".bz2", ".zst", ".zip"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcmp(dot, endings[i]) == 0)
            return true;
    return false;
}

/* ---- Opening ---------------------------------------------------------------- */

static mn_status fail_archive(const mn__source *source, mn_error *error)
{
    const char *why = archive_error_string(source->archive);
    if (archive_errno(source->archive) == ENOMEM)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", source->path);
    return mn__fail(error, MN_ERROR_FORMAT, "the file may be damaged; get it again", "%s: %s",
                    source->path, why ? why : "cannot be uncompressed");
}

static mn_status open_archive(mn__source *source, mn_error *error)
{
    struct archive_entry *entry;
    source->archive = archive_read_new();
    if (!source->archive)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", source->path);
    archive_read_support_filter_all(source->archive);
    archive_read_support_format_raw(source->archive);
    archive_read_support_format_zip(source->archive);
    if (archive_read_open_filename(source->archive, source->path, BUFFER_BYTES) != ARCHIVE_OK)
        return fail_archive(source, error);
    int result = archive_read_next_header(source->archive, &entry);
    source->ended = result == ARCHIVE_EOF;
    return result == ARCHIVE_OK || result == ARCHIVE_WARN || source->ended
               ? MN_OK
               : fail_archive(source, error);
}

static mn_status open_plain(mn__source *source, mn_error *error)
{
    if (mn__file_is_folder(source->path))
        return mn__fail(error, MN_ERROR_IO, NULL, "%s: is a folder, not a file", source->path);
    source->file = open(source->path, O_RDONLY | O_CLOEXEC);
    return source->file >= 0 ? MN_OK : mn__fail_errno(error, NULL, "%s", source->path);
}

static mn_status skip_to(mn__source *source, int64_t offset, mn_error *error)
{
    if (source->file >= 0)
        return lseek(source->file, offset, SEEK_SET) == offset
                   ? MN_OK
                   : mn__fail_errno(error, NULL, "%s: cannot seek", source->path);
    while (offset > 0) {
        int64_t got, room = offset < BUFFER_BYTES ? offset : BUFFER_BYTES;
        mn_status status = mn__source_read(source, source->buffer, room, &got, error);
        if (status || got == 0)
            return status;
        offset -= got;
    }
    return MN_OK;
}

typedef mn_status (*open_function)(mn__source *source, mn_error *error);

static mn_status open_document(mn__source *source, mn_error *error)
{
    return mn__document_text(source->path, &source->text, error);
}

static mn_status open_file(mn__source *source, mn_error *error)
{
    return mn__source_is_compressed(source->path) ? open_archive(source, error)
                                                  : open_plain(source, error);
}

static mn_status source_new(mn__source **out, const char *path, open_function open_it,
                            int64_t offset, int64_t limit, mn_error *error)
{
    mn__source *source = mn__calloc(1, sizeof *source);
    if (!source)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    source->file = -1;
    source->left = -1;
    source->path = mn__strdup(path);
    source->buffer = mn__malloc(BUFFER_BYTES);
    mn_status status = MN_OK;
    if (!source->path || !source->buffer)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    if (!status)
        status = open_it(source, error);
    if (!status)
        status = skip_to(source, offset, error);
    if (status) {
        mn__source_close(source);
        return status;
    }
    source->left = limit;
    *out = source;
    return MN_OK;
}

mn_status mn__source_open(mn__source **source, const char *path, int64_t offset, int64_t limit,
                          mn_error *error)
{
    return source_new(source, path, open_file, offset, limit, error);
}

mn_status mn__source_open_document(mn__source **source, const char *path, int64_t offset,
                                   int64_t limit, mn_error *error)
{
    return source_new(source, path, open_document, offset, limit, error);
}

void mn__source_close(mn__source *source)
{
    if (!source)
        return;
    if (source->file >= 0)
        close(source->file);
    if (source->archive)
        archive_read_free(source->archive);
    mn__string_free(&source->text);
    mn__free(source->path);
    mn__free(source->buffer);
    mn__free(source);
}

/* ---- Reading ---------------------------------------------------------------- */

/* A .zip may hold more than one file, which would silently be lost. */
static mn_status expect_no_more(mn__source *source, mn_error *error)
{
    struct archive_entry *entry;
    source->ended = true;
    if (archive_read_next_header(source->archive, &entry) == ARCHIVE_EOF)
        return MN_OK;
    return mn__fail(error, MN_ERROR_FORMAT, "unpack it and name the folder",
                    "%s: holds more than one file", source->path);
}

static mn_status read_some(mn__source *source, char *to, int64_t room, int64_t *got,
                           mn_error *error)
{
    *got = 0;
    if (source->ended)
        return MN_OK;
    if (source->file >= 0) {
        *got = mn__file_call_read(source->file, to, room);
        return *got >= 0 ? MN_OK : mn__fail_errno(error, NULL, "%s: cannot read", source->path);
    }
    if (!source->archive) {
        int64_t rest = source->text.bytes - source->text_read;
        *got = room < rest ? room : rest;
        if (*got > 0)
            memcpy(to, source->text.text + source->text_read, (size_t)*got);
        source->text_read += *got;
        return MN_OK;
    }
    *got = archive_read_data(source->archive, to, (size_t)room);
    if (*got < 0)
        return fail_archive(source, error);
    return *got == 0 ? expect_no_more(source, error) : MN_OK;
}

mn_status mn__source_read(mn__source *source, char *buffer, int64_t room, int64_t *got,
                          mn_error *error)
{
    mn_status status = MN_OK;
    int64_t buffered = source->end - source->begin;
    if (source->left >= 0 && room > source->left)
        room = source->left;
    *got = 0;
    if (room == 0)
        return MN_OK;
    if (buffered > 0) {
        *got = room < buffered ? room : buffered;
        memcpy(buffer, source->buffer + source->begin, (size_t)*got);
        source->begin += *got;
    } else {
        status = read_some(source, buffer, room, got, error);
    }
    if (source->left >= 0 && !status)
        source->left -= *got;
    return status;
}

mn_status mn__source_line(mn__source *source, mn__string *line, mn_error *error)
{
    mn__string_clear(line);
    for (;;) {
        if (source->begin == source->end) {
            source->begin = 0;
            mn_status status = read_some(source, source->buffer, BUFFER_BYTES, &source->end, error);
            if (status || source->end == 0)
                return status;
        }
        const char *at = source->buffer + source->begin;
        int64_t bytes = source->end - source->begin;
        const char *newline = memchr(at, '\n', (size_t)bytes);
        if (newline)
            bytes = newline - at + 1;
        mn__string_add(line, at, bytes);
        source->begin += bytes;
        if (line->failed)
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: no memory for one of its lines",
                            source->path);
        if (newline)
            return MN_OK;
    }
}

static mn_status count_bytes(mn__source *source, int64_t *bytes, mn_error *error)
{
    int64_t got = 1;
    mn_status status = MN_OK;
    for (*bytes = 0; !status && got > 0; *bytes += got)
        status = mn__source_read(source, source->buffer, BUFFER_BYTES, &got, error);
    return status;
}

static mn_status size_of(mn__source *source, mn_status opened, int64_t *bytes, mn_error *error)
{
    if (opened)
        return opened;
    mn_status status = count_bytes(source, bytes, error);
    mn__source_close(source);
    return status;
}

mn_status mn__source_size(const char *path, int64_t *bytes, mn_error *error)
{
    mn__source *source = NULL;
    if (!mn__source_is_compressed(path))
        return mn__file_size(path, bytes, error);
    mn_status opened = mn__source_open(&source, path, 0, -1, error);
    return size_of(source, opened, bytes, error);
}

mn_status mn__source_document_size(const char *path, int64_t *bytes, mn_error *error)
{
    mn__source *source = NULL;
    mn_status opened = mn__source_open_document(&source, path, 0, -1, error);
    return size_of(source, opened, bytes, error);
}
