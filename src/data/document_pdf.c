/* PDF as text, by poppler-glib. The library and what it needs take 18 ms to load, so that it
 * is loaded when the first PDF is read and not at every start of the program: its headers are
 * needed to build, its names are looked up at run time. */
#include "data/document.h"

#ifdef MN__HAVE_POPPLER

#include <dlfcn.h>
#include <poppler.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { MOST_PAGES = 100000 };
static const char library_name[] = "libpoppler-glib.so.8";

/* The functions that are used, of the types that the headers give. */
#define NAMES(X)                      \
    X(poppler_document_new_from_file) \
    X(poppler_document_get_n_pages)   \
    X(poppler_document_get_page)      \
    X(poppler_error_quark)            \
    X(poppler_page_get_text)          \
    X(g_filename_to_uri)              \
    X(g_object_unref)                 \
    X(g_error_free)                   \
    X(g_free)

typedef struct poppler {
    void *library;
#define MEMBER(name) __typeof__(&name) name##_;
    NAMES(MEMBER)
#undef MEMBER
} poppler;

/* Never closed again: GLib does not bear it. */
static mn_status load(poppler *p, const char *path, mn_error *error)
{
    p->library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
    bool found = p->library != NULL;
#define FIND(name)                           \
    if (found) {                             \
        void *at = dlsym(p->library, #name); \
        memcpy(&p->name##_, &at, sizeof at); \
        found = at != NULL;                  \
    }
    NAMES(FIND)
#undef FIND
    if (found)
        return MN_OK;
    const char *why = dlerror();
    return mn__fail(error, MN_ERROR_UNSUPPORTED, "install the library poppler-glib",
                    "%s: PDF cannot be read: %s", path, why ? why : library_name);
}

static mn_status fail_open(const poppler *p, const char *path, GError *why, mn_error *error)
{
    bool locked =
        why && why->domain == p->poppler_error_quark_() && why->code == POPPLER_ERROR_ENCRYPTED;
    mn_status status =
        locked ? mn__fail(error, MN_ERROR_UNSUPPORTED, "save a copy without a password",
                          "%s: the PDF is locked by a password", path)
               : mn__fail(error, MN_ERROR_FORMAT, "the file may be damaged; get it again",
                          "%s: not a readable PDF: %s", path, why ? why->message : "unknown");
    if (why)
        p->g_error_free_(why);
    return status;
}

static mn_status open_document(const poppler *p, const char *path, PopplerDocument **document,
                               mn_error *error)
{
    GError *why = NULL;
    char *whole = realpath(path, NULL);
    if (!whole)
        return mn__fail_errno(error, NULL, "%s", path);
    char *uri = p->g_filename_to_uri_(whole, NULL, &why);
    free(whole);
    *document = uri ? p->poppler_document_new_from_file_(uri, NULL, &why) : NULL;
    p->g_free_(uri);
    return *document ? MN_OK : fail_open(p, path, why, error);
}

static mn_status add_page(const poppler *p, PopplerDocument *document, int page, mn__string *text)
{
    PopplerPage *opened = p->poppler_document_get_page_(document, page);
    char *found = opened ? p->poppler_page_get_text_(opened) : NULL;
    if (found && *found) {
        mn__string_puts(text, found);
        if (text->bytes > 0 && text->text[text->bytes - 1] != '\n')
            mn__string_puts(text, "\n");
    }
    p->g_free_(found);
    if (opened)
        p->g_object_unref_(opened);
    return text->failed ? MN_ERROR_MEMORY : MN_OK;
}

static mn_status add_pages(const poppler *p, PopplerDocument *document, const char *path,
                           mn__string *text, mn_error *error)
{
    int pages = p->poppler_document_get_n_pages_(document);
    int64_t begin = text->bytes;
    if (pages > MOST_PAGES)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: has %d pages, over %d", path, pages,
                        MOST_PAGES);
    for (int i = 0; i < pages; i++) {
        if (add_page(p, document, i, text))
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
        if (text->bytes - begin > MN__DOCUMENT_MOST_TEXT)
            return mn__document_too_long(path, error);
    }
    for (int64_t i = begin; i < text->bytes; i++)
        if (!strchr(" \t\n\r\f", text->text[i]))
            return MN_OK;
    return mn__fail(error, MN_ERROR_UNSUPPORTED,
                    "make it searchable first, with a program that recognises characters (OCR)",
                    "%s: there is no text in its %d pages; they are pictures, as of a scanner",
                    path, pages);
}

mn_status mn__document_pdf(const char *path, mn__string *text, mn_error *error)
{
    poppler p = {0};
    PopplerDocument *document;
    mn_status status = load(&p, path, error);
    if (!status)
        status = open_document(&p, path, &document, error);
    if (status)
        return status;
    status = add_pages(&p, document, path, text, error);
    p.g_object_unref_(document);
    return status;
}

#else

/* mn__document_readable has said so before. */
mn_status mn__document_pdf(const char *path, mn__string *text, mn_error *error)
{
    (void)text;
    return mn__document_readable(path, MN__DOCUMENT_PDF, error);
}

#endif
