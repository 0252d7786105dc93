/* Small EPUB and PDF files for tests; paths are valid until folder_remove. */
#ifndef TESTS_SUPPORT_DOCUMENT_H
#define TESTS_SUPPORT_DOCUMENT_H

#include <stdint.h>

typedef struct document_part {
    const char *name, *text;
} document_part;

/* A book of two chapters, "One\n\nFirst.\n\nTwo \u00e4.\n" as a text; its part `changed` (NULL:
 * none) with that text (left out where it is NULL; bytes < 0: strlen), and one more (or NULL). */
const char *document_make_epub(char *folder, const char *file, const char *changed,
                               const char *text, int64_t bytes, const document_part *more);
/* Pages with these texts; an empty one is a page without any. trailer: more of the trailer's
 * entries, or "". */
const char *document_make_pdf(char *folder, const char *file, const char *const *pages, int count,
                              const char *trailer);

#endif
