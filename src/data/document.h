/* Documents as text: what people have books in. Plain text and Markdown are read as they
 * stand; HTML and EPUB through libxml2 and libarchive, PDF through poppler-glib, each where
 * the build has it. Texts come out as UTF-8 with LF line ends. */
#ifndef MN__DATA_DOCUMENT_H
#define MN__DATA_DOCUMENT_H

#include <stdbool.h>

#include "base/string.h"

typedef enum mn__document_kind {
    MN__DOCUMENT_TEXT, /* and Markdown */
    MN__DOCUMENT_HTML,
    MN__DOCUMENT_EPUB,
    MN__DOCUMENT_PDF,
} mn__document_kind;

/* Does the name end as a document's: .md .markdown .html .htm .xhtml .epub .pdf, in upper or
 * lower case? */
bool mn__document_is_named(const char *path);
/* By the first bytes, and for HTML by the name too; a .txt or .md is HTML in no case. An ending
 * of .epub or .pdf counts, too, so that a damaged one is an error and no text. */
mn_status mn__document_recognise(const char *path, mn__document_kind *kind, mn_error *error);
/* Whether this build can read that kind; MN_ERROR_UNSUPPORTED where it cannot. */
mn_status mn__document_readable(const char *path, mn__document_kind kind, mn_error *error);

/* Appends a file's text. Blocks of HTML (paragraphs, headings, list items, rows) end lines,
 * paragraphs and headings leave an empty line; scripts, styles and the head are dropped; so
 * are soft hyphens, and a no-break space is a space. EPUB: the spine's files in order. PDF:
 * the pages in order.
 * MN_ERROR_UNSUPPORTED: left out of this build; locked; a PDF of pictures alone; an unknown
 * character set. MN_ERROR_FORMAT: damaged; parts missing; over the limits of 256 MiB of text,
 * 256 MiB unpacked, 10,000 files or 1,000 elements deep. */
mn_status mn__document_text(const char *path, mn__string *text, mn_error *error);

/* The kinds, for document.c; `name` is for errors. */
mn_status mn__document_html(const char *name, const char *html, int64_t bytes, mn__string *text,
                            mn_error *error);
mn_status mn__document_epub(const char *path, mn__string *text, mn_error *error);
mn_status mn__document_pdf(const char *path, mn__string *text, mn_error *error);
/* UTF-8 of HTML or XML by its byte-order mark, its declaration, else UTF-8 where it is valid,
 * else Windows-1252. What is no character becomes U+FFFD, NUL is dropped. */
mn_status mn__document_decode(const char *name, const char *html, int64_t bytes, mn__string *out,
                              mn_error *error);
enum { MN__DOCUMENT_MOST_TEXT = 256 << 20 };
mn_status mn__document_too_long(const char *name, mn_error *error);

#endif
