/* Documents that tests make. */
#include "support/document.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>
#include <cmocka.h>

#include "base/string.h"
#include "support/folder.h"

static const char container[] =
    "<?xml version=\"1.0\"?><container xmlns=\"urn:oasis:names:tc:opendocument:xmlns:container\">"
    "<rootfiles><rootfile full-path=\"OEBPS/book.opf\"/></rootfiles></container>";
static const char package[] =
    "<?xml version=\"1.0\"?><package xmlns=\"http://www.idpf.org/2007/opf\"><manifest>"
    "<item id=\"b\" href=\"text/two%20b.xhtml\"/><item id=\"a\" href=\"./text/../text/one.xhtml\"/>"
    "<item id=\"p\" href=\"cover.jpg\"/></manifest>"
    "<spine><itemref idref=\"p\"/><itemref idref=\"a\"/><itemref idref=\"b\"/></spine></package>";
static const document_part whole[] = {
    {"mimetype", "application/epub+zip"},
    {"OEBPS/text/two b.xhtml",
     "<html><head><title>no</title></head><body><p>Two &#228;.</p></body>"},
    {"OEBPS/cover.jpg", "no picture"},
    {"META-INF/container.xml", container},
    {"OEBPS/book.opf", package},
    {"OEBPS/text/one.xhtml", "<html><body><h1>One</h1><p>First.</p></body></html>"},
};
enum { PARTS = sizeof whole / sizeof *whole };

const char *document_make_epub(char *folder, const char *file, const char *changed,
                               const char *text, int64_t bytes, const document_part *more)
{
    const char *path = folder_path(folder, "%s", file);
    struct archive *archive = archive_write_new();
    archive_write_set_format_zip(archive);
    assert_int_equal(archive_write_open_filename(archive, path), ARCHIVE_OK);
    for (int i = 0; i <= PARTS; i++) {
        const document_part *p = i < PARTS ? &whole[i] : more;
        const char *data = p && changed && strcmp(p->name, changed) == 0 ? text
                           : p                                           ? p->text
                                                                         : NULL;
        if (!data)
            continue;
        int64_t size = data == text && bytes >= 0 ? bytes : (int64_t)strlen(data);
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, p->name);
        archive_entry_set_size(entry, size);
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        if (i == 0)
            archive_write_zip_set_compression_store(archive);
        else
            archive_write_zip_set_compression_deflate(archive);
        assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
        assert_int_equal(archive_write_data(archive, data, (size_t)size), size);
        archive_entry_free(entry);
    }
    archive_write_free(archive);
    return path;
}

const char *document_make_pdf(char *folder, const char *file, const char *const *pages, int count,
                              const char *trailer)
{
    mn__string pdf = {0};
    int64_t places[32];
    int objects = 0;
#define OBJECT places[++objects] = pdf.bytes, mn__string_printf
    mn__string_puts(&pdf, "%PDF-1.4\n");
    OBJECT(&pdf, "%d 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n", objects);
    OBJECT(&pdf, "%d 0 obj\n<</Type/Pages/Count %d/Kids[", objects, count);
    for (int i = 0; i < count; i++)
        mn__string_printf(&pdf, "%d 0 R ", 4 + 2 * i);
    mn__string_puts(&pdf, "]>>\nendobj\n");
    OBJECT(&pdf, "%d 0 obj\n<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>\nendobj\n", objects);
    for (int i = 0; i < count; i++) {
        mn__string content = {0};
        if (*pages[i])
            mn__string_printf(&content, "BT /F 12 Tf 72 700 Td (%s) Tj ET", pages[i]);
        OBJECT(&pdf,
               "%d 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents %d 0 R"
               "/Resources<</Font<</F 3 0 R>>>>>>\nendobj\n",
               objects, objects + 1);
        OBJECT(&pdf, "%d 0 obj\n<</Length %lld>>\nstream\n%s\nendstream\nendobj\n", objects,
               (long long)content.bytes, content.text ? content.text : "");
        mn__string_free(&content);
    }
    int64_t table = pdf.bytes;
    mn__string_printf(&pdf, "xref\n0 %d\n0000000000 65535 f \n", objects + 1);
    for (int i = 1; i <= objects; i++)
        mn__string_printf(&pdf, "%010lld 00000 n \n", (long long)places[i]);
    mn__string_printf(&pdf, "trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%lld\n%%%%EOF\n",
                      objects + 1, trailer, (long long)table);
    const char *path = folder_path(folder, "%s", file);
    folder_write(path, pdf.text, pdf.bytes);
    mn__string_free(&pdf);
    return path;
}
