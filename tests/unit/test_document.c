/* Documents as text: HTML, EPUB and PDF, whole and hostile; the files are made here. What a build
 * was made without is refused, saying so. */
#include "unit/faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/corpus.h"
#include "data/document.h"
#include "support/document.h"
#include "support/failing.h"
#include "support/folder.h"

#ifdef MN__HAVE_LIBXML2
static const bool have_html = true;
#else
static const bool have_html = false;
#endif
#ifdef MN__HAVE_POPPLER
static const bool have_pdf = true;
#else
static const bool have_pdf = false;
#endif

static void check_text(const char *path, const char *wanted)
{
    mn__string text = {0};
    mn_error error;
    if (mn__document_text(path, &text, &error))
        fail_msg("%s", error.message);
    assert_string_equal(text.text ? text.text : "", wanted);
    mn__string_free(&text);
}

static void check_fails(const char *path, mn_status code, const char *part)
{
    mn__string text = {0};
    mn_error error = {0};
    mn_status status = mn__document_text(path, &text, &error);
    if (status != code || !strstr(error.message, part))
        fail_msg("%s: %s '%s'", path, mn_status_name(status), error.message);
    mn__string_free(&text);
}

/* ---- HTML ------------------------------------------------------------------------------- */

static void check_html(char *folder, const char *html, int64_t bytes, const char *wanted)
{
    const char *path = folder_path(folder, "page.html");
    folder_write(path, html, bytes);
    check_text(path, wanted);
}

static void test_html(void **state)
{
    static const struct {
        const char *html, *text;
    } cases[] = {
        {"", ""},
        {"plain", "plain\n"},
        {"<p>a  b\n c</p>", "a b c\n"},
        {"<p>one</p>\n<p>two</p>", "one\n\ntwo\n"},
        {"<p>one<p>two", "one\n\ntwo\n"},
        {"<h1>Title</h1>text", "Title\n\ntext\n"},
        {"<div>a<div>b</div></div>c", "a\nb\nc\n"},
        {"a<br>b<br/>c<br><br>d<br><br><br>e", "a\nb\nc\n\nd\n\ne\n"},
        {"<ul><li>a</li><li>b</ul>c", "a\nb\n\nc\n"},
        {"<table><tr><td>1</td><td>2</td></tr><tr><td>3<td>4</table>", "1 2\n3 4\n"},
        {"<pre>  a\n   b\n</pre><p>c", "  a\n   b\n\n\nc\n"},
        {"a<b>b</b> <i> c</i>d", "ab cd\n"},
        {"&lt;p&gt; &amp; &eacute;&#228;&#x65E5;&nbsp;x", "<p> & \xC3\xA9\xC3\xA4\xE6\x97\xA5 x\n"},
        {"hy&shy;phen\xC2\xADs", "hyphens\n"},
        {"<html><head><title>T</title><style>p{}</style></head><body>b</body></html>", "b\n"},
        {"a<script>if (x < 1) { y(\"<p>\"); }</script>b<style>q</style>c", "abc\n"},
        {"a<!-- comment -->b<noscript>c</noscript><template><p>d</p></template>e", "abe\n"},
        {"<p>unclosed <b>tags<p>go on", "unclosed tags\n\ngo on\n"},
        {"</p></div>stray", "stray\n"},
        {"<?xml version=\"1.0\"?><html xmlns=\"http://www.w3.org/1999/xhtml\"><head><title/>"
         "<script src=\"x\"/></head><body><a id=\"1\"/>b</body></html>",
         "b\n"},
        {"a < b and c > d", "a < b and c > d\n"},
        {"nul \xEF\xBB\xBF", "nul \xEF\xBB\xBF\n"},
    };
    if (!have_html) {
        folder_write(folder_path(*state, "page.html"), "a", -1);
        check_fails(folder_path(*state, "page.html"), MN_ERROR_UNSUPPORTED, "without libxml2");
        return;
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_html(*state, cases[i].html, -1, cases[i].text);
    check_html(*state, "a\0b", 3, "ab\n");
}

static void test_character_sets(void **state)
{
    if (!have_html)
        skip();
    check_html(*state, "caf\xC3\xA9", -1, "caf\xC3\xA9\n");
    check_html(*state, "\xEF\xBB\xBF<meta charset=iso-8859-1>caf\xC3\xA9", -1, "caf\xC3\xA9\n");
    check_html(*state, "caf\xE9 \x93q\x94", -1, "caf\xC3\xA9 \xE2\x80\x9Cq\xE2\x80\x9D\n");
    check_html(*state, "<meta charset=\"ISO-8859-1\"><p>\x97\xE9", -1, "\xE2\x80\x94\xC3\xA9\n");
    check_html(*state, "<META http-equiv=Content-Type content='text/html; charset=koi8-r'>\xC1", -1,
               "\xD0\xB0\n");
    check_html(*state, "<?xml version='1.0' encoding='iso-8859-2'?><html>\xB1</html>", -1,
               "\xC4\x85\n");
    check_html(*state,
               "\xFF\xFE"
               "a\0\xE9\0",
               6, "a\xC3\xA9\n");
    check_html(*state,
               "<meta charset=utf-8>a\xFF"
               "b",
               -1,
               "a\xEF\xBF\xBD"
               "b\n");
    check_html(*state, "<meta charset=shift_jis>\x93\xFA\x96\x7B", -1,
               "\xE6\x97\xA5\xE6\x9C\xAC\n");
    folder_write(folder_path(*state, "page.html"), "<meta charset=x-none>a", -1);
    check_fails(folder_path(*state, "page.html"), MN_ERROR_UNSUPPORTED, "'x-none' is not known");
}

static void fill(mn__string *out, const char *what, int64_t times)
{
    for (int64_t i = 0; i < times; i++)
        mn__string_puts(out, what);
    assert_false(out->failed);
}

static void test_hostile_html(void **state)
{
    if (!have_html)
        skip();
    const char *path = folder_path(*state, "page.html");
    mn__string html = {0};
    fill(&html, "<b>", 200000);
    folder_write(path, html.text, html.bytes);
    check_fails(path, MN_ERROR_FORMAT, "nested over 1000 deep");
    mn__string_clear(&html);
    mn__string_puts(&html, "<p ");
    fill(&html, "a ", 200000);
    folder_write(path, html.text, html.bytes);
    check_fails(path, MN_ERROR_FORMAT, "over 10000 attributes");
    mn__string_clear(&html);
    fill(&html, "</p>", 200000); /* each makes an empty paragraph */
    fill(&html, "x", 1000000);
    folder_write(path, html.text, html.bytes);
    mn__string text = {0};
    mn_error error;
    if (mn__document_text(path, &text, &error))
        fail_msg("%s", error.message);
    assert_int_equal(text.bytes, 1000001);
    mn__string_free(&text);
    mn__string_free(&html);
}

/* ---- EPUB -------------------------------------------------------------------------------- */

static mn_status read_it(void *path, mn_error *error)
{
    mn__string text = {0};
    mn_status status = mn__document_text(path, &text, error);
    mn__string_free(&text);
    return status;
}

static void test_epub(void **state)
{
    static const char text[] = "One\n\nFirst.\n\nTwo \xC3\xA4.\n";
    const char *path = document_make_epub(*state, "book.epub", NULL, NULL, 0, NULL);
    if (!have_html) {
        check_fails(path, MN_ERROR_UNSUPPORTED, "without libxml2");
        return;
    }
    check_text(path, text);
    assert_true(failing_each("an EPUB", read_it, (void *)(uintptr_t)path, true, NULL) > 10);
    check_text(document_make_epub(*state, "book.zip.dat", NULL, NULL, 0, NULL),
               text); /* by its bytes */
}

static void test_wrong_epubs(void **state)
{
    if (!have_html)
        skip();
    char *folder = *state;
    const mn_status code = MN_ERROR_FORMAT;
    const struct {
        const char *part, *text, *message;
    } cases[] = {
        {"META-INF/container.xml", NULL, "META-INF/container.xml is missing"},
        {"META-INF/container.xml", "<container/>", "names no package"},
        {"META-INF/container.xml", "<container>", "not well-formed: META-INF/container.xml"},
        {"OEBPS/book.opf", NULL, "the package file is missing: OEBPS/book.opf"},
        {"OEBPS/book.opf", "text", "not well-formed: OEBPS/book.opf"},
        {"OEBPS/book.opf", "<package/>", "has no spine"},
        {"OEBPS/book.opf", "<package><spine/></package>", "the spine is empty"},
        {"OEBPS/book.opf", "<package><spine><itemref idref=\"z\"/></spine></package>",
         "a part that is not in the manifest"},
        {"OEBPS/text/one.xhtml", NULL, "a part of the book is missing: OEBPS/text/one.xhtml"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_fails(
            document_make_epub(folder, "wrong.epub", cases[i].part, cases[i].text, -1, NULL), code,
            cases[i].message);
    folder_write(folder_path(folder, "none.epub"), "no zip", -1);
    check_fails(folder_path(folder, "none.epub"), code, "none.epub: ");
    const document_part locked = {
        "META-INF/encryption.xml",
        "<encryption><CipherReference URI=\"OEBPS/text/one.xhtml\"/></encryption>"};
    check_fails(document_make_epub(folder, "locked.epub", NULL, NULL, 0, &locked),
                MN_ERROR_UNSUPPORTED, "is locked (DRM)");
    /* Entities that double are not put in. */
    const char *laughs = "<!DOCTYPE p [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><package>&b;"
                         "<spine/></package>";
    check_fails(document_make_epub(folder, "laughs.epub", "OEBPS/book.opf", laughs, -1, NULL), code,
                "the spine is empty");
}

/* What unpacks to far more than it is ends early; a file cut short is no book. */
static void test_hostile_epubs(void **state)
{
    if (!have_html)
        skip();
    const int64_t bytes = INT64_C(257) << 20;
    char *zeros = calloc(1, (size_t)bytes);
    assert_non_null(zeros);
    const char *bomb =
        document_make_epub(*state, "bomb.epub", "OEBPS/text/one.xhtml", zeros, bytes, NULL);
    free(zeros);
    check_fails(bomb, MN_ERROR_FORMAT, "unpacks to over 256 MiB");
    folder_remove_all(bomb);
    int64_t size;
    char *good = folder_read(document_make_epub(*state, "cut.epub", NULL, NULL, 0, NULL), &size);
    for (int64_t cut = 0; cut < size; cut += 41) {
        mn__string text = {0};
        mn_error error = {0};
        folder_write(folder_path(*state, "cut.epub"), good, cut);
        mn_status status = mn__document_text(folder_path(*state, "cut.epub"), &text, &error);
        if (status != MN_OK) /* the list at its end may be cut, and all be there */
            assert_true(error.message[0] != '\0');
        else
            assert_string_equal(text.text, "One\n\nFirst.\n\nTwo \xC3\xA4.\n");
        mn__string_free(&text);
    }
    free(good);
}

/* ---- PDF ------------------------------------------------------------------------------------ */

static void test_pdf(void **state)
{
    char *folder = *state;
    const char *const pages[] = {"First page.", "", "Third page."};
    const char *path = document_make_pdf(folder, "a book.pdf", pages, 3, "");
    if (!have_pdf) {
        check_fails(path, MN_ERROR_UNSUPPORTED, "without poppler-glib");
        return;
    }
    check_text(path, "First page.\nThird page.\n");
    check_text(document_make_pdf(folder, "pdf.dat", pages, 1, ""),
               "First page.\n"); /* by its bytes */
    const char *const scanned[] = {"", ""};
    check_fails(document_make_pdf(folder, "scan.pdf", scanned, 2, ""), MN_ERROR_UNSUPPORTED,
                "there is no text in its 2 pages");
    folder_write(folder_path(folder, "none.pdf"), "no PDF at all", -1);
    check_fails(folder_path(folder, "none.pdf"), MN_ERROR_FORMAT, "not a readable PDF");
    const char *lock = "/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4"
                       "/O<0000000000000000000000000000000000000000000000000000000000000000>"
                       "/U<0000000000000000000000000000000000000000000000000000000000000000>>>";
    check_fails(document_make_pdf(folder, "locked.pdf", pages, 1, lock), MN_ERROR_UNSUPPORTED,
                "locked by a password");
    assert_true(failing_each("a PDF", read_it, (void *)(uintptr_t)path, true, NULL) > 0);
}

/* ---- Kinds and corpora ------------------------------------------------------------------------
 */

static void test_kinds(void **state)
{
    static const struct {
        const char *name, *text;
        mn__document_kind kind;
    } cases[] = {
        {"a.txt", "text", MN__DOCUMENT_TEXT},
        {"a.md", "# Title", MN__DOCUMENT_TEXT},
        {"a.txt", "<html>is text here", MN__DOCUMENT_TEXT},
        {"a", "\xEF\xBB\xBF \n<!DOCTYPE HTML><p>x", MN__DOCUMENT_HTML},
        {"a", "<htm", MN__DOCUMENT_TEXT},
        {"a.HTM", "x", MN__DOCUMENT_HTML},
        {"a.txt", "%PDF-1.7", MN__DOCUMENT_PDF},
        {"a.pdf", "", MN__DOCUMENT_PDF},
        {"a.EPUB", "", MN__DOCUMENT_EPUB},
        {"a", "PK\3\4", MN__DOCUMENT_TEXT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mn__document_kind kind;
        const char *path = folder_path(*state, "kinds/%s", cases[i].name);
        folder_write(path, cases[i].text, -1);
        assert_int_equal(mn__document_recognise(path, &kind, NULL), MN_OK);
        assert_int_equal(kind, cases[i].kind);
    }
    check_fails(folder_path(*state, "kinds/missing.pdf"), MN_ERROR_IO, "missing.pdf");
    folder_write(folder_path(*state, "kinds/a.md"), "# As *it* stands\r\n", -1);
    check_text(folder_path(*state, "kinds/a.md"), "# As *it* stands\r\n");
}

static void check_document(const mn__corpus *corpus, int64_t at, const char *name,
                           const char *wanted)
{
    mn__document_reader *reader;
    mn__string text = {0};
    mn_error error;
    char piece[8];
    int64_t got = 1;
    assert_string_equal(corpus->documents[at].name, name);
    if (mn__document_reader_open(&reader, corpus, at, MN__NEWLINES_LF, &error))
        fail_msg("%s", error.message);
    while (got > 0) {
        if (mn__document_reader_read(reader, piece, sizeof piece, &got, &error))
            fail_msg("%s", error.message);
        mn__string_add(&text, piece, got);
    }
    assert_string_equal(text.text, wanted);
    mn__document_reader_close(reader);
    mn__string_free(&text);
}

/* A folder of all kinds, and one page cut into splits at its lines. */
static void test_corpora(void **state)
{
    if (!have_html)
        skip();
    char *folder = *state;
    mn__corpus *corpus;
    mn_error error;
    folder_write(folder_path(folder, "all/a.txt"), "text\n", -1);
    folder_write(folder_path(folder, "all/b.html"), "<p>page", -1);
    folder_write(folder_path(folder, "all/c.md"), "*md*\n", -1);
    folder_write(folder_path(folder, "all/README.md"), "no", -1);
    folder_write(folder_path(folder, "all/d.doc"), "no", -1);
    const char *const names[] = {folder_path(folder, "all")};
    const mn__corpus_options none = {0}, half = {.validation = 0.5};
    if (mn__corpus_open(&corpus, names, 1, none, &error))
        fail_msg("%s", error.message);
    assert_int_equal(corpus->count, 3);
    assert_int_equal(mn__corpus_bytes(corpus), -1);
    check_document(corpus, 0, "a", "text\n");
    check_document(corpus, 1, "b.html", "page\n");
    check_document(corpus, 2, "c.md", "*md*\n");
    mn__corpus_close(corpus);
    folder_write(folder_path(folder, "lines.html"), "<p>one<br>two<br>three<br>four", -1);
    const char *const page[] = {folder_path(folder, "lines.html")};
    if (mn__corpus_open(&corpus, page, 1, half, &error))
        fail_msg("%s", error.message);
    assert_int_equal(corpus->count, 2);
    check_document(corpus, 0, "lines.html/train", "one\ntwo\nthree\n");
    check_document(corpus, 1, "lines.html/validation", "four\n");
    mn__corpus_close(corpus);
    const char *const tree[] = {folder_path(folder, "all")};
    mn__string name = {0};
    mn__string_printf(&name, "tree=%s", tree[0]);
    const char *const as_tree[] = {name.text};
    if (mn__corpus_open(&corpus, as_tree, 1, none, &error))
        fail_msg("%s", error.message);
    check_document(corpus, 2, "b.html", "<p>page"); /* source, as it stands */
    mn__corpus_close(corpus);
    mn__string_free(&name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_html),         cmocka_unit_test(test_character_sets),
        cmocka_unit_test(test_hostile_html), cmocka_unit_test(test_epub),
        cmocka_unit_test(test_wrong_epubs),  cmocka_unit_test(test_hostile_epubs),
        cmocka_unit_test(test_pdf),          cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_corpora),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
