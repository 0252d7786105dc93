/* Reading a document: its parts one after the other, through the newline
 * convention, in place (what goes out is never longer than what came in). */
#include <assert.h>
#include <string.h>

#include "base/memory.h"
#include "data/corpus.h"
#include "data/source.h"

static const char byte_order_mark[] = "\xEF\xBB\xBF";
enum { MARK_BYTES = 3 };

struct mn__document_reader {
    const mn__corpus *corpus;
    const mn__corpus_document *document;
    mn__newlines newlines;
    mn__source *source; /* the part being read; NULL between parts */
    int64_t part;       /* the next part, counted from the document's first */
    int64_t left;       /* of the part being read; -1: to its end */
    int64_t raw;
    bool after_cr;
};

mn_status mn__document_reader_open(mn__document_reader **out, const mn__corpus *corpus,
                                   int64_t document, mn__newlines newlines, mn_error *error)
{
    assert(document >= 0 && document < corpus->count);
    mn__document_reader *reader = mn__calloc(1, sizeof *reader);
    if (!reader)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory",
                        corpus->documents[document].name);
    reader->corpus = corpus;
    reader->document = &corpus->documents[document];
    reader->newlines = newlines;
    *out = reader;
    return MN_OK;
}

void mn__document_reader_close(mn__document_reader *reader)
{
    if (reader)
        mn__source_close(reader->source);
    mn__free(reader);
}

int64_t mn__document_reader_raw(const mn__document_reader *reader)
{
    return reader->raw;
}

static const mn__corpus_part *current_part(const mn__document_reader *reader)
{
    return &reader->corpus->parts[reader->document->first_part + reader->part];
}

static mn_status next_part(mn__document_reader *reader, mn_error *error)
{
    const mn__corpus_part *part = current_part(reader);
    reader->left = part->bytes;
    reader->after_cr = false;
    return part->converted
               ? mn__source_open_document(&reader->source, part->path, part->offset, part->bytes,
                                          error)
               : mn__source_open(&reader->source, part->path, part->offset, part->bytes, error);
}

static mn_status end_part(mn__document_reader *reader, mn_error *error)
{
    const mn__corpus_part *part = current_part(reader);
    if (reader->left > 0)
        return mn__fail(error, MN_ERROR_FORMAT, "it was changed while it was read: start again",
                        "%s: ended %lld bytes before it should", part->path,
                        (long long)reader->left);
    mn__source_close(reader->source);
    reader->source = NULL;
    reader->part++;
    return MN_OK;
}

static mn_status read_stored(mn__document_reader *reader, char *to, int64_t room, int64_t *got,
                             mn_error *error)
{
    mn_status status = mn__source_read(reader->source, to, room, got, error);
    if (status)
        return status;
    reader->raw += *got;
    if (reader->left >= 0)
        reader->left -= *got;
    return MN_OK;
}

/* A file's first bytes: enough of them to see whether they are the mark. */
static mn_status read_beginning(mn__document_reader *reader, char *buffer, int64_t room,
                                int64_t *got, mn_error *error)
{
    int64_t more = 1;
    for (*got = 0; *got < MARK_BYTES && more > 0; *got += more) {
        mn_status status = read_stored(reader, buffer + *got, room - *got, &more, error);
        if (status)
            return status;
    }
    return MN_OK;
}

static int64_t drop_mark(char *buffer, int64_t bytes)
{
    if (bytes < MARK_BYTES || memcmp(buffer, byte_order_mark, MARK_BYTES) != 0)
        return bytes;
    memmove(buffer, buffer + MARK_BYTES, (size_t)(bytes - MARK_BYTES));
    return bytes - MARK_BYTES;
}

/* CR LF and CR become LF. */
static int64_t fold_newlines(mn__document_reader *reader, char *buffer, int64_t bytes)
{
    if (!reader->after_cr && !memchr(buffer, '\r', (size_t)bytes))
        return bytes;
    int64_t kept = 0;
    for (int64_t i = 0; i < bytes; i++) {
        bool second_half = reader->after_cr && buffer[i] == '\n';
        reader->after_cr = buffer[i] == '\r';
        if (!second_half)
            buffer[kept++] = reader->after_cr ? '\n' : buffer[i];
    }
    return kept;
}

/* Some bytes of the part being read; *ended where there are no more of it. */
static mn_status read_part(mn__document_reader *reader, char *buffer, int64_t room, int64_t *got,
                           bool *ended, mn_error *error)
{
    bool fresh = !reader->source;
    mn_status status = fresh ? next_part(reader, error) : MN_OK;
    bool beginning = fresh && !status && current_part(reader)->offset == 0;
    if (!status)
        status = beginning ? read_beginning(reader, buffer, room, got, error)
                           : read_stored(reader, buffer, room, got, error);
    if (status)
        return status;
    *ended = *got == 0;
    if (reader->newlines == MN__NEWLINES_KEEP)
        return MN_OK;
    if (beginning)
        *got = drop_mark(buffer, *got);
    *got = fold_newlines(reader, buffer, *got);
    return MN_OK;
}

mn_status mn__document_reader_read(mn__document_reader *reader, char *buffer, int64_t room,
                                   int64_t *got, mn_error *error)
{
    assert(room > MARK_BYTES);
    *got = 0;
    while (*got == 0 && reader->part < reader->document->parts) {
        bool ended = false;
        mn_status status = read_part(reader, buffer, room, got, &ended, error);
        if (!status && ended)
            status = end_part(reader, error);
        if (status)
            return status;
    }
    return MN_OK;
}
