/* Corpora: published layouts of text, read as documents.
 *
 * A corpus is listed when it is opened: which documents there are, and of which
 * pieces of which files each consists. Reading is then the same for all. To add
 * a corpus: one file with a listing function, one line in the table in corpus.c.
 *
 * A corpus is named by `[TYPE=]PATH[@SPLIT]`: "pg19=books/pg19",
 * "pg19=books/pg19@test" (that split alone, of a corpus that has its own),
 * "novels@train" (of one that has none: all its documents go to that split).
 * Without TYPE it is recognised by its files. */
#ifndef MN__DATA_CORPUS_H
#define MN__DATA_CORPUS_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/string.h"

typedef enum mn__split {
    MN__SPLIT_TRAIN,
    MN__SPLIT_VALIDATION,
    MN__SPLIT_TEST,
    MN__SPLITS
} mn__split;
/* "train", "validation", "test". */
const char *mn__split_name(mn__split split);
/* false where there is no such split; "valid" means validation. */
bool mn__split_named(const char *name, mn__split *split);

/* What happens to line ends: lf makes CR LF and CR into LF and drops a
 * byte-order mark; keep leaves every byte. */
typedef enum mn__newlines { MN__NEWLINES_LF, MN__NEWLINES_KEEP } mn__newlines;

typedef struct mn__corpus_part {
    const char *path; /* plain, or compressed (.gz .xz .bz2 .zst .zip) */
    int64_t offset;   /* of the uncompressed bytes */
    int64_t bytes;    /* -1: to the end */
    bool converted;   /* offset and bytes are of the text of an HTML, EPUB or PDF document */
} mn__corpus_part;

typedef struct mn__corpus_document {
    const char *name;  /* unique in its corpus, such as "10146" or "src/main.c" */
    const char *title; /* "" where there is none */
    mn__split split;
    int64_t first_part, parts; /* in the corpus's list */
    int64_t bytes;             /* as stored; -1: not known before it is read */
} mn__corpus_document;

/* How corpora without splits of their own are cut, and folders are read. */
typedef struct mn__corpus_options {
    double validation, test; /* shares, 0 to 0.5: of the documents, or of the bytes of
                              * a single document, cut at a line's end */
    bool one;                /* a folder or tree is one document, files in order of name */
} mn__corpus_options;

typedef struct mn__corpus_type mn__corpus_type;
typedef struct mn__corpus {
    mn__arena arena; /* of every string */
    mn__corpus_options options;
    mn__corpus_document *documents; /* [count] */
    int64_t count, capacity;
    mn__corpus_part *parts; /* [part_count] */
    int64_t part_count, part_capacity;
    /* The words of each split where exactly a published corpus was listed and
     * its authors give the number; else 0. */
    int64_t published_words[MN__SPLITS];
} mn__corpus;

/* Lists the corpora named. MN_ERROR_IO: a path cannot be read; MN_ERROR_FORMAT:
 * it has not the layout; MN_ERROR_OPTION: no such type, or not recognised. */
mn_status mn__corpus_open(mn__corpus **corpus, const char *const *names, int64_t count,
                          mn__corpus_options options, mn_error *error);
void mn__corpus_close(mn__corpus *corpus); /* NULL is fine */
/* Sum over documents of `bytes`; -1 where one is not known. */
int64_t mn__corpus_bytes(const mn__corpus *corpus);

/* Reads one document as a stream of bytes after the newline convention. */
typedef struct mn__document_reader mn__document_reader;
mn_status mn__document_reader_open(mn__document_reader **reader, const mn__corpus *corpus,
                                   int64_t document, mn__newlines newlines, mn_error *error);
/* At most `room` (>= 4) bytes; *got = 0 at the document's end. MN_ERROR_FORMAT
 * where a file is shorter than its part. */
mn_status mn__document_reader_read(mn__document_reader *reader, char *buffer, int64_t room,
                                   int64_t *got, mn_error *error);
int64_t mn__document_reader_raw(const mn__document_reader *reader); /* stored bytes read so far */
void mn__document_reader_close(mn__document_reader *reader);        /* NULL is fine */

/* ---- Adding a corpus -------------------------------------------------------- */

struct mn__corpus_type {
    const char *name;
    const char *help; /* one line */
    /* Is this path, which exists, surely one of these? */
    mn_status (*recognise)(const char *path, bool *yes, mn_error *error);
    /* Adds the documents under `path`. */
    mn_status (*list)(mn__corpus *corpus, const char *path, mn_error *error);
    bool has_splits; /* else the options' shares cut it */
};
extern const mn__corpus_type *const mn__corpus_types[]; /* NULL-ended */

/* A new document, copied strings; its parts follow by mn__corpus_add_part. */
mn_status mn__corpus_add_document(mn__corpus *corpus, const char *name, const char *title,
                                  mn__split split, mn_error *error);
/* The next part of the last document. bytes -1: to the end (its size is then
 * looked up, where the file is plain). */
mn_status mn__corpus_add_part(mn__corpus *corpus, const char *path, int64_t offset, int64_t bytes,
                              mn_error *error);
/* A whole file as the next part: as it stands, or where it is an HTML, EPUB or PDF document
 * (data/document.h) its text. MN_ERROR_UNSUPPORTED where the build cannot read it. */
mn_status mn__corpus_add_file(mn__corpus *corpus, const char *path, mn_error *error);

#endif
