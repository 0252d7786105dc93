/* A file's bytes as a stream: plain, or compressed (.gz .xz .bz2 .zst, or a
 * .zip of one file) by libarchive. Plain files may be of any size. HTML, EPUB and
 * PDF can be streamed as their text (data/document.h), which is held in memory. */
#ifndef MN__DATA_SOURCE_H
#define MN__DATA_SOURCE_H

#include "base/string.h"

typedef struct mn__source mn__source;
/* From `offset` of the uncompressed bytes, at most `limit` of them (-1: all). */
mn_status mn__source_open(mn__source **source, const char *path, int64_t offset, int64_t limit,
                          mn_error *error);
/* The same of a document's text, whatever kind it is. */
mn_status mn__source_open_document(mn__source **source, const char *path, int64_t offset,
                                   int64_t limit, mn_error *error);
/* At most `room` bytes, maybe fewer; *got = 0 only at the end (room > 0). */
mn_status mn__source_read(mn__source *source, char *buffer, int64_t room, int64_t *got,
                          mn_error *error);
/* The next line with its newline, if it has one; empty at the end. */
mn_status mn__source_line(mn__source *source, mn__string *line, mn_error *error);
void mn__source_close(mn__source *source); /* NULL is fine */

bool mn__source_is_compressed(const char *path); /* by its name */
/* Of the uncompressed bytes, or of a document's text; a compressed file is read through. */
mn_status mn__source_size(const char *path, int64_t *bytes, mn_error *error);
mn_status mn__source_document_size(const char *path, int64_t *bytes, mn_error *error);

#endif
