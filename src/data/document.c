/* Which kind of document a file is, and its character set. */
#include "data/document.h"

#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/memory.h"
#include "text/utf8.h"

enum { BEGINNING = 1024, DECLARED_WITHIN = 4096, MOST_HTML = 1 << 30 };

/* ---- Kinds ------------------------------------------------------------------------------ */

static bool ends_in(const char *path, const char *const *endings)
{
    const char *dot = strrchr(path, '.');
    for (; dot && *endings; endings++)
        if (strcasecmp(dot, *endings) == 0)
            return true;
    return false;
}

static const char *const plain_endings[] = {".txt", ".md", ".markdown", NULL};
static const char *const html_endings[] = {".html", ".htm", ".xhtml", NULL};

bool mn__document_is_named(const char *path)
{
    static const char *const others[] = {".md", ".markdown", ".epub", ".pdf", NULL};
    return ends_in(path, html_endings) || ends_in(path, others);
}

/* After a byte-order mark and white space: <!doctype html or <html. */
static bool begins_as_html(const char *text, int64_t bytes)
{
    int64_t at = bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < bytes && isspace((unsigned char)text[at]))
        at++;
    return (bytes - at >= 14 && strncasecmp(text + at, "<!doctype html", 14) == 0) ||
           (bytes - at >= 5 && strncasecmp(text + at, "<html", 5) == 0);
}

/* A zip archive whose first file is "mimetype", stored, as the EPUB standard has it. */
static bool begins_as_epub(const char *text, int64_t bytes)
{
    static const char type[] = "application/epub+zip";
    const unsigned char *b = (const unsigned char *)text;
    if (bytes < 38 || memcmp(text, "PK\3\4", 4) != 0 || memcmp(text + 30, "mimetype", 8) != 0)
        return false;
    int64_t at = 30 + (b[26] | b[27] << 8) + (b[28] | b[29] << 8); /* name and extra fields */
    return bytes - at >= (int64_t)sizeof type - 1 && memcmp(text + at, type, sizeof type - 1) == 0;
}

mn_status mn__document_recognise(const char *path, mn__document_kind *kind, mn_error *error)
{
    static const char *const epub[] = {".epub", NULL}, *const pdf[] = {".pdf", NULL};
    char text[BEGINNING];
    *kind = MN__DOCUMENT_TEXT;
    FILE *file = fopen(path, "rb");
    if (!file)
        return mn__fail_errno(error, NULL, "%s", path);
    int64_t bytes = (int64_t)fread(text, 1, sizeof text, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed)
        return mn__fail(error, MN_ERROR_IO, NULL, "%s: cannot read", path);
    if (ends_in(path, pdf) || memmem(text, (size_t)bytes, "%PDF-", 5) == text)
        *kind = MN__DOCUMENT_PDF;
    else if (ends_in(path, epub) || begins_as_epub(text, bytes))
        *kind = MN__DOCUMENT_EPUB;
    else if (ends_in(path, html_endings) ||
             (!ends_in(path, plain_endings) && begins_as_html(text, bytes)))
        *kind = MN__DOCUMENT_HTML;
    return MN_OK;
}

mn_status mn__document_readable(const char *path, mn__document_kind kind, mn_error *error)
{
    const char *lacks = NULL;
#ifndef MN__HAVE_LIBXML2
    if (kind == MN__DOCUMENT_HTML || kind == MN__DOCUMENT_EPUB)
        lacks = "libxml2";
#endif
#ifndef MN__HAVE_POPPLER
    if (kind == MN__DOCUMENT_PDF)
        lacks = "poppler-glib";
#endif
    (void)kind;
    if (!lacks)
        return MN_OK;
    return mn__fail(error, MN_ERROR_UNSUPPORTED,
                    "install that library with its headers and build again, or turn the document"
                    " into text first",
                    "%s: this build was made without %s and cannot read it", path, lacks);
}

/* ---- Character sets ----------------------------------------------------------------------- */

/* A name after `key` and "=", in quotes or not. */
static bool read_declared(const char *at, const char *end, const char *key, char name[64])
{
    at = memmem(at, (size_t)(end - at), key, strlen(key));
    if (!at)
        return false;
    at += strlen(key);
    while (at < end && (isspace((unsigned char)*at) || *at == '=' || *at == '"' || *at == '\''))
        at++;
    int length = 0;
    while (at < end && length < 63 &&
           (isalnum((unsigned char)*at) || *at == '-' || *at == '_' || *at == ':' || *at == '.'))
        name[length++] = *at++;
    name[length] = '\0';
    return length > 0;
}

/* The character set that <?xml or a <meta> near the beginning names. */
static bool find_declared(const char *html, int64_t bytes, char name[64])
{
    char head[DECLARED_WITHIN];
    int64_t count = bytes < DECLARED_WITHIN ? bytes : DECLARED_WITHIN;
    for (int64_t i = 0; i < count; i++)
        head[i] = (char)tolower((unsigned char)html[i]);
    const char *end = head + count, *at = head;
    if (count > 5 && memcmp(head, "<?xml", 5) == 0) {
        const char *stop = memmem(head, (size_t)count, "?>", 2);
        if (stop && read_declared(head, stop, "encoding", name))
            return true;
    }
    while ((at = memmem(at, (size_t)(end - at), "<meta", 5)) != NULL) {
        const char *stop = memchr(at, '>', (size_t)(end - at));
        if (!stop)
            return false;
        if (read_declared(at, stop, "charset", name))
            return true;
        at = stop;
    }
    return false;
}

static void choose_set(const char *html, int64_t bytes, char name[64], int64_t *mark)
{
    const unsigned char *b = (const unsigned char *)html;
    *mark = 0;
    if (bytes >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF) {
        *mark = 3;
        strcpy(name, "utf-8");
    } else if (bytes >= 2 && ((b[0] == 0xFF && b[1] == 0xFE) || (b[0] == 0xFE && b[1] == 0xFF))) {
        *mark = 2;
        strcpy(name, b[0] == 0xFF ? "utf-16le" : "utf-16be");
    } else if (!find_declared(html, bytes, name)) {
        strcpy(name, mn__utf8_valid(html, bytes) == bytes ? "utf-8" : "windows-1252");
    } else if (strncmp(name, "utf-16", 6) == 0) {
        strcpy(name, "utf-8"); /* it was read as ASCII: HTML's rule */
    } else if (strcmp(name, "iso-8859-1") == 0 || strcmp(name, "latin1") == 0 ||
               strcmp(name, "us-ascii") == 0 || strcmp(name, "ascii") == 0) {
        strcpy(name, "windows-1252"); /* the same */
    }
}

static mn_status no_memory(const char *name, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name);
}

/* By iconv; a byte that begins no character becomes U+FFFD. */
static mn_status convert(const char *name, const char *set, const char *text, int64_t bytes,
                         mn__string *out, mn_error *error)
{
    iconv_t converter = iconv_open("UTF-8", set);
    if (converter == (iconv_t)-1)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, "convert it to UTF-8 first",
                        "%s: the character set '%s' is not known", name, set);
    char *from = (char *)(uintptr_t)text, piece[4096];
    size_t left = (size_t)bytes;
    while (left > 0 && !out->failed) {
        char *to = piece;
        size_t room = sizeof piece;
        size_t result = iconv(converter, &from, &left, &to, &room);
        mn__string_add(out, piece, to - piece);
        if (result == (size_t)-1 && errno != E2BIG) {
            mn__string_puts(out, "\xEF\xBF\xBD");
            from++;
            left--;
        }
    }
    iconv_close(converter);
    return out->failed ? no_memory(name, error) : MN_OK;
}

static void drop_nul(mn__string *text)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < text->bytes; i++)
        if (text->text[i] != '\0')
            text->text[kept++] = text->text[i];
    text->bytes = kept;
    if (text->text)
        text->text[kept] = '\0';
}

mn_status mn__document_decode(const char *name, const char *html, int64_t bytes, mn__string *out,
                              mn_error *error)
{
    char set[64];
    int64_t mark;
    mn_status status = MN_OK;
    choose_set(html, bytes, set, &mark);
    if (strcmp(set, "utf-8") == 0 || strcmp(set, "utf8") == 0) {
        mn__utf8_stream stream = {0};
        mn__utf8_stream_feed(&stream, html + mark, bytes - mark, out);
        mn__utf8_stream_end(&stream, out);
    } else {
        status = convert(name, set, html + mark, bytes - mark, out, error);
    }
    if (!status && out->failed)
        status = no_memory(name, error);
    if (!status)
        drop_nul(out);
    return status;
}

/* ---- Texts ----------------------------------------------------------------------------------- */

mn_status mn__document_too_long(const char *name, mn_error *error)
{
    return mn__fail(error, MN_ERROR_FORMAT, "read it in parts", "%s: over %d MiB of text", name,
                    MN__DOCUMENT_MOST_TEXT >> 20);
}

mn_status mn__document_text(const char *path, mn__string *text, mn_error *error)
{
    mn__document_kind kind;
    mn_status status = mn__document_recognise(path, &kind, error);
    if (!status)
        status = mn__document_readable(path, kind, error);
    if (status)
        return status;
    if (kind == MN__DOCUMENT_EPUB)
        return mn__document_epub(path, text, error);
    if (kind == MN__DOCUMENT_PDF)
        return mn__document_pdf(path, text, error);
    char *all;
    int64_t bytes;
    status = mn__file_read(path, MOST_HTML, &all, &bytes, error);
    if (status)
        return status;
    if (kind == MN__DOCUMENT_HTML)
        status = mn__document_html(path, all, bytes, text, error);
    else
        mn__string_add(text, all, bytes);
    mn__free(all);
    return !status && text->failed ? no_memory(path, error) : status;
}
