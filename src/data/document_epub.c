/* EPUB as text: a zip archive. META-INF/container.xml names the package file; its manifest
 * names the book's files, its spine their order. All that may be text is unpacked once, in the
 * order of the archive; pictures, fonts and sounds are passed over. */
#include "data/document.h"

#ifdef MN__HAVE_LIBXML2

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <libxml/parser.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

enum { MOST_FILES = 10000, PIECE = 1 << 16 };
#define MOST_UNPACKED (INT64_C(256) << 20)

typedef struct member {
    char *name;
    mn__string data;
} member;

typedef struct book {
    const char *path;
    mn_error *error;
    member *members; /* [count] */
    int64_t count, capacity, unpacked;
} book;

static mn_status no_memory(const book *b)
{
    return mn__fail(b->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", b->path);
}

static mn_status damaged(const book *b, const char *what, const char *which)
{
    return mn__fail(b->error, MN_ERROR_FORMAT, "the book may be damaged; get it again",
                    "%s: %s%s%s", b->path, what, which ? " " : "", which ? which : "");
}

/* ---- Unpacking ---------------------------------------------------------------------------- */

static bool may_be_text(const char *name)
{
    static const char *const passed[] = {".jpg", ".jpeg", ".png", ".gif",  ".svg",   ".webp",
                                         ".css", ".ttf",  ".otf", ".woff", ".woff2", ".mp3",
                                         ".mp4", ".m4a",  ".ogg", ".js"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof passed / sizeof *passed; i++)
        if (strcasecmp(dot, passed[i]) == 0)
            return false;
    return true;
}

static mn_status fail_archive(const book *b, struct archive *archive)
{
    if (archive_errno(archive) == ENOMEM)
        return no_memory(b);
    const char *why = archive_error_string(archive);
    return damaged(b, why ? why : "cannot be unpacked", NULL);
}

static mn_status unpack_member(book *b, struct archive *archive, mn__string *data)
{
    for (;;) {
        if (!mn__string_reserve(data, PIECE))
            return no_memory(b);
        la_ssize_t got = archive_read_data(archive, data->text + data->bytes, PIECE);
        if (got < 0)
            return fail_archive(b, archive);
        if (got == 0)
            break;
        data->bytes += got;
        b->unpacked += got;
        if (b->unpacked > MOST_UNPACKED)
            return mn__fail(b->error, MN_ERROR_FORMAT, NULL,
                            "%s: unpacks to over %lld MiB, which no book does", b->path,
                            (long long)(MOST_UNPACKED >> 20));
    }
    data->text[data->bytes] = '\0';
    return MN_OK;
}

static mn_status add_member(book *b, struct archive *archive, const char *name)
{
    if (b->count == b->capacity) {
        int64_t capacity = b->capacity ? 2 * b->capacity : 64;
        member *moved = mn__realloc(b->members, mn__size_product(capacity, (int64_t)sizeof *moved));
        if (!moved)
            return no_memory(b);
        b->members = moved;
        b->capacity = capacity;
    }
    member *m = &b->members[b->count];
    *m = (member){.name = mn__strdup(name)};
    if (!m->name)
        return no_memory(b);
    b->count++;
    return unpack_member(b, archive, &m->data);
}

static mn_status unpack_all(book *b, struct archive *archive)
{
    struct archive_entry *entry;
    mn_status status = MN_OK;
    int result = ARCHIVE_OK;
    for (int64_t n = 0; !status; n++) {
        result = archive_read_next_header(archive, &entry);
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
            break;
        const char *name = archive_entry_pathname_utf8(entry);
        if (n == MOST_FILES)
            status = mn__fail(b->error, MN_ERROR_FORMAT, NULL, "%s: holds over %d files", b->path,
                              MOST_FILES);
        else if (name && archive_entry_filetype(entry) == AE_IFREG && may_be_text(name))
            status = add_member(b, archive, name);
    }
    if (!status && result != ARCHIVE_EOF)
        status = fail_archive(b, archive);
    return status;
}

static mn_status unpack(book *b)
{
    struct archive *archive = archive_read_new();
    if (!archive)
        return no_memory(b);
    archive_read_support_format_zip(archive);
    mn_status status = MN_OK;
    if (archive_read_open_filename(archive, b->path, PIECE) != ARCHIVE_OK)
        status = fail_archive(b, archive);
    if (!status)
        status = unpack_all(b, archive);
    archive_read_free(archive);
    return status;
}

static const member *find(const book *b, const char *name)
{
    for (int64_t i = 0; i < b->count; i++)
        if (strcmp(b->members[i].name, name) == 0)
            return &b->members[i];
    return NULL;
}

/* ---- Names ----------------------------------------------------------------------------------- */

static int hexadecimal(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* %41 is A; what follows # is a place in the file. In place. */
static void decode_reference(char *name)
{
    char *to = name;
    for (const char *at = name; *at && *at != '#'; at++) {
        int high = *at == '%' ? hexadecimal(at[1]) : -1, low = high < 0 ? -1 : hexadecimal(at[2]);
        if (low >= 0 && (high || low)) {
            *to++ = (char)(16 * high + low);
            at += 2;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

/* "a/./b/../c" is "a/c". In place. */
static void resolve_dots(char *name)
{
    char *to = name;
    for (const char *at = name; *at;) {
        size_t length = strcspn(at, "/");
        bool up = length == 2 && at[0] == '.' && at[1] == '.';
        if (up) {
            if (to > name)
                to--; /* the slash */
            while (to > name && to[-1] != '/')
                to--;
        } else if (length > 0 && !(length == 1 && *at == '.')) {
            memmove(to, at, length);
            to += length;
            if (at[length] == '/')
                *to++ = '/';
        }
        at += length + (at[length] == '/');
    }
    *to = '\0';
}

/* The member that `reference` in the file `from` names; by mn__free. */
static char *resolve(const char *from, const char *reference)
{
    mn__string name = {0};
    const char *slash = reference[0] == '/' ? NULL : strrchr(from, '/');
    if (slash)
        mn__string_add(&name, from, slash - from + 1);
    mn__string_puts(&name, reference);
    if (name.failed) {
        mn__string_free(&name);
        return NULL;
    }
    decode_reference(name.text);
    resolve_dots(name.text);
    return name.text;
}

/* ---- The package ----------------------------------------------------------------------------- */

static void on_error(void *user, const char *format, ...)
{
    (void)user;
    (void)format;
}

/* Entities are not put in, so that none can grow. */
static mn_status parse_xml(const book *b, const member *m, xmlDocPtr *tree)
{
    *tree = NULL;
    xmlParserCtxtPtr parser = xmlNewParserCtxt();
    if (!parser)
        return no_memory(b);
    parser->sax->error = on_error;
    parser->sax->warning = on_error;
    parser->sax->serror = NULL;
    if (m->data.bytes <= INT_MAX)
        *tree = xmlCtxtReadMemory(parser, m->data.text, (int)m->data.bytes, NULL, NULL,
                                  XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    xmlFreeParserCtxt(parser);
    return *tree ? MN_OK : damaged(b, "this part is not well-formed:", m->name);
}

/* The next element after `at` inside `root`, in the order of the text; NULL at the end. */
static xmlNodePtr next_element(xmlNodePtr at, const xmlNode *root)
{
    do {
        if (at->children && at->type == XML_ELEMENT_NODE) {
            at = at->children;
        } else {
            while (at != root && !at->next)
                at = at->parent;
            if (at == root)
                return NULL;
            at = at->next;
        }
    } while (at->type != XML_ELEMENT_NODE);
    return at;
}

/* The next element of that name (without its namespace's prefix), from `at` on. */
static xmlNodePtr find_element(xmlNodePtr at, const xmlNode *root, const char *name)
{
    while (at && strcmp((const char *)at->name, name) != 0)
        at = next_element(at, root);
    return at;
}

static xmlNodePtr find_item(xmlNodePtr root, const xmlChar *id)
{
    xmlNodePtr item = find_element(root, root, "item");
    for (; item; item = find_element(next_element(item, root), root, "item")) {
        xmlChar *own = xmlGetNoNsProp(item, (const xmlChar *)"id");
        bool same = own && xmlStrEqual(own, id);
        xmlFree(own);
        if (same)
            return item;
    }
    return NULL;
}

static mn_status add_chapter(const book *b, const char *name, mn__string *text)
{
    const member *m = find(b, name);
    if (!m)
        return damaged(b, "a part of the book is missing:", name);
    if (text->bytes > 0)
        mn__string_puts(text, "\n");
    mn_status status = mn__document_html(b->path, m->data.text, m->data.bytes, text, b->error);
    if (!status && text->failed)
        return no_memory(b);
    if (!status && text->bytes > MN__DOCUMENT_MOST_TEXT)
        return mn__document_too_long(b->path, b->error);
    return status;
}

/* Locked books list what is locked; fonts may be, the text not. */
static bool is_locked(const book *b, const char *name)
{
    const member *list = find(b, "META-INF/encryption.xml");
    return list && memmem(list->data.text, (size_t)list->data.bytes, name, strlen(name)) != NULL;
}

static mn_status read_chapter(const book *b, const char *package, xmlNodePtr item, mn__string *text)
{
    xmlChar *reference = item ? xmlGetNoNsProp(item, (const xmlChar *)"href") : NULL;
    if (!reference)
        return damaged(b, "the spine names a part that is not in the manifest", NULL);
    char *name = resolve(package, (const char *)reference);
    xmlFree(reference);
    if (!name)
        return no_memory(b);
    mn_status status;
    if (is_locked(b, name))
        status = mn__fail(b->error, MN_ERROR_UNSUPPORTED, "get a copy without copy protection",
                          "%s: the book is locked (DRM)", b->path);
    else
        status = may_be_text(name) ? add_chapter(b, name, text) : MN_OK; /* a page of a picture */
    mn__free(name);
    return status;
}

static mn_status read_spine(const book *b, const char *package, xmlNodePtr root, mn__string *text)
{
    xmlNodePtr spine = find_element(root, root, "spine");
    if (!spine)
        return damaged(b, "the package has no spine", NULL);
    mn_status status = MN_OK;
    int64_t chapters = 0;
    xmlNodePtr item = find_element(spine, spine, "itemref");
    for (; !status && item; item = find_element(next_element(item, spine), spine, "itemref")) {
        xmlChar *id = xmlGetNoNsProp(item, (const xmlChar *)"idref");
        if (id)
            status = read_chapter(b, package, find_item(root, id), text);
        xmlFree(id);
        if (++chapters > MOST_FILES)
            return mn__fail(b->error, MN_ERROR_FORMAT, NULL, "%s: the spine is over %d parts long",
                            b->path, MOST_FILES);
    }
    return !status && chapters == 0 ? damaged(b, "the spine is empty", NULL) : status;
}

static mn_status read_package(const book *b, const char *name, mn__string *text)
{
    xmlDocPtr tree;
    const member *m = find(b, name);
    if (!m)
        return damaged(b, "the package file is missing:", name);
    mn_status status = parse_xml(b, m, &tree);
    if (status)
        return status;
    xmlNodePtr root = xmlDocGetRootElement(tree);
    status = root ? read_spine(b, name, root, text) : damaged(b, "the package is empty", NULL);
    xmlFreeDoc(tree);
    return status;
}

/* The package's name in container.xml; by mn__free. */
static mn_status find_package(const book *b, char **name)
{
    xmlDocPtr tree;
    const member *m = find(b, "META-INF/container.xml");
    *name = NULL;
    if (!m)
        return damaged(b, "is no EPUB: META-INF/container.xml is missing", NULL);
    mn_status status = parse_xml(b, m, &tree);
    if (status)
        return status;
    xmlNodePtr root = xmlDocGetRootElement(tree);
    xmlNodePtr file = root ? find_element(root, root, "rootfile") : NULL;
    xmlChar *path = file ? xmlGetNoNsProp(file, (const xmlChar *)"full-path") : NULL;
    if (!path)
        status = damaged(b, "META-INF/container.xml names no package", NULL);
    else if (!(*name = resolve("", (const char *)path)))
        status = no_memory(b);
    xmlFree(path);
    xmlFreeDoc(tree);
    return status;
}

mn_status mn__document_epub(const char *path, mn__string *text, mn_error *error)
{
    book b = {.path = path, .error = error};
    char *package = NULL;
    mn_status status = unpack(&b);
    if (!status)
        status = find_package(&b, &package);
    if (!status)
        status = read_package(&b, package, text);
    for (int64_t i = 0; i < b.count; i++) {
        mn__free(b.members[i].name);
        mn__string_free(&b.members[i].data);
    }
    mn__free(b.members);
    mn__free(package);
    return status;
}

#else

/* mn__document_readable has said so before. */
mn_status mn__document_epub(const char *path, mn__string *text, mn_error *error)
{
    (void)text;
    return mn__document_readable(path, MN__DOCUMENT_EPUB, error);
}

#endif
